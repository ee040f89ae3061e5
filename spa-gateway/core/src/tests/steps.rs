//! Each check of SPEC §8 at its bound: the last that passes, the first that does not.

use core::net::{IpAddr, SocketAddr};
use core::time::Duration;

use spa_proto::{
    Ask, CredentialId, DerivedKeys, Outcome, ProofSecret, RecoveryCode, Request, SecondFactor,
    SessionId, WallTime,
};

use super::rig::{Device, KNOCKED, Rig};
use crate::{ClockTrust, Confirm, Datagram, InviteTerms, Name, PersonKind, Refusal};

const F: i64 = 90_000;

/// Sends one knock that asks this; gives why it was refused, if it was.
fn outcome(rig: &mut Rig, device: &mut Device, request: &Request) -> Result<(), Refusal> {
    let (info, ext) = request.encode().expect("fits");
    let sent = device.build(&info, &ext, rig.now);
    rig.take_in(&sent.packet, device.source)?;
    let worked = rig.gateway.handle_work(rig.now, &mut rig.entropy);
    rig.run();
    worked.expect("it was queued")
}

fn open_at(rig: &Rig, device: &mut Device, off: i64) -> Request {
    let ts = rig.now.wall.as_millis().saturating_add_signed(off);
    Request {
        ts: WallTime::from_millis(ts),
        same_port: true,
        source: None,
        ask: rig.open_ask(device, &["wiki"]),
    }
}

#[test]
fn a_source_that_nobody_can_have_is_refused_whichever_it_is() {
    let mut bot = Device::of("bot", 7);
    let mut rig = Rig::with(&[&bot]);
    let own: IpAddr = "203.0.113.9".parse().expect("an address");
    rig.gateway.handle_addresses([own].into());
    let request = open_at(&rig, &mut bot, 0);
    let (info, ext) = request.encode().expect("fits");
    let packet = bot.build(&info, &ext, rig.now).packet;
    let mut come = |source: &str, on_loopback| {
        let source: SocketAddr = source.parse().expect("an address");
        let datagram = Datagram {
            payload: &packet,
            source,
            destination: KNOCKED,
            on_loopback,
            fragment: false,
        };
        rig.gateway.handle_datagram(datagram, rig.now)
    };
    for source in [
        "0.0.0.0:9",
        "[::]:9",
        "224.0.0.1:9",
        "[ff02::1]:9",
        "255.255.255.255:9",
        "127.0.0.1:9",
        "[::1]:9",
        "[::ffff:127.0.0.1]:9",
        "203.0.113.9:9",
        "[::ffff:203.0.113.9]:9",
    ] {
        let refused = Err(Refusal::SourceAddress);
        assert_eq!(come(source, false), refused, "{source}");
    }
    assert_eq!(come("198.51.100.7:0", false), Err(Refusal::SourcePort));
    // What came in on the loopback interface may come from there.
    assert_eq!(come("127.0.0.1:9", true), Ok(()));
}

#[test]
fn a_source_that_is_named_must_be_the_source() {
    for (named, passes) in [
        ("198.51.100.7", true),
        ("198.51.100.8", false),
        ("2001:db8::7", false),
    ] {
        let mut bot = Device::of("bot", 7);
        let mut rig = Rig::with(&[&bot]);
        let request = Request {
            source: Some(named.parse().expect("an address")),
            ..open_at(&rig, &mut bot, 0)
        };
        let expected = if passes {
            Ok(())
        } else {
            Err(Refusal::SourceMismatch)
        };
        assert_eq!(outcome(&mut rig, &mut bot, &request), expected, "{named}");
        assert_eq!(rig.replies.len(), usize::from(passes));
    }
}

#[test]
fn a_transaction_is_of_now_up_to_the_last_millisecond_of_the_window() {
    for (off, expected) in [
        (-F - 1, Err(Refusal::Stale)),
        (-F, Ok(())),
        (F, Ok(())),
        (F + 1, Err(Refusal::Stale)),
    ] {
        let mut bot = Device::of("bot", 7);
        let mut rig = Rig::with(&[&bot]);
        let request = open_at(&rig, &mut bot, off);
        assert_eq!(outcome(&mut rig, &mut bot, &request), expected, "{off}");
    }
}

#[test]
fn a_last_ts_ahead_of_the_clock_is_told_from_a_replay_at_the_window() {
    for (last, ts, expected) in [
        (F - 1, F, Ok(())),
        (F, F, Err(Refusal::Replayed)),
        (F + 1, F, Err(Refusal::ClockRanAhead)),
        (F + 2, F, Err(Refusal::ClockRanAhead)),
        (0, 0, Err(Refusal::Replayed)),
        (0, 1, Ok(())),
    ] {
        let mut bot = Device::of("bot", 7);
        let mut store = super::rig::store_of(&[&bot]);
        let now = 1_800_000_000_000_u64;
        store.credentials[0].last_ts = WallTime::from_millis(now.saturating_add_signed(last));
        let mut rig = Rig::restored(store, super::rig::settings());
        let request = open_at(&rig, &mut bot, ts);
        assert_eq!(
            outcome(&mut rig, &mut bot, &request),
            expected,
            "{last} {ts}"
        );
    }
}

