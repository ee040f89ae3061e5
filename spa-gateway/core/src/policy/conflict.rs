//! Rules that contradict each other: which allow can never matter for somebody, and why?

use alloc::collections::{BTreeMap, BTreeSet};
use alloc::format;
use alloc::vec::Vec;

use super::Policy;
use super::check::{Finding, Severity};
use super::fact::Field;
use super::posture::{Check, Requirement, Scope};
use super::risk::RiskHeld;
use super::rule::{Conditions, Effect, Network, Rule, Who};
use super::window::Windows;
use crate::name::Name;

/// The most contradictions that are named.
const MAX_NAMED: usize = 100;
/// The most pairs of rules that are compared: ten thousand rules of one resource are fifty million.
const MAX_COMPARED: usize = 1_000_000;

/// Finds allows that a deny of the same or a higher level always beats, for some of their people.
pub(super) fn contradictions(policy: &Policy) -> Vec<Finding> {
    let mut denies: BTreeMap<&Name, Vec<&Rule>> = BTreeMap::new();
    for rule in policy.rules() {
        if rule.effect == Effect::Deny {
            for resource in &rule.to {
                denies.entry(resource).or_default().push(rule);
            }
        }
    }
    let mut findings = Vec::new();
    let mut told = BTreeSet::new();
    let mut compared = 0_usize;
    for allow in policy.rules() {
        if allow.effect == Effect::Deny {
            continue;
        }
        for resource in &allow.to {
            for deny in denies.get(resource).into_iter().flatten() {
                compared = compared.saturating_add(1);
                if compared > MAX_COMPARED || findings.len() >= MAX_NAMED {
                    return findings;
                }
                let always = implied(&deny.conditions, &allow.conditions);
                if deny.priority < allow.priority || !always {
                    continue;
                }
                let whole = deny.priority > allow.priority;
                let Some(person) = shared(policy, allow, deny) else {
                    continue;
                };
                if told.insert((&allow.name, &deny.name)) {
                    findings.push(contradiction(allow, deny, resource, person, whole));
                }
            }
        }
    }
    findings
}

/// Says whether a deny with these conditions matches wherever an allow with those does.
fn implied(deny: &Conditions, allow: &Conditions) -> bool {
    let covered = |network: &Network| deny.from.iter().any(|wide| wide.covers(network));
    let from = deny.from.is_empty() || (!allow.from.is_empty() && allow.from.iter().all(covered));
    let inside = |(from, until): &(u32, u32)| {
        let spans = deny.when.as_ref().map_or(&[][..], Windows::spans);
        spans
            .iter()
            .any(|(opens, closes)| opens <= from && until <= closes)
    };
    let when = deny.when.is_none()
        || allow
            .when
            .as_ref()
            .is_some_and(|when| when.spans().iter().all(inside));
    let until = deny
        .until
        .is_none_or(|ends| allow.until.is_some_and(|until| until <= ends));
    let posture = deny.posture.iter().all(|at| allow.posture.contains(at));
    let risk = deny.risk.is_none() || deny.risk == allow.risk;
    from && when && until && posture && risk
}

/// Finds rules that an allow of a higher priority, which asks for nothing, always decides before.
pub(super) fn shadowed(policy: &Policy) -> Vec<Finding> {
    let mut findings = Vec::new();
    let decides = |rule: &&Rule| rule.effect == Effect::Allow && rule.conditions.is_empty();
    let mut deciding: BTreeMap<&Name, Vec<&Rule>> = BTreeMap::new();
    for rule in policy.rules().iter().filter(decides) {
        for resource in &rule.to {
            deciding.entry(resource).or_default().push(rule);
        }
    }
    let mut compared = 0_usize;
    for rule in policy.rules() {
        // What decides before it speaks of all its resources, so of its first.
        let deciding = rule.to.first().and_then(|to| deciding.get(to));
        for higher in deciding.into_iter().flatten() {
            compared = compared.saturating_add(1);
            if compared > MAX_COMPARED || findings.len() >= MAX_NAMED {
                return findings;
            }
            let above = higher.priority > rule.priority;
            if above && rule.to.iter().all(|to| higher.to.contains(to)) && all(policy, rule, higher)
            {
                findings.push(Finding {
                    severity: Severity::Warning,
                    line: rule.line,
                    column: 0,
                    what: format!(
                        "rule `{}` can never match: allow `{}` in line {} of a higher priority decides before it",
                        rule.name, higher.name, higher.line
                    ),
                    remedy: "if that is not meant, change a priority; or remove it".into(),
                });
                break;
            }
        }
    }
    findings
}

