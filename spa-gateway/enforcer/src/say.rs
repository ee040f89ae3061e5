//! Says a line on standard error, or says nothing: a log that cannot be written any more, its disk being full, is no reason
//! to end, and `eprintln!` would.

use std::fmt::Display;
use std::io::{self, Write};

/// Says one line.
pub fn say(line: impl Display) {
    // Nobody is left to be told.
    let _ = writeln!(io::stderr(), "spa-enforcer: {line}");
}
