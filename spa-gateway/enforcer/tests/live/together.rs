//! Orders that come together are performed together, and each has the outcome it would have by itself.

use rustix::process::{Pid, Signal, kill_process};
use spa_order::{Answer, Flow, Opening, Order, Reason, SecretBytes32};

use crate::gateway::{Gateway, OUTSIDE, door, flow, ttl};
use crate::namespace::root;

/// Has the enforcer find all these orders at once, and gives the answers in their order.
fn together(gateway: &mut Gateway, orders: &[Order]) -> Vec<Answer> {
    let pid = i32::try_from(gateway.pid()).expect("a process id");
    let pid = Pid::from_raw(pid).expect("a process id");
    kill_process(pid, Signal::STOP).expect("our own child");
    for order in orders {
        gateway.post(order);
    }
    kill_process(pid, Signal::CONT).expect("our own child");
    orders.iter().map(|_| gateway.any_answer()).collect()
}

#[test]
fn each_of_many_openings_is_answered_for_itself() {
    if !root() {
        return;
    }
    let mut gateway = Gateway::start();
    let flow_of = |port, ms| Order::Flow {
        flow: flow("10.0.5.10", port),
        ttl: ttl(ms),
    };
    let door_of = |source: &str, port| Order::Door {
        door: door(source, port),
        ttl: ttl(60_000),
    };
    let range = |ports| Flow {
        ports,
        ..flow("10.0.5.10", 1)
    };
    let answers = together(
        &mut gateway,
        &[
            flow_of(443, 60_000),
            door_of("198.51.100.7", 40_000),
            // Ours, so nobody's.
            door_of(OUTSIDE, 40_001),
            door_of("198.51.100.255", 40_002),
            // Longer than any may last.
            flow_of(80, 3_600_001),
            flow_of(81, 60_000),
            // An interval, and one that overlaps it in part.
            Order::Flow {
                flow: range((1_000, 1_010)),
                ttl: ttl(60_000),
            },
            Order::Flow {
                flow: range((1_005, 1_020)),
                ttl: ttl(60_000),
            },
            // Once more, with more time.
            flow_of(443, 600_000),
            door_of("2001:db8::7", 40_000),
        ],
    );
    let refused = |reason| Answer::Refused(reason);
    assert_eq!(
        answers,
        [
            Answer::Done,
            Answer::Done,
            refused(Reason::SourceForbidden),
            refused(Reason::SourceForbidden),
            refused(Reason::TtlLong),
            Answer::Done,
            Answer::Done,
            Answer::Done,
            Answer::Done,
            Answer::Done,
        ]
    );
    let open = gateway.openings();
    let left = |wanted: Opening| {
        open.iter()
            .find(|(opening, _)| *opening == wanted)
            .map(|(_, usage)| usage.remaining_ms)
    };
    assert_eq!(open.len(), 6, "{open:?}");
    assert!(left(Opening::Flow(flow("10.0.5.10", 443))).is_some_and(|left| left > 60_000));
    assert!(left(Opening::Flow(flow("10.0.5.10", 81))).is_some_and(|left| left <= 60_000));
    // All again, and away again: what is open gets the new time in one transaction as well.
    let again = [
        flow_of(443, 900_000),
        flow_of(81, 900_000),
        door_of("198.51.100.7", 40_000),
        Order::CloseFlow {
            flow: flow("10.0.5.10", 443),
        },
        flow_of(82, 1_000_000),
    ];
    assert_eq!(together(&mut gateway, &again), [Answer::Done; 5]);
    let open = gateway.openings();
    let port_of = |(opening, usage): &(Opening, spa_order::Usage)| match opening {
        Opening::Flow(flow) if flow.ports.0 == flow.ports.1 => {
            Some((flow.ports.0, usage.remaining_ms > 600_000))
        }
        Opening::Flow(_) | Opening::Door(_) => None,
    };
    let mut ports: Vec<_> = open.iter().filter_map(port_of).collect();
    ports.sort_unstable();
    assert_eq!(ports, [(81, true), (82, true)]);
}

#[test]
fn each_of_many_peers_is_answered_for_itself() {
    if !root() {
        return;
    }
    // Room for three.
    let mut gateway = Gateway::start();
    let peer = |number: u8| Order::Peer {
        key: [number; 32],
        psk: SecretBytes32::from_bytes([number; 32]),
        tunnel4: Some([10, 200, 0, number].into()),
        tunnel6: None,
    };
    let early = together(&mut gateway, &[peer(11), peer(12)]);
    assert_eq!(early, [Answer::Refused(Reason::KeyMissing); 2]);
    gateway.done(&Order::Key {
        private: SecretBytes32::from_bytes([7; 32]),
    });
    let answers = together(
        &mut gateway,
        &[peer(11), peer(12), peer(12), peer(13), peer(14), peer(11)],
    );
    assert_eq!(
        answers,
        [
            Answer::Done,
            Answer::Done,
            Answer::Done,
            Answer::Done,
            Answer::Refused(Reason::PeersFull),
            Answer::Done,
        ]
    );
    let known = |gateway: &mut Gateway, number: u8| {
        let answer = gateway.order(&Order::ReadPeer { key: [number; 32] });
        matches!(answer, Answer::Peer(_))
    };
    let all: Vec<bool> = (11..=14)
        .map(|number| known(&mut gateway, number))
        .collect();
    assert_eq!(all, [true, true, true, false]);
}
