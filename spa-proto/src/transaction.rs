//! One action of a user as packets on the wire: the client's half of SPEC §10.
//!
//! Up to six packets with one `info` and `ext`; the secrets of all of them are kept until the
//! transaction is over, and of several valid replies the one with the latest gateway time counts.

use alloc::vec::Vec;
use core::fmt;
use core::time::Duration;

use crate::build::{BuildError, PendingKnock, Signer, build_knock};
use crate::keys::{DerivedKeys, KnockPublic};
use crate::knock::KNOCK_LEN;
use crate::payload::{DefaultRoute, ReplyPayload};
use crate::reply::{ReplyError, ReplySecrets};
use crate::request::{EncodeError, Ext, Info, Op, Request};
use crate::time::{FRESHNESS, Slot, WallTime};

/// When the packets of a transaction leave, counted from its first (SPEC §10).
pub const SEND_AT: [Duration; 6] = [
    Duration::ZERO,
    Duration::from_millis(800),
    Duration::from_millis(1600),
    Duration::from_millis(3000),
    Duration::from_millis(4500),
    Duration::from_millis(6000),
];

/// How long after the first packet a client keeps the secrets of unanswered ones (SPEC §10).
pub const SECRETS_KEPT: Duration = Duration::from_secs(10);

/// Gives the `ts` of a new transaction: `max(now, last + 1)`, where a last one more than F ahead
/// of the clock is forgotten first (SPEC §7). The caller stores the result before sending.
#[must_use]
pub fn next_transaction_time(now: WallTime, last: Option<WallTime>) -> WallTime {
    match last {
        Some(last) if last <= now.saturating_add(FRESHNESS) => {
            now.max(last.saturating_add(Duration::from_millis(1)))
        }
        Some(_) | None => now,
    }
}

/// Why a transaction makes no further packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TransactionError {
    /// All six were made.
    #[error("all packets of this transaction are sent")]
    Spent,
    /// A packet cannot be built.
    #[error(transparent)]
    Build(#[from] BuildError),
}

/// One user action: the packets sent for it and their secrets (SPEC §10).
pub struct Transaction {
    op: Op,
    info: Info,
    ext: Ext,
    pending: Vec<PendingKnock>,
    latest: Option<WallTime>,
}

impl Transaction {
    /// Fixes `info` and `ext` for all packets.
    ///
    /// # Errors
    /// If the request does not fit the wire.
    pub fn new(request: &Request) -> Result<Self, EncodeError> {
        let (info, ext) = request.encode()?;
        // Room for all: a growing vector would leave secrets behind unwiped.
        let pending = Vec::with_capacity(SEND_AT.len());
        Ok(Self {
            op: request.op(),
            info,
            ext,
            pending,
            latest: None,
        })
    }

    /// Tells what is asked.
    #[must_use]
    pub const fn op(&self) -> Op {
        self.op
    }

    /// Says when the next packet is due, counted from the first; `None` after the sixth.
    #[must_use]
    pub fn next_at(&self) -> Option<Duration> {
        SEND_AT.get(self.pending.len()).copied()
    }

    /// Builds the next packet. `e` is 32 random bytes, fresh; `slot` is now's.
    ///
    /// # Errors
    /// After six packets, or if one cannot be built.
    pub fn knock(
        &mut self,
        keys: &DerivedKeys,
        (kid, knock_key): (u8, &KnockPublic),
        slot: Slot,
        e: [u8; 32],
        signer: Signer<'_>,
    ) -> Result<[u8; KNOCK_LEN], TransactionError> {
        if self.next_at().is_none() {
            return Err(TransactionError::Spent);
        }
        let (packet, pending) =
            build_knock(keys, kid, knock_key, slot, e, &self.info, &self.ext, signer)?;
        self.pending.push(pending);
        Ok(packet)
    }

    /// Opens a reply to any packet of this transaction. A reply whose gateway time is not later
    /// than that of one opened before is stale and gives `Tag`: the gateway uses the keys of the
    /// last reply it sent.
    ///
    /// # Errors
    /// If the packet answers none of them, or must not be used.
    pub fn open_reply(
        &mut self,
        packet: &[u8],
        now: WallTime,
        default_route: DefaultRoute,
    ) -> Result<(ReplyPayload, ReplySecrets), ReplyError> {
        let mut attempts = self
            .pending
            .iter()
            .map(|pending| pending.open_reply(packet, now, default_route));
        let opened = attempts.find(|attempt| !matches!(attempt, Err(ReplyError::Tag)));
        let (payload, secrets) = opened.unwrap_or(Err(ReplyError::Tag))?;
        if self
            .latest
            .is_some_and(|latest| payload.gateway_time <= latest)
        {
            return Err(ReplyError::Tag);
        }
        self.latest = Some(payload.gateway_time);
        Ok((payload, secrets))
    }
}

impl fmt::Debug for Transaction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Transaction({:?}, {} sent)", self.op, self.pending.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_new_transaction_is_later_than_the_last() {
        let at = WallTime::from_millis;
        assert_eq!(next_transaction_time(at(1_000_000), None), at(1_000_000));
        assert_eq!(
            next_transaction_time(at(1_000_000), Some(at(5))),
            at(1_000_000)
        );
        assert_eq!(
            next_transaction_time(at(1_000_000), Some(at(1_000_000))),
            at(1_000_001)
        );
        assert_eq!(
            next_transaction_time(at(1_000_000), Some(at(1_090_000))),
            at(1_090_001)
        );
    }

    #[test]
    fn a_last_transaction_of_a_clock_gone_mad_is_forgotten() {
        let at = WallTime::from_millis;
        assert_eq!(
            next_transaction_time(at(1_000_000), Some(at(1_090_001))),
            at(1_000_000)
        );
    }
}
