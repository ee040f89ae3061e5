//! The control channel's calls, answers and events, as they are in JSON (SPEC §12).
//!
//! Invariant: a request with a field we do not know, or one of another shape, is no request; an
//! answer or an event with such a field is read all the same, since a later gateway may say more.

mod event;
mod text;

use alloc::boxed::Box;
use alloc::collections::BTreeMap;
use alloc::string::String;
use alloc::vec::Vec;

use serde::{Deserialize, Serialize};

pub use event::{Ended, Ending, Event, Extended, PostureRequired, Reduced, Rekeyed, Waiting};

use crate::ids::SessionId;
use crate::proof::ProofPublic;
use crate::rekey::{CT_LEN, EK_LEN, RekeyAnswer, RekeyRequest};
use crate::time::WallTime;

/// `GET`, answered with [`Grants`].
pub const GRANTS: &str = "/v1/grants";
/// `GET`, answered with a stream of [`Event`]s.
pub const EVENTS: &str = "/v1/events";
/// `GET` with the name of a resource behind it, answered with [`Why`].
pub const WHY: &str = "/v1/why/";
/// `GET`, answered with [`Requests`].
pub const WAITING: &str = "/v1/waiting";
/// `POST` of [`Posture`], answered with [`PostureTaken`].
pub const POSTURE: &str = "/v1/posture";
/// `POST` of [`Rekey`], answered with [`Rekeying`].
pub const REKEY: &str = "/v1/rekey";
/// `POST` of [`Renew`], answered with [`Renewed`].
pub const RENEW: &str = "/v1/renew";
/// `POST` of [`Nothing`], answered with [`Nothing`].
pub const CLOSE: &str = "/v1/close";
/// `POST` of [`Password`], answered with [`Nothing`].
pub const PASSWORD: &str = "/v1/password";
/// `POST` of [`Approve`], answered with [`Approved`].
pub const APPROVE: &str = "/v1/approve";

/// The longest body of a posture report, bytes.
pub const MAX_POSTURE: usize = 16 * 1024;
/// The longest body of any other call, bytes. A rekey takes some 1700.
pub const MAX_BODY: usize = 4 * 1024;
/// The longest head of a request, bytes.
pub const MAX_HEAD: usize = 4 * 1024;
/// The most facts of a report. More make it no report.
pub const MAX_FACTS: usize = 64;
/// How often a report is due at the least, seconds. The gateway may want it more often: `next_s`.
pub const REPORT_EVERY: u32 = 60;

/// An empty object: `{}`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Nothing {}

/// What a session has.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Grants {
    /// Its id, as hex.
    #[serde(with = "text::session")]
    pub session: SessionId,
    /// Whose it is.
    pub person: String,
    /// What the gateway's clock shows.
    #[serde(with = "text::millis")]
    pub now: WallTime,
    /// When it ends.
    #[serde(with = "text::millis")]
    pub not_after: WallTime,
    /// How far it can be renewed at most.
    #[serde(with = "text::millis")]
    pub renewable_until: WallTime,
    /// The number of the policy in force.
    pub serial: u64,
    /// How it stands with the rekey.
    pub rekey: RekeyState,
    /// What the client routes into the tunnel, `address/prefix`; all of it, also what did not fit into the reply.
    pub routes: Vec<String>,
    /// What it reaches, in the order of the names.
    pub resources: Vec<GrantedResource>,
}

/// A resource that a session reaches.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct GrantedResource {
    /// Its name in the policy.
    pub name: String,
    /// `address/prefix`, or `gateway`.
    pub to: String,
    /// `443/tcp`, `8000-8010/udp`.
    pub ports: Vec<String>,
    /// Its own end, the session's at the latest.
    #[serde(with = "text::millis")]
    pub not_after: WallTime,
}

/// How a session stands with the rekey.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum RekeyState {
    /// Not done yet; everything flows meanwhile.
    Wanted,
    /// Not done yet, and nothing flows before it is.
    Required,
    /// The new key is set; its first handshake was not seen yet.
    Set,
    /// Done.
    Done,
    /// The gateway restarted since the knock: only a new knock brings one.
    Lost,
}

/// What the device says of itself.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Posture {
    /// Each fact by its name in the policy (`disk_encryption`, `patch_age`, …). What is not known is left out.
    pub facts: BTreeMap<String, Fact>,
}

/// One fact.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Fact {
    /// What is so.
    pub value: FactValue,
    /// How long ago it was found to be so, seconds.
    #[serde(default)]
    pub age_s: u32,
}

