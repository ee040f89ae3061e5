//! Just-in-time grants and approvals: they go beyond the rules for a while, and die by themselves.

use alloc::string::String;
use alloc::vec::Vec;
use core::time::Duration;

use spa_proto::WallTime;

use super::locks::is_sensible;
use super::{Accepted, AdminRefusal};
use crate::addition::Addition;
use crate::agenda::Timer;
use crate::audit::{AuditKind, AuditRecord};
use crate::change::{Change, Record};
use crate::effect::EffectKind;
use crate::exception::{ApprovalRow, GrantRow, MAX_EXCEPTIONS, Waiting};
use crate::gateway::Gateway;
use crate::name::Name;
use crate::outbox::Waiter;
use crate::policy::Who;
use crate::time::Now;

impl Gateway {
    /// Grants somebody a resource for a while. It counts as an allow of the default priority; a deny of that
    /// priority or a higher one, and every lock, beats it. The person has to knock for it.
    ///
    /// # Errors
    /// If person or resource do not exist, the length makes no sense, or there are too many.
    pub fn grant_access(
        &mut self,
        person: &Name,
        resource: &Name,
        length: Duration,
        why: String,
        now: Now,
    ) -> Result<Accepted<u32>, AdminRefusal> {
        if !self.persons.contains_key(person) {
            return Err(AdminRefusal::NoPerson(person.clone()));
        }
        if self.policy.resource(resource).is_none() {
            return Err(AdminRefusal::NoResource(resource.clone()));
        }
        let until = self.exception_until(length, now)?;
        let row = GrantRow {
            id: self.exceptions.next_id(),
            person: person.clone(),
            resource: resource.clone(),
            until,
            why,
        };
        let id = row.id;
        let record = self.add(Change::Granted(row.clone()), Addition::Granted(row));
        Ok(Accepted { value: id, record })
    }

    /// Approves a request that waits; the person has to knock again. `by` must be one whom `approve` of the rule
    /// names, and not the one who asks.
    ///
    /// # Errors
    /// If no such request waits, or this person may not approve it, or the length makes no sense.
    pub fn approve(
        &mut self,
        id: u32,
        by: &Name,
        length: Duration,
        now: Now,
    ) -> Result<Accepted<WallTime>, AdminRefusal> {
        let row = self.approval(id, by, length, now)?;
        let until = row.until;
        let record = self.add(Change::Approved(row.clone()), Addition::Approved(row));
        Ok(Accepted {
            value: until,
            record,
        })
    }

    /// Gives the approval of a request that waits, if this person may give it.
    pub(crate) fn approval(
        &self,
        id: u32,
        by: &Name,
        length: Duration,
        now: Now,
    ) -> Result<ApprovalRow, AdminRefusal> {
        let request = self
            .exceptions
            .waiting(id)
            .ok_or(AdminRefusal::NoRequest(id))?;
        if !self.may_approve(request, by) {
            return Err(AdminRefusal::MayNotApprove(by.clone()));
        }
        Ok(ApprovalRow {
            id,
            person: request.person.clone(),
            resource: request.resource.clone(),
            rule: request.rule.clone(),
            by: by.clone(),
            until: self.exception_until(length, now)?,
        })
    }

    /// Takes a grant or an approval back. Sessions lose at once what they had by it.
    ///
    /// # Errors
    /// If there is none with this number.
    pub fn end_exception(&mut self, id: u32, now: Now) -> Result<Accepted<()>, AdminRefusal> {
        let Some(of) = self.exceptions.remove(id) else {
            return Err(AdminRefusal::NoException(id));
        };
        let changes = [Change::ExceptionEnded { id }].into();
        let record = self
            .outbox
            .put(EffectKind::Record(Record { changes }), Waiter::Nobody);
        self.audit_exception(of, AuditKind::ExceptionEnded, None, None, now);
        self.set_exceptions(now);
        self.review_all(now);
        Ok(Accepted { value: (), record })
    }

    /// Gives all just-in-time grants.
    pub fn grants(&self) -> impl Iterator<Item = &GrantRow> {
        self.exceptions.grants()
    }

