//! Messages by libnftnl: the one place that speaks to it, directly where the safe layer of `nftnl` does not reach.
//!
//! Expressions over any register, sets with timeouts, concatenations, intervals and counters, their elements,
//! and messages into bytes of our own. Invariant: every pointer is made, used and freed inside one function or
//! owned by a type that frees it once.

use std::ffi::{CStr, c_char, c_void};
use std::ptr::NonNull;

use nftnl::{ChainType, MsgType, NlMsg, ProtoFamily, Rule};
use nftnl_sys::{self as sys, libc};

use super::expression::{Base, Direction, Expression, LOGGED_AT_ONCE, LOGGED_BYTES};
use super::message::{
    BaseChain, Chain, ChainKind, Element, Hook, Message, Policy, SetShape, TABLE, TIMEOUT, Writer,
};
use super::rules::Line;

/// `NFT_REG32_00`: the sixteen 32-bit registers start here, and share their storage with `NFT_REG_1`.
const REG32_00: u32 = 8;
/// `NFT_REG_VERDICT`.
const REG_VERDICT: u32 = 0;
/// `NFT_FIB_RESULT_ADDRTYPE`.
const FIB_RESULT_ADDRTYPE: u32 = 3;
/// `NFT_NAT_DNAT`.
const NAT_DESTINATION: u32 = 1;
/// `NFTA_FIB_F_DADDR`.
const FIB_DESTINATION: u32 = 1 << 1;

