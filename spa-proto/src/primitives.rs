//! The primitives of SPEC §2 in the notation of the spec, and nothing above them.
//!
//! Every `expect` in this crate's cryptography stands here, beside the length that rules it out.

use chacha20::ChaCha20;
use chacha20::cipher::{KeyIvInit, StreamCipher};
use chacha20poly1305::aead::AeadInOut;
use chacha20poly1305::{ChaCha20Poly1305, KeyInit};
use hkdf::Hkdf;
use hmac::{Hmac, Mac};
use sha2::{Digest, Sha256};
use x25519_dalek::{PublicKey, StaticSecret};
use zeroize::Zeroizing;

#[cfg(fuzzing)]
mod remembered;

/// A derived key, wiped on drop.
pub(crate) type Key = Zeroizing<[u8; 32]>;

/// Length of an AEAD tag in bytes (RFC 8439 §2.8).
pub(crate) const AEAD_TAG_LEN: usize = 16;

/// A Diffie-Hellman result of zero: the other side's key has small order (SPEC §2).
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the other side's X25519 key has small order")]
pub struct NotContributory;

/// `H(x)` = SHA-256 over the joined parts.
pub(crate) fn hash(parts: &[&[u8]]) -> [u8; 32] {
    let mut hasher = Sha256::new();
    parts.iter().for_each(|part| hasher.update(part));
    hasher.finalize().into()
}

/// `Mac(k, x)` = HMAC-SHA-256 over the joined parts.
pub(crate) fn mac(key: &[u8; 32], parts: &[&[u8]]) -> [u8; 32] {
    let mut mac = <Hmac<Sha256> as KeyInit>::new_from_slice(key)
        .expect("HMAC takes a key of any length (RFC 2104 §3)");
    parts.iter().for_each(|part| mac.update(part));
    mac.finalize().into_bytes().into()
}

/// `Ext(salt, ikm)` = HKDF-Extract.
pub(crate) fn extract(salt: &[u8; 32], ikm: &[u8]) -> Key {
    // HKDF-Extract is HMAC keyed with the salt (RFC 5869 §2.2).
    Zeroizing::new(mac(salt, &[ikm]))
}

/// `Exp(k, label, ctx)` = HKDF-Expand(k, label ‖ ctx, 32).
pub(crate) fn expand(key: &[u8; 32], label: &str, context: &[u8]) -> Key {
    let mut out = Key::default();
    Hkdf::<Sha256>::from_prk(key)
        .expect("a pseudorandom key of 32 bytes is as long as the hash (RFC 5869 §2.3)")
        .expand_multi_info(&[label.as_bytes(), context], out.as_mut_slice())
        .expect("32 bytes are one block of HKDF-Expand");
    out
}

#[cfg(fuzzing)]
pub(crate) use remembered::{diffie_hellman, x25519_public};
#[cfg(not(fuzzing))]
pub(crate) use {agree as diffie_hellman, raise as x25519_public};

/// `X25519(secret, 9)`, the public half.
pub(crate) fn raise(secret: &StaticSecret) -> [u8; 32] {
    PublicKey::from(secret).to_bytes()
}

/// `X25519(secret, public)`, which MUST be contributory.
pub(crate) fn agree(secret: &StaticSecret, public: &[u8; 32]) -> Result<Key, NotContributory> {
    let shared = secret.diffie_hellman(&PublicKey::from(*public));
    if shared.was_contributory() {
        Ok(Zeroizing::new(*shared.as_bytes()))
    } else {
        Err(NotContributory)
    }
}

/// ChaCha20-Poly1305 in place; every key is used once, so the nonce is zero.
pub(crate) fn aead_seal(key: &[u8; 32], ad: &[u8], text: &mut [u8]) -> [u8; AEAD_TAG_LEN] {
    ChaCha20Poly1305::new(key.into())
        .encrypt_inout_detached(&[0; 12].into(), ad, text.into())
        .expect("a text of a few hundred bytes is far below the limit of RFC 8439 §2.8")
        .into()
}

/// The inverse of [`aead_seal`]. On failure `text` holds nothing of use.
pub(crate) fn aead_open(
    key: &[u8; 32],
    ad: &[u8],
    text: &mut [u8],
    tag: &[u8; AEAD_TAG_LEN],
) -> Result<(), AeadMismatch> {
    ChaCha20Poly1305::new(key.into())
        .decrypt_inout_detached(&[0; 12].into(), ad, text.into(), tag.into())
        .map_err(|_| AeadMismatch)
}

/// The AEAD tag does not hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct AeadMismatch;

/// XORs the ChaCha20 keystream of (`key`, `nonce` ‖ 00000000, block 0) onto `text` (SPEC §5).
pub(crate) fn mask(key: &[u8; 32], nonce: &[u8; 8], text: &mut [u8]) {
    let nonce: [u8; 12] = join(&[nonce, &[0; 4]]);
    ChaCha20::new(key.into(), &nonce.into()).apply_keystream(text);
}

/// The first `N` bytes of a hash: the spec's `[0..N)`.
pub(crate) fn truncate<const N: usize>(whole: &[u8; 32]) -> [u8; N] {
    const { assert!(N <= 32) };
    *whole
        .first_chunk()
        .expect("N is at most 32, checked when compiled")
}

/// `a ‖ b ‖ …` into an array.
///
/// # Panics
/// If the parts are not `N` bytes together. Only for parts whose lengths are fixed.
pub(crate) fn join<const N: usize>(parts: &[&[u8]]) -> [u8; N] {
    let mut out = [0; N];
    let mut rest = out.as_mut_slice();
    for part in parts {
        let (here, behind) = rest.split_at_mut(part.len());
        here.copy_from_slice(part);
        rest = behind;
    }
    assert!(rest.is_empty(), "the parts fill the array");
    out
}

/// Splits an array in two; the lengths are checked when compiled.
pub(crate) fn split<const A: usize, const B: usize, const N: usize>(
    whole: &[u8; N],
) -> (&[u8; A], &[u8; B]) {
    const { assert!(A + B == N) };
    let head = whole
        .first_chunk()
        .expect("A is at most N, checked when compiled");
    let tail = whole
        .last_chunk()
        .expect("B is at most N, checked when compiled");
    (head, tail)
}

#[cfg(test)]
mod tests;
