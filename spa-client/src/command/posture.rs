//! `spa posture`: what a gateway is told of this device, shown to its owner first.

use serde_json::{Value, json};

use crate::cli;
use crate::failure::Failure;
use crate::places::Places;
use crate::posture::{Fact, Posture};
use crate::say;
use crate::store::Store;

/// Runs the command. Nothing is sent.
///
/// # Errors
/// When it is not clear for which gateway.
pub fn posture(places: &Places, asked: &cli::Posture) -> Result<(), Failure> {
    let (entry, profile) = Store::new(places.clone()).choose(asked.gateway.as_deref())?;
    let posture = Posture::gather(profile.credential, &entry.posture_command());
    if asked.json {
        let facts: Vec<Value> = posture.facts().iter().map(json).collect();
        outln!("{}", Value::Array(facts));
        return Ok(());
    }
    let (known, unknown): (Vec<&Fact>, Vec<&Fact>) = posture
        .facts()
        .iter()
        .partition(|fact| fact.value.is_some());
    outln!("Every knock at {} tells it:", entry.name());
    for fact in known {
        let value = fact.value.as_ref().map(ToString::to_string);
        outln!(
            "  {:<16} {:<18} {}",
            fact.name,
            say::printable(&value.unwrap_or_default()),
            fact.source
        );
    }
    outln!("Not known here, and so not told:");
    for fact in unknown {
        outln!("  {:<16} {}", fact.name, fact.source);
    }
    Ok(())
}

fn json(fact: &Fact) -> Value {
    json!({
        "name": fact.name,
        "value": fact.value.as_ref().map(|value| value.json()),
        "source": fact.source,
        "seen_ms": fact.at.as_millis(),
    })
}
