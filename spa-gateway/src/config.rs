//! What is configured: `gateway.toml`, checked whole before anything is touched.
//!
//! Invariant: a `Config` that exists is complete and within bounds. Every refusal is
//! one line: file and line, what is wrong, what to do.

mod firewall;
mod value;

use std::fmt;
use std::net::IpAddr;
use std::num::NonZeroU16;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::Deserialize;
use toml::Spanned;

pub use firewall::{Firewall, FirewallMode, Table};
pub use value::{
    HostPort, Interface, Port, PortProtocol, Span, Subnet, Transport, UserRef, ValueError,
};

use spa_gateway_core::{OFTENEST_REPORT, RAREST_REPORT};

use crate::files::{self, Wanted};

/// Where the configuration is unless `--config` says otherwise.
pub const DEFAULT_CONFIG: &str = "/etc/spa/gateway.toml";

/// The longest configuration that is read, bytes. Ours has 40 lines.
const MAX_CONFIG: u64 = 256 * 1024;
/// How long a door may wait for the first handshake (SPEC §11).
const DOOR_BOUNDS: (Duration, Duration) = (Duration::from_secs(5), Duration::from_secs(30));
/// How long a session may be: a client accepts 24 h at most (SPEC §6).
const LONGEST_BOUNDS: (Duration, Duration) =
    (Duration::from_secs(60), Duration::from_secs(24 * 3_600));

/// How often a device may have to report (SPEC §12).
const REPORT_BOUNDS: (Duration, Duration) = (OFTENEST_REPORT, RAREST_REPORT);

/// The whole of `gateway.toml`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Config {
    /// Where knocks arrive.
    pub knock: Knock,
    /// The tunnel.
    pub wireguard: WireGuard,
    /// Whose rules keep the machine closed.
    #[serde(default)]
    pub firewall: Firewall,
    /// How long openings last.
    #[serde(default)]
    pub session: Session,
    /// The control channel inside the tunnel.
    #[serde(default)]
    pub control: Control,
    /// Where files lie.
    #[serde(default)]
    pub paths: Paths,
    /// Who the processes run as.
    #[serde(default)]
    pub process: Process,
    /// Whether the clock is believed.
    #[serde(default)]
    pub clock: Clock,
}

/// `[knock]`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Knock {
    /// The interfaces whose strangers see nothing: one to eight.
    pub interfaces: Spanned<Vec<Interface>>,
    /// The UDP port of knocks.
    pub port: Port,
    /// What invites name.
    pub public: HostPort,
}

/// `[wireguard]`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct WireGuard {
    /// The interface that is made.
    #[serde(default = "default_wireguard_interface")]
    pub interface: Spanned<Interface>,
    /// Its UDP port; the knock port unless given (SPEC §11).
    pub port: Option<Port>,
    /// Who does WireGuard.
    #[serde(default)]
    pub backend: Backend,
    /// The gateway's tunnel addresses with the pool around them: one IPv4, one IPv6, or both.
    pub addresses: Spanned<Vec<Subnet>>,
}

/// `backend`.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Backend {
    /// The kernel where it can, `spa-tunnel` otherwise.
    #[default]
    Auto,
    /// The kernel or nothing.
    Kernel,
    /// `spa-tunnel`.
    Embedded,
}

impl fmt::Display for Backend {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Auto => "auto",
            Self::Kernel => "kernel",
            Self::Embedded => "embedded",
        })
    }
}

/// `[session]`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
pub struct Session {
    /// How long a door waits for the first handshake, 5 s to 30 s.
    pub door: Spanned<Span>,
    /// The longest session whatever policy says, at most 24 h.
    pub longest: Spanned<Span>,
}

impl Default for Session {
    fn default() -> Self {
        Self {
            door: Spanned::new(0..0, Span(Duration::from_secs(10))),
            longest: Spanned::new(0..0, Span(Duration::from_secs(24 * 3_600))),
        }
    }
}

/// `[control]`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
pub struct Control {
    /// The TCP port of the control channel inside the tunnel.
    pub port: Port,
    /// How often a device has to report what it is like, 1 s to 60 s.
    pub report: Spanned<Span>,
}

impl Default for Control {
    fn default() -> Self {
        Self {
            port: Port::new(const { NonZeroU16::new(8_700).expect("not zero") }),
            report: Spanned::new(0..0, Span(Duration::from_secs(60))),
        }
    }
}

