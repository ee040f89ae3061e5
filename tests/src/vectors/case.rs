//! One vector: reading its fields, comparing values, counting the outcome.

use std::collections::BTreeSet;
use std::path::Path;

use serde_json::{Map, Value};
use spa_gateway_core::Refusal;

/// What went wrong in a case: the first value that differs, in one line.
#[derive(Debug)]
pub struct Failure(String);

impl Failure {
    /// Says it in words.
    pub fn new(what: impl Into<String>) -> Self {
        Self(what.into())
    }

    /// Says where in the case.
    #[must_use]
    pub fn within(self, place: &str) -> Self {
        Self(format!("{place}: {}", self.0))
    }
}

/// The outcome of one case, or of a part of it.
pub type Checked<T = ()> = Result<T, Failure>;

/// Counts cases and prints a line for each that fails.
#[derive(Debug, Default)]
pub struct Report {
    /// Cases in which every value agrees.
    pub passed: u64,
    /// Cases in which one differs, and files that cannot be checked.
    pub failed: u64,
    /// Every refusal that the core gave in a case.
    pub met: BTreeSet<Refusal>,
}

impl Report {
    /// Runs `check` on each case of the list `list`, which is called `kind` in failure lines.
    pub fn each(&mut self, kind: &str, list: &Value, mut check: impl FnMut(&Case<'_>) -> Checked) {
        let Some(list) = list.as_array() else {
            self.failed += 1;
            println!("FAIL {kind}: there is no such list of vectors");
            return;
        };
        for (index, value) in list.iter().enumerate() {
            let name = value["name"].as_str().unwrap_or("-");
            let case = value.as_object().map(|fields| Case { fields });
            let checked = case
                .ok_or_else(|| Failure::new("is no object"))
                .and_then(|case| check(&case));
            match (checked, value["unspecified"].as_str()) {
                (Ok(()), _) => self.passed += 1,
                (Err(Failure(what)), None | Some("")) => {
                    self.failed += 1;
                    println!("FAIL {kind} {name} #{index}: {what}");
                }
                // The spec leaves it open: reported, not failed.
                (Err(Failure(what)), Some(why)) => {
                    self.passed += 1;
                    println!("note {kind} {name} #{index}: {what} (unspecified: {why})");
                }
            }
        }
    }

    /// Counts a file or folder that cannot be checked at all.
    pub fn broken(&mut self, path: &Path, why: &str) {
        self.failed += 1;
        println!("FAIL {}: {why}", path.display());
    }
}

/// The fields of one vector.
#[derive(Clone, Copy)]
pub struct Case<'a> {
    fields: &'a Map<String, Value>,
}

