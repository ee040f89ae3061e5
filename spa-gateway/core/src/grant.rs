//! A new OPEN whose every factor holds: step 11, and step 12 as a plan (SPEC §8, §11).

use alloc::collections::VecDeque;

use litemap::LiteMap;
use spa_order::Flow;
use spa_proto::{
    Ask, CredentialId, OpenAsk, Outcome, RefusedFor, Repeat, SessionId, WallTime, is_small_order,
};

use crate::agenda::Timer;
use crate::allowance::{Allowance, Confirmation};
use crate::answer::{Telling, door_of};
use crate::audit::AuditKind;
use crate::change::{Change, Record};
use crate::closing::{EndReason, resting};
use crate::credential::{AnsweredWith, Refused, Verdicts};
use crate::entropy::{Entropy, Purpose};
use crate::factors::ProvenKnock;
use crate::gateway::Gateway;
use crate::guard::FreshKnock;
use crate::marks::{Marks, answered};
use crate::plan::{OnFailure, Operation, Step};
use crate::policy::{Quantum, Signals, Tunnel, facts_of_report, flows_of};
use crate::pool::Addresses;
use crate::refusal::Refusal;
use crate::session::{Phase, Session, Terms};
use crate::snapshot::SessionRow;
use crate::time::Now;
use crate::upkeep::Upkeep;

/// The most flows of one session: sixteen resources with every port range they may have, and the control channel.
pub const MAX_FLOWS_OF_SESSION: usize = 16 * crate::policy::MAX_PORTS + 2;

/// What a session is made of once there is room for it.
struct Room {
    allowance: Allowance,
    addresses: Addresses,
    flows: LiteMap<Flow, WallTime>,
    /// How the knock stands to the habits of its person.
    signals: Option<Signals>,
}

impl Gateway {
    /// Decides on an OPEN and opens what is granted.
    pub(crate) fn open_session(
        &mut self,
        knock: &ProvenKnock,
        now: Now,
        entropy: &mut dyn Entropy,
    ) -> Result<(), Refusal> {
        let Ask::Open(ask) = &knock.fresh().request().ask else {
            return Err(Refusal::Malformed);
        };
        let arrival = knock.fresh().arrival();
        // Before the marks, which end a row of failures.
        let signals = self.signals(arrival.key.credential, arrival.source.ip(), now);
        self.take_posture(arrival.key.credential, ask, now);
        let mut marks = self.mark(knock, now);
        match self.find_room(knock.fresh(), ask, signals, &mut marks, now) {
            Ok(room) => {
                self.grant(knock.fresh(), ask, room, marks, now, entropy);
                Ok(())
            }
            Err(refused) => {
                let refusal = self.refuse(knock.fresh(), refused, marks, now, entropy);
                // What the device said of itself counts for the session it has, too.
                if let Some(session) = self.replaced_by(arrival.key.credential) {
                    self.review(session, now);
                }
                Err(refusal)
            }
        }
    }

    /// Remembers what the device says of itself; an OPEN without posture leaves what is known.
    fn take_posture(&mut self, id: CredentialId, ask: &OpenAsk, now: Now) {
        if let Some(report) = &ask.posture {
            self.know(id, facts_of_report(report, now.wall));
        }
    }

