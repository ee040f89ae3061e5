//! The secrets an order carries: wiped on drop, silent in `Debug`, compared in constant time.

use core::fmt;

use zeroize::{Zeroize, ZeroizeOnDrop};

/// 32 secret bytes: a WireGuard private key or a preshared key.
#[derive(Zeroize, ZeroizeOnDrop)]
pub struct SecretBytes32([u8; 32]);

impl SecretBytes32 {
    /// Takes the bytes over.
    #[must_use]
    pub const fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// Shows the bytes to the one function that needs them.
    #[must_use]
    pub const fn expose(&self) -> &[u8; 32] {
        &self.0
    }
}

impl fmt::Debug for SecretBytes32 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SecretBytes32")
    }
}

impl PartialEq for SecretBytes32 {
    fn eq(&self, other: &Self) -> bool {
        let mut difference = 0_u8;
        for (a, b) in self.0.iter().zip(&other.0) {
            // black_box: keeps the compiler from leaving the loop at the first difference.
            difference = core::hint::black_box(difference | (a ^ b));
        }
        difference == 0
    }
}

impl Eq for SecretBytes32 {}

#[cfg(test)]
mod tests {
    use super::*;
    use std::format;

    #[test]
    fn debug_prints_the_name_only() {
        assert_eq!(
            format!("{:?}", SecretBytes32::from_bytes([0xAB; 32])),
            "SecretBytes32"
        );
    }

    #[test]
    fn one_differing_byte_is_a_difference() {
        for at in 0..32 {
            let mut bytes = [5; 32];
            bytes[at] = 6;
            assert_ne!(
                SecretBytes32::from_bytes(bytes),
                SecretBytes32::from_bytes([5; 32])
            );
        }
        assert_eq!(
            SecretBytes32::from_bytes([5; 32]),
            SecretBytes32::from_bytes([5; 32])
        );
    }
}
