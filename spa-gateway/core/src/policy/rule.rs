//! One `[[allow]]` or `[[deny]]`, as it is written.

use alloc::vec::Vec;
use core::fmt;
use core::net::IpAddr;
use core::time::Duration;

use spa_proto::WallTime;

use super::read::first_of;
use super::risk::RiskLimit;
use super::window::Windows;
use crate::name::Name;

/// The priority of a rule that names none, and of just-in-time grants.
pub const DEFAULT_PRIORITY: u16 = 500;
/// The highest priority.
pub const MAX_PRIORITY: u16 = 1000;

/// A rule.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Rule {
    /// What it is called.
    pub name: Name,
    /// The line of its `name`.
    pub line: usize,
    /// What it does where it matches.
    pub effect: Effect,
    /// The first level of priority with a matching rule decides, from the highest.
    pub priority: u16,
    /// Of whom it speaks.
    pub who: Vec<Who>,
    /// Of which resources.
    pub to: Vec<Name>,
    /// `for`: how long a session may last; `None` is the default of the policy.
    pub length: Option<Duration>,
    /// `factors`: what must have been proven; `None` is the default of the policy.
    pub factors: Option<Factors>,
    /// Under which conditions, all of them.
    pub conditions: Conditions,
}

/// What a rule does.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Effect {
    /// It denies. First, since inside a level a deny beats an allow.
    Deny,
    /// It allows.
    Allow,
}

/// The conditions of a rule; an empty one holds.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Conditions {
    /// `from`: the networks a knock may come from.
    pub from: Vec<Network>,
    /// `when`: hours of the week.
    pub when: Option<Windows>,
    /// `until`: the rule itself ends.
    pub until: Option<WallTime>,
    /// `posture`: requirements, by their place in the policy.
    pub posture: Vec<usize>,
    /// `risk`
    pub risk: Option<RiskLimit>,
    /// `approve`: one of these has to agree.
    pub approve: Vec<Who>,
}

impl Conditions {
    /// Says whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

/// Whom a rule speaks of.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Who {
    /// A person or machine.
    Person(Name),
    /// Everybody in a group.
    Group(Name),
}

/// A network.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Network {
    /// The first address; host bits are zero.
    pub address: IpAddr,
    /// How many bits count.
    pub prefix: u8,
}

impl Network {
    /// Reads an address or a prefix without host bits, as a policy writes it.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        super::read::network(text).ok()
    }

    /// Gives the network around an address.
    pub(crate) fn around(address: IpAddr, prefix: u8) -> Self {
        Self {
            address: first_of(address, prefix),
            prefix,
        }
    }

    /// Says whether an address lies in it. An IPv4 address may come as `::ffff:a.b.c.d`.
    #[must_use]
    pub fn holds(self, address: IpAddr) -> bool {
        self.holds_canonical(address.to_canonical())
    }

    /// Says whether an address that is in IPv4 clothes where it can be lies in it.
    pub(super) fn holds_canonical(self, address: IpAddr) -> bool {
        address.is_ipv4() == self.address.is_ipv4()
            && first_of(address, self.prefix) == self.address
    }

    /// Says whether all of another network lies in it.
    pub(super) fn covers(self, other: &Self) -> bool {
        self.prefix <= other.prefix && self.holds_canonical(other.address)
    }
}

/// A set of factors.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Factors(u8);

impl Factors {
    /// No factor.
    pub const NONE: Self = Self(0);
    /// The device: its key, and its secret `r`.
    pub const DEVICE: Self = Self(1);
    /// The person's password.
    pub const PASSWORD: Self = Self(2);
    /// A code of the person's phone, or a recovery code in its place (SPEC §4).
    pub const TOTP: Self = Self(4);
    /// All of them: what every person's knock has proven (SPEC §10).
    pub const ALL: Self = Self(7);
    /// Each with its name.
    pub const NAMED: [(&'static str, Self); 3] = [
        ("device", Self::DEVICE),
        ("password", Self::PASSWORD),
        ("totp", Self::TOTP),
    ];

    /// Gives those of both.
    #[must_use]
    pub const fn with(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// Says whether all of `other` are in it.
    #[must_use]
    pub const fn hold(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }

    /// Gives the names.
    pub fn names(self) -> impl Iterator<Item = &'static str> {
        Self::NAMED
            .into_iter()
            .filter(move |(_, factor)| self.hold(*factor))
            .map(|(name, _)| name)
    }
}

impl Effect {
    /// Gives the heading in the policy file.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Allow => "allow",
            Self::Deny => "deny",
        }
    }
}

impl fmt::Display for Who {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Person(name) => write!(f, "user:{name}"),
            Self::Group(name) => write!(f, "group:{name}"),
        }
    }
}

impl fmt::Display for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.address, self.prefix)
    }
}

impl fmt::Display for Factors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut empty = true;
        for name in self.names() {
            if !empty {
                f.write_str(", ")?;
            }
            f.write_str(name)?;
            empty = false;
        }
        if empty { f.write_str("none") } else { Ok(()) }
    }
}
