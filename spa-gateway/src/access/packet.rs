//! What the kernel says of a connection, as bytes: netlink messages, and the headers of a packet inside them.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use spa_gateway_core::{Bytes, Connection, Traffic};

/// `NFULNL_MSG_PACKET` of nfnetlink_log.
const LOGGED: u16 = 4 << 8;
/// `IPCTNL_MSG_CT_DELETE` of connection tracking.
const ENDED: u16 = (1 << 8) | 2;
/// Bytes of a netlink header, and of `struct nfgenmsg` behind it.
const HEADER_LEN: usize = 16;
const FAMILY_HEADER_LEN: usize = 4;
// include/uapi/linux/netfilter/nfnetlink_log.h
const NFULA_PAYLOAD: u16 = 9;
const NFULA_PREFIX: u16 = 10;
// include/uapi/linux/netfilter/nfnetlink_conntrack.h
const CTA_TUPLE_ORIG: u16 = 1;
const CTA_TUPLE_REPLY: u16 = 2;
const CTA_COUNTERS_ORIG: u16 = 9;
const CTA_COUNTERS_REPLY: u16 = 10;
const CTA_TUPLE_IP: u16 = 1;
const CTA_TUPLE_PROTO: u16 = 2;
const CTA_COUNTERS_BYTES: u16 = 2;
/// What the enforcer's rules write in front of a packet.
const ALLOWED: &[u8] = b"allowed\0";
const REFUSED: &[u8] = b"refused\0";
// Protocol numbers.
const HOP_BY_HOP: u8 = 0;
const ICMP: u8 = 1;
const ROUTING: u8 = 43;
const FRAGMENT: u8 = 44;
const ICMP6: u8 = 58;
const OPTIONS: u8 = 60;
const TCP: u8 = 6;
const UDP: u8 = 17;
/// How many extension headers are walked.
const MOST_EXTENSIONS: usize = 4;

/// Reads the messages of one datagram.
pub fn read(mut rest: &[u8], seen: &mut Vec<Traffic>) {
    while let Some(length) = word(rest, 0).and_then(|length| usize::try_from(length).ok()) {
        let Some(message) = rest.get(..length).filter(|_| length >= HEADER_LEN) else {
            return;
        };
        seen.extend(traffic(message));
        rest = rest.get(length.next_multiple_of(4)..).unwrap_or_default();
    }
}

fn traffic(message: &[u8]) -> Option<Traffic> {
    let kind = u16::from_ne_bytes(array(message, 4)?);
    let attributes = message.get(HEADER_LEN + FAMILY_HEADER_LEN..)?;
    match kind {
        LOGGED => {
            let connection = first_packet(attribute(attributes, NFULA_PAYLOAD)?)?;
            match attribute(attributes, NFULA_PREFIX)? {
                ALLOWED => Some(Traffic::Began(connection)),
                REFUSED => Some(Traffic::Refused(connection)),
                _ => None,
            }
        }
        ENDED => ended(attributes),
        _ => None,
    }
}

/// Finds one attribute: the upper two bits of its type say "nested" and "network byte order".
fn attribute(mut rest: &[u8], wanted: u16) -> Option<&[u8]> {
    loop {
        let length = usize::from(u16::from_ne_bytes(array(rest, 0)?));
        let kind = u16::from_ne_bytes(array(rest, 2)?) & 0x3FFF;
        let value = rest.get(4..length)?;
        if kind == wanted {
            return Some(value);
        }
        rest = rest.get(length.next_multiple_of(4)..)?;
    }
}

fn first_packet(packet: &[u8]) -> Option<Connection> {
    match packet.first()? >> 4 {
        4 => {
            let header = usize::from(packet.first()? & 0x0F) * 4;
            let fragment = u16::from_be_bytes(array(packet, 6)?) & 0x1FFF;
            let ends = (
                IpAddr::from(array::<4>(packet, 12)?),
                IpAddr::from(array::<4>(packet, 16)?),
            );
            let behind = packet.get(header..).filter(|_| fragment == 0);
            Some(connection(ends, *packet.get(9)?, behind))
        }
        6 => {
            let ends = (
                IpAddr::from(array::<16>(packet, 8)?),
                IpAddr::from(array::<16>(packet, 24)?),
            );
            let (protocol, behind) = behind_extensions(*packet.get(6)?, packet.get(40..)?);
            Some(connection(ends, protocol, behind))
        }
        _ => None,
    }
}

