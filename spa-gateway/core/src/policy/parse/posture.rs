//! `[posture.NAME]`.

use alloc::collections::BTreeMap;
use alloc::format;
use alloc::vec::Vec;

use toml::Spanned;
use toml::de::{DeString, DeValue};

use super::{File, Value};
use crate::policy::error::PolicyError;
use crate::policy::fact::{Field, Platform, Shape, Value as FactValue, Version};
use crate::policy::posture::{Check, Comparison, OnPlatform, Requirement, Scope, Wanted};
use crate::policy::read::{self, Wrong};
use crate::policy::{DEFAULT_MAX_AGE, MAX_POSTURES};

/// How a platform is left out.
const SKIP: &str = "skip";

impl File<'_> {
    pub(super) fn postures(&self, value: &Value<'_>) -> Result<Vec<Requirement>, PolicyError> {
        let table = self.table(value)?;
        self.bounded(value, table.len(), MAX_POSTURES)?;
        let mut postures = Vec::new();
        for (key, value) in table {
            postures.push(self.requirement(key, value)?);
        }
        Ok(postures)
    }

    fn requirement(
        &self,
        key: &Spanned<DeString<'_>>,
        value: &Value<'_>,
    ) -> Result<Requirement, PolicyError> {
        let table = self.table(value)?;
        let mut known: Vec<&str> = Field::ALL.map(Field::name).into();
        known.extend(["max_age", "source"]);
        self.known(table, &known, "[posture]")?;
        let mut checks = Vec::new();
        for (name, value) in table {
            if let Some(field) = Field::named(name.get_ref()) {
                let wanted = self.scope(field, value)?;
                checks.push(Check { field, wanted });
            }
        }
        let max_age = table
            .get("max_age")
            .map(|age| self.read(age, read::max_age));
        let sources = table
            .get("source")
            .map(|sources| self.one_or_more(sources, 4, read::source));
        Ok(Requirement {
            name: self.key(key)?,
            checks: self.some(value, checks)?,
            max_age: max_age.transpose()?.unwrap_or(DEFAULT_MAX_AGE),
            sources: sources.transpose()?.unwrap_or_default(),
        })
    }

    fn scope(&self, field: Field, value: &Value<'_>) -> Result<Scope, PolicyError> {
        let DeValue::Table(table) = value.get_ref() else {
            return Ok(Scope::Everywhere(self.wanted(field, value)?));
        };
        if field == Field::Platform {
            return Err(self.wrong(
                value,
                "a platform cannot depend on the platform",
                r#"write platform = "linux""#,
            ));
        }
        self.known(table, &Platform::ALL.map(Platform::name), field.name())?;
        let mut platforms = BTreeMap::new();
        for (name, value) in table {
            let Some(platform) = Platform::named(name.get_ref()) else {
                continue;
            };
            let skip = matches!(value.get_ref(), DeValue::String(text) if text == SKIP);
            let on = if skip {
                OnPlatform::Skip
            } else {
                OnPlatform::Must(self.wanted(field, value)?)
            };
            platforms.insert(platform, on);
        }
        if platforms.values().all(|on| *on == OnPlatform::Skip) {
            return Err(self.wrong(
                value,
                "this checks nothing on any platform",
                "name a platform it must hold on, or remove it",
            ));
        }
        Ok(Scope::By(platforms))
    }

    fn wanted(&self, field: Field, value: &Value<'_>) -> Result<Wanted, PolicyError> {
        if field.shape() == Shape::Bool {
            return match value.get_ref() {
                DeValue::Boolean(wanted) => Ok(Wanted {
                    comparison: Comparison::Equal,
                    value: FactValue::Bool(*wanted),
                }),
                _ => Err(self.wrong(
                    value,
                    &format!("`{}` is true or false", field.name()),
                    "write true or false without quotes",
                )),
            };
        }
        self.read(value, |text| compared(field, text))
    }
}

/// Reads ">= 6.1", "<= 30d" or "linux".
fn compared(field: Field, text: &str) -> Result<Wanted, Wrong> {
    let (comparison, rest) = Comparison::strip(text);
    let (value, example) = match field.shape() {
        Shape::Bool => (None, "true"),
        Shape::Days => (days(rest), "<= 30d"),
        Shape::Version => (Version::parse(rest).map(FactValue::Version), ">= 6.1"),
        Shape::Platform => (
            Platform::named(rest)
                .filter(|_| comparison == Comparison::Equal)
                .map(FactValue::Platform),
            "linux",
        ),
    };
    let impossible = comparison == Comparison::Below
        && (value == Some(FactValue::Days(0))
            || value == Version::parse("0").map(FactValue::Version));
    if impossible {
        return Err((
            format!("nothing is below `{rest}`: this can never hold"),
            "write a higher number, or remove it".into(),
        ));
    }
    value
        .map(|value| Wanted { comparison, value })
        .ok_or_else(|| {
            (
                format!(
                    "`{}` says nothing about {}",
                    text.escape_debug(),
                    field.name()
                ),
                format!(r#"write it as {} = "{example}""#, field.name()),
            )
        })
}

fn days(text: &str) -> Option<FactValue> {
    let digits = text.strip_suffix('d')?;
    let plain = digits.bytes().all(|byte| byte.is_ascii_digit());
    digits.parse().ok().filter(|_| plain).map(FactValue::Days)
}
