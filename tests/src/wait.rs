//! How a test waits: on a condition, with a limit, and with words for what did not happen.

use std::time::{Duration, Instant};

use anyhow::bail;

/// How long a condition rests between two looks.
const GLANCE: Duration = Duration::from_millis(5);

/// Looks at `condition` until it gives a value, and fails with `what` and the time waited once `limit` is over.
///
/// # Errors
/// When the condition still gives nothing at the limit.
pub fn wait_until<T>(
    what: &str,
    limit: Duration,
    mut condition: impl FnMut() -> Option<T>,
) -> anyhow::Result<T> {
    let limit = limit.saturating_mul(slowness());
    match watch(limit, &mut condition) {
        Some(value) => Ok(value),
        None => bail!("{what}: not within {} ms", limit.as_millis()),
    }
}

/// How many times as long things may take to come about: an emulated machine is no slower to say no.
fn slowness() -> u32 {
    std::env::var("SPA_TEST_SLOWNESS")
        .ok()
        .and_then(|factor| factor.parse().ok())
        .unwrap_or(1)
}

/// Watches for something that should not happen: the first value `event` gives within `span`, if any.
///
/// Absence needs a length of time to be absent for, so this is the one place where time passes on purpose.
pub fn watch<T>(span: Duration, mut event: impl FnMut() -> Option<T>) -> Option<T> {
    let begun = Instant::now();
    loop {
        if let Some(value) = event() {
            return Some(value);
        }
        let left = span.checked_sub(begun.elapsed())?;
        std::thread::park_timeout(GLANCE.min(left));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_condition_that_never_comes_is_named() {
        let error = wait_until("the moon", Duration::from_millis(20), || None::<()>).unwrap_err();
        assert!(error.to_string().starts_with("the moon: not within 20 ms"));
    }

    #[test]
    fn a_condition_is_seen_as_soon_as_it_holds() {
        let mut looks = 0;
        let seen = wait_until("three looks", Duration::from_secs(5), || {
            looks += 1;
            (looks == 3).then_some(looks)
        });
        assert_eq!(seen.unwrap(), 3);
    }
}
