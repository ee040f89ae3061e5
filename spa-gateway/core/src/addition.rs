//! What gives somebody something takes hold only once it is on disk; what takes something takes hold at once.
//!
//! Invariant: memory never honours what a restart would not.

use alloc::boxed::Box;
use alloc::vec::Vec;

use spa_proto::{CredentialId, TotpSecret, WallTime};

use crate::audit::{AuditKind, AuditRecord};
use crate::change::{Change, Record};
use crate::effect::{EffectId, EffectKind};
use crate::exception::{ApprovalRow, GrantRow};
use crate::gateway::Gateway;
use crate::lock::LockTarget;
use crate::name::Name;
use crate::outbox::Waiter;
use crate::person::Totp;
use crate::snapshot::{CredentialRow, KnockKeyRow, PersonRow, Standing};
use crate::time::Now;

/// What waits for its record.
#[derive(Debug)]
pub(crate) enum Addition {
    Person(PersonRow),
    Invite(CredentialRow),
    Confirmed(CredentialId),
    CredentialEnabled(CredentialId),
    PersonEnabled(Name),
    Resynced {
        credential: CredentialId,
        last_ts: WallTime,
        person: Name,
        last_step: u64,
    },
    Totp {
        person: Name,
        secret: TotpSecret,
        digits: u8,
    },
    Recovery {
        person: Name,
        hashes: Vec<[u8; 32]>,
    },
    KnockKey(KnockKeyRow),
    Unlocked(LockTarget),
    Granted(GrantRow),
    Approved(ApprovalRow),
    /// The clock is right, said an administrator at this time.
    Clock(Now),
}

/// Failure tokens of a credential that is new, or that an administrator enabled again.
const ALL_FAILURE_TOKENS: u32 = u32::MAX;

impl Gateway {
    /// Records a change and adopts it when it is on disk.
    pub(crate) fn add(&mut self, change: Change, addition: Addition) -> EffectId {
        let record = Record {
            changes: [change].into(),
        };
        self.outbox.put(
            EffectKind::Record(record),
            Waiter::Addition(Box::new(addition)),
        )
    }

    /// It is on disk: memory follows.
    pub(crate) fn adopt(&mut self, addition: Addition, now: Now) {
        if self.was_taken_back(&addition) {
            return;
        }
        match addition {
            Addition::Person(row) => {
                self.audit_person(&row.name.clone(), AuditKind::PersonAdded, now);
                self.restore_person(row);
            }
            Addition::Invite(row) => {
                let id = row.id;
                self.restore_credential(row, ALL_FAILURE_TOKENS, now.mono);
                self.audit_device(id, AuditKind::InviteMade, now);
            }
            Addition::Confirmed(id) => {
                if let Some(credential) = self.credentials.get_mut(&id) {
                    credential.confirmed = true;
                }
                self.audit_device(id, AuditKind::DeviceConfirmed, now);
            }
            Addition::CredentialEnabled(id) => {
                if let Some(credential) = self.credentials.get_mut(&id) {
                    credential.standing = Standing::Enabled;
                    credential.failures = 0;
                }
                self.list_tags(id);
                self.audit_device(id, AuditKind::DeviceEnabled, now);
            }
            Addition::PersonEnabled(name) => self.adopt_enabled_person(&name, now),
            Addition::Resynced {
                credential,
                last_ts,
                person,
                last_step,
            } => {
                if let Some(person) = self.persons.get_mut(&person) {
                    person.last_step = last_step;
                }
                if let Some(credential) = self.credentials.get_mut(&credential) {
                    credential.last_ts = last_ts;
                    credential.memory.answered = None;
                }
                self.audit_device(credential, AuditKind::DeviceResynced, now);
            }
            Addition::Totp {
                person,
                secret,
                digits,
            } => {
                if let Some(person) = self.persons.get_mut(&person) {
                    person.totp = Some(Totp {
                        secret,
                        digits,
                        period: TOTP_PERIOD,
                        proven: false,
                    });
                }
                self.audit_person(&person, AuditKind::TotpReplaced, now);
            }
            Addition::Recovery { person, hashes } => {
                if let Some(person) = self.persons.get_mut(&person) {
                    person.recovery = hashes;
                }
                self.audit_person(&person, AuditKind::RecoveryReplaced, now);
            }
            Addition::KnockKey(row) => {
                self.knock_keys.add(row);
                self.put_audit(AuditRecord::new(now.wall, AuditKind::KnockKeyMade));
            }
            Addition::Unlocked(target) => {
                if let Some(row) = self.locks.remove(&target) {
                    self.audit_lock(&row, AuditKind::Unlocked, now);
                }
            }
            Addition::Granted(row) => {
                let who = (row.person.clone(), row.resource.clone());
                let why = Some(row.why.clone()).filter(|why| !why.is_empty());
                self.audit_exception(who, AuditKind::GrantMade, Some(row.until), why, now);
                self.exceptions.put_grant(row);
                self.set_exceptions(now);
            }
            Addition::Approved(row) => {
                let who = (row.person.clone(), row.resource.clone());
                let by = Some(alloc::format!("by {}, for rule {}", row.by, row.rule));
                self.audit_exception(who, AuditKind::ApprovalGiven, Some(row.until), by, now);
                self.tell_approved(&row);
                self.exceptions.put_approval(row);
                self.set_exceptions(now);
            }
            Addition::Clock(accepted) => self.adopt_clock(accepted, now),
        }
    }

    /// Whether what it belongs to was taken away while it was written down: the disk, where that comes after it, has it no more.
    fn was_taken_back(&self, addition: &Addition) -> bool {
        match addition {
            Addition::Granted(row) => !self.persons.contains_key(&row.person),
            Addition::Invite(row) => !self.persons.contains_key(&row.person),
            Addition::Approved(row) => !self.exceptions.knows_request(row.id),
            Addition::Person(_)
            | Addition::Confirmed(_)
            | Addition::CredentialEnabled(_)
            | Addition::PersonEnabled(_)
            | Addition::Resynced { .. }
            | Addition::Totp { .. }
            | Addition::Recovery { .. }
            | Addition::KnockKey(_)
            | Addition::Unlocked(_)
            | Addition::Clock(_) => false,
        }
    }

    fn adopt_enabled_person(&mut self, name: &Name, now: Now) {
        if let Some(person) = self.persons.get_mut(name) {
            person.standing = Standing::Enabled;
        }
        for id in self.credentials_of(name) {
            self.list_tags(id);
        }
        self.audit_person(name, AuditKind::PersonEnabled, now);
    }

    /// Gives every credential and open invite of somebody.
    pub(crate) fn credentials_of(&self, person: &Name) -> Vec<CredentialId> {
        let theirs = self
            .credentials
            .iter()
            .filter(|(_, credential)| credential.person == *person);
        theirs.map(|(id, _)| *id).collect()
    }

    pub(crate) fn audit_person(&mut self, person: &Name, kind: AuditKind, now: Now) {
        let mut audit = AuditRecord::new(now.wall, kind);
        audit.person = Some(person.clone());
        self.put_audit(audit);
    }

    pub(crate) fn audit_device(&mut self, id: CredentialId, kind: AuditKind, now: Now) {
        let audit = self.audit_of(id, kind, now);
        self.put_audit(audit);
    }
}

/// Seconds of a TOTP step (SPEC §2).
pub(crate) const TOTP_PERIOD: u8 = 30;
