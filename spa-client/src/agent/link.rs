//! How other commands speak to the agent: one word in, lines out, over a socket only its owner can open.

use std::io::{self, BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use spa_proto::WallTime;

use crate::agent::{AgentError, socket_path};
use crate::control::{Client, ControlError};
use crate::places::Places;
use crate::say;
use crate::session::Session;

/// How long an answer may take; a CLOSE has its own whole transaction.
const ANSWER: Duration = Duration::from_secs(3);

/// A call has its own time limit, and a slow gateway most of it.
const CALL_ANSWER: Duration = Duration::from_secs(15);

/// A CLOSE takes 8 s when the gateway is silent.
const CLOSE_ANSWER: Duration = Duration::from_secs(15);

/// The words.
pub(super) const STATUS: &str = "status";
/// Ends the session at the gateway and here.
pub(super) const CLOSE: &str = "close";
/// Ends it here, since another session has taken its place at the gateway.
pub(super) const GIVE_WAY: &str = "give-way";
/// Followed by a call as JSON: passes it on to the gateway, through the tunnel.
pub(super) const CALL: &str = "call";

/// A connection to a living agent.
pub struct Link {
    stream: UnixStream,
}

/// What a living agent says of its session.
#[derive(Clone, Debug)]
pub struct Live {
    /// The resources granted.
    pub granted: Vec<String>,
    /// Whether everything policy allows was asked for.
    pub all: bool,
    /// The interface.
    pub interface: String,
    /// Which WireGuard carries it.
    pub backend: String,
    /// Where the gateway is.
    pub gateway: String,
    /// Our addresses inside.
    pub addresses: Vec<String>,
    /// What leads into it.
    pub routes: Vec<String>,
    /// When it ends, Unix milliseconds by our clock.
    pub not_after: u64,
    /// How long it lasts yet.
    pub left: Duration,
    /// How old the last handshake is; `None` before the first.
    pub handshake_age: Option<Duration>,
    /// How long ago the gateway was heard inside the tunnel; `None` where it has no control channel, or was not yet.
    pub heard_age: Option<Duration>,
    /// How much longer it can be made, Unix milliseconds by our clock.
    pub renewable_until: Option<u64>,
    /// Which preshared key the tunnel has, in words.
    pub keys: String,
    /// What happened lately: Unix milliseconds and a line for the person.
    pub news: Vec<(u64, String)>,
    /// The systemd scope the agent is in, if it is in one.
    pub scope: Option<String>,
    /// Bytes received.
    pub received: u64,
    /// Bytes sent.
    pub sent: u64,
}

/// How a close went.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CloseEnd {
    /// The gateway confirmed.
    Confirmed,
    /// It did not; the session is over here.
    Unconfirmed(String),
}

impl Link {
    /// Finds the agent of a profile; `None` when there is none, or a dead one.
    ///
    /// # Errors
    /// When its socket is there and cannot be used.
    pub fn connect(places: &Places, profile: &str) -> Result<Option<Self>, AgentError> {
        match UnixStream::connect(socket_path(places, profile)) {
            Ok(stream) => Ok(Some(Self { stream })),
            Err(error)
                if matches!(
                    error.kind(),
                    io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused
                ) =>
            {
                Ok(None)
            }
            Err(error) => Err(AgentError::Talk(error)),
        }
    }

    /// Asks for the state of the session.
    ///
    /// # Errors
    /// When the agent does not answer as agreed.
    pub fn status(self) -> Result<Live, AgentError> {
        let line = self.ask(STATUS, ANSWER)?;
        serde_json::from_str(&line)
            .ok()
            .as_ref()
            .and_then(parse_live)
            .ok_or(AgentError::Version(line))
    }

    /// Ends the session: the gateway first, then here.
    ///
    /// # Errors
    /// When the agent does not answer as agreed.
    pub fn close(self) -> Result<CloseEnd, AgentError> {
        let line = self.ask(CLOSE, CLOSE_ANSWER)?;
        match line.split_once(' ').unwrap_or((&line, "")) {
            ("confirmed", _) => Ok(CloseEnd::Confirmed),
            ("unconfirmed", why) => Ok(CloseEnd::Unconfirmed(why.to_owned())),
            _ => Err(AgentError::Version(line)),
        }
    }

    /// Ends the session here, and waits until the interface is gone.
    ///
    /// # Errors
    /// When the agent does not answer as agreed.
    pub fn give_way(self) -> Result<(), AgentError> {
        match self.ask(GIVE_WAY, ANSWER) {
            Ok(answer) if answer == "gone" => Ok(()),
            Ok(other) => Err(AgentError::Version(other)),
            // It was going already, and is gone with all it had.
            Err(AgentError::Talk(error)) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// Asks the gateway something, through the tunnel.
    ///
    /// # Errors
    /// The gateway's "no", in its words, or why it cannot be asked.
    pub fn call<T: DeserializeOwned>(
        self,
        method: Method,
        path: &str,
        body: &impl Serialize,
    ) -> Result<T, AgentError> {
        let call = json!({ "method": method.word(), "path": path, "body": body });
        let line = self.ask(&format!("{CALL} {call}"), CALL_ANSWER)?;
        let answer: Value = serde_json::from_str(&line).unwrap_or_default();
        if let Some(why) = answer.get("failed").and_then(Value::as_str) {
            return Err(AgentError::Gateway(say::printable(why)));
        }
        let body = answer.get("answer").cloned().unwrap_or_default();
        serde_json::from_value(body).map_err(|_| AgentError::Version(line))
    }

    fn ask(mut self, word: &str, patience: Duration) -> Result<String, AgentError> {
        let mut talk = || {
            self.stream.set_read_timeout(Some(patience))?;
            self.stream.write_all(format!("{word}\n").as_bytes())?;
            let mut line = String::new();
            BufReader::new(&self.stream).read_line(&mut line)?;
            if line.is_empty() {
                Err(io::ErrorKind::UnexpectedEof.into())
            } else {
                Ok(line.trim_end().to_owned())
            }
        };
        talk().map_err(AgentError::Talk)
    }
}

/// How a call asks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Method {
    /// `GET`
    Get,
    /// `POST`
    Post,
}

impl Method {
    fn word(self) -> &'static str {
        match self {
            Self::Get => "GET",
            Self::Post => "POST",
        }
    }
}