/// Finds rules whose limit of risk is below what one of their resources always adds to it.
pub(super) fn too_sensitive(policy: &Policy) -> Vec<Finding> {
    let mut findings = Vec::new();
    for rule in policy
        .rules()
        .iter()
        .filter(|rule| rule.effect == Effect::Allow)
    {
        for (name, resource) in rule
            .to
            .iter()
            .filter_map(|to| Some((to, policy.resource(to)?)))
        {
            let Some(limit) = rule.conditions.risk.filter(|limit| limit.is_upper()) else {
                continue;
            };
            if limit.holds(Some(resource.sensitivity)) == RiskHeld::No {
                findings.push(Finding {
                    severity: Severity::Warning,
                    line: rule.line,
                    column: 0,
                    what: format!(
                        "rule `{}` can never match for `{name}`: its sensitivity alone is {}, and risk must be {limit}",
                        rule.name, resource.sensitivity
                    ),
                    remedy: "raise the limit, or lower the sensitivity".into(),
                });
            }
        }
    }
    findings
}

/// Finds allows whose posture requirements no device can meet together.
pub(super) fn impossible(policy: &Policy) -> Vec<Finding> {
    let mut findings = Vec::new();
    let allows = |rule: &&Rule| rule.effect == Effect::Allow;
    for rule in policy.rules().iter().filter(allows) {
        let wanted = rule.conditions.posture.iter();
        let wanted: Vec<_> = wanted.filter_map(|at| policy.postures.get(*at)).collect();
        let Some((field, one, other)) = contradicting(&wanted) else {
            continue;
        };
        let who = if one == other {
            format!("posture `{one}` contradicts itself")
        } else {
            format!("postures `{one}` and `{other}` contradict each other")
        };
        findings.push(Finding {
            severity: Severity::Warning,
            line: rule.line,
            column: 0,
            what: format!(
                "rule `{}` can never match: {who} about {}",
                rule.name,
                field.name()
            ),
            remedy: "write what is meant into one of them".into(),
        });
        if findings.len() >= MAX_NAMED {
            break;
        }
    }
    findings
}

/// Gives a field of which two requirements want, everywhere, what cannot be at once.
fn contradicting<'p>(wanted: &[&'p Requirement]) -> Option<(Field, &'p Name, &'p Name)> {
    let everywhere = |check: &Check| match check.wanted {
        Scope::Everywhere(wanted) => Some((check.field, wanted)),
        Scope::By(_) => None,
    };
    let checks: Vec<_> = wanted
        .iter()
        .flat_map(|of| {
            let checks = of.checks.iter().filter_map(everywhere);
            checks.map(|(field, wanted)| (field, wanted, &of.name))
        })
        .collect();
    checks
        .iter()
        .enumerate()
        .find_map(|(at, (field, one, by))| {
            let others = checks.iter().skip(at + 1);
            let other = others
                .filter(|(other, ..)| other == field)
                .find(|(_, other, _)| one.excludes(*other));
            other.map(|(_, _, other)| (*field, *by, *other))
        })
}

/// Says whether all of whom one rule speaks are people of the other.
fn all(policy: &Policy, rule: &Rule, other: &Rule) -> bool {
    let named = |person: &Name| {
        other.who.iter().any(|who| match who {
            Who::Person(name) => name == person,
            Who::Group(group) => policy.is_member(group, person),
        })
    };
    rule.who.iter().all(|who| match who {
        Who::Person(person) => named(person),
        Who::Group(group) if other.who.contains(who) => policy.groups.contains_key(group),
        Who::Group(group) => policy
            .groups
            .get(group)
            .is_some_and(|members| !members.is_empty() && members.iter().all(named)),
    })
}

fn contradiction(
    allow: &Rule,
    deny: &Rule,
    resource: &Name,
    person: &Name,
    higher: bool,
) -> Finding {
    let level = if higher {
        "of a higher priority"
    } else {
        "of the same priority"
    };
    Finding {
        severity: Severity::Warning,
        line: allow.line,
        column: 0,
        what: format!(
            "allow `{}` never counts for `{person}` and `{resource}`: deny `{}` in line {} {level} beats it",
            allow.name, deny.name, deny.line
        ),
        remedy: "if that is not meant, change who they speak of, or a priority".into(),
    }
}

/// Gives somebody both rules speak of.
fn shared<'p>(policy: &'p Policy, one: &'p Rule, other: &'p Rule) -> Option<&'p Name> {
    for who in &one.who {
        for with in &other.who {
            let person = match (who, with) {
                (Who::Person(one), Who::Person(other)) => (one == other).then_some(one),
                (Who::Person(person), Who::Group(group))
                | (Who::Group(group), Who::Person(person)) => {
                    policy.is_member(group, person).then_some(person)
                }
                (Who::Group(one), Who::Group(other)) => {
                    let members = policy.groups.get(one)?;
                    members
                        .iter()
                        .find(|member| policy.is_member(other, member))
                }
            };
            if person.is_some() {
                return person;
            }
        }
    }
    None
}
