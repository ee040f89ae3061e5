//! `spa status`: what is open, until when, and whether the tunnel is alive.
//!
//! Invariant: "connected" is said only while a handshake is younger than the key it made may be used, and the gateway, if it
//! has a control channel, was heard lately.

use std::io::{IsTerminal, Write, stdout};
use std::thread;
use std::time::Duration;

use serde_json::{Value, json};
use spa_proto::WallTime;

use crate::agent::{AgentError, Link, Live, Note};
use crate::cli;
use crate::clock;
use crate::failure::Failure;
use crate::places::Places;
use crate::profile::Stage;
use crate::say;
use crate::store::{Entry, Store};

/// `REJECT_AFTER_TIME` of the WireGuard paper: no packet passes under a handshake that is older.
const FRESH: Duration = Duration::from_secs(180);

/// A gateway with a control channel says something every 20 s (SPEC §12): after two of them missed it is not known to be
/// there any more, however fresh the keys are.
const HEARD: Duration = Duration::from_secs(50);

/// How often `--watch` looks.
const WATCH: Duration = Duration::from_secs(1);

/// Runs the command.
///
/// # Errors
/// When a profile or an agent cannot be read.
pub fn status(places: &Places, asked: &cli::Status) -> Result<(), Failure> {
    let store = Store::new(places.clone());
    let entries = match &asked.gateway {
        Some(name) => vec![store.choose(Some(name))?.0],
        None => store.entries()?,
    };
    if asked.json {
        let all: Vec<Value> = entries
            .iter()
            .map(|entry| Ok(State::of(places, entry)?.json(entry.name())))
            .collect::<Result<_, Failure>>()?;
        outln!("{}", Value::Array(all));
    }
    if entries.is_empty() {
        // The error that says how to enrol.
        store.choose(None)?;
    }
    if asked.json {
        return Ok(());
    }
    loop {
        let mut text = String::new();
        for entry in &entries {
            text.push_str(&State::of(places, entry)?.text(entry.name()));
        }
        if !asked.watch {
            out!("{text}");
            return Ok(());
        }
        let clear = if stdout().is_terminal() {
            "\x1b[H\x1b[2J"
        } else {
            ""
        };
        // Whoever read it has gone.
        if write!(stdout(), "{clear}{text}")
            .and_then(|()| stdout().flush())
            .is_err()
        {
            return Ok(());
        }
        thread::sleep(WATCH);
    }
}

/// What is known of one gateway.
enum State {
    Live(Live),
    /// The agent is gone and left its note.
    Noted(Note),
    /// The agent is there and does not answer: it was stopped. Its note says until when the session was.
    Stuck(Note),
    Never,
    Unfinished,
}

/// How alive a session is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Pulse {
    Connected,
    /// No handshake yet.
    NoHandshake,
    /// The last handshake is too old to say more.
    Quiet,
}

impl Pulse {
    fn of(live: &Live) -> Self {
        let heard = live.heard_age.is_none_or(|age| age <= HEARD);
        match live.handshake_age {
            Some(age) if age <= FRESH && heard => Self::Connected,
            Some(_) => Self::Quiet,
            None => Self::NoHandshake,
        }
    }

    fn word(self) -> &'static str {
        match self {
            Self::Connected => "connected",
            Self::NoHandshake => "no-handshake",
            Self::Quiet => "quiet",
        }
    }
}

impl State {
    fn of(places: &Places, entry: &Entry) -> Result<Self, Failure> {
        if !matches!(entry.profile()?.stage, Stage::Active { .. }) {
            return Ok(Self::Unfinished);
        }
        if let Some(link) = Link::connect(places, entry.name())? {
            return match (link.status(), Note::read(places, entry.name())?) {
                (Ok(live), _) => Ok(Self::Live(live)),
                (Err(AgentError::Talk(_)), Some(note)) => Ok(Self::Stuck(note)),
                (Err(error), _) => Err(error.into()),
            };
        }
        Ok(Note::read(places, entry.name())?.map_or(Self::Never, Self::Noted))
    }

    fn text(&self, name: &str) -> String {
        match self {
            Self::Unfinished => {
                format!("{name}: the enrolment is not complete; run `spa enroll INVITE` again\n")
            }
            Self::Never => format!("{name}: nothing is open\n"),
            Self::Noted(note) => match &note.ended {
                Some((at, why)) => {
                    format!(
                        "{name}: nothing is open; the last session {}, {}\n",
                        why.text(),
                        clock::local_text(*at)
                    )
                }
                None => format!(
                    "{name}: not connected; the process that held the session (until {}) died. `spa close` clears what it left\n",
                    clock::local_text(note.not_after)
                ),
            },
            Self::Stuck(note) => {
                let until = clock::local_text(note.not_after);
                if note.not_after <= clock::wall() {
                    format!(
                        "{name}: nothing is open; the time of the last session was over at {until}. The process that held it does not answer: `spa close` when it does again\n"
                    )
                } else {
                    format!(
                        "{name}: not known to be connected; the process that holds the session (until {until}) does not answer\n"
                    )
                }
            }
            Self::Live(live) => live_text(name, live),
        }
    }

