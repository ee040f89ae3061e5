//! Waiting for a condition, never for a time.

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
