//! How a door or a flow is written as an element, and read back.
//!
//! Invariant: `opening(set, key(o)) == o` for every opening, so that a list shows what was ordered.
//! Every field of a key is padded to four bytes, as the kernel's registers are.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::num::NonZeroU16;

use spa_order::{Door, Flow, FlowTarget, Opening, Protocol};

use super::sets::{Content, Family, Set};

const TCP: u8 = 6;
const UDP: u8 = 17;
const ICMP: u8 = 1;
const ICMP6: u8 = 58;

/// First and last key; equal where the set has no intervals.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Key {
    /// The first.
    pub first: Vec<u8>,
    /// The last, in interval sets.
    pub last: Option<Vec<u8>>,
}

/// The family of an address.
pub fn family(address: IpAddr) -> Family {
    match address {
        IpAddr::V4(_) => Family::V4,
        IpAddr::V6(_) => Family::V6,
    }
}

/// The bits of a prefix length, as an address of that family has them.
pub fn mask(family: Family, prefix: u8) -> Vec<u8> {
    let (bits, bytes) = match family {
        Family::V4 => (32, 4),
        Family::V6 => (128, 16),
    };
    let host_bits = bits - u32::from(prefix).min(bits);
    let mask = u128::MAX.checked_shl(host_bits).unwrap_or(0).to_be_bytes();
    mask[16 - bytes..].to_vec()
}

/// The last address of a network.
pub fn last_address(network: IpAddr, prefix: u8) -> IpAddr {
    match network {
        IpAddr::V4(v4) => {
            let host = u32::MAX.checked_shr(u32::from(prefix)).unwrap_or(0);
            IpAddr::V4(Ipv4Addr::from(u32::from(v4) | host))
        }
        IpAddr::V6(v6) => {
            let host = u128::MAX.checked_shr(u32::from(prefix)).unwrap_or(0);
            IpAddr::V6(Ipv6Addr::from(u128::from(v6) | host))
        }
    }
}

/// Which content an opening belongs to, and its key there.
pub fn key(opening: &Opening) -> (Content, Family, Key) {
    match opening {
        Opening::Door(door) => door_key(door),
        Opening::Flow(flow) => flow_key(flow),
    }
}

fn door_key(door: &Door) -> (Content, Family, Key) {
    let mut first = octets(door.source);
    let content = match door.port {
        Some(port) => {
            push_port(&mut first, port.get());
            Content::Door
        }
        None => Content::WideDoor,
    };
    (content, family(door.source), Key { first, last: None })
}

fn flow_key(flow: &Flow) -> (Content, Family, Key) {
    let family = family(flow.tunnel);
    let width = match family {
        Family::V4 => 32,
        Family::V6 => 128,
    };
    let exact = flow.prefix == width && flow.ports.0 == flow.ports.1;
    let content = match (flow.to, exact) {
        (FlowTarget::Forward, true) => Content::Flow,
        (FlowTarget::Forward, false) => Content::FlowRange,
        (FlowTarget::Gateway, true) => Content::Own,
        (FlowTarget::Gateway, false) => Content::OwnRange,
    };
    let bound = |destination: IpAddr, port: u16| {
        let mut key = octets(flow.tunnel);
        key.extend(octets(destination));
        key.extend([protocol_number(flow.protocol, family), 0, 0, 0]);
        push_port(&mut key, port);
        key
    };
    let first = bound(flow.destination, flow.ports.0);
    let last = (!exact).then(|| bound(last_address(flow.destination, flow.prefix), flow.ports.1));
    (content, family, Key { first, last })
}

/// Under which key a published address is found, and where it leads; `None` for a flow without.
pub fn name_key(flow: &Flow) -> Option<(Family, Key, Vec<u8>)> {
    let known = Flow {
        destination: flow.published?,
        ..*flow
    };
    let (_, family, key) = flow_key(&known);
    Some((family, key, octets(flow.destination)))
}

