//! Step 11, the policy half: what may they have, and for how long? Makes [`Allowance`].
//!
//! Invariant: each resource has an end of its own, and none ends after its session.

use alloc::collections::BTreeMap;
use alloc::vec::Vec;
use core::time::Duration;

use litemap::LiteMap;
use spa_proto::{OpenAsk, RefusedFor, Verdict, WallTime, Wanted};

use crate::circumstances::Circumstances;
use crate::credential::{Refused, Verdicts};
use crate::few::exactly;
use crate::name::Name;
use crate::policy::{Allow, Decision, EndsBy, Reason};

/// What policy lets a knock have.
#[derive(Debug)]
pub(crate) struct Allowance {
    until: LiteMap<Name, WallTime>,
    verdicts: Verdicts,
    not_after: WallTime,
    reason: Option<&'static str>,
    /// What passes only because it is being learned.
    observed: Vec<(Name, Reason)>,
}

/// What somebody would have had, had an approver agreed: the resource and the rule that asks.
pub(crate) type Wish = (Name, Name);

/// Whether the device's four words were compared (SPEC §14).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Confirmation {
    Confirmed,
    /// The control channel only.
    Awaited,
}

const NOTHING_ALLOWED: &str = "policy allows nothing of what was asked";
const AWAITS_CONFIRMATION: &str = "an administrator has to confirm this device's four words first";
pub(crate) const LOCKED: &str = "locked by an administrator";

/// The decisions about single resources, as they add up to a session.
#[derive(Default)]
struct Sum {
    granted: BTreeMap<Name, Allow>,
    verdicts: Verdicts,
    observed: Vec<(Name, Reason)>,
    wishes: Vec<Wish>,
}

impl Allowance {
    /// Decides what an OPEN gets. Wishes that wait for an approver come out beside it.
    pub(crate) fn decide(
        on: &Circumstances<'_>,
        confirmation: Confirmation,
        ask: &OpenAsk,
    ) -> (Result<Self, Refused>, Vec<Wish>) {
        let mut sum = Sum::default();
        match (&ask.wanted, confirmation) {
            (Wanted::Resources(ids), Confirmation::Confirmed) => {
                for id in ids {
                    let verdict = on
                        .policy
                        .name_of(*id)
                        .map_or(Verdict::NotAllowed, |name| sum.ask(on, name));
                    sum.verdicts.push((*id, verdict));
                }
            }
            (Wanted::Resources(ids), Confirmation::Awaited) => {
                let verdicts = ids.iter().map(|id| (*id, Verdict::ApprovalNeeded));
                sum.verdicts.extend(verdicts);
            }
            (Wanted::All, Confirmation::Confirmed) => sum.ask_all(on),
            (Wanted::All, Confirmation::Awaited) | (Wanted::ControlOnly, _) => {}
        }
        let wishes = core::mem::take(&mut sum.wishes);
        (sum.add_up(on, confirmation, ask), wishes)
    }

    /// Each resource with its end, in the order of their names.
    pub(crate) const fn until(&self) -> &LiteMap<Name, WallTime> {
        &self.until
    }

    /// One verdict for each resource asked for, in the order asked.
    pub(crate) const fn verdicts(&self) -> &Verdicts {
        &self.verdicts
    }

    /// When the session ends.
    pub(crate) const fn not_after(&self) -> WallTime {
        self.not_after
    }

    /// What to tell the person.
    pub(crate) const fn reason(&self) -> Option<&'static str> {
        self.reason
    }

    /// What passes only because it is being learned, and why it would not.
    pub(crate) fn observed(&self) -> &[(Name, Reason)] {
        &self.observed
    }
}

impl Sum {
    fn ask(&mut self, on: &Circumstances<'_>, name: &Name) -> Verdict {
        let decision = on.decide(name);
        let verdict = decision.verdict();
        match decision {
            Decision::Allow(allow) => {
                self.granted.insert(name.clone(), allow);
            }
            Decision::Observe(allow, deny) => {
                self.granted.insert(name.clone(), allow);
                self.observed.push((name.clone(), deny.reason));
            }
            Decision::Deny(deny) => {
                let waits = deny.rule.filter(|_| deny.reason == Reason::Approval);
                self.wishes.extend(waits.map(|rule| (name.clone(), rule)));
            }
        }
        verdict
    }

    /// ALL is what policy allows; what is only being learned must be asked for by name.
    fn ask_all(&mut self, on: &Circumstances<'_>) {
        for (name, _) in on.policy.resources() {
            if let Decision::Allow(allow) = on.decide(name) {
                self.granted.insert(name.clone(), allow);
            }
        }
    }

    fn add_up(
        self,
        on: &Circumstances<'_>,
        confirmation: Confirmation,
        ask: &OpenAsk,
    ) -> Result<Allowance, Refused> {
        let reason = (confirmation == Confirmation::Awaited).then_some(AWAITS_CONFIRMATION);
        let refused = |verdicts, reason| {
            Err(Refused {
                why: RefusedFor::Policy,
                verdicts,
                reason,
            })
        };
        if on.locked {
            let locked = |(id, _)| (id, Verdict::Locked);
            return refused(self.verdicts.into_iter().map(locked).collect(), LOCKED);
        }
        if self.granted.is_empty() && !self.verdicts.is_empty() {
            return refused(self.verdicts, reason.unwrap_or(NOTHING_ALLOWED));
        }
        let default = on.policy.defaults().length;
        let length = shortest(&self.granted).unwrap_or(default);
        let length = asked(ask.minutes).map_or(length, |asked| asked.min(length));
        let end = on.now.saturating_add(length).min(on.ceiling);
        let not_after = last_end(&self.granted, end).unwrap_or(end);
        let until = ends(self.granted, not_after);
        Ok(Allowance {
            until,
            verdicts: self.verdicts,
            not_after,
            reason,
            observed: self.observed,
        })
    }
}

/// Gives the shortest of the lengths: a session is as long as the strictest of its resources lets it be.
pub(crate) fn shortest(granted: &BTreeMap<Name, Allow>) -> Option<Duration> {
    granted.values().map(|allow| allow.limits.length).min()
}

/// Gives when the last resource ends, at `end` the latest. The age of posture ends none for good, since
/// the device reports again.
pub(crate) fn last_end(granted: &BTreeMap<Name, Allow>, end: WallTime) -> Option<WallTime> {
    let ends = granted.values().map(|allow| match allow.ends_by {
        EndsBy::Posture => end,
        EndsBy::Length
        | EndsBy::Window
        | EndsBy::Until
        | EndsBy::Grant
        | EndsBy::Approval
        | EndsBy::Deny
        | EndsBy::Ceiling => allow.not_after.min(end),
    });
    ends.max()
}

/// Gives each resource with its end, none after the session's.
pub(crate) fn ends(granted: BTreeMap<Name, Allow>, not_after: WallTime) -> LiteMap<Name, WallTime> {
    let each = granted.into_iter();
    exactly(each.map(|(name, allow)| (name, allow.not_after.min(not_after))))
}

/// Gives the wanted length; 0 minutes is "what policy gives".
fn asked(minutes: u16) -> Option<Duration> {
    (minutes != 0).then(|| Duration::from_secs(u64::from(minutes) * 60))
}
