//! A knock and its reply from one machine to the other and back, for any request.

mod parties;

use std::net::IpAddr;
use std::time::Duration;

use parties::Parties;
use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;
use spa_proto::*;

fn request() -> impl Strategy<Value = Request> {
    (
        0..u64::MAX / 2,
        any::<bool>(),
        option::of(any::<IpAddr>()),
        ask(),
    )
        .prop_map(|(ts, same_port, source, ask)| {
            let source = source.map(|address| address.to_canonical());
            Request {
                ts: WallTime::from_millis(ts),
                same_port,
                source,
                ask,
            }
        })
}

fn ask() -> impl Strategy<Value = Ask> {
    let posture = || option::of(vec(any::<u8>(), 0..=224));
    let factor = prop_oneof![
        Just(None),
        (0..u32::MAX).prop_map(|code| Some(Ok(code))),
        any::<[u8; 16]>().prop_map(|code| Some(Err(code))),
    ]
    .prop_map(|factor| match factor {
        None => SecondFactor::None,
        Some(Ok(code)) => SecondFactor::Totp(code),
        Some(Err(code)) => SecondFactor::Recovery(RecoveryCode::from_bytes(code)),
    });
    let wanted = prop_oneof![
        vec(any::<[u8; 4]>().prop_map(ResourceId::from_bytes), 1..=16).prop_map(Wanted::Resources),
        Just(Wanted::All),
        Just(Wanted::ControlOnly),
    ];
    let session = || any::<[u8; 8]>().prop_map(SessionId::from_bytes);
    prop_oneof![
        (any::<u16>(), factor, wanted, any::<[u8; 32]>(), posture()).prop_map(
            |(minutes, factor, wanted, wg_key, posture)| {
                Ask::Open(OpenAsk {
                    minutes,
                    factor,
                    wanted,
                    wg_key,
                    posture,
                })
            }
        ),
        session().prop_map(Ask::Roam),
        session().prop_map(Ask::Close),
        (any::<[u8; 32]>(), "[a-z\u{e4}\u{20ac}]{1,10}", posture()).prop_map(
            |(q, label, posture)| {
                Ask::Enrol(EnrolAsk {
                    q: ProofPublic::from_bytes(q),
                    label,
                    posture,
                })
            }
        ),
    ]
}

