//! Bad manners on real connections: each costs its own session a place for a while, and nobody else anything.
//!
//! The core here is a closure. Nothing is measured by the clock.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpStream};
use std::sync::mpsc;

use spa_proto::WallTime;
use spa_proto::channel::{MAX_HEAD, Rekeyed};

use super::*;

/// What the core of these tests answers.
fn core(call: &Call) -> Result<CallAnswer, CallRefusal> {
    match call {
        Call::Events => Ok(CallAnswer::Events(SessionId::from_bytes([7; 8]))),
        Call::Why(_) => Err(CallRefusal::NotFound),
        Call::Waiting => Err(CallRefusal::Unauthorized),
        _ => Ok(CallAnswer::Done),
    }
}

/// A served channel on the loopback interface.
struct Served {
    at: SocketAddr,
    teller: Teller,
    calls: mpsc::Receiver<(Vec<u8>, String)>,
}

fn served() -> Served {
    served_with(Patience::OURS)
}

fn served_with(patience: Patience) -> Served {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port");
    listener.set_nonblocking(true).expect("nonblocking");
    let at = listener.local_addr().expect("bound");
    let (sender, calls) = mpsc::channel();
    let hand_on = move |called: Called| {
        let answer = core(&called.call);
        let _ = sender.send((called.bearer.to_vec(), format!("{:?}", called.call)));
        let _ = called.answer.send(answer);
        Handed::Taken
    };
    let teller = start(vec![listener], 64, patience, hand_on).expect("started");
    Served { at, teller, calls }
}

impl Served {
    fn connect(&self) -> TcpStream {
        TcpStream::connect(self.at).expect("connected")
    }

    /// Says something on a connection of its own; gives all that comes back until it is closed.
    fn say(&self, text: &str) -> String {
        let mut stream = self.connect();
        // The other side may have hung up in the middle of it, which is what some of these are for.
        let _ = stream.write_all(text.as_bytes());
        let mut heard = Vec::new();
        let _ = stream.read_to_end(&mut heard);
        String::from_utf8_lossy(&heard).into_owned()
    }
}

fn get(path: &str) -> String {
    format!(
        "GET {path} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer 0af\r\nConnection: close\r\n\r\n"
    )
}

fn post(path: &str, body: &str) -> String {
    let length = body.len();
    format!(
        "POST {path} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer 0af\r\nConnection: close\r\nContent-Length: {length}\r\n\r\n{body}"
    )
}

fn status(heard: &str) -> &str {
    heard.get(9..12).unwrap_or_default()
}

