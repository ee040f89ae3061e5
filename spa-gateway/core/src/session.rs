//! The sessions: who is let in, with which addresses, until when.
//!
//! Invariant: a WireGuard key belongs to one session, from before its peer is added until after
//! its peer is confirmed gone.

use alloc::boxed::Box;
use alloc::collections::BTreeMap;
use core::net::{IpAddr, SocketAddr};

use litemap::LiteMap;
use spa_order::{Door, Flow};
use spa_proto::{CredentialId, SessionId, SessionKey, WallTime};

use crate::count::Passed;
use crate::effect::EffectId;
use crate::name::Name;
use crate::policy::Signals;
use crate::pool::Addresses;
use crate::time::{Moment, Now};
use crate::upkeep::Upkeep;

/// One client let in.
#[derive(Debug)]
pub(crate) struct Session {
    pub(crate) credential: CredentialId,
    pub(crate) key: SessionKey,
    pub(crate) wg_key: [u8; 32],
    pub(crate) source: SocketAddr,
    pub(crate) terms: Terms,
    /// How its knock stood to the habits of its person.
    pub(crate) signals: Option<Signals>,
    pub(crate) phase: Phase,
    pub(crate) doorway: Doorway,
    /// Every door that may be open for it: that of the doorway, and one that is being left.
    pub(crate) doors: LiteMap<Door, ()>,
    pub(crate) seen: Seen,
    pub(crate) upkeep: Upkeep,
}

/// What a session has, and until when.
#[derive(Clone, Debug)]
pub(crate) struct Terms {
    pub(crate) addresses: Addresses,
    /// What was granted; none is the control channel alone.
    /// Each has an end of its own, the session's at the latest.
    pub(crate) resources: LiteMap<Name, WallTime>,
    /// The flows that are open, or being opened or closed, each with its end.
    pub(crate) flows: LiteMap<Flow, WallTime>,
    pub(crate) opened: WallTime,
    /// The end on the calendar: what the client is told.
    pub(crate) not_after: WallTime,
    /// The same end on the clock that cannot be set back.
    pub(crate) deadline: Moment,
}

/// How far a session has come.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Phase {
    /// Its record is not on disk yet.
    Recording,
    /// Its peer, flows and door are being opened.
    Opening,
    /// It was there before the restart; what the kernel has of it is not known yet.
    Restored,
    /// All of it is open.
    Open,
    /// It is being closed.
    Ending,
}

/// Its door.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Doorway {
    /// There is none.
    Shut,
    /// It waits for a handshake, or for the peer to come from its new address.
    Waiting { door: Door, until: Moment },
    /// It is for the peer's endpoint and lasts as long as the session.
    Settled { door: Door },
}

/// What was last seen of its peer.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(crate) struct Seen {
    pub(crate) endpoint: Option<SocketAddr>,
    pub(crate) handshake: bool,
    pub(crate) rx: u64,
    pub(crate) tx: u64,
    /// What had gone through each flow when it was last counted.
    pub(crate) counted: LiteMap<Flow, Passed>,
    /// When some were last found to have gone through; `None` before the first count.
    pub(crate) active: Option<Moment>,
    /// Its door moved since it was opened: an endpoint may be the one from before.
    pub(crate) moved: bool,
    /// The look that is under way.
    pub(crate) looking: Option<EffectId>,
    /// While the door is being narrowed to the endpoint: the one that waited when that was ordered.
    pub(crate) settling: Option<Door>,
}

impl Terms {
    /// Says whether their time is over.
    pub(crate) fn are_over(&self, now: Now) -> bool {
        now.wall >= self.not_after || now.mono >= self.deadline
    }
}

impl Session {
    /// Makes a session that is still to be recorded.
    pub(crate) fn new(
        credential: CredentialId,
        key: SessionKey,
        wg_key: [u8; 32],
        source: SocketAddr,
        terms: Terms,
        upkeep: Upkeep,
    ) -> Self {
        Self {
            credential,
            key,
            wg_key,
            source,
            terms,
            signals: None,
            phase: Phase::Recording,
            doorway: Doorway::Shut,
            doors: LiteMap::with_capacity(1),
            seen: Seen::default(),
            upkeep,
        }
    }

    /// Moves it to a phase.
    pub(crate) fn in_phase(self, phase: Phase) -> Self {
        Self { phase, ..self }
    }

    /// Says whether it is live: neither over nor being ended.
    pub(crate) fn is_live(&self, now: Now) -> bool {
        self.phase != Phase::Ending && !self.is_over(now)
    }

    /// Says whether its time is over.
    pub(crate) fn is_over(&self, now: Now) -> bool {
        self.terms.are_over(now)
    }

    /// Gives the door that is open for it.
    pub(crate) const fn door(&self) -> Option<Door> {
        match self.doorway {
            Doorway::Shut => None,
            Doorway::Waiting { door, .. } | Doorway::Settled { door } => Some(door),
        }
    }
}

/// All sessions.
#[derive(Debug, Default)]
pub(crate) struct Sessions {
    by_id: BTreeMap<SessionId, Box<Session>>,
    by_peer: BTreeMap<[u8; 32], SessionId>,
    by_address: BTreeMap<IpAddr, SessionId>,
}

impl Sessions {
    pub(crate) fn insert(&mut self, id: SessionId, session: Session) {
        self.by_peer.insert(session.wg_key, id);
        for address in session.terms.addresses.each() {
            self.by_address.insert(address, id);
        }
        self.by_id.insert(id, Box::new(session));
    }

    pub(crate) fn remove(&mut self, id: SessionId) -> Option<Session> {
        let session = self.by_id.remove(&id)?;
        self.by_peer.remove(&session.wg_key);
        for address in session.terms.addresses.each() {
            self.by_address.remove(&address);
        }
        Some(*session)
    }

    pub(crate) fn of(&self, id: SessionId) -> Option<&Session> {
        self.by_id.get(&id).map(Box::as_ref)
    }

    pub(crate) fn of_mut(&mut self, id: SessionId) -> Option<&mut Session> {
        self.by_id.get_mut(&id).map(Box::as_mut)
    }

    /// Gives the session whose peer has this key.
    pub(crate) fn with_peer(&self, wg_key: &[u8; 32]) -> Option<SessionId> {
        self.by_peer.get(wg_key).copied()
    }

    /// Gives the session that has this tunnel address.
    pub(crate) fn at(&self, tunnel: IpAddr) -> Option<SessionId> {
        self.by_address.get(&tunnel).copied()
    }

    /// Says whether a session has this id.
    pub(crate) fn has(&self, id: SessionId) -> bool {
        self.by_id.contains_key(&id)
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (SessionId, &Session)> {
        self.by_id.iter().map(|(id, session)| (*id, &**session))
    }

    /// Tells whether there are as many live sessions as there may be, that of `except` aside: it is being
    /// replaced. They are looked through only where those that are ending could make the difference.
    pub(crate) fn are_full(&self, capacity: usize, except: CredentialId, now: Now) -> bool {
        let counts = |(_, session): &(SessionId, &Session)| {
            session.credential != except && session.is_live(now)
        };
        self.by_id.len() >= capacity && self.iter().filter(counts).count() >= capacity
    }

    /// Counts the sessions, those that are ending too.
    pub(crate) fn count(&self) -> usize {
        self.by_id.len()
    }
}
