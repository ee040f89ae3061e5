//! What an order may ask for at all. Built once from the flags; nothing the daemon says can change it.
//!
//! Invariant: an order that passes `check` opens nothing beyond `--max-ttl-ms`, nothing for an address
//! outside the tunnel pool, nothing into the pool, and no door for an address that is not a host's.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use spa_order::{Door, Flow, FlowTarget, MAX_WIDE_DOOR_MS, Order, Protocol, Reason, Ttl};

use crate::flags::Flags;

/// The limits.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Limits {
    max_ttl_ms: u32,
    /// The gateway's address and the pool around it, by family.
    pools: Vec<(IpAddr, u8)>,
    loopback: Loopback,
}

/// Whether a door may be for a loopback address.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Loopback {
    /// Nobody knocks from there.
    Outside,
    /// `lo` is a knock interface.
    Knocks,
}

impl Limits {
    /// Takes them from the flags.
    pub fn new(flags: &Flags) -> Self {
        let knocks = flags.plan.knock.iter().any(|name| name == "lo");
        Self {
            max_ttl_ms: flags.max_ttl_ms,
            pools: flags.plan.addresses.clone(),
            loopback: if knocks {
                Loopback::Knocks
            } else {
                Loopback::Outside
            },
        }
    }

    /// Judges an order by its content alone.
    ///
    /// # Errors
    /// The limit it breaks.
    pub fn check(&self, order: &Order) -> Result<(), Reason> {
        match order {
            Order::Key { private } => not_zero(private.expose()),
            Order::Peer {
                key,
                psk,
                tunnel4,
                tunnel6,
            } => {
                not_zero(key)?;
                not_zero(psk.expose())?;
                let addresses = tunnel4
                    .map(IpAddr::V4)
                    .into_iter()
                    .chain(tunnel6.map(IpAddr::V6));
                (tunnel4.is_some() || tunnel6.is_some())
                    .then_some(())
                    .ok_or(Reason::TunnelMissing)?;
                addresses
                    .into_iter()
                    .try_for_each(|address| self.tunnel(address))
            }
            Order::Psk { key, psk } => {
                not_zero(key)?;
                not_zero(psk.expose())
            }
            Order::Flow { flow, ttl } => {
                self.ttl(*ttl)?;
                self.flow(flow)
            }
            Order::Door { door, ttl } => {
                self.ttl(*ttl)?;
                let wide = door.port.is_none() && ttl.as_millis() > MAX_WIDE_DOOR_MS;
                (!wide).then_some(()).ok_or(Reason::TtlWideDoor)?;
                self.door(door)
            }
            Order::Forget { tunnel } => self.tunnel(*tunnel),
            // Closing takes away what only an order could have opened: an opening out of our limits is
            // not there, and is closed.
            Order::CloseFlow { .. } | Order::CloseDoor { .. } => Ok(()),
            Order::RemovePeer { .. } | Order::ReadPeer { .. } => Ok(()),
            Order::ListPeers | Order::ListOpenings | Order::CountConnections => Ok(()),
        }
    }

    fn ttl(&self, ttl: Ttl) -> Result<(), Reason> {
        (ttl.as_millis() <= self.max_ttl_ms)
            .then_some(())
            .ok_or(Reason::TtlLong)
    }

    /// An address of the pool that a peer may have.
    fn tunnel(&self, address: IpAddr) -> Result<(), Reason> {
        let pool = self.pools.iter().find(|pool| holds(**pool, address));
        let (ours, prefix) = *pool.ok_or(Reason::TunnelOutside)?;
        if address == ours {
            return Err(Reason::TunnelOurs);
        }
        // The first address names the network (IPv6: any router), the last IPv4 address everybody in it.
        let edge = match address {
            IpAddr::V4(v4) => {
                let host = u32::MAX >> prefix;
                matches!(u32::from(v4) & host, bits if bits == 0 || bits == host)
            }
            IpAddr::V6(v6) => u128::from(v6) & (u128::MAX >> prefix) == 0,
        };
        (!edge).then_some(()).ok_or(Reason::TunnelOutside)
    }

