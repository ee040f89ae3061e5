//! Judges a request: the gateway's side of SPEC §4, step 7 of §8.

use alloc::string::String;
use alloc::vec::Vec;
use core::net::IpAddr;

use super::{
    ALL, Ask, ENROL, EnrolAsk, Ext, FORMAT, Info, MAX_LABEL, MAX_POSTURE, MAX_RESOURCES, NO_CODE,
    Op, OpenAsk, POSTURE, ParseError, RECOVERY, RESOURCES, Request, SAME_PORT, SESSION, SOURCE,
    SecondFactor, WG_KEY, Wanted, address_of,
};
use crate::bytes::Reader;
use crate::ids::{ResourceId, SessionId};
use crate::proof::ProofPublic;
use crate::secret::RecoveryCode;
use crate::time::WallTime;
use crate::tlv::{self, TlvError};

impl Request {
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
