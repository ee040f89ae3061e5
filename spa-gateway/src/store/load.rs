//! Reads the whole store into the snapshot the core starts from.
//!
//! A row that cannot be read stops the start: a gateway that forgot a revocation or a
//! `last_ts` would be worse than one that does not run.

use std::collections::BTreeMap;

use rusqlite::{Connection, Row};
use spa_gateway_core::policy::{Facts, Network, PortRange, Signals};
use spa_gateway_core::{
    Amount, ApprovalRow, CredentialRow, FactsRow, GrantRow, HabitRow, KeyKind, KeyRow, KnockKeyRow,
    LearnedRow, LockRow, LockTarget, Name, PersonKind, PersonRow, RestingRow, SessionRow, Snapshot,
    Standing, TotpRow, UsualRow, Waiting,
};
use spa_proto::{
    CredentialId, CredentialKey, KnockSecret, ProofPublic, SessionId, SessionKey, TotpSecret,
    WallTime,
};

use super::apply::{
    key_kind_text, key_place, key_row, knock_place, person_kind_text, session_place, standing_text,
    totp_place,
};
use super::seal::Seal;
use super::{FLOOR, StoreError};

/// Loads everything.
pub(super) fn load(db: &Connection, seal: &Seal) -> Result<Snapshot, StoreError> {
    Ok(Snapshot {
        knock_keys: knock_keys(db, seal)?,
        persons: persons(db, seal)?,
        credentials: credentials(db, seal)?,
        sessions: sessions(db, seal)?,
        resting: resting(db)?,
        locks: locks(db)?,
        grants: grants(db)?,
        approvals: approvals(db)?,
        waiting: waiting(db)?,
        habits: habits(db)?,
        learned: learned(db)?,
        usual: usual(db)?,
        facts: facts(db)?,
        floor: WallTime::from_millis(super::meta::<u64>(db, FLOOR)?.unwrap_or(0)),
    })
}

fn knock_keys(db: &Connection, seal: &Seal) -> Result<Vec<KnockKeyRow>, StoreError> {
    let table = Table(db, "knock_key");
    table.rows(
        "SELECT kid, secret, made, not_after FROM knock_key ORDER BY kid",
        &[],
        |row| {
            let kid: u8 = table.field(row, "kid")?;
            let sealed: Vec<u8> = table.field(row, "secret")?;
            let secret = seal.open_array(knock_place(&[kid]), &sealed)?;
            Ok(KnockKeyRow {
                kid,
                secret: KnockSecret::from_bytes(*secret),
                made: table.time(row, "made")?,
                not_after: table.maybe_time(row, "not_after")?,
            })
        },
    )
}

fn persons(db: &Connection, seal: &Seal) -> Result<Vec<PersonRow>, StoreError> {
    let table = Table(db, "person");
    table.rows("SELECT * FROM person ORDER BY name", &[], |row| {
        let name = table.name(row, "name")?;
        Ok(PersonRow {
            kind: table.one_of(
                row,
                "kind",
                &[PersonKind::Human, PersonKind::Machine],
                person_kind_text,
            )?,
            standing: table.standing(row)?,
            totp: totp(table, row, seal, &name)?,
            last_step: table.field(row, "last_step")?,
            recovery: recovery(db, &name)?,
            name,
        })
    })
}

fn totp(
    table: Table<'_>,
    row: &Row<'_>,
    seal: &Seal,
    name: &Name,
) -> Result<Option<TotpRow>, StoreError> {
    let Some(sealed) = table.field::<Option<Vec<u8>>>(row, "totp")? else {
        return Ok(None);
    };
    let secret = seal.open(totp_place(name), &sealed)?;
    Ok(Some(TotpRow {
        secret: TotpSecret::from_bytes(&secret).ok_or(table.broken("totp"))?,
        digits: table.field(row, "totp_digits")?,
        period: table.field(row, "totp_period")?,
        proven: table.field(row, "totp_proven")?,
    }))
}