/// `[paths]`. Relative paths are beside the configuration.
#[derive(Clone, PartialEq, Eq, Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
pub struct Paths {
    /// The policy.
    pub policy: PathBuf,
    /// The store and `K_seal`.
    pub state: PathBuf,
    /// The admin socket.
    pub runtime: PathBuf,
}

impl Default for Paths {
    fn default() -> Self {
        Self {
            policy: "/etc/spa/policy.toml".into(),
            state: "/var/lib/spa".into(),
            runtime: "/run/spa".into(),
        }
    }
}

impl Paths {
    /// Gives the administrators' socket.
    #[must_use]
    pub fn admin_socket(&self) -> PathBuf {
        self.runtime.join("admin.sock")
    }

    /// Gives the store.
    #[must_use]
    pub fn store(&self) -> PathBuf {
        self.state.join("store.db")
    }

    /// Gives the file of `K_seal`.
    #[must_use]
    pub fn seal_key(&self) -> PathBuf {
        self.state.join("K_seal")
    }

    /// Gives the generation kept beside `K_seal` (SPEC §15).
    #[must_use]
    pub fn generation(&self) -> PathBuf {
        self.state.join("generation")
    }
}

/// `[process]`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
pub struct Process {
    /// The daemon's user.
    pub user: UserRef,
    /// The user of `spa-tunnel`.
    pub tunnel_user: UserRef,
}

impl Default for Process {
    fn default() -> Self {
        Self {
            user: UserRef::Name("spa-gateway".to_owned()),
            tunnel_user: UserRef::Name("spa-tunnel".to_owned()),
        }
    }
}

/// `[clock]`.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
pub struct Clock {
    /// When the wall clock is believed (SPEC §7).
    pub trust: Trust,
}

/// `trust`.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Trust {
    /// When the kernel says it is synchronised, or there is a battery clock.
    #[default]
    Auto,
    /// Always, unless it is behind the saved floor: somebody else looks after it.
    Always,
}

/// Why a configuration is not used. Its text is one line.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file itself: missing, unreadable, open to others.
    #[error(transparent)]
    File(#[from] files::FileError),
    /// Its content.
    #[error("{}:{line}: {problem}", file.display())]
    Content {
        /// The file.
        file: PathBuf,
        /// The line, from 1.
        line: usize,
        /// What is wrong and what to do.
        problem: String,
    },
}

impl Config {
    /// Reads and checks a configuration.
    ///
    /// # Errors
    /// A file that is missing, unreadable or writable by others; unknown keys; values
    /// out of bounds. Nothing of a bad file is used.
    pub fn load(file: &Path) -> Result<Self, ConfigError> {
        let text = files::read_text(file, Wanted::NotWritableByOthers, MAX_CONFIG)?;
        Self::parse(&text, file)
    }

    /// Parses the text of `file`.
    ///
    /// # Errors
    /// As [`load`](Self::load), content only.
    pub fn parse(text: &str, file: &Path) -> Result<Self, ConfigError> {
        let at = |span: Option<Range<usize>>, problem: String| ConfigError::Content {
            file: file.to_owned(),
            line: line_of(text, span),
            problem,
        };
        let mut config: Self =
            toml::from_str(text).map_err(|error| at(error.span(), reword(error.message())))?;
        config
            .check()
            .map_err(|(span, problem)| at(Some(span), problem))?;
        let beside = file.parent().unwrap_or(Path::new("/"));
        for path in [
            &mut config.paths.policy,
            &mut config.paths.state,
            &mut config.paths.runtime,
        ] {
            *path = beside.join(&*path);
        }
        Ok(config)
    }

    /// The knock port.
    #[must_use]
    pub fn knock_port(&self) -> u16 {
        self.knock.port.get()
    }

    /// The WireGuard port.
    #[must_use]
    pub fn wireguard_port(&self) -> u16 {
        self.wireguard.port.unwrap_or(self.knock.port).get()
    }

    /// The gateway's tunnel IPv4 address and pool.
    #[must_use]
    pub fn pool4(&self) -> Option<Subnet> {
        self.pools().find(|pool| pool.address.is_ipv4())
    }

    /// The gateway's tunnel IPv6 address and pool.
    #[must_use]
    pub fn pool6(&self) -> Option<Subnet> {
        self.pools().find(|pool| pool.address.is_ipv6())
    }

    fn pools(&self) -> impl Iterator<Item = Subnet> {
        self.wireguard.addresses.get_ref().iter().copied()
    }

