//! Messages without libnftnl, for static programs: byte for byte what libnftnl writes (the test below compares).

use std::ffi::CStr;

use super::expression::{Base, Direction, Expression, LOGGED_AT_ONCE, LOGGED_BYTES};
use super::message::{
    Chain, ChainKind, Element, FAMILY, Message, SetShape, TABLE, TIMEOUT, Writer,
};
use super::rules::Line;
use crate::netlink::{DUMP, REQUEST, REQUEST_ACK, Request};

// include/uapi/linux/netfilter/nfnetlink.h
const NFNL_MSG_BATCH_BEGIN: u16 = 0x10;
const NFNL_MSG_BATCH_END: u16 = 0x11;
const NFNL_SUBSYS_NFTABLES: u8 = 10;

// include/uapi/linux/netlink.h
const EXCLUSIVE: u16 = 0x200;
const CREATE: u16 = 0x400;
const APPEND: u16 = 0x800;

// include/uapi/linux/netfilter/nf_tables.h
const NEWTABLE: u8 = 0;
const DELTABLE: u8 = 2;
const NEWCHAIN: u8 = 3;
const NEWRULE: u8 = 6;
const NEWSET: u8 = 9;
const NEWSETELEM: u8 = 12;
const GETSETELEM: u8 = 13;
const DELSETELEM: u8 = 14;

const LIST_ELEM: u16 = 1;
const TABLE_NAME: u16 = 1;
const TABLE_FLAGS: u16 = 2;
const CHAIN_TABLE: u16 = 1;
const CHAIN_NAME: u16 = 3;
const CHAIN_HOOK: u16 = 4;
const CHAIN_POLICY: u16 = 5;
const CHAIN_TYPE: u16 = 7;
const HOOK_NUMBER: u16 = 1;
const HOOK_PRIORITY: u16 = 2;
const RULE_TABLE: u16 = 1;
const RULE_CHAIN: u16 = 2;
const RULE_EXPRESSIONS: u16 = 4;
const RULE_USERDATA: u16 = 7;
const SET_TABLE: u16 = 1;
const SET_NAME: u16 = 2;
const SET_FLAGS: u16 = 3;
const SET_KEY_TYPE: u16 = 4;
const SET_KEY_LEN: u16 = 5;
const SET_DATA_TYPE: u16 = 6;
const SET_DATA_LEN: u16 = 7;
const SET_DESC: u16 = 9;
const SET_ID: u16 = 10;
const SET_USERDATA: u16 = 13;
const SET_EXPR: u16 = 17;
const SET_DESC_SIZE: u16 = 1;
const SET_DESC_CONCAT: u16 = 2;
const SET_FIELD_LEN: u16 = 1;
const ELEM_LIST_TABLE: u16 = 1;
const ELEM_LIST_SET: u16 = 2;
const ELEM_LIST_ELEMENTS: u16 = 3;
const ELEM_LIST_SET_ID: u16 = 4;
const ELEM_KEY: u16 = 1;
const ELEM_DATA: u16 = 2;
const ELEM_TIMEOUT: u16 = 4;
const ELEM_KEY_END: u16 = 10;
const DATA_VALUE: u16 = 1;
const DATA_VERDICT: u16 = 2;
const VERDICT_CODE: u16 = 1;
const VERDICT_CHAIN: u16 = 2;
const EXPR_NAME: u16 = 1;
const EXPR_DATA: u16 = 2;
const PAYLOAD_DREG: u16 = 1;
const PAYLOAD_BASE: u16 = 2;
const PAYLOAD_OFFSET: u16 = 3;
const PAYLOAD_LEN: u16 = 4;
const META_DREG: u16 = 1;
const META_KEY: u16 = 2;
const CT_DREG: u16 = 1;
const CT_KEY: u16 = 2;
const CT_DIRECTION: u16 = 3;
const FIB_DREG: u16 = 1;
const FIB_RESULT: u16 = 2;
const FIB_FLAGS: u16 = 3;
const IMMEDIATE_DREG: u16 = 1;
const IMMEDIATE_DATA: u16 = 2;
const BITWISE_SREG: u16 = 1;
const BITWISE_DREG: u16 = 2;
const BITWISE_LEN: u16 = 3;
const BITWISE_MASK: u16 = 4;
const BITWISE_XOR: u16 = 5;
const CMP_SREG: u16 = 1;
const CMP_OP: u16 = 2;
const CMP_DATA: u16 = 3;
const LOOKUP_SET: u16 = 1;
const LOOKUP_SREG: u16 = 2;
const LOOKUP_DREG: u16 = 3;
const LOOKUP_SET_ID: u16 = 4;
const LIMIT_RATE: u16 = 1;
const LIMIT_UNIT: u16 = 2;
const LIMIT_BURST: u16 = 3;
const LOG_GROUP: u16 = 1;
const LOG_PREFIX: u16 = 2;
const LOG_SNAPLEN: u16 = 3;
const LOG_QTHRESHOLD: u16 = 4;
const NAT_TYPE: u16 = 1;
const NAT_FAMILY: u16 = 2;
const NAT_ADDRESS: u16 = 3;

