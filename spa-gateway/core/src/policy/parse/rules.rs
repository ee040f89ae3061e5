//! `[[allow]]` and `[[deny]]`: the twelve keywords.

use alloc::collections::BTreeMap;
use alloc::format;
use alloc::vec::Vec;

use toml::de::DeValue;

use super::{File, Table, Value};
use crate::name::Name;
use crate::policy::error::PolicyError;
use crate::policy::read::{self, Wrong};
use crate::policy::rule::{Conditions, DEFAULT_PRIORITY, Effect, MAX_PRIORITY, Rule, Who};
use crate::policy::window::Windows;
use crate::policy::{MAX_MEMBERS, MAX_POSTURES, MAX_RULES, MAX_WINDOWS, Policy};

/// The keywords of an allow; those of a deny are the ones that do not shape a session.
const ALLOW: &[&str] = &[
    "name", "who", "to", "from", "when", "until", "for", "posture", "risk", "factors", "approve",
    "priority",
];
const DENY: &[&str] = &[
    "name", "who", "to", "from", "when", "until", "posture", "risk", "priority",
];

impl File<'_> {
    /// Reads all rules of one effect, after those that are read already.
    pub(super) fn rules(
        &self,
        value: &Value<'_>,
        effect: Effect,
        policy: &Policy,
        rules: &mut Vec<Rule>,
    ) -> Result<(), PolicyError> {
        let heading = effect.as_str();
        let DeValue::Array(values) = value.get_ref() else {
            return Err(self.wrong(
                value,
                &format!("`{heading}` is no list of rules"),
                &format!("write each rule below `[[{heading}]]`"),
            ));
        };
        self.bounded(value, values.len().saturating_add(rules.len()), MAX_RULES)?;
        let mut names: BTreeMap<Name, usize> = rules
            .iter()
            .map(|rule| (rule.name.clone(), rule.line))
            .collect();
        let mut lines = Lines::new(self.text);
        for value in values {
            let mut rule = self.rule(value, effect, policy)?;
            rule.line = lines.of(self.name_place(value));
            if let Some(line) = names.insert(rule.name.clone(), rule.line) {
                let what = format!("rule `{}` is called like the one in line {line}", rule.name);
                return Err(self.wrong(value, &what, "rename one of them"));
            }
            rules.push(rule);
        }
        Ok(())
    }

    fn rule(
        &self,
        value: &Value<'_>,
        effect: Effect,
        policy: &Policy,
    ) -> Result<Rule, PolicyError> {
        let table = self.table(value)?;
        match effect {
            Effect::Allow => self.known(table, ALLOW, "[[allow]]")?,
            Effect::Deny => self.known(table, DENY, "[[deny]]")?,
        }
        let name = self.needed(value, table, "name", r#"as name = "engineers-wiki""#)?;
        let who = self.needed(value, table, "who", r#"as who = ["group:eng", "user:ana"]"#)?;
        let to = self.needed(value, table, "to", r#"as to = ["wiki"]"#)?;
        let length = table
            .get("for")
            .map(|value| self.read(value, read::duration));
        let factors = table.get("factors").map(|value| self.factors(value));
        let priority = table
            .get("priority")
            .map(|value| self.number(value, 0..=MAX_PRIORITY));
        Ok(Rule {
            name: self.read(name, read::name)?,
            line: 0,
            effect,
            priority: priority.transpose()?.unwrap_or(DEFAULT_PRIORITY),
            who: self.subjects(who, effect, policy)?,
            to: self.some(
                to,
                self.strings(to, MAX_MEMBERS, |text| something(text, policy))?,
            )?,
            length: length.transpose()?,
            factors: factors.transpose()?,
            conditions: self.conditions(table, effect, policy)?,
        })
    }

    fn conditions(
        &self,
        table: &Table<'_>,
        effect: Effect,
        policy: &Policy,
    ) -> Result<Conditions, PolicyError> {
        let mut conditions = Conditions::default();
        if let Some(value) = table.get("from") {
            let from = self.strings(value, MAX_MEMBERS, read::network)?;
            conditions.from = self.some(value, from)?;
        }
        if let Some(value) = table.get("when") {
            conditions.when = Some(self.windows(value)?);
        }
        if let Some(value) = table.get("until") {
            conditions.until = Some(self.time(value, &policy.zone)?);
        }
        if let Some(value) = table.get("posture") {
            let wanted = self.strings(value, MAX_POSTURES, |text| requirement(text, policy))?;
            conditions.posture = self.some(value, wanted)?;
        }
        if let Some(value) = table.get("risk") {
            let limit = self.read(value, read::risk)?;
            if effect == Effect::Deny && limit.shortened.is_some() {
                return Err(self.wrong(
                    value,
                    "a deny has no session to shorten",
                    "leave out `else` and what follows",
                ));
            }
            conditions.risk = Some(limit);
        }
        if let Some(value) = table.get("approve") {
            conditions.approve = self.people(value, policy)?;
        }
        Ok(conditions)
    }

    /// Reads `who`. A deny cannot speak of a group whose members are not known: it would let them through.
    fn subjects(
        &self,
        value: &Value<'_>,
        effect: Effect,
        policy: &Policy,
    ) -> Result<Vec<Who>, PolicyError> {
        let people = self.people(value, policy)?;
        let unknown = people.iter().find_map(|who| match who {
            Who::Group(group) if policy.directories.contains_key(group) => Some(group),
            Who::Group(_) | Who::Person(_) => None,
        });
        match (effect, unknown) {
            (Effect::Deny, Some(group)) => Err(self.wrong(
                value,
                &format!("`{group}` comes from a directory, which is not read yet: this would deny nobody"),
                "list the members in [group]",
            )),
            (Effect::Deny | Effect::Allow, _) => Ok(people),
        }
    }

    fn people(&self, value: &Value<'_>, policy: &Policy) -> Result<Vec<Who>, PolicyError> {
        self.some(
            value,
            self.strings(value, MAX_MEMBERS, |text| someone(text, policy))?,
        )
    }

    /// Reads one window, or a list of them. Each is checked alone, so that an error names its place.
    fn windows(&self, value: &Value<'_>) -> Result<Windows, PolicyError> {
        let texts = self.one_or_more(value, MAX_WINDOWS, |text| {
            Windows::parse([text].into_iter()).map(|windows| windows.as_str().into())
        })?;
        let texts: Vec<alloc::string::String> = texts;
        Windows::parse(texts.iter().map(alloc::string::String::as_str))
            .map_err(|(what, remedy)| self.wrong(value, &what, &remedy))
    }

    fn name_place(&self, value: &Value<'_>) -> usize {
        let name = match value.get_ref() {
            DeValue::Table(table) => table.get("name"),
            _ => None,
        };
        name.unwrap_or(value).span().start
    }
}

/// Counts lines going forward only, so that ten thousand rules are not ten thousand passes.
struct Lines<'t> {
    text: &'t str,
    offset: usize,
    line: usize,
}

impl<'t> Lines<'t> {
    const fn new(text: &'t str) -> Self {
        Self {
            text,
            offset: 0,
            line: 1,
        }
    }

    fn of(&mut self, offset: usize) -> usize {
        if offset < self.offset {
            *self = Self::new(self.text);
        }
        let between = self.text.get(self.offset..offset).unwrap_or("");
        self.line += between.bytes().filter(|byte| *byte == b'\n').count();
        self.offset = offset;
        self.line
    }
}

/// Reads an entry of `who` or `approve`.
fn someone(text: &str, policy: &Policy) -> Result<Who, Wrong> {
    let Some(group) = text.strip_prefix("group:") else {
        return read::name(text.strip_prefix("user:").unwrap_or(text)).map(Who::Person);
    };
    let group = read::name(group)?;
    if policy.groups.contains_key(&group) {
        return Ok(Who::Group(group));
    }
    Err((
        format!("there is no group `{group}`"),
        format!("add it to [group], or write `user:{group}` for a person"),
    ))
}

/// Reads an entry of `to`.
fn something(text: &str, policy: &Policy) -> Result<Name, Wrong> {
    let name = read::name(text)?;
    if policy.resources.contains_key(&name) {
        return Ok(name);
    }
    let known: Vec<&str> = policy.resources.keys().take(8).map(Name::as_str).collect();
    Err((
        format!("there is no resource `{name}`"),
        format!("add it to [resource]; there are: {}", known.join(", ")),
    ))
}

/// Reads an entry of `posture`: its place among the requirements.
fn requirement(text: &str, policy: &Policy) -> Result<usize, Wrong> {
    let name = read::name(text)?;
    let place = policy.postures.iter().position(|known| known.name == name);
    place.ok_or_else(|| {
        (
            format!("there is no posture requirement `{name}`"),
            format!("add [posture.{name}]"),
        )
    })
}
