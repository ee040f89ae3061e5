//! `[[test]]`: what the administrator expects of the policy, run before it is ever in force.
//!
//! Invariant: a test depends on the policy and on what it says itself, never on the time it is run.
//! Without `at` no window is open.

use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;
use core::net::IpAddr;
use core::time::Duration;

use spa_order::Protocol;
use spa_proto::WallTime;

use super::decision::{Decision, Deny, Reason};
use super::fact::Facts;
use super::request::{Approval, Request};
use super::risk::RiskInput;
use super::rule::Factors;
use super::{Policy, Trace};
use crate::name::Name;

/// One test.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Case {
    /// The line of its `expect`.
    pub line: usize,
    /// `who`
    pub person: Name,
    /// `to`
    pub resource: Name,
    /// The port of `to`.
    pub port: Option<(Protocol, u16)>,
    /// `at`
    pub at: Option<WallTime>,
    /// `with.from`
    pub source: Option<IpAddr>,
    /// `with.factors`; all of them unless it says otherwise.
    pub factors: Factors,
    /// `with.posture`
    pub facts: Option<Facts>,
    /// `with.risk`
    pub risk: Option<u16>,
    /// `with.approved`: who agreed to whatever asks for it.
    pub approved: Vec<Name>,
    /// `expect`
    pub expect: Expect,
}

/// What a test expects.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Expect {
    /// It is allowed by a rule.
    Allow,
    /// It would be denied, and passes while the resource is being learned.
    Observe,
    /// It is denied.
    Deny,
    /// It is denied for this reason.
    DenyFor(Reason),
    /// It is denied, and this rule denies it or came closest to allowing it.
    DenyBy(Name),
}

/// What became of a test.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct CaseResult {
    /// The line of its `expect`.
    pub line: usize,
    /// Whether it came out as expected.
    pub passed: bool,
    /// What was expected.
    pub expected: String,
    /// The decision, explained.
    pub trace: Trace,
}

impl Policy {
    /// Runs every test.
    #[must_use]
    pub fn run_cases(&self) -> Vec<CaseResult> {
        self.cases.iter().map(|case| self.run_case(case)).collect()
    }

    fn run_case(&self, case: &Case) -> CaseResult {
        let day = Duration::from_secs(24 * 60 * 60);
        let until = case
            .at
            .unwrap_or(WallTime::from_millis(0))
            .saturating_add(day);
        let approvals: Vec<Approval> = case
            .approved
            .iter()
            .flat_map(|by| {
                self.rules
                    .iter()
                    .filter(|rule| !rule.conditions.approve.is_empty())
                    .map(move |rule| Approval {
                        rule: rule.name.clone(),
                        by: by.clone(),
                        until,
                    })
            })
            .collect();
        let request = Request {
            port: case.port,
            at: case.at,
            source: case.source,
            factors: case.factors,
            facts: case.facts.as_ref(),
            risk: case.risk.map_or(RiskInput::Unknown, RiskInput::Fixed),
            approvals: &approvals,
            ..Request::new(&case.person, &case.resource)
        };
        let trace = self.explain(&request);
        CaseResult {
            line: case.line,
            passed: case.expect.is_met(&trace.decision),
            expected: case.expect.words(),
            trace,
        }
    }
}

impl Expect {
    fn is_met(&self, decision: &Decision) -> bool {
        match (self, decision) {
            (Self::Allow, Decision::Allow(_))
            | (Self::Observe, Decision::Observe(..))
            | (Self::Deny, Decision::Deny(_)) => true,
            (Self::DenyFor(reason), Decision::Deny(deny)) => *reason == deny.reason,
            (Self::DenyBy(rule), Decision::Deny(Deny { rule: by, .. })) => {
                by.as_ref() == Some(rule)
            }
            (Self::Allow | Self::Observe, _)
            | (
                Self::Deny | Self::DenyFor(_) | Self::DenyBy(_),
                Decision::Allow(_) | Decision::Observe(..),
            ) => false,
        }
    }

    fn words(&self) -> String {
        match self {
            Self::Allow => "allow".into(),
            Self::Observe => "observe".into(),
            Self::Deny => "deny".into(),
            Self::DenyFor(reason) => format!("deny: {}", reason.as_str()),
            Self::DenyBy(rule) => format!("deny: {rule}"),
        }
    }
}
