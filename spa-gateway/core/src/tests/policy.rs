//! What policy does to knocks and live sessions: each promise of policy where packets flow.

use alloc::boxed::Box;
use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use core::time::Duration;

use spa_order::Flow;
use spa_proto::{Ask, Outcome, SessionReply, Verdict};

use super::rig::{Device, Did, Rig, firewall};
use crate::policy::Question;
use crate::{AuditKind, DeviceRef, LockTarget, Name, Policy};

pub(super) const RESOURCES: &str = r#"
    [group]
    eng = ["bot", "bo"]
    ops = ["bo"]
    [resource]
    wiki = { to = "10.0.5.10", ports = ["443/tcp"] }
    db   = { to = "10.0.6.0/28", ports = ["5432/tcp"] }
    plc  = { to = "10.0.9.20", ports = ["502/tcp"], mode = "observe" }
    [posture.laptop]
    firewall = true
    max_age = "10m"
    [[allow]]
    name = "wiki"
    who = ["group:eng"]
    to = ["wiki"]
"#;
pub(super) const WIKI: (u16, u16) = (443, 443);
pub(super) const DB: (u16, u16) = (5432, 5432);
/// A report: the firewall is on, or off.
pub(super) const ON: &[u8] = b"\xa1\x68firewall\xf5";
pub(super) const OFF: &[u8] = b"\xa1\x68firewall\xf4";
pub(super) const HOUR: u64 = 60 * 60;

/// A rule for the db.
pub(super) fn db(rest: &str) -> String {
    format!("{RESOURCES}\n[[allow]]\nname = \"db\"\nwho = [\"group:eng\"]\nto = [\"db\"]\n{rest}\n")
}

pub(super) fn rig(bot: &Device, policy: &str) -> Rig {
    let mut rig = Rig::with(&[bot]);
    put(&mut rig, policy);
    rig
}

pub(super) fn put(rig: &mut Rig, policy: &str) {
    let policy = Policy::parse(policy).unwrap_or_else(|error| panic!("{error}"));
    rig.gateway.handle_policy(policy, None, rig.now);
    rig.run();
}

pub(super) fn has(rig: &Rig, ports: (u16, u16)) -> bool {
    let flow = |flow: &Flow| flow.ports == ports;
    rig.kernel.flows(rig.now).iter().any(flow)
}

/// Opens a session and shakes hands.
pub(super) fn live(rig: &mut Rig, bot: &mut Device, resources: &[&str]) -> Box<SessionReply> {
    let reply = rig.open(bot, resources).expect("a session");
    assert!(rig.shake(bot));
    reply
}

/// Knocks with a report; gives the verdicts.
pub(super) fn knock(
    rig: &mut Rig,
    bot: &mut Device,
    resources: &[&str],
    report: Option<&[u8]>,
) -> (bool, Vec<Verdict>) {
    let mut ask = rig.open_ask(bot, resources);
    if let Ask::Open(open) = &mut ask {
        open.posture = report.map(Into::into);
    }
    let (opened, verdicts) = match rig.ask(bot, ask).expect("an answer") {
        Outcome::Session(session) => (true, session.verdicts),
        Outcome::Refused { verdicts, .. } => (false, verdicts),
        other => panic!("{other:?}"),
    };
    (
        opened,
        verdicts.into_iter().map(|(_, verdict)| verdict).collect(),
    )
}

pub(super) fn name(text: &str) -> Name {
    Name::parse(text).expect("a name")
}

fn target(text: &str) -> LockTarget {
    LockTarget::parse(text).expect("a target")
}

