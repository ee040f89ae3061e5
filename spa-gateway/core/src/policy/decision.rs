//! What a policy answers.

use alloc::string::String;
use alloc::vec::Vec;
use core::fmt;
use core::time::Duration;

use spa_proto::{Verdict, WallTime};

use super::held::Clause;
use super::rule::Factors;
use crate::name::Name;

/// The answer to one request.
#[must_use]
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Decision {
    /// Yes, until then.
    Allow(Allow),
    /// The resource is being learned: it passes, and is noted as what would have been denied.
    Observe(Allow, Deny),
    /// No.
    Deny(Deny),
}

/// What is allowed.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Allow {
    /// The earliest of everything that can end it; what the kernel gets.
    pub not_after: WallTime,
    /// What ends it first.
    pub ends_by: EndsBy,
    /// What had to be proven.
    pub factors: Factors,
    /// What else holds for the session.
    pub limits: Limits,
    /// What allows it.
    pub by: Authority,
}

/// What holds for a session beside its end.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Limits {
    /// The longest it may last, from its opening.
    pub length: Duration,
    /// How long it may be without traffic; `None` is as long as it likes.
    pub idle: Option<Duration>,
}

/// What allows a request.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Authority {
    /// A rule; of several, the one whose name comes first.
    Rule(Name),
    /// A just-in-time grant.
    Grant(u32),
    /// No rule: the resource is being learned.
    Learning,
}

/// What ends an allowance first.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum EndsBy {
    /// `for` of a rule, or of the defaults.
    Length,
    /// The window of a rule closes.
    Window,
    /// The rule itself ends.
    Until,
    /// A fact about the device grows too old.
    Posture,
    /// The just-in-time grant ends.
    Grant,
    /// The approval ends.
    Approval,
    /// A deny begins: its window opens.
    Deny,
    /// The credential, the wish of the knock, or the gateway's longest session.
    Ceiling,
}

/// Why not.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Deny {
    /// In one word.
    pub reason: Reason,
    /// The rule that denies, or the one that came closest to allowing.
    pub rule: Option<Name>,
    /// What of that rule failed; of a deny rule, what triggered it.
    pub failing: Vec<Clause>,
}

/// Why a request is denied.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Reason {
    /// Locked by an administrator.
    Locked,
    /// There is no such resource.
    NoResource,
    /// The resource has no such port.
    NoPort,
    /// A deny rule matches.
    Rule,
    /// No rule speaks of this person and this resource.
    NoRule,
    /// The rule has ended.
    Expired,
    /// The knock came from another network than the rule takes.
    Source,
    /// It is outside the hours of the rule.
    Window,
    /// The device is not as the rule wants it, or does not say.
    Posture,
    /// The risk is too high, or not known.
    Risk,
    /// Not all factors the rules ask for were proven.
    Factors,
    /// Somebody has to agree first.
    Approval,
}

impl Decision {
    /// Gives the allowance, if it passes.
    #[must_use]
    pub const fn allowed(&self) -> Option<&Allow> {
        match self {
            Self::Allow(allow) | Self::Observe(allow, _) => Some(allow),
            Self::Deny(_) => None,
        }
    }

    /// Gives the code the reply carries (SPEC §6).
    #[must_use]
    pub const fn verdict(&self) -> Verdict {
        match self {
            Self::Allow(_) | Self::Observe(..) => Verdict::Granted,
            Self::Deny(deny) => deny.reason.verdict(),
        }
    }
}

impl Reason {
    /// All reasons.
    pub const ALL: [Self; 12] = [
        Self::Locked,
        Self::NoResource,
        Self::NoPort,
        Self::Rule,
        Self::NoRule,
        Self::Expired,
        Self::Source,
        Self::Window,
        Self::Posture,
        Self::Risk,
        Self::Factors,
        Self::Approval,
    ];

    /// Gives the words for it: in a `[[test]]`, in `explain`, in the audit.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Locked => "locked",
            Self::NoResource => "no such resource",
            Self::NoPort => "no such port",
            Self::Rule => "denied by a rule",
            Self::NoRule => "no rule",
            Self::Expired => "expired",
            Self::Source => "wrong source",
            Self::Window => "outside window",
            Self::Posture => "posture",
            Self::Risk => "risk",
            Self::Factors => "factors",
            Self::Approval => "approval needed",
        }
    }

    /// Gives the code the reply carries (SPEC §6). That a rule denies, or that there is no such
    /// resource, is told apart to administrators only.
    #[must_use]
    pub const fn verdict(self) -> Verdict {
        match self {
            Self::Locked => Verdict::Locked,
            Self::Window => Verdict::TimeWindow,
            Self::Posture => Verdict::Posture,
            Self::Risk => Verdict::Risk,
            Self::Approval => Verdict::ApprovalNeeded,
            Self::NoResource
            | Self::NoPort
            | Self::Rule
            | Self::NoRule
            | Self::Expired
            | Self::Source
            | Self::Factors => Verdict::NotAllowed,
        }
    }
}

impl EndsBy {
    /// Gives the words for it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Length => "session length",
            Self::Window => "end of window",
            Self::Until => "end of rule",
            Self::Posture => "age of posture",
            Self::Grant => "end of grant",
            Self::Approval => "end of approval",
            Self::Deny => "start of a deny",
            Self::Ceiling => "ceiling",
        }
    }
}

impl fmt::Display for Authority {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Rule(name) => write!(f, "rule {name}"),
            Self::Grant(id) => write!(f, "grant {id}"),
            Self::Learning => f.write_str("learning mode"),
        }
    }
}

impl fmt::Display for Deny {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut text = String::from(self.reason.as_str());
        if let Some(rule) = &self.rule {
            text.push_str(match self.reason {
                Reason::Rule => ": rule ",
                _ => "; closest is rule ",
            });
            text.push_str(rule);
        }
        f.write_str(&text)
    }
}
