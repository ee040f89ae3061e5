//! What `spa-admin` asks of the daemon and hears back: JSON over the admin socket.
//!
//! Times are Unix milliseconds, ids are hex, names are those of `docs/STYLE.md`.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// The one path requests are posted to.
pub const PATH: &str = "/v1";
/// The longest request, bytes: a policy of the longest kind, written as JSON.
pub const MAX_REQUEST: usize = 2 * spa_gateway_core::policy::MAX_POLICY_BYTES;

/// The longest reason an administrator may give, characters.
pub const MAX_WHY: usize = 200;
/// What can be locked.
pub const LOCK_TARGETS: &str = "write user:NAME, device:USER/DEVICE, source:NETWORK or all";

/// One request.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(tag = "ask", rename_all = "kebab-case", deny_unknown_fields)]
pub enum Request {
    /// How the gateway is: [`Status`].
    Status,
    /// Everybody: a list of [`User`].
    Users,
    /// Every device and open invite: a list of [`Device`].
    Devices,
    /// Every session: a list of [`Session`].
    Sessions,
    /// Adds somebody.
    AddUser {
        /// The name.
        user: String,
        /// Which factors.
        kind: UserKind,
    },
    /// Removes somebody with all devices and sessions.
    RemoveUser {
        /// The name.
        user: String,
    },
    /// Honours somebody again.
    EnableUser {
        /// The name.
        user: String,
    },
    /// Stops honouring somebody; ends their sessions.
    DisableUser {
        /// The name.
        user: String,
    },
    /// Makes an invite: [`Invited`].
    Invite {
        /// For whom.
        user: String,
        /// How long it can be used, seconds.
        valid_seconds: u64,
        /// Whether the four words are compared.
        confirm: Confirm,
    },
    /// The four words were compared.
    ConfirmDevice(DeviceName),
    /// Takes a device's keys away; ends its session. An open invite is voided the same way.
    RevokeDevice(DeviceName),
    /// Honours a device again that failed too often.
    EnableDevice(DeviceName),
    /// Brings marks that are ahead of the clock back.
    ResyncDevice(DeviceName),
    /// Gives somebody a new phone secret at the next enrolment.
    ResetPhone {
        /// The name.
        user: String,
    },
    /// Makes new recovery codes: [`RecoveryCodes`].
    RecoveryCodes {
        /// The name.
        user: String,
    },
    /// Ends sessions: [`Cut`].
    Cut(Selector),
    /// Every lock: a list of [`Lock`].
    Locks,
    /// Locks somebody or something out, above all policy: [`Cut`] once it is on disk and every session it
    /// names is gone.
    Lock {
        /// `user:NAME`, `device:USER/DEVICE`, `source:CIDR` or `all`.
        target: String,
        /// How long, seconds; until it is lifted if absent.
        seconds: Option<u64>,
        /// Why; may be empty.
        why: String,
    },
    /// Lifts a lock.
    Unlock {
        /// As the lock names it.
        target: String,
    },
    /// What would be decided, and why: [`Explanation`](crate::explain::Explanation).
    Explain(crate::explain::Typed),
    /// Every grant, approval and request that waits for one: [`Exceptions`].
    Exceptions,
    /// Grants somebody a resource for a while.
    Grant {
        /// Whom.
        user: String,
        /// What.
        resource: String,
        /// How long, seconds.
        seconds: u64,
        /// Why.
        why: String,
    },
    /// Approves a request that waits.
    Approve {
        /// Its number.
        id: u32,
        /// Who agrees.
        by: String,
        /// How long it counts, seconds.
        seconds: u64,
    },
    /// Takes a grant or an approval back; what sessions had by it is cut.
    EndException {
        /// Its number.
        id: u32,
    },
    /// Lines of the access log: [`AccessPage`].
    Access {
        /// Those after this id; the newest if absent.
        after: Option<u64>,
        /// Those of this user.
        user: Option<String>,
        /// Those about this resource.
        resource: Option<String>,
        /// Refused ones only.
        denied: bool,
        /// At most so many.
        limit: u32,
    },
    /// Audit lines: [`AuditPage`].
    Audit {
        /// Those after this id; the newest if absent.
        after: Option<u64>,
        /// Those of this user.
        user: Option<String>,
        /// Denials only.
        denied: bool,
        /// At most so many.
        limit: u32,
    },
    /// Reads the policy file again and puts it into force: a line that says what came of it.
    Reload {
        /// What the administrator is called, as they say; the kernel says the rest.
        login: String,
        /// Why; may be empty.
        why: String,
    },
    /// The policies that were in force: [`PolicyLog`].
    PolicyLog,
    /// The text of a policy that was in force: [`PolicyText`].
    PolicyText {
        /// Which; the one in force if absent.
        serial: Option<u64>,
    },
    /// What observe mode let through: a list of [`Learned`].
    Learned,
    /// What live sessions would lose under this policy: a list of [`Loss`].
    WouldCut {
        /// Its text.
        text: String,
    },
    /// Takes a restored store for the newest one (SPEC §15).
    AcceptStore,
    /// Takes what the clock reads for the right time (SPEC §7).
    AcceptClock,
}

