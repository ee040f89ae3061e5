//! What a knock asks for: `info` and `ext` (SPEC §4), strictly parsed and built.
//!
//! A [`Request`] exists only in shapes the spec allows: a ROAM without session or an ENROL with
//! a code cannot be written down.

use alloc::string::String;
use alloc::vec::Vec;
use core::fmt;
use core::net::{IpAddr, Ipv6Addr};

use zeroize::{Zeroize, ZeroizeOnDrop};

use crate::bytes::Reader;
use crate::ids::{ResourceId, SessionId};
use crate::primitives::join;
use crate::proof::ProofPublic;
use crate::secret::RecoveryCode;
use crate::time::WallTime;
use crate::tlv::{self, TlvError, Writer};

/// The format of `info` in KNOCK/1.
const FORMAT: u8 = 1;
/// Flag b0: the WireGuard interface will send from this knock's source port.
const SAME_PORT: u8 = 1;
/// The code field of a knock that carries no TOTP.
const NO_CODE: u32 = u32::MAX;

const RESOURCES: u8 = 0x01;
const ALL: u8 = 0x02;
const WG_KEY: u8 = 0x03;
const POSTURE: u8 = 0x04;
const ENROL: u8 = 0x05;
const SOURCE: u8 = 0x06;
const RECOVERY: u8 = 0x07;
const SESSION: u8 = 0x08;

/// Most resources one knock can name (SPEC §4, TLV 0x01).
const MAX_RESOURCES: usize = 16;
/// Longest posture in bytes (SPEC §4, TLV 0x04).
const MAX_POSTURE: usize = 224;
/// Longest device label in bytes (SPEC §4, TLV 0x05).
const MAX_LABEL: usize = 32;

/// What kind of knock this is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Op {
    /// Opens a session.
    Open,
    /// Moves the door of a live session to a new address (SPEC §13).
    Roam,
    /// Ends a session from outside (SPEC §13).
    Close,
    /// Redeems an invite (SPEC §14).
    Enrol,
}

/// The fixed part of a knock's plaintext, 16 bytes. Wiped on drop: it holds the code.
#[derive(Clone, PartialEq, Eq, Zeroize, ZeroizeOnDrop)]
pub struct Info([u8; Self::LEN]);

impl Info {
    /// Length in bytes (SPEC §4).
    pub const LEN: usize = 16;

    /// Takes bytes as they are; [`Request::parse`] judges them.
    #[must_use]
    pub const fn from_bytes(bytes: [u8; Self::LEN]) -> Self {
        Self(bytes)
    }

    /// Gives the bytes.
    #[must_use]
    pub const fn as_bytes(&self) -> &[u8; Self::LEN] {
        &self.0
    }
}

/// The TLV part of a knock's plaintext, 367 bytes. Wiped on drop: it may hold a recovery code.
#[derive(Clone, PartialEq, Eq, Zeroize, ZeroizeOnDrop)]
pub struct Ext([u8; Self::LEN]);

impl Ext {
    /// Length in bytes (SPEC §4).
    pub const LEN: usize = 367;

    /// Takes bytes as they are; [`Request::parse`] judges them.
    #[must_use]
    pub const fn from_bytes(bytes: [u8; Self::LEN]) -> Self {
        Self(bytes)
    }

    /// Gives the bytes.
    #[must_use]
    pub const fn as_bytes(&self) -> &[u8; Self::LEN] {
        &self.0
    }
}

impl fmt::Debug for Info {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Info")
    }
}

impl fmt::Debug for Ext {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Ext")
    }
}

/// What a knock asks, said once per transaction (SPEC §4, §10).
#[derive(Debug, PartialEq, Eq)]
pub struct Request {
    /// Start of the transaction: `ts`, the same in its repeats.
    pub ts: WallTime,
    /// SAME_PORT: the WireGuard interface will send from this knock's source port.
    pub same_port: bool,
    /// The address the client believes it has; the gateway refuses any other source. An IPv4
    /// address is always `V4` here.
    pub source: Option<IpAddr>,
    /// The operation and what belongs to it.
    pub ask: Ask,
}

/// An operation with exactly the fields it takes.
#[derive(Debug, PartialEq, Eq)]
pub enum Ask {
    /// OPEN.
    Open(OpenAsk),
    /// ROAM of this session.
    Roam(SessionId),
    /// CLOSE of this session.
    Close(SessionId),
    /// ENROL.
    Enrol(EnrolAsk),
}

