//! A netlink socket of one family: requests out, their answers back, attributes in and out of bytes.
//!
//! Everything here is safe code over byte slices. A request is done when each of its sequence numbers
//! was acknowledged; after an error whatever else the kernel has queued is thrown away, so that the next
//! request never meets an answer to the last.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::Duration;

use crate::socket::filter_for_good;
use rustix::net::netlink::SocketAddrNetlink;
use rustix::net::sockopt::{
    Timeout, set_socket_recv_buffer_size_force, set_socket_send_buffer_size_force,
    set_socket_timeout,
};
use rustix::net::{AddressFamily, Protocol, RecvFlags, SendFlags, SocketFlags, SocketType};

/// Bytes of a netlink header.
pub const HEADER_LEN: usize = 16;
/// `NLM_F_REQUEST`.
pub const REQUEST: u16 = 0x001;
/// Flags of a request that is acknowledged: `NLM_F_REQUEST | NLM_F_ACK`.
pub const REQUEST_ACK: u16 = REQUEST | 0x004;
/// `NLM_F_DUMP`: every object, up to `NLMSG_DONE`.
pub const DUMP: u16 = 0x300;

const NLMSG_ERROR: u16 = 2;
const NLMSG_DONE: u16 = 3;
/// The largest message the kernel sends in a dump is 32 KiB; twice that.
const RECEIVE_LEN: usize = 1 << 16;
/// Room for what is heard of a few thousand elements, bytes.
const HEAR_LEN: usize = 4 << 20;
/// Room for a batch of a few thousand elements, bytes.
const SEND_LEN: usize = 4 << 20;
/// Room for the answers to [`MOST_QUESTIONS`] questions with the kernel's bookkeeping, some 8 kB each at most, bytes.
const ANSWERS_LEN: usize = 1 << 20;
/// How many questions are asked at once at most.
pub const MOST_QUESTIONS: usize = 64;
/// The kernel answers before `send` returns. Waiting at all means that it lost an answer for want of memory.
const PATIENCE: Duration = Duration::from_secs(2);

/// One netlink socket.
#[derive(Debug)]
pub struct Link {
    socket: OwnedFd,
    received: Vec<u8>,
    seq: u32,
}

impl Link {
    /// Opens a socket to `NETLINK_NETFILTER`.
    pub fn netfilter() -> io::Result<Self> {
        Self::open(Some(rustix::net::netlink::NETFILTER))
    }

    /// Opens a socket to `NETLINK_ROUTE`.
    pub fn route() -> io::Result<Self> {
        // NETLINK_ROUTE is protocol 0.
        Self::open(None)
    }

    fn open(protocol: Option<Protocol>) -> io::Result<Self> {
        let socket = rustix::net::socket_with(
            AddressFamily::NETLINK,
            SocketType::RAW,
            SocketFlags::CLOEXEC,
            protocol,
        )?;
        set_socket_timeout(&socket, Timeout::Recv, Some(PATIENCE))?;
        // Only large batches need it, and only root may: a refusal shows when such a batch is sent.
        let _ = set_socket_send_buffer_size_force(&socket, SEND_LEN);
        let _ = set_socket_recv_buffer_size_force(&socket, ANSWERS_LEN);
        Ok(Self {
            socket,
            received: vec![0; RECEIVE_LEN],
            seq: 0,
        })
    }

    /// Gives the socket away, to be read by somebody else, with so much room for what waits.
    pub fn into_socket(self, room: usize) -> io::Result<OwnedFd> {
        set_socket_recv_buffer_size_force(&self.socket, room)?;
        set_socket_timeout(&self.socket, Timeout::Recv, None)?;
        Ok(self.socket)
    }

    /// Gives the number by which the kernel names this socket to others, once something was sent.
    pub fn port(&self) -> io::Result<u32> {
        let address = rustix::net::getsockname(&self.socket)?;
        let address = SocketAddrNetlink::try_from(address)?;
        Ok(address.pid())
    }

