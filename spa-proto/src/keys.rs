//! The symmetric keys of a credential and the gateway's knock keys (SPEC §3.1, §3.3, §5).
//!
//! A [`DerivedKeys`] belongs to one (key, gateway, credential): the three cannot be mixed up later.

use core::fmt;

use x25519_dalek::StaticSecret;

use crate::ids::{CredentialId, GatewayId, Tag};
use crate::primitives::{
    Key, NotContributory, diffie_hellman, expand, join, mac, truncate, x25519_public,
};
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
        let public = KnockPublic(x25519_public(&secret));
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
/// Such a WireGuard key would make every handshake's secret public; SPEC §8 step 11 refuses it. The key
/// is public, so nothing is lost by comparing it as it is; a scalar multiplication would say the same, a hundred times later.
#[must_use]
pub fn is_small_order(public: &[u8; 32]) -> bool {
    let mut u = *public;
    u[31] &= 0x7f;
    SMALL_ORDER.contains(&u)
}

/// Every little-endian number below 2^255 that is the coordinate of a point of small order on the curve or its
/// twist: 0, 1 and -1 modulo 2^255 - 19, the two of order 8, and 0 and 1 once more as 2^255 - 19 and the number
/// behind it (RFC 7748 §6.1; <https://cr.yp.to/ecdh.html#validate>).
const SMALL_ORDER: [[u8; 32]; 7] = [
    [0; 32],
    with_ends(0x01, 0, 0x00),
    [
        0xe0, 0xeb, 0x7a, 0x7c, 0x3b, 0x41, 0xb8, 0xae, 0x16, 0x56, 0xe3, 0xfa, 0xf1, 0x9f, 0xc4,
        0x6a, 0xda, 0x09, 0x8d, 0xeb, 0x9c, 0x32, 0xb1, 0xfd, 0x86, 0x62, 0x05, 0x16, 0x5f, 0x49,
        0xb8, 0x00,
    ],
    [
        0x5f, 0x9c, 0x95, 0xbc, 0xa3, 0x50, 0x8c, 0x24, 0xb1, 0xd0, 0xb1, 0x55, 0x9c, 0x83, 0xef,
        0x5b, 0x04, 0x44, 0x5c, 0xc4, 0x58, 0x1c, 0x8e, 0x86, 0xd8, 0x22, 0x4e, 0xdd, 0xd0, 0x9f,
        0x11, 0x57,
    ],
    with_ends(0xec, 0xff, 0x7f),
    with_ends(0xed, 0xff, 0x7f),
    with_ends(0xee, 0xff, 0x7f),
];

const fn with_ends(first: u8, middle: u8, last: u8) -> [u8; 32] {
    let mut bytes = [middle; 32];
    bytes[0] = first;
    bytes[31] = last;
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    /// X25519 clears the cofactor, so a point of small order gives zero with any scalar.
    fn gives_zero(public: &[u8; 32]) -> bool {
        diffie_hellman(&StaticSecret::from([0x55; 32]), public).is_err()
    }

    #[test]
    fn a_key_has_small_order_exactly_if_it_gives_zero() {
        let mut small = 0;
        // Each with its neighbours: the non-canonical encodings of 2 to 18 are among them, and are none.
        for known in SMALL_ORDER {
            for step in -20_i16..=20 {
                for top in [0, 0x80] {
                    let mut key = known;
                    let mut carry = step;
                    for byte in &mut key {
                        carry += i16::from(*byte);
                        *byte = u8::try_from(carry.rem_euclid(256)).expect("a byte");
                        carry = carry.div_euclid(256);
                    }
                    key[31] = (key[31] & 0x7f) | top;
                    assert_eq!(is_small_order(&key), gives_zero(&key), "{key:02x?}");
                    small += u32::from(step == 0 && is_small_order(&key));
                }
            }
        }
        assert_eq!(small, 14);
        for byte in 0..=u8::MAX {
            let key = *KnockSecret::from_bytes([byte; 32]).public().as_bytes();
            assert!(!is_small_order(&key) && !gives_zero(&key));
        }
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
