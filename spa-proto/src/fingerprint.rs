//! Four words two people can compare on the telephone (SPEC §14 step 5).
//!
//! `words.txt` is the BIP-39 English list, a public standard: 2048 words of which the first four
//! letters already differ.

use core::fmt;

use crate::ids::CredentialId;
use crate::keys::KnockPublic;
use crate::primitives::{hash, truncate};
use crate::proof::ProofPublic;

static WORDS: &str = include_str!("words.txt");
/// Bits of one word: 2048 words.
const WORD_BITS: u32 = 11;

/// The fingerprint of an enrolment: `H("KNOCK/1 fingerprint" ‖ cred_id ‖ Q ‖ B_0)`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fingerprint([u8; 32]);

impl Fingerprint {
    /// Computes it; client and gateway do so on their own.
    #[must_use]
    pub fn of(credential: CredentialId, q: &ProofPublic, b_0: &KnockPublic) -> Self {
        Self(hash(&[
            b"KNOCK/1 fingerprint",
            credential.as_bytes(),
            q.as_bytes(),
            b_0.as_bytes(),
        ]))
    }

    /// Gives the whole hash.
    #[must_use]
    pub const fn hash(&self) -> &[u8; 32] {
        &self.0
    }

    /// Gives the places of the four words in the list: the first 44 bits, 11 each.
    #[must_use]
    pub fn indices(&self) -> [u16; 4] {
        let first = u64::from_be_bytes(truncate(&self.0));
        [1, 2, 3, 4].map(|word| {
            let bits = first >> (u64::BITS - word * WORD_BITS) & ((1 << WORD_BITS) - 1);
            u16::try_from(bits).expect("masked to 11 bits")
        })
    }

    /// Gives the four words.
    #[must_use]
    pub fn words(&self) -> [&'static str; 4] {
        self.indices().map(|index| {
            WORDS
                .lines()
                .nth(usize::from(index))
                .expect("the list has 2048 words, as a test checks")
        })
    }
}

impl fmt::Display for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [first, second, third, fourth] = self.words();
        write!(f, "{first} {second} {third} {fourth}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;
    use std::format;
    use std::string::String;
    use std::vec::Vec;

    #[test]
    fn the_list_is_the_bip_39_one() {
        // SHA-256 of english.txt as the standard publishes it.
        let published = "2f5eed53a4727b4bf8880d8f3f199efc90e58503646d9ff8eff3a2ed3b24dbda";
        let found: String = hash(&[WORDS.as_bytes()])
            .iter()
            .map(|byte| format!("{byte:02x}"))
            .collect();
        assert_eq!(found, published);
    }

    #[test]
    fn the_first_four_letters_of_a_word_name_it() {
        let words: Vec<_> = WORDS.lines().collect();
        let starts: BTreeSet<_> = words
            .iter()
            .map(|word| &word[..word.len().min(4)])
            .collect();
        assert_eq!((words.len(), starts.len()), (2048, 2048));
    }

    #[test]
    fn the_first_44_bits_count_and_no_more() {
        let mut bytes = [0xff; 32];
        assert_eq!(Fingerprint(bytes).indices(), [2047; 4]);
        assert_eq!(format!("{}", Fingerprint(bytes)), "zoo zoo zoo zoo");
        bytes = [0; 32];
        bytes[5] = 0x0f;
        assert_eq!(Fingerprint(bytes).indices(), [0; 4]);
        bytes[5] = 0x10;
        assert_eq!(Fingerprint(bytes).indices(), [0, 0, 0, 1]);
    }
}
