//! The store does with every change what `Snapshot::apply`, the core's model, does.

use std::fmt::Debug;
use std::net::Ipv4Addr;

use spa_gateway::config::Paths;
use spa_gateway::store::{Founding, Store};
use spa_gateway_core::policy::{Facts, HourSeen, Network, NetworkSeen, PortRange, Signals};
use spa_gateway_core::{
    Amount, ApprovalRow, Change, CredentialRow, FactsRow, GrantRow, KeyKind, KeyRow, KnockKeyRow,
    LearnedRow, LockRow, LockTarget, Name, PersonKind, PersonRow, Record, RestingRow, SessionRow,
    Snapshot, Standing, TotpRow, UsualRow, Waiting,
};
use spa_proto::{
    CredentialId, CredentialKey, KnockSecret, ProofPublic, SessionId, SessionKey, TotpSecret,
    WallTime,
};
use zeroize::Zeroizing;

const ONE: CredentialId = CredentialId::from_bytes([1; 16]);
const TWO: CredentialId = CredentialId::from_bytes([2; 16]);

fn name(text: &str) -> Name {
    Name::parse(text).expect("a name")
}

fn at(millis: u64) -> WallTime {
    WallTime::from_millis(millis)
}

fn person(who: &str, kind: PersonKind) -> Change {
    Change::PersonAdded(PersonRow {
        name: name(who),
        kind,
        standing: Standing::Enabled,
        totp: (kind == PersonKind::Human).then(|| TotpRow {
            secret: TotpSecret::from_bytes(&[4; 20]).expect("20 bytes"),
            digits: 6,
            period: 30,
            proven: false,
        }),
        last_step: 0,
        recovery: vec![],
    })
}

fn invite(id: CredentialId, who: &str) -> Change {
    Change::InviteMade(CredentialRow {
        id,
        person: name(who),
        label: String::new(),
        proof: None,
        keys: vec![KeyRow {
            number: 0,
            kind: KeyKind::Invite,
            key: CredentialKey::from_bytes([5; 32]),
        }],
        standing: Standing::Enabled,
        expires: None,
        confirmed: false,
        enrolled: None,
        invite_until: Some(at(99)),
        last_ts: at(0),
        failures: 0,
    })
}

fn candidate(id: CredentialId, number: u8) -> Change {
    Change::CandidateAdded {
        credential: id,
        number,
        key: CredentialKey::from_bytes([number; 32]),
        proof: ProofPublic::from_bytes([6; 32]),
        label: "laptop \"x\" 'y'; --".to_owned(),
        enrolled: at(7),
    }
}

fn session(id: u8, of: CredentialId) -> Change {
    Change::SessionOpened(SessionRow {
        id: SessionId::from_bytes([id; 8]),
        credential: of,
        key: SessionKey::from_bytes([id; 32]),
        wg_key: [id; 32],
        tunnel4: Some(Ipv4Addr::new(10, 200, 0, id)),
        tunnel6: None,
        resources: vec![name("wiki"), name("db-2.x")],
        source: "192.0.2.1:40000".parse().expect("an address"),
        signals: Some(Signals {
            network: NetworkSeen::Known(at(6)),
            hour: HourSeen::Unusual,
            failures: 2,
        }),
        opened: at(8),
        not_after: at(9),
    })
}

fn ended(id: u8) -> Change {
    Change::SessionEnded {
        session: SessionId::from_bytes([id; 8]),
        resting: RestingRow {
            tunnel4: Some(Ipv4Addr::new(10, 200, 0, id)),
            tunnel6: None,
            until: at(u64::from(id) * 100),
        },
    }
}

fn lock(target: &str, until: Option<u64>) -> Change {
    Change::Locked(LockRow {
        target: LockTarget::parse(target).expect("a target"),
        until: until.map(at),
        why: "a \"reason\"; 'really' --".to_owned(),
    })
}

fn unlock(target: &str) -> Change {
    Change::Unlocked {
        target: LockTarget::parse(target).expect("a target"),
    }
}

fn granted(id: u32) -> Change {
    Change::Granted(GrantRow {
        id,
        person: name("bo"),
        resource: name("db-2.x"),
        until: at(50),
        why: String::new(),
    })
}

fn approved(id: u32) -> Change {
    Change::Approved(ApprovalRow {
        id,
        person: name("bo"),
        resource: name("wiki"),
        rule: name("by-hand"),
        by: name("ana"),
        until: at(60),
    })
}

