//! What a knock asks for: what was typed, and what is open already, since a new session replaces the old one.

use spa_proto::{ResourceId, Wanted};

use crate::agent::Live;
use crate::cli::Knock;
use crate::failure::Failure;

/// Most resources in one knock (SPEC §4).
const MOST_RESOURCES: usize = 16;

/// What is asked for, together with what is open.
pub struct Wish {
    names: Vec<String>,
    all: bool,
    /// What is open already and asked for again.
    kept: Vec<String>,
}

impl Wish {
    /// Adds what is open to what was typed, unless it is to be replaced.
    ///
    /// # Errors
    /// When that is more than one knock can name.
    pub fn of(asked: &Knock, open: Option<&Live>) -> Result<Self, Failure> {
        let mut names: Vec<String> = Vec::new();
        for name in &asked.resources {
            if !names.contains(name) {
                names.push(name.clone());
            }
        }
        let mut wish = Self {
            names,
            all: asked.all,
            kept: Vec::new(),
        };
        if let Some(open) = open.filter(|_| !asked.only) {
            wish.all |= open.all;
            wish.kept = open
                .granted
                .iter()
                .filter(|name| !wish.names.contains(name))
                .cloned()
                .collect();
        }
        if wish.all {
            wish.kept.extend(std::mem::take(&mut wish.names));
        } else {
            wish.names.extend(wish.kept.iter().cloned());
        }
        if wish.names.len() > MOST_RESOURCES {
            return Err(Failure::Usage(format!(
                "a knock names at most {MOST_RESOURCES} resources, what is open included: use --only or --all"
            )));
        }
        Ok(wish)
    }

    /// Says that more is asked for than was typed.
    #[must_use]
    pub fn said(&self, typed: &[String]) -> Option<String> {
        match (self.kept.is_empty(), self.all, typed.is_empty()) {
            (true, _, _) | (false, true, true) => None,
            (false, true, false) => Some(
                "Everything allowed is open already and is asked for again; --only replaces it."
                    .to_owned(),
            ),
            (false, false, _) => Some(format!(
                "{} is open: asking for {} (--only replaces it).",
                self.kept.join(", "),
                self.names.join(", ")
            )),
        }
    }

    /// Whether everything policy allows is asked for.
    #[must_use]
    pub fn all(&self) -> bool {
        self.all
    }

    /// As the wire has it.
    #[must_use]
    pub fn wanted(&self) -> Wanted {
        if self.all {
            Wanted::All
        } else {
            Wanted::Resources(self.names.iter().map(|name| ResourceId::of(name)).collect())
        }
    }

    /// Every name that may come back in a verdict.
    #[must_use]
    pub fn known(&self) -> Vec<String> {
        [self.names.clone(), self.kept.clone()].concat()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn live(granted: &[&str], all: bool) -> Live {
        Live {
            granted: granted.iter().map(|name| (*name).to_owned()).collect(),
            all,
            interface: String::new(),
            backend: String::new(),
            gateway: String::new(),
            addresses: Vec::new(),
            routes: Vec::new(),
            not_after: 0,
            left: Duration::ZERO,
            handshake_age: None,
            heard_age: None,
            renewable_until: None,
            keys: String::new(),
            news: Vec::new(),
            scope: None,
            received: 0,
            sent: 0,
        }
    }

    fn asked(args: &[&str]) -> Knock {
        use clap::Parser;
        let args = [&["spa", "knock"], args].concat();
        match crate::cli::Cli::try_parse_from(args)
            .expect("a command line of the test")
            .command
        {
            crate::cli::Command::Knock(knock) => knock,
            _ => unreachable!("a knock was asked"),
        }
    }

    #[test]
    fn a_second_knock_asks_for_what_is_open_too_and_says_so() {
        let typed = asked(&["db"]);
        let wish = Wish::of(&typed, Some(&live(&["wiki"], false))).expect("two names");
        assert_eq!(wish.names, ["db", "wiki"]);
        assert_eq!(
            wish.said(&typed.resources).as_deref(),
            Some("wiki is open: asking for db, wiki (--only replaces it).")
        );
    }

    #[test]
    fn only_replaces_what_is_open() {
        let wish =
            Wish::of(&asked(&["db", "--only"]), Some(&live(&["wiki"], false))).expect("one name");
        assert_eq!(wish.names, ["db"]);
        assert_eq!(wish.said(&["db".to_owned()]), None);
    }

    #[test]
    fn the_same_name_again_says_nothing() {
        let wish =
            Wish::of(&asked(&["wiki", "wiki"]), Some(&live(&["wiki"], false))).expect("one name");
        assert_eq!(wish.names, ["wiki"]);
        assert_eq!(wish.said(&["wiki".to_owned()]), None);
    }

    #[test]
    fn everything_stays_everything() {
        let wish = Wish::of(&asked(&["db"]), Some(&live(&["wiki"], true))).expect("all");
        assert_eq!(wish.wanted(), Wanted::All);
        assert!(wish.said(&["db".to_owned()]).is_some());
        let wish = Wish::of(&asked(&["--all"]), Some(&live(&["wiki"], false))).expect("all");
        assert_eq!(wish.wanted(), Wanted::All);
        assert_eq!(wish.said(&[]), None);
    }

    #[test]
    fn more_than_sixteen_is_a_usage_error() {
        let names: Vec<String> = (0..17).map(|n| format!("r{n}")).collect();
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        assert!(matches!(
            Wish::of(&asked(&names), None),
            Err(Failure::Usage(_))
        ));
        let open = live(&names[..16], false);
        assert!(matches!(
            Wish::of(&asked(&["x"]), Some(&open)),
            Err(Failure::Usage(_))
        ));
    }
}
