//! Closing, until it is confirmed: a session in the order door, flows, peer, conntrack (SPEC §11), or
//! a single door or flow.
//!
//! Everything goes out at once, in order, so that one step that fails keeps nothing else open; of sessions that end together the
//! doors and flows of all go before the first peer (`outbox`). What failed is tried again. Invariant: a closing leaves memory
//! only when its last step is confirmed.

use alloc::string::String;
use alloc::vec::Vec;
use core::net::IpAddr;
use core::time::Duration;

use spa_order::{Door, Flow, FlowTarget, Order, Ttl};
use spa_proto::SessionId;

use crate::agenda::Timer;
use crate::audit::{AuditKind, AuditRecord};
use crate::change::{Change, Record};
use crate::channel::Loss;
use crate::effect::{EffectFailure, EffectKind};
use crate::gateway::Gateway;
use crate::outbox::Waiter;
use crate::pool::REST;
use crate::session::{Doorway, Phase};
use crate::snapshot::RestingRow;
use crate::time::{Moment, Now, millis};

/// How long the peer of a client that speaks stays once its door and flows are closed: an answer or the last event
/// still has to get to it. Measured: on its way within 1 ms, on a busy machine within 10.
pub const LAST_WORD: Duration = Duration::from_millis(25);
/// How long it stays for a client that closes: nobody else waits for that, and without the answer it would knock to
/// close what is closed. Measured: 50 ms on a machine that builds on every core; an answer that is lost because the client
/// closes in the middle of a rekey is sent again after 200 ms, and a second time after 400 more.
pub const LAST_ANSWER: Duration = Duration::from_secs(1);
/// How long after a failure a step is tried again.
pub const RETRY: Duration = Duration::from_millis(500);

/// Names a closing.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) struct ClosingId(pub(crate) u64);

/// A closing under way.
#[derive(Debug)]
pub(crate) struct Closing {
    /// How many steps are out.
    awaited: usize,
    /// Those that failed, to be tried again.
    failed: Vec<CloseStep>,
    /// Those that come a moment later.
    later: Vec<CloseStep>,
    end: Option<End>,
    /// A peer that no session accounts for: whose addresses it has is not known.
    stray: bool,
}

/// What a closing is to do.
struct Steps {
    now: Vec<CloseStep>,
    later: Vec<CloseStep>,
    pause: Duration,
}

impl Steps {
    fn now(steps: impl Into<Vec<CloseStep>>) -> Self {
        Self {
            now: steps.into(),
            later: Vec::new(),
            pause: Duration::ZERO,
        }
    }
}

/// The end of a session, to be reported when all is confirmed.
#[derive(Debug)]
struct End {
    session: SessionId,
    began: Moment,
    /// Written at the beginning, since the device may be erased meanwhile.
    audit: AuditRecord,
}

/// One thing to close.
#[derive(Clone, Copy, Debug)]
pub(crate) enum CloseStep {
    /// The store learns that a session is over.
    Record(SessionId, RestingRow),
    Door(Door),
    Flow(Flow),
    Peer([u8; 32]),
    Forget(IpAddr),
}

/// Why a session ended.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum EndReason {
    /// Its `not_after`.
    Expired,
    /// Its CLOSE.
    ClosedByClient,
    /// A newer OPEN of the same credential.
    Replaced,
    /// No handshake while the door was open.
    NoHandshake,
    /// The device or person was revoked, disabled or removed.
    Revoked,
    /// An administrator cut it.
    Cut,
    /// A lock names its person, device or source.
    Locked,
    /// Nothing went through it for as long as policy lets it be idle.
    Idle,
    /// Policy took all it had.
    PolicyWithdrawn,
    /// WireGuard does not know its peer any more.
    PeerGone,
    /// Not everything of it could be opened.
    OpeningFailed,
    /// After a restart the kernel had nothing of it.
    LostInRestart,
    /// Its device is not as policy wants it for anything it had.
    Posture,
    /// Its device stopped to report, and policy wants to know for everything it had.
    PostureMissing,
}

