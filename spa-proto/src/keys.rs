//! The symmetric keys of a credential and the gateway's knock keys (SPEC §3.1, §3.3, §5).
//!
//! A [`DerivedKeys`] belongs to one (key, gateway, credential): the three cannot be mixed up later.

use core::fmt;

use x25519_dalek::{PublicKey, StaticSecret};

use crate::ids::{CredentialId, GatewayId, Tag};
use crate::primitives::{Key, NotContributory, diffie_hellman, expand, join, mac, truncate};
use crate::secret::CredentialKey;
use crate::time::Slot;

/// `K_tag`, `K_mac`, `K_obf` and `K_psk` of one credential at one gateway (SPEC §3.1).
///
/// They prove "some enrolled device" and nothing more.
pub struct DerivedKeys {
    gateway: GatewayId,
    credential: CredentialId,
    pub(crate) tag: Key,
    pub(crate) mac: Key,
    pub(crate) obf: Key,
    pub(crate) psk: Key,
}

impl DerivedKeys {
    /// Derives the four keys from `K_cred`, `K_inv` or a candidate key.
    #[must_use]
    pub fn derive(key: &CredentialKey, gateway: GatewayId, credential: CredentialId) -> Self {
        let cx = context(gateway, credential);
        let derive = |label| expand(key.expose(), label, &cx);
        Self {
            gateway,
            credential,
            tag: derive("KNOCK/1 k_tag"),
            mac: derive("KNOCK/1 k_mac"),
            obf: derive("KNOCK/1 k_obf"),
            psk: derive("KNOCK/1 k_psk"),
        }
    }

    /// Names the gateway these keys are for.
    #[must_use]
    pub const fn gateway(&self) -> GatewayId {
        self.gateway
    }

    /// Names the credential these keys are for.
    #[must_use]
    pub const fn credential(&self) -> CredentialId {
        self.credential
    }

    /// Computes `T`, the tag of every knock under these keys in `slot` (SPEC §5).
    #[must_use]
    pub fn tag(&self, slot: Slot) -> Tag {
        tag(&self.tag, slot)
    }

    /// Computes `V` over the unmasked body (SPEC §5).
    pub(crate) fn v(&self, slot: Slot, body: &[u8]) -> [u8; 8] {
        truncate(&mac(&self.mac, &[b"KNOCK/1 mac", &slot.to_bytes(), body]))
    }
}

impl fmt::Debug for DerivedKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "DerivedKeys({})", self.credential)
    }
}

/// `cx = gw_id ‖ cred_id` (SPEC §3.1).
pub(crate) fn context(gateway: GatewayId, credential: CredentialId) -> [u8; 32] {
    join(&[gateway.as_bytes(), credential.as_bytes()])
}

/// `T` before and after the WireGuard rule (SPEC §5).
pub(crate) fn tag(k_tag: &[u8; 32], slot: Slot) -> Tag {
    Tag::from_bytes(apart_from_wireguard(raw_tag(k_tag, slot)))
}

pub(crate) fn raw_tag(k_tag: &[u8; 32], slot: Slot) -> [u8; 8] {
    truncate(&mac(k_tag, &[b"KNOCK/1 tag", &slot.to_bytes()]))
}

/// Complements eight bytes that would pass for the header of a WireGuard message (SPEC §5, §6).
pub(crate) fn apart_from_wireguard(raw: [u8; 8]) -> [u8; 8] {
    match raw {
        [1..=4, 0, 0, 0, ..] => raw.map(|byte| !byte),
        _ => raw,
    }
}

/// The public half of a gateway's knock key: `B_kid` (SPEC §3.3).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct KnockPublic([u8; 32]);