/// The value of a fact. One of another shape than its name has makes this fact missing.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum FactValue {
    /// Yes or no.
    Bool(bool),
    /// A number: days.
    Number(u32),
    /// A word or a version.
    Text(String),
}

/// A report was taken in.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PostureTaken {
    /// When the next one is due, seconds from now.
    pub next_s: u32,
    /// What the session still reaches.
    pub resources: Vec<String>,
}

/// The client's half of the rekey.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Rekey {
    #[serde(with = "text::base64url")]
    x25519: Box<[u8; 32]>,
    #[serde(with = "text::base64url")]
    ml_kem_768_ek: Box<[u8; EK_LEN]>,
}

impl From<&RekeyRequest> for Rekey {
    fn from(request: &RekeyRequest) -> Self {
        Self {
            x25519: Box::new(request.x25519),
            ml_kem_768_ek: request.ml_kem_768_ek.clone(),
        }
    }
}

impl From<Rekey> for RekeyRequest {
    fn from(rekey: Rekey) -> Self {
        Self {
            x25519: *rekey.x25519,
            ml_kem_768_ek: rekey.ml_kem_768_ek,
        }
    }
}

/// The gateway's half of the rekey.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rekeying {
    #[serde(with = "text::base64url")]
    x25519: Box<[u8; 32]>,
    #[serde(with = "text::base64url")]
    ml_kem_768_ct: Box<[u8; CT_LEN]>,
}

impl From<&RekeyAnswer> for Rekeying {
    fn from(answer: &RekeyAnswer) -> Self {
        Self {
            x25519: Box::new(answer.x25519),
            ml_kem_768_ct: answer.ml_kem_768_ct.clone(),
        }
    }
}

impl From<Rekeying> for RekeyAnswer {
    fn from(rekeying: Rekeying) -> Self {
        Self {
            x25519: *rekeying.x25519,
            ml_kem_768_ct: rekeying.ml_kem_768_ct,
        }
    }
}

/// Asks for more time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Renew {
    /// How long from now, minutes; 0 is what policy gives.
    pub minutes: u16,
}

/// The session was renewed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Renewed {
    /// When it ends now.
    #[serde(with = "text::millis")]
    pub not_after: WallTime,
    /// How far it can be renewed at most.
    #[serde(with = "text::millis")]
    pub renewable_until: WallTime,
}

/// Replaces the password.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Password {
    /// The new `Q`.
    #[serde(with = "text::base64url")]
    q: Box<[u8; 32]>,
    /// An unused code of the phone, as a number (SPEC §4).
    pub code: u32,
    /// What [`ProofSecret::sign_password`](crate::ProofSecret::sign_password) gives for the old `q`.
    #[serde(with = "text::base64url")]
    pub signature: Box<[u8; 64]>,
}

impl Password {
    /// Puts a request together.
    #[must_use]
    pub fn new(q: ProofPublic, code: u32, signature: [u8; 64]) -> Self {
        Self {
            q: Box::new(*q.as_bytes()),
            code,
            signature: Box::new(signature),
        }
    }

    /// Gives the new `Q`.
    #[must_use]
    pub fn q(&self) -> ProofPublic {
        ProofPublic::from_bytes(*self.q)
    }
}

/// Requests that wait for an approval.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Requests {
    /// Those this person may approve.
    pub to_approve: Vec<Waiting>,
    /// This person's own.
    pub own: Vec<Waiting>,
}

/// Approves a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Approve {
    /// Its number.
    pub id: u32,
    /// For how long, minutes.
    pub minutes: u16,
}

/// A request was approved; whoever asked has to knock again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Approved {
    /// Until when.
    #[serde(with = "text::millis")]
    pub until: WallTime,
}

/// What policy says to this session about one resource.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Why {
    /// Its name, as asked.
    pub resource: String,
    /// `granted`, `not-allowed` (or no such resource), `posture`, `time-window`, `risk`, `locked` or `approval-needed`.
    pub verdict: String,
    /// What does not hold, in the words of the policy; empty where the verdict says it all.
    pub unmet: Vec<Unmet>,
}

/// One condition that does not hold.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Unmet {
    /// Of what it speaks: `disk_encryption`.
    pub about: String,
    /// What policy wants.
    pub wanted: String,
    /// What it saw.
    pub saw: String,
    /// What to do about it; may be empty.
    pub remedy: String,
}

/// Every answer whose status is not 200.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Problem {
    /// One of the words of SPEC §12.
    pub error: String,
    /// What, why, what to do: one line for the person.
    pub reason: String,
}

#[cfg(test)]
mod tests;
