//! Promise 1, "dark": what a stranger outside meets, and what a door is for.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::time::Duration;

use rustix::net::{AddressFamily, SendFlags, SocketFlags, SocketType, ipproto, socket_with};
use spa_order::{Opening, Order};

use crate::gateway::{CLIENT, Gateway, NEIGHBOUR, OUTSIDE, door, ip, ttl};
use crate::namespace::{Namespace, root};
use crate::patience::{uninterrupted, until};

const WIREGUARD: &str = "198.51.100.10:51820";

/// Longer than an answer takes, shorter than a test may.
const SILENCE: Duration = Duration::from_millis(250);
/// For an answer that is to come, on a busy machine.
const PATIENCE: Duration = Duration::from_secs(10);

fn connects(from: &Namespace, to: &str) -> bool {
    connects_within(from, to, PATIENCE)
}

/// Neither "yes" nor "no" comes back.
fn is_silent(from: &Namespace, to: &str) -> bool {
    !connects_within(from, to, SILENCE)
}

fn connects_within(from: &Namespace, to: &str, patience: Duration) -> bool {
    let to: SocketAddr = to.parse().expect("an address");
    from.inside(move || match TcpStream::connect_timeout(&to, patience) {
        Ok(_) => true,
        Err(error) if error.kind() == std::io::ErrorKind::TimedOut => false,
        Err(error) => panic!("{to} answered: {error}"),
    })
}

fn listen(on: &Namespace, address: &str) -> TcpListener {
    let address = address.to_owned();
    on.inside(move || TcpListener::bind(address).expect("a free port"))
}

fn udp(from: &Namespace, address: &str, port: u16) -> UdpSocket {
    let address = ip(address);
    from.inside(move || UdpSocket::bind((address, port)).expect("a free port"))
}

#[test]
fn every_port_of_the_gateway_is_silent_but_what_is_kept_open() {
    if !root() {
        return;
    }
    let gateway = Gateway::start_with("--keep-open 2222/tcp");
    let _ssh = listen(&gateway.namespace, "0.0.0.0:22");
    let _kept = listen(&gateway.namespace, "0.0.0.0:2222");
    let dark = || gateway.counted("uplink", "dark");
    for port in [22, 80, 8700] {
        let before = dark();
        assert!(
            is_silent(&gateway.client, &format!("{OUTSIDE}:{port}")),
            "{port}"
        );
        assert!(dark() > before);
    }
    assert!(connects(&gateway.client, &format!("{OUTSIDE}:2222")));
    // Closed TCP and UDP ports alike: no reset, no ICMP.
    let stranger = udp(&gateway.client, CLIENT, 0);
    stranger.connect((ip(OUTSIDE), 9999)).expect("an address");
    stranger.set_read_timeout(Some(SILENCE)).expect("a timeout");
    stranger.send(&[1; 64]).expect("sent");
    let heard = uninterrupted(|| stranger.recv(&mut [0; 64]));
    assert_eq!(heard, Err(std::io::ErrorKind::WouldBlock));
}

#[test]
fn the_gateways_own_connections_are_answered() {
    if !root() {
        return;
    }
    let gateway = Gateway::start();
    let server = listen(&gateway.client, "198.51.100.7:80");
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let (mut stream, _) = server.accept().expect("the gateway comes");
            stream.write_all(b"hello").expect("it listens");
        });
        let mut text = [0; 5];
        let mut stream = gateway.namespace.inside(|| {
            TcpStream::connect_timeout(&"198.51.100.7:80".parse().expect("an address"), PATIENCE)
                .expect("its answers pass")
        });
        stream.read_exact(&mut text).expect("its answers pass");
        assert_eq!(&text, b"hello");
    });
}

