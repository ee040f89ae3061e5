//! How a command ends when it does not end well: one line, and an exit code.

use crate::agent::AgentError;
use crate::ask::AskError;
use crate::places::PlaceError;
use crate::private_file::FileError;
use crate::store::StoreError;
use crate::wire::WireError;

/// Why a command did not do what was asked. Each prints as one line: what, why, what to do.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    /// A directory.
    #[error(transparent)]
    Place(#[from] PlaceError),
    /// A private file.
    #[error(transparent)]
    File(#[from] FileError),
    /// A profile.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The network on this side.
    #[error(transparent)]
    Wire(#[from] WireError),
    /// The agent.
    #[error(transparent)]
    Agent(#[from] AgentError),
    /// Password or code could not be had.
    #[error(transparent)]
    Ask(#[from] AskError),
    /// Refused, here or by the gateway.
    #[error("{0}")]
    Refused(String),
    /// The command makes no sense as it was given.
    #[error("{0}")]
    Usage(String),
    /// Silence (SPEC §9).
    #[error("{0}")]
    NoAnswer(String),
}

impl Failure {
    /// The exit code of DESIGN §6: 1 refused or failed, 2 usage, 3 no answer.
    #[must_use]
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Place(_)
            | Self::File(_)
            | Self::Store(_)
            | Self::Wire(_)
            | Self::Agent(_)
            | Self::Ask(_)
            | Self::Refused(_) => 1,
            Self::Usage(_) => 2,
            Self::NoAnswer(_) => 3,
        }
    }
}