fn asked(id: u32, who: &str) -> Change {
    Change::ApprovalAsked(Waiting {
        id,
        person: name(who),
        resource: name("wiki"),
        rule: name("by-hand"),
        since: at(u64::from(id)),
    })
}

fn habit(who: &str, network: &str, hour: u8, forgotten: Option<&str>) -> Change {
    let network_of = |text: &str| Network::parse(text).expect("a network");
    Change::HabitSeen {
        person: name(who),
        network: network_of(network),
        hour,
        at: at(u64::from(hour)),
        forgotten: forgotten.map(network_of),
    }
}

fn learned(who: &str, ports: &str, knocks: u32) -> Change {
    Change::Learned(LearnedRow {
        person: name(who),
        resource: name("plc"),
        ports: PortRange::parse(ports).expect("ports"),
        first: at(1),
        last: at(2),
        knocks,
        packets: 9,
    })
}

fn used(who: &str, days: u32) -> Change {
    let amount = |bytes| Amount {
        bytes,
        connections: 3,
    };
    Change::Used(UsualRow {
        person: name(who),
        resource: name("plc"),
        day: 20_000,
        today: amount(5),
        most: amount(1 << 40),
        days,
    })
}

fn known(credential: CredentialId, text: &str) -> Change {
    let facts = Facts::parse(text);
    assert!(facts.newest().is_some(), "{text}");
    Change::FactsKept(FactsRow { credential, facts })
}

/// A story in which every kind of change happens. Changes cannot be copied, so it is told twice.
fn story() -> Vec<Change> {
    let standing = |standing| Change::CredentialStanding {
        credential: ONE,
        standing,
    };
    vec![
        person("ana", PersonKind::Human),
        person("bo", PersonKind::Human),
        person("robot", PersonKind::Machine),
        invite(ONE, "ana"),
        invite(TWO, "bo"),
        candidate(ONE, 1),
        candidate(ONE, 2),
        Change::CredentialActivated {
            credential: ONE,
            number: 2,
        },
        Change::CredentialConfirmed { credential: ONE },
        Change::CodeUsed {
            person: name("ana"),
            step: 10,
        },
        Change::Answered {
            credential: ONE,
            ts: at(1_000),
        },
        session(3, ONE),
        session(4, TWO),
        Change::SessionRekeyed {
            session: SessionId::from_bytes([3; 8]),
            key: SessionKey::from_bytes([8; 32]),
        },
        Change::SessionMoved {
            session: SessionId::from_bytes([3; 8]),
            source: "[2001:db8::7]:40000".parse().expect("an address"),
            signals: Signals::parse("new usual 3"),
        },
        Change::SessionReduced {
            session: SessionId::from_bytes([3; 8]),
            resources: vec![name("wiki")],
            not_after: at(5),
        },
        Change::SessionRenewed {
            session: SessionId::from_bytes([3; 8]),
            not_after: at(7),
        },
        Change::ProofReplaced {
            credential: ONE,
            proof: ProofPublic::from_bytes([12; 32]),
        },
        Change::FailuresCounted {
            credential: ONE,
            in_a_row: 100,
        },
        standing(Standing::Disabled),
        standing(Standing::Enabled),
        Change::Resynced {
            credential: ONE,
            last_ts: at(9),
            person: name("ana"),
            last_step: 3,
        },
        Change::RecoveryReplaced {
            person: name("ana"),
            hashes: vec![[1; 32], [2; 32]],
        },
        Change::RecoveryUsed {
            person: name("ana"),
            hash: [1; 32],
        },
        Change::TotpReplaced {
            person: name("ana"),
            secret: TotpSecret::from_bytes(&[7; 20]).expect("20 bytes"),
            digits: 8,
        },
        Change::PersonStanding {
            person: name("bo"),
            standing: Standing::Disabled,
        },
        ended(3),
        Change::KnockKeyMade(KnockKeyRow {
            kid: 1,
            secret: KnockSecret::from_bytes([3; 32]),
            made: at(1),
            not_after: Some(at(2)),
        }),
        Change::KnockKeyMade(KnockKeyRow {
            kid: 2,
            secret: KnockSecret::from_bytes([4; 32]),
            made: at(1),
            not_after: Some(at(2)),
        }),
        Change::KnockKeyErased { kid: 1 },
        lock("all", None),
        lock("user:bo", Some(3)),
        lock("device:ana/laptop \"x\" 'y'; --", Some(4)),
        lock("source:2001:db8::/32", None),
        // A lock of the same target is replaced.
        lock("user:bo", Some(5)),
        unlock("all"),
        granted(1),
        approved(2),
        granted(u32::MAX),
        Change::ExceptionEnded { id: 1 },
        Change::ExceptionEnded { id: 2 },
        approved(3),
        asked(4, "bo"),
        asked(5, "ana"),
        asked(6, "bo"),
        approved(6),
        asked(7, "bo"),
        Change::ExceptionEnded { id: 7 },
        habit("bo", "203.0.113.0/24", 9, None),
        habit("bo", "2001:db8:1::/48", 9, Some("203.0.113.0/24")),
        habit("bo", "2001:db8:1::/48", 23, None),
        habit("ana", "198.51.100.0/24", 0, None),
        learned("bo", "502/tcp", 1),
        learned("bo", "8000-8100/udp", 1),
        learned("bo", "502/tcp", 2),
        learned("ana", "502/tcp", 1),
        Change::LearnedForgotten {
            person: name("bo"),
            resource: name("plc"),
            ports: PortRange::parse("8000-8100/udp").expect("ports"),
        },
        used("bo", 1),
        used("ana", 7),
        used("bo", 2),
        Change::UseForgotten {
            person: name("bo"),
            resource: name("plc"),
        },
        used("bo", 3),
        known(ONE, "firewall true self-reported 5"),
        known(TWO, "firewall false mdm 6"),
        known(ONE, "patch_age 12d attested 7"),
        Change::FactsForgotten { credential: ONE },
        known(ONE, "firewall true self-reported 8"),
        Change::FloorSet { floor: at(77_777) },
        // What is not there is not made by a change of it.
        Change::Answered {
            credential: CredentialId::from_bytes([9; 16]),
            ts: at(1),
        },
        ended(4),
        unlock("user:nobody"),
        Change::ExceptionEnded { id: 99 },
        Change::CredentialErased { credential: TWO },
        Change::PersonErased {
            person: name("ana"),
        },
    ]
}