fn answer(op: Op, now: WallTime) -> ReplyPayload {
    let outcome = match op {
        Op::Open | Op::Roam => Outcome::Session(Box::new(SessionReply {
            repeat: Repeat::First,
            door: DoorKind::Address,
            door_secs: 10,
            id: SessionId::from_bytes([1; 8]),
            not_after: now.saturating_add(Duration::from_secs(60)),
            wg_public: [2; 32],
            endpoint: None,
            tunnel4: None,
            tunnel6: Some("fd00::7".parse().expect("an address")),
            gateway_tunnel: Some("fd00::1".parse().expect("an address")),
            control_port: 8700,
            mtu: 1380,
            keepalive: 0,
            routes: vec![],
            dns: None,
            verdicts: vec![],
            reason: None,
        })),
        Op::Close => Outcome::Closed {
            repeat: Repeat::First,
            verdicts: vec![],
            reason: None,
        },
        Op::Enrol => Outcome::Enrolled(None),
    };
    let source = "192.0.2.7:4000".parse().expect("a socket address");
    ReplyPayload {
        gateway_time: now,
        source,
        prekey: None,
        outcome,
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn any_request_arrives_as_it_was_asked_and_its_reply_comes_back(
        request in request(), e: [u8; 32], e_s: [u8; 32], slot in 0..u64::MAX / 120_000,
    ) {
        let parties = Parties::new(7);
        let slot = Slot::from_minutes(slot);
        let mut transaction = Transaction::new(&request).expect("it fits");
        let packet = parties.knock(&mut transaction, slot, e);

        let opened = parties.open(&packet, slot).expect("it opens");
        prop_assert_eq!(opened.request(), Ok(request));
        let proved = match transaction.op() {
            Op::Open | Op::Enrol => opened.verify_proof(&parties.q.public()),
            Op::Roam | Op::Close => opened.verify_session_proof(&parties.k_sess),
        };
        prop_assert!(bool::from(proved));

        let now = WallTime::from_millis(slot.as_minutes() * 60_000);
        let said = answer(transaction.op(), now);
        let sealed = seal_reply(&opened.reply_keys(), e_s, &said.encode().expect("it fits")).expect("E is good");
        let (heard, secrets) =
            transaction.open_reply(&sealed.packet, now, DefaultRoute::Refuse).expect("it opens");
        prop_assert_eq!(heard, said);
        prop_assert_eq!(secrets.wg_psk, sealed.secrets.wg_psk);
        prop_assert_eq!(secrets.k_sess, sealed.secrets.k_sess);
        prop_assert_eq!(secrets.k_cred, sealed.secrets.k_cred);
    }

    #[test]
    fn any_flipped_bit_of_a_knock_is_refused(request in request(), e: [u8; 32], bit in 0..4096_usize) {
        let parties = Parties::new(7);
        let slot = Slot::from_minutes(30_000_000);
        let mut packet = parties.knock(&mut Transaction::new(&request).expect("it fits"), slot, e);
        packet[bit / 8] ^= 1 << (bit % 8);
        prop_assert!(parties.open(&packet, slot).is_none());
    }
}

fn exchange(op_ask: Ask) -> (Transaction, OpenedKnock, WallTime) {
    let parties = Parties::new(9);
    let now = WallTime::from_millis(1_800_000_000_000);
    let request = Request {
        ts: now,
        same_port: false,
        source: None,
        ask: op_ask,
    };
    let mut transaction = Transaction::new(&request).expect("it fits");
    let packet = parties.knock(&mut transaction, now.slot(), [1; 32]);
    let opened = parties.open(&packet, now.slot()).expect("it opens");
    (transaction, opened, now)
}

fn close() -> Ask {
    Ask::Close(SessionId::from_bytes([1; 8]))
}

#[test]
fn any_flipped_bit_of_a_reply_is_refused() {
    let (mut transaction, opened, now) = exchange(close());
    let said = answer(Op::Close, now).encode().expect("it fits");
    let sealed = seal_reply(&opened.reply_keys(), [2; 32], &said).expect("E is good");
    for bit in 0..4096 {
        let mut packet = sealed.packet;
        packet[bit / 8] ^= 1 << (bit % 8);
        assert!(
            transaction
                .open_reply(&packet, now, DefaultRoute::Refuse)
                .is_err(),
            "bit {bit}"
        );
    }
    assert!(
        transaction
            .open_reply(&sealed.packet, now, DefaultRoute::Refuse)
            .is_ok()
    );
}

#[test]
fn the_reply_with_the_latest_gateway_time_counts_and_an_older_one_is_stale() {
    let (mut transaction, opened, now) = exchange(close());
    let reply = |ms: u64, e_s| {
        let said = answer(Op::Close, now.saturating_add(Duration::from_millis(ms)))
            .encode()
            .expect("it fits");
        seal_reply(&opened.reply_keys(), e_s, &said)
            .expect("E is good")
            .packet
    };
    let (first, second) = (reply(0, [2; 32]), reply(1, [3; 32]));
    let mut open = |packet: &[u8]| {
        transaction
            .open_reply(packet, now, DefaultRoute::Refuse)
            .map(|_| ())
    };
    assert_eq!(open(&second), Ok(()));
    assert_eq!(open(&first), Err(ReplyError::Tag));
    assert_eq!(open(&second), Err(ReplyError::Tag));
}

#[test]
fn a_reply_to_any_packet_of_a_transaction_opens_and_one_to_none_is_no_answer() {
    let parties = Parties::new(9);
    let now = WallTime::from_millis(1_800_000_000_000);
    let request = Request {
        ts: now,
        same_port: false,
        source: None,
        ask: close(),
    };
    let mut transaction = Transaction::new(&request).expect("it fits");
    for (ms, e) in [(0, 1), (1, 2), (2, 3)] {
        let packet = parties.knock(&mut transaction, now.slot(), [e; 32]);
        let opened = parties.open(&packet, now.slot()).expect("it opens");
        let said = answer(Op::Close, now.saturating_add(Duration::from_millis(ms)))
            .encode()
            .expect("it fits");
        let sealed = seal_reply(&opened.reply_keys(), [7; 32], &said).expect("E is good");
        assert!(
            transaction
                .open_reply(&sealed.packet, now, DefaultRoute::Refuse)
                .is_ok(),
            "packet {e}"
        );
    }
    let (_, other, _) = exchange(close());
    let said = answer(Op::Close, now).encode().expect("it fits");
    let foreign = seal_reply(&other.reply_keys(), [7; 32], &said).expect("E is good");
    let mut others = Transaction::new(&request).expect("it fits");
    parties.knock(&mut others, now.slot(), [8; 32]);
    let opened = others.open_reply(&foreign.packet, now, DefaultRoute::Refuse);
    assert_eq!(opened.unwrap_err(), ReplyError::Tag);
}

#[test]
fn a_transaction_has_six_packets_with_one_request_and_nothing_else_in_common() {
    let parties = Parties::new(9);
    let request = Request {
        ts: WallTime::from_millis(5),
        same_port: false,
        source: None,
        ask: close(),
    };
    let mut transaction = Transaction::new(&request).expect("it fits");
    let slot = Slot::from_minutes(30_000_000);
    let packets: Vec<_> = (0..6)
        .map(|e| parties.knock(&mut transaction, slot, [e; 32]))
        .collect();
    assert_eq!(transaction.next_at(), None);
    let seventh = transaction.knock(
        &parties.keys,
        (3, &parties.knock_key.public()),
        slot,
        [9; 32],
        Signer::Session(&parties.k_sess),
    );
    assert_eq!(seventh.unwrap_err(), TransactionError::Spent);

    let opened: Vec<_> = packets
        .iter()
        .map(|packet| parties.open(packet, slot).expect("it opens"))
        .collect();
    for pair in opened.windows(2) {
        assert!(pair[0].info() == pair[1].info() && pair[0].ext() == pair[1].ext());
        assert_ne!(pair[0].proof(), pair[1].proof());
    }
    for pair in packets.windows(2) {
        // Behind the tag every byte is fresh: about one in 256 agrees by chance.
        let equal = pair[0][8..]
            .iter()
            .zip(&pair[1][8..])
            .filter(|(left, right)| left == right)
            .count();
        assert!(equal < 20, "{equal} of 504 bytes agree");
    }
}

#[test]
fn a_password_does_not_sign_for_a_session_nor_the_other_way_round() {
    let parties = Parties::new(9);
    let request = Request {
        ts: WallTime::from_millis(5),
        same_port: false,
        source: None,
        ask: close(),
    };
    let (info, ext) = request.encode().expect("it fits");
    let public = parties.knock_key.public();
    let built = build_knock(
        &parties.keys,
        0,
        &public,
        Slot::default(),
        [1; 32],
        &info,
        &ext,
        Signer::Password(&parties.q),
    );
    assert_eq!(built.unwrap_err(), BuildError::Signer);
}

#[test]
fn an_enrolment_replaces_the_invites_key_on_both_sides_alike() {
    let q = Parties::new(9).q.public();
    let (mut transaction, opened, now) = exchange(Ask::Enrol(EnrolAsk {
        q,
        label: "laptop".into(),
        posture: None,
    }));
    let said = answer(Op::Enrol, now).encode().expect("it fits");
    let sealed = seal_reply(&opened.reply_keys(), [2; 32], &said).expect("E is good");
    let (_, secrets) = transaction
        .open_reply(&sealed.packet, now, DefaultRoute::Refuse)
        .expect("it opens");
    let (gateway, credential) = (
        GatewayId::from_bytes([0; 16]),
        CredentialId::from_bytes([0; 16]),
    );
    let tag = |key: &CredentialKey| DerivedKeys::derive(key, gateway, credential).tag(now.slot());
    assert_eq!(tag(&secrets.k_cred), tag(&sealed.secrets.k_cred));
}
