//! The control channel inside the tunnel (SPEC §12), as a client speaks it: HTTP/1.1, JSON, one session's bearer.
//!
//! Invariant: the gateway is a peer like any other. Every answer has a longest length and a longest time, redirects and
//! proxies are not followed, and what does not read as it should is an error, never a guess.

use std::io::{BufRead, BufReader, Read};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use serde::Serialize;
use serde::de::DeserializeOwned;
use spa_proto::channel::{self, Event, Problem};
use spa_proto::{SessionKey, control_bearer};
use ureq::Agent;
use ureq::http::Response;
use zeroize::Zeroizing;

use crate::say;

/// The longest answer: the routes and resources of a session of some thousand flows.
const LONGEST_ANSWER: u64 = 256 * 1024;

/// The longest head of an answer.
const LONGEST_HEAD: usize = 8 * 1024;

/// The longest line of an event.
const LONGEST_LINE: u64 = 16 * 1024;

/// How long a connection may take to come about.
const CONNECT: Duration = Duration::from_secs(4);

/// How long a call may take as a whole.
const CALL: Duration = Duration::from_secs(10);

/// How long one may take while somebody waits for the end of a session.
const HASTE: Duration = Duration::from_millis(1500);

/// The gateway says something every 20 s (SPEC §12); silence for longer is a tunnel that does not carry.
pub const EVENT_SILENCE: Duration = Duration::from_secs(45);

/// Why a call came to nothing.
#[derive(Debug, thiserror::Error)]
pub enum ControlError {
    /// No answer: the tunnel does not carry, or nobody listens.
    #[error("the gateway does not answer inside the tunnel: {0}")]
    Silent(String),
    /// It said no.
    #[error("{}", .0.reason)]
    Refused(Refusal),
    /// It said what cannot be understood.
    #[error(
        "the gateway answered inside the tunnel what this version of spa does not understand: {0}"
    )]
    Odd(String),
}

/// A "no" of the gateway.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// The HTTP status.
    pub status: u16,
    /// The word of SPEC §12.
    pub error: String,
    /// One line for the person, harmless on a terminal.
    pub reason: String,
}

/// Speaks for one session; every clone does.
#[derive(Clone)]
pub struct Client {
    agent: Agent,
    streaming: Agent,
    patience: Duration,
    base: String,
    bearer: Arc<Zeroizing<String>>,
}

impl Client {
    /// For the session of `key`, at the gateway's address inside.
    #[must_use]
    pub fn new(gateway: IpAddr, port: u16, key: &SessionKey) -> Self {
        let common = || {
            Agent::config_builder()
                .proxy(None)
                .max_redirects(0)
                .http_status_as_error(false)
                .max_response_header_size(LONGEST_HEAD)
                // A connection that was kept over a change of address or a sleep is one that hangs.
                .max_idle_connections(0)
                .user_agent("")
                .accept_encoding("")
                .timeout_connect(Some(CONNECT))
                .timeout_recv_response(Some(CALL))
        };
        Self {
            agent: common().build().new_agent(),
            streaming: common()
                .timeout_per_read(Some(EVENT_SILENCE))
                .build()
                .new_agent(),
            patience: CALL,
            base: format!("http://{}", SocketAddr::new(gateway, port)),
            bearer: Arc::new(control_bearer(key)),
        }
    }

    /// The same, for who cannot wait.
    #[must_use]
    pub fn hasty(&self) -> Self {
        Self {
            patience: HASTE,
            ..self.clone()
        }
    }

    /// `GET`.
    ///
    /// # Errors
    /// When there is no answer, or a "no".
    pub fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T, ControlError> {
        let answer = self
            .agent
            .get(self.url(path))
            .header("Authorization", self.authorization().as_str())
            .config()
            .timeout_global(Some(self.patience))
            .build()
            .call();
        read(answer)
    }

    /// `POST`.
    ///
    /// # Errors
    /// When there is no answer, or a "no".
    pub fn post<T: DeserializeOwned>(
        &self,
        path: &str,
        body: &impl Serialize,
    ) -> Result<T, ControlError> {
        let body =
            serde_json::to_vec(body).map_err(|error| ControlError::Odd(error.to_string()))?;
        let answer = self
            .agent
            .post(self.url(path))
            .header("Authorization", self.authorization().as_str())
            .header("Content-Type", "application/json")
            .config()
            .timeout_global(Some(self.patience))
            .build()
            .send(body.as_slice());
        read(answer)
    }

