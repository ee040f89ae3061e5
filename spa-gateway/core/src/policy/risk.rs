//! Risk: a sum of named factors with weights from the policy, each with its evidence. Never a black box.
//!
//! Invariant: the total is the sum of the parts that `explain` prints, since both come from `parts`.

use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;
use core::fmt;
use core::time::Duration;

use spa_proto::WallTime;

use super::Policy;
use super::fact::Facts;
use super::posture::{Comparison, span};
use super::usage::{Usage, UsageSignal};

/// The most failures that count.
const MAX_COUNTED_FAILURES: u32 = 10;
/// Facts at least this old count as old.
const OLD_POSTURE: Duration = Duration::from_secs(60 * 60);

impl Policy {
    /// Gives when facts become old to the risk; `None` if that changes nothing.
    pub(crate) fn posture_ages(&self, facts: &Facts) -> Option<WallTime> {
        let newest = facts.newest().filter(|_| self.weights.posture_age > 0)?;
        Some(newest.saturating_add(OLD_POSTURE + Duration::from_millis(1)))
    }
}

/// `[risk]`: how many points each factor is worth.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Weights {
    /// The knock comes from a network this person was not seen in.
    pub new_network: u16,
    /// This person does not usually knock at this hour.
    pub unusual_hour: u16,
    /// Each failure in a row before this knock, up to ten.
    pub recent_failure: u16,
    /// No posture, or one that is more than an hour old.
    pub posture_age: u16,
    /// Far more bytes of the resource today than this person usually moves in a day.
    pub unusual_volume: u16,
    /// Far more connections to the resource today than usual.
    pub unusual_connections: u16,
}

impl Weights {
    /// What holds without `[risk]`.
    pub const DEFAULT: Self = Self {
        new_network: 30,
        unusual_hour: 20,
        recent_failure: 5,
        posture_age: 10,
        unusual_volume: 25,
        unusual_connections: 15,
    };
}

/// From how many points on a live session is held against policy how often, seconds; the highest first.
const LOOK_AGAIN: [(u16, u64); 3] = [(75, 60), (50, 180), (25, 300)];
/// How often one of little risk is, seconds.
const LOOK_AGAIN_AT_REST: u64 = 600;

/// Gives how soon a live session of this risk is held against policy again. A risk that is not known counts as the
/// highest.
pub(crate) fn look_again(risk: Option<u16>) -> Duration {
    let risk = risk.unwrap_or(u16::MAX);
    let step = LOOK_AGAIN.iter().find(|(points, _)| risk >= *points);
    Duration::from_secs(step.map_or(LOOK_AGAIN_AT_REST, |(_, seconds)| *seconds))
}

/// What was seen of a knock, to be weighed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Signals {
    /// Whether this person was seen in this network before.
    pub network: NetworkSeen,
    /// Whether this person knocks at this hour.
    pub hour: HourSeen,
    /// Failures in a row before this knock.
    pub failures: u32,
}

/// What is known of the network a knock came from.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum NetworkSeen {
    /// Seen before, last then.
    Known(WallTime),
    /// Never, or long ago.
    New,
}

/// What is known of the hour of a knock.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum HourSeen {
    /// One of this person's hours.
    Usual,
    /// None of them.
    Unusual,
    /// There were too few knocks to tell.
    Unknown,
}

impl Signals {
    /// Reads what `Display` writes, as a store keeps it.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let mut words = text.split(' ');
        let network = match words.next()? {
            "new" => NetworkSeen::New,
            last => NetworkSeen::Known(WallTime::from_millis(last.parse().ok()?)),
        };
        let hour = match words.next()? {
            "usual" => HourSeen::Usual,
            "unusual" => HourSeen::Unusual,
            "unknown" => HourSeen::Unknown,
            _ => return None,
        };
        let failures = words.next()?.parse().ok()?;
        words.next().is_none().then_some(Self {
            network,
            hour,
            failures,
        })
    }
}

impl fmt::Display for Signals {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.network {
            NetworkSeen::New => f.write_str("new")?,
            NetworkSeen::Known(last) => write!(f, "{}", last.as_millis())?,
        }
        let hour = match self.hour {
            HourSeen::Usual => "usual",
            HourSeen::Unusual => "unusual",
            HourSeen::Unknown => "unknown",
        };
        write!(f, " {hour} {}", self.failures)
    }
}

