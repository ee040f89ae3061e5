//! The control channel under bad manners, from inside a live tunnel: what a hostile program on a client's machine can say.

use std::io::{Read, Write};
use std::net::TcpStream;

use spa_tests::packet::{Packet, TCP};
use spa_tests::person::Person;
use spa_tests::serve;
use spa_tests::topology::endpoint;
use spa_tests::wait::wait_until;
use spa_tests::wire::{Direction, Wire};

use crate::fixture::{REACHED, with_ana};

const GATEWAY_INSIDE: &str = "10.200.0.1";
const CONTROL: u16 = 8700;

fn connect(person: &Person) -> TcpStream {
    serve::connect(person.space(), endpoint(GATEWAY_INSIDE, CONTROL), REACHED).unwrap()
}

/// Says something and hears all that comes back until the gateway hangs up.
fn say(person: &Person, text: &[u8]) -> String {
    let mut stream = connect(person);
    // It may hang up in the middle of it.
    let _ = stream.write_all(text);
    let mut heard = Vec::new();
    let _ = stream.read_to_end(&mut heard);
    String::from_utf8_lossy(&heard).into_owned()
}

fn get(path: &str, more: &str) -> String {
    format!("GET {path} HTTP/1.1\r\n{more}Connection: close\r\n\r\n")
}

fn post(path: &str, body: &str) -> String {
    post_as("", path, body)
}

fn post_as(bearer: &str, path: &str, body: &str) -> String {
    let length = body.len();
    format!(
        "POST {path} HTTP/1.1\r\n{bearer}Content-Length: {length}\r\nConnection: close\r\n\r\n{body}"
    )
}

/// What a packet to the control channel carries.
fn said(packet: &Packet) -> Option<String> {
    let is_call = packet.protocol == TCP && packet.destination.port() == CONTROL;
    let header = usize::from(packet.payload.get(12)? >> 4) * 4;
    let bytes = packet.payload.get(header..)?;
    is_call.then(|| String::from_utf8_lossy(bytes).into_owned())
}

/// The bearer line of the rekey that a tap inside the tunnel saw, and its body.
fn rekey_in(tap: &Wire) -> (String, String) {
    wait_until("the tap has the whole rekey", REACHED, || {
        let packets = tap.so_far();
        let all = packets.iter().filter_map(|seen| said(&seen.packet));
        let all: String = all.collect();
        let (_, rekey) = all.split_once("POST /v1/rekey")?;
        let (head, body) = rekey.split_once("\r\n\r\n")?;
        let (_, bearer) = head.split_once("Bearer ")?;
        let (body, _) = body.split_once('}')?;
        let bearer = bearer.lines().next()?;
        Some((
            format!("Authorization: Bearer {bearer}\r\n"),
            format!("{body}}}"),
        ))
    })
    .unwrap()
}

/// Without its bearer a session is told nothing and changes nothing; ten megabytes, lies and half a request are refused; a hundred requests at once
/// are twenty. Meanwhile, and after, the session lives.
#[test]
fn a_hostile_program_inside_the_tunnel_learns_nothing_and_breaks_nothing() {
    let (place, mut ana) = with_ana();
    ana.knock(&["wiki"]).unwrap().success().unwrap();
    let mut half = connect(&ana);
    half.write_all(b"POST /v1/posture HTTP/1.1\r\nContent-Length: 10\r\n\r\n{\"fa")
        .unwrap();
    let stranger = say(&ana, get("/v1/grants", "").as_bytes());
    let forged = format!("Authorization: Bearer {}\r\n", "0f".repeat(32));
    let forger = say(&ana, get("/v1/grants", &forged).as_bytes());
    assert!(stranger.starts_with("HTTP/1.1 401 "), "{stranger}");
    assert_eq!(stranger, forger);
    let closer = say(&ana, post("/v1/close", "{}").as_bytes());
    assert!(closer.starts_with("HTTP/1.1 401 "), "{closer}");
    let liar = say(&ana, post("/v1/posture", r#"{"facts":[]}"#).as_bytes());
    assert!(liar.starts_with("HTTP/1.1 400 "), "{liar}");
    let huge = say(
        &ana,
        b"POST /v1/posture HTTP/1.1\r\nContent-Length: 10485760\r\n\r\n",
    );
    assert!(huge.starts_with("HTTP/1.1 413 "), "{huge}");
    let last = get("/v1/nothing", "");
    let others = last.replace("Connection: close\r\n", "").repeat(99);
    let heard = say(&ana, (others + &last).as_bytes());
    let count = |status: &str| heard.matches(&format!("HTTP/1.1 {status} ")).count();
    assert_eq!(count("404") + count("429"), 100, "{heard}");
    assert!(count("429") > 50, "{heard}");
    place.assert_reaches_wiki(&ana);
    assert_eq!(place.gateway.sessions().unwrap().len(), 1);
    // Half a request has ten seconds.
    let mut heard = String::new();
    half.set_read_timeout(None).unwrap();
    half.read_to_string(&mut heard).unwrap();
    assert!(heard.starts_with("HTTP/1.1 408 "), "{heard}");
    ana.run(&["close"]).unwrap().success().unwrap();
    place.assert_everything_closed();
}

/// What a session said, its bearer included, is worth nothing at another session's address; nor is it at its own, once it is closed.
#[test]
fn what_one_session_said_is_worth_nothing_to_another_or_after_its_end() {
    let (place, mut ana) = with_ana();
    let mut bo = Person::enrolled(&place.gateway, &place.town.neighbour, "bo").unwrap();
    let tap = Wire::tap(&place.town.gateway, "spa0", Direction::Incoming).unwrap();
    ana.knock(&["wiki"]).unwrap().success().unwrap();
    let (bearer, rekey) = rekey_in(&tap);
    bo.knock(&["wiki"]).unwrap().success().unwrap();
    let calls = [
        get("/v1/grants", &bearer),
        post_as(&bearer, "/v1/posture", r#"{"facts":{}}"#),
        post_as(&bearer, "/v1/rekey", &rekey),
        post_as(&bearer, "/v1/close", "{}"),
    ];
    for call in &calls {
        let heard = say(&bo, call.as_bytes());
        assert!(heard.starts_with("HTTP/1.1 401 "), "{call}: {heard}");
    }
    // It was the right one: where it belongs it is heard, and nothing of the above was.
    let own = say(&ana, calls[0].as_bytes());
    assert!(own.starts_with("HTTP/1.1 200 "), "{own}");
    place.assert_reaches_wiki(&ana);
    place.assert_reaches_wiki(&bo);
    ana.run(&["close"]).unwrap().success().unwrap();
    ana.knock(&["wiki"]).unwrap().success().unwrap();
    for call in &calls {
        let heard = say(&ana, call.as_bytes());
        assert!(heard.starts_with("HTTP/1.1 401 "), "{call}: {heard}");
    }
    place.assert_reaches_wiki(&ana);
}
