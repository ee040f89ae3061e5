//! The daemon's end of the enforcer: its greeting, orders and their answers; `program` starts it.
//!
//! Invariant: answers come in the order of the orders, one sequence number each; only
//! `Forget` is answered whenever it is done. An enforcer that breaks this, or falls silent, is not argued with: the daemon stops,
//! and kernel timeouts close what is open.

use std::collections::{BTreeMap, VecDeque};
use std::io::{self, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, OwnedFd};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendFlags, sockopt};
use spa_order::{
    ANSWER_LEN, Answer, Connections, DecodeError, Hello, MAX_KNOCK_INTERFACES, Opening, Order,
    PeerReport, Replies, Usage,
};

use crate::access::AccessSockets;
use crate::capture::KnownTags;
use crate::reply::ReplySockets;

mod program;

use program::EXECUTABLE;
pub use program::{Once, look, once, spawn};

/// How long the enforcer may take to be ready: it makes a table, sockets and an interface.
const READY_WITHIN: Duration = Duration::from_secs(30);
/// How long one answer may take before the enforcer counts as hung.
const ANSWER_WITHIN: Duration = Duration::from_secs(10);
/// How many orders are on their way at once: fewer than either socket buffer holds, so
/// that both sides can never wait for each other.
const WINDOW: usize = 64;
/// How long an order may take that is answered late.
const LATE_WITHIN: Duration = Duration::from_secs(30);
/// How many of those are on their way at once.
const MOST_LATE: usize = 1_024;

/// Why the enforcer cannot be relied on.
#[derive(Debug, thiserror::Error)]
pub enum LinkError {
    /// No executable.
    #[error("{EXECUTABLE} is neither beside this program nor in PATH; install it there")]
    NotFound,
    /// It cannot be run.
    #[error("cannot run {}: {source}; see its permissions", file.display())]
    Run {
        /// Its file.
        file: PathBuf,
        /// The system's answer.
        source: io::Error,
    },
    /// It ended before it was ready; its own line says why.
    #[error("the enforcer did not start")]
    NotReady,
    /// The socket between us.
    #[error("the enforcer cannot be reached: {0}")]
    Socket(#[from] io::Error),
    /// It ended.
    #[error("the enforcer ended")]
    Ended,
    /// It does not answer.
    #[error("the enforcer does not answer")]
    Silent,
    /// Not an answer.
    #[error("the enforcer answered with a {0}; daemon and enforcer must be of one version")]
    Undecodable(DecodeError),
    /// An answer, yet to nothing we asked.
    #[error("the enforcer answered out of turn; daemon and enforcer must be of one version")]
    OutOfTurn,
}

impl From<Errno> for LinkError {
    fn from(errno: Errno) -> Self {
        match errno {
            Errno::AGAIN => Self::Silent,
            Errno::PIPE | Errno::CONNRESET => Self::Ended,
            other => Self::Socket(other.into()),
        }
    }
}

/// What the enforcer handed over when it was ready.
#[derive(Debug)]
pub struct Ready {
    /// Its greeting.
    pub hello: Hello,
    /// One capture socket for each knock interface, in the order of the configuration.
    pub captures: Vec<OwnedFd>,
    /// The raw sockets for replies.
    pub replies: ReplySockets,
    /// The table of tags in front of the capture sockets, where the kernel has one.
    pub tags: Option<KnownTags>,
    /// The sockets of the access log, where there is one.
    pub access: Option<AccessSockets>,
}

/// The connection to a running enforcer.
#[derive(Debug)]
pub struct EnforcerLink {
    socket: OwnedFd,
    last: u64,
    /// Orders whose answers are to come next, in this order.
    turn: VecDeque<u64>,
    /// Their answers, as far as they were read early.
    early: VecDeque<Answer>,
    /// Orders that are answered whenever they are done.
    late: BTreeMap<u64, Instant>,
    /// Answers to those.
    arrived: Vec<(u64, Answer)>,
}

/// What became of an order that was given.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Given {
    /// It is answered.
    Answered(Answer),
    /// It will be, under this number; see [`EnforcerLink::take_late`].
    Later(u64),
}

