//! Which call a request is, and its answer in JSON: the tables of SPEC §12.

use std::time::Duration;

use serde::de::DeserializeOwned;
use spa_gateway_core::{Call, CallAnswer, CallRefusal};
use spa_proto::SessionId;
use spa_proto::channel::{self, MAX_BODY, MAX_POSTURE, Nothing, Rekey, Rekeying};

use super::http::{Head, Method};

/// A call, before its body is read.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Route {
    /// It has no body.
    Get(Get),
    /// It has one.
    Post(Post),
}

/// A call that changes nothing.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Get {
    /// `/v1/grants`
    Grants,
    /// `/v1/events`
    Events,
    /// `/v1/waiting`
    Waiting,
    /// `/v1/why/NAME`
    Why(String),
}

/// A call with a body.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Post {
    /// `/v1/posture`
    Posture,
    /// `/v1/rekey`
    Rekey,
    /// `/v1/renew`
    Renew,
    /// `/v1/close`
    Close,
    /// `/v1/password`
    Password,
    /// `/v1/approve`
    Approve,
}

/// An answer that is none of the table's: a status, a word, a line.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Problem {
    /// The HTTP status.
    pub status: u16,
    /// The word for it.
    pub error: &'static str,
    /// What, why, what to do.
    pub reason: &'static str,
    /// When to come again.
    pub retry_after: Option<Duration>,
    /// Nothing more is read from this connection.
    pub close: bool,
}

/// An answer, ready to be written, or a stream to begin.
#[derive(Debug)]
pub enum Outcome {
    /// JSON.
    Json(String),
    /// The events of this session.
    Events(SessionId),
}

impl Problem {
    pub const NO_REQUEST: Self = Self::closing(400, "malformed", "this is no request of HTTP/1.1");
    pub const LENGTH_MISSING: Self = Self::closing(
        411,
        "length-missing",
        "a body comes with its Content-Length",
    );
    pub const BODY_TOO_LARGE: Self = Self::closing(413, "too-large", "the body is too long");
    pub const HEAD_TOO_LARGE: Self = Self::closing(431, "too-large", "the head is too long");
    pub const TOO_SLOW: Self = Self::closing(408, "too-slow", "the request took more than 10 s");
    pub const NO_CALL: Self = Self::open(404, "not-found", "there is no such call");
    pub const OTHER_METHOD: Self = Self::open(405, "method", "this call takes another method");
    pub const BUSY: Self = Self {
        retry_after: Some(Duration::from_secs(1)),
        ..Self::open(503, "busy", "the gateway is busy; try again")
    };

    const fn open(status: u16, error: &'static str, reason: &'static str) -> Self {
        Self {
            status,
            error,
            reason,
            retry_after: None,
            close: false,
        }
    }

    const fn closing(status: u16, error: &'static str, reason: &'static str) -> Self {
        Self {
            close: true,
            ..Self::open(status, error, reason)
        }
    }

    /// Not so often.
    pub const fn too_many(wait: Duration) -> Self {
        Self {
            retry_after: Some(wait),
            ..Self::open(429, "too-many", "too many requests; wait a moment")
        }
    }

    /// Gives it as JSON.
    pub fn to_json(&self) -> String {
        json(&channel::Problem {
            error: self.error.to_owned(),
            reason: self.reason.to_owned(),
        })
    }

    /// Gives the words of its status line.
    pub const fn phrase(&self) -> &'static str {
        match self.status {
            400 => "Bad Request",
            401 => "Unauthorized",
            403 => "Forbidden",
            404 => "Not Found",
            405 => "Method Not Allowed",
            408 => "Request Timeout",
            409 => "Conflict",
            411 => "Length Required",
            413 => "Content Too Large",
            429 => "Too Many Requests",
            431 => "Request Header Fields Too Large",
            _ => "Service Unavailable",
        }
    }
}

impl From<CallRefusal> for Problem {
    fn from(refusal: CallRefusal) -> Self {
        match refusal {
            CallRefusal::Unauthorized => Self::closing(
                401,
                "unauthorized",
                "no live session has this address and this bearer; knock again",
            ),
            CallRefusal::Malformed(reason) => Self::closing(400, "malformed", reason),
            CallRefusal::Refused(reason) => Self::open(403, "refused", reason),
            CallRefusal::NotFound => Self::open(
                404,
                "not-found",
                "no such request waits for your approval; see the list",
            ),
            CallRefusal::RekeyLost => Self::open(
                409,
                "rekey-lost",
                "the gateway restarted since the knock; knock again to rekey",
            ),
            CallRefusal::TooMany(wait) => Self::too_many(wait),
            CallRefusal::Failed => Self::BUSY,
        }
    }
}

