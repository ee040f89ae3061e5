//! Knocks that follow upon a session: ROAM, CLOSE, and repeats of what was answered (SPEC §10, §13).
//!
//! Invariant: where a session is held from is a fact of policy. It changes only to where policy lets it.

use alloc::collections::VecDeque;
use alloc::vec::Vec;
use core::net::SocketAddr;

use spa_proto::{Ask, Outcome, RefusedFor, Repeat, SessionId};

use crate::allowance::LOCKED;
use crate::answer::{Telling, door_of};
use crate::audit::AuditKind;
use crate::change::{Change, Record};
use crate::closing::EndReason;
use crate::credential::{AnsweredWith, Refused, Verdicts};
use crate::effect::EffectKind;
use crate::entropy::Entropy;
use crate::factors::ProvenKnock;
use crate::gateway::Gateway;
use crate::guard::FreshKnock;
use crate::marks::answered;
use crate::outbox::Waiter;
use crate::plan::{OnFailure, Operation, Step};
use crate::policy::Signals;
use crate::refusal::Refusal;
use crate::time::Now;

/// What the first answer of a transaction came to, taken out to be answered again.
enum Again {
    Open(SessionId, Verdicts),
    Roam(SessionId),
    Close,
    Refused(Refused),
    /// Nothing is remembered: what it was answered with is gone.
    Nothing,
}

/// How a door moves: the new one opens, the old one closes, then the answer.
struct Moving {
    door: [Step; 2],
    reply: [Step; 2],
}

impl Gateway {
    /// ROAM: the door moves to the source of the knock; nothing else changes.
    pub(crate) fn roam(
        &mut self,
        knock: &ProvenKnock,
        now: Now,
        entropy: &mut dyn Entropy,
    ) -> Result<(), Refusal> {
        let Ask::Roam(session) = knock.fresh().request().ask else {
            return Err(Refusal::Malformed);
        };
        let marks = self.mark(knock, now);
        if let Err(refused) = self.move_to(session, knock.fresh().arrival().source, now) {
            return Err(self.refuse(knock.fresh(), refused, marks, now, entropy));
        }
        let remember = answered(knock.fresh(), now, AnsweredWith::Roamed { session });
        let mut steps = VecDeque::from([Step::Record(Record {
            changes: marks.changes,
        })]);
        let Moving { door, reply } =
            self.moving(knock.fresh(), session, Repeat::First, now, entropy)?;
        steps.extend(door);
        steps.push_back(Step::Remember(remember));
        steps.extend(reply);
        self.begin(operation(knock.fresh(), OnFailure::Leave, steps), now);
        Ok(())
    }

    /// CLOSE: over on disk, then closed.
    pub(crate) fn close(
        &mut self,
        knock: &ProvenKnock,
        now: Now,
        entropy: &mut dyn Entropy,
    ) -> Result<(), Refusal> {
        let Ask::Close(id) = knock.fresh().request().ask else {
            return Err(Refusal::Malformed);
        };
        let mut changes = self.mark(knock, now).changes;
        changes.extend(self.end_of(id, now));
        let key = self
            .sessions
            .of(id)
            .ok_or(Refusal::NoSession)?
            .key
            .duplicate();
        let outcome = closed(Repeat::First);
        let (reply, _) = self.answer(knock.fresh(), now.wall, outcome, now, entropy);
        let remember = answered(knock.fresh(), now, AnsweredWith::Closed { key });
        let steps = VecDeque::from([
            Step::Record(Record { changes }),
            Step::End(id, EndReason::ClosedByClient),
            Step::Remember(remember),
            Step::Reply(reply),
        ]);
        self.begin(operation(knock.fresh(), OnFailure::Close(id), steps), now);
        Ok(())
    }

    /// A repeat: the same answer, with fresh keys (SPEC §10).
    pub(crate) fn repeat(
        &mut self,
        knock: &ProvenKnock,
        now: Now,
        entropy: &mut dyn Entropy,
    ) -> Result<(), Refusal> {
        let knock = knock.fresh();
        let again = self.take_again(knock);
        match again {
            Again::Open(session, verdicts) => self.reopen(knock, session, verdicts, now, entropy),
            Again::Roam(session) => {
                if let Err(refused) = self.move_to(session, knock.arrival().source, now) {
                    self.reply_again(knock, refused.outcome(), now, entropy);
                    return Err(Refusal::Policy);
                }
                let Moving { door, reply } =
                    self.moving(knock, session, Repeat::Again, now, entropy)?;
                let steps = door.into_iter().chain(reply).collect();
                self.begin(operation(knock, OnFailure::Leave, steps), now);
                Ok(())
            }
            Again::Close => {
                self.reply_again(knock, closed(Repeat::Again), now, entropy);
                Ok(())
            }
            Again::Refused(refused) => {
                self.reply_again(knock, refused.outcome(), now, entropy);
                Err(match refused.why {
                    RefusedFor::Policy => Refusal::Policy,
                    RefusedFor::Capacity => Refusal::Capacity,
                })
            }
            Again::Nothing => Err(Refusal::Replayed),
        }
    }

