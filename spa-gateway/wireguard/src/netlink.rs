//! One netlink socket to the kernel: a request and its acknowledgement, or a dump of many messages.
//!
//! Invariant: what passes through here is wiped, since WireGuard's messages carry keys both ways.

use std::fmt::{self, Debug};
use std::io;
use std::os::fd::{AsFd, BorrowedFd};

use netlink_packet_core::{
    NLM_F_ACK, NLM_F_DUMP, NLM_F_DUMP_INTR, NLM_F_REQUEST, NetlinkBuffer, NetlinkDeserializable,
    NetlinkHeader, NetlinkMessage, NetlinkPayload, NetlinkSerializable, Parseable,
};
use netlink_sys::{Socket, SocketAddr};
use rustix::net::{RecvFlags, SendFlags};
use zeroize::Zeroizing;

/// Bytes of one reception: the kernel puts at most 32 KiB of a dump into one (`netlink_dump`).
const RECEIVE_LEN: usize = 32 * 1024;
/// Times a dump that changed while it was read is begun anew before it is taken as it is.
const DUMP_ATTEMPTS: u32 = 8;
/// `NLMSG_ERROR`, which also acknowledges, and `NLMSG_DONE`; both begin with an error number (`linux/netlink.h`).
const ERROR: u16 = 2;
const DONE: u16 = 3;

/// What a socket can carry.
pub trait Carried: NetlinkSerializable + NetlinkDeserializable + Debug + Sized {
    /// Wipes the keys in it, if it can hold any.
    fn wipe(&mut self) {}
}

/// A socket of one netlink protocol, connected to the kernel.
pub struct Netlink {
    socket: Socket,
    sequence: u32,
    received: Zeroizing<Vec<u8>>,
}

impl Netlink {
    /// Opens a socket of the protocol (`NETLINK_ROUTE`, `NETLINK_GENERIC`).
    pub fn open(protocol: isize) -> io::Result<Self> {
        let mut socket = Socket::new(protocol)?;
        socket.bind_auto()?;
        socket.connect(&SocketAddr::new(0, 0))?;
        // Without this the kernel sends a refused request back whole, keys included.
        socket.set_cap_ack(true)?;
        Ok(Self {
            socket,
            sequence: 0,
            received: Zeroizing::new(vec![0; RECEIVE_LEN]),
        })
    }

    /// Performs one request and returns what came back before its acknowledgement. `flags` come on top of
    /// `NLM_F_REQUEST` and `NLM_F_ACK`.
    pub fn request<M: Carried>(&mut self, message: M, flags: u16) -> io::Result<Vec<M>> {
        self.send(message, flags | NLM_F_ACK)?;
        self.gather().map(|gathered| gathered.messages)
    }

    /// Dumps what `question` builds a request for, consistent if that can be had in a few attempts.
    pub fn dump<M: Carried>(&mut self, question: impl Fn() -> M) -> io::Result<Vec<M>> {
        let mut attempt = 1;
        loop {
            self.send(question(), NLM_F_DUMP)?;
            let mut gathered = self.gather()?;
            if !gathered.interrupted || attempt == DUMP_ATTEMPTS {
                return Ok(gathered.messages);
            }
            gathered.messages.iter_mut().for_each(M::wipe);
            attempt += 1;
        }
    }

    fn send<M: Carried>(&mut self, message: M, flags: u16) -> io::Result<()> {
        self.sequence = self.sequence.wrapping_add(1);
        let mut header = NetlinkHeader::default();
        header.flags = NLM_F_REQUEST | flags;
        header.sequence_number = self.sequence;
        let mut message = NetlinkMessage::new(header, NetlinkPayload::InnerMessage(message));
        message.finalize();
        let mut bytes = Zeroizing::new(vec![0; message.buffer_len()]);
        message.serialize(&mut bytes);
        if let NetlinkPayload::InnerMessage(inner) = &mut message.payload {
            inner.wipe();
        }
        rustix::net::send(&self.socket, &bytes, SendFlags::empty())?;
        Ok(())
    }

    fn gather<M: Carried>(&mut self) -> io::Result<Gathered<M>> {
        let mut gathered = Gathered {
            messages: Vec::new(),
            interrupted: false,
        };
        loop {
            let (len, real_len) =
                rustix::net::recv(&self.socket, self.received.as_mut_slice(), RecvFlags::TRUNC)?;
            if real_len > len {
                return Err(malformed("longer than 32 KiB"));
            }
            if gathered.take(self.received.get(..len).unwrap_or_default(), self.sequence)?
                == Progress::Complete
            {
                return Ok(gathered);
            }
        }
    }
}

impl AsFd for Netlink {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

impl Debug for Netlink {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Netlink")
            .field("socket", &self.socket)
            .finish_non_exhaustive()
    }
}

struct Gathered<M> {
    messages: Vec<M>,
    interrupted: bool,
}

#[derive(PartialEq, Eq)]
enum Progress {
    More,
    Complete,
}

impl<M: Carried> Gathered<M> {
    /// Takes the messages of one reception, those of another request aside: an answer that was given up
    /// earlier may still lie in the socket.
    fn take(&mut self, mut bytes: &[u8], sequence: u32) -> io::Result<Progress> {
        while !bytes.is_empty() {
            let buffer = NetlinkBuffer::new_checked(&bytes).map_err(malformed)?;
            let header = NetlinkHeader::parse(&buffer).map_err(malformed)?;
            let payload = buffer.payload();
            if header.sequence_number == sequence {
                self.interrupted |= header.flags & NLM_F_DUMP_INTR != 0;
                match header.message_type {
                    ERROR | DONE => return errno_of(payload).map(|()| Progress::Complete),
                    _ => self
                        .messages
                        .push(M::deserialize(&header, payload).map_err(malformed)?),
                }
            }
            // Messages begin at multiples of four bytes; the last may lack its padding.
            let whole = (header.length as usize).next_multiple_of(4);
            bytes = bytes.get(whole..).unwrap_or_default();
        }
        Ok(Progress::More)
    }
}

fn errno_of(payload: &[u8]) -> io::Result<()> {
    // A dump that is done may say nothing at all.
    match payload
        .first_chunk()
        .map(|bytes| i32::from_ne_bytes(*bytes))
    {
        None | Some(0) => Ok(()),
        Some(negated) => Err(io::Error::from_raw_os_error(negated.saturating_neg())),
    }
}

fn malformed(what: impl fmt::Display) -> io::Error {
    io::Error::new(
        io::ErrorKind::InvalidData,
        format!("the kernel's netlink message is not understood: {what}"),
    )
}
