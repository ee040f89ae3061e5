//! Who hears what a decision evaluated. None of them decides anything.

use alloc::vec::Vec;

use super::held::{Clause, Held};
use super::request::Grant;
use super::rule::{Effect, Rule};

/// Hears of everything that is evaluated.
pub(super) trait Watcher {
    /// Whether it wants to hear of rules that cannot matter any more.
    const HEARS_ALL: bool;
    /// Whether it wants clauses at all.
    const LISTENS: bool = true;
    /// A clause of the rule that is being evaluated.
    fn clause(&mut self, held: Held, words: &dyn Fn() -> Clause);
    /// A rule is done with.
    fn rule(&mut self, rule: &Rule, state: RuleState);
    /// The just-in-time grant is done with.
    fn grant(&mut self, grant: Grant, state: RuleState);
}

/// What became of a rule.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum RuleState {
    /// All of it holds.
    Matches,
    /// A condition does not.
    Fails,
    /// It speaks of other people.
    OtherPeople,
    /// A higher level, or a deny of its own, decided before it.
    NotReached,
}

/// Hears nothing.
pub(super) struct Deaf;

impl Watcher for Deaf {
    const HEARS_ALL: bool = false;
    const LISTENS: bool = false;
    fn clause(&mut self, _: Held, _: &dyn Fn() -> Clause) {}
    fn rule(&mut self, _: &Rule, _: RuleState) {}
    fn grant(&mut self, _: Grant, _: RuleState) {}
}

/// Keeps the clauses of one rule that failed, or that triggered it.
pub(super) struct Failing {
    pub(super) effect: Effect,
    pub(super) clauses: Vec<Clause>,
}

impl Watcher for Failing {
    const HEARS_ALL: bool = false;
    fn clause(&mut self, held: Held, words: &dyn Fn() -> Clause) {
        let counts = match self.effect {
            Effect::Allow => !held.satisfies(),
            Effect::Deny => held.triggers(),
        };
        if counts {
            self.clauses.push(words());
        }
    }
    fn rule(&mut self, _: &Rule, _: RuleState) {}
    fn grant(&mut self, _: Grant, _: RuleState) {}
}