    /// Gives all approvals that were given.
    pub fn approvals(&self) -> impl Iterator<Item = &ApprovalRow> {
        self.exceptions.approvals()
    }

    /// Gives all requests that wait for an approval.
    pub fn waiting_requests(&self) -> impl Iterator<Item = &Waiting> {
        self.exceptions.all_waiting()
    }

    /// Notes that somebody waits for an approval; gives what the disk is to know of it.
    pub(crate) fn await_approval(
        &mut self,
        person: &Name,
        resource: Name,
        rule: &Name,
        now: Now,
    ) -> Vec<Change> {
        let asked = self.exceptions.wait(person, &resource, rule, now.wall);
        if let Some((request, _)) = &asked {
            self.tell_approvers(request);
        }
        self.audit_exception(
            (person.clone(), resource),
            AuditKind::ApprovalAsked,
            None,
            Some(alloc::format!("rule {rule}")),
            now,
        );
        self.set_exceptions(now);
        let mut changes = Vec::new();
        if let Some((row, pushed_out)) = asked {
            changes.extend(pushed_out.map(|id| Change::ExceptionEnded { id }));
            changes.push(Change::ApprovalAsked(row));
        }
        changes
    }

    /// Comes back when the next lock, grant, approval or request ends.
    pub(crate) fn set_exceptions(&mut self, now: Now) {
        let locks = self.locks.iter().filter_map(|lock| lock.until).min();
        let next = locks.into_iter().chain(self.exceptions.next_end()).min();
        match next {
            Some(next) => {
                let at = now.mono.after(next.since(now.wall));
                self.agenda.set(Timer::Exceptions, at);
            }
            None => self.agenda.cancel(Timer::Exceptions),
        }
    }

    /// Forgets exceptions and locks that have ended, on disk too. None of them counts any more: a decision
    /// looks at their end itself.
    pub(crate) fn end_exceptions(&mut self, now: Now) {
        let mut changes = Vec::new();
        for id in self.exceptions.ended(now.wall) {
            if let Some(of) = self.exceptions.remove(id) {
                self.audit_exception(of, AuditKind::ExceptionEnded, None, None, now);
            }
            changes.push(Change::ExceptionEnded { id });
        }
        let ended: Vec<_> = self
            .locks
            .iter()
            .filter(|lock| lock.until.is_some_and(|until| until <= now.wall))
            .map(|lock| lock.target.clone())
            .collect();
        for target in ended {
            if let Some(row) = self.locks.remove(&target) {
                self.audit_lock(&row, AuditKind::Unlocked, now);
            }
            changes.push(Change::Unlocked { target });
        }
        self.set_exceptions(now);
        if !changes.is_empty() {
            self.outbox
                .put(EffectKind::Record(Record { changes }), Waiter::Nobody);
        }
    }

    pub(crate) fn audit_exception(
        &mut self,
        (person, resource): (Name, Name),
        kind: AuditKind,
        until: Option<WallTime>,
        note: Option<String>,
        now: Now,
    ) {
        let mut audit = AuditRecord::new(now.wall, kind);
        audit.note = note;
        audit.person = Some(person);
        audit.resources = [resource].into();
        audit.not_after = until;
        self.put_audit(audit);
    }

    fn exception_until(&self, length: Duration, now: Now) -> Result<WallTime, AdminRefusal> {
        if !is_sensible(length) {
            return Err(AdminRefusal::BadLength);
        }
        let count = self.exceptions.grants().count() + self.exceptions.approvals().count();
        if count >= MAX_EXCEPTIONS {
            return Err(AdminRefusal::Full {
                what: "grants and approvals",
                most: MAX_EXCEPTIONS,
            });
        }
        Ok(now.wall.saturating_add(length))
    }

    pub(crate) fn may_approve(&self, request: &Waiting, by: &Name) -> bool {
        let rule = self
            .policy
            .rules()
            .iter()
            .find(|rule| rule.name == request.rule);
        *by != request.person
            && rule.is_some_and(|rule| {
                rule.conditions.approve.iter().any(|who| match who {
                    Who::Person(name) => name == by,
                    Who::Group(group) => self.policy.is_member(group, by),
                })
            })
    }
}
