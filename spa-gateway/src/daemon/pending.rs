//! Administrators that wait: for a record to be on disk, or for sessions to be confirmed gone.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Instant;

use spa_gateway_core::{Accepted, EffectId};
use spa_proto::SessionId;
use tokio::sync::oneshot;

use crate::control::Written;
use crate::control::protocol::Cut;

/// What holds if the record of something taken away fails.
pub(super) const UNTIL_RESTART: &str =
    "it holds until the gateway restarts; repeat it when the disk has room";

/// Where an answer goes.
pub(super) type Answer = oneshot::Sender<Result<Written, String>>;

/// Everybody that waits. Each is an open connection of the admin socket, so few.
#[derive(Debug, Default)]
pub(super) struct Pending {
    records: BTreeMap<EffectId, Waiting>,
    cuts: Vec<WaitingCut>,
}

/// Waits for a record.
#[derive(Debug)]
struct Waiting {
    answer: Answer,
    done: Written,
    /// What holds if the record fails.
    otherwise: &'static str,
}

/// Waits for sessions, and for the record of the lock that ended them.
#[derive(Debug)]
struct WaitingCut {
    record: Option<EffectId>,
    answer: Answer,
    asked: Instant,
    all: Vec<SessionId>,
    left: BTreeSet<SessionId>,
}

impl Pending {
    /// Answers `done` once the record is on disk.
    pub(super) fn on_record(
        &mut self,
        record: EffectId,
        answer: Answer,
        done: Written,
        otherwise: &'static str,
    ) {
        let waiting = Waiting {
            answer,
            done,
            otherwise,
        };
        self.records.insert(record, waiting);
    }

    /// Answers once every session is confirmed gone.
    pub(super) fn on_ended(&mut self, sessions: Vec<SessionId>, answer: Answer, asked: Instant) {
        self.wait_for(None, sessions, answer, asked);
    }

    /// Answers once a lock is on disk and every session it ended is confirmed gone.
    pub(super) fn on_locked(
        &mut self,
        accepted: Accepted<Vec<SessionId>>,
        answer: Answer,
        asked: Instant,
    ) {
        let Accepted { value, record } = accepted;
        self.wait_for(Some(record), value, answer, asked);
    }

    fn wait_for(
        &mut self,
        record: Option<EffectId>,
        sessions: Vec<SessionId>,
        answer: Answer,
        asked: Instant,
    ) {
        self.cuts.push(WaitingCut {
            record,
            answer,
            asked,
            left: sessions.iter().copied().collect(),
            all: sessions,
        });
    }

    /// Hears what became of a record.
    pub(super) fn recorded(&mut self, record: EffectId, outcome: Result<(), &str>) {
        if let Some(waiting) = self.records.remove(&record) {
            let answer = match outcome {
                Ok(()) => Ok(waiting.done),
                Err(error) => Err(format!("{error}; {}", waiting.otherwise)),
            };
            // Whoever asked may be gone.
            let _ = waiting.answer.send(answer);
        }
        let is_of = |cut: &&mut WaitingCut| cut.record == Some(record);
        match outcome {
            Ok(()) => {
                self.cuts
                    .iter_mut()
                    .filter(is_of)
                    .for_each(|cut| cut.record = None);
                self.answer_the_done();
            }
            Err(error) => {
                let failed = |cut: &mut WaitingCut| cut.record == Some(record);
                for cut in self.cuts.extract_if(.., failed) {
                    let _ = cut.answer.send(Err(format!("{error}; {UNTIL_RESTART}")));
                }
            }
        }
    }

    /// Hears that a session is confirmed gone.
    pub(super) fn ended(&mut self, session: SessionId) {
        for cut in &mut self.cuts {
            cut.left.remove(&session);
        }
        self.answer_the_done();
    }

    fn answer_the_done(&mut self) {
        let is_done = |cut: &mut WaitingCut| cut.left.is_empty() && cut.record.is_none();
        for cut in self.cuts.extract_if(.., is_done) {
            let took = cut.asked.elapsed();
            let done = Cut {
                sessions: cut.all.iter().map(SessionId::to_string).collect(),
                took_ms: took.as_secs_f64() * 1_000.0,
            };
            let _ = cut.answer.send(Ok(Written::of(&done)));
        }
    }

    /// Forgets those who hung up.
    pub(super) fn forget_the_gone(&mut self) {
        self.cuts.retain(|cut| !cut.answer.is_closed());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cut_is_answered_when_the_last_session_is_gone() {
        let mut pending = Pending::default();
        let (sender, mut receiver) = oneshot::channel();
        let [one, two] = [1, 2].map(|id| SessionId::from_bytes([id; 8]));
        pending.on_ended(vec![one, two], sender, Instant::now());
        pending.ended(two);
        assert!(receiver.try_recv().is_err());
        pending.ended(one);
        let answer = receiver.try_recv().expect("answered").expect("done");
        let cut: Cut = serde_json::from_str(&answer.to_string()).expect("a cut");
        assert_eq!(cut.sessions.len(), 2);
        assert!(cut.took_ms >= 0.0);
    }

    #[test]
    fn whoever_hangs_up_is_forgotten() {
        let mut pending = Pending::default();
        let (sender, receiver) = oneshot::channel();
        pending.on_ended(vec![SessionId::from_bytes([1; 8])], sender, Instant::now());
        drop(receiver);
        pending.forget_the_gone();
        assert!(pending.cuts.is_empty());
    }
}
