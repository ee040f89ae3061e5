//! The proof key: device and password together (SPEC §3.2).
//!
//! A gateway knows `Q` only. `q` exists at the client while a transaction lasts, and nothing that
//! would let a wrong password be recognised is ever stored.

use core::fmt;

use alloc::vec::Vec;

use ed25519_dalek::{Signature, Signer as _, SigningKey, VerifyingKey};
use subtle::Choice;

use crate::ids::{CredentialId, GatewayId, SessionId};
use crate::keys::context;
#[cfg(feature = "client")]
use {
    crate::primitives::{Key, expand, extract},
    crate::secret::DeviceSecret,
    alloc::string::String,
    argon2::{Algorithm, Argon2, Params, Version},
    unicode_normalization::UnicodeNormalization,
    unicode_normalization::char::is_public_assigned,
    zeroize::Zeroizing,
};

/// `Q`, the public proof key: what a gateway remembers of device and password.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ProofPublic([u8; 32]);

impl ProofPublic {
    /// Takes the 32 bytes of an Ed25519 public key. Whether they are one shows when a proof is
    /// checked: none holds under bytes that are not.
    #[must_use]
    pub const fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// Gives the 32 bytes.
    #[must_use]
    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// Says whether a proof can hold under it at all: a point, and none of small order (SPEC §2).
    #[must_use]
    pub fn is_usable(&self) -> bool {
        VerifyingKey::from_bytes(&self.0).is_ok_and(|q| !q.is_weak())
    }

    /// Says whether the holder of this `Q` signed that `new` takes its place (SPEC §12).
    #[must_use]
    pub fn gives_way_to(
        &self,
        new: &Self,
        (gateway, credential, session): (GatewayId, CredentialId, SessionId),
        signature: &[u8; 64],
    ) -> Choice {
        let message = password_message(gateway, credential, session, new);
        self.verify(&message, signature)
    }

    /// Verifies strictly: canonical S, neither `Q` nor R of small order (SPEC §2).
    pub(crate) fn verify(&self, message: &[u8], signature: &[u8; 64]) -> Choice {
        let holds = VerifyingKey::from_bytes(&self.0)
            .and_then(|q| q.verify_strict(message, &Signature::from_bytes(signature)));
        Choice::from(u8::from(holds.is_ok()))
    }
}

impl fmt::Debug for ProofPublic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

/// `q`, the private proof key. Wiped on drop; keep it no longer than a transaction (SPEC §3.2).
pub struct ProofSecret(SigningKey);

impl ProofSecret {
    /// Takes the 32-byte `seed`. For tests and for keys made elsewhere; a client derives it.
    #[must_use]
    pub fn from_seed(seed: &[u8; 32]) -> Self {
        Self(SigningKey::from_bytes(seed))
    }

    /// Gives `Q`.
    #[must_use]
    pub fn public(&self) -> ProofPublic {
        ProofPublic(self.0.verifying_key().to_bytes())
    }

    /// Signs that `new` takes the place of this key: a new password (SPEC §12).
    #[must_use]
    pub fn sign_password(
        &self,
        new: &ProofPublic,
        (gateway, credential, session): (GatewayId, CredentialId, SessionId),
    ) -> [u8; 64] {
        self.sign(&password_message(gateway, credential, session, new))
    }

    pub(crate) fn sign(&self, message: &[u8]) -> [u8; 64] {
        self.0.sign(message).to_bytes()
    }
}

/// `"KNOCK/1 password" ‖ cx ‖ session id ‖ Q_new`
fn password_message(
    gateway: GatewayId,
    credential: CredentialId,
    session: SessionId,
    new: &ProofPublic,
) -> Vec<u8> {
    let cx = context(gateway, credential);
    [
        b"KNOCK/1 password",
        &cx[..],
        session.as_bytes(),
        new.as_bytes(),
    ]
    .concat()
}

impl fmt::Debug for ProofSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ProofSecret")
    }
}

/// Why no proof key can be made of a password.
#[cfg(feature = "client")]
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PasswordError {
    /// A person's password is not empty (SPEC §10).
    #[error("the password is empty")]
    Empty,
    /// It holds a code point without a meaning yet: a later Unicode could normalise it to
    /// something else, and the password would stop to fit (SPEC §10).
    #[error("the password has a character that Unicode has not assigned")]
    Unassigned,
    /// The 64 MiB of Argon2id are not to be had.
    #[error("64 MiB of memory are needed to check the password and cannot be had")]
    Memory,
}

#[cfg(feature = "client")]
impl ProofSecret {
    /// Derives `q` from a person's password, about 0.13 s and 64 MiB (SPEC §3.2).
    ///
    /// Every password gives a valid-looking key; only the gateway can tell a wrong one.
    ///
    /// # Errors
    /// If the password is empty or has unassigned code points, or memory is short.
    pub fn derive(
        password: &str,
        salt: &[u8; 16],
        device: &DeviceSecret,
        gateway: GatewayId,
        credential: CredentialId,
    ) -> Result<Self, PasswordError> {
        if password.is_empty() {
            return Err(PasswordError::Empty);
        }
        if password.chars().any(is_unassigned) {
            return Err(PasswordError::Unassigned);
        }
        derive(password, salt, device, gateway, credential)
    }

    /// Derives `q` of a machine: a device with nobody to type a password (SPEC §10).
    ///
    /// # Errors
    /// If memory is short.
    pub fn for_machine(
        salt: &[u8; 16],
        device: &DeviceSecret,
        gateway: GatewayId,
        credential: CredentialId,
    ) -> Result<Self, PasswordError> {
        derive("", salt, device, gateway, credential)
    }
}