/// What an OPEN asks for.
#[derive(Debug, PartialEq, Eq)]
pub struct OpenAsk {
    /// Wanted length of the session in minutes; 0 = what policy gives.
    pub minutes: u16,
    /// The second factor, if any.
    pub factor: SecondFactor,
    /// The resources.
    pub wanted: Wanted,
    /// `W`, the client's WireGuard key for this session. May have small order: SPEC §8 step 11.
    pub wg_key: [u8; 32],
    /// What the device says of itself: CBOR, opaque here, at most 224 bytes.
    pub posture: Option<Vec<u8>>,
}

/// What an ENROL brings.
#[derive(Debug, PartialEq, Eq)]
pub struct EnrolAsk {
    /// `Q`, the proof key the gateway shall remember.
    pub q: ProofPublic,
    /// Name of the device, 1 to 32 bytes of UTF-8.
    pub label: String,
    /// What the device says of itself: CBOR, opaque here, at most 224 bytes.
    pub posture: Option<Vec<u8>>,
}

/// The second factor of an OPEN: one of the two, or none (machines).
#[derive(PartialEq, Eq)]
pub enum SecondFactor {
    /// None: a machine, or a refusal in the making.
    None,
    /// A TOTP as a number. May have more digits than the person's codes: such a one never fits.
    Totp(u32),
    /// A recovery code.
    Recovery(RecoveryCode),
}

impl fmt::Debug for SecondFactor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::None => "None",
            Self::Totp(_) => "Totp",
            Self::Recovery(_) => "Recovery",
        })
    }
}

/// The resources an OPEN asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Wanted {
    /// These, 1 to 16, in this order. One may occur twice and gets two verdicts.
    Resources(Vec<ResourceId>),
    /// Everything policy allows.
    All,
    /// The control channel alone.
    ControlOnly,
}

