//! `spa why RESOURCE`: the last verdict for it, in sentences.

use spa_proto::Verdict;

use crate::cli::Why;
use crate::clock;
use crate::failure::Failure;
use crate::places::Places;
use crate::say;
use crate::store::Store;

/// Runs the command.
///
/// # Errors
/// When nothing is remembered of the resource.
pub fn why(places: &Places, asked: &Why) -> Result<(), Failure> {
    let (entry, _) = Store::new(places.clone()).choose(asked.gateway.as_deref())?;
    let memory = entry.memory()?;
    let Some(old) = memory
        .verdicts()
        .iter()
        .find(|old| old.name == asked.resource)
    else {
        return Err(Failure::Refused(format!(
            "{} was never answered for {}: knock for it first. Silence has no reason attached, since a gateway tells it only to who proved every factor",
            entry.name(),
            asked.resource
        )));
    };
    let verdict = Verdict::from_code(old.verdict);
    println!(
        "{} at {}: {} ({}). {}",
        old.name,
        entry.name(),
        say::verdict(verdict),
        clock::local_text(old.at),
        say::remedy(verdict)
    );
    Ok(())
}
