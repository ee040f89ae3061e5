//! More time for a session: within policy, and never beyond the absolute limit (SPEC §12).
//!
//! Invariant: a renewal gives time and nothing else. It is on disk before anything stays open longer.

use alloc::boxed::Box;
use alloc::collections::BTreeMap;
use core::time::Duration;

use litemap::LiteMap;
use spa_proto::channel::{Event, Extended, Renew, Renewed};
use spa_proto::{SessionId, WallTime};

use super::{CallAnswer, CallId, CallRefusal};
use crate::agenda::Timer;
use crate::allowance::{ends, last_end, shortest};
use crate::audit::AuditKind;
use crate::change::{Change, Record};
use crate::circumstances::Circumstances;
use crate::gateway::Gateway;
use crate::name::Name;
use crate::plan::{OnFailure, Operation, Step};
use crate::policy::Allow;
use crate::time::Now;

/// How long after its knock a session ends, however often it is renewed.
const ABSOLUTE_LIMIT: Duration = Duration::from_secs(8 * 60 * 60);

/// The ends a renewal gives.
#[derive(Debug)]
pub(crate) struct NewEnds {
    resources: LiteMap<Name, WallTime>,
    not_after: WallTime,
}

/// How far a session could go on.
struct Reach {
    allowed: BTreeMap<Name, Allow>,
    /// What policy gives at once.
    length: Duration,
    /// No further than this.
    limit: WallTime,
}

impl Gateway {
    /// Extends a session.
    pub(super) fn renew(
        &mut self,
        call: CallId,
        id: SessionId,
        ask: Renew,
        now: Now,
    ) -> Result<(), CallRefusal> {
        // What policy took meanwhile is gone first, with its own words.
        self.review(id, now);
        let reach = self.reach(id, now).ok_or(CallRefusal::Unauthorized)?;
        let session = self.sessions.of(id).ok_or(CallRefusal::Unauthorized)?;
        let length = match ask.minutes {
            0 => reach.length,
            minutes => reach
                .length
                .min(Duration::from_secs(u64::from(minutes) * 60)),
        };
        let end = now.wall.saturating_add(length).min(reach.limit);
        let not_after = last_end(&reach.allowed, end).unwrap_or(end);
        if not_after <= session.terms.not_after {
            return Err(CallRefusal::Refused(
                "the session cannot last longer; knock again when it ends",
            ));
        }
        let resources = ends(reach.allowed, not_after);
        let flows = self.flows_for(session, &resources, not_after);
        let credential = session.credential;
        let change = Change::SessionRenewed {
            session: id,
            not_after,
        };
        let mut audit = self.audit_of(credential, AuditKind::SessionRenewed, now);
        audit.session = Some(id);
        audit.not_after = Some(not_after);
        let renewed = Renewed {
            not_after,
            renewable_until: reach.limit.max(not_after),
        };
        let steps = [
            Step::Record(Record {
                changes: [change].into(),
            }),
            Step::Renewed(
                id,
                Box::new(NewEnds {
                    resources,
                    not_after,
                }),
            ),
            Step::Flows(id, flows.keys().copied().collect()),
            Step::KeepDoor(id),
            Step::Answer(call, Box::new(CallAnswer::Renewed(renewed))),
            Step::Audit(audit),
        ];
        let operation = Operation::new(credential, OnFailure::End(id), steps);
        self.begin(operation.answering(call), now);
        Ok(())
    }

    /// The disk knows the new end of a session: so does memory, for what the session still has.
    pub(crate) fn adopt_ends(&mut self, id: SessionId, ends: NewEnds, now: Now) {
        let NewEnds {
            mut resources,
            not_after,
        } = ends;
        let Some(session) = self.sessions.of_mut(id) else {
            return;
        };
        let terms = &mut session.terms;
        resources.retain(|name, _| terms.resources.contains_key(name));
        terms.resources = resources;
        terms.not_after = not_after;
        terms.deadline = now.mono.after(not_after.since(now.wall));
        let deadline = terms.deadline;
        if let Some(session) = self.sessions.of(id) {
            let flows = self.flows_for(session, &session.terms.resources, not_after);
            if let Some(session) = self.sessions.of_mut(id) {
                session.terms.flows = flows;
            }
        }
        self.agenda.set(Timer::End(id), deadline);
        self.set_review(id, now);
        self.set_warning(id, now);
        self.tell_event(id, Event::Extended(Extended { not_after }));
        // Policy may have changed while this was written down.
        self.review(id, now);
    }

    /// Gives how far a session can be renewed as things stand; its own end if no further.
    pub(super) fn renewable_until(&self, id: SessionId, now: Now) -> Option<WallTime> {
        let reach = self.reach(id, now)?;
        let limit = last_end(&reach.allowed, reach.limit).unwrap_or(reach.limit);
        Some(limit.max(self.sessions.of(id)?.terms.not_after))
    }

    fn reach(&self, id: SessionId, now: Now) -> Option<Reach> {
        let session = self.sessions.of(id)?;
        let opened = session.terms.opened;
        let knock = self.circumstances(
            session.credential,
            session.source.ip(),
            session.signals,
            now,
        )?;
        let ceiling = knock.ceiling.min(opened.saturating_add(ABSOLUTE_LIMIT));
        let on = Circumstances {
            ceiling,
            ..self.circumstances_of(id, now)?
        };
        let allowed: BTreeMap<Name, Allow> = session
            .terms
            .resources
            .keys()
            .filter_map(|name| Some((name.clone(), on.decide(name).allowed()?.clone())))
            .collect();
        let length = shortest(&allowed).unwrap_or(self.policy.defaults().length);
        Some(Reach {
            allowed,
            length,
            limit: ceiling.min(opened.saturating_add(length)),
        })
    }
}
