//! Judges a reply's plaintext: the client's side of SPEC §6, every MUST of "the client MUST reject".

use alloc::boxed::Box;
use core::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use core::time::Duration;

use super::tlvs::{Found, Said, SessionTlvs};
use super::{
    DNS, DefaultRoute, DoorKind, Outcome, PAYLOAD_LEN, PREKEY, REASON, ROUTES, RefusedFor, Repeat,
    ReplyPayload, RouteError, SessionReply, TOTP, VERDICTS,
};
use crate::bytes::Reader;
use crate::ids::SessionId;
use crate::request::{Op, address_of};
use crate::time::WallTime;
use crate::tlv::TlvError;

/// Longest session a client believes in (SPEC §6).
const LONGEST_SESSION: Duration = Duration::from_secs(24 * 3600);
/// Flag b0: the door is for address and port.
const DOOR_PORT: u8 = 1;

/// Why a client must not use a reply that opened (SPEC §6).
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PayloadError {
    /// A status that does not answer this op.
    #[error("a status that does not answer this knock")]
    Status,
    /// A reserved flag is set.
    #[error("a reserved flag is set")]
    Flags,
    /// A field is set that this status leaves zero.
    #[error("a field is set that this status leaves zero")]
    NotZero,
    /// The endpoint is neither all zero nor an address and a port.
    #[error("the endpoint lacks its address or its port")]
    Endpoint,
    /// `not_after` is over, or more than 24 h ahead.
    #[error("the session's end is not within the next 24 hours")]
    NotAfter,
    /// A knock key lives more than 15 days.
    #[error("the knock key's end is more than 15 days ahead")]
    PrekeyNotAfter,
    /// A multicast or loopback address.
    #[error("a multicast or loopback address")]
    Address,
    /// A route that takes everything, and the profile does not allow it.
    #[error("a default route, which the profile does not allow")]
    DefaultRoute,
    /// A malformed route.
    #[error(transparent)]
    Route(#[from] RouteError),
    /// The TLVs are not what the status takes.
    #[error(transparent)]
    Tlv(#[from] TlvError),
}

impl ReplyPayload {
    /// Parses strictly. `op` is that of the knock answered, `now` the client's clock.
    ///
    /// # Errors
    /// Whatever SPEC §6 lists under "the client MUST reject".
    pub fn parse(
        payload: &[u8; PAYLOAD_LEN],
        op: Op,
        now: WallTime,
        default_route: DefaultRoute,
    ) -> Result<Self, PayloadError> {
        let fields = Fields::read(payload).ok_or(PayloadError::NotZero)?;
        let kind = Kind::of(fields.status, op)?;
        let found = Found::read(fields.tlvs, kind, now, default_route)?;
        let outcome = match kind {
            Kind::Session(repeat) => Outcome::Session(Box::new(fields.session(
                repeat,
                found.session,
                found.said,
                now,
            )?)),
            Kind::Closed(repeat) => {
                fields.require_bare()?;
                Outcome::Closed {
                    repeat,
                    verdicts: found.said.verdicts,
                    reason: found.said.reason,
                }
            }
            Kind::Refused(why) => {
                fields.require_bare()?;
                Outcome::Refused {
                    why,
                    verdicts: found.said.verdicts,
                    reason: found.said.reason,
                }
            }
            Kind::Enrolled => {
                fields.require_bare()?;
                Outcome::Enrolled(found.totp)
            }
        };
        if fields.source.ip().is_multicast() {
            return Err(PayloadError::Address);
        }
        Ok(Self {
            gateway_time: fields.gateway_time,
            source: fields.source,
            prekey: found.prekey,
            outcome,
        })
    }
}

/// What a status means for an op (SPEC §6: "status by op").
#[derive(Clone, Copy)]
pub(super) enum Kind {
    Session(Repeat),
    Closed(Repeat),
    Refused(RefusedFor),
    Enrolled,
}

impl Kind {
    const fn of(status: u8, op: Op) -> Result<Self, PayloadError> {
        match (status, op) {
            (0, Op::Open | Op::Roam) => Ok(Self::Session(Repeat::First)),
            (1, Op::Open | Op::Roam) => Ok(Self::Session(Repeat::Again)),
            (0, Op::Close) => Ok(Self::Closed(Repeat::First)),
            (1, Op::Close) => Ok(Self::Closed(Repeat::Again)),
            (2, Op::Open | Op::Roam | Op::Enrol) => Ok(Self::Refused(RefusedFor::Policy)),
            (3, Op::Open | Op::Roam | Op::Enrol) => Ok(Self::Refused(RefusedFor::Capacity)),
            (4, Op::Enrol) => Ok(Self::Enrolled),
            _ => Err(PayloadError::Status),
        }
    }

    pub(super) const fn takes(self, kind: u8) -> bool {
        match self {
            Self::Session(_) => matches!(kind, ROUTES | VERDICTS | PREKEY | DNS | REASON),
            Self::Closed(_) | Self::Refused(_) => matches!(kind, VERDICTS | PREKEY | REASON),
            Self::Enrolled => matches!(kind, PREKEY | TOTP),
        }
    }
}

/// The fixed part, as it stands.
struct Fields<'a> {
    status: u8,
    flags: u8,
    door_secs: u16,
    session: [u8; 8],
    gateway_time: WallTime,
    not_after: WallTime,
    wg_public: [u8; 32],
    endpoint: [u8; 16],
    endpoint_port: u16,
    source: SocketAddr,
    tunnel4: [u8; 4],
    tunnel6: [u8; 16],
    gateway_tunnel: [u8; 16],
    control_port: u16,
    mtu: u16,
    keepalive: u16,
    tlvs: &'a [u8],
}

impl<'a> Fields<'a> {
    /// `None` cannot happen: the fields are 138 bytes and the payload is longer.
    fn read(payload: &'a [u8; PAYLOAD_LEN]) -> Option<Self> {
        let mut reader = Reader::new(payload);
        Some(Self {
            status: reader.u8()?,
            flags: reader.u8()?,
            door_secs: reader.u16()?,
            session: reader.array()?,
            gateway_time: WallTime::from_millis(reader.u64()?),
            not_after: WallTime::from_millis(reader.u64()?),
            wg_public: reader.array()?,
            endpoint: reader.array()?,
            endpoint_port: reader.u16()?,
            source: SocketAddr::new(address_of(reader.array()?), reader.u16()?),
            tunnel4: reader.array()?,
            tunnel6: reader.array()?,
            gateway_tunnel: reader.array()?,
            control_port: reader.u16()?,
            mtu: reader.u16()?,
            keepalive: reader.u16()?,
            tlvs: reader.rest(),
        })
    }

    /// Status, gateway time and source as seen are all that may be set.
    fn require_bare(&self) -> Result<(), PayloadError> {
        let numbers = [
            self.door_secs,
            self.endpoint_port,
            self.control_port,
            self.mtu,
            self.keepalive,
        ];
        let bytes: [&[u8]; 6] = [
            &self.session,
            &self.wg_public,
            &self.endpoint,
            &self.tunnel4,
            &self.tunnel6,
            &self.gateway_tunnel,
        ];
        let bare = self.flags == 0
            && self.not_after == WallTime::default()
            && numbers == [0; 5]
            && bytes.into_iter().flatten().all(|byte| *byte == 0);
        if bare {
            Ok(())
        } else {
            Err(PayloadError::NotZero)
        }
    }

    fn session(
        &self,
        repeat: Repeat,
        tlvs: SessionTlvs,
        said: Said,
        now: WallTime,
    ) -> Result<SessionReply, PayloadError> {
        let door = match self.flags {
            0 => DoorKind::Address,
            DOOR_PORT => DoorKind::AddressAndPort,
            _ => return Err(PayloadError::Flags),
        };
        if self.not_after <= now || self.not_after.since(now) > LONGEST_SESSION {
            return Err(PayloadError::NotAfter);
        }
        Ok(SessionReply {
            repeat,
            door,
            door_secs: self.door_secs,
            id: SessionId::from_bytes(self.session),
            not_after: self.not_after,
            wg_public: self.wg_public,
            endpoint: self.endpoint()?,
            tunnel4: present(self.tunnel4)?.map(|_| Ipv4Addr::from(self.tunnel4)),
            tunnel6: present(self.tunnel6)?.map(|_| Ipv6Addr::from(self.tunnel6)),
            gateway_tunnel: present(self.gateway_tunnel)?,
            control_port: self.control_port,
            mtu: self.mtu,
            keepalive: self.keepalive,
            routes: tlvs.routes,
            dns: tlvs.dns,
            verdicts: said.verdicts,
            reason: said.reason,
        })
    }

    /// All zero means "where the knock went".
    fn endpoint(&self) -> Result<Option<SocketAddr>, PayloadError> {
        match (present(self.endpoint)?, self.endpoint_port) {
            (None, 0) => Ok(None),
            (Some(address), port @ 1..) => Ok(Some(SocketAddr::new(address, port))),
            (None, 1..) | (Some(_), 0) => Err(PayloadError::Endpoint),
        }
    }
}

/// An address that is set, judged; `None` if all zero.
fn present<const N: usize>(wire: [u8; N]) -> Result<Option<IpAddr>, PayloadError>
where
    IpAddr: From<[u8; N]>,
{
    if wire == [0; N] {
        return Ok(None);
    }
    usable(IpAddr::from(wire).to_canonical()).map(Some)
}

pub(super) fn usable(address: IpAddr) -> Result<IpAddr, PayloadError> {
    if address.is_multicast() || address.is_loopback() {
        Err(PayloadError::Address)
    } else {
        Ok(address)
    }
}
