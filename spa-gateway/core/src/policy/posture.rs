//! `[posture.NAME]`: what a device must be like. Decides one requirement against the facts.
//!
//! Invariant: only a fact that is there, fresh, and of a source the requirement takes can satisfy a
//! check. A check is skipped for a platform only where the policy says `"skip"` for it.

use alloc::collections::BTreeMap;
use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use core::time::Duration;

use spa_proto::WallTime;

use super::fact::{Fact, FactSource, Facts, Field, Platform, Value};
use super::held::{Clause, Held, Keyword};
use crate::name::Name;

/// A requirement.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Requirement {
    /// What it is called.
    pub name: Name,
    /// What must hold, all of it.
    pub checks: Vec<Check>,
    /// Facts older than this count as missing.
    pub max_age: Duration,
    /// Whose word counts; empty is anybody's.
    pub sources: Vec<FactSource>,
}

/// What one field must be like.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Check {
    /// The field.
    pub field: Field,
    /// What it is held against.
    pub wanted: Scope,
}

/// On which platforms a check speaks.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Scope {
    /// On all.
    Everywhere(Wanted),
    /// On these. One that is not named fails.
    By(BTreeMap<Platform, OnPlatform>),
}

/// What a check says on one platform.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum OnPlatform {
    /// It must be so.
    Must(Wanted),
    /// The field is declared not to describe this platform.
    Skip,
}

/// What a value is compared with.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Wanted {
    /// How.
    pub comparison: Comparison,
    /// With what.
    pub value: Value,
}

/// A comparison.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Comparison {
    /// `=`, or none written.
    Equal,
    /// `>=`
    AtLeast,
    /// `>`
    Above,
    /// `<=`
    AtMost,
    /// `<`
    Below,
}

/// What a requirement came to, and until when it stays so if no fact is renewed.
#[derive(Clone, Copy)]
pub(super) struct Standing {
    pub(super) held: Held,
    pub(super) until: Option<WallTime>,
}

impl Requirement {
    /// Holds the requirement against what is known. `tell` gets one clause for each check, if it wants them.
    pub(super) fn decide(
        &self,
        facts: Option<&Facts>,
        at: Option<WallTime>,
        mut tell: impl FnMut(Held, &dyn Fn() -> Clause),
    ) -> Standing {
        if facts.is_some_and(|facts| facts.assumes(&self.name)) {
            tell(Held::Yes, &|| Clause {
                keyword: Keyword::Posture,
                about: self.name.to_string(),
                held: Held::Yes,
                wanted: "met".into(),
                saw: "assumed".into(),
                remedy: String::new(),
            });
            return Standing {
                held: Held::Yes,
                until: None,
            };
        }
        let mut standing = Standing {
            held: Held::Yes,
            until: None,
        };
        for check in &self.checks {
            let found = self.check(check, facts, at);
            tell(found.held, &|| self.clause(check, &found));
            standing.held = standing.held.and(found.held);
            standing.until = earlier(standing.until, found.until);
        }
        standing
    }