    /// What serde cannot say: bounds, and values that must fit each other.
    fn check(&self) -> Result<(), (Range<usize>, String)> {
        check_interfaces(&self.knock.interfaces, &self.wireguard.interface)?;
        check_pools(&self.wireguard.addresses)?;
        self.firewall.check()?;
        check_span(&self.session.door, DOOR_BOUNDS, "door")?;
        check_span(&self.control.report, REPORT_BOUNDS, "report")?;
        check_span(&self.session.longest, LONGEST_BOUNDS, "longest")
    }
}

fn default_wireguard_interface() -> Spanned<Interface> {
    let name = "spa0".parse().expect("four letters are an interface name");
    Spanned::new(0..0, name)
}

fn check_interfaces(
    knock: &Spanned<Vec<Interface>>,
    wireguard: &Spanned<Interface>,
) -> Result<(), (Range<usize>, String)> {
    let names = knock.get_ref();
    let problem = if names.is_empty() {
        "no knock interface; name the interface strangers come from, like interfaces = [\"eth0\"]"
            .to_owned()
    } else if names.len() > spa_order::MAX_KNOCK_INTERFACES {
        format!(
            "{} knock interfaces; at most {} are served",
            names.len(),
            spa_order::MAX_KNOCK_INTERFACES
        )
    } else if names.contains(wireguard.get_ref()) {
        return Err((
            wireguard.span(),
            format!(
                "`{}` is a knock interface; give the tunnel a name of its own, like \"spa0\"",
                wireguard.get_ref()
            ),
        ));
    } else if let Some(twice) = names
        .iter()
        .enumerate()
        .find(|(at, name)| names[..*at].contains(name))
    {
        format!("interface `{}` is listed twice; list it once", twice.1)
    } else {
        return Ok(());
    };
    Err((knock.span(), problem))
}

fn check_pools(addresses: &Spanned<Vec<Subnet>>) -> Result<(), (Range<usize>, String)> {
    let list = addresses.get_ref();
    let of = |v4: bool| {
        list.iter()
            .filter(move |pool| pool.address.is_ipv4() == v4)
            .count()
    };
    let refuse = |problem: String| Err((addresses.span(), problem));
    if list.is_empty() || of(true) > 1 || of(false) > 1 {
        return refuse(format!(
            "{} tunnel addresses; give one IPv4 network, one IPv6 network, or one of each",
            list.len()
        ));
    }
    for pool in list {
        let longest = if pool.address.is_ipv4() { 30 } else { 126 };
        if pool.prefix < 8 || pool.prefix > longest {
            return refuse(format!(
                "`{pool}` is no pool for clients; choose a prefix length of 8 to {longest}"
            ));
        }
        let ours = pool.address;
        let last = match ours {
            IpAddr::V4(v4) => v4.to_bits() | (u32::MAX >> pool.prefix) == v4.to_bits(),
            IpAddr::V6(_) => false,
        };
        if ours == pool.network() || last || ours.is_multicast() || ours.is_loopback() {
            return refuse(format!(
                "`{pool}` is no address for the gateway; use {}/{}",
                pool.first_host(),
                pool.prefix
            ));
        }
    }
    Ok(())
}

fn check_span(
    span: &Spanned<Span>,
    (shortest, longest): (Duration, Duration),
    key: &str,
) -> Result<(), (Range<usize>, String)> {
    let value = span.get_ref().0;
    if (shortest..=longest).contains(&value) {
        return Ok(());
    }
    let problem = format!(
        "`{key}` is {}; choose {} to {}",
        span.get_ref(),
        Span(shortest),
        Span(longest)
    );
    Err((span.span(), problem))
}

/// Counts lines from 1; what has no place is said of the last line.
fn line_of(text: &str, span: Option<Range<usize>>) -> usize {
    let end = span.map_or(text.len(), |span| span.start.min(text.len()));
    1 + text.bytes().take(end).filter(|byte| *byte == b'\n').count()
}

/// Says in our words what the parser found, on one line, with what to do.
fn reword(message: &str) -> String {
    let message = message.split_whitespace().collect::<Vec<_>>().join(" ");
    if let Some(rest) = message.strip_prefix("unknown field ") {
        return format!("unknown key {rest}; correct its name or remove the line");
    }
    if let Some(rest) = message.strip_prefix("missing field ") {
        return format!("key {rest} is missing; add it");
    }
    if let Some(rest) = message.strip_prefix("unknown variant ") {
        return format!("unknown value {rest}; choose one of those");
    }
    if message.contains(';') {
        return message;
    }
    format!("{message}; correct the value")
}

#[cfg(test)]
mod tests;
