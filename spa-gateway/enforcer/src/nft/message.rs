//! Everything that is said to nf_tables, as plain data, and the one trait that turns it into bytes.
//!
//! Two write the same bytes: `libnftnl`, with the library, and `plain`, without any, for static programs. Nothing
//! else in the enforcer knows which it is; what the kernel answers is read without either (`crate::netlink`).

use std::ffi::CStr;

use super::rules::Line;

/// The table all of ours is in.
pub const TABLE: &CStr = c"spa";
/// `NFPROTO_INET`: its family, both IPv4 and IPv6.
pub const FAMILY: u8 = 1;

// include/uapi/linux/netfilter/nf_tables.h
/// `NFT_SET_CONSTANT`: filled in the batch that makes it, and never after.
pub const CONSTANT: u32 = 0x2;
/// `NFT_SET_INTERVAL`.
pub const INTERVAL: u32 = 0x4;
/// `NFT_SET_MAP`.
pub const MAP: u32 = 0x8;
/// `NFT_SET_TIMEOUT`.
pub const TIMEOUT: u32 = 0x10;
/// `NFT_SET_CONCAT`, Linux 5.6.
pub const CONCAT: u32 = 0x80;

/// Writes messages.
pub trait Writer {
    /// Appends the bytes of one message, numbered `seq`, padded to four.
    fn append(&mut self, to: &mut Vec<u8>, message: &Message<'_>, seq: u32);
}

/// One message. All but the questions belong between `Begin` and `End`.
#[derive(Clone, Copy, Debug)]
pub enum Message<'a> {
    /// The head of a batch.
    Begin,
    /// The end of a batch: without it nothing is done.
    End,
    /// Makes the table; one that is there stays.
    NewTable,
    /// Deletes the table with all that is in it; one that is not there is an error.
    DeleteTable,
    /// Makes a chain.
    NewChain(&'a Chain),
    /// Ends a chain with a rule.
    NewRule(&'a Line),
    /// Makes a set.
    NewSet(&'a SetShape),
    /// Adds the elements; one that is there is an error.
    AddElements(&'a SetShape, &'a [Element]),
    /// Deletes the element; one that is not there is an error.
    DeleteElement(&'a SetShape, &'a Element),
    /// Takes every element out of the set.
    EmptySet(&'a SetShape),
    /// Asks for the element that this key belongs to.
    GetElement(&'a SetShape, &'a Element),
    /// Asks for all elements.
    DumpElements(&'a SetShape),
}

/// A chain.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Chain {
    /// Its name.
    pub name: &'static CStr,
    /// What makes packets come to it; `None` where only rules do.
    pub base: Option<BaseChain>,
}

/// Where a chain is among all chains of the machine.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct BaseChain {
    /// On a packet's way.
    pub hook: Hook,
    /// Lower comes first.
    pub priority: i32,
    /// What it may do.
    pub kind: ChainKind,
    /// What becomes of a packet no rule decides on.
    pub policy: Policy,
}

/// A place on a packet's way, as `NF_INET_*` numbers them.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub enum Hook {
    /// Whatever arrives.
    PreRouting = 0,
    /// What arrives for the machine.
    Input = 1,
    /// What passes through.
    Forward = 2,
    /// What the machine sends.
    Output = 3,
    /// Whatever leaves.
    PostRouting = 4,
}

/// What a base chain may do.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ChainKind {
    /// Accept and drop.
    Filter,
    /// Change addresses, once for each connection.
    Nat,
}

/// What becomes of a packet no rule decides on, as `NF_*` numbers it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub enum Policy {
    /// It is gone.
    Drop = 0,
    /// It passes.
    Accept = 1,
}

/// A set as the kernel is told of it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct SetShape {
    /// The table it is in.
    pub table: &'static CStr,
    /// Its name.
    pub name: &'static CStr,
    /// Its number within the batch that makes it.
    pub id: u32,
    /// `NFT_SET_*`.
    pub flags: u32,
    /// Data types, six bits each; only `nft list` reads them.
    pub key_type: u32,
    /// Bytes of a key, every field padded to four.
    pub key_len: u32,
    /// Bytes of each field of a concatenation; empty for a single one.
    pub fields: &'static [u8],
    /// The most elements; 0 = no limit.
    pub size: u32,
    /// 1 the machine's, 2 big-endian; only `nft list` reads it.
    pub byte_order: u32,
    /// What its keys lead to, if it is a map.
    pub data: Option<DataShape>,
}

/// What the keys of a map lead to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct DataShape {
    /// Data type; only `nft list` reads it.
    pub data_type: u32,
    /// Bytes.
    pub len: u32,
}

impl SetShape {
    /// The key's byte order in the form in which `nft` keeps it: `nft list` prints keys the right way round.
    pub fn note(&self) -> [u8; 6] {
        let [a, b, c, d] = self.byte_order.to_ne_bytes();
        [0, 4, a, b, c, d]
    }
}

/// An element as the kernel is told of it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Element {
    /// The key, or the first key of an interval.
    pub key: Vec<u8>,
    /// The last key of an interval.
    pub key_end: Option<Vec<u8>>,
    /// When it goes by itself; `None` only in constant sets.
    pub timeout_ms: Option<u64>,
    /// What it leads to, in a map.
    pub data: Option<Vec<u8>>,
}
