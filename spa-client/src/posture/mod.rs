//! What this device says of itself (SPEC §4 POSTURE, §12): gathered, shown to its owner, and told to the gateway.
//!
//! Invariant: a fact is something that was seen. What could not be seen is left out and said to be unknown, never told
//! as `false`; the gateway takes a missing fact for a condition that is not met, which errs on its side.
//!
//! | step | file |
//! |---|---|
//! | one trait for every platform | here |
//! | Linux | `linux/` |
//! | the owner's own command | `hook.rs` |
//! | the form on the wire | `cbor.rs` |

mod cbor;
mod hook;
mod linux;
mod machine;

use std::path::Path;

use serde_json::{Value as Json, json};
use sha2::{Digest, Sha256};
use spa_proto::channel::{self, FactValue};
use spa_proto::{CredentialId, WallTime};

use crate::clock;
pub use machine::Machine;

/// The names the gateway knows, in the order in which they are worth their bytes (spa-policy(5), `[posture.NAME]`).
const FIELDS: [&str; 13] = [
    "platform",
    "disk_encryption",
    "firewall",
    "patch_age",
    "security_updates",
    "os",
    "client",
    "screen_lock",
    "antivirus",
    "secure_boot",
    "rooted",
    "managed",
    "hardware_key",
];

/// What a fact says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Value {
    /// Yes or no.
    Bool(bool),
    /// A number, days where it is a length of time.
    Number(u64),
    /// A short text.
    Text(String),
}

/// One fact, or one that could not be had.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fact {
    /// What it is about.
    pub name: String,
    /// What it says; `None`: unknown.
    pub value: Option<Value>,
    /// How it was seen, or why it could not be.
    pub source: String,
    /// When it was seen.
    pub at: WallTime,
}

/// How a platform is asked about itself.
pub trait Collector {
    /// Everything it can tell, and what it cannot.
    fn collect(&self, at: WallTime) -> Vec<Fact>;
}

/// A platform of which we know the name alone.
struct Elsewhere;

impl Collector for Elsewhere {
    fn collect(&self, at: WallTime) -> Vec<Fact> {
        vec![Fact::seen(
            "platform",
            Value::Text(std::env::consts::OS.to_owned()),
            "this program",
            at,
        )]
    }
}

/// All facts of this device, as one gateway gets them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Posture {
    facts: Vec<Fact>,
}

impl Posture {
    /// Gathers everything: the platform's facts, those of this program, and those of the owner's command at `hook`, whose
    /// word is above ours.
    #[must_use]
    pub fn gather(credential: CredentialId, hook: &Path) -> Self {
        Self::of(&Machine::this(), credential, hook, clock::wall())
    }

    fn of(machine: &Machine, credential: CredentialId, hook: &Path, at: WallTime) -> Self {
        let mut facts = if cfg!(target_os = "linux") {
            linux::Linux::new(machine).collect(at)
        } else {
            Elsewhere.collect(at)
        };
        facts.push(Fact::seen(
            "client",
            Value::Text(env!("CARGO_PKG_VERSION").to_owned()),
            "this program",
            at,
        ));
        // Known, not guessed: r is in a file (SPEC §3.2).
        facts.push(Fact::seen(
            "hardware_key",
            Value::Bool(false),
            "the device key is a file",
            at,
        ));
        facts.push(machine_hash(machine, credential, at));
        for fact in hook::run(hook, at) {
            facts.retain(|known| known.name != fact.name);
            facts.push(fact);
        }
        facts.sort_by_key(|fact| rank(&fact.name));
        Self { facts }
    }

    /// All facts, those that are unknown too, the most useful first.
    #[must_use]
    pub fn facts(&self) -> &[Fact] {
        &self.facts
    }

    /// The report of SPEC §4: as many facts as fit into its 224 bytes.
    #[must_use]
    pub fn report(&self) -> Vec<u8> {
        cbor::report(&self.facts)
    }

    /// The same facts for the control channel, where there is room for all.
    #[must_use]
    pub fn channel(&self) -> channel::Posture {
        let known = self.facts.iter().filter(|fact| fact.fits());
        let facts = known.filter_map(|fact| {
            let value = match fact.value.as_ref()? {
                Value::Bool(value) => FactValue::Bool(*value),
                Value::Number(number) => FactValue::Number(u32::try_from(*number).ok()?),
                Value::Text(text) => FactValue::Text(text.clone()),
            };
            Some((fact.name.clone(), channel::Fact { value, age_s: 0 }))
        });
        channel::Posture {
            facts: facts.take(channel::MAX_FACTS).collect(),
        }
    }
}

/// Known fields in their order, then what the owner's command adds, then what is only for the administrator's eye.
fn rank(name: &str) -> usize {
    let known = FIELDS.iter().position(|field| *field == name);
    known.unwrap_or(match name {
        "machine" | "release" => FIELDS.len() + 1,
        _ => FIELDS.len(),
    })
}

