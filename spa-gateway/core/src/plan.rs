//! What an accepted knock leads to, as a list of steps one can read (SPEC §8 step 12).
//!
//! Invariant: a step is taken only after everything before it was confirmed. So a record precedes
//! every effect, and the reply comes last.

use alloc::boxed::Box;
use alloc::collections::VecDeque;
use alloc::vec::Vec;

use spa_order::{Door, Flow, Order, SecretBytes32, Ttl};
use spa_proto::{CredentialId, DerivedKeys, ProofPublic, SessionId, SessionKey, WgPsk};

use crate::addition::Addition;
use crate::audit::{AuditKind, AuditRecord};
use crate::change::Record;
use crate::channel::{CallAnswer, CallId, CallRefusal, NewEnds};
use crate::closing::EndReason;
use crate::credential::{Answered, Key};
use crate::effect::{EffectFailure, EffectKind, Reply};
use crate::gateway::Gateway;
use crate::outbox::Waiter;
use crate::refusal::Refusal;
use crate::session::{Doorway, Phase, Session};
use crate::snapshot::KeyKind;
use crate::tags::KeyRef;
use crate::time::Now;

/// Names an operation.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) struct OperationId(pub(crate) u64);

/// The steps that are left of what one knock, or a restart, leads to.
#[derive(Debug)]
pub(crate) struct Operation {
    /// Whose; its next knock waits until this is over.
    pub(crate) credential: CredentialId,
    /// What to do if an order fails.
    pub(crate) on_failure: OnFailure,
    pub(crate) steps: VecDeque<Step>,
    /// How many effects of the step that was taken last are not confirmed yet.
    pub(crate) awaited: usize,
    /// The call that waits for it.
    pub(crate) call: Option<CallId>,
}

impl Operation {
    /// Plans an operation.
    pub(crate) fn new(
        credential: CredentialId,
        on_failure: OnFailure,
        steps: impl Into<VecDeque<Step>>,
    ) -> Self {
        Self {
            credential,
            on_failure,
            steps: steps.into(),
            awaited: 0,
            call: None,
        }
    }

    /// Names the call that waits for it: should it fail, that is the answer.
    pub(crate) fn answering(self, call: CallId) -> Self {
        Self {
            call: Some(call),
            ..self
        }
    }
}

/// What becomes of a session when not everything of it could be opened.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum OnFailure {
    /// It is undone, whole.
    End(SessionId),
    /// It stays as it was.
    Leave,
    /// It is closed all the same: a client's end hangs on no disk (docs/decisions/0022).
    Close(SessionId),
}

/// One step.
#[derive(Debug)]
pub(crate) enum Step {
    /// On disk, synced.
    Record(Record),
    /// The disk knows a candidate as the live key: so does memory, and forgets the others.
    Activate(KeyRef),
    /// The disk knows a candidate: so does the tag table.
    AddCandidate(KeyRef, Box<DerivedKeys>),
    /// The disk knows the new key of a session: so does memory.
    Rekey(SessionId, SessionKey),
    /// The disk knows that a session is over: close it.
    End(SessionId, EndReason),
    /// The disk knows a session: its openings may begin.
    Begin(SessionId),
    /// The peer, with its preshared key.
    Peer(SessionId, WgPsk),
    /// Another preshared key for the peer, which lives on.
    Psk(SessionId, WgPsk),
    /// The peer has the key of a rekey: its handshake is waited for.
    Rekeyed(SessionId),
    /// The disk knows a later end of a session: so does memory.
    Renewed(SessionId, Box<NewEnds>),
    /// The disk knows a new proof key: so does memory.
    Proof(CredentialId, ProofPublic),
    /// The disk knows what was added: so does memory.
    Adopt(Box<Addition>),
    /// Flows, all at once.
    Flows(SessionId, Vec<Flow>),
    /// The door, for the time of a handshake.
    Door(SessionId, Door),
    /// The doors that were left for it.
    LeaveDoors(SessionId),
    /// The door of a session that outlived a restart.
    SettledDoor(SessionId, Door),
    /// The door a session has, for as long as the session lasts now.
    KeepDoor(SessionId),
    /// All is open.
    Opened(SessionId),
    /// What a repeat is answered from.
    Remember(Box<Answered>),
    /// The reply.
    Reply(Reply),
    /// The answer to a call.
    Answer(CallId, Box<CallAnswer>),
    /// The audit record.
    Audit(AuditRecord),
}

impl Gateway {
    /// Begins an operation: does all that may be done now.
    pub(crate) fn begin(&mut self, operation: Operation, now: Now) {
        self.last_operation = self.last_operation.wrapping_add(1);
        let id = OperationId(self.last_operation);
        if let Some(credential) = self.credentials.get_mut(&operation.credential) {
            credential.memory.under_way = credential.memory.under_way.saturating_add(1);
        }
        self.operations.insert(id, operation);
        self.advance(id, now);
    }

