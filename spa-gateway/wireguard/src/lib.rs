//! One WireGuard interface: the kernel's where it has WireGuard, else gotatun in a process of its own.
//!
//! [`Interface::create`] makes the interface with its addresses and brings it up; after that every call
//! needs only file descriptors that are open already, so that the owner may give up everything but
//! `CAP_NET_ADMIN` and install a seccomp filter. Nothing here is asynchronous and no cipher is linked:
//! with the kernel the keys travel by netlink, with `spa-tunnel` by a socket pair ([`message`]).
//!
//! ```no_run
//! # use spa_wireguard::*;
//! # use std::{path::Path, time::{Duration, Instant}};
//! # fn main() -> Result<(), WireguardError> {
//! let mut interface = Interface::create(&Plan {
//!     name: "spa0",
//!     listen_port: 51820,
//!     addresses: &[("10.200.0.2".parse().unwrap(), 32)],
//!     mtu: 1420,
//!     backend: BackendChoice::Auto,
//!     tunnel_program: Path::new("/usr/libexec/spa-tunnel"),
//!     tunnel_uid: 65534,
//!     tunnel_gid: 65534,
//! })?;
//! interface.set_private_key(&[7; 32])?;
//! interface.put_peer(&Peer {
//!     key: [9; 32],
//!     psk: [8; 32].into(),
//!     allowed: &[("10.1.0.0".parse().unwrap(), 16)],
//!     endpoint: Some("198.51.100.10:51820".parse().unwrap()),
//!     keepalive: Some(25),
//! })?;
//! interface.wait_handshake(&[9; 32], Instant::now() + Duration::from_secs(5))?;
//! interface.add_route("10.1.0.0".parse().unwrap(), 16)?;
//! interface.delete()
//! # }
//! ```
//!
//! # System calls after `create`
//! For the seccomp filter of an owner: `sendto`, `recvfrom`, `sendmsg`, `recvmsg`, `poll`, `ppoll`,
//! `close`, `wait4`, `clock_gettime`, `clock_nanosleep` (the last only for [`Interface::wait_handshake`]) and
//! what the allocator needs. `CAP_NET_ADMIN` in the network namespace of the interface suffices.
//!
//! # When the handshake starts
//! A peer put with an endpoint *and* a keepalive sends its handshake initiation at once, before any traffic:
//! the kernel does so whenever the keepalive interval is set on an interface that is up, `spa-tunnel` by
//! asking gotatun for it. Without an endpoint the other side starts; with an endpoint and no keepalive the
//! first packet does. A lost initiation is repeated after five seconds (`REKEY_TIMEOUT` of the WireGuard paper).

mod altered;
mod embedded;
mod error;
mod interface;
mod kernel;
mod link;
pub mod message;
mod netlink;
mod plan;
mod route;
mod tun;

pub use altered::Altered;
pub use error::WireguardError;
pub use interface::Interface;
pub use plan::{Backend, BackendChoice, KEY_LEN, Peer, PeerState, Plan, Psk};
