//! The sockets of the access log: which connections sessions begin, told by nfnetlink_log at the first packet, and how
//! much went through each, told by connection tracking at its end.
//!
//! They are opened and set up here and handed over: the daemon can read them and, without a capability, nothing else.
//! Invariant: what connection tracking tells is of our sessions only, by a filter in the kernel that is locked; the rest
//! of a busy router costs the daemon nothing.

use std::ffi::CStr;
use std::fs;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use libc::sock_filter;
use spa_order::Access;

use crate::netlink::{Ear, Link, REQUEST_ACK, Request};
use crate::nft::{AccessLog, Family, Mode, Plan};
use crate::say::say;

/// Our group of nfnetlink_log: "SP". One program reads a group.
pub const GROUP: u16 = 0x5350;
/// What stands in front of a packet that passes.
pub const TOLD_ALLOWED: &CStr = c"allowed";
/// What stands in front of one that does not.
pub const TOLD_REFUSED: &CStr = c"refused";

// include/uapi/linux/netfilter/nfnetlink_log.h
const CONFIGURE: u16 = (4 << 8) | 1;
const COMMAND: u16 = 1;
const MODE: u16 = 2;
const TIMEOUT: u16 = 4;
const BIND: u8 = 1;
const COPY_PACKET: u8 = 2;
/// How long a message may wait for others, hundredths of a second.
const TOGETHER: u32 = 10;
/// Bytes of messages that may wait for the daemon: some thousand connections.
const WAITING: usize = 1 << 20;
/// What the kernel copies at most; rules say less.
const COPIED: u32 = 0xFFFF;
/// Whether connection tracking counts bytes; of this network namespace.
const ACCOUNTING: &str = "/proc/sys/net/netfilter/nf_conntrack_acct";

/// The sockets there are.
#[derive(Debug)]
pub struct AccessSockets {
    begun: Option<OwnedFd>,
    ended: Option<OwnedFd>,
}

impl AccessSockets {
    /// Opens what this kernel has; says what it has not.
    pub fn open(plan: &Plan) -> Self {
        match plan.mode {
            Mode::Own | Mode::Fw4 => {}
            // The rules are the administrator's, and so is what they tell of.
            Mode::Sets(_) => return Self::none(),
        }
        let begun = begun().inspect_err(|error| {
            say(format_args!(
                "warning: no access log ({error}): it takes nfnetlink_log, and no other program on group {GROUP} of it"
            ));
        });
        let Ok(begun) = begun else {
            return Self::none();
        };
        let ended = ended(plan).inspect_err(|error| {
            say(format_args!(
                "warning: the access log does not know how many bytes a connection had ({error}): it takes \
                 nf_conntrack_netlink and a writable {ACCOUNTING}"
            ));
        });
        Self {
            begun: Some(begun),
            ended: ended.ok(),
        }
    }

    /// No access log.
    pub const fn none() -> Self {
        Self {
            begun: None,
            ended: None,
        }
    }

    /// Whether rules are to tell.
    pub fn log(&self) -> AccessLog {
        match self.begun {
            Some(_) => AccessLog::On,
            None => AccessLog::Off,
        }
    }

    /// What there is, for the greeting.
    pub fn access(&self) -> Access {
        match (&self.begun, &self.ended) {
            (None, _) => Access::None,
            (Some(_), None) => Access::Begun,
            (Some(_), Some(_)) => Access::BegunAndEnded,
        }
    }

    /// The sockets, in the order [`spa_order::Hello`] promises.
    pub fn descriptors(&self) -> impl Iterator<Item = BorrowedFd<'_>> {
        self.begun.iter().chain(&self.ended).map(AsFd::as_fd)
    }
}

/// Connections at their first packet.
fn begun() -> io::Result<OwnedFd> {
    let mut link = Link::netfilter()?;
    let [high, low] = GROUP.to_be_bytes();
    let mut mode = COPIED.to_be_bytes().to_vec();
    mode.extend([COPY_PACKET, 0]);
    let request = Request::new(CONFIGURE, REQUEST_ACK, &[0, 0, high, low])
        .attribute(COMMAND, &[BIND])
        .attribute(MODE, &mode)
        .attribute(TIMEOUT, &TOGETHER.to_be_bytes());
    link.ask(request, |_, _| {})?;
    link.into_socket(WAITING)
}

/// Connections at their end.
fn ended(plan: &Plan) -> io::Result<OwnedFd> {
    let ear = Ear::ended_connections(&mut of_pools(plan), WAITING)?;
    fs::write(ACCOUNTING, "1")?;
    Ok(ear)
}

/// Lets pass what a message of connection tracking says of a connection that began in the tunnel.
fn of_pools(plan: &Plan) -> Vec<sock_filter> {
    // linux/bpf_common.h: class | size or operation | mode or source; linux/filter.h: SKF_AD_OFF and what is behind it.
    const ABOUT: u32 = 0xFFFF_F000;
    const ATTRIBUTE: u32 = ABOUT + 12;
    const ATTRIBUTE_INSIDE: u32 = ABOUT + 16;
    /// Where `struct nfgenmsg` begins with the family, and where the attributes do.
    const FAMILY_AT: u32 = 16;
    const ATTRIBUTES_AT: u32 = 20;
    const TUPLE: u32 = 1;
    const ADDRESSES: u32 = 1;
    const WHOLE: u32 = 0x4_0000;
    let op = |code, jt, jf, k| sock_filter { code, jt, jf, k };
    let mut program = Vec::new();
    // AF_INET and the source of IPv4 (`CTA_IP_V4_SRC`), AF_INET6 and that of IPv6.
    for (family, number, source) in [(Family::V4, 2, 1), (Family::V6, 10, 3)] {
        let Some((mask, network)) = plan.pool(family) else {
            continue;
        };
        // What decides: each test that fails skips to the end of this family's part.
        let mut part = vec![op(0x30, 0, 0, FAMILY_AT), op(0x15, 0, 1, number)];
        part.extend([
            op(0x00, 0, 0, ATTRIBUTES_AT),
            op(0x01, 0, 0, TUPLE),
            op(0x20, 0, 0, ATTRIBUTE),
            op(0x15, 1, 0, 0),
            op(0x01, 0, 0, ADDRESSES),
            op(0x20, 0, 0, ATTRIBUTE_INSIDE),
            op(0x15, 1, 0, 0),
            op(0x01, 0, 0, source),
            op(0x20, 0, 0, ATTRIBUTE_INSIDE),
            op(0x15, 1, 0, 0),
            op(0x07, 0, 0, 0),
        ]);
        let words = mask.chunks_exact(4).zip(network.chunks_exact(4));
        for (at, (mask, network)) in (4..).step_by(4).zip(words) {
            let word = |bytes: &[u8]| {
                bytes
                    .iter()
                    .fold(0, |all, byte| all << 8 | u32::from(*byte))
            };
            part.extend([
                op(0x40, 0, 0, at),
                op(0x54, 0, 0, word(mask)),
                op(0x15, 0, 1, word(network)),
            ]);
        }
        part.push(op(0x06, 0, 0, WHOLE));
        let end = part.len();
        for (at, step) in part.iter_mut().enumerate() {
            let skip = u8::try_from(end - at - 1).expect("a short program");
            if step.code == 0x15 {
                step.jt *= skip;
                step.jf *= skip;
            }
        }
        program.extend(part);
    }
    program.push(op(0x06, 0, 0, 0));
    program
}
