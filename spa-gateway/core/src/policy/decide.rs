//! The engine: one request, the rules of its resource, level by level.
//!
//! Invariant: a fact that is not known never satisfies an allow and always triggers a deny. `decide`
//! and `explain` run the same code; a `Watcher` hears what was evaluated, and decides nothing.

use alloc::string::{String, ToString};
use alloc::vec::Vec;
use core::cell::Cell;
use core::net::IpAddr;
use core::time::Duration;

use spa_proto::WallTime;

use super::decision::{Allow, Authority, Decision, Deny, EndsBy, Limits, Reason};
use super::held::{Clause, Held};
use super::merge::{Merged, wider};
use super::posture::Standing;
use super::request::Request;
use super::risk::{RiskHeld, RiskPart, Weighing};
use super::rule::{DEFAULT_PRIORITY, Effect, Factors, Rule, Who};
use super::watcher::{Deaf, Failing, RuleState, Watcher};
use super::window::Windows;
use super::words;
use super::zone::{Face, instant_at};
use super::{Mode, Policy, Resource};

// What runs for each rule is inlined: of 1,000 rules that match, it is 6.5 µs in place of 12 (`make bench`).

/// How many windows a decision remembers; people write few different ones, and more are only computed anew.
const KEPT_WINDOWS: usize = 64;

impl Policy {
    /// Decides one request.
    pub fn decide(&self, request: &Request<'_>) -> Decision {
        self.run(request, &mut Deaf)
    }

    /// Decides one request while somebody listens.
    pub(super) fn run<W: Watcher>(&self, request: &Request<'_>, watcher: &mut W) -> Decision {
        let Some(resource) = self.resources.get(request.resource) else {
            return denied(Reason::NoResource);
        };
        if request.lock.is_some() {
            return denied(Reason::Locked);
        }
        if request.port.is_some_and(|port| !resource.has_port(port)) {
            return denied(Reason::NoPort);
        }
        let evaluation = Evaluation {
            policy: self,
            request,
            resource,
            face: request.at.map(|at| self.zone.face(at)),
            risk: self.weighing(request, resource).total(),
            source: request.source.map(|source| source.to_canonical()),
            standings: alloc::vec![Cell::new(None); self.postures.len()],
            denied_from: Cell::new(NEVER),
            closings: alloc::vec![Cell::new(None); self.windows.min(KEPT_WINDOWS)],
            openings: alloc::vec![Cell::new(None); self.windows.min(KEPT_WINDOWS)],
        };
        match evaluation.decide(watcher) {
            Decision::Deny(deny) if evaluation.learns(&deny) => {
                Decision::Observe(evaluation.learning(), deny)
            }
            decision => decision,
        }
    }

    /// Gives the risk of a request; `None` if it is not known.
    pub(crate) fn risk(&self, request: &Request<'_>) -> Option<u16> {
        let resource = self.resources.get(request.resource)?;
        self.weighing(request, resource).total()
    }

    /// Gives what the risk of a request is the sum of.
    pub(crate) fn risk_parts(&self, request: &Request<'_>) -> Vec<RiskPart> {
        self.resources
            .get(request.resource)
            .map(|resource| self.weighing(request, resource).explain())
            .unwrap_or_default()
    }

    pub(super) fn weighing<'a>(&self, request: &Request<'a>, resource: &Resource) -> Weighing<'a> {
        Weighing {
            weights: self.weights,
            input: request.risk,
            facts: request.facts,
            sensitivity: resource.sensitivity,
            at: request.at,
            usage: request.usage,
        }
    }
}

/// One request, with what is computed once for all rules.
pub(super) struct Evaluation<'a> {
    pub(super) policy: &'a Policy,
    pub(super) request: &'a Request<'a>,
    pub(super) resource: &'a Resource,
    /// What the policy's clock shows.
    pub(super) face: Option<Face>,
    /// The sum of the risk.
    pub(super) risk: Option<u16>,
    /// Where the knock came from, in IPv4 clothes where it can be.
    pub(super) source: Option<IpAddr>,
    /// What each posture requirement came to, once a rule asked for it.
    standings: Vec<Cell<Option<Standing>>>,
    /// When the first of the denies that do not match yet will, by time alone.
    denied_from: Cell<Ends>,
    /// When each window closes, once a rule asked for it: the seconds, if it is open.
    closings: Vec<Cell<Option<Option<i64>>>>,
    /// When each window opens next, once a deny asked for it.
    openings: Vec<Cell<Option<Option<i64>>>>,
}