/// The sixteen 32-bit registers start here, and share their storage with `NFT_REG_1`.
const REG32_00: u32 = 8;
const REG_VERDICT: u32 = 0;
const PAYLOAD_NETWORK: u32 = 1;
const PAYLOAD_TRANSPORT: u32 = 2;
const FIB_ADDRTYPE: u32 = 3;
const FIB_DESTINATION: u32 = 1 << 1;
const NAT_DESTINATION: u32 = 1;
const CMP_EQ: u32 = 0;
const CMP_NEQ: u32 = 1;
const DROP: i32 = 0;
const ACCEPT: i32 = 1;
const GOTO: i32 = -4;
/// `NFTNL_UDATA_RULE_COMMENT`: what `nft list` takes a rule's user data for.
const UDATA_COMMENT: u8 = 0;

/// Writes messages by hand.
#[derive(Debug)]
pub struct Plain;

impl Plain {
    /// Makes one.
    pub fn new() -> Self {
        Self
    }
}

impl Writer for Plain {
    fn append(&mut self, to: &mut Vec<u8>, message: &Message<'_>, seq: u32) {
        to.extend(request(message).into_bytes(seq));
    }
}

impl Request {
    /// Adds a number, big-endian as nf_tables wants it.
    fn number(self, kind: u16, value: u32) -> Self {
        self.attribute(kind, &value.to_be_bytes())
    }

    /// Adds a zero-terminated string.
    fn text(self, kind: u16, value: &CStr) -> Self {
        self.attribute(kind, value.to_bytes_with_nul())
    }
}

fn request(message: &Message<'_>) -> Request {
    match message {
        Message::Begin => mark(NFNL_MSG_BATCH_BEGIN),
        Message::End => mark(NFNL_MSG_BATCH_END),
        Message::NewTable => table(NEWTABLE),
        Message::DeleteTable => table(DELTABLE),
        Message::NewChain(chain) => new_chain(chain),
        Message::NewRule(line) => new_rule(line),
        Message::NewSet(shape) => new_set(shape),
        Message::AddElements(shape, all) => {
            elements(NEWSETELEM, CREATE | EXCLUSIVE, shape, Some(shape.id), all)
        }
        Message::DeleteElement(shape, one) => {
            elements(DELSETELEM, 0, shape, None, std::slice::from_ref(one))
        }
        Message::EmptySet(shape) => elements(DELSETELEM, 0, shape, None, &[]),
        Message::GetElement(shape, one) => {
            elements(GETSETELEM, 0, shape, None, std::slice::from_ref(one))
        }
        Message::DumpElements(shape) => elements(GETSETELEM, DUMP, shape, None, &[]),
    }
}

/// The frame of a batch belongs to no family and names the subsystem.
fn mark(kind: u16) -> Request {
    Request::new(kind, REQUEST, &[0, 0, 0, NFNL_SUBSYS_NFTABLES])
}

fn start(kind: u8, flags: u16) -> Request {
    let kind = u16::from_be_bytes([NFNL_SUBSYS_NFTABLES, kind]);
    Request::new(kind, REQUEST_ACK | flags, &[FAMILY, 0, 0, 0])
}

fn table(kind: u8) -> Request {
    start(kind, 0)
        .text(TABLE_NAME, TABLE)
        .number(TABLE_FLAGS, 0)
}

