//! Reads knocks from the capture sockets, one thread for each knock interface.
//!
//! The sockets are the enforcer's: filtered, locked, bound to one interface, and of the
//! kind whose frames begin with the IP header. pnet reads them; it owns them from here.
//! Invariant: where the intake is full, capture waits, and knocks wait in the kernel's queue; what that loses it counts.

mod frame;
mod known_tags;
mod queue;

use std::io;
use std::net::SocketAddr;
use std::os::fd::{IntoRawFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use pnet::datalink::{self, Channel, Config, DataLinkReceiver, NetworkInterface};
use tracing::{debug, warn};

pub use frame::{Frame, Unfit};
pub use known_tags::KnownTags;
pub use queue::KernelQueue;

/// Bytes of every knock (SPEC §4).
pub const KNOCK_LEN: usize = 512;
/// How long to wait after an error of the socket, such as an interface that is down.
const PAUSE: Duration = Duration::from_secs(1);

/// One knock-sized datagram, copied out of the socket's buffer.
#[derive(Debug)]
pub struct Captured {
    /// The payload.
    pub payload: [u8; KNOCK_LEN],
    /// Who sent it, or says so.
    pub source: SocketAddr,
    /// Which of our addresses and ports it is for.
    pub destination: SocketAddr,
    /// It came on the loopback interface.
    pub on_loopback: bool,
}

/// What capture dropped by itself since the start.
#[derive(Debug, Default)]
pub struct Dropped {
    /// Frames that are no datagram, see [`Unfit`].
    pub unfit: AtomicU32,
    /// Datagrams of another length than a knock's.
    pub length: AtomicU32,
}

/// A knock interface and its socket.
#[derive(Debug)]
pub struct Source {
    /// The name, for the log.
    pub name: String,
    /// The index the socket is bound to.
    pub index: u32,
    /// It is the loopback interface.
    pub loopback: bool,
    /// The capture socket.
    pub socket: OwnedFd,
}

/// What became of a knock that was handed on.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Handed {
    /// It is in the intake.
    Taken,
    /// Nobody listens any more.
    Closed,
}

/// Starts the thread of one interface. `hand_on` waits where there is no room.
///
/// # Errors
/// What the kernel refuses while the socket is bound or the thread is made.
pub fn start(
    source: Source,
    dropped: Arc<Dropped>,
    hand_on: impl Fn(Captured) -> Handed + Send + 'static,
) -> io::Result<JoinHandle<()>> {
    let errors = source.socket.try_clone()?;
    let receiver = receiver(&source.name, source.index, source.socket)?;
    let capture = Capture {
        name: source.name,
        index: source.index,
        loopback: source.loopback,
        errors,
        dropped,
        hand_on,
    };
    thread::Builder::new()
        .name(format!("capture-{}", capture.index))
        // The loop below needs a frame's buffer at most, and that is on the heap.
        .stack_size(64 * 1024)
        .spawn(move || capture.run(receiver))
}

/// Hands the socket to pnet. Binding it again to its own interface changes nothing.
fn receiver(name: &str, index: u32, socket: OwnedFd) -> io::Result<Box<dyn DataLinkReceiver>> {
    let interface = NetworkInterface {
        name: name.to_owned(),
        description: String::new(),
        index,
        mac: None,
        ips: Vec::new(),
        flags: 0,
    };
    let config = Config {
        // A knock with its headers is 560 bytes; the filter lets nothing longer through.
        read_buffer_size: 2_048,
        write_buffer_size: 0,
        // Frames for other machines are none of our business.
        promiscuous: false,
        socket_fd: Some(socket.into_raw_fd()),
        ..Config::default()
    };
    match datalink::channel(&interface, config)? {
        Channel::Ethernet(_, receiver) => Ok(receiver),
        _ => Err(io::Error::other("pnet opened a channel of an unknown kind")),
    }
}

struct Capture<F> {
    name: String,
    index: u32,
    loopback: bool,
    /// The same socket, to ask what went wrong with it.
    errors: OwnedFd,
    dropped: Arc<Dropped>,
    hand_on: F,
}

impl<F: Fn(Captured) -> Handed> Capture<F> {
    fn run(self, mut receiver: Box<dyn DataLinkReceiver>) {
        let mut down = false;
        loop {
            match receiver.next() {
                Ok(frame) => {
                    down = false;
                    if self.take(frame) == Handed::Closed {
                        return;
                    }
                }
                Err(error) if is_passing(&error) => {}
                Err(error) => {
                    // Reading the pending error clears it; poll would report it for ever.
                    let pending = rustix::net::sockopt::socket_error(&self.errors);
                    let error = match pending {
                        Ok(Err(pending)) => pending.into(),
                        Ok(Ok(())) | Err(_) => error,
                    };
                    if !down {
                        warn!(interface = %self.name, %error, "no knocks from this interface until it is back");
                    }
                    down = true;
                    thread::sleep(PAUSE);
                }
            }
        }
    }

    fn take(&self, frame: &[u8]) -> Handed {
        let frame = match Frame::parse(frame) {
            Ok(frame) => frame,
            Err(unfit) => {
                debug!(interface = %self.name, ?unfit, "frame dropped");
                self.dropped.unfit.fetch_add(1, Ordering::Relaxed);
                return Handed::Taken;
            }
        };
        let Ok(payload) = frame.payload.try_into() else {
            self.dropped.length.fetch_add(1, Ordering::Relaxed);
            return Handed::Taken;
        };
        (self.hand_on)(Captured {
            payload,
            source: self.scoped(frame.source),
            destination: frame.destination,
            on_loopback: self.loopback,
        })
    }

    /// A link-local address means something on its interface only.
    fn scoped(&self, mut source: SocketAddr) -> SocketAddr {
        if let SocketAddr::V6(v6) = &mut source
            && v6.ip().is_unicast_link_local()
        {
            v6.set_scope_id(self.index);
        }
        source
    }
}

fn is_passing(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::Interrupted | io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut
    )
}
