//! `spa list`: where this device is enrolled, what is open there, and what it has knocked for.

use serde_json::{Value, json};
use spa_proto::Verdict;

use crate::agent::Link;
use crate::caller::address_text;
use crate::cli::Listing;
use crate::clock;
use crate::failure::Failure;
use crate::memory::Remembered;
use crate::places::Places;
use crate::profile::{Profile, Stage};
use crate::say;
use crate::store::Store;

/// Runs the command.
///
/// # Errors
/// When a profile cannot be read.
pub fn list(places: &Places, asked: &Listing) -> Result<(), Failure> {
    let store = Store::new(places.clone());
    let mut rows = Vec::new();
    for entry in store.entries()? {
        let profile = entry.profile()?;
        let open = match Link::connect(places, entry.name())? {
            Some(link) => link.status()?.granted,
            None => Vec::new(),
        };
        rows.push(Row {
            name: entry.name().to_owned(),
            knocked: entry.memory()?.verdicts().to_vec(),
            profile,
            open,
        });
    }
    if asked.json {
        outln!("{}", Value::Array(rows.iter().map(Row::json).collect()));
    }
    if rows.is_empty() {
        // The error that says how to enrol.
        store.choose(None)?;
    }
    if asked.json {
        return Ok(());
    }
    for row in &rows {
        out!("{}", row.text());
    }
    Ok(())
}

struct Row {
    name: String,
    profile: Profile,
    open: Vec<String>,
    knocked: Vec<Remembered>,
}

impl Row {
    fn enrolled(&self) -> bool {
        matches!(self.profile.stage, Stage::Active { .. })
    }

    fn text(&self) -> String {
        let address = address_text(&self.profile.host, self.profile.port);
        let state = if self.enrolled() {
            ""
        } else {
            ", enrolment not complete"
        };
        let mut text = format!(
            "{}  ({address}, this device is \"{}\"{state})\n",
            self.name, self.profile.label
        );
        for name in &self.open {
            text.push_str(&format!("  {name}  open\n"));
        }
        for old in self
            .knocked
            .iter()
            .rev()
            .filter(|old| !self.open.contains(&old.name))
        {
            let verdict = say::verdict(Verdict::from_code(old.verdict));
            text.push_str(&format!(
                "  {}  {verdict}, {}\n",
                old.name,
                clock::local_text(old.at)
            ));
        }
        text
    }

    fn json(&self) -> Value {
        let knocked: Vec<Value> = self
            .knocked
            .iter()
            .map(|old| {
                let verdict = Verdict::from_code(old.verdict);
                json!({ "resource": old.name, "granted": verdict.is_granted(), "verdict": say::verdict(verdict), "at_ms": old.at.as_millis() })
            })
            .collect();
        json!({
            "gateway": self.name,
            "host": self.profile.host,
            "port": self.profile.port,
            "device": self.profile.label,
            "enrolled": self.enrolled(),
            "open": self.open,
            "knocked": knocked,
        })
    }
}
