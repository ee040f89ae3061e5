//! The rekey inside the tunnel, X25519 and ML-KEM-768 together, and the control channel's bearer
//! (SPEC §12).
//!
//! Both sides mix the new secrets into the `wg_psk` of the knock, always that one, so that a lost
//! answer is mended by asking again.

use alloc::boxed::Box;
use alloc::string::String;
use core::fmt;
use core::fmt::Write as _;

use ml_kem::kem::{Decapsulate, KeyExport};
use ml_kem::{Seed, ml_kem_768};
use x25519_dalek::{PublicKey, StaticSecret};
use zeroize::Zeroizing;

use crate::primitives::{Key, NotContributory, diffie_hellman, expand, extract, hash, join, mac};
use crate::secret::{SessionKey, WgPsk};

/// Length of an ML-KEM-768 encapsulation key in bytes (FIPS 203 table 3).
pub const EK_LEN: usize = 1184;
/// Length of an ML-KEM-768 ciphertext in bytes (FIPS 203 table 3).
pub const CT_LEN: usize = 1088;

/// What the client sends: `X_c` and `ek`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RekeyRequest {
    /// `X_c`.
    pub x25519: [u8; 32],
    /// `ek`.
    pub ml_kem_768_ek: Box<[u8; EK_LEN]>,
}

/// What the gateway answers: `X_s` and `ct`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RekeyAnswer {
    /// `X_s`.
    pub x25519: [u8; 32],
    /// `ct`.
    pub ml_kem_768_ct: Box<[u8; CT_LEN]>,
}

/// Why a rekey fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RekeyError {
    /// The other side's X25519 key has small order.
    #[error("the other side's X25519 key has small order")]
    NotContributory,
    /// The ML-KEM key is not reduced (FIPS 203 §7.2).
    #[error("the ML-KEM-768 key is malformed")]
    EncapsulationKey,
}

impl From<NotContributory> for RekeyError {
    fn from(_: NotContributory) -> Self {
        Self::NotContributory
    }
}

/// The client's half of a rekey, kept until the answer comes.
pub struct RekeyAsk {
    x25519: StaticSecret,
    kem: ml_kem_768::DecapsulationKey,
    request: RekeyRequest,
}

impl RekeyAsk {
    /// Makes fresh keys of 32 + 64 random bytes: the X25519 private key and ML-KEM's `d ‖ z`.
    #[must_use]
    pub fn new(x25519: [u8; 32], seed: [u8; 64]) -> Self {
        let x25519 = StaticSecret::from(x25519);
        let kem = ml_kem_768::DecapsulationKey::from_seed(Seed::from(seed));
        let request = RekeyRequest {
            x25519: PublicKey::from(&x25519).to_bytes(),
            ml_kem_768_ek: Box::new(kem.encapsulation_key().to_bytes().into()),
        };
        Self {
            x25519,
            kem,
            request,
        }
    }

    /// Gives what to send.
    #[must_use]
    pub const fn request(&self) -> &RekeyRequest {
        &self.request
    }

    /// Computes the new preshared key from the gateway's answer. `wg_psk` is that of the knock.
    ///
    /// A forged `ct` does not fail here: it gives another key (implicit rejection, FIPS 203 §6.3),
    /// and the next handshake fails.
    ///
    /// # Errors
    /// If the gateway's X25519 key has small order.
    pub fn finish(&self, wg_psk: &WgPsk, answer: &RekeyAnswer) -> Result<WgPsk, RekeyError> {
        let dh = diffie_hellman(&self.x25519, &answer.x25519)?;
        let ss = self.kem.decapsulate(&(*answer.ml_kem_768_ct).into());
        Ok(Mixed::new(
            wg_psk,
            &Zeroizing::new(ss.into()),
            &dh,
            &self.request,
            answer,
        )
        .psk())
    }

    #[cfg(feature = "vectors")]
    pub(crate) const fn kem(&self) -> &ml_kem_768::DecapsulationKey {
        &self.kem
    }
}

impl fmt::Debug for RekeyAsk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("RekeyAsk")
    }
}

