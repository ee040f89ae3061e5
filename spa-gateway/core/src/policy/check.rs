//! `policy check`: is this file fit to be put into force? Needs no gateway.
//!
//! Invariant: what [`Report::is_sound`] refuses is never applied: an error of the file, a failed test,
//! a built-in test that fails.

use alloc::collections::BTreeSet;
use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use core::fmt;

use spa_proto::WallTime;

use super::conflict;
use super::decision::Decision;
use super::request::Request;
use super::risk::RiskInput;
use super::rule::{Effect, Factors, Who};
use super::suite::CaseResult;
use super::{Mode, Policy, PolicyError};
use crate::name::Name;

/// Everything that can be said of a policy file.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Report {
    /// The policy, if the file can be read.
    pub policy: Option<Policy>,
    /// What is wrong or doubtful.
    pub findings: Vec<Finding>,
    /// What became of its tests.
    pub tests: Vec<CaseResult>,
}

/// Something an administrator should know.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Finding {
    /// How bad it is.
    pub severity: Severity,
    /// The line; 0 is the file as a whole.
    pub line: usize,
    /// The column; 0 is the line as a whole.
    pub column: usize,
    /// What it is.
    pub what: String,
    /// What to do about it.
    pub remedy: String,
}

/// How bad a finding is.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Severity {
    /// The file is not put into force.
    Error,
    /// Somebody should look.
    Warning,
}

/// Reads a policy and looks at it from all sides. `now` finds rules that have ended.
#[must_use]
pub fn check(text: &str, now: Option<WallTime>) -> Report {
    let policy = match Policy::parse(text) {
        Ok(policy) => policy,
        Err(error) => {
            return Report {
                policy: None,
                findings: alloc::vec![error.into()],
                tests: Vec::new(),
            };
        }
    };
    let mut findings = built_in_tests(&policy);
    findings.extend(nothing_in(text));
    findings.extend(dead_rules(&policy, now));
    findings.extend(conflict::contradictions(&policy));
    findings.extend(conflict::shadowed(&policy));
    findings.extend(conflict::too_sensitive(&policy));
    findings.extend(conflict::impossible(&policy));
    findings.extend(wide(&policy));
    findings.sort_by(|one, other| {
        (one.severity, one.line, &one.what).cmp(&(other.severity, other.line, &other.what))
    });
    Report {
        tests: policy.run_cases(),
        policy: Some(policy),
        findings,
    }
}

impl Report {
    /// Says whether the file may be put into force.
    #[must_use]
    pub fn is_sound(&self) -> bool {
        self.policy.is_some()
            && self.tests.iter().all(|test| test.passed)
            && self
                .findings
                .iter()
                .all(|finding| finding.severity == Severity::Warning)
    }

    /// Gives the tests that failed.
    pub fn failed(&self) -> impl Iterator<Item = &CaseResult> {
        self.tests.iter().filter(|test| !test.passed)
    }
}

/// A file without a single key is one that lost its content: an editor that died, a disk that was full. Put
/// into force it would end every session.
fn nothing_in(text: &str) -> Option<Finding> {
    let says_nothing = |line: &str| line.trim().is_empty() || line.trim_start().starts_with('#');
    text.lines().all(says_nothing).then(|| Finding {
        severity: Severity::Error,
        line: 1,
        column: 1,
        what: "the file is empty".to_string(),
        remedy: "write `version = 1` if nobody is to reach anything, or `spa-admin lock all` to keep the rules"
            .to_string(),
    })
}

/// What must be true of every policy: a stranger gets nothing, and nobody gets by without facts what
/// asks for them. These hold by construction; they are run so that a mistake of ours is found here.
fn built_in_tests(policy: &Policy) -> Vec<Finding> {
    let mut findings = Vec::new();
    let Some(stranger) = stranger(policy) else {
        return findings;
    };
    for (name, resource) in policy.resources() {
        let request = Request {
            risk: RiskInput::Fixed(0),
            ..Request::new(&stranger, name)
        };
        let passes = match policy.decide(&request) {
            Decision::Deny(_) => false,
            Decision::Observe(..) => resource.mode != Mode::Observe,
            Decision::Allow(_) => true,
        };
        let unproven = Request {
            factors: Factors::NONE,
            ..request
        };
        let unproven = policy.decide(&unproven).allowed().is_some();
        if passes || unproven {
            findings.push(Finding {
                severity: Severity::Error,
                line: 0,
                column: 0,
                what: format!("somebody the policy does not name would reach `{name}`"),
                remedy: "report this to the makers of spa: it must not happen".to_string(),
            });
        }
    }
    findings
}