#[test]
fn a_door_is_for_its_source_and_port_and_nobody_behind_the_same_address() {
    if !root() {
        return;
    }
    let mut gateway = Gateway::start();
    let owner = udp(&gateway.client, CLIENT, 4000);
    let housemate = udp(&gateway.client, CLIENT, 4001);
    let neighbour = udp(&gateway.client, NEIGHBOUR, 4000);
    let send = |socket: &UdpSocket| {
        socket.send_to(&[4, 0, 0, 0, 1], WIREGUARD).expect("sent");
    };
    let closed = |gateway: &Gateway| gateway.counted("input", "no door");
    send(&owner);
    until("it was dropped", || (closed(&gateway) == 1).then_some(()));
    gateway.done(&Order::Door {
        door: door(CLIENT, 4000),
        ttl: ttl(60_000),
    });
    send(&housemate);
    send(&neighbour);
    until("they were dropped", || {
        (closed(&gateway) == 3).then_some(())
    });
    send(&owner);
    let passed = |gateway: &mut Gateway, wanted: Opening| {
        let all = gateway.openings();
        let (_, usage) = all
            .into_iter()
            .find(|(opening, _)| *opening == wanted)
            .expect("it is open");
        usage.packets
    };
    let exact = Opening::Door(door(CLIENT, 4000));
    until("it passed", || {
        (passed(&mut gateway, exact) == 1).then_some(())
    });
    // What went through is not forgotten when it gets another end.
    gateway.done(&Order::Door {
        door: door(CLIENT, 4000),
        ttl: ttl(50_000),
    });
    assert_eq!(passed(&mut gateway, exact), 1);
    let tracked = gateway.namespace.output("conntrack", &["-L", "-p", "udp"]);
    assert!(!tracked.contains("51820"), "{tracked}");
    // An address without a port lets the whole house in, and no other.
    gateway.done(&Order::Door {
        door: door(CLIENT, 0),
        ttl: ttl(30_000),
    });
    send(&housemate);
    send(&neighbour);
    let wide = Opening::Door(door(CLIENT, 0));
    until("it passed", || {
        (passed(&mut gateway, wide) == 1).then_some(())
    });
    until("it was dropped", || (closed(&gateway) == 4).then_some(()));
    // Closed means closed at once, whatever passed before: no connection stands in for the door.
    gateway.done(&Order::CloseDoor {
        door: door(CLIENT, 4000),
    });
    gateway.done(&Order::CloseDoor {
        door: door(CLIENT, 0),
    });
    send(&owner);
    until("it was dropped", || (closed(&gateway) == 5).then_some(()));
}

#[test]
fn the_tunnel_addresses_are_not_there_from_outside() {
    if !root() {
        return;
    }
    let gateway = Gateway::start_with("--keep-open 2222/tcp");
    let _kept = listen(&gateway.namespace, "0.0.0.0:2222");
    gateway
        .client
        .ip(&format!("route add 10.200.0.0/16 via {OUTSIDE}"));
    assert!(is_silent(&gateway.client, "10.200.0.1:2222"));
    assert!(gateway.counted("input", "tunnel addresses through the tunnel only") > 0);
    // Nor does anybody outside have one.
    gateway.client.ip("address add 10.200.0.9/32 dev eth0");
    let spoofer = udp(&gateway.client, "10.200.0.9", 5000);
    spoofer.send_to(&[1], (ip(OUTSIDE), 2222)).expect("sent");
    let comment = "a tunnel address comes out of the tunnel only";
    until("it was dropped", || {
        (gateway.counted("prerouting", comment) > 0).then_some(())
    });
}

