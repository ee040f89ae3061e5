//! `spa close`: the door outside first, then the tunnel here; and what a dead agent left.

use crate::agent::{self, CloseEnd, Leftover, Link, Note};
use crate::cli::Choice;
use crate::clock;
use crate::failure::Failure;
use crate::places::Places;
use crate::progress::Progress;
use crate::store::Store;

/// Runs the command.
///
/// # Errors
/// When the gateway did not confirm, or something stays here.
pub fn close(places: &Places, asked: &Choice) -> Result<(), Failure> {
    let (entry, profile) = Store::new(places.clone()).choose(asked.gateway.as_deref())?;
    let Some(link) = Link::connect(places, entry.name())? else {
        return clean(places, entry.name(), &profile.interface());
    };
    let mut progress = Progress::new();
    progress.phase("Closing");
    let end = link.close()?;
    progress.clear();
    match end {
        CloseEnd::Confirmed => {
            outln!("Closed: the gateway has ended the session, and the tunnel here is gone.");
            Ok(())
        }
        CloseEnd::Unconfirmed(why) => Err(Failure::Refused(format!(
            "the tunnel here is gone, and the gateway did not confirm ({why}): there the session ends by itself at its time"
        ))),
    }
}

fn clean(places: &Places, profile: &str, interface: &str) -> Result<(), Failure> {
    let note = Note::read(places, profile)?;
    let died = note
        .as_ref()
        .is_some_and(|note| note.ended.is_none() && note.not_after > clock::wall());
    match agent::clean(places, profile, interface)? {
        Leftover::Interface => {
            outln!("Nothing was held any more; the interface a dead agent had left is removed.")
        }
        Leftover::None => outln!("Nothing is open."),
    }
    match note {
        // The key that proves a CLOSE died with the agent.
        Some(note) if died => Err(Failure::Refused(format!(
            "the session could not be closed at the gateway, since the process that held its key died: it ends there at {}, or with the next knock",
            clock::local_text(note.not_after)
        ))),
        Some(_) | None => Ok(()),
    }
}
