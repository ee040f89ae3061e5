#![no_std]
#![forbid(unsafe_code)]
#![deny(missing_docs)]
//! All behaviour of the gateway: which knock is honoured, what that opens, and when it closes again.
//!
//! Sans-IO. The daemon tells a [`Gateway`] what happened by `handle_*`, performs what
//! [`Gateway::poll_effect`] gives, strictly in order, and comes back at [`Gateway::poll_timeout`].
//! Time comes in as [`Now`], randomness as [`Entropy`]; nothing here can name a socket, a file, a
//! thread or a clock.
//!
//! A knock is a chain of types, each made only by the check before it (SPEC §8):
//!
//! ```text
//! bytes ── SealedKnock ── VerifiedKnock ── OpenedKnock ── UnderstoodKnock ── FreshKnock ── ProvenKnock
//!          step 0         steps 1–3        step 6         step 7             step 8        steps 9, 10
//!          (spa-proto)    intake.rs        work.rs        guard.rs           guard.rs      factors.rs
//!
//! ── Allowance ── Session ── Effects
//!    step 11      step 12    plan.rs, closing.rs
//!    allowance.rs grant.rs
//! ```
//!
//! # The loop of the daemon
//! After every event: [`Gateway::handle_work`] until it gives `None`, then perform effects. Only
//! what may be done now comes out: an effect that depends on a record or an order appears after that
//! was reported by [`Gateway::handle_performed`]. So all records that are out may share one commit.
//!
//! # Features
//! * `vectors`: puts a gateway into the middle of a story, for the vector checker only.

extern crate alloc;
#[cfg(test)]
extern crate std;

mod access;
mod addition;
mod admin;
mod agenda;
mod allowance;
mod answer;
mod apply;
mod audit;
mod bucket;
mod change;
mod channel;
mod circumstances;
mod clock;
mod closing;
mod count;
mod credential;
mod doors;
mod effect;
mod enrol;
mod entropy;
mod exception;
mod factors;
mod facts;
mod few;
mod follow;
mod gateway;
mod grant;
mod guard;
mod habit;
mod intake;
mod knock_keys;
mod learning;
mod lock;
mod marks;
mod name;
mod outbox;
mod peer;
mod perform;
mod person;
mod plan;
pub mod policy;
mod pool;
mod queue;
mod reduce;
mod refusal;
mod session;
mod settings;
mod snapshot;
mod spent;
mod start;
mod step;
mod tags;
mod time;
mod upkeep;
mod usual;
#[cfg(any(test, feature = "vectors"))]
mod vectors;
mod work;

#[cfg(test)]
mod tests;

pub use access::{
    AccessKind, AccessRecord, Bytes, Connection, MAX_WAITING as MAX_CONNECTIONS_WAITING, Traffic,
};
pub use admin::{
    Accepted, AdminRefusal, Confirm, Cut, DeviceRef, DeviceView, InviteOffer, InviteTerms,
    InviteView, PersonView, Selector, SessionState, SessionView,
};
pub use audit::{AuditKind, AuditRecord};
pub use change::{Change, Record};
pub use channel::{Call, CallAnswer, CallId, CallRefusal, Caller, MISSED_REPORTS};
pub use clock::FLOOR_EVERY;
pub use closing::{EndReason, LAST_ANSWER, LAST_WORD, RETRY};
pub use count::{COUNT_EVERY, Passed};
pub use credential::{ENROL_WITHIN, MAX_CANDIDATES, MAX_FAILURES, MAX_REPEATS, REPEAT_WITHIN};
pub use effect::{Effect, EffectFailure, EffectId, EffectKind, Reply};
pub use entropy::{Entropy, Purpose};
pub use exception::{ApprovalRow, GrantRow, MAX_EXCEPTIONS, MAX_WAITING, WAITS, Waiting};
pub use gateway::{
    ClockTrust, FAILURE_TOKENS_AFTER_RESTART, Gateway, MAX_CREDENTIALS, MAX_PERSONS, NoIdentity,
};
pub use grant::MAX_FLOWS_OF_SESSION;
pub use intake::Datagram;
pub use knock_keys::{ACCEPTED, HANDED_OUT, MAX_ROTATING};
pub use learning::{LEARNED_FOR, LearnedRow, MAX_LEARNED};
pub use lock::{LockRow, LockTarget, MAX_LOCKS};
pub use name::{MAX_NAME, Name, NotAName};
pub use peer::{
    LAST_LOOK, LATE, LOOK_AT_LATE, LOOK_WHILE_LIVE, LOOK_WHILE_WAITING, PeerState, SESSIONS_A_LOOK,
};
pub use policy::{Policy, PolicyError};
pub use pool::{MAX_POOL, REST};
pub use refusal::{Counters, Refusal};
pub use settings::{
    LONGEST_DOOR, LONGEST_SESSION, OFTENEST_REPORT, RAREST_REPORT, SHORTEST_DOOR, Settings,
};
pub use snapshot::{
    CredentialRow, FactsRow, HabitRow, KeyKind, KeyRow, KnockKeyRow, PersonKind, PersonRow,
    RestingRow, SessionRow, Snapshot, Standing, TotpRow,
};
pub use start::PresentPeer;
pub use step::{ClockStep, STEP_BELIEVED};
pub use time::{Moment, Now};
pub use usual::{Amount, ENOUGH_DAYS, UsualRow};
#[cfg(any(test, feature = "vectors"))]
pub use vectors::Recollection;
