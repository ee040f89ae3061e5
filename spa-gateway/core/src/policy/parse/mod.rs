//! Walks the policy file key by key. What is not known is an error, never ignored.
//!
//! This file walks tables and lists and places errors; what the keys mean is in the files beside it.

mod cases;
mod posture;
mod rules;
mod sections;

use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use core::ops::RangeInclusive;

use spa_proto::WallTime;
use toml::Spanned;
use toml::de::{DeString, DeTable, DeValue};

use super::error::PolicyError;
use super::read::{self, Wrong};
use super::zone::{Zone, instant_of};
use super::{MAX_POLICY_BYTES, Policy};
use crate::name::Name;

type Key<'i> = Spanned<DeString<'i>>;
type Value<'i> = Spanned<DeValue<'i>>;
type Table<'i> = DeTable<'i>;

/// Reads a whole file.
pub(super) fn policy(text: &str) -> Result<Policy, PolicyError> {
    if text.len() > MAX_POLICY_BYTES {
        return Err(PolicyError::at(
            text,
            0,
            format!("the file is larger than {MAX_POLICY_BYTES} bytes"),
            "split the gateway or shorten the lists".to_string(),
        ));
    }
    let table = Table::parse(text).map_err(|error| {
        let offset = error.span().map_or(0, |span| span.start);
        let what = error.message().replace('\n', ", ");
        let remedy = if what.starts_with("duplicate key") {
            "rename it, or write all of it in one place"
        } else {
            "write TOML 1.0"
        };
        PolicyError::at(text, offset, what, remedy.to_string())
    })?;
    File { text }.policy(table.get_ref())
}

/// The text, to place errors in.
struct File<'t> {
    text: &'t str,
}

