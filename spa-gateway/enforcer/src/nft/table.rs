//! The table as data: its chains and, from `rules`, every rule in order.
//!
//! It is made in one batch that deletes its predecessor: there is no moment without a table, and a new one
//! starts with nothing open. Base chains that could let something in drop by default, so that a flushed
//! chain is a closed one.

use std::io;
use std::net::IpAddr;

use nftnl::{Chain, ChainType, Hook, MsgType, Policy, ProtoFamily, Rule};

use super::element::mask;
use super::raw::{Element, Mark, Scratch, SetMessage, TABLE};
use super::rules::{self, Line};
use super::sets::{Family, SETS, keep_open_shape, knock_shape};
use crate::netlink::{Link, REQUEST_ACK, Request, attribute, be64};

/// Below `filter` (0): a foreign table's "established, accept" comes after us.
pub const PRIORITY: i32 = -10;
/// `raw`: before connection tracking (-200) looks at the packet.
const RAW_PRIORITY: i32 = -300;
/// `mangle`: after connection tracking (-200), before destination NAT (-100) and before the kernel would answer
/// for a packet it cannot forward.
const PASSING_PRIORITY: i32 = -150;
/// `srcnat`.
const NAT_PRIORITY: i32 = 100;

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
pub fn create(link: &mut Link, scratch: &mut Scratch, plan: &Plan) -> io::Result<()> {
    let table = nftnl::Table::new(TABLE, ProtoFamily::Inet);
    let chains = chains(&table, plan);
    let mut batch = Batch::new(scratch);
    // Add first: deleting a table that is not there is an error.
    batch.push(&table, MsgType::Add);
    batch.push(&table, MsgType::Del);
    batch.push(&table, MsgType::Add);
    fill(&mut batch, plan);
    for chain in &chains {
        batch.push(chain, MsgType::Add);
    }
    for Line {
        chain,
        comment,
        words,
    } in rules::rules(plan)
    {
        let chain = chains
            .iter()
            .find(|candidate| candidate.get_name() == chain);
        let mut rule = Rule::new(chain.expect("every line names a chain of the table"));
        words.iter().for_each(|word| rule.add_expr(word));
        rule.set_comment(comment).expect("our comments are short");
        batch.push(&rule, MsgType::Add);
    }
    batch.send(link)
}

/// The kernel's number for the table of our name, a new one each time it is made; `None` when there is none.
///
/// # Errors
/// The kernel's errno; a kernel without nf_tables says so here first.
pub fn handle(link: &mut Link) -> io::Result<Option<u64>> {
    const NFT_MSG_GETTABLE: u16 = (10 << 8) | 1;
    const NFTA_TABLE_NAME: u16 = 1;
    const NFTA_TABLE_HANDLE: u16 = 4;
    const NFPROTO_INET: u8 = 1;
    /// Bytes of `struct nfgenmsg` in front of the attributes.
    const NFGEN_LEN: usize = 4;
    let request = Request::new(NFT_MSG_GETTABLE, REQUEST_ACK, &[NFPROTO_INET, 0, 0, 0])
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
pub fn remove(link: &mut Link, scratch: &mut Scratch) -> io::Result<()> {
    let mut batch = Batch::new(scratch);
    batch.push(&nftnl::Table::new(TABLE, ProtoFamily::Inet), MsgType::Del);
    batch.send(link)
}

fn fill(batch: &mut Batch<'_>, plan: &Plan) {
    let knock = knock_shape();
    let names: Vec<_> = plan
        .knock
        .iter()
        .map(|name| constant(interface_bytes(name)))
        .collect();
    batch.push(&SetMessage::New(&knock), MsgType::Add);
    batch.push(&SetMessage::Add(&knock, &names), MsgType::Add);
    let keep_open = keep_open_shape();
    let ports: Vec<_> = plan
        .keep_open
        .iter()
        .map(|Port { protocol, port }| {
            let [high, low] = port.to_be_bytes();
            constant(vec![*protocol, 0, 0, 0, high, low, 0, 0])
        })
        .collect();
    batch.push(&SetMessage::New(&keep_open), MsgType::Add);
    if !ports.is_empty() {
        batch.push(&SetMessage::Add(&keep_open, &ports), MsgType::Add);
    }
    for set in &SETS {
        batch.push(&SetMessage::New(&set.shape()), MsgType::Add);
    }
}

fn constant(key: Vec<u8>) -> Element {
    Element {
        key,
        key_end: None,
        timeout_ms: None,
    }
}

fn chains<'t>(table: &'t nftnl::Table, plan: &Plan) -> Vec<Chain<'t>> {
    let base = |name, hook, priority, kind, policy| {
        let mut chain = Chain::new(name, table);
        chain.set_hook(hook, priority);
        chain.set_type(kind);
        chain.set_policy(policy);
        chain
    };
    let mut chains = vec![
        base(
            rules::PREROUTING,
            Hook::PreRouting,
            RAW_PRIORITY,
            ChainType::Filter,
            Policy::Accept,
        ),
        base(
            rules::UNTRACKED_OUTPUT,
            Hook::Out,
            RAW_PRIORITY,
            ChainType::Filter,
            Policy::Accept,
        ),
        base(
            rules::PASSING,
            Hook::PreRouting,
            PASSING_PRIORITY,
            ChainType::Filter,
            Policy::Accept,
        ),
        base(
            rules::INPUT,
            Hook::In,
            PRIORITY,
            ChainType::Filter,
            Policy::Drop,
        ),
        base(
            rules::FORWARD,
            Hook::Forward,
            PRIORITY,
            ChainType::Filter,
            Policy::Drop,
        ),
        base(
            rules::OUTPUT,
            Hook::Out,
            PRIORITY,
            ChainType::Filter,
            Policy::Accept,
        ),
    ];
    let inner = [
        rules::FROM_TUNNEL,
        rules::UPLINK,
        rules::OUT_OF_TUNNEL,
        rules::INTO_TUNNEL,
        rules::OWN_INTO_TUNNEL,
    ];
    chains.extend(inner.map(|name| Chain::new(name, table)));
    match plan.masquerade {
        Masquerade::No => {}
        Masquerade::Yes => chains.push(base(
            rules::POSTROUTING,
            Hook::PostRouting,
            NAT_PRIORITY,
            ChainType::Nat,
            Policy::Accept,
        )),
    }
    chains
}

/// Messages that happen together or not at all.
pub struct Batch<'a> {
    scratch: &'a mut Scratch,
    /// The bytes of each message, numbered only when it is sent.
    bytes: Vec<u8>,
    /// Where the messages begin.
    count: u32,
}

impl<'a> Batch<'a> {
    /// Starts one.
    pub fn new(scratch: &'a mut Scratch) -> Self {
        let mut bytes = Vec::with_capacity(1024);
        scratch.append_mark(&mut bytes, Mark::Begin, 0);
        Self {
            scratch,
            bytes,
            count: 0,
        }
    }

    /// Adds a message.
    pub fn push(&mut self, message: &impl nftnl::NlMsg, what: MsgType) {
        self.count += 1;
        self.scratch
            .append(&mut self.bytes, message, self.count, what);
    }

    /// Has the kernel do it.
    ///
    /// # Errors
    /// The first errno of the kernel; then nothing has changed.
    pub fn send(mut self, link: &mut Link) -> io::Result<()> {
        self.scratch
            .append_mark(&mut self.bytes, Mark::End, self.count + 1);
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