    /// Reserves `count` sequence numbers and gives the first.
    pub fn reserve(&mut self, count: u32) -> u32 {
        let first = self.seq.wrapping_add(1);
        self.seq = self.seq.wrapping_add(count);
        first
    }

    /// Sends one message of its own and gives everything but its acknowledgement to `each`.
    ///
    /// # Errors
    /// The kernel's errno, or that it fell silent.
    pub fn ask(&mut self, request: Request, each: impl FnMut(u16, &[u8])) -> io::Result<()> {
        let seq = self.reserve(1);
        self.exchange(&request.into_bytes(seq), seq, 1, each)
    }

    /// Asks questions in one call and gives each answer with the place of its question; what the kernel does not have
    /// is not answered. At most [`MOST_QUESTIONS`] at once; none of them wants an acknowledgement.
    ///
    /// # Errors
    /// The first other errno of the kernel, or that it fell silent.
    pub fn gather(
        &mut self,
        questions: &Questions,
        first: u32,
        mut each: impl FnMut(usize, &[u8]),
    ) -> io::Result<()> {
        rustix::net::send(&self.socket, &questions.bytes, SendFlags::empty())?;
        let mut waiting = questions.count;
        let mut outcome = Ok(());
        while waiting > 0 {
            let received =
                match rustix::net::recv(&self.socket, &mut self.received[..], RecvFlags::empty()) {
                    Ok((received, _)) => received,
                    Err(rustix::io::Errno::INTR) => continue,
                    Err(error) => return outcome.and(Err(error.into())),
                };
            for message in messages(self.received.get(..received).unwrap_or_default()) {
                let place = message.seq.wrapping_sub(first);
                if place >= questions.count {
                    continue;
                }
                // One answer each: an element, a route, or an error.
                waiting = waiting.saturating_sub(1);
                let place = usize::try_from(place).unwrap_or(usize::MAX);
                match message.kind {
                    NLMSG_ERROR => match error_code(message.payload) {
                        0 | libc::ENOENT | libc::ENETUNREACH | libc::EHOSTUNREACH => {}
                        code if outcome.is_ok() => {
                            outcome = Err(io::Error::from_raw_os_error(code));
                        }
                        _ => {}
                    },
                    _ => each(place, message.payload),
                }
            }
        }
        outcome
    }

    /// Sends bytes that hold `count` messages, numbered from `first`, of which the last is to be acknowledged; an error
    /// may also carry the number before `first`, the head of a batch.
    ///
    /// # Errors
    /// The first errno of the kernel, or that it fell silent.
    pub fn exchange(
        &mut self,
        bytes: &[u8],
        first: u32,
        count: u32,
        mut each: impl FnMut(u16, &[u8]),
    ) -> io::Result<()> {
        rustix::net::send(&self.socket, bytes, SendFlags::empty())?;
        let mut waiting: u32 = 1;
        let mut outcome = Ok(());
        while waiting > 0 {
            let flags = if outcome.is_ok() {
                RecvFlags::empty()
            } else {
                RecvFlags::DONTWAIT
            };
            let received = match rustix::net::recv(&self.socket, &mut self.received[..], flags) {
                Ok((received, _)) => received,
                Err(rustix::io::Errno::INTR) => continue,
                Err(rustix::io::Errno::AGAIN) if outcome.is_err() => break,
                Err(error) => return outcome.and(Err(error.into())),
            };
            for message in messages(self.received.get(..received).unwrap_or_default()) {
                if message.seq.wrapping_sub(first.wrapping_sub(1)) > count {
                    continue;
                }
                match message.kind {
                    NLMSG_DONE => waiting = waiting.saturating_sub(1),
                    NLMSG_ERROR => match error_code(message.payload) {
                        0 => waiting = waiting.saturating_sub(1),
                        code if outcome.is_ok() => {
                            outcome = Err(io::Error::from_raw_os_error(code));
                        }
                        _ => {}
                    },
                    kind => each(kind, message.payload),
                }
            }
        }
        outcome
    }
}