impl nftnl::expr::Expression for Expression {
    fn to_expr(&self, _: &Rule) -> NonNull<sys::nftnl_expr> {
        let expression = allocate(self.kernel_name());
        let e = Setter(expression);
        match self {
            Self::Payload {
                base,
                offset,
                len,
                into,
            } => {
                let base = match base {
                    Base::Network => libc::NFT_PAYLOAD_NETWORK_HEADER,
                    Base::Transport => libc::NFT_PAYLOAD_TRANSPORT_HEADER,
                };
                e.u32(sys::NFTNL_EXPR_PAYLOAD_BASE, base.cast_unsigned());
                e.u32(sys::NFTNL_EXPR_PAYLOAD_OFFSET, *offset);
                e.u32(sys::NFTNL_EXPR_PAYLOAD_LEN, *len);
                e.u32(sys::NFTNL_EXPR_PAYLOAD_DREG, REG32_00 + into);
            }
            Self::Meta { key, into } => {
                e.u32(sys::NFTNL_EXPR_META_KEY, *key);
                e.u32(sys::NFTNL_EXPR_META_DREG, REG32_00 + into);
            }
            Self::Ct { key, of, into } => {
                e.u32(sys::NFTNL_EXPR_CT_KEY, *key);
                e.u32(sys::NFTNL_EXPR_CT_DREG, REG32_00 + into);
                match of {
                    Some(Direction::Original) => e.u8(sys::NFTNL_EXPR_CT_DIR, 0),
                    Some(Direction::Reply) => e.u8(sys::NFTNL_EXPR_CT_DIR, 1),
                    None => {}
                }
            }
            Self::DestinationKind { into } => {
                e.u32(sys::NFTNL_EXPR_FIB_RESULT, FIB_RESULT_ADDRTYPE);
                e.u32(sys::NFTNL_EXPR_FIB_FLAGS, FIB_DESTINATION);
                e.u32(sys::NFTNL_EXPR_FIB_DREG, REG32_00 + into);
            }
            Self::Constant { value, into } => {
                e.u32(sys::NFTNL_EXPR_IMM_DREG, REG32_00 + into);
                e.bytes(sys::NFTNL_EXPR_IMM_DATA, value);
            }
            Self::Mask { mask } => {
                e.u32(sys::NFTNL_EXPR_BITWISE_SREG, REG32_00);
                e.u32(sys::NFTNL_EXPR_BITWISE_DREG, REG32_00);
                e.u32(sys::NFTNL_EXPR_BITWISE_LEN, len_u32(mask));
                e.bytes(sys::NFTNL_EXPR_BITWISE_MASK, mask);
                e.bytes(sys::NFTNL_EXPR_BITWISE_XOR, &vec![0; mask.len()]);
            }
            Self::Equals { value } | Self::Differs { value } => {
                let op = match self {
                    Self::Differs { .. } => libc::NFT_CMP_NEQ,
                    _ => libc::NFT_CMP_EQ,
                };
                e.u32(sys::NFTNL_EXPR_CMP_SREG, REG32_00);
                e.u32(sys::NFTNL_EXPR_CMP_OP, op.cast_unsigned());
                e.bytes(sys::NFTNL_EXPR_CMP_DATA, value);
            }
            Self::In { set, id } => {
                e.u32(sys::NFTNL_EXPR_LOOKUP_SREG, REG32_00);
                e.text(sys::NFTNL_EXPR_LOOKUP_SET, set);
                e.u32(sys::NFTNL_EXPR_LOOKUP_SET_ID, *id);
            }
            Self::Limit { a_second, burst } => {
                e.u64(sys::NFTNL_EXPR_LIMIT_RATE, *a_second);
                e.u64(sys::NFTNL_EXPR_LIMIT_UNIT, 1);
                e.u32(sys::NFTNL_EXPR_LIMIT_BURST, *burst);
            }
            Self::Log { group, word } => {
                e.text(sys::NFTNL_EXPR_LOG_PREFIX, word);
                e.u16(sys::NFTNL_EXPR_LOG_GROUP, *group);
                e.u32(sys::NFTNL_EXPR_LOG_SNAPLEN, LOGGED_BYTES);
                e.u16(sys::NFTNL_EXPR_LOG_QTHRESHOLD, LOGGED_AT_ONCE);
            }
            Self::Find { map, id } => {
                e.u32(sys::NFTNL_EXPR_LOOKUP_SREG, REG32_00);
                e.u32(sys::NFTNL_EXPR_LOOKUP_DREG, REG32_00);
                e.text(sys::NFTNL_EXPR_LOOKUP_SET, map);
                e.u32(sys::NFTNL_EXPR_LOOKUP_SET_ID, *id);
            }
            Self::Destination { family } => {
                e.u32(sys::NFTNL_EXPR_NAT_TYPE, NAT_DESTINATION);
                e.u32(sys::NFTNL_EXPR_NAT_FAMILY, u32::from(*family));
                e.u32(sys::NFTNL_EXPR_NAT_REG_ADDR_MIN, REG32_00);
            }
            Self::Accept => e.verdict(libc::NF_ACCEPT, None),
            Self::Drop => e.verdict(libc::NF_DROP, None),
            Self::Goto(chain) => e.verdict(libc::NFT_GOTO, Some(chain)),
            Self::Counter | Self::Notrack | Self::Masquerade => {}
        }
        expression
    }
}

fn allocate(name: &CStr) -> NonNull<sys::nftnl_expr> {
    // SAFETY: `name` is a terminated string that libnftnl only reads; the result is checked.
    let expression = unsafe { sys::nftnl_expr_alloc(name.as_ptr()) };
    NonNull::new(expression).expect("libnftnl knows the expression and memory suffices at start")
}

/// Sets attributes of an expression that is not yet anybody's.
struct Setter(NonNull<sys::nftnl_expr>);

impl Setter {
    fn u8(&self, attribute: u32, value: u8) {
        // SAFETY: the expression is live and exclusively ours until the rule takes it.
        unsafe { sys::nftnl_expr_set_u8(self.0.as_ptr(), attribute_u16(attribute), value) }
    }

    fn u16(&self, attribute: u32, value: u16) {
        // SAFETY: as above.
        unsafe { sys::nftnl_expr_set_u16(self.0.as_ptr(), attribute_u16(attribute), value) }
    }

    fn u64(&self, attribute: u32, value: u64) {
        // SAFETY: as above.
        unsafe { sys::nftnl_expr_set_u64(self.0.as_ptr(), attribute_u16(attribute), value) }
    }

    fn u32(&self, attribute: u32, value: u32) {
        // SAFETY: as above.
        unsafe { sys::nftnl_expr_set_u32(self.0.as_ptr(), attribute_u16(attribute), value) }
    }

