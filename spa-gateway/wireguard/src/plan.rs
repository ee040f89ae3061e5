//! What an owner asks for and what it is told: plain data, nothing here touches the system.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::path::Path;
use std::time::Duration;

use zeroize::Zeroizing;

/// Length of every WireGuard key, in bytes (Curve25519 and the preshared key alike).
pub const KEY_LEN: usize = 32;

/// The interface an owner wants.
#[derive(Debug, Clone, Copy)]
pub struct Plan<'a> {
    /// Name of the interface: 1 to 15 bytes, no `/`, no white space.
    pub name: &'a str,
    /// UDP port WireGuard listens on; 0 lets the system choose.
    pub listen_port: u16,
    /// Addresses of the interface with their prefix lengths. On an adopted interface all others go.
    pub addresses: &'a [(IpAddr, u8)],
    /// Bytes of an IP packet inside the tunnel, at least 1280 where IPv6 is used.
    pub mtu: u32,
    /// Which WireGuard may be used.
    pub backend: BackendChoice,
    /// The `spa-tunnel` executable; looked at only when the embedded WireGuard is used.
    pub tunnel_program: &'a Path,
    /// User `spa-tunnel` runs as. Equal to the caller's own when the caller may not change users.
    pub tunnel_uid: u32,
    /// Group `spa-tunnel` runs as.
    pub tunnel_gid: u32,
}

/// Which WireGuard the owner allows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BackendChoice {
    /// The kernel's, and where it has none the embedded one.
    Auto,
    /// The kernel's or none.
    Kernel,
    /// `spa-tunnel`, even where the kernel has WireGuard.
    Embedded,
}

/// Which WireGuard carries the interface.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Backend {
    /// The kernel's.
    Kernel,
    /// gotatun in a `spa-tunnel` process.
    Embedded,
}

impl fmt::Display for Backend {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Kernel => "kernel",
            Self::Embedded => "embedded",
        })
    }
}

/// A preshared key: wiped on drop, never printed.
pub struct Psk(Zeroizing<[u8; KEY_LEN]>);

impl Psk {
    /// Gives the bytes away, for the message that carries them.
    pub fn expose(&self) -> &[u8; KEY_LEN] {
        &self.0
    }
}

impl From<[u8; KEY_LEN]> for Psk {
    fn from(bytes: [u8; KEY_LEN]) -> Self {
        Self(Zeroizing::new(bytes))
    }
}

impl fmt::Debug for Psk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Psk")
    }
}

/// A peer as the owner wants it.
#[derive(Debug)]
pub struct Peer<'a> {
    /// Its public key.
    pub key: [u8; KEY_LEN],
    /// The preshared key of this peer.
    pub psk: Psk,
    /// What may come from it and goes to it, at most [`message::MAX_ALLOWED`](crate::message::MAX_ALLOWED).
    pub allowed: &'a [(IpAddr, u8)],
    /// Where it is; `None` waits for its first handshake.
    pub endpoint: Option<SocketAddr>,
    /// Persistent keepalive in seconds; with an endpoint it also starts the handshake at once.
    pub keepalive: Option<u16>,
}

/// A peer as WireGuard sees it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PeerState {
    /// Its public key.
    pub key: [u8; KEY_LEN],
    /// Where its last authentic packet came from, or where it was put.
    pub endpoint: Option<SocketAddr>,
    /// Time since the last handshake; `None` before the first. The kernel notes the wall clock, so a stepped clock
    /// falsifies it there (never below zero). The embedded WireGuard, when it did not begin the handshake, counts
    /// it as soon as it has answered, before the other side has shown that it knows the preshared key.
    pub handshake_age: Option<Duration>,
    /// Bytes received from it; the kernel counts the tunnel's overhead, the embedded WireGuard does not.
    pub rx: u64,
    /// Bytes sent to it, overhead included.
    pub tx: u64,
}
