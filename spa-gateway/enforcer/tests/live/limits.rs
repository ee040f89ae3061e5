//! What the enforcer refuses whoever asks, each order against each limit it has, and that a refusal changes nothing.

use spa_order::{Answer, Flow, FlowTarget, Order, Protocol, Reason, SecretBytes32};

use crate::gateway::{Gateway, door, flow, ip, ttl};
use crate::namespace::root;

fn peer(number: u8, tunnel4: [u8; 4]) -> Order {
    Order::Peer {
        key: [number; 32],
        psk: SecretBytes32::from_bytes([number; 32]),
        tunnel4: Some(tunnel4.into()),
        tunnel6: None,
    }
}

fn key() -> Order {
    Order::Key {
        private: SecretBytes32::from_bytes([7; 32]),
    }
}

/// Every kind of order against every limit that holds for it; and no limit is without an order that breaks it.
#[test]
fn every_order_is_refused_beyond_every_limit_of_its_kind() {
    if !root() {
        return;
    }
    let mut gateway = Gateway::start();
    let state = |gateway: &mut Gateway| {
        let table = gateway
            .namespace
            .output("nft", &["list", "table", "inet", "spa"]);
        (table, peers(gateway))
    };
    let psk = |byte: u8| SecretBytes32::from_bytes([byte; 32]);
    let put = |key: u8, secret: u8, tunnel4: Option<&str>, tunnel6: Option<&str>| Order::Peer {
        key: [key; 32],
        psk: psk(secret),
        tunnel4: tunnel4.map(|text| text.parse().expect("an address")),
        tunnel6: tunnel6.map(|text| text.parse().expect("an address")),
    };
    let v4 = |address| put(1, 1, Some(address), None);
    let v6 = |address| put(1, 1, None, Some(address));
    let within = ttl(1000);
    let to = |flow| Order::Flow { flow, ttl: within };
    let of = |tunnel: &str, destination: &str| Flow {
        tunnel: ip(tunnel),
        ..flow(destination, 443)
    };
    let leads_to = |destination: &str| to(flow(destination, 443));
    let network = |destination: &str, prefix| Flow {
        prefix,
        ..flow(destination, 443)
    };
    let gateway_flow = |destination: &str, prefix| Flow {
        to: FlowTarget::Gateway,
        ..network(destination, prefix)
    };
    let with_ports = |protocol, ports| Flow {
        protocol,
        ports,
        ..flow("10.0.5.10", 1)
    };
    let published = |as_address: &str, of| Flow {
        published: Some(ip(as_address)),
        ..of
    };
    let wiki = flow("10.0.5.10", 443);
    let open = |source: &str, port, ttl| Order::Door {
        door: door(source, port),
        ttl,
    };
    let forget = |tunnel: &str| Order::Forget { tunnel: ip(tunnel) };
    let rekey = |key: u8, secret: u8| Order::Psk {
        key: [key; 32],
        psk: psk(secret),
    };
    // Before there is a private key, and after.
    let weak = Order::Key { private: psk(0) };
    let mut broken = Vec::new();
    let mut refuse = |gateway: &mut Gateway, order: &Order, reason| {
        let before = state(gateway);
        assert_eq!(gateway.order(order), Answer::Refused(reason), "{order:?}");
        assert_eq!(state(gateway), before, "{order:?}");
        broken.push(reason);
    };
    refuse(&mut gateway, &weak, Reason::KeyWeak);
    refuse(&mut gateway, &v4("10.200.0.7"), Reason::KeyMissing);
    gateway.done(&key());
    for (order, reason) in [
        (key(), Reason::KeyAgain),
        (put(0, 1, Some("10.200.0.7"), None), Reason::KeyWeak),
        (put(1, 0, Some("10.200.0.7"), None), Reason::KeyWeak),
        (put(1, 1, None, None), Reason::TunnelMissing),
        (v4("10.201.0.7"), Reason::TunnelOutside),
        (v4("10.200.0.0"), Reason::TunnelOutside),
        (v4("10.200.255.255"), Reason::TunnelOutside),
        (v4("10.200.0.1"), Reason::TunnelOurs),
        (v6("fd5a:2::7"), Reason::TunnelOutside),
        (v6("fd5a:1::"), Reason::TunnelOutside),
        (v6("fd5a:1::1"), Reason::TunnelOurs),
        (
            put(1, 1, Some("10.200.0.7"), Some("fd5a:2::7")),
            Reason::TunnelOutside,
        ),
        (rekey(0, 1), Reason::KeyWeak),
        (rekey(1, 0), Reason::KeyWeak),
        (rekey(9, 1), Reason::PeerMissing),
        (
            Order::Flow {
                flow: flow("10.0.5.10", 443),
                ttl: ttl(3_600_001),
            },
            Reason::TtlLong,
        ),
        (to(of("10.201.0.7", "10.0.5.10")), Reason::TunnelOutside),
        (to(of("10.200.0.1", "10.0.5.10")), Reason::TunnelOurs),
        (to(of("fd5a:1::7", "10.0.5.10")), Reason::FamilyMixed),
        (to(network("10.0.5.10", 24)), Reason::Prefix),
        (to(with_ports(Protocol::Tcp, (0, 9))), Reason::Ports),
        (to(with_ports(Protocol::Udp, (9, 8))), Reason::Ports),
        (to(with_ports(Protocol::Icmp, (8, 8))), Reason::Ports),
        (leads_to("127.0.0.1"), Reason::DestinationForbidden),
        (leads_to("169.254.169.254"), Reason::DestinationForbidden),
        (leads_to("224.0.0.1"), Reason::DestinationForbidden),
        (leads_to("255.255.255.255"), Reason::DestinationForbidden),
        (to(network("0.0.0.0", 0)), Reason::DestinationForbidden),
        (leads_to("10.200.0.8"), Reason::DestinationInPool),
        (to(network("10.0.0.0", 8)), Reason::DestinationInPool),
        (to(gateway_flow("10.0.5.0", 24)), Reason::GatewayPrefix),
        (
            to(published("203.0.113.5", with_ports(Protocol::Tcp, (1, 9)))),
            Reason::PublishedWide,
        ),
        (
            to(published("203.0.113.5", network("10.0.5.0", 24))),
            Reason::PublishedWide,
        ),
        (
            to(published("203.0.113.5", gateway_flow("10.0.5.1", 32))),
            Reason::PublishedWide,
        ),
        (to(published("127.0.0.1", wiki)), Reason::PublishedForbidden),
        (
            to(published("10.200.0.8", wiki)),
            Reason::PublishedForbidden,
        ),
        (to(published("2001:db8::5", wiki)), Reason::FamilyMixed),
        (
            to(gateway_flow("10.200.0.8", 32)),
            Reason::DestinationInPool,
        ),
        (open("198.51.100.7", 9, ttl(3_600_001)), Reason::TtlLong),
        (open("198.51.100.7", 0, ttl(30_001)), Reason::TtlWideDoor),
        (open("10.200.0.9", 9, within), Reason::SourceInPool),
        (open("fd5a:1::9", 9, within), Reason::SourceInPool),
        (open("127.0.0.1", 9, within), Reason::SourceForbidden),
        (open("::1", 9, within), Reason::SourceForbidden),
        (open("255.255.255.255", 9, within), Reason::SourceForbidden),
        // The gateway's own, and everybody on the wire: the kernel knows, no list of ours does.
        (open("198.51.100.10", 9, within), Reason::SourceForbidden),
        (open("198.51.100.255", 9, within), Reason::SourceForbidden),
        (forget("192.0.2.1"), Reason::TunnelOutside),
        (forget("10.200.0.1"), Reason::TunnelOurs),
    ] {
        refuse(&mut gateway, &order, reason);
    }
    // What only takes away or asks has no limit, and does nothing beyond them.
    let before = state(&mut gateway);
    for order in [
        Order::CloseFlow {
            flow: flow("127.0.0.1", 443),
        },
        Order::CloseDoor {
            door: door("127.0.0.1", 9),
        },
        Order::RemovePeer { key: [9; 32] },
    ] {
        gateway.done(&order);
    }
    assert_eq!(state(&mut gateway), before);
    // What is full: peers, and flows of one session that overlap in part.
    for number in 1..=3 {
        gateway.done(&peer(number, [10, 200, 0, 10 + number]));
    }
    refuse(&mut gateway, &peer(4, [10, 200, 0, 14]), Reason::PeersFull);
    let overlapping = |number: u16| Order::Flow {
        flow: with_ports(Protocol::Tcp, (number, 100 + number)),
        ttl: ttl(60_000),
    };
    for number in 1..=4 {
        gateway.done(&overlapping(number));
    }
    let many = overlapping(5);
    assert_eq!(gateway.order(&many), Answer::Refused(Reason::OpeningsFull));
    broken.push(Reason::OpeningsFull);
    let without: Vec<_> = Reason::ALL
        .iter()
        .filter(|reason| !broken.contains(reason))
        .collect();
    assert!(without.is_empty(), "{without:?}");
}

