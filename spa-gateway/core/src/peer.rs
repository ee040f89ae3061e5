//! Doors and what is seen through them: a peer that shakes hands gets a door of its own for as long
//! as its session lasts; one that does not in time is withdrawn (SPEC §11).

use core::net::SocketAddr;
use core::num::NonZeroU16;
use core::time::Duration;

use spa_order::{Door, Order, Ttl};
use spa_proto::SessionId;

use crate::agenda::Timer;
use crate::audit::AuditKind;
use crate::closing::EndReason;
use crate::effect::EffectKind;
use crate::gateway::Gateway;
use crate::outbox::Waiter;
use crate::session::{Doorway, Phase, Session};
use crate::time::{Moment, Now};

/// How often a peer is looked at whose door waits: a person waits for what follows.
pub const LOOK_WHILE_WAITING: Duration = Duration::from_millis(25);
/// Each time the sessions are twice as many beyond these, the looks are half as many: a listing costs some 35 µs for each peer,
/// all processes together, and is to take a tenth of a processor at most.
pub const SESSIONS_A_LOOK: usize = 32;
/// One look is in this last part of a door's wait, however many there are: a handshake must be seen before it is over.
pub const LAST_LOOK: Duration = LOOK_WHILE_WAITING.saturating_mul(32);
/// How often when it has waited longer than [`LATE`].
pub const LOOK_AT_LATE: Duration = Duration::from_millis(100);
/// Most handshakes take a round trip; a peer that takes longer is not about to come.
pub const LATE: Duration = Duration::from_secs(1);
/// How often the peer of a live session is looked at.
pub const LOOK_WHILE_LIVE: Duration = Duration::from_secs(5);

/// What WireGuard knows of a peer.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct PeerState {
    /// Where it was last heard from.
    pub endpoint: Option<SocketAddr>,
    /// How long ago its last handshake was, milliseconds; `None` before the first.
    pub handshake_age_ms: Option<u64>,
    /// Bytes received from it.
    pub rx: u64,
    /// Bytes sent to it.
    pub tx: u64,
}

impl Gateway {
    /// Hears what was seen of a peer; `None`: WireGuard has no such peer.
    pub fn handle_peer(&mut self, wg_key: [u8; 32], state: Option<PeerState>, now: Now) {
        let Some(id) = self.sessions.with_peer(&wg_key) else {
            return;
        };
        let Some(session) = self
            .sessions
            .of_mut(id)
            .filter(|session| session.phase == Phase::Open)
        else {
            return;
        };
        if let Some(look) = session.seen.looking.take() {
            // It is answered here, so nobody waits for its outcome.
            self.outbox.waiter(look);
        }
        let Some(state) = state else {
            return self.end_session(id, EndReason::PeerGone, now);
        };
        session.seen.endpoint = state.endpoint;
        session.seen.rx = state.rx;
        session.seen.tx = state.tx;
        if let Some(door) = session.found(&state) {
            self.settle(id, door, now);
        }
        self.look_for_rekeyed(id, state.handshake_age_ms, now);
        self.look_later(id, now);
        self.give_up_late(id, now);
    }

    /// Begins to look at a peer.
    pub(crate) fn watch(&mut self, id: SessionId, now: Now) {
        let waits = |session: &Session| matches!(session.doorway, Doorway::Waiting { .. });
        if self.sessions.of(id).is_some_and(waits) {
            // Among many not at once: a listing for each that comes is what they are looked at rarely for.
            return self.look_later(id, now);
        }
        let at = now.mono.next_of(LOOK_WHILE_WAITING);
        self.agenda.set(Timer::Observe(id), at);
    }

    /// It is time to look at a peer.
    pub(crate) fn look(&mut self, id: SessionId, now: Now) {
        let Some(session) = self
            .sessions
            .of_mut(id)
            .filter(|session| session.phase == Phase::Open)
        else {
            return;
        };
        if session.seen.looking.is_none() {
            let observe = EffectKind::Observe {
                wg_key: session.wg_key,
            };
            session.seen.looking = Some(self.outbox.put(observe, Waiter::Looking(id)));
        }
        self.look_later(id, now);
    }

    /// Hears that a peer could not be looked at: the next look may.
    pub(crate) fn look_failed(&mut self, id: SessionId, now: Now) {
        if let Some(session) = self.sessions.of_mut(id) {
            session.seen.looking = None;
        }
        self.give_up_late(id, now);
    }

