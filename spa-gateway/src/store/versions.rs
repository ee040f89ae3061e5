//! The policies that were in force: text, when, by whom and why. What is found in force is never lost.
//!
//! Invariant: serials count up and none is given twice, also when the oldest versions have left.

use std::collections::HashMap;

use rusqlite::{Connection, OptionalExtension, params};
use serde::{Deserialize, Serialize};

use super::{Store, StoreError};

/// The most versions that are kept.
pub const MAX_VERSIONS: usize = 100;
/// The most bytes their texts have together; the newest two are kept in any case, to go back.
const MAX_TEXTS: u64 = 16 * 1024 * 1024;
const ALWAYS_KEPT: usize = 2;

/// A policy that is or was in force.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct PolicyVersion {
    /// Its number.
    pub serial: u64,
    /// When it was put into force, Unix milliseconds.
    pub at: u64,
    /// By whom.
    pub by: String,
    /// Why, in their words.
    pub why: String,
    /// Lines the version before does not have.
    pub added: u64,
    /// Lines of the version before that it does not have.
    pub removed: u64,
}

impl Store {
    /// Keeps the text of a policy as the newest version; gives its serial. One that is the newest already
    /// is not kept twice.
    ///
    /// # Errors
    /// What the disk refuses.
    pub fn keep_policy(
        &mut self,
        at: u64,
        (by, why): (&str, &str),
        text: &str,
    ) -> Result<u64, StoreError> {
        let before = self.newest_policy()?;
        if let Some((serial, before)) = &before
            && before == text
        {
            return Ok(*serial);
        }
        let (added, removed) = changed_lines(before.map_or(String::new(), |(_, text)| text), text);
        self.write(|transaction, _| {
            super::apply::run(
                transaction,
                "INSERT INTO policy_version (at, by, why, added, removed, text) VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
                params![super::apply::int(at), by, why, added, removed, text],
            )?;
            let serial = transaction.last_insert_rowid();
            let oldest = oldest_kept(transaction)?;
            super::apply::run(
                transaction,
                "DELETE FROM policy_version WHERE serial < ?1",
                params![oldest],
            )?;
            Ok(u64::try_from(serial).unwrap_or(0))
        })
    }

    /// Gives the newest version, if there is one.
    ///
    /// # Errors
    /// What SQLite refuses.
    pub fn newest_policy(&self) -> Result<Option<(u64, String)>, StoreError> {
        self.db
            .query_row(
                "SELECT serial, text FROM policy_version ORDER BY serial DESC LIMIT 1",
                [],
                |row| Ok((row.get(0)?, row.get(1)?)),
            )
            .optional()
            .map_err(unreadable)
    }

    /// Gives the text of a version that is still kept.
    ///
    /// # Errors
    /// What SQLite refuses.
    pub fn policy_text(&self, serial: u64) -> Result<Option<String>, StoreError> {
        self.db
            .query_row(
                "SELECT text FROM policy_version WHERE serial = ?1",
                params![super::apply::int(serial)],
                |row| row.get(0),
            )
            .optional()
            .map_err(unreadable)
    }

    /// Gives every version that is kept, oldest first.
    ///
    /// # Errors
    /// What SQLite refuses.
    pub fn policy_versions(&self) -> Result<Vec<PolicyVersion>, StoreError> {
        let statement =
            "SELECT serial, at, by, why, added, removed FROM policy_version ORDER BY serial";
        let mut prepared = self.db.prepare_cached(statement).map_err(unreadable)?;
        prepared
            .query_map([], |row| {
                Ok(PolicyVersion {
                    serial: row.get(0)?,
                    at: row.get(1)?,
                    by: row.get(2)?,
                    why: row.get(3)?,
                    added: row.get(4)?,
                    removed: row.get(5)?,
                })
            })
            .and_then(Iterator::collect)
            .map_err(unreadable)
    }
}

fn unreadable(source: rusqlite::Error) -> StoreError {
    StoreError::Sql {
        action: "read",
        source,
    }
}

/// Gives the serial of the oldest version there is room for.
fn oldest_kept(db: &Connection) -> Result<i64, StoreError> {
    let mut prepared = db
        .prepare_cached(
            "SELECT serial, length(CAST(text AS BLOB)) FROM policy_version ORDER BY serial DESC",
        )
        .map_err(unreadable)?;
    let sizes: Vec<(i64, u64)> = prepared
        .query_map([], |row| Ok((row.get(0)?, row.get(1)?)))
        .and_then(Iterator::collect)
        .map_err(unreadable)?;
    let mut bytes: u64 = 0;
    let fits = |at: usize, size: u64, bytes: &mut u64| {
        *bytes = bytes.saturating_add(size);
        at < ALWAYS_KEPT || (at < MAX_VERSIONS && *bytes <= MAX_TEXTS)
    };
    let kept = sizes
        .iter()
        .enumerate()
        .take_while(|(at, (_, size))| fits(*at, *size, &mut bytes));
    Ok(kept.last().map_or(0, |(_, (serial, _))| *serial))
}

/// Counts the lines that came and went, wherever they stand.
fn changed_lines(before: String, after: &str) -> (u64, u64) {
    let mut left: HashMap<&str, u64> = HashMap::new();
    for line in before.lines() {
        *left.entry(line).or_default() += 1;
    }
    let mut added = 0;
    for line in after.lines() {
        match left.get_mut(line).filter(|count| **count > 0) {
            Some(count) => *count -= 1,
            None => added += 1,
        }
    }
    (added, left.values().sum())
}
