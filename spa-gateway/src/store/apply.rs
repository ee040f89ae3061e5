//! What each change of the core does to the tables.
//!
//! `spa_gateway_core::Snapshot::apply` is the model; a test holds both side by side.

use rusqlite::{Connection, params};
use spa_gateway_core::{
    Change, CredentialRow, KeyKind, KnockKeyRow, Name, PersonKind, PersonRow, RestingRow,
    SessionRow, Standing,
};
use spa_proto::{CredentialId, CredentialKey, SessionId, SessionKey, WallTime};

use super::StoreError;
use super::seal::{Place, Seal};

/// Applies one change. The caller's transaction makes it one with its record.
pub(super) fn apply(db: &Connection, seal: &Seal, change: &Change) -> Result<(), StoreError> {
    match change {
        Change::Answered { credential, ts } => run(
            db,
            "UPDATE credential SET last_ts = ?2 WHERE id = ?1",
            params![credential.as_bytes(), time(*ts)],
        ),
        Change::CodeUsed { person, step } => run(
            db,
            "UPDATE person SET last_step = ?2, totp_proven = 1 WHERE name = ?1",
            params![person.as_str(), int(*step)],
        ),
        Change::RecoveryUsed { person, hash } => run(
            db,
            "DELETE FROM recovery WHERE person = ?1 AND hash = ?2",
            params![person.as_str(), hash],
        ),
        Change::FailuresCounted {
            credential,
            in_a_row,
        } => run(
            db,
            "UPDATE credential SET failures = ?2 WHERE id = ?1",
            params![credential.as_bytes(), in_a_row],
        ),
        Change::CredentialStanding {
            credential,
            standing,
        } => run(
            db,
            // Whoever is enabled begins anew (SPEC §8 step 9).
            "UPDATE credential SET standing = ?2, failures = iif(?2 = 'enabled', 0, failures) WHERE id = ?1",
            params![credential.as_bytes(), standing_text(*standing)],
        ),
        Change::SessionOpened(row) => insert_session(db, seal, row),
        Change::SessionRekeyed { session, key } => run(
            db,
            "UPDATE session SET key = ?2 WHERE id = ?1",
            params![session.as_bytes(), seal_session(seal, *session, key)?],
        ),
        Change::SessionReduced {
            session,
            resources,
            not_after,
        } => run(
            db,
            "UPDATE session SET resources = ?2, not_after = ?3 WHERE id = ?1",
            params![session.as_bytes(), names_text(resources), time(*not_after)],
        ),
        Change::SessionRenewed { session, not_after } => run(
            db,
            "UPDATE session SET not_after = ?2 WHERE id = ?1",
            params![session.as_bytes(), time(*not_after)],
        ),
        Change::SessionEnded { session, resting } => {
            run(
                db,
                "DELETE FROM session WHERE id = ?1",
                params![session.as_bytes()],
            )?;
            insert_resting(db, resting)
        }
        Change::InviteMade(row) => insert_credential(db, seal, row),
        Change::CandidateAdded {
            credential,
            number,
            key,
            proof,
            label,
            enrolled,
        } => {
            run(
                db,
                "UPDATE credential SET proof = ?2, label = ?3, enrolled = ?4 WHERE id = ?1",
                params![
                    credential.as_bytes(),
                    proof.as_bytes(),
                    label,
                    time(*enrolled)
                ],
            )?;
            insert_key(db, seal, *credential, *number, KeyKind::Candidate, key)
        }
        Change::CredentialActivated { credential, number } => {
            run(
                db,
                "DELETE FROM credential_key WHERE credential = ?1 AND number <> ?2",
                params![credential.as_bytes(), number],
            )?;
            run(
                db,
                "UPDATE credential_key SET kind = ?3 WHERE credential = ?1 AND number = ?2",
                params![credential.as_bytes(), number, key_kind_text(KeyKind::Live)],
            )?;
            run(
                db,
                "UPDATE credential SET invite_until = NULL WHERE id = ?1",
                params![credential.as_bytes()],
            )
        }
        Change::ProofReplaced { credential, proof } => run(
            db,
            "UPDATE credential SET proof = ?2 WHERE id = ?1",
            params![credential.as_bytes(), proof.as_bytes()],
        ),
        Change::CredentialConfirmed { credential } => run(
            db,
            "UPDATE credential SET confirmed = 1 WHERE id = ?1",
            params![credential.as_bytes()],
        ),
        Change::CredentialErased { credential } => erase_credential(db, *credential),
        Change::Resynced {
            credential,
            last_ts,
            person,
            last_step,
        } => {
            run(
                db,
                "UPDATE credential SET last_ts = ?2 WHERE id = ?1",
                params![credential.as_bytes(), time(*last_ts)],
            )?;
            run(
                db,
                "UPDATE person SET last_step = ?2 WHERE name = ?1",
                params![person.as_str(), int(*last_step)],
            )
        }
        Change::PersonAdded(row) => insert_person(db, seal, row),
        Change::PersonStanding { person, standing } => run(
            db,
            "UPDATE person SET standing = ?2 WHERE name = ?1",
            params![person.as_str(), standing_text(*standing)],
        ),
        Change::PersonErased { person } => erase_person(db, person),
        Change::TotpReplaced {
            person,
            secret,
            digits,
        } => run(
            db,
            "UPDATE person SET totp = ?2, totp_digits = ?3, totp_period = 30, totp_proven = 0 WHERE name = ?1",
            params![
                person.as_str(),
                seal.seal(totp_place(person), secret.expose())?,
                digits
            ],
        ),
        Change::RecoveryReplaced { person, hashes } => {
            run(
                db,
                "DELETE FROM recovery WHERE person = ?1",
                params![person.as_str()],
            )?;
            insert_recovery(db, person, hashes)
        }
        Change::Locked(row) => run(
            db,
            "INSERT OR REPLACE INTO lock (target, until, why) VALUES (?1, ?2, ?3)",
            params![row.target.to_string(), row.until.map(time), row.why],
        ),
        Change::Unlocked { target } => run(
            db,
            "DELETE FROM lock WHERE target = ?1",
            params![target.to_string()],
        ),
        Change::Granted(row) => run(
            db,
            "INSERT OR REPLACE INTO jit_grant (id, person, resource, until, why) VALUES (?1, ?2, ?3, ?4, ?5)",
            params![
                row.id,
                row.person.as_str(),
                row.resource.as_str(),
                time(row.until),
                row.why
            ],
        ),
        Change::ApprovalAsked(row) => run(
            db,
            "INSERT OR REPLACE INTO waiting (id, person, resource, rule, since) VALUES (?1, ?2, ?3, ?4, ?5)",
            params![
                row.id,
                row.person.as_str(),
                row.resource.as_str(),
                row.rule.as_str(),
                time(row.since)
            ],
        ),
        Change::Approved(row) => {
            run(db, "DELETE FROM waiting WHERE id = ?1", params![row.id])?;
            run(
                db,
                "INSERT OR REPLACE INTO approval (id, person, resource, rule, by, until) VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
                params![
                    row.id,
                    row.person.as_str(),
                    row.resource.as_str(),
                    row.rule.as_str(),
                    row.by.as_str(),
                    time(row.until)
                ],
            )
        }
        Change::ExceptionEnded { id } => {
            run(db, "DELETE FROM jit_grant WHERE id = ?1", params![id])?;
            run(db, "DELETE FROM approval WHERE id = ?1", params![id])?;
            run(db, "DELETE FROM waiting WHERE id = ?1", params![id])
        }
        Change::HabitSeen {
            person,
            network,
            hour,
            at,
            forgotten,
        } => {
            run(
                db,
                "INSERT OR REPLACE INTO habit_network (person, network, last) VALUES (?1, ?2, ?3)",
                params![person.as_str(), network.to_string(), time(*at)],
            )?;
            if let Some(forgotten) = forgotten {
                run(
                    db,
                    "DELETE FROM habit_network WHERE person = ?1 AND network = ?2",
                    params![person.as_str(), forgotten.to_string()],
                )?;
            }
            run(
                db,
                "INSERT INTO habit_hour (person, hour, knocks) VALUES (?1, ?2, 1)
                 ON CONFLICT DO UPDATE SET knocks = min(knocks + 1, 4294967295)",
                params![person.as_str(), hour],
            )
        }
        Change::Learned(row) => run(
            db,
            "INSERT OR REPLACE INTO learned (person, resource, ports, first, last, knocks, packets)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)",
            params![
                row.person.as_str(),
                row.resource.as_str(),
                row.ports.to_string(),
                time(row.first),
                time(row.last),
                row.knocks,
                int(row.packets)
            ],
        ),
        Change::LearnedForgotten {
            person,
            resource,
            ports,
        } => run(
            db,
            "DELETE FROM learned WHERE person = ?1 AND resource = ?2 AND ports = ?3",
            params![person.as_str(), resource.as_str(), ports.to_string()],
        ),
        Change::Used(row) => run(
            db,
            "INSERT OR REPLACE INTO usual (person, resource, day, bytes, connections, most_bytes,
             most_connections, days) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)",
            params![
                row.person.as_str(),
                row.resource.as_str(),
                int(row.day),
                int(row.today.bytes),
                int(row.today.connections),
                int(row.most.bytes),
                int(row.most.connections),
                row.days
            ],
        ),
        Change::UseForgotten { person, resource } => run(
            db,
            "DELETE FROM usual WHERE person = ?1 AND resource = ?2",
            params![person.as_str(), resource.as_str()],
        ),
        Change::FactsKept(row) => run(
            db,
            "INSERT OR REPLACE INTO facts (credential, facts) VALUES (?1, ?2)",
            params![row.credential.as_bytes(), row.facts.to_string()],
        ),
        Change::FactsForgotten { credential } => run(
            db,
            "DELETE FROM facts WHERE credential = ?1",
            params![credential.as_bytes()],
        ),
        Change::SessionMoved {
            session,
            source,
            signals,
        } => run(
            db,
            "UPDATE session SET source = ?2, signals = ?3 WHERE id = ?1",
            params![
                session.as_bytes(),
                source.to_string(),
                signals.map(|signals| signals.to_string())
            ],
        ),
        Change::KnockKeyMade(row) => insert_knock_key(db, seal, row),
        Change::KnockKeyErased { kid } => {
            run(db, "DELETE FROM knock_key WHERE kid = ?1", params![kid])
        }
        Change::FloorSet { floor } => super::set_meta(db, super::FLOOR, &int(floor.as_millis())),
    }
}

