//! `explain`: a question an administrator puts, with or without a gateway.

use alloc::vec::Vec;
use core::net::IpAddr;

use spa_order::Protocol;
use spa_proto::WallTime;

use super::fact::{Fact, FactSource, Facts, Field, Value};
use super::request::Request;
use super::risk::RiskInput;
use super::rule::Factors;
use super::{Policy, Trace};
use crate::name::Name;

/// What if this person asked for this? What is `None` is not known, or what the gateway knows of it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Question {
    /// Who.
    pub person: Name,
    /// For what.
    pub resource: Name,
    /// On one port of it.
    pub port: Option<(Protocol, u16)>,
    /// When.
    pub at: Option<WallTime>,
    /// From where.
    pub from: Option<IpAddr>,
    /// With what posture: facts about the device, as if it reported them at that time.
    pub posture: Vec<(Field, Value)>,
    /// With what risk.
    pub risk: Option<u16>,
    /// Having proven what; all factors unless it says otherwise.
    pub factors: Option<Factors>,
}

impl Question {
    /// Asks with nothing known.
    #[must_use]
    pub const fn new(person: Name, resource: Name) -> Self {
        Self {
            person,
            resource,
            port: None,
            at: None,
            from: None,
            posture: Vec::new(),
            risk: None,
            factors: None,
        }
    }

    /// Gives the facts of the question, if it names any.
    pub(crate) fn facts(&self) -> Option<Facts> {
        let mut facts = Facts::default();
        for (field, value) in &self.posture {
            let fact = Fact {
                value: *value,
                source: FactSource::SelfReported,
                at: self.at.unwrap_or(WallTime::from_millis(0)),
            };
            facts.put(*field, fact);
        }
        (!self.posture.is_empty()).then_some(facts)
    }

    /// Puts the question to a policy, with no gateway beside it.
    #[must_use]
    pub fn answer(&self, policy: &Policy) -> Trace {
        let facts = self.facts();
        policy.explain(&Request {
            port: self.port,
            at: self.at,
            source: self.from,
            factors: self.factors.unwrap_or(Factors::ALL),
            facts: facts.as_ref(),
            risk: self.risk.map_or(RiskInput::Unknown, RiskInput::Fixed),
            ..Request::new(&self.person, &self.resource)
        })
    }
}