/// What the conditions of one rule came to.
pub(super) struct Conditioned {
    held: Held,
    /// How many keywords do not hold.
    failures: u8,
    /// The first of them.
    reason: Option<Reason>,
    pub(super) ends: Ends,
    pub(super) shortened: Option<Duration>,
}

/// The earliest end so far, and what makes it.
#[derive(Clone, Copy)]
pub(super) struct Ends {
    pub(super) at: WallTime,
    pub(super) by: EndsBy,
}

/// The allow that came closest.
struct Closest<'a> {
    rule: &'a Rule,
    failures: u8,
    reason: Reason,
}

pub(super) const NEVER: Ends = Ends {
    at: WallTime::from_millis(u64::MAX),
    by: EndsBy::Length,
};

impl<'a> Evaluation<'a> {
    fn decide<W: Watcher>(&self, watcher: &mut W) -> Decision {
        let index = &self.policy.index;
        let atoms = index.atoms_of(self.request.person);
        let rules = index.rules_of(self.request.resource);
        let mut grant = self.request.grant;
        let mut closest = None;
        let mut decided = None;
        let mut rules = rules
            .iter()
            .filter_map(|at| Some((*at, self.policy.rules.get(*at)?)))
            .peekable();
        loop {
            let next = rules.peek().map(|(_, rule)| rule.priority);
            let level = match (next, grant.is_some()) {
                (Some(priority), true) => priority.max(DEFAULT_PRIORITY),
                (Some(priority), false) => priority,
                (None, true) => DEFAULT_PRIORITY,
                (None, false) => break,
            };
            let granted = if level == DEFAULT_PRIORITY {
                grant.take()
            } else {
                None
            };
            let mut merged = Merged::nothing();
            let mut by_grant = None;
            while let Some((at, rule)) = rules.next_if(|(_, rule)| rule.priority == level) {
                if decided.is_some() {
                    watcher.rule(rule, RuleState::NotReached);
                } else if !index.speaks(at, atoms) {
                    watcher.rule(rule, RuleState::OtherPeople);
                } else {
                    decided = self.rule(rule, &mut merged, &mut closest, watcher);
                }
            }
            if let Some(grant) = granted {
                let live = self.request.at.is_none_or(|at| at < grant.until);
                let state = match (&decided, live) {
                    (Some(_), _) => RuleState::NotReached,
                    (None, true) => RuleState::Matches,
                    (None, false) => RuleState::Fails,
                };
                if state == RuleState::Matches {
                    by_grant = Some(Merged::of_grant(grant, self.policy));
                }
                watcher.grant(grant, state);
            }
            if decided.is_none() {
                let by_rules = Some(merged).filter(|merged| merged.by.is_some());
                let by_rules = by_rules.map(|merged| self.merged(merged, watcher));
                let by_grant = by_grant.map(|merged| self.merged(merged, watcher));
                decided = wider(by_rules, by_grant);
            }
            if decided.is_some() && !W::HEARS_ALL {
                break;
            }
        }
        decided.unwrap_or_else(|| self.nothing_matches(closest))
    }

    /// Evaluates one rule that speaks of the person; gives the decision if it is made by that.
    #[inline(always)]
    fn rule<W: Watcher>(
        &self,
        rule: &'a Rule,
        merged: &mut Merged,
        closest: &mut Option<Closest<'a>>,
        watcher: &mut W,
    ) -> Option<Decision> {
        watcher.clause(Held::Yes, &|| words::who(rule, self));
        let found = self.conditions(rule, watcher);
        let matches = match rule.effect {
            Effect::Allow => found.held.satisfies(),
            Effect::Deny => found.held.triggers(),
        };
        watcher.rule(
            rule,
            if matches {
                RuleState::Matches
            } else {
                RuleState::Fails
            },
        );
        match (rule.effect, matches) {
            (Effect::Deny, true) => Some(Decision::Deny(Deny {
                reason: Reason::Rule,
                rule: Some(rule.name.clone()),
                failing: self.failing(rule),
            })),
            (Effect::Deny, false) => {
                if let Some(begins) = self.begins(rule) {
                    let mut first = self.denied_from.get();
                    first.sooner(begins.at, begins.by);
                    self.denied_from.set(first);
                }
                None
            }
            (Effect::Allow, true) => {
                merged.add(rule, &found, self.policy);
                None
            }
            (Effect::Allow, false) => {
                let nearer = closest
                    .as_ref()
                    .is_none_or(|best| found.failures < best.failures);
                if nearer {
                    *closest = Some(Closest {
                        rule,
                        failures: found.failures,
                        reason: found.reason.unwrap_or(Reason::NoRule),
                    });
                }
                None
            }
        }
    }

