//! `explain`: a question as it is typed, and the answer as programs read it.

use std::net::IpAddr;

use serde::{Deserialize, Serialize};
use spa_gateway_core::policy::{
    Authority, Clause, Decision, Field, Held, Question, RiskPart, RuleTrace, Trace, Value,
};
use spa_gateway_core::{Name, Policy};
use spa_order::Protocol;

/// A question as it is typed.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Typed {
    /// Who.
    pub user: String,
    /// On which device.
    pub device: Option<String>,
    /// For what: `NAME`, `NAME:PORT` or `NAME:PORT/PROTO`.
    pub resource: String,
    /// When, in the zone of the policy.
    pub at: Option<String>,
    /// From where.
    pub from: Option<IpAddr>,
    /// Facts about the device, each `KEY=VALUE`.
    pub posture: Vec<String>,
    /// With what risk.
    pub risk: Option<u16>,
}

/// A decision, explained.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Explanation {
    /// `allow`, `observe` or `deny`.
    pub decision: String,
    /// Why not, in a word or two.
    pub reason: Option<String>,
    /// What allows it; or the rule that denies it, or came closest to allowing it.
    pub by: Option<String>,
    /// Until when it would be allowed, Unix milliseconds.
    pub not_after: Option<u64>,
    /// Every rule of the resource.
    pub rules: Vec<ExplainedRule>,
    /// What the risk is the sum of.
    pub risk: Vec<ExplainedRisk>,
    /// What would have to change.
    pub changes: Vec<String>,
    /// All of it for people.
    pub text: String,
}

/// What became of one rule.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct ExplainedRule {
    /// Its name.
    pub name: String,
    /// Its line in the policy; 0 for a grant.
    pub line: usize,
    /// `allow` or `deny`.
    pub effect: String,
    /// Its priority.
    pub priority: u16,
    /// What became of it.
    pub state: String,
    /// Its clauses.
    pub clauses: Vec<ExplainedClause>,
}

/// What became of one clause.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct ExplainedClause {
    /// The keyword.
    pub keyword: String,
    /// What of it.
    pub about: String,
    /// `yes`, `no`, `missing` or `skipped`.
    pub held: String,
    /// What the policy wants.
    pub wanted: String,
    /// What there was.
    pub saw: String,
    /// What would make it hold.
    pub remedy: String,
}

/// One part of the risk.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct ExplainedRisk {
    /// Its name.
    pub factor: String,
    /// Its points.
    pub points: u16,
    /// What was seen.
    pub evidence: String,
}

impl Typed {
    /// Reads it; times are those of the policy's zone.
    ///
    /// # Errors
    /// One line: what, what to write.
    pub fn read(&self, policy: &Policy) -> Result<Question, String> {
        let (resource, port) = match self.resource.split_once(':') {
            Some((resource, port)) => (resource, Some(read_port(port)?)),
            None => (self.resource.as_str(), None),
        };
        let mut question = Question::new(named(&self.user)?, named(resource)?);
        question.port = port;
        question.from = self.from;
        question.risk = self.risk;
        if let Some(text) = &self.at {
            let at = policy.zone().read(text).ok_or_else(|| {
                format!(
                    "`{}` is no time; write 2026-11-23T10:00",
                    text.escape_debug()
                )
            })?;
            question.at = Some(at);
        }
        for fact in &self.posture {
            question.posture.push(read_fact(fact)?);
        }
        Ok(question)
    }
}

impl From<&Trace> for Explanation {
    fn from(trace: &Trace) -> Self {
        let (decision, deny) = match &trace.decision {
            Decision::Allow(_) => ("allow", None),
            Decision::Observe(_, deny) => ("observe", Some(deny)),
            Decision::Deny(deny) => ("deny", Some(deny)),
        };
        let allowed = trace.decision.allowed();
        let by = deny.map_or_else(
            || allowed.map(|allow| Authority::to_string(&allow.by)),
            |deny| deny.rule.as_ref().map(Name::to_string),
        );
        Self {
            decision: decision.to_owned(),
            reason: deny.map(|deny| deny.reason.as_str().to_owned()),
            by,
            not_after: allowed.map(|allow| allow.not_after.as_millis()),
            rules: trace.rules.iter().map(of_rule).collect(),
            risk: trace.risk.iter().map(of_risk).collect(),
            changes: trace.changes.clone(),
            text: trace.to_string(),
        }
    }
}

