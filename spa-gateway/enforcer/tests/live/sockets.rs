//! The sockets handed over: what the filter lets through, and that no capability is needed to use them.

use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::os::fd::{AsFd, AsRawFd};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use rustix::net::sockopt::{Timeout, set_socket_timeout};
use rustix::net::{RecvFlags, SendFlags};
use rustix::thread::{CapabilitySet, CapabilitySets, set_capabilities};
use spa_order::{ALL_PASS, HEADER_WORDS, Replies, SLOTS, TagTable};

use crate::gateway::{CLIENT, Gateway, OUTSIDE, ip};
use crate::namespace::root;
use crate::patience::uninterrupted;

pub const PORT: u16 = 51_820;

/// A datagram of so many bytes; the first are the given ones.
pub fn payload(len: usize, first: &[u8]) -> Vec<u8> {
    let mut bytes = vec![0xA5; len];
    bytes[..first.len()].copy_from_slice(first);
    bytes
}

pub fn from_client(gateway: &Gateway, local: &str) -> UdpSocket {
    let local: IpAddr = ip(local);
    gateway.client.inside(move || {
        let socket = UdpSocket::bind((local, 0)).expect("an address of the client");
        socket
            .set_read_timeout(Some(Duration::from_secs(10)))
            .expect("a timeout");
        socket
    })
}

pub fn receive(socket: impl AsFd) -> Vec<u8> {
    let mut packet = [0; 2048];
    set_socket_timeout(&socket, Timeout::Recv, Some(Duration::from_secs(10))).expect("a timeout");
    let (received, _) = rustix::io::retry_on_intr(|| {
        rustix::net::recv(&socket, &mut packet[..], RecvFlags::empty())
    })
    .expect("a knock arrives");
    packet[..received].to_vec()
}

/// The memory of the tag table, as the daemon has it: mapped without any capability.
pub struct Table {
    table: TagTable,
    words: &'static [AtomicU32],
}

impl Table {
    pub fn of(gateway: &Gateway) -> Self {
        let table = gateway.hello.tags.expect("a kernel that looks tags up");
        // Behind the captures and two sockets for replies.
        let memory = &gateway.descriptors[gateway.hello.knock.indices().len() + 2];
        let flags = (
            rustix::mm::ProtFlags::READ | rustix::mm::ProtFlags::WRITE,
            rustix::mm::MapFlags::SHARED,
        );
        // SAFETY: a new mapping, never unmapped, as long as the table; its words are only used as atomics.
        let words = unsafe {
            let len = table.words() * 4;
            let at = rustix::mm::mmap(std::ptr::null_mut(), len, flags.0, flags.1, memory, 0);
            std::slice::from_raw_parts(at.expect("mapped").cast_const().cast(), table.words())
        };
        Self { table, words }
    }

    fn write(&self, tags: &[[u8; 8]]) {
        let mut places: Vec<_> = tags.iter().map(|tag| self.table.place(*tag)).collect();
        places.sort_unstable();
        self.table.write(self.words, &places);
    }

    /// As the daemon does where it cannot keep up.
    pub fn let_all_pass(&self) {
        for first in self.words[HEADER_WORDS..].iter().step_by(SLOTS) {
            first.store(ALL_PASS, Ordering::Release);
        }
    }

    fn strangers(&self) -> u32 {
        self.words[0].load(Ordering::Relaxed)
    }
}

#[test]
fn a_knock_reaches_the_daemon_only_if_its_tag_is_in_the_table() {
    if !root() {
        return;
    }
    let gateway = Gateway::start();
    let table = Table::of(&gateway);
    let (known, another) = ([0x51; 8], [0x52; 8]);
    let v4 = from_client(&gateway, CLIENT);
    let v6 = from_client(&gateway, "2001:db8::7");
    let send = |tag: [u8; 8]| {
        for (socket, to) in [(&v4, OUTSIDE), (&v6, "2001:db8::10")] {
            socket
                .send_to(&payload(512, &tag), (ip(to), PORT))
                .expect("sent");
        }
    };
    let capture = &gateway.descriptors[0];
    let both_arrive = |tag: u8| {
        let (first, second) = (receive(capture), receive(capture));
        assert_eq!(
            (first.len(), first[28], second.len(), second[48]),
            (540, tag, 560, tag)
        );
    };
    // Nothing is written yet: the gateway knows nobody.
    send(known);
    table.write(&[known]);
    send(another);
    send(known);
    both_arrive(0x51);
    table.write(&[known, another]);
    send(another);
    both_arrive(0x52);
    table.write(&[another]);
    send(known);
    send(another);
    both_arrive(0x52);
    // Each of the three that were nobody's, in either family. Of another length they are not counted.
    v4.send_to(&payload(511, &known), (ip(OUTSIDE), PORT))
        .expect("sent");
    assert_eq!(table.strangers(), 6);
}

