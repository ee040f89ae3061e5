//! What the core asks of the world, and how it hears what became of it.

use alloc::boxed::Box;
use core::net::SocketAddr;

use spa_order::Order;
use spa_proto::SessionId;
use spa_proto::channel::Event;

use crate::access::AccessRecord;
use crate::audit::AuditRecord;
use crate::change::Record;
use crate::channel::{CallAnswer, CallId, CallRefusal};

/// One thing to do now. Perform effects strictly in the order they come.
#[derive(Debug)]
pub struct Effect {
    /// By which its outcome is reported.
    pub id: EffectId,
    /// What to do.
    pub kind: EffectKind,
}

/// Names an effect. They count up as effects are asked for; the order to perform them in is the one they come out in.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct EffectId(pub(crate) u64);

/// What to do. What depends on a record or an order comes out only after that was reported done.
#[derive(Debug)]
pub enum EffectKind {
    /// Put this on disk and sync it. Report it.
    Record(Record),
    /// Have the enforcer do this. Report it.
    Order(Order),
    /// Read this peer and answer with `Gateway::handle_peer`.
    Observe {
        /// The peer's WireGuard key.
        wg_key: [u8; 32],
    },
    /// Count the packets of every open flow and answer with `Gateway::handle_counts`. Need not be reported.
    CountFlows,
    /// Count the connections of sessions and answer with `Gateway::handle_connections`. Need not be reported.
    CountConnections,
    /// Send this. Need not be reported.
    Reply(Reply),
    /// Answer this call of the control channel. Need not be reported.
    Answer {
        /// Which.
        call: CallId,
        /// With what.
        answer: Result<CallAnswer, CallRefusal>,
    },
    /// Tell whoever listens on the control channel of this session. Need not be reported.
    Event {
        /// The session.
        session: SessionId,
        /// What happened.
        event: Event,
    },
    /// Write this to the audit log. Need not be reported.
    Audit(AuditRecord),
    /// Write this to the access log. Need not be reported.
    Access(AccessRecord),
}

/// The one packet that answers a knock.
#[derive(Debug)]
pub struct Reply {
    /// The UDP payload.
    pub bytes: Box<[u8; 512]>,
    /// The address and port that were knocked.
    pub from: SocketAddr,
    /// Where the knock came from.
    pub to: SocketAddr,
}

/// Why an effect did not happen.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum EffectFailure {
    /// The store could not commit.
    Store,
    /// The enforcer refused the order: outside its limits.
    Refused,
    /// The kernel or the WireGuard process failed.
    Failed,
}
