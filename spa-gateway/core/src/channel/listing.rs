//! What a session has, why, and what waits for an approval: answers that change nothing.

use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;

use spa_proto::channel::{GrantedResource, Grants, Requests, Unmet, Why};
use spa_proto::{SessionId, Verdict, WallTime};

use super::telling::is_personal;
use crate::exception::{ApprovalRow, Waiting};
use crate::gateway::Gateway;
use crate::name::Name;
use crate::policy::{Clause, Decision, Reason};
use crate::time::Now;

impl Gateway {
    pub(super) fn grants_of(&self, id: SessionId, now: Now) -> Option<Grants> {
        let session = self.sessions.of(id)?;
        let credential = self.credentials.get(&session.credential)?;
        let terms = &session.terms;
        let resources = terms.resources.iter().filter_map(|(name, until)| {
            let resource = self.policy.resource(name)?;
            Some(GrantedResource {
                name: name.to_string(),
                to: match resource.found_at() {
                    None => "gateway".into(),
                    Some((address, prefix)) => format!("{address}/{prefix}"),
                },
                ports: resource.ports.iter().map(ToString::to_string).collect(),
                not_after: *until,
            })
        });
        let routes = self.routes(terms);
        Some(Grants {
            session: id,
            person: credential.person.to_string(),
            now: now.wall,
            not_after: terms.not_after,
            renewable_until: self.renewable_until(id, now).unwrap_or(terms.not_after),
            serial: self.serial,
            rekey: self.rekey_state(id),
            routes: routes
                .iter()
                .map(|route| format!("{}/{}", route.address(), route.prefix()))
                .collect(),
            resources: resources.collect(),
        })
    }

    /// Says what policy says to this session about one resource. A rule of others is never told: to the person,
    /// "not allowed" and "no such resource" are one (SPEC §6).
    pub(super) fn why(&self, id: SessionId, resource: String, now: Now) -> Why {
        let decision = Name::parse(&resource).ok().and_then(|name| {
            let on = self.circumstances_of(id, now)?;
            Some(on.decide(&name))
        });
        let (verdict, clauses) = match decision {
            Some(Decision::Allow(_) | Decision::Observe(..)) => (Verdict::Granted, Vec::new()),
            Some(Decision::Deny(deny)) => {
                let told = match deny.reason {
                    Reason::Posture | Reason::Window | Reason::Risk | Reason::Approval => {
                        deny.failing
                    }
                    Reason::Locked
                    | Reason::NoResource
                    | Reason::NoPort
                    | Reason::Rule
                    | Reason::NoRule
                    | Reason::Expired
                    | Reason::Source
                    | Reason::Factors => Vec::new(),
                };
                (deny.reason.verdict(), told)
            }
            None => (Verdict::NotAllowed, Vec::new()),
        };
        Why {
            resource,
            verdict: word(verdict).into(),
            unmet: clauses
                .iter()
                .filter(|clause| is_personal(clause))
                .map(unmet)
                .collect(),
        }
    }

    /// Gives what waits for an approval: what this session's person may approve, and what it asked for itself.
    pub(super) fn requests_for(&self, id: SessionId) -> Requests {
        let person = self.person_of(id);
        let Some(person) = person else {
            return Requests::default();
        };
        let told = |request: &Waiting| request.told(request.since);
        let waiting = || self.exceptions.all_waiting();
        Requests {
            to_approve: waiting()
                .filter(|request| self.may_approve(request, person))
                .map(told)
                .collect(),
            own: waiting()
                .filter(|request| request.person == *person)
                .map(told)
                .collect(),
        }
    }

    /// Gives whose session it is.
    pub(super) fn person_of(&self, id: SessionId) -> Option<&Name> {
        let session = self.sessions.of(id)?;
        Some(&self.credentials.get(&session.credential)?.person)
    }
}

impl Waiting {
    /// Says it as it is told inside the tunnel.
    pub(super) fn told(&self, at: WallTime) -> spa_proto::channel::Waiting {
        spa_proto::channel::Waiting {
            id: self.id,
            person: self.person.to_string(),
            resource: self.resource.to_string(),
            rule: self.rule.to_string(),
            at,
        }
    }
}

impl ApprovalRow {
    /// Says it as it is told inside the tunnel.
    pub(super) fn told(&self) -> spa_proto::channel::Waiting {
        spa_proto::channel::Waiting {
            id: self.id,
            person: self.person.to_string(),
            resource: self.resource.to_string(),
            rule: self.rule.to_string(),
            at: self.until,
        }
    }
}

const fn word(verdict: Verdict) -> &'static str {
    match verdict {
        Verdict::Granted => "granted",
        Verdict::NotAllowed | Verdict::Other(_) => "not-allowed",
        Verdict::Posture => "posture",
        Verdict::TimeWindow => "time-window",
        Verdict::Risk => "risk",
        Verdict::Locked => "locked",
        Verdict::ApprovalNeeded => "approval-needed",
    }
}

fn unmet(clause: &Clause) -> Unmet {
    Unmet {
        about: clause.about.clone(),
        wanted: clause.wanted.clone(),
        saw: clause.saw.clone(),
        remedy: clause.remedy.clone(),
    }
}