fn recovery(db: &Connection, person: &Name) -> Result<Vec<[u8; 32]>, StoreError> {
    let table = Table(db, "recovery");
    let statement = "SELECT hash FROM recovery WHERE person = ?1 ORDER BY hash";
    table.rows(statement, &[&person.as_str()], |row| {
        table.field(row, "hash")
    })
}

fn credentials(db: &Connection, seal: &Seal) -> Result<Vec<CredentialRow>, StoreError> {
    let table = Table(db, "credential");
    table.rows("SELECT * FROM credential ORDER BY id", &[], |row| {
        let id = CredentialId::from_bytes(table.field(row, "id")?);
        Ok(CredentialRow {
            id,
            person: table.name(row, "person")?,
            label: table.field(row, "label")?,
            proof: table
                .field::<Option<[u8; 32]>>(row, "proof")?
                .map(ProofPublic::from_bytes),
            keys: keys(db, seal, id)?,
            standing: table.standing(row)?,
            expires: table.maybe_time(row, "expires")?,
            confirmed: table.field(row, "confirmed")?,
            enrolled: table.maybe_time(row, "enrolled")?,
            invite_until: table.maybe_time(row, "invite_until")?,
            last_ts: table.time(row, "last_ts")?,
            failures: table.field(row, "failures")?,
        })
    })
}

fn keys(db: &Connection, seal: &Seal, credential: CredentialId) -> Result<Vec<KeyRow>, StoreError> {
    let table = Table(db, "credential_key");
    let statement =
        "SELECT number, kind, key FROM credential_key WHERE credential = ?1 ORDER BY number";
    table.rows(statement, &[credential.as_bytes()], |row| {
        let number: u8 = table.field(row, "number")?;
        let sealed: Vec<u8> = table.field(row, "key")?;
        let key = seal.open_array(key_place(&key_row(credential, number)), &sealed)?;
        let kinds = [KeyKind::Invite, KeyKind::Candidate, KeyKind::Live];
        Ok(KeyRow {
            number,
            kind: table.one_of(row, "kind", &kinds, key_kind_text)?,
            key: CredentialKey::from_bytes(*key),
        })
    })
}

fn sessions(db: &Connection, seal: &Seal) -> Result<Vec<SessionRow>, StoreError> {
    let table = Table(db, "session");
    table.rows("SELECT * FROM session ORDER BY id", &[], |row| {
        let id: [u8; 8] = table.field(row, "id")?;
        let sealed: Vec<u8> = table.field(row, "key")?;
        let key = seal.open_array(session_place(&id), &sealed)?;
        let resources: String = table.field(row, "resources")?;
        let resources = resources.split_whitespace().map(Name::parse);
        Ok(SessionRow {
            id: SessionId::from_bytes(id),
            credential: CredentialId::from_bytes(table.field(row, "credential")?),
            key: SessionKey::from_bytes(*key),
            wg_key: table.field(row, "wg_key")?,
            tunnel4: table.maybe_parsed(row, "tunnel4")?,
            tunnel6: table.maybe_parsed(row, "tunnel6")?,
            resources: resources
                .collect::<Result<_, _>>()
                .map_err(|_| table.broken("resources"))?,
            source: table
                .maybe_parsed(row, "source")?
                .ok_or(table.broken("source"))?,
            signals: match table.field::<Option<String>>(row, "signals")? {
                Some(text) => Some(Signals::parse(&text).ok_or(table.broken("signals"))?),
                None => None,
            },
            opened: table.time(row, "opened")?,
            not_after: table.time(row, "not_after")?,
        })
    })
}

fn resting(db: &Connection) -> Result<Vec<RestingRow>, StoreError> {
    let table = Table(db, "resting");
    table.rows(
        "SELECT tunnel4, tunnel6, until FROM resting ORDER BY rowid",
        &[],
        |row| {
            Ok(RestingRow {
                tunnel4: table.maybe_parsed(row, "tunnel4")?,
                tunnel6: table.maybe_parsed(row, "tunnel6")?,
                until: table.time(row, "until")?,
            })
        },
    )
}

