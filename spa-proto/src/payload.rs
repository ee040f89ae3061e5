//! What a reply says (SPEC §6), in shapes in which only what belongs to an outcome can be said.
//!
//! [`ReplyPayload::encode`] is the gateway's side, [`ReplyPayload::parse`] the client's.

mod encode;
mod parse;
mod route;
mod tlvs;

use alloc::boxed::Box;
use alloc::string::String;
use alloc::vec::Vec;
use core::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use core::num::NonZeroU8;

use crate::ids::{ResourceId, SessionId};
use crate::keys::KnockPublic;
use crate::secret::TotpSecret;
use crate::time::{FRESHNESS, WallTime};

pub use encode::EncodePayloadError;
pub use parse::PayloadError;
pub use route::{Route, RouteError};
pub use tlvs::LONGEST_PREKEY;

/// Length of a reply's plaintext in bytes (SPEC §6).
pub const PAYLOAD_LEN: usize = 456;
/// Length of its TLV area.
const TLV_LEN: usize = 318;
/// Longest reason in bytes (SPEC §6, TLV 0x16).
const MAX_REASON: usize = 120;

const ROUTES: u8 = 0x11;
const VERDICTS: u8 = 0x12;
const PREKEY: u8 = 0x13;
const TOTP: u8 = 0x14;
const DNS: u8 = 0x15;
const REASON: u8 = 0x16;

/// The plaintext of a reply.
#[derive(Debug, PartialEq, Eq)]
pub struct ReplyPayload {
    /// The gateway's clock. Within a transaction it strictly increases.
    pub gateway_time: WallTime,
    /// Source address and port of the knock as the gateway saw them.
    pub source: SocketAddr,
    /// The newest knock key, while there is a rotating one.
    pub prekey: Option<Prekey>,
    /// What came of the knock.
    pub outcome: Outcome,
}

/// What came of a knock that proved every factor.
#[derive(Debug, PartialEq, Eq)]
pub enum Outcome {
    /// OK or OK_REPEAT to OPEN and ROAM: the session.
    Session(Box<SessionReply>),
    /// OK or OK_REPEAT to CLOSE: the session is over.
    Closed {
        /// Whether this answers a repeat.
        repeat: Repeat,
        /// Verdicts, rarely of use here.
        verdicts: Vec<(ResourceId, Verdict)>,
        /// A text for the person.
        reason: Option<String>,
    },
    /// POLICY or CAPACITY.
    Refused {
        /// Which of the two.
        why: RefusedFor,
        /// One for each resource asked for, in the order asked.
        verdicts: Vec<(ResourceId, Verdict)>,
        /// A text for the person.
        reason: Option<String>,
    },
    /// ENROLLED, with the TOTP secret if the person has none yet.
    Enrolled(Option<TotpOffer>),
}

/// A session as the client is told of it.
#[derive(Debug, PartialEq, Eq)]
pub struct SessionReply {
    /// Whether this answers a repeat.
    pub repeat: Repeat,
    /// What the door is for.
    pub door: DoorKind,
    /// Seconds the door stays open for the first handshake.
    pub door_secs: u16,
    /// The session.
    pub id: SessionId,
    /// When it ends.
    pub not_after: WallTime,
    /// The gateway's WireGuard public key.
    pub wg_public: [u8; 32],
    /// Where the gateway's WireGuard listens; `None` = where the knock went.
    pub endpoint: Option<SocketAddr>,
    /// The client's address inside the tunnel, IPv4.
    pub tunnel4: Option<Ipv4Addr>,
    /// The client's address inside the tunnel, IPv6.
    pub tunnel6: Option<Ipv6Addr>,
    /// The gateway's address inside the tunnel.
    pub gateway_tunnel: Option<IpAddr>,
    /// The control port on that address (SPEC §12).
    pub control_port: u16,
    /// MTU of the tunnel in bytes.
    pub mtu: u16,
    /// Persistent keepalive in seconds; 0 = off.
    pub keepalive: u16,
    /// What the session reaches. The reply carries those that fit; the control channel has all.
    pub routes: Vec<Route>,
    /// A resolver inside the tunnel.
    pub dns: Option<IpAddr>,
    /// One for each resource asked for, in the order asked.
    pub verdicts: Vec<(ResourceId, Verdict)>,
    /// A text for the person.
    pub reason: Option<String>,
}

/// Whether an answer is the first of its transaction (OK) or answers a repeat (OK_REPEAT).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Repeat {
    /// OK.
    First,
    /// OK_REPEAT.
    Again,
}

/// What a door is for (SPEC §11).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum DoorKind {
    /// The source address, any port.
    Address,
    /// The source address and port: the knock asked SAME_PORT.
    AddressAndPort,
}

/// The two refusals that are answered (SPEC §8 step 11).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum RefusedFor {
    /// Status 2.
    Policy,
    /// Status 3.
    Capacity,
}

/// Why a resource is granted or not (SPEC §6, TLV 0x12).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Verdict {
    /// Code 0.
    Granted,
    /// Code 1: no such resource *or* not allowed.
    NotAllowed,
    /// Code 2.
    Posture,
    /// Code 3.
    TimeWindow,
    /// Code 4.
    Risk,
    /// Code 5.
    Locked,
    /// Code 6.
    ApprovalNeeded,
    /// A code of a later gateway: refused, for a reason unknown here. Never 0 to 6.
    Other(u8),
}

impl Verdict {
    /// Gives the code on the wire.
    #[must_use]
    pub const fn code(self) -> u8 {
        match self {
            Self::Granted => 0,
            Self::NotAllowed => 1,
            Self::Posture => 2,
            Self::TimeWindow => 3,
            Self::Risk => 4,
            Self::Locked => 5,
            Self::ApprovalNeeded => 6,
            Self::Other(code) => code,
        }
    }

    /// Reads a code; one that is not known means refused.
    #[must_use]
    pub const fn from_code(code: u8) -> Self {
        match code {
            0 => Self::Granted,
            1 => Self::NotAllowed,
            2 => Self::Posture,
            3 => Self::TimeWindow,
            4 => Self::Risk,
            5 => Self::Locked,
            6 => Self::ApprovalNeeded,
            other => Self::Other(other),
        }
    }

    /// Tells whether the resource is granted.
    #[must_use]
    pub const fn is_granted(self) -> bool {
        matches!(self, Self::Granted)
    }
}

/// A rotating knock key as handed out (SPEC §3.3; TLV 0x13).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Prekey {
    /// Its number; 0 is never handed out.
    pub kid: NonZeroU8,
    /// `B_kid`.
    pub key: KnockPublic,
    /// From when on the gateway refuses it.
    pub not_after: WallTime,
}

impl Prekey {
    /// Tells whether a client may still knock with it: its end is more than F ahead, and not farther than that of any
    /// key the gateway makes on a clock that is right (SPEC §3.3).
    #[must_use]
    pub fn is_usable(&self, now: WallTime) -> bool {
        self.not_after > now.saturating_add(FRESHNESS)
            && self.not_after.since(now) <= LONGEST_PREKEY
    }
}

/// The TOTP secret an enrolment hands over (TLV 0x14).
#[derive(Debug, PartialEq, Eq)]
pub struct TotpOffer {
    /// 6, 7 or 8.
    pub digits: u8,
    /// Seconds of a step, not 0.
    pub period: u8,
    /// The secret.
    pub secret: TotpSecret,
}

/// Whether a user's profile lets a gateway take all traffic.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum DefaultRoute {
    /// A reply with a default route is rejected.
    #[default]
    Refuse,
    /// It is used.
    Allow,
}

#[cfg(test)]
mod tests;
