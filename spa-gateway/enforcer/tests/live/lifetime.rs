//! Promise 4, "it ends": every element has a kernel timeout, and nothing of ours is needed for it to lapse.

use std::net::IpAddr;

use spa_order::{Answer, Flow, FlowTarget, Opening, Order, Protocol};

use crate::gateway::{Gateway, door, elements, flow, has_table, ip, ttl};
use crate::namespace::root;
use crate::patience::until;

#[test]
fn what_is_done_is_in_the_kernel_with_its_timeout() {
    if !root() {
        return;
    }
    let mut gateway = Gateway::start();
    gateway.done(&Order::Door {
        door: door("198.51.100.7", 40_000),
        ttl: ttl(60_000),
    });
    gateway.done(&Order::Door {
        door: door("2001:db8::7", 0),
        ttl: ttl(30_000),
    });
    gateway.done(&Order::Flow {
        flow: flow("10.0.5.10", 443),
        ttl: ttl(3_600_000),
    });
    let six = Flow {
        tunnel: ip("fd5a:1::7"),
        destination: ip("fd00::1"),
        prefix: 128,
        ..flow("10.0.5.10", 53)
    };
    gateway.done(&Order::Flow {
        flow: six,
        ttl: ttl(600_000),
    });
    let own = Flow {
        to: FlowTarget::Gateway,
        ..flow("10.200.0.1", 8700)
    };
    gateway.done(&Order::Flow {
        flow: own,
        ttl: ttl(600_000),
    });
    let ranges = Flow {
        ports: (8000, 8010),
        destination: ip("10.0.6.0"),
        prefix: 28,
        ..flow("10.0.6.0", 1)
    };
    gateway.done(&Order::Flow {
        flow: ranges,
        ttl: ttl(600_000),
    });
    for (set, seconds) in [
        ("door4", 60),
        ("door_addr6", 30),
        ("flow4", 3600),
        ("flow6", 600),
        ("own4", 600),
        ("flow_range4_0", 600),
    ] {
        let elements = gateway.elements(set);
        assert_eq!(elements.len(), 1, "{set}");
        assert_eq!(elements[0]["elem"]["timeout"], seconds, "{set}");
        assert!(elements[0]["elem"]["counter"].is_object(), "{set}");
    }
    let openings: Vec<_> = gateway
        .openings()
        .into_iter()
        .map(|(opening, _)| opening)
        .collect();
    assert_eq!(openings.len(), 6);
    assert!(openings.contains(&Opening::Flow(ranges)));
    assert!(openings.contains(&Opening::Door(door("2001:db8::7", 0))));
}

#[test]
fn an_opening_lapses_though_the_enforcer_was_killed() {
    if !root() {
        return;
    }
    let mut gateway = Gateway::start();
    gateway.done(&Order::Door {
        door: door("198.51.100.7", 40_000),
        ttl: ttl(400),
    });
    gateway.done(&Order::Flow {
        flow: flow("10.0.5.10", 443),
        ttl: ttl(400),
    });
    let wide = Flow {
        ports: (1, 65_535),
        ..flow("10.0.5.10", 1)
    };
    gateway.done(&Order::Flow {
        flow: wide,
        ttl: ttl(400),
    });
    gateway.kill();
    assert!(has_table(&gateway.namespace));
    for set in ["door4", "flow4", "flow_range4_0"] {
        until("the element lapses", || {
            elements(&gateway.namespace, set).is_empty().then_some(())
        });
    }
}

#[test]
fn the_same_order_again_replaces_the_ttl_either_way() {
    if !root() {
        return;
    }
    let mut gateway = Gateway::start();
    let exact = Opening::Flow(flow("10.0.5.10", 443));
    let wide = Opening::Flow(Flow {
        ports: (1, 100),
        ..flow("10.0.5.10", 1)
    });
    let door = Opening::Door(door("198.51.100.7", 40_000));
    for opening in [exact, wide, door] {
        for millis in [10_000, 3_000_000, 5_000] {
            let ttl = ttl(millis);
            gateway.done(&match opening {
                Opening::Flow(flow) => Order::Flow { flow, ttl },
                Opening::Door(door) => Order::Door { door, ttl },
            });
            let listed = gateway.openings();
            let (_, usage) = listed
                .iter()
                .find(|(listed, _)| *listed == opening)
                .expect("it is open");
            let left = u64::from(usage.remaining_ms);
            assert!(
                left <= millis + 10 && left + 4000 > millis,
                "{left} of {millis}"
            );
        }
    }
}

#[test]
fn closing_is_done_whether_it_was_open_or_not() {
    if !root() {
        return;
    }
    let mut gateway = Gateway::start();
    let wide = Flow {
        ports: (1, 100),
        ..flow("10.0.5.10", 1)
    };
    for _ in 0..2 {
        gateway.done(&Order::Door {
            door: door("198.51.100.7", 1),
            ttl: ttl(5000),
        });
        gateway.done(&Order::Flow {
            flow: wide,
            ttl: ttl(5000),
        });
        for _ in 0..2 {
            gateway.done(&Order::CloseDoor {
                door: door("198.51.100.7", 1),
            });
            gateway.done(&Order::CloseFlow { flow: wide });
            gateway.done(&Order::RemovePeer { key: [9; 32] });
            gateway.done(&Order::Forget {
                tunnel: ip("10.200.0.7"),
            });
        }
        assert_eq!(gateway.openings(), []);
    }
}

