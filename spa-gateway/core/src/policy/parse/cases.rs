//! `[[test]]`.

use alloc::borrow::ToOwned;
use alloc::format;
use alloc::string::ToString;
use alloc::vec::Vec;

use spa_order::Protocol;
use spa_proto::WallTime;
use toml::de::DeValue;

use super::{File, Value};
use crate::name::Name;
use crate::policy::decision::Reason;
use crate::policy::error::PolicyError;
use crate::policy::fact::{Fact, FactSource, Facts, Field, Platform, Value as FactValue};
use crate::policy::read::{self, Wrong};
use crate::policy::rule::Factors;
use crate::policy::suite::{Case, Expect};
use crate::policy::{MAX_POSTURES, MAX_TESTS, Policy};

impl File<'_> {
    pub(super) fn cases(
        &self,
        value: &Value<'_>,
        policy: &Policy,
    ) -> Result<Vec<Case>, PolicyError> {
        let DeValue::Array(cases) = value.get_ref() else {
            return Err(self.wrong(
                value,
                "`test` is no list of tests",
                "write each test below `[[test]]`",
            ));
        };
        self.bounded(value, cases.len(), MAX_TESTS)?;
        cases.iter().map(|case| self.case(case, policy)).collect()
    }

    fn case(&self, value: &Value<'_>, policy: &Policy) -> Result<Case, PolicyError> {
        let table = self.table(value)?;
        self.known(table, &["who", "to", "at", "with", "expect"], "[[test]]")?;
        let who = self.needed(value, table, "who", r#"as who = "bo""#)?;
        let to = self.needed(value, table, "to", r#"as to = "db:5432""#)?;
        let expect = self.needed(value, table, "expect", r#"as expect = "allow""#)?;
        let at = table.get("at").map(|at| self.time(at, &policy.zone));
        let at = at.transpose()?;
        let (resource, port) = self.read(to, destination)?;
        let mut case = Case {
            line: self.line(expect),
            person: self.read(who, |text| {
                read::name(text.strip_prefix("user:").unwrap_or(text))
            })?,
            resource,
            port,
            at,
            source: None,
            factors: Factors::ALL,
            facts: None,
            risk: None,
            approved: Vec::new(),
            expect: self.read(expect, |text| expectation(text, policy))?,
        };
        if let Some(with) = table.get("with") {
            self.with(with, policy, &mut case)?;
        }
        Ok(case)
    }

    fn with(&self, value: &Value<'_>, policy: &Policy, case: &mut Case) -> Result<(), PolicyError> {
        let table = self.table(value)?;
        self.known(
            table,
            &["posture", "risk", "from", "factors", "approved"],
            "`with` of a test",
        )?;
        if let Some(posture) = table.get("posture") {
            case.facts = Some(self.facts(posture, policy, case.at)?);
        }
        if let Some(risk) = table.get("risk") {
            case.risk = Some(self.number(risk, 0..=u16::MAX)?);
        }
        if let Some(from) = table.get("from") {
            case.source = Some(self.read(from, read::address)?);
        }
        if let Some(factors) = table.get("factors") {
            case.factors = self.factors(factors)?;
        }
        if let Some(approved) = table.get("approved") {
            case.approved = self.one_or_more(approved, 64, read::name)?;
        }
        Ok(())
    }

    /// Reads requirements that count as met, or what the device reports.
    fn facts(
        &self,
        value: &Value<'_>,
        policy: &Policy,
        at: Option<WallTime>,
    ) -> Result<Facts, PolicyError> {
        let mut facts = Facts::default();
        let DeValue::Table(table) = value.get_ref() else {
            let met = self.one_or_more(value, MAX_POSTURES, |text| {
                let name = read::name(text)?;
                let known = policy.postures.iter().any(|known| known.name == name);
                known.then_some(name).ok_or_else(|| {
                    (
                        format!("there is no posture requirement `{}`", text.escape_debug()),
                        "name one, or write the facts, as { firewall = true }".to_owned(),
                    )
                })
            })?;
            met.into_iter().for_each(|name| facts.assume(name));
            return Ok(facts);
        };
        self.known(table, &Field::ALL.map(Field::name), "the facts of a test")?;
        for (key, value) in table {
            let Some(field) = Field::named(key.get_ref()) else {
                continue;
            };
            let text = match value.get_ref() {
                DeValue::Boolean(value) => value.to_string(),
                DeValue::Integer(number) => number.as_str().to_owned(),
                DeValue::String(text) => text.clone().into_owned(),
                _ => alloc::string::String::new(),
            };
            let read = FactValue::read(field, &text).ok_or_else(|| {
                self.wrong(
                    value,
                    &format!("this is no value of `{}`", field.name()),
                    &format!("write it {}", example(field)),
                )
            })?;
            let fact = Fact {
                value: read,
                source: FactSource::SelfReported,
                at: at.unwrap_or(WallTime::from_millis(0)),
            };
            facts.put(field, fact);
        }
        Ok(facts)
    }
}

fn example(field: Field) -> alloc::string::String {
    use crate::policy::fact::Shape;
    match field.shape() {
        Shape::Bool => "true or false".into(),
        Shape::Days => r#"in days, as "12d""#.into(),
        Shape::Version => r#"as a version, as "6.1""#.into(),
        Shape::Platform => format!(
            "as one of: {}",
            Platform::ALL.map(Platform::name).join(", ")
        ),
    }
}

type Destination = (Name, Option<(Protocol, u16)>);

/// Reads "db", "db:5432" or "db:53/udp". A resource that does not exist is a test's good right.
fn destination(text: &str) -> Result<Destination, Wrong> {
    let Some((name, port)) = text.split_once(':') else {
        return Ok((read::name(text)?, None));
    };
    let port = if port.contains('/') {
        read::ports(port)?
    } else {
        read::ports(&format!("{port}/tcp"))?
    };
    if port.first != port.last {
        return Err((
            format!("`{}` names several ports", text.escape_debug()),
            r#"write one, as "db:5432" or "dns:53/udp""#.into(),
        ));
    }
    Ok((read::name(name)?, Some((port.protocol, port.first))))
}

/// Reads "allow", "observe", "deny", "deny: REASON" or "deny: RULE".
fn expectation(text: &str, policy: &Policy) -> Result<Expect, Wrong> {
    match text {
        "allow" => return Ok(Expect::Allow),
        "observe" => return Ok(Expect::Observe),
        "deny" => return Ok(Expect::Deny),
        _ => {}
    }
    let Some(why) = text.strip_prefix("deny:") else {
        return Err((
            format!("`{}` is nothing to expect", text.escape_debug()),
            r#"write "allow", "deny", "observe", or "deny: REASON-OR-RULE""#.into(),
        ));
    };
    let why = why.trim_matches(' ');
    if let Some(reason) = Reason::ALL
        .into_iter()
        .find(|reason| reason.as_str() == why)
    {
        return Ok(Expect::DenyFor(reason));
    }
    if let Some(rule) = policy.rules.iter().find(|rule| *rule.name == *why) {
        return Ok(Expect::DenyBy(rule.name.clone()));
    }
    let reasons = Reason::ALL.map(Reason::as_str).join(", ");
    Err((
        format!("`{}` is neither a reason nor a rule", why.escape_debug()),
        format!("the reasons are: {reasons}"),
    ))
}
