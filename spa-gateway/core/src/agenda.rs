//! When to come back, and for what. Each timer is set at most once; setting it again moves it.

use alloc::collections::{BTreeMap, BTreeSet};

use spa_proto::SessionId;

use crate::closing::ClosingId;
use crate::time::Moment;

/// What there is to come back for.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) enum Timer {
    /// Tags, invites, knock keys, the floor.
    Minute,
    /// A lock, a grant, an approval or a request ends.
    Exceptions,
    /// The traffic of sessions is to be counted.
    Count,
    /// It is to be said which connections were not written to the access log.
    Unwritten,
    /// A session reaches its deadline.
    End(SessionId),
    /// A resource of a session reaches its end before the session does.
    Review(SessionId),
    /// A door has waited long enough.
    Door(SessionId),
    /// A session is to be told that it ends.
    Warning(SessionId),
    /// A report of a device is late.
    Report(SessionId),
    /// A peer is to be looked at.
    Observe(SessionId),
    /// What a closing left for a moment later is closed.
    LastWord(ClosingId),
    /// A closing that failed is tried again.
    Retry(ClosingId),
}

/// All timers, by time.
#[derive(Debug, Default)]
pub(crate) struct Agenda {
    due: BTreeSet<(Moment, Timer)>,
    at: BTreeMap<Timer, Moment>,
}

impl Agenda {
    /// Sets or moves a timer.
    pub(crate) fn set(&mut self, timer: Timer, at: Moment) {
        self.cancel(timer);
        self.at.insert(timer, at);
        self.due.insert((at, timer));
    }

    /// Removes a timer, if it is set.
    pub(crate) fn cancel(&mut self, timer: Timer) {
        if let Some(at) = self.at.remove(&timer) {
            self.due.remove(&(at, timer));
        }
    }

    /// Says whether a timer is set.
    pub(crate) fn is_set(&self, timer: Timer) -> bool {
        self.at.contains_key(&timer)
    }

    /// Takes the next timer that is due.
    pub(crate) fn take_due(&mut self, now: Moment) -> Option<Timer> {
        let &(at, timer) = self.due.first()?;
        if at > now {
            return None;
        }
        self.cancel(timer);
        Some(timer)
    }

    /// Gives the moment of one timer, if it is set.
    pub(crate) fn time_of(&self, timer: Timer) -> Option<Moment> {
        self.at.get(&timer).copied()
    }

    /// Gives the moment of the next timer.
    pub(crate) fn next(&self) -> Option<Moment> {
        self.due.first().map(|(at, _)| *at)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_timer_that_is_set_again_rings_once_and_at_the_later_time() {
        let at = Moment::from_millis;
        let mut agenda = Agenda::default();
        agenda.set(Timer::Minute, at(5));
        agenda.set(Timer::Minute, at(9));
        assert_eq!(agenda.next(), Some(at(9)));
        assert_eq!(agenda.take_due(at(8)), None);
        assert_eq!(agenda.take_due(at(9)), Some(Timer::Minute));
        assert_eq!(agenda.take_due(at(99)), None);
    }
}