/// Gives the protocol behind the extension headers of IPv6, and its bytes if they are there.
fn behind_extensions(mut next: u8, mut rest: &[u8]) -> (u8, Option<&[u8]>) {
    for _ in 0..MOST_EXTENSIONS {
        let length = match next {
            HOP_BY_HOP | ROUTING | OPTIONS => {
                rest.get(1).map(|length| 8 * (usize::from(*length) + 1))
            }
            // The first fragment has the ports.
            FRAGMENT => array::<2>(rest, 2)
                .filter(|offset| u16::from_be_bytes(*offset) & 0xFFF8 == 0)
                .map(|_| 8),
            _ => return (next, Some(rest)),
        };
        let (Some(after), Some(behind)) =
            (rest.first(), length.and_then(|length| rest.get(length..)))
        else {
            return (next, None);
        };
        next = *after;
        rest = behind;
    }
    (next, None)
}

fn connection(
    (tunnel, destination): (IpAddr, IpAddr),
    protocol: u8,
    behind: Option<&[u8]>,
) -> Connection {
    let port = |at| {
        behind
            .and_then(|behind| array(behind, at))
            .map(u16::from_be_bytes)
    };
    let (tunnel_port, to) = match protocol {
        TCP | UDP => (port(0), port(2)),
        // The identifier of an echo.
        ICMP | ICMP6 => (port(4), None),
        _ => (None, None),
    };
    Connection {
        tunnel,
        tunnel_port: tunnel_port.unwrap_or(0),
        destination,
        protocol,
        port: to.unwrap_or(0),
    }
}

/// One end of a tuple: address, and port or identifier.
struct End {
    address: IpAddr,
    port: u16,
    protocol: u8,
}

fn ended(attributes: &[u8]) -> Option<Traffic> {
    // The answers come from where the packets went behind destination NAT.
    let client = sender(attribute(attributes, CTA_TUPLE_ORIG)?)?;
    let resource = sender(attribute(attributes, CTA_TUPLE_REPLY)?)?;
    let has_ports = matches!(client.protocol, TCP | UDP);
    let connection = Connection {
        tunnel: client.address,
        tunnel_port: client.port,
        destination: resource.address,
        protocol: client.protocol,
        port: if has_ports { resource.port } else { 0 },
    };
    let bytes = |counters| {
        let counters = attribute(attributes, counters)?;
        array(attribute(counters, CTA_COUNTERS_BYTES)?, 0).map(u64::from_be_bytes)
    };
    let bytes = bytes(CTA_COUNTERS_ORIG)
        .zip(bytes(CTA_COUNTERS_REPLY))
        .map(|(sent, received)| Bytes { sent, received });
    Some(Traffic::Ended(connection, bytes))
}

fn sender(tuple: &[u8]) -> Option<End> {
    let ip = attribute(tuple, CTA_TUPLE_IP)?;
    // CTA_IP_V4_SRC 1, CTA_IP_V6_SRC 3.
    let v4 = attribute(ip, 1)
        .and_then(|bytes| array(bytes, 0))
        .map(|octets: [u8; 4]| IpAddr::V4(Ipv4Addr::from(octets)));
    let v6 = attribute(ip, 3)
        .and_then(|bytes| array(bytes, 0))
        .map(|octets: [u8; 16]| IpAddr::V6(Ipv6Addr::from(octets)));
    let protocol = attribute(tuple, CTA_TUPLE_PROTO)?;
    // CTA_PROTO_NUM 1, CTA_PROTO_SRC_PORT 2, CTA_PROTO_ICMP_ID 4, CTA_PROTO_ICMPV6_ID 7.
    let number = *attribute(protocol, 1)?.first()?;
    let port = [2, 4, 7]
        .into_iter()
        .find_map(|kind| array(attribute(protocol, kind)?, 0));
    Some(End {
        address: v4.or(v6)?,
        port: port.map_or(0, u16::from_be_bytes),
        protocol: number,
    })
}

fn word(bytes: &[u8], at: usize) -> Option<u32> {
    array(bytes, at).map(u32::from_ne_bytes)
}

