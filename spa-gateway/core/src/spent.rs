//! Was this very packet here before? (SPEC §7, spent set)

use litemap::LiteMap;
use spa_proto::Slot;

use crate::bucket::MESSAGES;

/// Seconds of the four slots in which a packet can be valid.
const WINDOW_MS: u32 = 4 * 60_000;
/// The most entries: what the message bucket lets through while a slot is in the window.
pub(crate) const MAX_SPENT: usize = (MESSAGES.burst + WINDOW_MS / MESSAGES.every_ms) as usize;

/// The V of every packet that passed step 4, as long as its slot is in the window.
#[derive(Debug, Default)]
pub(crate) struct SpentSet(LiteMap<(Slot, [u8; 8]), ()>);

/// The set holds as much as it may: what cannot be remembered must not pass.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Full;

impl SpentSet {
    /// Says whether a packet is spent.
    pub(crate) fn holds(&self, slot: Slot, v: [u8; 8]) -> bool {
        self.0.contains_key(&(slot, v))
    }

    /// Counts the packets.
    #[cfg(test)]
    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }

    /// Spends a packet; forgets the slots before `oldest`.
    pub(crate) fn spend(&mut self, slot: Slot, v: [u8; 8], oldest: Slot) -> Result<(), Full> {
        self.0.retain(|(slot, _), ()| *slot >= oldest);
        if self.0.len() >= MAX_SPENT {
            return Err(Full);
        }
        self.0.insert((slot, v), ());
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Six at once, and one every 2 s for the four minutes of the window.
    #[test]
    fn the_set_has_room_for_all_that_can_pass() {
        assert_eq!(MAX_SPENT, 126);
    }

    #[test]
    fn a_full_set_lets_nothing_pass_and_empties_with_its_slots() {
        let slot = Slot::from_minutes(5);
        let mut set = SpentSet::default();
        for number in 0..MAX_SPENT {
            assert_eq!(set.spend(slot, (number as u64).to_be_bytes(), slot), Ok(()));
        }
        assert_eq!(set.spend(slot, [0xff; 8], slot), Err(Full));
        assert!(set.holds(slot, [0; 8]));
        let later = Slot::from_minutes(6);
        assert_eq!(set.spend(later, [0xff; 8], later), Ok(()));
        assert!(!set.holds(slot, [0; 8]));
    }
}