#[cfg(feature = "client")]
fn derive(
    password: &str,
    salt: &[u8; 16],
    device: &DeviceSecret,
    gateway: GatewayId,
    credential: CredentialId,
) -> Result<ProofSecret, PasswordError> {
    let a = stretch(&normalize(password), salt)?;
    let seed = expand(
        &proof_prk(device, &a),
        "KNOCK/1 proof seed",
        &context(gateway, credential),
    );
    Ok(ProofSecret::from_seed(&seed))
}

/// `Ext(r, a)`.
#[cfg(feature = "client")]
pub(crate) fn proof_prk(device: &DeviceSecret, a: &Key) -> Key {
    extract(device.expose(), a.as_slice())
}

/// UTF-8, NFKC: the same password however a keyboard composes it.
#[cfg(feature = "client")]
pub(crate) fn normalize(password: &str) -> Zeroizing<String> {
    // Room for the longest expansion, so that no growing string leaves pieces behind unwiped.
    const LONGEST_NFKC_EXPANSION: usize = 18;
    let room = password.len().saturating_mul(LONGEST_NFKC_EXPANSION);
    let mut out = Zeroizing::new(String::with_capacity(room));
    out.extend(password.nfkc());
    out
}

/// `a = Argon2id(password, salt)`: m = 64 MiB, t = 3, p = 1 (SPEC §2).
#[cfg(feature = "client")]
pub(crate) fn stretch(normalized: &str, salt: &[u8; 16]) -> Result<Key, PasswordError> {
    const MEMORY_KIB: u32 = 64 * 1024;
    let params = Params::new(MEMORY_KIB, 3, 1, Some(32)).expect("the cost of SPEC §2 is in range");
    let mut a = Key::default();
    Argon2::new(Algorithm::Argon2id, Version::V0x13, params)
        .hash_password_into(normalized.as_bytes(), salt, a.as_mut_slice())
        .map_err(|_| PasswordError::Memory)?;
    Ok(a)
}

#[cfg(feature = "client")]
fn is_unassigned(c: char) -> bool {
    // Private use is assigned to its users and normalises to itself for ever.
    let private = matches!(c, '\u{e000}'..='\u{f8ff}' | '\u{f0000}'..='\u{ffffd}' | '\u{100000}'..='\u{10fffd}');
    !private && !is_public_assigned(c)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_new_password_is_signed_by_the_old_one_for_one_session_only() {
        let (old, new) = (
            ProofSecret::from_seed(&[3; 32]),
            ProofSecret::from_seed(&[4; 32]).public(),
        );
        let of = |session: u8| {
            (
                GatewayId::from_bytes([1; 16]),
                CredentialId::from_bytes([2; 16]),
                SessionId::from_bytes([session; 8]),
            )
        };
        let signature = old.sign_password(&new, of(7));
        let holds = |public: ProofPublic, new: &ProofPublic, of| {
            bool::from(public.gives_way_to(new, of, &signature))
        };
        assert!(holds(old.public(), &new, of(7)));
        assert!(!holds(old.public(), &new, of(8)));
        assert!(!holds(old.public(), &old.public(), of(7)));
        assert!(!holds(new, &new, of(7)));
        assert!(new.is_usable());
        // The neutral element, of order 1, and a number that is no point.
        let weak = [1].into_iter().chain([0; 31]).collect::<Vec<u8>>();
        for bad in [weak, [2; 1].into_iter().chain([0; 31]).collect()] {
            let bad = ProofPublic::from_bytes(bad.try_into().unwrap());
            assert!(!bad.is_usable(), "{bad:?}");
        }
    }

    #[test]
    fn a_proof_holds_for_its_message_and_key_only() {
        let q = ProofSecret::from_seed(&[3; 32]);
        let signature = q.sign(b"message");
        let holds =
            |public: ProofPublic, message: &[u8]| bool::from(public.verify(message, &signature));
        assert!(holds(q.public(), b"message"));
        assert!(!holds(q.public(), b"massage"));
        assert!(!holds(
            ProofSecret::from_seed(&[4; 32]).public(),
            b"message"
        ));
    }

    #[test]
    fn no_proof_holds_under_a_key_of_small_order() {
        // The identity: with R the identity and S zero, plain verification holds for any message.
        let mut identity = [0; 32];
        identity[0] = 1;
        let mut signature = [0; 64];
        signature[0] = 1;
        assert!(!bool::from(
            ProofPublic::from_bytes(identity).verify(b"any", &signature)
        ));
    }

    #[cfg(feature = "client")]
    mod client {
        use super::*;
        use std::string::String;

        fn derive(password: &str) -> Result<ProofSecret, PasswordError> {
            let device = DeviceSecret::from_bytes([1; 32]);
            let (gateway, credential) = (
                GatewayId::from_bytes([2; 16]),
                CredentialId::from_bytes([3; 16]),
            );
            ProofSecret::derive(password, &[4; 16], &device, gateway, credential)
        }

        #[test]
        fn one_password_gives_one_key_however_it_is_composed() {
            let composed = derive("\u{e9}t\u{e9}").unwrap().public();
            let decomposed = derive("e\u{301}te\u{301}").unwrap().public();
            assert_eq!(composed, decomposed);
            assert_ne!(composed, derive("ete").unwrap().public());
        }

        #[test]
        fn a_persons_password_is_not_empty_and_is_assigned() {
            assert_eq!(derive("").unwrap_err(), PasswordError::Empty);
            assert_eq!(derive("a\u{378}").unwrap_err(), PasswordError::Unassigned);
            assert!(!is_unassigned('\u{f8ff}'));
        }

        #[test]
        fn normalising_never_outgrows_its_room() {
            let longest = "\u{fdfa}";
            let out: String = normalize(longest).as_str().into();
            assert!(out.len() <= longest.len() * 18, "{}", out.len());
        }
    }
}