impl EndReason {
    /// Gives the word in the audit log.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Expired => "expired",
            Self::ClosedByClient => "closed by the client",
            Self::Replaced => "replaced by a newer session",
            Self::NoHandshake => "no handshake in time",
            Self::Revoked => "revoked",
            Self::Cut => "cut by an administrator",
            Self::Locked => "locked by an administrator",
            Self::Idle => "idle for too long",
            Self::PolicyWithdrawn => "withdrawn by policy",
            Self::PeerGone => "the peer is gone",
            Self::OpeningFailed => "opening failed",
            Self::LostInRestart => "lost in a restart",
            Self::Posture => "the device is not as policy wants it",
            Self::PostureMissing => "the device stopped to report its posture",
        }
    }

    /// Gives the reason of a session that lost all it had.
    pub(crate) fn of_loss(loss: &Loss) -> Self {
        match loss.word {
            "posture" => Self::Posture,
            "posture-missing" => Self::PostureMissing,
            _ => Self::PolicyWithdrawn,
        }
    }

    /// Gives the word that is told inside the tunnel (SPEC §12).
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Expired => "expired",
            Self::ClosedByClient => "closed",
            Self::Replaced => "replaced",
            Self::Revoked => "revoked",
            Self::Cut => "cut",
            Self::Locked => "locked",
            Self::PolicyWithdrawn => "policy",
            Self::Posture => "posture",
            Self::Idle => "idle",
            Self::PostureMissing => "posture-missing",
            Self::NoHandshake | Self::PeerGone | Self::OpeningFailed | Self::LostInRestart => {
                "failed"
            }
        }
    }
}

impl Gateway {
    /// Ends a session: the store learns it and the world is closed, side by side; each is tried
    /// until it is confirmed.
    pub(crate) fn end_session(&mut self, id: SessionId, reason: EndReason, now: Now) {
        self.end_session_because(id, reason, None, now);
    }

    /// The same, with more to say about it than the reason's name.
    pub(crate) fn end_session_because(
        &mut self,
        id: SessionId,
        reason: EndReason,
        text: Option<String>,
        now: Now,
    ) {
        let Some(session) = self
            .sessions
            .of(id)
            .filter(|session| session.phase != Phase::Ending)
        else {
            return;
        };
        let resting = resting(session.terms.addresses.v4, session.terms.addresses.v6, now);
        self.start_closing(Steps::now([CloseStep::Record(id, resting)]), None, now);
        self.close_session(id, reason, text, now);
    }

    /// Ends a session that the store already knows to be over.
    pub(crate) fn end_recorded_session(&mut self, id: SessionId, reason: EndReason, now: Now) {
        self.close_session(id, reason, None, now);
    }

    fn close_session(&mut self, id: SessionId, reason: EndReason, text: Option<String>, now: Now) {
        let control_port = self.settings.control_port;
        let Some(session) = self
            .sessions
            .of_mut(id)
            .filter(|session| session.phase != Phase::Ending)
        else {
            return;
        };
        session.phase = Phase::Ending;
        session.doorway = Doorway::Shut;
        let doors = core::mem::take(&mut session.doors);
        let shut = doors.keys().copied().map(CloseStep::Door);
        // The last word goes by the control channel, so that its flows stay as long as the peer.
        let speaks = session.upkeep.speaks;
        let (words, flows): (Vec<Flow>, Vec<Flow>) = session
            .terms
            .flows
            .keys()
            .partition(|flow| speaks && is_control(flow, control_port));
        let flows = flows.into_iter().map(CloseStep::Flow);
        let mut last: Vec<CloseStep> = words.into_iter().map(CloseStep::Flow).collect();
        last.push(CloseStep::Peer(session.wg_key));
        last.extend(session.terms.addresses.each().map(CloseStep::Forget));
        let steps = match (speaks, reason) {
            // Its door too: the answer may wait for a handshake, when it closes in the middle of a rekey.
            (true, EndReason::ClosedByClient) => Steps {
                now: flows.collect(),
                later: shut.chain(last).collect(),
                pause: LAST_ANSWER,
            },
            (true, _) => Steps {
                now: shut.chain(flows).collect(),
                later: last,
                pause: LAST_WORD,
            },
            (false, _) => Steps::now(shut.chain(flows).chain(last).collect::<Vec<_>>()),
        };
        let credential = session.credential;
        for door in doors.into_iter().map(|(door, ())| door) {
            self.doors.release(door, id);
        }
        if let Some(credential) = self.credentials.get_mut(&credential) {
            credential.session = credential.session.filter(|current| *current != id);
        }
        for timer in [
            Timer::End,
            Timer::Review,
            Timer::Door,
            Timer::Warning,
            Timer::Report,
            Timer::Observe,
        ] {
            self.agenda.cancel(timer(id));
        }
        // Before the orders below: once the peer is gone nothing reaches its client.
        self.tell_ended(id, reason, text.clone());
        let mut audit = self.audit_of(credential, AuditKind::SessionEnded, now);
        audit.session = Some(id);
        audit.reason = Some(reason.name());
        audit.note = text;
        let end = End {
            session: id,
            began: now.mono,
            audit,
        };
        self.start_closing(steps, Some(end), now);
    }