    fn json(&self, name: &str) -> Value {
        match self {
            Self::Unfinished => json!({ "gateway": name, "state": "not-enrolled" }),
            Self::Never => json!({ "gateway": name, "state": "closed" }),
            Self::Noted(note) => match &note.ended {
                Some((at, why)) => {
                    json!({ "gateway": name, "state": "closed", "ended_ms": at.as_millis(), "reason": why.text() })
                }
                None => {
                    json!({ "gateway": name, "state": "agent-died", "not_after_ms": note.not_after.as_millis() })
                }
            },
            Self::Stuck(note) if note.not_after <= clock::wall() => {
                json!({ "gateway": name, "state": "closed", "ended_ms": note.not_after.as_millis(), "reason": "ended: its time was over; its agent does not answer" })
            }
            Self::Stuck(note) => {
                json!({ "gateway": name, "state": "agent-stuck", "not_after_ms": note.not_after.as_millis() })
            }
            Self::Live(live) => json!({
                "gateway": name,
                "state": Pulse::of(live).word(),
                "keys": live.keys,
                "heard_age_s": live.heard_age.map(|age| age.as_secs()),
                "renewable_until_ms": live.renewable_until,
                "news": news_json(live),
                "scope": live.scope,
                "resources": live.granted,
                "all": live.all,
                "routes": live.routes,
                "addresses": live.addresses,
                "interface": live.interface,
                "wireguard": live.backend,
                "endpoint": live.gateway,
                "not_after_ms": live.not_after,
                "left_s": live.left.as_secs(),
                "handshake_age_s": live.handshake_age.map(|age| age.as_secs()),
                "received": live.received,
                "sent": live.sent,
            }),
        }
    }
}

fn live_text(name: &str, live: &Live) -> String {
    let handshake = live.handshake_age.map_or_else(String::new, say::length);
    let pulse = match Pulse::of(live) {
        Pulse::Connected => format!("connected, last handshake {handshake} ago"),
        Pulse::NoHandshake => "open, and no handshake yet".to_owned(),
        Pulse::Quiet => {
            let since = match live.heard_age {
                Some(age) => format!("the gateway was last heard {} ago", say::length(age)),
                None => format!("the last handshake is {handshake} old"),
            };
            format!("open here, and {since}: idle, or the gateway does not answer any more")
        }
    };
    let what = match (live.granted.is_empty(), live.all) {
        (false, _) => live.granted.join(", "),
        (true, true) => "everything allowed".to_owned(),
        (true, false) => "the control channel alone".to_owned(),
    };
    let routes = if live.routes.is_empty() {
        "none".to_owned()
    } else {
        live.routes.join(", ")
    };
    let limit = live.renewable_until.filter(|limit| *limit > live.not_after);
    let limit = limit.map_or_else(String::new, |limit| {
        let limit = clock::local_text(WallTime::from_millis(limit));
        format!(", `spa renew` until {limit}")
    });
    let scope = live.scope.as_ref();
    let held = scope.map_or_else(String::new, |scope| {
        format!("  held by    {scope} of the systemd user manager\n")
    });
    let mut text = format!(
        "{name}: {pulse}\n  resources  {what}\n  routes     {routes}\n  until      {} ({} left{limit})\n  keys       {}\n  traffic    {} received, {} sent\n  interface  {} ({}), address {}\n{}",
        clock::local_text(WallTime::from_millis(live.not_after)),
        say::length(live.left),
        live.keys,
        say::bytes(live.received),
        say::bytes(live.sent),
        live.interface,
        live.backend,
        live.addresses.join(", "),
        held,
    );
    for (at, line) in &live.news {
        let at = clock::local_text(WallTime::from_millis(*at));
        text.push_str(&format!("  {at}  {}\n", say::printable(line)));
    }
    text
}

fn news_json(live: &Live) -> Vec<Value> {
    let line = |(at, text): &(u64, String)| json!({ "at_ms": at, "text": text });
    live.news.iter().map(line).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn live(handshake_age: Option<u64>) -> Live {
        Live {
            granted: vec!["wiki".to_owned()],
            all: false,
            interface: "spa-cabababab".to_owned(),
            backend: "embedded".to_owned(),
            gateway: "192.0.2.1:51820".to_owned(),
            addresses: vec!["10.200.0.7".to_owned()],
            routes: vec!["10.0.5.10/32".to_owned()],
            not_after: 1,
            left: Duration::from_secs(60),
            handshake_age: handshake_age.map(Duration::from_secs),
            heard_age: None,
            renewable_until: None,
            keys: String::new(),
            news: Vec::new(),
            scope: None,
            received: 1024,
            sent: 1,
        }
    }

    #[test]
    fn connected_is_said_only_under_a_fresh_handshake() {
        let text = |age| live_text("gw", &live(age));
        assert!(text(Some(180)).contains("gw: connected"));
        let silent = Live {
            heard_age: Some(Duration::from_secs(51)),
            ..live(Some(5))
        };
        assert!(!live_text("gw", &silent).contains("connected"));
        for age in [None, Some(181), Some(100_000)] {
            assert!(!text(age).contains("connected"), "{age:?}");
            assert_ne!(State::Live(live(age)).json("gw")["state"], "connected");
        }
    }

    #[test]
    fn an_agent_that_was_stopped_past_the_end_is_no_connection() {
        let mut note = Note::of(&crate::session::tests::sample());
        let text = |note: &Note| State::Stuck(note.clone()).text("gw");
        note.not_after = clock::wall();
        assert!(text(&note).contains("its time") || text(&note).contains("was over"));
        assert_eq!(State::Stuck(note.clone()).json("gw")["state"], "closed");
        note.not_after = clock::wall().saturating_add(Duration::from_secs(60));
        assert!(text(&note).contains("not known to be connected"));
        assert_eq!(State::Stuck(note).json("gw")["state"], "agent-stuck");
    }

    #[test]
    fn a_dead_agent_is_said_to_be_dead() {
        let mut note = Note::of(&crate::session::tests::sample());
        assert!(
            State::Noted(note.clone())
                .text("gw")
                .contains("not connected")
        );
        note.ended = Some((WallTime::from_millis(5), crate::agent::Ended::Expired));
        assert!(State::Noted(note).text("gw").contains("its time was over"));
    }
}
