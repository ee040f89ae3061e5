//! The command line of `spa-admin`.

use std::path::PathBuf;

use clap::builder::NonEmptyStringValueParser;
use clap::{Args, Parser, Subcommand};
use clap_complete::Shell;

use super::init::InitArgs;
use super::openwrt::UciArgs;
use super::run::lock_target;
use crate::config::{DEFAULT_CONFIG, Span};

/// Administers a single-packet-authorization gateway
///
/// Exit codes: 0 done, 1 refused or failed, 2 usage.
#[derive(Debug, Parser)]
#[command(name = "spa-admin", version, max_term_width = 100)]
pub struct Cli {
    /// The gateway's configuration; its paths say which gateway is meant
    #[arg(long, global = true, value_name = "FILE", default_value = DEFAULT_CONFIG)]
    pub config: PathBuf,
    /// What to do
    #[command(subcommand)]
    pub command: Command,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Make a new gateway: configuration, policy, keys and store
    ///
    /// Asks for what is not given as a flag. Run over SSH through the interface that faces
    /// strangers, it keeps the SSH port open and says so.
    Init(Box<InitArgs>),
    /// On OpenWrt: make the configuration of what /etc/config/spa-gateway says; the service does so at every start
    Uci(UciArgs),
    /// People and machines
    #[command(subcommand)]
    User(UserCommand),
    /// Make a one-use invite for a new device
    ///
    /// Prints one line to hand over on a channel the person trusts. Whoever has it can
    /// enrol; it is worth nothing once it was used.
    Invite(InviteArgs),
    /// Devices and open invites
    #[command(subcommand)]
    Device(DeviceCommand),
    /// What can be reached; edits the policy file, comments stay
    #[command(subcommand)]
    Resource(ResourceCommand),
    /// Allow a group a resource; edits the policy file, comments stay
    Allow(AllowArgs),
    /// Take back what `allow` gave; edits the policy file, sessions lose it at once
    Disallow {
        /// Whom
        group: String,
        /// What
        resource: String,
    },
    /// The policy file
    #[command(subcommand)]
    Policy(PolicyCommand),
    /// What resources in observe mode let through, and rules made of it
    #[command(subcommand)]
    Learn(LearnCommand),
    /// Sessions
    #[command(subcommand)]
    Session(SessionCommand),
    /// Say what would be decided for somebody, and why
    ///
    /// It is the engine that decides knocks, asked without a knock.
    Explain(ExplainArgs),
    /// Lock somebody or something out, above all policy; sessions end at once
    Lock(LockArgs),
    /// Lift a lock
    Unlock {
        /// As `lock list` shows it
        #[arg(value_parser = lock_target)]
        target: String,
    },
    /// Grant a user a resource for a while, beyond the rules; it ends by itself
    ///
    /// A deny rule and every lock still beat it. The user has to knock for it.
    Grant(GrantArgs),
    /// Approve a request that a rule's `approve` makes wait
    Approve(ApproveArgs),
    /// A person's second factor
    #[command(subcommand)]
    Mfa(MfaCommand),
    /// Make new one-use codes that stand in for a lost phone; the old ones are void
    RecoveryCodes {
        /// Whose
        user: String,
    },
    /// How the gateway is
    Status(ListArgs),
    /// Look for what keeps the gateway from working, or from being dark
    Doctor(ListArgs),
    /// What happened: the audit log, or the connections inside the tunnels
    Log(LogArgs),
    /// The store
    #[command(subcommand)]
    Store(StoreCommand),
    /// The clock
    #[command(subcommand)]
    Clock(ClockCommand),
    /// Print completions for a shell
    Completions {
        /// Which shell
        shell: Shell,
    },
}

/// Flags of a listing.
#[derive(Clone, Copy, Debug, Args)]
pub struct ListArgs {
    /// Print JSON: times in Unix milliseconds, ids in hex
    #[arg(long)]
    pub json: bool,
}