    fn flow(&self, flow: &Flow) -> Result<(), Reason> {
        self.tunnel(flow.tunnel)?;
        let same = flow.tunnel.is_ipv4() == flow.destination.is_ipv4();
        same.then_some(()).ok_or(Reason::FamilyMixed)?;
        prefix_fits(flow.destination, flow.prefix)?;
        let ports = match flow.protocol {
            Protocol::Tcp | Protocol::Udp => flow.ports.0 >= 1 && flow.ports.0 <= flow.ports.1,
            Protocol::Icmp => flow.ports == (0, 0),
        };
        ports.then_some(()).ok_or(Reason::Ports)?;
        if let Some(published) = flow.published {
            self.published(flow, published)?;
        }
        let network = (flow.destination, flow.prefix);
        let forbidden = FORBIDDEN
            .iter()
            .any(|forbidden| overlap(*forbidden, network));
        (!forbidden)
            .then_some(())
            .ok_or(Reason::DestinationForbidden)?;
        match flow.to {
            FlowTarget::Forward => {
                let inside = self.pools.iter().any(|pool| overlap(*pool, network));
                (!inside).then_some(()).ok_or(Reason::DestinationInPool)
            }
            FlowTarget::Gateway => {
                let one = flow.prefix == width(flow.destination);
                one.then_some(()).ok_or(Reason::GatewayPrefix)?;
                let ours = self
                    .pools
                    .iter()
                    .any(|(address, _)| *address == flow.destination);
                let inside = self.pools.iter().any(|pool| holds(*pool, flow.destination));
                (ours || !inside)
                    .then_some(())
                    .ok_or(Reason::DestinationInPool)
            }
        }
    }

    /// A session may know one host by another host's address. What it may reach by it is the destination's matter.
    fn published(&self, flow: &Flow, published: IpAddr) -> Result<(), Reason> {
        let one = flow.prefix == width(flow.destination) && flow.ports.0 == flow.ports.1;
        (one && flow.to == FlowTarget::Forward)
            .then_some(())
            .ok_or(Reason::PublishedWide)?;
        let same = published.is_ipv4() == flow.tunnel.is_ipv4();
        same.then_some(()).ok_or(Reason::FamilyMixed)?;
        let alone = (published, width(published));
        let mut others = FORBIDDEN.iter().chain(&self.pools);
        (!others.any(|other| overlap(*other, alone)))
            .then_some(())
            .ok_or(Reason::PublishedForbidden)
    }

    fn door(&self, door: &Door) -> Result<(), Reason> {
        if self.pools.iter().any(|pool| holds(*pool, door.source)) {
            return Err(Reason::SourceInPool);
        }
        let host = match (door.source, self.loopback) {
            (source, Loopback::Knocks) if source.is_loopback() => true,
            // Link-local IPv6 is a host's: knocks may come from the same wire.
            (IpAddr::V6(v6), _) if v6.is_unicast_link_local() => true,
            (source, _) => {
                let alone = (source, width(source));
                !FORBIDDEN.iter().any(|forbidden| overlap(*forbidden, alone))
            }
        };
        host.then_some(()).ok_or(Reason::SourceForbidden)
    }
}

const fn v4(a: u8, b: u8, c: u8, d: u8, prefix: u8) -> (IpAddr, u8) {
    (IpAddr::V4(Ipv4Addr::new(a, b, c, d)), prefix)
}

const fn v6(first: u16, last: u16, prefix: u8) -> (IpAddr, u8) {
    (
        IpAddr::V6(Ipv6Addr::new(first, 0, 0, 0, 0, 0, 0, last)),
        prefix,
    )
}

