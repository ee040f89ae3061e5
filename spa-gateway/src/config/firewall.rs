//! `[firewall]`: whose rules keep the machine closed.

use std::fmt;
use std::ops::Range;
use std::str::FromStr;

use serde::Deserialize;
use toml::Spanned;

use super::value::{PortProtocol, ValueError};

/// The name of the gateway's own table.
const OWN_TABLE: &str = "spa";
/// The longest name of a table that is taken, bytes.
const LONGEST_NAME: usize = 63;

/// `[firewall]`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
pub struct Firewall {
    /// Whose rules.
    pub mode: Spanned<FirewallMode>,
    /// The administrator's table; with `mode = "sets"` only.
    pub table: Option<Spanned<Table>>,
    /// Ports that stay open to everybody; none unless listed.
    pub keep_open: Vec<PortProtocol>,
    /// Whether sessions leave with the gateway's own address.
    pub masquerade: bool,
}

impl Default for Firewall {
    fn default() -> Self {
        Self {
            mode: Spanned::new(0..0, FirewallMode::Own),
            table: None,
            keep_open: Vec::new(),
            masquerade: false,
        }
    }
}

/// `mode`.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum FirewallMode {
    /// A table of our own.
    #[default]
    Own,
    /// A table of our own, and rules that OpenWrt's fw4 makes for us.
    Fw4,
    /// The administrator's own table, with our sets in it.
    Sets,
}

impl<'de> Deserialize<'de> for FirewallMode {
    fn deserialize<D: serde::Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        match String::deserialize(from)?.as_str() {
            "own" => Ok(Self::Own),
            "fw4" => Ok(Self::Fw4),
            "sets" => Ok(Self::Sets),
            other => Err(serde::de::Error::custom(format_args!(
                "`{other}` is no firewall mode; use \"own\", \"sets\" with a table of yours, or \"fw4\" on OpenWrt"
            ))),
        }
    }
}

/// A table of family `inet`, by its name.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Table(String);

impl Table {
    /// Its name without its family.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "inet {}", self.0)
    }
}

impl FromStr for Table {
    type Err = ValueError;

    fn from_str(text: &str) -> Result<Self, ValueError> {
        let name = text.strip_prefix("inet ").unwrap_or_default();
        let is_word = |c: char| c.is_ascii_alphanumeric() || ['_', '-', '.'].contains(&c);
        let fits = name.starts_with(|c: char| c.is_ascii_alphabetic())
            && name.len() <= LONGEST_NAME
            && name.chars().all(is_word);
        if fits && name != OWN_TABLE {
            return Ok(Self(name.to_owned()));
        }
        Err(ValueError::new(format_args!(
            "`{text}` is no table of yours; write family and name, like \"inet filter\" (the family is always inet, and inet spa is ours)"
        )))
    }
}

impl<'de> Deserialize<'de> for Table {
    fn deserialize<D: serde::Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        String::deserialize(from)?
            .parse()
            .map_err(serde::de::Error::custom)
    }
}

impl Firewall {
    /// Gives the mode.
    #[must_use]
    pub fn mode(&self) -> FirewallMode {
        *self.mode.get_ref()
    }

    /// Gives the administrator's table, which there is with `mode = "sets"` and not otherwise.
    #[must_use]
    pub fn table(&self) -> Option<&Table> {
        self.table.as_ref().map(Spanned::get_ref)
    }

    /// What serde cannot say: which keys belong to which mode.
    pub(super) fn check(&self) -> Result<(), (Range<usize>, String)> {
        let problem = match (self.mode(), &self.table) {
            (FirewallMode::Sets, None) => {
                "mode = \"sets\" needs the name of your table; add table = \"inet filter\", or whatever it is called"
            }
            (FirewallMode::Own | FirewallMode::Fw4, Some(table)) => {
                return Err((
                    table.span(),
                    "table is for mode = \"sets\" only; remove it".to_owned(),
                ));
            }
            (FirewallMode::Sets, Some(_)) if !self.keep_open.is_empty() => {
                "with mode = \"sets\" your own ruleset says what is open; accept the port there and remove keep-open"
            }
            (FirewallMode::Sets, Some(_)) if self.masquerade => {
                "with mode = \"sets\" your own ruleset translates addresses; write masquerade there and remove it here"
            }
            _ => return Ok(()),
        };
        Err((self.mode.span(), problem.to_owned()))
    }
}
