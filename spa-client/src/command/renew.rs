//! `spa renew`: more time for the open session, within policy and the absolute limit, without a new code.

use spa_proto::channel::{self, Grants, Renew, Renewed};

use crate::agent::Method;
use crate::cli;
use crate::clock;
use crate::command::open_link;
use crate::failure::Failure;
use crate::places::Places;
use crate::say;

/// Runs the command.
///
/// # Errors
/// When no session is open, or the gateway says no.
pub fn renew(places: &Places, asked: &cli::Renew) -> Result<(), Failure> {
    let link = || open_link(places, asked.gateway.as_deref()).map(|(_, _, link)| link);
    let minutes = asked.length.unwrap_or(0);
    let _: Renewed = link()?.call(Method::Post, channel::RENEW, &Renew { minutes })?;
    let grants: Grants = link()?.call(Method::Get, channel::GRANTS, &())?;
    let ours = |at: spa_proto::WallTime| {
        let left = at.since(grants.now);
        (clock::local_text(clock::wall().saturating_add(left)), left)
    };
    let ((until, left), (limit, _)) = (ours(grants.not_after), ours(grants.renewable_until));
    outln!(
        "Open until {until} ({}); it can last until {limit} without another knock.",
        say::length(left)
    );
    Ok(())
}
