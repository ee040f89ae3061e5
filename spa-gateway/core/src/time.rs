//! The two clocks of an event. Deadlines run on [`Moment`], freshness on [`WallTime`]; the types keep them apart.

use core::time::Duration;

use spa_proto::WallTime;

/// When an event happened, on both clocks; read once for each event.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Now {
    /// The calendar clock, which may step either way.
    pub wall: WallTime,
    /// The clock that only goes forward.
    pub mono: Moment,
}

/// Milliseconds of a monotonic clock with an arbitrary origin.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct Moment(u64);

impl Moment {
    /// Takes milliseconds since the clock's origin.
    #[must_use]
    pub const fn from_millis(millis: u64) -> Self {
        Self(millis)
    }

    /// Gives the milliseconds since the clock's origin.
    #[must_use]
    pub const fn as_millis(self) -> u64 {
        self.0
    }

    /// Gives the moment `by` later.
    #[must_use]
    pub fn after(self, by: Duration) -> Self {
        Self(self.0.saturating_add(millis(by)))
    }

    /// Gives the moment `by` earlier; the origin at the earliest.
    pub(crate) fn before(self, by: Duration) -> Self {
        Self(self.0.saturating_sub(millis(by)))
    }

    /// Gives the next of the moments that come once in every `period`.
    pub(crate) fn next_of(self, period: Duration) -> Self {
        let period = millis(period).max(1);
        Self((self.0 / period).saturating_add(1).saturating_mul(period))
    }

    /// Gives the time from `earlier` to here; zero if `earlier` is later.
    #[must_use]
    pub const fn since(self, earlier: Self) -> Duration {
        Duration::from_millis(self.0.saturating_sub(earlier.0))
    }
}

/// Gives the whole milliseconds of a duration, as far as 64 bits hold them.
pub(crate) fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moments_of_a_period_are_the_same_for_everybody_and_never_now() {
        let period = Duration::from_millis(25);
        for at in [0, 1, 24] {
            assert_eq!(Moment(at).next_of(period), Moment(25));
        }
        assert_eq!(Moment(25).next_of(period), Moment(50));
    }
}
