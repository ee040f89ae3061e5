use std::net::Ipv4Addr;

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

#[test]
fn a_new_store_holds_the_identity_and_nobody() {
    let snapshot = after(vec![]);
    assert_eq!(snapshot.knock_keys.len(), 1);
    assert_eq!(snapshot.knock_keys[0].kid, 0);
    assert_eq!(*snapshot.knock_keys[0].secret.expose(), IDENTITY);
    assert_eq!(snapshot.floor, at(1_000));
    assert!(snapshot.persons.is_empty() && snapshot.credentials.is_empty());
}

#[test]
fn no_secret_is_in_the_files() {
    let place = place();
    let mut store = Store::open(&place.paths).expect("open");
    commit(
        &mut store,
        vec![person("ana"), invite(), candidate(1), session()],
    );
    let mut bytes = Vec::new();
    for file in ["store.db", "store.db-wal", "generation"] {
        bytes.extend(std::fs::read(place.paths.state.join(file)).expect("read"));
    }
    assert!(
        bytes.windows(6).any(|part| part == b"laptop"),
        "the files are the right ones"
    );
    for secret in SECRETS {
        assert!(
            !bytes.windows(16).any(|part| part == &secret[..16]),
            "{secret:x?}"
        );
    }
}

#[test]
fn erased_keys_leave_the_files() {
    let place = place();
    let mut store = Store::open(&place.paths).expect("open");
    commit(&mut store, vec![person("ana"), invite()]);
    let sealed: Vec<u8> = store
        .db
        .query_row("SELECT key FROM credential_key", [], |row| row.get(0))
        .expect("a key");
    commit(
        &mut store,
        vec![Change::PersonErased {
            person: name("ana"),
        }],
    );
    drop(store);
    let bytes = std::fs::read(place.paths.store()).expect("read");
    assert!(!bytes.windows(sealed.len()).any(|part| part == sealed));
}

#[test]
fn a_person_goes_there_and_back() {
    let snapshot = after(vec![person("ana")]);
    let [ana] = &snapshot.persons[..] else {
        panic!("one person")
    };
    assert_eq!(ana.name, name("ana"));
    assert_eq!(ana.kind, PersonKind::Human);
    assert_eq!(ana.recovery, [[1; 32], [2; 32]]);
    let totp = ana.totp.as_ref().expect("a phone");
    assert_eq!(totp.secret.expose(), [0xA1; 32]);
    assert_eq!((totp.digits, totp.period, totp.proven), (6, 30, false));
}

#[test]
fn marks_of_a_person_are_kept() {
    let snapshot = after(vec![
        person("ana"),
        Change::CodeUsed {
            person: name("ana"),
            step: 59_000_000,
        },
        Change::RecoveryUsed {
            person: name("ana"),
            hash: [1; 32],
        },
        Change::PersonStanding {
            person: name("ana"),
            standing: Standing::Disabled,
        },
    ]);
    let ana = &snapshot.persons[0];
    assert_eq!(ana.last_step, 59_000_000);
    assert_eq!(ana.recovery, [[2; 32]]);
    assert_eq!(ana.standing, Standing::Disabled);
    assert!(ana.totp.as_ref().is_some_and(|totp| totp.proven));
}

#[test]
fn replaced_factors_are_the_new_ones() {
    let snapshot = after(vec![
        person("ana"),
        Change::CodeUsed {
            person: name("ana"),
            step: 5,
        },
        Change::TotpReplaced {
            person: name("ana"),
            secret: TotpSecret::from_bytes(&[0xAA; 20]).expect("20 bytes"),
            digits: 8,
        },
        Change::RecoveryReplaced {
            person: name("ana"),
            hashes: vec![[7; 32]],
        },
    ]);
    let ana = &snapshot.persons[0];
    let totp = ana.totp.as_ref().expect("a phone");
    assert_eq!(totp.secret.expose(), [0xAA; 20]);
    assert_eq!((totp.digits, totp.proven), (8, false));
    assert_eq!(ana.recovery, [[7; 32]]);
}

#[test]
fn an_invite_becomes_a_device() {
    let snapshot = after(vec![person("ana"), invite(), candidate(1), candidate(2)]);
    let credential = &snapshot.credentials[0];
    assert_eq!(credential.label, "laptop");
    assert_eq!(credential.proof, Some(ProofPublic::from_bytes([9; 32])));
    assert_eq!(credential.enrolled, Some(at(2_000)));
    let kinds: Vec<_> = credential
        .keys
        .iter()
        .map(|key| (key.number, key.kind))
        .collect();
    assert_eq!(
        kinds,
        [
            (0, KeyKind::Invite),
            (1, KeyKind::Candidate),
            (2, KeyKind::Candidate)
        ]
    );

    let snapshot = after(vec![
        person("ana"),
        invite(),
        candidate(1),
        candidate(2),
        Change::CredentialActivated {
            credential: CREDENTIAL,
            number: 2,
        },
        Change::CredentialConfirmed {
            credential: CREDENTIAL,
        },
    ]);
    let credential = &snapshot.credentials[0];
    let [key] = &credential.keys[..] else {
        panic!("one key is left")
    };
    assert_eq!((key.number, key.kind), (2, KeyKind::Live));
    assert_eq!(*key.key.expose(), [0xA3; 32]);
    assert_eq!(credential.invite_until, None);
    assert!(credential.confirmed);
}

