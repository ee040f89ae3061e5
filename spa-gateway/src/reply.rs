//! The one packet that leaves for a knock: from the knocked address and port, never larger than the knock.
//!
//! `WireGuard` owns the port, so the reply goes through a raw socket with its headers
//! built here. The sockets come from the enforcer; IPv4 and IPv6 have one each.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV4, SocketAddrV6};
use std::os::fd::OwnedFd;

use rustix::net::SendFlags;

use crate::checksum;

/// Bytes of every reply (SPEC §6).
pub const REPLY_LEN: usize = 512;
/// The hop limit of our own packets, as Linux has it by default.
const HOPS: u8 = 64;
const UDP_LEN: u16 = 8 + 512;
const IPV4_LEN: u16 = 20 + UDP_LEN;

/// The raw sockets replies leave through.
#[derive(Debug)]
pub struct ReplySockets {
    /// IPv4.
    pub v4: OwnedFd,
    /// IPv6, where the kernel has it.
    pub v6: Option<OwnedFd>,
}

impl ReplySockets {
    /// Sends one reply, or drops it when the socket has no room: the client repeats its knock.
    ///
    /// # Errors
    /// What the kernel refuses; addresses of two families; IPv6 without a socket for it.
    pub fn send(
        &self,
        from: SocketAddr,
        to: SocketAddr,
        payload: &[u8; REPLY_LEN],
    ) -> io::Result<()> {
        let bytes = packet(from, to, payload)
            .ok_or_else(|| io::Error::other("addresses of two families"))?;
        // The port of a raw socket's address is a protocol or must be 0.
        let sent = match to {
            SocketAddr::V4(to) => {
                let to = SocketAddrV4::new(*to.ip(), 0);
                rustix::net::sendto(&self.v4, &bytes, SendFlags::DONTWAIT, &to)
            }
            SocketAddr::V6(to) => {
                let to = SocketAddrV6::new(*to.ip(), 0, 0, to.scope_id());
                let socket = self
                    .v6
                    .as_ref()
                    .ok_or_else(|| io::Error::from(io::ErrorKind::Unsupported))?;
                rustix::net::sendto(socket, &bytes, SendFlags::DONTWAIT, &to)
            }
        };
        sent.map(|_| ()).map_err(io::Error::from)
    }
}

/// Builds the whole IP packet; `None` for addresses of two families.
pub(crate) fn packet(
    from: SocketAddr,
    to: SocketAddr,
    payload: &[u8; REPLY_LEN],
) -> Option<Vec<u8>> {
    let mut bytes = match (from.ip(), to.ip()) {
        (IpAddr::V4(from), IpAddr::V4(to)) => ipv4_header(from, to),
        (IpAddr::V6(from), IpAddr::V6(to)) => ipv6_header(from, to),
        (IpAddr::V4(_), IpAddr::V6(_)) | (IpAddr::V6(_), IpAddr::V4(_)) => return None,
    };
    let mut udp = Vec::with_capacity(usize::from(UDP_LEN));
    udp.extend(from.port().to_be_bytes());
    udp.extend(to.port().to_be_bytes());
    udp.extend(UDP_LEN.to_be_bytes());
    let head = checksum::add(checksum::pseudo_header(from.ip(), to.ip(), UDP_LEN), &udp);
    // Zero means "none" (RFC 768); its other spelling says the same sum.
    let sum = match !checksum::add(head, payload) {
        0 => 0xFFFF,
        sum => sum,
    };
    udp.extend(sum.to_be_bytes());
    bytes.extend(udp);
    bytes.extend(payload);
    Some(bytes)
}