    fn check<'f>(
        &self,
        check: &Check,
        facts: Option<&'f Facts>,
        at: Option<WallTime>,
    ) -> Found<'f> {
        let mut until = None;
        let wanted = match &check.wanted {
            Scope::Everywhere(wanted) => *wanted,
            Scope::By(platforms) => {
                let platform = match self.usable(Field::Platform, facts, at) {
                    Ok(fact) => {
                        until = self.expiry(fact);
                        fact.value
                    }
                    Err(saw) => return Found::missing(saw),
                };
                let Value::Platform(platform) = platform else {
                    return Found::missing(Saw::Nothing);
                };
                match platforms.get(&platform) {
                    Some(OnPlatform::Must(wanted)) => *wanted,
                    Some(OnPlatform::Skip) => {
                        return Found {
                            held: Held::Skipped,
                            saw: Saw::Skipped(platform),
                            wanted: None,
                            until,
                        };
                    }
                    None => {
                        return Found {
                            held: Held::No,
                            saw: Saw::Platform(platform),
                            wanted: None,
                            until,
                        };
                    }
                }
            }
        };
        match self.usable(check.field, facts, at) {
            Ok(fact) => Found {
                held: Held::of(wanted.holds(fact.value)),
                saw: Saw::Fact(fact),
                wanted: Some(wanted),
                until: earlier(until, self.expiry(fact)),
            },
            Err(saw) => Found {
                wanted: Some(wanted),
                ..Found::missing(saw)
            },
        }
    }

    /// Gives a fact that counts: fresh, and of a source that is taken.
    fn usable<'f>(
        &self,
        field: Field,
        facts: Option<&'f Facts>,
        at: Option<WallTime>,
    ) -> Result<&'f Fact, Saw<'f>> {
        let fact = facts
            .and_then(|facts| facts.of(field))
            .ok_or(Saw::Nothing)?;
        if !self.sources.is_empty() && !self.sources.contains(&fact.source) {
            return Err(Saw::Source(fact));
        }
        // Without a time, no age can be told: a question about policy takes its facts as fresh.
        match at {
            Some(at) if at.since(fact.at) > self.max_age => {
                Err(Saw::Stale(fact, at.since(fact.at)))
            }
            Some(_) | None => Ok(fact),
        }
    }

    /// Gives the first instant at which a fact no longer counts.
    fn expiry(&self, fact: &Fact) -> Option<WallTime> {
        Some(
            fact.at
                .saturating_add(self.max_age)
                .saturating_add(Duration::from_millis(1)),
        )
    }

    fn clause(&self, check: &Check, found: &Found<'_>) -> Clause {
        let field = check.field.name();
        let wanted = match found.wanted {
            Some(wanted) => wanted.to_string(),
            None => check.wanted.to_string(),
        };
        let saw = found.saw.to_string();
        let remedy = match &found.saw {
            Saw::Nothing => format!("the device must report `{field}`"),
            Saw::Stale(..) => format!("the device must report `{field}` again"),
            Saw::Source(_) => format!(
                "`{field}` must come from: {}",
                self.sources
                    .iter()
                    .map(|source| source.name())
                    .collect::<Vec<_>>()
                    .join(", ")
            ),
            Saw::Platform(platform) => format!(
                "name `{}` in `{field}` of [posture.{}], or use another device",
                platform.name(),
                self.name
            ),
            Saw::Fact(_) | Saw::Skipped(_) => format!("`{field}` of the device must be {wanted}"),
        };
        Clause {
            keyword: Keyword::Posture,
            about: format!("{}.{field}", self.name),
            held: found.held,
            wanted,
            saw,
            remedy: if found.held.satisfies() {
                String::new()
            } else {
                remedy
            },
        }
    }
}

/// What one check found.
struct Found<'f> {
    held: Held,
    saw: Saw<'f>,
    wanted: Option<Wanted>,
    until: Option<WallTime>,
}

impl<'f> Found<'f> {
    const fn missing(saw: Saw<'f>) -> Self {
        Self {
            held: Held::Missing,
            saw,
            wanted: None,
            until: None,
        }
    }
}

/// What there was to see.
enum Saw<'f> {
    Nothing,
    Fact(&'f Fact),
    Stale(&'f Fact, Duration),
    Source(&'f Fact),
    Platform(Platform),
    Skipped(Platform),
}

impl core::fmt::Display for Saw<'_> {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self {
            Self::Nothing => f.write_str("nothing reported"),
            Self::Fact(fact) => write!(f, "{} ({})", fact.value, fact.source.name()),
            Self::Stale(fact, age) => write!(f, "{}, {} old", fact.value, span(*age)),
            Self::Source(fact) => write!(f, "{}, but only {}", fact.value, fact.source.name()),
            Self::Platform(platform) => write!(f, "a device with {}", platform.name()),
            Self::Skipped(platform) => {
                write!(f, "skipped: declared not to describe {}", platform.name())
            }
        }
    }
}

