//! Which key could have made this tag? One look-up, no cryptography (SPEC §7, goal G2).
//!
//! Invariant: the table holds exactly the tags of every usable key in the four slots of its
//! window and in the slot that comes next, or nothing while the clock is not trusted. A knock is
//! looked up in the window only; the slot ahead is for the kernel's filter (SPEC §8 step 0), which
//! must know a tag before the first packet that may carry it.

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
    /// Counts up whenever the set of tags may have changed.
    edition: u32,
}

/// The slots that have tags: the window and the one behind it.
fn listed(window: [Slot; 4]) -> [Slot; 5] {
    let [first, second, third, last] = window;
    let ahead = Slot::from_minutes(last.as_minutes().saturating_add(1));
    [first, second, third, last, ahead]
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
        let [from, .., to] = self.window.unwrap_or([Slot::from_minutes(0); 4]);
        let first = (tag, from, FIRST_KEY);
        let last = (tag, to, LAST_KEY);
        self.tags
            .range(first..=last)
            .map(|&(_, slot, key)| (slot, key))
    }

    /// Gives every tag a packet may carry now or in the next minute; a shared one more than once.
    pub(crate) fn tags(&self) -> impl Iterator<Item = Tag> {
        self.tags.iter().map(|&(tag, _, _)| tag)
    }

    /// A number that is another whenever [`tags`](Self::tags) may be others.
    pub(crate) const fn edition(&self) -> u32 {
        self.edition
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
        self.changed();
        let before = core::mem::replace(&mut self.window, window).map(listed);
        let Some(slots) = window.map(listed) else {
            self.tags.clear();
            return;
        };
        self.tags.retain(|(_, slot, _)| slots.contains(slot));
        let fresh =
            slots.map(|slot| (!before.is_some_and(|slots| slots.contains(&slot))).then_some(slot));
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
        self.changed();
        let slots = self.window.map(listed).into_iter().flatten();
        self.tags
            .extend(slots.map(|slot| (derived.tag(slot), slot, key)));
    }

    /// Removes a key that is not usable any more.
    pub(crate) fn remove(&mut self, key: KeyRef, derived: &DerivedKeys) {
        self.changed();
        for slot in self.window.map(listed).into_iter().flatten() {
            self.tags.remove(&(derived.tag(slot), slot, key));
        }
    }

    fn changed(&mut self) {
        self.edition = self.edition.wrapping_add(1);
    }

    /// Gives the number of entries: five for each key.
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
    fn a_key_has_the_tags_of_the_window_and_of_the_slot_ahead() {
        let keys = [derived(1), derived(2)];
        let all = || keys.iter().map(|(key, derived)| (*key, derived));
        let mut table = TagTable::default();
        table.slide(window(100), all());
        assert_eq!(table.len(), 10);
        table.slide(window(101), all());
        assert_eq!(table.len(), 10);
        for slot in window(101).expect("open") {
            let found: alloc::vec::Vec<_> = table.keys_of(keys[0].1.tag(slot)).collect();
            assert_eq!(found, [(slot, keys[0].0)]);
        }
        table.slide(window(99), all());
        assert_eq!(table.len(), 10);
        assert!(table.lags(window(100)) && !table.lags(window(99)));
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
        assert_eq!(table.len(), 5);
    }

    #[test]
    fn the_slot_ahead_is_listed_and_opens_nothing_yet() {
        let (key, keys) = derived(1);
        let mut table = TagTable::default();
        table.slide(window(100), [(key, &keys)].into_iter());
        let [.., last] = window(100).expect("open");
        let ahead = keys.tag(Slot::from_minutes(last.as_minutes() + 1));
        assert!(table.tags().any(|tag| tag == ahead));
        assert_eq!(table.keys_of(ahead).count(), 0);
        table.slide(window(101), [(key, &keys)].into_iter());
        assert_eq!(table.keys_of(ahead).count(), 1);
    }

    #[test]
    fn another_edition_says_that_the_tags_may_be_others() {
        let (key, keys) = derived(1);
        let mut table = TagTable::default();
        let mut before = table.edition();
        let mut is_another = |table: &TagTable| {
            let other = table.edition() != before;
            before = table.edition();
            other
        };
        table.slide(window(100), [(key, &keys)].into_iter());
        assert!(is_another(&table));
        table.remove(key, &keys);
        assert!(is_another(&table));
        table.add(key, &keys);
        assert!(is_another(&table));
        assert_eq!(table.keys_of(keys.tag(Slot::from_minutes(100))).count(), 1);
        assert!(!is_another(&table));
    }
}