/// Which factors somebody has.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum UserKind {
    /// Device, password and phone.
    Human,
    /// The device alone.
    Machine,
}

/// Whether an administrator compares the four words.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Confirm {
    /// Yes; until then the device reaches the control channel only.
    ByWords,
    /// No: the invite is handed over in person.
    Waived,
}

/// A device by its owner and label, or by its credential's hex.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DeviceName {
    /// Whose.
    pub user: String,
    /// Its label.
    pub device: String,
}

/// Which sessions.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub enum Selector {
    /// This one.
    Session(String),
    /// All of a user.
    User(String),
    /// That of a device.
    Device(DeviceName),
    /// All that reach a resource.
    Resource(String),
}

/// A refusal: one line.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Refused {
    /// What, why, what to do.
    pub refused: String,
}

/// How the gateway is.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Status {
    /// Of the daemon.
    pub version: String,
    /// `gw_id`, hex.
    pub gateway: String,
    /// What invites name.
    pub public: String,
    /// Where knocks arrive.
    pub interfaces: Vec<String>,
    /// The knock port.
    pub port: u16,
    /// The WireGuard interface.
    pub wireguard_interface: String,
    /// The WireGuard port.
    pub wireguard_port: u16,
    /// `kernel` or `embedded`.
    pub wireguard: String,
    /// Since when the daemon runs.
    pub since: u64,
    /// Whether knocks are accepted.
    pub accepting: bool,
    /// The clock, in words.
    pub clock: String,
    /// The policy, in words.
    pub policy: String,
    /// The store, in words.
    pub store: String,
    /// Ports that stay open to everybody.
    pub keep_open: Vec<String>,
    /// How many people and machines.
    pub users: usize,
    /// How many devices and open invites.
    pub devices: usize,
    /// How many sessions.
    pub sessions: usize,
    /// How many peers WireGuard has.
    pub peers: usize,
    /// How many doors are open.
    pub doors: usize,
    /// How many flows are open.
    pub flows: usize,
    /// Refusals since the start, by name; those that happened.
    pub refusals: BTreeMap<String, u32>,
    /// What capture dropped since the start, by reason.
    pub dropped: BTreeMap<String, u32>,
    /// What the kernel lets through to capture, in words.
    pub filter: String,
}

/// A person or machine.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct User {
    /// The name.
    pub user: String,
    /// Which factors.
    pub kind: UserKind,
    /// Whether the user is honoured.
    pub enabled: bool,
    /// Whether a code of the phone was ever accepted.
    pub phone: bool,
    /// How many recovery codes are left.
    pub recovery_codes: usize,
    /// The groups of the policy.
    pub groups: Vec<String>,
    /// How many devices.
    pub devices: usize,
}

/// A device, or an invite nobody used yet.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Device {
    /// Whose.
    pub user: String,
    /// Its label; empty for an open invite.
    pub device: String,
    /// The credential, hex.
    pub credential: String,
    /// `invited`, `enrolled`, `active` or `disabled`.
    pub state: String,
    /// Whether the four words were compared or waived.
    pub confirmed: bool,
    /// The four words, once there is a device.
    pub words: Option<String>,
    /// Until when the invite can be used.
    pub invite_until: Option<u64>,
    /// `ts` of the transaction answered last.
    pub last_knock: Option<u64>,
    /// Failures in a row.
    pub failures: u32,
}

/// A session.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Session {
    /// Its id, hex.
    pub session: String,
    /// Whose.
    pub user: String,
    /// On which device.
    pub device: String,
    /// `opening`, `waiting` for its handshake, `live` or `ending`.
    pub state: String,
    /// What it reaches; empty is the control channel alone.
    pub resources: Vec<String>,
    /// Where it came from.
    pub source: String,
    /// Its addresses in the tunnel.
    pub tunnel: Vec<String>,
    /// When it was opened.
    pub opened: u64,
    /// When it ends.
    pub not_after: u64,
    /// Bytes received from its peer.
    pub received: u64,
    /// Bytes sent to its peer.
    pub sent: u64,
    /// What the risk of each of its resources is now.
    pub risk: Vec<SessionRisk>,
}

/// The risk of a resource of a session.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct SessionRisk {
    /// The resource.
    pub resource: String,
    /// The sum.
    pub points: u16,
    /// What it is the sum of, each with what was seen; nothing that is zero.
    pub parts: Vec<crate::explain::ExplainedRisk>,
}