    /// Opens the stream of events after the one of this number.
    ///
    /// # Errors
    /// When there is no answer, or a "no".
    pub fn events(&self, last: u64) -> Result<Events, ControlError> {
        let answer = self
            .streaming
            .get(self.url(channel::EVENTS))
            .header("Authorization", self.authorization().as_str())
            .header("Accept", "text/event-stream")
            .header("Last-Event-ID", last.to_string())
            .call()
            .map_err(silent)?;
        if answer.status() != 200 {
            return Err(refusal(answer));
        }
        let body = answer
            .into_body()
            .into_with_config()
            .limit(u64::MAX)
            .reader();
        Ok(Events {
            lines: BufReader::new(Box::new(body)),
            last,
        })
    }

    fn url(&self, path: &str) -> String {
        format!("{}{path}", self.base)
    }

    fn authorization(&self) -> Zeroizing<String> {
        Zeroizing::new(format!("Bearer {}", self.bearer.as_str()))
    }
}

type Answer = Result<Response<ureq::Body>, ureq::Error>;

fn silent(error: ureq::Error) -> ControlError {
    ControlError::Silent(say::printable(&error.to_string()))
}

fn read<T: DeserializeOwned>(answer: Answer) -> Result<T, ControlError> {
    let mut answer = answer.map_err(silent)?;
    if answer.status() != 200 {
        return Err(refusal(answer));
    }
    let body = text(&mut answer)?;
    serde_json::from_slice(&body).map_err(|error| ControlError::Odd(error.to_string()))
}

fn text(answer: &mut Response<ureq::Body>) -> Result<Vec<u8>, ControlError> {
    answer
        .body_mut()
        .with_config()
        .limit(LONGEST_ANSWER)
        .read_to_vec()
        .map_err(silent)
}

fn refusal(mut answer: Response<ureq::Body>) -> ControlError {
    let status = answer.status().as_u16();
    let problem = text(&mut answer)
        .ok()
        .and_then(|body| serde_json::from_slice::<Problem>(&body).ok());
    match problem {
        Some(problem) => ControlError::Refused(Refusal {
            status,
            error: say::printable(&problem.error),
            reason: say::printable(&problem.reason),
        }),
        None => ControlError::Odd(format!("status {status}")),
    }
}

/// A stream of events.
pub struct Events {
    lines: BufReader<Box<dyn Read + Send>>,
    last: u64,
}

/// What a stream gave.
#[derive(Debug)]
pub enum Heard {
    /// An event.
    Event(Event),
    /// A sign of life, or an event of a later version.
    Alive,
}

impl Events {
    /// The number of the last event.
    #[must_use]
    pub fn last(&self) -> u64 {
        self.last
    }

    /// Waits for the next event or sign of life.
    ///
    /// # Errors
    /// When the stream has ended, or says nothing for too long.
    pub fn next(&mut self) -> Result<Heard, ControlError> {
        let mut event = None;
        loop {
            let line = self.line()?;
            if line.is_empty() {
                return Ok(event.map_or(Heard::Alive, Heard::Event));
            }
            if let Some(id) = line.strip_prefix("id: ") {
                self.last = id.parse().unwrap_or(self.last);
            } else if let Some(data) = line.strip_prefix("data: ") {
                event = serde_json::from_str(data).ok();
            } else if line.starts_with(':') {
                return Ok(Heard::Alive);
            }
        }
    }

