//! `explain`: one decision with everything that made it, and what would have to change.
//!
//! Invariant: it is the record of a run of the engine, not a second opinion.

use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use core::fmt;

use super::Policy;
use super::decision::{Decision, Deny, Reason};
use super::held::{Clause, Held};
use super::request::{Grant, Request};
use super::risk::RiskPart;
use super::rule::{DEFAULT_PRIORITY, Effect, Rule, Who};
use super::watcher::{RuleState, Watcher};
use super::words::left;

/// A decision, explained.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Trace {
    /// Who asked for what.
    pub question: String,
    /// The decision.
    pub decision: Decision,
    /// It, in one line.
    pub verdict: String,
    /// Every rule of the resource, in the order in which they were decided.
    pub rules: Vec<RuleTrace>,
    /// What the risk is the sum of.
    pub risk: Vec<RiskPart>,
    /// What would have to change for an allow; each line is enough only together with the others.
    pub changes: Vec<String>,
}

/// What became of one rule.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct RuleTrace {
    /// Its name; of a grant, `grant 12`.
    pub name: String,
    /// Its line in the policy; 0 for a grant.
    pub line: usize,
    /// What it does.
    pub effect: Effect,
    /// Its priority.
    pub priority: u16,
    /// What became of it.
    pub state: RuleState,
    /// Its clauses, each with what was wanted and what was seen.
    pub clauses: Vec<Clause>,
}

/// Writes everything down.
#[derive(Default)]
struct Recorder {
    rules: Vec<RuleTrace>,
    clauses: Vec<Clause>,
}

impl Watcher for Recorder {
    const HEARS_ALL: bool = true;

    fn clause(&mut self, _: Held, words: &dyn Fn() -> Clause) {
        self.clauses.push(words());
    }

    fn rule(&mut self, rule: &Rule, state: RuleState) {
        let clauses = core::mem::take(&mut self.clauses);
        self.rules.push(RuleTrace {
            name: rule.name.to_string(),
            line: rule.line,
            effect: rule.effect,
            priority: rule.priority,
            state,
            clauses,
        });
    }

    fn grant(&mut self, grant: Grant, state: RuleState) {
        self.rules.push(RuleTrace {
            name: format!("grant {}", grant.id),
            line: 0,
            effect: Effect::Allow,
            priority: DEFAULT_PRIORITY,
            state,
            clauses: Vec::new(),
        });
    }
}

impl Policy {
    /// Decides one request and says why: the same engine, with somebody listening.
    #[must_use]
    pub fn explain(&self, request: &Request<'_>) -> Trace {
        let mut recorder = Recorder::default();
        let decision = self.run(request, &mut recorder);
        let Recorder { mut rules, clauses } = recorder;
        // What is left over was said of the level as a whole, by its last rule that matches.
        if let Some(last) = rules
            .iter_mut()
            .rfind(|rule| rule.state == RuleState::Matches)
        {
            last.clauses.extend(clauses);
        }
        let risk = self
            .resource(request.resource)
            .map(|resource| self.weighing(request, resource).explain());
        Trace {
            question: self.question(request),
            verdict: self.verdict(&decision, request),
            changes: self.changes(&decision, request),
            decision,
            rules,
            risk: risk.unwrap_or_default(),
        }
    }

    fn question(&self, request: &Request<'_>) -> String {
        let mut question = format!("{} -> {}", request.person, request.resource);
        if let Some((protocol, port)) = request.port {
            question.push_str(&format!(":{port}/{}", super::protocol_name(protocol)));
        }
        if let Some(source) = request.source {
            question.push_str(&format!(", from {}", source.to_canonical()));
        }
        if let Some(at) = request.at {
            question.push_str(&format!(", at {}", self.zone.show(at)));
        }
        question
    }

    fn verdict(&self, decision: &Decision, request: &Request<'_>) -> String {
        match decision {
            Decision::Allow(allow) => match request.at {
                Some(at) => format!(
                    "ALLOW until {}, in {} ({}), by {}",
                    self.zone.show(allow.not_after),
                    left(allow.not_after, at),
                    allow.ends_by.as_str(),
                    allow.by
                ),
                None => format!("ALLOW, by {}", allow.by),
            },
            Decision::Observe(_, deny) => {
                format!("ALLOW while learning; would be: DENY ({deny})")
            }
            Decision::Deny(deny) => format!("DENY ({deny})"),
        }
    }

