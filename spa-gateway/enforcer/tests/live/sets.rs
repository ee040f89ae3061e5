//! `--sets`: the administrator's ruleset is looked at rule by rule, and the line that is missing is said.

use std::path::Path;

use spa_order::{Answer, Flow, FlowTarget, Opening, Order, Protocol};

use crate::gateway::{CLIENT, FLAGS, Gateway, door, flow, has_table, ip, outside, ttl};
use crate::namespace::root;
use crate::patience::until;

/// The shipped example, as an administrator has it.
fn shipped() -> String {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../packaging/nftables");
    let text = std::fs::read_to_string(folder.join("nftables.conf.example")).expect("shipped");
    let installed = "/usr/share/spa/nftables/spa.nft";
    text.replace(installed, folder.join("spa.nft").to_str().expect("text"))
}

/// Each of these changes lets something by, or shuts everybody out, and is found and named with its remedy.
#[test]
fn each_hole_in_an_administrators_ruleset_is_named() {
    if !root() {
        return;
    }
    let (namespace, _client) = outside();
    let look = || {
        let flags: Vec<_> = FLAGS
            .split_whitespace()
            .chain(["--sets", "filter", "--look"])
            .collect();
        namespace.output(env!("CARGO_BIN_EXE_spa-enforcer"), &flags)
    };
    namespace.output("nft", &["add table inet filter"]);
    assert!(look().contains("table inet filter has no set door4, door6, door_addr4"));
    namespace.output("nft", &[&shipped()]);
    assert_eq!(look(), "");
    let established = "ct state established,related accept";
    let cases = [
        (
            "iifname $tunnel goto spa_out_of_tunnel\n",
            "",
            "rule 2 of chain forward of table inet filter may accept before our sets are asked, so a session reaches everything: write `iifname \"spa0\" goto spa_out_of_tunnel` above it",
        ),
        (
            "oifname $tunnel goto spa_into_tunnel\n",
            "ct state vmap { established : accept }\noifname $tunnel goto spa_into_tunnel\n",
            "rule 2 of chain forward of table inet filter may accept before our sets are asked, so everything reaches a session, also one that ended: write `oifname \"spa0\" goto spa_into_tunnel` above it",
        ),
        (
            "oifname $tunnel goto spa_own_into_tunnel",
            "",
            "chain output of table inet filter lacks the line `oifname \"spa0\" goto spa_own_into_tunnel`, so this machine reaches a session, also one that ended: make it the first",
        ),
        (
            "udp dport 51820 goto spa_door",
            "udp dport 51820 accept",
            "rule 2 of chain input of table inet filter decides without asking our sets: write `udp dport 51820 goto spa_door` in its place",
        ),
        (
            "udp dport 51820 goto spa_door",
            "iifname $outside accept\nudp dport 51820 goto spa_door",
            "rule 2 of chain input of table inet filter may accept before our sets are asked, so WireGuard is open to everybody, or to nobody: write `udp dport 51820 goto spa_door` above it",
        ),
        (
            "define tunnel = \"spa0\"",
            "define tunnel = \"wg0\"",
            "rule 4 of chain input of table inet filter may accept before",
        ),
        (
            "type filter hook forward priority filter; policy drop;",
            "",
            "table inet filter has no filter chain on hook forward, so a session reaches everything: add `chain forward { type filter hook forward priority filter; iifname \"spa0\" goto spa_out_of_tunnel; }`",
        ),
    ];
    for (from, to, expected) in cases {
        let text = shipped();
        assert!(text.contains(from) && text.contains(established));
        namespace.output("nft", &[&text.replacen(from, to, 1)]);
        let found = look();
        assert!(
            found.contains(&format!("problem: {expected}")),
            "{to}: {found}"
        );
    }
    // In the chains that decide.
    let within = [
        (
            "insert rule inet filter spa_out_of_tunnel ct state established accept",
            "rule 1 of chain spa_out_of_tunnel of table inet filter may accept what is in none of our sets, so a session reaches everything: remove it",
        ),
        (
            "flush chain inet filter spa_door",
            "no rule of chain spa_door of table inet filter accepts what is in set door4: add `ip saddr . udp sport @door4 accept`",
        ),
        (
            "insert rule inet filter spa_door jump spa_into_tunnel",
            "rule 5 of chain spa_into_tunnel of table inet filter may accept what is in none of our sets",
        ),
        // What comes back to the chain it came from is accepted there, by its policy or by `established`.
        (
            "insert rule inet filter spa_out_of_tunnel ct state established return",
            "rule 1 of chain spa_out_of_tunnel of table inet filter may accept what is in none of our sets",
        ),
        (
            "insert rule inet filter forward ct state established return",
            "rule 1 of chain forward of table inet filter may accept before our sets are asked",
        ),
        (
            "add chain inet filter web { ip saddr . ip daddr . meta l4proto . th dport @flow4 accept; }; insert rule inet filter spa_out_of_tunnel tcp dport 443 goto web",
            "chain web of table inet filter does not end with a drop",
        ),
        // The first packet of a connection alone comes to a chain of type nat.
        (
            "delete chain inet filter output; add chain inet filter output { type nat hook output priority filter; oifname spa0 goto spa_own_into_tunnel; }",
            "table inet filter has no filter chain on hook output",
        ),
        (
            "add table inet filter { flags dormant; }",
            "table inet filter is dormant, so that no packet is asked anything: load it without `flags dormant`",
        ),
    ];
    for (change, expected) in within {
        namespace.output("nft", &[&shipped()]);
        namespace.output("nft", &[change]);
        let found = look();
        assert!(found.contains(expected), "{change}: {found}");
    }
}