#[test]
fn flows_that_overlap_live_and_close_each_for_itself() {
    if !root() {
        return;
    }
    let mut gateway = Gateway::start();
    let net = |destination: &str, prefix, ports| Flow {
        destination: ip(destination),
        prefix,
        ports,
        ..flow("10.0.0.0", 1)
    };
    let flows = [
        net("10.0.6.0", 24, (443, 443)),
        net("10.0.6.0", 28, (443, 443)),
        net("10.0.6.0", 28, (443, 445)),
        net("10.0.0.0", 16, (1, 65_535)),
        Flow {
            protocol: Protocol::Icmp,
            ..net("10.0.6.0", 28, (0, 0))
        },
    ];
    for flow in flows {
        gateway.done(&Order::Flow {
            flow,
            ttl: ttl(50_000),
        });
    }
    assert_eq!(gateway.openings().len(), flows.len());
    for (closed, flow) in (1..).zip(flows) {
        gateway.done(&Order::CloseFlow { flow });
        let left: Vec<_> = gateway
            .openings()
            .into_iter()
            .map(|(opening, _)| opening)
            .collect();
        assert_eq!(left.len(), flows.len() - closed);
        assert!(!left.contains(&Opening::Flow(flow)));
    }
}

#[test]
fn sessions_that_end_together_are_all_confirmed() {
    if !root() {
        return;
    }
    let mut gateway = Gateway::start_for(3);
    let tunnels = || (1..=50).map(|last| IpAddr::from([10, 200, 0, last + 1]));
    for tunnel in tunnels() {
        let flow = Flow {
            tunnel,
            ..flow("10.0.5.10", 443)
        };
        gateway.done(&Order::Flow {
            flow,
            ttl: ttl(600_000),
        });
    }
    // Forgetting is answered when it is done, closing at once; every order is answered once.
    for tunnel in tunnels() {
        gateway.post(&Order::Forget { tunnel });
        gateway.post(&Order::CloseFlow {
            flow: Flow {
                tunnel,
                ..flow("10.0.5.10", 443)
            },
        });
    }
    for _ in 0..2 * tunnels().count() {
        assert_eq!(gateway.any_answer(), Answer::Done);
    }
    assert_eq!(gateway.openings(), []);
}

#[test]
fn the_end_of_its_input_ends_it_and_leaves_the_table() {
    if !root() {
        return;
    }
    let mut gateway = Gateway::start();
    gateway.done(&Order::Door {
        door: door("198.51.100.7", 1),
        ttl: ttl(600_000),
    });
    gateway.close();
    assert!(gateway.ended().success(), "{}", gateway.said());
    assert!(has_table(&gateway.namespace));
    assert_eq!(elements(&gateway.namespace, "door4").len(), 1);
}

#[test]
fn a_new_start_begins_with_nothing_open() {
    if !root() {
        return;
    }
    let mut gateway = Gateway::start();
    gateway.done(&Order::Door {
        door: door("198.51.100.7", 1),
        ttl: ttl(600_000),
    });
    let (namespace, client) = gateway.into_namespaces();
    let mut again = Gateway::start_in(namespace, client, "");
    assert_eq!(again.openings(), []);
    assert_eq!(again.elements("door4").len(), 0);
}

#[test]
fn a_message_that_is_no_order_ends_it() {
    if !root() {
        return;
    }
    let good = Order::ListPeers.encode(1);
    let kind = |kind| {
        let mut bytes = good.to_vec();
        bytes[1] = kind;
        bytes
    };
    let longer = [&good[..], &[0]].concat();
    for message in [
        good[..127].to_vec(),
        longer,
        vec![1],
        kind(0),
        kind(200),
        vec![0; 128],
    ] {
        let mut gateway = Gateway::start();
        gateway.done(&Order::Door {
            door: door("198.51.100.7", 1),
            ttl: ttl(600_000),
        });
        gateway.send(&message);
        assert_eq!(gateway.ended().code(), Some(1));
        let said = gateway.said();
        assert!(
            said.contains("no order") && said.lines().count() == 1,
            "{said}"
        );
        assert!(has_table(&gateway.namespace));
    }
}

/// What is remembered of an address is forgotten, be it alone in the order or one of many, and nothing else is. (Linux filters
/// IPv6 addresses the wrong way round, so a lone one is a case of its own.)
#[test]
fn connections_are_forgotten_in_either_family_and_no_others() {
    if !root() {
        return;
    }
    let mut gateway = Gateway::start();
    let families = [
        (["10.200.0.7", "10.200.0.8"], "10.0.5.10"),
        (["fd5a:1::7", "fd5a:1::8"], "fd00:5::10"),
    ];
    let count = |gateway: &Gateway| {
        families.map(|(ours, _)| {
            let family = if ours[0].contains(':') {
                "ipv6"
            } else {
                "ipv4"
            };
            let all = gateway.namespace.output("conntrack", &["-L", "-f", family]);
            ours.map(|address| {
                let source = format!("src={address} ");
                all.lines().filter(|line| line.contains(&source)).count()
            })
        })
    };
    for (ours, resource) in families {
        for address in ours {
            let words = "-I -p tcp --sport 1000 --dport 443 --state ESTABLISHED --timeout 600";
            let mut entry: Vec<_> = words.split(' ').collect();
            entry.extend(["-s", address, "-d", resource]);
            gateway.namespace.output("conntrack", &entry);
        }
    }
    assert_eq!(count(&gateway), [[1, 1], [1, 1]]);
    for tunnel in ["10.200.0.7", "fd5a:1::7"] {
        gateway.done(&Order::Forget { tunnel: ip(tunnel) });
    }
    assert_eq!(count(&gateway), [[0, 1], [0, 1]]);
}