    fn text(&self, attribute: u32, value: &CStr) {
        // SAFETY: as above; libnftnl copies the terminated string.
        unsafe {
            sys::nftnl_expr_set_str(self.0.as_ptr(), attribute_u16(attribute), value.as_ptr())
        };
    }

    fn bytes(&self, attribute: u32, value: &[u8]) {
        let (data, len) = (value.as_ptr().cast(), len_u32(value));
        // SAFETY: as above; libnftnl copies `len` bytes that `value` has.
        unsafe { sys::nftnl_expr_set(self.0.as_ptr(), attribute_u16(attribute), data, len) };
    }

    fn verdict(&self, verdict: i32, chain: Option<&CStr>) {
        self.u32(sys::NFTNL_EXPR_IMM_DREG, REG_VERDICT);
        self.u32(sys::NFTNL_EXPR_IMM_VERDICT, verdict.cast_unsigned());
        if let Some(chain) = chain {
            self.text(sys::NFTNL_EXPR_IMM_CHAIN, chain);
        }
    }
}

fn attribute_u16(attribute: u32) -> u16 {
    u16::try_from(attribute).expect("libnftnl's attributes are small")
}

fn len_u32(bytes: &[u8]) -> u32 {
    u32::try_from(bytes.len()).expect("keys and names are short")
}

const FAMILY: u16 = ProtoFamily::Inet as u16;

struct SetHandle(NonNull<sys::nftnl_set>);

impl Drop for SetHandle {
    fn drop(&mut self) {
        // SAFETY: made by nftnl_set_alloc, freed here only; its elements are its own.
        unsafe { sys::nftnl_set_free(self.0.as_ptr()) }
    }
}

impl SetHandle {
    /// Table, name and id: enough to speak of the set's elements.
    fn named(shape: &SetShape) -> Self {
        // SAFETY: no arguments; the result is checked.
        let set = unsafe { sys::nftnl_set_alloc() };
        let handle = Self(NonNull::new(set).expect("memory suffices for a set"));
        handle.u32(sys::NFTNL_SET_FAMILY, u32::from(FAMILY));
        handle.text(sys::NFTNL_SET_TABLE, shape.table);
        handle.text(sys::NFTNL_SET_NAME, shape.name);
        handle
    }

    /// Everything: enough to make the set.
    fn whole(shape: &SetShape) -> Self {
        let handle = Self::named(shape);
        handle.u32(sys::NFTNL_SET_ID, shape.id);
        handle.u32(sys::NFTNL_SET_FLAGS, shape.flags);
        handle.u32(sys::NFTNL_SET_KEY_TYPE, shape.key_type);
        handle.u32(sys::NFTNL_SET_KEY_LEN, shape.key_len);
        if let Some(data) = shape.data {
            handle.u32(sys::NFTNL_SET_DATA_TYPE, data.data_type);
            handle.u32(sys::NFTNL_SET_DATA_LEN, data.len);
        }
        if shape.size > 0 {
            handle.u32(sys::NFTNL_SET_DESC_SIZE, shape.size);
        }
        if !shape.fields.is_empty() {
            handle.bytes(sys::NFTNL_SET_DESC_CONCAT, shape.fields);
        }
        if shape.flags & TIMEOUT != 0 {
            let counter = allocate(c"counter");
            // SAFETY: both are live; the set takes the expression over.
            unsafe { sys::nftnl_set_add_expr(handle.0.as_ptr(), counter.as_ptr()) };
        }
        handle.bytes(sys::NFTNL_SET_USERDATA, &shape.note());
        handle
    }

    fn u32(&self, attribute: u32, value: u32) {
        // SAFETY: the set is live and ours.
        unsafe { sys::nftnl_set_set_u32(self.0.as_ptr(), attribute_u16(attribute), value) }
    }

    fn text(&self, attribute: u32, value: &CStr) {
        // SAFETY: the set is live and ours; libnftnl copies the terminated string.
        unsafe {
            sys::nftnl_set_set_str(self.0.as_ptr(), attribute_u16(attribute), value.as_ptr())
        };
    }

