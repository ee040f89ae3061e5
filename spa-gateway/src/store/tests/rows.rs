//! Each change goes to the tables and comes back.

use super::*;

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
    let snapshot = after(vec![Change::FloorSet { floor: at(7_777) }]);
    assert_eq!(snapshot.floor, at(7_777));
}

#[test]
fn a_pair_of_addresses_is_found_without_going_through_all() {
    let db = rusqlite::Connection::open_in_memory().expect("opened");
    db.execute_batch(super::super::SCHEMA).expect("made");
    let plan = format!("EXPLAIN QUERY PLAN {}", super::super::apply::FORGET_PAIR);
    let plan: String = db
        .query_row(&plan, ["", ""], |row| row.get("detail"))
        .expect("a plan");
    assert!(plan.contains("USING INDEX resting_pair"), "{plan}");
}