#[test]
fn nobody_on_the_wire_passes_through_the_gateway_unasked() {
    if !root() {
        return;
    }
    let gateway = Gateway::start();
    let resources = Namespace::new("lan");
    gateway.namespace.wire(
        "lan0",
        &["10.0.5.1/24"],
        &resources,
        "eth0",
        &["10.0.5.10/24"],
    );
    resources.ip("route add default via 10.0.5.1");
    gateway.namespace.sysctl("ipv4/ip_forward", "1");
    gateway
        .client
        .ip(&format!("route add 10.0.5.0/24 via {OUTSIDE}"));
    let _resource = listen(&resources, "10.0.5.10:443");
    let unasked = |gateway: &Gateway| gateway.counted("passing", "nobody passes unasked");
    assert!(is_silent(&gateway.client, "10.0.5.10:443"));
    assert!(unasked(&gateway) > 0);
    // Nor does the gateway say why: a packet that lives one hop gets no answer.
    let kind = (AddressFamily::INET, SocketType::RAW, SocketFlags::CLOEXEC);
    let raw = || socket_with(kind.0, kind.1, kind.2, Some(ipproto::ICMP)).expect("root may");
    let ears = gateway.client.inside(raw);
    let patience = rustix::net::sockopt::Timeout::Recv;
    rustix::net::sockopt::set_socket_timeout(&ears, patience, Some(SILENCE)).expect("a timeout");
    let before = unasked(&gateway);
    let short = udp(&gateway.client, CLIENT, 0);
    short.set_ttl(1).expect("a hop");
    short.send_to(&[1], "10.0.5.10:9").expect("sent");
    short.send_to(&[1], "10.0.5.99:9").expect("sent");
    until("they were dropped", || {
        (unasked(&gateway) == before + 2).then_some(())
    });
    let heard = rustix::io::retry_on_intr(|| {
        rustix::net::recv(&ears, &mut [0; 64], rustix::net::RecvFlags::empty())
    });
    assert_eq!(heard.map(|_| ()), Err(rustix::io::Errno::AGAIN));
    // Those inside may go out, and what the administrator forwards may come in.
    let _outside = listen(&gateway.client, "198.51.100.7:80");
    assert!(connects(&resources, "198.51.100.7:80"));
    for line in [
        "add table ip admin",
        "add chain ip admin in { type nat hook prerouting priority -100; }",
        "add rule ip admin in tcp dport 8443 dnat to 10.0.5.10:443",
    ] {
        gateway
            .namespace
            .output("nft", &[&line.replace(" in ", " arriving ")]);
    }
    assert!(connects(&gateway.client, &format!("{OUTSIDE}:8443")));
}

#[test]
fn a_router_may_complain_about_packets_to_a_live_door_only() {
    if !root() {
        return;
    }
    let mut gateway = Gateway::start();
    // Destination unreachable, fragmentation needed, MTU 1400; inside: our WireGuard to the client's door.
    let mut error = vec![3, 4, 0, 0, 0, 0, 0x05, 0x78];
    error.extend([0x45, 0, 0, 100, 0, 0, 0x40, 0, 64, 17, 0, 0]);
    error.extend([198, 51, 100, 10, 198, 51, 100, 7]);
    error.extend(51_820_u16.to_be_bytes());
    error.extend(4000_u16.to_be_bytes());
    error.extend([0, 80, 0, 0]);
    let sum = checksum(&error);
    error[2..4].copy_from_slice(&sum.to_be_bytes());
    let complain = |gateway: &Gateway| {
        gateway.client.inside(|| {
            let raw = (AddressFamily::INET, SocketType::RAW, SocketFlags::CLOEXEC);
            let socket = socket_with(raw.0, raw.1, raw.2, Some(ipproto::ICMP)).expect("root may");
            let to = SocketAddr::new(ip(OUTSIDE), 0);
            rustix::net::sendto(socket, &error, SendFlags::empty(), &to).expect("sent");
        });
    };
    let dark = |gateway: &Gateway| gateway.counted("uplink", "dark");
    complain(&gateway);
    until("it was dropped", || (dark(&gateway) == 1).then_some(()));
    gateway.done(&Order::Door {
        door: door(CLIENT, 4000),
        ttl: ttl(60_000),
    });
    complain(&gateway);
    let heard = |gateway: &mut Gateway| {
        let all = gateway.openings();
        all.into_iter().map(|(_, usage)| usage.packets).sum::<u64>()
    };
    until("it passed", || (heard(&mut gateway) == 1).then_some(()));
    assert_eq!(dark(&gateway), 1);
}

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
