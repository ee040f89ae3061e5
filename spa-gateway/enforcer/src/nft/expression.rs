//! The words a rule is made of, as plain data; a writer (`message`) turns each into an expression of nf_tables.

use std::ffi::CStr;

/// Where a packet's bytes are counted from.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Base {
    /// The IP header.
    Network,
    /// Behind the IP header and its options or extension headers.
    Transport,
}

/// Which side of a connection a tracked address is taken from.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Direction {
    /// As the first packet had it.
    Original,
    /// As its answer had it.
    Reply,
}

/// One 32-bit register of the sixteen, counted from 0. Register 0 is also where lookups and comparisons start.
pub type Register = u32;

/// How much of a packet is told to the access log: an IP header with options or an extension header, and the ports.
pub const LOGGED_BYTES: u32 = 96;
/// How many packets are told at once, if so many come within 0.1 s (`access`).
pub const LOGGED_AT_ONCE: u16 = 32;

/// One expression.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Expression {
    /// Loads packet bytes.
    Payload {
        base: Base,
        offset: u32,
        len: u32,
        into: Register,
    },
    /// Loads something the kernel knows of the packet (`NFT_META_*`).
    Meta { key: u32, into: Register },
    /// Loads something of its connection (`NFT_CT_*`).
    Ct {
        key: u32,
        of: Option<Direction>,
        into: Register,
    },
    /// Loads what kind of address the destination is (`RTN_*`), by the routing table of this moment.
    DestinationKind { into: Register },
    /// Loads a constant.
    Constant { value: Vec<u8>, into: Register },
    /// Keeps the bits of register 0 that the mask has.
    Mask { mask: Vec<u8> },
    /// Goes on if register 0 holds these bytes.
    Equals { value: Vec<u8> },
    /// Goes on if it does not.
    Differs { value: Vec<u8> },
    /// Goes on if the registers from 0 are in the set.
    In { set: &'static CStr, id: u32 },
    /// Goes on for so many packets a second, so many at once.
    Limit { a_second: u64, burst: u32 },
    /// Tells whoever reads this group of nfnetlink_log of the packet's headers, with a word in front.
    Log { group: u16, word: &'static CStr },
    /// Goes on if the registers from 0 are in the map, and loads what they lead to into register 0.
    Find { map: &'static CStr, id: u32 },
    /// Counts.
    Counter,
    /// Keeps connection tracking off the packet.
    Notrack,
    /// Gives it the address of the interface it leaves by.
    Masquerade,
    /// Gives it the destination in register 0, of this family (`NFPROTO_*`).
    Destination { family: u8 },
    /// The packet passes this hook.
    Accept,
    /// The packet is gone, silently.
    Drop,
    /// Goes on in another chain for good: should that have no verdict (somebody flushed it), the base chain's policy has.
    Goto(&'static CStr),
}

impl Expression {
    /// What nf_tables calls it.
    pub fn kernel_name(&self) -> &'static CStr {
        match self {
            Self::Payload { .. } => c"payload",
            Self::Meta { .. } => c"meta",
            Self::Ct { .. } => c"ct",
            Self::DestinationKind { .. } => c"fib",
            Self::Mask { .. } => c"bitwise",
            Self::Equals { .. } | Self::Differs { .. } => c"cmp",
            Self::In { .. } | Self::Find { .. } => c"lookup",
            Self::Limit { .. } => c"limit",
            Self::Log { .. } => c"log",
            Self::Counter => c"counter",
            Self::Notrack => c"notrack",
            Self::Masquerade => c"masq",
            Self::Destination { .. } => c"nat",
            Self::Constant { .. } | Self::Accept | Self::Drop | Self::Goto(_) => c"immediate",
        }
    }
}
