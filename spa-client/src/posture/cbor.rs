//! The report as it rides in a knock: a CBOR map in the one form a gateway takes (RFC 8949 §4.2.1), ≤ 224 bytes.

use crate::posture::{Fact, Value};

/// The longest report (SPEC §4).
const LONGEST: usize = 224;

/// A map of fewer entries has its length in its first byte.
const MOST: usize = 23;

/// The longest text of a value, bytes; a gateway reads no more than a version out of any.
const LONGEST_TEXT: usize = 32;

/// Writes the facts that are known, in the order given, until one does not fit any more.
pub fn report(facts: &[Fact]) -> Vec<u8> {
    let mut entries: Vec<(&str, Vec<u8>)> = Vec::new();
    let mut length = 1;
    for fact in facts {
        let Some(value) = fact.value.as_ref().filter(|_| fact.fits()) else {
            continue;
        };
        let entry = [text(&fact.name), item(value)].concat();
        if entries.len() == MOST || length + entry.len() > LONGEST {
            break;
        }
        length += entry.len();
        entries.push((&fact.name, entry));
    }
    // Shorter keys first, equal lengths by their bytes: the order of the encoded keys.
    entries.sort_by_key(|(name, _)| (name.len(), *name));
    let mut report = head(5, entries.len() as u64);
    report.extend(entries.into_iter().flat_map(|(_, entry)| entry));
    report
}

fn item(value: &Value) -> Vec<u8> {
    match value {
        Value::Bool(false) => vec![0xf4],
        Value::Bool(true) => vec![0xf5],
        Value::Number(number) => head(0, *number),
        Value::Text(whole) => {
            let mut end = whole.len().min(LONGEST_TEXT);
            while !whole.is_char_boundary(end) {
                end -= 1;
            }
            text(&whole[..end])
        }
    }
}

fn text(text: &str) -> Vec<u8> {
    let mut bytes = head(3, text.len() as u64);
    bytes.extend(text.as_bytes());
    bytes
}

/// Type and argument, as short as can be (RFC 8949 §3).
fn head(kind: u8, argument: u64) -> Vec<u8> {
    let kind = kind << 5;
    let bytes = argument.to_be_bytes();
    match argument {
        0..24 => vec![kind | bytes[7]],
        24..0x100 => vec![kind | 24, bytes[7]],
        0x100..0x1_0000 => [&[kind | 25], &bytes[6..]].concat(),
        0x1_0000..0x1_0000_0000 => [&[kind | 26], &bytes[4..]].concat(),
        0x1_0000_0000.. => [&[kind | 27], &bytes[..]].concat(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use spa_proto::WallTime;

    const AT: WallTime = WallTime::from_millis(1);

    fn fact(name: &str, value: Value) -> Fact {
        Fact::seen(name, value, "a test", AT)
    }

    #[test]
    fn a_report_is_the_bytes_the_gateway_takes() {
        let facts = [
            fact("os", Value::Text("6.1".to_owned())),
            fact("firewall", Value::Bool(true)),
            Fact::unknown("screen_lock", "no desktop", AT),
            fact("patch_age", Value::Number(30)),
        ];
        let mut expected = vec![0xa3, 0x62];
        expected.extend(b"os");
        expected.push(0x63);
        expected.extend(b"6.1");
        expected.push(0x68);
        expected.extend(b"firewall");
        expected.extend([0xf5, 0x69]);
        expected.extend(b"patch_age");
        expected.extend([0x18, 30]);
        assert_eq!(report(&facts), expected);
    }

    #[test]
    fn numbers_are_as_short_as_can_be() {
        assert_eq!(head(0, 23), [23]);
        assert_eq!(head(0, 24), [0x18, 24]);
        assert_eq!(head(0, 255), [0x18, 255]);
        assert_eq!(head(0, 256), [0x19, 1, 0]);
        assert_eq!(head(0, 0x1_0000), [0x1a, 0, 1, 0, 0]);
        assert_eq!(head(0, u64::MAX)[0], 0x1b);
        assert_eq!(head(3, 23), [0x77]);
    }

    #[test]
    fn what_does_not_fit_is_left_out_from_the_end() {
        let facts: Vec<Fact> = (0..40)
            .map(|n| fact(&format!("fact_{n:02}"), Value::Text("é".repeat(40))))
            .collect();
        let report = report(&facts);
        assert!(report.len() <= LONGEST, "{}", report.len());
        assert_eq!(report[0], 0xa5);
        assert!(report.windows(7).any(|w| w == b"fact_00"));
        assert!(!report.windows(7).any(|w| w == b"fact_05"));
    }

    #[test]
    fn a_value_of_the_wrong_shape_is_not_sent() {
        let facts = [
            fact("firewall", Value::Number(1)),
            fact("os", Value::Bool(true)),
        ];
        assert_eq!(report(&facts), [0xa0]);
    }
}