/// `user`.
#[derive(Debug, Subcommand)]
pub enum UserCommand {
    /// Add somebody
    Add {
        /// The name: letters, digits and . _ @ -
        user: String,
        /// Put the user into this group of the policy; repeat for several
        #[arg(long = "group", value_name = "GROUP")]
        groups: Vec<String>,
        /// A machine: no password, no phone; the policy must name what it may reach
        #[arg(long)]
        machine: bool,
    },
    /// List everybody
    List(ListArgs),
    /// Show one user with devices and sessions
    Show {
        /// Whom
        user: String,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Stop honouring a user; sessions end at once
    Disable {
        /// Whom
        user: String,
    },
    /// Honour a user again
    Enable {
        /// Whom
        user: String,
    },
    /// Remove a user with all devices; sessions end at once
    Remove {
        /// Whom
        user: String,
    },
}

/// `invite`.
#[derive(Debug, Args)]
pub struct InviteArgs {
    /// For whom
    pub user: String,
    /// Show it as a QR code as well
    #[arg(long)]
    pub qr: bool,
    /// How long it can be used
    #[arg(long, value_name = "TIME", default_value = "24h")]
    pub valid: Span,
    /// Do not ask for the four words: the invite is handed over in person
    #[arg(long)]
    pub no_confirm: bool,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

/// `device`.
#[derive(Debug, Subcommand)]
pub enum DeviceCommand {
    /// List devices and open invites
    List(ListArgs),
    /// Show one device
    Show {
        /// Which, as USER/DEVICE
        device: String,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Say that you heard the four words from the person and they are the same
    Confirm {
        /// Which, as USER/DEVICE
        device: String,
    },
    /// Honour a device, or an open invite, no more; its session ends at once
    Revoke {
        /// Which, as USER/DEVICE; an open invite as USER/CREDENTIAL
        device: String,
    },
    /// Honour a device again that was revoked, or that failed a hundred times in a row
    Enable {
        /// Which, as USER/DEVICE
        device: String,
    },
    /// Mend a device whose clock, or ours, ran ahead once
    Resync {
        /// Which, as USER/DEVICE
        device: String,
    },
}

/// `resource`.
#[derive(Debug, Subcommand)]
pub enum ResourceCommand {
    /// Add something that can be reached
    Add {
        /// The name people knock for
        name: String,
        /// ADDRESS, ADDRESS/PREFIX, or "gateway" for this machine
        address: String,
        /// PORT/PROTO, FIRST-LAST/PROTO, or icmp
        #[arg(required = true, value_name = "PORT/PROTO")]
        ports: Vec<String>,
    },
    /// List what can be reached
    List(ListArgs),
    /// Remove a resource that no rule names any more
    Remove {
        /// Which
        name: String,
    },
}

/// `allow`.
#[derive(Debug, Args)]
pub struct AllowArgs {
    /// Whom
    pub group: String,
    /// What
    pub resource: String,
    /// The longest session [default: what the policy's defaults say]
    #[arg(long = "for", value_name = "TIME")]
    pub length: Option<Span>,
}

/// `policy`.
#[derive(Debug, Subcommand)]
pub enum PolicyCommand {
    /// Say whether a policy file would be accepted; changes nothing
    Check {
        /// The file [default: the gateway's own]
        file: Option<PathBuf>,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Show a policy file against what is in force, and what live sessions would lose by it
    Diff(DiffArgs),
    /// Put a policy file into force: checked, written in one step, kept as a version
    ///
    /// A file that is wrong, or whose tests fail, changes nothing.
    Apply(ApplyArgs),
    /// List the policies that were in force: since when, by whom, why
    Log(ListArgs),
    /// Put an earlier policy into force again, as a new version and by the same checks
    Rollback(RollbackArgs),
    /// Have the gateway read its policy file again, after it was edited by hand
    Reload {
        /// Why, for the log of policies
        #[arg(
            long,
            value_name = "TEXT",
            default_value = "",
            hide_default_value = true
        )]
        why: String,
    },
}

/// `policy diff`.
#[derive(Debug, Args)]
pub struct DiffArgs {
    /// The file [default: the gateway's own, as edited]
    pub file: Option<PathBuf>,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

/// `policy apply`.
#[derive(Debug, Args)]
pub struct ApplyArgs {
    /// The file
    pub file: PathBuf,
    /// How it is put into force.
    #[command(flatten)]
    pub put: PutArgs,
}

/// What `policy apply` and `policy rollback` take alike.
#[derive(Debug, Args)]
pub struct PutArgs {
    /// Why, for the log of policies
    #[arg(
        long,
        value_name = "TEXT",
        default_value = "",
        hide_default_value = true
    )]
    pub why: String,
    /// Give up what was edited in the gateway's own file and is not in force
    #[arg(long)]
    pub over_edit: bool,
}

/// `policy rollback`.
#[derive(Debug, Args)]
pub struct RollbackArgs {
    /// The version, as `policy log` shows it
    pub serial: u64,
    /// How it is put into force.
    #[command(flatten)]
    pub put: PutArgs,
}

/// `learn`.
#[derive(Debug, Subcommand)]
pub enum LearnCommand {
    /// List who reached what only since it is being learned
    Show(ListArgs),
    /// Print rules that would allow what was seen, as a difference to the policy file; changes nothing
    Propose {
        /// For this resource only
        resource: Option<String>,
    },
    /// End the observe mode of a resource: what no rule allows is denied, live sessions lose it at once
    Enforce {
        /// Which
        resource: String,
    },
}

/// `session`.
#[derive(Debug, Subcommand)]
pub enum SessionCommand {
    /// List sessions
    List(ListArgs),
    /// End sessions now, and say how many milliseconds it took
    Cut {
        /// A session id, USER, USER/DEVICE, or resource:NAME
        what: String,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
}

/// `explain`.
#[derive(Debug, Args)]
pub struct ExplainArgs {
    /// Who, as USER or USER/DEVICE
    pub user: String,
    /// For what, as RESOURCE, RESOURCE:PORT or RESOURCE:PORT/PROTO
    pub resource: String,
    /// When, in the policy's time zone, like 2026-11-23T10:00 [default: now]
    #[arg(long, value_name = "TIME")]
    pub at: Option<String>,
    /// From where [default: where the device's session comes from]
    #[arg(long, value_name = "ADDRESS")]
    pub from: Option<std::net::IpAddr>,
    /// A fact about the device, like firewall=true; repeat for several [default: its last report]
    #[arg(long, value_name = "KEY=VALUE")]
    pub posture: Vec<String>,
    /// With this risk [default: what the gateway weighs]
    #[arg(long, value_name = "N")]
    pub risk: Option<u16>,
    /// Ask this policy file instead of the gateway; nothing is known then of devices, locks or grants
    #[arg(long, value_name = "FILE")]
    pub policy: Option<PathBuf>,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

/// `lock`.
#[derive(Debug, Args)]
#[command(args_conflicts_with_subcommands = true, subcommand_negates_reqs = true)]
pub struct LockArgs {
    /// user:NAME, device:USER/DEVICE, source:NETWORK, or all
    #[arg(required = true, value_parser = lock_target)]
    pub target: Option<String>,
    /// How long [default: until `unlock`]
    #[arg(long = "for", value_name = "TIME")]
    pub length: Option<Span>,
    /// Why, for the audit log
    #[arg(
        long,
        value_name = "TEXT",
        default_value = "",
        hide_default_value = true
    )]
    pub why: String,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
    /// The listing instead
    #[command(subcommand)]
    pub list: Option<ListCommand>,
}

/// `grant`.
#[derive(Debug, Args)]
#[command(args_conflicts_with_subcommands = true, subcommand_negates_reqs = true)]
pub struct GrantArgs {
    /// Whom
    #[arg(required = true)]
    pub user: Option<String>,
    /// What
    #[arg(required = true)]
    pub resource: Option<String>,
    /// How long, ten seconds to thirty days
    #[arg(long = "for", value_name = "TIME", required = true)]
    pub length: Option<Span>,
    /// Why, for the audit log
    #[arg(long, value_name = "TEXT", required = true, value_parser = NonEmptyStringValueParser::new())]
    pub why: Option<String>,
    /// Something else
    #[command(subcommand)]
    pub other: Option<GrantCommand>,
}

/// `grant list` and `grant end`.
#[derive(Debug, Subcommand)]
pub enum GrantCommand {
    /// List grants and approvals
    List(ListArgs),
    /// Take a grant or an approval back; what sessions had by it is cut at once
    End {
        /// Its number
        id: u32,
    },
}

/// `approve`.
#[derive(Debug, Args)]
#[command(args_conflicts_with_subcommands = true, subcommand_negates_reqs = true)]
pub struct ApproveArgs {
    /// The number of the request
    #[arg(required = true)]
    pub id: Option<u32>,
    /// Who agrees: one whom the rule's `approve` names, and not the one who asks
    #[arg(long, value_name = "USER", required = true)]
    pub by: Option<String>,
    /// How long it counts, ten seconds to thirty days
    #[arg(long = "for", value_name = "TIME", default_value = "8h")]
    pub length: Span,
    /// The listing instead
    #[command(subcommand)]
    pub list: Option<ListCommand>,
}

/// The listing of what a command makes.
#[derive(Debug, Subcommand)]
pub enum ListCommand {
    /// List what there is
    List(ListArgs),
}

/// `mfa`.
#[derive(Debug, Subcommand)]
pub enum MfaCommand {
    /// Void the phone's secret; the next enrolment of a device hands a new one over
    Reset {
        /// Whose
        user: String,
    },
}

/// `log`.
#[derive(Debug, Args)]
pub struct LogArgs {
    /// Go on printing what happens
    #[arg(short, long)]
    pub follow: bool,
    /// Of this user only
    #[arg(long, value_name = "USER")]
    pub user: Option<String>,
    /// Only where somebody did not get what was asked for
    #[arg(long)]
    pub denied: bool,
    /// The access log instead: every connection inside the tunnels, allowed or refused
    #[arg(long)]
    pub connections: bool,
    /// Of connections to this resource only
    #[arg(long, value_name = "RESOURCE", requires = "connections")]
    pub resource: Option<String>,
    /// How many lines to begin with
    #[arg(short = 'n', long, value_name = "N", default_value_t = 50)]
    pub lines: u32,
    /// Print JSON lines
    #[arg(long)]
    pub json: bool,
}

/// `store`.
#[derive(Debug, Subcommand)]
pub enum StoreCommand {
    /// Take a restored store for the newest one, after a look at `device list`
    Accept,
}

/// `clock`.
#[derive(Debug, Subcommand)]
pub enum ClockCommand {
    /// Take what the clock reads for the right time, after it was set far while the gateway ran, or reads earlier
    /// than it once did
    Accept {
        /// Do it; without this, say only what it costs
        #[arg(long)]
        yes: bool,
    },
}

#[cfg(test)]
mod tests;
