//! A second copy of a store: what a gateway that starts again is given. Secrets are not `Clone` anywhere, so each row is
//! copied by hand.

use spa_gateway_core::{
    CredentialRow, KeyRow, KnockKeyRow, PersonRow, SessionRow, Snapshot, TotpRow,
};
use spa_proto::KnockSecret;

pub(crate) fn copy_of(store: &Snapshot) -> Snapshot {
    Snapshot {
        knock_keys: store.knock_keys.iter().map(knock_key).collect(),
        persons: store.persons.iter().map(person).collect(),
        credentials: store.credentials.iter().map(credential).collect(),
        sessions: store.sessions.iter().map(session).collect(),
        resting: store.resting.clone(),
        locks: store.locks.clone(),
        grants: store.grants.clone(),
        approvals: store.approvals.clone(),
        usual: store.usual.clone(),
        facts: store.facts.clone(),
        ..Snapshot {
            floor: store.floor,
            ..Snapshot::default()
        }
    }
}

fn knock_key(row: &KnockKeyRow) -> KnockKeyRow {
    KnockKeyRow {
        secret: KnockSecret::from_bytes(*row.secret.expose()),
        ..*row
    }
}

fn person(row: &PersonRow) -> PersonRow {
    PersonRow {
        name: row.name.clone(),
        totp: row.totp.as_ref().map(|totp| TotpRow {
            secret: totp.secret.duplicate(),
            ..*totp
        }),
        recovery: row.recovery.clone(),
        ..*row
    }
}

fn credential(row: &CredentialRow) -> CredentialRow {
    let key = |key: &KeyRow| KeyRow {
        key: key.key.duplicate(),
        ..*key
    };
    CredentialRow {
        person: row.person.clone(),
        label: row.label.clone(),
        keys: row.keys.iter().map(key).collect(),
        ..*row
    }
}

fn session(row: &SessionRow) -> SessionRow {
    SessionRow {
        key: row.key.duplicate(),
        resources: row.resources.clone(),
        ..*row
    }
}
