//! All that outlives the process: what the store loads at the start, row by row.
//!
//! `Snapshot::apply` in `apply.rs` says what each change does to it.

use alloc::collections::BTreeMap;
use alloc::string::String;
use alloc::vec::Vec;
use core::net::{Ipv4Addr, Ipv6Addr, SocketAddr};

use spa_proto::{
    CredentialId, CredentialKey, KnockSecret, ProofPublic, SessionId, SessionKey, TotpSecret,
    WallTime,
};

use crate::exception::{ApprovalRow, GrantRow, Waiting};
use crate::learning::LearnedRow;
use crate::lock::LockRow;
use crate::name::Name;
use crate::policy::Facts;
use crate::policy::{Network, Signals};
use crate::usual::UsualRow;

/// The durable state of a gateway. A secret in it is sealed by the store (SPEC §14).
#[derive(Debug, Default)]
pub struct Snapshot {
    /// The knock keys; kid 0 is the gateway's identity and must be there.
    pub knock_keys: Vec<KnockKeyRow>,
    /// The people and machines.
    pub persons: Vec<PersonRow>,
    /// The credentials and open invites.
    pub credentials: Vec<CredentialRow>,
    /// The sessions that have not ended.
    pub sessions: Vec<SessionRow>,
    /// Tunnel addresses of sessions that ended, not to be used again yet. A store may drop those
    /// whose time has come.
    pub resting: Vec<RestingRow>,
    /// The locks.
    pub locks: Vec<LockRow>,
    /// The just-in-time grants.
    pub grants: Vec<GrantRow>,
    /// The approvals that were given.
    pub approvals: Vec<ApprovalRow>,
    /// The requests that wait for an approval.
    pub waiting: Vec<Waiting>,
    /// What is usual for each person.
    pub habits: Vec<HabitRow>,
    /// What was learned of resources in observe mode.
    pub learned: Vec<LearnedRow>,
    /// How much of each resource is usual for each person.
    pub usual: Vec<UsualRow>,
    /// What is known of devices.
    pub facts: Vec<FactsRow>,
    /// No time before this one is believed (SPEC §7).
    pub floor: WallTime,
}

/// A knock key pair.
#[derive(Debug)]
pub struct KnockKeyRow {
    /// Its number; 0 is long-lived.
    pub kid: u8,
    /// The private key.
    pub secret: KnockSecret,
    /// When it was made.
    pub made: WallTime,
    /// Refused from this time on; `None` for kid 0.
    pub not_after: Option<WallTime>,
}

/// A person or a machine.
#[derive(Debug)]
pub struct PersonRow {
    /// The name policy speaks of.
    pub name: Name,
    /// Which factors it has.
    pub kind: PersonKind,
    /// Whether its credentials are honoured.
    pub standing: Standing,
    /// The phone's secret; `None` for a machine.
    pub totp: Option<TotpRow>,
    /// The TOTP step last accepted.
    pub last_step: u64,
    /// SHA-256 of each unused recovery code.
    pub recovery: Vec<[u8; 32]>,
}

/// Which factors somebody has.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum PersonKind {
    /// Device, password and phone.
    Human,
    /// The device alone; policy names what it may reach (SPEC §10).
    Machine,
}

/// Whether somebody or something is honoured.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Standing {
    /// It is.
    Enabled,
    /// It is not, until an administrator acts.
    Disabled,
}

/// The secret of a person's phone.
#[derive(Debug)]
pub struct TotpRow {
    /// The shared secret.
    pub secret: TotpSecret,
    /// Digits of a code: 6 to 8.
    pub digits: u8,
    /// Seconds of a step.
    pub period: u8,
    /// Whether a code of it was ever accepted; until then every ENROLLED hands it over again (SPEC §6).
    pub proven: bool,
}

/// One person on one device at this gateway, from the invite on.
#[derive(Debug)]
pub struct CredentialRow {
    /// Its random id.
    pub id: CredentialId,
    /// Whose it is.
    pub person: Name,
    /// What its holder calls the device; empty before the enrolment.
    pub label: String,
    /// The proof key; `None` before the enrolment.
    pub proof: Option<ProofPublic>,
    /// Its keys: the invite's and candidates, or the one that is live.
    pub keys: Vec<KeyRow>,
    /// Whether it is honoured.
    pub standing: Standing,
    /// Refused from this time on.
    pub expires: Option<WallTime>,
    /// Whether an administrator compared the four words, or waived it when making the invite.
    pub confirmed: bool,
    /// When the first ENROLLED was recorded.
    pub enrolled: Option<WallTime>,
    /// The invite is void from this time on; `None` once the credential is active.
    pub invite_until: Option<WallTime>,
    /// `ts` of the transaction answered last.
    pub last_ts: WallTime,
    /// How many transactions failed a factor in a row.
    pub failures: u32,
}

/// One key of a credential. `(credential, number)` names it for good.
#[derive(Debug)]
pub struct KeyRow {
    /// 0 for the invite's, 1 to 6 for the candidates; the one that wins keeps its number.
    pub number: u8,
    /// What it opens.
    pub kind: KeyKind,
    /// `K_cred`, `K_inv` or a candidate.
    pub key: CredentialKey,
}

/// What a key of a credential opens (SPEC §7).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum KeyKind {
    /// ENROL only.
    Invite,
    /// All but ENROL; an OPEN that passes makes it live.
    Candidate,
    /// All but ENROL.
    Live,
}

/// A session.
#[derive(Debug)]
pub struct SessionRow {
    /// Its random id.
    pub id: SessionId,
    /// Whose it is.
    pub credential: CredentialId,
    /// The key of ROAM, CLOSE and the control channel.
    pub key: SessionKey,
    /// The client's WireGuard key for this session.
    pub wg_key: [u8; 32],
    /// Its IPv4 address in the tunnel.
    pub tunnel4: Option<Ipv4Addr>,
    /// Its IPv6 address in the tunnel.
    pub tunnel6: Option<Ipv6Addr>,
    /// The resources that were granted; none is the control channel alone.
    pub resources: Vec<Name>,
    /// Where the knock came from.
    pub source: SocketAddr,
    /// How the knock stood to the habits of its person; `None` if that was not known.
    pub signals: Option<Signals>,
    /// When it was opened.
    pub opened: WallTime,
    /// When it ends.
    pub not_after: WallTime,
}

/// What is usual for a person.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct HabitRow {
    /// Who.
    pub person: Name,
    /// The networks they knocked from, each with the last time.
    pub networks: BTreeMap<Network, WallTime>,
    /// How many knocks were let in, for each hour of the day in the policy's zone.
    pub hours: [u32; 24],
}

/// What a device said of itself.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct FactsRow {
    /// Its credential.
    pub credential: CredentialId,
    /// What it said, and when.
    pub facts: Facts,
}

/// Tunnel addresses that rest (SPEC §11).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct RestingRow {
    /// The IPv4 address.
    pub tunnel4: Option<Ipv4Addr>,
    /// The IPv6 address.
    pub tunnel6: Option<Ipv6Addr>,
    /// Free again from this time on.
    pub until: WallTime,
}
