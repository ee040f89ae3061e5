//! Who may reach what, until when, and why. Nothing matches → denied; no policy → everything denied.
//!
//! Invariant: neither the order in the file nor a prefix length decides anything. The highest priority
//! with a matching rule decides, inside it a deny beats an allow, and allows merge to the strictest.
//!
//! | question | file |
//! |---|---|
//! | what does the file say? | `parse/`, `read.rs` |
//! | may they? | `decide.rs`, over what `index.rs` arranged |
//! | why? | `trace.rs`, `words.rs`: the same run, written down |
//! | is the file any good? | `check.rs`: errors, warnings, `[[test]]` |
//! | what is asked, and answered? | `request.rs`, `decision.rs` |
//! | when will a deny begin? | `begins.rs` |
//! | conditions | `window.rs` `posture.rs` `risk.rs` |
//! | which flows are that? | `flows.rs` |

mod begins;
mod check;
mod conflict;
mod decide;
mod decision;
mod error;
mod fact;
mod flows;
mod held;
mod index;
mod merge;
mod parse;
mod posture;
mod published;
mod question;
mod read;
mod report;
mod request;
mod risk;
mod rule;
mod suite;
mod trace;
mod turns;
mod usage;
mod watcher;
mod window;
mod words;
mod zone;

use alloc::boxed::Box;
use alloc::collections::{BTreeMap, BTreeSet};
use alloc::vec::Vec;
use core::fmt;
use core::net::IpAddr;
use core::time::Duration;

use spa_order::Protocol;
use spa_proto::ResourceId;

pub use check::{Finding, Report, Severity, check};
pub use decision::{Allow, Authority, Decision, Deny, EndsBy, Limits, Reason};
pub use error::PolicyError;
pub use fact::{Fact, FactSource, Facts, Field, Platform, Shape, Value, Version};
pub(crate) use flows::{Tunnel, flows_of};
pub use held::{Clause, Held, Keyword};
pub use posture::{Check, Comparison, OnPlatform, Requirement, Scope, Wanted};
pub use question::Question;
pub(crate) use report::facts_of_posture;
pub use report::{MAX_REPORT, facts_of_report};
pub use request::{Approval, Grant, Request};
pub(crate) use risk::look_again;
pub use risk::{HourSeen, NetworkSeen, RiskInput, RiskLimit, RiskPart, Signals, Weights};
pub use rule::{Conditions, DEFAULT_PRIORITY, Effect, Factors, MAX_PRIORITY, Network, Rule, Who};
pub use suite::{Case, CaseResult, Expect};
pub use trace::{RuleTrace, Trace};
pub use usage::{Usage, UsageSignal};
pub use watcher::RuleState;
pub use window::Windows;
pub use zone::Zone;

use crate::name::Name;
use index::Index;

/// The longest policy file, bytes.
pub const MAX_POLICY_BYTES: usize = 4 * 1024 * 1024;
/// The most resources of a policy.
pub const MAX_RESOURCES: usize = 1024;
/// The most port ranges of a resource.
pub const MAX_PORTS: usize = 32;
/// The most groups of a policy.
pub const MAX_GROUPS: usize = 1024;
/// The most members of a group, and the most entries of a list of a rule.
pub const MAX_MEMBERS: usize = 4096;
/// The most rules of a policy, allows and denies together.
pub const MAX_RULES: usize = 10_000;
/// The most posture requirements of a policy.
pub const MAX_POSTURES: usize = 256;
/// The most windows of a rule.
pub const MAX_WINDOWS: usize = 64;
/// The most tests of a policy.
pub const MAX_TESTS: usize = 4096;
/// The session length where neither a rule nor `[defaults]` says one (SPEC §12: 8 h).
pub const DEFAULT_LENGTH: Duration = Duration::from_secs(8 * 60 * 60);
/// How old facts may be where a requirement does not say.
pub const DEFAULT_MAX_AGE: Duration = Duration::from_secs(15 * 60);