/// Where no ordinary host is (RFC 6890): this network, loopback, link-local (with the cloud's metadata
/// services), multicast, reserved and broadcast; the same of IPv6.
const FORBIDDEN: [(IpAddr, u8); 9] = [
    v4(0, 0, 0, 0, 8),
    v4(127, 0, 0, 0, 8),
    v4(169, 254, 0, 0, 16),
    v4(224, 0, 0, 0, 4),
    v4(240, 0, 0, 0, 4),
    v6(0, 0, 128),
    v6(0, 1, 128),
    v6(0xFE80, 0, 10),
    v6(0xFF00, 0, 8),
];

fn not_zero(key: &[u8; 32]) -> Result<(), Reason> {
    key.iter()
        .any(|byte| *byte != 0)
        .then_some(())
        .ok_or(Reason::KeyWeak)
}

fn width(address: IpAddr) -> u8 {
    if address.is_ipv4() { 32 } else { 128 }
}

/// The bits of an address, left-aligned in 128.
fn bits(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(v4) => u128::from(u32::from(v4)) << 96,
        IpAddr::V6(v6) => u128::from(v6),
    }
}

/// The first `prefix` bits.
fn head(address: IpAddr, prefix: u8) -> u128 {
    bits(address) & !u128::MAX.checked_shr(u32::from(prefix)).unwrap_or(0)
}

fn prefix_fits(address: IpAddr, prefix: u8) -> Result<(), Reason> {
    let fits = prefix <= width(address) && head(address, prefix) == bits(address);
    fits.then_some(()).ok_or(Reason::Prefix)
}

/// Whether two networks have an address in common.
fn overlap((a, a_prefix): (IpAddr, u8), (b, b_prefix): (IpAddr, u8)) -> bool {
    let common = a_prefix.min(b_prefix);
    a.is_ipv4() == b.is_ipv4() && head(a, common) == head(b, common)
}