/// What a published address stands for, as it is found in its map: the flow without, and the address.
pub fn named(family: Family, key: &[u8], leads_to: &[u8]) -> Option<(Flow, IpAddr)> {
    let key = Key {
        first: key.to_vec(),
        last: None,
    };
    let Opening::Flow(known) = flow(family, FlowTarget::Forward, &key)? else {
        return None;
    };
    let destination = Fields(leads_to).address(family)?;
    let flow = Flow {
        destination,
        ..known
    };
    Some((flow, known.destination))
}

/// The IP protocol number of a flow.
fn protocol_number(protocol: Protocol, family: Family) -> u8 {
    match (protocol, family) {
        (Protocol::Tcp, _) => TCP,
        (Protocol::Udp, _) => UDP,
        (Protocol::Icmp, Family::V4) => ICMP,
        (Protocol::Icmp, Family::V6) => ICMP6,
    }
}

fn octets(address: IpAddr) -> Vec<u8> {
    match address {
        IpAddr::V4(v4) => v4.octets().to_vec(),
        IpAddr::V6(v6) => v6.octets().to_vec(),
    }
}

fn push_port(key: &mut Vec<u8>, port: u16) {
    key.extend(port.to_be_bytes());
    key.extend([0, 0]);
}

/// The opening an element of a set stands for; `None` for one that is not of our making.
pub fn opening(set: &Set, key: &Key) -> Option<Opening> {
    let mut first = Fields(&key.first);
    match set.content {
        Content::Door => {
            let source = first.address(set.family)?;
            let port = Some(NonZeroU16::new(first.port()?)?);
            Some(Opening::Door(Door { source, port }))
        }
        Content::WideDoor => Some(Opening::Door(Door {
            source: first.address(set.family)?,
            port: None,
        })),
        Content::Flow | Content::FlowRange => flow(set.family, FlowTarget::Forward, key),
        Content::Own | Content::OwnRange => flow(set.family, FlowTarget::Gateway, key),
        Content::Name => None,
    }
}

fn flow(family: Family, to: FlowTarget, key: &Key) -> Option<Opening> {
    let mut first = Fields(&key.first);
    let mut last = Fields(key.last.as_ref().unwrap_or(&key.first));
    let tunnel = first.address(family)?;
    last.address(family)?;
    let destination = first.address(family)?;
    let prefix = prefix_between(destination, last.address(family)?)?;
    let protocol = match first.protocol()? {
        TCP => Protocol::Tcp,
        UDP => Protocol::Udp,
        ICMP | ICMP6 => Protocol::Icmp,
        _ => return None,
    };
    last.protocol()?;
    let ports = (first.port()?, last.port()?);
    Some(Opening::Flow(Flow {
        tunnel,
        to,
        destination,
        prefix,
        protocol,
        ports,
        published: None,
    }))
}

/// The prefix length of the network from `first` to `last`.
fn prefix_between(first: IpAddr, last: IpAddr) -> Option<u8> {
    let width = if first.is_ipv4() { 32 } else { 128 };
    (0..=width)
        .rev()
        .find(|prefix| last_address(first, *prefix) == last)
}

/// Reads a key field by field.
struct Fields<'a>(&'a [u8]);

impl Fields<'_> {
    fn take<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (part, rest) = self.0.split_first_chunk()?;
        self.0 = rest;
        Some(*part)
    }

    fn address(&mut self, family: Family) -> Option<IpAddr> {
        match family {
            Family::V4 => self.take::<4>().map(|octets| IpAddr::V4(octets.into())),
            Family::V6 => self.take::<16>().map(|octets| IpAddr::V6(octets.into())),
        }
    }

    fn protocol(&mut self) -> Option<u8> {
        self.take().map(|[protocol, _, _, _]| protocol)
    }

    fn port(&mut self) -> Option<u16> {
        self.take()
            .map(|[high, low, _, _]| u16::from_be_bytes([high, low]))
    }
}

#[cfg(test)]
mod tests {
    use super::super::sets::{SETS, sets_of};
    use super::*;