impl<'a> Case<'a> {
    /// A field that is an object.
    pub fn object(&self, name: &str) -> Checked<Case<'a>> {
        let fields = self
            .value(name)?
            .as_object()
            .ok_or_else(|| wrong(name, "an object"))?;
        Ok(Case { fields })
    }

    /// A field as it stands; absent is a failure.
    pub fn value(&self, name: &str) -> Checked<&'a Value> {
        self.fields.get(name).ok_or_else(|| wrong(name, "there"))
    }

    /// Whether a field is there and not null.
    pub fn has(&self, name: &str) -> bool {
        self.fields.get(name).is_some_and(|value| !value.is_null())
    }

    /// A text.
    pub fn text(&self, name: &str) -> Checked<&'a str> {
        self.value(name)?
            .as_str()
            .ok_or_else(|| wrong(name, "a text"))
    }

    /// An integer up to 2^64 − 1, read exactly.
    pub fn u64(&self, name: &str) -> Checked<u64> {
        self.value(name)?
            .as_u64()
            .ok_or_else(|| wrong(name, "an integer of 64 bits"))
    }

    /// An integer that fits `T`.
    pub fn int<T: TryFrom<u64>>(&self, name: &str) -> Checked<T> {
        T::try_from(self.u64(name)?).map_err(|_| wrong(name, "in range"))
    }

    /// A truth value.
    pub fn bool(&self, name: &str) -> Checked<bool> {
        self.value(name)?
            .as_bool()
            .ok_or_else(|| wrong(name, "true or false"))
    }

    /// Bytes in hex.
    pub fn bytes(&self, name: &str) -> Checked<Vec<u8>> {
        unhex(self.text(name)?).ok_or_else(|| wrong(name, "hex"))
    }

    /// Exactly `N` bytes in hex.
    pub fn array<const N: usize>(&self, name: &str) -> Checked<[u8; N]> {
        self.bytes(name)?
            .try_into()
            .map_err(|_| wrong(name, &format!("{N} bytes of hex")))
    }

    /// A list of objects.
    pub fn cases(&self, name: &str) -> Checked<Vec<Case<'a>>> {
        let list = self
            .value(name)?
            .as_array()
            .ok_or_else(|| wrong(name, "a list"))?;
        let case = |value: &'a Value| value.as_object().map(|fields| Case { fields });
        list.iter()
            .map(|value| case(value).ok_or_else(|| wrong(name, "a list of objects")))
            .collect()
    }

    /// The names of all fields, in order.
    pub fn names(&self) -> impl Iterator<Item = &'a str> {
        self.fields.keys().map(String::as_str)
    }

    /// Compares bytes with a field.
    pub fn same(&self, name: &str, found: &[u8]) -> Checked {
        let expected = self.bytes(name)?;
        if expected == found {
            Ok(())
        } else {
            Err(differs(name, &hex(&expected), &hex(found)))
        }
    }

    /// Compares named bytes with the fields of these names.
    pub fn all_same(&self, found: &[(&'static str, Vec<u8>)]) -> Checked {
        found
            .iter()
            .try_for_each(|(name, value)| self.same(name, value))
    }

    /// Compares an integer with a field.
    pub fn same_int(&self, name: &str, found: impl Into<u64>) -> Checked {
        equal(name, &self.u64(name)?, &found.into())
    }

    /// Compares a truth value with a field.
    pub fn same_bool(&self, name: &str, found: bool) -> Checked {
        equal(name, &self.bool(name)?, &found)
    }
}

/// Compares any two values under a name.
pub fn equal<T: PartialEq + std::fmt::Debug + ?Sized>(
    name: &str,
    expected: &T,
    found: &T,
) -> Checked {
    if expected == found {
        Ok(())
    } else {
        Err(differs(
            name,
            &format!("{expected:?}"),
            &format!("{found:?}"),
        ))
    }
}

/// Demands what a vector says must hold.
pub fn holds(what: &str, is_so: bool) -> Checked {
    if is_so {
        Ok(())
    } else {
        Err(Failure::new(format!("{what} does not hold")))
    }
}

/// Says in a failure line what was refused.
pub fn refused<E: std::fmt::Debug>(what: &'static str) -> impl Fn(E) -> Failure {
    move |error| Failure::new(format!("{what} is refused: {error:?}"))
}

/// Lower-case hex.
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The inverse of [`hex`].
pub fn unhex(text: &str) -> Option<Vec<u8>> {
    let (pairs, []) = text.as_bytes().as_chunks::<2>() else {
        return None;
    };
    let digit = |c: u8| {
        char::from(c)
            .to_digit(16)
            .filter(|_| !c.is_ascii_uppercase())
    };
    let byte = |&[high, low]: &[u8; 2]| u8::try_from(digit(high)? << 4 | digit(low)?).ok();
    pairs.iter().map(byte).collect()
}

fn wrong(name: &str, what: &str) -> Failure {
    Failure(format!("the vector's {name} is not {what}"))
}

fn differs(name: &str, expected: &str, found: &str) -> Failure {
    Failure(format!("{name} is {found}, expected {expected}"))
}
