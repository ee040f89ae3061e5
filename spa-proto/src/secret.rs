//! The secrets of SPEC §3 and §6, one type each, so that none can stand where another is meant.
//!
//! No `Clone`, a `Debug` that prints the name only, wiped on drop, compared in constant time.

use alloc::vec::Vec;
use core::fmt;

use subtle::{Choice, ConstantTimeEq};
use zeroize::{Zeroize, ZeroizeOnDrop};

use crate::primitives::hash;

macro_rules! secret {
    ($(#[$doc:meta])* $name:ident, $len:literal) => {
        $(#[$doc])*
        #[derive(Zeroize, ZeroizeOnDrop)]
        pub struct $name([u8; $len]);

        impl $name {
            /// Takes the bytes over. The caller wipes its own copy.
            #[must_use]
            pub const fn from_bytes(bytes: [u8; $len]) -> Self {
                Self(bytes)
            }

            /// Shows the bytes: for sealing, storing or handing to the kernel.
            #[must_use]
            pub const fn expose(&self) -> &[u8; $len] {
                &self.0
            }

            /// Makes a second copy, where one is truly needed. It is wiped on its own.
            #[must_use]
            pub fn duplicate(&self) -> Self {
                Self(self.0)
            }
        }

        impl ConstantTimeEq for $name {
            fn ct_eq(&self, other: &Self) -> Choice {
                self.0.ct_eq(&other.0)
            }
        }

        impl PartialEq for $name {
            fn eq(&self, other: &Self) -> bool {
                self.ct_eq(other).into()
            }
        }

        impl Eq for $name {}

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(stringify!($name))
            }
        }
    };
}

secret! {
    /// `K_cred`, `K_inv` or a candidate: the symmetric key of one credential (SPEC §3.1, §14).
    CredentialKey, 32
}
secret! {
    /// `k_sess`: proves ROAM, CLOSE and the control channel of one session (SPEC §6).
    ///
    /// Like every secret here it is not copied by accident:
    ///
    /// ```compile_fail,E0599
    /// let key = spa_proto::SessionKey::from_bytes([0; 32]);
    /// let copy = key.clone();
    /// ```
    SessionKey, 32
}
secret! {
    /// `wg_psk`: the preshared key of one session's WireGuard peer (SPEC §6).
    WgPsk, 32
}
secret! {
    /// `r`: the random value that never leaves the device (SPEC §3.2).
    DeviceSecret, 32
}
secret! {
    /// A one-use code in place of a TOTP (SPEC §4, TLV 0x07).
    RecoveryCode, 16
}

impl RecoveryCode {
    /// Gives `H(recovery code)`, the only form in which a gateway keeps one (SPEC §14).
    #[must_use]
    pub fn digest(&self) -> [u8; 32] {
        hash(&[self.expose()])
    }
}

/// A TOTP secret of 20 to 32 bytes (SPEC §6, TLV 0x14).
#[derive(Zeroize, ZeroizeOnDrop)]
pub struct TotpSecret(Vec<u8>);

impl TotpSecret {
    /// Takes 20 to 32 bytes; any other length gives `None`.
    #[must_use]
    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        // An exact copy: a vector that grew would leave pieces behind unwiped.
        (20..=32)
            .contains(&bytes.len())
            .then(|| Self(bytes.to_vec()))
    }

    /// Shows the bytes: for an authenticator's QR code, for sealing, for checking a code.
    #[must_use]
    pub fn expose(&self) -> &[u8] {
        &self.0
    }

    /// Makes a second copy, where one is truly needed. It is wiped on its own.
    #[must_use]
    pub fn duplicate(&self) -> Self {
        Self(self.0.clone())
    }
}

impl PartialEq for TotpSecret {
    fn eq(&self, other: &Self) -> bool {
        self.0.ct_eq(&other.0).into()
    }
}

impl Eq for TotpSecret {}

impl fmt::Debug for TotpSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("TotpSecret")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::format;

    #[test]
    fn a_secret_prints_its_name_only() {
        assert_eq!(
            format!("{:?}", SessionKey::from_bytes([7; 32])),
            "SessionKey"
        );
        assert_eq!(
            format!("{:?}", TotpSecret::from_bytes(&[7; 20])),
            "Some(TotpSecret)"
        );
    }

    #[test]
    fn every_secret_is_wiped_on_drop() {
        fn wiped<T: ZeroizeOnDrop>() {}
        wiped::<CredentialKey>();
        wiped::<SessionKey>();
        wiped::<WgPsk>();
        wiped::<DeviceSecret>();
        wiped::<RecoveryCode>();
        wiped::<TotpSecret>();
        wiped::<crate::Info>();
        wiped::<crate::Ext>();
        wiped::<crate::primitives::Key>();
        wiped::<x25519_dalek::StaticSecret>();
        wiped::<ed25519_dalek::SigningKey>();
        wiped::<ml_kem::ml_kem_768::DecapsulationKey>();
    }

    #[test]
    fn secrets_compare_by_value() {
        assert_eq!(
            WgPsk::from_bytes([1; 32]),
            WgPsk::from_bytes([1; 32]).duplicate()
        );
        assert_ne!(WgPsk::from_bytes([1; 32]), WgPsk::from_bytes([2; 32]));
    }

    #[test]
    fn a_totp_secret_has_20_to_32_bytes() {
        for (len, good) in [(19, false), (20, true), (32, true), (33, false)] {
            assert_eq!(
                TotpSecret::from_bytes(&std::vec![0; len]).is_some(),
                good,
                "{len}"
            );
        }
    }
}
