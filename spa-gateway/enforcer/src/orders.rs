//! The socket to the daemon: orders in, answers out, one message each.
//!
//! Invariant: a message that is no order ends the process. Whoever sends one is not the daemon we were
//! started by, or is broken; the kernel's timeouts close what is open.

use std::io::{self, IoSlice};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::net::{
    RecvFlags, SendAncillaryBuffer, SendAncillaryMessage, SendFlags, SocketType, sockopt,
};
use spa_order::{Answer, DecodeError, Hello, MAX_KNOCK_INTERFACES, ORDER_LEN, Order, Zeroizing};

/// The capture sockets, two for replies, the memory of the tag table, two of the access log.
const MAX_DESCRIPTORS: usize = MAX_KNOCK_INTERFACES + 5;

/// Why there can be no more orders.
#[derive(Debug, thiserror::Error)]
pub enum LinkError {
    /// Nobody gave us a socket.
    #[error(
        "standard input is no socket of orders: spa-enforcer is started by spa-gateway, not by hand"
    )]
    NotASocket,
    /// Something that is no order.
    #[error("the daemon sent what is no order ({0}): ending, all openings lapse by themselves")]
    Malformed(DecodeError),
    /// The socket failed.
    #[error("the socket to the daemon failed: {0}")]
    Socket(io::Error),
}

/// The daemon's socket.
#[derive(Debug)]
pub struct Orders {
    socket: OwnedFd,
}

impl Orders {
    /// Takes standard input, a `SOCK_SEQPACKET` socket, as `inetd` gives one.
    ///
    /// # Errors
    /// [`LinkError::NotASocket`].
    pub fn from_stdin() -> Result<Self, LinkError> {
        let socket = io::stdin()
            .as_fd()
            .try_clone_to_owned()
            .map_err(LinkError::Socket)?;
        match sockopt::socket_type(&socket) {
            Ok(SocketType::SEQPACKET) => Ok(Self { socket }),
            _ => Err(LinkError::NotASocket),
        }
    }

    /// Says that everything is ready, and hands the descriptors over.
    ///
    /// # Errors
    /// [`LinkError::Socket`].
    pub fn hello(&self, hello: &Hello, descriptors: &[BorrowedFd<'_>]) -> Result<(), LinkError> {
        let bytes = Answer::Hello(*hello).encode(0);
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_DESCRIPTORS))];
        let mut control = SendAncillaryBuffer::new(&mut space);
        if !control.push(SendAncillaryMessage::ScmRights(descriptors)) {
            return Err(LinkError::Socket(io::Error::from_raw_os_error(
                libc::ETOOMANYREFS,
            )));
        }
        let flags = SendFlags::NOSIGNAL;
        rustix::net::sendmsg(&self.socket, &[IoSlice::new(&bytes)], &mut control, flags)
            .map(|_| ())
            .map_err(|error| LinkError::Socket(error.into()))
    }

    /// Takes the next order; `None` when the daemon has closed its end.
    ///
    /// # Errors
    /// See [`LinkError`].
    pub fn next(&self) -> Result<Option<(u64, Order)>, LinkError> {
        self.receive(RecvFlags::empty())
    }

    /// Takes the next order if there is one already; a daemon that has closed its end shows at [`next`](Self::next).
    ///
    /// # Errors
    /// See [`LinkError`].
    pub fn another(&self) -> Result<Option<(u64, Order)>, LinkError> {
        self.receive(RecvFlags::DONTWAIT)
    }

    fn receive(&self, flags: RecvFlags) -> Result<Option<(u64, Order)>, LinkError> {
        // One byte more than an order, so that a longer message shows.
        let mut bytes = Zeroizing::new([0; ORDER_LEN + 1]);
        let received = loop {
            match rustix::net::recv(&self.socket, &mut bytes[..], flags | RecvFlags::TRUNC) {
                Ok((_, received)) => break received,
                Err(rustix::io::Errno::INTR) => {}
                Err(rustix::io::Errno::AGAIN | rustix::io::Errno::CONNRESET) => return Ok(None),
                Err(error) => return Err(LinkError::Socket(error.into())),
            }
        };
        match received {
            0 => Ok(None),
            ORDER_LEN => Order::decode(&bytes[..ORDER_LEN])
                .map(Some)
                .map_err(LinkError::Malformed),
            _ => Err(LinkError::Malformed(DecodeError::Length)),
        }
    }

    /// Answers an order.
    ///
    /// # Errors
    /// [`LinkError::Socket`]; a daemon that is gone shows at [`next`](Self::next).
    pub fn answer(&self, seq: u64, answer: &Answer) -> Result<(), LinkError> {
        let bytes = answer.encode(seq);
        loop {
            match rustix::net::send(&self.socket, &bytes, SendFlags::NOSIGNAL) {
                Ok(_) | Err(rustix::io::Errno::PIPE | rustix::io::Errno::CONNRESET) => {
                    return Ok(());
                }
                Err(rustix::io::Errno::INTR) => {}
                Err(error) => return Err(LinkError::Socket(error.into())),
            }
        }
    }
}

impl AsFd for Orders {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}