    fn bytes(&self, attribute: u32, value: &[u8]) {
        let (data, len) = (value.as_ptr().cast(), len_u32(value));
        // SAFETY: the set is live and ours; libnftnl copies `len` bytes that `value` has.
        unsafe { sys::nftnl_set_set_data(self.0.as_ptr(), attribute_u16(attribute), data, len) };
    }

    fn push(&self, element: &Element) {
        // SAFETY: no arguments; the result is checked.
        let raw = unsafe { sys::nftnl_set_elem_alloc() };
        let raw = NonNull::new(raw).expect("memory suffices for an element");
        let bytes = |attribute: u32, value: &[u8]| {
            let (data, len) = (value.as_ptr().cast(), len_u32(value));
            // SAFETY: the element is live and ours; libnftnl copies `len` bytes that `value` has.
            unsafe { sys::nftnl_set_elem_set(raw.as_ptr(), attribute_u16(attribute), data, len) };
        };
        bytes(sys::NFTNL_SET_ELEM_KEY, &element.key);
        if let Some(end) = &element.key_end {
            bytes(sys::NFTNL_SET_ELEM_KEY_END, end);
        }
        if let Some(data) = &element.data {
            bytes(sys::NFTNL_SET_ELEM_DATA, data);
        }
        if let Some(timeout) = element.timeout_ms {
            bytes(sys::NFTNL_SET_ELEM_TIMEOUT, &timeout.to_ne_bytes());
        }
        // SAFETY: both are live; the set takes the element over.
        unsafe { sys::nftnl_set_elem_add(self.0.as_ptr(), raw.as_ptr()) };
    }
}