#[test]
fn only_the_session_of_the_device_itself_is_moved_or_closed() {
    let mut bot = Device::of("bot", 7);
    let mut other = Device::of("bot", 8);
    let mut rig = Rig::with(&[&bot, &other]);
    for device in [&mut bot, &mut other] {
        rig.open(device, &["wiki"]).expect("granted");
        assert!(rig.shake(device));
    }
    let stranger = other.session_id();
    let nobody = SessionId::from_bytes([0xEE; 8]);
    for ask in [
        Ask::Close(stranger),
        Ask::Roam(stranger),
        Ask::Close(nobody),
        Ask::Roam(nobody),
    ] {
        rig.pass_secs(2);
        let request = bot.request(ask, rig.now);
        let refused = Err(Refusal::NoSession);
        assert_eq!(outcome(&mut rig, &mut bot, &request), refused);
    }
    rig.pass_secs(2);
    let request = bot.request(Ask::Roam(bot.session_id()), rig.now);
    assert_eq!(outcome(&mut rig, &mut bot, &request), Ok(()));
    assert_eq!(rig.gateway.sessions().count(), 2);
}

/// Somebody new, who has an invite; the device holds `K_inv`.
fn invited(rig: &mut Rig) -> Device {
    let name = Name::parse("ana").expect("a name");
    let added = rig
        .gateway
        .add_person(&name, PersonKind::Human, &mut rig.entropy);
    added.expect("added");
    rig.run();
    let terms = InviteTerms {
        valid: Duration::from_secs(24 * 60 * 60),
        confirm: Confirm::Waived,
    };
    let offer = rig.gateway.invite(&name, terms, rig.now, &mut rig.entropy);
    let offer = offer.expect("invited").value;
    rig.run();
    let mut device = Device::of("ana", 1);
    device.id = offer.credential;
    device.keys = DerivedKeys::derive(&offer.key, rig.gateway.id(), offer.credential);
    device
}

fn enrol(rig: &mut Rig, device: &mut Device) -> Result<(), Refusal> {
    let ask = device.enrol_ask();
    let request = device.request(ask, rig.now);
    outcome(rig, device, &request)
}

#[test]
fn an_invite_makes_six_candidates_within_ten_minutes_of_the_first() {
    let mut rig = Rig::with(&[]);
    let mut device = invited(&mut rig);
    for _ in 0..6 {
        assert_eq!(enrol(&mut rig, &mut device), Ok(()));
        rig.pass_secs(2);
    }
    let seventh = enrol(&mut rig, &mut device);
    assert_eq!(seventh, Err(Refusal::TooManyCandidates));
    assert_eq!(rig.replies.len(), 6);

    for (after, expected) in [(600_000, Ok(())), (600_001, Err(Refusal::EnrolmentOver))] {
        let mut rig = Rig::with(&[]);
        let mut device = invited(&mut rig);
        assert_eq!(enrol(&mut rig, &mut device), Ok(()));
        rig.pass(Duration::from_millis(after));
        assert_eq!(enrol(&mut rig, &mut device), expected, "{after}");
    }
}

/// The simulator found it: a second ENROL that waits for the first, which hangs, is worked on when the invite is over.
#[test]
fn a_knock_that_waited_past_the_end_of_its_invite_is_refused() {
    let mut rig = Rig::with(&[]);
    let mut device = invited(&mut rig);
    let end = Duration::from_secs(24 * 60 * 60);
    rig.pass(end - Duration::from_secs(1));
    for _ in 0..2 {
        let ask = device.enrol_ask();
        let request = device.request(ask, rig.now);
        let (info, ext) = request.encode().expect("fits");
        let packet = device.build(&info, &ext, rig.now).packet;
        assert_eq!(rig.take_in(&packet, device.source), Ok(()));
        rig.work();
    }
    assert_eq!(rig.gateway.waiting_knocks(), 1, "the first hangs");
    rig.now.wall = rig.now.wall.saturating_add(Duration::from_secs(1));
    rig.now.mono = rig.now.mono.after(Duration::from_secs(1));
    rig.run();
    assert_eq!(rig.count(Refusal::CredentialExpired), 1);
    assert_eq!(rig.replies.len(), 1);
}

#[test]
fn a_knock_that_waits_when_the_clock_ceases_to_be_trusted_is_refused() {
    let mut bot = Device::of("bot", 7);
    let mut rig = Rig::with(&[&bot]);
    let request = open_at(&rig, &mut bot, 0);
    let (info, ext) = request.encode().expect("fits");
    let packet = bot.build(&info, &ext, rig.now).packet;
    assert_eq!(rig.take_in(&packet, bot.source), Ok(()));
    rig.gateway.handle_clock(ClockTrust::Untrusted, rig.now);
    rig.run();
    assert_eq!(rig.count(Refusal::ClockUntrusted), 1);
    assert!(rig.replies.is_empty());
}

