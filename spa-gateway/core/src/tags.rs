//! Which key could have made this tag? One look-up, no cryptography (SPEC §7, goal G2).
//!
//! Invariant: the table holds exactly the tags of every usable key in the four slots of its
//! window, or nothing while the clock is not trusted.

use alloc::collections::BTreeSet;

use spa_proto::{CredentialId, DerivedKeys, Slot, Tag};

/// Names one key of one credential.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) struct KeyRef {
    pub(crate) credential: CredentialId,
    pub(crate) number: u8,
}

/// Tag → (slot, key). A set of triples, so that keys sharing a tag are all found.
#[derive(Debug, Default)]
pub(crate) struct TagTable {
    tags: BTreeSet<(Tag, Slot, KeyRef)>,
    window: Option<[Slot; 4]>,
}

/// The first key there can be, to begin a range with.
const FIRST_KEY: KeyRef = KeyRef {
    credential: CredentialId::from_bytes([0; 16]),
    number: 0,
};
/// The last key there can be, to end a range with.
const LAST_KEY: KeyRef = KeyRef {
    credential: CredentialId::from_bytes([0xff; 16]),
    number: u8::MAX,
};

impl TagTable {
    /// Says whether the table is in use, that is, the clock trusted.
    pub(crate) const fn is_open(&self) -> bool {
        self.window.is_some()
    }

    /// Gives every key that has this tag now, and in which slot.
    pub(crate) fn keys_of(&self, tag: Tag) -> impl Iterator<Item = (Slot, KeyRef)> {
        let first = (tag, Slot::from_minutes(0), FIRST_KEY);
        let last = (tag, Slot::from_minutes(u64::MAX), LAST_KEY);
        self.tags
            .range(first..=last)
            .map(|&(_, slot, key)| (slot, key))
    }

    /// Says whether the window has moved, so that [`slide`](Self::slide) has something to do.
    pub(crate) fn lags(&self, window: Option<[Slot; 4]>) -> bool {
        self.window != window
    }

    /// Moves the window; `keys` are all usable keys. `None` empties the table.
    pub(crate) fn slide<'k>(
        &mut self,
        window: Option<[Slot; 4]>,
        keys: impl Iterator<Item = (KeyRef, &'k DerivedKeys)>,
    ) {
        let before = core::mem::replace(&mut self.window, window);
        let Some(window) = window else {
            self.tags.clear();
            return;
        };
        self.tags.retain(|(_, slot, _)| window.contains(slot));
        let fresh =
            window.map(|slot| (!before.is_some_and(|slots| slots.contains(&slot))).then_some(slot));
        for (key, derived) in keys {
            let triples = fresh
                .into_iter()
                .flatten()
                .map(|slot| (derived.tag(slot), slot, key));
            self.tags.extend(triples);
        }
    }

    /// Adds a key that is usable from now on.
    pub(crate) fn add(&mut self, key: KeyRef, derived: &DerivedKeys) {
        let slots = self.window.into_iter().flatten();
        self.tags
            .extend(slots.map(|slot| (derived.tag(slot), slot, key)));
    }

    /// Removes a key that is not usable any more.
    pub(crate) fn remove(&mut self, key: KeyRef, derived: &DerivedKeys) {
        for slot in self.window.into_iter().flatten() {
            self.tags.remove(&(derived.tag(slot), slot, key));
        }
    }

    /// Gives the number of entries: four for each key.
    #[cfg(test)]
    pub(crate) fn len(&self) -> usize {
        self.tags.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use spa_proto::{CredentialKey, GatewayId, WallTime};

    fn derived(byte: u8) -> (KeyRef, DerivedKeys) {
        let credential = CredentialId::from_bytes([byte; 16]);
        let key = CredentialKey::from_bytes([byte; 32]);
        let derived = DerivedKeys::derive(&key, GatewayId::from_bytes([1; 16]), credential);
        (
            KeyRef {
                credential,
                number: 0,
            },
            derived,
        )
    }

    fn window(minute: u64) -> Option<[Slot; 4]> {
        Some(Slot::window(WallTime::from_millis(
            minute * 60_000 + 30_000,
        )))
    }

    #[test]
    fn a_key_has_four_tags_and_keeps_those_the_window_keeps() {
        let keys = [derived(1), derived(2)];
        let all = || keys.iter().map(|(key, derived)| (*key, derived));
        let mut table = TagTable::default();
        table.slide(window(100), all());
        assert_eq!(table.len(), 8);
        table.slide(window(101), all());
        assert_eq!(table.len(), 8);
        for slot in window(101).expect("open") {
            let found: alloc::vec::Vec<_> = table.keys_of(keys[0].1.tag(slot)).collect();
            assert_eq!(found, [(slot, keys[0].0)]);
        }
        table.slide(window(99), all());
        assert_eq!(table.len(), 8);
        table.slide(None, all());
        assert_eq!((table.len(), table.is_open()), (0, false));
    }

    #[test]
    fn keys_that_share_a_tag_are_all_found() {
        let (first, keys) = derived(1);
        let second = KeyRef { number: 5, ..first };
        let mut table = TagTable::default();
        table.slide(window(100), [(first, &keys), (second, &keys)].into_iter());
        let slot = Slot::from_minutes(100);
        let found: alloc::vec::Vec<_> = table.keys_of(keys.tag(slot)).collect();
        assert_eq!(found, [(slot, first), (slot, second)]);
        table.remove(first, &keys);
        assert_eq!(table.len(), 4);
    }
}
