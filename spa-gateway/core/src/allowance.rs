//! Step 11, the policy half: what may they have, and for how long? Makes [`Allowance`].

use alloc::collections::BTreeSet;
use alloc::vec::Vec;
use core::time::Duration;

use spa_proto::{OpenAsk, RefusedFor, ResourceId, Verdict, Wanted};

use crate::credential::{Refused, Verdicts};
use crate::name::Name;
use crate::policy::Policy;

/// What policy lets a knock have.
#[derive(Debug)]
pub(crate) struct Allowance {
    resources: Vec<Name>,
    verdicts: Verdicts,
    length: Duration,
    reason: Option<&'static str>,
}

/// Whether the device's four words were compared (SPEC §14).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Confirmation {
    Confirmed,
    /// The control channel only.
    Awaited,
}

const NOTHING_ALLOWED: &str = "policy allows nothing of what was asked";
const AWAITS_CONFIRMATION: &str = "an administrator has to confirm this device's four words first";

impl Allowance {
    /// Decides what an OPEN gets.
    pub(crate) fn decide(
        policy: &Policy,
        person: &Name,
        confirmation: Confirmation,
        ask: &OpenAsk,
        longest: Duration,
    ) -> Result<Self, Refused> {
        let mut verdicts = Verdicts::new();
        let mut granted = BTreeSet::new();
        match (&ask.wanted, confirmation) {
            (Wanted::Resources(ids), Confirmation::Confirmed) => {
                for id in ids {
                    let resource = allowed(policy, person, *id);
                    verdicts.push((
                        *id,
                        resource.map_or(Verdict::NotAllowed, |_| Verdict::Granted),
                    ));
                    granted.extend(resource);
                }
            }
            (Wanted::Resources(ids), Confirmation::Awaited) => {
                verdicts.extend(ids.iter().map(|id| (*id, Verdict::ApprovalNeeded)));
            }
            (Wanted::All, Confirmation::Confirmed) => granted.extend(policy.everything(person)),
            (Wanted::All, Confirmation::Awaited) | (Wanted::ControlOnly, _) => {}
        }
        let reason = (confirmation == Confirmation::Awaited).then_some(AWAITS_CONFIRMATION);
        if granted.is_empty() && !verdicts.is_empty() {
            let reason = reason.unwrap_or(NOTHING_ALLOWED);
            return Err(Refused {
                why: RefusedFor::Policy,
                verdicts,
                reason,
            });
        }
        let shortest = granted
            .iter()
            .filter_map(|resource| policy.allows(person, resource))
            .min();
        let length = shortest
            .unwrap_or_else(|| policy.default_length())
            .min(longest);
        Ok(Self {
            resources: granted.into_iter().cloned().collect(),
            verdicts,
            length: asked(ask.minutes).map_or(length, |asked| asked.min(length)),
            reason,
        })
    }

    /// The resources, in the order of their names.
    pub(crate) fn resources(&self) -> &[Name] {
        &self.resources
    }

    /// One verdict for each resource asked for, in the order asked.
    pub(crate) const fn verdicts(&self) -> &Verdicts {
        &self.verdicts
    }

    /// How long the session may last.
    pub(crate) const fn length(&self) -> Duration {
        self.length
    }

    /// What to tell the person.
    pub(crate) const fn reason(&self) -> Option<&'static str> {
        self.reason
    }
}

fn allowed<'p>(policy: &'p Policy, person: &Name, id: ResourceId) -> Option<&'p Name> {
    policy
        .name_of(id)
        .filter(|resource| policy.allows(person, resource).is_some())
}

/// Gives the wanted length; 0 minutes is "what policy gives".
fn asked(minutes: u16) -> Option<Duration> {
    (minutes != 0).then(|| Duration::from_secs(u64::from(minutes) * 60))
}
