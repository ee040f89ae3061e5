//! What must be on disk: fine-grained changes, bundled so that each bundle is atomic.

use alloc::string::String;
use alloc::vec::Vec;
use core::net::SocketAddr;

use spa_proto::{
    CredentialId, CredentialKey, ProofPublic, SessionId, SessionKey, TotpSecret, WallTime,
};

use crate::exception::{ApprovalRow, GrantRow, Waiting};
use crate::learning::LearnedRow;
use crate::lock::{LockRow, LockTarget};
use crate::name::Name;
use crate::policy::{Network, PortRange, Signals};
use crate::snapshot::{
    CredentialRow, FactsRow, KnockKeyRow, PersonRow, RestingRow, SessionRow, Standing,
};
use crate::usual::UsualRow;

/// Changes that are on disk together or not at all. Several records may share one commit, in their order.
#[derive(Debug)]
pub struct Record {
    /// What changes.
    pub changes: Vec<Change>,
}

/// One durable change. `Snapshot::apply` is the model a store is tested against.
#[derive(Debug)]
pub enum Change {
    /// A transaction was decided, so none with this `ts` or an older one is again (SPEC §7).
    Answered {
        /// Whose.
        credential: CredentialId,
        /// Its `ts`, the new `last_ts`.
        ts: WallTime,
    },
    /// A TOTP code was spent.
    CodeUsed {
        /// Whose.
        person: Name,
        /// Its step, the new `last_step`. The phone's secret is proven with it.
        step: u64,
    },
    /// A recovery code was spent and leaves the store.
    RecoveryUsed {
        /// Whose.
        person: Name,
        /// SHA-256 of it.
        hash: [u8; 32],
    },
    /// The number of failures in a row changed.
    FailuresCounted {
        /// Whose.
        credential: CredentialId,
        /// The number; 0 after an OPEN that passed.
        in_a_row: u32,
    },
    /// A credential was disabled or enabled. Enabling ends its row of failures.
    CredentialStanding {
        /// Which.
        credential: CredentialId,
        /// Its standing from now on.
        standing: Standing,
    },
    /// A session begins.
    SessionOpened(SessionRow),
    /// A repeat of its OPEN gave a session a new key.
    SessionRekeyed {
        /// Which.
        session: SessionId,
        /// Its key from now on.
        key: SessionKey,
    },
    /// Policy took something from a session.
    SessionReduced {
        /// Which.
        session: SessionId,
        /// What it keeps.
        resources: Vec<Name>,
        /// When it ends, no later than before.
        not_after: WallTime,
    },
    /// A session was given more time.
    SessionRenewed {
        /// Which.
        session: SessionId,
        /// When it ends now.
        not_after: WallTime,
    },
    /// A session is over.
    SessionEnded {
        /// Which.
        session: SessionId,
        /// Its addresses, and until when they rest.
        resting: RestingRow,
    },
    /// An invite was made: a credential without a device yet.
    InviteMade(CredentialRow),
    /// A device enrolled, or enrolled again: one more candidate key.
    CandidateAdded {
        /// Under which invite.
        credential: CredentialId,
        /// The number of the key.
        number: u8,
        /// The key.
        key: CredentialKey,
        /// The proof key; the same each time.
        proof: ProofPublic,
        /// What its holder calls the device.
        label: String,
        /// When the first of them was added.
        enrolled: WallTime,
    },
    /// The first OPEN under this key passed: it is live, all other keys are erased, the invite is used up.
    CredentialActivated {
        /// Which.
        credential: CredentialId,
        /// The number of the key.
        number: u8,
    },
    /// A person has a new password on this device.
    ProofReplaced {
        /// Which credential.
        credential: CredentialId,
        /// Its proof key from now on.
        proof: ProofPublic,
    },
    /// An administrator compared the four words.
    CredentialConfirmed {
        /// Which.
        credential: CredentialId,
    },
    /// A credential or an open invite is gone, with all its keys.
    CredentialErased {
        /// Which.
        credential: CredentialId,
    },
    /// `last_ts` and `last_step` ahead of the clock were brought back.
    Resynced {
        /// Which credential.
        credential: CredentialId,
        /// Its `last_ts` from now on.
        last_ts: WallTime,
        /// Its person.
        person: Name,
        /// The person's `last_step` from now on.
        last_step: u64,
    },
    /// Somebody is new.
    PersonAdded(PersonRow),
    /// Somebody was disabled or enabled.
    PersonStanding {
        /// Who.
        person: Name,
        /// The standing from now on.
        standing: Standing,
    },
    /// Somebody is gone, with all credentials, habits, grants, approvals and requests: who comes under the
    /// same name later inherits nothing.
    PersonErased {
        /// Who.
        person: Name,
    },
    /// A phone's secret was replaced; the new one is not proven yet.
    TotpReplaced {
        /// Whose.
        person: Name,
        /// The new secret.
        secret: TotpSecret,
        /// Digits of a code.
        digits: u8,
    },
    /// Recovery codes were replaced.
    RecoveryReplaced {
        /// Whose.
        person: Name,
        /// SHA-256 of each.
        hashes: Vec<[u8; 32]>,
    },
    /// An administrator locked somebody or something; a lock of the same target is replaced.
    Locked(LockRow),
    /// A lock was lifted, or has ended.
    Unlocked {
        /// Whom it named.
        target: LockTarget,
    },
    /// A just-in-time grant was made.
    Granted(GrantRow),
    /// A request was approved.
    Approved(ApprovalRow),
    /// Somebody waits for an approval.
    ApprovalAsked(Waiting),
    /// A grant, an approval or a request was taken back, or has ended. They share one row of numbers.
    ExceptionEnded {
        /// Its number.
        id: u32,
    },
    /// A knock was let in: what is usual for its person has changed.
    HabitSeen {
        /// Whose.
        person: Name,
        /// From which network.
        network: Network,
        /// At which hour of the day, 0 to 23.
        hour: u8,
        /// When.
        at: WallTime,
        /// The network that is forgotten for it.
        forgotten: Option<Network>,
    },
    /// Something was learned; a row about the same is replaced.
    Learned(LearnedRow),
    /// What was learned is forgotten.
    LearnedForgotten {
        /// About whom.
        person: Name,
        /// About what.
        resource: Name,
        /// Through which ports.
        ports: PortRange,
    },
    /// What somebody did with a resource was counted; a row about the same is replaced.
    Used(UsualRow),
    /// What somebody did with a resource is forgotten.
    UseForgotten {
        /// Who.
        person: Name,
        /// With what.
        resource: Name,
    },
    /// What is known of a device; what was known before is replaced.
    FactsKept(FactsRow),
    /// What is known of a device counts no more.
    FactsForgotten {
        /// Its credential.
        credential: CredentialId,
    },
    /// A session is held from another address.
    SessionMoved {
        /// Which.
        session: SessionId,
        /// From where.
        source: SocketAddr,
        /// How that stands to the habits of its person.
        signals: Option<Signals>,
    },
    /// A knock key was made.
    KnockKeyMade(KnockKeyRow),
    /// A knock key was erased.
    KnockKeyErased {
        /// Which.
        kid: u8,
    },
    /// The clock floor moved: up as time goes by, down if an administrator says that the clock is right.
    FloorSet {
        /// The new floor.
        floor: WallTime,
    },
}
