//! Reads knocks from the capture sockets, one thread for each knock interface.
//!
//! The sockets are the enforcer's: filtered, locked, bound to one interface, and of the
//! kind whose frames begin with the IP header. They do nothing but read and look: no key is used here.
//! Invariant: where the intake is full, capture waits, and knocks wait in the kernel's queue; what that loses it counts.

mod frame;
mod known_tags;
mod queue;
mod receiver;

use std::io;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use tracing::{debug, warn};

pub use frame::{Frame, Shaped, Unfit};
pub use known_tags::{KnownTags, TagLook};
pub use queue::KernelQueue;
use receiver::{AT_ONCE, Receiver};

/// Bytes of every knock (SPEC §4).
pub const KNOCK_LEN: usize = 512;
/// How long to wait after an error of the socket, such as an interface that is down.
const PAUSE: Duration = Duration::from_secs(1);
/// How long to let frames gather once all that came were strangers': to be woken for each is most of what they cost. A knock
/// that comes meanwhile waits a fifth of its budget (DESIGN §9), and only while strangers send.
const GATHER: Duration = Duration::from_micros(200);

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

/// What became of a frame.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Fate {
    /// It is a stranger's, or no knock at all.
    Dropped,
    /// It was handed on.
    Handed(Handed),
}

/// Starts the thread of one interface. `look` is asked for each tag, where the kernel was not; `hand_on` waits where
/// there is no room.
///
/// # Errors
/// No thread can be made.
pub fn start(
    source: Source,
    dropped: Arc<Dropped>,
    look: Option<TagLook>,
    hand_on: impl Fn(Captured) -> Handed + Send + 'static,
) -> io::Result<JoinHandle<()>> {
    let receiver = Receiver::new(source.socket);
    let capture = Capture {
        name: source.name,
        index: source.index,
        loopback: source.loopback,
        dropped,
        look,
        hand_on,
    };
    thread::Builder::new()
        .name(format!("capture-{}", capture.index))
        // The loop below needs some kilobytes at most, and the frames are on the heap.
        .stack_size(64 * 1024)
        .spawn(move || capture.run(receiver))
}

struct Capture<F> {
    name: String,
    index: u32,
    loopback: bool,
    dropped: Arc<Dropped>,
    look: Option<TagLook>,
    hand_on: F,
}

impl<F: Fn(Captured) -> Handed> Capture<F> {
    fn run(self, mut receiver: Receiver) {
        let mut down = false;
        loop {
            match receiver.receive() {
                Ok(frames) => {
                    down = false;
                    let more_wait = frames.len() == AT_ONCE;
                    let mut strangers = true;
                    for frame in frames {
                        match self.take(frame) {
                            Fate::Dropped => {}
                            Fate::Handed(Handed::Taken) => strangers = false,
                            Fate::Handed(Handed::Closed) => return,
                        }
                    }
                    if strangers && !more_wait {
                        thread::sleep(GATHER);
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => {
                    if !down {
                        warn!(interface = %self.name, %error, "no knocks from this interface until it is back");
                    }
                    down = true;
                    thread::sleep(PAUSE);
                }
            }
        }
    }

    fn take(&self, frame: &[u8]) -> Fate {
        match self.read(frame) {
            Ok(Some(captured)) => Fate::Handed((self.hand_on)(captured)),
            Ok(None) => Fate::Dropped,
            Err(unfit) => {
                debug!(interface = %self.name, ?unfit, "frame dropped");
                self.dropped.unfit.fetch_add(1, Ordering::Relaxed);
                Fate::Dropped
            }
        }
    }

    /// What costs least comes first: the length, the tag, the checksum; then 512 bytes are copied, once.
    fn read(&self, frame: &[u8]) -> Result<Option<Captured>, Unfit> {
        let shaped = Frame::shape(frame)?;
        let Ok(payload) = <&[u8; KNOCK_LEN]>::try_from(shaped.payload()) else {
            self.dropped.length.fetch_add(1, Ordering::Relaxed);
            return Ok(None);
        };
        let [a, b, c, d, e, f, g, h, ..] = *payload;
        let tag = [a, b, c, d, e, f, g, h];
        if self.look.as_ref().is_some_and(|look| !look.knows(tag)) {
            return Ok(None);
        }
        let frame = shaped.check()?;
        Ok(Some(Captured {
            payload: *payload,
            source: self.scoped(frame.source),
            destination: frame.destination,
            on_loopback: self.loopback,
        }))
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
