//! What every accepted transaction leaves behind, on disk and in memory, whatever comes of it (SPEC §7).
//!
//! Invariant: what takes (an older `ts`, a spent code) counts in memory at once; what gives (a live
//! key) counts once it is on disk.

use alloc::boxed::Box;
use alloc::vec::Vec;

use spa_proto::{Ask, CredentialId};

use crate::addition::Addition;
use crate::audit::AuditKind;
use crate::change::Change;
use crate::credential::{Answered, AnsweredWith};
use crate::factors::ProvenKnock;
use crate::gateway::Gateway;
use crate::guard::FreshKnock;
use crate::person::Spend;
use crate::plan::Step;
use crate::snapshot::KeyKind;
use crate::tags::KeyRef;
use crate::time::Now;

/// What is to be recorded of an accepted transaction.
#[derive(Debug)]
pub(crate) struct Marks {
    /// For the disk.
    pub(crate) changes: Vec<Change>,
    /// For memory, once the disk has them.
    pub(crate) steps: Vec<Step>,
}

impl Gateway {
    /// Marks a transaction as answered and spends its second factor: in memory now, so that no other
    /// knock sees the old state, and in the record that precedes every effect.
    pub(crate) fn mark(&mut self, knock: &ProvenKnock, now: Now) -> Marks {
        let key = knock.fresh().arrival().key;
        let id = key.credential;
        let ts = knock.fresh().request().ts;
        // A resync that is not on disk yet is behind this knock: adopted later, it would set the marks back.
        let person = self
            .credentials
            .get(&id)
            .map(|credential| credential.person.clone());
        self.outbox.overrule(|addition| {
            matches!(addition, Addition::Resynced { credential, person: theirs, .. }
                if *credential == id || Some(theirs) == person.as_ref())
        });
        if let Some(credential) = self.credentials.get_mut(&id) {
            credential.last_ts = ts;
            credential.memory.answered = None;
        }
        let mut changes = Vec::from([Change::Answered { credential: id, ts }]);
        let mut steps = Vec::new();
        if let Ask::Open(_) = &knock.fresh().request().ask {
            changes.extend(self.end_failures(id));
            changes.extend(self.spend(id, knock.spend()));
            if self.is_candidate(key) {
                changes.push(Change::CredentialActivated {
                    credential: id,
                    number: key.number,
                });
                steps.push(Step::Activate(key));
                steps.push(Step::Audit(self.audit_of(
                    id,
                    AuditKind::DeviceActivated,
                    now,
                )));
            }
        }
        Marks { changes, steps }
    }

    /// Ends a row of failures: an OPEN passed step 10.
    pub(crate) fn end_failures(&mut self, id: CredentialId) -> Option<Change> {
        let credential = self.credentials.get_mut(&id)?;
        let before = core::mem::take(&mut credential.failures);
        (before != 0).then_some(Change::FailuresCounted {
            credential: id,
            in_a_row: 0,
        })
    }

    /// Uses up a second factor.
    pub(crate) fn spend(&mut self, id: CredentialId, spend: Spend) -> Option<Change> {
        let name = self.credentials.get(&id)?.person.clone();
        self.persons.get_mut(&name)?.spend(spend);
        match spend {
            Spend::Nothing => None,
            Spend::Step(step) => Some(Change::CodeUsed { person: name, step }),
            Spend::Recovery(hash) => Some(Change::RecoveryUsed { person: name, hash }),
        }
    }

    fn is_candidate(&self, key: KeyRef) -> bool {
        let of = self.credentials.get(&key.credential);
        of.and_then(|of| of.keys.get(&key.number))
            .is_some_and(|key| key.kind == KeyKind::Candidate)
    }
}

/// What a repeat of this knock will be answered from.
pub(crate) fn answered(knock: &FreshKnock, now: Now, outcome: AnsweredWith) -> Box<Answered> {
    Box::new(Answered {
        credential: knock.arrival().key.credential,
        transaction: knock.opened().transaction(),
        first: now.mono,
        repeats: 0,
        gateway_time: now.wall,
        outcome,
    })
}