impl Fact {
    fn seen(name: &str, value: Value, source: impl Into<String>, at: WallTime) -> Self {
        Self {
            name: name.to_owned(),
            value: Some(value),
            source: source.into(),
            at,
        }
    }

    fn unknown(name: &str, why: impl Into<String>, at: WallTime) -> Self {
        Self {
            name: name.to_owned(),
            value: None,
            source: why.into(),
            at,
        }
    }

    /// Whether its value is of the shape the gateway takes for its name; it would pass over another.
    fn fits(&self) -> bool {
        match (self.name.as_str(), &self.value) {
            (_, None) => true,
            ("platform" | "os" | "client", Some(Value::Text(_)))
            | ("patch_age", Some(Value::Number(_))) => true,
            (name, Some(value)) => {
                !FIELDS.contains(&name)
                    || (matches!(value, Value::Bool(_))
                        && !matches!(name, "platform" | "os" | "client" | "patch_age"))
            }
        }
    }
}

impl Value {
    /// As JSON.
    #[must_use]
    pub fn json(&self) -> Json {
        match self {
            Self::Bool(value) => json!(value),
            Self::Number(value) => json!(value),
            Self::Text(value) => json!(value),
        }
    }
}

impl std::fmt::Display for Value {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Bool(true) => f.write_str("yes"),
            Self::Bool(false) => f.write_str("no"),
            Self::Number(value) => write!(f, "{value}"),
            Self::Text(value) => f.write_str(value),
        }
    }
}

/// Tells one machine from another at one gateway. The machine id itself stays here, and two gateways cannot compare what
/// they got, since each has another credential in it (machine-id(5) asks for such a hash).
fn machine_hash(machine: &Machine, credential: CredentialId, at: WallTime) -> Fact {
    let Some(id) = machine.text("etc/machine-id") else {
        return Fact::unknown("machine", "there is no /etc/machine-id", at);
    };
    let hash = Sha256::new()
        .chain_update("spa machine")
        .chain_update(credential.as_bytes())
        .chain_update(id.trim())
        .finalize();
    let text = hash.iter().take(8).map(|byte| format!("{byte:02x}"));
    Fact::seen(
        "machine",
        Value::Text(text.collect()),
        "hash of /etc/machine-id, another one for each gateway",
        at,
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::Scratch;
    use std::fs;

    const AT: WallTime = WallTime::from_millis(1_795_633_200_000);

    fn credential(byte: u8) -> CredentialId {
        CredentialId::from_bytes([byte; 16])
    }

    #[test]
    fn an_empty_machine_claims_nothing_it_did_not_see() {
        let scratch = Scratch::new("posture-empty");
        let machine = Machine::at(scratch.path());
        let posture = Posture::of(&machine, credential(1), &scratch.path().join("none"), AT);
        for fact in posture.facts() {
            let own = ["platform", "client", "hardware_key"].contains(&fact.name.as_str());
            assert_eq!(fact.value.is_some(), own, "{fact:?}");
            assert!(!fact.source.is_empty() && fact.at == AT, "{fact:?}");
        }
        let named: Vec<&str> = posture
            .facts()
            .iter()
            .map(|fact| fact.name.as_str())
            .collect();
        for field in [
            "disk_encryption",
            "firewall",
            "screen_lock",
            "patch_age",
            "security_updates",
        ] {
            assert!(
                named.contains(&field),
                "{field} is neither known nor unknown"
            );
        }
    }

    #[test]
    fn two_gateways_see_two_machines() {
        let scratch = Scratch::new("posture-machine");
        fs::create_dir(scratch.path().join("etc")).expect("scratch is writable");
        fs::write(scratch.path().join("etc/machine-id"), "0123\n").expect("scratch is writable");
        let machine = Machine::at(scratch.path());
        let hash = |byte| machine_hash(&machine, credential(byte), AT).value;
        assert_eq!(hash(1), hash(1));
        assert_ne!(hash(1), hash(2));
        assert!(!format!("{:?}", hash(1)).contains("0123"));
    }

    #[test]
    fn the_owners_command_is_heard_above_us() {
        let scratch = Scratch::new("posture-above");
        let hook = scratch.path().join("posture-command");
        hook::tests::write(&hook, "#!/bin/sh\necho hardware_key=true\n", 0o700);
        let machine = Machine::at(scratch.path());
        let posture = Posture::of(&machine, credential(1), &hook, AT);
        let keys: Vec<&Fact> = posture
            .facts()
            .iter()
            .filter(|fact| fact.name == "hardware_key")
            .collect();
        assert_eq!(keys.len(), 1);
        assert_eq!(keys[0].value, Some(Value::Bool(true)));
        let told = &posture.channel().facts["hardware_key"];
        assert_eq!(told.value, FactValue::Bool(true));
    }
}
