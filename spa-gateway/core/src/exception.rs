//! Exceptions from policy that die by themselves: just-in-time grants, and approvals of what a rule's
//! `approve` asks for.
//!
//! Invariant: an exception counts only once it is on disk, and never after its `until`.

use alloc::collections::BTreeMap;
use alloc::string::String;
use alloc::vec::Vec;
use core::time::Duration;

use spa_proto::WallTime;

use crate::name::Name;
use crate::policy::{Approval, Grant};

/// The most grants, and the most approvals, at once.
pub const MAX_EXCEPTIONS: usize = 1024;
/// How long a request waits; then the person has to ask again.
pub const WAITS: Duration = Duration::from_secs(7 * 24 * 60 * 60);
/// The most requests that wait for an approval. A further one pushes the oldest out.
pub const MAX_WAITING: usize = 256;

/// A just-in-time grant.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct GrantRow {
    /// Its number.
    pub id: u32,
    /// Who may.
    pub person: Name,
    /// Reach what.
    pub resource: Name,
    /// Until when.
    pub until: WallTime,
    /// Why, in the words of the administrator.
    pub why: String,
}

/// An approval that was given.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ApprovalRow {
    /// Its number, that of the request.
    pub id: u32,
    /// Who asked.
    pub person: Name,
    /// For what.
    pub resource: Name,
    /// Which rule asks for an approval.
    pub rule: Name,
    /// Who agreed.
    pub by: Name,
    /// Until when it counts.
    pub until: WallTime,
}

/// A request that waits for an approval.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Waiting {
    /// Its number.
    pub id: u32,
    /// Who asks.
    pub person: Name,
    /// For what.
    pub resource: Name,
    /// Which rule asks for an approval.
    pub rule: Name,
    /// Since when.
    pub since: WallTime,
}

/// All of them.
#[derive(Debug, Default)]
pub(crate) struct Exceptions {
    grants: BTreeMap<u32, GrantRow>,
    approvals: BTreeMap<u32, ApprovalRow>,
    waiting: BTreeMap<u32, Waiting>,
    /// The highest number given out.
    last: u32,
}

impl Exceptions {
    pub(crate) fn restore(
        grants: Vec<GrantRow>,
        approvals: Vec<ApprovalRow>,
        waiting: Vec<Waiting>,
    ) -> Self {
        let mut all = Self::default();
        for row in waiting {
            all.last = all.last.max(row.id);
            all.waiting.insert(row.id, row);
        }
        grants.into_iter().for_each(|row| all.put_grant(row));
        approvals.into_iter().for_each(|row| all.put_approval(row));
        all
    }

    pub(crate) fn next_id(&mut self) -> u32 {
        self.last = self.last.wrapping_add(1).max(1);
        self.last
    }

    pub(crate) fn put_grant(&mut self, row: GrantRow) {
        self.last = self.last.max(row.id);
        self.grants.insert(row.id, row);
    }

    pub(crate) fn put_approval(&mut self, row: ApprovalRow) {
        self.last = self.last.max(row.id);
        self.waiting.remove(&row.id);
        self.approvals.insert(row.id, row);
    }

    /// Takes a grant, an approval or a request away; gives who had it, and of what.
    pub(crate) fn remove(&mut self, id: u32) -> Option<(Name, Name)> {
        let grant = self
            .grants
            .remove(&id)
            .map(|row| (row.person, row.resource));
        let approval = self.approvals.remove(&id);
        let approval = approval.map(|row| (row.person, row.resource));
        let waiting = self.waiting.remove(&id);
        let waiting = waiting.map(|row| (row.person, row.resource));
        grant.or(approval).or(waiting)
    }

    /// Takes away all that somebody has, or asks for.
    pub(crate) fn remove_of(&mut self, person: &Name) {
        self.grants.retain(|_, row| row.person != *person);
        self.approvals.retain(|_, row| row.person != *person);
        self.waiting.retain(|_, row| row.person != *person);
    }

    /// Notes that somebody waits for an approval; the same wish waits once. Gives what is new, and the
    /// number of the oldest if there was no room.
    pub(crate) fn wait(
        &mut self,
        person: &Name,
        resource: &Name,
        rule: &Name,
        now: WallTime,
    ) -> Option<(Waiting, Option<u32>)> {
        let same = |waiting: &Waiting| {
            waiting.person == *person && waiting.resource == *resource && waiting.rule == *rule
        };
        if self.waiting.values().any(same) {
            return None;
        }
        let mut pushed_out = None;
        if self.waiting.len() >= MAX_WAITING {
            pushed_out = self.waiting.pop_first().map(|(id, _)| id);
        }
        let id = self.next_id();
        let row = Waiting {
            id,
            person: person.clone(),
            resource: resource.clone(),
            rule: rule.clone(),
            since: now,
        };
        self.waiting.insert(id, row.clone());
        Some((row, pushed_out))
    }

    pub(crate) fn waiting(&self, id: u32) -> Option<&Waiting> {
        self.waiting.get(&id)
    }

    /// Says whether a request waits, or was approved already.
    pub(crate) fn knows_request(&self, id: u32) -> bool {
        self.waiting.contains_key(&id) || self.approvals.contains_key(&id)
    }

    pub(crate) fn all_waiting(&self) -> impl Iterator<Item = &Waiting> {
        self.waiting.values()
    }

    pub(crate) fn grants(&self) -> impl Iterator<Item = &GrantRow> {
        self.grants.values()
    }

    pub(crate) fn approvals(&self) -> impl Iterator<Item = &ApprovalRow> {
        self.approvals.values()
    }

    /// Gives the grant of a resource to somebody; of several the one that lasts longest.
    pub(crate) fn grant(&self, person: &Name, resource: &Name) -> Option<Grant> {
        self.grants
            .values()
            .filter(|row| row.person == *person && row.resource == *resource)
            .max_by_key(|row| row.until)
            .map(|row| Grant {
                id: row.id,
                until: row.until,
            })
    }

    /// Gives what was agreed to of a resource for somebody.
    pub(crate) fn approved(&self, person: &Name, resource: &Name) -> Vec<Approval> {
        self.approvals
            .values()
            .filter(|row| row.person == *person && row.resource == *resource)
            .map(|row| Approval {
                rule: row.rule.clone(),
                by: row.by.clone(),
                until: row.until,
            })
            .collect()
    }

    /// Gives the numbers of those that have ended.
    pub(crate) fn ended(&self, now: WallTime) -> Vec<u32> {
        self.ends()
            .filter(|(_, until)| *until <= now)
            .map(|(id, _)| id)
            .collect()
    }

    /// Gives when the next of them ends.
    pub(crate) fn next_end(&self) -> Option<WallTime> {
        self.ends().map(|(_, until)| until).min()
    }

    fn ends(&self) -> impl Iterator<Item = (u32, WallTime)> {
        let grants = self.grants.values().map(|row| (row.id, row.until));
        let approvals = self.approvals.values().map(|row| (row.id, row.until));
        let waiting = self.waiting.values();
        let waiting = waiting.map(|row| (row.id, row.since.saturating_add(WAITS)));
        grants.chain(approvals).chain(waiting)
    }
}
