//! An administrator spoke. Each call either does what it says or gives one line that says why not.
//!
//! The listings are in `listing.rs`; what is done to people in `people.rs`, to devices in
//! `devices.rs`, to sessions in `cut.rs`; what goes beyond policy, or above it, in `exceptions.rs` and
//! `locks.rs`.

mod cut;
mod devices;
mod exceptions;
mod explain;
mod listing;
mod locks;
mod people;
mod refusal;

pub use cut::Selector;
pub use devices::{Confirm, DeviceRef, InviteOffer, InviteTerms};
pub use explain::Cut;
pub use listing::{DeviceView, InviteView, PersonView, SessionState, SessionView};
pub use refusal::AdminRefusal;

use crate::effect::EffectId;

/// What was accepted, and the record that must be on disk before it is reported as done.
#[derive(Debug)]
pub struct Accepted<T> {
    /// What came of it.
    pub value: T,
    /// The record; tell the administrator once it was performed.
    pub record: EffectId,
}
