//! Everything that can be wrong at the start is met with one line, and leaves nothing half-done.

use std::net::UdpSocket;

use crate::gateway::{FLAGS, Gateway, Launched, has_table, launch, launch_as, outside, said};
use crate::namespace::{Namespace, root};
use crate::patience::until;

/// What it says when it cannot start, and that nothing is left of the attempt.
fn refusal(namespace: &Namespace, launched: Launched) -> (Option<i32>, String) {
    let Launched {
        mut child,
        socket,
        mut stderr,
    } = launched;
    let status = until("the enforcer gives up", || {
        child.try_wait().expect("our own child")
    });
    drop(socket);
    let said = said(&mut stderr);
    assert_eq!(said.lines().count(), 1, "{said}");
    assert!(!has_table(namespace), "{said}");
    assert!(
        !namespace.output("ip", &["link"]).contains("spa0"),
        "{said}"
    );
    (status.code(), said)
}

#[test]
fn a_missing_interface_is_named() {
    if !root() {
        return;
    }
    let (namespace, _client) = outside();
    let launched = launch(&namespace, &FLAGS.replace("eth0", "eth7"));
    let (code, said) = refusal(&namespace, launched);
    assert_eq!(code, Some(1));
    assert!(said.contains("eth7 does not exist"), "{said}");
}

#[test]
fn missing_privilege_is_one_line() {
    if !root() {
        return;
    }
    let (namespace, _client) = outside();
    let launched = launch_as(&namespace, FLAGS, Some(65_534));
    let (code, said) = refusal(&namespace, launched);
    assert_eq!(code, Some(1));
    assert!(said.contains("as root"), "{said}");
}

#[test]
fn an_occupied_port_is_named() {
    if !root() {
        return;
    }
    let (namespace, _client) = outside();
    let _occupant = namespace.inside(|| UdpSocket::bind("0.0.0.0:51820").expect("a free port"));
    let launched = launch(&namespace, FLAGS);
    let (code, said) = refusal(&namespace, launched);
    assert_eq!(code, Some(1));
    assert!(said.contains("51820") && said.contains("in use"), "{said}");
}

#[test]
fn an_interface_of_somebody_else_is_left_alone() {
    if !root() {
        return;
    }
    let (namespace, _client) = outside();
    namespace.ip("link add spa7 type veth peer name other");
    let Launched {
        mut child,
        socket: _socket,
        mut stderr,
    } = launch(&namespace, &FLAGS.replace("spa0", "spa7"));
    let status = until("the enforcer gives up", || {
        child.try_wait().expect("our own child")
    });
    let said = said(&mut stderr);
    assert_eq!(
        (status.code(), said.lines().count()),
        (Some(1), 1),
        "{said}"
    );
    assert!(namespace.output("ip", &["link"]).contains("spa7"));
    assert!(!has_table(&namespace));
}

#[test]
fn a_missing_user_is_named() {
    if !root() {
        return;
    }
    let (namespace, _client) = outside();
    let launched = launch(&namespace, &FLAGS.replace("nobody", "no-such-user"));
    let (code, said) = refusal(&namespace, launched);
    assert_eq!(code, Some(1));
    assert!(said.contains("no-such-user"), "{said}");
}

#[test]
fn a_wrong_flag_is_named() {
    if !root() {
        return;
    }
    let (namespace, _client) = outside();
    let launched = launch(&namespace, &format!("{FLAGS} --keep-open 22"));
    let (code, said) = refusal(&namespace, launched);
    assert_eq!(code, Some(2));
    assert!(said.contains("--keep-open 22"), "{said}");
}

#[test]
fn a_failed_restart_leaves_the_machine_closed() {
    if !root() {
        return;
    }
    let (namespace, _client) = Gateway::start().into_namespaces();
    namespace.ip("link add spa7 type veth peer name other");
    let flags = FLAGS.replace("spa0", "spa7");
    let Launched {
        mut child,
        socket: _socket,
        ..
    } = launch(&namespace, &flags);
    until("the enforcer gives up", || {
        child.try_wait().expect("our own child")
    });
    assert!(has_table(&namespace));
}

