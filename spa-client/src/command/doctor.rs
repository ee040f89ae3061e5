//! `spa doctor`: what a knock needs, one line each.

use serde_json::{Value, json};

use crate::agent::Link;
use crate::caller::address_text;
use crate::cli;
use crate::clock;
use crate::failure::Failure;
use crate::places::Places;
use crate::privilege::{self, Available};
use crate::profile::Stage;
use crate::store::Store;
use crate::tunnel;
use crate::wire;

/// No honest clock is behind the day this was written: 2026-01-01.
const EARLIEST: u64 = 1_767_225_600_000;

/// Runs the command.
///
/// # Errors
/// When a check fails.
pub fn doctor(places: &Places, asked: &cli::Doctor) -> Result<(), Failure> {
    let mut findings = vec![clock_finding(), privilege_finding(), wireguard_finding()];
    match Store::new(places.clone()).choose(asked.gateway.as_deref()) {
        Err(error) => findings.push(Finding::Bad(error.to_string())),
        Ok((entry, profile)) => {
            findings.push(match profile.stage {
                Stage::Active { .. } => Finding::Good(format!(
                    "enrolled at {} as \"{}\"",
                    entry.name(),
                    profile.label
                )),
                Stage::Invited { .. } | Stage::Candidate { .. } => Finding::Bad(format!(
                    "the enrolment at {} is not complete: run `spa enroll INVITE` again",
                    entry.name()
                )),
            });
            let remembered = entry
                .memory()
                .map(|memory| memory.addresses().to_vec())
                .unwrap_or_default();
            findings.extend(way(&profile.host, profile.port, &remembered));
            findings.extend(leftover(places, entry.name(), &profile.interface()));
        }
    }
    let bad = findings
        .iter()
        .filter(|finding| matches!(finding, Finding::Bad(_)))
        .count();
    if asked.json {
        let all: Vec<Value> = findings.iter().map(Finding::json).collect();
        outln!("{}", Value::Array(all));
    }
    for finding in findings.iter().filter(|_| !asked.json) {
        match finding {
            Finding::Good(text) => outln!("✓ {text}"),
            Finding::Known(text) => outln!("· {text}"),
            Finding::Bad(text) => outln!("✗ {text}"),
        }
    }
    match bad {
        0 => Ok(()),
        1 => Err(Failure::Refused("one check failed".to_owned())),
        more => Err(Failure::Refused(format!("{more} checks failed"))),
    }
}

enum Finding {
    Good(String),
    /// Neither good nor bad: to be compared by a person.
    Known(String),
    Bad(String),
}

impl Finding {
    fn json(&self) -> Value {
        let (state, text) = match self {
            Self::Good(text) => ("good", text),
            Self::Known(text) => ("known", text),
            Self::Bad(text) => ("bad", text),
        };
        json!({ "state": state, "text": text })
    }
}

fn clock_finding() -> Finding {
    let now = clock::wall();
    let text = clock::local_text(now);
    if now.as_millis() < EARLIEST {
        return Finding::Bad(format!("the clock says {text}, which cannot be: set it"));
    }
    // Whether the gateway agrees cannot be asked: it answers no one whose clock is off.
    Finding::Known(format!(
        "the clock says {text}: it must agree with the gateway's within 90 s"
    ))
}

fn privilege_finding() -> Finding {
    if privilege::may_make_interfaces() {
        Finding::Good("this process may make a network interface".to_owned())
    } else {
        Finding::Bad(privilege::no_privilege())
    }
}

fn wireguard_finding() -> Finding {
    match privilege::wireguard() {
        Ok(Available::Kernel) => Finding::Good("WireGuard in the kernel".to_owned()),
        Ok(Available::Embedded) => {
            let program = tunnel::tunnel_program()
                .map_or_else(String::new, |path| path.display().to_string());
            Finding::Good(format!("no WireGuard in the kernel; {program} carries it"))
        }
        Err(failure) => Finding::Bad(failure.to_string()),
    }
}

/// The way to the gateway as far as this machine knows: a gateway answers no ping.
fn way(host: &str, port: u16, remembered: &[std::net::SocketAddr]) -> Vec<Finding> {
    match wire::resolve(host, port, remembered) {
        Err(error) => vec![Finding::Bad(error.to_string())],
        Ok(addresses) => {
            let found: Vec<Finding> = addresses
                .iter()
                .map(|address| match wire::source_towards(*address) {
                    Ok(source) => {
                        Finding::Good(format!("a way to {address} exists, from {source}"))
                    }
                    Err(error) => Finding::Known(format!("no way to {address}: {error}")),
                })
                .collect();
            if found
                .iter()
                .any(|finding| matches!(finding, Finding::Good(_)))
            {
                return found;
            }
            vec![Finding::Bad(format!(
                "there is no way to {}: check the network",
                address_text(host, port)
            ))]
        }
    }
}

fn leftover(places: &Places, profile: &str, interface: &str) -> Option<Finding> {
    match Link::connect(places, profile) {
        Ok(Some(_)) => Some(Finding::Good("a session is open".to_owned())),
        Ok(None) if tunnel::exists(interface) => Some(Finding::Bad(format!(
            "{interface} was left by an agent that died: `spa close` removes it"
        ))),
        Ok(None) => None,
        Err(error) => Some(Finding::Bad(error.to_string())),
    }
}