impl EnforcerLink {
    /// Waits for the greeting and takes the sockets that come with it.
    ///
    /// # Errors
    /// [`LinkError::NotReady`] when it ended first; anything that is no greeting.
    pub fn wait_ready(&mut self) -> Result<Ready, LinkError> {
        sockopt::set_socket_timeout(&self.socket, sockopt::Timeout::Recv, Some(READY_WITHIN))?;
        let (answer, descriptors) = self.receive_with_descriptors()?;
        sockopt::set_socket_timeout(&self.socket, sockopt::Timeout::Recv, Some(ANSWER_WITHIN))?;
        sockopt::set_socket_timeout(&self.socket, sockopt::Timeout::Send, Some(ANSWER_WITHIN))?;
        let (0, Answer::Hello(hello)) = answer else {
            return Err(LinkError::OutOfTurn);
        };
        if descriptors.len() != hello.descriptors() {
            return Err(LinkError::OutOfTurn);
        }
        let mut descriptors = descriptors.into_iter();
        let captures = descriptors
            .by_ref()
            .take(hello.knock.indices().len())
            .collect();
        let v4 = descriptors.next().ok_or(LinkError::OutOfTurn)?;
        let replies = ReplySockets {
            v4,
            v6: match hello.replies {
                Replies::Ipv4 => None,
                Replies::Both => descriptors.next(),
            },
        };
        let memory = hello.tags.and_then(|_| descriptors.next());
        let access = descriptors.next().map(|begun| AccessSockets {
            begun,
            ended: descriptors.next(),
        });
        let tags = hello.tags.zip(memory.as_ref());
        let tags = tags.map(|(table, memory)| KnownTags::new(table, memory));
        Ok(Ready {
            hello,
            captures,
            replies,
            tags: tags.transpose()?,
            access,
        })
    }

    /// Has one order performed that is answered in its turn.
    ///
    /// # Errors
    /// An enforcer that cannot be relied on. A refusal is an answer, not an error.
    pub fn perform(&mut self, order: &Order) -> Result<Answer, LinkError> {
        self.send(order)?;
        let answer = self.receive()?;
        self.end_turn()?;
        Ok(answer)
    }

    /// Has orders performed, in their order; what is given back is in the same order. `meanwhile` is done while the enforcer is
    /// at work.
    ///
    /// # Errors
    /// As [`perform`](Self::perform).
    pub fn perform_all(
        &mut self,
        orders: &[Order],
        mut meanwhile: impl FnMut(),
    ) -> Result<Vec<Given>, LinkError> {
        let mut all = Vec::with_capacity(orders.len());
        for window in orders.chunks(WINDOW) {
            let mut asked = Vec::with_capacity(window.len());
            for order in window {
                asked.push((self.send(order)?, is_late(order)));
            }
            meanwhile();
            for (seq, late) in asked {
                all.push(if late {
                    Given::Later(seq)
                } else {
                    Given::Answered(self.receive()?)
                });
            }
            self.end_turn()?;
        }
        Ok(all)
    }

    /// Takes the answers that came late, without waiting for any.
    ///
    /// # Errors
    /// As [`perform`](Self::perform).
    pub fn take_late(&mut self) -> Result<Vec<(u64, Answer)>, LinkError> {
        while !self.late.is_empty() && self.read(RecvFlags::DONTWAIT)? {}
        let oldest = self.late.values().min();
        if oldest.is_some_and(|sent| sent.elapsed() > LATE_WITHIN) {
            return Err(LinkError::Silent);
        }
        Ok(std::mem::take(&mut self.arrived))
    }

    /// Whether answers are to come late.
    #[must_use]
    pub fn awaits_late(&self) -> bool {
        !self.late.is_empty() || !self.arrived.is_empty()
    }

