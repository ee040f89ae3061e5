//! The store: one SQLite file with everything that outlives the process, secrets sealed under `K_seal`.
//!
//! Invariant: when [`Store::commit`] returns, the records are on disk, all of them; when
//! it fails, none is. A write-ahead log with `synchronous = FULL` makes that one fsync.

mod access;
mod apply;
mod audit;
mod load;
mod migrate;
mod seal;
mod versions;

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, MetadataExt, chown};
use std::path::{Path, PathBuf};

use rusqlite::{
    Connection, OpenFlags, OptionalExtension, Transaction, TransactionBehavior, params,
};
use spa_gateway_core::{KnockKeyRow, Record, Snapshot};
use spa_proto::{KnockSecret, WallTime};
use tracing::{info, warn};
use zeroize::Zeroizing;

pub use access::AccessQuery;
pub use audit::AuditQuery;
pub use versions::{MAX_VERSIONS, PolicyVersion};

use crate::access::AccessLine;
use crate::accounts::Account;
use crate::audit::AuditLine;
use crate::config::Paths;
use crate::files::{self, FileError, Wanted};
use seal::{Place, Seal};

/// The version of `schema.sql`; `migrate` says what to do to change it.
const SCHEMA_VERSION: i64 = 6;
const SCHEMA: &str = include_str!("store/schema.sql");
/// Marks the file as ours: "SPA1".
const APPLICATION_ID: i64 = 0x5350_4131;
/// Mode of the store and what lies beside it.
const SECRET_MODE: u32 = 0o600;
/// The generation file has always this many digits, so that writing it needs no new block.
const GENERATION_DIGITS: usize = 20;

const FLOOR: &str = "floor";
const GENERATION: &str = "generation";
const WIREGUARD: &str = "wireguard";

/// Why the store cannot be used. Its text is one line.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// A file of it.
    #[error(transparent)]
    File(#[from] FileError),
    /// SQLite refused.
    #[error(
        "cannot {action} the store: {source}; see the disk's room and `ls -l` of the state directory"
    )]
    Sql {
        /// What was tried.
        action: &'static str,
        /// SQLite's answer.
        source: rusqlite::Error,
    },
    /// Another process has it.
    #[error("{} is open in another process; one gateway at a time, stop the other first", .0.display())]
    InUse(PathBuf),
    /// Not a store, or not of this version.
    #[error("{} has schema version {found}, this program knows {SCHEMA_VERSION}; use the program it was made with", file.display())]
    Version {
        /// The file.
        file: PathBuf,
        /// What it says.
        found: i64,
    },
    /// A value that does not open under `K_seal`.
    #[error(
        "{table}.{column} of the store does not open under K_seal; store and K_seal belong to each other, restore both from one backup"
    )]
    Seal {
        /// The table.
        table: &'static str,
        /// The column.
        column: &'static str,
    },
    /// A value that cannot be.
    #[error(
        "{table}.{column} of the store holds what cannot be there; restore the store from a backup"
    )]
    Row {
        /// The table.
        table: &'static str,
        /// The column.
        column: &'static str,
    },
    /// A row that must be there.
    #[error(
        "the store has no {0}; restore it from a backup, or make a new gateway with `spa-admin init`"
    )]
    Lacks(&'static str),
    /// The kernel gave no randomness.
    #[error("the kernel gives no random bytes; nothing can be sealed")]
    Random,
    /// The generation beside `K_seal`.
    #[error("cannot write {}: {source}", file.display())]
    Generation {
        /// The file.
        file: PathBuf,
        /// The system's answer.
        source: io::Error,
    },
}

/// Whether the store is the newest we know of (SPEC §15).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Freshness {
    /// Its generation is the one kept beside `K_seal`.
    Current,
    /// It is behind, or there is none to compare with: restored from a backup. Nothing
    /// may be accepted until an administrator has looked at the credentials.
    Restored,
}

/// The secrets a new gateway begins with.
#[derive(Debug)]
pub struct Founding {
    /// The knock key of kid 0, the gateway's identity.
    pub identity: KnockSecret,
    /// The private key of its WireGuard interface.
    pub wireguard: Zeroizing<[u8; 32]>,
    /// When it is made.
    pub made: WallTime,
}

