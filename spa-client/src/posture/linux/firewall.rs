//! Whether a firewall stands before this machine: what comes in and is not asked for is dropped or rejected, for IPv4 and,
//! where there is such an address, for IPv6.
//!
//! ufw, firewalld and iptables are all seen by what they put into the kernel; whether a service "runs" says nothing.

use serde_json::Value as Json;
use spa_proto::WallTime;

use crate::posture::{Fact, Machine, Value};

const NAME: &str = "firewall";

/// Chains jump no deeper in a ruleset made by people.
const DEEPEST: usize = 16;

/// Looks at the kernel's rules.
pub fn state(machine: &Machine, at: WallTime) -> Fact {
    let legacy = Closed {
        v4: legacy(machine, "proc/net/ip_tables_names", "iptables-legacy-save"),
        v6: legacy(
            machine,
            "proc/net/ip6_tables_names",
            "ip6tables-legacy-save",
        ),
    };
    let modern = machine
        .run("nft", &["-j", "list", "ruleset"])
        .and_then(|bytes| serde_json::from_slice(&bytes).ok())
        .map(|ruleset: Json| Closed::of(&ruleset));
    let unreadable = Closed {
        v4: Is::Unknown,
        v6: Is::Unknown,
    };
    let closed = modern.unwrap_or(unreadable).or(legacy);
    let v6_matters = has_ipv6(machine);
    let all = match (closed.v4, closed.v6, v6_matters) {
        (Is::Closed, Is::Closed, _) | (Is::Closed, _, Some(false)) => Is::Closed,
        (Is::Open, _, _) | (_, Is::Open, Some(true)) => Is::Open,
        (Is::Closed | Is::Unknown, _, _) => Is::Unknown,
    };
    match all {
        Is::Closed => Fact::seen(
            NAME,
            Value::Bool(true),
            "the kernel's input rules drop what is not let in",
            at,
        ),
        Is::Open => Fact::seen(
            NAME,
            Value::Bool(false),
            "the kernel's input rules drop nothing by default",
            at,
        ),
        Is::Unknown => Fact::unknown(
            NAME,
            "the kernel's rules cannot be read: it takes nft(8) and CAP_NET_ADMIN",
            at,
        ),
    }
}

/// What input comes to for one family.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Is {
    Closed,
    Open,
    Unknown,
}

/// For both.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Closed {
    v4: Is,
    v6: Is,
}

impl Is {
    /// Closed by one is closed; open needs both to say so.
    fn or(self, other: Self) -> Self {
        match (self, other) {
            (Self::Closed, _) | (_, Self::Closed) => Self::Closed,
            (Self::Open, Self::Open) => Self::Open,
            (Self::Open | Self::Unknown, Self::Open | Self::Unknown) => Self::Unknown,
        }
    }
}

impl Closed {
    fn or(self, other: Self) -> Self {
        Self {
            v4: self.v4.or(other.v4),
            v6: self.v6.or(other.v6),
        }
    }

    /// Judges `nft -j list ruleset`.
    fn of(ruleset: &Json) -> Self {
        let objects: Vec<&Json> = ruleset["nftables"]
            .as_array()
            .into_iter()
            .flatten()
            .collect();
        let mut closed = Self {
            v4: Is::Open,
            v6: Is::Open,
        };
        for chain in objects.iter().map(|object| &object["chain"]) {
            if chain["hook"] != "input" || chain["type"] != "filter" {
                continue;
            }
            let drops =
                chain["policy"] == "drop" || ends_in_drop(&objects, chain, &chain["name"], 0);
            match chain["family"].as_str() {
                _ if !drops => {}
                Some("inet") => (closed.v4, closed.v6) = (Is::Closed, Is::Closed),
                Some("ip") => closed.v4 = Is::Closed,
                Some("ip6") => closed.v6 = Is::Closed,
                Some(_) | None => {}
            }
        }
        closed
    }
}

/// Whether a chain drops or rejects what comes to its end: by a rule without condition, or in a chain that it hands
/// everything to.
fn ends_in_drop(objects: &[&Json], of: &Json, name: &Json, depth: usize) -> bool {
    let rules = objects.iter().map(|object| &object["rule"]).filter(|rule| {
        rule["family"] == of["family"] && rule["table"] == of["table"] && rule["chain"] == *name
    });
    for rule in rules {
        let Some(statements) = rule["expr"].as_array() else {
            continue;
        };
        // Counting and logging are no conditions.
        let deciding: Vec<&Json> = statements
            .iter()
            .filter(|one| one.get("counter").is_none() && one.get("log").is_none())
            .collect();
        let [one] = deciding.as_slice() else {
            continue;
        };
        if one.get("drop").is_some() || one.get("reject").is_some() {
            return true;
        }
        if one.get("accept").is_some() {
            return false;
        }
        let onward = [&one["jump"]["target"], &one["goto"]["target"]];
        let falls = onward
            .into_iter()
            .filter(|target| target.is_string())
            .any(|target| depth < DEEPEST && ends_in_drop(objects, of, target, depth + 1));
        if falls {
            return true;
        }
    }
    false
}