pub(super) fn insert_knock_key(
    db: &Connection,
    seal: &Seal,
    row: &KnockKeyRow,
) -> Result<(), StoreError> {
    run(
        db,
        "INSERT OR REPLACE INTO knock_key (kid, secret, made, not_after) VALUES (?1, ?2, ?3, ?4)",
        params![
            row.kid,
            seal.seal(knock_place(&[row.kid]), row.secret.expose())?,
            time(row.made),
            row.not_after.map(time)
        ],
    )
}

fn insert_person(db: &Connection, seal: &Seal, row: &PersonRow) -> Result<(), StoreError> {
    let totp = row
        .totp
        .as_ref()
        .map(|totp| seal.seal(totp_place(&row.name), totp.secret.expose()))
        .transpose()?;
    run(
        db,
        "INSERT OR REPLACE INTO person
         (name, kind, standing, totp, totp_digits, totp_period, totp_proven, last_step)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)",
        params![
            row.name.as_str(),
            person_kind_text(row.kind),
            standing_text(row.standing),
            totp,
            row.totp.as_ref().map(|totp| totp.digits),
            row.totp.as_ref().map(|totp| totp.period),
            row.totp.as_ref().is_some_and(|totp| totp.proven),
            int(row.last_step)
        ],
    )?;
    insert_recovery(db, &row.name, &row.recovery)
}

