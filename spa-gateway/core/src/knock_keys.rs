//! The gateway's knock keys: kid 0 for good, the others for a week each (SPEC §3.3).
//!
//! Invariant: a key is handed out only after it is on disk, and at most [`MAX_ROTATING`] rotate at once.

use alloc::collections::BTreeMap;
use alloc::vec::Vec;
use core::time::Duration;

use spa_proto::{KnockPublic, KnockSecret, LONGEST_PREKEY, WallTime};

use crate::snapshot::KnockKeyRow;

/// How long a key is handed out (SPEC §3.3).
pub const HANDED_OUT: Duration = Duration::from_secs(7 * 24 * 60 * 60);
/// From its making to its `not_after`: handed out for a week, accepted for one more (SPEC §3.3).
pub const ACCEPTED: Duration = Duration::from_secs(14 * 24 * 60 * 60);
/// The most rotating keys at once (SPEC §3.3).
pub const MAX_ROTATING: usize = 3;

/// The live knock keys.
#[derive(Debug)]
pub(crate) struct KnockKeys {
    identity: KnockSecret,
    rotating: BTreeMap<u8, Rotating>,
}

#[derive(Debug)]
struct Rotating {
    secret: KnockSecret,
    made: WallTime,
    not_after: WallTime,
}

/// The key a client is to use from now on: what PREKEY says (SPEC §6).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct NewestKey {
    pub(crate) kid: u8,
    pub(crate) public: KnockPublic,
    pub(crate) not_after: WallTime,
}

impl KnockKeys {
    /// Takes the keys of the store; `None` without kid 0.
    pub(crate) fn restore(rows: Vec<KnockKeyRow>) -> Option<Self> {
        let mut identity = None;
        let mut rotating = BTreeMap::new();
        for row in rows {
            match (row.kid, row.not_after) {
                (0, _) => identity = Some(row.secret),
                (kid, Some(not_after)) => {
                    rotating.insert(
                        kid,
                        Rotating {
                            secret: row.secret,
                            made: row.made,
                            not_after,
                        },
                    );
                }
                (_, None) => {}
            }
        }
        identity.map(|identity| Self { identity, rotating })
    }

    /// Gives the long-lived public key.
    pub(crate) const fn identity(&self) -> KnockPublic {
        self.identity.public()
    }

    /// Gives the key with this number if it is accepted now.
    pub(crate) fn live(&self, kid: u8, now: WallTime) -> Option<&KnockSecret> {
        if kid == 0 {
            return Some(&self.identity);
        }
        self.rotating
            .get(&kid)
            .filter(|key| now < key.not_after)
            .map(|key| &key.secret)
    }

    /// Gives the key to hand out.
    pub(crate) fn newest(&self, now: WallTime) -> Option<NewestKey> {
        let live = self
            .rotating
            .iter()
            .filter(|(_, key)| now < key.not_after && key.not_after.since(now) <= LONGEST_PREKEY);
        live.max_by_key(|(_, key)| key.made)
            .map(|(kid, key)| NewestKey {
                kid: *kid,
                public: key.secret.public(),
                not_after: key.not_after,
            })
    }

    /// Gives the number of the next key if one is due.
    pub(crate) fn due(&self, now: WallTime) -> Option<u8> {
        let newest = self.rotating.iter().max_by_key(|(_, key)| key.made);
        let old_enough = newest.is_none_or(|(_, key)| {
            // A key made ahead of the clock counts as old: the clock ran ahead once.
            now.since(key.made) >= HANDED_OUT || key.made > now
        });
        if !old_enough || self.rotating.len() >= MAX_ROTATING {
            return None;
        }
        let after = newest.map_or(0, |(kid, _)| *kid);
        (1..=u8::MAX)
            .map(|step| {
                after
                    .checked_add(step)
                    .unwrap_or_else(|| after.wrapping_add(step).saturating_add(1))
            })
            .find(|kid| *kid != 0 && !self.rotating.contains_key(kid))
    }

    /// Adds a key that is on disk.
    pub(crate) fn add(&mut self, row: KnockKeyRow) {
        if let Some(not_after) = row.not_after {
            self.rotating.insert(
                row.kid,
                Rotating {
                    secret: row.secret,
                    made: row.made,
                    not_after,
                },
            );
        }
    }