#[test]
fn marks_of_a_credential_are_kept() {
    let snapshot = after(vec![
        person("ana"),
        invite(),
        Change::Answered {
            credential: CREDENTIAL,
            ts: at(1_795_633_445_123),
        },
        Change::FailuresCounted {
            credential: CREDENTIAL,
            in_a_row: 99,
        },
        Change::CredentialStanding {
            credential: CREDENTIAL,
            standing: Standing::Disabled,
        },
    ]);
    let credential = &snapshot.credentials[0];
    assert_eq!(credential.last_ts, at(1_795_633_445_123));
    assert_eq!(credential.failures, 99);
    assert_eq!(credential.standing, Standing::Disabled);
    assert_eq!(credential.expires, Some(at(9_000_000)));
}

#[test]
fn a_resync_brings_both_marks_back() {
    let snapshot = after(vec![
        person("ana"),
        invite(),
        Change::Resynced {
            credential: CREDENTIAL,
            last_ts: at(5),
            person: name("ana"),
            last_step: 6,
        },
    ]);
    assert_eq!(snapshot.credentials[0].last_ts, at(5));
    assert_eq!(snapshot.persons[0].last_step, 6);
}

#[test]
fn what_is_erased_is_gone_with_its_keys() {
    let snapshot = after(vec![
        person("ana"),
        invite(),
        Change::CredentialErased {
            credential: CREDENTIAL,
        },
    ]);
    assert!(snapshot.credentials.is_empty());
    let snapshot = after(vec![
        person("ana"),
        person("bo"),
        invite(),
        Change::PersonErased {
            person: name("ana"),
        },
    ]);
    assert_eq!(snapshot.persons.len(), 1);
    assert_eq!(
        snapshot.persons[0].recovery.len(),
        2,
        "the other's codes stay"
    );
    assert!(snapshot.credentials.is_empty());
}

#[test]
fn a_session_goes_there_and_back() {
    let snapshot = after(vec![person("ana"), invite(), session()]);
    let [found] = &snapshot.sessions[..] else {
        panic!("one session")
    };
    let Change::SessionOpened(expected) = session() else {
        unreachable!("made above")
    };
    assert_eq!(format!("{found:?}"), format!("{expected:?}"));
    assert_eq!(*found.key.expose(), [0xA4; 32]);
}

#[test]
fn a_session_is_rekeyed_reduced_and_ended() {
    let changes = || {
        vec![
            person("ana"),
            invite(),
            session(),
            Change::SessionRekeyed {
                session: SESSION,
                key: SessionKey::from_bytes([0xA5; 32]),
            },
            Change::SessionReduced {
                session: SESSION,
                resources: vec![],
                not_after: at(3_500),
            },
        ]
    };
    let snapshot = after(changes());
    let found = &snapshot.sessions[0];
    assert_eq!(*found.key.expose(), [0xA5; 32]);
    assert!(found.resources.is_empty());
    assert_eq!(found.not_after, at(3_500));

    let mut ended = changes();
    for _ in 0..2 {
        ended.push(Change::SessionEnded {
            session: SESSION,
            resting: resting(),
        });
    }
    let snapshot = after(ended);
    assert!(snapshot.sessions.is_empty());
    assert_eq!(snapshot.resting, [resting()], "one row for one address");
}

#[test]
fn knock_keys_come_and_go() {
    let key = |kid| {
        Change::KnockKeyMade(KnockKeyRow {
            kid,
            secret: KnockSecret::from_bytes([kid; 32]),
            made: at(1),
            not_after: Some(at(2)),
        })
    };
    let snapshot = after(vec![key(1), key(2), Change::KnockKeyErased { kid: 1 }]);
    let kids: Vec<u8> = snapshot.knock_keys.iter().map(|key| key.kid).collect();
    assert_eq!(kids, [0, 2]);
    assert_eq!(*snapshot.knock_keys[1].secret.expose(), [2; 32]);
    assert_eq!(snapshot.knock_keys[1].not_after, Some(at(2)));
}

#[test]
fn the_floor_moves_up() {
    let snapshot = after(vec![Change::FloorRaised { floor: at(7_777) }]);
    assert_eq!(snapshot.floor, at(7_777));
}

#[test]
fn a_store_of_another_key_does_not_open() {
    let place = place();
    std::fs::write(place.paths.seal_key(), [1; 32]).expect("written");
    let refusal = Store::open(&place.paths).expect_err("refused").to_string();
    assert!(
        refusal.contains("K_seal") && !refusal.contains('\n'),
        "{refusal}"
    );
}

#[test]
fn files_open_to_others_are_refused() {
    use std::os::unix::fs::PermissionsExt;
    for file in ["K_seal", "store.db"] {
        let place = place();
        let file = place.paths.state.join(file);
        std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o644)).expect("chmod");
        let refusal = Store::open(&place.paths).expect_err("refused").to_string();
        assert!(
            refusal.contains("mode 0644") && refusal.contains("chmod 600"),
            "{refusal}"
        );
    }
}