    /// An OPEN again: same session and end; new preshared key, new session key, door of this knock.
    fn reopen(
        &mut self,
        knock: &FreshKnock,
        id: SessionId,
        verdicts: Verdicts,
        now: Now,
        entropy: &mut dyn Entropy,
    ) -> Result<(), Refusal> {
        let door = door_of(knock);
        let arrival = knock.arrival();
        if let Err(refused) = self.move_to(id, arrival.source, now) {
            self.reply_again(knock, refused.outcome(), now, entropy);
            return Err(Refusal::Policy);
        }
        let session = self.sessions.of(id).ok_or(Refusal::NoSession)?;
        let telling = Telling {
            repeat: Repeat::Again,
            door,
            arrival,
            verdicts,
            reason: None,
        };
        let outcome = self.tell(id, &session.terms, telling);
        let (reply, secrets) = self.answer_again(knock, outcome, now, entropy);
        let mut changes = Vec::from([Change::SessionRekeyed {
            session: id,
            key: secrets.k_sess.duplicate(),
        }]);
        changes.extend(self.end_failures(arrival.key.credential));
        let mut audit = self.audit_of(arrival.key.credential, AuditKind::SessionRepeated, now);
        audit.session = Some(id);
        audit.source = Some(arrival.source);
        let steps = VecDeque::from([
            Step::Record(Record { changes }),
            Step::Rekey(id, secrets.k_sess),
            Step::Peer(id, secrets.wg_psk),
            Step::Door(id, door),
            Step::LeaveDoors(id),
            Step::Reply(reply),
            Step::Audit(audit),
        ]);
        self.begin(operation(knock, OnFailure::End(id), steps), now);
        Ok(())
    }

    /// Holds a session against policy as it stands where it goes to. Where it would have nothing, it does not
    /// go, and stays as it is: a knock that somebody relays from such a place ends nothing.
    fn move_to(&mut self, id: SessionId, to: SocketAddr, now: Now) -> Result<(), Refused> {
        let refused = |reason| Refused {
            why: RefusedFor::Policy,
            verdicts: Verdicts::new(),
            reason,
        };
        let Some(session) = self.sessions.of(id).filter(|of| of.source.ip() != to.ip()) else {
            if let Some(session) = self.sessions.of_mut(id) {
                session.source = to;
            }
            return Ok(());
        };
        let there = self.signals(session.credential, to.ip(), now);
        let signals = session.signals.zip(there).map(|(here, there)| Signals {
            network: there.network,
            ..here
        });
        let on = self
            .circumstances_from(id, to.ip(), signals, now)
            .ok_or(refused("the device was removed"))?;
        if on.locked {
            return Err(refused(LOCKED));
        }
        let mut has = session.terms.resources.keys();
        let some = |name| on.decide(name).allowed().is_some();
        if has.len() != 0 && !has.any(some) {
            return Err(refused("policy allows nothing from there"));
        }
        if let Some(session) = self.sessions.of_mut(id) {
            session.source = to;
            session.signals = signals;
        }
        let moved = Change::SessionMoved {
            session: id,
            source: to,
            signals,
        };
        let changes = [moved].into();
        self.outbox
            .put(EffectKind::Record(Record { changes }), Waiter::Nobody);
        self.review(id, now);
        Ok(())
    }

    /// Gives the steps by which a door moves: the new one opens before the old one closes.
    fn moving(
        &mut self,
        knock: &FreshKnock,
        id: SessionId,
        repeat: Repeat,
        now: Now,
        entropy: &mut dyn Entropy,
    ) -> Result<Moving, Refusal> {
        let door = door_of(knock);
        let arrival = knock.arrival();
        let session = self.sessions.of(id).ok_or(Refusal::NoSession)?;
        let telling = Telling {
            repeat,
            door,
            arrival,
            verdicts: Verdicts::new(),
            reason: None,
        };
        let outcome = self.tell(id, &session.terms, telling);
        let (reply, _) = self.answer_again(knock, outcome, now, entropy);
        let mut audit = self.audit_of(arrival.key.credential, AuditKind::SessionRoamed, now);
        audit.session = Some(id);
        audit.source = Some(arrival.source);
        Ok(Moving {
            door: [Step::Door(id, door), Step::LeaveDoors(id)],
            reply: [Step::Reply(reply), Step::Audit(audit)],
        })
    }

    fn reply_again(
        &mut self,
        knock: &FreshKnock,
        outcome: Outcome,
        now: Now,
        entropy: &mut dyn Entropy,
    ) {
        let credential = knock.arrival().key.credential;
        let (reply, _) = self.answer_again(knock, outcome, now, entropy);
        let mut steps = VecDeque::new();
        if let Ask::Open(_) = knock.request().ask {
            let ended = self.end_failures(credential);
            steps.extend(ended.map(|change| {
                Step::Record(Record {
                    changes: [change].into(),
                })
            }));
        }
        steps.push_back(Step::Reply(reply));
        self.begin(operation(knock, OnFailure::Leave, steps), now);
    }

    /// Takes note of one more answer of a transaction; gives what the first one came to.
    fn take_again(&mut self, knock: &FreshKnock) -> Again {
        let credential = self.credentials.get_mut(&knock.arrival().key.credential);
        let Some(answered) = credential.and_then(|credential| credential.memory.answered.as_mut())
        else {
            return Again::Nothing;
        };
        answered.repeats = answered.repeats.saturating_add(1);
        match &answered.outcome {
            AnsweredWith::Opened { session, verdicts } => Again::Open(*session, verdicts.clone()),
            AnsweredWith::Roamed { session } => Again::Roam(*session),
            AnsweredWith::Closed { .. } => Again::Close,
            AnsweredWith::Refused(refused) => Again::Refused(refused.clone()),
            AnsweredWith::Enrolled => Again::Nothing,
        }
    }
}

fn closed(repeat: Repeat) -> Outcome {
    Outcome::Closed {
        repeat,
        verdicts: Vec::new(),
        reason: None,
    }
}

fn operation(knock: &FreshKnock, on_failure: OnFailure, steps: VecDeque<Step>) -> Operation {
    Operation::new(knock.arrival().key.credential, on_failure, steps)
}