    /// Evaluates every condition of a rule; none is skipped, so that all that fails is known.
    #[inline(always)]
    fn conditions<W: Watcher>(&self, rule: &Rule, watcher: &mut W) -> Conditioned {
        let conditions = &rule.conditions;
        let mut found = Conditioned {
            held: Held::Yes,
            failures: 0,
            reason: None,
            ends: NEVER,
            shortened: None,
        };
        if let Some(until) = conditions.until {
            let held = known(self.request.at.map(|at| at < until));
            watcher.clause(held, &|| words::until(until, held, self));
            found.add(held, Reason::Expired);
            found.ends.sooner(until, EndsBy::Until);
        }
        if !conditions.from.is_empty() {
            let inside = |source| {
                conditions
                    .from
                    .iter()
                    .any(|from| from.holds_canonical(source))
            };
            let held = known(self.source.map(inside));
            watcher.clause(held, &|| words::from(&conditions.from, held, self));
            found.add(held, Reason::Source);
        }
        if let Some(when) = &conditions.when {
            let closes = self.face.map(|face| self.closes(when, &face));
            let held = known(closes.map(|closes| closes.is_some()));
            watcher.clause(held, &|| words::when(when, held, self));
            found.add(held, Reason::Window);
            if let Some(closes) = closes.flatten() {
                found.ends.sooner(instant_at(closes), EndsBy::Window);
            }
        }
        if !conditions.posture.is_empty() {
            self.posture(&conditions.posture, &mut found, watcher);
        }
        if let Some(limit) = conditions.risk {
            let risk = limit.holds(self.risk);
            let held = match risk {
                RiskHeld::Yes | RiskHeld::Shortened(_) => Held::Yes,
                RiskHeld::No => Held::No,
                RiskHeld::Missing => Held::Missing,
            };
            if let RiskHeld::Shortened(length) = risk {
                found.shortened = Some(length);
            }
            watcher.clause(held, &|| words::risk(limit, held, self));
            found.add(held, Reason::Risk);
        }
        if !conditions.approve.is_empty() {
            let until = self.approved(rule);
            let held = if until.is_some() {
                Held::Yes
            } else {
                Held::Missing
            };
            watcher.clause(held, &|| words::approve(&conditions.approve, held));
            found.add(held, Reason::Approval);
            if let Some(until) = until {
                found.ends.sooner(until, EndsBy::Approval);
            }
        }
        found
    }

    /// Gives when a window closes, if it is open.
    #[inline(always)]
    fn closes(&self, when: &Windows, face: &Face) -> Option<i64> {
        kept(self.closings.get(when.number()), || {
            when.closes(&self.policy.zone, face)
        })
    }

    /// Gives when a window opens next.
    pub(super) fn opens(&self, when: &Windows) -> Option<i64> {
        kept(self.openings.get(when.number()), || {
            when.opens(&self.policy.zone, self.face.as_ref()?)
        })
    }

    #[inline(always)]
    fn posture<W: Watcher>(&self, wanted: &[usize], found: &mut Conditioned, watcher: &mut W) {
        let mut held = Held::Yes;
        for at in wanted {
            let Some(standing) = self.standing(*at, watcher) else {
                continue;
            };
            held = held.and(standing.held);
            if let Some(until) = standing.until {
                found.ends.sooner(until, EndsBy::Posture);
            }
        }
        found.add(held, Reason::Posture);
    }

    /// Gives what a requirement came to. It is asked anew for a watcher, who wants its words.
    #[inline(always)]
    pub(super) fn standing<W: Watcher>(&self, at: usize, watcher: &mut W) -> Option<Standing> {
        let kept = self.standings.get(at)?;
        if let (Some(standing), false) = (kept.get(), W::LISTENS) {
            return Some(standing);
        }
        let requirement = self.policy.postures.get(at)?;
        let standing = requirement.decide(self.request.facts, self.request.at, |held, words| {
            watcher.clause(held, words);
        });
        kept.set(Some(standing));
        Some(standing)
    }

    /// Gives until when somebody else, who may, agreed to this rule for this request.
    fn approved(&self, rule: &Rule) -> Option<WallTime> {
        let counts = |by: &crate::name::Name| {
            by != self.request.person
                && rule.conditions.approve.iter().any(|who| match who {
                    Who::Person(name) => name == by,
                    Who::Group(group) => self.policy.is_member(group, by),
                })
        };
        self.request
            .approvals
            .iter()
            .filter(|approval| approval.rule == rule.name && counts(&approval.by))
            .filter(|approval| self.request.at.is_none_or(|at| at < approval.until))
            .map(|approval| approval.until)
            .max()
    }

