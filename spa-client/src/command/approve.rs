//! `spa approve [ID]`: what waits for this person's word, and that word.

use serde_json::json;
use spa_proto::channel::{self, Approve, Approved, Grants, Requests, Waiting};

use crate::agent::{Link, Method};
use crate::cli;
use crate::clock;
use crate::command::open_link;
use crate::failure::Failure;
use crate::places::Places;
use crate::say;

/// How long an approval holds unless `--for` says so.
const MINUTES: u16 = 60;

/// Runs the command.
///
/// # Errors
/// When no session is open, or the gateway says no.
pub fn approve(places: &Places, asked: &cli::Approve) -> Result<(), Failure> {
    match asked.id {
        Some(id) => let_through(places, asked, id),
        None => list(places, asked),
    }
}

fn link(places: &Places, asked: &cli::Approve) -> Result<Link, Failure> {
    open_link(places, asked.gateway.as_deref()).map(|(_, _, link)| link)
}

fn let_through(places: &Places, asked: &cli::Approve, id: u32) -> Result<(), Failure> {
    let minutes = asked.length.unwrap_or(MINUTES);
    let body = Approve { id, minutes };
    let approved: Approved = link(places, asked)?.call(Method::Post, channel::APPROVE, &body)?;
    let grants: Grants = link(places, asked)?.call(Method::Get, channel::GRANTS, &())?;
    let left = approved.until.since(grants.now);
    let until = clock::local_text(clock::wall().saturating_add(left));
    if asked.json {
        outln!(
            "{}",
            json!({ "id": id, "until_ms": approved.until.as_millis() })
        );
    } else {
        outln!("Approved until {until}: whoever asked has to knock again.");
    }
    Ok(())
}

fn list(places: &Places, asked: &cli::Approve) -> Result<(), Failure> {
    let requests: Requests = link(places, asked)?.call(Method::Get, channel::WAITING, &())?;
    if asked.json {
        outln!(
            "{}",
            json!({ "to_approve": requests.to_approve, "own": requests.own })
        );
        return Ok(());
    }
    if requests.to_approve.is_empty() {
        outln!("Nothing waits for you.");
    }
    for request in &requests.to_approve {
        outln!("{}", line(request));
    }
    for request in &requests.own {
        outln!("{}, asked by you: it waits for another", line(request));
    }
    Ok(())
}

fn line(request: &Waiting) -> String {
    say::printable(&format!(
        "{}  {} asks for {} (rule {}) since {}",
        request.id,
        request.person,
        request.resource,
        request.rule,
        clock::local_text(request.at)
    ))
}