/// A policy that was read without an error.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Policy {
    zone: Zone,
    defaults: Defaults,
    weights: Weights,
    groups: BTreeMap<Name, BTreeSet<Name>>,
    /// Groups whose members a directory keeps: they have none here until it is read.
    directories: BTreeMap<Name, Box<str>>,
    resources: BTreeMap<Name, Resource>,
    by_id: BTreeMap<ResourceId, Name>,
    postures: Vec<Requirement>,
    rules: Vec<Rule>,
    cases: Vec<Case>,
    /// How many windows differ.
    windows: usize,
    index: Index,
}

/// `[defaults]`: what holds where a rule says nothing.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Defaults {
    /// `for`: how long a session may last.
    pub length: Duration,
    /// `idle`: how long it may be without traffic.
    pub idle: Option<Duration>,
    /// `factors`: what must have been proven. Without it, what SPEC §10 asks of everybody: the device.
    pub factors: Factors,
    /// `pq`: whether anything flows before the rekey of SPEC §12 is done.
    pub quantum: Quantum,
}

/// Whether a session must be safe from a later quantum computer before anything flows.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Quantum {
    /// It is rekeyed while it is used already.
    Optional,
    /// Only the control channel is open until it is rekeyed.
    Required,
}

/// Something that can be reached.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Resource {
    /// Where it is.
    pub to: Target,
    /// By which address sessions know it, if not by its own.
    pub published: Option<IpAddr>,
    /// Through which ports.
    pub ports: Vec<PortRange>,
    /// Whether it is being learned.
    pub mode: Mode,
    /// Points it adds to the risk of every request for it.
    pub sensitivity: u16,
}

/// What becomes of a would-be denial.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Mode {
    /// It is one.
    Enforce,
    /// It passes and is noted, so that rules can be learned from it.
    Observe,
}

/// Where a resource is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Target {
    /// On the gateway itself.
    Gateway,
    /// Behind it.
    Network {
        /// The first address; host bits are zero.
        address: IpAddr,
        /// How many bits count.
        prefix: u8,
    },
}

/// A range of ports of one protocol.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct PortRange {
    /// TCP or UDP.
    pub protocol: Protocol,
    /// The first port.
    pub first: u16,
    /// The last port, included.
    pub last: u16,
}

impl Policy {
    /// Gives the policy that allows nothing: what holds without a file.
    #[must_use]
    pub fn deny_all() -> Self {
        Self {
            zone: Zone::utc(),
            defaults: Defaults::BUILT_IN,
            weights: Weights::DEFAULT,
            groups: BTreeMap::new(),
            directories: BTreeMap::new(),
            resources: BTreeMap::new(),
            by_id: BTreeMap::new(),
            postures: Vec::new(),
            rules: Vec::new(),
            cases: Vec::new(),
            windows: 0,
            index: Index::default(),
        }
    }

    /// Reads a policy file. An empty one denies everything. Its tests are not run: see [`check`].
    ///
    /// # Errors
    /// The first thing that is wrong, with its line and the remedy.
    pub fn parse(text: &str) -> Result<Self, PolicyError> {
        parse::policy(text)
    }

    /// Gives how long `person` may reach the resource if nothing but the factors is known; `None` is
    /// "no such resource, or not allowed", or "not without knowing more".
    #[must_use]
    pub fn allows(&self, person: &Name, resource: &Name) -> Option<Duration> {
        match self.decide(&Request::new(person, resource)) {
            Decision::Allow(allow) => Some(allow.limits.length),
            Decision::Observe(..) | Decision::Deny(_) => None,
        }
    }

    /// Gives every resource `person` may reach by [`allows`](Self::allows), in the order of their names.
    pub fn everything<'a>(&'a self, person: &'a Name) -> impl Iterator<Item = &'a Name> {
        self.resources
            .keys()
            .filter(|resource| self.allows(person, resource).is_some())
    }

    /// Gives the length of a session that has the control channel alone.
    #[must_use]
    pub const fn default_length(&self) -> Duration {
        self.defaults.length
    }

