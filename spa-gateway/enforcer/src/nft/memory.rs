//! What is open, and until when, where the sets are in a table that somebody else may load anew.
//!
//! In a table of our own the kernel is the only memory. Another's table comes back empty from its owner's reload, and what was
//! open in it then is put back from here, for the rest of its time and never for longer.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use super::element::Key;
use super::sets::{Content, Family};

/// Which element: what it says and its key.
pub type Place = (Content, Family, Key);

/// Everything that was opened and not yet closed.
#[derive(Debug, Default)]
pub struct Memory {
    until: BTreeMap<Place, Instant>,
}

impl Memory {
    /// Remembers an opening, or its new end.
    pub fn keep(&mut self, place: Place, ttl: Duration) {
        self.until.insert(place, Instant::now() + ttl);
    }

    /// Forgets one.
    pub fn forget(&mut self, place: &Place) {
        self.until.remove(place);
    }

    /// Forgets what has lapsed, and gives the rest with what is left of its time.
    pub fn alive(&mut self) -> Vec<(Place, Duration)> {
        let now = Instant::now();
        self.until.retain(|_, until| *until > now);
        let rest = self.until.iter();
        rest.map(|(place, until)| (place.clone(), *until - now))
            .collect()
    }

    /// The longest time that is left of an opening whose key begins like this.
    pub fn longest(
        &self,
        family: Family,
        contents: &[Content],
        beginning: &[u8],
    ) -> Option<Duration> {
        let now = Instant::now();
        let from = |content| {
            let first = Key {
                first: beginning.to_vec(),
                last: None,
            };
            (content, family, first)
        };
        let of = |content: &Content| {
            self.until
                .range(from(*content)..)
                .take_while(|((at, of, key), _)| {
                    at == content && *of == family && key.first.starts_with(beginning)
                })
                .map(|(_, until)| until.saturating_duration_since(now))
                .filter(|left| !left.is_zero())
                .max()
        };
        contents.iter().filter_map(of).max()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place(content: Content, first: &[u8]) -> Place {
        let key = Key {
            first: first.to_vec(),
            last: None,
        };
        (content, Family::V4, key)
    }

    #[test]
    fn what_has_lapsed_is_not_put_back() {
        let mut memory = Memory::default();
        memory.keep(place(Content::Door, &[1, 2, 3, 4]), Duration::ZERO);
        memory.keep(place(Content::Door, &[1, 2, 3, 5]), Duration::from_secs(60));
        let alive = memory.alive();
        let [(of, left)] = &alive[..] else {
            panic!("one is alive: {alive:?}")
        };
        assert_eq!(*of, place(Content::Door, &[1, 2, 3, 5]));
        assert!(*left <= Duration::from_secs(60));
        memory.forget(&place(Content::Door, &[1, 2, 3, 5]));
        assert_eq!(memory.alive(), []);
    }

    #[test]
    fn of_one_address_the_longest_counts() {
        let mut memory = Memory::default();
        let flow = |bytes: &[u8]| place(Content::Flow, bytes);
        memory.keep(flow(&[10, 0, 0, 7, 1]), Duration::from_secs(60));
        memory.keep(flow(&[10, 0, 0, 7, 2]), Duration::from_secs(600));
        memory.keep(flow(&[10, 0, 0, 8, 1]), Duration::from_secs(6_000));
        let longest = |memory: &Memory, beginning: &[u8]| {
            memory.longest(Family::V4, &[Content::Flow, Content::Own], beginning)
        };
        let left = longest(&memory, &[10, 0, 0, 7]).expect("open");
        assert!(left > Duration::from_secs(60) && left <= Duration::from_secs(600));
        memory.forget(&flow(&[10, 0, 0, 7, 2]));
        assert!(longest(&memory, &[10, 0, 0, 7]).expect("open") <= Duration::from_secs(60));
        memory.forget(&flow(&[10, 0, 0, 7, 1]));
        assert_eq!(longest(&memory, &[10, 0, 0, 7]), None);
    }
}