/// Questions that go to the kernel in one call.
#[derive(Debug, Default)]
pub struct Questions {
    bytes: Vec<u8>,
    count: u32,
}

impl Questions {
    /// Adds one, as `write` appends it; its acknowledgement is not wanted, since every question has an answer.
    pub fn ask(&mut self, write: impl FnOnce(&mut Vec<u8>)) {
        let at = self.bytes.len();
        write(&mut self.bytes);
        without_ack(&mut self.bytes, at);
        self.count += 1;
    }
}

/// Has the message at `at` not be acknowledged.
pub fn without_ack(bytes: &mut [u8], at: usize) {
    /// Where the flags are in the header, and `NLM_F_ACK`.
    const FLAGS_AT: usize = 6;
    const ACK: u16 = 0x004;
    let flags = bytes
        .get_mut(at + FLAGS_AT..)
        .and_then(|rest| rest.first_chunk_mut());
    if let Some(flags) = flags {
        *flags = (u16::from_ne_bytes(*flags) & !ACK).to_ne_bytes();
    }
}

/// What came of listening.
#[derive(Clone, Copy, Debug, Default)]
pub struct Hearing {
    /// Something was heard that matters.
    pub matters: bool,
    /// Something was not heard.
    pub lost: bool,
}

/// A socket that hears what changes, by whomever.
#[derive(Debug)]
pub struct Ear {
    socket: OwnedFd,
}

impl Ear {
    /// Hears of tables (`NFNLGRP_NFTABLES`).
    pub fn tables() -> io::Result<Self> {
        Self::open(Some(rustix::net::netlink::NETFILTER), 7)
    }

    /// Hears of interfaces (`RTNLGRP_LINK`).
    pub fn interfaces() -> io::Result<Self> {
        Self::open(None, 1)
    }

    /// Hears, for somebody else to read, of connections that end (`NFNLGRP_CONNTRACK_DESTROY`), as far as a filter
    /// lets them pass that nobody can take away.
    pub fn ended_connections(filter: &mut [libc::sock_filter], room: usize) -> io::Result<OwnedFd> {
        let socket = Self::socket(Some(rustix::net::netlink::NETFILTER))?;
        filter_for_good(&socket, filter)?;
        set_socket_recv_buffer_size_force(&socket, room)?;
        Self::listen(&socket, 3)?;
        Ok(socket)
    }

    fn open(protocol: Option<Protocol>, group: u32) -> io::Result<Self> {
        let socket = Self::socket(protocol)?;
        // A thousand sessions that end together are heard in one moment, and what is lost is not known.
        let _ = set_socket_recv_buffer_size_force(&socket, HEAR_LEN);
        Self::listen(&socket, group)?;
        Ok(Self { socket })
    }

    fn socket(protocol: Option<Protocol>) -> io::Result<OwnedFd> {
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let raw = SocketType::RAW;
        Ok(rustix::net::socket_with(
            AddressFamily::NETLINK,
            raw,
            flags,
            protocol,
        )?)
    }

    fn listen(socket: &OwnedFd, group: u32) -> io::Result<()> {
        let groups = SocketAddrNetlink::new(0, 1 << (group - 1));
        Ok(rustix::net::bind(socket, &groups)?)
    }

