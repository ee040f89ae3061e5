//! The control channel: who is heard, what a session is told, and that it lives by what it reports.

mod account;
mod rekey;

use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use core::time::Duration;

use spa_order::Order;
use spa_proto::channel::{Event, FactValue, Grants, RekeyState, Renew};
use spa_proto::control_bearer;

use super::rig::{Device, Did, Rig, firewall, report};
use crate::closing::RETRY;
use crate::policy::look_again;
use crate::{AuditKind, Call, CallAnswer, CallRefusal, LAST_ANSWER, LAST_WORD, Policy, Selector};

const BASE: &str = r#"
    [group]
    eng = ["ana", "bot", "bo"]
    ops = ["bo"]
    [resource]
    wiki = { to = "10.0.5.10", ports = ["443/tcp"] }
    db   = { to = "10.0.6.0/28", ports = ["5432/tcp", "8000-8010/udp"] }
    [posture.laptop]
    disk_encryption = true
    [[allow]]
    name = "wiki"
    who = ["group:eng"]
    to = ["wiki"]
"#;
const MINUTE: u64 = 60;
const HOUR: u64 = 60 * MINUTE;

fn db(rest: &str) -> String {
    format!("{BASE}\n[[allow]]\nname = \"db\"\nwho = [\"group:eng\"]\nto = [\"db\"]\n{rest}\n")
}

fn put(rig: &mut Rig, policy: &str) {
    let policy = Policy::parse(policy).unwrap_or_else(|error| panic!("{error}"));
    rig.gateway.handle_policy(policy, None, rig.now);
    rig.run();
}

fn encrypted(yes: bool) -> Call {
    report("disk_encryption", FactValue::Bool(yes))
}

/// A session with these resources, its device's disk encrypted.
fn live(policy: &str, device: &mut Device, resources: &[&str]) -> Rig {
    let mut rig = Rig::with(&[device]);
    put(&mut rig, policy);
    open(&mut rig, device, resources);
    rig
}

fn open(rig: &mut Rig, device: &mut Device, resources: &[&str]) {
    let mut ask = rig.open_ask(device, resources);
    if let spa_proto::Ask::Open(open) = &mut ask {
        open.posture = Some(b"\xa1\x6fdisk_encryption\xf5".as_slice().into());
    }
    rig.ask(device, ask).expect("an answer");
    assert!(rig.shake(device));
}

fn ports(rig: &Rig) -> Vec<u16> {
    let flows = rig.kernel.flows(rig.now);
    let mut ports: Vec<u16> = flows.iter().map(|flow| flow.ports.0).collect();
    ports.sort_unstable();
    ports.dedup();
    ports
}

fn grants(rig: &mut Rig, device: &Device) -> Grants {
    match rig.call(device, Call::Grants) {
        Ok(CallAnswer::Grants(grants)) => *grants,
        other => panic!("{other:?}"),
    }
}

#[test]
fn only_the_session_at_that_address_with_its_own_bearer_is_heard() {
    let (mut ana, mut bo) = (Device::of("ana", 7), Device::of("bo", 8));
    let mut rig = Rig::with(&[&ana, &bo]);
    put(&mut rig, BASE);
    open(&mut rig, &mut ana, &["wiki"]);
    open(&mut rig, &mut bo, &["wiki"]);
    let bearer = |device: &Device| control_bearer(&device.session.as_ref().expect("one").1);
    let (anas, bos) = (bearer(&ana), bearer(&bo));
    let at = |rig: &Rig, device: &Device| rig.tunnel_of(device.session_id());
    let (here, there) = (at(&rig, &ana), at(&rig, &bo));
    let unauthorized = Err(CallRefusal::Unauthorized);
    assert!(rig.call_from(here, anas.as_bytes(), Call::Grants).is_ok());
    assert_eq!(
        rig.call_from(there, anas.as_bytes(), encrypted(false)),
        unauthorized
    );
    assert_eq!(
        rig.call_from(here, bos.as_bytes(), Call::Close),
        unauthorized
    );
    assert_eq!(rig.call_from(here, b"", Call::Grants), unauthorized);
    assert_eq!(
        rig.call_from(here, &anas.as_bytes()[..63], Call::Grants),
        unauthorized
    );
    let nobody = "10.200.0.200".parse().expect("an address");
    assert_eq!(
        rig.call_from(nobody, anas.as_bytes(), Call::Grants),
        unauthorized
    );
    rig.call(&ana, Call::Close).expect("closed");
    assert_eq!(
        rig.call_from(here, anas.as_bytes(), Call::Grants),
        unauthorized
    );
    assert!(rig.call_from(there, bos.as_bytes(), Call::Grants).is_ok());
}

