//! Several allows of one level that match: what do they come to?
//!
//! Of rules the strictest of each counts. A grant stands beside them and not among them: whoever makes one for somebody
//! means to give, so what it gives counts where it lasts longer, and takes nothing from what the rules give.

use core::time::Duration;

use super::Policy;
use super::decide::{Conditioned, Ends, NEVER};
use super::decision::{Authority, Decision, EndsBy};
use super::request::Grant;
use super::rule::{Factors, Rule};

/// Allows merged: the shortest, and every factor.
pub(super) struct Merged {
    pub(super) by: Option<Authority>,
    pub(super) length: Duration,
    pub(super) factors: Factors,
    pub(super) ends: Ends,
}

impl Merged {
    pub(super) const fn nothing() -> Self {
        Self {
            by: None,
            length: Duration::MAX,
            factors: Factors::NONE,
            ends: NEVER,
        }
    }

    pub(super) fn of_grant(grant: Grant, policy: &Policy) -> Self {
        let mut ends = NEVER;
        ends.sooner(grant.until, EndsBy::Grant);
        Self {
            by: Some(Authority::Grant(grant.id)),
            length: policy.defaults.length,
            factors: policy.defaults.factors,
            ends,
        }
    }

    pub(super) fn add(&mut self, rule: &Rule, found: &Conditioned, policy: &Policy) {
        let length = rule.length.unwrap_or(policy.defaults.length);
        let length = found.shortened.map_or(length, |short| short.min(length));
        self.length = self.length.min(length);
        self.factors = self
            .factors
            .with(rule.factors.unwrap_or(policy.defaults.factors));
        self.ends.sooner(found.ends.at, found.ends.by);
        // Rules come in the order of their names.
        if self.by.is_none() {
            self.by = Some(Authority::Rule(rule.name.clone()));
        }
    }
}

/// Gives what lasts longer; of two that last alike, what the rules say.
pub(super) fn wider(by_rules: Option<Decision>, by_grant: Option<Decision>) -> Option<Decision> {
    let end = |decision: &Decision| decision.allowed().map(|allow| allow.not_after);
    match (by_rules, by_grant) {
        (Some(rules), Some(grant)) if end(&grant) > end(&rules) => Some(grant),
        (Some(rules), _) => Some(rules),
        (None, grant) => grant,
    }
}
