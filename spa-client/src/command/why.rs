//! `spa why RESOURCE`: why it is granted or refused, in sentences; asked of the gateway while a session is open, else
//! what the last knock was told.

use serde_json::{Value, json};
use spa_proto::channel;
use spa_proto::{Verdict, WallTime};

use crate::agent::{Link, Method};
use crate::cli;
use crate::clock;
use crate::failure::Failure;
use crate::places::Places;
use crate::say;
use crate::store::Store;

/// Runs the command.
///
/// # Errors
/// When nothing is remembered of the resource.
pub fn why(places: &Places, asked: &cli::Why) -> Result<(), Failure> {
    let (entry, _) = Store::new(places.clone()).choose(asked.gateway.as_deref())?;
    let live = live(places, entry.name(), &asked.resource);
    let answer = match live {
        Some(answer) => answer,
        None => remembered(&entry, &asked.resource)?,
    };
    if asked.json {
        outln!("{}", answer.json(entry.name()));
    } else {
        out!("{}", answer.text(entry.name()));
    }
    Ok(())
}

/// What is known of one resource.
struct Answer {
    resource: String,
    verdict: Verdict,
    at: WallTime,
    /// What does not hold, where the gateway says more than the verdict.
    unmet: Vec<channel::Unmet>,
    live: bool,
}

/// What the gateway says now. Where it cannot be asked, memory stands in.
fn live(places: &Places, profile: &str, resource: &str) -> Option<Answer> {
    let link = Link::connect(places, profile).ok().flatten()?;
    let path = format!("{}{}", channel::WHY, in_path(resource));
    let why: channel::Why = link.call(Method::Get, &path, &()).ok()?;
    Some(Answer {
        resource: resource.to_owned(),
        verdict: named(&why.verdict),
        at: clock::wall(),
        unmet: why.unmet,
        live: true,
    })
}

fn remembered(entry: &crate::store::Entry, resource: &str) -> Result<Answer, Failure> {
    let memory = entry.memory()?;
    let found = memory.verdicts().iter().find(|old| old.name == resource);
    let Some(old) = found else {
        return Err(Failure::Refused(format!(
            "{} was never answered for {resource}: knock for it first. Silence has no reason attached, since a gateway tells it only to who proved every factor",
            entry.name(),
        )));
    };
    Ok(Answer {
        resource: resource.to_owned(),
        verdict: Verdict::from_code(old.verdict),
        at: old.at,
        unmet: Vec::new(),
        live: false,
    })
}

impl Answer {
    fn text(&self, gateway: &str) -> String {
        let when = if self.live {
            "asked now".to_owned()
        } else {
            format!("at the knock of {}", clock::local_text(self.at))
        };
        let mut text = format!(
            "{} at {gateway}: {} ({when}). {}\n",
            self.resource,
            say::verdict(self.verdict),
            say::remedy(self.verdict)
        );
        for unmet in &self.unmet {
            let line = format!(
                "  {}: wanted {}, seen {}. {}",
                unmet.about, unmet.wanted, unmet.saw, unmet.remedy
            );
            text.push_str(say::printable(&line).trim_end());
            text.push('\n');
        }
        text
    }

    fn json(&self, gateway: &str) -> Value {
        json!({
            "gateway": gateway,
            "resource": self.resource,
            "granted": self.verdict.is_granted(),
            "code": self.verdict.code(),
            "verdict": say::verdict(self.verdict),
            "remedy": say::remedy(self.verdict),
            "unmet": self.unmet,
            "live": self.live,
            "at_ms": self.at.as_millis(),
        })
    }
}

/// The verdict of a word of SPEC §12; one that is not known means refused.
fn named(word: &str) -> Verdict {
    match word {
        "granted" => Verdict::Granted,
        "not-allowed" => Verdict::NotAllowed,
        "posture" => Verdict::Posture,
        "time-window" => Verdict::TimeWindow,
        "risk" => Verdict::Risk,
        "locked" => Verdict::Locked,
        "approval-needed" => Verdict::ApprovalNeeded,
        _ => Verdict::Other(u8::MAX),
    }
}

/// A name as one piece of a path (RFC 3986 §2.1).
fn in_path(name: &str) -> String {
    name.bytes()
        .map(|byte| match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => {
                char::from(byte).to_string()
            }
            _ => format!("%{byte:02X}"),
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_one_piece_of_a_path() {
        assert_eq!(in_path("wiki-2.b"), "wiki-2.b");
        assert_eq!(in_path("../a?b#é"), "..%2Fa%3Fb%23%C3%A9");
    }

    #[test]
    fn the_gateways_reasons_are_shown_and_cannot_write_on_the_terminal() {
        let answer = Answer {
            resource: "db".to_owned(),
            verdict: named("posture"),
            at: WallTime::from_millis(1),
            unmet: vec![channel::Unmet {
                about: "disk_encryption".to_owned(),
                wanted: "true".to_owned(),
                saw: "false\x1b[2J\n".to_owned(),
                remedy: String::new(),
            }],
            live: true,
        };
        let text = answer.text("gw");
        assert_eq!(text.lines().count(), 2, "{text:?}");
        assert!(text.contains("disk_encryption: wanted true, seen false"));
        assert!(!text.contains('\x1b'));
        assert_eq!(answer.json("gw")["unmet"][0]["about"], "disk_encryption");
        assert!(!named("of-tomorrow").is_granted());
    }
}
