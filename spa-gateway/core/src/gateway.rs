//! The gateway itself: its state, and the events it takes. Each event is handled in a file of its own.
//!
//! | event | file |
//! |---|---|
//! | a packet came in | `intake.rs` (steps 0–5) |
//! | there is time for public-key work | `work.rs` (steps 6–11), then `grant.rs`, `follow.rs`, `enrol.rs` |
//! | an effect was performed | `perform.rs`, `plan.rs`, `closing.rs` |
//! | a peer was looked at | `peer.rs` |
//! | the enforcer is ready | `start.rs` |
//! | a timer rang, the clock changed | `clock.rs` |
//! | the policy changed | `reduce.rs` |
//! | an administrator spoke | `admin/` |
//! | a client spoke inside its tunnel | `channel/` |
//! | the kernel told of connections inside the tunnels | `access.rs` |

use alloc::boxed::Box;
use alloc::collections::{BTreeMap, BTreeSet};
use core::fmt;
use core::net::IpAddr;

use litemap::LiteMap;
use spa_proto::{CredentialId, GatewayId, WallTime};

use crate::access::AccessLog;
use crate::agenda::{Agenda, Timer};
use crate::audit::{AuditKind, AuditRecord};
use crate::closing::{Closing, ClosingId, resting};
use crate::credential::{Credential, Key};
use crate::doors::DoorBook;
use crate::effect::{Effect, EffectKind};
use crate::exception::Exceptions;
use crate::facts::UnsavedFacts;
use crate::habit::Habits;
use crate::knock_keys::KnockKeys;
use crate::learning::Learned;
use crate::lock::Locks;
use crate::name::Name;
use crate::outbox::{Outbox, Waiter};
use crate::person::Person;
use crate::plan::{Operation, OperationId};
use crate::policy::Policy;
use crate::pool::{Pool, REST};
use crate::queue::Queue;
use crate::refusal::Counters;
use crate::session::{Phase, Session, Sessions, Terms};
use crate::settings::Settings;
use crate::snapshot::{CredentialRow, PersonRow, SessionRow, Snapshot};
use crate::step::{Reference, precedes};
use crate::tags::{KeyRef, TagTable};
use crate::time::{Moment, Now};
use crate::upkeep::Upkeep;
use crate::usual::Usual;

/// The most persons and machines.
pub const MAX_PERSONS: usize = 16_384;
/// The most credentials and open invites, and so the most knocks that can wait.
pub const MAX_CREDENTIALS: usize = 16_384;
/// How many failures a credential may have right after a restart (SPEC §8 step 9).
pub const FAILURE_TOKENS_AFTER_RESTART: u32 = 1;

/// Everything a gateway knows. It does nothing by itself: see [`Effect`].
#[derive(Debug)]
pub struct Gateway {
    pub(crate) settings: Settings,
    pub(crate) policy: Policy,
    /// The number of the policy in force, so that a client sees that another one is.
    pub(crate) serial: u64,
    pub(crate) id: GatewayId,
    pub(crate) own_addresses: BTreeSet<IpAddr>,

    pub(crate) clock: Clock,
    pub(crate) knock_keys: KnockKeys,
    pub(crate) persons: BTreeMap<Name, Box<Person>>,
    pub(crate) credentials: BTreeMap<CredentialId, Box<Credential>>,
    pub(crate) tags: TagTable,
    pub(crate) queue: Queue,

    pub(crate) locks: Locks,
    pub(crate) exceptions: Exceptions,
    pub(crate) learned: Learned,
    pub(crate) access: AccessLog,
    pub(crate) usual: Usual,
    pub(crate) unsaved_facts: UnsavedFacts,

    pub(crate) sessions: Sessions,
    pub(crate) pool: Pool,
    pub(crate) doors: DoorBook,

    pub(crate) operations: BTreeMap<OperationId, Operation>,
    pub(crate) last_operation: u64,
    pub(crate) closings: BTreeMap<ClosingId, Closing>,
    pub(crate) last_closing: u64,
    pub(crate) agenda: Agenda,
    pub(crate) outbox: Outbox,
    pub(crate) counters: Counters,
}