#[test]
fn a_call_reaches_the_core_with_its_bearer_and_its_answer_comes_back() {
    let served = served();
    let heard = served.say(&post("/v1/renew", r#"{"minutes":5}"#));
    assert_eq!(status(&heard), "200");
    assert!(heard.ends_with("\r\n\r\n{}"), "{heard}");
    let (bearer, call) = served.calls.try_recv().expect("a call");
    assert_eq!(
        (bearer.as_slice(), call.as_str()),
        (&b"0af"[..], "Renew(Renew { minutes: 5 })")
    );
}

#[test]
fn requests_follow_each_other_on_one_connection() {
    let served = served();
    let again = post("/v1/close", "{}").replace("Connection: close\r\n", "");
    let heard = served.say(&(again.repeat(3) + &get("/v1/grants")));
    assert_eq!(heard.matches("HTTP/1.1 200 OK").count(), 4, "{heard}");
}

#[test]
fn a_refusal_is_a_status_a_word_and_a_line() {
    let served = served();
    let heard = served.say(&get("/v1/why/wiki"));
    assert_eq!(status(&heard), "404");
    assert!(
        heard.contains(r#"{"error":"not-found","reason":"#),
        "{heard}"
    );
    assert_eq!(status(&served.say(&get("/v1/waiting"))), "401");
    assert_eq!(status(&served.say(&get("/v1/secrets"))), "404");
    assert_eq!(status(&served.say(&get("/v1/close"))), "405");
    assert_eq!(
        status(&served.say("DELETE /v1/grants HTTP/1.1\r\n\r\n")),
        "405"
    );
}

#[test]
fn lies_in_json_never_reach_the_core() {
    let served = served();
    for (path, body) in [
        ("/v1/renew", r#"{"minutes":"5"}"#),
        ("/v1/renew", r#"{"minutes":5,"for":"ever"}"#),
        ("/v1/renew", r#"{"minutes":99999999999999999999}"#),
        ("/v1/close", "[]"),
        ("/v1/renew", "[5]"),
        ("/v1/close", ""),
        ("/v1/close", "{}{}"),
        ("/v1/posture", r#"{"facts":{"os":{"value":{}}}}"#),
        ("/v1/posture", "\u{0}"),
        ("/v1/rekey", r#"{"x25519":"AAAA","ml_kem_768_ek":"AAAA"}"#),
        ("/v1/password", r#"{"q":"","code":1,"signature":""}"#),
        ("/v1/approve", r#"{"id":-1,"minutes":1}"#),
    ] {
        let heard = served.say(&post(path, body));
        assert_eq!(status(&heard), "400", "{path} {body}");
    }
    let deep = "[".repeat(8_000);
    assert_eq!(status(&served.say(&post("/v1/posture", &deep))), "400");
    assert!(served.calls.try_recv().is_err());
}

#[test]
fn ten_megabytes_are_refused_before_they_are_read() {
    let served = served();
    let huge = "x".repeat(10 * 1024 * 1024);
    let heard = served.say(&post("/v1/posture", &huge));
    // The refusal, or nothing at all where the rest of the body was faster than it.
    assert!(heard.is_empty() || status(&heard) == "413", "{heard}");
    let promised = "POST /v1/posture HTTP/1.1\r\nContent-Length: 10485760\r\n\r\n";
    assert_eq!(status(&served.say(promised)), "413");
    let small = "x".repeat(spa_proto::channel::MAX_BODY + 1);
    assert_eq!(status(&served.say(&post("/v1/close", &small))), "413");
    let head = format!(
        "GET /v1/grants HTTP/1.1\r\nA: {}\r\n\r\n",
        "x".repeat(MAX_HEAD)
    );
    assert_eq!(status(&served.say(&head)), "431");
    let endless = format!("GET /{}", "x".repeat(2 * MAX_HEAD));
    assert_eq!(status(&served.say(&endless)), "431");
    assert!(served.calls.try_recv().is_err());
}

#[test]
fn a_hundred_requests_at_once_are_twenty() {
    let served = served();
    let one = post("/v1/close", "{}").replace("Connection: close\r\n", "");
    let heard = served.say(&(one.repeat(99) + &post("/v1/close", "{}")));
    let passed = heard.matches("HTTP/1.1 200 OK").count();
    // Twenty, and what came back while they were served; then the first one too many closes the connection.
    assert!((20..40).contains(&passed), "{passed}");
    assert_eq!(heard.matches("HTTP/1.1 429").count(), 1, "{heard}");
    assert!(heard.contains("Retry-After: 1\r\n"), "{heard}");
    assert_eq!(served.calls.try_iter().count(), passed);
}

#[test]
fn who_stops_in_the_middle_is_hung_up_on_and_holds_up_nobody() {
    let soon = Duration::from_millis(50);
    let served = served_with(Patience {
        request: soon,
        idle: soon,
        ..Patience::OURS
    });
    let mut head = served.connect();
    head.write_all(b"POST /v1/posture HTTP/1.1\r\nHo")
        .expect("said");
    let mut body = served.connect();
    body.write_all(b"POST /v1/posture HTTP/1.1\r\nContent-Length: 99\r\n\r\n{\"fac")
        .expect("said");
    let mut silent = served.connect();
    assert_eq!(status(&served.say(&get("/v1/grants"))), "200");
    for (stream, wanted) in [(&mut head, "408"), (&mut body, "408"), (&mut silent, "")] {
        let mut heard = String::new();
        stream.read_to_string(&mut heard).expect("hung up on");
        assert_eq!(status(&heard), wanted, "{heard}");
    }
    assert_eq!(served.calls.try_iter().count(), 1);
}

#[test]
fn a_session_has_four_connections_and_the_fifth_is_not_taken() {
    let served = served();
    let mut held: Vec<TcpStream> = (0..4).map(|_| served.connect()).collect();
    // Each of them is known to be taken once it answered.
    for stream in &mut held {
        let one = get("/v1/grants").replace("Connection: close\r\n", "");
        stream.write_all(one.as_bytes()).expect("said");
        let mut byte = [0];
        stream.read_exact(&mut byte).expect("answered");
    }
    assert_eq!(served.say(&get("/v1/grants")), "");
    drop(held);
    // Places come back when the others have noticed.
    let again = (0..1000).map(|_| served.say(&get("/v1/grants")));
    assert!(again.into_iter().any(|heard| status(&heard) == "200"));
}

#[test]
fn events_come_as_they_happen_and_a_newer_stream_ends_the_older() {
    let served = served();
    let session = SessionId::from_bytes([7; 8]);
    let mut first = served.connect();
    first.write_all(get("/v1/events").as_bytes()).expect("said");
    let mut heard = read_until(&mut first, "\r\n\r\n");
    let rekeyed = |at| {
        Event::Rekeyed(Rekeyed {
            at: WallTime::from_millis(at),
        })
    };
    served.teller.tell(session, rekeyed(1));
    heard += &read_until(&mut first, "\n\n");
    assert!(heard.contains("text/event-stream"), "{heard}");
    assert!(
        heard.ends_with("id: 1\ndata: {\"event\":\"rekeyed\",\"at\":1}\n\n"),
        "{heard}"
    );
    let mut second = served.connect();
    let resumed = get("/v1/events").replace("Host: x", "Last-Event-ID: 1");
    second.write_all(resumed.as_bytes()).expect("said");
    read_until(&mut second, "\r\n\r\n");
    let mut rest = String::new();
    first.read_to_string(&mut rest).expect("ended");
    assert_eq!(rest, "");
    served.teller.tell(session, rekeyed(2));
    assert!(read_until(&mut second, "\n\n").starts_with("id: 2\n"));
    served.teller.tell(
        session,
        Event::Ended(spa_proto::channel::Ended {
            reason: "cut".into(),
            text: "cut".into(),
        }),
    );
    let mut last = String::new();
    second.read_to_string(&mut last).expect("ended");
    assert!(last.contains(r#""event":"ended""#), "{last}");
}

fn read_until(stream: &mut TcpStream, end: &str) -> String {
    let mut heard = Vec::new();
    let mut byte = [0];
    while !heard.ends_with(end.as_bytes()) {
        stream.read_exact(&mut byte).expect("more to come");
        heard.push(byte[0]);
    }
    String::from_utf8(heard).expect("text")
}

#[test]
fn a_core_that_takes_nothing_is_busy() {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port");
    listener.set_nonblocking(true).expect("nonblocking");
    let at = listener.local_addr().expect("bound");
    let teller = start(vec![listener], 64, Patience::OURS, |_| Handed::Refused).expect("started");
    let served = Served {
        at,
        teller,
        calls: mpsc::channel().1,
    };
    let heard = served.say(&get("/v1/grants"));
    assert_eq!(status(&heard), "503");
}

#[test]
fn the_channel_listens_on_an_address_that_is_not_there_yet_and_on_one_interface_only() {
    let nowhere: IpAddr = "192.0.2.77".parse().expect("an address");
    let listeners = match bind([nowhere], 0, "lo") {
        Ok(listeners) => listeners,
        // Binding to an interface takes a privilege that a test may not have.
        Err(error) => {
            assert_eq!(error.kind(), io::ErrorKind::PermissionDenied);
            return;
        }
    };
    assert_eq!(listeners[0].local_addr().expect("bound").ip(), nowhere);
    assert!(bind([nowhere], 0, "no-such-one").is_err());
}