impl KnockPublic {
    /// Takes the 32 bytes of an X25519 public key.
    #[must_use]
    pub const fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// Gives the 32 bytes.
    #[must_use]
    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

impl fmt::Debug for KnockPublic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

/// A gateway's knock key: `b_kid`, with its public half computed once (SPEC §3.3).
pub struct KnockSecret {
    secret: StaticSecret,
    public: KnockPublic,
}

impl KnockSecret {
    /// Takes 32 random or stored bytes as an X25519 private key.
    #[must_use]
    pub fn from_bytes(bytes: [u8; 32]) -> Self {
        let secret = StaticSecret::from(bytes);
        let public = KnockPublic(PublicKey::from(&secret).to_bytes());
        Self { secret, public }
    }

    /// Shows the private bytes: for sealing into the store.
    #[must_use]
    pub fn expose(&self) -> &[u8; 32] {
        self.secret.as_bytes()
    }

    /// Gives `B_kid`.
    #[must_use]
    pub const fn public(&self) -> KnockPublic {
        self.public
    }

    /// `dh = X25519(b_kid, E)` (SPEC §5).
    pub(crate) fn diffie_hellman(&self, e: &[u8; 32]) -> Result<Key, NotContributory> {
        diffie_hellman(&self.secret, e)
    }
}

impl fmt::Debug for KnockSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("KnockSecret")
    }
}

/// Tells whether an X25519 public key has small order, whatever its encoding (top bit included).
///
/// Such a WireGuard key would make every handshake's secret public; SPEC §8 step 11 refuses it.
#[must_use]
pub fn is_small_order(public: &[u8; 32]) -> bool {
    // X25519 clears the cofactor, so a point of small order gives zero with any scalar.
    diffie_hellman(&StaticSecret::from([0x55; 32]), public).is_err()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The encodings of X25519 points of small order (RFC 7748 §6.1 and its errata; curve and twist).
    const SMALL_ORDER: [&str; 7] = [
        "0000000000000000000000000000000000000000000000000000000000000000",
        "0100000000000000000000000000000000000000000000000000000000000000",
        "e0eb7a7c3b41b8ae1656e3faf19fc46ada098deb9c32b1fd866205165f49b800",
        "5f9c95bca3508c24b1d0b1559c83ef5b04445cc4581c8e86d8224eddd09f1157",
        "ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
        "edffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
        "eeffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
    ];

    fn hex32(text: &str) -> [u8; 32] {
        core::array::from_fn(|i| u8::from_str_radix(&text[2 * i..2 * i + 2], 16).unwrap())
    }

    #[test]
    fn every_small_order_key_is_known_with_and_without_the_top_bit() {
        for text in SMALL_ORDER {
            let mut key = hex32(text);
            assert!(is_small_order(&key), "{text}");
            key[31] |= 0x80;
            assert!(is_small_order(&key), "{text} with the top bit");
        }
        assert!(!is_small_order(
            KnockSecret::from_bytes([9; 32]).public().as_bytes()
        ));
    }

    #[test]
    fn only_a_wireguard_header_is_complemented() {
        for (raw, turned) in [
            ([0, 0, 0, 0, 9, 9, 9, 9], false),
            ([1, 0, 0, 0, 9, 9, 9, 9], true),
            ([4, 0, 0, 0, 0, 0, 0, 0], true),
            ([5, 0, 0, 0, 9, 9, 9, 9], false),
            ([1, 0, 0, 1, 9, 9, 9, 9], false),
            ([1, 0, 1, 0, 9, 9, 9, 9], false),
        ] {
            let out = apart_from_wireguard(raw);
            assert_eq!(out, if turned { raw.map(|b| !b) } else { raw });
        }
    }

    #[test]
    fn another_gateway_or_credential_has_other_keys() {
        let key = CredentialKey::from_bytes([7; 32]);
        let slot = Slot::from_minutes(1);
        let tag = |gateway, credential| {
            let (gateway, credential) = ([gateway; 16], [credential; 16]);
            DerivedKeys::derive(
                &key,
                GatewayId::from_bytes(gateway),
                CredentialId::from_bytes(credential),
            )
            .tag(slot)
        };
        assert_ne!(tag(1, 1), tag(2, 1));
        assert_ne!(tag(1, 1), tag(1, 2));
        assert_eq!(tag(1, 1), tag(1, 1));
    }
}
