//! The policy changed: what a live session has beyond it is cut, resource by resource.
//!
//! A session never gains by this: it has what its knock asked for, and what policy still allows.

use alloc::vec::Vec;

use spa_order::Flow;
use spa_proto::SessionId;

use crate::agenda::Timer;
use crate::audit::{AuditKind, AuditRecord};
use crate::change::{Change, Record};
use crate::closing::EndReason;
use crate::effect::EffectKind;
use crate::gateway::Gateway;
use crate::name::Name;
use crate::outbox::Waiter;
use crate::plan::{OnFailure, Operation, Step};
use crate::policy::{Policy, flows_of};
use crate::session::{Doorway, Phase, Terms};
use crate::time::Now;

impl Gateway {
    /// Puts a policy into force and holds every live session against it.
    pub fn handle_policy(&mut self, policy: Policy, now: Now) {
        self.policy = policy;
        self.put_audit(AuditRecord::new(now.wall, AuditKind::PolicyChanged));
        let reached = |phase| matches!(phase, Phase::Recording | Phase::Opening | Phase::Open);
        let live = self
            .sessions
            .iter()
            .filter(|(_, session)| reached(session.phase));
        for id in live.map(|(id, _)| id).collect::<Vec<_>>() {
            let Some(before) = self.sessions.of(id).map(|session| session.terms.clone()) else {
                continue;
            };
            if self.reduce(id, now) {
                self.follow_terms(id, &before, now);
            }
        }
    }

    /// Takes from a session what policy no longer allows, in the store and in memory; gives whether
    /// anything is left of it. Its flows are to be brought in line by the caller.
    pub(crate) fn reduce(&mut self, id: SessionId, now: Now) -> bool {
        let Some(session) = self.sessions.of(id) else {
            return false;
        };
        let Some(person) = self
            .credentials
            .get(&session.credential)
            .map(|credential| credential.person.clone())
        else {
            return false;
        };
        let allowed: Vec<(&Name, _)> = session
            .terms
            .resources
            .iter()
            .filter_map(|name| Some((name, self.policy.allows(&person, name)?)))
            .collect();
        if allowed.is_empty() && !session.terms.resources.is_empty() {
            self.end_session(id, EndReason::PolicyWithdrawn, now);
            return false;
        }
        let shortest = allowed.iter().map(|(_, length)| *length).min();
        let not_after = shortest.map_or(session.terms.not_after, |length| {
            session
                .terms
                .not_after
                .min(session.terms.opened.saturating_add(length))
        });
        let resources: Vec<Name> = allowed.into_iter().map(|(name, _)| name.clone()).collect();
        let reduced = resources != session.terms.resources || not_after != session.terms.not_after;
        let flows = flows_of(
            &self.policy,
            &resources,
            self.tunnel(session.terms.addresses),
            self.settings.control_port,
        );
        let Some(session) = self.sessions.of_mut(id) else {
            return false;
        };
        session.terms.flows = flows;
        session.terms.deadline = session
            .terms
            .deadline
            .min(now.mono.after(not_after.since(now.wall)));
        session.terms.not_after = not_after;
        session.terms.resources.clone_from(&resources);
        self.agenda.set(Timer::End(id), session.terms.deadline);
        if reduced {
            let change = Change::SessionReduced {
                session: id,
                resources: resources.clone(),
                not_after,
            };
            let credential = session.credential;
            self.outbox.put(
                EffectKind::Record(Record {
                    changes: [change].into(),
                }),
                Waiter::Nobody,
            );
            let mut audit = self.audit_of(credential, AuditKind::SessionReduced, now);
            audit.session = Some(id);
            audit.resources = resources;
            audit.not_after = Some(not_after);
            self.put_audit(audit);
        }
        true
    }

    /// Closes the flows a session lost, then opens those that changed their shape. One that ends
    /// sooner than before gets every opening anew, with the shorter time.
    fn follow_terms(&mut self, id: SessionId, before: &Terms, now: Now) {
        let Some(session) = self.sessions.of(id) else {
            return;
        };
        // One that is still to be recorded has no flow yet, and its plan opens what is left to it.
        if session.phase == Phase::Recording {
            return;
        }
        let after = session.terms.clone();
        let (credential, doorway) = (session.credential, session.doorway);
        let lost = |flow: &&Flow| !after.flows.contains(flow);
        let lost: Vec<Flow> = before.flows.iter().filter(lost).copied().collect();
        if !lost.is_empty() {
            self.close_flows(id, &lost, now);
        }
        let sooner = after.deadline < before.deadline;
        let changed = after
            .flows
            .iter()
            .filter(|flow| sooner || !before.flows.contains(flow));
        let mut steps = Vec::from([Step::Flows(id, changed.copied().collect())]);
        if let (Doorway::Settled { door }, true) = (doorway, sooner) {
            steps.push(Step::SettledDoor(id, door));
        }
        self.begin(Operation::new(credential, OnFailure::End(id), steps), now);
    }
}
