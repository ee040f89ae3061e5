//! POSTURE (SPEC §4): what a device says of itself, as a CBOR map, read strictly and without a library.
//!
//! Invariant: what is no well-formed map of plain values counts as no posture at all. Bytes from outside:
//! no indexing, and no allocation that they can choose the size of.

use core::time::Duration;

use spa_proto::WallTime;
use spa_proto::channel::{FactValue, MAX_FACTS, Posture};

use super::fact::{Fact, FactSource, Facts, Field, Platform, Shape, Value, Version};

/// The longest report, bytes (SPEC §4).
pub const MAX_REPORT: usize = 224;

/// Reads a report as of `at`. Fields that are not known are passed over; a value that does not fit its
/// field makes that one fact missing.
///
/// The map has text keys, each once; values are booleans, numbers up to 2⁶⁴ − 1, or texts; lengths are
/// definite and as short as can be (RFC 8949 §4.2.1).
#[must_use]
pub fn facts_of_report(report: &[u8], at: WallTime) -> Option<Facts> {
    if report.len() > MAX_REPORT {
        return None;
    }
    let mut reader = Reader { rest: report };
    let Item::Map(entries) = reader.item()? else {
        return None;
    };
    let mut facts = Facts::default();
    let mut before: Option<&str> = None;
    for _ in 0..entries {
        let Item::Text(key) = reader.item()? else {
            return None;
        };
        // In order and each once, so that two readers cannot see two reports.
        if before.is_some_and(|before| (before.len(), before) >= (key.len(), key)) {
            return None;
        }
        before = Some(key);
        let item = reader.item()?;
        if let Item::Map(_) = item {
            return None;
        }
        let value = Field::named(key).and_then(|field| Some((field, value_of(field, &item)?)));
        if let Some((field, value)) = value {
            let source = FactSource::SelfReported;
            facts.put(field, Fact { value, source, at });
        }
    }
    reader.rest.is_empty().then_some(facts)
}

/// Reads a report of the control channel (SPEC §12), by the same rules. `None`: it has too many facts.
pub(crate) fn facts_of_posture(posture: &Posture, now: WallTime) -> Option<Facts> {
    if posture.facts.len() > MAX_FACTS {
        return None;
    }
    let mut facts = Facts::default();
    for (name, fact) in &posture.facts {
        let item = match &fact.value {
            FactValue::Bool(value) => Item::Bool(*value),
            FactValue::Number(value) => Item::Number((*value).into()),
            FactValue::Text(value) => Item::Text(value),
        };
        let value = Field::named(name).and_then(|field| Some((field, value_of(field, &item)?)));
        if let Some((field, value)) = value {
            let age = Duration::from_secs(fact.age_s.into());
            let fact = Fact {
                value,
                // Whatever it claims: its owner can lie.
                source: FactSource::SelfReported,
                at: now.saturating_sub(age),
            };
            facts.put(field, fact);
        }
    }
    Some(facts)
}

fn value_of(field: Field, item: &Item<'_>) -> Option<Value> {
    match (field.shape(), item) {
        (Shape::Bool, Item::Bool(value)) => Some(Value::Bool(*value)),
        (Shape::Days, Item::Number(days)) => u32::try_from(*days).ok().map(Value::Days),
        (Shape::Version, Item::Text(text)) => Version::reported(text).map(Value::Version),
        (Shape::Platform, Item::Text(text)) => Platform::named(text).map(Value::Platform),
        (Shape::Bool | Shape::Days | Shape::Version | Shape::Platform, _) => None,
    }
}

/// The items a report is made of.
enum Item<'r> {
    Number(u64),
    Text(&'r str),
    Map(u64),
    Bool(bool),
}

struct Reader<'r> {
    rest: &'r [u8],
}