    /// Takes everything that was heard, and says whether a message `matters`. What comes too fast is lost, and then
    /// one may have.
    ///
    /// # Errors
    /// The kernel's errno.
    pub fn heard(&self, mut matters: impl FnMut(&Heard<'_>) -> bool) -> io::Result<Hearing> {
        let mut bytes = [0; 8192];
        let mut all_heard = Hearing::default();
        loop {
            // TRUNC: the true length, so that a cut message shows.
            match rustix::net::recv(&self.socket, &mut bytes[..], RecvFlags::TRUNC) {
                Ok((received, length)) => {
                    let all = bytes.get(..received).unwrap_or_default();
                    all_heard.lost |= length > received;
                    for message in messages(all) {
                        all_heard.matters |= matters(&message);
                    }
                }
                Err(rustix::io::Errno::NOBUFS) => all_heard.lost = true,
                Err(rustix::io::Errno::INTR) => {}
                Err(rustix::io::Errno::AGAIN) => return Ok(all_heard),
                Err(error) => return Err(error.into()),
            }
        }
    }
}

impl AsFd for Ear {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

/// The errno of an `NLMSG_ERROR`, positive; 0 is an acknowledgement.
fn error_code(payload: &[u8]) -> i32 {
    let code = payload
        .first_chunk()
        .map_or(-libc::EBADMSG, |code| i32::from_ne_bytes(*code));
    code.saturating_neg()
}

/// One message of the kernel.
#[derive(Clone, Copy, Debug)]
pub struct Heard<'a> {
    /// Its type.
    pub kind: u16,
    seq: u32,
    /// Whose doing it tells of: the port of their socket, 0 for the kernel's own.
    pub port: u32,
    /// What follows the header.
    pub payload: &'a [u8],
}

/// Walks the messages of one datagram; stops at the first that overruns it.
fn messages(mut rest: &[u8]) -> impl Iterator<Item = Heard<'_>> {
    std::iter::from_fn(move || {
        let (head, _) = rest.split_first_chunk::<HEADER_LEN>()?;
        let [l0, l1, l2, l3, k0, k1, _, _, s0, s1, s2, s3, p0, p1, p2, p3] = *head;
        let len = usize::try_from(u32::from_ne_bytes([l0, l1, l2, l3])).ok()?;
        let payload = rest.get(HEADER_LEN..len)?;
        rest = rest.get(len.next_multiple_of(4)..).unwrap_or_default();
        let kind = u16::from_ne_bytes([k0, k1]);
        Some(Heard {
            kind,
            seq: u32::from_ne_bytes([s0, s1, s2, s3]),
            port: u32::from_ne_bytes([p0, p1, p2, p3]),
            payload,
        })
    })
}

/// One attribute: its type without the flag bits, and its value.
pub type Attribute<'a> = (u16, &'a [u8]);

/// Walks attributes; stops at the first that overruns.
pub fn attributes(mut rest: &[u8]) -> impl Iterator<Item = Attribute<'_>> {
    std::iter::from_fn(move || {
        let (head, _) = rest.split_first_chunk::<4>()?;
        let [l0, l1, t0, t1] = *head;
        let len = usize::from(u16::from_ne_bytes([l0, l1]));
        let value = rest.get(4..len)?;
        rest = rest.get(len.next_multiple_of(4)..).unwrap_or_default();
        // The upper two bits say "nested" and "network byte order".
        Some((u16::from_ne_bytes([t0, t1]) & 0x3FFF, value))
    })
}

/// Finds one attribute.
pub fn attribute(of: &[u8], wanted: u16) -> Option<&[u8]> {
    attributes(of).find_map(|(kind, value)| (kind == wanted).then_some(value))
}

/// Reads a whole attribute as a big-endian number.
pub fn be32(value: &[u8]) -> Option<u32> {
    value.try_into().ok().map(u32::from_be_bytes)
}

/// Reads a whole attribute as a big-endian number.
pub fn be64(value: &[u8]) -> Option<u64> {
    value.try_into().ok().map(u64::from_be_bytes)
}

/// Reads a whole attribute as a zero-terminated string.
pub fn string(value: &[u8]) -> String {
    String::from_utf8_lossy(value.split(|byte| *byte == 0).next().unwrap_or_default()).into_owned()
}