    /// Allows that match: all their factors are needed, the earliest of all ends counts.
    fn merged<W: Watcher>(&self, merged: Merged, watcher: &mut W) -> Decision {
        let held = Held::of(self.request.factors.hold(merged.factors));
        watcher.clause(held, &|| words::factors(merged.factors, held, self));
        let rule = match &merged.by {
            Some(Authority::Rule(name)) => Some(name.clone()),
            Some(Authority::Grant(_) | Authority::Learning) | None => None,
        };
        if !held.satisfies() {
            return Decision::Deny(Deny {
                reason: Reason::Factors,
                rule,
                failing: alloc::vec![words::factors(merged.factors, held, self)],
            });
        }
        Decision::Allow(self.allow(
            merged.ends,
            merged.length,
            merged.factors,
            merged.by.unwrap_or(Authority::Learning),
        ))
    }

    fn allow(&self, ends: Ends, length: Duration, factors: Factors, by: Authority) -> Allow {
        let opened = self.request.opened.or(self.request.at);
        let opened = opened.unwrap_or(WallTime::from_millis(0));
        let mut first = Ends {
            at: opened.saturating_add(length),
            by: EndsBy::Length,
        };
        first.sooner(ends.at, ends.by);
        let denied_from = self.denied_from.get();
        first.sooner(denied_from.at, denied_from.by);
        if let Some(ceiling) = self.request.ceiling {
            first.sooner(ceiling, EndsBy::Ceiling);
        }
        Allow {
            not_after: first.at,
            ends_by: first.by,
            factors,
            limits: Limits {
                length,
                idle: self.policy.defaults.idle,
            },
            by,
        }
    }

    fn nothing_matches(&self, closest: Option<Closest<'_>>) -> Decision {
        let Some(closest) = closest else {
            return denied(Reason::NoRule);
        };
        Decision::Deny(Deny {
            reason: closest.reason,
            rule: Some(closest.rule.name.clone()),
            failing: self.failing(closest.rule),
        })
    }

    /// Gives the clauses of a rule that failed it, or, for a deny, triggered it.
    fn failing(&self, rule: &Rule) -> Vec<Clause> {
        let mut failing = Failing {
            effect: rule.effect,
            clauses: Vec::new(),
        };
        let _ = self.conditions(rule, &mut failing);
        failing.clauses
    }

    /// Says whether the resource is being learned and this would-be denial passes. What an
    /// administrator denies by name, and what was not proven, stays denied.
    fn learns(&self, deny: &Deny) -> bool {
        self.resource.mode == Mode::Observe
            && match deny.reason {
                Reason::NoRule
                | Reason::Expired
                | Reason::Source
                | Reason::Window
                | Reason::Posture
                | Reason::Risk
                | Reason::Approval => self.request.factors.hold(self.policy.defaults.factors),
                Reason::Locked
                | Reason::NoResource
                | Reason::NoPort
                | Reason::Rule
                | Reason::Factors => false,
            }
    }

    fn learning(&self) -> Allow {
        let defaults = &self.policy.defaults;
        self.allow(
            NEVER,
            defaults.length,
            defaults.factors,
            Authority::Learning,
        )
    }
}

impl Conditioned {
    #[inline(always)]
    fn add(&mut self, held: Held, reason: Reason) {
        self.held = self.held.and(held);
        if !held.satisfies() {
            self.failures = self.failures.saturating_add(1);
            self.reason = self.reason.or(Some(reason));
        }
    }
}

impl Ends {
    #[inline(always)]
    pub(super) fn sooner(&mut self, at: WallTime, by: EndsBy) {
        if at < self.at {
            *self = Self { at, by };
        }
    }
}

/// Gives what is kept, or computes it once.
#[inline(always)]
fn kept(
    cell: Option<&Cell<Option<Option<i64>>>>,
    compute: impl Fn() -> Option<i64>,
) -> Option<i64> {
    if let Some(found) = cell.and_then(Cell::get) {
        return found;
    }
    let computed = compute();
    if let Some(cell) = cell {
        cell.set(Some(computed));
    }
    computed
}

const fn known(held: Option<bool>) -> Held {
    match held {
        Some(true) => Held::Yes,
        Some(false) => Held::No,
        None => Held::Missing,
    }
}

const fn denied(reason: Reason) -> Decision {
    Decision::Deny(Deny {
        reason,
        rule: None,
        failing: Vec::new(),
    })
}

/// Gives a list as it is written in a policy.
pub(super) fn listed<T: ToString>(all: &[T]) -> String {
    let all: Vec<String> = all.iter().map(ToString::to_string).collect();
    all.join(", ")
}
