//! All that is known of somebody who knocks, or whose session is held against policy again.
//!
//! Invariant: a new knock and a live session are asked about in the same way; only `opened` differs.

use alloc::vec::Vec;
use core::net::IpAddr;

use spa_proto::{CredentialId, SessionId, WallTime};

use crate::change::Change;
use crate::exception::Exceptions;
use crate::gateway::Gateway;
use crate::name::Name;
use crate::policy::{Decision, Factors, Facts, Policy, Request, RiskInput, Signals};
use crate::snapshot::PersonKind;
use crate::time::Now;
use crate::usual::Usual;

/// What policy is asked with.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Circumstances<'a> {
    pub(crate) policy: &'a Policy,
    pub(crate) exceptions: &'a Exceptions,
    pub(crate) usual: &'a Usual,
    pub(crate) person: &'a Name,
    pub(crate) source: IpAddr,
    pub(crate) factors: Factors,
    pub(crate) facts: Option<&'a Facts>,
    /// `None` is not known: a limit of risk is then not met.
    pub(crate) signals: Option<Signals>,
    pub(crate) locked: bool,
    pub(crate) now: WallTime,
    /// When the session was opened; `None` for a knock.
    pub(crate) opened: Option<WallTime>,
    /// When it ends whatever policy says.
    pub(crate) ceiling: WallTime,
}

impl Circumstances<'_> {
    /// Decides about one resource.
    pub(crate) fn decide(&self, resource: &Name) -> Decision {
        self.ask(resource, |request| self.policy.decide(request))
    }

    pub(crate) fn ask<T>(&self, resource: &Name, answer: impl FnOnce(&Request<'_>) -> T) -> T {
        let approvals = self.exceptions.approved(self.person, resource);
        let request = Request {
            at: Some(self.now),
            opened: self.opened,
            source: Some(self.source),
            factors: self.factors,
            facts: self.facts,
            risk: self
                .signals
                .as_ref()
                .map_or(RiskInput::Unknown, RiskInput::Signals),
            usage: self.usual.usage(self.person, resource, self.now),
            approvals: &approvals,
            grant: self.exceptions.grant(self.person, resource),
            lock: self.locked.then_some("them"),
            ceiling: Some(self.ceiling),
            ..Request::new(self.person, resource)
        };
        answer(&request)
    }
}

impl Gateway {
    /// Gives the circumstances of a knock of a credential, or of its live session.
    pub(crate) fn circumstances(
        &self,
        id: CredentialId,
        source: IpAddr,
        signals: Option<Signals>,
        now: Now,
    ) -> Option<Circumstances<'_>> {
        let credential = self.credentials.get(&id)?;
        let person = self.persons.get(&credential.person)?;
        let longest = now.wall.saturating_add(self.settings.longest);
        let locked = self
            .locks
            .on(&credential.person, &credential.label, source, now.wall)
            .is_some();
        Some(Circumstances {
            policy: &self.policy,
            exceptions: &self.exceptions,
            usual: &self.usual,
            person: &credential.person,
            source,
            factors: match person.kind {
                PersonKind::Human => Factors::ALL,
                PersonKind::Machine => Factors::DEVICE,
            },
            facts: credential.memory.facts.as_ref(),
            signals,
            locked,
            now: now.wall,
            opened: None,
            ceiling: credential
                .expires
                .map_or(longest, |expires| expires.min(longest)),
        })
    }

    /// Gives the circumstances of a live session.
    pub(crate) fn circumstances_of(&self, id: SessionId, now: Now) -> Option<Circumstances<'_>> {
        let session = self.sessions.of(id)?;
        self.circumstances_from(id, session.source.ip(), session.signals, now)
    }

    /// The same, were it held from this source, whose network weighs so much.
    pub(crate) fn circumstances_from(
        &self,
        id: SessionId,
        source: IpAddr,
        signals: Option<Signals>,
        now: Now,
    ) -> Option<Circumstances<'_>> {
        let session = self.sessions.of(id)?;
        let failures = self
            .credentials
            .get(&session.credential)
            .map_or(0, |credential| credential.failures);
        let signals = signals.map(|at_opening| Signals {
            failures: failures.max(at_opening.failures),
            ..at_opening
        });
        let found = self.circumstances(session.credential, source, signals, now)?;
        Some(Circumstances {
            opened: Some(session.terms.opened),
            ceiling: session.terms.not_after,
            ..found
        })
    }

    /// Weighs a knock of a credential against the habits of its person.
    pub(crate) fn signals(&self, id: CredentialId, source: IpAddr, now: Now) -> Option<Signals> {
        let credential = self.credentials.get(&id)?;
        let person = self.persons.get(&credential.person)?;
        let hour = self.policy.zone().hour(now.wall);
        Some(
            person
                .habits
                .signals(source, hour, credential.failures, now.wall),
        )
    }

    /// Takes note of a knock that is let in; gives what the disk is to know of it.
    pub(crate) fn learn_habit(
        &mut self,
        id: CredentialId,
        source: IpAddr,
        now: Now,
    ) -> Option<Change> {
        let hour = self.policy.zone().hour(now.wall);
        let name = &self.credentials.get(&id)?.person;
        let person = self.persons.get_mut(name)?;
        Some(person.habits.learn(name, source, hour, now.wall))
    }

    /// Gives every live session.
    pub(crate) fn live_sessions(&self) -> Vec<SessionId> {
        use crate::session::Phase;
        let reached = |phase| matches!(phase, Phase::Recording | Phase::Opening | Phase::Open);
        let live = self
            .sessions
            .iter()
            .filter(|(_, session)| reached(session.phase));
        live.map(|(id, _)| id).collect()
    }
}
