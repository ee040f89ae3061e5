//! Writes a reply's plaintext: the gateway's side of SPEC §6.

use alloc::vec::Vec;
use core::net::{IpAddr, SocketAddr};

use zeroize::Zeroizing;

use super::{
    DNS, DoorKind, MAX_REASON, Outcome, PAYLOAD_LEN, PREKEY, Prekey, REASON, ROUTES, RefusedFor,
    Repeat, ReplyPayload, Route, SessionReply, TLV_LEN, TOTP, TotpOffer, VERDICTS, Verdict,
};
use crate::ids::ResourceId;
use crate::primitives::join;
use crate::request::wire_address;
use crate::tlv::{Full, Writer};

/// Longest value of one TLV in bytes: its length is one byte.
const MAX_VALUE: usize = 255;

/// Why a payload cannot be written (the gateway's own mistake).
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EncodePayloadError {
    /// More verdicts than the area holds; a knock asks for 16 at most.
    #[error("a reply holds the verdicts of 16 resources")]
    Verdicts,
    /// A reason of more than 120 bytes.
    #[error("a reason has at most 120 bytes")]
    Reason,
    /// The TLVs do not fit together.
    #[error("the reply's TLVs do not fit")]
    Full,
}

impl From<Full> for EncodePayloadError {
    fn from(_: Full) -> Self {
        Self::Full
    }
}

type Area = Writer<TLV_LEN>;

impl ReplyPayload {
    /// Writes the payload. Routes that do not fit are left out, the last ones first; everything
    /// else must fit, and does with 16 verdicts and a reason of 120 bytes.
    ///
    /// # Errors
    /// If there are too many verdicts or the reason is too long.
    pub fn encode(&self) -> Result<Zeroizing<[u8; PAYLOAD_LEN]>, EncodePayloadError> {
        let mut area = Area::new();
        if let Some(prekey) = &self.prekey {
            push_prekey(&mut area, prekey)?;
        }
        match &self.outcome {
            Outcome::Session(session) => {
                push_verdicts(&mut area, &session.verdicts)?;
                push_reason(&mut area, session.reason.as_deref())?;
                if let Some(dns) = session.dns {
                    area.push(DNS, &wire_address(dns))?;
                }
                push_routes(&mut area, &session.routes)?;
            }
            Outcome::Closed {
                verdicts, reason, ..
            }
            | Outcome::Refused {
                verdicts, reason, ..
            } => {
                push_verdicts(&mut area, verdicts)?;
                push_reason(&mut area, reason.as_deref())?;
            }
            Outcome::Enrolled(offer) => {
                if let Some(offer) = offer {
                    push_totp(&mut area, offer)?;
                }
            }
        }
        Ok(Zeroizing::new(self.assemble(&area.finish())))
    }

    fn assemble(&self, tlvs: &[u8; TLV_LEN]) -> [u8; PAYLOAD_LEN] {
        let before = Before::of(&self.outcome);
        join(&[
            &[self.status()],
            &before.flags_and_door,
            &before.session,
            &self.gateway_time.as_millis().to_be_bytes(),
            &before.not_after,
            &before.wg_public,
            &before.endpoint,
            &wire_socket(self.source),
            &before.tunnel,
            tlvs,
        ])
    }

    const fn status(&self) -> u8 {
        match &self.outcome {
            Outcome::Session(session) => repeat_status(session.repeat),
            Outcome::Closed { repeat, .. } => repeat_status(*repeat),
            Outcome::Refused {
                why: RefusedFor::Policy,
                ..
            } => 2,
            Outcome::Refused {
                why: RefusedFor::Capacity,
                ..
            } => 3,
            Outcome::Enrolled(_) => 4,
        }
    }
}

const fn repeat_status(repeat: Repeat) -> u8 {
    match repeat {
        Repeat::First => 0,
        Repeat::Again => 1,
    }
}

/// The fields a session fills and every other outcome leaves zero.
struct Before {
    flags_and_door: [u8; 3],
    session: [u8; 8],
    not_after: [u8; 8],
    wg_public: [u8; 32],
    endpoint: [u8; 18],
    tunnel: [u8; 42],
}

impl Before {
    fn of(outcome: &Outcome) -> Self {
        match outcome {
            Outcome::Session(session) => Self::session(session),
            Outcome::Closed { .. } | Outcome::Refused { .. } | Outcome::Enrolled(_) => Self {
                flags_and_door: [0; 3],
                session: [0; 8],
                not_after: [0; 8],
                wg_public: [0; 32],
                endpoint: [0; 18],
                tunnel: [0; 42],
            },
        }
    }

    fn session(session: &SessionReply) -> Self {
        let flags = match session.door {
            DoorKind::Address => 0,
            DoorKind::AddressAndPort => 1,
        };
        Self {
            flags_and_door: join(&[&[flags], &session.door_secs.to_be_bytes()]),
            session: session.id.to_bytes(),
            not_after: session.not_after.as_millis().to_be_bytes(),
            wg_public: session.wg_public,
            endpoint: session.endpoint.map_or([0; 18], wire_socket),
            tunnel: join(&[
                &session.tunnel4.map_or([0; 4], |address| address.octets()),
                &session.tunnel6.map_or([0; 16], |address| address.octets()),
                &session.gateway_tunnel.map_or([0; 16], wire_address),
                &session.control_port.to_be_bytes(),
                &session.mtu.to_be_bytes(),
                &session.keepalive.to_be_bytes(),
            ]),
        }
    }
}

fn wire_socket(socket: SocketAddr) -> [u8; 18] {
    let ip: IpAddr = socket.ip();
    join(&[&wire_address(ip), &socket.port().to_be_bytes()])
}

fn push_verdicts(
    area: &mut Area,
    verdicts: &[(ResourceId, Verdict)],
) -> Result<(), EncodePayloadError> {
    if verdicts.is_empty() {
        return Ok(());
    }
    let mut value = Vec::new();
    for (id, verdict) in verdicts {
        value.extend_from_slice(id.as_bytes());
        value.push(verdict.code());
    }
    area.push(VERDICTS, &value)
        .map_err(|Full| EncodePayloadError::Verdicts)
}

fn push_reason(area: &mut Area, reason: Option<&str>) -> Result<(), EncodePayloadError> {
    match reason {
        Some(text) if text.len() > MAX_REASON => Err(EncodePayloadError::Reason),
        Some(text) => Ok(area.push(REASON, text.as_bytes())?),
        None => Ok(()),
    }
}

fn push_prekey(area: &mut Area, prekey: &Prekey) -> Result<(), Full> {
    let value: [u8; 41] = join(&[
        &[prekey.kid.get()],
        prekey.key.as_bytes(),
        &prekey.not_after.as_millis().to_be_bytes(),
    ]);
    area.push(PREKEY, &value)
}

fn push_totp(area: &mut Area, offer: &TotpOffer) -> Result<(), Full> {
    let secret = offer.secret.expose();
    let mut value = Zeroizing::new(Vec::with_capacity(secret.len().saturating_add(2)));
    value.extend_from_slice(&[offer.digits, offer.period]);
    value.extend_from_slice(secret);
    area.push(TOTP, &value)
}

/// Those that fit (SPEC §6); the control channel has all.
fn push_routes(area: &mut Area, routes: &[Route]) -> Result<(), Full> {
    let room = area.free().saturating_sub(2).min(MAX_VALUE);
    let mut value = Vec::new();
    for route in routes {
        if value.len().saturating_add(route.wire_len()) > room {
            break;
        }
        route.write(&mut value);
    }
    if value.is_empty() {
        Ok(())
    } else {
        area.push(ROUTES, &value)
    }
}