impl Wanted {
    /// Says whether no value is both.
    pub(super) fn excludes(self, other: Self) -> bool {
        use Comparison::{Above, AtLeast, AtMost, Below, Equal};
        let strict = |of: Self| matches!(of.comparison, Above | Below);
        match (self.comparison, other.comparison) {
            (Equal, _) => !other.holds(self.value),
            (_, Equal) => !self.holds(other.value),
            (AtLeast | Above, AtMost | Below) | (AtMost | Below, AtLeast | Above) => {
                let touching = self.value == other.value;
                if touching {
                    strict(self) || strict(other)
                } else {
                    !self.holds(other.value)
                }
            }
            (AtLeast | Above, AtLeast | Above) | (AtMost | Below, AtMost | Below) => false,
        }
    }

    fn holds(self, value: Value) -> bool {
        use Comparison::{Above, AtLeast, AtMost, Below, Equal};
        let ordering = match (value, self.value) {
            (Value::Days(saw), Value::Days(wanted)) => saw.cmp(&wanted),
            (Value::Version(saw), Value::Version(wanted)) => saw.cmp(&wanted),
            (saw, wanted) => return self.comparison == Equal && saw == wanted,
        };
        match self.comparison {
            Equal => ordering.is_eq(),
            AtLeast => ordering.is_ge(),
            Above => ordering.is_gt(),
            AtMost => ordering.is_le(),
            Below => ordering.is_lt(),
        }
    }
}

impl Comparison {
    /// Takes the comparison off a text.
    pub(super) fn strip(text: &str) -> (Self, &str) {
        for (sign, comparison) in [
            (">=", Self::AtLeast),
            ("<=", Self::AtMost),
            (">", Self::Above),
            ("<", Self::Below),
            ("=", Self::Equal),
        ] {
            if let Some(rest) = text.strip_prefix(sign) {
                return (comparison, rest.trim_start_matches(' '));
            }
        }
        (Self::Equal, text)
    }

    /// Gives it in words, for "must come to".
    pub(super) const fn words(self) -> &'static str {
        match self {
            Self::Equal => "exactly",
            Self::AtLeast => "at least",
            Self::Above => "more than",
            Self::AtMost => "at most",
            Self::Below => "less than",
        }
    }

    const fn sign(self) -> &'static str {
        match self {
            Self::Equal => "",
            Self::AtLeast => ">= ",
            Self::Above => "> ",
            Self::AtMost => "<= ",
            Self::Below => "< ",
        }
    }
}

impl core::fmt::Display for Wanted {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "{}{}", self.comparison.sign(), self.value)
    }
}

impl core::fmt::Display for Scope {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self {
            Self::Everywhere(wanted) => write!(f, "{wanted}"),
            Self::By(platforms) => {
                let all: Vec<String> = platforms
                    .iter()
                    .map(|(platform, on)| match on {
                        OnPlatform::Must(wanted) => format!("{} {wanted}", platform.name()),
                        OnPlatform::Skip => format!("{} skipped", platform.name()),
                    })
                    .collect();
                f.write_str(&all.join(", "))
            }
        }
    }
}

/// Gives the earlier of two instants that may not be there.
pub(super) fn earlier(one: Option<WallTime>, other: Option<WallTime>) -> Option<WallTime> {
    match (one, other) {
        (Some(one), Some(other)) => Some(one.min(other)),
        (one, other) => one.or(other),
    }
}

/// Writes a length of time as a policy would.
pub(super) fn span(length: Duration) -> String {
    let seconds = length.as_secs();
    for (unit, letter) in [(24 * 60 * 60, 'd'), (60 * 60, 'h'), (60, 'm')] {
        if seconds >= unit && seconds.is_multiple_of(unit) {
            return format!("{}{letter}", seconds / unit);
        }
    }
    match seconds {
        120.. => format!("{}m", seconds / 60),
        _ => format!("{seconds}s"),
    }
}