#[test]
fn a_foreign_chain_in_the_way_is_named_until_it_is_mended() {
    if !root() {
        return;
    }
    let (namespace, client) = outside();
    let nft = |namespace: &Namespace, rule: &str| {
        namespace.output("nft", &[rule]);
    };
    nft(&namespace, "add table inet office");
    nft(
        &namespace,
        "add chain inet office arriving { type filter hook input priority 0; policy drop; }",
    );
    nft(
        &namespace,
        "add chain inet office transit { type filter hook forward priority -50; policy drop; }",
    );
    nft(
        &namespace,
        "add chain inet office leaving { type filter hook output priority 0; policy drop; }",
    );
    let mut gateway = Gateway::start_in(namespace, client, "");
    let warned = gateway.said();
    assert_eq!(warned.lines().count(), 2, "{warned}");
    let mended = "nft insert rule inet office arriving udp dport 51820 accept";
    assert!(warned.contains(mended), "{warned}");
    assert!(
        warned.contains("nft insert rule inet office transit oifname spa0 accept"),
        "{warned}"
    );
    let (namespace, client) = gateway.into_namespaces();
    nft(
        &namespace,
        "insert rule inet office arriving udp dport 51820 accept",
    );
    nft(
        &namespace,
        "insert rule inet office transit iifname spa0 accept",
    );
    let mut gateway = Gateway::start_in(namespace, client, "");
    assert_eq!(gateway.said(), "");
}

/// A chain that accepts by default and rejects at its end is in the way like one that drops, and who keeps the rules of a table
/// is told in the words by which rules of theirs last.
#[test]
fn a_chain_that_ends_in_a_reject_is_named_in_its_keepers_words() {
    if !root() {
        return;
    }
    let accepts = "type filter hook input priority 10; policy accept;";
    let forwards = "type filter hook forward priority 10; policy drop;";
    for (table, ruleset, remedy, mended) in [
        (
            "inet firewalld",
            format!(
                "chain filter_INPUT {{ {accepts} iifname \"lo\" accept; counter reject with icmpx type admin-prohibited; }}"
            ),
            "firewall-cmd --permanent --add-port=51820/udp",
            "chain filter_IN_public_allow { udp dport 51820 accept; }",
        ),
        (
            "ip filter",
            format!(
                "chain ufw-user-forward {{ }}; chain FORWARD {{ {forwards} jump ufw-user-forward; }}"
            ),
            "ufw route allow in on spa0",
            "chain ufw-user-forward { iifname \"spa0\" accept; }",
        ),
        (
            "ip filter",
            format!("chain DOCKER-USER {{ }}; chain FORWARD {{ {forwards} jump DOCKER-USER; }}"),
            "iptables -I DOCKER-USER -i spa0 -j ACCEPT",
            "chain DOCKER-USER { iifname \"spa0\" accept; }",
        ),
        (
            "inet office",
            format!("chain arriving {{ {accepts} tcp dport 22 accept; drop; }}"),
            "nft insert rule inet office arriving udp dport 51820 accept",
            "chain arriving { udp dport 51820 accept; }",
        ),
    ] {
        let (namespace, client) = outside();
        namespace.output("nft", &[&format!("table {table} {{ {ruleset}; }}")]);
        let mut gateway = Gateway::start_in(namespace, client, "");
        let warned = gateway.said();
        assert_eq!(warned.lines().count(), 1, "{table}: {warned}");
        assert!(warned.contains(remedy), "{warned}");
        let (namespace, client) = gateway.into_namespaces();
        namespace.output("nft", &[&format!("table {table} {{ {mended}; }}")]);
        let mut gateway = Gateway::start_in(namespace, client, "");
        assert_eq!(gateway.said(), "", "{table}");
    }
    // One that ends in nothing, or in a drop of something, is in nobody's way.
    let (namespace, client) = outside();
    let harmless =
        format!("table inet office {{ chain arriving {{ {accepts} ip saddr 192.0.2.1 drop; }}; }}");
    namespace.output("nft", &[&harmless]);
    assert_eq!(Gateway::start_in(namespace, client, "").said(), "");
}

#[test]
fn no_thread_keeps_more_privilege_than_it_needs() {
    if !root() {
        return;
    }
    let gateway = Gateway::start();
    let tasks = std::fs::read_dir(format!("/proc/{}/task", gateway.pid())).expect("it lives");
    let mut threads = 0;
    for task in tasks {
        let path = task.expect("a thread").path().join("status");
        let status = std::fs::read_to_string(path).expect("it lives");
        let field = |name: &str| {
            let line = status
                .lines()
                .find(|line| line.starts_with(name))
                .expect("a field");
            line.split_whitespace().nth(1).expect("a value").to_owned()
        };
        // Bit 12: CAP_NET_ADMIN.
        assert_eq!(field("CapEff:"), "0000000000001000");
        assert_eq!(field("CapPrm:"), "0000000000001000");
        for set in ["CapInh:", "CapBnd:", "CapAmb:"] {
            assert_eq!(field(set), "0000000000000000", "{set}");
        }
        assert_eq!(field("NoNewPrivs:"), "1");
        assert_eq!(field("Seccomp:"), "2");
        threads += 1;
    }
    assert_eq!(threads, 2);
}