/// What is ordered is in the administrator's sets, exact flows, networks and echo alike, and is shown as it was ordered; at a
/// start they are emptied.
#[test]
fn openings_lie_in_the_administrators_sets() {
    if !root() {
        return;
    }
    let (namespace, client) = outside();
    namespace.output("nft", &[&shipped()]);
    namespace.output(
        "nft",
        &["add element inet filter door4 { 203.0.113.66 . 1 timeout 1h }"],
    );
    let mut gateway = Gateway::start_in(namespace, client, "--sets filter");
    let echo = Flow {
        protocol: Protocol::Icmp,
        ports: (0, 0),
        ..flow("10.0.5.10", 0)
    };
    let network = Flow {
        to: FlowTarget::Forward,
        destination: ip("10.0.6.0"),
        prefix: 24,
        ports: (1, 1_000),
        ..flow("10.0.6.0", 1)
    };
    let flows = [flow("10.0.5.10", 443), echo, network];
    for flow in flows {
        let ttl = ttl(60_000);
        gateway.done(&Order::Flow { flow, ttl });
    }
    let door = door(CLIENT, 4000);
    gateway.done(&Order::Door {
        door,
        ttl: ttl(60_000),
    });
    let expected = |open: &[(Opening, _)]| {
        let has = |wanted: Opening| open.iter().any(|(opening, _)| *opening == wanted);
        open.len() == 4
            && has(Opening::Door(door))
            && flows.iter().all(|flow| has(Opening::Flow(*flow)))
    };
    assert!(expected(&gateway.openings()), "{:?}", gateway.openings());
    gateway.namespace.output("nft", &[&shipped()]);
    until("all of it is back after a reload", || {
        expected(&gateway.openings()).then_some(())
    });
    for flow in flows {
        assert_eq!(gateway.order(&Order::CloseFlow { flow }), Answer::Done);
    }
    assert_eq!(gateway.openings().len(), 1);
}