impl Route {
    /// Finds the call.
    ///
    /// # Errors
    /// No such call, or not by this method.
    pub fn of(method: Method, path: &str) -> Result<Self, Problem> {
        let get = match path {
            channel::GRANTS => Some(Get::Grants),
            channel::EVENTS => Some(Get::Events),
            channel::WAITING => Some(Get::Waiting),
            _ => path
                .strip_prefix(channel::WHY)
                .map(|name| Get::Why(name.to_owned())),
        };
        let post = match path {
            channel::POSTURE => Some(Post::Posture),
            channel::REKEY => Some(Post::Rekey),
            channel::RENEW => Some(Post::Renew),
            channel::CLOSE => Some(Post::Close),
            channel::PASSWORD => Some(Post::Password),
            channel::APPROVE => Some(Post::Approve),
            _ => None,
        };
        match (get, post, method) {
            (Some(get), _, Method::Get) => Ok(Self::Get(get)),
            (_, Some(post), Method::Post) => Ok(Self::Post(post)),
            (None, None, _) => Err(Problem::NO_CALL),
            _ => Err(Problem {
                // A body may follow, and nobody reads it.
                close: true,
                ..Problem::OTHER_METHOD
            }),
        }
    }

    /// The longest body it may have, bytes.
    const fn max_body(&self) -> usize {
        match self {
            Self::Get(_) => 0,
            Self::Post(Post::Posture) => MAX_POSTURE,
            Self::Post(_) => MAX_BODY,
        }
    }

    /// Gives how long the body is, if it may be that long.
    ///
    /// # Errors
    /// It does not say, or is too long.
    pub fn body_length(&self, head: &Head) -> Result<usize, Problem> {
        match (self, head.length) {
            (Self::Post(_), None) => Err(Problem::LENGTH_MISSING),
            (_, Some(length)) if length > self.max_body() => Err(Problem::BODY_TOO_LARGE),
            (_, length) => Ok(length.unwrap_or(0)),
        }
    }

    /// Reads the body; gives the call.
    ///
    /// # Errors
    /// The body is not this call's.
    pub fn call(self, body: &[u8]) -> Result<Call, Problem> {
        Ok(match self {
            Self::Get(Get::Grants) => Call::Grants,
            Self::Get(Get::Events) => Call::Events,
            Self::Get(Get::Waiting) => Call::Waiting,
            Self::Get(Get::Why(name)) => Call::Why(name),
            Self::Post(Post::Posture) => Call::Posture(parse(body)?),
            Self::Post(Post::Rekey) => Call::Rekey(parse::<Rekey>(body)?.into()),
            Self::Post(Post::Renew) => Call::Renew(parse(body)?),
            Self::Post(Post::Close) => {
                let Nothing {} = parse(body)?;
                Call::Close
            }
            Self::Post(Post::Password) => Call::Password(parse(body)?),
            Self::Post(Post::Approve) => Call::Approve(parse(body)?),
        })
    }
}

impl From<CallAnswer> for Outcome {
    fn from(answer: CallAnswer) -> Self {
        Self::Json(match answer {
            CallAnswer::Events(session) => return Self::Events(session),
            CallAnswer::Grants(grants) => json(&grants),
            CallAnswer::Why(why) => json(&why),
            CallAnswer::Waiting(requests) => json(&requests),
            CallAnswer::Posture(taken) => json(&taken),
            CallAnswer::Rekey(answer) => json(&Rekeying::from(&answer)),
            CallAnswer::Renewed(renewed) => json(&renewed),
            CallAnswer::Approved(approved) => json(&approved),
            CallAnswer::Done => json(&Nothing {}),
        })
    }
}

/// Reads JSON. The message of the parser is not told: it would repeat what the client sent.
fn parse<T: DeserializeOwned>(body: &[u8]) -> Result<T, Problem> {
    // serde would take a list of values for an object, too.
    let is_object = body.trim_ascii_start().starts_with(b"{");
    let body = if is_object { body } else { b"" };
    serde_json::from_slice(body)
        .map_err(|_| Problem::closing(400, "malformed", "the body is not this call's, see SPEC 12"))
}

pub fn json(value: &impl serde::Serialize) -> String {
    serde_json::to_string(value).expect("texts, numbers and lists are JSON")
}
