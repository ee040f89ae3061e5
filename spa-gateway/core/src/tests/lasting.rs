//! What a restart must not forget, what changes while a session is open, and what ends by itself.

use core::time::Duration;

use spa_proto::Verdict;

use super::policy::{DB, HOUR, ON, RESOURCES, WIKI, db, has, knock, live, name, put, rig};
use super::rig::{Device, Rig};
use crate::{AuditKind, LockTarget, MAX_WAITING};

/// A knock that proves nothing.
fn fail(rig: &mut Rig, bot: &mut Device) {
    let right = core::mem::replace(&mut bot.q, spa_proto::ProofSecret::from_seed(&[0; 32]));
    let ask = rig.open_ask(bot, &["wiki"]);
    assert!(rig.ask(bot, ask).is_none());
    bot.q = right;
}

#[test]
fn a_restart_does_not_forget_where_somebody_was_seen() {
    let mut bot = Device::of("bot", 7);
    // A new network is 30, no posture is 10.
    let strict = db("risk = \"<= 20\"");
    let mut rig = rig(&bot, &strict);
    assert_eq!(
        knock(&mut rig, &mut bot, &["db", "wiki"], None).1,
        [Verdict::Risk, Verdict::Granted]
    );
    rig.restart();
    rig.pass_secs(1);
    assert_eq!(
        knock(&mut rig, &mut bot, &["db", "wiki"], None).1,
        [Verdict::Granted, Verdict::Granted]
    );
    let habits = &rig.store.habits[0];
    assert_eq!(habits.person, name("bot"));
    assert_eq!(habits.networks.len(), 1);
    assert_eq!(habits.hours.iter().sum::<u32>(), 2);
}

#[test]
fn a_session_under_a_limit_of_risk_outlives_a_restart() {
    let mut bot = Device::of("bot", 7);
    let mut rig = rig(&bot, &db("risk = \"<= 40\""));
    live(&mut rig, &mut bot, &["db", "wiki"]);
    rig.restart();
    assert!(has(&rig, DB) && has(&rig, WIKI));
    // What it was opened with still counts: its network was new then.
    put(&mut rig, &db("risk = \"<= 20\""));
    assert!(!has(&rig, DB) && has(&rig, WIKI));
}

#[test]
fn failures_while_a_session_is_open_cut_what_the_risk_no_longer_allows() {
    let mut bot = Device::of("bot", 7);
    let mut rig = rig(&bot, &db("risk = \"<= 42\""));
    live(&mut rig, &mut bot, &["db", "wiki"]);
    assert!(has(&rig, DB));
    fail(&mut rig, &mut bot);
    assert!(!has(&rig, DB) && has(&rig, WIKI), "40 and 5 are above 42");
}

#[test]
fn facts_that_grow_old_raise_the_risk_of_a_session_on_time() {
    let mut bot = Device::of("bot", 7);
    // 30 for the new network; 10 more once the posture is older than an hour.
    // Nobody serves the channel, so nobody waits for reports either.
    let mut settings = super::rig::settings();
    settings.control_port = None;
    let mut rig = Rig::restored(super::rig::store_of(&[&bot]), settings);
    put(&mut rig, &db("risk = \"<= 30\""));
    let (_, verdicts) = knock(&mut rig, &mut bot, &["db", "wiki"], Some(ON));
    assert_eq!(verdicts, [Verdict::Granted, Verdict::Granted]);
    assert!(rig.shake(&bot));
    rig.pass_secs(HOUR - 1);
    assert!(has(&rig, DB) && has(&rig, WIKI));
    rig.pass_secs(1);
    assert!(!has(&rig, DB) && has(&rig, WIKI));
}

#[test]
fn a_request_that_waits_outlives_a_restart() {
    let mut bot = Device::of("bot", 7);
    let mut rig = rig(&bot, &db("approve = [\"group:ops\"]"));
    let ask = knock(&mut rig, &mut bot, &["db", "wiki"], None);
    assert_eq!(ask.1, [Verdict::ApprovalNeeded, Verdict::Granted]);
    rig.restart();
    rig.pass_secs(1);
    knock(&mut rig, &mut bot, &["db", "wiki"], None);
    let waiting: alloc::vec::Vec<_> = rig.gateway.waiting_requests().cloned().collect();
    assert_eq!(waiting.len(), 1, "the same wish waits once");
    assert_eq!(rig.store.waiting, waiting);
    let hour = Duration::from_secs(HOUR);
    rig.gateway
        .approve(waiting[0].id, &name("bo"), hour, rig.now)
        .expect("bo may");
    rig.run();
    assert!(rig.store.waiting.is_empty());
    rig.restart();
    rig.pass_secs(1);
    live(&mut rig, &mut bot, &["db"]);
    assert!(has(&rig, DB));
}

