//! IP packets as the harness needs them: taken apart when captured, put together when a scanner or a thief sends one.

use std::net::{IpAddr, SocketAddr};

/// Protocol numbers (IANA).
pub const ICMP: u8 = 1;
/// TCP.
pub const TCP: u8 = 6;
/// UDP.
pub const UDP: u8 = 17;
/// ICMP for IPv6.
pub const ICMP6: u8 = 58;

/// One packet off the wire.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Packet {
    /// Who sent it; port 0 where the protocol has none.
    pub source: SocketAddr,
    /// Whom it is for.
    pub destination: SocketAddr,
    /// Protocol number of the transport.
    pub protocol: u8,
    /// What follows the UDP header, or everything after the IP header for other protocols.
    pub payload: Vec<u8>,
}

impl Packet {
    /// Takes an IP packet apart; `None` when it is too short to be one.
    pub fn parse(bytes: &[u8]) -> Option<Self> {
        let (source, destination, protocol, rest) = match bytes.first()? >> 4 {
            4 => {
                let header = usize::from(bytes[0] & 15) * 4;
                let total = usize::from(u16::from_be_bytes(bytes.get(2..4)?.try_into().ok()?));
                let source: [u8; 4] = bytes.get(12..16)?.try_into().ok()?;
                let destination: [u8; 4] = bytes.get(16..20)?.try_into().ok()?;
                let rest = bytes.get(header..total.min(bytes.len()))?;
                (source.into(), destination.into(), bytes[9], rest)
            }
            6 => {
                let length = usize::from(u16::from_be_bytes(bytes.get(4..6)?.try_into().ok()?));
                let source: [u8; 16] = bytes.get(8..24)?.try_into().ok()?;
                let destination: [u8; 16] = bytes.get(24..40)?.try_into().ok()?;
                // Hop-by-hop options (0) stand before MLD reports only; they are skipped.
                let mut next = bytes[6];
                let mut rest = bytes.get(40..bytes.len().min(40 + length))?;
                if next == 0 {
                    next = *rest.first()?;
                    rest = rest.get(8 + usize::from(*rest.get(1)?) * 8..)?;
                }
                (source.into(), destination.into(), next, rest)
            }
            _ => return None,
        };
        let ports = match protocol {
            TCP | UDP => (
                u16::from_be_bytes(rest.get(0..2)?.try_into().ok()?),
                u16::from_be_bytes(rest.get(2..4)?.try_into().ok()?),
            ),
            _ => (0, 0),
        };
        let payload = match protocol {
            UDP => rest.get(8..)?,
            _ => rest,
        };
        let (source, destination): (IpAddr, IpAddr) = (source, destination);
        Some(Self {
            source: SocketAddr::new(source, ports.0),
            destination: SocketAddr::new(destination, ports.1),
            protocol,
            payload: payload.to_vec(),
        })
    }

    /// A UDP packet.
    pub fn udp(source: SocketAddr, destination: SocketAddr, payload: &[u8]) -> Self {
        Self {
            source,
            destination,
            protocol: UDP,
            payload: payload.to_vec(),
        }
    }

    /// A TCP SYN without options.
    pub fn syn(source: SocketAddr, destination: SocketAddr) -> Self {
        Self::tcp(source, destination, 0x02)
    }

    /// A TCP segment without options or data, with these flags.
    pub fn tcp(source: SocketAddr, destination: SocketAddr, flags: u8) -> Self {
        let mut header = [0_u8; 20];
        header[0..2].copy_from_slice(&source.port().to_be_bytes());
        header[2..4].copy_from_slice(&destination.port().to_be_bytes());
        header[4..8].copy_from_slice(&0x1234_5678_u32.to_be_bytes());
        header[12] = 5 << 4;
        header[13] = flags;
        header[14..16].copy_from_slice(&64240_u16.to_be_bytes());
        Self {
            source,
            destination,
            protocol: TCP,
            payload: header.to_vec(),
        }
    }

    /// A packet of any other protocol; the payload is everything after the IP header, its checksum zero.
    pub fn raw(source: IpAddr, destination: IpAddr, protocol: u8, payload: &[u8]) -> Self {
        Self {
            source: SocketAddr::new(source, 0),
            destination: SocketAddr::new(destination, 0),
            protocol,
            payload: payload.to_vec(),
        }
    }

    /// Whether a UDP payload of 512 bytes that is no WireGuard message: a knock or a reply (SPEC §4, §6).
    pub fn is_knock_sized(&self) -> bool {
        self.protocol == UDP && self.payload.len() == 512 && !self.is_wireguard()
    }

    /// Whether the UDP payload begins like a WireGuard message (SPEC §5).
    pub fn is_wireguard(&self) -> bool {
        self.protocol == UDP
            && matches!(self.payload.first(), Some(1..=4))
            && self.payload.get(1..4) == Some(&[0; 3])
    }