fn insert_recovery(db: &Connection, person: &Name, hashes: &[[u8; 32]]) -> Result<(), StoreError> {
    hashes.iter().try_for_each(|hash| {
        run(
            db,
            "INSERT OR IGNORE INTO recovery (person, hash) VALUES (?1, ?2)",
            params![person.as_str(), hash],
        )
    })
}

fn insert_credential(db: &Connection, seal: &Seal, row: &CredentialRow) -> Result<(), StoreError> {
    run(
        db,
        "INSERT OR REPLACE INTO credential
         (id, person, label, proof, standing, expires, confirmed, enrolled, invite_until, last_ts, failures)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11)",
        params![
            row.id.as_bytes(),
            row.person.as_str(),
            row.label,
            row.proof.as_ref().map(|proof| *proof.as_bytes()),
            standing_text(row.standing),
            row.expires.map(time),
            row.confirmed,
            row.enrolled.map(time),
            row.invite_until.map(time),
            time(row.last_ts),
            row.failures
        ],
    )?;
    row.keys
        .iter()
        .try_for_each(|key| insert_key(db, seal, row.id, key.number, key.kind, &key.key))
}

fn insert_key(
    db: &Connection,
    seal: &Seal,
    credential: CredentialId,
    number: u8,
    kind: KeyKind,
    key: &CredentialKey,
) -> Result<(), StoreError> {
    let row = key_row(credential, number);
    run(
        db,
        "INSERT OR REPLACE INTO credential_key (credential, number, kind, key) VALUES (?1, ?2, ?3, ?4)",
        params![
            credential.as_bytes(),
            number,
            key_kind_text(kind),
            seal.seal(key_place(&row), key.expose())?
        ],
    )
}

fn insert_session(db: &Connection, seal: &Seal, row: &SessionRow) -> Result<(), StoreError> {
    run(
        db,
        "INSERT OR REPLACE INTO session
         (id, credential, key, wg_key, tunnel4, tunnel6, resources, source, opened, not_after, signals)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11)",
        params![
            row.id.as_bytes(),
            row.credential.as_bytes(),
            seal_session(seal, row.id, &row.key)?,
            row.wg_key,
            row.tunnel4.map(|address| address.to_string()),
            row.tunnel6.map(|address| address.to_string()),
            names_text(&row.resources),
            row.source.to_string(),
            time(row.opened),
            time(row.not_after),
            row.signals.map(|signals| signals.to_string())
        ],
    )
}

