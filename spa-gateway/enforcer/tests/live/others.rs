//! What other programs of the same machine do to the table, the interfaces and the tunnel: it stays closed.

use std::io::ErrorKind;
use std::net::{Ipv4Addr, TcpListener, TcpStream, UdpSocket};
use std::process::Command;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use spa_order::{Order, SecretBytes32};

use crate::gateway::{CLIENT, Gateway, OUTSIDE, door, flow, has_table, ip, ttl};
use crate::namespace::{Namespace, root};
use crate::patience::{uninterrupted, until};

/// Longer than a packet takes on a veth pair, shorter than a test may.
const SILENCE: Duration = Duration::from_millis(250);

/// `nft flush ruleset`, which Debian's `nftables.service` begins with: the machine is closed again at once, nothing is
/// open, and the enforcer ends with a line that says why.
#[test]
fn a_table_that_somebody_deletes_is_in_place_again() {
    if !root() {
        return;
    }
    let mut gateway = Gateway::start();
    let _service = listen(&gateway.namespace, OUTSIDE, 2222);
    gateway.done(&Order::Door {
        door: door(CLIENT, 4000),
        ttl: ttl(60_000),
    });
    gateway.namespace.output("nft", &["flush ruleset"]);
    assert_eq!(gateway.ended().code(), Some(1));
    let said = gateway.said();
    assert!(
        said.contains("deleted or replaced table inet spa"),
        "{said}"
    );
    assert!(has_table(&gateway.namespace));
    assert!(gateway.elements("door4").is_empty());
    assert!(!reaches(&gateway.client, OUTSIDE, 2222));
}

/// Another table of our name in the place of ours, as a saved ruleset brings it, is replaced too.
#[test]
fn a_table_that_somebody_replaces_is_ours_again() {
    if !root() {
        return;
    }
    let mut gateway = Gateway::start();
    let _service = listen(&gateway.namespace, OUTSIDE, 2222);
    let saved =
        "flush ruleset; table inet spa { chain input { type filter hook input priority 0; }; }";
    gateway.namespace.output("nft", &[saved]);
    assert_eq!(gateway.ended().code(), Some(1));
    assert!(!reaches(&gateway.client, OUTSIDE, 2222));
}

/// What somebody puts into the table by hand, or takes out of it, is undone at once: a hole, an opening that was closed, a
/// chain that was emptied. The next start makes the table equal to the store.
#[test]
fn what_somebody_changes_in_the_table_is_undone() {
    if !root() {
        return;
    }
    let changes = [
        "add element inet spa door4 { 198.51.100.7 . 4001 timeout 1h }",
        "delete element inet spa door4 { 198.51.100.7 . 4000 }",
        "flush set inet spa door4",
        "insert rule inet spa input tcp dport 2222 accept",
        "flush chain inet spa uplink",
        "flush chain inet spa input",
    ];
    for change in changes {
        let mut gateway = Gateway::start();
        let _service = listen(&gateway.namespace, OUTSIDE, 2222);
        gateway.done(&Order::Door {
            door: door(CLIENT, 4000),
            ttl: ttl(60_000),
        });
        gateway.namespace.output("nft", &[change]);
        assert_eq!(gateway.ended().code(), Some(1), "{change}");
        let said = gateway.said();
        assert!(said.contains("changed table inet spa by hand"), "{said}");
        assert!(gateway.elements("door4").is_empty(), "{change}");
        assert!(!reaches(&gateway.client, OUTSIDE, 2222), "{change}");
    }
}