    /// Lists every peer.
    ///
    /// # Errors
    /// As [`perform`](Self::perform).
    pub fn list_peers(&mut self) -> Result<Vec<PeerReport>, LinkError> {
        self.try_list_peers()?.map_err(|_| LinkError::OutOfTurn)
    }

    /// Lists every peer, or gives the answer that says why not.
    ///
    /// # Errors
    /// As [`perform`](Self::perform).
    pub fn try_list_peers(&mut self) -> Result<Result<Vec<PeerReport>, Answer>, LinkError> {
        self.list(&Order::ListPeers, |answer| match answer {
            Answer::Peer(peer) => Some(peer),
            _ => None,
        })
    }

    /// Lists every door and flow.
    ///
    /// # Errors
    /// As [`perform`](Self::perform).
    pub fn list_openings(&mut self) -> Result<Vec<(Opening, Usage)>, LinkError> {
        self.list(&Order::ListOpenings, |answer| match answer {
            Answer::Opening { opening, usage } => Some((opening, usage)),
            _ => None,
        })?
        .map_err(|_| LinkError::OutOfTurn)
    }

    /// Takes the daemon's end of the socket pair.
    pub(crate) fn over(socket: OwnedFd) -> Self {
        Self {
            socket,
            last: 0,
            turn: VecDeque::new(),
            early: VecDeque::new(),
            late: BTreeMap::new(),
            arrived: Vec::new(),
        }
    }

    /// Counts the connections of sessions; `None` if the kernel does not say.
    ///
    /// # Errors
    /// As [`perform`](Self::perform).
    pub fn count_connections(&mut self) -> Result<Option<Connections>, LinkError> {
        match self.perform(&Order::CountConnections)? {
            Answer::Connections(connections) => Ok(Some(connections)),
            Answer::Refused(_) | Answer::Failed { .. } => Ok(None),
            _ => Err(LinkError::OutOfTurn),
        }
    }

    fn list<T>(
        &mut self,
        order: &Order,
        line: impl Fn(Answer) -> Option<T>,
    ) -> Result<Result<Vec<T>, Answer>, LinkError> {
        self.send(order)?;
        let mut lines = Vec::new();
        let listed = loop {
            match self.receive()? {
                Answer::End => break Ok(lines),
                failure @ (Answer::Refused(_) | Answer::Failed { .. }) => break Err(failure),
                answer => lines.push(line(answer).ok_or(LinkError::OutOfTurn)?),
            }
        };
        self.end_turn()?;
        Ok(listed)
    }

    /// Sends an order. While the enforcer has no room for it, its answers are read: it
    /// may be waiting for just that.
    fn send(&mut self, order: &Order) -> Result<u64, LinkError> {
        while self.late.len() >= MOST_LATE {
            self.read(RecvFlags::empty())?;
        }
        spa_failpoint::reach("daemon", "before", order.name());
        self.last += 1;
        let message = order.encode(self.last);
        let flags = SendFlags::NOSIGNAL | SendFlags::DONTWAIT;
        // A message of a SEQPACKET socket goes whole or not at all.
        loop {
            match rustix::net::send(&self.socket, &message[..], flags) {
                Ok(_) => break,
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => self.wait_for_room()?,
                Err(errno) => return Err(errno.into()),
            }
        }
        if is_late(order) {
            self.late.insert(self.last, Instant::now());
        } else {
            self.turn.push_back(self.last);
        }
        Ok(self.last)
    }

    fn wait_for_room(&mut self) -> Result<(), LinkError> {
        let either = PollFlags::IN | PollFlags::OUT;
        let mut wanted = [PollFd::new(&self.socket, either)];
        let timeout = Timespec::try_from(ANSWER_WITHIN).expect("seconds fit a timespec");
        let ready = rustix::io::retry_on_intr(|| poll(&mut wanted, Some(&timeout)))?;
        let [seen] = wanted.map(|socket| socket.revents());
        if ready == 0 {
            return Err(LinkError::Silent);
        }
        if seen.contains(PollFlags::IN) {
            self.read(RecvFlags::DONTWAIT)?;
        }
        Ok(())
    }