/// Passes a call of [`Link::call`] on, and gives the line to answer it with.
pub(super) fn answer_call(client: Option<&Client>, call: &str) -> String {
    let Some(client) = client else {
        return failed("this gateway has no control channel: knock again to change something");
    };
    let call: Value = serde_json::from_str(call).unwrap_or_default();
    let path = call["path"].as_str().unwrap_or_default();
    let answer: Result<Value, ControlError> = match call["method"].as_str() {
        Some("GET") => client.get(path),
        Some("POST") => client.post(path, &call["body"]),
        _ => return failed("the call is none"),
    };
    match answer {
        Ok(answer) => json!({ "answer": answer }).to_string(),
        Err(error) => failed(&error.to_string()),
    }
}

fn failed(why: &str) -> String {
    json!({ "failed": why }).to_string()
}

/// What changes while a session lasts.
pub(super) struct Moving {
    pub(super) granted: Vec<String>,
    pub(super) not_after: WallTime,
    pub(super) heard_age: Option<Duration>,
    pub(super) renewable_until: Option<WallTime>,
    pub(super) keys: String,
    pub(super) news: Value,
    pub(super) scope: Option<String>,
    pub(super) backend: String,
    pub(super) routes: Vec<String>,
    pub(super) left: Duration,
    pub(super) handshake_age: Option<Duration>,
    pub(super) received: u64,
    pub(super) sent: u64,
}

/// The status line.
pub(super) fn live_line(session: &Session, moving: &Moving) -> String {
    let addresses: Vec<String> = session
        .tunnel
        .addresses
        .iter()
        .map(ToString::to_string)
        .collect();
    json!({
        "granted": moving.granted,
        "all": session.all,
        "interface": session.interface,
        "backend": moving.backend,
        "gateway": session.gateway.to_string(),
        "addresses": addresses,
        "routes": moving.routes,
        "not_after_ms": moving.not_after.as_millis(),
        "renewable_until_ms": moving.renewable_until.map(WallTime::as_millis),
        "keys": moving.keys,
        "news": moving.news,
        "scope": moving.scope,
        "left_ms": millis(moving.left),
        "handshake_age_ms": moving.handshake_age.map(millis),
        "heard_age_ms": moving.heard_age.map(millis),
        "received": moving.received,
        "sent": moving.sent,
    })
    .to_string()
}

fn millis(length: Duration) -> u64 {
    u64::try_from(length.as_millis()).unwrap_or(u64::MAX)
}

fn parse_live(value: &Value) -> Option<Live> {
    let text = |key: &str| Some(value.get(key)?.as_str()?.to_owned());
    let texts = |key: &str| {
        value
            .get(key)?
            .as_array()?
            .iter()
            .map(|one| one.as_str().map(str::to_owned))
            .collect::<Option<Vec<String>>>()
    };
    let number = |key: &str| value.get(key)?.as_u64();
    Some(Live {
        granted: texts("granted")?,
        all: value.get("all")?.as_bool()?,
        interface: text("interface")?,
        backend: text("backend")?,
        gateway: text("gateway")?,
        addresses: texts("addresses")?,
        routes: texts("routes")?,
        not_after: number("not_after_ms")?,
        left: Duration::from_millis(number("left_ms")?),
        handshake_age: number("handshake_age_ms").map(Duration::from_millis),
        heard_age: number("heard_age_ms").map(Duration::from_millis),
        renewable_until: number("renewable_until_ms"),
        keys: text("keys")?,
        news: serde_json::from_value(value.get("news")?.clone()).ok()?,
        scope: text("scope"),
        received: number("received")?,
        sent: number("sent")?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_status_line_reads_as_it_was_written_and_holds_no_key() {
        let session = crate::session::tests::sample();
        let moving = Moving {
            granted: session.granted.clone(),
            not_after: session.not_after,
            heard_age: Some(Duration::from_secs(3)),
            renewable_until: None,
            keys: "post-quantum".to_owned(),
            news: json!([[7, "wiki: lost"]]),
            scope: None,
            backend: "kernel".to_owned(),
            routes: vec!["10.0.5.10/32".to_owned()],
            left: Duration::from_secs(60),
            handshake_age: None,
            received: 1,
            sent: 2,
        };
        let line = live_line(&session, &moving);
        assert!(!line.contains('\n') && !line.contains("0707"), "{line}");
        let live = serde_json::from_str(&line)
            .ok()
            .as_ref()
            .and_then(parse_live)
            .expect("our own line");
        assert_eq!(live.granted, ["wiki", "db"]);
        assert_eq!(live.left, Duration::from_secs(60));
        assert_eq!(live.handshake_age, None);
        assert_eq!(live.heard_age, Some(Duration::from_secs(3)));
        assert_eq!(live.news, [(7, "wiki: lost".to_owned())]);
    }
}
