//! One person on one device: its keys, its marks on disk, and what only memory knows of it.

use alloc::boxed::Box;
use alloc::collections::VecDeque;
use alloc::string::String;
use core::time::Duration;

use litemap::LiteMap;
use spa_proto::{
    CredentialId, DerivedKeys, FRESHNESS, GatewayId, OpenedKnock, ProofPublic, RefusedFor,
    ResourceId, SessionId, SessionKey, Verdict, WallTime,
};

use crate::bucket::{Bucket, FAILURES, MESSAGES};
use crate::few::exactly;
use crate::name::Name;
use crate::person::Person;
use crate::policy::Facts;
use crate::snapshot::{CredentialRow, KeyKind, Standing};
use crate::spent::SpentSet;
use crate::time::{Moment, Now};

/// How long after the first answer a transaction may be repeated (SPEC §10).
pub const REPEAT_WITHIN: Duration = Duration::from_secs(10);
/// How many repeats are answered (SPEC §10).
pub const MAX_REPEATS: u8 = 5;
/// How many failures in a row disable a credential (SPEC §8 step 9).
pub const MAX_FAILURES: u32 = 100;
/// The most candidate keys of one invite (SPEC §14).
pub const MAX_CANDIDATES: usize = 6;
/// How long after the first ENROLLED a further ENROL is answered (SPEC §14).
pub const ENROL_WITHIN: Duration = Duration::from_secs(10 * 60);
/// How long a failed transaction is remembered: 2 F (SPEC §8 step 8).
const FAILED_FOR: Duration = Duration::from_secs(2 * FRESHNESS.as_secs());
/// The most failed transactions remembered: what the failure bucket lets happen within 2 F, and one.
pub(crate) const MAX_FAILED: usize = FAILURES.burst as usize + 1;

/// A credential, or an invite that may become one.
#[derive(Debug)]
pub(crate) struct Credential {
    pub(crate) person: Name,
    pub(crate) label: String,
    pub(crate) proof: Option<ProofPublic>,
    /// Boxed: the map makes room for four, and nearly every credential has one.
    pub(crate) keys: LiteMap<u8, Box<Key>>,
    pub(crate) standing: Standing,
    pub(crate) expires: Option<WallTime>,
    pub(crate) confirmed: bool,
    pub(crate) enrolled: Option<WallTime>,
    pub(crate) invite_until: Option<WallTime>,
    pub(crate) last_ts: WallTime,
    pub(crate) failures: u32,
    pub(crate) session: Option<SessionId>,
    pub(crate) memory: Memory,
}

/// One key of a credential.
#[derive(Debug)]
pub(crate) struct Key {
    pub(crate) kind: KeyKind,
    pub(crate) derived: DerivedKeys,
}

/// What a restart forgets (SPEC §7).
#[derive(Debug)]
pub(crate) struct Memory {
    pub(crate) messages: Bucket,
    pub(crate) failures: Bucket,
    pub(crate) spent: SpentSet,
    pub(crate) failed: VecDeque<(WallTime, Moment)>,
    pub(crate) answered: Option<Box<Answered>>,
    /// What the device last said of itself.
    pub(crate) facts: Option<Facts>,
    /// How many operations are under way for it; its next knock waits until none is.
    pub(crate) under_way: u32,
}

/// The transaction answered last (SPEC §10).
#[derive(Debug)]
pub(crate) struct Answered {
    pub(crate) credential: CredentialId,
    /// The digest of its plaintext, which may hold a recovery code and is not kept.
    pub(crate) transaction: [u8; 32],
    pub(crate) first: Moment,
    pub(crate) repeats: u8,
    /// The gateway time of the last answer.
    pub(crate) gateway_time: WallTime,
    pub(crate) outcome: AnsweredWith,
}

/// How it was answered, as far as a repeat needs it.
#[derive(Debug)]
pub(crate) enum AnsweredWith {
    Opened {
        session: SessionId,
        verdicts: Verdicts,
    },
    Roamed {
        session: SessionId,
    },
    /// The key outlives the session for as long as its CLOSE may be repeated.
    Closed {
        key: SessionKey,
    },
    Enrolled,
    Refused(Refused),
}

/// The verdicts of a knock, in the order asked.
pub(crate) type Verdicts = alloc::vec::Vec<(ResourceId, Verdict)>;

/// A refusal that is answered (SPEC §8 step 11).
#[derive(Clone, Debug)]
pub(crate) struct Refused {
    pub(crate) why: RefusedFor,
    pub(crate) verdicts: Verdicts,
    pub(crate) reason: &'static str,
}

