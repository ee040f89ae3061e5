//! Policy on real packets: what it takes away is gone at once, in the middle of traffic, and nothing else is.
//!
//! How long each took, from its cause to the last byte, is printed (`--nocapture`) and not judged: `make bench` measures.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use rustix::process::Signal;
use spa_tests::gateway::{Gateway, POLICY};
use spa_tests::person::Person;
use spa_tests::serve::Stream;
use spa_tests::topology::{SERVER2, Town, WEB, endpoint};
use spa_tests::wait::wait_until;

use crate::end::deadline;
use crate::fixture::{Place, REACHED, SILENT, with_ana};

/// What the rule about wiki says of it.
const TO_WIKI: &str = "to   = [\"wiki\"]";

/// The end of office hours ends a session under traffic, on the second, and no knock gets in after it.
#[test]
fn the_end_of_office_hours_ends_a_session_on_the_second() {
    let (mut place, mut ana) = with_ana();
    let closes = next_minute(Duration::from_secs(25));
    let hours = format!(
        "{TO_WIKI}\nwhen = \"{}-{}\"",
        in_kolkata(closes - Duration::from_secs(60)),
        // A day ends at 24:00 and not at the next one's 00:00.
        in_kolkata(closes).replace("00:00", "24:00"),
    );
    let policy = POLICY
        .replace(TO_WIKI, &hours)
        .replace("version = 1", "version = 1\ntimezone = \"Asia/Kolkata\"");
    // The minute may not be open yet: then a knock before it is the wrong one.
    wait_until("the office opens", Duration::from_secs(60), || {
        (unix_now() >= closes - Duration::from_secs(59)).then_some(())
    })
    .unwrap();
    put_in_force(&mut place, &policy);
    ana.knock(&["wiki"]).unwrap().success().unwrap();
    let session = &place.gateway.sessions().unwrap()[0];
    let not_after = u64::try_from(closes.as_millis()).unwrap();
    assert_eq!(session["not_after"].as_u64(), Some(not_after));
    let ends = deadline(&place.gateway);
    let stream = place.stream(&ana);
    wait_until("the office closes", Duration::from_secs(60), || {
        (Instant::now() >= ends).then_some(())
    })
    .unwrap();
    let last = stream.stopped(SILENT, REACHED).expect("the stream ends");
    let late = last.saturating_duration_since(ends);
    let early = ends.saturating_duration_since(last);
    println!("last byte {late:?} after the end of the window (or {early:?} before it)");
    assert!(late < Duration::from_secs(1), "{late:?} late");
    assert!(early < Duration::from_millis(1500), "{early:?} early");
    place.assert_everything_closed();
    assert_eq!(explained(&place, "wiki")["reason"], "outside window");
    let refused = ana.knock(&["wiki"]).unwrap();
    assert!(refused.err.contains("time"), "{}", refused.err);
    place.assert_no_wiki(&ana);
}

/// A deny of a higher priority ends what an allow had let in, and stands above it; of a lower one it says nothing.
#[test]
fn a_deny_beats_the_allows_below_it() {
    let (mut place, mut ana) = with_ana();
    ana.knock(&["wiki"]).unwrap().success().unwrap();
    let stream = place.stream(&ana);
    let deny = |priority| {
        format!(
            "{POLICY}\n[[deny]]\nname = \"not-ana\"\npriority = {priority}\nwho = [\"ana\"]\nto = [\"wiki\"]\n"
        )
    };
    let cause = put_in_force(&mut place, &deny(900));
    say_last("a deny", cause, &stream);
    place.assert_everything_closed();
    let why = explained(&place, "wiki");
    assert_eq!(
        (&why["reason"], &why["by"]),
        (&"denied by a rule".into(), &"not-ana".into())
    );
    assert!(ana.knock(&["wiki"]).unwrap().success().is_err());
    place.assert_no_wiki(&ana);
    put_in_force(&mut place, &deny(100));
    ana.knock(&["wiki"]).unwrap().success().unwrap();
    place.assert_reaches_wiki(&ana);
}

/// What a device does not tell does not satisfy a rule that asks for it, and both sides are told that this is the reason.
#[test]
fn a_posture_that_is_missing_is_refused_and_named() {
    // No machine of a test has one.
    let rule = format!("{TO_WIKI}\nposture = [\"keyed\"]");
    let policy = format!("{POLICY}\n[posture.keyed]\nhardware_key = true\n");
    let (place, mut ana) = with_policy(&policy.replace(TO_WIKI, &rule));
    let refused = ana.knock(&["wiki"]).unwrap();
    refused.refusal(1, &[]).unwrap();
    assert!(refused.err.contains("device"), "{}", refused.err);
    place.assert_no_wiki(&ana);
    // The enrolment's own session may still have its door.
    let open = place.gateway.openings().unwrap();
    assert!(
        !open.iter().any(|opening| opening.contains("flow")),
        "{open:?}"
    );
    let why = explained(&place, "wiki");
    assert_eq!(why["reason"], "posture");
    assert!(why.to_string().contains("hardware_key"), "{why}");
    // What asks for no posture is still hers.
    ana.knock(&["db"]).unwrap().success().unwrap();
}

