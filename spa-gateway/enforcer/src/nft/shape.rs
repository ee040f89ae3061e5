//! What the table is made of, as the kernel numbers it: to see, when what others did was not heard, whether it is as we made it.
//!
//! Invariant: a rule never changes under its number, and a chain's policy is part of what is compared.

use std::io;

use super::message::{FAMILY, TABLE};
use crate::netlink::{DUMP, Link, REQUEST_ACK, Request, attribute, be32, be64};

// include/uapi/linux/netfilter/nf_tables.h; what is not named is the same number for tables, chains and rules.
const NFT_MSG_GETTABLE: u16 = (10 << 8) | 1;
const NFT_MSG_GETCHAIN: u16 = (10 << 8) | 4;
const NFT_MSG_GETRULE: u16 = (10 << 8) | 7;
const NFTA_NAME_OF_TABLE: u16 = 1;
const NFTA_TABLE_FLAGS: u16 = 2;
const NFTA_CHAIN_HANDLE: u16 = 2;
const NFTA_CHAIN_POLICY: u16 = 5;
const NFTA_RULE_CHAIN: u16 = 2;
const NFTA_RULE_HANDLE: u16 = 3;
/// Bytes of `struct nfgenmsg` in front of the attributes.
const NFGEN_LEN: usize = 4;

/// One chain or rule, in the kernel's order, or the table's own flags.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Part {
    /// Zero: not dormant.
    Flags(Option<u32>),
    /// Its number, and what becomes of a packet at its end.
    Chain(Option<u64>, Option<u32>),
    /// Of which chain, and its number.
    Rule(Vec<u8>, Option<u64>),
}

/// Reads all of it.
///
/// # Errors
/// The kernel's errno.
pub fn shape(link: &mut Link) -> io::Result<Vec<Part>> {
    let mut parts = Vec::new();
    for kind in [NFT_MSG_GETTABLE, NFT_MSG_GETCHAIN, NFT_MSG_GETRULE] {
        let request = Request::new(kind, REQUEST_ACK | DUMP, &[FAMILY, 0, 0, 0]);
        link.ask(request, |_, payload| {
            let of = payload.get(NFGEN_LEN..).unwrap_or_default();
            let inet = payload.first() == Some(&FAMILY);
            if inet && attribute(of, NFTA_NAME_OF_TABLE) == Some(TABLE.to_bytes_with_nul()) {
                parts.push(part(kind, of));
            }
        })?;
    }
    Ok(parts)
}

fn part(kind: u16, of: &[u8]) -> Part {
    match kind {
        NFT_MSG_GETTABLE => Part::Flags(attribute(of, NFTA_TABLE_FLAGS).and_then(be32)),
        NFT_MSG_GETCHAIN => Part::Chain(
            attribute(of, NFTA_CHAIN_HANDLE).and_then(be64),
            attribute(of, NFTA_CHAIN_POLICY).and_then(be32),
        ),
        _ => Part::Rule(
            attribute(of, NFTA_RULE_CHAIN).unwrap_or_default().to_vec(),
            attribute(of, NFTA_RULE_HANDLE).and_then(be64),
        ),
    }
}
