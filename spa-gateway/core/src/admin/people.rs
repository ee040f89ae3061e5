//! People and machines: added, disabled, enabled, removed; their phone and recovery codes.

use alloc::boxed::Box;
use alloc::vec::Vec;

use spa_proto::{RecoveryCode, TotpSecret};

use super::{Accepted, AdminRefusal};
use crate::addition::{Addition, TOTP_PERIOD};
use crate::audit::AuditKind;
use crate::change::{Change, Record};
use crate::closing::EndReason;
use crate::effect::{EffectId, EffectKind};
use crate::entropy::{Entropy, Purpose, draw};
use crate::gateway::{Gateway, MAX_PERSONS};
use crate::name::Name;
use crate::outbox::Waiter;
use crate::person::Person;
use crate::snapshot::{PersonKind, PersonRow, Standing, TotpRow};
use crate::time::Now;

/// Bytes of a TOTP secret: the length of SHA-1's output (RFC 4226 §4).
const TOTP_SECRET_LEN: usize = 20;
/// How many recovery codes a person gets at once.
pub(crate) const RECOVERY_CODES: usize = 8;

impl Gateway {
    /// Adds somebody. A person gets a phone secret, which the first enrolment hands over.
    ///
    /// # Errors
    /// If the name is taken or there are too many.
    pub fn add_person(
        &mut self,
        name: &Name,
        kind: PersonKind,
        entropy: &mut dyn Entropy,
    ) -> Result<Accepted<()>, AdminRefusal> {
        let under_way = self
            .outbox
            .additions()
            .any(|added| matches!(added, Addition::Person(row) if row.name == *name));
        if self.persons.contains_key(name) || under_way {
            return Err(AdminRefusal::PersonExists(name.clone()));
        }
        if self.persons.len() >= MAX_PERSONS {
            return Err(AdminRefusal::Full {
                what: "users",
                most: MAX_PERSONS,
            });
        }
        let secret = new_totp_secret(entropy);
        let row = || PersonRow {
            name: name.clone(),
            kind,
            standing: Standing::Enabled,
            totp: (kind == PersonKind::Human).then(|| TotpRow {
                secret: secret.duplicate(),
                digits: self.settings.totp_digits,
                period: TOTP_PERIOD,
                proven: false,
            }),
            last_step: 0,
            recovery: Vec::new(),
        };
        let (stored, kept) = (row(), row());
        let record = self.add(Change::PersonAdded(stored), Addition::Person(kept));
        Ok(Accepted { value: (), record })
    }

    /// Disables somebody: sessions end at once, tags leave the table.
    ///
    /// # Errors
    /// If there is nobody of that name.
    pub fn disable_person(&mut self, name: &Name, now: Now) -> Result<Accepted<()>, AdminRefusal> {
        self.person_mut(name)?.standing = Standing::Disabled;
        self.outbox.overrule(
            |addition| matches!(addition, Addition::PersonEnabled(enabled) if enabled == name),
        );
        for id in self.credentials_of(name) {
            self.unlist_tags(id);
            self.end_sessions_of(id, EndReason::Revoked, now);
        }
        self.audit_person(name, AuditKind::PersonDisabled, now);
        let standing = Standing::Disabled;
        Ok(self.take(Change::PersonStanding {
            person: name.clone(),
            standing,
        }))
    }

    /// Enables somebody again.
    ///
    /// # Errors
    /// If there is nobody of that name.
    pub fn enable_person(&mut self, name: &Name) -> Result<Accepted<()>, AdminRefusal> {
        self.person_mut(name)?;
        let change = Change::PersonStanding {
            person: name.clone(),
            standing: Standing::Enabled,
        };
        let record = self.add(change, Addition::PersonEnabled(name.clone()));
        Ok(Accepted { value: (), record })
    }

    /// Removes somebody with all devices and invites; sessions end at once.
    ///
    /// # Errors
    /// If there is nobody of that name.
    pub fn remove_person(&mut self, name: &Name, now: Now) -> Result<Accepted<()>, AdminRefusal> {
        self.person_mut(name)?;
        for id in self.credentials_of(name) {
            self.erase_credential(id, now);
        }
        self.persons.remove(name);
        self.exceptions.remove_of(name);
        self.learned.forget_person(name);
        self.usual.forget_person(name);
        self.audit_person(name, AuditKind::PersonRemoved, now);
        Ok(self.take(Change::PersonErased {
            person: name.clone(),
        }))
    }

    /// Gives somebody a new phone secret; the next enrolment hands it over.
    ///
    /// # Errors
    /// If there is nobody of that name, or it is a machine.
    pub fn reset_totp(
        &mut self,
        name: &Name,
        entropy: &mut dyn Entropy,
    ) -> Result<Accepted<()>, AdminRefusal> {
        self.human(name)?;
        let secret = new_totp_secret(entropy);
        let digits = self.settings.totp_digits;
        let change = Change::TotpReplaced {
            person: name.clone(),
            secret: secret.duplicate(),
            digits,
        };
        let record = self.add(
            change,
            Addition::Totp {
                person: name.clone(),
                secret,
                digits,
            },
        );
        Ok(Accepted { value: (), record })
    }

    /// Gives somebody new recovery codes; the old ones are void once they are on disk.
    ///
    /// # Errors
    /// If there is nobody of that name, or it is a machine.
    pub fn replace_recovery_codes(
        &mut self,
        name: &Name,
        entropy: &mut dyn Entropy,
    ) -> Result<Accepted<Vec<RecoveryCode>>, AdminRefusal> {
        self.human(name)?;
        let mut new_code = || RecoveryCode::from_bytes(*draw(entropy, Purpose::Secret));
        let codes: Vec<RecoveryCode> = (0..RECOVERY_CODES).map(|_| new_code()).collect();
        let hashes: Vec<[u8; 32]> = codes.iter().map(RecoveryCode::digest).collect();
        let change = Change::RecoveryReplaced {
            person: name.clone(),
            hashes: hashes.clone(),
        };
        let record = self.add(
            change,
            Addition::Recovery {
                person: name.clone(),
                hashes,
            },
        );
        Ok(Accepted {
            value: codes,
            record,
        })
    }

    /// Records a change that memory follows already.
    pub(super) fn take(&mut self, change: Change) -> Accepted<()> {
        let record: EffectId = self.outbox.put(
            EffectKind::Record(Record {
                changes: [change].into(),
            }),
            Waiter::Nobody,
        );
        Accepted { value: (), record }
    }

    fn person_mut(&mut self, name: &Name) -> Result<&mut Person, AdminRefusal> {
        self.persons
            .get_mut(name)
            .map(Box::as_mut)
            .ok_or_else(|| AdminRefusal::NoPerson(name.clone()))
    }

    fn human(&mut self, name: &Name) -> Result<&mut Person, AdminRefusal> {
        let person = self.person_mut(name)?;
        match person.kind {
            PersonKind::Human => Ok(person),
            PersonKind::Machine => Err(AdminRefusal::Machine(name.clone())),
        }
    }
}

fn new_totp_secret(entropy: &mut dyn Entropy) -> TotpSecret {
    let bytes = draw::<TOTP_SECRET_LEN>(entropy, Purpose::Secret);
    TotpSecret::from_bytes(bytes.as_slice()).expect("20 bytes are a TOTP secret")
}
