//! How much a session may: its connections and its requests. A session is the tunnel address it calls from, which
//! WireGuard lets nobody else use.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::net::IpAddr;
use std::rc::Rc;
use std::time::{Duration, Instant};

use super::Desk;

/// The most connections of one session: its events, its calls, and some that are about to close.
const CONNECTIONS: u32 = 4;
/// How many requests a session may make at once.
const BURST: u32 = 20;
/// How long until it may make another.
const EVERY: Duration = Duration::from_millis(500);
/// From how many on those that have been quiet are forgotten.
const SWEEP_FROM: usize = 1024;

/// Who is here.
pub struct Guests {
    most: usize,
    state: RefCell<State>,
}

#[derive(Default)]
struct State {
    connections: usize,
    guests: BTreeMap<IpAddr, Guest>,
}

struct Guest {
    connections: u32,
    /// Requests left, as time: each costs [`EVERY`].
    credit: Duration,
    at: Instant,
}

/// A connection that counts; gives its place back when it is dropped.
pub struct Seat {
    pub desk: Rc<Desk>,
    pub source: IpAddr,
}

impl Guests {
    pub fn new(most: usize) -> Self {
        Self {
            most,
            state: RefCell::default(),
        }
    }

    /// Gives a connection its place, if there is one.
    pub fn seat(desk: &Rc<Desk>, source: IpAddr) -> Option<Seat> {
        let guests = &desk.guests;
        let state = &mut *guests.state.borrow_mut();
        if state.connections >= guests.most {
            return None;
        }
        let now = Instant::now();
        if state.guests.len() >= SWEEP_FROM && !state.guests.contains_key(&source) {
            state.guests.retain(|_, guest| !guest.is_quiet(now));
        }
        let guest = state.guests.entry(source).or_insert_with(|| Guest {
            connections: 0,
            credit: EVERY * BURST,
            at: now,
        });
        if guest.connections >= CONNECTIONS {
            return None;
        }
        guest.connections += 1;
        state.connections += 1;
        Some(Seat {
            desk: Rc::clone(desk),
            source,
        })
    }
}

impl Seat {
    /// Counts a request.
    ///
    /// # Errors
    /// How long to wait, if there were too many.
    pub fn request(&self) -> Result<(), Duration> {
        let mut state = self.desk.guests.state.borrow_mut();
        let Some(guest) = state.guests.get_mut(&self.source) else {
            return Err(EVERY);
        };
        guest.fill(Instant::now());
        match guest.credit.checked_sub(EVERY) {
            Some(left) => {
                guest.credit = left;
                Ok(())
            }
            None => Err(EVERY - guest.credit),
        }
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        let state = &mut *self.desk.guests.state.borrow_mut();
        state.connections = state.connections.saturating_sub(1);
        if let Some(guest) = state.guests.get_mut(&self.source) {
            guest.connections = guest.connections.saturating_sub(1);
        }
    }
}

impl Guest {
    fn fill(&mut self, now: Instant) {
        let gained = now.saturating_duration_since(self.at);
        self.credit = self.credit.saturating_add(gained).min(EVERY * BURST);
        self.at = now;
    }

    /// Says whether forgetting it gives it nothing.
    fn is_quiet(&mut self, now: Instant) -> bool {
        self.fill(now);
        self.connections == 0 && self.credit == EVERY * BURST
    }
}
