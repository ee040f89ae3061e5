//! Public names on the wire: gateway, credential, session, resource, tag.
//!
//! None of them is secret, so they copy, compare and print freely (as hex).

use core::fmt;

use crate::keys::KnockPublic;
use crate::primitives::{hash, truncate};

macro_rules! id {
    ($(#[$doc:meta])* $name:ident, $len:literal) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name([u8; $len]);

        impl $name {
            /// Takes the bytes as they are on the wire.
            #[must_use]
            pub const fn from_bytes(bytes: [u8; $len]) -> Self {
                Self(bytes)
            }

            /// Gives the bytes as they are on the wire.
            #[must_use]
            pub const fn as_bytes(&self) -> &[u8; $len] {
                &self.0
            }

            /// Gives the bytes by value.
            #[must_use]
            pub const fn to_bytes(self) -> [u8; $len] {
                self.0
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(self, f)
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
            }
        }
    };
}

id! {
    /// A gateway's identity: `gw_id`, 16 bytes (SPEC §3.1).
    GatewayId, 16
}
id! {
    /// A credential's random name: `cred_id`, 16 bytes (SPEC §3.1).
    CredentialId, 16
}
id! {
    /// A session's random name, 8 bytes (SPEC §6).
    SessionId, 8
}
id! {
    /// A resource as a knock names it: `rid`, 4 bytes (SPEC §4).
    ResourceId, 4
}
id! {
    /// The first eight bytes of a knock, by which a gateway finds the key (SPEC §5).
    Tag, 8
}

impl GatewayId {
    /// Derives the identity from the long-lived knock key `B_0` (SPEC §3.1).
    #[must_use]
    pub fn of(b_0: &KnockPublic) -> Self {
        Self(truncate(&hash(&[b"KNOCK/1 gateway", b_0.as_bytes()])))
    }
}

impl ResourceId {
    /// Derives the id of the resource called `name` (SPEC §4, TLV 0x01).
    #[must_use]
    pub fn of(name: &str) -> Self {
        Self(truncate(&hash(&[b"KNOCK/1 resource", name.as_bytes()])))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::format;

    #[test]
    fn an_id_prints_as_the_hex_of_its_bytes() {
        let id = SessionId::from_bytes([0, 1, 0xab, 0xff, 4, 5, 6, 7]);
        assert_eq!(format!("{id}"), "0001abff04050607");
        assert_eq!(format!("{id:?}"), format!("{id}"));
    }
}
