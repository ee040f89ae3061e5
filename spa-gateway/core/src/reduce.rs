//! Something changed that policy looks at: what a live session has beyond it is cut, resource by resource.
//!
//! Changes are: the policy, a lock, a grant, an approval, a fact, the risk, and time itself. A session never
//! gets a resource by this: it has what its knock asked for, and what policy still allows.

use alloc::collections::BTreeMap;
use alloc::string::String;
use alloc::vec::Vec;
use core::time::Duration;

use litemap::LiteMap;
use spa_order::Flow;
use spa_proto::{SessionId, WallTime};

use crate::agenda::Timer;
use crate::allowance::{ends, last_end, shortest};
use crate::audit::{AuditKind, AuditRecord};
use crate::change::{Change, Record};
use crate::channel::{Loss, MISSED_REPORTS, texts};
use crate::closing::EndReason;
use crate::effect::EffectKind;
use crate::gateway::Gateway;
use crate::name::Name;
use crate::outbox::Waiter;
use crate::plan::{OnFailure, Operation, Step};
use crate::policy::{Allow, Decision, Policy, flows_of, look_again};
use crate::session::{Doorway, Phase, Session, Terms};
use crate::time::Now;

impl Gateway {
    /// Puts a policy into force and holds every live session against it. `note` goes into the audit: which
    /// one it is, who wants it and why.
    pub fn handle_policy(&mut self, policy: Policy, note: Option<String>, now: Now) {
        self.policy = policy;
        self.serial = self.serial.saturating_add(1);
        let mut audit = AuditRecord::new(now.wall, AuditKind::PolicyChanged);
        audit.note = note;
        self.put_audit(audit);
        self.review_all(now);
        self.set_count(now);
    }

    /// Takes over the number under which the policy in force is kept, which clients are shown.
    pub const fn number_policy(&mut self, serial: u64) {
        self.serial = serial;
    }

    /// Gives the number of the policy in force.
    #[must_use]
    pub const fn policy_serial(&self) -> u64 {
        self.serial
    }

    /// Holds every live session against policy.
    pub(crate) fn review_all(&mut self, now: Now) {
        for id in self.live_sessions() {
            self.review(id, now);
        }
    }

    /// Holds a live session against policy and brings its openings in line.
    pub(crate) fn review(&mut self, id: SessionId, now: Now) {
        let Some(before) = self.sessions.of(id).map(|session| session.terms.clone()) else {
            return;
        };
        if self.reduce(id, now) {
            self.follow_terms(id, &before, now);
        }
    }

    /// Takes from a session what policy no longer allows, in the store and in memory; gives whether
    /// anything is left of it. Its flows are to be brought in line by the caller.
    pub(crate) fn reduce(&mut self, id: SessionId, now: Now) -> bool {
        let (Some(session), Some(on)) = (self.sessions.of(id), self.circumstances_of(id, now))
        else {
            return false;
        };
        if on.locked {
            self.end_session(id, EndReason::Locked, now);
            return false;
        }
        let silent = session.upkeep.missed >= MISSED_REPORTS;
        let mut allowed = BTreeMap::new();
        let mut lost = Vec::new();
        for name in session.terms.resources.keys() {
            match on.decide(name) {
                Decision::Allow(allow) | Decision::Observe(allow, _) => {
                    if now.wall < allow.not_after {
                        allowed.insert(name.clone(), allow);
                    } else {
                        lost.push((name.clone(), Loss::ended(name, &allow)));
                    }
                }
                Decision::Deny(deny) => {
                    lost.push((name.clone(), Loss::denied(name, &deny, silent)))
                }
            }
        }
        if allowed.is_empty() && !session.terms.resources.is_empty() {
            let reason = lost
                .first()
                .map_or(EndReason::PolicyWithdrawn, |(_, loss)| {
                    EndReason::of_loss(loss)
                });
            self.end_session_because(id, reason, Some(texts(&lost)), now);
            return false;
        }
        let not_after = end_of_all(&session.terms, &allowed);
        let resources = ends(allowed, not_after);
        let flows = self.flows_for(session, &resources, not_after);
        self.agree(id, resources, flows, not_after, &lost, now);
        true
    }

    /// Gives the flows of a session; while it is held back until it is rekeyed, the control channel's alone.
    pub(crate) fn flows_for(
        &self,
        session: &Session,
        resources: &LiteMap<Name, WallTime>,
        not_after: WallTime,
    ) -> LiteMap<Flow, WallTime> {
        let none = LiteMap::new();
        let resources = if self.is_held(session) {
            &none
        } else {
            resources
        };
        flows_of(
            &self.policy,
            resources,
            self.tunnel(session.terms.addresses),
            self.settings.control_port,
            not_after,
        )
    }