#[test]
fn the_end_of_a_window_cuts_its_resource_on_the_second_and_nothing_else() {
    // The world begins on Friday, 2027-01-15 08:00 UTC.
    let mut bot = Device::of("bot", 7);
    let mut rig = rig(&bot, &db("when = \"Fri 08:00-09:00\""));
    let reply = live(&mut rig, &mut bot, &["wiki", "db"]);
    assert_eq!(
        reply.not_after,
        rig.now
            .wall
            .saturating_add(Duration::from_secs(8 * HOUR) - Duration::from_millis(100))
    );
    let left = 9 * HOUR * 1000 - (rig.now.wall.as_millis() % (24 * HOUR * 1000));
    rig.pass(Duration::from_millis(left - 1));
    assert!(has(&rig, DB) && has(&rig, WIKI));
    let orders = rig.did.len();
    rig.pass(Duration::from_millis(1));
    assert!(!has(&rig, DB) && has(&rig, WIKI));
    let did = &rig.did[orders..];
    assert!(
        did.contains(&Did::CloseFlow) && !did.contains(&Did::Forget),
        "{did:?}"
    );
    assert!(!did.contains(&Did::RemovePeer));
    assert_eq!(rig.store.sessions[0].resources, [name("wiki")]);
    // Kernel timeouts alone would have done it, too: the flow's time was the window's.
    let mut again = rig_with_dead_daemon();
    again.0.now.mono = again.0.now.mono.after(Duration::from_millis(again.1));
    assert!(!has(&again.0, DB) && has(&again.0, WIKI));
}

/// A world whose daemon does nothing any more; gives the milliseconds until the window closes.
fn rig_with_dead_daemon() -> (Rig, u64) {
    let mut bot = Device::of("bot", 7);
    let mut rig = rig(&bot, &db("when = \"Fri 08:00-09:00\""));
    live(&mut rig, &mut bot, &["wiki", "db"]);
    let left = 9 * HOUR * 1000 - (rig.now.wall.as_millis() % (24 * HOUR * 1000));
    (rig, left)
}

#[test]
fn a_session_ends_with_the_last_of_its_resources() {
    let mut bot = Device::of("bot", 7);
    let mut rig = rig(&bot, &db("when = \"Fri 08:00-09:00\""));
    let reply = live(&mut rig, &mut bot, &["db"]);
    assert_eq!(
        reply.not_after.since(rig.now.wall),
        Duration::from_secs(HOUR) - Duration::from_millis(100)
    );
    rig.pass(Duration::from_secs(HOUR));
    assert!(rig.kernel.is_empty(rig.now));
}

#[test]
fn a_verdict_says_why() {
    let mut bot = Device::of("bot", 7);
    for (rest, verdict) in [
        ("when = \"Sun\"", Verdict::TimeWindow),
        ("posture = [\"laptop\"]", Verdict::Posture),
        ("risk = \"<= 5\"", Verdict::Risk),
        ("approve = [\"bo\"]", Verdict::ApprovalNeeded),
        ("from = [\"10.9.9.9\"]", Verdict::NotAllowed),
        ("factors = [\"totp\"]", Verdict::NotAllowed),
    ] {
        let mut rig = rig(&bot, &db(rest));
        let (opened, verdicts) = knock(&mut rig, &mut bot, &["db", "wiki", "none"], None);
        assert!(opened);
        assert_eq!(
            verdicts,
            [verdict, Verdict::Granted, Verdict::NotAllowed],
            "{rest}"
        );
        assert!(!has(&rig, DB) && has(&rig, WIKI));
    }
}

#[test]
fn posture_lets_in_and_losing_it_cuts_only_what_needs_it() {
    let mut bot = Device::of("bot", 7);
    let mut rig = rig(&bot, &db("posture = [\"laptop\"]"));
    let (_, verdicts) = knock(&mut rig, &mut bot, &["db", "wiki"], Some(OFF));
    assert_eq!(verdicts, [Verdict::Posture, Verdict::Granted]);
    rig.pass_secs(1);
    let (_, verdicts) = knock(&mut rig, &mut bot, &["db", "wiki"], Some(ON));
    assert_eq!(verdicts, [Verdict::Granted, Verdict::Granted]);
    assert!(rig.shake(&bot));
    // As long as it reports, it goes on beyond the age of one report.
    for _ in 0..20 {
        rig.pass_secs(60);
        rig.call(&bot, firewall(true)).expect("taken");
    }
    assert!(has(&rig, DB) && has(&rig, WIKI));
    rig.call(&bot, firewall(false)).expect("taken");
    assert!(!has(&rig, DB) && has(&rig, WIKI));
}

