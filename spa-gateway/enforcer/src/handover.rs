//! The sockets the daemon works with and may not open itself: one for knocks per interface, for replies, and those
//! of the access log.
//!
//! A capture socket has its filter locked before it is bound, so that it never holds a packet the filter
//! would not let pass. The reply sockets take whole IP packets and receive nothing. Where the kernel takes a
//! filter that looks tags up, its table is memory the daemon writes: no order is needed for a tag, and no
//! capability (docs/decisions/0007).

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::net::sockopt::set_socket_recv_buffer_size_force;
use rustix::net::{AddressFamily, SocketFlags, SocketType, ipproto, socket_with};
use spa_order::{KnockInterfaces, Replies, TagTable};

use crate::access::AccessSockets;
use crate::nft::Plan;
use crate::say::say;
use crate::socket::{attach_for_good, bind_to_interface, filter_for_good, ignore_outgoing};
use crate::{bpf, filter};

/// Bytes of knocks, with the kernel's bookkeeping, that may wait: 10 ms of the strongest flood of DESIGN §9
/// (100,000 junk packets a second of about 2.3 kB each), three times over.
const CAPTURE_BUFFER: usize = 8 << 20;

/// Everything handed over.
#[derive(Debug)]
pub struct Handover {
    knock: KnockInterfaces,
    captures: Vec<OwnedFd>,
    replies: Vec<OwnedFd>,
    tags: Option<Tags>,
    access: AccessSockets,
}

/// The filter that looks tags up, and the memory of its table.
#[derive(Debug)]
struct Tags {
    table: TagTable,
    memory: OwnedFd,
    program: OwnedFd,
}

/// What could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum HandoverError {
    /// No such interface.
    #[error("interface {0} does not exist: name one of `ip link` in [knock] interfaces")]
    NoInterface(String),
    /// An interface twice, or more than fit.
    #[error("the knock interfaces are not one to eight different ones")]
    Interfaces,
    /// A socket for knocks.
    #[error("cannot listen for knocks on {interface}: {source}")]
    Capture {
        /// The interface.
        interface: String,
        /// Why.
        source: io::Error,
    },
    /// A socket for replies.
    #[error("cannot open a raw socket for replies: {0}")]
    Reply(io::Error),
}

impl Handover {
    /// Opens everything, with a tag table for so many credentials.
    ///
    /// # Errors
    /// See [`HandoverError`].
    pub fn open(plan: &Plan, credentials: u32) -> Result<Self, HandoverError> {
        let (interfaces, port) = (&plan.knock, plan.knock_port);
        let index =
            |name: &String| index_of(name).ok_or_else(|| HandoverError::NoInterface(name.clone()));
        let indices = interfaces
            .iter()
            .map(index)
            .collect::<Result<Vec<_>, _>>()?;
        let knock = KnockInterfaces::new(&indices).ok_or(HandoverError::Interfaces)?;
        let tags = Tags::load(port, credentials)
            .inspect_err(|error| {
                say(format_args!(
                    "warning: no tag filter in this kernel ({error}), so junk of a knock's shape \
                     costs user space a look; it takes Linux 5.5 and CAP_BPF"
                ));
            })
            .ok();
        let mut captures = Vec::new();
        for (interface, index) in interfaces.iter().zip(indices) {
            let socket =
                capture(index, port, tags.as_ref()).map_err(|source| HandoverError::Capture {
                    interface: interface.clone(),
                    source,
                })?;
            captures.push(socket);
        }
        let mut replies = vec![reply(AddressFamily::INET).map_err(HandoverError::Reply)?];
        match reply(AddressFamily::INET6) {
            Ok(socket) => replies.push(socket),
            // A kernel without IPv6.
            Err(error) if error.raw_os_error() == Some(libc::EAFNOSUPPORT) => {}
            Err(error) => return Err(HandoverError::Reply(error)),
        }
        Ok(Self {
            knock,
            captures,
            replies,
            tags,
            access: AccessSockets::open(plan),
        })
    }

    /// The indices, in the order of the capture sockets.
    pub fn knock(&self) -> KnockInterfaces {
        self.knock
    }

    /// Which reply sockets there are.
    pub fn replies(&self) -> Replies {
        if self.replies.len() > 1 {
            Replies::Both
        } else {
            Replies::Ipv4
        }
    }

    /// The tag table, if the kernel looks tags up.
    pub fn tags(&self) -> Option<TagTable> {
        self.tags.as_ref().map(|tags| tags.table)
    }

    /// The sockets of the access log.
    pub fn access(&self) -> &AccessSockets {
        &self.access
    }

    /// Gives the access log up, where the kernel has no rule that could tell.
    pub fn without_access(&mut self) {
        self.access = AccessSockets::none();
    }

    /// All of them, in the order [`spa_order::Hello`] promises.
    pub fn descriptors(&self) -> Vec<BorrowedFd<'_>> {
        self.captures
            .iter()
            .chain(&self.replies)
            .chain(self.tags.as_ref().map(|tags| &tags.memory))
            .map(AsFd::as_fd)
            .chain(self.access.descriptors())
            .collect()
    }
}

impl Tags {
    fn load(port: u16, credentials: u32) -> io::Result<Self> {
        let table = TagTable::for_credentials(credentials);
        let bytes = table.words() * size_of::<u32>();
        let memory = bpf::memory(u32::try_from(bytes).map_err(io::Error::other)?)?;
        let program = bpf::load(&filter::known_knocks(port, table, &memory))?;
        Ok(Self {
            table,
            memory,
            program,
        })
    }
}

fn index_of(interface: &str) -> Option<u32> {
    let socket = socket_with(
        AddressFamily::UNIX,
        SocketType::DGRAM,
        SocketFlags::CLOEXEC,
        None,
    )
    .ok()?;
    rustix::net::netdevice::name_to_index(socket, interface).ok()
}

fn capture(index: u32, port: u16, tags: Option<&Tags>) -> io::Result<OwnedFd> {
    // Protocol 0: it receives nothing before it is bound.
    let socket = socket_with(
        AddressFamily::PACKET,
        SocketType::DGRAM,
        SocketFlags::CLOEXEC,
        None,
    )?;
    match tags {
        Some(tags) => attach_for_good(&socket, &tags.program)?,
        None => filter_for_good(&socket, &mut filter::knocks(port))?,
    }
    set_socket_recv_buffer_size_force(&socket, CAPTURE_BUFFER)?;
    ignore_outgoing(&socket)?;
    bind_to_interface(&socket, index)?;
    Ok(socket)
}

/// A socket of `IPPROTO_RAW`: the sender writes the IP header itself, in both families.
fn reply(family: AddressFamily) -> io::Result<OwnedFd> {
    let socket = socket_with(
        family,
        SocketType::RAW,
        SocketFlags::CLOEXEC,
        Some(ipproto::RAW),
    )?;
    filter_for_good(&socket, &mut filter::nothing())?;
    Ok(socket)
}
