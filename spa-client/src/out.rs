//! Standard output. A reader who has gone (`| head`) is no error: what was done is done all the same. A disk that takes no more is
//! one, for what was to be read is lost. `spa-gateway` has this file too: the two share no crate that knows of files.

use std::fmt::Arguments;
use std::io::{self, Write};

/// `print!`, without its panic where nobody reads.
macro_rules! out {
    ($($text:tt)*) => {
        $crate::out::say(format_args!($($text)*))
    };
}

/// `println!`, without its panic where nobody reads.
macro_rules! outln {
    ($($text:tt)*) => {
        $crate::out::say(format_args!("{}\n", format_args!($($text)*)))
    };
}

pub(crate) fn say(text: Arguments<'_>) {
    let mut out = io::stdout();
    match write!(out, "{text}").and_then(|()| out.flush()) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
            eprintln!("standard output cannot be written: {error}; what is printed is not whole");
            std::process::exit(1);
        }
        Ok(()) | Err(_) => {}
    }
}