#[test]
fn a_device_that_stops_reporting_loses_what_needs_posture() {
    let mut bot = Device::of("bot", 7);
    let mut rig = rig(&bot, &db("posture = [\"laptop\"]"));
    knock(&mut rig, &mut bot, &["db", "wiki"], Some(ON));
    assert!(rig.shake(&bot));
    // Three reports of one a minute, and some seconds for a slow network.
    rig.pass_secs(3 * 60);
    assert!(has(&rig, DB));
    rig.pass_secs(5);
    assert!(!has(&rig, DB) && has(&rig, WIKI));
}

#[test]
fn a_lock_ends_live_sessions_at_once_and_outlives_a_restart() {
    for lock in [
        "user:bot",
        "device:bot/laptop",
        "source:198.51.100.0/24",
        "all",
    ] {
        let mut bot = Device::of("bot", 7);
        let mut rig = rig(&bot, RESOURCES);
        live(&mut rig, &mut bot, &["wiki"]);
        let accepted = rig
            .gateway
            .lock(target(lock), None, "stolen".into(), rig.now)
            .expect("locked");
        assert_eq!(accepted.value, [bot.session_id()]);
        rig.run();
        assert!(rig.kernel.is_empty(rig.now), "{lock}");
        assert_eq!(
            rig.audited(AuditKind::SessionEnded)[0].reason,
            Some("locked by an administrator")
        );
        rig.restart();
        rig.pass_secs(1);
        assert_eq!(
            knock(&mut rig, &mut bot, &["wiki"], None),
            (false, [Verdict::Locked].into()),
            "{lock}"
        );
        rig.gateway.unlock(&target(lock)).expect("there is one");
        rig.run();
        rig.pass_secs(1);
        assert!(knock(&mut rig, &mut bot, &["wiki"], None).0);
        assert!(rig.store.locks.is_empty());
    }
}

#[test]
fn a_lock_of_others_touches_nobody_else_and_a_lock_ends_by_itself() {
    let mut bot = Device::of("bot", 7);
    let mut rig = rig(&bot, RESOURCES);
    live(&mut rig, &mut bot, &["wiki"]);
    let other = rig.gateway.lock(
        target("source:203.0.113.0/24"),
        None,
        String::new(),
        rig.now,
    );
    assert!(other.expect("locked").value.is_empty());
    assert!(has(&rig, WIKI));
    let nobody = rig
        .gateway
        .lock(target("user:carol"), None, String::new(), rig.now);
    assert!(nobody.is_err());
    let minute = Some(Duration::from_secs(60));
    rig.gateway
        .lock(target("user:bot"), minute, String::new(), rig.now)
        .expect("locked");
    rig.run();
    assert!(!has(&rig, WIKI));
    rig.pass_secs(61);
    assert!(knock(&mut rig, &mut bot, &["wiki"], None).0);
    rig.pass_secs(60);
    assert_eq!(rig.store.locks.len(), 1, "the one that has ended is gone");
}

/// A stricter allow of a higher priority decides from the second its window opens, and not at the next look.
#[test]
fn an_allow_whose_window_opens_decides_from_then_on() {
    let mut bot = Device::of("bot", 7);
    let strict = "for = \"2h\"\n[[allow]]\nname = \"strict\"\npriority = 600\nwho = [\"group:eng\"]\nto = [\"db\"]\n\
                  when = \"Fri 09:00-10:00\"\nfor = \"30m\"";
    let mut rig = rig(&bot, &db(strict));
    live(&mut rig, &mut bot, &["wiki", "db"]);
    let opens = 9 * HOUR * 1000 - (rig.now.wall.as_millis() % (24 * HOUR * 1000));
    rig.pass(Duration::from_millis(opens - 1_000));
    assert!(has(&rig, DB));
    rig.pass_secs(1);
    assert!(!has(&rig, DB) && has(&rig, WIKI));
}

