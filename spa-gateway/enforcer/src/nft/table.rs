//! The table as data: its chains and, from `rules`, every rule in order.
//!
//! It is made in one batch that deletes its predecessor: there is no moment without a table, and a new one
//! starts with nothing open. Base chains that could let something in drop by default, so that a flushed
//! chain is a closed one.

use std::ffi::CStr;
use std::io;
use std::net::IpAddr;

use super::Chosen;
use super::element::mask;
use super::message::{
    BaseChain, Chain, ChainKind, Element, FAMILY, Hook, Message, Policy, TABLE, Writer as _,
};
use super::rules;
use super::sets::{Family, NAMES, SETS, keep_open_shape, knock_shape};
use super::tunnel;
use crate::netlink::{Link, REQUEST_ACK, Request, attribute, be64, without_ack};

/// Below `filter` (0): a foreign table's "established, accept" comes after us.
pub const PRIORITY: i32 = -10;
/// `raw`: before connection tracking (-200) looks at the packet.
const RAW_PRIORITY: i32 = -300;
/// `mangle`: after connection tracking (-200), before destination NAT (-100) and before the kernel would answer
/// for a packet it cannot forward.
const PASSING_PRIORITY: i32 = -150;
/// `srcnat`.
const NAT_PRIORITY: i32 = 100;
/// Just before `dstnat` (-100): what a session asks for is ours to translate.
const NAMING_PRIORITY: i32 = -110;

/// One port of one protocol.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Port {
    /// 6 or 17.
    pub protocol: u8,
    /// The port.
    pub port: u16,
}

/// What the table is made for.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Plan {
    /// Whose rules there are.
    pub mode: Mode,
    /// The interfaces knocks arrive on, by name: a name outlives the interface it is of.
    pub knock: Vec<String>,
    /// The port knocks are sent to.
    pub knock_port: u16,
    /// The WireGuard interface.
    pub tunnel: String,
    /// The port WireGuard listens on.
    pub wireguard_port: u16,
    /// The gateway's addresses in the tunnel and the pool around each; at most one of each family.
    pub addresses: Vec<(IpAddr, u8)>,
    /// What stays open on the knock interfaces.
    pub keep_open: Vec<Port>,
    /// Whether sessions leave with the gateway's address.
    pub masquerade: Masquerade,
    /// Whether connections of sessions are told to somebody.
    pub access_log: AccessLog,
}

/// Whether connections of sessions are told to somebody.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum AccessLog {
    /// This kernel has no nfnetlink_log, or another program has our group of it.
    Off,
    /// Whoever reads the group.
    On,
}

/// Whose rules there are.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Mode {
    /// Our own table.
    Own,
    /// Our own table, and rules that fw4 makes for us, which ask sets of its own.
    Fw4,
    /// Those of the administrator in the table of this name, and no table of ours.
    Sets(&'static CStr),
}

/// Whether sessions leave with the gateway's address.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Masquerade {
    /// The resources see the tunnel address, and route it back to the gateway.
    No,
    /// The resources see the gateway.
    Yes,
}

impl Plan {
    /// The gateway's address and pool of one family.
    pub fn address(&self, family: Family) -> Option<(IpAddr, u8)> {
        self.addresses
            .iter()
            .copied()
            .find(|(address, _)| super::element::family(*address) == family)
    }

    /// The bits of the pool: its mask and the network.
    pub fn pool(&self, family: Family) -> Option<(Vec<u8>, Vec<u8>)> {
        let (address, prefix) = self.address(family)?;
        let mask = mask(family, prefix);
        let octets = match address {
            IpAddr::V4(v4) => v4.octets().to_vec(),
            IpAddr::V6(v6) => v6.octets().to_vec(),
        };
        let network = octets
            .iter()
            .zip(&mask)
            .map(|(octet, bits)| octet & bits)
            .collect();
        Some((mask, network))
    }
}

/// Writes an interface name as the kernel compares it.
pub fn interface_bytes(name: &str) -> Vec<u8> {
    let mut bytes = name.as_bytes().to_vec();
    bytes.resize(16, 0);
    bytes
}

/// Puts the table in the place of its predecessor.
///
/// # Errors
/// The kernel's errno; then nothing has changed.
pub fn create(link: &mut Link, writer: &mut Chosen, plan: &Plan) -> io::Result<()> {
    let mut batch = Batch::new(writer);
    // Add first: deleting a table that is not there is an error.
    batch.push(&Message::NewTable);
    batch.push(&Message::DeleteTable);
    batch.push(&Message::NewTable);
    contents(plan, |message| batch.push(message));
    batch.send(link)
}