impl<'r> Reader<'r> {
    fn item(&mut self) -> Option<Item<'r>> {
        let (&first, rest) = self.rest.split_first()?;
        self.rest = rest;
        // RFC 8949 §3: three bits of type, five of argument.
        match (first >> 5, first & 0x1f) {
            (0, argument) => self.argument(argument).map(Item::Number),
            (3, argument) => {
                let length = usize::try_from(self.argument(argument)?).ok()?;
                let (text, rest) = self.rest.split_at_checked(length)?;
                self.rest = rest;
                core::str::from_utf8(text).ok().map(Item::Text)
            }
            (5, argument) => self.argument(argument).map(Item::Map),
            (7, 20) => Some(Item::Bool(false)),
            (7, 21) => Some(Item::Bool(true)),
            _ => None,
        }
    }

    /// Reads the number of an item; a longer form than it needs is refused.
    fn argument(&mut self, short: u8) -> Option<u64> {
        let (length, least): (usize, u64) = match short {
            0..=23 => return Some(u64::from(short)),
            24 => (1, 24),
            25 => (2, 1 << 8),
            26 => (4, 1 << 16),
            27 => (8, 1 << 32),
            _ => return None,
        };
        let (bytes, rest) = self.rest.split_at_checked(length)?;
        self.rest = rest;
        let number = bytes
            .iter()
            .fold(0, |number, byte| number << 8 | u64::from(*byte));
        (number >= least).then_some(number)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::vec::Vec;

    const AT: WallTime = WallTime::from_millis(7);

    fn text(text: &str) -> Vec<u8> {
        let mut bytes = Vec::from([0x60 | u8::try_from(text.len()).expect("short")]);
        bytes.extend(text.as_bytes());
        bytes
    }

    fn map(entries: &[(&str, &[u8])]) -> Vec<u8> {
        let mut bytes = Vec::from([0xa0 | u8::try_from(entries.len()).expect("few")]);
        for (key, value) in entries {
            bytes.extend(text(key));
            bytes.extend(*value);
        }
        bytes
    }

    #[test]
    fn a_report_becomes_facts() {
        let report = map(&[
            ("os", &text("6.1.0-28-amd64")),
            ("firewall", &[0xf5]),
            ("platform", &text("linux")),
            ("patch_age", &[0x18, 30]),
            ("tomorrow_s", &[0xf4]),
        ]);
        let facts = facts_of_report(&report, AT).expect("a report");
        let value = |field| facts.of(field).map(|fact| fact.value);
        assert_eq!(value(Field::Firewall), Some(Value::Bool(true)));
        assert_eq!(value(Field::PatchAge), Some(Value::Days(30)));
        assert_eq!(
            value(Field::Platform),
            Some(Value::Platform(Platform::Linux))
        );
        assert_eq!(value(Field::Os), Version::parse("6.1").map(Value::Version));
        assert_eq!(facts.of(Field::Os).map(|fact| fact.at), Some(AT));
        assert_eq!(facts.iter().count(), 4);
    }

    #[test]
    fn a_value_that_does_not_fit_is_missing_and_the_rest_counts() {
        let report = map(&[
            ("os", &[0xf5]),
            ("firewall", &[0x01]),
            ("screen_lock", &[0xf4]),
        ]);
        let facts = facts_of_report(&report, AT).expect("a report");
        assert_eq!(facts.iter().count(), 1);
    }

    #[test]
    fn what_is_no_strict_map_is_no_posture() {
        let firewall = map(&[("firewall", &[0xf5])]);
        let mut trailing = firewall.clone();
        trailing.push(0);
        let twice = map(&[("firewall", &[0xf5]), ("firewall", &[0xf4])]);
        let disorder = map(&[("rooted", &[0xf5]), ("os", &[0xf4])]);
        let nested = map(&[("os", &[0xa0])]);
        let long_number = map(&[("patch_age", &[0x18, 3])]);
        for bad in [
            &[][..],
            &[0xa1],
            &[0xbf, 0xff],
            &[0xbb, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff],
            &[0x80],
            &[0xa1, 0x01, 0xf5],
            &[0xa1, 0x62, 0xff, 0xff, 0xf5],
            &firewall[..firewall.len() - 1],
            &trailing,
            &twice,
            &disorder,
            &nested,
            &long_number,
            &[0; MAX_REPORT + 1],
        ] {
            assert_eq!(facts_of_report(bad, AT), None, "{bad:02x?}");
        }
        assert_eq!(facts_of_report(&[0xa0], AT), Some(Facts::default()));
    }
}