#[test]
fn a_grant_opens_what_no_rule_does_and_dies_by_itself() {
    let mut bot = Device::of("bot", 7);
    let mut rig = rig(&bot, RESOURCES);
    assert_eq!(
        knock(&mut rig, &mut bot, &["db"], None),
        (false, [Verdict::NotAllowed].into())
    );
    let hour = Duration::from_secs(HOUR);
    rig.gateway
        .grant_access(&name("bot"), &name("db"), hour, "outage".into(), rig.now)
        .expect("granted");
    rig.run();
    rig.pass_secs(1);
    live(&mut rig, &mut bot, &["db", "wiki"]);
    rig.restart();
    assert!(has(&rig, DB) && has(&rig, WIKI));
    rig.pass_secs(HOUR);
    assert!(!has(&rig, DB) && has(&rig, WIKI));
    rig.pass_secs(60);
    assert!(rig.store.grants.is_empty());
}

#[test]
fn a_grant_taken_back_is_gone_at_once() {
    let mut bot = Device::of("bot", 7);
    let mut rig = rig(&bot, RESOURCES);
    let hour = Duration::from_secs(HOUR);
    let grant = rig
        .gateway
        .grant_access(&name("bot"), &name("db"), hour, String::new(), rig.now)
        .expect("granted");
    rig.run();
    live(&mut rig, &mut bot, &["db", "wiki"]);
    rig.gateway
        .end_exception(grant.value, rig.now)
        .expect("there");
    rig.run();
    assert!(!has(&rig, DB) && has(&rig, WIKI));
}

#[test]
fn an_approval_lets_a_waiting_request_through() {
    let mut bot = Device::of("bot", 7);
    let mut rig = rig(&bot, &db("approve = [\"group:ops\"]"));
    assert_eq!(
        knock(&mut rig, &mut bot, &["db"], None),
        (false, [Verdict::ApprovalNeeded].into())
    );
    rig.pass_secs(1);
    knock(&mut rig, &mut bot, &["db"], None);
    let waiting: Vec<_> = rig.gateway.waiting_requests().cloned().collect();
    assert_eq!(waiting.len(), 1, "the same wish waits once");
    let hour = Duration::from_secs(HOUR);
    for (by, may) in [("bot", false), ("carol", false), ("bo", true)] {
        let approved = rig.gateway.approve(waiting[0].id, &name(by), hour, rig.now);
        assert_eq!(approved.is_ok(), may, "{by}");
    }
    rig.run();
    let given = rig.audited(AuditKind::ApprovalGiven);
    assert_eq!(given[0].note.as_deref(), Some("by bo, for rule db"));
    rig.pass_secs(1);
    live(&mut rig, &mut bot, &["db", "wiki"]);
    assert!(has(&rig, DB));
    rig.pass_secs(HOUR);
    assert!(!has(&rig, DB) && has(&rig, WIKI));
}

#[test]
fn leaving_a_group_cuts_one_of_two_resources() {
    let mut bot = Device::of("bot", 7);
    let both = RESOURCES.replace("who = [\"group:eng\"]", "who = [\"bot\"]");
    let rules = |eng: &str| {
        let text =
            format!("{both}\n[[allow]]\nname = \"db\"\nwho = [\"group:eng\"]\nto = [\"db\"]\n");
        text.replace("eng = [\"bot\", \"bo\"]", eng)
    };
    let mut rig = rig(&bot, &rules("eng = [\"bot\"]"));
    live(&mut rig, &mut bot, &["wiki", "db"]);
    let without = Policy::parse(&rules("eng = []")).expect("a policy");
    let cut = rig.gateway.would_cut(&without, rig.now);
    assert_eq!(cut.len(), 1);
    assert_eq!((cut[0].session, cut[0].ends), (bot.session_id(), false));
    assert_eq!(cut[0].lost, [name("db")]);
    rig.gateway.handle_policy(without, None, rig.now);
    rig.run();
    assert!(!has(&rig, DB) && has(&rig, WIKI));
    assert_eq!(rig.gateway.sessions().count(), 1);
}

#[test]
fn what_is_being_learned_passes_when_asked_for_and_is_noted() {
    let mut bot = Device::of("bot", 7);
    let mut rig = rig(&bot, RESOURCES);
    assert!(knock(&mut rig, &mut bot, &["plc"], None).0);
    let noted = rig.audited(AuditKind::WouldBeDenied);
    assert_eq!(noted.len(), 1);
    assert_eq!(noted[0].resources, [name("plc")]);
    assert_eq!(noted[0].reason, Some("no rule"));
}