#[test]
fn a_second_gateway_is_turned_away() {
    let place = place();
    let mut first = Store::open(&place.paths).expect("open");
    commit(&mut first, vec![]);
    let refusal = Store::open(&place.paths).expect_err("in use").to_string();
    assert!(refusal.contains("open in another process"), "{refusal}");
}

#[test]
fn a_restored_store_is_noticed_until_it_is_accepted() {
    let place = place();
    let backup = std::fs::read(place.paths.store()).expect("a copy");
    let mut store = Store::open(&place.paths).expect("open");
    commit(&mut store, vec![person("ana")]);
    drop(store);
    assert_eq!(
        Store::open(&place.paths).expect("open").freshness(),
        Freshness::Current
    );
    std::fs::write(place.paths.store(), &backup).expect("restored");
    let mut store = Store::open(&place.paths).expect("open");
    assert_eq!(store.freshness(), Freshness::Restored);
    store.accept_restored().expect("accepted");
    drop(store);
    assert_eq!(
        Store::open(&place.paths).expect("open").freshness(),
        Freshness::Current
    );
}

#[test]
fn a_store_without_its_generation_counts_as_restored() {
    let place = place();
    std::fs::remove_file(place.paths.generation()).expect("removed");
    let store = Store::open(&place.paths).expect("open");
    assert_eq!(store.freshness(), Freshness::Restored);
}

#[test]
fn nothing_is_made_over_what_is_there() {
    let place = place();
    let founding = Founding {
        identity: KnockSecret::from_bytes([1; 32]),
        wireguard: Zeroizing::new([1; 32]),
        made: at(1),
    };
    let before = std::fs::read(place.paths.seal_key()).expect("read");
    assert!(Store::create(&place.paths, &founding).is_err());
    assert_eq!(std::fs::read(place.paths.seal_key()).expect("read"), before);

    std::fs::remove_file(place.paths.seal_key()).expect("removed");
    assert!(Store::create(&place.paths, &founding).is_err());
    assert!(
        !place.paths.seal_key().exists(),
        "what was made is removed again"
    );
    assert!(place.paths.store().exists(), "what was there stays");
}

#[test]
fn records_share_one_commit_or_fail_together() {
    let place = place();
    let mut store = Store::open(&place.paths).expect("open");
    let record = |who: &str| Record {
        changes: vec![person(who)],
    };
    store
        .commit(&[record("ana"), record("bo")])
        .expect("committed");
    assert_eq!(store.load().expect("loads").persons.len(), 2);
    store.fill_the_disk();
    let many: Vec<Record> = (0..2_000).map(|at| record(&format!("u{at}"))).collect();
    assert!(store.commit(&many).is_err());
    assert_eq!(store.load().expect("loads").persons.len(), 2);
    store.commit(&[]).expect("a smaller record fits again");
}

fn line(user: &str, kind: &str) -> AuditLine {
    AuditLine {
        at: 1,
        kind: kind.to_owned(),
        user: Some(user.to_owned()),
        device: None,
        credential: None,
        session: None,
        source: None,
        resources: vec![],
        not_after: None,
        reason: None,
        note: None,
        took_ms: None,
    }
}

fn ask(store: &mut Store, query: &AuditQuery) -> Vec<u64> {
    let lines = store.audit(query).expect("read");
    lines.into_iter().map(|(id, _)| id).collect()
}

#[test]
fn audit_lines_are_found_by_user_denial_and_place() {
    let place = place();
    let mut store = Store::open(&place.paths).expect("open");
    for (user, kind) in [
        ("ana", "session-opened"),
        ("bo", "factor-failed"),
        ("ana", "factor-failed"),
    ] {
        store.append(line(user, kind));
    }
    let all = AuditQuery {
        limit: 10,
        ..AuditQuery::default()
    };
    assert_eq!(ask(&mut store, &all), [1, 2, 3]);
    assert!(!store.has_waiting());
    let ana = AuditQuery {
        user: Some("ana".to_owned()),
        ..all.clone()
    };
    assert_eq!(ask(&mut store, &ana), [1, 3]);
    let denied = AuditQuery {
        denied: true,
        ..all.clone()
    };
    assert_eq!(ask(&mut store, &denied), [2, 3]);
    let newest = AuditQuery {
        limit: 1,
        ..all.clone()
    };
    assert_eq!(ask(&mut store, &newest), [3]);
    let following = AuditQuery {
        after: Some(1),
        limit: 1,
        ..all
    };
    assert_eq!(ask(&mut store, &following), [2]);
}

#[test]
fn the_oldest_audit_lines_leave() {
    let place = place();
    let mut store = Store::open(&place.paths).expect("open");
    for _ in 0..20_100 {
        store.append(line("ana", "session-opened"));
    }
    store.write_waiting().expect("written");
    let kept: i64 = store
        .db
        .query_row("SELECT count(*) FROM audit", [], |row| row.get(0))
        .expect("count");
    assert_eq!(kept, 20_000);
}
