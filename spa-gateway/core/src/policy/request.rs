//! What is asked of a policy: who wants what, and all that is known about it.

use core::net::IpAddr;

use spa_order::Protocol;
use spa_proto::WallTime;

use super::fact::Facts;
use super::risk::RiskInput;
use super::rule::Factors;
use super::usage::Usage;
use crate::name::Name;

/// One question: may this person have this resource now? Each resource of a knock is one.
#[derive(Clone, Copy, Debug)]
pub struct Request<'a> {
    /// Who asks.
    pub person: &'a Name,
    /// For what.
    pub resource: &'a Name,
    /// For one port of it; `None` asks for the resource as a whole.
    pub port: Option<(Protocol, u16)>,
    /// When. Where it is not known, no window is open and no age can be told.
    pub at: Option<WallTime>,
    /// When the session was opened that is held against the policy again; `None` for a new one.
    pub opened: Option<WallTime>,
    /// Where the knock came from.
    pub source: Option<IpAddr>,
    /// What the knock proved.
    pub factors: Factors,
    /// What is known of the device.
    pub facts: Option<&'a Facts>,
    /// How suspicious it is.
    pub risk: RiskInput<'a>,
    /// What this person did with the resource today.
    pub usage: Option<Usage>,
    /// What approvers agreed to.
    pub approvals: &'a [Approval],
    /// A just-in-time grant of this resource to this person.
    pub grant: Option<Grant>,
    /// A lock that names this person, device or source, in words: above every rule.
    pub lock: Option<&'a str>,
    /// What else ends it: the credential, the wish of the knock, the gateway's longest session.
    pub ceiling: Option<WallTime>,
}

impl<'a> Request<'a> {
    /// Asks with all factors proven and nothing else known.
    #[must_use]
    pub const fn new(person: &'a Name, resource: &'a Name) -> Self {
        Self {
            person,
            resource,
            port: None,
            at: None,
            opened: None,
            source: None,
            factors: Factors::ALL,
            facts: None,
            risk: RiskInput::Unknown,
            usage: None,
            approvals: &[],
            grant: None,
            lock: None,
            ceiling: None,
        }
    }
}

/// What an approver agreed to: this rule, for this person and resource.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Approval {
    /// Which rule asked for it.
    pub rule: Name,
    /// Who agreed.
    pub by: Name,
    /// Until when it counts.
    pub until: WallTime,
}

/// A just-in-time grant. It counts as an allow of the default priority without conditions.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Grant {
    /// Its number, as `spa-admin` shows it.
    pub id: u32,
    /// Until when it counts.
    pub until: WallTime,
}
