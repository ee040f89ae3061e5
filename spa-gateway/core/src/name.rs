//! Names of people, groups and resources: one spelling everywhere, safe to print.

use alloc::boxed::Box;
use core::borrow::Borrow;
use core::fmt;
use core::ops::Deref;

/// The longest name, bytes.
pub const MAX_NAME: usize = 48;

/// A name of 1 to [`MAX_NAME`] characters out of `a–z A–Z 0–9 . _ @ -`, beginning with a letter or digit.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Name(Box<str>);

/// A text that is no [`Name`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct NotAName;

impl Name {
    /// Takes a text that is a name.
    ///
    /// # Errors
    /// If it is empty, too long, or has any other character.
    pub fn parse(text: &str) -> Result<Self, NotAName> {
        let plain =
            |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'@' | b'-');
        let begins_well = text
            .bytes()
            .next()
            .is_some_and(|byte| byte.is_ascii_alphanumeric());
        if begins_well && text.len() <= MAX_NAME && text.bytes().all(plain) {
            Ok(Self(text.into()))
        } else {
            Err(NotAName)
        }
    }

    /// Gives the text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl Deref for Name {
    type Target = str;

    fn deref(&self) -> &str {
        &self.0
    }
}

impl Borrow<str> for Name {
    fn borrow(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Display for NotAName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "a name is 1 to {MAX_NAME} letters, digits and . _ @ -, and begins with a letter or digit"
        )
    }
}

impl core::error::Error for NotAName {}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::string::String;

    #[test]
    fn a_name_cannot_carry_spaces_or_escapes_to_a_terminal() {
        for bad in [
            "",
            " a",
            "a b",
            "a\u{1b}[2J",
            "ä",
            "-a",
            ".a",
            "a/b",
            "user:a",
        ] {
            assert_eq!(Name::parse(bad), Err(NotAName), "{bad:?}");
        }
        for good in ["a", "ana.maria@example.org", "db-2_x", "9lives"] {
            assert!(Name::parse(good).is_ok(), "{good}");
        }
    }

    #[test]
    fn a_name_reaches_its_longest_and_not_beyond() {
        let longest: String = core::iter::repeat_n('a', MAX_NAME).collect();
        assert!(Name::parse(&longest).is_ok());
        assert!(Name::parse(&(longest + "a")).is_err());
    }
}
