//! Was the clock set? The calendar clock is held against the one that only goes forward (SPEC §7).
//!
//! Invariant: the reference moves only to a time that is believed, so a jump that nobody vouched for is one until the
//! clock is back, or an administrator says that it is right.

use core::fmt;
use core::time::Duration;

use spa_proto::{FRESHNESS, WallTime};

use crate::time::{Moment, Now};

/// How far a clock that was believed may be set and still be believed, when the kernel or the configuration vouches for
/// it: a wrong time zone (26 h between the farthest) is never found out by more than this, nor a machine that its
/// hypervisor stopped overnight. More is a broken clock, a wrong time server, or somebody who wants something.
pub const STEP_BELIEVED: Duration = Duration::from_secs(26 * 60 * 60);

/// How far the clock was set, and which way.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ClockStep {
    /// It reads later than time has gone by.
    Ahead(Duration),
    /// It reads earlier.
    Back(Duration),
}

/// A moment at which both clocks were read and the calendar's was believed.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Reference {
    at: Now,
    /// Since when it goes evenly: the first belief, or the last step.
    since: Moment,
    stepped: bool,
}

impl ClockStep {
    /// Gives how far.
    #[must_use]
    pub const fn by(self) -> Duration {
        match self {
            Self::Ahead(by) | Self::Back(by) => by,
        }
    }
}

/// As "365 days ahead" or "3600 s back".
impl fmt::Display for ClockStep {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const DAY: u64 = 24 * 60 * 60;
        let way = match self {
            Self::Ahead(_) => "ahead",
            Self::Back(_) => "back",
        };
        match self.by().as_secs() {
            seconds if seconds >= 2 * DAY => {
                write!(f, "{} days {way}", (seconds + DAY / 2) / DAY)
            }
            seconds => write!(f, "{seconds} s {way}"),
        }
    }
}

impl Reference {
    /// Begins with a clock that is believed.
    pub(crate) const fn begin(now: Now) -> Self {
        Self {
            at: now,
            since: now.mono,
            stepped: false,
        }
    }

    /// Gives how far the clock is from where it would be if nobody had set it.
    pub(crate) fn step(&self, now: Now) -> ClockStep {
        let expected = self.at.wall.saturating_add(now.mono.since(self.at.mono));
        if now.wall >= expected {
            ClockStep::Ahead(now.wall.since(expected))
        } else {
            ClockStep::Back(expected.since(now.wall))
        }
    }

    /// Follows a clock that is believed.
    pub(crate) fn follow(&mut self, now: Now) {
        if was_set(self.step(now)) {
            self.since = now.mono;
            self.stepped = true;
        }
        self.at = now;
    }

    /// Says whether it has gone evenly for this long.
    pub(crate) fn is_steady_for(&self, length: Duration, now: Now) -> bool {
        now.mono.since(self.since) >= length
    }

    /// Says whether it was never set, or long enough ago.
    pub(crate) fn is_settled(&self, length: Duration, now: Now) -> bool {
        !self.stepped || self.is_steady_for(length, now)
    }
}

/// Says whether a step is one: by less, honest knocks are still of now, and clocks are slewed.
pub(crate) fn was_set(step: ClockStep) -> bool {
    step.by() > FRESHNESS
}

/// Says whether a step is too far for a clock to be believed on its own word.
pub(crate) fn is_too_far(step: ClockStep) -> bool {
    step.by() > STEP_BELIEVED
}

/// Says whether the clock reads a time at which this cannot have happened yet.
pub(crate) fn precedes(now: WallTime, happened: WallTime) -> bool {
    now.saturating_add(FRESHNESS) < happened
}