/// Answers a rekey: the gateway's half. `x25519` and `m` are 32 random bytes each, fresh.
///
/// # Errors
/// If either of the client's keys is malformed.
pub fn answer_rekey(
    wg_psk: &WgPsk,
    request: &RekeyRequest,
    x25519: [u8; 32],
    m: [u8; 32],
) -> Result<(RekeyAnswer, WgPsk), RekeyError> {
    let x25519 = StaticSecret::from(x25519);
    let dh = diffie_hellman(&x25519, &request.x25519)?;
    let ek = ml_kem_768::EncapsulationKey::new(&(*request.ml_kem_768_ek).into())
        .map_err(|_| RekeyError::EncapsulationKey)?;
    let (ct, ss) = ek.encapsulate_deterministic(&m.into());
    let answer = RekeyAnswer {
        x25519: PublicKey::from(&x25519).to_bytes(),
        ml_kem_768_ct: Box::new(ct.into()),
    };
    let psk = Mixed::new(wg_psk, &Zeroizing::new(ss.into()), &dh, request, &answer).psk();
    Ok((answer, psk))
}

/// `h = H(X_c ‖ ek ‖ X_s ‖ ct)`, `prk = Ext(wg_psk, ss ‖ dh)`.
pub(crate) struct Mixed {
    pub(crate) h: [u8; 32],
    pub(crate) prk: Key,
}

impl Mixed {
    pub(crate) fn new(
        wg_psk: &WgPsk,
        ss: &Key,
        dh: &Key,
        request: &RekeyRequest,
        answer: &RekeyAnswer,
    ) -> Self {
        let ikm: Zeroizing<[u8; 64]> = Zeroizing::new(join(&[ss.as_slice(), dh.as_slice()]));
        let h = hash(&[
            &request.x25519,
            request.ml_kem_768_ek.as_slice(),
            &answer.x25519,
            answer.ml_kem_768_ct.as_slice(),
        ]);
        Self {
            h,
            prk: extract(wg_psk.expose(), ikm.as_slice()),
        }
    }

    pub(crate) fn psk(&self) -> WgPsk {
        WgPsk::from_bytes(*expand(&self.prk, "KNOCK/1 rekey", &self.h))
    }
}

/// Gives the bearer of a session's control channel: `hex(Mac(k_sess, "KNOCK/1 control"))`.
///
/// A secret while the session lives: compare it in constant time.
#[must_use]
pub fn control_bearer(key: &SessionKey) -> Zeroizing<String> {
    let bearer = Zeroizing::new(mac(key.expose(), &[b"KNOCK/1 control"]));
    let mut hex = Zeroizing::new(String::with_capacity(64));
    for byte in bearer.iter() {
        write!(hex, "{byte:02x}").expect("a string takes what is written");
    }
    hex
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ask() -> RekeyAsk {
        RekeyAsk::new([1; 32], [2; 64])
    }

    #[test]
    fn both_sides_reach_the_same_key_and_asking_again_gives_another() {
        let (psk, ask) = (WgPsk::from_bytes([9; 32]), ask());
        let (answer, theirs) = answer_rekey(&psk, ask.request(), [3; 32], [4; 32]).unwrap();
        assert_eq!(ask.finish(&psk, &answer), Ok(theirs.duplicate()));
        let (again, other) = answer_rekey(&psk, ask.request(), [5; 32], [6; 32]).unwrap();
        assert_eq!(ask.finish(&psk, &again), Ok(other.duplicate()));
        assert_ne!(theirs, other);
    }

    #[test]
    fn another_knocks_psk_gives_another_key() {
        let ask = ask();
        let (answer, theirs) =
            answer_rekey(&WgPsk::from_bytes([9; 32]), ask.request(), [3; 32], [4; 32]).unwrap();
        assert_ne!(ask.finish(&WgPsk::from_bytes([8; 32]), &answer), Ok(theirs));
    }

    #[test]
    fn malformed_keys_are_refused() {
        let psk = WgPsk::from_bytes([9; 32]);
        let mut request = ask().request().clone();
        *request.ml_kem_768_ek = [0xff; EK_LEN];
        assert_eq!(
            answer_rekey(&psk, &request, [3; 32], [4; 32]).unwrap_err(),
            RekeyError::EncapsulationKey
        );
        let mut request = ask().request().clone();
        request.x25519 = [0; 32];
        assert_eq!(
            answer_rekey(&psk, &request, [3; 32], [4; 32]).unwrap_err(),
            RekeyError::NotContributory
        );
    }
}