fn holds((network, prefix): (IpAddr, u8), address: IpAddr) -> bool {
    overlap((network, prefix), (address, width(address)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use spa_order::SecretBytes32;
    use std::num::NonZeroU16;

    fn limits() -> Limits {
        Limits {
            max_ttl_ms: 3_600_000,
            pools: vec![
                ("10.200.0.1".parse().expect("address"), 16),
                ("fd5a:1::1".parse().expect("address"), 64),
            ],
            loopback: Loopback::Outside,
        }
    }

    fn ip(text: &str) -> IpAddr {
        text.parse().expect("address")
    }

    fn ttl(millis: u64) -> Ttl {
        Ttl::from_millis(millis).expect("in range")
    }

    fn flow() -> Flow {
        Flow {
            tunnel: ip("10.200.0.7"),
            to: FlowTarget::Forward,
            destination: ip("10.0.5.10"),
            prefix: 32,
            protocol: Protocol::Tcp,
            ports: (443, 443),
            published: None,
        }
    }

    fn check_flow(flow: Flow) -> Result<(), Reason> {
        limits().check(&Order::Flow {
            flow,
            ttl: ttl(1000),
        })
    }

    fn check_door(source: &str, port: u16, millis: u64) -> Result<(), Reason> {
        let door = Door {
            source: ip(source),
            port: NonZeroU16::new(port),
        };
        limits().check(&Order::Door {
            door,
            ttl: ttl(millis),
        })
    }

    fn check_peer(tunnel4: Option<&str>, tunnel6: Option<&str>) -> Result<(), Reason> {
        limits().check(&Order::Peer {
            key: [1; 32],
            psk: SecretBytes32::from_bytes([2; 32]),
            tunnel4: tunnel4.map(|text| text.parse().expect("address")),
            tunnel6: tunnel6.map(|text| text.parse().expect("address")),
        })
    }

    #[test]
    fn a_peer_has_an_address_of_the_pool_and_nobody_elses() {
        assert_eq!(check_peer(Some("10.200.0.7"), Some("fd5a:1::7")), Ok(()));
        assert_eq!(check_peer(Some("10.200.255.254"), None), Ok(()));
        assert_eq!(check_peer(None, None), Err(Reason::TunnelMissing));
        assert_eq!(
            check_peer(Some("10.201.0.7"), None),
            Err(Reason::TunnelOutside)
        );
        assert_eq!(
            check_peer(Some("10.200.0.7"), Some("fd5a:2::7")),
            Err(Reason::TunnelOutside)
        );
        assert_eq!(
            check_peer(Some("10.200.0.1"), None),
            Err(Reason::TunnelOurs)
        );
        assert_eq!(check_peer(None, Some("fd5a:1::1")), Err(Reason::TunnelOurs));
        assert_eq!(
            check_peer(Some("10.200.0.0"), None),
            Err(Reason::TunnelOutside)
        );
        assert_eq!(
            check_peer(Some("10.200.255.255"), None),
            Err(Reason::TunnelOutside)
        );
        assert_eq!(
            check_peer(None, Some("fd5a:1::")),
            Err(Reason::TunnelOutside)
        );
    }

    #[test]
    fn keys_of_zeros_are_refused() {
        let zeros = || SecretBytes32::from_bytes([0; 32]);
        assert_eq!(
            limits().check(&Order::Key { private: zeros() }),
            Err(Reason::KeyWeak)
        );
        let peer = |key, psk| Order::Peer {
            key,
            psk,
            tunnel4: None,
            tunnel6: None,
        };
        assert_eq!(
            limits().check(&peer([1; 32], zeros())),
            Err(Reason::KeyWeak)
        );
        let psk = SecretBytes32::from_bytes([1; 32]);
        assert_eq!(limits().check(&peer([0; 32], psk)), Err(Reason::KeyWeak));
        let rekeyed = Order::Psk {
            key: [1; 32],
            psk: zeros(),
        };
        assert_eq!(limits().check(&rekeyed), Err(Reason::KeyWeak));
    }

    #[test]
    fn a_flow_leads_to_an_ordinary_host_outside_the_pool() {
        let to = |destination: &str, prefix| {
            check_flow(Flow {
                destination: ip(destination),
                prefix,
                ..flow()
            })
        };
        assert_eq!(to("10.0.5.10", 32), Ok(()));
        assert_eq!(to("10.0.6.0", 28), Ok(()));
        assert_eq!(to("10.200.0.8", 32), Err(Reason::DestinationInPool));
        assert_eq!(to("10.200.0.1", 32), Err(Reason::DestinationInPool));
        assert_eq!(to("10.0.0.0", 8), Err(Reason::DestinationInPool));
        assert_eq!(to("0.0.0.0", 0), Err(Reason::DestinationForbidden));
        for forbidden in [
            "127.0.0.1",
            "224.0.0.1",
            "169.254.169.254",
            "255.255.255.255",
            "0.0.0.0",
        ] {
            assert_eq!(
                to(forbidden, 32),
                Err(Reason::DestinationForbidden),
                "{forbidden}"
            );
        }
        assert_eq!(to("fd00::1", 128), Err(Reason::FamilyMixed));
        assert_eq!(to("10.0.6.1", 28), Err(Reason::Prefix));
        assert_eq!(to("10.0.6.0", 33), Err(Reason::Prefix));
        let six = Flow {
            tunnel: ip("fd5a:1::7"),
            prefix: 128,
            ..flow()
        };
        assert_eq!(
            check_flow(Flow {
                destination: ip("fd00::1"),
                ..six
            }),
            Ok(())
        );
        for forbidden in ["::1", "::", "fe80::1", "ff02::1"] {
            let order = Flow {
                destination: ip(forbidden),
                ..six
            };
            assert_eq!(
                check_flow(order),
                Err(Reason::DestinationForbidden),
                "{forbidden}"
            );
        }
    }

    #[test]
    fn a_flow_to_the_gateway_is_for_one_address() {
        let to = |destination: &str, prefix| {
            let to = FlowTarget::Gateway;
            check_flow(Flow {
                to,
                destination: ip(destination),
                prefix,
                ..flow()
            })
        };
        assert_eq!(to("10.200.0.1", 32), Ok(()));
        assert_eq!(to("10.0.5.1", 32), Ok(()));
        assert_eq!(to("10.200.0.2", 32), Err(Reason::DestinationInPool));
        assert_eq!(to("10.0.5.0", 24), Err(Reason::GatewayPrefix));
    }

    #[test]
    fn a_published_address_stands_for_one_host_and_one_port() {
        let named = |published: &str| Flow {
            published: Some(ip(published)),
            ..flow()
        };
        assert_eq!(check_flow(named("10.99.0.1")), Ok(()));
        let wide = [
            Flow {
                prefix: 24,
                destination: ip("10.0.5.0"),
                ..named("10.99.0.1")
            },
            Flow {
                ports: (1, 2),
                ..named("10.99.0.1")
            },
            Flow {
                to: FlowTarget::Gateway,
                ..named("10.99.0.1")
            },
        ];
        for flow in wide {
            assert_eq!(check_flow(flow), Err(Reason::PublishedWide), "{flow:?}");
        }
        assert_eq!(check_flow(named("fd99::1")), Err(Reason::FamilyMixed));
        for forbidden in ["127.0.0.1", "224.0.0.1", "10.200.0.1", "10.200.0.8"] {
            let refused = check_flow(named(forbidden));
            assert_eq!(refused, Err(Reason::PublishedForbidden), "{forbidden}");
        }
        // It stands for nothing that could not be reached without it.
        let inside = Flow {
            destination: ip("10.200.0.8"),
            ..named("10.99.0.1")
        };
        assert_eq!(check_flow(inside), Err(Reason::DestinationInPool));
    }

    #[test]
    fn ports_fit_the_protocol() {
        let with = |protocol, ports| {
            check_flow(Flow {
                protocol,
                ports,
                ..flow()
            })
        };
        assert_eq!(with(Protocol::Udp, (1, 65_535)), Ok(()));
        assert_eq!(with(Protocol::Icmp, (0, 0)), Ok(()));
        assert_eq!(with(Protocol::Tcp, (0, 5)), Err(Reason::Ports));
        assert_eq!(with(Protocol::Tcp, (6, 5)), Err(Reason::Ports));
        assert_eq!(with(Protocol::Icmp, (0, 8)), Err(Reason::Ports));
    }

    #[test]
    fn a_door_is_for_a_host_that_is_not_ours() {
        assert_eq!(check_door("198.51.100.7", 40_000, 1000), Ok(()));
        assert_eq!(check_door("2001:db8::7", 0, 1000), Ok(()));
        assert_eq!(check_door("fe80::7", 1, 1000), Ok(()));
        assert_eq!(check_door("10.200.0.9", 1, 1000), Err(Reason::SourceInPool));
        for forbidden in [
            "0.0.0.0",
            "127.0.0.1",
            "224.0.0.1",
            "255.255.255.255",
            "::",
            "::1",
            "ff02::1",
        ] {
            assert_eq!(
                check_door(forbidden, 1, 1000),
                Err(Reason::SourceForbidden),
                "{forbidden}"
            );
        }
    }

    #[test]
    fn no_ttl_is_longer_than_the_flag_says() {
        assert_eq!(check_door("198.51.100.7", 1, 3_600_000), Ok(()));
        assert_eq!(
            check_door("198.51.100.7", 1, 3_600_001),
            Err(Reason::TtlLong)
        );
        assert_eq!(check_door("198.51.100.7", 0, 30_000), Ok(()));
        assert_eq!(
            check_door("198.51.100.7", 0, 30_001),
            Err(Reason::TtlWideDoor)
        );
        let flow = Order::Flow {
            flow: flow(),
            ttl: ttl(3_600_001),
        };
        assert_eq!(limits().check(&flow), Err(Reason::TtlLong));
    }

    #[test]
    fn only_a_tunnel_address_is_forgotten() {
        assert_eq!(
            limits().check(&Order::Forget {
                tunnel: ip("10.200.0.7")
            }),
            Ok(())
        );
        let other = Order::Forget {
            tunnel: ip("192.168.1.1"),
        };
        assert_eq!(limits().check(&other), Err(Reason::TunnelOutside));
    }
}