/// Why a knock's plaintext is not a request (SPEC §8 step 7).
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ParseError {
    /// The format nibble is not 1.
    #[error("unknown format of info")]
    Format,
    /// The op nibble is none of the four.
    #[error("unknown op")]
    Op,
    /// A reserved flag is set.
    #[error("a reserved flag is set")]
    Flags,
    /// A TOTP stands in an op other than OPEN, or beside a recovery code.
    #[error("a code where none belongs")]
    Code,
    /// The TLVs are not what the op takes.
    #[error(transparent)]
    Tlv(#[from] TlvError),
}

/// Why a request cannot be written down (the client's own mistake).
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EncodeError {
    /// Zero or more than 16 resources.
    #[error("a knock names 1 to 16 resources")]
    Resources,
    /// A posture of more than 224 bytes.
    #[error("a posture has at most 224 bytes")]
    Posture,
    /// A label that is empty or longer than 32 bytes.
    #[error("a device label has 1 to 32 bytes")]
    Label,
    /// The number that means "no code" was given as a code.
    #[error("a code has at most 8 digits")]
    Code,
}

impl Request {
    /// Tells which operation this is.
    #[must_use]
    pub const fn op(&self) -> Op {
        match self.ask {
            Ask::Open(_) => Op::Open,
            Ask::Roam(_) => Op::Roam,
            Ask::Close(_) => Op::Close,
            Ask::Enrol(_) => Op::Enrol,
        }
    }

    /// Parses strictly: format, op, flags, TLVs, those the op requires, exact padding
    /// (SPEC §8 step 7).
    ///
    /// # Errors
    /// Whatever the spec does not allow in so many words.
    pub fn parse(info: &Info, ext: &Ext) -> Result<Self, ParseError> {
        let fixed = Fixed::parse(info)?;
        let found = Found::parse(fixed.op, ext)?;
        if fixed.code != NO_CODE && (fixed.op != Op::Open || found.recovery.is_some()) {
            return Err(ParseError::Code);
        }
        Ok(Self {
            ts: fixed.ts,
            same_port: fixed.same_port,
            source: found.source,
            ask: found.ask(&fixed)?,
        })
    }

    /// Writes the request as `info` and `ext`: once per transaction, for all of its packets.
    ///
    /// # Errors
    /// If a field does not fit the wire.
    pub fn encode(&self) -> Result<(Info, Ext), EncodeError> {
        let (op, minutes, code) = match &self.ask {
            Ask::Open(open) => (0, open.minutes, open.factor.code()?),
            Ask::Roam(_) => (1, 0, NO_CODE),
            Ask::Close(_) => (2, 0, NO_CODE),
            Ask::Enrol(_) => (3, 0, NO_CODE),
        };
        let info = join(&[
            &[FORMAT << 4 | op, if self.same_port { SAME_PORT } else { 0 }],
            &minutes.to_be_bytes(),
            &self.ts.as_millis().to_be_bytes(),
            &code.to_be_bytes(),
        ]);
        Ok((Info(info), Ext(self.encode_ext()?)))
    }

    fn encode_ext(&self) -> Result<[u8; Ext::LEN], EncodeError> {
        let mut area = Area(Writer::new());
        match &self.ask {
            Ask::Open(open) => {
                match &open.wanted {
                    Wanted::Resources(ids) => area.resources(ids)?,
                    Wanted::All => area.push(ALL, &[]),
                    Wanted::ControlOnly => {}
                }
                area.push(WG_KEY, &open.wg_key);
                area.posture(open.posture.as_deref())?;
                if let SecondFactor::Recovery(code) = &open.factor {
                    area.push(RECOVERY, code.expose());
                }
            }
            Ask::Roam(session) | Ask::Close(session) => area.push(SESSION, session.as_bytes()),
            Ask::Enrol(enrol) => {
                area.enrol(enrol)?;
                area.posture(enrol.posture.as_deref())?;
            }
        }
        if let Some(source) = self.source {
            area.push(SOURCE, &wire_address(source));
        }
        Ok(area.0.finish())
    }
}

impl SecondFactor {
    const fn code(&self) -> Result<u32, EncodeError> {
        match self {
            Self::Totp(NO_CODE) => Err(EncodeError::Code),
            Self::Totp(code) => Ok(*code),
            Self::None | Self::Recovery(_) => Ok(NO_CODE),
        }
    }
}

/// An address in 16 bytes, IPv4 as ::ffff:a.b.c.d (SPEC §4, §6).
pub(crate) fn wire_address(address: IpAddr) -> [u8; 16] {
    match address {
        IpAddr::V4(v4) => v4.to_ipv6_mapped().octets(),
        IpAddr::V6(v6) => v6.octets(),
    }
}

/// The inverse of [`wire_address`].
pub(crate) fn address_of(wire: [u8; 16]) -> IpAddr {
    Ipv6Addr::from(wire).to_canonical()
}

struct Area(Writer<{ Ext::LEN }>);

impl Area {
    /// Pushes what always fits: 66 + 34 + 226 + 18 + 18 = 362 bytes are the most an op takes.
    fn push(&mut self, kind: u8, value: &[u8]) {
        self.0
            .push(kind, value)
            .expect("the longest request fits the 367 bytes of ext");
    }

    fn resources(&mut self, ids: &[ResourceId]) -> Result<(), EncodeError> {
        if ids.is_empty() || ids.len() > MAX_RESOURCES {
            return Err(EncodeError::Resources);
        }
        let joined: Vec<u8> = ids.iter().flat_map(|id| id.to_bytes()).collect();
        self.push(RESOURCES, &joined);
        Ok(())
    }

    fn posture(&mut self, posture: Option<&[u8]>) -> Result<(), EncodeError> {
        let Some(posture) = posture else {
            return Ok(());
        };
        if posture.len() > MAX_POSTURE {
            return Err(EncodeError::Posture);
        }
        self.push(POSTURE, posture);
        Ok(())
    }

    fn enrol(&mut self, enrol: &EnrolAsk) -> Result<(), EncodeError> {
        if enrol.label.is_empty() || enrol.label.len() > MAX_LABEL {
            return Err(EncodeError::Label);
        }
        let mut value = enrol.q.as_bytes().to_vec();
        value.extend_from_slice(enrol.label.as_bytes());
        self.push(ENROL, &value);
        Ok(())
    }
}

/// `info`, parsed.
struct Fixed {
    op: Op,
    same_port: bool,
    minutes: u16,
    ts: WallTime,
    code: u32,
}

impl Fixed {
    fn parse(info: &Info) -> Result<Self, ParseError> {
        let mut reader = Reader::new(info.as_bytes());
        let mut next = || {
            Some((
                reader.u8()?,
                reader.u8()?,
                reader.u16()?,
                reader.u64()?,
                reader.u32()?,
            ))
        };
        let (kind, flags, minutes, ts, code) = next().ok_or(ParseError::Format)?;
        if kind >> 4 != FORMAT {
            return Err(ParseError::Format);
        }
        let op = match kind & 0x0f {
            0 => Op::Open,
            1 => Op::Roam,
            2 => Op::Close,
            3 => Op::Enrol,
            _ => return Err(ParseError::Op),
        };
        if flags & !SAME_PORT != 0 {
            return Err(ParseError::Flags);
        }
        let same_port = flags & SAME_PORT != 0;
        Ok(Self {
            op,
            same_port,
            minutes,
            ts: WallTime::from_millis(ts),
            code,
        })
    }
}

/// `ext`, each TLV shaped and known to belong to the op.
#[derive(Default)]
struct Found {
    resources: Option<Vec<ResourceId>>,
    all: bool,
    wg_key: Option<[u8; 32]>,
    posture: Option<Vec<u8>>,
    enrol: Option<(ProofPublic, String)>,
    source: Option<IpAddr>,
    recovery: Option<RecoveryCode>,
    session: Option<SessionId>,
}

impl Found {
    fn parse(op: Op, ext: &Ext) -> Result<Self, TlvError> {
        let mut found = Self::default();
        for (kind, value) in tlv::read(ext.as_bytes())? {
            if !is_known(kind) {
                if tlv::is_critical(kind) {
                    return Err(TlvError::Critical(kind));
                }
                continue;
            }
            if !belongs(op, kind) {
                return Err(TlvError::Misplaced(kind));
            }
            found.take(kind, value)?;
        }
        if found.all && found.resources.is_some() {
            return Err(TlvError::Misplaced(ALL));
        }
        Ok(found)
    }

    fn take(&mut self, kind: u8, value: &[u8]) -> Result<(), TlvError> {
        let malformed = TlvError::Malformed(kind);
        match kind {
            RESOURCES => self.resources = Some(resource_ids(value).ok_or(malformed)?),
            ALL if value.is_empty() => self.all = true,
            WG_KEY => self.wg_key = Some(tlv::exact(kind, value)?),
            POSTURE if value.len() <= MAX_POSTURE => self.posture = Some(value.to_vec()),
            ENROL => self.enrol = Some(enrolment(value).ok_or(malformed)?),
            SOURCE => self.source = Some(address_of(tlv::exact(kind, value)?)),
            RECOVERY => self.recovery = Some(RecoveryCode::from_bytes(tlv::exact(kind, value)?)),
            SESSION => self.session = Some(SessionId::from_bytes(tlv::exact(kind, value)?)),
            _ => return Err(malformed),
        }
        Ok(())
    }

    fn ask(self, fixed: &Fixed) -> Result<Ask, TlvError> {
        match fixed.op {
            Op::Open => {
                let factor = match self.recovery {
                    Some(code) => SecondFactor::Recovery(code),
                    None if fixed.code == NO_CODE => SecondFactor::None,
                    None => SecondFactor::Totp(fixed.code),
                };
                let wanted = match self.resources {
                    Some(ids) => Wanted::Resources(ids),
                    None if self.all => Wanted::All,
                    None => Wanted::ControlOnly,
                };
                let wg_key = self.wg_key.ok_or(TlvError::Missing(WG_KEY))?;
                let minutes = fixed.minutes;
                Ok(Ask::Open(OpenAsk {
                    minutes,
                    factor,
                    wanted,
                    wg_key,
                    posture: self.posture,
                }))
            }
            Op::Roam => self
                .session
                .map(Ask::Roam)
                .ok_or(TlvError::Missing(SESSION)),
            Op::Close => self
                .session
                .map(Ask::Close)
                .ok_or(TlvError::Missing(SESSION)),
            Op::Enrol => {
                let (q, label) = self.enrol.ok_or(TlvError::Missing(ENROL))?;
                Ok(Ask::Enrol(EnrolAsk {
                    q,
                    label,
                    posture: self.posture,
                }))
            }
        }
    }
}

/// Reply types are unknown in a knock (SPEC §4).
const fn is_known(kind: u8) -> bool {
    matches!(kind, RESOURCES..=SESSION)
}

const fn belongs(op: Op, kind: u8) -> bool {
    match op {
        Op::Open => matches!(kind, RESOURCES | ALL | WG_KEY | POSTURE | SOURCE | RECOVERY),
        Op::Roam | Op::Close => matches!(kind, SOURCE | SESSION),
        Op::Enrol => matches!(kind, POSTURE | ENROL | SOURCE),
    }
}

fn resource_ids(value: &[u8]) -> Option<Vec<ResourceId>> {
    let (ids, rest) = value.as_chunks::<4>();
    let good = rest.is_empty() && (1..=MAX_RESOURCES).contains(&ids.len());
    good.then(|| ids.iter().map(|id| ResourceId::from_bytes(*id)).collect())
}

fn enrolment(value: &[u8]) -> Option<(ProofPublic, String)> {
    let (q, label) = value.split_first_chunk::<32>()?;
    let label = core::str::from_utf8(label).ok()?;
    let good = (1..=MAX_LABEL).contains(&label.len());
    good.then(|| (ProofPublic::from_bytes(*q), String::from(label)))
}

#[cfg(test)]
mod tests;
