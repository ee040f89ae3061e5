//! The client's UDP port: random, the same in both families, given up to WireGuard and taken back.
//!
//! Invariant: a reply counts only if it comes from the address and port a packet went to (SPEC §6).

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV6, ToSocketAddrs, UdpSocket};
use std::os::fd::OwnedFd;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::net::{AddressFamily, SocketFlags, SocketType, bind, ipproto, socket_with, sockopt};
use spa_proto::KNOCK_LEN;

/// How many ports are tried until one is free in both families.
const TRIES: usize = 16;

/// How many addresses of a gateway are tried: with six packets each gets one at least.
pub const MOST_ADDRESSES: usize = 4;

/// Why the wire cannot be used; of replies nothing is told here.
#[derive(Debug, thiserror::Error)]
pub enum WireError {
    /// No UDP port.
    #[error("cannot have a UDP port: {0}")]
    Port(io::Error),
    /// The port WireGuard gave back is taken.
    #[error("UDP port {port} was taken by another program in the meantime: {source}")]
    PortLost {
        /// The port.
        port: u16,
        /// Why.
        source: io::Error,
    },
    /// Waiting failed.
    #[error("cannot wait for a reply: {0}")]
    Wait(io::Error),
    /// The host has no address.
    #[error("cannot find the address of {host} ({source}): check the network and the name server")]
    Resolve {
        /// The host.
        host: String,
        /// Why.
        source: io::Error,
    },
    /// Not one packet could leave.
    #[error("nothing could be sent to {to}: {source}; check the network")]
    NothingSent {
        /// The gateway.
        to: String,
        /// Why.
        source: io::Error,
    },
    /// No random numbers.
    #[error("the system gives no random numbers: {0}")]
    Random(getrandom::Error),
    /// A packet could not be built.
    #[error("cannot build the knock: {0}")]
    Build(#[from] spa_proto::BuildError),
    /// A request does not fit the wire.
    #[error("cannot build the knock: {0}")]
    Encode(#[from] spa_proto::EncodeError),
}

/// Finds the gateway's addresses, both families in turn, at most [`MOST_ADDRESSES`]; where the name server fails, those
/// remembered.
///
/// # Errors
/// When there is none.
pub fn resolve(
    host: &str,
    port: u16,
    remembered: &[SocketAddr],
) -> Result<Vec<SocketAddr>, WireError> {
    match (host, port).to_socket_addrs() {
        Ok(found) => {
            let found = in_turn(found.collect());
            if found.is_empty() {
                let source = io::Error::new(io::ErrorKind::NotFound, "no address");
                return Err(WireError::Resolve {
                    host: host.to_owned(),
                    source,
                });
            }
            Ok(found)
        }
        Err(_) if !remembered.is_empty() => Ok(remembered.to_vec()),
        Err(source) => Err(WireError::Resolve {
            host: host.to_owned(),
            source,
        }),
    }
}

/// The resolver's order, families alternating from its first, none twice.
fn in_turn(found: Vec<SocketAddr>) -> Vec<SocketAddr> {
    let first_family = found.first().is_some_and(SocketAddr::is_ipv6);
    let (mut same, mut other): (Vec<SocketAddr>, Vec<SocketAddr>) = found
        .into_iter()
        .partition(|address| address.is_ipv6() == first_family);
    same.reverse();
    other.reverse();
    let mut addresses: Vec<SocketAddr> = Vec::new();
    while addresses.len() < MOST_ADDRESSES && !(same.is_empty() && other.is_empty()) {
        for address in [same.pop(), other.pop()].into_iter().flatten() {
            if addresses.len() < MOST_ADDRESSES && !addresses.contains(&address) {
                addresses.push(address);
            }
        }
    }
    addresses
}

/// One UDP port towards the gateway's addresses.
pub struct Wire {
    addresses: Vec<SocketAddr>,
    port: u16,
    v4: Option<UdpSocket>,
    v6: Option<UdpSocket>,
}

/// What came in.
pub struct Received {
    /// Index of the gateway's address it came from.
    pub address: usize,
    /// The payload, of the length every reply has.
    pub payload: [u8; KNOCK_LEN],
}

impl Wire {
    /// Takes a random port in every family the addresses need.
    ///
    /// # Errors
    /// When there is no port to be had.
    pub fn open(addresses: Vec<SocketAddr>) -> Result<Self, WireError> {
        let mut last = io::Error::from(io::ErrorKind::AddrInUse);
        for _ in 0..TRIES {
            match bind_both(&addresses, 0) {
                Ok((port, v4, v6)) => {
                    return Ok(Self {
                        addresses,
                        port,
                        v4,
                        v6,
                    });
                }
                Err(error) => last = error,
            }
        }
        Err(WireError::Port(last))
    }

    /// The port.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.port
    }

    /// The gateway's addresses.
    #[must_use]
    pub fn addresses(&self) -> &[SocketAddr] {
        &self.addresses
    }

    /// Gives the port up, for WireGuard.
    pub fn yield_port(&mut self) {
        self.v4 = None;
        self.v6 = None;
    }

    /// Takes the port back.
    ///
    /// # Errors
    /// When another program has it.
    pub fn retake_port(&mut self) -> Result<(), WireError> {
        let (_, v4, v6) =
            bind_both(&self.addresses, self.port).map_err(|source| WireError::PortLost {
                port: self.port,
                source,
            })?;
        (self.v4, self.v6) = (v4, v6);
        Ok(())
    }

    /// Sends one packet.
    ///
    /// # Errors
    /// The system's; the schedule goes on all the same.
    pub fn send(&self, address: usize, packet: &[u8; KNOCK_LEN]) -> io::Result<()> {
        let to = self
            .addresses
            .get(address)
            .ok_or(io::ErrorKind::AddrNotAvailable)?;
        let socket = if to.is_ipv6() { &self.v6 } else { &self.v4 };
        let socket = socket.as_ref().ok_or(io::ErrorKind::NotConnected)?;
        socket.send_to(packet, to).map(|_| ())
    }

    /// Waits for a reply-shaped packet from one of the addresses, `patience` at most.
    ///
    /// # Errors
    /// When the system cannot wait.
    pub fn receive(&self, patience: Duration) -> Result<Option<Received>, WireError> {
        let sockets: Vec<&UdpSocket> = [&self.v4, &self.v6].into_iter().flatten().collect();
        let mut fds: Vec<PollFd<'_>> = sockets
            .iter()
            .map(|socket| PollFd::new(*socket, PollFlags::IN))
            .collect();
        let timeout = Timespec::try_from(patience)
            .map_err(|_| WireError::Wait(io::ErrorKind::InvalidInput.into()))?;
        match poll(&mut fds, Some(&timeout)) {
            Ok(_) => {}
            Err(rustix::io::Errno::INTR) => return Ok(None),
            Err(errno) => return Err(WireError::Wait(errno.into())),
        }
        for socket in sockets {
            // One byte more than a reply, so that a longer packet is not taken for one.
            let mut buffer = [0; KNOCK_LEN + 1];
            while let Ok((length, from)) = socket.recv_from(&mut buffer) {
                let Some(address) = self
                    .addresses
                    .iter()
                    .position(|address| same(*address, from))
                else {
                    continue;
                };
                let Some(payload) = buffer
                    .get(..length)
                    .and_then(|payload| payload.try_into().ok())
                else {
                    continue;
                };
                return Ok(Some(Received { address, payload }));
            }
        }
        Ok(None)
    }
}

/// The same address and port; a scope is compared only where both name one.
fn same(a: SocketAddr, b: SocketAddr) -> bool {
    let scopes_agree = match (a, b) {
        (SocketAddr::V6(a), SocketAddr::V6(b)) => {
            a.scope_id() == 0 || b.scope_id() == 0 || a.scope_id() == b.scope_id()
        }
        (SocketAddr::V4(_) | SocketAddr::V6(_), _) => true,
    };
    a.ip() == b.ip() && a.port() == b.port() && scopes_agree
}

type Bound = (u16, Option<UdpSocket>, Option<UdpSocket>);

fn bind_both(addresses: &[SocketAddr], port: u16) -> io::Result<Bound> {
    let mut port = port;
    let (mut v4, mut v6) = (None, None);
    if addresses.iter().any(SocketAddr::is_ipv4) {
        let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, port))?;
        socket.set_nonblocking(true)?;
        port = socket.local_addr()?.port();
        v4 = Some(socket);
    }
    if addresses.iter().any(SocketAddr::is_ipv6) {
        let socket = bind_v6(port)?;
        port = socket.local_addr()?.port();
        v6 = Some(socket);
    }
    Ok((port, v4, v6))
}