#[test]
fn failures_before_a_knock_raise_its_risk() {
    let mut bot = Device::of("bot", 7);
    let limit = db("risk = \"<= 42\"");
    let mut rig = rig(&bot, &limit);
    // A new network is 30, no posture is 10, each failure 5.
    assert_eq!(
        knock(&mut rig, &mut bot, &["db"], None).1,
        [Verdict::Granted]
    );
    let mut rig = self::rig(&bot, &limit);
    let right = core::mem::replace(&mut bot.q, spa_proto::ProofSecret::from_seed(&[0; 32]));
    let ask = rig.open_ask(&mut bot, &["db"]);
    assert!(rig.ask(&mut bot, ask).is_none());
    bot.q = right;
    // One failure token after a restart, and one more every ten minutes.
    rig.pass_secs(600);
    assert_eq!(knock(&mut rig, &mut bot, &["db"], None).1, [Verdict::Risk]);
}

#[test]
fn explain_knows_what_the_gateway_knows() {
    let mut bot = Device::of("bot", 7);
    let mut rig = rig(&bot, &db("posture = [\"laptop\"]"));
    knock(&mut rig, &mut bot, &["wiki"], Some(ON));
    let device = DeviceRef {
        person: name("bot"),
        label: "laptop".into(),
    };
    let question = Question::new(name("bot"), name("db"));
    let explain = |rig: &Rig, device| {
        rig.gateway
            .explain(&question, device, rig.now)
            .expect("an answer")
            .decision
            .allowed()
            .is_some()
    };
    assert!(explain(&rig, Some(&device)));
    assert!(!explain(&rig, None), "no device, no posture");
    rig.gateway
        .lock(target("user:bot"), None, String::new(), rig.now)
        .expect("locked");
    assert!(!explain(&rig, Some(&device)));
    let stranger = Question::new(name("carol"), name("db"));
    assert!(rig.gateway.explain(&stranger, None, rig.now).is_err());
}

