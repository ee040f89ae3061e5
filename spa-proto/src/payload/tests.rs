//! Every rule of SPEC §6 on a reply's plaintext, one broken at a time.

use super::*;
use crate::request::Op;
use crate::tlv::TlvError;
use core::time::Duration;
use std::vec;

const NOW: WallTime = WallTime::from_millis(1_795_963_017_395);
const HOUR: Duration = Duration::from_secs(3600);

fn reply(outcome: Outcome) -> ReplyPayload {
    ReplyPayload {
        gateway_time: NOW,
        source: "10.44.3.2:32508".parse().unwrap(),
        prekey: None,
        outcome,
    }
}

fn session() -> SessionReply {
    SessionReply {
        repeat: Repeat::First,
        door: DoorKind::AddressAndPort,
        door_secs: 10,
        id: SessionId::from_bytes([1; 8]),
        not_after: NOW.saturating_add(HOUR),
        wg_public: [2; 32],
        endpoint: Some("[2001:db8::5]:51820".parse().unwrap()),
        tunnel4: Some(Ipv4Addr::new(10, 99, 0, 7)),
        tunnel6: Some("fd00::7".parse().unwrap()),
        gateway_tunnel: Some("10.99.0.1".parse().unwrap()),
        control_port: 8700,
        mtu: 1380,
        keepalive: 25,
        routes: vec![route("10.0.0.0", 8), route("fd00::", 64)],
        dns: Some("10.99.0.53".parse().unwrap()),
        verdicts: vec![
            (ResourceId::of("wiki"), Verdict::Granted),
            (ResourceId::of("db"), Verdict::NotAllowed),
        ],
        reason: Some("bis 18 Uhr".into()),
    }
}

fn route(address: &str, prefix: u8) -> Route {
    Route::new(address.parse().unwrap(), prefix).unwrap()
}

fn prekey(not_after: WallTime) -> Prekey {
    Prekey {
        kid: NonZeroU8::MAX,
        key: KnockPublic::from_bytes([5; 32]),
        not_after,
    }
}

fn read(reply: &ReplyPayload, op: Op) -> Result<ReplyPayload, PayloadError> {
    ReplyPayload::parse(&reply.encode().unwrap(), op, NOW, DefaultRoute::Refuse)
}

fn read_session(change: impl FnOnce(&mut SessionReply)) -> Result<(), PayloadError> {
    let mut session = session();
    change(&mut session);
    read(&reply(Outcome::Session(Box::new(session))), Op::Open).map(|_| ())
}

fn bare_outcomes() -> Vec<(Outcome, Op)> {
    let (verdicts, reason) = (
        vec![(ResourceId::of("db"), Verdict::TimeWindow)],
        Some("nachts nicht".into()),
    );
    let secret = TotpSecret::from_bytes(&[7; 20]).unwrap();
    vec![
        (
            Outcome::Closed {
                repeat: Repeat::Again,
                verdicts: vec![],
                reason: None,
            },
            Op::Close,
        ),
        (
            Outcome::Refused {
                why: RefusedFor::Policy,
                verdicts,
                reason,
            },
            Op::Open,
        ),
        (
            Outcome::Refused {
                why: RefusedFor::Capacity,
                verdicts: vec![],
                reason: None,
            },
            Op::Enrol,
        ),
        (
            Outcome::Enrolled(Some(TotpOffer {
                digits: 6,
                period: 30,
                secret,
            })),
            Op::Enrol,
        ),
        (Outcome::Enrolled(None), Op::Enrol),
    ]
}

#[test]
fn what_is_written_reads_the_same() {
    let session = (Outcome::Session(Box::new(session())), Op::Roam);
    for (outcome, op) in bare_outcomes().into_iter().chain([session]) {
        let mut reply = reply(outcome);
        reply.prekey = Some(prekey(NOW.saturating_add(HOUR)));
        assert_eq!(read(&reply, op).as_ref(), Ok(&reply));
    }
}

#[test]
fn a_status_answers_only_its_ops() {
    let good = [
        (0, "orc"),
        (1, "orc"),
        (2, "ore"),
        (3, "ore"),
        (4, "e"),
        (5, ""),
        (255, ""),
    ];
    for (status, ops) in good {
        for (op, letter) in [
            (Op::Open, 'o'),
            (Op::Roam, 'r'),
            (Op::Close, 'c'),
            (Op::Enrol, 'e'),
        ] {
            let mut bytes = reply(Outcome::Enrolled(None)).encode().unwrap();
            bytes[0] = status;
            let parsed = ReplyPayload::parse(&bytes, op, NOW, DefaultRoute::Refuse);
            assert_eq!(
                parsed != Err(PayloadError::Status),
                ops.contains(letter),
                "{status} to {op:?}"
            );
        }
    }
}