impl Credential {
    /// Takes a credential of the store. `failure_tokens`: one after a restart, all for a new one.
    pub(crate) fn restore(
        row: CredentialRow,
        gateway: GatewayId,
        failure_tokens: u32,
        now: Moment,
    ) -> Self {
        let derive = |row: crate::snapshot::KeyRow, id| {
            (
                row.number,
                Box::new(Key {
                    kind: row.kind,
                    derived: DerivedKeys::derive(&row.key, gateway, id),
                }),
            )
        };
        Self {
            person: row.person,
            label: row.label,
            proof: row.proof,
            keys: exactly(row.keys.into_iter().map(|key| derive(key, row.id))),
            standing: row.standing,
            expires: row.expires,
            confirmed: row.confirmed,
            enrolled: row.enrolled,
            invite_until: row.invite_until,
            last_ts: row.last_ts,
            failures: row.failures,
            session: None,
            memory: Memory {
                messages: Bucket::full(&MESSAGES, now),
                failures: Bucket::holding(&FAILURES, failure_tokens, now),
                spent: SpentSet::default(),
                failed: VecDeque::new(),
                answered: None,
                facts: None,
                under_way: 0,
            },
        }
    }

    /// Says whether it is honoured, and its person is.
    pub(crate) fn is_honoured(&self, person: &Person) -> bool {
        self.standing == Standing::Enabled && person.standing == Standing::Enabled
    }

    /// Says whether it, or the invite it still is, has expired.
    pub(crate) fn has_expired(&self, now: WallTime) -> bool {
        self.expires
            .into_iter()
            .chain(self.invite_until)
            .any(|until| now >= until)
    }

    /// Counts the candidate keys.
    pub(crate) fn candidates(&self) -> usize {
        self.keys
            .values()
            .filter(|key| key.kind == KeyKind::Candidate)
            .count()
    }

    /// Says whether a device holds it: its first OPEN has passed.
    pub(crate) fn is_active(&self) -> bool {
        self.keys.values().any(|key| key.kind == KeyKind::Live)
    }
}

impl Memory {
    /// Says whether a transaction failed a factor within the last 2 F.
    pub(crate) fn has_failed(&self, ts: WallTime, now: Moment) -> bool {
        self.failed
            .iter()
            .any(|(failed, at)| *failed == ts && now.since(*at) <= FAILED_FOR)
    }

    /// Remembers that a transaction failed a factor.
    pub(crate) fn remember_failed(&mut self, ts: WallTime, now: Moment) {
        self.failed.retain(|(_, at)| now.since(*at) <= FAILED_FOR);
        if self.failed.len() >= MAX_FAILED {
            self.failed.pop_front();
        }
        self.failed.push_back((ts, now));
    }

    /// Gives the transaction answered last if this knock may repeat it.
    pub(crate) fn repeatable(&self, opened: &OpenedKnock, now: Moment) -> Option<&Answered> {
        self.answered.as_deref().filter(|answered| {
            answered.repeats < MAX_REPEATS
                && now.since(answered.first) <= REPEAT_WITHIN
                && answered.transaction == opened.transaction()
        })
    }

    /// Gives the gateway time of the next answer: within a transaction it strictly increases (SPEC §6).
    pub(crate) fn next_gateway_time(&mut self, now: Now) -> WallTime {
        let Some(answered) = &mut self.answered else {
            return now.wall;
        };
        let next = answered
            .gateway_time
            .saturating_add(Duration::from_millis(1));
        answered.gateway_time = now.wall.max(next);
        answered.gateway_time
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn failed_transactions_are_remembered_for_two_f_and_never_more_than_the_bound() {
        let row = CredentialRow {
            id: spa_proto::CredentialId::from_bytes([0; 16]),
            person: Name::parse("ana").expect("a name"),
            label: String::new(),
            proof: None,
            keys: alloc::vec::Vec::new(),
            standing: Standing::Enabled,
            expires: None,
            confirmed: false,
            enrolled: None,
            invite_until: None,
            last_ts: WallTime::from_millis(0),
            failures: 0,
        };
        let gateway = GatewayId::from_bytes([0; 16]);
        let mut memory = Credential::restore(row, gateway, 5, Moment::from_millis(0)).memory;
        for ts in 0..20 {
            memory.remember_failed(WallTime::from_millis(ts), Moment::from_millis(ts));
        }
        assert_eq!(memory.failed.len(), MAX_FAILED);
        assert!(memory.has_failed(WallTime::from_millis(19), Moment::from_millis(180_019)));
        assert!(!memory.has_failed(WallTime::from_millis(19), Moment::from_millis(180_020)));
    }
}