    /// Closes one door of a session, unless somebody else needs it.
    pub(crate) fn close_door(&mut self, id: SessionId, door: Door, now: Now) {
        if let Some(session) = self.sessions.of_mut(id) {
            session.doors.remove(&door);
        }
        self.doors.release(door, id);
        self.start_closing(Steps::now([CloseStep::Door(door)]), None, now);
    }

    /// Closes flows of a session that goes on. What conntrack knows of its addresses stays: nothing passes by that, and
    /// forgetting it would break what the session keeps, whose translation (masquerade) is in there too.
    pub(crate) fn close_flows(&mut self, flows: &[Flow], now: Now) {
        let steps: Vec<CloseStep> = flows.iter().copied().map(CloseStep::Flow).collect();
        self.start_closing(Steps::now(steps), None, now);
    }

    /// Removes a peer that no session accounts for.
    pub(crate) fn close_stray_peer(&mut self, wg_key: [u8; 32], now: Now) {
        self.start_closing(Steps::now([CloseStep::Peer(wg_key)]), None, now);
    }

    /// Says whether such a peer may still be there: until it is confirmed gone, no address is lent that it might have.
    pub(crate) fn has_strays(&self) -> bool {
        self.closings.values().any(|closing| closing.stray)
    }

    /// Ends a session of the store that cannot go on after a restart: its peer is a stray one, its
    /// flows are gone with the old table, and conntrack forgets it.
    pub(crate) fn close_remains(&mut self, id: SessionId, resting: RestingRow, now: Now) {
        let mut steps = Vec::from([CloseStep::Record(id, resting)]);
        steps.extend(forgetting(&resting));
        self.start_closing(Steps::now(steps), None, now);
    }

    /// Has conntrack forget a session that the store knows to be over: whether that was done before the restart, it does not say.
    pub(crate) fn forget_remains(&mut self, resting: &RestingRow, now: Now) {
        let steps: Vec<CloseStep> = forgetting(resting).collect();
        self.start_closing(Steps::now(steps), None, now);
    }

    fn start_closing(&mut self, steps: Steps, end: Option<End>, now: Now) {
        self.last_closing = self.last_closing.wrapping_add(1);
        let id = ClosingId(self.last_closing);
        let stray = end.is_none() && matches!(steps.now[..], [CloseStep::Peer(_)]);
        let is_whole = steps.later.is_empty();
        self.closings.insert(
            id,
            Closing {
                awaited: 0,
                failed: steps.now,
                later: steps.later,
                end,
                stray,
            },
        );
        if !is_whole {
            let at = now.mono.after(steps.pause);
            self.agenda.set(Timer::LastWord(id), at);
        }
        self.advance_closing(id, now);
    }

    /// Puts out every step that is to be done, in order.
    pub(crate) fn advance_closing(&mut self, id: ClosingId, now: Now) {
        let Some(closing) = self.closings.get_mut(&id) else {
            return;
        };
        let steps = core::mem::take(&mut closing.failed);
        closing.awaited = closing.awaited.saturating_add(steps.len());
        for step in steps {
            let effect = self.closing_effect(step, now);
            self.outbox.put(effect, Waiter::Closing(id, step));
        }
        self.close_if_confirmed(id, now);
    }