/// Everything in an order of its own, keys in the clear: what differs, shows.
fn shown(snapshot: &Snapshot) -> Vec<String> {
    fn rows<T: Debug>(of: &[T]) -> impl Iterator<Item = String> {
        of.iter().map(|row| format!("{row:?}"))
    }
    let keys = snapshot.credentials.iter().flat_map(|credential| {
        let key = |key: &KeyRow| format!("{} {} {:?}", credential.id, key.number, key.key.expose());
        credential.keys.iter().map(key)
    });
    let mut all: Vec<String> = rows(&snapshot.knock_keys)
        .chain(rows(&snapshot.persons))
        .chain(rows(&snapshot.credentials))
        .chain(rows(&snapshot.sessions))
        .chain(rows(&snapshot.resting))
        .chain(rows(&snapshot.locks))
        .chain(rows(&snapshot.grants))
        .chain(rows(&snapshot.approvals))
        .chain(rows(&snapshot.waiting))
        .chain(rows(&snapshot.habits))
        .chain(rows(&snapshot.learned))
        .chain(rows(&snapshot.usual))
        .chain(rows(&snapshot.facts))
        .chain(keys)
        .chain(
            snapshot
                .knock_keys
                .iter()
                .map(|key| format!("{:?}", key.secret.expose())),
        )
        .chain(
            snapshot
                .sessions
                .iter()
                .map(|row| format!("{:?}", row.key.expose())),
        )
        .chain(
            snapshot
                .persons
                .iter()
                .filter_map(|row| Some(format!("{:?}", row.totp.as_ref()?.secret.expose()))),
        )
        .chain([format!("{:?}", snapshot.floor)])
        .collect();
    all.sort();
    all
}

#[test]
fn after_every_change_store_and_model_agree() {
    let dir = tempfile::tempdir().expect("a directory");
    let paths = Paths {
        policy: dir.path().join("policy.toml"),
        state: dir.path().to_owned(),
        runtime: dir.path().to_owned(),
    };
    let founding = Founding {
        identity: KnockSecret::from_bytes([1; 32]),
        wireguard: Zeroizing::new([2; 32]),
        made: at(1),
    };
    Store::create(&paths, &founding).expect("made");
    let mut store = Store::open(&paths).expect("open");
    let mut model = store.load().expect("loads");
    for (number, (to_store, to_model)) in story().into_iter().zip(story()).enumerate() {
        let what = format!("change {number}: {to_store:?}");
        store
            .commit(&[Record {
                changes: vec![to_store],
            }])
            .expect("committed");
        model.apply(to_model);
        assert_eq!(
            shown(&store.load().expect("loads")),
            shown(&model),
            "{what}"
        );
    }
}
