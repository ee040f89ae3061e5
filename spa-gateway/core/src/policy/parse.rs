//! Walks the policy file key by key. What this version does not know is an error, never ignored.

use alloc::collections::{BTreeMap, BTreeSet};
use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use core::time::Duration;

use spa_proto::ResourceId;
use toml::Spanned;
use toml::de::{DeString, DeTable, DeValue};

use super::error::PolicyError;
use super::read::{self, Wrong};
use super::{
    DEFAULT_LENGTH, MAX_GROUPS, MAX_MEMBERS, MAX_POLICY_BYTES, MAX_PORTS, MAX_RESOURCES, MAX_RULES,
    Policy, Resource, Rule, Who,
};
use crate::name::Name;

/// The one version of the grammar.
const VERSION: &str = "1";
/// Keys of the full grammar that only a later version reads.
const LATER: &[&str] = &[
    "timezone", "posture", "deny", "test", "idle", "factors", "mode", "when", "risk", "from",
    "until", "approve", "priority",
];

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
        PolicyError::at(text, offset, what, "write TOML 1.0".to_string())
    })?;
    File { text }.policy(table.get_ref())
}

/// The text, to place errors in.
struct File<'t> {
    text: &'t str,
}

impl File<'_> {
    fn policy(&self, table: &Table<'_>) -> Result<Policy, PolicyError> {
        self.known(
            table,
            &["version", "defaults", "group", "resource", "allow"],
            "policy",
        )?;
        if let Some(version) = table.get("version") {
            self.version(version)?;
        }
        let default_length = match table.get("defaults") {
            Some(defaults) => self.defaults(defaults)?,
            None => DEFAULT_LENGTH,
        };
        let mut policy = Policy {
            default_length,
            ..Policy::deny_all()
        };
        if let Some(groups) = table.get("group") {
            policy.groups = self.groups(groups)?;
        }
        if let Some(resources) = table.get("resource") {
            self.resources(resources, &mut policy)?;
        }
        if let Some(rules) = table.get("allow") {
            policy.rules = self.rules(rules, &policy)?;
        }
        Ok(policy)
    }

    fn version(&self, value: &Value<'_>) -> Result<(), PolicyError> {
        match value.get_ref() {
            DeValue::Integer(number) if number.as_str() == VERSION => Ok(()),
            _ => Err(self.wrong(
                value,
                "this gateway reads version 1 only",
                "write `version = 1`",
            )),
        }
    }

    fn defaults(&self, value: &Value<'_>) -> Result<Duration, PolicyError> {
        let table = self.table(value)?;
        self.known(table, &["for"], "[defaults]")?;
        table.get("for").map_or(Ok(DEFAULT_LENGTH), |length| {
            self.read(length, read::duration)
        })
    }

    fn groups(&self, value: &Value<'_>) -> Result<BTreeMap<Name, BTreeSet<Name>>, PolicyError> {
        let table = self.table(value)?;
        self.bounded(value, table.len(), MAX_GROUPS)?;
        let mut groups = BTreeMap::new();
        for (key, members) in table {
            if let DeValue::Table(_) = members.get_ref() {
                return Err(self.wrong(
                    members,
                    "groups from a directory are not supported by this version",
                    r#"list the members, as eng = ["ana", "bo"]"#,
                ));
            }
            let members = self.strings(members, MAX_MEMBERS, read::name)?;
            groups.insert(self.key(key)?, members.into_iter().collect());
        }
        Ok(groups)
    }

    fn resources(&self, value: &Value<'_>, policy: &mut Policy) -> Result<(), PolicyError> {
        let table = self.table(value)?;
        self.bounded(value, table.len(), MAX_RESOURCES)?;
        for (key, value) in table {
            let name = self.key(key)?;
            let resource = self.resource(value)?;
            if let Some(other) = policy.by_id.insert(ResourceId::of(&name), name.clone()) {
                return Err(self.wrong(
                    key,
                    &format!("`{name}` has the same resource id as `{other}` (SPEC §4)"),
                    "rename one of them",
                ));
            }
            policy.resources.insert(name, resource);
        }
        Ok(())
    }

    fn resource(&self, value: &Value<'_>) -> Result<Resource, PolicyError> {
        let table = self.table(value)?;
        self.known(table, &["to", "ports"], "a resource")?;
        let to = self.needed(value, table, "to", r#"as to = "10.0.5.10""#)?;
        let ports = self.needed(value, table, "ports", r#"as ports = ["443/tcp"]"#)?;
        Ok(Resource {
            to: self.read(to, read::target)?,
            ports: self.some(ports, self.strings(ports, MAX_PORTS, read::ports)?)?,
        })
    }

    fn rules(&self, value: &Value<'_>, policy: &Policy) -> Result<Vec<Rule>, PolicyError> {
        let DeValue::Array(rules) = value.get_ref() else {
            return Err(self.wrong(
                value,
                "`allow` is no list of rules",
                "write each rule below `[[allow]]`",
            ));
        };
        self.bounded(value, rules.len(), MAX_RULES)?;
        let mut names = BTreeSet::new();
        let mut all = Vec::new();
        for value in rules {
            let rule = self.rule(value, policy)?;
            if !names.insert(rule.name.clone()) {
                let what = format!("two rules are called `{}`", rule.name);
                return Err(self.wrong(value, &what, "rename one of them"));
            }
            all.push(rule);
        }
        Ok(all)
    }

    fn rule(&self, value: &Value<'_>, policy: &Policy) -> Result<Rule, PolicyError> {
        let table = self.table(value)?;
        self.known(table, &["name", "who", "to", "for"], "[[allow]]")?;
        let name = self.needed(value, table, "name", r#"as name = "engineers-wiki""#)?;
        let who = self.needed(value, table, "who", r#"as who = ["group:eng", "user:ana"]"#)?;
        let to = self.needed(value, table, "to", r#"as to = ["wiki"]"#)?;
        let length = table
            .get("for")
            .map(|length| self.read(length, read::duration))
            .transpose()?;
        Ok(Rule {
            name: self.read(name, read::name)?,
            who: self.some(
                who,
                self.strings(who, MAX_MEMBERS, |text| someone(text, policy))?,
            )?,
            to: self.some(
                to,
                self.strings(to, MAX_MEMBERS, |text| something(text, policy))?,
            )?,
            length,
        })
    }

    /// Refuses the first key that is not known here, and says whether a later version knows it.
    fn known(&self, table: &Table<'_>, known: &[&str], place: &str) -> Result<(), PolicyError> {
        let unknown = |key: &&Key<'_>| !known.contains(&key.get_ref().as_ref());
        let Some(key) = table
            .keys()
            .filter(unknown)
            .min_by_key(|key| key.span().start)
        else {
            return Ok(());
        };
        let text = key.get_ref();
        Err(if LATER.contains(&text.as_ref()) {
            self.wrong(
                key,
                &format!("`{text}` in {place} is not supported by this version"),
                "remove it; leaving it would not protect anything",
            )
        } else {
            self.wrong(
                key,
                &format!("unknown key `{text}` in {place}"),
                &format!("the keys here are: {}", known.join(", ")),
            )
        })
    }

    fn needed<'a, 'i>(
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

    fn table<'a, 'i>(&self, value: &'a Value<'i>) -> Result<&'a Table<'i>, PolicyError> {
        match value.get_ref() {
            DeValue::Table(table) => Ok(table),
            _ => Err(self.wrong(
                value,
                "a table belongs here",
                "write it in braces or below a [heading]",
            )),
        }
    }

    fn strings<T>(
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

    fn some<T>(&self, value: &Value<'_>, list: Vec<T>) -> Result<Vec<T>, PolicyError> {
        if list.is_empty() {
            return Err(self.wrong(
                value,
                "the list is empty",
                "name at least one, or remove the entry",
            ));
        }
        Ok(list)
    }

    fn read<T>(
        &self,
        value: &Value<'_>,
        read: impl Fn(&str) -> Result<T, Wrong>,
    ) -> Result<T, PolicyError> {
        let DeValue::String(text) = value.get_ref() else {
            return Err(self.wrong(value, "a text belongs here", "write it in double quotes"));
        };
        read(text).map_err(|(what, remedy)| self.wrong(value, &what, &remedy))
    }

    fn key(&self, key: &Key<'_>) -> Result<Name, PolicyError> {
        read::name(key.get_ref()).map_err(|(what, remedy)| self.wrong(key, &what, &remedy))
    }

    fn bounded<T>(&self, place: &Spanned<T>, count: usize, most: usize) -> Result<(), PolicyError> {
        if count <= most {
            return Ok(());
        }
        Err(self.wrong(
            place,
            &format!("{count} entries"),
            &format!("the most is {most}"),
        ))
    }

    fn wrong<T>(&self, place: &Spanned<T>, what: &str, remedy: &str) -> PolicyError {
        PolicyError::at(
            self.text,
            place.span().start,
            String::from(what),
            String::from(remedy),
        )
    }
}

/// Reads an entry of `who`.
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