/// The pool has room for 65,534 rows, and every session that ends asks for one.
pub(super) const FORGET_PAIR: &str = "DELETE FROM resting WHERE tunnel4 IS ?1 AND tunnel6 IS ?2";

fn insert_resting(db: &Connection, row: &RestingRow) -> Result<(), StoreError> {
    let tunnel4 = row.tunnel4.map(|address| address.to_string());
    let tunnel6 = row.tunnel6.map(|address| address.to_string());
    run(db, FORGET_PAIR, params![tunnel4, tunnel6])?;
    run(
        db,
        "INSERT INTO resting (tunnel4, tunnel6, until) VALUES (?1, ?2, ?3)",
        params![tunnel4, tunnel6, time(row.until)],
    )
}

fn erase_credential(db: &Connection, credential: CredentialId) -> Result<(), StoreError> {
    let id = credential.as_bytes();
    run(
        db,
        "DELETE FROM credential_key WHERE credential = ?1",
        params![id],
    )?;
    run(db, "DELETE FROM facts WHERE credential = ?1", params![id])?;
    run(db, "DELETE FROM credential WHERE id = ?1", params![id])
}

fn erase_person(db: &Connection, person: &Name) -> Result<(), StoreError> {
    let name = person.as_str();
    run(
        db,
        "DELETE FROM facts WHERE credential IN (SELECT id FROM credential WHERE person = ?1)",
        params![name],
    )?;
    run(
        db,
        "DELETE FROM credential_key WHERE credential IN (SELECT id FROM credential WHERE person = ?1)",
        params![name],
    )?;
    run(
        db,
        "DELETE FROM credential WHERE person = ?1",
        params![name],
    )?;
    for statement in [
        "DELETE FROM recovery WHERE person = ?1",
        "DELETE FROM jit_grant WHERE person = ?1",
        "DELETE FROM approval WHERE person = ?1",
        "DELETE FROM waiting WHERE person = ?1",
        "DELETE FROM habit_network WHERE person = ?1",
        "DELETE FROM habit_hour WHERE person = ?1",
        "DELETE FROM learned WHERE person = ?1",
        "DELETE FROM usual WHERE person = ?1",
    ] {
        run(db, statement, params![name])?;
    }
    run(db, "DELETE FROM person WHERE name = ?1", params![name])
}

pub(super) fn run(
    db: &Connection,
    statement: &'static str,
    values: impl rusqlite::Params,
) -> Result<(), StoreError> {
    db.prepare_cached(statement)
        .and_then(|mut prepared| prepared.execute(values))
        .map(|_| ())
        .map_err(|source| StoreError::Sql {
            action: "change",
            source,
        })
}

fn seal_session(seal: &Seal, session: SessionId, key: &SessionKey) -> Result<Vec<u8>, StoreError> {
    seal.seal(session_place(session.as_bytes()), key.expose())
}

/// Where the key of a session belongs.
pub(super) fn session_place(row: &[u8]) -> Place<'_> {
    Place {
        table: "session",
        column: "key",
        row,
    }
}

/// Where the secret of a phone belongs.
pub(super) fn totp_place(person: &Name) -> Place<'_> {
    Place {
        table: "person",
        column: "totp",
        row: person.as_str().as_bytes(),
    }
}

/// Where a knock key belongs; its row is the kid.
pub(super) fn knock_place(kid: &[u8; 1]) -> Place<'_> {
    Place {
        table: "knock_key",
        column: "secret",
        row: kid,
    }
}

/// Where a key of a credential belongs; see [`key_row`].
pub(super) fn key_place(row: &[u8; 17]) -> Place<'_> {
    Place {
        table: "credential_key",
        column: "key",
        row,
    }
}

/// The row of a key: its credential and number.
pub(super) fn key_row(credential: CredentialId, number: u8) -> [u8; 17] {
    let mut row = [number; 17];
    row[..16].copy_from_slice(credential.as_bytes());
    row
}

pub(super) const fn standing_text(standing: Standing) -> &'static str {
    match standing {
        Standing::Enabled => "enabled",
        Standing::Disabled => "disabled",
    }
}

pub(super) const fn person_kind_text(kind: PersonKind) -> &'static str {
    match kind {
        PersonKind::Human => "human",
        PersonKind::Machine => "machine",
    }
}

pub(super) const fn key_kind_text(kind: KeyKind) -> &'static str {
    match kind {
        KeyKind::Invite => "invite",
        KeyKind::Candidate => "candidate",
        KeyKind::Live => "live",
    }
}

fn names_text(names: &[Name]) -> String {
    names.iter().map(Name::as_str).collect::<Vec<_>>().join(" ")
}

/// SQLite has signed integers; no time or step of ours reaches their end.
pub(super) fn int(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}

fn time(time: WallTime) -> i64 {
    int(time.as_millis())
}
