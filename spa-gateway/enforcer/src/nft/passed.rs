//! What had gone through an opening before it was written anew: an element with another timeout counts from nothing.
//!
//! Invariant: nothing is opened or closed by this. An opening that is not there has nothing here once all are listed.

use std::collections::BTreeMap;

use super::element::Key;
use super::sets::Set;

/// Packets and bytes of each element that was replaced.
#[derive(Debug, Default)]
pub struct Passed {
    before: BTreeMap<(u32, Key), (u64, u64)>,
}

impl Passed {
    /// An element was replaced that had counted so much.
    pub fn add(&mut self, set: &Set, key: &Key, (packets, bytes): (u64, u64)) {
        let before = self.before.entry((set.id, key.clone())).or_default();
        before.0 = before.0.saturating_add(packets);
        before.1 = before.1.saturating_add(bytes);
    }

    /// It begins anew, or is closed.
    pub fn forget(&mut self, set: &Set, key: &Key) {
        self.before.remove(&(set.id, key.clone()));
    }

    /// Packets and bytes from before.
    pub fn of(&self, set: &Set, key: &Key) -> (u64, u64) {
        let before = self.before.get(&(set.id, key.clone()));
        before.copied().unwrap_or_default()
    }

    /// Forgets what has lapsed.
    pub fn retain(&mut self, is_open: impl Fn(&(u32, Key)) -> bool) {
        self.before.retain(|of, _| is_open(of));
    }

    /// The table is another.
    pub fn clear(&mut self) {
        self.before.clear();
    }
}