#[test]
fn a_kernel_that_takes_no_tag_filter_gets_the_classic_one() {
    if !root() {
        return;
    }
    let mut gateway = Gateway::start_without_bpf();
    // A capture, two sockets for replies, two of the access log.
    assert_eq!((gateway.hello.tags, gateway.descriptors.len()), (None, 5));
    let said = gateway.said();
    assert!(said.contains("no tag filter in this kernel"), "{said}");
    let v4 = from_client(&gateway, CLIENT);
    v4.send_to(&payload(511, &[]), (ip(OUTSIDE), PORT))
        .expect("sent");
    v4.send_to(&payload(512, &[7]), (ip(OUTSIDE), PORT))
        .expect("sent");
    let first = receive(&gateway.descriptors[0]);
    assert_eq!((first.len(), first[28]), (540, 7));
}

#[test]
fn nothing_but_a_knock_reaches_the_daemon() {
    if !root() {
        return;
    }
    let gateway = Gateway::start();
    Table::of(&gateway).let_all_pass();
    let v4 = from_client(&gateway, CLIENT);
    let v6 = from_client(&gateway, "2001:db8::7");
    for (socket, to) in [(&v4, OUTSIDE), (&v6, "2001:db8::10")] {
        let to = ip(to);
        for len in [0, 1, 148, 511, 513, 1024, 1400, 3000] {
            socket
                .send_to(&payload(len, &[]), (to, PORT))
                .expect("sent");
        }
        for kind in 1..=4 {
            socket
                .send_to(&payload(512, &[kind, 0, 0, 0]), (to, PORT))
                .expect("sent");
        }
        socket
            .send_to(&payload(512, &[]), (to, PORT + 1))
            .expect("sent");
        socket
            .send_to(&payload(512, &[7, 0, 0, 0]), (to, PORT))
            .expect("sent");
    }
    let capture = &gateway.descriptors[0];
    let first = receive(capture);
    assert_eq!((first.len(), first[0], first[28]), (540, 0x45, 7));
    let second = receive(capture);
    assert_eq!((second.len(), second[0] >> 4, second[48]), (560, 6, 7));
    let mut nothing = [0; 1];
    let more = rustix::net::recv(capture, &mut nothing[..], RecvFlags::DONTWAIT);
    assert_eq!(more.map(|_| ()), Err(rustix::io::Errno::AGAIN));
}

#[test]
fn the_filter_cannot_be_taken_off_again() {
    if !root() {
        return;
    }
    let gateway = Gateway::start();
    // Behind them come memory, and sockets of another kind.
    for socket in &gateway.descriptors[..3] {
        let value = 0_i32;
        // SAFETY: the value is live and four bytes; the kernel only reads it.
        let result = unsafe {
            let value = (&raw const value).cast();
            libc::setsockopt(
                socket.as_raw_fd(),
                libc::SOL_SOCKET,
                libc::SO_DETACH_FILTER,
                value,
                4,
            )
        };
        assert_eq!(result, -1);
        assert_eq!(
            std::io::Error::last_os_error().raw_os_error(),
            Some(libc::EPERM)
        );
    }
}