fn locks(db: &Connection) -> Result<Vec<LockRow>, StoreError> {
    let table = Table(db, "lock");
    table.rows("SELECT * FROM lock ORDER BY target", &[], |row| {
        let target: String = table.field(row, "target")?;
        Ok(LockRow {
            target: LockTarget::parse(&target).ok_or(table.broken("target"))?,
            until: table.maybe_time(row, "until")?,
            why: table.field(row, "why")?,
        })
    })
}

fn grants(db: &Connection) -> Result<Vec<GrantRow>, StoreError> {
    let table = Table(db, "jit_grant");
    table.rows("SELECT * FROM jit_grant ORDER BY id", &[], |row| {
        Ok(GrantRow {
            id: table.field(row, "id")?,
            person: table.name(row, "person")?,
            resource: table.name(row, "resource")?,
            until: table.time(row, "until")?,
            why: table.field(row, "why")?,
        })
    })
}

fn approvals(db: &Connection) -> Result<Vec<ApprovalRow>, StoreError> {
    let table = Table(db, "approval");
    table.rows("SELECT * FROM approval ORDER BY id", &[], |row| {
        Ok(ApprovalRow {
            id: table.field(row, "id")?,
            person: table.name(row, "person")?,
            resource: table.name(row, "resource")?,
            rule: table.name(row, "rule")?,
            by: table.name(row, "by")?,
            until: table.time(row, "until")?,
        })
    })
}

fn waiting(db: &Connection) -> Result<Vec<Waiting>, StoreError> {
    let table = Table(db, "waiting");
    table.rows("SELECT * FROM waiting ORDER BY id", &[], |row| {
        Ok(Waiting {
            id: table.field(row, "id")?,
            person: table.name(row, "person")?,
            resource: table.name(row, "resource")?,
            rule: table.name(row, "rule")?,
            since: table.time(row, "since")?,
        })
    })
}

fn habits(db: &Connection) -> Result<Vec<HabitRow>, StoreError> {
    let networks = Table(db, "habit_network");
    let hours = Table(db, "habit_hour");
    let mut all: BTreeMap<Name, HabitRow> = BTreeMap::new();
    let row_of = |person: Name| HabitRow {
        person,
        networks: BTreeMap::new(),
        hours: [0; 24],
    };
    for (person, network, last) in networks.rows("SELECT * FROM habit_network", &[], |row| {
        let network: String = networks.field(row, "network")?;
        Ok((
            networks.name(row, "person")?,
            Network::parse(&network).ok_or(networks.broken("network"))?,
            networks.time(row, "last")?,
        ))
    })? {
        let row = all.entry(person.clone()).or_insert_with(|| row_of(person));
        row.networks.insert(network, last);
    }
    for (person, hour, knocks) in hours.rows("SELECT * FROM habit_hour", &[], |row| {
        let hour: usize = hours.field(row, "hour")?;
        Ok((
            hours.name(row, "person")?,
            hour,
            hours.field::<u32>(row, "knocks")?,
        ))
    })? {
        let row = all.entry(person.clone()).or_insert_with(|| row_of(person));
        *row.hours.get_mut(hour).ok_or(hours.broken("hour"))? = knocks;
    }
    Ok(all.into_values().collect())
}

fn learned(db: &Connection) -> Result<Vec<LearnedRow>, StoreError> {
    let table = Table(db, "learned");
    table.rows("SELECT * FROM learned", &[], |row| {
        let ports: String = table.field(row, "ports")?;
        Ok(LearnedRow {
            person: table.name(row, "person")?,
            resource: table.name(row, "resource")?,
            ports: PortRange::parse(&ports).ok_or(table.broken("ports"))?,
            first: table.time(row, "first")?,
            last: table.time(row, "last")?,
            knocks: table.field(row, "knocks")?,
            packets: table.field(row, "packets")?,
        })
    })
}

