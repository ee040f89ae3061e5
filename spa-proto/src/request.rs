//! What a knock asks for: `info` and `ext` (SPEC §4), strictly parsed and built.
//!
//! A [`Request`] exists only in shapes the spec allows: a ROAM without session or an ENROL with
//! a code cannot be written down.

mod encode;
mod parse;

use alloc::string::String;
use alloc::vec::Vec;
use core::fmt;
use core::net::{IpAddr, Ipv6Addr};

use zeroize::{Zeroize, ZeroizeOnDrop};

use crate::ids::{ResourceId, SessionId};
use crate::proof::ProofPublic;
use crate::secret::RecoveryCode;
use crate::time::WallTime;
use crate::tlv::TlvError;

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

#[cfg(test)]
mod tests;