/// The open store.
pub struct Store {
    db: Connection,
    seal: Seal,
    generation: u64,
    freshness: Freshness,
    beside: File,
    beside_path: PathBuf,
    /// Audit lines that wait for the next commit.
    waiting: Vec<AuditLine>,
    waiting_access: Vec<AccessLine>,
}

impl Store {
    /// Makes the store, `K_seal` and the generation of a new gateway. Replaces nothing.
    ///
    /// # Errors
    /// A file that exists; what the system refuses. What was made is removed again.
    pub fn create(paths: &Paths, founding: &Founding) -> Result<(), StoreError> {
        let mut made: Vec<PathBuf> = Vec::new();
        let outcome = Self::create_files(paths, founding, &mut made);
        if outcome.is_err() {
            // Best effort: the first error is the one worth reporting.
            for file in made {
                let _ = std::fs::remove_file(file);
            }
        }
        outcome
    }

    fn create_files(
        paths: &Paths,
        founding: &Founding,
        made: &mut Vec<PathBuf>,
    ) -> Result<(), StoreError> {
        let mut key = Zeroizing::new([0; 32]);
        getrandom::fill(&mut *key).map_err(|_| StoreError::Random)?;
        let first = generation_text(1);
        let files: [(PathBuf, &[u8]); 3] = [
            (paths.seal_key(), &*key),
            (paths.generation(), first.as_bytes()),
            (paths.store(), &[]),
        ];
        for (file, content) in files {
            files::create_new(&file, SECRET_MODE, content)?;
            made.push(file);
        }
        let mut db = connect(&paths.store())?;
        let failed = |source| StoreError::Sql {
            action: "make",
            source,
        };
        let seal = Seal::new(&key);
        let transaction = db.transaction().map_err(failed)?;
        transaction.execute_batch(SCHEMA).map_err(failed)?;
        transaction
            .pragma_update(None, "application_id", APPLICATION_ID)
            .and_then(|()| transaction.pragma_update(None, "user_version", SCHEMA_VERSION))
            .map_err(failed)?;
        set_meta(&transaction, GENERATION, &1_i64)?;
        set_meta(&transaction, FLOOR, &apply::int(founding.made.as_millis()))?;
        let sealed = seal.seal(WIREGUARD_PLACE, &*founding.wireguard)?;
        set_meta(&transaction, WIREGUARD, &sealed)?;
        let identity = KnockKeyRow {
            kid: 0,
            secret: KnockSecret::from_bytes(*founding.identity.expose()),
            made: founding.made,
            not_after: None,
        };
        apply::insert_knock_key(&transaction, &seal, &identity)?;
        transaction.commit().map_err(failed)
    }

    /// Opens the store. Its files must be for their owner alone.
    ///
    /// # Errors
    /// A file that is missing or open to others; a store of another version, in use, or
    /// of another `K_seal`.
    pub fn open(paths: &Paths) -> Result<Self, StoreError> {
        let key = files::read_secret::<32>(&paths.seal_key())?;
        files::open(&paths.store(), Wanted::Secret)?;
        let (beside, kept) = open_generation(&paths.generation())?;
        let mut db = connect(&paths.store())?;
        let failed = |source| StoreError::Sql {
            action: "read",
            source,
        };
        let found: i64 = db
            .pragma_query_value(None, "user_version", |row| row.get(0))
            .map_err(|source| in_use_or(&paths.store(), source))?;
        let application: i64 = db
            .pragma_query_value(None, "application_id", |row| row.get(0))
            .map_err(failed)?;
        let known = application == APPLICATION_ID
            && migrate::migrate(&mut db, migrate::STEPS, (found, SCHEMA_VERSION)).map_err(
                |source| StoreError::Sql {
                    action: "bring to a newer version",
                    source,
                },
            )?;
        if !known {
            let file = paths.store();
            return Err(StoreError::Version { file, found });
        }
        if found != SCHEMA_VERSION {
            info!(
                found,
                version = SCHEMA_VERSION,
                "the store is of a newer version now"
            );
        }
        let generation = meta::<u64>(&db, GENERATION)?.ok_or(StoreError::Lacks("generation"))?;
        let freshness = match kept {
            Some(kept) if kept <= generation => Freshness::Current,
            Some(_) | None => Freshness::Restored,
        };
        let store = Self {
            db,
            seal: Seal::new(&key),
            generation: generation.max(kept.unwrap_or(0)),
            freshness,
            beside,
            beside_path: paths.generation(),
            waiting: Vec::new(),
            waiting_access: Vec::new(),
        };
        // Opens one value: a K_seal of another store shows now, not at the first knock.
        store.wireguard_key()?;
        Ok(store)
    }

