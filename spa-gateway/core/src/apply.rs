//! What each change does to the durable state: the model that a store is tested against.

use crate::addition::TOTP_PERIOD;
use crate::change::Change;
use crate::name::Name;
use crate::snapshot::{CredentialRow, HabitRow, KeyKind, KeyRow, PersonRow, Snapshot, TotpRow};
use alloc::collections::BTreeMap;
use spa_proto::{CredentialId, SessionId};

impl Snapshot {
    /// Applies one change. A change about what is not there does nothing.
    pub fn apply(&mut self, change: Change) {
        match change {
            Change::Answered { credential, ts } => {
                self.credential(credential, |row| row.last_ts = ts)
            }
            Change::CodeUsed { person, step } => self.person(&person, |row| {
                row.last_step = step;
                if let Some(totp) = &mut row.totp {
                    totp.proven = true;
                }
            }),
            Change::RecoveryUsed { person, hash } => {
                self.person(&person, |row| row.recovery.retain(|kept| *kept != hash));
            }
            Change::FailuresCounted {
                credential,
                in_a_row,
            } => {
                self.credential(credential, |row| row.failures = in_a_row);
            }
            Change::CredentialStanding {
                credential,
                standing,
            } => self.credential(credential, |row| {
                row.standing = standing;
                if standing == crate::Standing::Enabled {
                    row.failures = 0;
                }
            }),
            Change::SessionOpened(row) => self.sessions.push(row),
            Change::SessionRekeyed { session, key } => self.session(session, |row| row.key = key),
            Change::SessionReduced {
                session,
                resources,
                not_after,
            } => self.session(session, |row| {
                row.resources = resources;
                row.not_after = not_after;
            }),
            Change::SessionRenewed { session, not_after } => {
                self.session(session, |row| row.not_after = not_after);
            }
            Change::SessionEnded { session, resting } => {
                self.sessions.retain(|row| row.id != session);
                self.resting.push(resting);
            }
            Change::InviteMade(row) => self.credentials.push(row),
            Change::CandidateAdded {
                credential,
                number,
                key,
                proof,
                label,
                enrolled,
            } => {
                self.credential(credential, |row| {
                    row.keys.push(KeyRow {
                        number,
                        kind: KeyKind::Candidate,
                        key,
                    });
                    row.proof = Some(proof);
                    row.label = label;
                    row.enrolled = Some(enrolled);
                });
            }
            Change::CredentialActivated { credential, number } => {
                self.credential(credential, |row| {
                    row.keys.retain(|key| key.number == number);
                    row.keys.iter_mut().for_each(|key| key.kind = KeyKind::Live);
                    row.invite_until = None;
                })
            }
            Change::ProofReplaced { credential, proof } => {
                self.credential(credential, |row| row.proof = Some(proof));
            }
            Change::CredentialConfirmed { credential } => {
                self.credential(credential, |row| row.confirmed = true)
            }
            Change::CredentialErased { credential } => {
                self.credentials.retain(|row| row.id != credential);
                self.facts.retain(|row| row.credential != credential);
            }
            Change::Resynced {
                credential,
                last_ts,
                person,
                last_step,
            } => {
                self.credential(credential, |row| row.last_ts = last_ts);
                self.person(&person, |row| row.last_step = last_step);
            }
            Change::PersonAdded(row) => self.persons.push(row),
            Change::PersonStanding { person, standing } => {
                self.person(&person, |row| row.standing = standing)
            }
            Change::PersonErased { person } => {
                self.persons.retain(|row| row.name != person);
                self.credentials.retain(|row| row.person != person);
                self.grants.retain(|row| row.person != person);
                self.approvals.retain(|row| row.person != person);
                self.waiting.retain(|row| row.person != person);
                self.habits.retain(|row| row.person != person);
                self.learned.retain(|row| row.person != person);
                self.usual.retain(|row| row.person != person);
                let credentials = &self.credentials;
                self.facts
                    .retain(|row| credentials.iter().any(|of| of.id == row.credential));
            }
            Change::TotpReplaced {
                person,
                secret,
                digits,
            } => self.person(&person, |row| {
                row.totp = Some(TotpRow {
                    secret,
                    digits,
                    period: TOTP_PERIOD,
                    proven: false,
                });
            }),
            Change::RecoveryReplaced { person, hashes } => {
                self.person(&person, |row| row.recovery = hashes)
            }
            Change::Locked(row) => {
                self.locks.retain(|lock| lock.target != row.target);
                self.locks.push(row);
            }
            Change::Unlocked { target } => self.locks.retain(|lock| lock.target != target),
            Change::Granted(row) => self.grants.push(row),
            Change::Approved(row) => {
                self.waiting.retain(|waiting| waiting.id != row.id);
                self.approvals.push(row);
            }
            Change::ApprovalAsked(row) => self.waiting.push(row),
            Change::ExceptionEnded { id } => {
                self.grants.retain(|row| row.id != id);
                self.approvals.retain(|row| row.id != id);
                self.waiting.retain(|row| row.id != id);
            }
            Change::HabitSeen {
                person,
                network,
                hour,
                at,
                forgotten,
            } => {
                let row = self.habit(person);
                row.networks.insert(network, at);
                if let Some(forgotten) = forgotten {
                    row.networks.remove(&forgotten);
                }
                if let Some(seen) = row.hours.get_mut(usize::from(hour)) {
                    *seen = seen.saturating_add(1);
                }
            }
            Change::Learned(row) => {
                self.learned.retain(|kept| !kept.is_about(&row));
                self.learned.push(row);
            }
            Change::LearnedForgotten {
                person,
                resource,
                ports,
            } => self.learned.retain(|row| {
                (&row.person, &row.resource, row.ports) != (&person, &resource, ports)
            }),
            Change::Used(row) => {
                let about = (row.person.clone(), row.resource.clone());
                self.usual
                    .retain(|kept| (&kept.person, &kept.resource) != (&about.0, &about.1));
                self.usual.push(row);
            }
            Change::UseForgotten { person, resource } => self
                .usual
                .retain(|kept| (&kept.person, &kept.resource) != (&person, &resource)),
            Change::FactsKept(row) => {
                self.facts.retain(|kept| kept.credential != row.credential);
                self.facts.push(row);
            }
            Change::FactsForgotten { credential } => {
                self.facts.retain(|kept| kept.credential != credential);
            }
            Change::SessionMoved {
                session,
                source,
                signals,
            } => {
                let moved = self.sessions.iter_mut().filter(|row| row.id == session);
                moved.for_each(|row| (row.source, row.signals) = (source, signals));
            }
            Change::KnockKeyMade(row) => self.knock_keys.push(row),
            Change::KnockKeyErased { kid } => self.knock_keys.retain(|row| row.kid != kid),
            Change::FloorSet { floor } => self.floor = floor,
        }
    }

    /// Gives the habits of somebody, none at first.
    fn habit(&mut self, person: Name) -> &mut HabitRow {
        let at = self.habits.iter().position(|row| row.person == person);
        let at = at.unwrap_or_else(|| {
            self.habits.push(HabitRow {
                person,
                networks: BTreeMap::new(),
                hours: [0; 24],
            });
            self.habits.len() - 1
        });
        &mut self.habits[at]
    }

    fn credential(&mut self, id: CredentialId, change: impl FnOnce(&mut CredentialRow)) {
        self.credentials
            .iter_mut()
            .find(|row| row.id == id)
            .map(change);
    }

    fn person(&mut self, name: &Name, change: impl FnOnce(&mut PersonRow)) {
        self.persons
            .iter_mut()
            .find(|row| row.name == *name)
            .map(change);
    }

    fn session(&mut self, id: SessionId, change: impl FnOnce(&mut crate::SessionRow)) {
        self.sessions
            .iter_mut()
            .find(|row| row.id == id)
            .map(change);
    }
}