#[test]
fn a_reply_without_session_has_no_field_of_one() {
    let allowed = (0..1).chain(12..20).chain(78..96).chain(138..PAYLOAD_LEN);
    let allowed: Vec<usize> = allowed.collect();
    for (outcome, op) in bare_outcomes() {
        let clean = reply(outcome).encode().unwrap();
        for at in (0..PAYLOAD_LEN).filter(|at| !allowed.contains(at)) {
            let mut bytes = clean.clone();
            bytes[at] = 1;
            let parsed = ReplyPayload::parse(&bytes, op, NOW, DefaultRoute::Refuse);
            assert_eq!(parsed, Err(PayloadError::NotZero), "byte {at}");
        }
    }
}

#[test]
fn a_reserved_flag_is_refused() {
    for bit in 1..8 {
        let mut bytes = reply(Outcome::Session(Box::new(session())))
            .encode()
            .unwrap();
        bytes[1] = 1 << bit;
        let parsed = ReplyPayload::parse(&bytes, Op::Open, NOW, DefaultRoute::Refuse);
        assert_eq!(parsed, Err(PayloadError::Flags));
    }
}

#[test]
fn a_session_ends_within_24_hours() {
    let ms = Duration::from_millis(1);
    assert_eq!(
        read_session(|s| s.not_after = NOW.saturating_add(24 * HOUR)),
        Ok(())
    );
    assert_eq!(
        read_session(|s| s.not_after = NOW.saturating_add(24 * HOUR + ms)),
        Err(PayloadError::NotAfter)
    );
    assert_eq!(
        read_session(|s| s.not_after = NOW),
        Err(PayloadError::NotAfter)
    );
    assert_eq!(
        read_session(|s| s.not_after = NOW.saturating_add(ms)),
        Ok(())
    );
}

#[test]
fn loopback_and_multicast_are_no_addresses() {
    let v6 = |text: &str| Some(text.parse().unwrap());
    let refused = Err(PayloadError::Address);
    assert_eq!(
        read_session(|s| s.tunnel4 = Some(Ipv4Addr::new(127, 0, 0, 1))),
        refused
    );
    assert_eq!(read_session(|s| s.tunnel6 = v6("ff02::1")), refused);
    assert_eq!(
        read_session(|s| s.tunnel6 = v6("::ffff:127.0.0.1")),
        refused
    );
    assert_eq!(
        read_session(|s| s.gateway_tunnel = Some("224.0.0.1".parse().unwrap())),
        refused
    );
    assert_eq!(
        read_session(|s| s.endpoint = Some("127.0.0.1:1".parse().unwrap())),
        refused
    );
    assert_eq!(
        read_session(|s| s.dns = Some("::1".parse().unwrap())),
        refused
    );
    assert_eq!(
        read_session(|s| s.routes = vec![route("239.1.0.0", 16)]),
        refused
    );
}

#[test]
fn the_source_as_seen_may_be_loopback_but_not_multicast() {
    let seen = |source: &str| {
        let mut reply = reply(Outcome::Enrolled(None));
        reply.source = source.parse().unwrap();
        read(&reply, Op::Enrol).map(|_| ())
    };
    assert_eq!(seen("127.0.0.1:5"), Ok(()));
    assert_eq!(seen("[::1]:5"), Ok(()));
    assert_eq!(seen("[ff02::1]:5"), Err(PayloadError::Address));
}

#[test]
fn a_default_route_needs_the_profile() {
    for text in ["0.0.0.0", "::"] {
        for prefix in [0, 1] {
            let mut session = session();
            session.routes = vec![route(text, prefix)];
            let bytes = reply(Outcome::Session(Box::new(session))).encode().unwrap();
            let parse = |allow| ReplyPayload::parse(&bytes, Op::Open, NOW, allow).map(|_| ());
            assert_eq!(parse(DefaultRoute::Refuse), Err(PayloadError::DefaultRoute));
            assert_eq!(parse(DefaultRoute::Allow), Ok(()));
        }
    }
}

