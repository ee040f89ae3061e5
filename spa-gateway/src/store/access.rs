//! The access table: lines are appended, the oldest leave, nothing is changed. Apart from the audit table, which many
//! connections are not to push out.

use rusqlite::{Connection, params};

use super::{Store, StoreError};
use crate::access::AccessLine;

/// How many lines are kept, about 6 MB.
const KEPT: i64 = 20_000;
/// How many lines wait in memory at most; then they are written without waiting for a commit.
const WAITING: usize = 256;
/// The most lines one answer holds.
const MOST_ASKED: u32 = 1_000;

/// Which lines are asked for.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct AccessQuery {
    /// Those after this id; the newest ones if absent.
    pub after: Option<u64>,
    /// Those of this user.
    pub user: Option<String>,
    /// Those about this resource.
    pub resource: Option<String>,
    /// Refused ones only.
    pub denied: bool,
    /// At most so many.
    pub limit: u32,
}

impl Store {
    /// Takes a line. It is on disk with the next commit, or after [`write_waiting`](Self::write_waiting).
    pub fn append_access(&mut self, line: AccessLine) {
        self.waiting_access.push(line);
        if self.waiting_access.len() >= WAITING
            && let Err(error) = self.write_waiting()
        {
            // The log has them; memory must stay bounded while the disk is full.
            tracing::warn!(%error, lines = self.waiting_access.len(), "access lines not stored");
            self.waiting_access.clear();
        }
    }

    /// Reads lines with their ids, oldest first.
    ///
    /// # Errors
    /// What SQLite refuses.
    pub fn access(&mut self, query: &AccessQuery) -> Result<Vec<(u64, String)>, StoreError> {
        self.write_waiting()?;
        // Following reads onwards from an id; otherwise the newest are wanted.
        let statement = match query.after {
            Some(_) => {
                "SELECT id, line FROM access WHERE id > ?1 AND (?2 IS NULL OR user = ?2)
                 AND (?3 IS NULL OR resource = ?3) AND denied >= ?4 ORDER BY id LIMIT ?5"
            }
            None => {
                "SELECT id, line FROM (SELECT id, line FROM access WHERE id > ?1
                 AND (?2 IS NULL OR user = ?2) AND (?3 IS NULL OR resource = ?3)
                 AND denied >= ?4 ORDER BY id DESC LIMIT ?5) ORDER BY id"
            }
        };
        let after = super::apply::int(query.after.unwrap_or(0));
        let limit = query.limit.min(MOST_ASKED);
        let failed = |source| StoreError::Sql {
            action: "read",
            source,
        };
        let mut prepared = self.db.prepare_cached(statement).map_err(failed)?;
        let values = params![after, query.user, query.resource, query.denied, limit];
        prepared
            .query_map(values, |row| Ok((row.get(0)?, row.get(1)?)))
            .and_then(Iterator::collect)
            .map_err(failed)
    }
}

/// Appends lines and lets the oldest go.
pub(super) fn insert(db: &Connection, lines: &[AccessLine]) -> Result<(), StoreError> {
    if lines.is_empty() {
        return Ok(());
    }
    let failed = |source| StoreError::Sql {
        action: "write",
        source,
    };
    let mut append = db
        .prepare_cached("INSERT INTO access (user, resource, denied, line) VALUES (?1, ?2, ?3, ?4)")
        .map_err(failed)?;
    for line in lines {
        append
            .execute(params![
                line.user,
                line.resource,
                line.is_denial(),
                line.to_json()
            ])
            .map_err(failed)?;
    }
    let newest = db.last_insert_rowid();
    db.prepare_cached("DELETE FROM access WHERE id <= ?1")
        .and_then(|mut prepared| prepared.execute(params![newest.saturating_sub(KEPT)]))
        .map(|_| ())
        .map_err(failed)
}