/// What translates published addresses, in the order the kernel can take it. A table has it from the first such address on:
/// where there is none nobody's connections are looked at for it.
pub fn naming(plan: &Plan, mut each: impl FnMut(&Message<'_>)) {
    for map in &NAMES {
        each(&Message::NewSet(&map.shape()));
    }
    each(&Message::NewChain(&Chain {
        name: rules::NAMING,
        base: Some(BaseChain {
            hook: Hook::PreRouting,
            priority: NAMING_PRIORITY,
            kind: ChainKind::Nat,
            policy: Policy::Accept,
        }),
    }));
    for line in &tunnel::naming(plan) {
        each(&Message::NewRule(line));
    }
}

/// Puts a table in place that lets nothing into the tunnel, out of it or to WireGuard, and says nothing about the rest: where
/// the administrator's own rules are gone.
///
/// # Errors
/// The kernel's errno; then nothing has changed.
pub fn shut(link: &mut Link, writer: &mut Chosen, plan: &Plan) -> io::Result<()> {
    let mut batch = Batch::new(writer);
    batch.push(&Message::NewTable);
    batch.push(&Message::DeleteTable);
    batch.push(&Message::NewTable);
    for (name, hook) in [
        (rules::INPUT, Hook::Input),
        (rules::FORWARD, Hook::Forward),
        (rules::OUTPUT, Hook::Output),
    ] {
        let base = BaseChain {
            hook,
            priority: PRIORITY,
            kind: ChainKind::Filter,
            policy: Policy::Accept,
        };
        batch.push(&Message::NewChain(&Chain {
            name,
            base: Some(base),
        }));
    }
    for line in &rules::shut(plan) {
        batch.push(&Message::NewRule(line));
    }
    batch.send(link)
}

/// Everything that is in a new table, in the order the kernel can take it.
pub fn contents(plan: &Plan, mut each: impl FnMut(&Message<'_>)) {
    fill(plan, &mut each);
    for chain in &chains(plan) {
        each(&Message::NewChain(chain));
    }
    for line in &rules::rules(plan) {
        each(&Message::NewRule(line));
    }
}

/// The kernel's number for the table of our name, a new one each time it is made; `None` when there is none.
///
/// # Errors
/// The kernel's errno; a kernel without nf_tables says so here first.
pub fn handle(link: &mut Link) -> io::Result<Option<u64>> {
    const NFT_MSG_GETTABLE: u16 = (10 << 8) | 1;
    const NFTA_TABLE_NAME: u16 = 1;
    const NFTA_TABLE_HANDLE: u16 = 4;
    /// Bytes of `struct nfgenmsg` in front of the attributes.
    const NFGEN_LEN: usize = 4;
    let request = Request::new(NFT_MSG_GETTABLE, REQUEST_ACK, &[FAMILY, 0, 0, 0])
        .attribute(NFTA_TABLE_NAME, TABLE.to_bytes_with_nul());
    let mut handle = None;
    let asked = link.ask(request, |_, payload| {
        let table = payload.get(NFGEN_LEN..).unwrap_or_default();
        handle = attribute(table, NFTA_TABLE_HANDLE).and_then(be64);
    });
    match asked {
        Ok(()) => Ok(handle),
        Err(error) if error.raw_os_error() == Some(libc::ENOENT) => Ok(None),
        Err(error) => Err(error),
    }
}

/// Removes the table.
///
/// # Errors
/// The kernel's errno.
pub fn remove(link: &mut Link, writer: &mut Chosen) -> io::Result<()> {
    let mut batch = Batch::new(writer);
    batch.push(&Message::DeleteTable);
    batch.send(link)
}

fn fill(plan: &Plan, each: &mut impl FnMut(&Message<'_>)) {
    let knock = knock_shape();
    let names: Vec<_> = plan
        .knock
        .iter()
        .map(|name| constant(interface_bytes(name)))
        .collect();
    each(&Message::NewSet(&knock));
    each(&Message::AddElements(&knock, &names));
    let keep_open = keep_open_shape();
    let ports: Vec<_> = plan
        .keep_open
        .iter()
        .map(|Port { protocol, port }| {
            let [high, low] = port.to_be_bytes();
            constant(vec![*protocol, 0, 0, 0, high, low, 0, 0])
        })
        .collect();
    each(&Message::NewSet(&keep_open));
    if !ports.is_empty() {
        each(&Message::AddElements(&keep_open, &ports));
    }
    for set in &SETS {
        each(&Message::NewSet(&set.shape()));
    }
}

fn constant(key: Vec<u8>) -> Element {
    Element {
        key,
        key_end: None,
        timeout_ms: None,
        data: None,
    }
}

fn chains(plan: &Plan) -> Vec<Chain> {
    let base = |name, hook, priority, kind, policy| Chain {
        name,
        base: Some(BaseChain {
            hook,
            priority,
            kind,
            policy,
        }),
    };
    let mut chains = vec![
        base(
            rules::PREROUTING,
            Hook::PreRouting,
            RAW_PRIORITY,
            ChainKind::Filter,
            Policy::Accept,
        ),
        base(
            rules::UNTRACKED_OUTPUT,
            Hook::Output,
            RAW_PRIORITY,
            ChainKind::Filter,
            Policy::Accept,
        ),
        base(
            rules::PASSING,
            Hook::PreRouting,
            PASSING_PRIORITY,
            ChainKind::Filter,
            Policy::Accept,
        ),
        base(
            rules::INPUT,
            Hook::Input,
            PRIORITY,
            ChainKind::Filter,
            Policy::Drop,
        ),
        base(
            rules::FORWARD,
            Hook::Forward,
            PRIORITY,
            ChainKind::Filter,
            Policy::Drop,
        ),
        base(
            rules::OUTPUT,
            Hook::Output,
            PRIORITY,
            ChainKind::Filter,
            Policy::Accept,
        ),
    ];
    let inner = [
        rules::FROM_TUNNEL,
        rules::UPLINK,
        rules::OUT_OF_TUNNEL,
        rules::INTO_TUNNEL,
        rules::OWN_INTO_TUNNEL,
        rules::GRANTED,
        rules::NEW,
        rules::REFUSED,
    ];
    chains.extend(inner.map(|name| Chain { name, base: None }));
    match plan.masquerade {
        Masquerade::No => {}
        Masquerade::Yes => chains.push(base(
            rules::POSTROUTING,
            Hook::PostRouting,
            NAT_PRIORITY,
            ChainKind::Nat,
            Policy::Accept,
        )),
    }
    chains
}

/// Messages that happen together or not at all.
pub struct Batch<'a> {
    writer: &'a mut Chosen,
    /// The bytes of each message, numbered only when it is sent.
    bytes: Vec<u8>,
    /// How many there are.
    count: u32,
    /// Where the last one begins.
    last: Option<usize>,
}

impl<'a> Batch<'a> {
    /// Starts one.
    pub fn new(writer: &'a mut Chosen) -> Self {
        let mut bytes = Vec::with_capacity(1024);
        writer.append(&mut bytes, &Message::Begin, 0);
        Self {
            writer,
            bytes,
            count: 0,
            last: None,
        }
    }

    /// Adds a message. Only the last is acknowledged: a batch is done as one, and an error is told whoever asked.
    pub fn push(&mut self, message: &Message<'_>) {
        self.count += 1;
        if let Some(before) = self.last.replace(self.bytes.len()) {
            without_ack(&mut self.bytes, before);
        }
        self.writer.append(&mut self.bytes, message, self.count);
    }

    /// Has the kernel do it.
    ///
    /// # Errors
    /// The first errno of the kernel; then nothing has changed.
    pub fn send(mut self, link: &mut Link) -> io::Result<()> {
        self.writer
            .append(&mut self.bytes, &Message::End, self.count + 1);
        let begin = link.reserve(self.count + 2);
        renumber(&mut self.bytes, begin);
        link.exchange(&self.bytes, begin.wrapping_add(1), self.count, |_, _| {})
    }
}

/// Adds the link's own count to the sequence number of every message.
fn renumber(bytes: &mut [u8], begin: u32) {
    let mut at = 0;
    while let Some(header) = bytes.get_mut(at..at + 16) {
        let (len, seq) = (&header[..4], &header[8..12]);
        let len = u32::from_ne_bytes(len.try_into().expect("four bytes"));
        let seq = u32::from_ne_bytes(seq.try_into().expect("four bytes"));
        header[8..12].copy_from_slice(&begin.wrapping_add(seq).to_ne_bytes());
        at += usize::try_from(len)
            .expect("within the batch")
            .next_multiple_of(4);
    }
}
