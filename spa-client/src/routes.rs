//! Which of the granted routes this machine can take, and what to say of the others.
//!
//! Invariant: no route leads the gateway's own address into the tunnel, which would cut the tunnel's carrier off.

use std::fs;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// A network: address and prefix length.
pub type Network = (IpAddr, u8);

/// What becomes of a granted route.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Judged {
    /// Taken.
    Taken(Network),
    /// Taken, and a network of this machine is under it or around it: this one.
    Overlaps(Network, Network),
    /// Refused: it contains this address of the gateway.
    ContainsGateway(Network, IpAddr),
}

impl Judged {
    /// The route, if it is taken.
    #[must_use]
    pub fn taken(&self) -> Option<Network> {
        match self {
            Self::Taken(route) | Self::Overlaps(route, _) => Some(*route),
            Self::ContainsGateway(..) => None,
        }
    }

    /// What to tell, if anything.
    #[must_use]
    pub fn warning(&self) -> Option<String> {
        match self {
            Self::Taken(_) => None,
            Self::Overlaps((address, prefix), (local, local_prefix)) => Some(format!(
                "{address}/{prefix} lies in the network {local}/{local_prefix} of this machine: while the session lasts it is reached through the tunnel"
            )),
            Self::ContainsGateway((address, prefix), gateway) => Some(format!(
                "route {address}/{prefix} is not taken: it contains the gateway's own address {gateway}, which must be reached outside the tunnel"
            )),
        }
    }
}

/// Judges each route against the gateway's outer addresses and the networks this machine is in.
#[must_use]
pub fn judge(routes: &[Network], gateway: &[IpAddr], local: &[Network]) -> Vec<Judged> {
    routes
        .iter()
        .map(|route| {
            if let Some(address) = gateway.iter().find(|address| contains(*route, **address)) {
                Judged::ContainsGateway(*route, *address)
            } else if let Some(network) = local.iter().find(|network| overlap(*route, **network)) {
                Judged::Overlaps(*route, *network)
            } else {
                Judged::Taken(*route)
            }
        })
        .collect()
}

/// The networks this machine is directly in, from the kernel's routing tables; empty where they cannot be read.
#[must_use]
pub fn local_networks(ours: &str) -> Vec<Network> {
    let read = |path| fs::read_to_string(path).unwrap_or_default();
    let mut networks = parse_v4(&read("/proc/self/net/route"), ours);
    networks.extend(parse_v6(&read("/proc/self/net/ipv6_route"), ours));
    networks
}

/// `/proc/net/route`: Iface Destination Gateway Flags RefCnt Use Metric Mask …, numbers as the machine stores them.
fn parse_v4(text: &str, ours: &str) -> Vec<Network> {
    text.lines()
        .skip(1)
        .filter_map(|line| {
            let words: Vec<&str> = line.split_whitespace().collect();
            let number = |index: usize| u32::from_str_radix(words.get(index)?, 16).ok();
            let (destination, gateway, mask) = (number(1)?, number(2)?, number(7)?);
            let direct = gateway == 0 && mask != 0 && *words.first()? != ours;
            let prefix = u8::try_from(mask.count_ones()).ok()?;
            direct.then(|| {
                (
                    IpAddr::V4(Ipv4Addr::from(destination.to_ne_bytes())),
                    prefix,
                )
            })
        })
        .collect()
}

/// `/proc/net/ipv6_route`: destination, its length, source, its length, next hop, metric, counters, flags, interface.
fn parse_v6(text: &str, ours: &str) -> Vec<Network> {
    text.lines()
        .filter_map(|line| {
            let words: Vec<&str> = line.split_whitespace().collect();
            let destination = Ipv6Addr::from(u128::from_str_radix(words.first()?, 16).ok()?);
            let prefix = u8::from_str_radix(words.get(1)?, 16).ok()?;
            let next_hop = u128::from_str_radix(words.get(4)?, 16).ok()?;
            let interface = *words.last()?;
            let everywhere = destination.is_unicast_link_local() || destination.is_multicast();
            // The kernel lists its own addresses as /128 by `lo`.
            let direct = next_hop == 0
                && prefix != 0
                && prefix != 128
                && interface != ours
                && interface != "lo";
            (direct && !everywhere).then_some((IpAddr::V6(destination), prefix))
        })
        .collect()
}