/// The keys of the peers there are.
fn peers(gateway: &mut Gateway) -> Vec<u8> {
    let mut keys = Vec::new();
    let mut answer = gateway.order(&Order::ListPeers);
    while let Answer::Peer(report) = answer {
        keys.push(report.key[0]);
        answer = gateway.receive();
    }
    assert_eq!(answer, Answer::End);
    keys
}

#[test]
fn there_are_no_more_peers_than_the_flag_says_and_one_key() {
    if !root() {
        return;
    }
    let mut gateway = Gateway::start();
    gateway.done(&key());
    assert_eq!(gateway.order(&key()), Answer::Refused(Reason::KeyAgain));
    for number in 1..=3 {
        gateway.done(&peer(number, [10, 200, 0, 10 + number]));
    }
    let full = Answer::Refused(Reason::PeersFull);
    assert_eq!(gateway.order(&peer(4, [10, 200, 0, 14])), full);
    // One of the three again is no fourth.
    gateway.done(&peer(3, [10, 200, 0, 20]));
    assert_eq!(
        gateway.order(&Order::ReadPeer { key: [4; 32] }),
        Answer::Absent
    );
    gateway.done(&Order::RemovePeer { key: [1; 32] });
    gateway.done(&peer(4, [10, 200, 0, 14]));
    assert_eq!(peers(&mut gateway), [2, 3, 4]);
}
