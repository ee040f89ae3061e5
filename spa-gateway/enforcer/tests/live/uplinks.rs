//! Knocks arrive by whatever a provider gives: Ethernet with and without tags, a link of bare IP packets, several at once.
//!
//! The links are TAP and TUN devices whose other end is in our hands, so that a frame is exactly what is written.

use std::fs::File;
use std::io::{Read, Write};
use std::net::TcpListener;
use std::os::fd::AsRawFd;

use rustix::net::RecvFlags;

use crate::gateway::{CLIENT, Gateway, OUTSIDE, ip, outside};
use crate::namespace::{Namespace, root};
use crate::patience::until;
use crate::sockets::{PORT, Table, answer, from_client, payload, receive};

/// The gateway's hardware address on the Ethernet of our making, and the other end's.
const OURS: [u8; 6] = [2, 0, 0, 0, 0, 1];
const THEIRS: [u8; 6] = [2, 0, 0, 0, 0, 2];
/// The place of a knock interface among the descriptors, in the order of the flags.
const ETHERNET: usize = 0;
const BARE: usize = 1;
const FRAMES: usize = 2;
/// Of the raw socket for replies over IPv4, behind three of those.
const REPLIES: usize = 3;

/// What is made by opening it (linux/if_tun.h).
#[derive(Clone, Copy)]
enum Link {
    /// IP packets, nothing around them: as PPP.
    Tun,
    /// Ethernet frames.
    Tap,
}

/// A gateway with three knock interfaces, and the other ends of the second and the third.
struct Uplinks {
    gateway: Gateway,
    tun: File,
    tap: File,
}

impl Uplinks {
    fn begin() -> Self {
        let (namespace, client) = outside();
        let tun = device(&namespace, "ppp0", Link::Tun);
        let tap = device(&namespace, "eth1", Link::Tap);
        for line in [
            "address add 192.0.2.1 peer 192.0.2.2 dev ppp0",
            "address add 2001:db8:2::1/64 dev ppp0 nodad",
            "link set ppp0 up",
            "link set eth1 address 02:00:00:00:00:01",
            "address add 203.0.113.1/24 dev eth1",
            "link set eth1 up",
        ] {
            namespace.ip(line);
        }
        let gateway = Gateway::start_in(
            namespace,
            client,
            "--knock-interface ppp0 --knock-interface eth1",
        );
        Table::of(&gateway).let_all_pass();
        Self { gateway, tun, tap }
    }

    /// The first byte behind the headers of the next knock on an interface.
    fn heard(&self, interface: usize) -> u8 {
        let knock = receive(&self.gateway.descriptors[interface]);
        knock[knock.len() - 512]
    }

    fn is_quiet(&self, interface: usize) -> bool {
        let capture = &self.gateway.descriptors[interface];
        let mut nothing = [0; 1];
        let more = rustix::net::recv(capture, &mut nothing[..], RecvFlags::DONTWAIT);
        more.map(|_| ()) == Err(rustix::io::Errno::AGAIN)
    }
}

/// Each knock is heard on the interface it came by, once, whatever the link puts around it.
#[test]
fn a_knock_is_heard_on_each_interface_and_without_an_ethernet_header() {
    if !root() {
        return;
    }
    let mut place = Uplinks::begin();
    assert_eq!(place.gateway.hello.knock.indices().len(), 3);
    let client = from_client(&place.gateway, CLIENT);
    client
        .send_to(&payload(512, &[1]), (ip(OUTSIDE), PORT))
        .expect("sent");
    place
        .tun
        .write_all(&ipv4([192, 0, 2, 2], [192, 0, 2, 1], 2))
        .expect("a bare packet");
    let frame = ethernet(&[], &ipv4([203, 0, 113, 2], [203, 0, 113, 1], 3));
    place.tap.write_all(&frame).expect("a frame");
    for (interface, first) in [(ETHERNET, 1), (BARE, 2), (FRAMES, 3)] {
        assert_eq!(place.heard(interface), first);
        assert!(place.is_quiet(interface));
    }
    place.tun.write_all(&ipv6(4)).expect("a bare packet");
    let knock = receive(&place.gateway.descriptors[BARE]);
    assert_eq!((knock.len(), knock[0] >> 4, knock[48]), (560, 6, 4));
}

/// On a link of bare IP packets the reply finds its way back, and everything else is as dark as elsewhere.
#[test]
fn a_link_without_ethernet_is_answered_and_dark() {
    if !root() {
        return;
    }
    let mut place = Uplinks::begin();
    let _service = place
        .gateway
        .namespace
        .inside(|| TcpListener::bind("0.0.0.0:2222").expect("a free port"));
    let knock = ipv4([192, 0, 2, 2], [192, 0, 2, 1], 5);
    place
        .tun
        .write_all(&syn([192, 0, 2, 2], [192, 0, 2, 1]))
        .expect("a bare packet");
    until("it was dropped", || {
        (place.gateway.counted("uplink", "dark") == 1).then_some(())
    });
    place.tun.write_all(&knock).expect("a bare packet");
    let heard = receive(&place.gateway.descriptors[BARE]);
    answer(&place.gateway.descriptors[REPLIES], &heard);
    let mut packet = [0; 2048];
    loop {
        let length = place.tun.read(&mut packet).expect("a packet");
        let packet = &packet[..length];
        // What IPv6 says of itself on a new link is no answer.
        if packet[0] >> 4 == 4 {
            assert_eq!((length, packet[9], packet[28]), (540, 17, 0x5A));
            break;
        }
    }
}