/// Knocks from elsewhere for the session it has; gives whether the session goes there.
fn roams(rig: &mut Rig, bot: &mut Device, source: &str) -> bool {
    bot.source = source.parse().expect("an address");
    let roam = Ask::Roam(bot.session_id());
    match rig.ask(bot, roam).expect("an answer") {
        Outcome::Session(_) => true,
        Outcome::Refused { .. } => false,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_session_that_roams_keeps_only_what_policy_gives_there() {
    let mut bot = Device::of("bot", 7);
    let home = bot.source;
    let mut rig = rig(&bot, &db(&format!("from = [\"{}\"]", home.ip())));
    live(&mut rig, &mut bot, &["wiki", "db"]);
    assert!(roams(&mut rig, &mut bot, "203.0.113.50:41000"));
    assert!(!has(&rig, DB) && has(&rig, WIKI));
    assert_eq!(rig.kernel.doors(rig.now), [bot.door()]);
    // Nor does it get back by going back.
    assert!(roams(&mut rig, &mut bot, &home.to_string()));
    assert!(!has(&rig, DB) && has(&rig, WIKI));
}

#[test]
fn a_session_does_not_roam_to_where_it_would_have_nothing() {
    let mut bot = Device::of("bot", 7);
    let home = bot.source;
    let mut rig = rig(&bot, RESOURCES);
    live(&mut rig, &mut bot, &["wiki"]);
    let lock = target("source:203.0.113.0/24");
    rig.gateway
        .lock(lock, None, String::new(), rig.now)
        .expect("locked");
    rig.run();
    let doors = rig.kernel.doors(rig.now);
    assert!(!roams(&mut rig, &mut bot, "203.0.113.50:41000"));
    assert_eq!(rig.kernel.doors(rig.now), doors);
    // Somebody who relays its knock from there has ended nothing.
    assert!(has(&rig, WIKI));
    assert!(roams(&mut rig, &mut bot, &home.to_string()));
    let elsewhere = RESOURCES.replace(
        "to = [\"wiki\"]",
        &format!("to = [\"wiki\"]\nfrom = [\"{}\"]", home.ip()),
    );
    put(&mut rig, &elsewhere);
    assert!(!roams(&mut rig, &mut bot, "192.0.2.50:41000"));
    assert!(has(&rig, WIKI));
}

#[test]
fn a_deny_whose_window_opens_ends_what_it_takes_on_the_second() {
    // The world begins on Friday, 2027-01-15 08:00 UTC.
    let mut bot = Device::of("bot", 7);
    let deny =
        "[[deny]]\nname = \"lunch\"\nwho = [\"bot\"]\nto = [\"db\"]\nwhen = \"12:00-13:00\"\n";
    let mut rig = rig(&bot, &format!("{}{deny}", db("")));
    live(&mut rig, &mut bot, &["wiki", "db"]);
    let left = 12 * HOUR * 1000 - (rig.now.wall.as_millis() % (24 * HOUR * 1000));
    rig.pass(Duration::from_millis(left - 1));
    assert!(has(&rig, DB) && has(&rig, WIKI));
    rig.pass(Duration::from_millis(1));
    assert!(!has(&rig, DB) && has(&rig, WIKI));
}

#[test]
fn explain_says_no_for_whom_no_knock_gets_anything() {
    let bot = Device::of("bot", 7);
    let mut rig = rig(&bot, RESOURCES);
    let device = DeviceRef {
        person: name("bot"),
        label: "laptop".into(),
    };
    let wiki = Question::new(name("bot"), name("wiki"));
    let why = |rig: &Rig| {
        let trace = rig.gateway.explain(&wiki, Some(&device), rig.now);
        let trace = trace.expect("it exists");
        (trace.decision.allowed().is_some(), trace.changes)
    };
    assert!(why(&rig).0);
    rig.gateway
        .revoke_device(&device, rig.now)
        .expect("revoked");
    rig.run();
    let (allowed, changes) = why(&rig);
    assert!(
        !allowed && changes[0].contains("device enable bot/"),
        "{changes:?}"
    );
    rig.gateway
        .disable_person(&name("bot"), rig.now)
        .expect("disabled");
    rig.run();
    let (allowed, changes) = why(&rig);
    assert!(
        !allowed && changes[0].contains("user enable bot"),
        "{changes:?}"
    );
}

#[test]
fn what_a_policy_would_cut_is_what_it_cuts() {
    let mut bot = Device::of("bot", 7);
    let mut rig = rig(&bot, &db(""));
    live(&mut rig, &mut bot, &["wiki", "db"]);
    rig.pass_secs(HOUR);
    // Two hours for one are two hours for the session; half an hour is over.
    for (length, lost) in [("2h", &[][..]), ("30m", &[name("db")])] {
        let policy = Policy::parse(&db(&format!("for = \"{length}\""))).expect("a policy");
        let cuts = rig.gateway.would_cut(&policy, rig.now);
        assert_eq!((&cuts[0].lost[..], cuts[0].ends), (lost, false), "{length}");
        rig.gateway.handle_policy(policy, None, rig.now);
        rig.run();
        let session = rig.gateway.sessions().next().expect("it is live");
        let shortened: Vec<_> = cuts[0].shortened.keys().cloned().collect();
        if lost.is_empty() {
            assert_eq!(shortened, [name("db"), name("wiki")]);
            assert!(
                cuts[0]
                    .shortened
                    .values()
                    .all(|end| *end == session.not_after)
            );
        } else {
            assert!(!has(&rig, DB) && has(&rig, WIKI));
        }
    }
}

#[test]
fn an_exception_is_in_the_audit_with_who_and_why() {
    let bot = Device::of("bot", 7);
    let mut rig = rig(&bot, RESOURCES);
    let hour = Duration::from_secs(HOUR);
    rig.gateway
        .grant_access(
            &name("bot"),
            &name("db"),
            hour,
            "incident 7".into(),
            rig.now,
        )
        .expect("granted");
    rig.run();
    let made = rig.audited(AuditKind::GrantMade);
    assert_eq!(made[0].note.as_deref(), Some("incident 7"));
}
