//! Whether a condition held, and the words for it. Three values, because "not known" is neither yes nor no.

use alloc::string::String;
use core::fmt;

/// What a condition came to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Held {
    /// It holds.
    Yes,
    /// It does not speak of this device's platform, as the policy declares.
    Skipped,
    /// It does not hold.
    No,
    /// The fact it needs is missing, stale, or of a source that does not count.
    Missing,
}

/// The keyword of a rule that a clause belongs to.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Keyword {
    /// Whom the rule speaks of.
    Who,
    /// Where the knock came from.
    From,
    /// Hours of the week.
    When,
    /// The end of the rule itself.
    Until,
    /// What the device must be like.
    Posture,
    /// How suspicious it may be.
    Risk,
    /// What must have been proven.
    Factors,
    /// Who must have agreed.
    Approve,
}

/// One clause of a rule, as it was evaluated.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Clause {
    /// Which keyword it belongs to.
    pub keyword: Keyword,
    /// What of it, where there are several: `laptop.firewall`.
    pub about: String,
    /// Whether it held.
    pub held: Held,
    /// What the policy wants.
    pub wanted: String,
    /// What there was.
    pub saw: String,
    /// What would make it hold; empty where it does.
    pub remedy: String,
}

impl Held {
    pub(super) const fn of(yes: bool) -> Self {
        if yes { Self::Yes } else { Self::No }
    }

    /// Says whether it satisfies an allow: a missing fact never does.
    #[must_use]
    pub const fn satisfies(self) -> bool {
        matches!(self, Self::Yes | Self::Skipped)
    }

    /// Says whether it triggers a deny: a missing fact does.
    #[must_use]
    pub const fn triggers(self) -> bool {
        !matches!(self, Self::No)
    }

    /// Gives what two conditions come to together: No before Missing before Yes.
    pub(super) const fn and(self, other: Self) -> Self {
        match (self, other) {
            (Self::No, _) | (_, Self::No) => Self::No,
            (Self::Missing, _) | (_, Self::Missing) => Self::Missing,
            (Self::Yes | Self::Skipped, Self::Yes | Self::Skipped) => Self::Yes,
        }
    }

    /// Gives its sign.
    #[must_use]
    pub const fn sign(self) -> &'static str {
        match self {
            Self::Yes => "✓",
            Self::Skipped => "–",
            Self::No => "✗",
            Self::Missing => "?",
        }
    }
}

impl Keyword {
    /// Gives the keyword as it is written in a policy.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Who => "who",
            Self::From => "from",
            Self::When => "when",
            Self::Until => "until",
            Self::Posture => "posture",
            Self::Risk => "risk",
            Self::Factors => "factors",
            Self::Approve => "approve",
        }
    }
}

impl fmt::Display for Clause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.held.sign(), self.keyword.as_str())?;
        if !self.about.is_empty() {
            write!(f, " {}", self.about)?;
        }
        write!(f, ": wanted {}, saw {}", self.wanted, self.saw)
    }
}
