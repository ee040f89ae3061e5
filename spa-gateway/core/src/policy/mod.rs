//! Who may reach what, for how long. Nothing matches → denied; no policy → everything denied.
//!
//! Invariant: neither the order in the file nor a prefix length decides anything, and where
//! several rules allow, the shortest `for` counts.

mod error;
mod flows;
mod parse;
mod read;
#[cfg(test)]
mod tests;

use alloc::collections::{BTreeMap, BTreeSet};
use alloc::vec::Vec;
use core::net::IpAddr;
use core::time::Duration;

use spa_order::Protocol;
use spa_proto::ResourceId;

pub use error::PolicyError;
pub(crate) use flows::{Tunnel, flows_of};

use crate::name::Name;

/// The longest policy file, bytes.
pub const MAX_POLICY_BYTES: usize = 256 * 1024;
/// The most resources of a policy.
pub const MAX_RESOURCES: usize = 1024;
/// The most port ranges of a resource.
pub const MAX_PORTS: usize = 32;
/// The most groups of a policy.
pub const MAX_GROUPS: usize = 1024;
/// The most members of a group, and the most entries of a rule's `who` and `to`.
pub const MAX_MEMBERS: usize = 4096;
/// The most rules of a policy.
pub const MAX_RULES: usize = 1024;
/// The session length where neither a rule nor `[defaults]` says one (SPEC §12: 8 h).
pub const DEFAULT_LENGTH: Duration = Duration::from_secs(8 * 60 * 60);

/// A policy that was read without an error.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Policy {
    default_length: Duration,
    groups: BTreeMap<Name, BTreeSet<Name>>,
    resources: BTreeMap<Name, Resource>,
    by_id: BTreeMap<ResourceId, Name>,
    rules: Vec<Rule>,
}

/// Something that can be reached.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Resource {
    /// Where it is.
    pub to: Target,
    /// Through which ports.
    pub ports: Vec<PortRange>,
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

/// One `[[allow]]`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Rule {
    /// What it is called.
    pub name: Name,
    /// Whom it allows.
    pub who: Vec<Who>,
    /// To reach what.
    pub to: Vec<Name>,
    /// For how long; `None` is the default of the policy.
    pub length: Option<Duration>,
}

/// Whom a rule speaks of.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Who {
    /// A person or machine.
    Person(Name),
    /// Everybody in a group.
    Group(Name),
}

impl Policy {
    /// Gives the policy that allows nothing: what holds without a file.
    #[must_use]
    pub const fn deny_all() -> Self {
        Self {
            default_length: DEFAULT_LENGTH,
            groups: BTreeMap::new(),
            resources: BTreeMap::new(),
            by_id: BTreeMap::new(),
            rules: Vec::new(),
        }
    }

    /// Reads a policy file. An empty one denies everything.
    ///
    /// # Errors
    /// The first thing that is wrong, with its line and the remedy.
    pub fn parse(text: &str) -> Result<Self, PolicyError> {
        parse::policy(text)
    }

    /// Gives how long `person` may reach the resource; `None` is "no such resource, or not allowed".
    #[must_use]
    pub fn allows(&self, person: &Name, resource: &Name) -> Option<Duration> {
        let matching = self.rules.iter().filter(|rule| {
            rule.to.contains(resource) && rule.who.iter().any(|who| self.speaks_of(who, person))
        });
        let shortest = matching
            .map(|rule| rule.length.unwrap_or(self.default_length))
            .min();
        shortest.filter(|_| self.resources.contains_key(resource))
    }

    /// Gives every resource `person` may reach, in the order of their names.
    pub fn everything<'a>(&'a self, person: &'a Name) -> impl Iterator<Item = &'a Name> {
        self.resources
            .keys()
            .filter(|resource| self.allows(person, resource).is_some())
    }

    /// Gives the length of a session that has the control channel alone.
    #[must_use]
    pub const fn default_length(&self) -> Duration {
        self.default_length
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

    /// Gives all groups and their members.
    pub fn groups(&self) -> impl Iterator<Item = (&Name, &BTreeSet<Name>)> {
        self.groups.iter()
    }

    /// Gives all rules, in the order of the file.
    #[must_use]
    pub fn rules(&self) -> &[Rule] {
        &self.rules
    }

    fn speaks_of(&self, who: &Who, person: &Name) -> bool {
        match who {
            Who::Person(name) => name == person,
            Who::Group(group) => self
                .groups
                .get(group)
                .is_some_and(|members| members.contains(person)),
        }
    }
}
