//! The TLVs of a reply, each judged (SPEC §6).

use alloc::string::String;
use alloc::vec::Vec;
use core::net::IpAddr;
use core::num::NonZeroU8;
use core::time::Duration;

use super::parse::{Kind, usable};
use super::route::Extent;
use super::{
    DNS, DefaultRoute, MAX_REASON, PREKEY, PayloadError, Prekey, REASON, ROUTES, Route, TOTP,
    TotpOffer, VERDICTS, Verdict,
};
use crate::bytes::Reader;
use crate::ids::ResourceId;
use crate::keys::KnockPublic;
use crate::request::address_of;
use crate::secret::TotpSecret;
use crate::time::WallTime;
use crate::tlv::{self, TlvError};

/// Longest life of a knock key a client believes in (SPEC §6): 7 days handed out, 7 accepted, 1 spare.
pub const LONGEST_PREKEY: Duration = Duration::from_secs(15 * 24 * 3600);

/// The TLVs, each judged and known to belong to the status.
#[derive(Default)]
pub(super) struct Found {
    pub(super) prekey: Option<Prekey>,
    pub(super) totp: Option<TotpOffer>,
    pub(super) session: SessionTlvs,
    pub(super) said: Said,
}

#[derive(Default)]
pub(super) struct SessionTlvs {
    pub(super) routes: Vec<Route>,
    pub(super) dns: Option<IpAddr>,
}

#[derive(Default)]
pub(super) struct Said {
    pub(super) verdicts: Vec<(ResourceId, Verdict)>,
    pub(super) reason: Option<String>,
}

impl Found {
    pub(super) fn read(
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