#[test]
fn a_daemon_without_capability_hears_and_answers_and_is_not_tracked() {
    if !root() {
        return;
    }
    let gateway = Gateway::start();
    assert_eq!(
        (gateway.hello.replies, gateway.descriptors.len()),
        (Replies::Both, 6)
    );

    let index = gateway.hello.knock.indices()[0];
    let v4 = from_client(&gateway, CLIENT);
    let v6 = from_client(&gateway, "2001:db8::7");
    let talk = |socket: &UdpSocket, to: &str, reply: usize| {
        socket
            .send_to(&payload(512, &[]), (ip(to), PORT))
            .expect("sent");
        let knock = receive(&gateway.descriptors[0]);
        answer(&gateway.descriptors[reply], &knock);
        let mut bytes = [0; 600];
        let (len, from) = uninterrupted(|| socket.recv_from(&mut bytes)).expect("a reply arrives");
        assert_eq!(
            (len, bytes[0], from),
            (512, 0x5A, SocketAddr::new(ip(to), PORT))
        );
    };
    std::thread::scope(|scope| {
        scope.spawn(|| {
            give_up_everything();
            Table::of(&gateway).write(&[[0xA5; 8]]);
            // As pnet does, whatever was bound before.
            bind_again(&gateway.descriptors[0], index);
            talk(&v4, OUTSIDE, 1);
            talk(&v6, "2001:db8::10", 2);
        });
    });
    let tracked = gateway.namespace.output("conntrack", &["-L", "-p", "udp"]);
    assert!(!tracked.contains("51820"), "{tracked}");
}

/// Capabilities belong to a thread; this one has none from here on.
fn give_up_everything() {
    let empty = CapabilitySet::empty();
    let sets = CapabilitySets {
        effective: empty,
        permitted: empty,
        inheritable: empty,
    };
    set_capabilities(None, sets).expect("anybody may have less");
}

fn bind_again(socket: &impl AsRawFd, index: u32) {
    // SAFETY: plain integers, all zero is valid; the kernel only reads `len` bytes of it.
    let result = unsafe {
        let mut address: libc::sockaddr_ll = std::mem::zeroed();
        address.sll_family = libc::AF_PACKET as u16;
        address.sll_protocol = (libc::ETH_P_ALL as u16).to_be();
        address.sll_ifindex = index as i32;
        let len = size_of::<libc::sockaddr_ll>() as u32;
        libc::bind(socket.as_raw_fd(), (&raw const address).cast(), len)
    };
    assert_eq!(result, 0, "{}", std::io::Error::last_os_error());
}

/// Sends 512 bytes back the way a knock came, header and all.
pub fn answer(socket: impl AsFd, knock: &[u8]) {
    let mut packet = knock.to_vec();
    match knock[0] >> 4 {
        4 => {
            packet[12..16].copy_from_slice(&knock[16..20]);
            packet[16..20].copy_from_slice(&knock[12..16]);
            swap_ports(&mut packet[20..], [0, 0]);
            let to = SocketAddr::new(
                IpAddr::from(<[u8; 4]>::try_from(&knock[12..16]).expect("four")),
                0,
            );
            rustix::net::sendto(socket, &packet, SendFlags::empty(), &to).expect("a raw reply");
        }
        _ => {
            packet[8..24].copy_from_slice(&knock[24..40]);
            packet[24..40].copy_from_slice(&knock[8..24]);
            swap_ports(&mut packet[40..], [0, 0]);
            let sum = checksum6(&packet);
            packet[46..48].copy_from_slice(&sum.to_be_bytes());
            let to = SocketAddr::new(
                IpAddr::from(<[u8; 16]>::try_from(&knock[8..24]).expect("sixteen")),
                0,
            );
            rustix::net::sendto(socket, &packet, SendFlags::empty(), &to).expect("a raw reply");
        }
    }
}

fn swap_ports(udp: &mut [u8], sum: [u8; 2]) {
    udp.swap(0, 2);
    udp.swap(1, 3);
    udp[6..8].copy_from_slice(&sum);
    udp[8..].fill(0x5A);
}

/// UDP over IPv6 has no packet without a checksum.
fn checksum6(packet: &[u8]) -> u16 {
    let pseudo = packet[8..]
        .chunks(2)
        .map(|pair| u32::from(u16::from_be_bytes([pair[0], pair[1]])));
    let mut sum = pseudo.sum::<u32>() + 17 + 520;
    while sum > 0xFFFF {
        sum = (sum & 0xFFFF) + (sum >> 16);
    }
    !u16::try_from(sum).expect("folded")
}