    /// Step 11: policy, then capacity.
    fn find_room(
        &mut self,
        knock: &FreshKnock,
        ask: &OpenAsk,
        signals: Option<Signals>,
        marks: &mut Marks,
        now: Now,
    ) -> Result<Room, Refused> {
        let id = knock.arrival().key.credential;
        let source = knock.arrival().source.ip();
        let confirmed = self
            .credentials
            .get(&id)
            .is_some_and(|credential| credential.confirmed);
        let confirmation = if confirmed {
            Confirmation::Confirmed
        } else {
            Confirmation::Awaited
        };
        let Some(on) = self.circumstances(id, source, signals, now) else {
            return Err(no_room(Verdicts::new(), "the device was removed"));
        };
        let person = on.person.clone();
        let (allowance, wishes) = Allowance::decide(&on, confirmation, ask);
        for (resource, rule) in wishes {
            let asked = self.await_approval(&person, resource, &rule, now);
            marks.changes.extend(asked);
        }
        let allowance = allowance?;
        let full = |reason| no_room(allowance.verdicts().clone(), reason);
        if !self.is_usable(&ask.wg_key) {
            return Err(full("this WireGuard key cannot be used"));
        }
        let capacity = usize::try_from(self.settings.capacity).unwrap_or(usize::MAX);
        if self.sessions.are_full(capacity, id, now) {
            return Err(full("the gateway is full"));
        }
        if self.has_strays() {
            return Err(full("a peer of before the restart is still being removed"));
        }
        let addresses = self
            .pool
            .take(now.mono)
            .ok_or_else(|| full("no tunnel address is free"))?;
        let flows = flows_of(
            &self.policy,
            allowance.until(),
            self.tunnel(addresses),
            self.settings.control_port,
            allowance.not_after(),
        );
        if flows.len() > MAX_FLOWS_OF_SESSION {
            self.pool.put_back(addresses);
            return Err(full("too many resources at once"));
        }
        // A session that has to be rekeyed first begins with the control channel alone.
        let flows = match self.policy.defaults().quantum {
            Quantum::Optional => flows,
            Quantum::Required => flows_of(
                &self.policy,
                &LiteMap::new(),
                self.tunnel(addresses),
                self.settings.control_port,
                allowance.not_after(),
            ),
        };
        Ok(Room {
            allowance,
            addresses,
            flows,
            signals,
        })
    }

    /// Says whether a client may use this WireGuard key (SPEC §8 step 11).
    fn is_usable(&self, wg_key: &[u8; 32]) -> bool {
        let taken = self.sessions.with_peer(wg_key).is_some() || *wg_key == self.settings.wg_public;
        !taken && !is_small_order(wg_key)
    }

    pub(crate) fn tunnel(&self, addresses: Addresses) -> Tunnel {
        Tunnel {
            v4: addresses
                .v4
                .zip(self.settings.tunnel4.map(|(gateway, _)| gateway)),
            v6: addresses
                .v6
                .zip(self.settings.tunnel6.map(|(gateway, _)| gateway)),
        }
    }

    /// Step 12 as a plan: record; peer, flows, door; reply; audit.
    fn grant(
        &mut self,
        knock: &FreshKnock,
        ask: &OpenAsk,
        room: Room,
        marks: Marks,
        now: Now,
        entropy: &mut dyn Entropy,
    ) {
        let Room {
            allowance,
            addresses,
            flows,
            signals,
        } = room;
        let arrival = knock.arrival();
        let credential = arrival.key.credential;
        let id = self.new_session_id(entropy);
        let terms = Terms {
            addresses,
            resources: allowance.until().clone(),
            flows,
            opened: now.wall,
            not_after: allowance.not_after(),
            deadline: now.mono.after(allowance.not_after().since(now.wall)),
        };
        let door = door_of(knock);
        let telling = Telling {
            repeat: Repeat::First,
            door,
            arrival,
            verdicts: allowance.verdicts().clone(),
            reason: allowance.reason(),
        };
        let outcome = self.tell(id, &terms, telling);
        let (reply, secrets) = self.answer(knock, now.wall, outcome, now, entropy);
        let mut session = Session::new(
            credential,
            secrets.k_sess,
            ask.wg_key,
            arrival.source,
            terms,
            Upkeep::new(now.mono),
        );
        session.signals = signals;
        let habit = self.learn_habit(credential, arrival.source.ip(), now);

        let Marks {
            mut changes,
            steps: remembered,
        } = marks;
        let replaced = self.replaced_by(credential);
        changes.extend(replaced.and_then(|old| self.end_of(old, now)));
        changes.push(Change::SessionOpened(row_of(id, &session)));
        changes.extend(habit);
        let person = self.credentials.get(&credential);
        if let Some(person) = person.map(|credential| credential.person.clone()) {
            for (resource, _) in allowance.observed() {
                changes.extend(self.learn_knock(&person, resource, now));
            }
        }
        let mut audit = self.audit_of(credential, AuditKind::SessionOpened, now);
        audit.session = Some(id);
        audit.source = Some(arrival.source);
        audit.resources = session.terms.resources.keys().cloned().collect();
        audit.not_after = Some(session.terms.not_after);
        let opened = AnsweredWith::Opened {
            session: id,
            verdicts: allowance.verdicts().clone(),
        };
        let remember = answered(knock, now, opened);

        let mut steps = VecDeque::from([Step::Record(Record { changes })]);
        steps.extend(remembered);
        steps.extend(replaced.map(|old| Step::End(old, EndReason::Replaced)));
        steps.push_back(Step::Begin(id));
        steps.push_back(Step::Peer(id, secrets.wg_psk));
        steps.push_back(Step::Flows(
            id,
            session.terms.flows.keys().copied().collect(),
        ));
        steps.push_back(Step::Door(id, door));
        steps.extend([
            Step::Opened(id),
            Step::Remember(remember),
            Step::Reply(reply),
            Step::Audit(audit),
        ]);
        for (resource, reason) in allowance.observed() {
            let mut audit = self.audit_of(credential, AuditKind::WouldBeDenied, now);
            audit.session = Some(id);
            audit.source = Some(arrival.source);
            audit.resources = [resource.clone()].into();
            audit.reason = Some(reason.as_str());
            steps.push_back(Step::Audit(audit));
        }

        self.agenda.set(Timer::End(id), session.terms.deadline);
        self.sessions.insert(id, session);
        self.set_review(id, now);
        self.begin(Operation::new(credential, OnFailure::End(id), steps), now);
    }

