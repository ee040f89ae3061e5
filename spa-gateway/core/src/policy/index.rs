//! The policy, arranged for deciding: which rules speak of a resource, and of whom.
//!
//! Invariant: rules of a resource are in the order in which they are decided: higher priority first,
//! inside a level denies first. The order of the file leaves no trace.

use alloc::collections::{BTreeMap, BTreeSet};
use alloc::vec::Vec;
use core::cmp::Reverse;

use super::rule::{Rule, Who};
use crate::name::Name;

/// A person named by a rule, or a group.
type Atom = u32;

/// What is computed once, when a policy is read.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(super) struct Index {
    /// Of everybody the policy names: the person's own atom, and those of all groups.
    atoms: BTreeMap<Name, Vec<Atom>>,
    /// The rules of each resource, by their place in the policy.
    by_resource: BTreeMap<Name, Vec<usize>>,
    /// Of each rule: whom it speaks of, sorted.
    who: Vec<Vec<Atom>>,
}

impl Index {
    pub(super) fn of(groups: &BTreeMap<Name, BTreeSet<Name>>, rules: &[Rule]) -> Self {
        let mut numbers: BTreeMap<&Who, Atom> = BTreeMap::new();
        for who in rules.iter().flat_map(|rule| &rule.who) {
            let next = Atom::try_from(numbers.len()).unwrap_or(Atom::MAX);
            numbers.entry(who).or_insert(next);
        }
        let mut atoms: BTreeMap<Name, Vec<Atom>> = BTreeMap::new();
        for (who, atom) in &numbers {
            match who {
                Who::Person(name) => atoms.entry(name.clone()).or_default().push(*atom),
                Who::Group(group) => {
                    for member in groups.get(group).into_iter().flatten() {
                        atoms.entry(member.clone()).or_default().push(*atom);
                    }
                }
            }
        }
        let who = rules.iter().map(|rule| {
            let mut who: Vec<Atom> = rule
                .who
                .iter()
                .filter_map(|who| numbers.get(who).copied())
                .collect();
            who.sort_unstable();
            who
        });
        let mut by_resource: BTreeMap<Name, Vec<usize>> = BTreeMap::new();
        let mut order: Vec<(usize, &Rule)> = rules.iter().enumerate().collect();
        order.sort_by_key(|(_, rule)| (Reverse(rule.priority), rule.effect, &rule.name));
        for (at, rule) in order {
            for resource in rule.to.iter().collect::<BTreeSet<_>>() {
                by_resource.entry(resource.clone()).or_default().push(at);
            }
        }
        Self {
            atoms,
            by_resource,
            who: who.collect(),
        }
    }

    /// Gives the rules of a resource, in the order in which they are decided.
    pub(super) fn rules_of(&self, resource: &Name) -> &[usize] {
        self.by_resource.get(resource).map_or(&[], Vec::as_slice)
    }

    /// Gives what rules may know somebody as.
    pub(super) fn atoms_of(&self, person: &Name) -> &[Atom] {
        self.atoms.get(person).map_or(&[], Vec::as_slice)
    }

    /// Says whether a rule speaks of somebody with these atoms.
    pub(super) fn speaks(&self, rule: usize, atoms: &[Atom]) -> bool {
        let Some(who) = self.who.get(rule) else {
            return false;
        };
        match who.as_slice() {
            [only] => atoms.contains(only),
            who => atoms.iter().any(|atom| who.binary_search(atom).is_ok()),
        }
    }
}
