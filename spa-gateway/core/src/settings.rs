//! What the configuration file decides, already checked by the daemon.

use core::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use core::time::Duration;

/// The shortest time a door may wait for the first handshake (SPEC §11).
pub const SHORTEST_DOOR: Duration = Duration::from_secs(5);
/// The longest time a door may wait for the first handshake (SPEC §11).
pub const LONGEST_DOOR: Duration = Duration::from_secs(30);
/// The most often a device may have to report what it is like.
pub const OFTENEST_REPORT: Duration = Duration::from_secs(1);
/// The least often (SPEC §12): three that are missed have to show within minutes.
pub const RAREST_REPORT: Duration = Duration::from_secs(60);
/// The longest session a client accepts (SPEC §6).
pub const LONGEST_SESSION: Duration = Duration::from_secs(24 * 60 * 60);

/// How this gateway is set up.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The public key of the gateway's WireGuard interface.
    pub wg_public: [u8; 32],
    /// The port WireGuard listens on; the same as the knock port in the recommended layout.
    pub wg_port: u16,
    /// The gateway's IPv4 address in the tunnel and the prefix of the pool around it.
    pub tunnel4: Option<(Ipv4Addr, u8)>,
    /// The gateway's IPv6 address in the tunnel and the prefix of the pool around it.
    pub tunnel6: Option<(Ipv6Addr, u8)>,
    /// The TCP port of the control channel inside the tunnel; `None` while nobody serves it: then no session reaches it.
    pub control_port: Option<u16>,
    /// How often a device has to report what it is like, inside the tunnel.
    pub report_every: Duration,
    /// The MTU the client gives its tunnel.
    pub mtu: u16,
    /// The persistent keepalive the client uses, seconds; 0 is off.
    pub keepalive: u16,
    /// The name server the client is told of.
    pub dns: Option<IpAddr>,
    /// How long a door waits for the first handshake: [`SHORTEST_DOOR`] to [`LONGEST_DOOR`].
    pub door: Duration,
    /// The longest session, whatever policy says; at most [`LONGEST_SESSION`].
    pub longest: Duration,
    /// The most sessions at once.
    pub capacity: u32,
    /// How many digits the TOTP codes of new persons have: 6 to 8.
    pub totp_digits: u8,
}

impl Settings {
    /// Cuts what lies outside SPEC's bounds to them; the daemon's own check comes first and speaks up.
    pub(crate) fn bounded(mut self) -> Self {
        self.door = self.door.clamp(SHORTEST_DOOR, LONGEST_DOOR);
        self.longest = self.longest.min(LONGEST_SESSION);
        self.report_every = self.report_every.clamp(OFTENEST_REPORT, RAREST_REPORT);
        self.totp_digits = self.totp_digits.clamp(6, 8);
        self
    }

    /// Gives the gateway's address in the tunnel that the reply names: IPv4 if there is one.
    pub(crate) fn gateway_tunnel(&self) -> Option<IpAddr> {
        let v4 = self.tunnel4.map(|(address, _)| IpAddr::V4(address));
        v4.or(self.tunnel6.map(|(address, _)| IpAddr::V6(address)))
    }
}
