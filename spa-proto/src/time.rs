//! Which minute is it, and how wrong may a clock be? (SPEC §5, §7)
//!
//! Wall time is an argument everywhere in this crate; arithmetic on it saturates, since both
//! ends of the range can arrive from outside.

use core::time::Duration;

/// How far a client's clock may be from the gateway's, either way: `F` (SPEC §7).
///
/// Larger forgives worse clocks. Every second of it is also a second longer in which a knock
/// that was caught before it arrived can still be used.
pub const FRESHNESS: Duration = Duration::from_secs(90);

/// Length of a slot in milliseconds (SPEC §5).
const SLOT_MS: u64 = 60_000;

/// An instant of the wall clock, in Unix milliseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct WallTime(u64);

impl WallTime {
    /// Takes Unix milliseconds.
    #[must_use]
    pub const fn from_millis(millis: u64) -> Self {
        Self(millis)
    }

    /// Gives Unix milliseconds.
    #[must_use]
    pub const fn as_millis(self) -> u64 {
        self.0
    }

    /// Moves forward, stopping at the end of the range.
    #[must_use]
    pub fn saturating_add(self, by: Duration) -> Self {
        Self(self.0.saturating_add(millis(by)))
    }

    /// Moves back, stopping at 1970.
    #[must_use]
    pub fn saturating_sub(self, by: Duration) -> Self {
        Self(self.0.saturating_sub(millis(by)))
    }

    /// Measures from `earlier` to here; zero if `earlier` is later.
    #[must_use]
    pub const fn since(self, earlier: Self) -> Duration {
        Duration::from_millis(self.0.saturating_sub(earlier.0))
    }

    /// Measures the distance to `other`, whichever is later.
    #[must_use]
    pub const fn distance(self, other: Self) -> Duration {
        Duration::from_millis(self.0.abs_diff(other.0))
    }

    /// Names the slot this instant lies in.
    #[must_use]
    pub const fn slot(self) -> Slot {
        Slot(self.0 / SLOT_MS)
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// A minute since 1970, the time inside every tag and MAC (SPEC §5).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Slot(u64);

impl Slot {
    /// Takes minutes since 1970.
    #[must_use]
    pub const fn from_minutes(minutes: u64) -> Self {
        Self(minutes)
    }

    /// Gives minutes since 1970.
    #[must_use]
    pub const fn as_minutes(self) -> u64 {
        self.0
    }

    /// Lists the slots a fresh knock can name: `floor((now−F)/60) … floor((now+F)/60)` (SPEC §7).
    ///
    /// Always four: `2 F` is exactly three slots.
    #[must_use]
    pub fn window(now: WallTime) -> [Self; 4] {
        let first = now.saturating_sub(FRESHNESS).slot().0;
        [0, 1, 2, 3].map(|ahead| Self(first.saturating_add(ahead)))
    }

    /// Gives the first instant at which this slot is outside every later window: its end plus
    /// `F`. What is remembered per slot can be forgotten then (SPEC §7, spent set).
    #[must_use]
    pub fn leaves_at(self) -> WallTime {
        WallTime(self.0.saturating_add(1).saturating_mul(SLOT_MS)).saturating_add(FRESHNESS)
    }

    /// The eight bytes a slot has in every formula of SPEC §5.
    pub(crate) const fn to_bytes(self) -> [u8; 8] {
        self.0.to_be_bytes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_window_has_four_slots_and_holds_every_fresh_instant() {
        for now in [90_000, 1_784_684_849_999, 1_784_684_850_000] {
            let now = WallTime::from_millis(now);
            let window = Slot::window(now);
            assert!(window.contains(&now.saturating_sub(FRESHNESS).slot()));
            assert!(window.contains(&now.saturating_add(FRESHNESS).slot()));
            assert_eq!(window[3].0 - window[0].0, 3);
        }
    }

    #[test]
    fn a_slot_leaves_when_the_window_has_passed_it() {
        let slot = Slot::from_minutes(100);
        let leaves = slot.leaves_at();
        let before = leaves.saturating_sub(Duration::from_millis(1));
        assert!(Slot::window(before).contains(&slot));
        assert!(!Slot::window(leaves).contains(&slot));
    }

    #[test]
    fn the_ends_of_the_range_do_not_overflow() {
        let last = WallTime::from_millis(u64::MAX);
        assert_eq!(last.saturating_add(FRESHNESS), last);
        assert_eq!(
            WallTime::default().saturating_sub(FRESHNESS),
            WallTime::default()
        );
        let _ = Slot::window(last);
        assert_eq!(Slot::from_minutes(u64::MAX).leaves_at(), last);
    }
}
