//! One frame from a capture socket: an IP packet that is one whole UDP datagram, or why it is not.
//!
//! The socket's filter lets hardly anything else through; nothing here relies on that.
//! Every length is checked against the bytes that are there.

use std::net::{IpAddr, SocketAddr};

use pnet::packet::ipv4::Ipv4Packet;
use pnet::packet::ipv6::Ipv6Packet;
use pnet::packet::udp::UdpPacket;

use crate::checksum;

const IPV4_HEADER: usize = 20;
const IPV6_HEADER: usize = 40;
const UDP_HEADER: usize = 8;

/// One UDP datagram as it came.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Frame<'a> {
    /// Behind the UDP header.
    pub payload: &'a [u8],
    /// Who sent it, or says so.
    pub source: SocketAddr,
    /// Which of our addresses it is for.
    pub destination: SocketAddr,
}

/// A datagram whose checksum nobody has looked at yet: it costs more than finding out that the tag is nobody's.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Shaped<'a> {
    frame: Frame<'a>,
    datagram: &'a [u8],
    checksum: u16,
}

/// Why a frame is no datagram.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Unfit {
    /// Shorter than its headers say.
    Truncated,
    /// Neither IPv4 nor IPv6, or not UDP directly behind the header.
    NotUdp,
    /// A part of a fragmented packet.
    Fragment,
    /// The checksum of the IPv4 header or of UDP is wrong.
    Checksum,
}

impl<'a> Frame<'a> {
    /// Takes a frame that begins with its IP header for a datagram.
    ///
    /// # Errors
    /// See [`Unfit`].
    pub fn parse(frame: &'a [u8]) -> Result<Self, Unfit> {
        Self::shape(frame)?.check()
    }

    /// Shapes a frame that begins with its IP header.
    ///
    /// # Errors
    /// See [`Unfit`], all but the checksum.
    pub fn shape(frame: &'a [u8]) -> Result<Shaped<'a>, Unfit> {
        let version = frame.first().ok_or(Unfit::Truncated)? >> 4;
        match version {
            4 => Self::shape_v4(frame),
            6 => Self::shape_v6(frame),
            _ => Err(Unfit::NotUdp),
        }
    }

    fn shape_v4(frame: &'a [u8]) -> Result<Shaped<'a>, Unfit> {
        let ip = Ipv4Packet::new(frame).ok_or(Unfit::Truncated)?;
        // More-fragments is bit 0 of pnet's three flags.
        if ip.get_flags() & 1 != 0 || ip.get_fragment_offset() != 0 {
            return Err(Unfit::Fragment);
        }
        if ip.get_next_level_protocol().0 != checksum::UDP {
            return Err(Unfit::NotUdp);
        }
        let header = usize::from(ip.get_header_length()) * 4;
        let total = usize::from(ip.get_total_length());
        if header < IPV4_HEADER {
            return Err(Unfit::Truncated);
        }
        // The kernel would look, behind the point at which frames are captured (RFC 1122 §3.2.1.2). Nothing leaves this
        // one unfinished: every sender makes it in software.
        let head = frame.get(..header).ok_or(Unfit::Truncated)?;
        if checksum::add(0, head) != 0xFFFF {
            return Err(Unfit::Checksum);
        }
        // What lies behind the total length is padding of the link.
        let datagram = frame.get(header..total).ok_or(Unfit::Truncated)?;
        Self::shape_udp(
            datagram,
            ip.get_source().into(),
            ip.get_destination().into(),
        )
    }

    fn shape_v6(frame: &'a [u8]) -> Result<Shaped<'a>, Unfit> {
        /// Next header of a fragment (RFC 8200 §4.5).
        const FRAGMENT: u8 = 44;
        let ip = Ipv6Packet::new(frame).ok_or(Unfit::Truncated)?;
        match ip.get_next_header().0 {
            checksum::UDP => {}
            FRAGMENT => return Err(Unfit::Fragment),
            _ => return Err(Unfit::NotUdp),
        }
        let end = IPV6_HEADER + usize::from(ip.get_payload_length());
        let datagram = frame.get(IPV6_HEADER..end).ok_or(Unfit::Truncated)?;
        Self::shape_udp(
            datagram,
            ip.get_source().into(),
            ip.get_destination().into(),
        )
    }

    fn shape_udp(
        bytes: &'a [u8],
        source: IpAddr,
        destination: IpAddr,
    ) -> Result<Shaped<'a>, Unfit> {
        let udp = UdpPacket::new(bytes).ok_or(Unfit::Truncated)?;
        let length = udp.get_length();
        let datagram = bytes.get(..usize::from(length)).ok_or(Unfit::Truncated)?;
        let payload = datagram.get(UDP_HEADER..).ok_or(Unfit::Truncated)?;
        Ok(Shaped {
            frame: Self {
                payload,
                source: SocketAddr::new(source, udp.get_source()),
                destination: SocketAddr::new(destination, udp.get_destination()),
            },
            datagram,
            checksum: udp.get_checksum(),
        })
    }
}

impl<'a> Shaped<'a> {
    /// Gives what is behind the UDP header.
    #[must_use]
    pub const fn payload(&self) -> &'a [u8] {
        self.frame.payload
    }

    /// Looks at the checksum.
    ///
    /// # Errors
    /// [`Unfit::Checksum`].
    pub fn check(self) -> Result<Frame<'a>, Unfit> {
        let Self {
            frame,
            datagram,
            checksum,
        } = self;
        let (source, destination) = (frame.source.ip(), frame.destination.ip());
        // No longer than its own 16-bit length field says.
        let length = u16::try_from(datagram.len()).map_err(|_| Unfit::Truncated)?;
        let pseudo = checksum::pseudo_header(source, destination, length);
        if checksum_fits(checksum, pseudo, datagram, source.is_ipv4()) {
            Ok(frame)
        } else {
            Err(Unfit::Checksum)
        }
    }
}

