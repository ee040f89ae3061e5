//! The access log: who connected to what inside the tunnel, whether they could, and how much it was.

use std::net::UdpSocket;
use std::time::Duration;

use serde_json::Value;
use spa_tests::gateway::{Gateway, POLICY};
use spa_tests::person::Person;
use spa_tests::serve::{self, PAGE};
use spa_tests::topology::{SERVER, Town, WEB, endpoint};
use spa_tests::wait::wait_until;

use crate::fixture::{Place, REACHED, REFUSED};

/// On wiki's machine, for nobody.
const CONSOLE: u16 = 8080;
/// What is said at once of a session's attempts, and some more by the time a scan is over.
const MOST_LINES: usize = 30;
/// Ports a scan looks at.
const SCANNED: u16 = 400;

fn place() -> (Place, Person) {
    let town = Town::build().unwrap();
    let mut gateway = Gateway::init(&town).unwrap();
    let console =
        format!("[resource]\nconsole = {{ to = \"{SERVER}\", ports = [\"{CONSOLE}/tcp\"] }}");
    gateway
        .write_policy(&POLICY.replace("[resource]", &console))
        .unwrap();
    gateway.start().unwrap();
    let ana = Person::enrolled(&gateway, &town.client, "ana").unwrap();
    (Place { gateway, town }, ana)
}

/// The lines of the log, as JSON.
fn lines(place: &Place, more: &[&str]) -> Vec<Value> {
    let all = [&["log", "--connections", "--json", "-n", "1000"], more].concat();
    let text = place.gateway.ask(&all).unwrap();
    let parsed = text.lines().map(serde_json::from_str);
    parsed.collect::<Result<_, _>>().unwrap()
}

/// Waits for a line of this kind to this port.
fn line(place: &Place, kind: &str, port: u16) -> Value {
    let to = format!("{SERVER}:{port}");
    let wanted = |line: &Value| line["kind"] == kind && line["to"] == *to;
    wait_until("a line of the access log", REACHED, || {
        lines(place, &[]).into_iter().find(wanted)
    })
    .unwrap_or_else(|error| panic!("{kind} {to}: {error}: {:?}", lines(place, &[])))
}

/// A connection that is allowed and two that are not are in the log with person, device, resource and rule, and what went
/// through when the session ends; filters find them.
#[test]
fn every_connection_is_in_the_log_with_its_names_and_bytes() {
    let (place, mut ana) = place();
    ana.knock(&["wiki"]).unwrap().success().unwrap();
    place.assert_reaches_wiki(&ana);
    let began = line(&place, "connection-allowed", WEB);
    for (field, value) in [
        ("user", "ana"),
        ("resource", "wiki"),
        ("rule", "eng-wiki"),
        ("protocol", "tcp"),
    ] {
        assert_eq!(began[field], value, "{began}");
    }
    assert!(
        began["device"].is_string() && began["session"].is_string(),
        "{began}"
    );
    for (port, resource, reason) in [
        (
            CONSOLE,
            Value::from("console"),
            "this session does not have it",
        ),
        (CONSOLE + 1, Value::Null, "no resource is there"),
    ] {
        assert!(serve::connect(ana.space(), endpoint(SERVER, port), REFUSED).is_err());
        let refused = line(&place, "connection-refused", port);
        assert_eq!(refused["user"], "ana");
        assert_eq!(refused["resource"], resource, "{refused}");
        assert_eq!(refused["reason"], reason, "{refused}");
    }
    place.gateway.ask(&["session", "cut", "ana"]).unwrap();
    let ended = line(&place, "connection-ended", WEB);
    assert_eq!(
        (&ended["from"], &ended["rule"]),
        (&began["from"], &began["rule"])
    );
    let bytes = |of: &str| ended[of].as_u64().unwrap_or_default();
    assert!(bytes("received") > PAGE.len() as u64, "{ended}");
    assert!(bytes("sent") > 100, "{ended}");
    let denied = lines(
        &place,
        &["--denied", "--resource", "console", "--user", "ana"],
    );
    assert!(!denied.is_empty() && denied.iter().all(|line| line["resource"] == "console"));
    assert!(lines(&place, &["--user", "bo"]).is_empty());
}

/// A port scan from inside the tunnel makes a bounded number of lines, and how many more there were is said; it hides no
/// connection that is allowed.
#[test]
fn a_scan_from_inside_fills_nothing_and_hides_nothing() {
    let (place, mut ana) = place();
    ana.knock(&["wiki"]).unwrap().success().unwrap();
    ana.space()
        .run(|| {
            let socket = UdpSocket::bind(("0.0.0.0", 0)).unwrap();
            for port in 1..=SCANNED {
                socket.send_to(b"?", endpoint(SERVER, port)).unwrap();
            }
        })
        .unwrap();
    place.assert_reaches_wiki(&ana);
    line(&place, "connection-allowed", WEB);
    let not_logged = wait_until(
        "what is not logged is said",
        Duration::from_secs(10),
        || {
            let all = lines(&place, &["--user", "ana"]);
            let said = |line: &&Value| line["kind"] == "connections-not-logged";
            all.iter().find(said).and_then(|line| line["more"].as_u64())
        },
    )
    .unwrap();
    let written = lines(&place, &["--denied"]).len();
    assert!(written <= MOST_LINES, "{written} lines");
    // A busy machine's tunnel loses some, and it may take more than one line to say them all.
    let all = written as u64 + not_logged;
    let most = MOST_LINES as u64;
    assert!((most + 1..=u64::from(SCANNED) + 5).contains(&all), "{all}");
}
