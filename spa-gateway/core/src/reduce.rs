//! The policy changed: what a live session has beyond it is cut, resource by resource.
//!
//! A session never gains by this: it has what its knock asked for, and what policy still allows.

use alloc::collections::VecDeque;
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
use crate::session::Phase;
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
            let before = self
                .sessions
                .of(id)
                .map(|session| session.flows.clone())
                .unwrap_or_default();
            if self.reduce(id, now) {
                self.follow_flows(id, &before, now);
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
            .resources
            .iter()
            .filter_map(|name| Some((name, self.policy.allows(&person, name)?)))
            .collect();
        if allowed.is_empty() && !session.resources.is_empty() {
            self.end_session(id, EndReason::PolicyWithdrawn, now);
            return false;
        }
        let shortest = allowed.iter().map(|(_, length)| *length).min();
        let not_after = shortest.map_or(session.not_after, |length| {
            session.not_after.min(session.opened.saturating_add(length))
        });
        let resources: Vec<Name> = allowed.into_iter().map(|(name, _)| name.clone()).collect();
        let reduced = resources != session.resources || not_after != session.not_after;
        let flows = flows_of(
            &self.policy,
            &resources,
            self.tunnel(session.addresses),
            self.settings.control_port,
        );
        let Some(session) = self.sessions.of_mut(id) else {
            return false;
        };
        session.flows = flows;
        session.deadline = session
            .deadline
            .min(now.mono.after(not_after.since(now.wall)));
        session.not_after = not_after;
        session.resources.clone_from(&resources);
        self.agenda.set(Timer::End(id), session.deadline);
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

    /// Closes the flows a session lost, then opens those that changed their shape.
    fn follow_flows(&mut self, id: SessionId, before: &[Flow], now: Now) {
        let Some(session) = self.sessions.of(id) else {
            return;
        };
        // One that is still to be recorded has no flow yet, and its plan opens what is left to it.
        if session.phase == Phase::Recording {
            return;
        }
        let after = session.flows.clone();
        let credential = session.credential;
        let lost: Vec<Flow> = before
            .iter()
            .copied()
            .filter(|flow| !after.contains(flow))
            .collect();
        if !lost.is_empty() {
            self.close_flows(id, &lost, now);
        }
        let steps: VecDeque<Step> = after.iter().map(|flow| Step::Flow(id, *flow)).collect();
        self.begin(
            Operation {
                credential,
                on_failure: OnFailure::End(id),
                steps,
            },
            now,
        );
    }
}