    /// Takes steps up to the next one whose outcome must be known first.
    fn advance(&mut self, id: OperationId, now: Now) {
        while let Some(step) = self
            .operations
            .get_mut(&id)
            .and_then(|operation| operation.steps.pop_front())
        {
            match self.take_step(step, now) {
                Taken::Done => {}
                Taken::Await(effects) => return self.put_awaited(id, effects),
                Taken::Overtaken => {
                    self.answer_overtaken(id);
                    break;
                }
            }
        }
        self.finish(id);
    }

    fn put_awaited(&mut self, id: OperationId, effects: Vec<EffectKind>) {
        if let Some(operation) = self.operations.get_mut(&id) {
            operation.awaited = effects.len();
        }
        for effect in effects {
            self.outbox.put(effect, Waiter::Operation(id));
        }
    }

    /// One of the effects of a step is done; the next step follows when all of them are.
    pub(crate) fn confirm(&mut self, id: OperationId, now: Now) {
        let Some(operation) = self.operations.get_mut(&id) else {
            return;
        };
        operation.awaited = operation.awaited.saturating_sub(1);
        if operation.awaited == 0 {
            self.advance(id, now);
        }
    }

    /// Stops an operation because a record or an order failed. No knock is answered then.
    pub(crate) fn fail(&mut self, id: OperationId, failure: EffectFailure, now: Now) {
        let Some(operation) = self.operations.get(&id) else {
            return;
        };
        let (credential, on_failure) = (operation.credential, operation.on_failure);
        let call = operation.call;
        self.finish(id);
        if let Some(call) = call {
            let answer = match on_failure {
                OnFailure::Close(_) => Ok(CallAnswer::Done),
                OnFailure::End(_) | OnFailure::Leave => Err(CallRefusal::Failed),
            };
            self.answer_call(call, answer);
        }
        let (refusal, kind) = match failure {
            EffectFailure::Store => (Refusal::RecordFailed, AuditKind::RecordFailed),
            EffectFailure::Refused | EffectFailure::Failed => {
                (Refusal::OrderFailed, AuditKind::OpeningFailed)
            }
        };
        self.counters.count(refusal);
        let mut audit = self.audit_of(credential, kind, now);
        match on_failure {
            OnFailure::End(session) => {
                audit.session = Some(session);
                self.undo(session, now);
            }
            OnFailure::Close(session) => {
                audit.session = Some(session);
                self.end_session(session, EndReason::ClosedByClient, now);
            }
            OnFailure::Leave => {}
        }
        self.put_audit(audit);
    }

    /// The session ended under a call: whoever called is told as a stranger would be.
    fn answer_overtaken(&mut self, id: OperationId) {
        let call = self
            .operations
            .get(&id)
            .and_then(|operation| operation.call);
        if let Some(call) = call {
            self.answer_call(call, Err(CallRefusal::Unauthorized));
        }
    }

    fn finish(&mut self, id: OperationId) {
        let Some(operation) = self.operations.remove(&id) else {
            return;
        };
        if let Some(credential) = self.credentials.get_mut(&operation.credential) {
            credential.memory.under_way = credential.memory.under_way.saturating_sub(1);
        }
    }

    /// Undoes a session of which not everything could be opened.
    fn undo(&mut self, id: SessionId, now: Now) {
        match self.sessions.of(id).map(|session| session.phase) {
            // Never on disk and nothing of it opened: it never was.
            Some(Phase::Recording) => self.drop_session(id, now),
            Some(Phase::Opening | Phase::Restored | Phase::Open) => {
                self.end_session(id, EndReason::OpeningFailed, now);
            }
            Some(Phase::Ending) | None => {}
        }
    }

    fn take_step(&mut self, step: Step, now: Now) -> Taken {
        match step {
            Step::Record(record) => return Taken::Await([EffectKind::Record(record)].into()),
            Step::Activate(key) => self.activate(key),
            Step::AddCandidate(key, derived) => self.add_candidate(key, *derived),
            Step::Rekey(session, key) => {
                if let Some(session) = self.sessions.of_mut(session) {
                    session.key = key;
                }
            }
            Step::End(session, reason) => self.end_recorded_session(session, reason, now),
            Step::Begin(session) => return self.begin_session(session),
            Step::Peer(session, psk) => {
                let order = self.peer(session, &psk);
                if let Some(session) = self.sessions.of_mut(session) {
                    session.upkeep.begin_with(psk);
                }
                return self.order(order);
            }
            Step::Psk(session, psk) => {
                let order = self.opening(session).map(|session| Order::Psk {
                    key: session.wg_key,
                    psk: SecretBytes32::from_bytes(*psk.expose()),
                });
                return self.order(order);
            }
            Step::Rekeyed(session) => self.await_rekeyed(session, now),
            Step::Renewed(session, ends) => {
                if self.opening(session).is_none() {
                    return Taken::Overtaken;
                }
                self.adopt_ends(session, *ends, now);
            }
            Step::Proof(credential, proof) => {
                if let Some(credential) = self.credentials.get_mut(&credential) {
                    credential.proof = Some(proof);
                }
            }
            Step::Adopt(addition) => self.adopt(*addition, now),
            Step::Flows(session, flows) => return self.flows(session, &flows, now),
            Step::Door(session, door) => {
                let order = self.open_waiting_door(session, door, now);
                return self.order(order);
            }
            Step::LeaveDoors(session) => self.leave_doors(session, now),
            Step::SettledDoor(session, door) => {
                let order = self.open_settled_door(session, door, now);
                return self.order(order);
            }
            Step::KeepDoor(session) => {
                let doorway = self.opening(session).map(|session| session.doorway);
                if let Some(Doorway::Settled { door }) = doorway {
                    let order = self.open_settled_door(session, door, now);
                    return self.order(order);
                }
            }
            Step::Opened(session) => {
                self.watch(session, now);
                self.await_report(session, now);
                self.set_warning(session, now);
                let entered = self.enter(session, Phase::Open);
                self.set_count(now);
                return entered;
            }
            Step::Remember(answered) => self.remember(*answered, now),
            Step::Reply(reply) => {
                self.outbox.put(EffectKind::Reply(reply), Waiter::Nobody);
            }
            Step::Answer(call, answer) => self.answer_call(call, Ok(*answer)),
            Step::Audit(audit) => self.put_audit(audit),
        }
        Taken::Done
    }