fn array<const N: usize>(bytes: &[u8], at: usize) -> Option<[u8; N]> {
    bytes.get(at..)?.first_chunk().copied()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn attribute_of(kind: u16, value: &[u8]) -> Vec<u8> {
        let length = u16::try_from(4 + value.len()).expect("short");
        let mut bytes = [length.to_ne_bytes(), kind.to_ne_bytes()].concat();
        bytes.extend(value);
        bytes.resize(bytes.len().next_multiple_of(4), 0);
        bytes
    }

    fn message(kind: u16, attributes: &[u8]) -> Vec<u8> {
        let length = u32::try_from(20 + attributes.len()).expect("short");
        let mut bytes = length.to_ne_bytes().to_vec();
        bytes.extend(kind.to_ne_bytes());
        bytes.resize(20, 0);
        bytes.extend(attributes);
        bytes
    }

    fn tcp() -> Vec<u8> {
        let mut packet = vec![0x45, 0, 0, 40, 0, 0, 0, 0, 64, TCP, 0, 0];
        packet.extend([10, 200, 0, 2, 10, 0, 5, 10]);
        packet.extend([0x9C, 0x40, 0x01, 0xBB]);
        packet
    }

    fn https() -> Connection {
        Connection {
            tunnel: [10, 200, 0, 2].into(),
            tunnel_port: 40_000,
            destination: [10, 0, 5, 10].into(),
            protocol: TCP,
            port: 443,
        }
    }

    fn all(bytes: &[u8]) -> Vec<Traffic> {
        let mut seen = Vec::new();
        read(bytes, &mut seen);
        seen
    }

    #[test]
    fn a_logged_packet_names_its_connection() {
        let of = |word: &[u8]| {
            let attributes = [
                attribute_of(NFULA_PREFIX, word),
                attribute_of(NFULA_PAYLOAD, &tcp()),
            ];
            message(LOGGED, &attributes.concat())
        };
        let both = [of(ALLOWED), of(REFUSED), of(b"other\0")].concat();
        assert_eq!(
            all(&both),
            [Traffic::Began(https()), Traffic::Refused(https())]
        );
    }

    #[test]
    fn a_packet_of_ipv6_is_read_behind_its_extension_headers_and_one_without_ports_has_none() {
        let mut packet = vec![0x60, 0, 0, 0, 0, 20, OPTIONS, 64];
        packet.extend([0xFD; 32]);
        packet.extend([UDP, 0, 0, 0, 0, 0, 0, 0]);
        packet.extend([0, 7, 0, 53]);
        let read = first_packet(&packet).expect("a packet");
        assert_eq!((read.tunnel_port, read.protocol, read.port), (7, UDP, 53));
        let mut fragment = tcp();
        fragment[7] = 1;
        assert_eq!(first_packet(&fragment).map(|read| read.port), Some(0));
        let cut = first_packet(&tcp()[..20]).expect("an IP header");
        assert_eq!((cut.protocol, cut.port), (TCP, 0));
    }

    #[test]
    fn an_end_has_the_resource_behind_destination_nat_and_its_bytes() {
        let tuple = |kind, from: [u8; 4], port: u16| {
            let ip = attribute_of(CTA_TUPLE_IP, &attribute_of(1, &from));
            let proto = [
                attribute_of(1, &[TCP]),
                attribute_of(2, &port.to_be_bytes()),
            ]
            .concat();
            let proto = attribute_of(CTA_TUPLE_PROTO, &proto);
            attribute_of(kind | 0x8000, &[ip, proto].concat())
        };
        let counted = |kind, bytes: u64| {
            attribute_of(
                kind,
                &attribute_of(CTA_COUNTERS_BYTES, &bytes.to_be_bytes()),
            )
        };
        let attributes = [
            tuple(CTA_TUPLE_ORIG, [10, 200, 0, 2], 40_000),
            tuple(CTA_TUPLE_REPLY, [10, 0, 5, 10], 443),
            counted(CTA_COUNTERS_ORIG, 700),
            counted(CTA_COUNTERS_REPLY, 1 << 33),
        ];
        let bytes = Bytes {
            sent: 700,
            received: 1 << 33,
        };
        let whole = message(ENDED, &attributes.concat());
        assert_eq!(all(&whole), [Traffic::Ended(https(), Some(bytes))]);
        let uncounted = message(ENDED, &attributes[..2].concat());
        assert_eq!(all(&uncounted), [Traffic::Ended(https(), None)]);
    }

    #[test]
    fn no_bytes_make_it_panic_or_go_on_for_ever() {
        let logged = [
            attribute_of(NFULA_PREFIX, ALLOWED),
            attribute_of(NFULA_PAYLOAD, &tcp()),
        ];
        let whole = message(LOGGED, &logged.concat());
        for end in 0..whole.len() {
            assert!(all(&whole[..end]).is_empty(), "{end}");
            for value in 0..=255 {
                let mut bytes = whole.clone();
                bytes[end] = value;
                assert!(all(&bytes).len() <= 1, "byte {end} = {value}");
            }
        }
    }
}