/// The risk a request comes with.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum RiskInput<'a> {
    /// To be summed up from these.
    Signals(&'a Signals),
    /// Given, by a test or a question.
    Fixed(u16),
    /// Not known: no limit is met.
    Unknown,
}

/// One summand.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct RiskPart {
    /// Its name, that of the weight in the policy.
    pub factor: &'static str,
    /// Its points.
    pub points: u16,
    /// What was seen.
    pub evidence: String,
}

/// A rule's `risk`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct RiskLimit {
    /// How the sum is compared.
    pub comparison: Comparison,
    /// With what.
    pub points: u16,
    /// `else 15m`: a sum that does not pass shortens the session to this instead of denying it.
    pub shortened: Option<Duration>,
}

/// How a sum stands to a limit.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum RiskHeld {
    Yes,
    Shortened(Duration),
    No,
    Missing,
}

impl RiskLimit {
    /// Says whether a higher risk can only make it fail.
    pub(super) const fn is_upper(&self) -> bool {
        matches!(self.comparison, Comparison::AtMost | Comparison::Below)
    }

    pub(super) fn holds(self, total: Option<u16>) -> RiskHeld {
        let Some(total) = total else {
            return RiskHeld::Missing;
        };
        let within = match self.comparison {
            Comparison::Equal => total == self.points,
            Comparison::AtLeast => total >= self.points,
            Comparison::Above => total > self.points,
            Comparison::AtMost => total <= self.points,
            Comparison::Below => total < self.points,
        };
        match (within, self.shortened) {
            (true, _) => RiskHeld::Yes,
            (false, Some(length)) => RiskHeld::Shortened(length),
            (false, None) => RiskHeld::No,
        }
    }
}

impl fmt::Display for RiskLimit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let sign = match self.comparison {
            Comparison::Equal => "=",
            Comparison::AtLeast => ">=",
            Comparison::Above => ">",
            Comparison::AtMost => "<=",
            Comparison::Below => "<",
        };
        write!(f, "{sign} {}", self.points)?;
        match self.shortened {
            Some(length) => write!(f, " else {}", span(length)),
            None => Ok(()),
        }
    }
}

/// What a sum is made from.
#[derive(Clone, Copy)]
pub(super) struct Weighing<'a> {
    pub(super) weights: Weights,
    pub(super) input: RiskInput<'a>,
    pub(super) facts: Option<&'a Facts>,
    pub(super) sensitivity: u16,
    pub(super) at: Option<WallTime>,
    pub(super) usage: Option<Usage>,
}