    fn look_later(&mut self, id: SessionId, now: Now) {
        let Some(session) = self.sessions.of(id) else {
            return;
        };
        let pace = pace_among(self.sessions.count());
        let at = match session.doorway {
            Doorway::Waiting { until, .. } => {
                look_at_door(until, self.settings.door, pace, now.mono)
            }
            // Its person waits for it, if policy does.
            Doorway::Settled { .. } | Doorway::Shut
                if session.upkeep.awaits_handshake(now.mono) =>
            {
                now.mono.next_of(LOOK_WHILE_WAITING)
            }
            Doorway::Settled { .. } | Doorway::Shut => now.mono.next_of(LOOK_WHILE_LIVE.max(pace)),
        };
        self.agenda.set(Timer::Observe(id), at);
    }

    /// Opens the door of the peer's endpoint; the wide one closes once that is confirmed.
    fn settle(&mut self, id: SessionId, door: Door, now: Now) {
        let Some(until) = self.sessions.of(id).map(|session| session.terms.deadline) else {
            return;
        };
        if let Some(order) = self.hold_door(id, door, until, now) {
            self.outbox
                .put(EffectKind::Order(order), Waiter::Settling(id, door));
            if let Some(session) = self.sessions.of_mut(id) {
                session.seen.settling = session.door();
            }
        }
    }

    /// Hears what became of it. If it failed, the next look tries again as long as the door waits.
    pub(crate) fn settled(&mut self, id: SessionId, door: Door, opened: bool, now: Now) {
        let Some(session) = self.sessions.of_mut(id) else {
            return;
        };
        let from = session.seen.settling.take();
        // Moved on meanwhile (ROAM, or ended): the door it waits at now is what counts.
        let waits = matches!(session.doorway, Doorway::Waiting { door, .. } if Some(door) == from);
        if session.phase != Phase::Open || !waits || !opened {
            self.leave_doors(id, now);
            return self.give_up_late(id, now);
        }
        let first = !core::mem::replace(&mut session.seen.handshake, true);
        session.doorway = Doorway::Settled { door };
        self.agenda.cancel(Timer::Door(id));
        self.leave_doors(id, now);
        if first {
            self.report_live(id, now);
        }
    }

    fn report_live(&mut self, id: SessionId, now: Now) {
        let Some(session) = self.sessions.of(id) else {
            return;
        };
        let mut audit = self.audit_of(session.credential, AuditKind::SessionLive, now);
        audit.session = Some(id);
        audit.source = session.seen.endpoint;
        self.put_audit(audit);
    }

    /// Gives up a door whose time ended while a look or an order for it was under way, once that is answered.
    fn give_up_late(&mut self, id: SessionId, now: Now) {
        let over = self.sessions.of(id).is_some_and(|session| {
            session.phase == Phase::Open
                && matches!(session.doorway, Doorway::Waiting { until, .. } if until <= now.mono)
        });
        if over {
            self.door_expired(id, now);
        }
    }

    /// A door has waited long enough.
    pub(crate) fn door_expired(&mut self, id: SessionId, now: Now) {
        let Some(session) = self.sessions.of_mut(id) else {
            return;
        };
        let asked = session.seen.looking.is_some() || session.seen.settling.is_some();
        if asked && session.phase == Phase::Open {
            // Whoever works us was late: what the last look says is heard first. The kernel has shut the door meanwhile.
            return;
        }
        if !session.seen.handshake {
            return self.end_session(id, EndReason::NoHandshake, now);
        }
        // It roamed and did not come: its session goes on, to be roamed again.
        session.doorway = Doorway::Shut;
        self.leave_doors(id, now);
    }

    /// Gives the order for a door that waits for a handshake.
    pub(crate) fn open_waiting_door(
        &mut self,
        id: SessionId,
        door: Door,
        now: Now,
    ) -> Option<Order> {
        let until = now.mono.after(self.settings.door);
        let order = self.hold_door(id, door, until, now)?;
        if let Some(session) = self.sessions.of_mut(id) {
            session.seen.moved |= session.phase == Phase::Open;
            session.doorway = Doorway::Waiting { door, until };
        }
        self.agenda.set(Timer::Door(id), until);
        self.watch(id, now);
        Some(order)
    }

    /// Gives the order for a door of a peer that is known already.
    pub(crate) fn open_settled_door(
        &mut self,
        id: SessionId,
        door: Door,
        now: Now,
    ) -> Option<Order> {
        let until = self.sessions.of(id)?.terms.deadline;
        let order = self.hold_door(id, door, until, now)?;
        if let Some(session) = self.sessions.of_mut(id) {
            session.doorway = Doorway::Settled { door };
        }
        Some(order)
    }