    /// Makes every file of the store the daemon's, as root at its start.
    ///
    /// # Errors
    /// What the system refuses.
    pub fn hand_over(paths: &Paths, account: Account) -> Result<(), StoreError> {
        let wal = paths.store().with_extension("db-wal");
        let files = [
            paths.state.clone(),
            paths.seal_key(),
            paths.generation(),
            paths.store(),
            wal,
        ];
        let (uid, gid) = (account.uid.as_raw(), account.gid.as_raw());
        for file in files {
            let moved = match file.metadata() {
                Ok(found) if found.uid() == uid && found.gid() == gid => Ok(()),
                Ok(_) => chown(&file, Some(uid), Some(gid)),
                Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
                Err(error) => Err(error),
            };
            moved.map_err(|source| FileError::Io {
                action: "hand over",
                file,
                source,
            })?;
        }
        Ok(())
    }

    /// Loads all that the core starts from.
    ///
    /// # Errors
    /// A row that cannot be read: the gateway does not start on half a store.
    pub fn load(&self) -> Result<Snapshot, StoreError> {
        load::load(&self.db, &self.seal)
    }

    /// Counts the credentials and open invites.
    ///
    /// # Errors
    /// A store that cannot be read.
    pub fn credentials(&self) -> Result<usize, StoreError> {
        let count = "SELECT count(*) FROM credential";
        self.db
            .query_row(count, (), |row| row.get(0))
            .map_err(|source| StoreError::Sql {
                action: "read",
                source,
            })
    }

    /// Gives the private key of the WireGuard interface.
    ///
    /// # Errors
    /// A store without it, or of another `K_seal`.
    pub fn wireguard_key(&self) -> Result<Zeroizing<[u8; 32]>, StoreError> {
        let sealed: Vec<u8> =
            meta(&self.db, WIREGUARD)?.ok_or(StoreError::Lacks("WireGuard key"))?;
        self.seal.open_array(WIREGUARD_PLACE, &sealed)
    }

    /// Tells whether this is the newest store we know of.
    #[must_use]
    pub const fn freshness(&self) -> Freshness {
        self.freshness
    }

    /// Takes a restored store for the newest one: an administrator looked at it (SPEC §15).
    ///
    /// # Errors
    /// What the disk refuses; the store then stays unaccepted.
    pub fn accept_restored(&mut self) -> Result<(), StoreError> {
        // Above both counters, so that the store it replaces is the one behind.
        self.commit(&[])?;
        self.freshness = Freshness::Current;
        Ok(())
    }

    /// Puts records on disk, in their order, in one commit. Waiting audit lines go with them.
    ///
    /// # Errors
    /// What the disk refuses; then none of the records is in the store.
    pub fn commit(&mut self, records: &[Record]) -> Result<(), StoreError> {
        self.write(|transaction, seal| {
            let changes = records.iter().flat_map(|record| &record.changes);
            changes
                .into_iter()
                .try_for_each(|change| apply::apply(transaction, seal, change))
        })
    }

    /// Makes one synced commit of what `change` writes; waiting audit lines go with it.
    fn write<T>(
        &mut self,
        change: impl FnOnce(&Transaction<'_>, &Seal) -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        let failed = |source| StoreError::Sql {
            action: "write",
            source,
        };
        let next = self.generation + 1;
        let transaction = self
            .db
            .transaction_with_behavior(TransactionBehavior::Immediate)
            .map_err(failed)?;
        let written = change(&transaction, &self.seal)?;
        set_meta(&transaction, GENERATION, &apply::int(next))?;
        audit::insert(&transaction, &self.waiting)?;
        access::insert(&transaction, &self.waiting_access)?;
        transaction.commit().map_err(failed)?;
        self.waiting.clear();
        self.waiting_access.clear();
        self.generation = next;
        self.keep_generation();
        Ok(written)
    }

