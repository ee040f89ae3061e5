//! X25519 for the fuzzers alone (`--cfg fuzzing`, which no product is built with): results by their inputs. The simulator's secrets count up,
//! so that most come again from run to run, and computing them took two thirds of each.

extern crate std;

use alloc::collections::BTreeMap;
use std::sync::Mutex;

use x25519_dalek::StaticSecret;

use super::{Key, NotContributory};

/// Some 20 MB.
const MOST: usize = 200_000;

/// Secret and the other side's public key, or none for the base point.
type Known = BTreeMap<([u8; 32], Option<[u8; 32]>), [u8; 32]>;

static KNOWN: Mutex<Known> = Mutex::new(BTreeMap::new());

fn remembered(
    secret: &StaticSecret,
    public: Option<[u8; 32]>,
    compute: impl FnOnce() -> [u8; 32],
) -> [u8; 32] {
    let mut known = KNOWN.lock().expect("no fuzzer goes on after a panic");
    if known.len() > MOST {
        known.clear();
    }
    *known
        .entry((secret.to_bytes(), public))
        .or_insert_with(compute)
}

/// As [`super::raise`].
pub(crate) fn x25519_public(secret: &StaticSecret) -> [u8; 32] {
    remembered(secret, None, || super::raise(secret))
}

/// As [`super::agree`].
pub(crate) fn diffie_hellman(
    secret: &StaticSecret,
    public: &[u8; 32],
) -> Result<Key, NotContributory> {
    // Zero stands for what is not contributory, as it does in X25519.
    let shared = remembered(secret, Some(*public), || {
        super::agree(secret, public).map_or([0; 32], |key| *key)
    });
    if shared == [0; 32] {
        Err(NotContributory)
    } else {
        Ok(shared.into())
    }
}