#[test]
fn an_invite_is_of_one_device_and_void_for_both_once_a_second_one_shows_it() {
    let mut rig = Rig::with(&[]);
    let mut device = invited(&mut rig);
    assert_eq!(enrol(&mut rig, &mut device), Ok(()));
    let own = core::mem::replace(&mut device.q, ProofSecret::from_seed(&[0x77; 32]));
    let second = enrol(&mut rig, &mut device);
    assert_eq!(second, Err(Refusal::OtherEnroller));
    device.q = own;
    assert_eq!(enrol(&mut rig, &mut device), Err(Refusal::UnknownTag));
    assert!(rig.store.credentials.is_empty());
}

#[test]
fn an_op_belongs_under_its_kind_of_key() {
    let mut rig = Rig::with(&[]);
    let mut device = invited(&mut rig);
    let request = open_at(&rig, &mut device, 0);
    let wrong = Err(Refusal::WrongKey);
    assert_eq!(outcome(&mut rig, &mut device, &request), wrong);

    let mut bot = Device::of("bot", 7);
    let mut rig = Rig::with(&[&bot]);
    assert_eq!(enrol(&mut rig, &mut bot), wrong);
    assert!(rig.replies.is_empty());
}

#[test]
fn a_recovery_code_is_its_person_s_own_and_no_machine_s() {
    let code = RecoveryCode::from_bytes([3; 16]);
    for (person, known, expected) in [
        ("ana", &code, Ok(())),
        (
            "ana",
            &RecoveryCode::from_bytes([4; 16]),
            Err(Refusal::WrongCode),
        ),
        ("bot", &code, Err(Refusal::WrongCode)),
    ] {
        let mut device = Device::of(person, 7);
        let mut store = super::rig::store_of(&[&device]);
        store.persons[0].recovery = [[9; 32], known.digest(), [8; 32]].into();
        let mut rig = Rig::restored(store, super::rig::settings());
        let mut request = open_at(&rig, &mut device, 0);
        if let Ask::Open(open) = &mut request.ask {
            open.factor = SecondFactor::Recovery(RecoveryCode::from_bytes([3; 16]));
        }
        let came = outcome(&mut rig, &mut device, &request);
        assert_eq!(came, expected, "{person}");
        let left = rig.store.persons[0].recovery.len();
        assert_eq!(left, if expected.is_ok() { 2 } else { 3 });
    }
}

#[test]
fn a_repeat_is_answered_only_while_the_session_is_unheard_and_its_own() {
    let mut bot = Device::of("bot", 7);
    let mut rig = Rig::with(&[&bot]);
    let request = open_at(&rig, &mut bot, 0);
    assert_eq!(outcome(&mut rig, &mut bot, &request), Ok(()));
    assert_eq!(outcome(&mut rig, &mut bot, &request), Ok(()));
    assert!(rig.shake(&bot));
    // The peer was heard, and that is seen within a second.
    rig.pass_secs(2);
    let again = outcome(&mut rig, &mut bot, &request);
    assert_eq!(again, Err(Refusal::Replayed));
}

#[test]
fn a_failed_repeat_marks_nothing_and_a_failed_transaction_does() {
    let mut bot = Device::of("bot", 7);
    let mut rig = Rig::with(&[&bot]);
    rig.pass_secs(60 * 60);
    let request = open_at(&rig, &mut bot, 0);
    assert_eq!(outcome(&mut rig, &mut bot, &request), Ok(()));
    let own = core::mem::replace(&mut bot.q, ProofSecret::from_seed(&[0x77; 32]));
    let wrong = Err(Refusal::WrongProof);
    assert_eq!(outcome(&mut rig, &mut bot, &request), wrong);
    let other = core::mem::replace(&mut bot.q, own);
    assert_eq!(outcome(&mut rig, &mut bot, &request), Ok(()));

    let later = open_at(&rig, &mut bot, 1);
    let own = core::mem::replace(&mut bot.q, other);
    assert_eq!(outcome(&mut rig, &mut bot, &later), wrong);
    bot.q = own;
    let before = Err(Refusal::FailedBefore);
    assert_eq!(outcome(&mut rig, &mut bot, &later), before);
    assert_eq!(rig.gateway.waiting_knocks(), 0);
}

#[test]
fn a_credential_id_is_not_taken_for_another() {
    let mut bot = Device::of("bot", 7);
    let mut rig = Rig::with(&[&bot]);
    let key = spa_proto::CredentialKey::from_bytes([7; 32]);
    let strange = CredentialId::from_bytes([6; 16]);
    bot.keys = DerivedKeys::derive(&key, rig.gateway.id(), strange);
    let request = open_at(&rig, &mut bot, 0);
    let unknown = Err(Refusal::UnknownTag);
    assert_eq!(outcome(&mut rig, &mut bot, &request), unknown);
    let ask = bot.enrol_ask();
    assert!(!matches!(
        rig.ask(&mut bot, ask),
        Some(Outcome::Enrolled(_))
    ));
}