    /// Gives what holds where a rule says nothing.
    #[must_use]
    pub const fn defaults(&self) -> Defaults {
        self.defaults
    }

    /// Gives the zone of its windows.
    #[must_use]
    pub const fn zone(&self) -> &Zone {
        &self.zone
    }

    /// Gives the weights of the risk's factors.
    #[must_use]
    pub const fn weights(&self) -> Weights {
        self.weights
    }

    /// Gives the resource with this id.
    #[must_use]
    pub fn name_of(&self, id: ResourceId) -> Option<&Name> {
        self.by_id.get(&id)
    }

    /// Gives a resource.
    #[must_use]
    pub fn resource(&self, name: &Name) -> Option<&Resource> {
        self.resources.get(name)
    }

    /// Gives all resources.
    pub fn resources(&self) -> impl Iterator<Item = (&Name, &Resource)> {
        self.resources.iter()
    }

    /// Gives a resource that has an address of this network.
    #[must_use]
    pub fn resource_in(&self, network: (IpAddr, u8)) -> Option<&Name> {
        let inside = |resource: &Resource| {
            let own = match resource.to {
                Target::Gateway => None,
                Target::Network { address, prefix } => Some((address, prefix)),
            };
            let places = [own, resource.found_at()].into_iter().flatten();
            places
                .into_iter()
                .any(|place| read::overlap(network, place))
        };
        let mut resources = self.resources.iter();
        resources.find_map(|(name, resource)| inside(resource).then_some(name))
    }

    /// Gives all groups and their members.
    pub fn groups(&self) -> impl Iterator<Item = (&Name, &BTreeSet<Name>)> {
        self.groups.iter()
    }

    /// Says whether somebody is in a group.
    #[must_use]
    pub fn is_member(&self, group: &Name, person: &Name) -> bool {
        self.groups
            .get(group)
            .is_some_and(|members| members.contains(person))
    }

    /// Gives all posture requirements.
    #[must_use]
    pub fn postures(&self) -> &[Requirement] {
        &self.postures
    }

    /// Gives all rules, allows first, each in the order of the file.
    #[must_use]
    pub fn rules(&self) -> &[Rule] {
        &self.rules
    }

    /// Gives its tests.
    #[must_use]
    pub fn cases(&self) -> &[Case] {
        &self.cases
    }
}

impl Defaults {
    const BUILT_IN: Self = Self {
        length: DEFAULT_LENGTH,
        idle: None,
        factors: Factors::DEVICE,
        quantum: Quantum::Optional,
    };
}

impl PortRange {
    /// Reads "443/tcp" or "8000-8100/udp", as a policy writes it.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        read::ports(text).ok()
    }
}

impl fmt::Display for PortRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.protocol == Protocol::Icmp {
            return f.write_str(protocol_name(self.protocol));
        }
        if self.first != self.last {
            write!(f, "{}-", self.first)?;
        }
        write!(f, "{}/{}", self.last, protocol_name(self.protocol))
    }
}

impl Resource {
    /// Gives the network a session finds it in: its own, or the address it is published by. `None` for the gateway.
    #[must_use]
    pub fn found_at(&self) -> Option<(IpAddr, u8)> {
        match (self.to, self.published) {
            (Target::Gateway, _) => None,
            (Target::Network { prefix, .. }, Some(published)) => Some((published, prefix)),
            (Target::Network { address, prefix }, None) => Some((address, prefix)),
        }
    }

    /// Says whether a port is one of its.
    #[must_use]
    pub fn has_port(&self, (protocol, port): (Protocol, u16)) -> bool {
        self.ports
            .iter()
            .any(|range| range.protocol == protocol && (range.first..=range.last).contains(&port))
    }
}

/// Gives a protocol as it is written in a policy.
pub(crate) const fn protocol_name(protocol: Protocol) -> &'static str {
    match protocol {
        Protocol::Tcp => "tcp",
        Protocol::Udp => "udp",
        Protocol::Icmp => "icmp",
    }
}

#[cfg(test)]
mod tests;