    fn changes(&self, decision: &Decision, request: &Request<'_>) -> Vec<String> {
        let (Decision::Deny(deny) | Decision::Observe(_, deny)) = decision else {
            return Vec::new();
        };
        match deny.reason {
            Reason::Locked => {
                let lock = request.lock.unwrap_or("it");
                alloc::vec![format!("an administrator must unlock {lock}")]
            }
            Reason::NoResource => {
                let known: Vec<&str> = self.resources.keys().map(|name| &**name).take(8).collect();
                alloc::vec![format!(
                    "define [resource] {}; there are: {}",
                    request.resource,
                    known.join(", ")
                )]
            }
            Reason::NoPort => alloc::vec![format!("add the port to resource {}", request.resource)],
            Reason::Rule => self.against(deny, request),
            Reason::NoRule => self.no_rule(request),
            Reason::Expired
            | Reason::Source
            | Reason::Window
            | Reason::Posture
            | Reason::Risk
            | Reason::Factors
            | Reason::Approval => deny
                .failing
                .iter()
                .map(|clause| clause.remedy.clone())
                .collect(),
        }
    }

    /// What would have to change for a deny rule not to match.
    fn against(&self, deny: &Deny, request: &Request<'_>) -> Vec<String> {
        let Some(rule) = self
            .rules
            .iter()
            .find(|rule| Some(&rule.name) == deny.rule.as_ref())
        else {
            return Vec::new();
        };
        let mut changes: Vec<String> = deny
            .failing
            .iter()
            .map(|clause| match clause.held {
                Held::Missing => format!(
                    "one of: {} must be known and not {}",
                    about(clause),
                    clause.wanted
                ),
                Held::Yes | Held::Skipped | Held::No => {
                    format!("one of: {} must not be {}", about(clause), clause.wanted)
                }
            })
            .collect();
        changes.push(format!(
            "rule {} (line {}) must not speak of {}, or an allow must have a priority above {}",
            rule.name, rule.line, request.person, rule.priority
        ));
        changes
    }

    fn no_rule(&self, request: &Request<'_>) -> Vec<String> {
        let groups: Vec<String> = self
            .index
            .rules_of(request.resource)
            .iter()
            .filter_map(|at| self.rules.get(*at))
            .filter(|rule| rule.effect == Effect::Allow)
            .flat_map(|rule| &rule.who)
            .filter_map(|who| match who {
                Who::Group(group) => Some(group.to_string()),
                Who::Person(_) => None,
            })
            .take(4)
            .collect();
        let mut change = format!(
            "an [[allow]] must name {} and {}",
            request.person, request.resource
        );
        if !groups.is_empty() {
            change.push_str(&format!(
                ", or {} must be in one of the groups: {}",
                request.person,
                groups.join(", ")
            ));
        }
        alloc::vec![change]
    }
}

impl Trace {
    /// Makes it a "no" for a reason beyond policy, which comes before all that policy says.
    pub(crate) fn barred(mut self, reason: Reason, remedy: String) -> Self {
        let deny = Deny {
            reason,
            rule: None,
            failing: Vec::new(),
        };
        self.verdict = format!("DENY ({deny})");
        self.decision = Decision::Deny(deny);
        self.changes.insert(0, remedy);
        self
    }
}

fn about(clause: &Clause) -> &str {
    if clause.about.is_empty() {
        clause.keyword.as_str()
    } else {
        &clause.about
    }
}

impl RuleState {
    /// Gives the words for it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Matches => "matches",
            Self::Fails => "does not match",
            Self::OtherPeople => "speaks of others",
            Self::NotReached => "not reached",
        }
    }
}

impl fmt::Display for Trace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}", self.question)?;
        writeln!(f, "{}", self.verdict)?;
        for rule in &self.rules {
            write!(f, "  [[{}]] {}", rule.effect.as_str(), rule.name)?;
            if rule.line != 0 {
                write!(f, " (line {})", rule.line)?;
            }
            writeln!(f, ", priority {}: {}", rule.priority, rule.state.as_str())?;
            for clause in &rule.clauses {
                writeln!(f, "    {clause}")?;
            }
        }
        if !self.risk.is_empty() {
            let total: u32 = self.risk.iter().map(|part| u32::from(part.points)).sum();
            writeln!(f, "  risk {total}")?;
            for part in &self.risk {
                writeln!(
                    f,
                    "    {:>3} {}: {}",
                    part.points, part.factor, part.evidence
                )?;
            }
        }
        if !self.changes.is_empty() {
            writeln!(f, "to be allowed:")?;
        }
        for change in &self.changes {
            writeln!(f, "  - {change}")?;
        }
        Ok(())
    }
}