fn usual(db: &Connection) -> Result<Vec<UsualRow>, StoreError> {
    let table = Table(db, "usual");
    table.rows("SELECT * FROM usual", &[], |row| {
        Ok(UsualRow {
            person: table.name(row, "person")?,
            resource: table.name(row, "resource")?,
            day: table.field(row, "day")?,
            today: Amount {
                bytes: table.field(row, "bytes")?,
                connections: table.field(row, "connections")?,
            },
            most: Amount {
                bytes: table.field(row, "most_bytes")?,
                connections: table.field(row, "most_connections")?,
            },
            days: table.field(row, "days")?,
        })
    })
}

fn facts(db: &Connection) -> Result<Vec<FactsRow>, StoreError> {
    let table = Table(db, "facts");
    table.rows("SELECT * FROM facts", &[], |row| {
        let facts: String = table.field(row, "facts")?;
        Ok(FactsRow {
            credential: CredentialId::from_bytes(table.field(row, "credential")?),
            facts: Facts::parse(&facts),
        })
    })
}

/// A table that is being read, for errors that name it.
#[derive(Clone, Copy)]
struct Table<'a>(&'a Connection, &'static str);

impl Table<'_> {
    fn rows<T>(
        self,
        statement: &str,
        values: &[&dyn rusqlite::ToSql],
        mut read: impl FnMut(&Row<'_>) -> Result<T, StoreError>,
    ) -> Result<Vec<T>, StoreError> {
        let failed = |source| StoreError::Sql {
            action: "read",
            source,
        };
        let mut prepared = self.0.prepare(statement).map_err(failed)?;
        let mut rows = prepared.query(values).map_err(failed)?;
        let mut all = Vec::new();
        while let Some(row) = rows.next().map_err(failed)? {
            all.push(read(row)?);
        }
        Ok(all)
    }

    fn broken(self, column: &'static str) -> StoreError {
        StoreError::Row {
            table: self.1,
            column,
        }
    }

    fn field<T: rusqlite::types::FromSql>(
        self,
        row: &Row<'_>,
        column: &'static str,
    ) -> Result<T, StoreError> {
        row.get(column).map_err(|_| self.broken(column))
    }

    fn time(self, row: &Row<'_>, column: &'static str) -> Result<WallTime, StoreError> {
        self.field(row, column).map(WallTime::from_millis)
    }

    fn maybe_time(
        self,
        row: &Row<'_>,
        column: &'static str,
    ) -> Result<Option<WallTime>, StoreError> {
        let millis: Option<u64> = self.field(row, column)?;
        Ok(millis.map(WallTime::from_millis))
    }

    fn name(self, row: &Row<'_>, column: &'static str) -> Result<Name, StoreError> {
        let text: String = self.field(row, column)?;
        Name::parse(&text).map_err(|_| self.broken(column))
    }

    fn standing(self, row: &Row<'_>) -> Result<Standing, StoreError> {
        let all = [Standing::Enabled, Standing::Disabled];
        self.one_of(row, "standing", &all, standing_text)
    }

    fn one_of<T: Copy>(
        self,
        row: &Row<'_>,
        column: &'static str,
        all: &[T],
        text: impl Fn(T) -> &'static str,
    ) -> Result<T, StoreError> {
        let found: String = self.field(row, column)?;
        let known = all.iter().find(|one| text(**one) == found);
        known.copied().ok_or(self.broken(column))
    }

    fn maybe_parsed<T: std::str::FromStr>(
        self,
        row: &Row<'_>,
        column: &'static str,
    ) -> Result<Option<T>, StoreError> {
        let text: Option<String> = self.field(row, column)?;
        text.map(|text| text.parse().map_err(|_| self.broken(column)))
            .transpose()
    }
}
