//! Waiting for a condition, never for a time.

use std::io;
use std::time::{Duration, Instant};

/// How long any condition may take on a busy machine.
const PATIENCE: Duration = Duration::from_secs(10);
/// Between two looks.
const PAUSE: Duration = Duration::from_millis(2);

/// Waits until `look` gives something; panics with `what` if it never does.
pub fn until<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(Instant::now() < deadline, "in vain: {what}");
        std::thread::park_timeout(PAUSE);
    }
}

/// Does it again when a signal came between: with a time-out on its socket the kernel does not do so itself.
pub fn uninterrupted<T>(mut call: impl FnMut() -> io::Result<T>) -> Result<T, io::ErrorKind> {
    loop {
        match call() {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            outcome => return outcome.map_err(|error| error.kind()),
        }
    }
}
