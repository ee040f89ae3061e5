//! Every intermediate value of the key schedules, for the vector checker (feature `vectors`).
//!
//! Nothing here takes part in the protocol; a product is built without it.

use alloc::vec::Vec;

use x25519_dalek::StaticSecret;

use crate::build::{Built, PendingKnock, Signer};
use crate::ids::{CredentialId, GatewayId};
use crate::keys::{DerivedKeys, KnockPublic};
use crate::primitives::{NotContributory, diffie_hellman};
use crate::rekey::{Mixed, RekeyAnswer, RekeyAsk};
use crate::reply::{Answered, ReplyError, ReplyKeys, ReplySecrets};
use crate::request::{Ext, Info, Op};
use crate::secret::WgPsk;
use crate::time::Slot;

/// A value and the name the spec gives it.
pub type Named = (&'static str, Vec<u8>);

/// `gw_id ‖ cred_id`.
#[must_use]
pub fn cx(gateway: GatewayId, credential: CredentialId) -> [u8; 32] {
    crate::keys::context(gateway, credential)
}

/// `K_tag`, `K_mac`, `K_obf`, `K_psk`.
#[must_use]
pub fn derived_keys(keys: &DerivedKeys) -> Vec<Named> {
    [
        ("K_tag", &keys.tag),
        ("K_mac", &keys.mac),
        ("K_obf", &keys.obf),
        ("K_psk", &keys.psk),
    ]
    .map(|(name, key)| (name, key.to_vec()))
    .into()
}

/// `V` that would be right for these bytes, unmasked by the one they carry: how near another came.
#[must_use]
pub fn right_v(keys: &DerivedKeys, slot: Slot, sealed: &crate::SealedKnock) -> [u8; 8] {
    sealed.right_v(keys, slot)
}

/// `T` before and after the WireGuard rule, from `K_tag` alone.
#[must_use]
pub fn tag(k_tag: &[u8; 32], slot: Slot) -> ([u8; 8], [u8; 8]) {
    (
        crate::keys::raw_tag(k_tag, slot),
        crate::keys::tag(k_tag, slot).to_bytes(),
    )
}

/// `RT` before and after the WireGuard rule.
#[must_use]
pub fn reply_tag(prk0: [u8; 32], thk: [u8; 32]) -> ([u8; 8], [u8; 8]) {
    let keys = ReplyKeys::new(prk0.into(), thk, [0; 32]);
    (keys.raw_rt(), keys.rt())
}

/// The WireGuard rule alone.
#[must_use]
pub fn complement(raw: [u8; 8]) -> [u8; 8] {
    crate::keys::apart_from_wireguard(raw)
}

/// `password_nfkc`, `a`, `proof_prk`, `seed` of a password, empty or not.
///
/// # Errors
/// If memory is short.
#[cfg(feature = "client")]
pub fn proof_key(
    password: &str,
    salt: &[u8; 16],
    device: &crate::DeviceSecret,
    gateway: GatewayId,
    credential: CredentialId,
) -> Result<Vec<Named>, crate::PasswordError> {
    let normalized = crate::proof::normalize(password);
    let a = crate::proof::stretch(&normalized, salt)?;
    let prk = crate::proof::proof_prk(device, &a);
    let seed = crate::primitives::expand(&prk, "KNOCK/1 proof seed", &cx(gateway, credential));
    Ok([
        ("password_nfkc", normalized.as_bytes().to_vec()),
        ("a", a.to_vec()),
        ("proof_prk", prk.to_vec()),
        ("seed", seed.to_vec()),
    ]
    .into())
}

/// `E`, `dh`, `th1`, `prk0`, `k_knock`, `proof`, `C`, `body`, `V`, `thk`, `packet`.
///
/// # Errors
/// If the knock key has small order.
#[expect(
    clippy::too_many_arguments,
    reason = "they are the inputs SPEC §5 names"
)]
pub fn knock(
    keys: &DerivedKeys,
    kid: u8,
    knock_key: &KnockPublic,
    slot: Slot,
    e: &[u8; 32],
    info: &Info,
    ext: &Ext,
    signer: Signer<'_>,
) -> Result<Vec<Named>, NotContributory> {
    let built = Built::new(keys, kid, knock_key, slot, e, info, ext, signer)?;
    Ok([
        ("E", built.e_public.to_vec()),
        ("dh", built.dh.to_vec()),
        ("th1", built.schedule.th1.to_vec()),
        ("prk0", built.schedule.prk0.to_vec()),
        ("k_knock", built.schedule.k_knock.to_vec()),
        ("proof", built.proof.to_vec()),
        ("C", built.c.to_vec()),
        ("body", built.body.to_vec()),
        ("V", keys.v(slot, &built.body).to_vec()),
        ("thk", built.thk.to_vec()),
        ("packet", built.packet.to_vec()),
    ]
    .into())
}