/// IPv6 alone: a socket for both families would stand in the way of the IPv4 one.
fn bind_v6(port: u16) -> io::Result<UdpSocket> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket: OwnedFd = socket_with(
        AddressFamily::INET6,
        SocketType::DGRAM,
        flags,
        Some(ipproto::UDP),
    )?;
    sockopt::set_ipv6_v6only(&socket, true)?;
    bind(
        &socket,
        &SocketAddrV6::new(Ipv6Addr::UNSPECIFIED, port, 0, 0),
    )?;
    Ok(UdpSocket::from(socket))
}

/// The address our packets to `to` leave from, as the routing table has it; nothing is sent.
///
/// # Errors
/// When there is no way to it.
pub fn source_towards(to: SocketAddr) -> io::Result<IpAddr> {
    let any: IpAddr = if to.is_ipv6() {
        Ipv6Addr::UNSPECIFIED.into()
    } else {
        Ipv4Addr::UNSPECIFIED.into()
    };
    let socket = UdpSocket::bind((any, 0))?;
    socket.connect(to)?;
    Ok(socket.local_addr()?.ip())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn loopback(port: u16) -> SocketAddr {
        (Ipv4Addr::LOCALHOST, port).into()
    }

    #[test]
    fn families_alternate_and_none_comes_twice() {
        let a = |text: &str| text.parse::<SocketAddr>().expect("an address of the test");
        let found = vec![
            a("[2001:db8::1]:1"),
            a("[2001:db8::2]:1"),
            a("192.0.2.1:1"),
            a("192.0.2.1:1"),
            a("192.0.2.2:1"),
        ];
        assert_eq!(
            in_turn(found),
            [
                a("[2001:db8::1]:1"),
                a("192.0.2.1:1"),
                a("[2001:db8::2]:1"),
                a("192.0.2.2:1")
            ]
        );
        assert!(in_turn(Vec::new()).is_empty());
    }

    #[test]
    fn remembered_addresses_stand_in_for_a_name_server() {
        let remembered = [loopback(7)];
        let found = resolve("no-such-host.invalid", 7, &remembered).expect("remembered");
        assert_eq!(found, remembered);
        assert!(matches!(
            resolve("no-such-host.invalid", 7, &[]),
            Err(WireError::Resolve { .. })
        ));
    }

    #[test]
    fn only_a_reply_from_where_the_knock_went_is_seen() {
        let gateway = UdpSocket::bind(loopback(0)).expect("a loopback port");
        let stranger = UdpSocket::bind(loopback(0)).expect("a loopback port");
        let wire = Wire::open(vec![gateway.local_addr().expect("bound")]).expect("a port");
        wire.send(0, &[1; KNOCK_LEN]).expect("loopback takes it");
        let mut buffer = [0; KNOCK_LEN];
        let (_, client) = gateway.recv_from(&mut buffer).expect("it arrives");
        assert_eq!(client.port(), wire.port());

        stranger
            .send_to(&[2; KNOCK_LEN], client)
            .expect("loopback takes it");
        gateway
            .send_to(&[3; KNOCK_LEN - 1], client)
            .expect("loopback takes it");
        gateway
            .send_to(&[4; KNOCK_LEN + 1], client)
            .expect("loopback takes it");
        gateway
            .send_to(&[5; KNOCK_LEN], client)
            .expect("loopback takes it");
        let received = wire
            .receive(Duration::from_secs(5))
            .expect("readable")
            .expect("one is a reply");
        assert_eq!((received.address, received.payload), (0, [5; KNOCK_LEN]));
        assert!(wire.receive(Duration::ZERO).expect("readable").is_none());
    }

    #[test]
    fn the_port_can_be_lent_and_taken_back() {
        let mut wire = Wire::open(vec![loopback(9)]).expect("a port");
        let port = wire.port();
        wire.yield_port();
        let wireguard = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, port)).expect("it was given up");
        assert!(matches!(
            wire.retake_port(),
            Err(WireError::PortLost { .. })
        ));
        drop(wireguard);
        wire.retake_port().expect("it is free again");
        assert_eq!(wire.port(), port);
    }
}
