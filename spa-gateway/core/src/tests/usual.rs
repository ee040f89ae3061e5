//! What is more than usual raises the risk, says so, and cuts what a limit of risk forbids. It outlives a restart.

use alloc::string::String;
use core::time::Duration;

use super::policy::{DB, RESOURCES, WIKI, has, live, put, rig};
use super::rig::{Device, Rig};
use crate::policy::Policy;
use crate::{Amount, AuditKind, COUNT_EVERY, ENOUGH_DAYS, Name, Passed};

const DAY: u64 = 24 * 60 * 60;
const GB: u64 = 1 << 30;

/// The most of db that is in no case more than usual is a quarter of a gigabyte.
fn limited() -> String {
    let rule = "[[allow]]\nname = \"db\"\nwho = [\"group:eng\"]\nto = [\"db\"]\nrisk = \"<= 50\"\n";
    alloc::format!("{RESOURCES}\n{rule}")
}

fn name(text: &str) -> Name {
    Name::parse(text).expect("a name")
}

/// A person with a habit: some days of a little of db.
fn with_habit() -> (Rig, Device) {
    let mut bot = Device::of("bot", 7);
    let mut rig = rig(&bot, &limited());
    for _ in 0..=ENOUGH_DAYS {
        let little = Amount {
            bytes: 1_000_000,
            connections: 5,
        };
        rig.gateway.used(&name("bot"), &name("db"), little, rig.now);
        rig.pass_secs(DAY);
    }
    live(&mut rig, &mut bot, &["wiki", "db"]);
    // The first count is what all after it are compared with.
    rig.pass(COUNT_EVERY + Duration::from_secs(1));
    (rig, bot)
}

fn carry(rig: &mut Rig, ports: (u16, u16), bytes: u64) {
    for flow in rig.kernel.flows(rig.now) {
        if flow.ports == ports {
            let passed = rig.kernel.packets.entry(flow).or_default();
            *passed = Passed {
                packets: passed.packets + bytes / 1_000,
                bytes: passed.bytes + bytes,
            };
        }
    }
    rig.pass(COUNT_EVERY + Duration::from_secs(1));
}

#[test]
fn a_flood_out_of_habit_cuts_the_resource_that_has_a_limit_and_says_by_how_much() {
    let (mut rig, _) = with_habit();
    carry(&mut rig, DB, GB / 8);
    assert!(has(&rig, DB) && rig.audited(AuditKind::RiskRaised).is_empty());
    carry(&mut rig, DB, GB);
    assert!(!has(&rig, DB) && has(&rig, WIKI));
    let raised = rig.audited(AuditKind::RiskRaised);
    assert_eq!(raised.len(), 1);
    let note = raised[0].note.as_deref().expect("a note");
    assert!(
        note.starts_with("db: unusual_volume +25: 1.1 GiB today"),
        "{note}"
    );
    let reduced = rig.audited(AuditKind::SessionReduced);
    assert_eq!(reduced.len(), 1);
    // It is said once.
    carry(&mut rig, WIKI, GB);
    assert_eq!(rig.audited(AuditKind::RiskRaised).len(), 1);
}

#[test]
fn what_is_usual_and_what_was_today_outlive_a_restart() {
    let (mut rig, bot) = with_habit();
    carry(&mut rig, DB, GB / 8);
    rig.pass_secs(16 * 60);
    let before = rig
        .gateway
        .usual
        .usage(&name("bot"), &name("db"), rig.now.wall);
    rig.restart();
    let after = rig
        .gateway
        .usual
        .usage(&name("bot"), &name("db"), rig.now.wall);
    assert_eq!(before, after);
    assert!(before.is_some_and(|usage| usage.bytes >= GB / 8 && usage.usual.is_some()));
    // And what the session list says is what decides.
    let parts = rig.gateway.session_risk(bot.session_id(), rig.now);
    let sum = |of: &str| {
        let (_, parts) = parts
            .iter()
            .find(|(name, _)| name.as_str() == of)
            .expect("it");
        parts.iter().map(|part| part.points).sum::<u16>()
    };
    assert!(sum("db") <= 50);
}

