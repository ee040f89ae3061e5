//! Answers administrators about what goes beside the policy file: locks.

use std::time::{Duration, Instant};

use spa_gateway_core::LockTarget;

use super::Daemon;
use super::pending::Answer;
use crate::clock;
use crate::control::protocol::Lock;

/// The longest reason, characters.
const MAX_WHY: usize = 200;

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

    pub(super) fn locks(&self) -> Vec<Lock> {
        let locks = self.gateway.locks().map(|lock| Lock {
            target: lock.target.to_string(),
            until: lock.until.map(spa_proto::WallTime::as_millis),
            why: lock.why.clone(),
        });
        locks.collect()
    }
}

/// Reads whom a lock names.
pub(super) fn lock_target(text: &str) -> Result<LockTarget, String> {
    LockTarget::parse(text).ok_or_else(|| {
        format!(
            "`{}` cannot be locked; write user:NAME, device:USER/DEVICE, source:NETWORK or all",
            text.escape_debug()
        )
    })
}

/// Takes the reason an administrator gives, if it is short.
pub(super) fn reason(why: String) -> Result<String, String> {
    if why.chars().count() > MAX_WHY {
        return Err(format!("a reason has at most {MAX_WHY} characters"));
    }
    Ok(why)
}
