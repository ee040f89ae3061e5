//! Promise 4: it ends, at its deadline, when somebody says so, and when every process of ours has died.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use spa_tests::gateway::Gateway;
use spa_tests::person::Person;
use spa_tests::topology::Town;
use spa_tests::wait::wait_until;

use crate::fixture::{Place, REACHED, SILENT, policy_for, with_ana};

/// A session ends at its deadline although its download would go on for ever, and nothing of it is left.
#[test]
fn a_session_ends_at_its_deadline_under_traffic() {
    let (place, mut ana) = with_short_sessions("10s");
    ana.knock(&["wiki"]).unwrap().success().unwrap();
    let stream = place.stream(&ana);
    let ends = deadline(&place.gateway);
    // A busy machine's traffic has pauses of its own: only what comes after the deadline counts as the end.
    wait_until("the deadline", Duration::from_secs(15), || {
        (Instant::now() >= ends).then_some(())
    })
    .unwrap();
    let stopped = stream.stopped(SILENT, REACHED).expect("the stream ends");
    let late = stopped.saturating_duration_since(ends);
    assert!(late < Duration::from_millis(250), "{late:?} late");
    let early = ends.saturating_duration_since(stopped);
    assert!(early < Duration::from_millis(1500), "{early:?} early");
    place.assert_everything_closed();
    place.assert_no_wiki(&ana);
}

/// `spa close` ends the session at both ends.
#[test]
fn close_ends_the_session() {
    let (place, mut ana) = with_ana();
    ana.knock(&["wiki"]).unwrap().success().unwrap();
    let stream = place.stream(&ana);
    ana.run(&["close"]).unwrap().success().unwrap();
    stream.stopped(SILENT, REACHED).expect("the stream ends");
    place.assert_everything_closed();
    place.assert_no_wiki(&ana);
}

/// `spa-admin session cut` ends it under traffic, and prints the milliseconds it took.
#[test]
fn cut_ends_the_session_and_says_how_long_it_took() {
    let (place, mut ana) = with_ana();
    ana.knock(&["wiki"]).unwrap().success().unwrap();
    let stream = place.stream(&ana);
    let said = place.gateway.ask(&["session", "cut", "ana"]).unwrap();
    assert!(said.contains("ms"), "{said}");
    stream.stopped(SILENT, REACHED).expect("the stream ends");
    place.assert_everything_closed();
}

/// A person who is disabled is out at once.
#[test]
fn a_disabled_person_is_out_at_once() {
    let (place, mut ana) = with_ana();
    ana.knock(&["wiki"]).unwrap().success().unwrap();
    let stream = place.stream(&ana);
    place.gateway.ask(&["user", "disable", "ana"]).unwrap();
    stream.stopped(SILENT, REACHED).expect("the stream ends");
    place.assert_everything_closed();
}

/// A machine that is to be no gateway any more: what is open ends, and nothing of the gateway stays in the kernel. Not while it runs.
#[test]
fn clear_takes_everything_away_and_not_under_a_running_gateway() {
    let (mut place, mut ana) = with_ana();
    ana.knock(&["wiki"]).unwrap().success().unwrap();
    let refused = place.gateway.clear().unwrap();
    assert_eq!(refused.code, 1, "{}", refused.out);
    assert!(refused.err.contains("stop it before"), "{}", refused.err);
    place.assert_reaches_wiki(&ana);
    place.gateway.stop().unwrap();
    place.gateway.clear().unwrap().success().unwrap();
    let tables = place.gateway.space().output("nft", &["list", "tables"]);
    let tables = tables.unwrap();
    assert!(!tables.contains("inet spa"), "{tables}");
    let links = place.gateway.space().output("ip", &["-br", "link"]);
    let links = links.unwrap();
    assert!(!links.contains("spa0"), "{links}");
    // Once more is no error: nothing is there.
    place.gateway.clear().unwrap().success().unwrap();
}

/// A town in which sessions last this long, with ana enrolled.
pub fn with_short_sessions(length: &str) -> (Place, Person) {
    let town = Town::build().unwrap();
    let mut gateway = Gateway::init(&town).unwrap();
    gateway.write_policy(&policy_for(length)).unwrap();
    gateway.start().unwrap();
    let ana = Person::enrolled(&gateway, &town.client, "ana").unwrap();
    (Place { gateway, town }, ana)
}

/// When the only session ends, by the gateway's own words.
pub fn deadline(gateway: &Gateway) -> Instant {
    let sessions = gateway.sessions().unwrap();
    assert_eq!(sessions.len(), 1, "{sessions:?}");
    let not_after = sessions[0]["not_after"]
        .as_u64()
        .expect("not_after, Unix ms");
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    Instant::now() + Duration::from_millis(not_after).saturating_sub(now)
}