/// Reply keys from their parts.
#[must_use]
pub fn reply_keys(prk0: [u8; 32], thk: [u8; 32], e_public: [u8; 32]) -> ReplyKeys {
    ReplyKeys::new(zeroize::Zeroizing::new(prk0), thk, e_public)
}

/// `prk0` and `thk` of reply keys.
#[must_use]
pub fn of_reply_keys(keys: &ReplyKeys) -> Vec<Named> {
    keys.parts()
        .map(|(name, value)| (name, value.to_vec()))
        .into()
}

/// A knock that waits for its reply, from its parts.
#[must_use]
pub fn pending(op: Op, e: [u8; 32], reply: ReplyKeys) -> PendingKnock {
    PendingKnock {
        op,
        e: StaticSecret::from(e),
        reply,
    }
}

/// `RT`, `rmask`, `E_s`, `th2`, `prk1`, `C2`, `th3`, `packet`, `wg_psk`, `k_sess`, `k_cred`.
///
/// # Errors
/// If `E` has small order.
pub fn reply(
    keys: &ReplyKeys,
    e_s: &[u8; 32],
    payload: &[u8; crate::PAYLOAD_LEN],
) -> Result<Vec<Named>, NotContributory> {
    let answered = Answered::new(keys, e_s, payload)?;
    Ok([
        ("RT", keys.rt().to_vec()),
        ("rmask", keys.rmask().to_vec()),
        ("E_s", answered.e_s_public.to_vec()),
        ("th2", answered.schedule.th2.to_vec()),
        ("prk1", answered.schedule.prk1.to_vec()),
        ("C2", answered.c2.to_vec()),
        ("th3", answered.th3.to_vec()),
        ("packet", answered.packet.to_vec()),
        ("wg_psk", answered.secrets.wg_psk.expose().to_vec()),
        ("k_sess", answered.secrets.k_sess.expose().to_vec()),
        ("k_cred", answered.secrets.k_cred.expose().to_vec()),
    ]
    .into())
}

/// Opens a reply without judging its payload.
///
/// # Errors
/// If it does not open.
pub fn open_reply(
    pending: &PendingKnock,
    packet: &[u8],
) -> Result<([u8; crate::PAYLOAD_LEN], ReplySecrets), ReplyError> {
    let opened = crate::reply::open(&pending.reply, &pending.e, packet)?;
    Ok((*opened.payload, opened.secrets))
}

/// `dk`, `ss`, `dh`, `h`, `prk`, seen from the client.
///
/// # Errors
/// If `X_s` has small order.
pub fn rekey(
    ask: &RekeyAsk,
    x25519: [u8; 32],
    wg_psk: &WgPsk,
    answer: &RekeyAnswer,
) -> Result<Vec<Named>, NotContributory> {
    use ml_kem::kem::Decapsulate;
    #[expect(deprecated, reason = "the vectors give the expanded form")]
    let dk = ml_kem::ExpandedKeyEncoding::to_expanded_bytes(ask.kem());
    let ss: [u8; 32] = ask
        .kem()
        .decapsulate(&(*answer.ml_kem_768_ct).into())
        .into();
    let dh = diffie_hellman(&StaticSecret::from(x25519), &answer.x25519)?;
    let mixed = Mixed::new(wg_psk, &ss.into(), &dh, ask.request(), answer);
    Ok([
        ("dk", dk.to_vec()),
        ("ss", ss.to_vec()),
        ("dh", dh.to_vec()),
        ("h", mixed.h.to_vec()),
        ("prk", mixed.prk.to_vec()),
    ]
    .into())
}

#[cfg(test)]
mod tests;