fn ipv4_header(from: Ipv4Addr, to: Ipv4Addr) -> Vec<u8> {
    let mut header = Vec::with_capacity(usize::from(IPV4_LEN));
    header.extend([0x45, 0]);
    header.extend(IPV4_LEN.to_be_bytes());
    // No identification and do-not-fragment (RFC 6864): 540 bytes pass everywhere.
    header.extend([0, 0, 0x40, 0, HOPS, checksum::UDP, 0, 0]);
    header.extend(from.octets());
    header.extend(to.octets());
    let sum = !checksum::add(0, &header);
    header.splice(10..12, sum.to_be_bytes());
    header
}

fn ipv6_header(from: Ipv6Addr, to: Ipv6Addr) -> Vec<u8> {
    let mut header = Vec::with_capacity(40 + usize::from(UDP_LEN));
    header.extend([0x60, 0, 0, 0]);
    header.extend(UDP_LEN.to_be_bytes());
    header.extend([checksum::UDP, HOPS]);
    header.extend(from.octets());
    header.extend(to.octets());
    header
}

#[cfg(test)]
mod tests {
    use super::*;
    use pnet::packet::Packet;
    use pnet::packet::ipv4::{self, Ipv4Packet};
    use pnet::packet::ipv6::Ipv6Packet;
    use pnet::packet::udp::{self, UdpPacket};

    const PAYLOAD: [u8; REPLY_LEN] = [0xC3; REPLY_LEN];

    #[test]
    fn an_ipv4_reply_is_540_right_bytes() {
        let from = "198.51.100.10:51820".parse().expect("address");
        let to = "192.0.2.1:40000".parse().expect("address");
        let bytes = packet(from, to, &PAYLOAD).expect("one family");
        assert_eq!(bytes.len(), 540);
        let ip = Ipv4Packet::new(&bytes).expect("header");
        assert_eq!(ip.get_checksum(), ipv4::checksum(&ip));
        assert_eq!(ip.get_source().to_string(), "198.51.100.10");
        assert_eq!(ip.get_destination().to_string(), "192.0.2.1");
        assert_eq!(usize::from(ip.get_total_length()), bytes.len());
        let datagram = UdpPacket::new(ip.payload()).expect("udp");
        assert_eq!(datagram.get_source(), 51_820);
        assert_eq!(datagram.get_destination(), 40_000);
        assert_eq!(
            datagram.get_checksum(),
            udp::ipv4_checksum(&datagram, &ip.get_source(), &ip.get_destination())
        );
        assert_eq!(datagram.payload(), PAYLOAD);
    }

    #[test]
    fn an_ipv6_reply_is_560_right_bytes() {
        let from = "[2001:db8::2]:51820".parse().expect("address");
        let to = "[2001:db8::1]:40000".parse().expect("address");
        let bytes = packet(from, to, &PAYLOAD).expect("one family");
        assert_eq!(bytes.len(), 560);
        let ip = Ipv6Packet::new(&bytes).expect("header");
        assert_eq!(ip.get_version(), 6);
        let datagram = UdpPacket::new(ip.payload()).expect("udp");
        assert_eq!(
            datagram.get_checksum(),
            udp::ipv6_checksum(&datagram, &ip.get_source(), &ip.get_destination())
        );
    }

    #[test]
    fn a_sum_of_zero_is_sent_as_ones() {
        let from: SocketAddr = "198.51.100.10:51820".parse().expect("address");
        let to: SocketAddr = "192.0.2.1:40000".parse().expect("address");
        let mut payload = [0; REPLY_LEN];
        let bytes = packet(from, to, &payload).expect("one family");
        let sum = u16::from_be_bytes([bytes[26], bytes[27]]);
        payload[..2].copy_from_slice(&sum.to_be_bytes());
        let bytes = packet(from, to, &payload).expect("one family");
        assert_eq!(bytes[26..28], [0xFF, 0xFF]);
    }

    #[test]
    fn two_families_are_no_reply() {
        let v4 = "198.51.100.10:1".parse().expect("address");
        let v6 = "[2001:db8::2]:1".parse().expect("address");
        assert!(packet(v4, v6, &PAYLOAD).is_none());
    }
}