fn contains((network, prefix): Network, address: IpAddr) -> bool {
    match (network, address) {
        (IpAddr::V4(network), IpAddr::V4(address)) => {
            let kept = u32::MAX
                .checked_shl(32 - u32::from(prefix.min(32)))
                .unwrap_or(0);
            u32::from(network) & kept == u32::from(address) & kept
        }
        (IpAddr::V6(network), IpAddr::V6(address)) => {
            let kept = u128::MAX
                .checked_shl(128 - u32::from(prefix.min(128)))
                .unwrap_or(0);
            u128::from(network) & kept == u128::from(address) & kept
        }
        (IpAddr::V4(_), IpAddr::V6(_)) | (IpAddr::V6(_), IpAddr::V4(_)) => false,
    }
}

fn overlap(a: Network, b: Network) -> bool {
    if a.1 <= b.1 {
        contains(a, b.0)
    } else {
        contains(b, a.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn network(text: &str) -> Network {
        let (address, prefix) = text.split_once('/').expect("a network of the test");
        (
            address.parse().expect("an address"),
            prefix.parse().expect("a prefix"),
        )
    }

    fn address(text: &str) -> IpAddr {
        text.parse().expect("an address of the test")
    }

    #[test]
    fn a_route_that_contains_the_gateway_is_refused_and_said() {
        let judged = judge(
            &[network("198.51.100.0/24"), network("10.0.0.0/8")],
            &[address("198.51.100.10")],
            &[],
        );
        assert_eq!(judged[0].taken(), None);
        assert!(
            judged[0]
                .warning()
                .is_some_and(|line| line.contains("198.51.100.10"))
        );
        assert_eq!(judged[1], Judged::Taken(network("10.0.0.0/8")));
        let judged = judge(
            &[network("::/0"), network("0.0.0.0/0")],
            &[address("2001:db8::1"), address("192.0.2.1")],
            &[],
        );
        assert!(judged.iter().all(|one| one.taken().is_none()));
    }

    #[test]
    fn a_route_over_a_network_of_this_machine_is_taken_and_said() {
        let local = [network("192.168.1.0/24")];
        for route in ["192.168.1.7/32", "192.168.0.0/16", "192.168.1.0/24"] {
            let judged = judge(&[network(route)], &[], &local);
            assert!(
                judged[0].taken().is_some() && judged[0].warning().is_some(),
                "{route}"
            );
        }
        assert_eq!(
            judge(&[network("192.168.2.0/24")], &[], &local)[0].warning(),
            None
        );
    }

    #[test]
    fn the_kernels_tables_are_read() {
        let v4 = "Iface\tDestination\tGateway \tFlags\tRefCnt\tUse\tMetric\tMask\t\tMTU\tWindow\tIRTT\n\
                  eth0\t00000000\t0101A8C0\t0003\t0\t0\t0\t00000000\t0\t0\t0\n\
                  eth0\t0001A8C0\t00000000\t0001\t0\t0\t0\t00FFFFFF\t0\t0\t0\n\
                  spa-c1\t0005000A\t00000000\t0001\t0\t0\t0\t00FFFFFF\t0\t0\t0\n";
        if cfg!(target_endian = "little") {
            assert_eq!(parse_v4(v4, "spa-c1"), [network("192.168.1.0/24")]);
        }
        let v6 = "20010db8000000000000000000000000 40 00000000000000000000000000000000 00 00000000000000000000000000000000 00000100 00000001 00000000 00000001     eth0\n\
                  fe800000000000000000000000000000 40 00000000000000000000000000000000 00 00000000000000000000000000000000 00000100 00000001 00000000 00000001     eth0\n\
                  00000000000000000000000000000000 00 00000000000000000000000000000000 00 20010db8000000000000000000000001 00000400 00000001 00000000 00000003     eth0\n";
        assert_eq!(parse_v6(v6, "spa-c1"), [network("2001:db8::/64")]);
    }
}