/// A frame of a VLAN belongs to that VLAN's interface. The interface below, which sees it too, does not take it for its own;
/// a tag that is only a priority changes nothing.
#[test]
fn a_knock_in_a_vlan_is_not_heard_below_it() {
    if !root() {
        return;
    }
    let mut place = Uplinks::begin();
    let tag = |kind: [u8; 2], tag: u16| [kind, tag.to_be_bytes()].concat();
    let (customer, provider) = ([0x81, 0x00], [0x88, 0xA8]);
    for (first, tags) in [
        (1, tag(customer, 7)),
        (2, tag(customer, 0xE007)),
        (3, tag(provider, 7)),
        (4, [tag(provider, 0), tag(customer, 0)].concat()),
        (5, tag(customer, 0xE000)),
        (6, Vec::new()),
    ] {
        let frame = ethernet(&tags, &ipv4([203, 0, 113, 2], [203, 0, 113, 1], first));
        place.tap.write_all(&frame).expect("a frame");
    }
    assert_eq!(place.heard(FRAMES), 5);
    assert_eq!(place.heard(FRAMES), 6);
    assert!(place.is_quiet(FRAMES));
}

fn device(namespace: &Namespace, name: &str, link: Link) -> File {
    /// Bytes of `struct ifreq`, the name in the first 16, then the flags.
    const IFREQ_LEN: usize = 40;
    let flags: u16 = match link {
        Link::Tun => 0x1001,
        Link::Tap => 0x1002,
    };
    let mut request = [0_u8; IFREQ_LEN];
    request[..name.len()].copy_from_slice(name.as_bytes());
    request[16..18].copy_from_slice(&flags.to_ne_bytes());
    namespace.inside(move || {
        let mut options = File::options();
        let file = options.read(true).write(true).open("/dev/net/tun");
        let file = file.expect("this kernel has TUN, without which nothing of ours runs");
        // SAFETY: the request is live, as long as the kernel's `struct ifreq`, and it writes nothing beyond.
        let made = unsafe { libc::ioctl(file.as_raw_fd(), libc::TUNSETIFF, request.as_mut_ptr()) };
        assert_eq!(made, 0, "{}", std::io::Error::last_os_error());
        file
    })
}

fn ethernet(tags: &[u8], packet: &[u8]) -> Vec<u8> {
    [&OURS[..], &THEIRS, tags, &[0x08, 0x00], packet].concat()
}

/// A knock over IPv4 whose payload begins with `first`. A UDP checksum of 0 is none.
fn ipv4(from: [u8; 4], to: [u8; 4], first: u8) -> Vec<u8> {
    let mut packet = vec![0x45, 0, 0x02, 0x1C, 0, 0, 0x40, 0, 64, 17, 0, 0];
    packet.extend(from);
    packet.extend(to);
    finish(&mut packet);
    packet.extend(40_000_u16.to_be_bytes());
    packet.extend(PORT.to_be_bytes());
    packet.extend([0x02, 0x08, 0, 0]);
    packet.extend(payload(512, &[first]));
    packet
}

/// The same over IPv6. The filter does not look at checksums, the daemon does.
fn ipv6(first: u8) -> Vec<u8> {
    let mut packet = vec![0x60, 0, 0, 0, 0x02, 0x08, 17, 64];
    for last in [2, 1] {
        packet.extend([
            0x20, 0x01, 0x0D, 0xB8, 0, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, last,
        ]);
    }
    packet.extend(40_000_u16.to_be_bytes());
    packet.extend(PORT.to_be_bytes());
    packet.extend([0x02, 0x08, 0, 0]);
    packet.extend(payload(512, &[first]));
    packet
}

/// Somebody asks for TCP port 2222.
fn syn(from: [u8; 4], to: [u8; 4]) -> Vec<u8> {
    let mut packet = vec![0x45, 0, 0, 40, 0, 0, 0x40, 0, 64, 6, 0, 0];
    packet.extend(from);
    packet.extend(to);
    finish(&mut packet);
    let mut segment = vec![
        0x9C, 0x40, 0x08, 0xAE, 0, 0, 0, 1, 0, 0, 0, 0, 0x50, 2, 0xFA, 0xF0, 0, 0, 0, 0,
    ];
    let pseudo = [&from[..], &to, &[0, 6, 0, 20]].concat();
    let sum = checksum(&[pseudo, segment.clone()].concat());
    segment[16..18].copy_from_slice(&sum.to_be_bytes());
    packet.extend(segment);
    packet
}

fn finish(header: &mut [u8]) {
    let sum = checksum(header);
    header[10..12].copy_from_slice(&sum.to_be_bytes());
}

/// The internet checksum (RFC 1071) of an even number of bytes.
fn checksum(bytes: &[u8]) -> u16 {
    let words = bytes
        .chunks(2)
        .map(|pair| u32::from(u16::from_be_bytes([pair[0], pair[1]])));
    let mut sum: u32 = words.sum();
    while sum > 0xFFFF {
        sum = (sum & 0xFFFF) + (sum >> 16);
    }
    !u16::try_from(sum).expect("folded")
}
