#![no_std]
#![forbid(unsafe_code)]
//! All behaviour of the gateway, without I/O or clock.
extern crate alloc;
#[cfg(test)]
extern crate std;

mod audit;
mod change;
mod effect;
mod entropy;
mod name;
pub mod policy;
mod refusal;
mod settings;
mod snapshot;
mod time;

pub use audit::{AuditKind, AuditRecord};
pub use change::{Change, Record};
pub use effect::{Effect, EffectFailure, EffectId, EffectKind, Reply};
pub use entropy::{Entropy, Purpose};
pub use name::{MAX_NAME, Name, NotAName};
pub use policy::{Policy, PolicyError};
pub use refusal::{Counters, Refusal};
pub use settings::{LONGEST_DOOR, LONGEST_SESSION, SHORTEST_DOOR, Settings};
pub use snapshot::{
    CredentialRow, KeyKind, KeyRow, KnockKeyRow, PersonKind, PersonRow, RestingRow, SessionRow,
    Snapshot, Standing, TotpRow,
};
pub use time::{Moment, Now};
