//! What the enforcer refuses whoever asks, and that a refusal changes nothing.

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

#[test]
fn an_order_beyond_the_limits_changes_nothing() {
    if !root() {
        return;
    }
    let mut gateway = Gateway::start();
    let table = |gateway: &Gateway| {
        gateway
            .namespace
            .output("nft", &["list", "table", "inet", "spa"])
    };
    let before = table(&gateway);
    let flow_to = |destination: &str| Order::Flow {
        flow: flow(destination, 443),
        ttl: ttl(1000),
    };
    let of = |tunnel: &str| Flow {
        tunnel: ip(tunnel),
        ..flow("10.0.5.10", 443)
    };
    let door_of = |source: &str| Order::Door {
        door: door(source, 9),
        ttl: ttl(1000),
    };
    let long = ttl(3_600_001);
    for (order, reason) in [
        (flow_to("10.200.0.8"), Reason::DestinationInPool),
        (flow_to("10.200.0.1"), Reason::DestinationInPool),
        (flow_to("127.0.0.1"), Reason::DestinationForbidden),
        (flow_to("224.0.0.1"), Reason::DestinationForbidden),
        (
            Order::Flow {
                flow: of("10.201.0.7"),
                ttl: ttl(1000),
            },
            Reason::TunnelOutside,
        ),
        (
            Order::Flow {
                flow: of("10.200.0.1"),
                ttl: ttl(1000),
            },
            Reason::TunnelOurs,
        ),
        (
            Order::Flow {
                flow: of("fd5a:1::7"),
                ttl: ttl(1000),
            },
            Reason::FamilyMixed,
        ),
        (
            Order::Flow {
                flow: flow("10.0.5.10", 443),
                ttl: long,
            },
            Reason::TtlLong,
        ),
        (
            Order::Door {
                door: door("198.51.100.7", 9),
                ttl: long,
            },
            Reason::TtlLong,
        ),
        (
            Order::Door {
                door: door("198.51.100.7", 0),
                ttl: ttl(30_001),
            },
            Reason::TtlWideDoor,
        ),
        (door_of("10.200.0.9"), Reason::SourceInPool),
        (door_of("127.0.0.1"), Reason::SourceForbidden),
        // The gateway's own, and everybody on the wire: the kernel knows, no list of ours does.
        (door_of("198.51.100.10"), Reason::SourceForbidden),
        (door_of("198.51.100.255"), Reason::SourceForbidden),
        (door_of("2001:db8::10"), Reason::SourceForbidden),
        (peer(1, [10, 200, 0, 7]), Reason::KeyMissing),
        (
            Order::Forget {
                tunnel: ip("192.0.2.1"),
            },
            Reason::TunnelOutside,
        ),
    ] {
        assert_eq!(gateway.order(&order), Answer::Refused(reason), "{order:?}");
        assert_eq!(table(&gateway), before, "{order:?}");
    }
    let ports = Flow {
        ports: (9, 8),
        ..flow("10.0.5.10", 1)
    };
    let echo = Flow {
        protocol: Protocol::Icmp,
        ..flow("10.0.5.10", 1)
    };
    let many = Flow {
        to: FlowTarget::Gateway,
        destination: ip("10.0.5.0"),
        prefix: 24,
        ..ports
    };
    for flow in [
        ports,
        echo,
        Flow {
            ports: (1, 1),
            ..many
        },
    ] {
        let answer = gateway.order(&Order::Flow {
            flow,
            ttl: ttl(1000),
        });
        assert!(matches!(answer, Answer::Refused(_)), "{answer:?}");
    }
    assert_eq!(table(&gateway), before);
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
    let mut keys = Vec::new();
    let mut answer = gateway.order(&Order::ListPeers);
    while let Answer::Peer(report) = answer {
        assert_eq!((report.endpoint, report.handshake_age_ms), (None, None));
        keys.push(report.key[0]);
        answer = gateway.receive();
    }
    assert_eq!(answer, Answer::End);
    assert_eq!(keys, [2, 3, 4]);
}
