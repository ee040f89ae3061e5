//! The words rules are written in: short phrases of expressions, named as `nft` would read them aloud.

use std::ffi::CStr;
use std::net::IpAddr;

use super::expression::{Base, Expression, Register};
use super::sets::{Family, KNOCK_ID};
use super::table::interface_bytes;

/// A phrase; rules are concatenations of them.
pub type Words = Vec<Expression>;

// include/uapi/linux/netfilter/nf_tables.h
const META_IIFNAME: u32 = 6;
const META_OIFNAME: u32 = 7;
const META_NFPROTO: u32 = 15;
pub const META_L4PROTO: u32 = 16;
const CT_STATE: u32 = 0;
const CT_DIRECTION: u32 = 1;
const CT_STATUS: u32 = 2;
pub const CT_PROTOCOL: u32 = 10;
pub const CT_PROTO_SRC: u32 = 11;
pub const CT_SRC_IP: u32 = 19;
pub const CT_SRC_IP6: u32 = 21;
pub const ESTABLISHED: u32 = 1 << 1;
pub const RELATED: u32 = 1 << 2;
/// `IPS_CONFIRMED`: a packet of it went through before.
const CONFIRMED: u32 = 1 << 3;
pub const UDP: u8 = 17;
pub const ICMP: u8 = 1;
pub const ICMP6: u8 = 58;

pub fn icmp_of(family: Family) -> u8 {
    match family {
        Family::V4 => ICMP,
        Family::V6 => ICMP6,
    }
}

/// Registers an address takes.
pub fn width(family: Family) -> Register {
    match family {
        Family::V4 => 1,
        Family::V6 => 4,
    }
}

pub fn one(expression: Expression) -> Words {
    vec![expression]
}

pub fn accept() -> Words {
    one(Expression::Accept)
}

pub fn counted_drop() -> Words {
    vec![Expression::Counter, Expression::Drop]
}

pub fn equals(value: Vec<u8>) -> Words {
    one(Expression::Equals { value })
}

fn meta_is(key: u32, value: Vec<u8>) -> Words {
    vec![
        Expression::Meta { key, into: 0 },
        Expression::Equals { value },
    ]
}

fn meta_is_not(key: u32, value: Vec<u8>) -> Words {
    vec![
        Expression::Meta { key, into: 0 },
        Expression::Differs { value },
    ]
}

pub fn from(interface: &str) -> Words {
    meta_is(META_IIFNAME, interface_bytes(interface))
}

pub fn not_from(interface: &str) -> Words {
    meta_is_not(META_IIFNAME, interface_bytes(interface))
}

pub fn by(interface: &str) -> Words {
    meta_is(META_OIFNAME, interface_bytes(interface))
}

pub fn not_by(interface: &str) -> Words {
    meta_is_not(META_OIFNAME, interface_bytes(interface))
}

pub fn from_knock() -> Words {
    [
        one(Expression::Meta {
            key: META_IIFNAME,
            into: 0,
        }),
        within(c"knock", KNOCK_ID),
    ]
    .concat()
}

pub fn by_knock() -> Words {
    [
        one(Expression::Meta {
            key: META_OIFNAME,
            into: 0,
        }),
        within(c"knock", KNOCK_ID),
    ]
    .concat()
}

pub fn within(set: &'static CStr, id: u32) -> Words {
    one(Expression::In { set, id })
}

pub fn family_is(family: Family) -> Words {
    let number = match family {
        Family::V4 => 2,
        Family::V6 => 10,
    };
    meta_is(META_NFPROTO, vec![number])
}

pub fn protocol(number: u8) -> Words {
    meta_is(META_L4PROTO, vec![number])
}

pub fn not_protocol(number: u8) -> Words {
    meta_is_not(META_L4PROTO, vec![number])
}

pub fn icmp_type(kind: u8) -> Words {
    let load = Expression::Payload {
        base: Base::Transport,
        offset: 0,
        len: 1,
        into: 0,
    };
    vec![load, Expression::Equals { value: vec![kind] }]
}

/// Which end of a packet.
#[derive(Clone, Copy)]
pub enum Side {
    /// The sender.
    Source,
    /// The receiver.
    Destination,
}

pub fn load_port(side: Side, into: Register) -> Words {
    let offset = match side {
        Side::Source => 0,
        Side::Destination => 2,
    };
    one(Expression::Payload {
        base: Base::Transport,
        offset,
        len: 2,
        into,
    })
}

pub fn to_port(port: u16) -> Words {
    [
        load_port(Side::Destination, 0),
        equals(port.to_be_bytes().to_vec()),
    ]
    .concat()
}

pub fn from_port(port: u16) -> Words {
    [
        load_port(Side::Source, 0),
        equals(port.to_be_bytes().to_vec()),
    ]
    .concat()
}

pub fn load_source(family: Family, into: Register) -> Words {
    let (offset, len) = match family {
        Family::V4 => (12, 4),
        Family::V6 => (8, 16),
    };
    one(Expression::Payload {
        base: Base::Network,
        offset,
        len,
        into,
    })
}

pub fn load_destination(family: Family, into: Register) -> Words {
    let (offset, len) = match family {
        Family::V4 => (16, 4),
        Family::V6 => (24, 16),
    };
    one(Expression::Payload {
        base: Base::Network,
        offset,
        len,
        into,
    })
}

pub fn destination_is(family: Family, address: IpAddr) -> Words {
    let octets = match address {
        IpAddr::V4(v4) => v4.octets().to_vec(),
        IpAddr::V6(v6) => v6.octets().to_vec(),
    };
    [load_destination(family, 0), equals(octets)].concat()
}

pub fn source_within(family: Family, pool: (Vec<u8>, Vec<u8>)) -> Words {
    [family_is(family), load_source(family, 0), masked_is(pool)].concat()
}

pub fn destination_within(family: Family, pool: (Vec<u8>, Vec<u8>)) -> Words {
    [
        family_is(family),
        load_destination(family, 0),
        masked_is(pool),
    ]
    .concat()
}

pub fn masked_is((mask, network): (Vec<u8>, Vec<u8>)) -> Words {
    [one(Expression::Mask { mask }), equals(network)].concat()
}

/// Loads the state's bits that matter; they are in the machine's byte order.
fn ct_bits(bits: u32) -> Words {
    let load = Expression::Ct {
        key: CT_STATE,
        of: None,
        into: 0,
    };
    vec![
        load,
        Expression::Mask {
            mask: bits.to_ne_bytes().to_vec(),
        },
    ]
}

pub fn ct_state(bits: u32) -> Words {
    [
        ct_bits(bits),
        one(Expression::Differs { value: vec![0; 4] }),
    ]
    .concat()
}

pub fn ct_not_state(bits: u32) -> Words {
    [ct_bits(bits), equals(vec![0; 4])].concat()
}

/// The first packet of a connection: `new` are also those after it as long as nobody answers.
pub fn ct_first() -> Words {
    let load = Expression::Ct {
        key: CT_STATUS,
        of: None,
        into: 0,
    };
    let mask = CONFIRMED.to_ne_bytes().to_vec();
    [vec![load, Expression::Mask { mask }], equals(vec![0; 4])].concat()
}

pub fn ct_original() -> Words {
    [
        one(Expression::Ct {
            key: CT_DIRECTION,
            of: None,
            into: 0,
        }),
        equals(vec![0]),
    ]
    .concat()
}

pub fn ct_reply() -> Words {
    [
        one(Expression::Ct {
            key: CT_DIRECTION,
            of: None,
            into: 0,
        }),
        equals(vec![1]),
    ]
    .concat()
}