/// How far our own clock is believed (SPEC §7).
#[derive(Clone, Copy, Debug)]
pub(crate) struct Clock {
    pub(crate) trust: ClockTrust,
    /// No time before this one is believed.
    pub(crate) floor: WallTime,
    /// When it was last believed; `None` before the first time.
    pub(crate) reference: Option<Reference>,
    /// What the audit says of it last: is it believed?
    pub(crate) reported: bool,
}

/// What the kernel says of the clock.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ClockTrust {
    /// It is synchronised, or a battery clock stands behind it.
    Trusted,
    /// Nothing is accepted until it is.
    Untrusted,
}

/// The store has no knock key 0, so it is no store of a gateway.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct NoIdentity;

impl Gateway {
    /// Wakes a gateway up from its store. Its clock is not trusted until
    /// [`handle_clock`](Self::handle_clock) says so.
    ///
    /// # Errors
    /// If the store has no knock key 0.
    pub fn restore(
        settings: Settings,
        snapshot: Snapshot,
        policy: Policy,
        now: Now,
    ) -> Result<Self, NoIdentity> {
        let settings = settings.bounded();
        let knock_keys = KnockKeys::restore(snapshot.knock_keys).ok_or(NoIdentity)?;
        let mut gateway = Self {
            pool: Pool::new(&settings),
            settings,
            policy,
            serial: 1,
            id: GatewayId::of(&knock_keys.identity()),
            own_addresses: BTreeSet::new(),
            clock: Clock {
                trust: ClockTrust::Untrusted,
                floor: snapshot.floor,
                reference: None,
                reported: false,
            },
            knock_keys,
            persons: BTreeMap::new(),
            credentials: BTreeMap::new(),
            tags: TagTable::default(),
            queue: Queue::default(),
            locks: Locks::default(),
            exceptions: Exceptions::restore(snapshot.grants, snapshot.approvals, snapshot.waiting),
            learned: Learned::restore(snapshot.learned),
            access: AccessLog::default(),
            usual: Usual::restore(snapshot.usual),
            unsaved_facts: UnsavedFacts::default(),
            sessions: Sessions::default(),
            doors: DoorBook::default(),
            operations: BTreeMap::new(),
            last_operation: 0,
            closings: BTreeMap::new(),
            last_closing: 0,
            agenda: Agenda::default(),
            outbox: Outbox::default(),
            counters: Counters::new(),
        };
        for row in snapshot.locks {
            gateway.locks.put(row);
        }
        for row in snapshot.persons {
            gateway.restore_person(row);
        }
        for row in snapshot.habits {
            if let Some(person) = gateway.persons.get_mut(&row.person) {
                person.habits = Habits::restore(row);
            }
        }
        for row in snapshot.credentials {
            gateway.restore_credential(row, FAILURE_TOKENS_AFTER_RESTART, now.mono);
        }
        gateway.restore_facts(snapshot.facts);
        for row in snapshot.resting {
            let until = now.mono.after(row.until.since(now.wall));
            gateway.pool.rest(row.tunnel4, row.tunnel6, until);
            if row.until > now.wall {
                gateway.forget_remains(&row, now);
            }
        }
        for row in snapshot.sessions {
            gateway.restore_session(row, now);
        }
        gateway.agenda.set(Timer::Minute, now.mono);
        gateway.set_exceptions(now);
        Ok(gateway)
    }

    /// Gives the next effect to perform, in order.
    pub fn poll_effect(&mut self) -> Option<Effect> {
        self.outbox.poll()
    }

