//! The small process that holds one session: started by `knock`, spoken to through a socket, gone with the session.
//!
//! Invariant: whoever ends it, interface, routes and keys go with it; what it cannot take along (it was killed) the next
//! command removes.

mod child;
mod hold;
mod link;
mod news;
mod note;
mod outside;
mod scope;
mod start;
mod talk;
mod terms;

use std::io;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;

use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use spa_wireguard::WireguardError;

use crate::places::{PlaceError, Places};
use crate::private_file::{self, FileError};
use crate::tunnel;

pub use child::{Child, Rekeyed};
pub use link::{CloseEnd, Link, Live, Method};
pub use note::{Ended, Note};
pub use start::hold;

/// Why an agent does not do its work.
#[derive(Debug, thiserror::Error)]
pub enum AgentError {
    /// It cannot be started.
    #[error("cannot start the agent that holds the session: {0}")]
    Start(io::Error),
    /// It is gone, or does not speak.
    #[error("the agent that holds the session does not answer: {0}")]
    Talk(io::Error),
    /// It said something that is not of this version.
    #[error(
        "the agent that holds the session said {0:?}, which this version of spa does not understand: close it with the spa that started it"
    )]
    Version(String),
    /// What it was handed is damaged.
    #[error("the session was handed over damaged: {0}")]
    Handover(String),
    /// What it asked the gateway for came to nothing.
    #[error("{0}")]
    Gateway(String),
    /// It could not raise the tunnel.
    #[error("{0}")]
    Tunnel(String),
    /// It cannot listen.
    #[error("cannot listen on {}: {source}", path.display())]
    Listen {
        /// The socket.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A leftover interface stays.
    #[error("an interface that an earlier session left behind cannot be removed: {0}")]
    Leftover(WireguardError),
    /// A file.
    #[error(transparent)]
    File(#[from] FileError),
    /// A directory.
    #[error(transparent)]
    Place(#[from] PlaceError),
}

/// A stream that becomes readable when this process is told to end.
///
/// # Errors
/// When the system gives no pipe.
pub fn ending_signals() -> io::Result<UnixStream> {
    let (reader, writer) = UnixStream::pair()?;
    for signal in [SIGINT, SIGTERM, SIGHUP] {
        signal_hook::low_level::pipe::register(signal, writer.try_clone()?)?;
    }
    Ok(reader)
}

/// Where the agent of a profile listens.
fn socket_path(places: &Places, profile: &str) -> PathBuf {
    places.runtime().join(format!("{profile}.sock"))
}

/// Where its note is.
fn note_path(places: &Places, profile: &str) -> PathBuf {
    places.runtime().join(format!("{profile}.session"))
}

/// What was found of a dead agent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Leftover {
    /// Nothing.
    None,
    /// Its interface, which is removed now.
    Interface,
}

/// Removes what a dead agent left: its socket, its interface. To be called only when none answers.
///
/// # Errors
/// When the interface stays.
pub fn clean(places: &Places, profile: &str, interface: &str) -> Result<Leftover, AgentError> {
    private_file::remove(&socket_path(places, profile))?;
    let found = if tunnel::exists(interface) {
        tunnel::remove_leftover(interface).map_err(AgentError::Leftover)?;
        Leftover::Interface
    } else {
        Leftover::None
    };
    if let Some(mut note) = Note::read(places, profile)?
        && note.ended.is_none()
    {
        note.ended = Some((crate::clock::wall(), Ended::Died));
        note.write(places)?;
    }
    Ok(found)
}