    fn line(&mut self) -> Result<String, ControlError> {
        let mut line = Vec::new();
        (&mut self.lines)
            .take(LONGEST_LINE)
            .read_until(b'\n', &mut line)
            .map_err(|error| ControlError::Silent(error.to_string()))?;
        match line.pop() {
            Some(b'\n') => {}
            Some(_) if line.len() as u64 + 1 == LONGEST_LINE => {
                return Err(ControlError::Odd("an event without end".to_owned()));
            }
            Some(_) | None => {
                return Err(ControlError::Silent(
                    "the stream of events ended".to_owned(),
                ));
            }
        }
        if line.last() == Some(&b'\r') {
            line.pop();
        }
        String::from_utf8(line).map_err(|error| ControlError::Odd(error.to_string()))
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::net::{Ipv4Addr, TcpListener};
    use std::thread;

    use spa_proto::channel::{Grants, Nothing};

    use super::*;

    /// Answers every connection with these bytes, and gives the heads of the requests.
    fn gateway(answer: Vec<u8>) -> (Client, thread::JoinHandle<String>) {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a loopback port");
        let port = listener.local_addr().expect("bound").port();
        let served = thread::spawn(move || {
            let (mut stream, _) = listener.accept().expect("a client comes");
            let mut head = String::new();
            let mut lines = BufReader::new(stream.try_clone().expect("a socket"));
            while !head.ends_with("\r\n\r\n") {
                lines.read_line(&mut head).expect("a head");
            }
            // The client may have hung up before the end.
            let _ = stream.write_all(&answer);
            head
        });
        let key = SessionKey::from_bytes([7; 32]);
        (Client::new(Ipv4Addr::LOCALHOST.into(), port, &key), served)
    }

    fn with_length(status: &str, body: &str) -> Vec<u8> {
        format!(
            "HTTP/1.1 {status}\r\nContent-Length: {}\r\n\r\n{body}",
            body.len()
        )
        .into_bytes()
    }

    #[test]
    fn a_call_carries_the_bearer_and_nothing_of_the_machine() {
        let (client, served) = gateway(with_length("200 OK", "{}"));
        client
            .post::<Nothing>("/v1/close", &Nothing {})
            .expect("closed");
        let head = served.join().expect("served").to_lowercase();
        let bearer = control_bearer(&SessionKey::from_bytes([7; 32]));
        assert!(
            head.contains(&format!("authorization: bearer {}", bearer.as_str())),
            "{head}"
        );
        assert!(head.contains("content-length: 2\r\n"), "{head}");
        assert!(
            !head.contains("user-agent") && !head.contains("transfer-encoding"),
            "{head}"
        );
    }

    #[test]
    fn a_no_is_told_in_the_gateways_words_without_its_control_characters() {
        let body = r#"{"error":"refused","reason":"the limit\u001b[2J is reached","more":1}"#;
        let (client, _) = gateway(with_length("403 Forbidden", body));
        match client.get::<Grants>("/v1/grants") {
            Err(ControlError::Refused(refusal)) => {
                assert_eq!((refusal.status, refusal.error.as_str()), (403, "refused"));
                assert_eq!(refusal.reason, "the limit [2J is reached");
            }
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_hostile_gateway_gets_no_more_than_the_limits() {
        let long = format!(r#"{{"x":"{}"}}"#, "a".repeat(LONGEST_ANSWER as usize));
        for answer in [
            with_length("200 OK", &long),
            with_length("200 OK", "[]"),
            with_length("200 OK", r#"{"session":1}"#),
            b"HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\n{}".to_vec(),
            b"HTTP/1.1 302 Found\r\nLocation: http://127.0.0.1:1/\r\nContent-Length: 0\r\n\r\n"
                .to_vec(),
            format!("HTTP/1.1 200 OK\r\nX: {}\r\n\r\n", "a".repeat(1 << 20)).into_bytes(),
            b"SSH-2.0-x\r\n".to_vec(),
            Vec::new(),
        ] {
            let (client, _) = gateway(answer);
            assert!(client.get::<Grants>("/v1/grants").is_err());
        }
    }

    #[test]
    fn events_are_read_one_by_one_and_a_flood_without_end_is_cut_off() {
        let stream = ": hello\n\nid: 4\ndata: {\"event\":\"posture-required\",\"missed\":1,\"of\":3}\n\n\
                      id: 5\ndata: {\"event\":\"of-tomorrow\"}\n\n";
        let mut answer = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\n".to_vec();
        answer.extend(stream.as_bytes());
        answer.extend(vec![b'x'; 3 * LONGEST_LINE as usize]);
        let (client, _) = gateway(answer);
        let mut events = client.events(3).expect("a stream");
        let mut heard = Vec::new();
        let end = loop {
            match events.next() {
                Ok(Heard::Event(event)) => heard.push(event),
                Ok(Heard::Alive) => {}
                Err(error) => break error,
            }
        };
        assert!(
            matches!(heard[..], [Event::PostureRequired(_)]),
            "{heard:?}"
        );
        assert_eq!(events.last(), 5);
        assert!(matches!(end, ControlError::Odd(_)), "{end}");
    }
}