/// A message being written.
#[derive(Debug, Default)]
pub struct Request {
    bytes: Vec<u8>,
}

impl Request {
    /// Starts a message: type, flags, and the header of its family.
    pub fn new(kind: u16, flags: u16, family_header: &[u8]) -> Self {
        let mut bytes = Vec::with_capacity(256);
        bytes.extend([0; 4]);
        bytes.extend(kind.to_ne_bytes());
        bytes.extend(flags.to_ne_bytes());
        bytes.extend([0; 8]);
        bytes.extend(family_header);
        let mut request = Self { bytes };
        request.pad();
        request
    }

    /// Adds an attribute.
    pub fn attribute(mut self, kind: u16, value: &[u8]) -> Self {
        let len = u16::try_from(4 + value.len()).expect("our attributes are short");
        self.bytes.extend(len.to_ne_bytes());
        self.bytes.extend(kind.to_ne_bytes());
        self.bytes.extend(value);
        self.pad();
        self
    }

    /// Adds attributes inside an attribute.
    pub fn nested(self, kind: u16, inside: impl FnOnce(Self) -> Self) -> Self {
        let inner = inside(Self::default()).bytes;
        self.attribute(kind | 0x8000, &inner)
    }

    /// Numbers it and gives its bytes.
    pub fn into_bytes(mut self, seq: u32) -> Vec<u8> {
        self.finish(seq);
        self.bytes
    }

    fn pad(&mut self) {
        self.bytes.resize(self.bytes.len().next_multiple_of(4), 0);
    }

    fn finish(&mut self, seq: u32) {
        let len = u32::try_from(self.bytes.len()).expect("our messages are short");
        self.bytes[..4].copy_from_slice(&len.to_ne_bytes());
        self.bytes[8..12].copy_from_slice(&seq.to_ne_bytes());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attributes_come_back_as_they_went() {
        let request = Request::default()
            .attribute(3, &[1, 2, 3])
            .nested(4, |inside| inside.attribute(1, &7_u32.to_be_bytes()));
        let all: Vec<_> = attributes(&request.bytes).collect();
        assert_eq!(all.len(), 2);
        assert_eq!(all[0], (3, &[1, 2, 3][..]));
        assert_eq!(attribute(all[1].1, 1).and_then(be32), Some(7));
    }

    #[test]
    fn an_attribute_that_overruns_ends_the_walk() {
        assert_eq!(attributes(&[9, 0, 1, 0, 5]).count(), 0);
        assert_eq!(attributes(&[0, 0, 1, 0, 5, 5, 5, 5]).count(), 0);
        assert_eq!(attributes(&[3]).count(), 0);
    }

    #[test]
    fn a_message_that_overruns_ends_the_walk() {
        let mut request = Request::new(7, 0, &[1, 2, 3, 4]);
        request.finish(5);
        assert_eq!(
            messages(&request.bytes)
                .map(|message| message.seq)
                .collect::<Vec<_>>(),
            [5]
        );
        request.bytes[0] = 200;
        assert_eq!(messages(&request.bytes).count(), 0);
        request.bytes[0] = 3;
        assert_eq!(messages(&request.bytes).count(), 0);
    }

    #[test]
    fn the_kernel_says_no_and_the_socket_goes_on() {
        let mut link = Link::route().expect("netlink socket");
        // RTM_GETLINK of an index that is not there, then the loopback.
        let ask = |index: i32| {
            let mut header = [0; 16];
            header[4..8].copy_from_slice(&index.to_ne_bytes());
            Request::new(18, REQUEST_ACK, &header)
        };
        let refused = link.ask(ask(i32::MAX), |_, _| {});
        assert_eq!(
            refused.map_err(|error| error.raw_os_error()),
            Err(Some(libc::ENODEV))
        );
        let mut answers = 0;
        link.ask(ask(1), |_, _| answers += 1)
            .expect("the loopback is there");
        assert_eq!(answers, 1);
    }
}
