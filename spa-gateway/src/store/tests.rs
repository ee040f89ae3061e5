mod files;
mod lines;
mod rows;
mod versions;

use std::net::Ipv4Addr;

use spa_gateway_core::policy::{HourSeen, NetworkSeen, Signals};
use spa_gateway_core::{
    Change, CredentialRow, KeyKind, KeyRow, Name, PersonKind, PersonRow, RestingRow, SessionRow,
    Standing, TotpRow,
};
use spa_proto::{CredentialId, CredentialKey, ProofPublic, SessionId, SessionKey, TotpSecret};

use super::*;

const IDENTITY: [u8; 32] = [0xB0; 32];
const WIREGUARD_KEY: [u8; 32] = [0x77; 32];
const CREDENTIAL: CredentialId = CredentialId::from_bytes([0xC1; 16]);
const SESSION: SessionId = SessionId::from_bytes([0x5E; 8]);

/// Bytes that must never be seen in a file.
const SECRETS: [[u8; 32]; 6] = [
    IDENTITY,
    WIREGUARD_KEY,
    [0xA1; 32],
    [0xA2; 32],
    [0xA3; 32],
    [0xA4; 32],
];

struct Place {
    _dir: tempfile::TempDir,
    paths: Paths,
}

fn place() -> Place {
    let dir = tempfile::tempdir().expect("a directory");
    let paths = Paths {
        policy: dir.path().join("policy.toml"),
        state: dir.path().to_owned(),
        runtime: dir.path().to_owned(),
    };
    let founding = Founding {
        identity: KnockSecret::from_bytes(IDENTITY),
        wireguard: Zeroizing::new(WIREGUARD_KEY),
        made: WallTime::from_millis(1_000),
    };
    Store::create(&paths, &founding).expect("made");
    Place { _dir: dir, paths }
}

fn name(text: &str) -> Name {
    Name::parse(text).expect("a name")
}

fn at(millis: u64) -> WallTime {
    WallTime::from_millis(millis)
}

fn person(who: &str) -> Change {
    Change::PersonAdded(PersonRow {
        name: name(who),
        kind: PersonKind::Human,
        standing: Standing::Enabled,
        totp: Some(TotpRow {
            secret: TotpSecret::from_bytes(&[0xA1; 32]).expect("32 bytes"),
            digits: 6,
            period: 30,
            proven: false,
        }),
        last_step: 0,
        recovery: vec![[1; 32], [2; 32]],
    })
}

fn invite() -> Change {
    Change::InviteMade(CredentialRow {
        id: CREDENTIAL,
        person: name("ana"),
        label: String::new(),
        proof: None,
        keys: vec![KeyRow {
            number: 0,
            kind: KeyKind::Invite,
            key: CredentialKey::from_bytes([0xA2; 32]),
        }],
        standing: Standing::Enabled,
        expires: Some(at(9_000_000)),
        confirmed: false,
        enrolled: None,
        invite_until: Some(at(5_000)),
        last_ts: at(0),
        failures: 0,
    })
}

fn candidate(number: u8) -> Change {
    Change::CandidateAdded {
        credential: CREDENTIAL,
        number,
        key: CredentialKey::from_bytes([0xA3; 32]),
        proof: ProofPublic::from_bytes([9; 32]),
        label: "laptop".to_owned(),
        enrolled: at(2_000),
    }
}

fn session() -> Change {
    Change::SessionOpened(SessionRow {
        id: SESSION,
        credential: CREDENTIAL,
        key: SessionKey::from_bytes([0xA4; 32]),
        wg_key: [3; 32],
        tunnel4: Some(Ipv4Addr::new(10, 200, 0, 2)),
        tunnel6: "fd5a:1::2".parse().ok(),
        resources: vec![name("wiki"), name("db")],
        source: "[2001:db8::1]:40000".parse().expect("address"),
        signals: Some(Signals {
            network: NetworkSeen::Known(at(6)),
            hour: HourSeen::Unusual,
            failures: 2,
        }),
        opened: at(3_000),
        not_after: at(4_000),
    })
}

fn resting() -> RestingRow {
    RestingRow {
        tunnel4: Some(Ipv4Addr::new(10, 200, 0, 2)),
        tunnel6: None,
        until: at(604_000),
    }
}

fn commit(store: &mut Store, changes: Vec<Change>) {
    store.commit(&[Record { changes }]).expect("committed");
}

/// Commits, closes, opens and loads.
fn after(changes: Vec<Change>) -> Snapshot {
    let place = place();
    let mut store = Store::open(&place.paths).expect("open");
    commit(&mut store, changes);
    drop(store);
    let store = Store::open(&place.paths).expect("open again");
    assert_eq!(store.freshness(), Freshness::Current);
    store.load().expect("loads")
}