/// A ruleset so large that the kernel throws away what it would tell us of it (ENOBUFS) hides nothing: a rule or an element
/// that somebody put into our table meanwhile is found, be it one of ours that lasts longer, and without one all goes on.
#[test]
fn what_is_too_much_to_hear_hides_nothing() {
    if !root() {
        return;
    }
    let rule = "insert rule inet spa input tcp dport 2222 accept";
    let element = "add element inet spa door4 { 198.51.100.7 . 4001 timeout 1h }";
    let longer = "delete element inet spa door4 { 198.51.100.7 . 4000 }; \
                  add element inet spa door4 { 198.51.100.7 . 4000 timeout 1h }";
    for change in [None, Some(rule), Some(element), Some(longer)] {
        let mut gateway = Gateway::start();
        let _service = listen(&gateway.namespace, OUTSIDE, 2222);
        gateway.done(&Order::Door {
            door: door(CLIENT, 4000),
            ttl: ttl(60_000),
        });
        let enforcer = Pid::from_raw(i32::try_from(gateway.pid()).expect("a pid")).expect("a pid");
        kill_process(enforcer, Signal::STOP).expect("our own child");
        let many: Vec<_> = (0..40_000_u32)
            .map(|number| Ipv4Addr::from(0x0A00_0000 + 2 * number).to_string())
            .collect();
        let list = std::env::temp_dir().join(format!("spa-live-{}.nft", gateway.pid()));
        let text = format!(
            "add table inet other\nadd set inet other many {{ type ipv4_addr; }}\nadd element inet other many {{ {} }}\n",
            many.join(", ")
        );
        std::fs::write(&list, text).expect("a file");
        let path = list.to_str().expect("a path of ours");
        let mut rounds = 0;
        while !lost(&gateway.namespace) {
            rounds += 1;
            assert!(rounds < 20, "nothing is ever lost");
            gateway.namespace.output("nft", &["-f", path]);
            gateway
                .namespace
                .output("nft", &["delete table inet other"]);
        }
        std::fs::remove_file(&list).expect("our own file");
        if let Some(change) = change {
            gateway.namespace.output("nft", &[change]);
        }
        kill_process(enforcer, Signal::CONT).expect("our own child");
        match change {
            None => {
                for _ in 0..2 {
                    gateway.done(&Order::CloseDoor {
                        door: door(CLIENT, 4000),
                    });
                }
            }
            Some(change) => {
                assert_eq!(gateway.ended().code(), Some(1), "{change}");
                let said = gateway.said();
                assert!(said.contains("changed table inet spa by hand"), "{said}");
                assert!(gateway.elements("door4").is_empty(), "{change}");
                assert!(!reaches(&gateway.client, OUTSIDE, 2222), "{change}");
            }
        }
    }
}

/// Whether a netlink socket of this namespace has lost messages: the column `Drops`.
fn lost(namespace: &Namespace) -> bool {
    let sockets = namespace.output("cat", &["/proc/net/netlink"]);
    sockets.lines().skip(1).any(|line| {
        let drops = line.split_whitespace().nth(8);
        drops.is_some_and(|drops| drops != "0")
    })
}

/// What others do to tables of their own is theirs; and ours expires, and is changed by orders, without a word.
#[test]
fn other_tables_are_nobodys_business_here() {
    if !root() {
        return;
    }
    let mut gateway = Gateway::start();
    gateway.done(&Order::Door {
        door: door(CLIENT, 4000),
        ttl: ttl(300),
    });
    let others = "add table inet other; add chain inet other input { type filter hook input priority 0; };          add set inet other spa { type ipv4_addr; }; add element inet other spa { 192.0.2.1 };          delete table inet other; add table ip spa; delete table ip spa";
    gateway.namespace.output("nft", &[others]);
    until("the door lapses", || {
        gateway.elements("door4").is_empty().then_some(())
    });
    // Answered behind whatever was heard before it.
    for _ in 0..2 {
        gateway.done(&Order::CloseDoor {
            door: door(CLIENT, 4000),
        });
    }
}

/// A chain that somebody empties is a closed one, be it one that others lead to, also before anybody looks.
#[test]
fn a_flushed_chain_is_a_closed_one() {
    if !root() {
        return;
    }
    for chain in ["uplink", "input"] {
        let mut gateway = Gateway::start();
        let _service = listen(&gateway.namespace, OUTSIDE, 2222);
        gateway.kill();
        let flush = format!("flush chain inet spa {chain}");
        gateway.namespace.output("nft", &[&flush]);
        assert!(!reaches(&gateway.client, OUTSIDE, 2222), "{chain}");
    }
}

/// The table knows interfaces by name. One that gets another name stays closed under it.
#[test]
fn a_knock_interface_with_a_new_name_stays_closed() {
    if !root() {
        return;
    }
    let mut gateway = Gateway::start();
    let _service = listen(&gateway.namespace, "0.0.0.0", 2222);
    gateway.namespace.ip("link set eth0 down");
    gateway.namespace.ip("link set eth0 name wan7");
    gateway.namespace.ip("link set wan7 up");
    assert_eq!(gateway.ended().code(), Some(1));
    let said = gateway.said();
    assert!(said.contains("eth0 is called wan7 now"), "{said}");
    assert!(!reaches(&gateway.client, OUTSIDE, 2222));
    assert!(gateway.counted("uplink", "dark") > 0);
}

