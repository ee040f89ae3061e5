//! What each session was told: the last few events, for a client that was away, and a bell for one that listens.
//!
//! Invariant: an event costs the same whether its reader is fast, slow or gone. Nothing waits for a reader.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, VecDeque};
use std::rc::Rc;

use spa_proto::SessionId;
use spa_proto::channel::Event;
use tokio::sync::Notify;
use tokio::sync::futures::Notified;

use super::calls::json;

/// How many events of a session are kept.
const KEPT: usize = 16;
/// The most sessions of which events are kept: as many as there can be peers.
const MOST: usize = spa_order::MAX_PEERS as usize;

/// Those of all sessions.
#[derive(Default)]
pub struct Rings(RefCell<BTreeMap<SessionId, Rc<Ring>>>);

/// Those of one session.
#[derive(Default)]
pub struct Ring {
    kept: RefCell<VecDeque<(u64, String)>>,
    last: Cell<u64>,
    over: Cell<bool>,
    /// Counts the streams; all but the newest end.
    stream: Cell<u64>,
    bell: Notify,
}

impl Rings {
    /// Keeps an event. The last one of a session takes the rest with it, once its reader has it.
    pub fn tell(&self, session: SessionId, event: &Event) {
        let Some(ring) = self.of(session) else {
            return;
        };
        let ended = matches!(event, Event::Ended(_));
        ring.keep(json(event), ended);
        if ended {
            self.0.borrow_mut().remove(&session);
        }
    }

    /// Begins to read those of a session.
    pub fn read(&self, session: SessionId) -> Option<Rc<Ring>> {
        let ring = self.of(session)?;
        ring.stream.set(ring.stream.get().wrapping_add(1));
        ring.bell.notify_waiters();
        Some(ring)
    }

    fn of(&self, session: SessionId) -> Option<Rc<Ring>> {
        let mut rings = self.0.borrow_mut();
        if rings.len() >= MOST && !rings.contains_key(&session) {
            return None;
        }
        Some(Rc::clone(rings.entry(session).or_default()))
    }
}

impl Ring {
    fn keep(&self, data: String, ended: bool) {
        let id = self.last.get().wrapping_add(1);
        self.last.set(id);
        self.over.set(ended);
        let mut kept = self.kept.borrow_mut();
        if kept.len() >= KEPT {
            kept.pop_front();
        }
        kept.push_back((id, data));
        self.bell.notify_waiters();
    }

    /// Gives the number of the stream that is read now.
    pub fn stream(&self) -> u64 {
        self.stream.get()
    }

    /// Says whether nothing more will come.
    pub fn is_over(&self) -> bool {
        self.over.get()
    }

    /// Gives what came after `seen`, written as a stream of events, and the last one's number.
    pub fn after(&self, seen: u64) -> (String, u64) {
        let mut text = String::new();
        // A client that names an event that is still to come has those of another session in mind.
        let seen = if seen > self.last.get() { 0 } else { seen };
        for (id, data) in self.kept.borrow().iter().filter(|(id, _)| *id > seen) {
            text.push_str(&format!("id: {id}\ndata: {data}\n\n"));
        }
        (text, self.last.get())
    }

    /// Waits until there is more than when this was called.
    pub fn wait(&self) -> Notified<'_> {
        self.bell.notified()
    }
}

#[cfg(test)]
mod tests {
    use spa_proto::WallTime;
    use spa_proto::channel::{Ended, Rekeyed};

    use super::*;

    const SESSION: SessionId = SessionId::from_bytes([7; 8]);

    fn rekeyed(at: u64) -> Event {
        Event::Rekeyed(Rekeyed {
            at: WallTime::from_millis(at),
        })
    }

    #[test]
    fn a_reader_that_was_away_gets_the_last_sixteen_and_then_only_what_is_new() {
        let rings = Rings::default();
        for at in 1..=20 {
            rings.tell(SESSION, &rekeyed(at));
        }
        let ring = rings.read(SESSION).expect("room");
        let (text, seen) = ring.after(0);
        assert_eq!((text.matches("data:").count(), seen), (KEPT, 20));
        assert!(
            text.starts_with("id: 5\ndata: {\"event\":\"rekeyed\",\"at\":5}\n\n"),
            "{text}"
        );
        assert_eq!(ring.after(20), (String::new(), 20));
        rings.tell(SESSION, &rekeyed(21));
        assert_eq!(ring.after(20).0.matches("data:").count(), 1);
        // Of another session, or made up.
        assert_eq!(ring.after(99).0.matches("data:").count(), KEPT);
    }

    #[test]
    fn the_end_is_kept_for_whoever_reads_and_for_nobody_else() {
        let rings = Rings::default();
        let ring = rings.read(SESSION).expect("room");
        let ended = Event::Ended(Ended {
            reason: "cut".into(),
            text: "cut by an administrator".into(),
        });
        rings.tell(SESSION, &ended);
        assert!(ring.is_over());
        assert!(ring.after(0).0.contains("cut by an administrator"));
        assert!(rings.0.borrow().is_empty());
    }

    #[test]
    fn a_newer_stream_ends_the_older_one() {
        let rings = Rings::default();
        let first = rings.read(SESSION).expect("room").stream();
        let second = rings.read(SESSION).expect("room").stream();
        assert_ne!(first, second);
    }
}
