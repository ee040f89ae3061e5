#![no_std]
#![forbid(unsafe_code)]
//! KNOCK/1: the wire of single-packet authorization (`SPEC.md` beside this crate).
//!
//! Everything two machines must agree on, and nothing else: no socket, file, thread, clock or
//! random source can be named here. Time is a [`WallTime`] argument, randomness is bytes.
//!
//! A knock at the gateway is a chain of types, each made only by the one before:
//!
//! ```text
//! bytes → SealedKnock → VerifiedKnock → OpenedKnock → Request
//!         shape          V holds         AEAD opens    strict parse
//!         (§8 step 0)    (step 3)        (step 6)      (step 7)
//! ```
//!
//! At the client a [`Request`] becomes `(Info, Ext)` once per transaction, and
//! [`build_knock`] makes one packet of them for every sending.
//!
//! # Features
//! * `channel`: the module `channel`, the JSON of the control channel.
//! * `client`: [`ProofSecret::derive`] (Argon2id, NFKC). A gateway never computes it.
//! * `vectors`: the module `intermediates`, for the vector checker only.

extern crate alloc;
#[cfg(test)]
extern crate std;

mod build;
mod bytes;
mod fingerprint;
mod ids;
mod invite;
mod keys;
mod knock;
mod payload;
mod primitives;
mod proof;
mod rekey;
mod reply;
mod request;
mod secret;
mod time;
mod tlv;
mod transaction;

#[cfg(feature = "channel")]
pub mod channel;
#[cfg(feature = "vectors")]
pub mod intermediates;

pub use build::{BuildError, PendingKnock, Signer, build_knock};
pub use fingerprint::Fingerprint;
pub use ids::{CredentialId, GatewayId, ResourceId, SessionId, Tag};
pub use invite::{Host, Invite, InviteError};
pub use keys::{DerivedKeys, KnockPublic, KnockSecret, is_small_order};
pub use knock::{
    KNOCK_LEN, MacMismatch, OpenError, OpenedKnock, SealedKnock, ShapeError, VerifiedKnock,
    looks_like_wireguard,
};
pub use payload::{
    DefaultRoute, DoorKind, EncodePayloadError, LONGEST_PREKEY, Outcome, PAYLOAD_LEN, PayloadError,
    Prekey, RefusedFor, Repeat, ReplyPayload, Route, RouteError, SessionReply, TotpOffer, Verdict,
};
pub use primitives::NotContributory;
#[cfg(feature = "client")]
pub use proof::PasswordError;
pub use proof::{ProofPublic, ProofSecret};
pub use rekey::{RekeyAnswer, RekeyAsk, RekeyError, RekeyRequest, answer_rekey, control_bearer};
pub use reply::{ReplyError, ReplyKeys, ReplySecrets, SealedReply, seal_reply};
pub use request::{
    Ask, EncodeError, EnrolAsk, Ext, Info, Op, OpenAsk, ParseError, Request, SecondFactor, Wanted,
};
pub use secret::{CredentialKey, DeviceSecret, RecoveryCode, SessionKey, TotpSecret, WgPsk};
pub use time::{FRESHNESS, Slot, WallTime};
pub use tlv::TlvError;
pub use transaction::{
    SECRETS_KEPT, SEND_AT, Transaction, TransactionError, next_transaction_time,
};
