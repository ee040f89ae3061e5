//! The file as a whole, and its sections that are no rules: version, zone, defaults, groups, resources, risk.

use alloc::collections::BTreeSet;
use alloc::format;

use spa_proto::ResourceId;
use toml::de::DeValue;

use super::{File, Table, Value};
use crate::policy::error::PolicyError;
use crate::policy::index::Index;
use crate::policy::published;
use crate::policy::read::{self, Wrong};
use crate::policy::risk::Weights;
use crate::policy::rule::{Effect, Factors};
use crate::policy::window;
use crate::policy::zone::Zone;
use crate::policy::{
    Defaults, MAX_GROUPS, MAX_MEMBERS, MAX_PORTS, MAX_RESOURCES, Mode, Policy, Quantum, Resource,
};

/// The one version of the grammar.
const VERSION: &str = "1";
/// The most points one thing adds to a risk.
const MAX_POINTS: u16 = 1000;

impl File<'_> {
    pub(super) fn policy(&self, table: &Table<'_>) -> Result<Policy, PolicyError> {
        self.known(
            table,
            &[
                "version", "timezone", "defaults", "risk", "group", "resource", "posture", "allow",
                "deny", "test",
            ],
            "policy",
        )?;
        if let Some(version) = table.get("version") {
            self.version(version)?;
        }
        let mut policy = Policy::deny_all();
        if let Some(zone) = table.get("timezone") {
            policy.zone = self.read(zone, Zone::parse)?;
        }
        if let Some(defaults) = table.get("defaults") {
            policy.defaults = self.defaults(defaults)?;
        }
        if let Some(weights) = table.get("risk") {
            policy.weights = self.weights(weights)?;
        }
        if let Some(groups) = table.get("group") {
            self.groups(groups, &mut policy)?;
        }
        if let Some(resources) = table.get("resource") {
            self.resources(resources, &mut policy)?;
        }
        if let Some(postures) = table.get("posture") {
            policy.postures = self.postures(postures)?;
        }
        let mut rules = alloc::vec::Vec::new();
        for (key, effect) in [("allow", Effect::Allow), ("deny", Effect::Deny)] {
            if let Some(value) = table.get(key) {
                self.rules(value, effect, &policy, &mut rules)?;
            }
        }
        let windows = rules.iter_mut();
        policy.windows = window::number(windows.filter_map(|rule| rule.conditions.when.as_mut()));
        policy.index = Index::of(&policy.groups, &rules);
        policy.rules = rules;
        if let Some(cases) = table.get("test") {
            policy.cases = self.cases(cases, &policy)?;
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

    fn defaults(&self, value: &Value<'_>) -> Result<Defaults, PolicyError> {
        let table = self.table(value)?;
        self.known(
            table,
            &["for", "idle", "factors", "mode", "pq"],
            "[defaults]",
        )?;
        let mut defaults = Defaults::BUILT_IN;
        if let Some(length) = table.get("for") {
            defaults.length = self.read(length, read::duration)?;
        }
        if let Some(idle) = table.get("idle") {
            defaults.idle = Some(self.read(idle, read::duration)?);
        }
        if let Some(factors) = table.get("factors") {
            defaults.factors = self.factors(factors)?;
        }
        if let Some(quantum) = table.get("pq") {
            defaults.quantum = self.read(quantum, quantum_of)?;
        }
        if let Some(mode) = table.get("mode")
            && self.read(mode, mode_of)? == Mode::Observe
        {
            return Err(self.wrong(
                mode,
                "everything would be let through, to everybody",
                r#"write `mode = "observe"` at single resources that are being learned"#,
            ));
        }
        Ok(defaults)
    }

    /// Reads a list of factors.
    pub(super) fn factors(&self, value: &Value<'_>) -> Result<Factors, PolicyError> {
        let most = Factors::NAMED.len();
        let factors = self.some(value, self.strings(value, most, read::factor)?)?;
        Ok(factors.into_iter().fold(Factors::NONE, Factors::with))
    }

    fn weights(&self, value: &Value<'_>) -> Result<Weights, PolicyError> {
        let table = self.table(value)?;
        let keys = [
            "new_network",
            "unusual_hour",
            "recent_failure",
            "posture_age",
            "unusual_volume",
            "unusual_connections",
        ];
        self.known(table, &keys, "[risk]")?;
        let mut weights = Weights::DEFAULT;
        let Weights {
            new_network,
            unusual_hour,
            recent_failure,
            posture_age,
            unusual_volume,
            unusual_connections,
        } = &mut weights;
        let places = [
            new_network,
            unusual_hour,
            recent_failure,
            posture_age,
            unusual_volume,
            unusual_connections,
        ];
        for (key, place) in keys.into_iter().zip(places) {
            if let Some(points) = table.get(key) {
                *place = self.number(points, 0..=MAX_POINTS)?;
            }
        }
        Ok(weights)
    }

    fn groups(&self, value: &Value<'_>, policy: &mut Policy) -> Result<(), PolicyError> {
        let table = self.table(value)?;
        self.bounded(value, table.len(), MAX_GROUPS)?;
        for (key, value) in table {
            let group = self.key(key)?;
            let members = if let DeValue::Table(table) = value.get_ref() {
                self.known(table, &["from"], "a group")?;
                let from =
                    self.needed(value, table, "from", r#"as from = "ldap:cn=eng,dc=acme""#)?;
                let directory = self.read(from, read::directory)?;
                policy.directories.insert(group.clone(), directory);
                BTreeSet::new()
            } else {
                let members = self.strings(value, MAX_MEMBERS, read::name)?;
                members.into_iter().collect()
            };
            policy.groups.insert(group, members);
        }
        Ok(())
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
            for (other_name, other) in &policy.resources {
                let pair = ((other_name, other), (&name, &resource));
                if let Some((what, remedy)) = published::clash(pair.0, pair.1) {
                    return Err(self.wrong(key, &what, &remedy));
                }
            }
            policy.resources.insert(name, resource);
        }
        Ok(())
    }

    fn resource(&self, value: &Value<'_>) -> Result<Resource, PolicyError> {
        let table = self.table(value)?;
        let keys = ["to", "as", "ports", "mode", "sensitivity"];
        self.known(table, &keys, "a resource")?;
        let to = self.needed(value, table, "to", r#"as to = "10.0.5.10""#)?;
        let ports = self.needed(value, table, "ports", r#"as ports = ["443/tcp"]"#)?;
        let mode = table.get("mode").map(|mode| self.read(mode, mode_of));
        let sensitivity = table
            .get("sensitivity")
            .map(|points| self.number(points, 0..=MAX_POINTS));
        let mut resource = Resource {
            to: self.read(to, read::target)?,
            published: None,
            ports: self.some(ports, self.strings(ports, MAX_PORTS, read::ports)?)?,
            mode: mode.transpose()?.unwrap_or(Mode::Enforce),
            sensitivity: sensitivity.transpose()?.unwrap_or(0),
        };
        if let Some(value) = table.get("as") {
            let address = self.read(value, read::published)?;
            published::fit(&resource, address)
                .map_err(|(what, remedy)| self.wrong(value, &what, &remedy))?;
            resource.published = Some(address);
        }
        Ok(resource)
    }
}

fn quantum_of(text: &str) -> Result<Quantum, Wrong> {
    match text {
        "optional" => Ok(Quantum::Optional),
        "required" => Ok(Quantum::Required),
        _ => Err((
            format!(
                "`{}` says nothing of quantum computers",
                text.escape_debug()
            ),
            r#"write "optional" or "required""#.into(),
        )),
    }
}

fn mode_of(text: &str) -> Result<Mode, Wrong> {
    match text {
        "enforce" => Ok(Mode::Enforce),
        "observe" => Ok(Mode::Observe),
        _ => Err((
            format!("`{}` is no mode", text.escape_debug()),
            r#"write "enforce" or "observe""#.into(),
        )),
    }
}