fn of_rule(rule: &RuleTrace) -> ExplainedRule {
    ExplainedRule {
        name: rule.name.clone(),
        line: rule.line,
        effect: rule.effect.as_str().to_owned(),
        priority: rule.priority,
        state: rule.state.as_str().to_owned(),
        clauses: rule.clauses.iter().map(of_clause).collect(),
    }
}

fn of_clause(clause: &Clause) -> ExplainedClause {
    let held = match clause.held {
        Held::Yes => "yes",
        Held::No => "no",
        Held::Missing => "missing",
        Held::Skipped => "skipped",
    };
    ExplainedClause {
        keyword: clause.keyword.as_str().to_owned(),
        about: clause.about.clone(),
        held: held.to_owned(),
        wanted: clause.wanted.clone(),
        saw: clause.saw.clone(),
        remedy: clause.remedy.clone(),
    }
}

pub(crate) fn of_risk(part: &RiskPart) -> ExplainedRisk {
    ExplainedRisk {
        factor: part.factor.to_owned(),
        points: part.points,
        evidence: part.evidence.clone(),
    }
}

fn named(text: &str) -> Result<Name, String> {
    Name::parse(text).map_err(|error| format!("`{}` is no name: {error}", text.escape_debug()))
}

fn read_port(text: &str) -> Result<(Protocol, u16), String> {
    let (port, protocol) = text.split_once('/').unwrap_or((text, "tcp"));
    let protocol = match protocol {
        "tcp" => Some(Protocol::Tcp),
        "udp" => Some(Protocol::Udp),
        _ => None,
    };
    let port = port.parse().ok().filter(|port| *port > 0);
    protocol.zip(port).ok_or_else(|| {
        format!(
            "`{}` is no port; write 443, 443/tcp or 53/udp",
            text.escape_debug()
        )
    })
}

fn read_fact(text: &str) -> Result<(Field, Value), String> {
    let read = text.split_once('=').and_then(|(key, value)| {
        let field = Field::named(key)?;
        Some((field, Value::read(field, value)?))
    });
    read.ok_or_else(|| {
        format!(
            "`{}` is no fact about a device; write KEY=VALUE with a key and a value of spa-policy(5), like firewall=true",
            text.escape_debug()
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const POLICY: &str = r#"version = 1
timezone = "Europe/Madrid"
[resource]
wiki = { to = "10.0.5.10", ports = ["443/tcp"] }
[[allow]]
name = "office"
who = ["ana"]
to = ["wiki"]
when = ["Mon-Fri 08:00-18:00"]
"#;

    fn typed(resource: &str, at: &str) -> Typed {
        Typed {
            user: "ana".to_owned(),
            device: None,
            resource: resource.to_owned(),
            at: Some(at.to_owned()),
            from: None,
            posture: vec![],
            risk: None,
        }
    }

    fn explained(typed: &Typed) -> Explanation {
        let policy = Policy::parse(POLICY).expect("sound");
        let question = typed.read(&policy).expect("a question");
        Explanation::from(&question.answer(&policy))
    }

    #[test]
    fn times_are_those_of_the_policy() {
        // 17:30 in Madrid; 18:30 there is 17:30 in UTC.
        assert_eq!(
            explained(&typed("wiki", "2026-11-23T17:30")).decision,
            "allow"
        );
        let late = explained(&typed("wiki:443", "2026-11-23T17:30Z"));
        assert_eq!(late.decision, "deny");
        assert_eq!(late.reason.as_deref(), Some("outside window"));
        assert_eq!(late.by.as_deref(), Some("office"));
        let clause = late.rules[0]
            .clauses
            .iter()
            .find(|clause| clause.keyword == "when")
            .expect("the window");
        assert_eq!(clause.held, "no");
        assert!(!late.changes.is_empty() && late.text.contains("DENY"));
    }

    #[test]
    fn what_cannot_be_read_is_one_line() {
        let policy = Policy::parse(POLICY).expect("sound");
        let good = typed("wiki", "2026-11-23");
        for bad in [
            typed("wiki:0", "2026-11-23"),
            typed("wiki:443/icmp", "2026-11-23"),
            typed("wi ki", "2026-11-23"),
            typed("wiki", "yesterday"),
            Typed {
                posture: vec!["firewall".to_owned()],
                ..good.clone()
            },
            Typed {
                posture: vec!["colour=red\n".to_owned()],
                ..good.clone()
            },
        ] {
            let line = bad.read(&policy).expect_err("refused");
            assert!(!line.contains('\n'), "{line}");
        }
        assert!(good.read(&policy).is_ok());
    }
}
