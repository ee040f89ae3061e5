//! The sockets the daemon works with and may not open itself: one for knocks per interface, and for replies.
//!
//! A capture socket has its filter locked before it is bound, so that it never holds a packet the filter
//! would not let pass. The reply sockets take whole IP packets and receive nothing.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::net::sockopt::set_socket_recv_buffer_size_force;
use rustix::net::{AddressFamily, SocketFlags, SocketType, ipproto, socket_with};
use spa_order::{KnockInterfaces, Replies};

use crate::filter;
use crate::socket::{bind_to_interface, filter_for_good, ignore_outgoing};

/// Bytes of knocks, with the kernel's bookkeeping, that may wait: 10 ms of the strongest flood of DESIGN §9
/// (100,000 junk packets a second of about 2.3 kB each), three times over.
const CAPTURE_BUFFER: usize = 8 << 20;

/// Everything handed over.
#[derive(Debug)]
pub struct Handover {
    knock: KnockInterfaces,
    captures: Vec<OwnedFd>,
    replies: Vec<OwnedFd>,
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
    /// Opens everything.
    ///
    /// # Errors
    /// See [`HandoverError`].
    pub fn open(interfaces: &[String], port: u16) -> Result<Self, HandoverError> {
        let index =
            |name: &String| index_of(name).ok_or_else(|| HandoverError::NoInterface(name.clone()));
        let indices = interfaces
            .iter()
            .map(index)
            .collect::<Result<Vec<_>, _>>()?;
        let knock = KnockInterfaces::new(&indices).ok_or(HandoverError::Interfaces)?;
        let mut captures = Vec::new();
        for (interface, index) in interfaces.iter().zip(indices) {
            let socket = capture(index, port).map_err(|source| HandoverError::Capture {
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

    /// All of them, in the order [`spa_order::Hello`] promises.
    pub fn descriptors(&self) -> Vec<BorrowedFd<'_>> {
        self.captures
            .iter()
            .chain(&self.replies)
            .map(AsFd::as_fd)
            .collect()
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

fn capture(index: u32, port: u16) -> io::Result<OwnedFd> {
    // Protocol 0: it receives nothing before it is bound.
    let socket = socket_with(
        AddressFamily::PACKET,
        SocketType::DGRAM,
        SocketFlags::CLOEXEC,
        None,
    )?;
    filter_for_good(&socket, &mut filter::knocks(port))?;
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
