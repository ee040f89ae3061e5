//! One granted session as `knock` hands it to the agent: through a pipe, never by arguments or environment.
//!
//! Invariant: the deadline is fixed when the reply comes, by the clock that counts suspended time.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use spa_proto::{SessionId, SessionKey, WallTime, WgPsk};
use zeroize::Zeroizing;

use crate::fields::{self, Writer, once, required};

const FIRST_LINE: &str = "spa-session 1";

/// A session the gateway granted.
pub struct Session {
    /// The profile it belongs to.
    pub profile: String,
    /// The name of its interface.
    pub interface: String,
    /// Where the knock went and the reply came from.
    pub gateway: SocketAddr,
    /// The names that were granted, as far as they are known here.
    pub granted: Vec<String>,
    /// Whether everything policy allows was asked for.
    pub all: bool,
    /// When it began, by our clock.
    pub since: WallTime,
    /// When it ends, by our clock: what the gateway gave, less its clock's difference from ours.
    pub not_after: WallTime,
    /// When it ends, by [`crate::clock::boot`].
    pub deadline: Duration,
    /// Until when the person wants it, by the same clock, if that is longer than the knock gave.
    pub wanted_until: Option<Duration>,
    /// The session id of SPEC §6.
    pub id: SessionId,
    /// k_sess: proves CLOSE.
    pub key: SessionKey,
    /// The WireGuard side of it.
    pub tunnel: Tunnel,
    /// Where the agent stays.
    pub stay: Stay,
}

/// What WireGuard needs.
pub struct Tunnel {
    /// w of SPEC §3.4.
    pub private_key: PrivateKey,
    /// The port the knock left from.
    pub listen_port: u16,
    /// The gateway's WireGuard key.
    pub peer: [u8; 32],
    /// The preshared key of the reply that counts.
    pub psk: WgPsk,
    /// Where the gateway's WireGuard listens.
    pub endpoint: SocketAddr,
    /// Our addresses inside.
    pub addresses: Vec<IpAddr>,
    /// The gateway's address inside, where the control channel is.
    pub gateway: Option<IpAddr>,
    /// The control port.
    pub control_port: u16,
    /// Bytes of an inner packet.
    pub mtu: u16,
    /// Seconds; 0 = off.
    pub keepalive: u16,
    /// What leads into it.
    pub routes: Vec<(IpAddr, u8)>,
}

/// A WireGuard private key: no `Clone`, never printed, wiped on drop.
pub struct PrivateKey(Zeroizing<[u8; 32]>);

impl PrivateKey {
    /// Takes the bytes.
    #[must_use]
    pub fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(Zeroizing::new(bytes))
    }

    /// Gives the bytes away.
    #[must_use]
    pub fn expose(&self) -> &[u8; 32] {
        &self.0
    }
}

/// Whether the agent leaves the terminal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stay {
    /// In its own session, after `knock` has ended.
    Background,
    /// As long as `knock` lives.
    Foreground,
}

impl Session {
    /// The text that is handed over; wiped when dropped.
    #[must_use]
    pub fn to_text(&self) -> Writer {
        let mut text = Writer::new(FIRST_LINE);
        text.line("profile", &self.profile);
        text.line("interface", &self.interface);
        text.line("gateway", self.gateway);
        for name in &self.granted {
            text.line("granted", name);
        }
        text.line("all", self.all);
        text.line("since", self.since.as_millis());
        text.line("not-after", self.not_after.as_millis());
        text.line("deadline", self.deadline.as_millis());
        if let Some(until) = self.wanted_until {
            text.line("wanted-until", until.as_millis());
        }
        text.bytes("id", self.id.as_bytes());
        text.bytes("key", self.key.expose());
        text.bytes("private-key", self.tunnel.private_key.expose());
        text.line("listen-port", self.tunnel.listen_port);
        text.bytes("peer", &self.tunnel.peer);
        text.bytes("psk", self.tunnel.psk.expose());
        text.line("endpoint", self.tunnel.endpoint);
        for address in &self.tunnel.addresses {
            text.line("address", address);
        }
        if let Some(address) = self.tunnel.gateway {
            text.line("gateway-inside", address);
        }
        text.line("control-port", self.tunnel.control_port);
        text.line("mtu", self.tunnel.mtu);
        text.line("keepalive", self.tunnel.keepalive);
        for (address, prefix) in &self.tunnel.routes {
            text.line("route", format_args!("{address}/{prefix}"));
        }
        text.line("foreground", self.stay == Stay::Foreground);
        text
    }