    /// Gives the next answer that is due in its turn.
    fn receive(&mut self) -> Result<Answer, LinkError> {
        loop {
            if let Some(answer) = self.early.pop_front() {
                // A list has one order and many answers: its number stays to the end.
                if self.turn.len() > 1 {
                    self.turn.pop_front();
                }
                return Ok(answer);
            }
            self.read(RecvFlags::empty())?;
        }
    }

    /// Everything that was asked is answered, and nothing else was said.
    fn end_turn(&mut self) -> Result<(), LinkError> {
        let said_more = !self.early.is_empty() || self.turn.len() > 1;
        self.turn.clear();
        if said_more {
            Err(LinkError::OutOfTurn)
        } else {
            Ok(())
        }
    }

    /// Reads one answer and puts it where it belongs. Tells whether there was one.
    fn read(&mut self, flags: RecvFlags) -> Result<bool, LinkError> {
        // One byte more than an answer: a longer message shows.
        let mut message = [0; ANSWER_LEN + 1];
        let received =
            rustix::io::retry_on_intr(|| rustix::net::recv(&self.socket, &mut message, flags));
        let length = match received {
            Ok((length, _)) => length,
            Err(Errno::AGAIN) if flags.contains(RecvFlags::DONTWAIT) => return Ok(false),
            Err(errno) => return Err(errno.into()),
        };
        let (seq, answer) = decode(message.get(..length).unwrap_or_default())?;
        if self.late.remove(&seq).is_some() {
            self.arrived.push((seq, answer));
            return Ok(true);
        }
        let due = self.turn.get(self.early.len()).or(self.turn.back());
        if due != Some(&seq) {
            return Err(LinkError::OutOfTurn);
        }
        self.early.push_back(answer);
        Ok(true)
    }

    fn receive_with_descriptors(&mut self) -> Result<((u64, Answer), Vec<OwnedFd>), LinkError> {
        let mut message = [0; ANSWER_LEN + 1];
        let mut space =
            [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_KNOCK_INTERFACES + 5))];
        let mut control = RecvAncillaryBuffer::new(&mut space);
        let received = rustix::io::retry_on_intr(|| {
            rustix::net::recvmsg(
                self.socket.as_fd(),
                &mut [IoSliceMut::new(&mut message)],
                &mut control,
                RecvFlags::CMSG_CLOEXEC,
            )
        })?;
        let descriptors = control
            .drain()
            .filter_map(|part| match part {
                RecvAncillaryMessage::ScmRights(descriptors) => Some(descriptors),
                _ => None,
            })
            .flatten()
            .collect();
        let answer = decode(message.get(..received.bytes).unwrap_or_default());
        match answer {
            Err(LinkError::Ended) => Err(LinkError::NotReady),
            other => Ok((other?, descriptors)),
        }
    }
}

/// Connection tracking may hold a million entries: whoever forgets takes as long as it takes.
const fn is_late(order: &Order) -> bool {
    match order {
        Order::Forget { .. } => true,
        Order::Key { .. }
        | Order::Peer { .. }
        | Order::Psk { .. }
        | Order::RemovePeer { .. }
        | Order::ReadPeer { .. }
        | Order::ListPeers
        | Order::Flow { .. }
        | Order::CloseFlow { .. }
        | Order::Door { .. }
        | Order::CloseDoor { .. }
        | Order::ListOpenings
        | Order::CountConnections => false,
    }
}

fn decode(message: &[u8]) -> Result<(u64, Answer), LinkError> {
    // No message of ours is empty: the other end is gone.
    if message.is_empty() {
        return Err(LinkError::Ended);
    }
    Answer::decode(message).map_err(LinkError::Undecodable)
}

#[cfg(test)]
mod tests;
