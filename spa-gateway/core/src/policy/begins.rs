//! A deny that does not match yet: from when on will it, if nothing but time goes on?
//!
//! Invariant: what an allow gives ends no later than that, so that the kernel closes it and nobody has to come back.

use super::decide::{Ends, Evaluation};
use super::decision::EndsBy;
use super::held::Held;
use super::risk::{RiskHeld, RiskLimit};
use super::rule::{Network, Rule};
use super::watcher::Deaf;
use super::zone::instant_at;

impl Evaluation<'_> {
    /// Gives when a deny of this person that does not match will, by time alone: its window opens, or what
    /// the device said of itself is too old to count. A risk that rises is held against sessions when it does.
    // Not inlined: it would make every rule slower that needs none of it.
    #[inline(never)]
    pub(super) fn begins(&self, rule: &Rule) -> Option<Ends> {
        let conditions = &rule.conditions;
        let now = self.request.at?;
        let elsewhere = |source| {
            let inside = |from: &Network| from.holds_canonical(source);
            !conditions.from.is_empty() && !conditions.from.iter().any(inside)
        };
        let too_safe = |limit: RiskLimit| limit.holds(self.risk) == RiskHeld::No;
        if self.source.is_some_and(elsewhere) || conditions.risk.is_some_and(too_safe) {
            return None;
        }
        let mut begins = Ends {
            at: now,
            by: EndsBy::Deny,
        };
        for at in &conditions.posture {
            let standing = self.standing(*at, &mut Deaf)?;
            if standing.held == Held::No {
                let until = standing.until?;
                if until > begins.at {
                    begins = Ends {
                        at: until,
                        by: EndsBy::Posture,
                    };
                }
            }
        }
        if let Some(when) = &conditions.when {
            let opens = if begins.at == now {
                self.opens(when)?
            } else {
                let zone = &self.policy.zone;
                when.opens(zone, &zone.face(begins.at))?
            };
            let opens = instant_at(opens);
            if opens > begins.at {
                begins = Ends {
                    at: opens,
                    by: EndsBy::Deny,
                };
            }
        }
        let over = conditions.until.is_some_and(|until| until <= begins.at);
        (begins.at > now && !over).then_some(begins)
    }
}