#[test]
fn an_endpoint_is_whole_or_absent() {
    for (from, to) in [(60, 76), (76, 78)] {
        let mut bytes = reply(Outcome::Session(Box::new(session())))
            .encode()
            .unwrap();
        bytes[from..to].fill(0);
        let parsed = ReplyPayload::parse(&bytes, Op::Open, NOW, DefaultRoute::Refuse);
        assert_eq!(parsed, Err(PayloadError::Endpoint));
    }
    assert_eq!(read_session(|s| s.endpoint = None), Ok(()));
}

#[test]
fn a_knock_key_lives_at_most_15_days_and_is_used_up_to_90_s_before_its_end() {
    let read_prekey = |not_after| {
        let mut reply = reply(Outcome::Enrolled(None));
        reply.prekey = Some(prekey(not_after));
        read(&reply, Op::Enrol).map(|_| ())
    };
    let last = NOW.saturating_add(15 * 24 * HOUR);
    assert_eq!(read_prekey(last), Ok(()));
    assert_eq!(
        read_prekey(last.saturating_add(Duration::from_millis(1))),
        Err(PayloadError::PrekeyNotAfter)
    );
    assert_eq!(read_prekey(NOW), Ok(()));
    assert!(!prekey(NOW.saturating_add(FRESHNESS)).is_usable(NOW));
    assert!(prekey(NOW.saturating_add(FRESHNESS + Duration::from_millis(1))).is_usable(NOW));
    // One that was kept while the clocks of both were ahead.
    assert!(prekey(last).is_usable(NOW));
    assert!(!prekey(last.saturating_add(Duration::from_millis(1))).is_usable(NOW));
}

#[test]
fn a_totp_offer_is_one_an_authenticator_takes() {
    for (digits, period) in [(5, 30), (9, 30), (6, 0)] {
        let secret = TotpSecret::from_bytes(&[7; 32]).unwrap();
        let reply = reply(Outcome::Enrolled(Some(TotpOffer {
            digits,
            period,
            secret,
        })));
        assert_eq!(
            read(&reply, Op::Enrol),
            Err(TlvError::Malformed(TOTP).into())
        );
    }
}

#[test]
fn routes_that_do_not_fit_are_left_out_and_everything_else_stays() {
    let mut full = session();
    full.reason = Some("r".repeat(120));
    full.verdicts = (0..16_u8)
        .map(|i| (ResourceId::from_bytes([i; 4]), Verdict::Granted))
        .collect();
    full.routes = (0..100_u8)
        .map(|i| route(&std::format!("10.{i}.0.0"), 16))
        .collect();
    let mut reply = reply(Outcome::Session(Box::new(full)));
    reply.prekey = Some(prekey(NOW.saturating_add(HOUR)));
    let read = read(&reply, Op::Open).unwrap();
    let (Outcome::Session(wrote), Outcome::Session(found)) = (&reply.outcome, &read.outcome) else {
        panic!("both are sessions");
    };
    // 318 − 43 (PREKEY) − 82 (VERDICTS) − 122 (REASON) − 18 (DNS) − 2 = 51 bytes: 8 routes of 6.
    assert_eq!(found.routes, wrote.routes[..8]);
    assert_eq!(
        (&found.verdicts, &found.reason, found.dns),
        (&wrote.verdicts, &wrote.reason, wrote.dns)
    );
}

#[test]
fn what_does_not_fit_is_not_written() {
    let write = |verdicts: usize, reason: usize| {
        let verdicts = vec![(ResourceId::of("a"), Verdict::Granted); verdicts];
        let reason = Some("r".repeat(reason));
        let refused = Outcome::Refused {
            why: RefusedFor::Policy,
            verdicts,
            reason,
        };
        reply(refused).encode().map(|_| ())
    };
    assert_eq!(write(16, 120), Ok(()));
    assert_eq!(write(16, 121), Err(EncodePayloadError::Reason));
    assert_eq!(write(52, 0), Err(EncodePayloadError::Verdicts));
    assert_eq!(write(51, 120), Err(EncodePayloadError::Full));
}

#[test]
fn an_unknown_verdict_is_a_refusal() {
    for code in 0..=u8::MAX {
        assert_eq!(Verdict::from_code(code).code(), code);
        assert_eq!(Verdict::from_code(code).is_granted(), code == 0);
    }
}