    /// Follows the commit without a sync: it is for restored backups, and a lost power
    /// supply can only leave it older than the store, which is no harm.
    fn keep_generation(&self) {
        let text = generation_text(self.generation);
        if let Err(error) = self.beside.write_all_at(text.as_bytes(), 0) {
            warn!(file = %self.beside_path.display(), %error, "generation not kept");
        }
    }

    /// Leaves no room beyond the pages in use, as a full disk does.
    #[cfg(test)]
    pub(crate) fn fill_the_disk(&self) {
        let pages: i64 = self
            .db
            .pragma_query_value(None, "page_count", |row| row.get(0))
            .expect("pages");
        self.db
            .pragma_update(None, "max_page_count", pages)
            .expect("limited");
    }

    /// Makes room again.
    #[cfg(test)]
    pub(crate) fn empty_the_disk(&self) {
        let most = i64::from(u32::MAX - 1);
        self.db
            .pragma_update(None, "max_page_count", most)
            .expect("unlimited");
    }

    /// Puts the generation on disk, for a clean end.
    ///
    /// # Errors
    /// What the disk refuses.
    pub fn sync_generation(&self) -> Result<(), StoreError> {
        self.beside
            .sync_data()
            .map_err(|source| StoreError::Generation {
                file: self.beside_path.clone(),
                source,
            })
    }
}

impl std::fmt::Debug for Store {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Store")
            .field("generation", &self.generation)
            .field("freshness", &self.freshness)
            .finish_non_exhaustive()
    }
}

const WIREGUARD_PLACE: Place<'static> = Place {
    table: "meta",
    column: "value",
    row: WIREGUARD.as_bytes(),
};

/// Opens the file and sets what must hold for every use of it.
fn connect(file: &Path) -> Result<Connection, StoreError> {
    let failed = |source| in_use_or(file, source);
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let db = Connection::open_with_flags(file, flags).map_err(failed)?;
    db.set_prepared_statement_cache_capacity(32);
    // EXCLUSIVE before WAL: no shared memory file, and a second gateway is turned away.
    // secure_delete: an erased key leaves the file as well. cache_size in KiB.
    db.execute_batch(
        "PRAGMA locking_mode = EXCLUSIVE;
         PRAGMA journal_mode = WAL;
         PRAGMA synchronous = FULL;
         PRAGMA secure_delete = ON;
         PRAGMA cache_size = -128;
         PRAGMA temp_store = MEMORY;",
    )
    .map_err(failed)?;
    Ok(db)
}

fn in_use_or(file: &Path, source: rusqlite::Error) -> StoreError {
    match source.sqlite_error_code() {
        Some(rusqlite::ErrorCode::DatabaseBusy | rusqlite::ErrorCode::DatabaseLocked) => {
            StoreError::InUse(file.to_owned())
        }
        _ => StoreError::Sql {
            action: "open",
            source,
        },
    }
}

fn meta<T: rusqlite::types::FromSql>(
    db: &Connection,
    name: &'static str,
) -> Result<Option<T>, StoreError> {
    db.query_row(
        "SELECT value FROM meta WHERE name = ?1",
        params![name],
        |row| row.get(0),
    )
    .optional()
    .map_err(|source| StoreError::Sql {
        action: "read",
        source,
    })
}

fn set_meta(
    db: &Connection,
    name: &'static str,
    value: &dyn rusqlite::ToSql,
) -> Result<(), StoreError> {
    db.prepare_cached("INSERT OR REPLACE INTO meta (name, value) VALUES (?1, ?2)")
        .and_then(|mut prepared| prepared.execute(params![name, value]))
        .map(|_| ())
        .map_err(|source| StoreError::Sql {
            action: "write",
            source,
        })
}

/// Opens the generation beside `K_seal`; `None` if it is not there or says nothing.
fn open_generation(file: &Path) -> Result<(File, Option<u64>), StoreError> {
    let opened = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .open(file)
        .map_err(|source| FileError::Io {
            action: "open",
            file: file.to_owned(),
            source,
        })?;
    let mut text = [0; GENERATION_DIGITS];
    let kept = opened
        .read_exact_at(&mut text, 0)
        .ok()
        .and_then(|()| std::str::from_utf8(&text).ok()?.parse().ok());
    Ok((opened, kept))
}

fn generation_text(generation: u64) -> String {
    format!("{generation:0width$}\n", width = GENERATION_DIGITS)
}

#[cfg(test)]
mod tests;