    /// Reads what was handed over.
    ///
    /// # Errors
    /// A text that says what is wrong, with the line.
    pub fn parse(text: &str) -> Result<Self, String> {
        let (mut profile, mut interface, mut gateway, mut all) = (None, None, None, None);
        let (mut since, mut not_after, mut deadline, mut id, mut key) =
            (None, None, None, None, None);
        let (mut private_key, mut listen_port, mut peer, mut psk) = (None, None, None, None);
        let (mut endpoint, mut inside, mut control_port, mut mtu) = (None, None, None, None);
        let (mut keepalive, mut foreground, mut wanted_until) = (None, None, None);
        let (mut granted, mut addresses, mut routes) = (Vec::new(), Vec::new(), Vec::new());
        for line in fields::lines(text, FIRST_LINE)? {
            match line.key {
                "profile" => once(&mut profile, line.value.to_owned(), &line)?,
                "interface" => once(&mut interface, line.value.to_owned(), &line)?,
                "gateway" => once(&mut gateway, line.parse("an address and port")?, &line)?,
                "granted" => granted.push(line.value.to_owned()),
                "all" => once(&mut all, line.parse("true or false")?, &line)?,
                "since" => once(&mut since, line.parse("milliseconds")?, &line)?,
                "not-after" => once(&mut not_after, line.parse("milliseconds")?, &line)?,
                "deadline" => once(&mut deadline, line.parse("milliseconds")?, &line)?,
                "wanted-until" => once(&mut wanted_until, line.parse("milliseconds")?, &line)?,
                "id" => once(&mut id, SessionId::from_bytes(*line.bytes()?), &line)?,
                "key" => once(&mut key, SessionKey::from_bytes(*line.bytes()?), &line)?,
                "private-key" => once(
                    &mut private_key,
                    PrivateKey::from_bytes(*line.bytes()?),
                    &line,
                )?,
                "listen-port" => once(&mut listen_port, line.parse("a port")?, &line)?,
                "peer" => once(&mut peer, *line.bytes()?, &line)?,
                "psk" => once(&mut psk, WgPsk::from_bytes(*line.bytes()?), &line)?,
                "endpoint" => once(&mut endpoint, line.parse("an address and port")?, &line)?,
                "address" => addresses.push(line.parse("an address")?),
                "gateway-inside" => once(&mut inside, line.parse("an address")?, &line)?,
                "control-port" => once(&mut control_port, line.parse("a port")?, &line)?,
                "mtu" => once(&mut mtu, line.parse("bytes")?, &line)?,
                "keepalive" => once(&mut keepalive, line.parse("seconds")?, &line)?,
                "route" => routes.push(network(line.value).ok_or_else(|| line.wrong("a network"))?),
                "foreground" => once(&mut foreground, line.parse::<bool>("true or false")?, &line)?,
                _ => return Err(line.unknown()),
            }
        }
        Ok(Self {
            profile: required(profile, "profile")?,
            interface: required(interface, "interface")?,
            gateway: required(gateway, "gateway")?,
            granted,
            all: required(all, "all")?,
            since: WallTime::from_millis(required(since, "since")?),
            not_after: WallTime::from_millis(required(not_after, "not-after")?),
            deadline: Duration::from_millis(required(deadline, "deadline")?),
            wanted_until: wanted_until.map(Duration::from_millis),
            id: required(id, "id")?,
            key: required(key, "key")?,
            tunnel: Tunnel {
                private_key: required(private_key, "private-key")?,
                listen_port: required(listen_port, "listen-port")?,
                peer: required(peer, "peer")?,
                psk: required(psk, "psk")?,
                endpoint: required(endpoint, "endpoint")?,
                addresses,
                gateway: inside,
                control_port: required(control_port, "control-port")?,
                mtu: required(mtu, "mtu")?,
                keepalive: required(keepalive, "keepalive")?,
                routes,
            },
            stay: if required(foreground, "foreground")? {
                Stay::Foreground
            } else {
                Stay::Background
            },
        })
    }
}

fn network(text: &str) -> Option<(IpAddr, u8)> {
    let (address, prefix) = text.split_once('/')?;
    Some((address.parse().ok()?, prefix.parse().ok()?))
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    pub(crate) fn sample() -> Session {
        let text = |t: &str| t.parse().expect("an address of the test");
        Session {
            profile: "gw.example.org".to_owned(),
            interface: "spa-cabababab".to_owned(),
            gateway: "198.51.100.10:51820"
                .parse()
                .expect("an address of the test"),
            granted: vec!["wiki".to_owned(), "db".to_owned()],
            all: false,
            since: WallTime::from_millis(1),
            not_after: WallTime::from_millis(2),
            deadline: Duration::from_millis(3),
            wanted_until: Some(Duration::from_millis(4)),
            id: SessionId::from_bytes([5; 8]),
            key: SessionKey::from_bytes([6; 32]),
            tunnel: Tunnel {
                private_key: PrivateKey::from_bytes([7; 32]),
                listen_port: 40_000,
                peer: [8; 32],
                psk: WgPsk::from_bytes([9; 32]),
                endpoint: "[2001:db8::1]:51820"
                    .parse()
                    .expect("an address of the test"),
                addresses: vec![text("10.200.0.7"), text("fd5a:1::7")],
                gateway: Some(text("10.200.0.1")),
                control_port: 8700,
                mtu: 1420,
                keepalive: 25,
                routes: vec![(text("10.0.5.10"), 32), (text("fd00::"), 64)],
            },
            stay: Stay::Background,
        }
    }

    #[test]
    fn a_session_survives_its_handover() {
        let text = sample().to_text();
        let again = Session::parse(text.text()).expect("our own text");
        assert_eq!(again.to_text().text(), text.text());
        assert_eq!(again.tunnel.routes.len(), 2);
    }

    #[test]
    fn a_handover_cut_short_is_refused() {
        let whole = sample().to_text();
        let lines: Vec<&str> = whole.text().lines().collect();
        let cut = lines[..lines.len() - 1].join("\n");
        assert_eq!(
            Session::parse(&cut).err().as_deref(),
            Some("foreground is missing")
        );
    }
}
