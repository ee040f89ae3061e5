//! The audit table: lines are appended, the oldest leave, nothing is changed.

use rusqlite::{Connection, params};

use super::{Store, StoreError};
use crate::audit::AuditLine;

/// How many lines are kept: some weeks of a busy gateway, about 6 MB.
const KEPT: i64 = 20_000;
/// How many lines wait in memory at most; then they are written without waiting for a commit.
const WAITING: usize = 64;
/// The most lines one answer holds.
const MOST_ASKED: u32 = 1_000;

/// Which audit lines are asked for.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct AuditQuery {
    /// Those after this id; the newest ones if absent.
    pub after: Option<u64>,
    /// Those of this user.
    pub user: Option<String>,
    /// Denials only.
    pub denied: bool,
    /// At most so many.
    pub limit: u32,
}

impl Store {
    /// Takes a line. It is on disk with the next commit, or after [`write_waiting`](Self::write_waiting).
    pub fn append(&mut self, line: AuditLine) {
        self.waiting.push(line);
        if self.waiting.len() >= WAITING
            && let Err(error) = self.write_waiting()
        {
            // The log has them; memory must stay bounded while the disk is full.
            tracing::warn!(%error, lines = self.waiting.len(), "audit lines not stored");
            self.waiting.clear();
        }
    }

    /// Writes the lines that wait, those of the access log too. Not synced: the next commit does that.
    ///
    /// # Errors
    /// What the disk refuses; the lines go on waiting.
    pub fn write_waiting(&mut self) -> Result<(), StoreError> {
        if !self.has_waiting() {
            return Ok(());
        }
        let failed = |source| StoreError::Sql {
            action: "write",
            source,
        };
        // A line about what happened may be lost with the power; what it is about is on disk.
        self.db
            .pragma_update(None, "synchronous", "NORMAL")
            .map_err(failed)?;
        let written = self
            .db
            .transaction()
            .map_err(failed)
            .and_then(|transaction| {
                insert(&transaction, &self.waiting)?;
                super::access::insert(&transaction, &self.waiting_access)?;
                transaction.commit().map_err(failed)
            });
        self.db
            .pragma_update(None, "synchronous", "FULL")
            .map_err(failed)?;
        written?;
        self.waiting.clear();
        self.waiting_access.clear();
        Ok(())
    }

    /// Whether lines wait to be written.
    #[must_use]
    pub fn has_waiting(&self) -> bool {
        !self.waiting.is_empty() || !self.waiting_access.is_empty()
    }

    /// Reads lines with their ids, oldest first.
    ///
    /// # Errors
    /// What SQLite refuses.
    pub fn audit(&mut self, query: &AuditQuery) -> Result<Vec<(u64, String)>, StoreError> {
        self.write_waiting()?;
        // Following reads onwards from an id; otherwise the newest are wanted.
        let statement = match query.after {
            Some(_) => {
                "SELECT id, line FROM audit WHERE id > ?1 AND (?2 IS NULL OR user = ?2)
                 AND denied >= ?3 ORDER BY id LIMIT ?4"
            }
            None => {
                "SELECT id, line FROM (SELECT id, line FROM audit WHERE id > ?1
                 AND (?2 IS NULL OR user = ?2) AND denied >= ?3 ORDER BY id DESC LIMIT ?4)
                 ORDER BY id"
            }
        };
        let after = super::apply::int(query.after.unwrap_or(0));
        let limit = query.limit.min(MOST_ASKED);
        let failed = |source| StoreError::Sql {
            action: "read",
            source,
        };
        let mut prepared = self.db.prepare_cached(statement).map_err(failed)?;
        let values = params![after, query.user, query.denied, limit];
        prepared
            .query_map(values, |row| Ok((row.get(0)?, row.get(1)?)))
            .and_then(Iterator::collect)
            .map_err(failed)
    }
}

/// Appends lines and lets the oldest go.
pub(super) fn insert(db: &Connection, lines: &[AuditLine]) -> Result<(), StoreError> {
    if lines.is_empty() {
        return Ok(());
    }
    let failed = |source| StoreError::Sql {
        action: "write",
        source,
    };
    let mut append = db
        .prepare_cached("INSERT INTO audit (user, denied, line) VALUES (?1, ?2, ?3)")
        .map_err(failed)?;
    for line in lines {
        append
            .execute(params![line.user, line.is_denial(), line.to_json()])
            .map_err(failed)?;
    }
    let newest = db.last_insert_rowid();
    db.prepare_cached("DELETE FROM audit WHERE id <= ?1")
        .and_then(|mut prepared| prepared.execute(params![newest.saturating_sub(KEPT)]))
        .map_err(failed)?;
    Ok(())
}
