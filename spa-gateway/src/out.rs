//! Standard output. A reader who has gone (`| head`) is no error: what was done is done all the same. A disk that takes no more is
//! one, for what was to be read is lost.

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
    heard(write!(io::stdout(), "{text}"));
}

pub(crate) fn line(text: Arguments<'_>) {
    heard(writeln!(io::stdout(), "{text}"));
}

fn heard(said: io::Result<()>) {
    match said.and_then(|()| io::stdout().flush()) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
            eprintln!("standard output cannot be written: {error}; what was asked for is done");
            std::process::exit(1);
        }
        Ok(()) | Err(_) => {}
    }
}
