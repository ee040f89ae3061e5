//! What the audit log says: one flat record for each thing that happened.

use alloc::string::String;
use alloc::vec::Vec;
use core::net::SocketAddr;

use spa_proto::{CredentialId, SessionId, WallTime};

use crate::name::Name;

/// One line of the audit log. What does not apply is absent.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct AuditRecord {
    /// When.
    pub at: WallTime,
    /// What happened.
    pub kind: AuditKind,
    /// Who.
    pub person: Option<Name>,
    /// On which device.
    pub device: Option<String>,
    /// Under which credential.
    pub credential: Option<CredentialId>,
    /// In which session.
    pub session: Option<SessionId>,
    /// From where.
    pub source: Option<SocketAddr>,
    /// The resources granted, or of the session.
    pub resources: Vec<Name>,
    /// Until when.
    pub not_after: Option<WallTime>,
    /// Why: one word or a short sentence.
    pub reason: Option<&'static str>,
    /// More about it, in an administrator's words or in ours.
    pub note: Option<String>,
    /// How long it took, milliseconds.
    pub took_ms: Option<u64>,
}

macro_rules! audit_kinds {
    ($($(#[$doc:meta])+ $variant:ident = $name:literal;)+) => {
        /// What happened.
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
        pub enum AuditKind { $($(#[$doc])+ $variant,)+ }

        impl AuditKind {
            /// All of them.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)+];

            /// Gives the name in the log.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self { $(Self::$variant => $name,)+ }
            }
        }
    };
}

audit_kinds! {
    /// A session was opened: peer, flows and door are there and the reply is out.
    SessionOpened = "session-opened";
    /// The first handshake of a session was seen; the door is narrowed to it.
    SessionLive = "session-live";
    /// A repeat of an OPEN was answered.
    SessionRepeated = "session-repeated";
    /// The door of a session moved.
    SessionRoamed = "session-roamed";
    /// Policy took something from a session.
    SessionReduced = "session-reduced";
    /// A session was given more time.
    SessionRenewed = "session-renewed";
    /// A handshake after a rekey was seen.
    SessionQuantumSafe = "session-quantum-safe";
    /// A session was closed: door, flows, peer and conntrack entries are confirmed gone.
    SessionEnded = "session-ended";
    /// Policy granted nothing of what was asked.
    RefusedByPolicy = "refused-by-policy";
    /// There was no room.
    RefusedByCapacity = "refused-by-capacity";
    /// A factor was wrong.
    FactorFailed = "factor-failed";
    /// A hundred failures in a row disabled a credential.
    CredentialDisabled = "credential-disabled";
    /// A knock was refused because the clock ran ahead once.
    ClockRanAhead = "clock-ran-ahead";
    /// What was granted could not be opened, and was undone.
    OpeningFailed = "opening-failed";
    /// The store could not record.
    RecordFailed = "record-failed";
    /// An invite was made.
    InviteMade = "invite-made";
    /// An invite was used up, voided or ran out without a device.
    InviteVoided = "invite-voided";
    /// A device enrolled.
    DeviceEnrolled = "device-enrolled";
    /// The first OPEN of a device passed.
    DeviceActivated = "device-activated";
    /// An administrator compared the four words.
    DeviceConfirmed = "device-confirmed";
    /// A device was revoked.
    DeviceRevoked = "device-revoked";
    /// A device was enabled again.
    DeviceEnabled = "device-enabled";
    /// Marks ahead of the clock were brought back.
    DeviceResynced = "device-resynced";
    /// Somebody was added.
    PersonAdded = "person-added";
    /// Somebody was disabled.
    PersonDisabled = "person-disabled";
    /// Somebody was enabled.
    PersonEnabled = "person-enabled";
    /// Somebody was removed.
    PersonRemoved = "person-removed";
    /// A person replaced a device's password.
    PasswordChanged = "password-changed";
    /// A phone's secret was replaced.
    TotpReplaced = "totp-replaced";
    /// Recovery codes were replaced.
    RecoveryReplaced = "recovery-replaced";
    /// A knock key was made.
    KnockKeyMade = "knock-key-made";
    /// A knock key was erased.
    KnockKeyErased = "knock-key-erased";
    /// The clock is not trusted: nothing is accepted.
    ClockUntrusted = "clock-untrusted";
    /// The clock is trusted again.
    ClockTrusted = "clock-trusted";
    /// An administrator said that the clock is right.
    ClockAccepted = "clock-accepted";
    /// A policy would have denied what passed, since the resource is being learned.
    WouldBeDenied = "would-be-denied";
    /// Somebody does more than usual with a resource, and the risk rises by it.
    RiskRaised = "risk-raised";
    /// Somebody waits for an approval.
    ApprovalAsked = "approval-asked";
    /// An approver agreed.
    ApprovalGiven = "approval-given";
    /// A just-in-time grant was made.
    GrantMade = "grant-made";
    /// A grant or an approval was taken back, or has ended.
    ExceptionEnded = "exception-ended";
    /// An administrator locked somebody or something.
    Locked = "locked";
    /// A lock was lifted, or has ended.
    Unlocked = "unlocked";
    /// The gateway could not go on and stopped, to be started again.
    GatewayStopped = "gateway-stopped";
    /// A policy took effect.
    PolicyChanged = "policy-changed";
}

impl AuditRecord {
    /// Begins a record; the rest is filled in by name.
    pub(crate) const fn new(at: WallTime, kind: AuditKind) -> Self {
        Self {
            at,
            kind,
            person: None,
            device: None,
            credential: None,
            session: None,
            source: None,
            resources: Vec::new(),
            not_after: None,
            reason: None,
            note: None,
            took_ms: None,
        }
    }
}
