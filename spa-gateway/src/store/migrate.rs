//! From the schema a store was made with to the one this program knows: every step, or none.
//!
//! Invariant: steps and the new version number are one commit, so a program that is killed in the middle leaves the store
//! as it was, and the next start begins again. A store of a newer program is not touched.
//!
//! Whoever changes `schema.sql` keeps it as it was under `schemas/`, raises `SCHEMA_VERSION` and writes the step; the tests
//! below hold the two ways to a schema against each other.

use rusqlite::{Connection, TransactionBehavior};

/// What makes a schema the next one.
#[derive(Clone, Copy, Debug)]
pub(super) struct Step {
    /// The version it begins with.
    pub(super) from: i64,
    /// SQL; the rows that are there stay true.
    pub(super) change: &'static str,
}

/// All of them, in their order.
pub(super) const STEPS: &[Step] = &[
    Step {
        from: 3,
        change: "CREATE TABLE access (
        id       INTEGER PRIMARY KEY AUTOINCREMENT,
        user     TEXT,
        resource TEXT,
        denied   INTEGER NOT NULL,
        line     TEXT NOT NULL
    ) STRICT;",
    },
    Step {
        from: 4,
        change: "CREATE TABLE usual (
            person           TEXT NOT NULL,
            resource         TEXT NOT NULL,
            day              INTEGER NOT NULL,
            bytes            INTEGER NOT NULL,
            connections      INTEGER NOT NULL,
            most_bytes       INTEGER NOT NULL,
            most_connections INTEGER NOT NULL,
            days             INTEGER NOT NULL,
            PRIMARY KEY (person, resource)
        ) STRICT, WITHOUT ROWID;
        CREATE TABLE facts (
            credential BLOB PRIMARY KEY,
            facts      TEXT NOT NULL
        ) STRICT, WITHOUT ROWID;",
    },
    Step {
        from: 5,
        change: "CREATE INDEX resting_pair ON resting (tunnel4, tunnel6);",
    },
];

/// Brings a store of version `found` to version `to`. Gives whether there is a way; what is not changed stays usable by the
/// program it was made with.
pub(super) fn migrate(
    db: &mut Connection,
    steps: &[Step],
    (found, to): (i64, i64),
) -> Result<bool, rusqlite::Error> {
    let way: Vec<&Step> = steps
        .iter()
        .filter(|step| (found..to).contains(&step.from))
        .collect();
    let whole = way.iter().map(|step| step.from).eq(found..to);
    if found > to || !whole {
        return Ok(false);
    }
    if way.is_empty() {
        return Ok(true);
    }
    let transaction = db.transaction_with_behavior(TransactionBehavior::Immediate)?;
    for step in way {
        transaction.execute_batch(step.change)?;
    }
    transaction.pragma_update(None, "user_version", to)?;
    transaction.commit()?;
    Ok(true)
}

#[cfg(test)]
mod tests {
    use super::super::{SCHEMA, SCHEMA_VERSION};
    use super::*;

    /// What stores in the field were made with.
    const THREE: &str = include_str!("schemas/3.sql");
    const OLD: &[(i64, &str)] = &[
        (3, THREE),
        (4, include_str!("schemas/4.sql")),
        (5, include_str!("schemas/5.sql")),
    ];

    const NOTE: Step = Step {
        from: 3,
        change: "ALTER TABLE person ADD COLUMN note TEXT; CREATE TABLE extra (id INTEGER PRIMARY KEY) STRICT;",
    };
    const BROKEN: Step = Step {
        from: 4,
        change: "CREATE TABLE more (id INTEGER PRIMARY KEY) STRICT; INSERT INTO nowhere VALUES (1);",
    };

    fn store(schema: &str, version: i64) -> Connection {
        let db = Connection::open_in_memory().expect("opened");
        db.execute_batch(schema).expect("made");
        db.pragma_update(None, "user_version", version)
            .expect("numbered");
        db.execute("INSERT INTO meta (name, value) VALUES ('floor', 7)", ())
            .expect("filled");
        db
    }

    fn version(db: &Connection) -> i64 {
        db.pragma_query_value(None, "user_version", |row| row.get(0))
            .expect("a version")
    }

    /// Every column of every table, and every index.
    fn columns(db: &Connection) -> Vec<String> {
        let listing =
            "SELECT t.name || '.' || c.name || ' ' || c.type || ' ' || c.\"notnull\" || ' ' || c.pk
             FROM sqlite_master t JOIN pragma_table_info(t.name) c
             UNION ALL SELECT sql FROM sqlite_master WHERE type = 'index' AND sql IS NOT NULL ORDER BY 1";
        let mut listing = db.prepare(listing).expect("prepared");
        let rows = listing.query_map((), |row| row.get(0)).expect("listed");
        rows.collect::<Result<_, _>>().expect("text")
    }

    fn floor(db: &Connection) -> i64 {
        let floor = "SELECT value FROM meta WHERE name = 'floor'";
        db.query_row(floor, (), |row| row.get(0)).expect("kept")
    }

    #[test]
    fn every_old_store_becomes_what_a_new_one_is() {
        let new = store(SCHEMA, SCHEMA_VERSION);
        for (found, schema) in OLD {
            let mut old = store(schema, *found);
            let outcome = migrate(&mut old, STEPS, (*found, SCHEMA_VERSION));
            assert_eq!(outcome, Ok(true), "from {found}");
            assert_eq!(
                columns(&old),
                columns(&new),
                "from {found}: schema.sql was changed without a new version and its step"
            );
            assert_eq!(floor(&old), 7);
        }
    }

    #[test]
    fn a_step_changes_the_schema_and_keeps_the_rows() {
        let mut db = store(THREE, 3);
        assert_eq!(migrate(&mut db, &[NOTE], (3, 4)), Ok(true));
        assert_eq!((version(&db), floor(&db)), (4, 7));
        assert!(columns(&db).contains(&"person.note TEXT 0 0".to_owned()));
        assert!(columns(&db).contains(&"extra.id INTEGER 0 1".to_owned()));
    }

    #[test]
    fn a_step_that_fails_leaves_the_store_as_it_was() {
        let mut db = store(THREE, 3);
        let before = columns(&db);
        migrate(&mut db, &[NOTE, BROKEN], (3, 5)).expect_err("it fails");
        assert_eq!((version(&db), floor(&db)), (3, 7));
        assert_eq!(columns(&db), before);
    }

    #[test]
    fn there_is_no_way_back_and_none_over_a_gap() {
        let mut db = store(SCHEMA, 4);
        let before = columns(&db);
        for way in [(4, 3), (2, 4), (4, 6)] {
            assert_eq!(migrate(&mut db, &[NOTE], way), Ok(false), "{way:?}");
        }
        assert_eq!((version(&db), columns(&db)), (4, before));
    }
}