/// A checksum is right, or left out (IPv4 only), or still to be finished by a network card.
///
/// A packet that never met a wire (veth, a bridge, virtio) carries the folded sum of the
/// pseudo-header alone, since the sender's kernel leaves the rest to hardware that is
/// not there. `docs/decisions/0004-an-unfinished-udp-checksum.md` says why that form is accepted.
fn checksum_fits(found: u16, pseudo: u16, datagram: &[u8], v4: bool) -> bool {
    let absent = v4 && found == 0;
    let unfinished = found == pseudo;
    absent || unfinished || checksum::add(pseudo, datagram) == 0xFFFF
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::reply::packet;

    fn v4() -> Vec<u8> {
        packet(
            "192.0.2.1:40000".parse().expect("address"),
            "198.51.100.10:51820".parse().expect("address"),
            &[0x5A; 512],
        )
        .expect("same family")
    }

    fn v6() -> Vec<u8> {
        packet(
            "[2001:db8::1]:40000".parse().expect("address"),
            "[2001:db8::2]:51820".parse().expect("address"),
            &[0x5A; 512],
        )
        .expect("same family")
    }

    /// Makes the IPv4 header's checksum right again after a change of it.
    fn finish(bytes: &mut [u8]) {
        let header = usize::from(bytes[0] & 0xF) * 4;
        bytes[10..12].fill(0);
        let sum = !checksum::add(0, &bytes[..header]);
        bytes[10..12].copy_from_slice(&sum.to_be_bytes());
    }

    /// The datagram behind `options` of IPv4.
    fn behind_options(options: &[u8]) -> Vec<u8> {
        let plain = v4();
        let words = 5 + options.len() / 4;
        let total = plain.len() + options.len();
        let mut bytes = [&plain[..20], options, &plain[20..]].concat();
        bytes[0] = 0x40 | u8::try_from(words).expect("at most 15");
        bytes[2..4].copy_from_slice(&u16::try_from(total).expect("short").to_be_bytes());
        finish(&mut bytes);
        bytes
    }

    /// The datagram behind one extension header of eight bytes (RFC 8200 §4.1) of this kind.
    fn behind_extension(kind: u8) -> Vec<u8> {
        let plain = v6();
        let extension = [checksum::UDP, 0, 1, 4, 0, 0, 0, 0];
        let mut bytes = [&plain[..40], &extension, &plain[40..]].concat();
        bytes[6] = kind;
        bytes[4..6].copy_from_slice(&528_u16.to_be_bytes());
        bytes
    }

    #[test]
    fn a_datagram_comes_out_whole() {
        for bytes in [v4(), v6()] {
            let frame = Frame::parse(&bytes).expect("fit");
            assert_eq!(frame.payload, [0x5A; 512]);
            assert_eq!(frame.source.port(), 40_000);
            assert_eq!(frame.destination.port(), 51_820);
            assert_eq!(frame.source.is_ipv4(), bytes[0] == 0x45);
        }
    }

    #[test]
    fn every_shorter_frame_is_unfit() {
        for bytes in [v4(), v6()] {
            for length in 0..bytes.len() {
                assert!(Frame::parse(&bytes[..length]).is_err(), "{length}");
            }
        }
    }

    #[test]
    fn padding_behind_the_packet_is_not_payload() {
        let mut bytes = v4();
        bytes.extend([0; 18]);
        assert_eq!(Frame::parse(&bytes).expect("fit").payload.len(), 512);
    }

    #[test]
    fn options_before_udp_are_skipped() {
        let record_route = [7, 7, 4, 0, 0, 0, 0, 0];
        let router_alert = [0x94, 4, 0, 0];
        for options in [
            &[1; 4][..],
            &record_route,
            &router_alert,
            // Sixty bytes of header, as long as one gets.
            &[1; 40],
        ] {
            let bytes = behind_options(options);
            let frame = Frame::parse(&bytes).expect("fit");
            assert_eq!(frame.payload, [0x5A; 512]);
            assert_eq!(frame.destination.port(), 51_820);
        }
    }

    /// Neither is a knock behind one: no honest client writes any, and a chain of them is where parsers get lost.
    #[test]
    fn extension_headers_are_unfit() {
        // Hop-by-hop, routing, destination options, authentication, mobility, host identity, shim6, no next header.
        for kind in [0, 43, 60, 51, 135, 139, 140, 59] {
            assert_eq!(Frame::parse(&behind_extension(kind)), Err(Unfit::NotUdp));
        }
        assert_eq!(Frame::parse(&behind_extension(44)), Err(Unfit::Fragment));
    }

    #[test]
    fn a_wrong_checksum_of_the_ipv4_header_is_noticed() {
        for bytes in [v4(), behind_options(&[1; 8])] {
            let header = usize::from(bytes[0] & 0xF) * 4;
            // Every byte that is not a length, a protocol or a part of a fragment, whose own refusals come first.
            for at in [1, 4, 8, 10, 12, 16, header - 1] {
                let mut bytes = bytes.clone();
                bytes[at] ^= 0x80;
                assert_eq!(Frame::parse(&bytes), Err(Unfit::Checksum), "{at}");
            }
        }
    }

    #[test]
    fn fragments_are_unfit() {
        for (at, value) in [(6, 0x20), (7, 1)] {
            let mut bytes = v4();
            bytes[at] = value;
            assert_eq!(Frame::parse(&bytes), Err(Unfit::Fragment));
        }
        let mut bytes = v6();
        bytes[6] = 44;
        assert_eq!(Frame::parse(&bytes), Err(Unfit::Fragment));
    }

    #[test]
    fn what_is_not_udp_is_unfit() {
        let mut tcp = v4();
        tcp[9] = 6;
        let mut routed = v6();
        routed[6] = 43;
        let mut other = v4();
        other[0] = 0x55;
        for bytes in [tcp, routed, other] {
            assert_eq!(Frame::parse(&bytes), Err(Unfit::NotUdp));
        }
    }

    #[test]
    fn a_flipped_bit_is_noticed() {
        for (bytes, udp) in [(v4(), 20), (v6(), 40)] {
            let mut bytes = bytes;
            bytes[udp + UDP_HEADER + 100] ^= 1;
            assert_eq!(Frame::parse(&bytes), Err(Unfit::Checksum));
        }
    }

    #[test]
    fn an_absent_checksum_is_for_ipv4_only() {
        let mut bytes = v4();
        bytes[26..28].fill(0);
        assert!(Frame::parse(&bytes).is_ok());
        let mut bytes = v6();
        bytes[46..48].fill(0);
        assert_eq!(Frame::parse(&bytes), Err(Unfit::Checksum));
    }

    #[test]
    fn an_unfinished_checksum_is_accepted() {
        for (bytes, at) in [(v4(), 26), (v6(), 46)] {
            let mut bytes = bytes;
            let frame = Frame::parse(&bytes).expect("fit");
            let pseudo =
                checksum::pseudo_header(frame.source.ip(), frame.destination.ip(), 8 + 512);
            bytes[at..at + 2].copy_from_slice(&pseudo.to_be_bytes());
            assert!(Frame::parse(&bytes).is_ok());
            bytes[at..at + 2].copy_from_slice(&(pseudo ^ 1).to_be_bytes());
            assert_eq!(Frame::parse(&bytes), Err(Unfit::Checksum));
        }
    }

    #[test]
    fn lengths_that_lie_are_unfit() {
        let mut short_header = v4();
        short_header[0] = 0x44;
        let mut total_below_header = v4();
        total_below_header[2..4].copy_from_slice(&19_u16.to_be_bytes());
        finish(&mut total_below_header);
        let mut udp_long = v4();
        udp_long[24..26].copy_from_slice(&600_u16.to_be_bytes());
        let mut udp_short = v4();
        udp_short[24..26].copy_from_slice(&7_u16.to_be_bytes());
        for bytes in [short_header, total_below_header, udp_long, udp_short] {
            assert_eq!(Frame::parse(&bytes), Err(Unfit::Truncated));
        }
    }
}