#[test]
fn grants_name_everything_a_session_has() {
    let mut bo = Device::of("bo", 7);
    let mut rig = live(&db("for = \"2h\""), &mut bo, &["db", "wiki"]);
    let grants = grants(&mut rig, &bo);
    assert_eq!(
        (grants.session, grants.person.as_str()),
        (bo.session_id(), "bo")
    );
    assert_eq!(grants.routes, ["10.0.5.10/32", "10.0.6.0/28"]);
    assert_eq!(grants.resources[0].name, "db");
    assert_eq!(grants.resources[0].ports, ["5432/tcp", "8000-8010/udp"]);
    assert_eq!(grants.resources[1].to, "10.0.5.10/32");
    assert_eq!(grants.rekey, RekeyState::Wanted);
    assert_eq!(grants.renewable_until, grants.not_after);
    assert_eq!(grants.serial, 2);
}

#[test]
fn close_is_on_disk_then_answered_then_closed() {
    let mut bo = Device::of("bo", 7);
    let mut rig = live(BASE, &mut bo, &["wiki"]);
    rig.did.clear();
    assert_eq!(rig.call(&bo, Call::Close), Ok(CallAnswer::Done));
    let order = [Did::Record, Did::Answer, Did::CloseFlow];
    assert!(rig.did.starts_with(&order), "{:?}", rig.did);
    // Nothing passes any more, and the answer still gets to the client, after a handshake if it takes one.
    assert_eq!(ports(&rig), [8700]);
    assert_eq!(rig.kernel.doors(rig.now), [bo.door()]);
    assert_eq!(rig.kernel.peers.len(), 1);
    // By that way nothing is asked any more.
    assert_eq!(rig.call(&bo, Call::Grants), Err(CallRefusal::Unauthorized));
    rig.pass(LAST_ANSWER);
    assert!(rig.kernel.is_empty(rig.now));
    assert_eq!(rig.audited(AuditKind::SessionEnded).len(), 1);
    let ended = rig.told(&bo).pop().expect("told").clone();
    assert!(matches!(ended, Event::Ended(ended) if ended.reason == "closed"));
}

/// Whoever keeps events would keep those of a session that is gone for ever.
#[test]
fn nothing_is_told_after_the_end() {
    let (mut ana, mut bo) = (Device::of("ana", 7), Device::of("bo", 8));
    let mut rig = Rig::with(&[&ana, &bo]);
    put(&mut rig, &db("approve = [\"group:ops\"]"));
    open(&mut rig, &mut bo, &["wiki"]);
    rig.call(&bo, Call::Close).expect("closed");
    // While its last answer is on its way.
    open(&mut rig, &mut ana, &["db", "wiki"]);
    assert_eq!(rig.audited(AuditKind::ApprovalAsked).len(), 1);
    assert!(matches!(rig.told(&bo).last(), Some(Event::Ended(_))));
}

/// A full disk keeps nothing open: the client is told the truth, and the store learns it as soon as there is room.
#[test]
fn a_close_that_cannot_be_written_down_closes_all_the_same() {
    let mut bo = Device::of("bo", 7);
    let mut rig = live(BASE, &mut bo, &["wiki"]);
    rig.store_works = false;
    assert_eq!(rig.call(&bo, Call::Close), Ok(CallAnswer::Done));
    rig.pass(LAST_ANSWER);
    assert!(rig.kernel.is_empty(rig.now));
    assert!(!rig.store.sessions.is_empty());
    rig.store_works = true;
    rig.pass(RETRY);
    assert!(rig.store.sessions.is_empty());
}

#[test]
fn a_fact_that_changes_cuts_the_resource_that_demands_it_and_says_why() {
    let mut bo = Device::of("bo", 7);
    let mut rig = live(&db("posture = [\"laptop\"]"), &mut bo, &["db", "wiki"]);
    assert_eq!(ports(&rig), [443, 5432, 8000, 8700]);
    let taken = rig.call(&bo, encrypted(false)).expect("taken");
    assert!(matches!(taken, CallAnswer::Posture(taken) if taken.resources == ["wiki"]));
    assert_eq!(ports(&rig), [443, 8700]);
    let Some(Event::Reduced(reduced)) = rig.told(&bo).pop() else {
        panic!("{:?}", rig.told(&bo));
    };
    assert_eq!(
        (reduced.lost.as_slice(), reduced.reason.as_str()),
        (&["db".to_string()][..], "posture")
    );
    assert!(reduced.text.contains("disk_encryption"), "{}", reduced.text);
    let audit = rig.audited(AuditKind::SessionReduced)[0];
    assert_eq!(audit.reason, Some("posture"));
    assert!(
        audit
            .note
            .as_deref()
            .is_some_and(|note| note.contains("disk_encryption"))
    );
    // It does not come back by a better report: a knock is needed.
    rig.call(&bo, encrypted(true)).expect("taken");
    assert_eq!(ports(&rig), [443, 8700]);
}