impl File<'_> {
    /// Refuses the first key that is not known here, and names those that are.
    pub(super) fn known(
        &self,
        table: &Table<'_>,
        known: &[&str],
        place: &str,
    ) -> Result<(), PolicyError> {
        let unknown = |key: &&Key<'_>| !known.contains(&key.get_ref().as_ref());
        let Some(key) = table
            .keys()
            .filter(unknown)
            .min_by_key(|key| key.span().start)
        else {
            return Ok(());
        };
        Err(self.wrong(
            key,
            &format!("unknown key `{}` in {place}", key.get_ref().escape_debug()),
            &format!("the keys here are: {}", known.join(", ")),
        ))
    }

    pub(super) fn needed<'a, 'i>(
        &self,
        place: &Value<'_>,
        table: &'a Table<'i>,
        key: &str,
        example: &str,
    ) -> Result<&'a Value<'i>, PolicyError> {
        table.get(key).ok_or_else(|| {
            self.wrong(
                place,
                &format!("`{key}` is missing"),
                &format!("add it, {example}"),
            )
        })
    }

    pub(super) fn table<'a, 'i>(&self, value: &'a Value<'i>) -> Result<&'a Table<'i>, PolicyError> {
        match value.get_ref() {
            DeValue::Table(table) => Ok(table),
            _ => Err(self.wrong(
                value,
                "a table belongs here",
                "write it in braces or below a [heading]",
            )),
        }
    }

    pub(super) fn strings<T>(
        &self,
        value: &Value<'_>,
        most: usize,
        read: impl Fn(&str) -> Result<T, Wrong>,
    ) -> Result<Vec<T>, PolicyError> {
        let DeValue::Array(items) = value.get_ref() else {
            return Err(self.wrong(
                value,
                "a list belongs here",
                r#"write it in brackets, as ["one", "two"]"#,
            ));
        };
        self.bounded(value, items.len(), most)?;
        items.iter().map(|item| self.read(item, &read)).collect()
    }

    /// Reads a text, or a list of them.
    pub(super) fn one_or_more<T>(
        &self,
        value: &Value<'_>,
        most: usize,
        read: impl Fn(&str) -> Result<T, Wrong>,
    ) -> Result<Vec<T>, PolicyError> {
        if let DeValue::String(_) = value.get_ref() {
            return Ok([self.read(value, read)?].into());
        }
        self.some(value, self.strings(value, most, read)?)
    }

    /// Reads a whole number.
    pub(super) fn number(
        &self,
        value: &Value<'_>,
        allowed: RangeInclusive<u16>,
    ) -> Result<u16, PolicyError> {
        let number = match value.get_ref() {
            DeValue::Integer(number) => u16::from_str_radix(number.as_str(), number.radix()).ok(),
            _ => None,
        };
        number
            .filter(|number| allowed.contains(number))
            .ok_or_else(|| {
                let (first, last) = (allowed.start(), allowed.end());
                self.wrong(
                    value,
                    "this is no number that can stand here",
                    &format!("write a whole number from {first} to {last}, without quotes"),
                )
            })
    }

    /// Reads a date, a time of the policy's zone, or a time with an offset.
    pub(super) fn time(&self, value: &Value<'_>, zone: &Zone) -> Result<WallTime, PolicyError> {
        let DeValue::Datetime(written) = value.get_ref() else {
            return Err(self.wrong(
                value,
                "a date or a time belongs here",
                "write it without quotes, as 2027-03-01 or 2026-11-23T10:00:00",
            ));
        };
        let text = written.to_string();
        let instant = match (written.date, written.time, written.offset) {
            (Some(_), Some(_), Some(_)) => text.parse().ok().and_then(instant_of),
            (Some(_), Some(_), None) => text.parse().ok().and_then(|time| zone.earliest(time)),
            (Some(_), None, _) => text
                .parse::<jiff::civil::Date>()
                .ok()
                .and_then(|date| zone.earliest(date.to_datetime(jiff::civil::Time::midnight()))),
            (None, ..) => None,
        };
        instant.ok_or_else(|| {
            self.wrong(
                value,
                &format!("`{text}` is no time"),
                "write a date after 1970, with or without a time, as 2027-03-01T18:00:00",
            )
        })
    }

    pub(super) fn some<T>(&self, value: &Value<'_>, list: Vec<T>) -> Result<Vec<T>, PolicyError> {
        if list.is_empty() {
            return Err(self.wrong(
                value,
                "the list is empty",
                "name at least one, or remove the entry",
            ));
        }
        Ok(list)
    }

    pub(super) fn read<T>(
        &self,
        value: &Value<'_>,
        read: impl Fn(&str) -> Result<T, Wrong>,
    ) -> Result<T, PolicyError> {
        let DeValue::String(text) = value.get_ref() else {
            return Err(self.wrong(value, "a text belongs here", "write it in double quotes"));
        };
        read(text).map_err(|(what, remedy)| self.wrong(value, &what, &remedy))
    }

    pub(super) fn key(&self, key: &Key<'_>) -> Result<Name, PolicyError> {
        read::name(key.get_ref()).map_err(|(what, remedy)| self.wrong(key, &what, &remedy))
    }

    pub(super) fn bounded<T>(
        &self,
        place: &Spanned<T>,
        count: usize,
        most: usize,
    ) -> Result<(), PolicyError> {
        if count <= most {
            return Ok(());
        }
        Err(self.wrong(
            place,
            &format!("{count} entries"),
            &format!("the most is {most}"),
        ))
    }

    pub(super) fn wrong<T>(&self, place: &Spanned<T>, what: &str, remedy: &str) -> PolicyError {
        PolicyError::at(
            self.text,
            place.span().start,
            String::from(what),
            String::from(remedy),
        )
    }

    /// Gives the line of a value, from 1.
    pub(super) fn line<T>(&self, place: &Spanned<T>) -> usize {
        let before = self.text.get(..place.span().start).unwrap_or("");
        before.bytes().filter(|byte| *byte == b'\n').count() + 1
    }
}
