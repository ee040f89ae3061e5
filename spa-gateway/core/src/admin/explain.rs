//! What would be decided, and why; and what a new policy would cut. Both ask, and change nothing.

use alloc::collections::BTreeMap;
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

use spa_proto::{CredentialId, SessionId, WallTime};

use super::{AdminRefusal, DeviceRef};
use crate::allowance::ends;
use crate::circumstances::Circumstances;
use crate::gateway::Gateway;
use crate::name::Name;
use crate::policy::{Factors, Policy, Question, Reason, Request, RiskInput, Trace};
use crate::reduce::end_of_all;
use crate::snapshot::{PersonKind, Standing};
use crate::time::Now;

/// What a live session would lose.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Cut {
    /// Which.
    pub session: SessionId,
    /// Whose.
    pub person: Name,
    /// What it would lose.
    pub lost: Vec<Name>,
    /// Whether nothing would be left of it.
    pub ends: bool,
    /// What would end earlier, and when.
    pub shortened: BTreeMap<Name, WallTime>,
}

impl Gateway {
    /// Says what would be decided if this person knocked, on this device where one is named: with its last
    /// posture, its habits, locks, grants and approvals, unless the question says otherwise.
    ///
    /// # Errors
    /// If the person or device does not exist.
    pub fn explain(
        &self,
        question: &Question,
        device: Option<&DeviceRef>,
        now: Now,
    ) -> Result<Trace, AdminRefusal> {
        if !self.persons.contains_key(&question.person) {
            return Err(AdminRefusal::NoPerson(question.person.clone()));
        }
        let at = Now {
            wall: question.at.unwrap_or(now.wall),
            ..now
        };
        let question = &Question {
            at: Some(at.wall),
            ..question.clone()
        };
        let known = match device {
            Some(device) => Some(self.find_device(device)?),
            None => None,
        };
        // Where it does not say from where, the place of the live session is the likely one.
        let source = question.from.or_else(|| {
            let session = self.credentials.get(&known?)?.session?;
            Some(self.sessions.of(session)?.source.ip())
        });
        let on = known.zip(source).and_then(|(id, source)| {
            self.circumstances(id, source, self.signals(id, source, at), at)
        });
        let facts = question.facts();
        let trace = match on {
            Some(on) => on.ask(&question.resource, |request| {
                self.policy
                    .explain(&overlay(request, question, facts.as_ref()))
            }),
            None => self.explain_from_anywhere(question, known),
        };
        Ok(match self.bar(&question.person, known, at.wall) {
            Some((reason, remedy)) => trace.barred(reason, remedy),
            None => trace,
        })
    }

    /// Gives what keeps somebody out before policy is asked: a person or device that is not honoured, or whose
    /// words nobody compared.
    fn bar(
        &self,
        person: &Name,
        device: Option<CredentialId>,
        at: WallTime,
    ) -> Option<(Reason, String)> {
        let disabled = |standing| standing == Standing::Disabled;
        if disabled(self.persons.get(person)?.standing) {
            let remedy = format!("{person} is disabled: `spa-admin user enable {person}`");
            return Some((Reason::Locked, remedy));
        }
        let credential = self.credentials.get(&device?)?;
        let device = format!("{person}/{}", credential.label);
        if disabled(credential.standing) {
            let remedy = format!("{device} is revoked: `spa-admin device enable {device}`");
            return Some((Reason::Locked, remedy));
        }
        if credential.has_expired(at) {
            let remedy = format!("{device} has expired: `spa-admin invite {person}`");
            return Some((Reason::Expired, remedy));
        }
        (!credential.confirmed).then(|| {
            let remedy =
                format!("nobody has compared the four words: `spa-admin device confirm {device}`");
            (Reason::Approval, remedy)
        })
    }

    /// Says what each live session would lose if this policy were in force.
    #[must_use]
    pub fn would_cut(&self, policy: &Policy, now: Now) -> Vec<Cut> {
        let live = self.live_sessions().into_iter();
        live.filter_map(|id| self.cut_of(id, policy, now)).collect()
    }

    fn cut_of(&self, id: SessionId, policy: &Policy, now: Now) -> Option<Cut> {
        let session = self.sessions.of(id)?;
        let on = Circumstances {
            policy,
            ..self.circumstances_of(id, now)?
        };
        let mut cut = Cut {
            session: id,
            person: on.person.clone(),
            lost: Vec::new(),
            ends: false,
            shortened: BTreeMap::new(),
        };
        let terms = &session.terms;
        let mut allowed = BTreeMap::new();
        for name in terms.resources.keys() {
            match on.decide(name).allowed() {
                Some(allow) if now.wall < allow.not_after => {
                    allowed.insert(name.clone(), allow.clone());
                }
                Some(_) | None => cut.lost.push(name.clone()),
            }
        }
        cut.ends = allowed.is_empty() && !terms.resources.is_empty();
        let not_after = end_of_all(terms, &allowed);
        let sooner = |(name, end): &(Name, WallTime)| {
            let until = terms.resources.get(name);
            until.is_some_and(|until| *end < *until)
        };
        let each = ends(allowed, not_after).into_iter();
        cut.shortened = each.filter(sooner).collect();
        (!cut.lost.is_empty() || !cut.shortened.is_empty()).then_some(cut)
    }

    /// Gives a resource of a policy that no session of this gateway could open, since it has addresses that
    /// sessions get themselves.
    #[must_use]
    pub fn unopenable<'p>(&self, policy: &'p Policy) -> Option<&'p Name> {
        let v4 = self
            .settings
            .tunnel4
            .map(|(v4, prefix)| (v4.into(), prefix));
        let v6 = self
            .settings
            .tunnel6
            .map(|(v6, prefix)| (v6.into(), prefix));
        let mut pools = v4.into_iter().chain(v6);
        pools.find_map(|pool| policy.resource_in(pool))
    }

    /// Explains where device or source is not known: neither risk nor what depends on them is.
    fn explain_from_anywhere(&self, question: &Question, known: Option<CredentialId>) -> Trace {
        let facts = question.facts();
        let approvals = self
            .exceptions
            .approved(&question.person, &question.resource);
        let device = known.and_then(|id| self.credentials.get(&id));
        let label = device.map(|credential| credential.label.as_str());
        let at = question.at.unwrap_or(WallTime::from_millis(0));
        let lock = self
            .locks
            .on_known(&question.person, label, question.from, at);
        let kind = self.persons.get(&question.person).map(|person| person.kind);
        let base = Request {
            at: question.at,
            factors: match kind {
                Some(PersonKind::Machine) => Factors::DEVICE,
                Some(PersonKind::Human) | None => Factors::ALL,
            },
            facts: device.and_then(|credential| credential.memory.facts.as_ref()),
            approvals: &approvals,
            grant: self.exceptions.grant(&question.person, &question.resource),
            lock: lock.map(|_| "them"),
            ..Request::new(&question.person, &question.resource)
        };
        self.policy
            .explain(&overlay(&base, question, facts.as_ref()))
    }
}

/// What the question says counts; the rest is what is known.
fn overlay<'a>(
    known: &Request<'a>,
    question: &'a Question,
    facts: Option<&'a crate::policy::Facts>,
) -> Request<'a> {
    Request {
        port: question.port,
        at: question.at,
        source: question.from.or(known.source),
        factors: question.factors.unwrap_or(known.factors),
        facts: facts.or(known.facts),
        risk: question.risk.map_or(known.risk, RiskInput::Fixed),
        ..*known
    }
}
