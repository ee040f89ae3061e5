//! A thousand sessions come and go; `cargo test --release -p spa-enforcer --test live figures -- --nocapture`
//! prints how long orders take. Times are printed and never asserted.

use std::net::Ipv4Addr;
use std::time::{Duration, Instant};

use spa_order::{Answer, Flow, FlowTarget, Order, SecretBytes32};

use crate::gateway::{Gateway, door, flow, ip, ttl};
use crate::namespace::root;

/// Orders on their way at once; what the socket has room for.
const WINDOW: u32 = 100;
/// Sessions that live, and end, together.
const SESSIONS: u32 = 1000;

#[test]
fn a_thousand_sessions_come_and_go() {
    if !root() {
        return;
    }
    let mut gateway = Gateway::start_for(SESSIONS);
    gateway.done(&Order::Key {
        private: SecretBytes32::from_bytes([7; 32]),
    });
    let doors = (0..2000_u16).map(|port| {
        let started = Instant::now();
        gateway.done(&Order::Door {
            door: door("198.51.100.77", 1000 + port),
            ttl: ttl(60_000),
        });
        started.elapsed()
    });
    report("a door", doors.collect());
    let again = (0..2000_u16).map(|port| {
        let started = Instant::now();
        gateway.done(&Order::Door {
            door: door("198.51.100.77", 1000 + port),
            ttl: ttl(90_000),
        });
        started.elapsed()
    });
    report("a door, new ttl", again.collect());
    for port in 0..2000_u16 {
        gateway.done(&Order::CloseDoor {
            door: door("198.51.100.77", 1000 + port),
        });
    }
    let mut peers = Vec::new();
    let grants = (1..=SESSIONS).map(|number| {
        let started = Instant::now();
        let peer = Instant::now();
        gateway.done(&session(number).peer());
        peers.push(peer.elapsed());
        session(number)
            .opening()
            .for_each(|order| gateway.done(&order));
        started.elapsed()
    });
    let grants: Vec<_> = grants.collect();
    report("a grant (peer, 2 flows, door)", grants);
    report("  of that the peer", peers);
    let started = Instant::now();
    // As the core does at a common deadline: every door, then every flow, and so on.
    for (phase, what) in [
        "doors closed",
        "flows closed",
        "flows closed",
        "peers gone",
        "forgotten",
    ]
    .iter()
    .enumerate()
    {
        let mut waiting = 0;
        for number in 1..=SESSIONS {
            gateway.post(&session(number).end()[phase]);
            waiting += 1;
            if waiting == WINDOW {
                assert_eq!(gateway.any_answer(), Answer::Done);
                waiting -= 1;
            }
        }
        for _ in 0..waiting {
            assert_eq!(gateway.any_answer(), Answer::Done);
        }
        println!(
            "{SESSIONS} sessions ending together: {what} after {:?}",
            started.elapsed()
        );
    }
    assert_eq!(gateway.openings(), []);
    assert_eq!(gateway.order(&Order::ListPeers), Answer::End);
    let forgets = (1..=50).map(|number| {
        let started = Instant::now();
        gateway.done(&Order::Forget {
            tunnel: session(number).tunnel.into(),
        });
        started.elapsed()
    });
    report("forgetting one address", forgets.collect());
}

struct Session {
    key: [u8; 32],
    tunnel: Ipv4Addr,
    port: u16,
}

fn session(number: u32) -> Session {
    let mut key = [3; 32];
    key[..4].copy_from_slice(&number.to_be_bytes());
    let tunnel = Ipv4Addr::from(u32::from(Ipv4Addr::new(10, 200, 1, 0)) + number);
    Session {
        key,
        tunnel,
        port: u16::try_from(10_000 + number).expect("a port"),
    }
}

impl Session {
    fn peer(&self) -> Order {
        let psk = SecretBytes32::from_bytes(self.key);
        Order::Peer {
            key: self.key,
            psk,
            tunnel4: Some(self.tunnel),
            tunnel6: None,
        }
    }

    fn flows(&self) -> [Flow; 2] {
        let resource = Flow {
            tunnel: self.tunnel.into(),
            ..flow("10.0.5.10", 443)
        };
        [
            resource,
            Flow {
                to: FlowTarget::Gateway,
                destination: ip("10.200.0.1"),
                ports: (8700, 8700),
                ..resource
            },
        ]
    }

    fn opening(&self) -> impl Iterator<Item = Order> {
        let door = Order::Door {
            door: door("198.51.100.77", self.port),
            ttl: ttl(600_000),
        };
        self.flows()
            .into_iter()
            .map(|flow| Order::Flow {
                flow,
                ttl: ttl(600_000),
            })
            .chain([door])
    }

    fn end(&self) -> [Order; 5] {
        let [resource, control] = self.flows();
        [
            Order::CloseDoor {
                door: door("198.51.100.77", self.port),
            },
            Order::CloseFlow { flow: resource },
            Order::CloseFlow { flow: control },
            Order::RemovePeer { key: self.key },
            Order::Forget {
                tunnel: self.tunnel.into(),
            },
        ]
    }
}

fn report(what: &str, mut times: Vec<Duration>) {
    times.sort_unstable();
    let at = |part: usize| times[(times.len() - 1) * part / 100];
    println!(
        "{what}: p50 {:?}, p99 {:?}, max {:?} (n = {})",
        at(50),
        at(99),
        at(100),
        times.len()
    );
}