    fn flow(
        tunnel: &str,
        destination: &str,
        prefix: u8,
        protocol: Protocol,
        ports: (u16, u16),
    ) -> Flow {
        Flow {
            tunnel: tunnel.parse().expect("address"),
            to: FlowTarget::Forward,
            destination: destination.parse().expect("address"),
            prefix,
            protocol,
            ports,
            published: None,
        }
    }

    #[test]
    fn every_opening_comes_back_from_its_key() {
        let door = |source: &str, port| {
            Opening::Door(Door {
                source: source.parse().expect("address"),
                port: NonZeroU16::new(port),
            })
        };
        let mut all = vec![
            door("198.51.100.7", 40_000),
            door("198.51.100.7", 0),
            door("2001:db8::7", 1),
            door("2001:db8::7", 0),
        ];
        for to in [FlowTarget::Forward, FlowTarget::Gateway] {
            for one in [
                flow("10.200.0.7", "10.0.5.10", 32, Protocol::Tcp, (443, 443)),
                flow("10.200.0.7", "10.0.5.10", 32, Protocol::Udp, (1, 65_535)),
                flow("10.200.0.7", "10.0.6.0", 28, Protocol::Tcp, (5432, 5432)),
                flow("10.200.0.7", "10.0.5.10", 32, Protocol::Icmp, (0, 0)),
                flow("10.200.0.7", "0.0.0.0", 0, Protocol::Icmp, (0, 0)),
                flow("fd5a:1::7", "fd00::1", 128, Protocol::Icmp, (0, 0)),
                flow("fd5a:1::7", "fd00::", 64, Protocol::Tcp, (80, 90)),
            ] {
                all.push(Opening::Flow(Flow { to, ..one }));
            }
        }
        for wanted in all {
            let (content, family, key) = key(&wanted);
            let set = sets_of(content, family).next().expect("a set");
            assert_eq!(opening(set, &key), Some(wanted));
            let len = usize::try_from(set.shape().key_len).expect("small");
            assert_eq!(key.first.len(), len);
            assert!(key.last.is_none_or(|last| last.len() == len));
        }
    }

    #[test]
    fn a_published_address_comes_back_from_its_map() {
        for (tunnel, destination, prefix, published) in [
            ("10.200.0.7", "10.0.5.10", 32, "10.99.0.1"),
            ("fd5a:1::7", "fd00::1", 128, "fd99::1"),
        ] {
            let published: IpAddr = published.parse().expect("address");
            let plain = flow(tunnel, destination, prefix, Protocol::Tcp, (443, 443));
            assert_eq!(name_key(&plain), None);
            let (family, key, data) = name_key(&Flow {
                published: Some(published),
                ..plain
            })
            .expect("published");
            assert_eq!(named(family, &key.first, &data), Some((plain, published)));
            assert_eq!(named(family, &key.first, &data[1..]), None);
        }
    }

    #[test]
    fn a_key_of_another_length_or_protocol_is_none_of_ours() {
        for set in &SETS {
            let short = Key {
                first: vec![0; 3],
                last: None,
            };
            assert_eq!(opening(set, &short), None);
        }
        let mut first = vec![10, 200, 0, 7, 10, 0, 5, 10, 47, 0, 0, 0, 0, 0, 0, 0];
        let flows = sets_of(Content::Flow, Family::V4).next().expect("a set");
        assert_eq!(
            opening(
                flows,
                &Key {
                    first: first.clone(),
                    last: None
                }
            ),
            None
        );
        first[8] = TCP;
        assert!(opening(flows, &Key { first, last: None }).is_some());
    }

    #[test]
    fn masks_are_as_wide_as_their_family() {
        assert_eq!(mask(Family::V4, 16), [255, 255, 0, 0]);
        assert_eq!(mask(Family::V4, 0), [0; 4]);
        assert_eq!(mask(Family::V4, 32), [255; 4]);
        assert_eq!(mask(Family::V6, 0), [0; 16]);
        assert_eq!(mask(Family::V6, 128), [255; 16]);
        assert_eq!(mask(Family::V6, 9)[..3], [255, 128, 0]);
    }
}