/// What `nftnl` has no safe type for.
enum SetMessage<'a> {
    New(&'a SetShape),
    Add(&'a SetShape, &'a [Element]),
    Delete(&'a SetShape, &'a Element),
    Empty(&'a SetShape),
    Get(&'a SetShape, &'a Element),
    Dump(&'a SetShape),
}

// SAFETY: a message holds one set and at most a few hundred elements of ours, far below 64 KiB.
unsafe impl NlMsg for SetMessage<'_> {
    unsafe fn write(&self, buffer: *mut c_void, seq: u32, _: MsgType) {
        let (kind, flags, set) = match self {
            Self::New(shape) => (
                libc::NFT_MSG_NEWSET,
                libc::NLM_F_CREATE,
                SetHandle::whole(shape),
            ),
            Self::Add(shape, elements) => {
                let set = SetHandle::named(shape);
                set.u32(sys::NFTNL_SET_ID, shape.id);
                elements.iter().for_each(|element| set.push(element));
                (
                    libc::NFT_MSG_NEWSETELEM,
                    libc::NLM_F_CREATE | libc::NLM_F_EXCL,
                    set,
                )
            }
            Self::Delete(shape, element) => {
                let set = SetHandle::named(shape);
                set.push(element);
                (libc::NFT_MSG_DELSETELEM, 0, set)
            }
            Self::Empty(shape) => (libc::NFT_MSG_DELSETELEM, 0, SetHandle::named(shape)),
            Self::Get(shape, element) => {
                let set = SetHandle::named(shape);
                set.push(element);
                (libc::NFT_MSG_GETSETELEM, 0, set)
            }
            Self::Dump(shape) => (
                libc::NFT_MSG_GETSETELEM,
                libc::NLM_F_DUMP,
                SetHandle::named(shape),
            ),
        };
        let kind = u16::try_from(kind).expect("message types are small");
        let flags = u16::try_from(flags | libc::NLM_F_ACK).expect("flags are sixteen bits");
        // SAFETY: the caller gives room for the largest message; the set outlives the call.
        unsafe {
            let header =
                sys::nftnl_nlmsg_build_hdr(buffer.cast::<c_char>(), kind, FAMILY, flags, seq);
            match self {
                Self::New(_) => sys::nftnl_set_nlmsg_build_payload(header, set.0.as_ptr()),
                _ => sys::nftnl_set_elems_nlmsg_build_payload(header, set.0.as_ptr()),
            }
        }
    }
}

/// Writes messages with libnftnl, into a buffer made once and used for every one.
pub struct Library(Vec<u64>);

impl Library {
    /// Makes room for the largest message there is.
    pub fn new() -> Self {
        // u64: libnftnl writes headers through pointers that must be aligned.
        let bytes = usize::try_from(nftnl::nft_nlmsg_maxsize()).expect("64 KiB and a page fit");
        Self(vec![0; bytes.div_ceil(8)])
    }

    fn write(&mut self, message: &impl NlMsg, seq: u32, what: MsgType) {
        // SAFETY: the buffer has nft_nlmsg_maxsize() bytes, which is what `write` asks for.
        unsafe { message.write(self.0.as_mut_ptr().cast(), seq, what) };
    }

    /// Appends what the header in front says is there, padded to four.
    fn take(&self, to: &mut Vec<u8>) {
        let first: [u8; 8] = self.0[0].to_ne_bytes();
        let len = u32::from_ne_bytes([first[0], first[1], first[2], first[3]]);
        let len = usize::try_from(len)
            .expect("within the buffer")
            .next_multiple_of(4);
        let words = self.0.iter().flat_map(|word| word.to_ne_bytes());
        to.extend(words.take(len));
    }
}

impl Writer for Library {
    fn append(&mut self, to: &mut Vec<u8>, message: &Message<'_>, seq: u32) {
        let table = || nftnl::Table::new(TABLE, ProtoFamily::Inet);
        let set = |library: &mut Self, message| library.write(&message, seq, MsgType::Add);
        match *message {
            // SAFETY: the head of a batch is twenty bytes, and the buffer has more.
            Message::Begin => unsafe {
                sys::nftnl_batch_begin(self.0.as_mut_ptr().cast(), seq);
            },
            // SAFETY: so is its end.
            Message::End => unsafe {
                sys::nftnl_batch_end(self.0.as_mut_ptr().cast(), seq);
            },
            Message::NewTable => self.write(&table(), seq, MsgType::Add),
            Message::DeleteTable => self.write(&table(), seq, MsgType::Del),
            Message::NewChain(chain) => self.write(&new_chain(chain, &table()), seq, MsgType::Add),
            Message::NewRule(line) => {
                let table = table();
                let chain = nftnl::Chain::new(line.chain, &table);
                self.write(&new_rule(line, &chain), seq, MsgType::Add);
            }
            Message::NewSet(shape) => set(self, SetMessage::New(shape)),
            Message::AddElements(shape, all) => set(self, SetMessage::Add(shape, all)),
            Message::DeleteElement(shape, one) => set(self, SetMessage::Delete(shape, one)),
            Message::EmptySet(shape) => set(self, SetMessage::Empty(shape)),
            Message::GetElement(shape, one) => set(self, SetMessage::Get(shape, one)),
            Message::DumpElements(shape) => set(self, SetMessage::Dump(shape)),
        }
        self.take(to);
    }
}

fn new_chain<'t>(chain: &Chain, table: &'t nftnl::Table) -> nftnl::Chain<'t> {
    let mut new = nftnl::Chain::new(chain.name, table);
    if let Some(BaseChain {
        hook,
        priority,
        kind,
        policy,
    }) = chain.base
    {
        let hook = match hook {
            Hook::PreRouting => nftnl::Hook::PreRouting,
            Hook::Input => nftnl::Hook::In,
            Hook::Forward => nftnl::Hook::Forward,
            Hook::Output => nftnl::Hook::Out,
            Hook::PostRouting => nftnl::Hook::PostRouting,
        };
        new.set_hook(hook, priority);
        new.set_type(match kind {
            ChainKind::Filter => ChainType::Filter,
            ChainKind::Nat => ChainType::Nat,
        });
        new.set_policy(match policy {
            Policy::Accept => nftnl::Policy::Accept,
            Policy::Drop => nftnl::Policy::Drop,
        });
    }
    new
}

fn new_rule<'c>(line: &Line, chain: &'c nftnl::Chain<'c>) -> Rule<'c> {
    let mut rule = Rule::new(chain);
    line.words.iter().for_each(|word| rule.add_expr(word));
    rule.set_comment(line.comment)
        .expect("our comments are short");
    rule
}