    /// The session is on disk: it is its credential's from now on.
    fn begin_session(&mut self, id: SessionId) -> Taken {
        let begun = self.enter(id, Phase::Opening);
        let credential = self.opening(id).map(|session| session.credential);
        if let Some(credential) = credential.and_then(|id| self.credentials.get_mut(&id)) {
            credential.session = Some(id);
        }
        begun
    }

    /// Moves a session on, unless it is being ended.
    fn enter(&mut self, id: SessionId, phase: Phase) -> Taken {
        match self.sessions.of_mut(id) {
            Some(session) if session.phase != Phase::Ending => {
                session.phase = phase;
                Taken::Done
            }
            Some(_) | None => Taken::Overtaken,
        }
    }

    fn order(&self, order: Option<Order>) -> Taken {
        order.map_or(Taken::Overtaken, |order| {
            Taken::Await([EffectKind::Order(order)].into())
        })
    }

    fn peer(&self, id: SessionId, psk: &WgPsk) -> Option<Order> {
        let session = self.opening(id)?;
        Some(Order::Peer {
            key: session.wg_key,
            psk: SecretBytes32::from_bytes(*psk.expose()),
            tunnel4: session.terms.addresses.v4,
            tunnel6: session.terms.addresses.v6,
        })
    }

    /// Orders flows, those aside that policy took from the session since this step was planned.
    fn flows(&self, id: SessionId, flows: &[Flow], now: Now) -> Taken {
        let Some(Session { terms, .. }) = self.opening(id) else {
            return Taken::Overtaken;
        };
        let left = terms.deadline.since(now.mono);
        if left.is_zero() {
            return Taken::Overtaken;
        }
        // A flow whose own end has come is not opened any more; the review that is due cuts it.
        let orders: Vec<EffectKind> = flows
            .iter()
            .filter_map(|flow| {
                let until = terms.flows.get(flow)?;
                let ttl = Ttl::from_duration(until.since(now.wall).min(left))?;
                Some(EffectKind::Order(Order::Flow { flow: *flow, ttl }))
            })
            .collect();
        if orders.is_empty() {
            Taken::Done
        } else {
            Taken::Await(orders)
        }
    }

    fn opening(&self, id: SessionId) -> Option<&Session> {
        self.sessions
            .of(id)
            .filter(|session| session.phase != Phase::Ending)
    }

    fn remember(&mut self, answered: Answered, now: Now) {
        if let Some(credential) = self.credentials.get_mut(&answered.credential) {
            let first = now.mono;
            credential.memory.answered = Some(Box::new(Answered { first, ..answered }));
        }
    }

    /// Makes a candidate the live key; erases the others and the invite's (SPEC §14).
    fn activate(&mut self, winner: KeyRef) {
        let Some(credential) = self.credentials.get_mut(&winner.credential) else {
            return;
        };
        let keys = core::mem::take(&mut credential.keys);
        credential.invite_until = None;
        for (number, mut key) in keys {
            if number == winner.number {
                key.kind = KeyKind::Live;
                credential.keys.insert(number, key);
            } else {
                self.tags.remove(KeyRef { number, ..winner }, &key.derived);
            }
        }
    }

    fn add_candidate(&mut self, key: KeyRef, derived: DerivedKeys) {
        if let Some(credential) = self.credentials.get_mut(&key.credential) {
            self.tags.add(key, &derived);
            credential.keys.insert(
                key.number,
                Box::new(Key {
                    kind: KeyKind::Candidate,
                    derived,
                }),
            );
        }
    }
}

/// What taking a step came to.
enum Taken {
    /// On to the next.
    Done,
    /// The next one waits for the outcome of these.
    Await(Vec<EffectKind>),
    /// The session is being ended meanwhile: nothing more to do here.
    Overtaken,
}
