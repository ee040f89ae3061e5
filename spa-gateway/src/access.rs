//! The access log's ears: two netlink sockets the enforcer opened, read in a thread of their own.
//!
//! nfnetlink_log tells of the first packet of a connection inside a tunnel, or of one that was refused; connection
//! tracking tells of its end. Nothing here can be sent: the daemon has no capability. Invariant: whatever is in a
//! packet, the worst that comes of it is that there is no line.

mod line;
mod packet;

use std::io;
use std::os::fd::OwnedFd;
use std::thread;

use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::Errno;
use rustix::net::RecvFlags;
use spa_gateway_core::Traffic;
use tracing::warn;

pub use line::AccessLine;

/// The largest message of either: nfnetlink_log gathers some kilobytes.
const RECEIVE_LEN: usize = 1 << 16;
/// How many messages are handed on at once.
const AT_ONCE: usize = 256;

/// The sockets, as the enforcer handed them over.
#[derive(Debug)]
pub struct AccessSockets {
    /// Connections that begin.
    pub begun: OwnedFd,
    /// Connections that end; `None` where the kernel does not tell.
    pub ended: Option<OwnedFd>,
}

/// Whether anybody still listens.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Handed {
    /// It is in the intake.
    Taken,
    /// Nobody does.
    Closed,
}

/// Starts the thread. `hand_on` waits where there is no room: then the kernel loses messages, and says so.
///
/// # Errors
/// What the kernel refuses while the thread is made.
pub fn start(
    sockets: AccessSockets,
    hand_on: impl Fn(Vec<Traffic>) -> Handed + Send + 'static,
) -> io::Result<()> {
    thread::Builder::new()
        .name("access".to_owned())
        .stack_size(64 * 1024)
        .spawn(move || {
            if let Err(error) = read(&sockets, hand_on) {
                warn!(%error, "no access log from here on; restart the gateway");
            }
        })
        .map(|_| ())
}

fn read(sockets: &AccessSockets, hand_on: impl Fn(Vec<Traffic>) -> Handed) -> io::Result<()> {
    let mut bytes = vec![0; RECEIVE_LEN];
    let all: Vec<&OwnedFd> = [Some(&sockets.begun), sockets.ended.as_ref()]
        .into_iter()
        .flatten()
        .collect();
    loop {
        let mut wanted: Vec<_> = all
            .iter()
            .map(|socket| PollFd::new(socket, PollFlags::IN))
            .collect();
        rustix::io::retry_on_intr(|| poll(&mut wanted, None))?;
        let mut seen = Vec::new();
        // Beginnings first: an end without one is nothing.
        for socket in &all {
            for _ in 0..AT_ONCE {
                match rustix::net::recv(socket, &mut bytes[..], RecvFlags::DONTWAIT) {
                    Ok((received, _)) => {
                        packet::read(bytes.get(..received).unwrap_or_default(), &mut seen);
                    }
                    Err(Errno::INTR) => {}
                    Err(Errno::AGAIN) => break,
                    Err(Errno::NOBUFS) => seen.push(Traffic::Lost),
                    Err(error) => return Err(error.into()),
                }
            }
        }
        if !seen.is_empty() && hand_on(seen) == Handed::Closed {
            return Ok(());
        }
    }
}