    /// Makes the new terms those of the session.
    fn agree(
        &mut self,
        id: SessionId,
        resources: LiteMap<Name, WallTime>,
        flows: LiteMap<Flow, WallTime>,
        not_after: WallTime,
        lost: &[(Name, Loss)],
        now: Now,
    ) {
        let Some(session) = self.sessions.of_mut(id) else {
            return;
        };
        let terms = &mut session.terms;
        let reduced = !lost.is_empty() || not_after != terms.not_after;
        terms.flows = flows;
        terms.deadline = terms
            .deadline
            .min(now.mono.after(not_after.since(now.wall)));
        terms.not_after = not_after;
        terms.resources = resources;
        let deadline = terms.deadline;
        self.agenda.set(Timer::End(id), deadline);
        self.set_review(id, now);
        if reduced {
            self.set_warning(id, now);
            self.record_reduced(id, not_after, lost, now);
            self.tell_reduced(id, lost);
        }
    }

    /// Writes down that a session has less than before, and why.
    fn record_reduced(
        &mut self,
        id: SessionId,
        not_after: WallTime,
        lost: &[(Name, Loss)],
        now: Now,
    ) {
        let Some(credential) = self.sessions.of(id).map(|session| session.credential) else {
            return;
        };
        let resources = self.resources_of(id);
        let change = Change::SessionReduced {
            session: id,
            resources: resources.clone(),
            not_after,
        };
        let changes = [change].into();
        self.outbox
            .put(EffectKind::Record(Record { changes }), Waiter::Nobody);
        let mut audit = self.audit_of(credential, AuditKind::SessionReduced, now);
        audit.session = Some(id);
        audit.resources = resources;
        audit.not_after = Some(not_after);
        audit.reason = lost.first().map(|(_, loss)| loss.word);
        audit.note = Some(texts(lost)).filter(|text| !text.is_empty());
        self.put_audit(audit);
    }

    /// Comes back when the first resource of a session ends, or its risk grows, before the session ends; and at the
    /// latest when a session of its risk is to be held against policy again.
    pub(crate) fn set_review(&mut self, id: SessionId, now: Now) {
        let Some(session) = self.sessions.of(id) else {
            return;
        };
        let not_after = session.terms.not_after;
        let facts = self.credentials.get(&session.credential);
        let facts = facts.and_then(|of| of.memory.facts.as_ref());
        // Facts that grow old raise the risk.
        let older = facts
            .and_then(|facts| self.policy.posture_ages(facts))
            .filter(|at| *at > now.wall);
        let ends = session.terms.resources.values().copied();
        // Another allow, stricter perhaps, that decides from then on.
        let on = self.circumstances_of(id, now);
        let turns = session.terms.resources.keys().filter_map(|name| {
            on.as_ref()?
                .ask(name, |request| self.policy.turns_at(request))
        });
        let first = ends
            .chain(older)
            .chain(turns)
            .min()
            .filter(|first| *first < not_after);
        let at = first
            .map_or(Duration::MAX, |first| first.since(now.wall))
            .min(self.look_again(id, now));
        self.agenda.set(Timer::Review(id), now.mono.after(at));
    }

    /// Gives how soon a session is looked at again: by what of it is most at risk.
    fn look_again(&self, id: SessionId, now: Now) -> Duration {
        let (Some(session), Some(on)) = (self.sessions.of(id), self.circumstances_of(id, now))
        else {
            return Duration::MAX;
        };
        let resources = session.terms.resources.keys();
        resources
            .map(|name| look_again(on.ask(name, |request| self.policy.risk(request))))
            .min()
            .unwrap_or(look_again(Some(0)))
    }

    pub(crate) fn resources_of(&self, id: SessionId) -> Vec<Name> {
        self.sessions
            .of(id)
            .map(|session| session.terms.resources.keys().cloned().collect())
            .unwrap_or_default()
    }

    /// Closes the flows a session lost, then opens those that changed their shape or their end. One that
    /// ends sooner than before gets every opening anew, with the shorter time.
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
        let lost = |flow: &&Flow| !after.flows.contains_key(flow);
        let lost: Vec<Flow> = before.flows.keys().filter(lost).copied().collect();
        if !lost.is_empty() {
            self.close_flows(&lost, now);
        }
        let sooner = after.deadline < before.deadline;
        let changed: Vec<Flow> = after
            .flows
            .iter()
            .filter(|(flow, until)| before.flows.get(flow) != Some(until))
            .map(|(flow, _)| *flow)
            .collect();
        let mut steps = Vec::new();
        if !changed.is_empty() {
            steps.push(Step::Flows(id, changed));
        }
        if let (Doorway::Settled { door }, true) = (doorway, sooner) {
            steps.push(Step::SettledDoor(id, door));
        }
        if !steps.is_empty() {
            self.begin(Operation::new(credential, OnFailure::End(id), steps), now);
        }
    }
}

/// Gives when a session ends that has this left: none of it lasts longer than the shortest.
pub(crate) fn end_of_all(terms: &Terms, allowed: &BTreeMap<Name, Allow>) -> WallTime {
    let end = shortest(allowed).map_or(terms.not_after, |length| {
        terms.not_after.min(terms.opened.saturating_add(length))
    });
    last_end(allowed, end).unwrap_or(end)
}