#[test]
fn a_report_without_a_mandatory_fact_or_with_one_of_a_wrong_type_loses_it() {
    for lie in [
        report("disk_encryption", FactValue::Text("true".into())),
        report("disk_encryption", FactValue::Number(1)),
        firewall(true),
    ] {
        let mut bo = Device::of("bo", 7);
        let mut rig = live(&db("posture = [\"laptop\"]"), &mut bo, &["db", "wiki"]);
        rig.call(&bo, lie).expect("taken");
        assert_eq!(ports(&rig), [443, 8700]);
    }
}

#[test]
fn three_reports_that_are_missing_end_a_session_that_is_nothing_without_them() {
    let mut bo = Device::of("bo", 7);
    let mut rig = live(&db("posture = [\"laptop\"]"), &mut bo, &["db"]);
    for _ in 0..5 {
        rig.pass_secs(MINUTE);
        rig.call(&bo, encrypted(true)).expect("taken");
    }
    rig.events.clear();
    rig.pass_secs(3 * MINUTE);
    assert_eq!(rig.kernel.peers.len(), 1);
    let missed = |event: &&Event| matches!(event, Event::PostureRequired(_));
    assert_eq!(
        rig.told(&bo).iter().filter(|event| missed(event)).count(),
        2
    );
    rig.pass_secs(5);
    assert!(rig.kernel.is_empty(rig.now));
    let ended = rig.told(&bo).pop().expect("told").clone();
    assert!(matches!(ended, Event::Ended(ended) if ended.reason == "posture-missing"));
    let audit = rig.audited(AuditKind::SessionEnded)[0];
    assert_eq!(
        audit.reason,
        Some("the device stopped to report its posture")
    );
}

#[test]
fn a_session_that_needs_no_posture_lives_without_reports_to_its_end() {
    let mut bo = Device::of("bo", 7);
    let mut rig = live(BASE, &mut bo, &["wiki"]);
    rig.pass_secs(8 * HOUR - 5 * MINUTE);
    assert_eq!(ports(&rig), [443, 8700]);
    let told = rig.told(&bo);
    assert!(matches!(told.as_slice(), [Event::Ending(_)]), "{told:?}");
}

#[test]
fn a_session_is_told_ten_and_two_minutes_before_its_end() {
    let mut bo = Device::of("bo", 7);
    let mut rig = live(&db("for = \"1h\""), &mut bo, &["db"]);
    let endings = |rig: &Rig| {
        let told = rig.told(&bo);
        told.iter()
            .filter(|event| matches!(event, Event::Ending(_)))
            .count()
    };
    rig.pass_secs(50 * MINUTE - 2);
    assert_eq!(endings(&rig), 0);
    rig.pass_secs(2);
    assert_eq!(endings(&rig), 1);
    rig.pass_secs(8 * MINUTE - 3);
    assert_eq!(endings(&rig), 1);
    rig.pass_secs(3);
    assert_eq!(endings(&rig), 2);
    rig.pass_secs(2 * MINUTE);
    assert_eq!(endings(&rig), 2);
    assert!(matches!(rig.told(&bo).last(), Some(Event::Ended(ended)) if ended.reason == "expired"));
}

