//! `lock` and `unlock`: an administrator's "no", above all policy, on live sessions at once.

use alloc::string::{String, ToString};
use alloc::vec::Vec;
use core::time::Duration;

use spa_proto::SessionId;

use super::{Accepted, AdminRefusal};
use crate::addition::Addition;
use crate::audit::{AuditKind, AuditRecord};
use crate::change::{Change, Record};
use crate::effect::EffectKind;
use crate::gateway::Gateway;
use crate::lock::{LockRow, LockTarget, MAX_LOCKS};
use crate::outbox::Waiter;
use crate::session::Phase;
use crate::time::Now;

/// The shortest lock, grant or approval.
const SHORTEST: Duration = Duration::from_secs(10);
/// The longest lock, grant or approval that ends by itself.
const LONGEST: Duration = Duration::from_secs(30 * 24 * 60 * 60);

impl Gateway {
    /// Locks somebody, a device, a network or everybody out. Live sessions that it names are ended now;
    /// each is over when its `SessionEnded` audit record comes out. Gives those.
    ///
    /// # Errors
    /// If the target does not exist, the length makes no sense, or there are too many locks.
    pub fn lock(
        &mut self,
        target: LockTarget,
        length: Option<Duration>,
        why: String,
        now: Now,
    ) -> Result<Accepted<Vec<SessionId>>, AdminRefusal> {
        let target = self.existing(target)?;
        if length.is_some_and(|length| !is_sensible(length)) {
            return Err(AdminRefusal::BadLength);
        }
        if self.locks.len() >= MAX_LOCKS && !self.locks.has(&target) {
            return Err(AdminRefusal::Full {
                what: "locks",
                most: MAX_LOCKS,
            });
        }
        let row = LockRow {
            target,
            until: length.map(|length| now.wall.saturating_add(length)),
            why,
        };
        let changes = [Change::Locked(row.clone())].into();
        let record = self
            .outbox
            .put(EffectKind::Record(Record { changes }), Waiter::Nobody);
        self.audit_lock(&row, AuditKind::Locked, now);
        // What takes takes hold at once, and over a lifting that is not on disk yet.
        self.outbox.overrule(
            |addition| matches!(addition, Addition::Unlocked(lifted) if *lifted == row.target),
        );
        self.locks.put(row);
        self.set_exceptions(now);
        let before = self.live_sessions();
        self.review_all(now);
        let ended = |id: &SessionId| {
            let session = self.sessions.of(*id);
            session.is_none_or(|session| session.phase == Phase::Ending)
        };
        Ok(Accepted {
            value: before.into_iter().filter(ended).collect(),
            record,
        })
    }

    /// Lifts a lock.
    ///
    /// # Errors
    /// If there is none on this target.
    pub fn unlock(&mut self, target: &LockTarget) -> Result<Accepted<()>, AdminRefusal> {
        if !self.locks.has(target) {
            return Err(AdminRefusal::NoLock(alloc::format!("{target}")));
        }
        let change = Change::Unlocked {
            target: target.clone(),
        };
        let record = self.add(change, Addition::Unlocked(target.clone()));
        Ok(Accepted { value: (), record })
    }

    /// Gives all locks.
    pub fn locks(&self) -> impl Iterator<Item = &LockRow> {
        self.locks.iter()
    }

    /// Resolves a device to its full label, and looks whether a person exists.
    fn existing(&self, target: LockTarget) -> Result<LockTarget, AdminRefusal> {
        match target {
            LockTarget::Person(name) if !self.persons.contains_key(&name) => {
                Err(AdminRefusal::NoPerson(name))
            }
            LockTarget::Device(mut device) => {
                let id = self.find_device(&device)?;
                if let Some(credential) = self.credentials.get(&id) {
                    device.label.clone_from(&credential.label);
                }
                Ok(LockTarget::Device(device))
            }
            LockTarget::All | LockTarget::Person(_) | LockTarget::Source(_) => Ok(target),
        }
    }

    pub(crate) fn audit_lock(&mut self, row: &LockRow, kind: AuditKind, now: Now) {
        let mut audit = AuditRecord::new(now.wall, kind);
        match &row.target {
            LockTarget::Person(name) => audit.person = Some(name.clone()),
            LockTarget::Device(device) => {
                audit.person = Some(device.person.clone());
                audit.device = Some(device.label.clone());
            }
            LockTarget::All | LockTarget::Source(_) => {}
        }
        audit.not_after = row.until;
        audit.note = Some(match row.why.as_str() {
            "" => row.target.to_string(),
            why => alloc::format!("{}: {why}", row.target),
        });
        self.put_audit(audit);
    }
}

pub(super) fn is_sensible(length: Duration) -> bool {
    (SHORTEST..=LONGEST).contains(&length)
}