/// Who leaves a group loses what the group gave, in the middle of a download; the other download does not even notice.
#[test]
fn leaving_a_group_cuts_what_it_gave_and_nothing_else() {
    let files = r#"
[[allow]]
name = "ops-files"
who  = ["group:ops"]
to   = ["files"]
"#;
    let policy = POLICY
        .replace("[group]", "[group]\nops = [\"ana\"]")
        .replace(
            "[resource]",
            "[resource]\nfiles = { to = \"10.0.5.20\", ports = [\"443/tcp\"] }",
        )
        + files;
    let (mut place, mut ana) = with_policy(&policy);
    ana.knock(&["wiki", "files"]).unwrap().success().unwrap();
    let wiki = place.stream(&ana);
    let files = Stream::watch(ana.space(), endpoint(SERVER2, WEB), REACHED).unwrap();
    wait_until("it flows", REACHED, || (files.last().0 > 100).then_some(())).unwrap();
    let session = place.gateway.sessions().unwrap()[0]["session"].clone();
    let without = policy.replace("ops = [\"ana\"]", "ops = [\"bo\"]");
    let cause = put_in_force(&mut place, &without);
    say_last("leaving a group", cause, &files);
    // The same connection goes on: one that was cut could not.
    let before = wiki.last().0;
    wait_until("wiki flows on", REACHED, || {
        (wiki.last().0 > before + 100).then_some(())
    })
    .unwrap();
    let sessions = place.gateway.sessions().unwrap();
    assert_eq!(
        sessions[0]["session"], session,
        "the session is the same one"
    );
    assert_eq!(sessions[0]["resources"], serde_json::json!(["wiki"]));
    let open = place.gateway.openings().unwrap();
    assert!(
        !open.iter().any(|opening| opening.contains(SERVER2)),
        "{open:?}"
    );
}

/// A lock ends a session under traffic and lets no knock in until it is lifted; `explain` says why.
#[test]
fn a_lock_under_traffic_holds_until_it_is_lifted() {
    let (place, mut ana) = with_ana();
    ana.knock(&["wiki"]).unwrap().success().unwrap();
    let stream = place.stream(&ana);
    let lock = ["lock", "user:ana", "--why", "laptop lost"];
    let cause = Instant::now();
    let said = place.gateway.ask(&lock).unwrap();
    assert!(said.contains("sessions ended: 1"), "{said}");
    say_last("starting `spa-admin lock`", cause, &stream);
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
    let ends = deadline(&place.gateway);
    // By the gateway's own word first: on a busy machine a minute of traffic has pauses of its own.
    wait_until("the session ends", Duration::from_secs(65), || {
        place.gateway.sessions().ok()?.is_empty().then_some(())
    })
    .unwrap();
    say_last("the grant's end", ends, &stream);
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

/// A town whose gateway has this policy, with ana enrolled.
pub fn with_policy(policy: &str) -> (Place, Person) {
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

/// Replaces the policy of a running gateway, waits until it is in force, and gives when the gateway was told to read it.
pub fn put_in_force(place: &mut Place, policy: &str) -> Instant {
    assert_ne!(policy, POLICY, "the policy was changed");
    place.gateway.write_policy(policy).unwrap();
    let daemon = place.gateway.daemon();
    let reloads = |said: &str| said.matches("policy in force").count();
    let before = reloads(&daemon.said());
    let cause = Instant::now();
    daemon.signal(Signal::HUP);
    wait_until("the policy is in force", REACHED, || {
        (reloads(&daemon.said()) > before).then_some(())
    })
    .unwrap();
    cause
}

/// Waits for a stream to end and says how long it took.
#[track_caller]
fn say_last(what: &str, cause: Instant, stream: &Stream) {
    let last = stream.stopped(SILENT, REACHED).expect("the stream ends");
    let took = last.saturating_duration_since(cause);
    println!("{what} to the last byte: {took:?} (the stream speaks every 10 ms)");
}

/// The first whole minute that is at least this far away, since 1970.
fn next_minute(ahead: Duration) -> Duration {
    let least = (unix_now() + ahead).as_secs();
    Duration::from_secs(least.next_multiple_of(60))
}

/// The time of the day in India, which is five and a half hours ahead the whole year.
fn in_kolkata(moment: Duration) -> String {
    let minutes = moment.as_secs() / 60 + 330;
    format!("{:02}:{:02}", minutes / 60 % 24, minutes % 60)
}

fn unix_now() -> Duration {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap()
}