#[test]
fn a_session_is_renewed_to_the_limit_and_not_beyond() {
    let mut bo = Device::of("bo", 7);
    let mut rig = Rig::with(&[&bo]);
    put(&mut rig, &db("for = \"3h\""));
    let mut ask = rig.open_ask(&mut bo, &["db"]);
    if let spa_proto::Ask::Open(open) = &mut ask {
        open.minutes = 60;
    }
    rig.ask(&mut bo, ask).expect("an answer");
    assert!(rig.shake(&bo));
    let opened = rig.gateway.sessions().next().expect("one").opened;
    let limit = opened.saturating_add(Duration::from_secs(3 * HOUR));
    assert_eq!(grants(&mut rig, &bo).renewable_until, limit);
    rig.pass_secs(59 * MINUTE);
    rig.did.clear();
    let renewed = rig
        .call(&bo, Call::Renew(Renew { minutes: 60 }))
        .expect("more time");
    let CallAnswer::Renewed(renewed) = renewed else {
        panic!("{renewed:?}");
    };
    assert_eq!(
        renewed.not_after,
        rig.now.wall.saturating_add(Duration::from_secs(HOUR))
    );
    assert_eq!(rig.did.first(), Some(&Did::Record));
    assert!(matches!(rig.told(&bo).last(), Some(Event::Extended(_))));
    // The kernel keeps it open as long, door and flows, and no longer.
    rig.pass_secs(59 * MINUTE);
    assert_eq!(ports(&rig), [5432, 8000, 8700]);
    assert_eq!(rig.kernel.doors(rig.now).len(), 1);
    assert_eq!(rig.store.sessions[0].not_after, renewed.not_after);
    let renewed = rig
        .call(&bo, Call::Renew(Renew { minutes: 0 }))
        .expect("more time");
    assert!(matches!(renewed, CallAnswer::Renewed(renewed) if renewed.not_after == limit));
    let refused = rig.call(&bo, Call::Renew(Renew { minutes: 600 }));
    assert!(
        matches!(refused, Err(CallRefusal::Refused(_))),
        "{refused:?}"
    );
    let left = limit.since(rig.now.wall);
    rig.pass(left - Duration::from_secs(1));
    assert_eq!(rig.kernel.peers.len(), 1);
    rig.pass_secs(1);
    assert!(ports(&rig).is_empty());
    rig.pass(LAST_WORD);
    assert!(rig.kernel.is_empty(rig.now));
}

/// A policy that comes while a renewal is on its way to the disk counts, however long the renewal was to be.
#[test]
fn a_renewal_gives_no_more_than_the_policy_of_the_moment_it_holds() {
    let mut bo = Device::of("bo", 7);
    let mut rig = Rig::with(&[&bo]);
    put(&mut rig, &db("for = \"3h\""));
    let mut ask = rig.open_ask(&mut bo, &["db"]);
    if let spa_proto::Ask::Open(open) = &mut ask {
        open.minutes = 20;
    }
    rig.ask(&mut bo, ask).expect("an answer");
    assert!(rig.shake(&bo));
    let (id, key) = bo.session.as_ref().expect("a session");
    let bearer = control_bearer(key);
    let caller = crate::Caller {
        source: rig.tunnel_of(*id),
        bearer: bearer.as_bytes(),
    };
    let renew = Call::Renew(Renew { minutes: 120 });
    let call = crate::CallId(9);
    rig.gateway
        .handle_call(call, caller, renew, rig.now, &mut rig.entropy);
    put(&mut rig, &db("for = \"10m\""));
    let session = rig.gateway.sessions().next().expect("one");
    let end = session
        .opened
        .saturating_add(Duration::from_secs(10 * MINUTE));
    assert_eq!(session.not_after, end);
    assert_eq!(rig.store.sessions[0].not_after, end);
    rig.pass_secs(10 * MINUTE);
    assert!(ports(&rig).is_empty());
}

#[test]
fn a_renewal_never_goes_beyond_eight_hours_and_never_shortens() {
    let mut bo = Device::of("bo", 7);
    let mut rig = live(&db("for = \"12h\""), &mut bo, &["db"]);
    rig.pass_secs(MINUTE);
    for minutes in [0, 1, 720] {
        let refused = rig.call(&bo, Call::Renew(Renew { minutes }));
        assert!(
            matches!(refused, Err(CallRefusal::Refused(_))),
            "{refused:?}"
        );
    }
    rig.pass_secs(12 * HOUR - 2 * MINUTE);
    assert_eq!(rig.kernel.peers.len(), 1);
}

#[test]
fn a_renewal_that_is_not_on_disk_keeps_nothing_open() {
    let mut bo = Device::of("bo", 7);
    let mut rig = Rig::with(&[&bo]);
    put(&mut rig, &db(""));
    let mut ask = rig.open_ask(&mut bo, &["db"]);
    if let spa_proto::Ask::Open(open) = &mut ask {
        open.minutes = 60;
    }
    rig.ask(&mut bo, ask).expect("an answer");
    assert!(rig.shake(&bo));
    rig.store_works = false;
    rig.refuses = |order| matches!(order, Order::Flow { .. });
    let refused = rig.call(&bo, Call::Renew(Renew { minutes: 90 }));
    assert_eq!(refused, Err(CallRefusal::Failed));
    // The way of the last word stays for it, and no longer.
    assert_eq!(ports(&rig), [8700]);
    rig.pass(LAST_WORD);
    assert_eq!(rig.kernel.flows(rig.now).len(), 0);
}

