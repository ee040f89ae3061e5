//! What is wrong with a policy file: where, what, and what to do.

use alloc::string::String;
use core::fmt;

/// The first error of a policy file.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct PolicyError {
    /// The line, from 1.
    pub line: usize,
    /// The column in characters, from 1.
    pub column: usize,
    /// What is wrong.
    pub what: String,
    /// What to do about it.
    pub remedy: String,
}

impl PolicyError {
    /// Places an error at a byte of the text.
    pub(super) fn at(text: &str, offset: usize, what: String, remedy: String) -> Self {
        let before = text.get(..offset).unwrap_or(text);
        let line_start = before.rfind('\n').map_or(0, |newline| newline + 1);
        Self {
            line: before.matches('\n').count() + 1,
            column: before.get(line_start..).unwrap_or("").chars().count() + 1,
            what,
            remedy,
        }
    }
}

impl fmt::Display for PolicyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "line {}, column {}: {}; {}",
            self.line, self.column, self.what, self.remedy
        )
    }
}

impl core::error::Error for PolicyError {}