    /// Says when to call [`handle_timeout`](Self::handle_timeout) next.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Moment> {
        self.agenda.next()
    }

    pub(crate) fn restore_person(&mut self, row: PersonRow) {
        let name = row.name.clone();
        self.persons.insert(name, Box::new(Person::restore(row)));
    }

    pub(crate) fn restore_credential(
        &mut self,
        row: CredentialRow,
        failure_tokens: u32,
        now: Moment,
    ) {
        let id = row.id;
        let credential = Credential::restore(row, self.id, failure_tokens, now);
        self.credentials.insert(id, Box::new(credential));
        self.list_tags(id);
    }

    fn restore_session(&mut self, row: SessionRow, now: Now) {
        let Some(addresses) = self.pool.retake(row.tunnel4, row.tunnel6) else {
            // The pool was changed: the session cannot go on.
            let remains = resting(row.tunnel4, row.tunnel6, now);
            return self.close_remains(row.id, remains, now);
        };
        let terms = Terms {
            addresses,
            // What each may until when is decided when it is resumed.
            resources: row
                .resources
                .into_iter()
                .map(|name| (name, row.not_after))
                .collect(),
            flows: LiteMap::new(),
            opened: row.opened,
            not_after: row.not_after,
            deadline: now.mono.after(row.not_after.since(now.wall)),
        };
        let credential = self.honoured(row.credential);
        let honoured = credential.is_some_and(|credential| !credential.has_expired(now.wall));
        // On a clock that was set back nobody can say how much of its time is left.
        let lost = precedes(now.wall, terms.opened.max(self.clock.floor));
        if !honoured || lost || terms.are_over(now) {
            self.pool.give_back(addresses, now.mono.after(REST));
            let remains = resting(addresses.v4, addresses.v6, now);
            return self.close_remains(row.id, remains, now);
        }
        self.agenda.set(Timer::End(row.id), terms.deadline);
        let upkeep = Upkeep::new(now.mono);
        let mut session = Session::new(
            row.credential,
            row.key,
            row.wg_key,
            row.source,
            terms,
            upkeep,
        );
        session.signals = row.signals;
        self.sessions
            .insert(row.id, session.in_phase(Phase::Restored));
        if let Some(credential) = self.credentials.get_mut(&row.credential) {
            credential.session = Some(row.id);
        }
    }

    /// Gives a credential that is honoured, and whose person is.
    pub(crate) fn honoured(&self, id: CredentialId) -> Option<&Credential> {
        let credential = self.credentials.get(&id)?;
        let person = self.persons.get(&credential.person)?;
        credential.is_honoured(person).then_some(credential)
    }

    /// Puts the tags of a credential into the table, if it is honoured.
    pub(crate) fn list_tags(&mut self, id: CredentialId) {
        if self.honoured(id).is_none() {
            return;
        }
        if let Some(credential) = self.credentials.get(&id) {
            for (key, Key { derived, .. }) in key_refs(id, credential) {
                self.tags.add(key, derived);
            }
        }
    }

    /// Takes the tags of a credential out of the table.
    pub(crate) fn unlist_tags(&mut self, id: CredentialId) {
        if let Some(credential) = self.credentials.get(&id) {
            for (key, Key { derived, .. }) in key_refs(id, credential) {
                self.tags.remove(key, derived);
            }
        }
    }

    /// Begins an audit record about a credential.
    pub(crate) fn audit_of(&self, id: CredentialId, kind: AuditKind, now: Now) -> AuditRecord {
        let mut audit = AuditRecord::new(now.wall, kind);
        audit.credential = Some(id);
        if let Some(credential) = self.credentials.get(&id) {
            audit.person = Some(credential.person.clone());
            audit.device = Some(credential.label.clone()).filter(|label| !label.is_empty());
        }
        audit
    }

    pub(crate) fn put_audit(&mut self, audit: AuditRecord) {
        self.outbox.put(EffectKind::Audit(audit), Waiter::Nobody);
    }
}

/// Gives every key of a credential with its name.
pub(crate) fn key_refs(
    id: CredentialId,
    credential: &Credential,
) -> impl Iterator<Item = (KeyRef, &Key)> {
    credential.keys.iter().map(move |(number, key)| {
        (
            KeyRef {
                credential: id,
                number: *number,
            },
            &**key,
        )
    })
}

impl fmt::Display for NoIdentity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(
            "the store has no knock key 0; restore it from a backup or run `spa-admin init`",
        )
    }
}

impl core::error::Error for NoIdentity {}