impl Weighing<'_> {
    /// Gives the sum; `None` if what it is made from is not known.
    pub(super) fn total(&self) -> Option<u16> {
        match self.input {
            RiskInput::Unknown => None,
            RiskInput::Fixed(points) => Some(points),
            RiskInput::Signals(signals) => Some(
                self.parts(signals)
                    .fold(0, |sum: u16, (_, points)| sum.saturating_add(points)),
            ),
        }
    }

    /// Gives every summand with its evidence, also those that are zero.
    pub(super) fn explain(&self) -> Vec<RiskPart> {
        match self.input {
            RiskInput::Unknown => Vec::new(),
            RiskInput::Fixed(points) => alloc::vec![RiskPart {
                factor: "given",
                points,
                evidence: "as the question says".into(),
            }],
            RiskInput::Signals(signals) => self
                .parts(signals)
                .map(|(factor, points)| RiskPart {
                    factor: factor.name(),
                    points,
                    evidence: self.evidence(factor, signals),
                })
                .collect(),
        }
    }

    fn parts(&self, signals: &Signals) -> impl Iterator<Item = (Factor, u16)> {
        let weights = self.weights;
        let when = |yes: bool, points: u16| if yes { points } else { 0 };
        let failures = signals.failures.min(MAX_COUNTED_FAILURES);
        let failures = u16::try_from(failures).unwrap_or(u16::MAX);
        [
            (
                Factor::Network,
                when(signals.network == NetworkSeen::New, weights.new_network),
            ),
            (
                Factor::Hour,
                when(signals.hour == HourSeen::Unusual, weights.unusual_hour),
            ),
            (
                Factor::Failures,
                weights.recent_failure.saturating_mul(failures),
            ),
            (
                Factor::Posture,
                when(
                    self.posture_age().is_none_or(|age| age > OLD_POSTURE),
                    weights.posture_age,
                ),
            ),
            (
                Factor::Usage(UsageSignal::Volume),
                when(self.is_beyond(UsageSignal::Volume), weights.unusual_volume),
            ),
            (
                Factor::Usage(UsageSignal::Connections),
                when(
                    self.is_beyond(UsageSignal::Connections),
                    weights.unusual_connections,
                ),
            ),
            (Factor::Sensitivity, self.sensitivity),
        ]
        .into_iter()
    }

    fn is_beyond(&self, signal: UsageSignal) -> bool {
        self.usage.is_some_and(|usage| usage.is_beyond(signal))
    }

    fn posture_age(&self) -> Option<Duration> {
        let newest = self.facts?.newest()?;
        Some(self.at.map_or(Duration::ZERO, |at| at.since(newest)))
    }

    fn evidence(&self, factor: Factor, signals: &Signals) -> String {
        match factor {
            Factor::Network => match (signals.network, self.at) {
                (NetworkSeen::New, _) => "not seen in this network within 30 days".into(),
                (NetworkSeen::Known(last), Some(at)) => {
                    format!("seen in this network {} ago", span(at.since(last)))
                }
                (NetworkSeen::Known(_), None) => "seen in this network before".into(),
            },
            Factor::Hour => match signals.hour {
                HourSeen::Usual => "one of this person's hours".into(),
                HourSeen::Unusual => "this person does not knock at this hour".into(),
                HourSeen::Unknown => "too few knocks to tell".into(),
            },
            Factor::Failures => format!("{} failures in a row before", signals.failures),
            Factor::Posture => match self.posture_age() {
                None => "no posture reported".into(),
                Some(age) => format!("posture is {} old", span(age)),
            },
            Factor::Usage(signal) => match self.usage {
                Some(usage) => usage.evidence(signal),
                None => "nothing was counted".into(),
            },
            Factor::Sensitivity => "of the resource, in the policy".into(),
        }
    }
}

/// The factors, in the order they are printed.
#[derive(Clone, Copy)]
enum Factor {
    Network,
    Hour,
    Failures,
    Posture,
    Usage(UsageSignal),
    Sensitivity,
}

impl Factor {
    const fn name(self) -> &'static str {
        match self {
            Self::Network => "new_network",
            Self::Hour => "unusual_hour",
            Self::Failures => "recent_failure",
            Self::Posture => "posture_age",
            Self::Usage(signal) => signal.name(),
            Self::Sensitivity => "sensitivity",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_total_is_the_sum_of_what_is_printed() {
        let signals = Signals {
            network: NetworkSeen::New,
            hour: HourSeen::Unusual,
            failures: 3,
        };
        let weighing = Weighing {
            weights: Weights::DEFAULT,
            input: RiskInput::Signals(&signals),
            facts: None,
            sensitivity: 7,
            at: None,
            usage: None,
        };
        let printed: u16 = weighing.explain().iter().map(|part| part.points).sum();
        assert_eq!(weighing.total(), Some(30 + 20 + 15 + 10 + 7));
        assert_eq!(weighing.total(), Some(printed));
        let unknown = Weighing {
            input: RiskInput::Unknown,
            ..weighing
        };
        assert_eq!(unknown.total(), None);
    }

    #[test]
    fn a_sum_no_number_can_hold_is_the_largest() {
        let signals = Signals {
            network: NetworkSeen::New,
            hour: HourSeen::Unknown,
            failures: u32::MAX,
        };
        let weighing = Weighing {
            weights: Weights {
                recent_failure: u16::MAX,
                ..Weights::DEFAULT
            },
            input: RiskInput::Signals(&signals),
            facts: None,
            sensitivity: u16::MAX,
            at: None,
            usage: None,
        };
        assert_eq!(weighing.total(), Some(u16::MAX));
    }
}
