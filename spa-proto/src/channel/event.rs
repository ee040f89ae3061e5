//! What a gateway tells of a session while it lives: server-sent events (SPEC §12).
//!
//! One event is `id: N` and `data: JSON`, each on a line, and an empty line. The ids of a session count
//! from 1; a client that comes back says by `Last-Event-ID` what it has seen.

use alloc::string::String;
use alloc::vec::Vec;

use serde::{Deserialize, Serialize};

use super::text;
use crate::time::WallTime;

/// One event: an object whose `event` names it. A client passes over one it does not know.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "event")]
pub enum Event {
    /// The session lost something.
    Reduced(Reduced),
    /// The session ends soon: ten minutes before, and two.
    Ending(Ending),
    /// The session was renewed.
    Extended(Extended),
    /// A report is missing, or a fact has grown too old.
    PostureRequired(PostureRequired),
    /// The handshake after a rekey was seen.
    Rekeyed(Rekeyed),
    /// The session is over. The last event, best effort: the tunnel closes behind it.
    Ended(Ended),
    /// Somebody waits for an approval this person may give.
    Waiting(Waiting),
    /// Somebody agreed to what this person asked for: knock again to have it.
    Approved(Waiting),
}

/// What was lost, and why.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reduced {
    /// The resources that are gone.
    pub lost: Vec<String>,
    /// The word for it: `posture`, `posture-missing`, `time-window`, `risk`, `locked`, `policy`, `approval`.
    pub reason: String,
    /// The same for the person, one line.
    pub text: String,
    /// When the session ends.
    #[serde(with = "text::millis")]
    pub not_after: WallTime,
}

/// When it ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ending {
    /// When.
    #[serde(with = "text::millis")]
    pub not_after: WallTime,
    /// How far it can be renewed; no later than `not_after` if it cannot.
    #[serde(with = "text::millis")]
    pub renewable_until: WallTime,
}

/// Its new end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Extended {
    /// When it ends now.
    #[serde(with = "text::millis")]
    pub not_after: WallTime,
}

/// A report is wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PostureRequired {
    /// How many reports in a row did not come.
    pub missed: u32,
    /// After how many the session loses what asks for posture.
    pub of: u32,
}

/// The rekey is done.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rekeyed {
    /// What the gateway's clock showed.
    #[serde(with = "text::millis")]
    pub at: WallTime,
}

/// Why it is over.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ended {
    /// The word for it: `expired`, `closed`, `replaced`, `revoked`, `cut`, `locked`, `policy`, `posture`,
    /// `posture-missing`, `idle`, `failed`.
    pub reason: String,
    /// The same for the person, one line.
    pub text: String,
}

/// A request for an approval.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Waiting {
    /// Its number.
    pub id: u32,
    /// Who asks.
    pub person: String,
    /// For what.
    pub resource: String,
    /// Which rule asks for an approval.
    pub rule: String,
    /// Since when; of one that was approved: until when.
    #[serde(with = "text::millis")]
    pub at: WallTime,
}
