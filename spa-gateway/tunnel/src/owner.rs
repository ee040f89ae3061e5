//! The socket to the owner: requests in, answers out, and the TUN device beside the first request.

use std::io::{self, IoSliceMut};
use std::mem::MaybeUninit;
use std::net::IpAddr;
use std::os::fd::{AsFd, OwnedFd};

use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendFlags, SocketType};
use spa_wireguard::message::{Answer, MOST_ANSWERS, REQUEST_LEN, Request};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use zeroize::Zeroizing;

use crate::readiness;

/// The socket before the runtime knows it.
pub struct Owner(OwnedFd);

/// The socket in use.
pub struct Requests {
    socket: AsyncFd<OwnedFd>,
    /// One byte more than a request, so that a longer one shows.
    bytes: Zeroizing<Vec<u8>>,
    networks: Vec<(IpAddr, u8)>,
}

/// What came from the owner.
pub enum Received<'a> {
    /// A request.
    Request(Request<'a>),
    /// Something that is none.
    Malformed,
    /// The owner is gone.
    End,
}

/// The first message.
pub struct Start {
    /// The TUN device.
    pub device: OwnedFd,
    /// Its MTU.
    pub mtu: u16,
    /// The UDP port to listen on; 0 for any.
    pub port: u16,
}

impl Owner {
    /// Takes the standard input, if it is a socket that keeps messages apart.
    pub fn on_stdin() -> Option<Self> {
        let socket = io::stdin().as_fd().try_clone_to_owned().ok()?;
        let kind = rustix::net::sockopt::socket_type(&socket).ok()?;
        (kind == SocketType::SEQPACKET).then_some(Self(socket))
    }

    /// Waits for [`Request::Start`] and the device beside it; `None` when anything else comes.
    pub fn start(self) -> io::Result<Option<(Start, Requests)>> {
        let mut bytes = Zeroizing::new(vec![0; REQUEST_LEN + 1]);
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut beside = RecvAncillaryBuffer::new(&mut space);
        let mut into = [IoSliceMut::new(&mut bytes)];
        let len =
            rustix::net::recvmsg(&self.0, &mut into, &mut beside, RecvFlags::CMSG_CLOEXEC)?.bytes;
        let device = beside.drain().find_map(|message| match message {
            RecvAncillaryMessage::ScmRights(mut fds) => fds.next(),
            _ => None,
        });
        let mut networks = Vec::new();
        let request = Request::decode(bytes.get(..len).unwrap_or_default(), &mut networks);
        let (Some(Request::Start { port, mtu }), Some(device)) = (request, device) else {
            return Ok(None);
        };
        rustix::io::ioctl_fionbio(&self.0, true)?;
        let socket = readiness::watch(self.0)?;
        Ok(Some((
            Start { device, mtu, port },
            Requests {
                socket,
                bytes,
                networks,
            },
        )))
    }
}

impl Requests {
    /// Waits for the next request. Nothing is lost when the future is dropped before it is ready.
    pub async fn next(&mut self) -> io::Result<Received<'_>> {
        let bytes = &mut self.bytes;
        let receive = |socket: &OwnedFd| {
            Ok(rustix::net::recv(socket, bytes.as_mut_slice(), RecvFlags::empty())?.0)
        };
        let len = match self.socket.async_io(Interest::READABLE, receive).await {
            Err(error) if error.kind() == io::ErrorKind::ConnectionReset => 0,
            other => other?,
        };
        if len == 0 {
            return Ok(Received::End);
        }
        let bytes = self.bytes.get(..len).unwrap_or_default();
        Ok(Request::decode(bytes, &mut self.networks)
            .map_or(Received::Malformed, Received::Request))
    }

    /// Sends an answer, waiting while the owner reads slowly.
    pub async fn answer(&self, answer: Answer) -> io::Result<()> {
        self.answer_all(&[answer]).await
    }

    /// Sends answers in as few messages as they fit in.
    pub async fn answer_all(&self, answers: &[Answer]) -> io::Result<()> {
        for some in answers.chunks(MOST_ANSWERS) {
            let bytes: Vec<u8> = some.iter().flat_map(Answer::encode).collect();
            let send =
                |socket: &OwnedFd| Ok(rustix::net::send(socket, &bytes, SendFlags::NOSIGNAL)?);
            self.socket.async_io(Interest::WRITABLE, send).await?;
        }
        Ok(())
    }
}
