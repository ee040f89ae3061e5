//! Points where a test stops a program, to kill it, or another, exactly there; and the clock that a test sets.
//!
//! A point stands before and after each effect of a grant and of its end. Invariant: a build without
//! `debug_assertions`, which every release is, has none: `reach` is empty there, and nothing looks at the
//! environment. `tests/tree/main.rs` holds the release profile to it.

#![forbid(unsafe_code)]

use std::process::Command;

/// Names the point at which to stop, such as "daemon after flow".
#[cfg(debug_assertions)]
const PAUSE_AT: &str = "SPA_PAUSE_AT";

/// Names the file with the milliseconds by which the calendar clock is shifted, read each time.
#[cfg(debug_assertions)]
const CLOCK_SHIFT: &str = "SPA_CLOCK_SHIFT";

/// Gives by how much a test shifts the calendar clock, milliseconds: the machine's own is everybody's.
#[must_use]
#[cfg(debug_assertions)]
pub fn clock_shift() -> i64 {
    let shift = |file| {
        let text = std::fs::read_to_string(file).ok()?;
        text.trim().parse().ok()
    };
    std::env::var_os(CLOCK_SHIFT).and_then(shift).unwrap_or(0)
}

/// Nothing.
#[must_use]
#[cfg(not(debug_assertions))]
#[inline(always)]
pub const fn clock_shift() -> i64 {
    0
}

/// Stops here for ever, after saying so, if a test wants it.
#[cfg(debug_assertions)]
pub fn reach(program: &str, when: &str, what: &str) {
    let here = format!("{program} {when} {what}");
    if std::env::var_os(PAUSE_AT).is_some_and(|wanted| wanted == here.as_str()) {
        eprintln!("paused: {here}");
        loop {
            std::thread::park();
        }
    }
}

/// Nothing.
#[cfg(not(debug_assertions))]
#[inline(always)]
pub const fn reach(_program: &str, _when: &str, _what: &str) {}

/// Lets a program that is started with an empty environment know too.
#[cfg(debug_assertions)]
pub fn hand_on(command: &mut Command) {
    if let Some(point) = std::env::var_os(PAUSE_AT) {
        command.env(PAUSE_AT, point);
    }
}

/// Nothing.
#[cfg(not(debug_assertions))]
#[inline(always)]
pub const fn hand_on(_command: &mut Command) {}
