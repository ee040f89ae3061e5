//! The text of our own files: one `key value` a line under a first line that names kind and version.
//!
//! Strict on reading: an unknown, repeated or missing key is damage, told with its line.

use std::fmt::Write as _;

use zeroize::Zeroizing;

/// A file being written. Its buffer is wiped on drop and large enough never to move.
pub struct Writer(Zeroizing<String>);

/// Room for every file of ours: [`crate::memory`] is the longest.
const ROOM: usize = 32 * 1024;

impl Writer {
    /// Starts a file of this kind and version.
    #[must_use]
    pub fn new(first_line: &str) -> Self {
        let mut text = Zeroizing::new(String::with_capacity(ROOM));
        text.push_str(first_line);
        text.push('\n');
        Self(text)
    }

    /// Adds a line.
    pub fn line(&mut self, key: &str, value: impl std::fmt::Display) {
        // Writing to a String cannot fail.
        let _ = writeln!(self.0, "{key} {value}");
    }

    /// Adds bytes in hex.
    pub fn bytes(&mut self, key: &str, bytes: &[u8]) {
        self.0.push_str(key);
        self.0.push(' ');
        for byte in bytes {
            for nibble in [byte >> 4, byte & 15] {
                self.0.push(char::from(match nibble {
                    0..=9 => b'0' + nibble,
                    _ => b'a' + nibble - 10,
                }));
            }
        }
        self.0.push('\n');
    }

    /// The text.
    #[must_use]
    pub fn text(&self) -> &str {
        &self.0
    }
}

/// One line of a file: its number, key and value.
#[derive(Clone, Copy)]
pub struct Line<'a> {
    number: usize,
    /// The word before the first space.
    pub key: &'a str,
    /// All after it.
    pub value: &'a str,
}

/// Splits a file into lines under the expected first line.
///
/// # Errors
/// A text that says what is wrong.
pub fn lines<'a>(text: &'a str, first_line: &str) -> Result<Vec<Line<'a>>, String> {
    let mut rest = text.lines();
    if rest.next() != Some(first_line) {
        return Err(format!("its first line is not {first_line:?}"));
    }
    rest.enumerate()
        .map(|(index, line)| {
            let number = index + 2;
            let (key, value) = line
                .split_once(' ')
                .ok_or_else(|| format!("line {number}: a key and a value were expected"))?;
            Ok(Line { number, key, value })
        })
        .collect()
}

impl Line<'_> {
    /// What to say of a value that is not what it should be.
    #[must_use]
    pub fn wrong(&self, expected: &str) -> String {
        format!("line {}: {} should be {expected}", self.number, self.key)
    }

    /// What to say of a key we do not know.
    #[must_use]
    pub fn unknown(&self) -> String {
        format!("line {}: unknown key {:?}", self.number, self.key)
    }

    /// Parses the value.
    ///
    /// # Errors
    /// A text that names line and key.
    pub fn parse<T: std::str::FromStr>(&self, expected: &str) -> Result<T, String> {
        self.value.parse().map_err(|_| self.wrong(expected))
    }

    /// Reads `N` bytes in hex.
    ///
    /// # Errors
    /// A text that names line and key.
    pub fn bytes<const N: usize>(&self) -> Result<Zeroizing<[u8; N]>, String> {
        bytes(self.value).ok_or_else(|| self.wrong(&format!("{} hex digits", 2 * N)))
    }
}

/// Reads `N` bytes in hex.
#[must_use]
pub fn bytes<const N: usize>(text: &str) -> Option<Zeroizing<[u8; N]>> {
    if text.len() != 2 * N {
        return None;
    }
    let mut out = Zeroizing::new([0; N]);
    for (byte, pair) in out.iter_mut().zip(text.as_bytes().chunks_exact(2)) {
        let [high, low] = pair else { return None };
        *byte = nibble(*high)? << 4 | nibble(*low)?;
    }
    Some(out)
}

fn nibble(digit: u8) -> Option<u8> {
    match digit {
        b'0'..=b'9' => Some(digit - b'0'),
        b'a'..=b'f' => Some(digit - b'a' + 10),
        _ => None,
    }
}

/// Takes a value out that must be there.
///
/// # Errors
/// A text that names the key.
pub fn required<T>(value: Option<T>, key: &str) -> Result<T, String> {
    value.ok_or_else(|| format!("{key} is missing"))
}

/// Puts a value in that must not be there yet.
///
/// # Errors
/// A text that names line and key.
pub fn once<T>(slot: &mut Option<T>, value: T, line: &Line<'_>) -> Result<(), String> {
    match slot.replace(value) {
        None => Ok(()),
        Some(_) => Err(format!("line {}: {} is there twice", line.number, line.key)),
    }
}
