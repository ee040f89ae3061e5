//! Rules that contradict each other: which allow can never matter for somebody, and why?

use alloc::collections::{BTreeMap, BTreeSet};
use alloc::format;
use alloc::vec::Vec;

use super::Policy;
use super::check::{Finding, Severity};
use super::rule::{Effect, Rule, Who};
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
                let always = deny.conditions.is_empty() || deny.conditions == allow.conditions;
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
