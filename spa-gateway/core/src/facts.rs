//! What is known of devices outlives a restart: a session that is nothing without a posture does not end for nothing.
//!
//! Facts keep the time they were seen at, so that what a policy holds too old is too old after a restart as before it.

use alloc::collections::BTreeSet;
use alloc::vec::Vec;
use core::time::Duration;

use spa_proto::CredentialId;

use crate::change::{Change, Record};
use crate::effect::EffectKind;
use crate::gateway::Gateway;
use crate::outbox::Waiter;
use crate::policy::Facts;
use crate::snapshot::FactsRow;
use crate::time::{Moment, Now};

/// How often what devices reported is saved: half of the ten minutes a policy gives a posture at the least, mostly.
const SAVE_EVERY: Duration = Duration::from_secs(5 * 60);

/// Which facts are not on disk as they are known.
#[derive(Debug, Default)]
pub(crate) struct UnsavedFacts {
    of: BTreeSet<CredentialId>,
    saved: Option<Moment>,
}

impl Gateway {
    pub(crate) fn restore_facts(&mut self, rows: Vec<FactsRow>) {
        for FactsRow { credential, facts } in rows {
            if let Some(credential) = self.credentials.get_mut(&credential) {
                credential.memory.facts = Some(facts);
            }
        }
    }

    /// Replaces what is known of a device.
    pub(crate) fn know(&mut self, id: CredentialId, facts: Option<Facts>) {
        if let Some(credential) = self.credentials.get_mut(&id) {
            credential.memory.facts = facts;
            self.unsaved_facts.of.insert(id);
        }
    }

    /// Saves what is known, if it is time or the process stops.
    pub(crate) fn save_facts(&mut self, at_once: bool, now: Now) {
        let due = |saved| now.mono.since(saved) >= SAVE_EVERY;
        if !at_once && self.unsaved_facts.saved.is_some_and(|saved| !due(saved)) {
            return;
        }
        self.unsaved_facts.saved = Some(now.mono);
        let changes: Vec<Change> = core::mem::take(&mut self.unsaved_facts.of)
            .into_iter()
            .filter_map(|id| self.credentials.get(&id).map(|credential| (id, credential)))
            .map(|(credential, of)| match of.memory.facts.clone() {
                Some(facts) => Change::FactsKept(FactsRow { credential, facts }),
                None => Change::FactsForgotten { credential },
            })
            .collect();
        if !changes.is_empty() {
            self.outbox
                .put(EffectKind::Record(Record { changes }), Waiter::Nobody);
        }
    }
}
