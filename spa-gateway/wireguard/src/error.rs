//! Everything that can go wrong with an interface; each text says what, why and where it can be mended, what to do.

use std::io;
use std::net::IpAddr;
use std::path::PathBuf;
use std::process::ExitStatus;

/// Why an interface or a peer could not be had.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum WireguardError {
    /// The name cannot be an interface's.
    #[error(
        "{name:?} cannot name an interface: 1 to 15 bytes without '/' and white space are needed"
    )]
    Name {
        /// The name asked for.
        name: String,
    },
    /// An interface of that name exists and is not ours.
    #[error(
        "interface {name} exists and is {what}: choose another name, or remove it with `ip link delete {name}`"
    )]
    Occupied {
        /// The interface.
        name: String,
        /// What it is.
        what: String,
    },
    /// The kernel was demanded and has no WireGuard.
    #[error(
        "this kernel has no WireGuard: load the module `wireguard`, or let the backend be `auto` or `embedded`"
    )]
    NoKernelWireguard,
    /// `/dev/net/tun` cannot be opened.
    #[error(
        "cannot open /dev/net/tun ({source}): load the module `tun` and run as root or with CAP_NET_ADMIN"
    )]
    NoTun {
        /// Why.
        source: io::Error,
    },
    /// The caller lacks the capability.
    #[error(
        "{doing} on {name} needs CAP_NET_ADMIN: run as root or give the program that capability"
    )]
    NotPermitted {
        /// What was tried.
        doing: &'static str,
        /// The interface.
        name: String,
    },
    /// The UDP port is taken.
    #[error(
        "UDP port {port} is in use: find its owner with `ss -ulpn sport = :{port}`, or choose another port"
    )]
    PortInUse {
        /// The port.
        port: u16,
    },
    /// `spa-tunnel` has no privilege, so the port is out of its reach.
    #[error(
        "the embedded WireGuard runs without privilege and cannot listen on UDP port {port}: choose 1024 or above"
    )]
    PortReserved {
        /// The port.
        port: u16,
    },
    /// The kernel refused a request.
    #[error("{doing} on {name} failed: {source}")]
    Kernel {
        /// What was tried.
        doing: &'static str,
        /// The interface.
        name: String,
        /// The kernel's answer.
        source: io::Error,
    },
    /// A route to that network exists through another interface.
    #[error(
        "a route to {address}/{prefix} exists through another interface and stays: remove it, or do without this network"
    )]
    RouteTaken {
        /// The network.
        address: IpAddr,
        /// Its prefix length.
        prefix: u8,
    },
    /// The embedded WireGuard is needed, and `spa-tunnel` is not installed: small builds leave it out.
    #[error(
        "this kernel has no WireGuard that is to be used, and {} is not there to stand in: load the module `wireguard` (OpenWrt: install kmod-wireguard), or install spa-tunnel",
        program.display()
    )]
    NoTunnelProgram {
        /// Where it was looked for.
        program: PathBuf,
    },
    /// `spa-tunnel` could not be started.
    #[error("cannot start {} as user {uid}: {source}", program.display())]
    Start {
        /// The executable.
        program: PathBuf,
        /// The user it was to run as.
        uid: u32,
        /// Why.
        source: io::Error,
    },
    /// `spa-tunnel` could not set itself up.
    #[error("spa-tunnel failed {doing}: {source}")]
    Tunnel {
        /// What it tried.
        doing: &'static str,
        /// Why.
        source: io::Error,
    },
    /// `spa-tunnel` has ended, and its interface with it.
    #[error("spa-tunnel has ended ({}) and interface {name} with it", status.map_or_else(|| "status unknown".to_owned(), |status| status.to_string()))]
    TunnelEnded {
        /// The interface.
        name: String,
        /// How it ended, where the system said.
        status: Option<ExitStatus>,
    },
    /// `spa-tunnel` does not answer.
    #[error("spa-tunnel does not answer")]
    TunnelSilent,
    /// A message had a wrong length or content; a bug, or two versions mixed.
    #[error(
        "spa-tunnel and this program disagree about their messages: install both from one version"
    )]
    Message,
    /// More allowed networks than a peer may have.
    #[error(
        "{count} networks for one peer are too many: {} are allowed",
        crate::message::MAX_ALLOWED
    )]
    TooManyNetworks {
        /// How many were asked for.
        count: usize,
    },
    /// A prefix length is beyond the address.
    #[error("{address}/{prefix} is no network: the prefix is too long")]
    Prefix {
        /// The address.
        address: IpAddr,
        /// The prefix length.
        prefix: u8,
    },
    /// Somebody took the interface away.
    #[error("somebody removed interface {name}")]
    Removed {
        /// The interface.
        name: String,
    },
    /// The peer asked about is not there.
    #[error("the peer is not on interface {name}")]
    NoPeer {
        /// The interface.
        name: String,
    },
    /// No handshake before the deadline.
    #[error("no WireGuard handshake in time: the other side did not answer")]
    NoHandshake,
}

impl WireguardError {
    /// The system's error number behind it, where there is one.
    pub fn errno(&self) -> Option<i32> {
        match self {
            Self::NoTun { source }
            | Self::Kernel { source, .. }
            | Self::Start { source, .. }
            | Self::Tunnel { source, .. } => source.raw_os_error(),
            _ => None,
        }
    }
}
