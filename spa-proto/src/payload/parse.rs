//! Judges a reply's plaintext: the client's side of SPEC §6, every MUST of "the client MUST reject".

use alloc::boxed::Box;
use alloc::string::String;
use alloc::vec::Vec;
use core::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use core::num::NonZeroU8;
use core::time::Duration;

use super::route::Extent;
use super::{
    DNS, DefaultRoute, DoorKind, MAX_REASON, Outcome, PAYLOAD_LEN, PREKEY, Prekey, REASON, ROUTES,
    RefusedFor, Repeat, ReplyPayload, Route, RouteError, SessionReply, TOTP, TotpOffer, VERDICTS,
    Verdict,
};
use crate::bytes::Reader;
use crate::ids::{ResourceId, SessionId};
use crate::keys::KnockPublic;
use crate::request::{Op, address_of};
use crate::secret::TotpSecret;
use crate::time::WallTime;
use crate::tlv::{self, TlvError};

/// Longest session a client believes in (SPEC §6).
const LONGEST_SESSION: Duration = Duration::from_secs(24 * 3600);
/// Longest life of a knock key a client believes in (SPEC §6): 7 days handed out, 7 accepted, 1 spare.
const LONGEST_PREKEY: Duration = Duration::from_secs(15 * 24 * 3600);
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
enum Kind {
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

    const fn takes(self, kind: u8) -> bool {
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

fn usable(address: IpAddr) -> Result<IpAddr, PayloadError> {
    if address.is_multicast() || address.is_loopback() {
        Err(PayloadError::Address)
    } else {
        Ok(address)
    }
}

/// The TLVs, each judged and known to belong to the status.
#[derive(Default)]
struct Found {
    prekey: Option<Prekey>,
    totp: Option<TotpOffer>,
    session: SessionTlvs,
    said: Said,
}

#[derive(Default)]
struct SessionTlvs {
    routes: Vec<Route>,
    dns: Option<IpAddr>,
}

#[derive(Default)]
struct Said {
    verdicts: Vec<(ResourceId, Verdict)>,
    reason: Option<String>,
}

impl Found {
    fn read(
        area: &[u8],
        kind: Kind,
        now: WallTime,
        default_route: DefaultRoute,
    ) -> Result<Self, PayloadError> {
        let mut found = Self::default();
        for (tlv, value) in tlv::read(area)? {
            if !is_known(tlv) {
                if tlv::is_critical(tlv) {
                    return Err(TlvError::Critical(tlv).into());
                }
                continue;
            }
            if !kind.takes(tlv) {
                return Err(TlvError::Misplaced(tlv).into());
            }
            found.take(tlv, value, now, default_route)?;
        }
        Ok(found)
    }

    fn take(
        &mut self,
        tlv: u8,
        value: &[u8],
        now: WallTime,
        default_route: DefaultRoute,
    ) -> Result<(), PayloadError> {
        let malformed = TlvError::Malformed(tlv);
        match tlv {
            ROUTES => self.session.routes = routes(value, default_route)?,
            VERDICTS => self.said.verdicts = verdicts(value).ok_or(malformed)?,
            PREKEY => self.prekey = Some(judged(prekey(value).ok_or(malformed)?, now)?),
            TOTP => self.totp = Some(totp(value).ok_or(malformed)?),
            DNS => self.session.dns = Some(usable(address_of(tlv::exact(tlv, value)?))?),
            REASON => self.said.reason = Some(reason(value).ok_or(malformed)?),
            _ => return Err(malformed.into()),
        }
        Ok(())
    }
}

/// Knock types are unknown in a reply (SPEC §4).
const fn is_known(kind: u8) -> bool {
    matches!(kind, ROUTES..=REASON)
}

fn routes(value: &[u8], default_route: DefaultRoute) -> Result<Vec<Route>, PayloadError> {
    let mut reader = Reader::new(value);
    let mut routes = Vec::new();
    while !reader.is_empty() {
        let route = Route::read(&mut reader)?;
        match (route.extent(), default_route) {
            (Extent::Network, _) | (Extent::Default, DefaultRoute::Allow) => routes.push(route),
            (Extent::Default, DefaultRoute::Refuse) => return Err(PayloadError::DefaultRoute),
            (Extent::Forbidden, _) => return Err(PayloadError::Address),
        }
    }
    Ok(routes)
}

fn verdicts(value: &[u8]) -> Option<Vec<(ResourceId, Verdict)>> {
    let (entries, rest) = value.as_chunks::<5>();
    let read = |&[a, b, c, d, code]: &[u8; 5]| {
        (
            ResourceId::from_bytes([a, b, c, d]),
            Verdict::from_code(code),
        )
    };
    rest.is_empty().then(|| entries.iter().map(read).collect())
}

fn prekey(value: &[u8]) -> Option<Prekey> {
    let mut reader = Reader::new(value);
    let prekey = Prekey {
        kid: NonZeroU8::new(reader.u8()?)?,
        key: KnockPublic::from_bytes(reader.array()?),
        not_after: WallTime::from_millis(reader.u64()?),
    };
    reader.is_empty().then_some(prekey)
}

fn judged(prekey: Prekey, now: WallTime) -> Result<Prekey, PayloadError> {
    if prekey.not_after.since(now) > LONGEST_PREKEY {
        return Err(PayloadError::PrekeyNotAfter);
    }
    Ok(prekey)
}

fn totp(value: &[u8]) -> Option<TotpOffer> {
    let mut reader = Reader::new(value);
    let digits = reader.u8()?;
    let period = reader.u8()?;
    let secret = TotpSecret::from_bytes(reader.rest())?;
    let sane = matches!(digits, 6..=8) && period != 0;
    sane.then_some(TotpOffer {
        digits,
        period,
        secret,
    })
}

fn reason(value: &[u8]) -> Option<String> {
    let text = core::str::from_utf8(value).ok()?;
    (text.len() <= MAX_REASON).then(|| String::from(text))
}
