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

    /// Hex.
    fn hex<const N: usize>(text: &str) -> [u8; N] {
        core::array::from_fn(|at| {
            u8::from_str_radix(&text[2 * at..2 * at + 2], 16).expect("two digits")
        })
    }

    /// §7.1, tests 1 to 3.
    #[test]
    fn signatures_are_those_of_rfc_8032() {
        for (seed, public, message, signature) in [
            (
                "9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60",
                "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a",
                &[][..],
                "e5564300c360ac729086e2cc806e828a84877f1eb8e5d974d873e065224901555fb8821590a33bacc61e39701cf9b46bd25bf5f0595bbe24655141438e7a100b",
            ),
            (
                "4ccd089b28ff96da9db6c346ec114e0f5b8a319f35aba624da8cf6ed4fb8a6fb",
                "3d4017c3e843895a92b70aa74d1b7ebc9c982ccf2ec4968cc0cd55f12af4660c",
                &[0x72],
                "92a009a9f0d4cab8720e820b5f642540a2b27b5416503f8fb3762223ebdb69da085ac1e43e15996e458f3613d0f11d8c387b2eaeb4302aeeb00d291612bb0c00",
            ),
            (
                "c5aa8df43f9f837bedb7442f31dcb7b166d38535076f094b85ce3a2e0b4458f7",
                "fc51cd8e6218a1a38da47ed00230f0580816ed13ba3303ac5deb911548908025",
                &[0xaf, 0x82],
                "6291d657deec24024827e69c3abe01a30ce548a284743a445e3680d7db5ac3ac18ff9b538d16f290ae67f760984dc6594a7c15e9716ed28dc027beceea1ec40a",
            ),
        ] {
            let q = ProofSecret::from_seed(&hex(seed));
            assert_eq!(q.public().as_bytes(), &hex(public));
            assert_eq!(q.sign(message), hex::<64>(signature));
            assert!(bool::from(q.public().verify(message, &hex(signature))));
        }
    }

    #[test]
    fn a_signature_has_one_spelling() {
        let q = ProofSecret::from_seed(&[3; 32]);
        let signature = q.sign(b"message");
        let holds = |signature: &[u8; 64]| bool::from(q.public().verify(b"message", signature));
        assert!(holds(&signature));
        for bit in 0..512 {
            let mut other = signature;
            other[bit / 8] ^= 1 << (bit % 8);
            assert!(!holds(&other), "bit {bit}");
        }
        // S plus the order of the group, once and as often as fits: what a lax verifier takes as the same.
        let order: [u8; 32] =
            hex("edd3f55c1a631258d69cf7a2def9de1400000000000000000000000000000010");
        let mut other = signature;
        for times in 1..=14 {
            let mut carry = 0;
            for (byte, add) in other[32..].iter_mut().zip(order) {
                let sum = u16::from(*byte) + u16::from(add) + carry;
                *byte = sum.to_le_bytes()[0];
                carry = sum >> 8;
            }
            assert_eq!(carry, 0, "it fits");
            assert!(!holds(&other), "S plus {times} times the order");
        }
    }

    #[test]
    fn no_proof_holds_under_a_key_of_small_order() {
        // Of orders 1, 2, 4, 8, and the spellings of them that are no smallest number.
        let keys = [
            "0100000000000000000000000000000000000000000000000000000000000000",
            "ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
            "0000000000000000000000000000000000000000000000000000000000000000",
            "26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05",
            "c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac037a",
            "edffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
            "eeffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
        ];
        // With R the identity and S zero, plain verification holds for one message in eight, and for any under the identity.
        let mut signature = [0; 64];
        signature[0] = 1;
        for key in keys {
            for sign in [0, 0x80] {
                let mut key: [u8; 32] = hex(key);
                key[31] |= sign;
                let key = ProofPublic::from_bytes(key);
                for message in 0..32_u8 {
                    assert!(!bool::from(key.verify(&[message], &signature)), "{key:?}");
                }
            }
        }
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

        /// §5.3. The cost of SPEC §2 is checked by the vectors (`kdf.json`).
        #[test]
        fn argon2id_is_that_of_rfc_9106() {
            let data = argon2::AssociatedData::new(&[4; 12]).unwrap();
            let params = argon2::ParamsBuilder::new()
                .m_cost(32)
                .t_cost(3)
                .p_cost(4)
                .data(data)
                .output_len(32)
                .build()
                .unwrap();
            let mut tag = [0; 32];
            Argon2::new_with_secret(&[3; 8], Algorithm::Argon2id, Version::V0x13, params)
                .unwrap()
                .hash_password_into(&[1; 32], &[2; 16], &mut tag)
                .unwrap();
            let expected = "0d640df58d78766c08c037a34a8b53c9d01ef0452d75b65eb52520e96b01e659";
            assert_eq!(tag, hex(expected));
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