    /// Gives the session that a new one of this credential replaces.
    fn replaced_by(&self, id: CredentialId) -> Option<SessionId> {
        let current = self.credentials.get(&id)?.session?;
        let session = self.sessions.of(current)?;
        (session.phase != Phase::Ending).then_some(current)
    }

    /// A refusal of step 11 is recorded and answered, and opens nothing.
    pub(crate) fn refuse(
        &mut self,
        knock: &FreshKnock,
        refused: Refused,
        marks: Marks,
        now: Now,
        entropy: &mut dyn Entropy,
    ) -> Refusal {
        let arrival = knock.arrival();
        let (reply, _) = self.answer(knock, now.wall, refused.outcome(), now, entropy);
        let (refusal, kind) = match refused.why {
            RefusedFor::Policy => (Refusal::Policy, AuditKind::RefusedByPolicy),
            RefusedFor::Capacity => (Refusal::Capacity, AuditKind::RefusedByCapacity),
        };
        let mut audit = self.audit_of(arrival.key.credential, kind, now);
        audit.source = Some(arrival.source);
        audit.reason = Some(refused.reason);
        let remember = answered(knock, now, AnsweredWith::Refused(refused));

        let mut steps = VecDeque::from([Step::Record(Record {
            changes: marks.changes,
        })]);
        steps.extend(marks.steps);
        steps.extend([
            Step::Remember(remember),
            Step::Reply(reply),
            Step::Audit(audit),
        ]);
        self.begin(
            Operation::new(arrival.key.credential, OnFailure::Leave, steps),
            now,
        );
        refusal
    }

    /// Gives the change by which the store learns that a session is over.
    pub(crate) fn end_of(&self, id: SessionId, now: Now) -> Option<Change> {
        let session = self.sessions.of(id)?;
        Some(Change::SessionEnded {
            session: id,
            resting: resting(session.terms.addresses.v4, session.terms.addresses.v6, now),
        })
    }

    fn new_session_id(&self, entropy: &mut dyn Entropy) -> SessionId {
        loop {
            let mut bytes = [0; 8];
            entropy.fill(Purpose::SessionId, &mut bytes);
            let id = SessionId::from_bytes(bytes);
            if !self.sessions.has(id) {
                return id;
            }
        }
    }
}

impl Refused {
    /// Says it to the client.
    pub(crate) fn outcome(&self) -> Outcome {
        Outcome::Refused {
            why: self.why,
            verdicts: self.verdicts.clone(),
            reason: Some(self.reason.into()),
        }
    }
}

fn no_room(verdicts: Verdicts, reason: &'static str) -> Refused {
    Refused {
        why: RefusedFor::Capacity,
        verdicts,
        reason,
    }
}

fn row_of(id: SessionId, session: &Session) -> SessionRow {
    SessionRow {
        id,
        credential: session.credential,
        key: session.key.duplicate(),
        wg_key: session.wg_key,
        tunnel4: session.terms.addresses.v4,
        tunnel6: session.terms.addresses.v6,
        resources: session.terms.resources.keys().cloned().collect(),
        source: session.source,
        signals: session.signals,
        opened: session.terms.opened,
        not_after: session.terms.not_after,
    }
}