/// The rules know the tunnel by name too. Under another one nothing would guard it: it goes, before anything passes.
#[test]
fn a_tunnel_interface_with_a_new_name_is_removed() {
    if !root() {
        return;
    }
    let mut gateway = Gateway::start();
    gateway.namespace.ip("link set spa0 down");
    gateway.namespace.ip("link set spa0 name vpn7");
    assert_eq!(gateway.ended().code(), Some(1));
    let said = gateway.said();
    assert!(said.contains("spa0 was renamed to vpn7"), "{said}");
    let links = gateway.namespace.output("ip", &["link"]);
    assert!(!links.contains("vpn7"), "{links}");
}

/// Our sockets hear the interface they were bound to. When there is another of its name (a modem that dialled again), the
/// enforcer ends, to be started again on that one; that an interface is gone, or down, is no reason.
#[test]
fn an_interface_that_is_made_anew_is_a_reason_to_start_again() {
    if !root() {
        return;
    }
    let mut gateway = Gateway::start();
    gateway.namespace.ip("link set eth0 down");
    gateway.namespace.ip("link set eth0 up");
    gateway.namespace.ip("link delete eth0");
    gateway.done(&Order::CloseDoor {
        door: door(CLIENT, 4000),
    });
    gateway
        .namespace
        .ip("link add eth0 type veth peer name spare0");
    assert_eq!(gateway.ended().code(), Some(1));
    let said = gateway.said();
    assert!(said.contains("eth0 was made anew"), "{said}");
}

/// When WireGuard's interface has gone with the enforcer, what a resource still sends to a session does not leave by the
/// default route, where everybody could read it.
#[test]
fn what_is_meant_for_a_session_leaves_through_the_tunnel_or_not_at_all() {
    if !root() {
        return;
    }
    let mut gateway = Gateway::start();
    let resources = Namespace::new("lan");
    let lan = ["10.0.5.1/24", "fd00:5::1/64"];
    let host = ["10.0.5.10/24", "fd00:5::10/64"];
    gateway
        .namespace
        .wire("lan0", &lan, &resources, "eth0", &host);
    gateway.namespace.sysctl("ipv4/ip_forward", "1");
    gateway.namespace.sysctl("ipv6/conf/all/forwarding", "1");
    resources.ip("route add default via 10.0.5.1");
    resources.ip("-6 route add default via fd00:5::1");
    gateway
        .namespace
        .ip(&format!("route add default via {CLIENT}"));
    gateway.namespace.ip("-6 route add default via 2001:db8::7");
    // Somebody outside who would like to be the session.
    gateway.client.ip("address add 10.200.0.7/32 dev eth0");
    gateway
        .client
        .ip("address add fd5a:1::7/128 dev eth0 nodad");
    gateway.done(&Order::Key {
        private: SecretBytes32::from_bytes([7; 32]),
    });
    gateway.done(&Order::Flow {
        flow: flow("10.0.5.10", 443),
        ttl: ttl(60_000),
    });
    gateway.kill();
    // The kernel's stays, spa-tunnel's may be gone already.
    gateway.namespace.inside(|| {
        let _ = Command::new("ip").args(["link", "delete", "spa0"]).output();
    });
    until("the tunnel's interface is gone or down", || {
        let routes = gateway.namespace.output("ip", &["route"]);
        (!routes.contains("10.200.0.0/16")).then_some(())
    });
    for (session, resource) in [("10.200.0.7", "10.0.5.10"), ("fd5a:1::7", "fd00:5::10")] {
        let hears = gateway.client.inside(|| UdpSocket::bind((ip(session), 9)));
        let hears = hears.expect("an address of the client");
        hears.set_read_timeout(Some(SILENCE)).expect("a timeout");
        let dropped = |gateway: &Gateway| {
            let comment = "to a tunnel address through the tunnel only";
            gateway.counted("forward", comment) + gateway.counted("output", comment)
        };
        let before = dropped(&gateway);
        for (from, address) in [(&resources, resource), (&gateway.namespace, "::")] {
            let socket = from.inside(|| UdpSocket::bind((ip(address), 443)));
            // The gateway's own may be told so at once.
            let _ = socket
                .expect("a socket")
                .send_to(b"secret", (ip(session), 9));
        }
        until("both were dropped", || {
            (dropped(&gateway) >= before + 2).then_some(())
        });
        let heard = uninterrupted(|| hears.recv_from(&mut [0; 16]));
        assert_eq!(heard.map(|(len, _)| len), Err(ErrorKind::WouldBlock));
    }
}

fn listen(on: &Namespace, address: &str, port: u16) -> TcpListener {
    on.inside(|| TcpListener::bind((ip(address), port)))
        .expect("a port")
}

fn reaches(from: &Namespace, address: &str, port: u16) -> bool {
    let target = (ip(address), port).into();
    from.inside(|| TcpStream::connect_timeout(&target, SILENCE))
        .is_ok()
}
