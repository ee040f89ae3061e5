//! Promise 3, "only what was asked", and promise 4 for traffic: a real WireGuard client and a real resource.

use std::io::{ErrorKind, Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::path::Path;
use std::time::{Duration, Instant};

use rustix::net::{
    AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, ipproto, socket_with,
};
use spa_order::{Answer, Flow, FlowTarget, Order, Protocol, SecretBytes32};
use spa_wireguard::{BackendChoice, Interface, Peer, Plan};

use crate::gateway::{CLIENT, Gateway, OUTSIDE, door, flow, ip, ttl};
use crate::namespace::{Namespace, root};
use crate::patience::{uninterrupted, until};

/// A key pair made by `wg genkey` for these tests.
const GATEWAY: [&str; 2] = [
    "f872715b83d79e116ba6a56e47e885cddb2eecbf78cfe4e78e91a95e41d77a7c",
    "4d5e1b9936dd4a768aa84ce48f9ef883f52e56ad40f7affb9a0caabdb45c9c1c",
];
/// Another.
const SESSION: [&str; 2] = [
    "60c1f45ee89364081d6b30a1a5df6b5e3031ec0b4aa397d3ae99c1c45a95da42",
    "10eeed6731a4dfcf15c569ba5aed1c6fec1176c5c7e1bc7b35921baa62761b1a",
];
const PSK: [u8; 32] = [0x51; 32];
const TUNNEL: &str = "10.200.0.7";
const RESOURCE: &str = "10.0.5.10";
/// The port WireGuard of the client sends from.
const CLIENT_PORT: u16 = 4500;
/// Longer than an answer takes, shorter than a test may.
const SILENCE: Duration = Duration::from_millis(250);
/// For an answer that is to come, on a busy machine.
const PATIENCE: Duration = Duration::from_secs(10);

fn bytes(hex: &str) -> [u8; 32] {
    let byte = |at: usize| u8::from_str_radix(&hex[2 * at..2 * at + 2], 16).expect("hex");
    std::array::from_fn(byte)
}

/// A session with its tunnel up and nothing granted yet.
struct Session {
    gateway: Gateway,
    resources: Namespace,
    _interface: Interface,
}

impl Session {
    fn begin(flags: &str) -> Self {
        let mut gateway = Gateway::start_with(flags);
        let resources = Namespace::new("lan");
        let addresses = [&format!("{RESOURCE}/24")[..], "10.0.5.11/24"];
        gateway
            .namespace
            .wire("lan0", &["10.0.5.1/24"], &resources, "eth0", &addresses);
        resources.ip("route add default via 10.0.5.1");
        gateway.namespace.sysctl("ipv4/ip_forward", "1");
        gateway.done(&Order::Key {
            private: SecretBytes32::from_bytes(bytes(GATEWAY[0])),
        });
        gateway.done(&Order::Peer {
            key: bytes(SESSION[1]),
            psk: SecretBytes32::from_bytes(PSK),
            tunnel4: TUNNEL.parse().ok(),
            tunnel6: None,
        });
        gateway.done(&Order::Door {
            door: door(CLIENT, CLIENT_PORT),
            ttl: ttl(600_000),
        });
        let interface = gateway.client.inside(connect);
        Self {
            gateway,
            resources,
            _interface: interface,
        }
    }

    fn grant(&mut self, flow: Flow) {
        self.gateway.done(&Order::Flow {
            flow,
            ttl: ttl(600_000),
        });
    }

    fn reaches(&self, address: &str, port: u16) -> bool {
        self.open(address, port, PATIENCE).is_some()
    }

    /// Neither "yes" nor "no" comes back.
    fn is_silent(&self, address: &str, port: u16) -> bool {
        self.open(address, port, SILENCE).is_none()
    }

    fn open(&self, address: &str, port: u16, patience: Duration) -> Option<TcpStream> {
        let to = SocketAddr::new(ip(address), port);
        let connect = move || TcpStream::connect_timeout(&to, patience);
        match self.gateway.client.inside(connect) {
            Ok(stream) => Some(stream),
            Err(error) if error.kind() == ErrorKind::TimedOut => None,
            Err(error) => panic!("{to} answered: {error}"),
        }
    }

    fn listen(&self, address: &str, port: u16) -> TcpListener {
        let at = SocketAddr::new(ip(address), port);
        self.resources
            .inside(move || TcpListener::bind(at).expect("a free port"))
    }

    /// Lines of connection tracking that name the tunnel address.
    fn tracked(&self) -> usize {
        let all = self.gateway.namespace.output("conntrack", &["-L"]);
        all.lines().filter(|line| line.contains(TUNNEL)).count()
    }
}

/// The client's side: the interface, the handshake, the routes.
fn connect() -> Interface {
    let tunnel = Path::new(env!("CARGO_BIN_EXE_spa-enforcer")).with_file_name("spa-tunnel");
    let mut interface = Interface::create(&Plan {
        name: "spa0",
        listen_port: CLIENT_PORT,
        addresses: &[(ip(TUNNEL), 32)],
        mtu: 1420,
        backend: BackendChoice::Auto,
        tunnel_program: &tunnel,
        tunnel_uid: 65_534,
        tunnel_gid: 65_534,
    })
    .expect("an interface");
    let networks: [(IpAddr, u8); 2] = [(ip("10.0.0.0"), 8), (ip("192.0.2.0"), 24)];
    interface
        .set_private_key(&bytes(SESSION[0]))
        .expect("a key");
    interface
        .put_peer(&Peer {
            key: bytes(GATEWAY[1]),
            psk: PSK.into(),
            allowed: &networks,
            endpoint: Some(SocketAddr::new(ip(OUTSIDE), 51_820)),
            keepalive: Some(25),
        })
        .expect("a peer");
    let deadline = Instant::now() + Duration::from_secs(10);
    interface
        .wait_handshake(&bytes(GATEWAY[1]), deadline)
        .expect("the door is open");
    for (network, prefix) in networks {
        interface.add_route(network, prefix).expect("a route");
    }
    interface
}

#[test]
fn a_session_reaches_what_was_granted_and_nothing_else() {
    if !root() {
        return;
    }
    let mut session = Session::begin("");
    let _granted = session.listen(RESOURCE, 443);
    let _other = session.listen(RESOURCE, 5432);
    let _neighbour = session.listen("10.0.5.11", 443);
    let own = |port: u16| SocketAddr::new(ip("0.0.0.0"), port);
    let [_control, _ssh] = [8700, 22].map(|port| {
        session
            .gateway
            .namespace
            .inside(move || TcpListener::bind(own(port)).expect("a free port"))
    });
    assert!(session.is_silent(RESOURCE, 443), "nothing is granted yet");
    session.grant(flow(RESOURCE, 443));
    session.grant(Flow {
        to: FlowTarget::Gateway,
        ..flow("10.200.0.1", 8700)
    });
    assert!(session.reaches(RESOURCE, 443));
    assert!(session.reaches("10.200.0.1", 8700));
    for (address, port) in [
        (RESOURCE, 5432),
        ("10.0.5.11", 443),
        ("10.200.0.1", 22),
        ("10.0.5.1", 22),
        ("10.0.5.1", 8700),
    ] {
        assert!(session.is_silent(address, port), "{address} {port}");
    }
    // The peer is seen with its handshake where it is.
    match session.gateway.order(&Order::ReadPeer {
        key: bytes(SESSION[1]),
    }) {
        Answer::Peer(peer) => {
            assert_eq!(
                peer.endpoint,
                Some(SocketAddr::new(ip(CLIENT), CLIENT_PORT))
            );
            assert!(peer.handshake_age_ms.is_some() && peer.rx > 0);
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_flow_of_a_network_and_ports_is_as_wide_as_it_says() {
    if !root() {
        return;
    }
    let mut session = Session::begin("");
    let _listeners: Vec<_> = [8000, 8010, 8011]
        .map(|port| session.listen(RESOURCE, port))
        .into();
    let wide = Flow {
        destination: ip("10.0.5.8"),
        prefix: 30,
        ports: (8000, 8010),
        ..flow(RESOURCE, 1)
    };
    session.grant(wide);
    assert!(session.reaches(RESOURCE, 8000));
    assert!(session.reaches(RESOURCE, 8010));
    assert!(session.is_silent(RESOURCE, 8011));
    session.gateway.done(&Order::CloseFlow { flow: wide });
    assert!(session.is_silent(RESOURCE, 8000));
}

#[test]
fn an_established_connection_dies_with_its_flow_in_both_directions() {
    if !root() {
        return;
    }
    let mut session = Session::begin("");
    let listener = session.listen(RESOURCE, 443);
    session.grant(flow(RESOURCE, 443));
    let mut client = session.open(RESOURCE, 443, PATIENCE).expect("granted");
    let (mut server, _) = listener.accept().expect("the client came");
    for stream in [&client, &server] {
        stream.set_read_timeout(Some(PATIENCE)).expect("a timeout");
    }
    let mut text = [0; 4];
    client.write_all(b"ping").expect("established");
    server.read_exact(&mut text).expect("established");
    server.write_all(b"pong").expect("established");
    client.read_exact(&mut text).expect("established");
    assert!(session.tracked() > 0);

    session.gateway.done(&Order::CloseFlow {
        flow: flow(RESOURCE, 443),
    });
    for stream in [&client, &server] {
        stream.set_read_timeout(Some(SILENCE)).expect("a timeout");
    }
    let dropped = |session: &Session, chain, comment| session.gateway.counted(chain, comment);
    client.write_all(b"more").expect("into the socket");
    assert_eq!(
        uninterrupted(|| server.read(&mut text)),
        Err(ErrorKind::WouldBlock)
    );
    assert!(dropped(&session, "out_of_tunnel", "not granted") > 0);
    server.write_all(b"push").expect("into the socket");
    assert_eq!(
        uninterrupted(|| client.read(&mut text)),
        Err(ErrorKind::WouldBlock)
    );
    assert!(dropped(&session, "into_tunnel", "no live flow") > 0);

    session.gateway.done(&Order::RemovePeer {
        key: bytes(SESSION[1]),
    });
    session.gateway.done(&Order::Forget { tunnel: ip(TUNNEL) });
    assert_eq!(session.tracked(), 0);
    // And it stays so though the server pushes on.
    server.write_all(b"push").expect("into the socket");
    until("it was dropped as unasked", || {
        (dropped(&session, "into_tunnel", "nothing enters unasked") > 0).then_some(())
    });
    assert_eq!(session.tracked(), 0);
}

#[test]
fn nothing_enters_the_tunnel_unasked() {
    if !root() {
        return;
    }
    let mut session = Session::begin("");
    session.grant(flow(RESOURCE, 443));
    let _listener = session
        .gateway
        .client
        .inside(|| TcpListener::bind((ip(TUNNEL), 80)).expect("a free port"));
    let to = SocketAddr::new(ip(TUNNEL), 80);
    let unasked = session
        .resources
        .inside(move || TcpStream::connect_timeout(&to, SILENCE).is_ok());
    assert!(!unasked);
    until("it was dropped as unasked", || {
        (session
            .gateway
            .counted("into_tunnel", "nothing enters unasked")
            > 0)
        .then_some(())
    });
    // Not even from the address and port of a live flow.
    let disguised = session.resources.inside(|| {
        let socket = UdpSocket::bind((ip(RESOURCE), 443)).expect("a free port");
        socket.send_to(b"hello", (ip(TUNNEL), 5000))
    });
    disguised.expect("sent");
    let before = session.gateway.counted("own_into_tunnel", "no live flow");
    let own = session
        .gateway
        .namespace
        .inside(move || TcpStream::connect_timeout(&to, SILENCE).is_ok());
    assert!(!own, "nor from the gateway itself");
    assert!(session.gateway.counted("own_into_tunnel", "no live flow") > before);
}

#[test]
fn an_echo_is_a_flow_of_its_own() {
    if !root() {
        return;
    }
    let mut session = Session::begin("");
    let echo = |session: &Session, patience: Duration| {
        session.gateway.client.inside(|| {
            let kind = (AddressFamily::INET, SocketType::DGRAM, SocketFlags::CLOEXEC);
            let range = "/proc/sys/net/ipv4/ping_group_range";
            std::fs::write(range, "0 65535").expect("a sysctl of the namespace");
            let socket = socket_with(kind.0, kind.1, kind.2, Some(ipproto::ICMP)).expect("allowed");
            let timeout = rustix::net::sockopt::Timeout::Recv;
            rustix::net::sockopt::set_socket_timeout(&socket, timeout, Some(patience))
                .expect("a timeout");
            let to = SocketAddr::new(ip(RESOURCE), 0);
            rustix::net::sendto(&socket, &[8, 0, 0, 0, 0, 1, 0, 1], SendFlags::empty(), &to)
                .expect("sent");
            rustix::io::retry_on_intr(|| {
                rustix::net::recv(&socket, &mut [0; 64], RecvFlags::empty())
            })
            .is_ok()
        })
    };
    session.grant(flow(RESOURCE, 443));
    assert!(!echo(&session, SILENCE));
    session.grant(Flow {
        protocol: Protocol::Icmp,
        ..flow(RESOURCE, 0)
    });
    assert!(echo(&session, PATIENCE));
    session.gateway.done(&Order::CloseFlow {
        flow: Flow {
            protocol: Protocol::Icmp,
            ..flow(RESOURCE, 0)
        },
    });
    assert!(!echo(&session, SILENCE));
}

#[test]
fn an_error_about_a_live_flow_finds_its_way_back() {
    if !root() {
        return;
    }
    let mut session = Session::begin("");
    session.grant(Flow {
        protocol: Protocol::Udp,
        ..flow(RESOURCE, 5353)
    });
    // Nobody listens: the resource answers with "port unreachable", which the client's socket hears.
    let refused = session.gateway.client.inside(|| {
        let socket = UdpSocket::bind((ip(TUNNEL), 0)).expect("a free port");
        socket.connect((ip(RESOURCE), 5353)).expect("an address");
        socket.set_read_timeout(Some(PATIENCE)).expect("a timeout");
        socket.send(b"anybody?").expect("sent");
        uninterrupted(|| socket.recv(&mut [0; 8]))
    });
    assert_eq!(refused, Err(ErrorKind::ConnectionRefused));
}

#[test]
fn with_masquerade_a_resource_sees_the_gateway() {
    if !root() {
        return;
    }
    let mut session = Session::begin("--masquerade");
    let listener = session.listen(RESOURCE, 443);
    session.grant(flow(RESOURCE, 443));
    let _client = session.open(RESOURCE, 443, PATIENCE).expect("granted");
    let (_server, seen) = listener.accept().expect("the client came");
    assert_eq!(seen.ip(), ip("10.0.5.1"));
    assert!(session.tracked() > 0);
    session.gateway.done(&Order::CloseFlow {
        flow: flow(RESOURCE, 443),
    });
    session.gateway.done(&Order::Forget { tunnel: ip(TUNNEL) });
    assert_eq!(session.tracked(), 0);
}