/// A jump that nobody believes leaves nothing behind: the days go on where they were.
#[test]
fn what_is_counted_while_the_clock_reads_a_year_ahead_is_of_no_day() {
    let (mut rig, _) = with_habit();
    let a_lot = Amount {
        bytes: GB,
        connections: 9,
    };
    let mut ahead = rig.now;
    ahead.wall = ahead.wall.saturating_add(Duration::from_secs(365 * DAY));
    rig.gateway.used(&name("bot"), &name("db"), a_lot, ahead);
    let tomorrow = rig.now.wall.saturating_add(Duration::from_secs(DAY));
    let usage = rig
        .gateway
        .usual
        .usage(&name("bot"), &name("db"), tomorrow)
        .expect("a row");
    assert_eq!((usage.bytes, usage.connections), (0, 0));
}

#[test]
fn a_policy_that_gives_it_no_weight_counts_nothing() {
    let mut bot = Device::of("bot", 7);
    let mut rig = rig(&bot, RESOURCES);
    let weightless = alloc::format!("[risk]\nunusual_volume = 0\n{}", without_observe());
    assert_eq!(
        Policy::parse(&weightless)
            .expect("valid")
            .weights()
            .unusual_volume,
        0
    );
    put(&mut rig, &weightless);
    live(&mut rig, &mut bot, &["wiki"]);
    carry(&mut rig, WIKI, GB);
    let usage = rig
        .gateway
        .usual
        .usage(&name("bot"), &name("wiki"), rig.now.wall);
    assert_eq!(usage, None);
}

fn without_observe() -> String {
    RESOURCES.replace(", mode = \"observe\"", "")
}

/// A session that is nothing without a posture goes on over a restart, as long as what was said is not too old.
#[test]
fn what_a_device_said_outlives_a_restart_and_grows_old_there() {
    let wants = |age: &str| {
        let posture = alloc::format!("[posture.soft]\nfirewall = true\nmax_age = \"{age}\"\n");
        let rule = "[[allow]]\nname = \"db\"\nwho = [\"group:eng\"]\nto = [\"db\"]\nposture = [\"soft\"]\n";
        alloc::format!("{RESOURCES}\n{posture}\n{rule}")
    };
    for (age, goes_on) in [("1h", true), ("5m", false)] {
        let mut bot = Device::of("bot", 7);
        let mut rig = rig(&bot, &wants(age));
        let (_, _) = super::policy::knock(&mut rig, &mut bot, &["db"], Some(super::policy::ON));
        assert!(rig.shake(&bot));
        rig.pass_secs(60);
        assert_eq!(rig.store.facts.len(), 1);
        assert!(has(&rig, DB), "{age}");
        // The gateway is away for a while, and with it the reports.
        rig.now.wall = rig.now.wall.saturating_add(Duration::from_secs(6 * 60));
        rig.now.mono = rig.now.mono.after(Duration::from_secs(6 * 60));
        rig.restart();
        assert_eq!(has(&rig, DB), goes_on, "{age}");
    }
}

#[test]
fn the_risk_of_a_request_is_that_of_its_resource_and_unknown_without_one() {
    let policy = crate::Policy::parse(super::rig::POLICY).expect("valid");
    let name = |text| crate::Name::parse(text).expect("a name");
    let (ana, wiki, nothing) = (name("ana"), name("wiki"), name("nothing"));
    let request = |resource, risk| crate::policy::Request {
        risk,
        ..crate::policy::Request::new(&ana, resource)
    };
    for points in [0, 1, 70] {
        let fixed = crate::policy::RiskInput::Fixed(points);
        assert_eq!(policy.risk(&request(&wiki, fixed)), Some(points));
        assert_eq!(policy.risk(&request(&nothing, fixed)), None);
    }
    let unknown = crate::policy::RiskInput::Unknown;
    assert_eq!(policy.risk(&request(&wiki, unknown)), None);
}
