//! Devices: invited, confirmed, revoked, enabled again, resynchronised (SPEC §14, §15).

use alloc::string::String;
use core::time::Duration;

use spa_proto::{CredentialId, CredentialKey, Fingerprint, KnockPublic, WallTime};

use super::{Accepted, AdminRefusal};
use crate::addition::Addition;
use crate::audit::AuditKind;
use crate::change::Change;
use crate::closing::EndReason;
use crate::entropy::{Entropy, Purpose, draw};
use crate::gateway::{Gateway, MAX_CREDENTIALS};
use crate::name::Name;
use crate::snapshot::{CredentialRow, KeyKind, KeyRow, Standing};
use crate::time::Now;

/// The shortest life of an invite.
pub const SHORTEST_INVITE: Duration = Duration::from_secs(60);
/// The longest life of an invite.
pub const LONGEST_INVITE: Duration = Duration::from_secs(30 * 24 * 60 * 60);
/// The most devices and open invites of one person.
pub const MAX_CREDENTIALS_OF_PERSON: usize = 32;
/// The number of an invite's key; candidates count up from it.
const INVITE_KEY: u8 = 0;

/// How long an invite lasts, and whether its four words are compared.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct InviteTerms {
    /// From now; 24 h unless the administrator says otherwise.
    pub valid: Duration,
    /// Whether the device reaches the control channel only until its words were compared.
    pub confirm: Confirm,
}

/// Whether a device must be confirmed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Confirm {
    /// By comparing the four words.
    ByWords,
    /// The invite is handed over in person.
    Waived,
}

/// What goes into an invite's line, besides host and port.
#[derive(Debug)]
pub struct InviteOffer {
    /// The id of the credential to be.
    pub credential: CredentialId,
    /// `K_inv`.
    pub key: CredentialKey,
    /// The gateway's long-lived knock key.
    pub b_0: KnockPublic,
    /// Until when it can be used.
    pub until: WallTime,
}

/// Names a device as `USER/LABEL`, or by the beginning of its id in place of the label.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct DeviceRef {
    /// Whose.
    pub person: Name,
    /// Its label, or at least 4 hex digits its credential id begins with.
    pub label: String,
}

impl Gateway {
    /// Makes an invite.
    ///
    /// # Errors
    /// If there is nobody of that name, the person is disabled, or there are too many.
    pub fn invite(
        &mut self,
        name: &Name,
        terms: InviteTerms,
        now: Now,
        entropy: &mut dyn Entropy,
    ) -> Result<Accepted<InviteOffer>, AdminRefusal> {
        let person = self
            .persons
            .get(name)
            .ok_or_else(|| AdminRefusal::NoPerson(name.clone()))?;
        if person.standing == Standing::Disabled {
            return Err(AdminRefusal::PersonDisabled(name.clone()));
        }
        if !(SHORTEST_INVITE..=LONGEST_INVITE).contains(&terms.valid) {
            return Err(AdminRefusal::BadValidity);
        }
        if self.credentials.len() >= MAX_CREDENTIALS {
            return Err(AdminRefusal::Full {
                what: "devices and invites",
                most: MAX_CREDENTIALS,
            });
        }
        if self.credentials_of(name).len() >= MAX_CREDENTIALS_OF_PERSON {
            let most = MAX_CREDENTIALS_OF_PERSON;
            return Err(AdminRefusal::Full {
                what: "devices and invites of one user",
                most,
            });
        }
        let id = CredentialId::from_bytes(*draw(entropy, Purpose::CredentialId));
        let key = CredentialKey::from_bytes(*draw(entropy, Purpose::Secret));
        let until = now.wall.saturating_add(terms.valid);
        let row = || CredentialRow {
            id,
            person: name.clone(),
            label: String::new(),
            proof: None,
            keys: [KeyRow {
                number: INVITE_KEY,
                kind: KeyKind::Invite,
                key: key.duplicate(),
            }]
            .into(),
            standing: Standing::Enabled,
            expires: None,
            confirmed: terms.confirm == Confirm::Waived,
            enrolled: None,
            invite_until: Some(until),
            last_ts: WallTime::from_millis(0),
            failures: 0,
        };
        let record = self.add(Change::InviteMade(row()), Addition::Invite(row()));
        let value = InviteOffer {
            credential: id,
            key,
            b_0: self.knock_keys.identity(),
            until,
        };
        Ok(Accepted { value, record })
    }

