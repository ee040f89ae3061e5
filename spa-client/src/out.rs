//! Standard output, which may have no reader any more (`| head`): what was done is done all the same.

use std::fmt::Arguments;
use std::io::{self, Write};

/// `print!`, without its panic where nobody reads.
macro_rules! out {
    ($($text:tt)*) => {
        $crate::out::text(format_args!($($text)*))
    };
}

/// `println!`, without its panic where nobody reads.
macro_rules! outln {
    ($($text:tt)*) => {
        $crate::out::line(format_args!($($text)*))
    };
}

pub(crate) fn text(text: Arguments<'_>) {
    let _ = write!(io::stdout(), "{text}");
}

pub(crate) fn line(text: Arguments<'_>) {
    let _ = writeln!(io::stdout(), "{text}");
}
