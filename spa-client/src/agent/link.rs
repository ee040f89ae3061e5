//! How other commands speak to the agent: one word in, lines out, over a socket only its owner can open.

use std::io::{self, BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use serde_json::{Value, json};

use crate::agent::{AgentError, socket_path};
use crate::places::Places;
use crate::session::Session;

/// How long an answer may take; a CLOSE has its own whole transaction.
const ANSWER: Duration = Duration::from_secs(3);

/// A CLOSE takes 8 s when the gateway is silent.
const CLOSE_ANSWER: Duration = Duration::from_secs(15);

/// The words.
pub(super) const STATUS: &str = "status";
/// Ends the session at the gateway and here.
pub(super) const CLOSE: &str = "close";
/// Ends it here, since another session has taken its place at the gateway.
pub(super) const GIVE_WAY: &str = "give-way";

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
        match self.ask(GIVE_WAY, ANSWER)?.as_str() {
            "gone" => Ok(()),
            other => Err(AgentError::Version(other.to_owned())),
        }
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

/// What changes while a session lasts.
pub(super) struct Moving {
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
        "granted": session.granted,
        "all": session.all,
        "interface": session.interface,
        "backend": moving.backend,
        "gateway": session.gateway.to_string(),
        "addresses": addresses,
        "routes": moving.routes,
        "not_after_ms": session.not_after.as_millis(),
        "left_ms": u64::try_from(moving.left.as_millis()).unwrap_or(u64::MAX),
        "handshake_age_ms": moving.handshake_age.map(|age| u64::try_from(age.as_millis()).unwrap_or(u64::MAX)),
        "received": moving.received,
        "sent": moving.sent,
    })
    .to_string()
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
    }
}