    /// The last word has had its time: what was to come later comes now.
    pub(crate) fn close_the_rest(&mut self, id: ClosingId, now: Now) {
        let Some(closing) = self.closings.get_mut(&id) else {
            return;
        };
        let steps = core::mem::take(&mut closing.later);
        closing.awaited = closing.awaited.saturating_add(steps.len());
        for step in steps {
            let effect = self.closing_effect(step, now);
            self.outbox.put(effect, Waiter::Closing(id, step));
        }
        self.close_if_confirmed(id, now);
    }

    /// Hears what became of one step.
    pub(crate) fn closing_performed(
        &mut self,
        id: ClosingId,
        step: CloseStep,
        outcome: Result<(), EffectFailure>,
        now: Now,
    ) {
        let Some(closing) = self.closings.get_mut(&id) else {
            return;
        };
        closing.awaited = closing.awaited.saturating_sub(1);
        closing.failed.extend(outcome.is_err().then_some(step));
        if closing.awaited == 0 && !closing.failed.is_empty() {
            self.agenda.set(Timer::Retry(id), now.mono.after(RETRY));
        }
        self.close_if_confirmed(id, now);
    }

    fn close_if_confirmed(&mut self, id: ClosingId, now: Now) {
        let confirmed = |closing: &Closing| {
            closing.awaited == 0 && closing.failed.is_empty() && closing.later.is_empty()
        };
        if !self.closings.get(&id).is_some_and(confirmed) {
            return;
        }
        if let Some(end) = self.closings.remove(&id).and_then(|closing| closing.end) {
            self.session_closed(end, now);
        }
    }

    fn closing_effect(&self, step: CloseStep, now: Now) -> EffectKind {
        match step {
            CloseStep::Record(session, resting) => EffectKind::Record(Record {
                changes: Vec::from([Change::SessionEnded { session, resting }]),
            }),
            CloseStep::Door(door) => {
                let needed = self
                    .doors
                    .needed_until(door)
                    .map(|until| until.since(now.mono));
                EffectKind::Order(match needed.and_then(Ttl::from_duration) {
                    Some(ttl) => Order::Door { door, ttl },
                    None => Order::CloseDoor { door },
                })
            }
            CloseStep::Flow(flow) => EffectKind::Order(Order::CloseFlow { flow }),
            CloseStep::Peer(key) => EffectKind::Order(Order::RemovePeer { key }),
            CloseStep::Forget(tunnel) => EffectKind::Order(Order::Forget { tunnel }),
        }
    }

    fn session_closed(&mut self, end: End, now: Now) {
        let Some(session) = self.sessions.remove(end.session) else {
            return;
        };
        self.pool
            .give_back(session.terms.addresses, now.mono.after(REST));
        self.put_audit(AuditRecord {
            at: now.wall,
            source: Some(session.source),
            resources: session.terms.resources.keys().cloned().collect(),
            not_after: Some(session.terms.not_after),
            took_ms: Some(millis(now.mono.since(end.began))),
            ..end.audit
        });
    }

    /// Forgets a session that was never recorded and of which nothing was opened.
    pub(crate) fn drop_session(&mut self, id: SessionId, now: Now) {
        let Some(session) = self.sessions.remove(id) else {
            return;
        };
        self.pool
            .give_back(session.terms.addresses, now.mono.after(REST));
        self.agenda.cancel(Timer::End(id));
        if let Some(credential) = self.credentials.get_mut(&session.credential) {
            credential.session = credential.session.filter(|current| *current != id);
        }
    }
}

/// Says whether a flow leads to the control channel and nowhere else.
fn is_control(flow: &Flow, port: Option<u16>) -> bool {
    flow.to == FlowTarget::Gateway && port.is_some_and(|port| flow.ports == (port, port))
}

fn forgetting(resting: &RestingRow) -> impl Iterator<Item = CloseStep> + use<> {
    let addresses = resting.tunnel4.map(IpAddr::V4).into_iter();
    addresses
        .chain(resting.tunnel6.map(IpAddr::V6))
        .map(CloseStep::Forget)
}

/// Names addresses that rest from now on.
pub(crate) fn resting(
    tunnel4: Option<core::net::Ipv4Addr>,
    tunnel6: Option<core::net::Ipv6Addr>,
    now: Now,
) -> RestingRow {
    RestingRow {
        tunnel4,
        tunnel6,
        until: now.wall.saturating_add(REST),
    }
}