#[test]
fn a_request_waits_for_a_week_and_can_be_turned_down() {
    let mut bot = Device::of("bot", 7);
    let policy = db("approve = [\"group:ops\"]");
    let mut rig = rig(&bot, &policy);
    knock(&mut rig, &mut bot, &["db"], None);
    let id = rig.gateway.waiting_requests().next().expect("one").id;
    rig.gateway.end_exception(id, rig.now).expect("turned down");
    rig.run();
    assert!(rig.store.waiting.is_empty());
    rig.pass_secs(1);
    knock(&mut rig, &mut bot, &["db"], None);
    rig.pass(crate::WAITS - Duration::from_millis(1));
    assert_eq!(rig.store.waiting.len(), 1);
    rig.pass(Duration::from_millis(1));
    assert!(rig.store.waiting.is_empty());
    assert_eq!(rig.gateway.waiting_requests().count(), 0);
}

#[test]
fn the_oldest_of_too_many_requests_leaves_the_store_as_well() {
    let mut bot = Device::of("bot", 7);
    let mut rig = rig(&bot, &db("approve = [\"group:ops\"]"));
    knock(&mut rig, &mut bot, &["db"], None);
    let first = rig.store.waiting[0].id;
    for number in 0..MAX_WAITING {
        let rule = name(&alloc::format!("rule-{number}"));
        let changes = rig
            .gateway
            .await_approval(&name("bo"), name("db"), &rule, rig.now);
        for change in changes {
            rig.store.apply(change);
        }
    }
    assert_eq!(rig.store.waiting.len(), MAX_WAITING);
    assert!(rig.store.waiting.iter().all(|row| row.id != first));
    assert_eq!(rig.gateway.waiting_requests().count(), MAX_WAITING);
}

#[test]
fn who_comes_under_a_name_again_inherits_nothing() {
    let mut bot = Device::of("bot", 7);
    let mut rig = rig(&bot, &db("approve = [\"group:ops\"]"));
    knock(&mut rig, &mut bot, &["db", "wiki"], None);
    let hour = Duration::from_secs(HOUR);
    rig.gateway
        .grant_access(&name("bot"), &name("plc"), hour, "old".into(), rig.now)
        .expect("granted");
    rig.run();
    rig.gateway
        .remove_person(&name("bot"), rig.now)
        .expect("removed");
    rig.run();
    let store = &rig.store;
    assert!(store.grants.is_empty() && store.waiting.is_empty() && store.habits.is_empty());
    assert_eq!(rig.gateway.grants().count(), 0);
    assert_eq!(rig.gateway.waiting_requests().count(), 0);
}

/// Between what was given and its record somebody takes it back: memory honours nothing that a restart would not.
#[test]
fn what_is_taken_back_before_it_is_on_disk_never_counts() {
    let mut bot = Device::of("bot", 7);
    let mut rig = rig(&bot, &db("approve = [\"group:ops\"]"));
    knock(&mut rig, &mut bot, &["db", "wiki"], None);
    let hour = Duration::from_secs(HOUR);
    let id = rig.gateway.waiting_requests().next().expect("one").id;
    rig.gateway
        .approve(id, &name("bo"), hour, rig.now)
        .expect("bo may");
    rig.gateway.end_exception(id, rig.now).expect("turned down");
    rig.run();
    assert_eq!(rig.gateway.approvals().count(), 0);
    assert!(rig.store.approvals.is_empty());

    rig.gateway
        .grant_access(&name("bot"), &name("plc"), hour, "why".into(), rig.now)
        .expect("granted");
    let terms = crate::InviteTerms {
        valid: hour,
        confirm: crate::Confirm::ByWords,
    };
    let invited = rig
        .gateway
        .invite(&name("bot"), terms, rig.now, &mut rig.entropy);
    invited.expect("invited");
    rig.gateway
        .remove_person(&name("bot"), rig.now)
        .expect("removed");
    rig.run();
    assert_eq!(rig.gateway.grants().count(), 0);
    assert!(rig.gateway.credentials.is_empty());
    assert!(rig.store.grants.is_empty() && rig.store.credentials.is_empty());
}

#[test]
fn the_end_of_a_lock_and_of_a_grant_is_in_the_audit_at_its_time() {
    let bot = Device::of("bot", 7);
    let mut rig = rig(&bot, RESOURCES);
    let target = LockTarget::parse("user:bot").expect("a target");
    rig.gateway
        .lock(target, Some(Duration::from_secs(20)), "why".into(), rig.now)
        .expect("locked");
    let length = Duration::from_secs(11);
    rig.gateway
        .grant_access(&name("bot"), &name("db"), length, "why".into(), rig.now)
        .expect("granted");
    rig.run();
    let began = rig.now.wall;
    rig.pass_secs(30);
    let end = |kind| {
        let ends = rig.audited(kind);
        assert_eq!(ends.len(), 1, "{kind:?}");
        ends[0].at.since(began).as_secs()
    };
    assert_eq!(end(AuditKind::ExceptionEnded), 11);
    assert_eq!(end(AuditKind::Unlocked), 20);
    let ended = rig.audited(AuditKind::ExceptionEnded)[0];
    assert_eq!(ended.resources, [name("db")]);
    assert!(rig.store.locks.is_empty() && rig.store.grants.is_empty());
}
