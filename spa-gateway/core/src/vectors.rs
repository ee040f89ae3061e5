//! Puts a gateway into the middle of a story (feature `vectors`, for the vector checker only).

use alloc::vec::Vec;
use core::time::Duration;

use spa_proto::{
    CredentialId, CredentialKey, DerivedKeys, KnockSecret, SessionId, SessionKey, Slot, WallTime,
};

use crate::bucket::{Bucket, FAILURES, MESSAGES};
use crate::gateway::Gateway;
use crate::snapshot::{
    CredentialRow, KeyRow, KnockKeyRow, PersonRow, RestingRow, SessionRow, Snapshot, TotpRow,
};
use crate::tags::KeyRef;
use crate::time::Now;

/// What only memory knows of a credential.
#[derive(Clone, Debug)]
pub struct Recollection {
    /// Tokens of the message bucket.
    pub message_tokens: u32,
    /// Tokens of the failure bucket.
    pub failure_tokens: u32,
    /// V of packets that are spent, with their slots.
    pub spent: Vec<(Slot, [u8; 8])>,
    /// `ts` of transactions that failed a factor, and how long ago.
    pub failed: Vec<(WallTime, Duration)>,
}

impl Gateway {
    /// Makes a gateway remember what it was not there for.
    pub fn recollect(&mut self, credential: CredentialId, recollection: &Recollection, now: Now) {
        let Some(credential) = self.credentials.get_mut(&credential) else {
            return;
        };
        let memory = &mut credential.memory;
        memory.messages = Bucket::holding(&MESSAGES, recollection.message_tokens, now.mono);
        memory.failures = Bucket::holding(&FAILURES, recollection.failure_tokens, now.mono);
        for &(slot, v) in &recollection.spent {
            // A checker's list is shorter than the bound.
            let _ = memory.spent.spend(slot, v, Slot::from_minutes(0));
        }
        for &(ts, ago) in &recollection.failed {
            memory.remember_failed(ts, now.mono.before(ago));
        }
    }

    /// Gives a session the key of another implementation's reply, whose payload differs from ours.
    pub fn replace_session_key(&mut self, session: SessionId, key: SessionKey) {
        if let Some(session) = self.sessions.of_mut(session) {
            session.key = key;
        }
    }

    /// Gives the newest candidate of a credential the key of another implementation's reply.
    pub fn replace_candidate_key(
        &mut self,
        credential: CredentialId,
        number: u8,
        key: &CredentialKey,
    ) {
        let derived = DerivedKeys::derive(key, self.id, credential);
        let Some(of) = self.credentials.get_mut(&credential) else {
            return;
        };
        let name = KeyRef { credential, number };
        if let Some(of) = of.keys.get_mut(&number) {
            self.tags.remove(name, &of.derived);
            self.tags.add(name, &derived);
            of.derived = derived;
        }
    }
}

impl Snapshot {
    /// Makes a second copy, as a restart from the same store does.
    #[must_use]
    pub fn duplicate(&self) -> Self {
        Self {
            knock_keys: self.knock_keys.iter().map(KnockKeyRow::duplicate).collect(),
            persons: self.persons.iter().map(PersonRow::duplicate).collect(),
            credentials: self
                .credentials
                .iter()
                .map(CredentialRow::duplicate)
                .collect(),
            sessions: self.sessions.iter().map(SessionRow::duplicate).collect(),
            resting: self
                .resting
                .iter()
                .map(|row| RestingRow { ..*row })
                .collect(),
            locks: self.locks.clone(),
            grants: self.grants.clone(),
            approvals: self.approvals.clone(),
            waiting: self.waiting.clone(),
            habits: self.habits.clone(),
            learned: self.learned.clone(),
            usual: self.usual.clone(),
            facts: self.facts.clone(),
            floor: self.floor,
        }
    }
}

impl KnockKeyRow {
    fn duplicate(&self) -> Self {
        Self {
            secret: KnockSecret::from_bytes(*self.secret.expose()),
            ..*self
        }
    }
}

impl PersonRow {
    fn duplicate(&self) -> Self {
        let totp = self.totp.as_ref().map(|totp| TotpRow {
            secret: totp.secret.duplicate(),
            ..*totp
        });
        Self {
            name: self.name.clone(),
            totp,
            recovery: self.recovery.clone(),
            ..*self
        }
    }
}

impl CredentialRow {
    fn duplicate(&self) -> Self {
        Self {
            person: self.person.clone(),
            label: self.label.clone(),
            keys: self
                .keys
                .iter()
                .map(|row| KeyRow {
                    key: row.key.duplicate(),
                    ..*row
                })
                .collect(),
            ..*self
        }
    }
}

impl SessionRow {
    fn duplicate(&self) -> Self {
        Self {
            key: self.key.duplicate(),
            resources: self.resources.clone(),
            ..*self
        }
    }
}