/// A new invite.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Invited {
    /// The line to hand over. Whoever has it can enrol.
    pub invite: String,
    /// For whom.
    pub user: String,
    /// Until when it can be used.
    pub until: u64,
    /// Whether the four words are compared.
    pub confirm: Confirm,
}

/// Sessions that were ended.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct Cut {
    /// Which.
    pub sessions: Vec<String>,
    /// From the request to the last confirmed effect, milliseconds.
    pub took_ms: f64,
}

/// The policies that were in force, as far back as they are kept.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct PolicyLog {
    /// Which is in force; absent if none is, or it could not be kept.
    pub in_force: Option<u64>,
    /// All, oldest first.
    pub versions: Vec<crate::store::PolicyVersion>,
}

/// The text of a policy.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct PolicyText {
    /// Which version it is; absent if it could not be kept.
    pub serial: Option<u64>,
    /// As it stood in the file.
    pub text: String,
}

/// What a live session would lose.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Loss {
    /// Which session, hex.
    pub session: String,
    /// Whose.
    pub user: String,
    /// Resources it would no longer reach.
    pub lost: Vec<String>,
    /// Whether nothing would be left of it.
    pub ends: bool,
    /// Resources that would end sooner than now, and when.
    pub shortened: BTreeMap<String, u64>,
}

/// Somebody reached ports of a resource in observe mode that no rule gives them.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Learned {
    /// Who.
    pub user: String,
    /// What.
    pub resource: String,
    /// Through which ports, as the resource has them.
    pub ports: String,
    /// When first.
    pub first: u64,
    /// When last.
    pub last: u64,
    /// How many knocks were let in by it.
    pub knocks: u32,
    /// How many packets went through, both ways together.
    pub packets: u64,
}

/// A lock.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Lock {
    /// Whom or what it names.
    pub target: String,
    /// When it ends by itself; absent is when it is lifted.
    pub until: Option<u64>,
    /// Why.
    pub why: String,
}

/// What goes beyond the rules for a while. Grants, approvals and requests share one row of numbers.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Exceptions {
    /// Just-in-time grants.
    pub grants: Vec<Grant>,
    /// Approvals that were given.
    pub approvals: Vec<Approval>,
    /// Requests that wait for one.
    pub waiting: Vec<WaitingRequest>,
}

/// A just-in-time grant.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Grant {
    /// Its number.
    pub id: u32,
    /// Who may.
    pub user: String,
    /// Reach what.
    pub resource: String,
    /// Until when.
    pub until: u64,
    /// Why.
    pub why: String,
}

/// An approval that was given.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Approval {
    /// Its number.
    pub id: u32,
    /// Who asked.
    pub user: String,
    /// For what.
    pub resource: String,
    /// Which rule asks for it.
    pub rule: String,
    /// Who agreed.
    pub by: String,
    /// Until when it counts.
    pub until: u64,
}

/// A request that waits for an approval.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct WaitingRequest {
    /// Its number.
    pub id: u32,
    /// Who asks.
    pub user: String,
    /// For what.
    pub resource: String,
    /// Which rule asks for it.
    pub rule: String,
    /// Since when.
    pub since: u64,
}

/// New recovery codes. Shown once; the store has their hashes.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RecoveryCodes {
    /// Hex.
    pub codes: Vec<String>,
}

/// Some lines of the access log, oldest first.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct AccessPage {
    /// The lines.
    pub lines: Vec<AccessEntry>,
}

/// One line of the access log with its place.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct AccessEntry {
    /// Counts up.
    pub id: u64,
    /// What happened.
    pub line: crate::access::AccessLine,
}

/// Some audit lines, oldest first.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct AuditPage {
    /// The lines.
    pub lines: Vec<AuditEntry>,
}

/// One audit line with its place.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct AuditEntry {
    /// Counts up.
    pub id: u64,
    /// What happened.
    pub line: crate::audit::AuditLine,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_say_what_they_ask() {
        let asked = Request::Cut(Selector::Device(DeviceName {
            user: "ana".to_owned(),
            device: "laptop".to_owned(),
        }));
        let json = serde_json::to_string(&asked).expect("JSON");
        assert_eq!(
            json,
            r#"{"ask":"cut","device":{"user":"ana","device":"laptop"}}"#
        );
        assert_eq!(
            serde_json::from_str::<Request>(&json).expect("parses"),
            asked
        );
    }

    #[test]
    fn what_is_not_known_is_refused() {
        for bad in [
            r#"{"ask":"open"}"#,
            r#"{"ask":"add-user","user":"a","kind":"human","x":1}"#,
            "[]",
        ] {
            assert!(serde_json::from_str::<Request>(bad).is_err(), "{bad}");
        }
    }
}