fn new_chain(chain: &Chain) -> Request {
    let request = start(NEWCHAIN, CREATE)
        .text(CHAIN_TABLE, TABLE)
        .text(CHAIN_NAME, chain.name);
    let Some(base) = chain.base else {
        return request;
    };
    let kind = match base.kind {
        ChainKind::Filter => c"filter",
        ChainKind::Nat => c"nat",
    };
    request
        .nested(CHAIN_HOOK, |hook| {
            hook.number(HOOK_NUMBER, base.hook as u32)
                .attribute(HOOK_PRIORITY, &base.priority.to_be_bytes())
        })
        .number(CHAIN_POLICY, base.policy as u32)
        .text(CHAIN_TYPE, kind)
}

fn new_rule(line: &Line) -> Request {
    let comment = line.comment.to_bytes_with_nul();
    let len = u8::try_from(comment.len()).expect("our comments are short");
    let comment = [&[UDATA_COMMENT, len], comment].concat();
    start(NEWRULE, CREATE | APPEND | EXCLUSIVE)
        .text(RULE_TABLE, TABLE)
        .text(RULE_CHAIN, line.chain)
        .attribute(RULE_USERDATA, &comment)
        .nested(RULE_EXPRESSIONS, |list| {
            line.words.iter().fold(list, |list, word| {
                list.nested(LIST_ELEM, |one| expression(one, word))
            })
        })
}

fn new_set(shape: &SetShape) -> Request {
    let request = start(NEWSET, CREATE)
        .text(SET_TABLE, shape.table)
        .text(SET_NAME, shape.name)
        .number(SET_FLAGS, shape.flags)
        .number(SET_KEY_TYPE, shape.key_type)
        .number(SET_KEY_LEN, shape.key_len);
    let request = match shape.data {
        Some(data) => request
            .number(SET_DATA_TYPE, data.data_type)
            .number(SET_DATA_LEN, data.len),
        None => request,
    };
    let request = request.number(SET_ID, shape.id);
    let request = match (shape.size, shape.fields) {
        (0, []) => request,
        (size, fields) => request.nested(SET_DESC, |desc| {
            let desc = match size {
                0 => desc,
                size => desc.number(SET_DESC_SIZE, size),
            };
            match fields {
                [] => desc,
                fields => desc.nested(SET_DESC_CONCAT, |list| {
                    fields.iter().fold(list, |list, len| {
                        list.nested(LIST_ELEM, |one| one.number(SET_FIELD_LEN, (*len).into()))
                    })
                }),
            }
        }),
    };
    let request = request.attribute(SET_USERDATA, &shape.note());
    if shape.flags & TIMEOUT == 0 {
        return request;
    }
    request.nested(SET_EXPR, |one| expression(one, &Expression::Counter))
}

fn elements(
    kind: u8,
    flags: u16,
    shape: &SetShape,
    id: Option<u32>,
    elements: &[Element],
) -> Request {
    let request = start(kind, flags).text(ELEM_LIST_SET, shape.name);
    let request = match id {
        Some(id) => request.number(ELEM_LIST_SET_ID, id),
        None => request,
    };
    let request = request.text(ELEM_LIST_TABLE, shape.table);
    if elements.is_empty() {
        return request;
    }
    request.nested(ELEM_LIST_ELEMENTS, |list| {
        (1..).zip(elements).fold(list, |list, (number, element)| {
            list.nested(number, |one| fields(one, element))
        })
    })
}

fn fields(request: Request, element: &Element) -> Request {
    let request = match element.timeout_ms {
        Some(timeout) => request.attribute(ELEM_TIMEOUT, &timeout.to_be_bytes()),
        None => request,
    };
    let request = value(request, ELEM_KEY, &element.key);
    let request = match &element.key_end {
        Some(end) => value(request, ELEM_KEY_END, end),
        None => request,
    };
    match &element.data {
        Some(data) => value(request, ELEM_DATA, data),
        None => request,
    }
}

fn value(request: Request, kind: u16, bytes: &[u8]) -> Request {
    request.nested(kind, |data| data.attribute(DATA_VALUE, bytes))
}

fn expression(request: Request, expression: &Expression) -> Request {
    let request = request.text(EXPR_NAME, expression.kernel_name());
    match expression {
        // The kernel knows nothing to ask of it, and libnftnl says nothing.
        Expression::Notrack => request,
        _ => request.nested(EXPR_DATA, |data| arguments(data, expression)),
    }
}