#[test]
fn why_tells_the_person_of_their_own_device_and_nothing_of_the_rules() {
    let mut bo = Device::of("bo", 7);
    let policy = db("posture = [\"laptop\"]\nrisk = \"<= 40\"");
    let mut rig = live(&policy, &mut bo, &["wiki"]);
    rig.call(&bo, encrypted(false)).expect("taken");
    let mut why = |name: &str| match rig.call(&bo, Call::Why(name.into())) {
        Ok(CallAnswer::Why(why)) => why,
        other => panic!("{other:?}"),
    };
    assert_eq!(why("wiki").verdict, "granted");
    let db = why("db");
    assert_eq!(db.verdict, "posture");
    assert!(
        db.unmet
            .iter()
            .any(|unmet| unmet.about.contains("disk_encryption")),
        "{db:?}"
    );
    for none in ["nowhere", "", "../..", "a b"] {
        let why = why(none);
        assert_eq!((why.verdict.as_str(), why.unmet.len()), ("not-allowed", 0));
    }
}

#[test]
fn an_administrator_s_cut_and_lock_are_told_before_the_peer_is_gone() {
    let mut bo = Device::of("bo", 7);
    let mut rig = live(BASE, &mut bo, &["wiki"]);
    let cut = rig
        .gateway
        .cut_sessions(&Selector::Person(bo.person.clone()), rig.now)
        .expect("cut");
    assert_eq!(cut.len(), 1);
    let first = rig.gateway.poll_effect().expect("an effect");
    let mut effects = Vec::from([first]);
    effects.extend(core::iter::from_fn(|| rig.gateway.poll_effect()));
    let told = effects.iter().position(|effect| {
        matches!(&effect.kind, crate::EffectKind::Event { event: Event::Ended(ended), .. } if ended.reason == "cut")
    });
    let gone = effects.iter().position(|effect| {
        matches!(
            &effect.kind,
            crate::EffectKind::Order(Order::RemovePeer { .. })
        )
    });
    assert!(told.expect("told") < gone.expect("closed"));
}

#[test]
fn a_session_of_more_risk_is_looked_at_more_often() {
    let seconds = |risk| look_again(risk).as_secs();
    assert_eq!([0, 24].map(|risk| seconds(Some(risk))), [600, 600]);
    assert_eq!([25, 49].map(|risk| seconds(Some(risk))), [300, 300]);
    assert_eq!([50, 74].map(|risk| seconds(Some(risk))), [180, 180]);
    assert_eq!([Some(75), Some(u16::MAX), None].map(seconds), [60, 60, 60]);
}

#[test]
fn without_a_channel_nobody_is_asked_to_report() {
    let mut bo = Device::of("bo", 7);
    let mut settings = super::rig::settings();
    settings.control_port = None;
    let mut rig = Rig::restored(super::rig::store_of(&[&bo]), settings);
    put(&mut rig, &db("posture = [\"laptop\"]"));
    open(&mut rig, &mut bo, &["db"]);
    rig.pass_secs(5 * MINUTE);
    assert_eq!(ports(&rig), [5432, 8000]);
    assert!(rig.events.is_empty());
}

#[test]
fn a_retry_beside_the_last_word_forgets_no_step() {
    let mut bo = Device::of("bo", 7);
    let mut rig = live(BASE, &mut bo, &["wiki"]);
    rig.did.clear();
    rig.refuses = |order| matches!(order, Order::CloseFlow { .. });
    assert_eq!(rig.call(&bo, Call::Close), Ok(CallAnswer::Done));
    rig.pass(LAST_ANSWER - Duration::from_millis(1));
    rig.refuses = |order| matches!(order, Order::RemovePeer { .. });
    rig.pass(Duration::from_millis(1));
    assert_eq!(rig.kernel.peers.len(), 1);
    assert_eq!(rig.audited(AuditKind::SessionEnded).len(), 0);
    rig.refuses = |_| false;
    rig.pass(RETRY);
    assert!(rig.kernel.is_empty(rig.now), "{:?}", rig.did);
    assert_eq!(rig.audited(AuditKind::SessionEnded).len(), 1);
}