    /// Neighbour discovery (RFC 4861) and multicast listener reports (RFC 3810): link housekeeping that no stranger beyond the link sees.
    pub fn is_link_housekeeping(&self) -> bool {
        self.protocol == ICMP6 && matches!(self.payload.first(), Some(133..=137 | 130..=132 | 143))
    }

    /// The packet as bytes, checksums filled in.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut body = match self.protocol {
            UDP => {
                let length =
                    u16::try_from(self.payload.len() + 8).expect("the harness sends no jumbograms");
                let mut udp = Vec::with_capacity(self.payload.len() + 8);
                udp.extend(self.source.port().to_be_bytes());
                udp.extend(self.destination.port().to_be_bytes());
                udp.extend(length.to_be_bytes());
                udp.extend([0, 0]);
                udp.extend(&self.payload);
                udp
            }
            _ => self.payload.clone(),
        };
        let at = match self.protocol {
            UDP => Some(6),
            TCP => Some(16),
            ICMP | ICMP6 => Some(2),
            _ => None,
        };
        if let Some(at) = at.filter(|at| body.len() >= at + 2) {
            body[at..at + 2].fill(0);
            let pseudo = match self.protocol {
                ICMP => Vec::new(),
                _ => self.pseudo_header(body.len()),
            };
            let sum = checksum(&[&pseudo, &body]);
            // RFC 768: a UDP sum of zero means none, so its other form is sent.
            let sum = if sum == 0 && self.protocol == UDP {
                0xffff
            } else {
                sum
            };
            body[at..at + 2].copy_from_slice(&sum.to_be_bytes());
        }
        let mut bytes = self.ip_header(body.len());
        bytes.extend(body);
        bytes
    }

    fn ip_header(&self, body: usize) -> Vec<u8> {
        let mut header;
        match (self.source.ip(), self.destination.ip()) {
            (IpAddr::V4(source), IpAddr::V4(destination)) => {
                header = vec![0_u8; 20];
                header[0] = 0x45;
                let total = u16::try_from(20 + body).expect("the harness sends no jumbograms");
                header[2..4].copy_from_slice(&total.to_be_bytes());
                header[8] = 64;
                header[9] = self.protocol;
                header[12..16].copy_from_slice(&source.octets());
                header[16..20].copy_from_slice(&destination.octets());
                let sum = checksum(&[&header]);
                header[10..12].copy_from_slice(&sum.to_be_bytes());
            }
            (IpAddr::V6(source), IpAddr::V6(destination)) => {
                header = vec![0_u8; 40];
                header[0] = 0x60;
                let length = u16::try_from(body).expect("the harness sends no jumbograms");
                header[4..6].copy_from_slice(&length.to_be_bytes());
                header[6] = self.protocol;
                header[7] = 64;
                header[8..24].copy_from_slice(&source.octets());
                header[24..40].copy_from_slice(&destination.octets());
            }
            _ => panic!("a packet from {} to {}", self.source, self.destination),
        }
        header
    }

    fn pseudo_header(&self, body: usize) -> Vec<u8> {
        let mut pseudo = Vec::with_capacity(40);
        match (self.source.ip(), self.destination.ip()) {
            (IpAddr::V4(source), IpAddr::V4(destination)) => {
                pseudo.extend(source.octets());
                pseudo.extend(destination.octets());
            }
            (IpAddr::V6(source), IpAddr::V6(destination)) => {
                pseudo.extend(source.octets());
                pseudo.extend(destination.octets());
            }
            _ => panic!("a packet from {} to {}", self.source, self.destination),
        }
        pseudo.extend(u32::try_from(body).expect("below 64 KiB").to_be_bytes());
        pseudo.extend([0, 0, 0, self.protocol]);
        pseudo
    }
}

/// The internet checksum (RFC 1071). Every part but the last has an even length.
fn checksum(parts: &[&[u8]]) -> u16 {
    let mut sum = 0_u32;
    for part in parts {
        for pair in part.chunks(2) {
            sum += u32::from(pair[0]) << 8 | pair.get(1).map_or(0, |low| u32::from(*low));
        }
    }
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !u16::try_from(sum).expect("folded to 16 bits")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_packet_put_together_comes_apart_the_same() {
        for (source, destination) in [
            ("198.51.100.1:4000", "198.51.100.10:51820"),
            ("[2001:db8::1]:4000", "[2001:db8::10]:51820"),
        ] {
            let packet = Packet::udp(
                source.parse().unwrap(),
                destination.parse().unwrap(),
                &[9; 512],
            );
            assert_eq!(Packet::parse(&packet.to_bytes()), Some(packet.clone()));
            assert!(packet.is_knock_sized());
        }
    }

    #[test]
    fn a_wireguard_message_is_no_knock() {
        let address = "198.51.100.1:4000".parse().unwrap();
        let mut payload = [0; 512];
        payload[0] = 4;
        assert!(!Packet::udp(address, address, &payload).is_knock_sized());
    }
}
