//! Seals the secrets of the store under `K_seal` (SPEC §14).
//!
//! ChaCha20-Poly1305 with a random 96-bit nonce for each value. The place of a value,
//! table, column and row, is its associated data: a sealed value moved elsewhere does not open.

use chacha20poly1305::aead::{Aead, KeyInit, Payload};
use chacha20poly1305::{ChaCha20Poly1305, Key, Nonce};
use zeroize::Zeroizing;

use super::StoreError;

/// Bytes in front of the sealed value.
const NONCE_LEN: usize = 12;

/// `K_seal`, ready for use. A store writes far fewer than the 2³² values that random nonces allow.
pub(super) struct Seal(ChaCha20Poly1305);

/// Where a sealed value belongs.
#[derive(Clone, Copy, Debug)]
pub(super) struct Place<'a> {
    pub(super) table: &'static str,
    pub(super) column: &'static str,
    pub(super) row: &'a [u8],
}

impl Seal {
    pub(super) fn new(key: &[u8; 32]) -> Self {
        Self(ChaCha20Poly1305::new(&Key::from(*key)))
    }

    /// Gives nonce ‖ sealed value.
    pub(super) fn seal(&self, place: Place<'_>, secret: &[u8]) -> Result<Vec<u8>, StoreError> {
        let mut nonce = [0; NONCE_LEN];
        getrandom::fill(&mut nonce).map_err(|_| StoreError::Random)?;
        let aad = place.associated_data();
        let payload = Payload {
            msg: secret,
            aad: &aad,
        };
        let sealed = self
            .0
            .encrypt(&Nonce::from(nonce), payload)
            .expect("a value of some bytes is below the limit of the cipher");
        Ok([&nonce[..], &sealed].concat())
    }

    /// Opens what [`seal`](Self::seal) made for the same place.
    pub(super) fn open(
        &self,
        place: Place<'_>,
        sealed: &[u8],
    ) -> Result<Zeroizing<Vec<u8>>, StoreError> {
        let broken = StoreError::Seal {
            table: place.table,
            column: place.column,
        };
        let Some((nonce, sealed)) = sealed.split_first_chunk::<NONCE_LEN>() else {
            return Err(broken);
        };
        let aad = place.associated_data();
        let payload = Payload {
            msg: sealed,
            aad: &aad,
        };
        let opened = self.0.decrypt(&Nonce::from(*nonce), payload);
        opened.map(Zeroizing::new).map_err(|_| broken)
    }

    /// Opens a value of exactly `N` bytes.
    pub(super) fn open_array<const N: usize>(
        &self,
        place: Place<'_>,
        sealed: &[u8],
    ) -> Result<Zeroizing<[u8; N]>, StoreError> {
        let opened = self.open(place, sealed)?;
        let array = opened.as_slice().try_into().map_err(|_| StoreError::Row {
            table: place.table,
            column: place.column,
        })?;
        Ok(Zeroizing::new(array))
    }
}

impl Place<'_> {
    /// Zero bytes part the names, which have none.
    fn associated_data(self) -> Vec<u8> {
        [
            self.table.as_bytes(),
            &[0],
            self.column.as_bytes(),
            &[0],
            self.row,
        ]
        .concat()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PLACE: Place<'_> = Place {
        table: "credential_key",
        column: "key",
        row: b"row",
    };

    #[test]
    fn what_is_sealed_opens_at_its_place_only() {
        let seal = Seal::new(&[7; 32]);
        let sealed = seal.seal(PLACE, b"secret").expect("sealed");
        assert_eq!(seal.open(PLACE, &sealed).expect("opens")[..], *b"secret");
        let row = Place {
            row: b"row2",
            ..PLACE
        };
        let column = Place {
            column: "kez",
            ..PLACE
        };
        for elsewhere in [row, column] {
            assert!(seal.open(elsewhere, &sealed).is_err());
        }
        assert!(Seal::new(&[8; 32]).open(PLACE, &sealed).is_err());
    }

    #[test]
    fn every_changed_byte_is_noticed() {
        let seal = Seal::new(&[7; 32]);
        let sealed = seal.seal(PLACE, b"secret").expect("sealed");
        for at in 0..sealed.len() {
            let mut changed = sealed.clone();
            changed[at] ^= 1;
            assert!(seal.open(PLACE, &changed).is_err(), "{at}");
            assert!(seal.open(PLACE, &sealed[..at]).is_err(), "{at}");
        }
    }

    #[test]
    fn the_same_secret_is_never_sealed_to_the_same_bytes() {
        let seal = Seal::new(&[7; 32]);
        let twice = [seal.seal(PLACE, b"secret"), seal.seal(PLACE, b"secret")];
        let [a, b] = twice.map(|sealed| sealed.expect("sealed"));
        assert_ne!(a, b);
    }
}
