#![forbid(unsafe_code)]
//! A town on a virtual clock: gateways that crash, an enforcer that fails, clients behind NATs, a network that loses,
//! repeats and reorders, and an attacker who hears it all. After every step the promises are checked.
//!
//! ```text
//! seed ── dice ──┐
//!                ├─ Event ── Town ── Host (Gateway, store, kernel) ── Broken?
//! fuzzer ─ bytes ┘            └───── Judge: what an obvious gateway would have done
//! ```
//!
//! Enrolling has a town of its own ([`enrolment`]): invites, laptops, a thief, the same network and the same crashes.
//!
//! Everything that happens is in the row of events, so a row is a run: [`run`] gives the first broken promise,
//! [`shrink`] makes the row shorter as long as it breaks.

mod client;
mod dice;
mod disk;
pub mod enrolment;
pub mod event;
mod host;
mod judge;
mod kernel;
mod network;
mod place;
mod shrink;
mod store;
mod town;
mod turns;

pub use dice::Dice;
pub use event::Event;
pub use shrink::shrink;
pub use town::{Broken, Tally, run};

/// Gives the events of a seed.
#[must_use]
pub fn events_of(seed: u64) -> Vec<Event> {
    row_of(seed, Event::read)
}

/// Reads 40 events and more off the dice of a seed.
fn row_of<E>(seed: u64, read: impl Fn(&mut dyn FnMut() -> u8) -> E) -> Vec<E> {
    let mut dice = Dice::new(seed);
    let count = 40 + usize::from(dice.byte()) / 2;
    (0..count).map(|_| read(&mut || dice.byte())).collect()
}

/// The most events of a fuzzer's input, so that it stays fast.
const MOST_EVENTS: usize = 100;

/// Gives the events a fuzzer's bytes mean.
#[must_use]
pub fn events_from(data: &[u8]) -> Vec<Event> {
    let mut bytes = data.iter().copied();
    let mut events = Vec::new();
    while bytes.len() > 0 && events.len() < MOST_EVENTS {
        events.push(Event::read(&mut || bytes.next().unwrap_or(0)));
    }
    events
}