/// iptables of the old kind, which nft does not list.
fn legacy(machine: &Machine, tables: &str, program: &str) -> Is {
    match machine.text(tables) {
        // Where the module was never loaded there is no such file, and no rule.
        None if !machine.has(tables) => return Is::Open,
        None => return Is::Unknown,
        Some(names) if !names.lines().any(|name| name == "filter") => return Is::Open,
        Some(_) => {}
    }
    let Some(rules) = machine.run(program, &["-t", "filter"]) else {
        return Is::Unknown;
    };
    let rules = String::from_utf8_lossy(&rules).into_owned();
    let closed = rules.lines().any(|line| {
        line.starts_with(":INPUT DROP")
            || line == "-A INPUT -j DROP"
            || line.starts_with("-A INPUT -j REJECT")
    });
    if closed { Is::Closed } else { Is::Open }
}

/// Whether there is an IPv6 address beyond loopback.
fn has_ipv6(machine: &Machine) -> Option<bool> {
    let path = "proc/net/if_inet6";
    match machine.text(path) {
        Some(text) => Some(text.lines().any(|line| !line.trim_end().ends_with(" lo"))),
        None if machine.has("proc/net") => Some(machine.has(path)),
        None => None,
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::PermissionsExt;
    use std::path::Path;

    use serde_json::json;

    use super::*;
    use crate::posture::linux::tests::{AT, put};
    use crate::testing::Scratch;

    fn program(root: &Path, name: &str, output: &str) {
        let path = format!("usr/sbin/{name}");
        put(
            root,
            &path,
            format!("#!/bin/sh\ncat <<'END'\n{output}\nEND\n"),
        );
        fs::set_permissions(root.join(path), fs::Permissions::from_mode(0o755)).expect("ours");
    }

    fn chain(family: &str, name: &str, policy: &str) -> Json {
        json!({"chain": {"family": family, "table": "t", "name": name, "type": "filter",
            "hook": "input", "prio": 0, "policy": policy}})
    }

    fn rule(family: &str, name: &str, statements: Json) -> Json {
        json!({"rule": {"family": family, "table": "t", "chain": name, "expr": statements}})
    }

    fn closed(objects: &[Json]) -> (Is, Is) {
        let closed = Closed::of(&json!({ "nftables": objects }));
        (closed.v4, closed.v6)
    }

    #[test]
    fn a_policy_or_a_last_rule_that_drops_is_a_firewall() {
        assert_eq!(
            closed(&[chain("inet", "in", "drop")]),
            (Is::Closed, Is::Closed)
        );
        assert_eq!(closed(&[chain("ip", "in", "drop")]), (Is::Closed, Is::Open));
        let last = json!([{"counter": {"packets": 1}}, {"reject": {"type": "icmpx"}}]);
        assert_eq!(
            closed(&[chain("inet", "in", "accept"), rule("inet", "in", last)]),
            (Is::Closed, Is::Closed)
        );
        // As firewalld builds it: by way of a chain of its own.
        let jumps = [
            chain("inet", "in", "accept"),
            rule("inet", "in", json!([{"jump": {"target": "more"}}])),
            rule("inet", "more", json!([{"drop": null}])),
        ];
        assert_eq!(closed(&jumps), (Is::Closed, Is::Closed));
    }

    #[test]
    fn a_rule_against_one_port_is_none() {
        let one = json!([{"match": {"op": "==", "right": 23}}, {"drop": null}]);
        for objects in [
            vec![chain("inet", "in", "accept"), rule("inet", "in", one)],
            vec![
                chain("inet", "in", "accept"),
                rule("inet", "in", json!([{"accept": null}])),
                rule("inet", "in", json!([{"drop": null}])),
            ],
            vec![
                chain("inet", "in", "accept"),
                rule("inet", "in", json!([{"jump": {"target": "in"}}])),
            ],
            vec![rule("inet", "other", json!([{"drop": null}]))],
            vec![],
        ] {
            assert_eq!(closed(&objects), (Is::Open, Is::Open), "{objects:?}");
        }
    }

    #[test]
    fn both_families_must_be_closed_where_both_are_used() {
        let scratch = Scratch::new("firewall");
        let root = scratch.path();
        let judged = || state(&Machine::at(root), AT).value;
        assert_eq!(judged(), None, "nothing can be read");
        let v4 = json!({ "nftables": [chain("ip", "INPUT", "drop")] });
        program(root, "nft", &v4.to_string());
        put(root, "proc/net/if_inet6", "00 01 80 10 80       lo\n");
        assert_eq!(judged(), Some(Value::Bool(true)));
        put(root, "proc/net/if_inet6", "fe 02 40 20 80     eth0\n");
        assert_eq!(judged(), Some(Value::Bool(false)));
        put(root, "proc/net/ip6_tables_names", "filter\n");
        assert_eq!(judged(), None, "the old tables cannot be read");
        program(
            root,
            "ip6tables-legacy-save",
            "*filter\n:INPUT DROP [0:0]\nCOMMIT",
        );
        assert_eq!(judged(), Some(Value::Bool(true)));
        program(
            root,
            "ip6tables-legacy-save",
            "*filter\n:INPUT ACCEPT [0:0]\nCOMMIT",
        );
        assert_eq!(judged(), Some(Value::Bool(false)));
    }
}
