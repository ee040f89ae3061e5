//! A shorter row of events that still breaks a promise.

use crate::town::Broken;

/// Drops events, in ever smaller pieces, as long as what is left still breaks.
#[must_use]
pub fn shrink<E: Clone, T>(mut events: Vec<E>, run: impl Fn(&[E]) -> Result<T, Broken>) -> Vec<E> {
    // What comes after the break did not cause it.
    if let Err(broken) = run(&events) {
        events.truncate(broken.at.saturating_add(1));
    }
    let mut piece = events.len().div_ceil(2).max(1);
    loop {
        let before = events.len();
        let mut at = 0;
        while at < events.len() {
            let end = (at + piece).min(events.len());
            let fewer = [&events[..at], &events[end..]].concat();
            if run(&fewer).is_err() {
                events = fewer;
            } else {
                at = end;
            }
        }
        if piece == 1 && events.len() == before {
            return events;
        }
        piece = (piece / 2).max(1);
    }
}
