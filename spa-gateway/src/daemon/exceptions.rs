//! Answers administrators about what goes beside the policy file: locks, grants, approvals.

use std::time::{Duration, Instant};

use spa_gateway_core::{LockRow, LockTarget};
use spa_proto::WallTime;

use super::Daemon;
use super::pending::Answer;
use crate::clock;
use crate::control::protocol::{
    Approval, Exceptions, Grant, LOCK_TARGETS, Lock, MAX_WHY, WaitingRequest,
};

impl Daemon {
    pub(super) fn lock(
        &mut self,
        target: &str,
        seconds: Option<u64>,
        why: String,
        at: Instant,
        answer: Answer,
    ) {
        let length = seconds.map(Duration::from_secs);
        let locked = lock_target(target).and_then(|target| {
            let why = reason(why)?;
            self.gateway
                .lock(target, length, why, clock::now())
                .map_err(|refusal| refusal.to_string())
        });
        match locked {
            Ok(accepted) => self.pending.on_locked(accepted, answer, at),
            // Whoever asked may be gone.
            Err(line) => drop(answer.send(Err(line))),
        }
    }

    /// Gives the locks in force. Those that have ended are forgotten a little later, and not listed.
    pub(super) fn locks(&self) -> Vec<Lock> {
        let now = clock::now().wall;
        let in_force = |lock: &&LockRow| lock.until.is_none_or(|until| now < until);
        let locks = self.gateway.locks().filter(in_force).map(|lock| Lock {
            target: lock.target.to_string(),
            until: lock.until.map(WallTime::as_millis),
            why: lock.why.clone(),
        });
        locks.collect()
    }

    /// Gives the grants and approvals that count, and the requests that wait.
    pub(super) fn exceptions(&self) -> Exceptions {
        let now = clock::now().wall;
        let grants = self.gateway.grants().filter(|row| now < row.until);
        let approvals = self.gateway.approvals().filter(|row| now < row.until);
        let grants = grants.map(|row| Grant {
            id: row.id,
            user: row.person.to_string(),
            resource: row.resource.to_string(),
            until: row.until.as_millis(),
            why: row.why.clone(),
        });
        let approvals = approvals.map(|row| Approval {
            id: row.id,
            user: row.person.to_string(),
            resource: row.resource.to_string(),
            rule: row.rule.to_string(),
            by: row.by.to_string(),
            until: row.until.as_millis(),
        });
        let waiting = self.gateway.waiting_requests().map(|row| WaitingRequest {
            id: row.id,
            user: row.person.to_string(),
            resource: row.resource.to_string(),
            rule: row.rule.to_string(),
            since: row.since.as_millis(),
        });
        Exceptions {
            grants: grants.collect(),
            approvals: approvals.collect(),
            waiting: waiting.collect(),
        }
    }
}

/// Reads whom a lock names.
pub(super) fn lock_target(text: &str) -> Result<LockTarget, String> {
    LockTarget::parse(text)
        .ok_or_else(|| format!("`{}` cannot be locked; {LOCK_TARGETS}", text.escape_debug()))
}

/// Takes the reason an administrator gives, if it is short.
pub(super) fn reason(why: String) -> Result<String, String> {
    if why.chars().count() > MAX_WHY {
        return Err(format!("a reason has at most {MAX_WHY} characters"));
    }
    Ok(why)
}