/// Gives a name that no rule and no group knows.
fn stranger(policy: &Policy) -> Option<Name> {
    let known: BTreeSet<&Name> = policy
        .rules()
        .iter()
        .flat_map(|rule| &rule.who)
        .filter_map(|who| match who {
            Who::Person(name) => Some(name),
            Who::Group(_) => None,
        })
        .chain(policy.groups().flat_map(|(_, members)| members))
        .collect();
    (0..=known.len())
        .filter_map(|number| Name::parse(&format!("stranger-{number}")).ok())
        .find(|name| !known.contains(name))
}

/// Rules that never match: they have ended, speak of nobody, or ask for an approval nobody can give.
fn dead_rules(policy: &Policy, now: Option<WallTime>) -> Vec<Finding> {
    let mut findings = Vec::new();
    let mut warn = |line, what: String, remedy: &str| {
        findings.push(Finding {
            severity: Severity::Warning,
            line,
            column: 0,
            what,
            remedy: remedy.to_string(),
        });
    };
    for rule in policy.rules() {
        let name = &rule.name;
        if let (Some(until), Some(now)) = (rule.conditions.until, now)
            && until <= now
        {
            let ended = policy.zone().show(until);
            warn(
                rule.line,
                format!("rule `{name}` ended at {ended}"),
                "remove it",
            );
        }
        let people = people_of(policy, &rule.who);
        if people.is_empty() {
            warn(
                rule.line,
                format!("rule `{name}` can never match: its groups have no members"),
                "put somebody into them, or remove the rule",
            );
        }
        let approve = &rule.conditions.approve;
        let approvers = people_of(policy, approve);
        let nobody_else = people
            .iter()
            .all(|person| approvers.iter().all(|approver| approver == person));
        if !approve.is_empty() && !people.is_empty() && nobody_else {
            warn(
                rule.line,
                format!("rule `{name}` can never match: nobody else may approve it"),
                "nobody approves for himself; name another person in `approve`",
            );
        }
    }
    findings
}

fn people_of<'p>(policy: &'p Policy, who: &'p [Who]) -> BTreeSet<&'p Name> {
    let mut people = BTreeSet::new();
    for who in who {
        match who {
            Who::Person(name) => {
                people.insert(name);
            }
            Who::Group(group) => people.extend(policy.groups.get(group).into_iter().flatten()),
        }
    }
    people
}

/// What is allowed, but is rarely meant.
fn wide(policy: &Policy) -> Vec<Finding> {
    let mut findings = Vec::new();
    let mut warn = |what: String, remedy: String| {
        findings.push(Finding {
            severity: Severity::Warning,
            line: 0,
            column: 0,
            what,
            remedy,
        });
    };
    let reached: BTreeSet<&Name> = policy
        .rules()
        .iter()
        .filter(|rule| rule.effect == Effect::Allow)
        .flat_map(|rule| &rule.to)
        .collect();
    for (group, directory) in &policy.directories {
        warn(
            format!("group `{group}` has no members: directories (`{directory}`) are not read yet"),
            "list the members, or wait for a version that asks the directory".into(),
        );
    }
    for (name, resource) in policy.resources() {
        if resource.mode == Mode::Observe {
            warn(
                format!("resource `{name}` is being learned: every enrolled person reaches it"),
                format!("write `mode = \"enforce\"` at `{name}` when its rules are there"),
            );
        } else if !reached.contains(name) {
            warn(
                format!("resource `{name}` is allowed by no rule"),
                format!("add an [[allow]] with to = [\"{name}\"], or remove it"),
            );
        }
    }
    findings
}

impl From<PolicyError> for Finding {
    fn from(error: PolicyError) -> Self {
        Self {
            severity: Severity::Error,
            line: error.line,
            column: error.column,
            what: error.what,
            remedy: error.remedy,
        }
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.line, self.column) {
            (0, _) => {}
            (line, 0) => write!(f, "line {line}: ")?,
            (line, column) => write!(f, "line {line}, column {column}: ")?,
        }
        if self.severity == Severity::Warning {
            f.write_str("warning: ")?;
        }
        write!(f, "{}; {}", self.what, self.remedy)
    }
}

impl fmt::Display for CaseResult {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let sign = if self.passed { "✓" } else { "✗" };
        write!(
            f,
            "{sign} line {}: {}: expected {}, got {}",
            self.line, self.trace.question, self.expected, self.trace.verdict
        )
    }
}