    /// Confirms a device whose four words were compared.
    ///
    /// # Errors
    /// If there is no such device, or nothing to confirm.
    pub fn confirm_device(&mut self, device: &DeviceRef) -> Result<Accepted<()>, AdminRefusal> {
        let id = self.find_device(device)?;
        let refused = |why: fn(Name, String) -> AdminRefusal| {
            Err(why(device.person.clone(), device.label.clone()))
        };
        match self.credentials.get(&id) {
            Some(credential) if credential.proof.is_none() => {
                return refused(AdminRefusal::NotEnrolled);
            }
            Some(credential) if credential.confirmed => {
                return refused(AdminRefusal::AlreadyConfirmed);
            }
            Some(_) | None => {}
        }
        let record = self.add(
            Change::CredentialConfirmed { credential: id },
            Addition::Confirmed(id),
        );
        Ok(Accepted { value: (), record })
    }

    /// Revokes a device: it is disabled, its session ends and its tags leave the table, at once.
    ///
    /// # Errors
    /// If there is no such device.
    pub fn revoke_device(
        &mut self,
        device: &DeviceRef,
        now: Now,
    ) -> Result<Accepted<()>, AdminRefusal> {
        let id = self.find_device(device)?;
        self.disable_credential(id, EndReason::Revoked, now);
        self.audit_device(id, AuditKind::DeviceRevoked, now);
        Ok(self.take(Change::CredentialStanding {
            credential: id,
            standing: Standing::Disabled,
        }))
    }

    /// Enables a device that was revoked, or that a hundred failures disabled.
    ///
    /// # Errors
    /// If there is no such device.
    pub fn enable_device(&mut self, device: &DeviceRef) -> Result<Accepted<()>, AdminRefusal> {
        let id = self.find_device(device)?;
        let change = Change::CredentialStanding {
            credential: id,
            standing: Standing::Enabled,
        };
        let record = self.add(change, Addition::CredentialEnabled(id));
        Ok(Accepted { value: (), record })
    }

    /// Brings marks back that lie ahead of the clock, which ran ahead once (SPEC §7). Marks that
    /// do not stay as they are: this never lets an old knock in again.
    ///
    /// # Errors
    /// If there is no such device.
    pub fn resync_device(
        &mut self,
        device: &DeviceRef,
        now: Now,
    ) -> Result<Accepted<()>, AdminRefusal> {
        let id = self.find_device(device)?;
        let credential = self.credentials.get(&id).ok_or_else(|| no_device(device))?;
        let person = self
            .persons
            .get(&device.person)
            .ok_or_else(|| no_device(device))?;
        let last_ts = credential.last_ts.min(now.wall);
        let period = person
            .totp
            .as_ref()
            .map_or(1, |totp| u64::from(totp.period));
        let last_step = person.last_step.min(now.wall.as_millis() / 1000 / period);
        let person = device.person.clone();
        let change = Change::Resynced {
            credential: id,
            last_ts,
            person: person.clone(),
            last_step,
        };
        let record = self.add(
            change,
            Addition::Resynced {
                credential: id,
                last_ts,
                person,
                last_step,
            },
        );
        Ok(Accepted { value: (), record })
    }

    /// Gives the fingerprint whose four words are compared.
    #[must_use]
    pub fn fingerprint(&self, id: CredentialId) -> Option<Fingerprint> {
        let proof = self.credentials.get(&id)?.proof?;
        Some(Fingerprint::of(id, &proof, &self.knock_keys.identity()))
    }

    /// Erases a credential from memory; its change is the caller's.
    pub(super) fn erase_credential(&mut self, id: CredentialId, now: Now) {
        self.end_sessions_of(id, EndReason::Revoked, now);
        self.unlist_tags(id);
        self.credentials.remove(&id);
    }

    /// Finds a device by its label, or by the beginning of its id if that names just one.
    pub(crate) fn find_device(&self, device: &DeviceRef) -> Result<CredentialId, AdminRefusal> {
        let theirs = || {
            self.credentials
                .iter()
                .filter(|(_, credential)| credential.person == device.person)
        };
        let mut labelled = theirs()
            .filter(|(_, credential)| !device.label.is_empty() && credential.label == device.label);
        if let Some((id, _)) = labelled.next() {
            return Ok(*id);
        }
        let begins = |id: &CredentialId| {
            device.label.len() >= 4 && alloc::format!("{id}").starts_with(device.label.as_str())
        };
        let mut named = theirs().filter(|(id, _)| begins(id));
        match (named.next(), named.next()) {
            (Some((id, _)), None) => Ok(*id),
            _ if self.persons.contains_key(&device.person) => Err(no_device(device)),
            _ => Err(AdminRefusal::NoPerson(device.person.clone())),
        }
    }
}

fn no_device(device: &DeviceRef) -> AdminRefusal {
    AdminRefusal::NoDevice(device.person.clone(), device.label.clone())
}
