//! The elements of a set as the kernel shows them.

use spa_order::{Ttl, Usage};

use super::element::Key;
use crate::netlink::{attribute, attributes, be64};

/// How far a timeout read back may be from the one ordered: the kernel counts in ticks, of 10 ms at most.
const TICK_MS: u64 = 10;

/// An element as the kernel shows it.
pub(super) struct Found {
    pub(super) key: Key,
    timeout_ms: Option<u64>,
    pub(super) expires_ms: Option<u64>,
    packets: u64,
    bytes: u64,
    /// What it leads to, in a map.
    pub(super) data: Option<Vec<u8>>,
}

impl Found {
    pub(super) fn has_timeout(&self, ttl: Ttl) -> bool {
        let ordered = u64::from(ttl.as_millis());
        let near = self
            .timeout_ms
            .is_some_and(|shown| shown.abs_diff(ordered) <= TICK_MS);
        near && self
            .expires_ms
            .is_some_and(|left| left <= ordered + TICK_MS)
    }

    /// Packets and bytes since it was written.
    pub(super) const fn counted(&self) -> (u64, u64) {
        (self.packets, self.bytes)
    }

    /// With what was counted before.
    pub(super) fn usage(&self, (packets, bytes): (u64, u64)) -> Usage {
        let remaining = self.expires_ms.unwrap_or(0);
        Usage {
            remaining_ms: u32::try_from(remaining).unwrap_or(u32::MAX),
            packets: self.packets.saturating_add(packets),
            bytes: self.bytes.saturating_add(bytes),
        }
    }
}

// include/uapi/linux/netfilter/nf_tables.h
const NFTA_SET_ELEM_LIST_ELEMENTS: u16 = 3;
const NFTA_SET_ELEM_KEY: u16 = 1;
const NFTA_SET_ELEM_DATA: u16 = 2;
const NFTA_SET_ELEM_TIMEOUT: u16 = 4;
const NFTA_SET_ELEM_EXPIRATION: u16 = 5;
const NFTA_SET_ELEM_EXPR: u16 = 7;
const NFTA_SET_ELEM_KEY_END: u16 = 10;
const NFTA_SET_ELEM_EXPRESSIONS: u16 = 11;
const NFTA_DATA_VALUE: u16 = 1;
const NFTA_EXPR_DATA: u16 = 2;
const NFTA_COUNTER_BYTES: u16 = 1;
const NFTA_COUNTER_PACKETS: u16 = 2;
/// Bytes of `struct nfgenmsg` in front of the attributes.
const NFGEN_LEN: usize = 4;

/// The elements in one answer.
pub(super) fn elements(payload: &[u8]) -> impl Iterator<Item = Found> {
    let list = payload.get(NFGEN_LEN..).unwrap_or_default();
    let list = attribute(list, NFTA_SET_ELEM_LIST_ELEMENTS).unwrap_or_default();
    attributes(list).filter_map(|(_, element)| found(element))
}

pub(super) fn lists_keys(payload: &[u8]) -> bool {
    let list = payload.get(NFGEN_LEN..).unwrap_or_default();
    let list = attribute(list, NFTA_SET_ELEM_LIST_ELEMENTS).unwrap_or_default();
    attributes(list).all(|(_, element)| attribute(element, NFTA_SET_ELEM_KEY).is_some())
}

fn found(element: &[u8]) -> Option<Found> {
    let value = |kind| attribute(attribute(element, kind)?, NFTA_DATA_VALUE).map(<[u8]>::to_vec);
    let number = |kind| attribute(element, kind).and_then(be64);
    // One expression is shown by itself, or as the only one of a list.
    let counter = attribute(element, NFTA_SET_ELEM_EXPR).or_else(|| {
        attributes(attribute(element, NFTA_SET_ELEM_EXPRESSIONS)?)
            .map(|(_, first)| first)
            .next()
    });
    let counted = |kind| attribute(attribute(counter?, NFTA_EXPR_DATA)?, kind).and_then(be64);
    Some(Found {
        key: Key {
            first: value(NFTA_SET_ELEM_KEY)?,
            last: value(NFTA_SET_ELEM_KEY_END),
        },
        timeout_ms: number(NFTA_SET_ELEM_TIMEOUT),
        expires_ms: number(NFTA_SET_ELEM_EXPIRATION),
        packets: counted(NFTA_COUNTER_PACKETS).unwrap_or(0),
        bytes: counted(NFTA_COUNTER_BYTES).unwrap_or(0),
        data: value(NFTA_SET_ELEM_DATA),
    })
}