    /// Erases the keys that are not accepted any more, and those a clock that ran far ahead left, which no client
    /// uses; gives their numbers.
    pub(crate) fn erase_past(&mut self, now: WallTime) -> Vec<u8> {
        let past =
            |key: &Rotating| now >= key.not_after || key.not_after.since(now) > LONGEST_PREKEY;
        let gone = self
            .rotating
            .iter()
            .filter(|(_, key)| past(key))
            .map(|(kid, _)| *kid)
            .collect();
        self.rotating.retain(|_, key| !past(key));
        gone
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(kid: u8, made: u64) -> KnockKeyRow {
        let made = WallTime::from_millis(made);
        KnockKeyRow {
            kid,
            secret: KnockSecret::from_bytes([kid | 0x40; 32]),
            made,
            not_after: (kid != 0).then(|| made.saturating_add(ACCEPTED)),
        }
    }

    #[test]
    fn a_key_is_due_after_a_week_and_the_numbers_go_round_without_zero() {
        let week = u64::try_from(HANDED_OUT.as_millis()).expect("fits");
        let mut keys = KnockKeys::restore([row(0, 0)].into()).expect("kid 0");
        assert_eq!(keys.due(WallTime::from_millis(0)), Some(1));
        keys.add(row(255, 1));
        assert_eq!(keys.due(WallTime::from_millis(week)), None);
        assert_eq!(keys.due(WallTime::from_millis(week + 1)), Some(1));
        keys.add(row(1, week + 1));
        assert_eq!(
            keys.newest(WallTime::from_millis(week + 2))
                .map(|key| key.kid),
            Some(1)
        );
    }

    #[test]
    fn a_key_is_refused_from_its_not_after_on_and_then_erased() {
        let mut keys = KnockKeys::restore([row(0, 0), row(3, 0)].into()).expect("kid 0");
        let not_after = WallTime::from_millis(0).saturating_add(ACCEPTED);
        let before = not_after.saturating_sub(Duration::from_millis(1));
        assert!(keys.live(3, before).is_some());
        assert!(keys.live(3, not_after).is_none());
        assert_eq!(keys.erase_past(before), []);
        assert_eq!(keys.erase_past(not_after), [3]);
        assert!(keys.live(0, not_after).is_some());
    }

    #[test]
    fn a_key_of_a_clock_that_ran_ahead_is_neither_handed_out_nor_kept() {
        let mut keys = KnockKeys::restore([row(0, 0), row(1, 1)].into()).expect("kid 0");
        let year = 365 * 24 * 60 * 60 * 1_000;
        (2..=3).for_each(|kid| keys.add(row(kid, year)));
        let now = WallTime::from_millis(2);
        assert_eq!(keys.newest(now).map(|key| key.kid), Some(1));
        assert_eq!(keys.erase_past(now), [2, 3]);
        assert_eq!(keys.newest(now).map(|key| key.kid), Some(1));
    }

    /// A prekey's `not_after` lies 15 days ahead at most, to the millisecond (SPEC §6).
    #[test]
    fn a_key_is_handed_out_as_long_as_a_client_takes_it() {
        let longest = u64::try_from(LONGEST_PREKEY.as_millis()).expect("fits");
        let accepted = u64::try_from(ACCEPTED.as_millis()).expect("fits");
        let week = u64::try_from(HANDED_OUT.as_millis()).expect("fits");
        assert_eq!((week, accepted), (604_800_000, 1_209_600_000));
        let made = longest * 2;
        let mut keys = KnockKeys::restore([row(0, 0), row(1, made)].into()).expect("kid 0");
        let not_after = made + accepted;
        for (now, handed_out) in [
            (not_after - longest - 1, false),
            (not_after - longest, true),
            (not_after - 1, true),
            (not_after, false),
        ] {
            let newest = keys.newest(WallTime::from_millis(now));
            assert_eq!(newest.is_some(), handed_out, "{now}");
            if let Some(newest) = newest {
                let of = KnockSecret::from_bytes([0x41; 32]).public();
                assert_eq!((newest.kid, newest.public), (1, of));
                assert_eq!(newest.not_after, WallTime::from_millis(not_after));
            }
        }
        assert_eq!(
            keys.erase_past(WallTime::from_millis(not_after - longest)),
            []
        );
        assert_eq!(
            keys.erase_past(WallTime::from_millis(not_after - longest - 1)),
            [1]
        );
        assert_eq!(
            keys.identity(),
            KnockSecret::from_bytes([0x40; 32]).public()
        );
        assert!(keys.live(1, WallTime::from_millis(made)).is_none());
    }

    #[test]
    fn a_key_made_in_this_millisecond_is_not_old_and_one_made_ahead_is() {
        let at = |now| WallTime::from_millis(now);
        let keys = KnockKeys::restore([row(0, 0), row(9, 5)].into()).expect("kid 0");
        assert_eq!(keys.due(at(5)), None);
        assert_eq!(keys.due(at(4)), Some(10));
        assert_eq!(keys.due(at(6)), None);
        let keys = KnockKeys::restore([row(0, 0), row(255, 5), row(1, 4)].into()).expect("kid 0");
        assert_eq!(keys.due(at(4)), Some(2), "1 is in use, and 0 never rotates");
    }

    #[test]
    fn no_more_than_three_keys_rotate() {
        let keys = KnockKeys::restore((0..=3).map(|kid| row(kid, 0)).collect()).expect("kid 0");
        assert_eq!(
            keys.due(WallTime::from_millis(0).saturating_add(ACCEPTED * 2)),
            None
        );
    }
}
