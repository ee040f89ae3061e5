//! The marks on disk, which must never be set twice.

use std::collections::BTreeMap;

use spa_gateway_core::Change;

use crate::place;

/// What is on disk, for the marks that must never be set twice.
#[derive(Default)]
pub(crate) struct Disk {
    last_ts: BTreeMap<usize, u64>,
    last_step: BTreeMap<String, u64>,
}

impl Disk {
    /// A record is on disk: no mark goes back, none is set twice.
    pub(crate) fn take(&mut self, change: &Change) -> Result<(), String> {
        match change {
            Change::Answered { credential, ts } => {
                let seat = place::seat_of(*credential);
                let before = self.last_ts.insert(seat, ts.as_millis());
                if before.is_some_and(|before| before >= ts.as_millis()) {
                    return Err(format!(
                        "seat {seat}: a transaction is answered twice, or an older one: {before:?} {ts:?}"
                    ));
                }
            }
            Change::CodeUsed { person, step } => {
                let before = self.last_step.insert(person.to_string(), *step);
                if before.is_some_and(|before| before >= *step) {
                    return Err(format!(
                        "{person}: a code is used twice, or an older one: {before:?} {step}"
                    ));
                }
            }
            _ => {}
        }
        Ok(())
    }
}
