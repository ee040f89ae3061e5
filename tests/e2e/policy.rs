//! Promise 4 above all policy: an administrator's "no" holds at once, and what goes beyond the rules ends by itself.

use std::time::Duration;

use spa_tests::gateway::{Gateway, POLICY};
use spa_tests::person::Person;
use spa_tests::topology::Town;
use spa_tests::wait::wait_until;

use crate::fixture::{Place, REACHED, SILENT, with_ana};

/// What the rule about wiki says of it.
const TO_WIKI: &str = "to   = [\"wiki\"]";

/// A lock ends a session under traffic and lets no knock in until it is lifted; `explain` says why.
#[test]
fn a_lock_under_traffic_holds_until_it_is_lifted() {
    let (place, mut ana) = with_ana();
    ana.knock(&["wiki"]).unwrap().success().unwrap();
    let stream = place.stream(&ana);
    let lock = ["lock", "user:ana", "--why", "laptop lost"];
    let said = place.gateway.ask(&lock).unwrap();
    assert!(said.contains("sessions ended: 1"), "{said}");
    stream.stopped(SILENT, REACHED).expect("the stream ends");
    place.assert_everything_closed();
    assert_eq!(explained(&place, "wiki")["reason"], "locked");
    assert!(ana.knock(&["wiki"]).unwrap().success().is_err());
    place.assert_no_wiki(&ana);
    place.gateway.ask(&["unlock", "user:ana"]).unwrap();
    ana.knock(&["wiki"]).unwrap().success().unwrap();
    place.assert_reaches_wiki(&ana);
}

/// A just-in-time grant lets in whom no rule does, and ends by itself, under traffic.
#[test]
fn a_grant_ends_by_itself() {
    let (place, mut ana) = with_policy(&POLICY.replace(TO_WIKI, "to   = [\"db\"]"));
    assert_eq!(explained(&place, "wiki")["reason"], "no rule");
    assert!(ana.knock(&["wiki"]).unwrap().success().is_err());
    let grant = [
        "grant",
        "ana",
        "wiki",
        "--for",
        "60s",
        "--why",
        "incident 7",
    ];
    place.gateway.ask(&grant).unwrap();
    assert_eq!(explained(&place, "wiki")["by"], "grant 1");
    ana.knock(&["wiki"]).unwrap().success().unwrap();
    let stream = place.stream(&ana);
    // By the gateway's own word first: on a busy machine a minute of traffic has pauses of its own.
    wait_until("the session ends", Duration::from_secs(65), || {
        place.gateway.sessions().ok()?.is_empty().then_some(())
    })
    .unwrap();
    stream.stopped(SILENT, REACHED).expect("the stream ends");
    place.assert_no_wiki(&ana);
    wait_until("the grant is listed no more", REACHED, || {
        let left = place.gateway.ask_json(&["grant", "list"]).ok()?;
        left["grants"].as_array()?.is_empty().then_some(())
    })
    .unwrap();
}

/// What a rule's `approve` makes wait passes once one whom it names agreed, and not before.
#[test]
fn an_approval_lets_a_waiting_request_through() {
    let rule = format!("{TO_WIKI}\napprove = [\"bo\"]");
    let (place, mut ana) = with_policy(&POLICY.replace(TO_WIKI, &rule));
    assert!(ana.knock(&["wiki"]).unwrap().success().is_err());
    place.assert_no_wiki(&ana);
    let listed = place.gateway.ask_json(&["approve", "list"]).unwrap();
    assert_eq!(listed["waiting"][0]["user"], "ana");
    let id = listed["waiting"][0]["id"].to_string();
    let own = ["approve", &id, "--by", "ana"];
    assert!(
        place.gateway.ask(&own).is_err(),
        "nobody approves for oneself"
    );
    place.gateway.ask(&["approve", &id, "--by", "bo"]).unwrap();
    ana.knock(&["wiki"]).unwrap().success().unwrap();
    place.assert_reaches_wiki(&ana);
}

fn with_policy(policy: &str) -> (Place, Person) {
    assert_ne!(policy, POLICY, "the policy was changed");
    let town = Town::build().unwrap();
    let mut gateway = Gateway::init(&town).unwrap();
    gateway.write_policy(policy).unwrap();
    gateway.start().unwrap();
    let ana = Person::enrolled(&gateway, &town.client, "ana").unwrap();
    (Place { gateway, town }, ana)
}

fn explained(place: &Place, resource: &str) -> serde_json::Value {
    let question = ["explain", "ana/laptop", resource];
    place.gateway.ask_json(&question).unwrap()
}
