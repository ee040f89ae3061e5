//! How many connections were told to the access log, and how many there were: the counters of its rules.

use std::ffi::CStr;
use std::io;

use spa_order::{Connections, Told};

use super::message::{FAMILY, TABLE};
use super::rules::{NEW, REFUSED};
use crate::netlink::{DUMP, Link, REQUEST_ACK, Request, attribute, attributes, be64};

// include/uapi/linux/netfilter/nf_tables.h
const NFT_MSG_GETRULE: u16 = (10 << 8) | 7;
const NFTA_RULE_TABLE: u16 = 1;
const NFTA_RULE_CHAIN: u16 = 2;
const NFTA_RULE_EXPRESSIONS: u16 = 4;
const NFTA_EXPR_NAME: u16 = 1;
const NFTA_EXPR_DATA: u16 = 2;
const NFTA_COUNTER_PACKETS: u16 = 2;
/// Bytes of `struct nfgenmsg` in front of the attributes.
const NFGEN_LEN: usize = 4;

/// Reads them; all zero where there is no access log.
///
/// # Errors
/// The kernel's errno.
pub fn connections(link: &mut Link) -> io::Result<Connections> {
    Ok(Connections {
        allowed: told(link, NEW)?,
        refused: told(link, REFUSED)?,
    })
}

/// The first rule of these chains counts what is told, the second all.
fn told(link: &mut Link, chain: &CStr) -> io::Result<Told> {
    let request = Request::new(NFT_MSG_GETRULE, REQUEST_ACK | DUMP, &[FAMILY, 0, 0, 0])
        .attribute(NFTA_RULE_TABLE, TABLE.to_bytes_with_nul())
        .attribute(NFTA_RULE_CHAIN, chain.to_bytes_with_nul());
    let mut counts = Vec::new();
    link.ask(request, |_, payload| {
        let rule = payload.get(NFGEN_LEN..).unwrap_or_default();
        // A kernel that does not know the filter shows the rules of all chains.
        let ours = attribute(rule, NFTA_RULE_CHAIN) == Some(chain.to_bytes_with_nul());
        let counter = ours.then(|| counter(rule)).flatten();
        counts.extend(counter);
    })?;
    let [told, all] = <[u64; 2]>::try_from(counts).unwrap_or_default();
    Ok(Told { all, told })
}

fn counter(rule: &[u8]) -> Option<u64> {
    let expressions = attribute(rule, NFTA_RULE_EXPRESSIONS)?;
    let (_, counter) = attributes(expressions).find(|(_, expression)| {
        attribute(expression, NFTA_EXPR_NAME) == Some(c"counter".to_bytes_with_nul())
    })?;
    attribute(attribute(counter, NFTA_EXPR_DATA)?, NFTA_COUNTER_PACKETS).and_then(be64)
}