    /// Closes every door of a session but the one it is to have.
    pub(crate) fn leave_doors(&mut self, id: SessionId, now: Now) {
        let Some(session) = self.sessions.of(id) else {
            return;
        };
        let current = session.door();
        let left = session
            .doors
            .keys()
            .copied()
            .filter(|door| Some(*door) != current);
        for door in left.collect::<alloc::vec::Vec<_>>() {
            self.close_door(id, door, now);
        }
    }

    /// Notes that a session has a door and gives the order for it; `None` if the session is being ended.
    fn hold_door(&mut self, id: SessionId, door: Door, until: Moment, now: Now) -> Option<Order> {
        let session = self
            .sessions
            .of_mut(id)
            .filter(|session| session.phase != Phase::Ending)?;
        session.doors.insert(door, ());
        let needed = self.doors.hold(door, id, until);
        let ttl = Ttl::from_duration(needed.since(now.mono))?;
        Some(Order::Door { door, ttl })
    }
}

impl Session {
    /// Gives the door of the peer's endpoint, if the session's door waits for just that.
    fn found(&self, state: &PeerState) -> Option<Door> {
        let Doorway::Waiting { door, .. } = self.doorway else {
            return None;
        };
        let endpoint = state
            .endpoint
            .filter(|_| self.seen.settling.is_none() && state.handshake_age_ms.is_some())?;
        let found = door_of(endpoint)?;
        let knocked_from =
            found.source == door.source && door.port.is_none_or(|port| found.port == Some(port));
        // The first handshake is proof enough of where the peer is; after a ROAM its endpoint is
        // still the old one until it has come.
        (!(self.seen.handshake || self.seen.moved) || knocked_from).then_some(found)
    }
}

/// Gives how often peers are looked at most, among so many sessions. A power of two, so that the moments of a slower pace are
/// moments of every faster one: sessions looked at first among few and last among many share their listings.
fn pace_among(sessions: usize) -> Duration {
    let crowd = (sessions / SESSIONS_A_LOOK).max(1).ilog2();
    LOOK_WHILE_WAITING.saturating_mul(1 << crowd.min(16))
}

/// Gives the next look at a door that waits until then, for `door` in all; at the same moments for all doors, so that one listing
/// of the peers answers every look.
fn look_at_door(until: Moment, door: Duration, pace: Duration, now: Moment) -> Moment {
    let late = until.since(now).saturating_add(LATE) < door;
    let alone = if late {
        LOOK_AT_LATE
    } else {
        LOOK_WHILE_WAITING
    };
    let next = now.next_of(alone.max(pace));
    let before_it_ends = Duration::from_millis(1);
    let last = until.before(LAST_LOOK + before_it_ends).next_of(LAST_LOOK);
    if now < last { next.min(last) } else { next }
}

/// Gives the door for one endpoint.
pub(crate) fn door_of(endpoint: SocketAddr) -> Option<Door> {
    let port = NonZeroU16::new(endpoint.port())?;
    Some(Door {
        source: endpoint.ip().to_canonical(),
        port: Some(port),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The looks at a door that opens at `begun` and waits for ten seconds.
    fn looks(begun: u64, sessions: usize) -> (Moment, alloc::vec::Vec<Moment>) {
        let door = Duration::from_secs(10);
        let until = Moment::from_millis(begun).after(door);
        let pace = pace_among(sessions);
        let mut looks = alloc::vec![look_at_door(until, door, pace, Moment::from_millis(begun))];
        while let Some(&last) = looks.last().filter(|look| **look < until) {
            looks.push(look_at_door(until, door, pace, last));
        }
        looks.pop();
        (until, looks)
    }

    #[test]
    fn a_door_alone_is_looked_at_often_and_less_often_when_nobody_came() {
        let (_, looks) = looks(1_000, 1);
        // 40 in the first second, ten in each of the others.
        assert!((129..=131).contains(&looks.len()), "{}", looks.len());
    }

    #[test]
    fn every_moment_of_a_slower_pace_is_one_of_a_faster() {
        let paces: alloc::vec::Vec<u64> = (0..20_000)
            .map(|sessions| crate::time::millis(pace_among(sessions)))
            .collect();
        assert!(paces.windows(2).all(|pair| pair[1] % pair[0] == 0));
        assert!(pace_among(10_000) > LOOK_WHILE_LIVE);
    }

    #[test]
    fn a_crowd_is_looked_at_seldom_and_each_door_once_more_before_its_end() {
        for begun in [0, 1, 700, 999, 123_456] {
            let (until, looks) = looks(begun, 10_000);
            assert!(looks.len() <= 4, "{looks:?}");
            let last = looks.last().expect("a look");
            assert!(until.since(*last) <= LAST_LOOK, "{looks:?} for {until:?}");
        }
    }
}