/// What shuts the tunnel while the administrator's rules do not guard it is itself a table that a flush takes away: a second
/// flush, which is how a stop and a start of nftables.service begin, or a hand, leaves the tunnel shut.
#[test]
fn a_second_flush_leaves_the_tunnel_shut() {
    if !root() {
        return;
    }
    let (namespace, client) = outside();
    namespace.output("nft", &[&shipped()]);
    let gateway = Gateway::start_in(namespace, client, "--sets filter");
    let shuts = || {
        let all = gateway.namespace.output("nft", &["list", "ruleset"]);
        let rules = all.matches("rules do not guard the tunnel").count();
        (rules == 5).then_some(())
    };
    for change in [
        "flush ruleset",
        "flush ruleset",
        "flush chain inet spa forward",
        "delete table inet spa",
    ] {
        gateway.namespace.output("nft", &[change]);
        until(&format!("the tunnel is shut after {change}"), shuts);
    }
    gateway.namespace.output("nft", &[&shipped()]);
    until("it is open again behind rules that guard it", || {
        (!has_table(&gateway.namespace)).then_some(())
    });
}

/// `nft list ruleset > FILE; nft -f FILE` brings our elements back with the ends they had when they were saved: they get ours.
#[test]
fn an_element_that_was_saved_and_loaded_does_not_last_longer() {
    if !root() {
        return;
    }
    let (namespace, client) = outside();
    namespace.output("nft", &[&shipped()]);
    let mut gateway = Gateway::start_in(namespace, client, "--sets filter");
    let flow = flow("10.0.5.10", 443);
    gateway.done(&Order::Flow {
        flow,
        ttl: ttl(60_000),
    });
    let element = format!("{} . 10.0.5.10 . tcp . 443", flow.tunnel);
    let longer = ["timeout 1h", ""];
    for end in longer {
        let change = format!(
            "delete element inet filter flow4 {{ {element} }}; add element inet filter flow4 {{ {element} {end} }}"
        );
        gateway.namespace.output("nft", &[&change]);
        until("it ends when it was to end", || {
            let [(opening, usage)] = &gateway.openings()[..] else {
                return None;
            };
            let left = usage.remaining_ms;
            (*opening == Opening::Flow(flow) && left > 0 && left <= 60_000).then_some(())
        });
    }
}

/// A knock interface that gets another name is told of, and nothing is said to be closed that is his to close.
#[test]
fn a_renamed_interface_is_the_administrators_to_close() {
    if !root() {
        return;
    }
    let (namespace, client) = outside();
    namespace.output("nft", &[&shipped()]);
    let mut gateway = Gateway::start_in(namespace, client, "--sets filter");
    gateway.namespace.ip("link set eth0 down");
    gateway.namespace.ip("link set eth0 name wan0");
    assert_eq!(gateway.ended().code(), Some(1));
    let said = gateway.said();
    assert!(
        said.contains("eth0 is called wan0 now: whether it is closed is up to your own ruleset"),
        "{said}"
    );
}

/// The element `*` stands for every key and has none itself: it is taken out too, and what is open stays.
#[test]
fn an_element_that_stands_for_everything_is_taken_out() {
    if !root() {
        return;
    }
    let (namespace, client) = outside();
    namespace.output("nft", &[&shipped()]);
    let all = "add element inet filter flow4 { * timeout 1h }; add element inet filter own_range4_2 { * }";
    namespace.output("nft", &[all]);
    let mut gateway = Gateway::start_in(namespace, client, "--sets filter");
    let has_all = |gateway: &Gateway| {
        let ruleset = gateway.namespace.output("nft", &["list", "ruleset"]);
        ruleset.contains("elements = { *")
    };
    assert!(!has_all(&gateway), "a start empties the sets");
    let flow = flow("10.0.5.10", 443);
    gateway.done(&Order::Flow {
        flow,
        ttl: ttl(60_000),
    });
    gateway.namespace.output("nft", &[all]);
    until("only what was ordered is open", || {
        let ordered =
            matches!(&gateway.openings()[..], [(open, _)] if *open == Opening::Flow(flow));
        (ordered && !has_all(&gateway)).then_some(())
    });
}
