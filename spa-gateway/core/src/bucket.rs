//! How often? A token bucket counted in milliseconds, so that nothing is lost to rounding.

use core::time::Duration;

use crate::time::{Moment, millis};

/// How many tokens a bucket holds and how fast they come back.
#[derive(Debug)]
pub(crate) struct Rate {
    /// The most tokens.
    pub(crate) burst: u32,
    /// Milliseconds until one comes back.
    pub(crate) every_ms: u32,
}

/// Packets of one credential (SPEC §8 step 4): 6 at once, one more every 2 s.
pub(crate) const MESSAGES: Rate = Rate {
    burst: 6,
    every_ms: 2_000,
};
/// Failed transactions of one credential (SPEC §8 step 9): 5 at once, one more every 10 min.
pub(crate) const FAILURES: Rate = Rate {
    burst: 5,
    every_ms: 600_000,
};

/// Rekeys of one session: 4 at once, one more every 15 s. Each costs some 0.2 ms of the core's thread.
pub(crate) const REKEYS: Rate = Rate {
    burst: 4,
    every_ms: 15_000,
};

/// A bucket that fills with time.
#[derive(Debug)]
pub(crate) struct Bucket {
    rate: &'static Rate,
    /// What it holds, in milliseconds of waiting.
    level_ms: u32,
    at: Moment,
}

/// The bucket holds less than a token.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Empty;

impl Bucket {
    /// Makes a bucket with some tokens in it.
    pub(crate) fn holding(rate: &'static Rate, tokens: u32, now: Moment) -> Self {
        let level_ms = tokens.min(rate.burst).saturating_mul(rate.every_ms);
        Self {
            rate,
            level_ms,
            at: now,
        }
    }

    /// Makes a full bucket.
    pub(crate) fn full(rate: &'static Rate, now: Moment) -> Self {
        Self::holding(rate, rate.burst, now)
    }

    /// Says whether a token is there, without taking it.
    pub(crate) fn offers(&self, now: Moment) -> bool {
        self.level(now) >= self.rate.every_ms
    }

    /// Gives how long it is until the next token is there.
    pub(crate) fn next_in(&self, now: Moment) -> Duration {
        let lacking = self.rate.every_ms.saturating_sub(self.level(now));
        Duration::from_millis(lacking.into())
    }

    /// Takes a token.
    pub(crate) fn take(&mut self, now: Moment) -> Result<(), Empty> {
        let left = self
            .level(now)
            .checked_sub(self.rate.every_ms)
            .ok_or(Empty)?;
        self.level_ms = left;
        self.at = self.at.max(now);
        Ok(())
    }

    fn level(&self, now: Moment) -> u32 {
        let gained = u32::try_from(millis(now.since(self.at))).unwrap_or(u32::MAX);
        let most = self.rate.burst.saturating_mul(self.rate.every_ms);
        self.level_ms.saturating_add(gained).min(most)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn at(millis: u64) -> Moment {
        Moment::from_millis(millis)
    }

    #[test]
    fn six_messages_pass_at_once_and_then_one_every_two_seconds() {
        let mut bucket = Bucket::full(&MESSAGES, at(0));
        for _ in 0..6 {
            assert_eq!(bucket.take(at(0)), Ok(()));
        }
        assert_eq!(bucket.take(at(1_999)), Err(Empty));
        assert_eq!(bucket.take(at(2_000)), Ok(()));
        assert_eq!(bucket.take(at(3_999)), Err(Empty));
        assert_eq!(bucket.take(at(4_000)), Ok(()));
    }

    #[test]
    fn a_bucket_never_holds_more_than_its_burst() {
        let mut bucket = Bucket::holding(&FAILURES, 9, at(0));
        for _ in 0..5 {
            assert_eq!(bucket.take(at(u64::MAX)), Ok(()));
        }
        assert!(!bucket.offers(at(u64::MAX)));
    }

    #[test]
    fn a_token_is_offered_from_the_millisecond_on_that_was_said() {
        let mut bucket = Bucket::holding(&MESSAGES, 1, at(0));
        assert!(bucket.offers(at(0)));
        assert_eq!(bucket.next_in(at(0)), Duration::ZERO);
        assert_eq!(bucket.take(at(0)), Ok(()));
        assert_eq!(bucket.next_in(at(500)), Duration::from_millis(1_500));
        assert!(!bucket.offers(at(1_999)));
        assert!(bucket.offers(at(2_000)));
    }

    #[test]
    fn an_earlier_moment_gives_nothing_back() {
        let mut bucket = Bucket::holding(&MESSAGES, 1, at(5_000));
        assert_eq!(bucket.take(at(4_000)), Ok(()));
        assert_eq!(bucket.take(at(5_000)), Err(Empty));
    }
}
