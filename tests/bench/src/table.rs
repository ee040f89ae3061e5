//! The table that is printed and the file that is written: one row for each figure.

use std::fs;
use std::path::Path;

use anyhow::Context;
use serde_json::{Value, json};

use crate::figures::short;
use crate::process;

/// What a figure must not exceed, or not fall short of.
#[derive(Clone, Copy, Debug)]
pub enum Budget {
    /// DESIGN §9 sets none.
    None,
    /// At most this.
    Most(f64),
    /// At least this.
    Least(f64),
}

/// One figure.
#[derive(Clone, Debug)]
pub struct Row {
    name: String,
    what: String,
    value: f64,
    unit: &'static str,
    budget: Budget,
    /// More about ours: spread, circumstances.
    detail: String,
    peer: Option<(String, f64)>,
}

impl Row {
    /// A figure without budget or peer.
    pub fn new(name: &str, what: &str, value: f64, unit: &'static str) -> Self {
        Self {
            name: name.to_owned(),
            what: what.to_owned(),
            value,
            unit,
            budget: Budget::None,
            detail: String::new(),
            peer: None,
        }
    }

    /// With its budget.
    pub fn within(mut self, budget: Budget) -> Self {
        self.budget = budget;
        self
    }

    /// With words beside the figure.
    pub fn detail(mut self, words: impl Into<String>) -> Self {
        self.detail = words.into();
        self
    }

    /// With what somebody else needs for the same.
    pub fn beside(mut self, peer: &str, value: f64) -> Self {
        self.peer = Some((peer.to_owned(), value));
        self
    }

    fn ok(&self) -> Option<bool> {
        match self.budget {
            Budget::None => None,
            Budget::Most(most) => Some(self.value <= most),
            Budget::Least(least) => Some(self.value >= least),
        }
    }

    fn json(&self) -> Value {
        let budget = match self.budget {
            Budget::None => None,
            Budget::Most(value) | Budget::Least(value) => Some(value),
        };
        json!({
            "name": self.name,
            "value": self.value,
            "unit": self.unit,
            "budget": budget,
            "ok": self.ok(),
            "peer": self.peer.as_ref().map(|(name, _)| name),
            "peer_value": self.peer.as_ref().map(|(_, value)| value),
        })
    }

    fn cells(&self) -> [String; 4] {
        let budget = match self.budget {
            Budget::None => String::new(),
            Budget::Most(value) => format!("≤ {}", short(value)),
            Budget::Least(value) => format!("≥ {}", short(value)),
        };
        let mark = match self.ok() {
            None => "  ",
            Some(true) => "✓ ",
            Some(false) => "✗ ",
        };
        let mut ours = format!("{mark}{} {}", short(self.value), self.unit);
        if !self.detail.is_empty() {
            ours += &format!(" ({})", self.detail);
        }
        let peer = self
            .peer
            .as_ref()
            .map_or_else(String::new, |(name, value)| {
                format!("{name}: {} {}", short(*value), self.unit)
            });
        [self.what.clone(), budget, ours, peer]
    }
}

/// All figures so far.
#[derive(Debug)]
pub struct Table {
    load: f64,
    rows: Vec<Row>,
    failures: Vec<String>,
    skipped: Vec<String>,
}

impl Table {
    /// An empty one; notes how busy the machine was before anything was measured.
    pub fn begin() -> Self {
        Self {
            load: process::load(),
            rows: Vec::new(),
            failures: Vec::new(),
            skipped: Vec::new(),
        }
    }

    /// Adds a figure, and tells it to whoever waits.
    pub fn put(&mut self, row: Row) {
        let [what, budget, ours, peer] = row.cells();
        eprintln!("  {what} [{budget}]: {ours} {peer}");
        self.rows.push(row);
    }

    /// Sets a peer's figure beside one of ours that is there already.
    pub fn beside(&mut self, name: &str, peer: &str, value: f64) {
        if let Some(row) = self.rows.iter_mut().find(|row| row.name == name) {
            row.peer = Some((peer.to_owned(), value));
        }
    }

    /// A section that could not be measured.
    pub fn failed(&mut self, section: &str, error: &anyhow::Error) {
        let words = format!("{section}: {error:#}");
        eprintln!("bench: FAILED {words}");
        self.failures.push(words);
    }

    /// Something that cannot be measured on this machine.
    pub fn skip(&mut self, words: &str) {
        eprintln!("bench: SKIPPED {words}");
        self.skipped.push(words.to_owned());
    }

    /// Whether every section came to its end.
    pub fn is_whole(&self) -> bool {
        self.failures.is_empty()
    }

    /// How busy the machine was before.
    pub fn load(&self) -> f64 {
        self.load
    }

    /// Prints it.
    pub fn print(&self) {
        println!("{}", process::machine());
        println!(
            "load average {:.1} before, {:.1} after; a quiet machine of {} processors has below 1 before",
            self.load,
            process::load(),
            std::thread::available_parallelism().map_or(1, usize::from)
        );
        let head = ["what", "budget", "ours", "peer"].map(str::to_owned);
        let lines: Vec<[String; 4]> = std::iter::once(head)
            .chain(self.rows.iter().map(Row::cells))
            .collect();
        let widths: [usize; 3] = std::array::from_fn(|column| {
            lines
                .iter()
                .map(|line| line[column].chars().count())
                .max()
                .unwrap_or_default()
        });
        for [what, budget, ours, peer] in &lines {
            let line = format!(
                "{what:<0$} | {budget:<1$} | {ours:<2$} | {peer}",
                widths[0], widths[1], widths[2]
            );
            println!("{}", line.trim_end());
        }
        for words in &self.skipped {
            println!("SKIPPED {words}");
        }
        for words in &self.failures {
            println!("FAILED {words}");
        }
    }

    /// Writes it and gives what it wrote.
    ///
    /// # Errors
    /// What the disk refuses.
    pub fn write(&self, file: &Path) -> anyhow::Result<Vec<Value>> {
        if let Some(folder) = file.parent() {
            fs::create_dir_all(folder)?;
        }
        let rows: Vec<Value> = self.rows.iter().map(Row::json).collect();
        let text = serde_json::to_string_pretty(&rows)?;
        fs::write(file, text + "\n").context("writing the figures")?;
        Ok(rows)
    }
}