fn arguments(data: Request, expression: &Expression) -> Request {
    match expression {
        Expression::Payload {
            base,
            offset,
            len,
            into,
        } => {
            let base = match base {
                Base::Network => PAYLOAD_NETWORK,
                Base::Transport => PAYLOAD_TRANSPORT,
            };
            data.number(PAYLOAD_DREG, REG32_00 + into)
                .number(PAYLOAD_BASE, base)
                .number(PAYLOAD_OFFSET, *offset)
                .number(PAYLOAD_LEN, *len)
        }
        Expression::Meta { key, into } => data
            .number(META_KEY, *key)
            .number(META_DREG, REG32_00 + into),
        Expression::Ct { key, of, into } => {
            let data = data.number(CT_KEY, *key).number(CT_DREG, REG32_00 + into);
            match of {
                Some(Direction::Original) => data.attribute(CT_DIRECTION, &[0]),
                Some(Direction::Reply) => data.attribute(CT_DIRECTION, &[1]),
                None => data,
            }
        }
        Expression::DestinationKind { into } => data
            .number(FIB_FLAGS, FIB_DESTINATION)
            .number(FIB_RESULT, FIB_ADDRTYPE)
            .number(FIB_DREG, REG32_00 + into),
        Expression::Constant { value: bytes, into } => value(
            data.number(IMMEDIATE_DREG, REG32_00 + into),
            IMMEDIATE_DATA,
            bytes,
        ),
        Expression::Mask { mask } => {
            let len = u32::try_from(mask.len()).expect("masks are short");
            let data = data
                .number(BITWISE_SREG, REG32_00)
                .number(BITWISE_DREG, REG32_00)
                .number(BITWISE_LEN, len);
            let data = value(data, BITWISE_MASK, mask);
            value(data, BITWISE_XOR, &vec![0; mask.len()])
        }
        Expression::Equals { value: bytes } => compare(data, CMP_EQ, bytes),
        Expression::Differs { value: bytes } => compare(data, CMP_NEQ, bytes),
        Expression::In { set, id } => data
            .number(LOOKUP_SREG, REG32_00)
            .text(LOOKUP_SET, set)
            .number(LOOKUP_SET_ID, *id),
        Expression::Limit { a_second, burst } => data
            .attribute(LIMIT_RATE, &a_second.to_be_bytes())
            .attribute(LIMIT_UNIT, &1_u64.to_be_bytes())
            .number(LIMIT_BURST, *burst),
        Expression::Log { group, word } => data
            .text(LOG_PREFIX, word)
            .attribute(LOG_GROUP, &group.to_be_bytes())
            .number(LOG_SNAPLEN, LOGGED_BYTES)
            .attribute(LOG_QTHRESHOLD, &LOGGED_AT_ONCE.to_be_bytes()),
        Expression::Find { map, id } => data
            .number(LOOKUP_SREG, REG32_00)
            .number(LOOKUP_DREG, REG32_00)
            .text(LOOKUP_SET, map)
            .number(LOOKUP_SET_ID, *id),
        Expression::Destination { family } => data
            .number(NAT_TYPE, NAT_DESTINATION)
            .number(NAT_FAMILY, u32::from(*family))
            .number(NAT_ADDRESS, REG32_00),
        Expression::Accept => verdict(data, ACCEPT, None),
        Expression::Drop => verdict(data, DROP, None),
        Expression::Goto(chain) => verdict(data, GOTO, Some(chain)),
        Expression::Counter | Expression::Notrack | Expression::Masquerade => data,
    }
}

fn compare(data: Request, op: u32, bytes: &[u8]) -> Request {
    let data = data.number(CMP_SREG, REG32_00).number(CMP_OP, op);
    value(data, CMP_DATA, bytes)
}

fn verdict(data: Request, code: i32, chain: Option<&CStr>) -> Request {
    data.number(IMMEDIATE_DREG, REG_VERDICT)
        .nested(IMMEDIATE_DATA, |data| {
            data.nested(DATA_VERDICT, |verdict| {
                let verdict = verdict.attribute(VERDICT_CODE, &code.to_be_bytes());
                match chain {
                    Some(chain) => verdict.text(VERDICT_CHAIN, chain),
                    None => verdict,
                }
            })
        })
}
