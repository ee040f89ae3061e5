//! Base chains of other tables that may drop what ours lets pass, and how to mend that.
//!
//! An accept of ours ends our chain and no other. So every foreign base chain on `input` or `forward` is looked at that
//! drops by default, or has a rule that drops or rejects whatever comes to it; one whose table has a rule about our port, or
//! our interface, is silent. A firewall that keeps its own files (ufw, firewalld, Docker) is mended in its own words: what
//! `nft` puts into its table is gone at its next reload. And a flowtable takes connections past every table, ours too, so that
//! what was taken from a session goes on for a while: whoever has one is told to leave the tunnel out.

use std::fmt;
use std::io;

use crate::netlink::{DUMP, Link, REQUEST_ACK, Request, attribute, attributes, be32, string};

use super::sets::FW4;
use super::table::{Mode, Plan};

// include/uapi/linux/netfilter/nf_tables.h
const NFT_MSG_NEWCHAIN: u16 = NFNL_NFTABLES | 3;
const NFT_MSG_GETCHAIN: u16 = NFNL_NFTABLES | 4;
const NFT_MSG_NEWRULE: u16 = NFNL_NFTABLES | 6;
const NFT_MSG_GETRULE: u16 = NFNL_NFTABLES | 7;
const NFNL_NFTABLES: u16 = 10 << 8;
const NFTA_CHAIN_TABLE: u16 = 1;
const NFTA_CHAIN_NAME: u16 = 3;
const NFTA_CHAIN_HOOK: u16 = 4;
const NFTA_CHAIN_POLICY: u16 = 5;
const NFTA_HOOK_HOOKNUM: u16 = 1;
const NFTA_RULE_TABLE: u16 = 1;
const NFTA_RULE_CHAIN: u16 = 2;
const NFTA_RULE_EXPRESSIONS: u16 = 4;
const NFTA_EXPR_NAME: u16 = 1;
const NFTA_EXPR_DATA: u16 = 2;
const NFTA_CMP_DATA: u16 = 3;
const NFTA_DATA_VALUE: u16 = 1;
const NFTA_DATA_VERDICT: u16 = 2;
const NFTA_IMMEDIATE_DATA: u16 = 2;
const NFTA_VERDICT_CODE: u16 = 1;
const NFTA_TARGET_NAME: u16 = 1;
const NFTA_MATCH_NAME: u16 = 1;
const NFTA_MATCH_INFO: u16 = 3;
const HOOK_INPUT: u32 = 1;
const HOOK_FORWARD: u32 = 2;
const POLICY_DROP: u32 = 0;
const VERDICT_DROP: u32 = 0;
/// Bytes of `struct nfgenmsg`: family, version, resource.
pub(super) const NFGEN_LEN: usize = 4;

/// A chain that may be in the way.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Warning {
    family: &'static str,
    table: String,
    chain: String,
    hook: Hook,
    keeper: Keeper,
    plan: (u16, String),
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Hook {
    Input,
    Forward,
    /// Past all of them, by a flowtable.
    Offload,
}

/// Who writes the rules of a table, which says how they are changed to stay changed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Keeper {
    Administrator,
    Ufw,
    Firewalld,
    Docker,
}

impl fmt::Display for Warning {
    /// One line: what, why, what to do.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            family,
            table,
            chain,
            hook,
            keeper,
            plan: (port, tunnel),
        } = self;
        match hook {
            Hook::Input => write!(
                f,
                "chain {chain} of table {family} {table} drops what it does not accept and will drop WireGuard even where a door is open"
            ),
            Hook::Forward => write!(
                f,
                "chain {chain} of table {family} {table} drops what it does not accept and will drop granted flows"
            ),
            Hook::Offload => write!(
                f,
                "chain {chain} of table {family} {table} gives connections to a flowtable, past table inet spa: what is taken \
                 from a session would go on until its connections are forgotten"
            ),
        }?;
        f.write_str("; mend it with ")?;
        let rule = format!("nft insert rule {family} {table} {chain}");
        match (keeper, hook) {
            (Keeper::Ufw, Hook::Input) => {
                write!(f, "`ufw allow {port}/udp` and `ufw allow in on {tunnel}`")
            }
            (Keeper::Ufw, Hook::Forward) => write!(
                f,
                "`ufw route allow in on {tunnel}` and `ufw route allow out on {tunnel}`"
            ),
            (Keeper::Firewalld, Hook::Input) => write!(
                f,
                "`firewall-cmd --permanent --add-port={port}/udp`, `firewall-cmd --permanent --zone=trusted \
                 --add-interface={tunnel}` and `firewall-cmd --reload`"
            ),
            (Keeper::Firewalld, Hook::Forward) => write!(
                f,
                "`firewall-cmd --permanent --new-policy=spa`, `firewall-cmd --permanent --policy=spa \
                 --set-target=ACCEPT`, `firewall-cmd --permanent --policy=spa --add-ingress-zone=trusted`, \
                 `firewall-cmd --permanent --policy=spa --add-egress-zone=ANY`, `firewall-cmd --permanent \
                 --zone=trusted --add-interface={tunnel}` and `firewall-cmd --reload`"
            ),
            (Keeper::Docker, Hook::Forward) => write!(
                f,
                "`iptables -I DOCKER-USER -i {tunnel} -j ACCEPT` and `iptables -I DOCKER-USER -o {tunnel} -j ACCEPT`"
            ),
            (_, Hook::Offload) if table == "fw4" => write!(
                f,
                "`uci set firewall.@defaults[0].flow_offloading=0`, `uci commit firewall` and `service firewall restart`"
            ),
            (Keeper::Administrator, Hook::Forward) | (_, Hook::Offload) => {
                write!(
                    f,
                    "`{rule} iifname {tunnel} accept` and `{rule} oifname {tunnel} accept`"
                )
            }
            (Keeper::Administrator | Keeper::Docker, Hook::Input) => {
                write!(
                    f,
                    "`{rule} udp dport {port} accept` and `{rule} iifname {tunnel} accept`"
                )
            }
        }?;
        f.write_str(match hook {
            Hook::Input => " (what has no door stays dropped by table inet spa)",
            Hook::Forward | Hook::Offload => {
                " (what was not granted stays dropped by table inet spa)"
            }
        })
    }
}

/// Looks for chains in the way.
///
/// # Errors
/// The kernel's errno.
pub fn warnings(link: &mut Link, plan: &Plan) -> io::Result<Vec<Warning>> {
    let mut chains = Vec::new();
    link.ask(
        Request::new(NFT_MSG_GETCHAIN, REQUEST_ACK | DUMP, &[0; NFGEN_LEN]),
        |kind, payload| {
            if kind == NFT_MSG_NEWCHAIN {
                chains.extend(chain_of(payload));
            }
        },
    )?;
    let mut rules = Vec::new();
    link.ask(
        Request::new(NFT_MSG_GETRULE, REQUEST_ACK | DUMP, &[0; NFGEN_LEN]),
        |kind, payload| {
            if kind == NFT_MSG_NEWRULE {
                rules.extend(rule_of(payload, plan));
            }
        },
    )?;
    let mut found = in_the_way(&chains, &rules, plan);
    found.extend(past_us(&chains, &rules, plan));
    Ok(found)
}

/// A chain, as far as it matters.
#[derive(Clone, PartialEq, Eq, Debug)]
struct Chain {
    family: &'static str,
    table: String,
    name: String,
    /// Its hook and whether it drops by default, if it is a base chain of ours to look at.
    base: Option<(Hook, bool)>,
}

/// A rule, as far as it matters.
#[derive(Clone, PartialEq, Eq, Debug)]
struct Rule {
    family: &'static str,
    table: String,
    chain: String,
    /// Drops or rejects whatever comes to it.
    is_end: bool,
    /// Names our port.
    about_port: bool,
    /// How often it names our interface.
    about_tunnel: usize,
    /// Gives connections to a flowtable.
    offloads: bool,
}

fn in_the_way(chains: &[Chain], rules: &[Rule], plan: &Plan) -> Vec<Warning> {
    let mut found = Vec::new();
    for chain in chains {
        let Some((hook, drops)) = chain.base else {
            continue;
        };
        let of_table = || {
            let same = |rule: &&Rule| rule.family == chain.family && rule.table == chain.table;
            rules.iter().filter(same)
        };
        let ends = of_table().any(|rule| rule.chain == chain.name && rule.is_end);
        let mended = of_table().any(|rule| match hook {
            Hook::Input => rule.about_port,
            Hook::Forward | Hook::Offload => rule.about_tunnel > 0,
        });
        // Whether the administrator's table lets granted packets pass is looked at rule by rule (`guarded`).
        let asked = match plan.mode {
            Mode::Sets(table) => chain.table.as_bytes() == table.to_bytes(),
            Mode::Fw4 => chain.table.as_bytes() == FW4.to_bytes(),
            Mode::Own => false,
        };
        let is_ours = chain.family == "inet" && (chain.table == "spa" || asked);
        if (drops || ends) && !mended && !is_ours {
            found.push(Warning {
                family: chain.family,
                table: chain.table.clone(),
                chain: chain.name.clone(),
                hook,
                keeper: keeper_of(chain, chains),
                plan: (plan.wireguard_port, plan.tunnel.clone()),
            });
        }
    }
    found
}

/// Chains that give connections to a flowtable without having left our interface out before, in both directions.
fn past_us(chains: &[Chain], rules: &[Rule], plan: &Plan) -> Vec<Warning> {
    let unguarded = |chain: &&Chain| {
        let mut named = 0;
        // The kernel lists the rules of a chain in their order.
        let first = rules
            .iter()
            .filter(|rule| {
                rule.family == chain.family && rule.table == chain.table && rule.chain == chain.name
            })
            .find(|rule| {
                named += rule.about_tunnel;
                rule.offloads
            });
        first.is_some() && named < 2
    };
    chains
        .iter()
        .filter(unguarded)
        .map(|chain| Warning {
            family: chain.family,
            table: chain.table.clone(),
            chain: chain.name.clone(),
            hook: Hook::Offload,
            keeper: keeper_of(chain, chains),
            plan: (plan.wireguard_port, plan.tunnel.clone()),
        })
        .collect()
}

fn keeper_of(chain: &Chain, chains: &[Chain]) -> Keeper {
    let has = |wanted: &dyn Fn(&str) -> bool| {
        chains.iter().any(|other| {
            other.family == chain.family && other.table == chain.table && wanted(&other.name)
        })
    };
    if chain.table == "firewalld" {
        Keeper::Firewalld
    } else if has(&|name| name.starts_with("ufw-") || name.starts_with("ufw6-")) {
        Keeper::Ufw
    } else if has(&|name| name == "DOCKER-USER") {
        Keeper::Docker
    } else {
        Keeper::Administrator
    }
}

/// The families whose chains see the packets ours sees.
fn family_name(payload: &[u8]) -> Option<&'static str> {
    match payload.first()? {
        1 => Some("inet"),
        2 => Some("ip"),
        10 => Some("ip6"),
        _ => None,
    }
}

fn chain_of(payload: &[u8]) -> Option<Chain> {
    let family = family_name(payload)?;
    let chain = payload.get(NFGEN_LEN..)?;
    let number = attribute(chain, NFTA_CHAIN_HOOK)
        .and_then(|hook| attribute(hook, NFTA_HOOK_HOOKNUM))
        .and_then(be32);
    let hook = match number {
        Some(HOOK_INPUT) => Some(Hook::Input),
        Some(HOOK_FORWARD) => Some(Hook::Forward),
        _ => None,
    };
    let policy = attribute(chain, NFTA_CHAIN_POLICY).and_then(be32);
    Some(Chain {
        family,
        table: string(attribute(chain, NFTA_CHAIN_TABLE)?),
        name: string(attribute(chain, NFTA_CHAIN_NAME)?),
        base: hook.map(|hook| (hook, policy == Some(POLICY_DROP))),
    })
}

fn rule_of(payload: &[u8], plan: &Plan) -> Option<Rule> {
    let family = family_name(payload)?;
    let rule = payload.get(NFGEN_LEN..)?;
    let expressions = attribute(rule, NFTA_RULE_EXPRESSIONS)?;
    let port = plan.wireguard_port;
    Some(Rule {
        family,
        table: string(attribute(rule, NFTA_RULE_TABLE)?),
        chain: string(attribute(rule, NFTA_RULE_CHAIN)?),
        is_end: is_end(expressions),
        // An interface name is compared with or without the zeros behind it.
        about_tunnel: comparisons(expressions, plan.tunnel.as_bytes()),
        about_port: comparisons(expressions, &port.to_be_bytes()) > 0
            || matches_port(expressions, port),
        offloads: expressions_of(expressions).any(|(name, _)| name == "flow_offload"),
    })
}

/// Each expression of a rule: its name and what it has.
pub(super) fn expressions_of(expressions: &[u8]) -> impl Iterator<Item = (String, &[u8])> {
    attributes(expressions).filter_map(|(_, expression)| {
        let name = attribute(expression, NFTA_EXPR_NAME).map(string)?;
        let data = attribute(expression, NFTA_EXPR_DATA).unwrap_or_default();
        Some((name, data))
    })
}

/// Whether nothing that comes to the rule gets past it: it asks nothing, and drops or rejects.
fn is_end(expressions: &[u8]) -> bool {
    let mut ends = false;
    for (name, data) in expressions_of(expressions) {
        match name.as_str() {
            // It looks on, or how often it does what follows is limited for a log only.
            "counter" | "log" => {}
            "reject" => ends = true,
            "target" => {
                let target = attribute(data, NFTA_TARGET_NAME).map(string);
                ends |= target.is_some_and(|name| name == "REJECT" || name == "DROP");
            }
            "immediate" => {
                let code = attribute(data, NFTA_IMMEDIATE_DATA)
                    .and_then(|data| attribute(data, NFTA_DATA_VERDICT))
                    .and_then(|verdict| attribute(verdict, NFTA_VERDICT_CODE))
                    .and_then(be32);
                ends |= code == Some(VERDICT_DROP);
            }
            _ => return false,
        }
    }
    ends
}

/// How many of a rule's comparisons are with what begins so.
fn comparisons(expressions: &[u8], wanted: &[u8]) -> usize {
    let with_it = expressions_of(expressions).filter(|(name, data)| {
        let value =
            attribute(data, NFTA_CMP_DATA).and_then(|data| attribute(data, NFTA_DATA_VALUE));
        name == "cmp" && value.is_some_and(|value| value.starts_with(wanted))
    });
    with_it.count()
}

/// iptables asks for ports by its own match: `struct xt_udp`, source ports from and to, then destination ports.
fn matches_port(expressions: &[u8], port: u16) -> bool {
    expressions_of(expressions).any(|(name, data)| {
        let is_udp = attribute(data, NFTA_MATCH_NAME).map(string).as_deref() == Some("udp");
        let info = attribute(data, NFTA_MATCH_INFO).unwrap_or_default();
        name == "match" && is_udp && info.get(4..6) == Some(&port.to_ne_bytes())
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::nft::table::{AccessLog, Masquerade};

    fn plan() -> Plan {
        Plan {
            mode: Mode::Own,
            knock: vec!["eth0".into()],
            knock_port: 51_820,
            tunnel: "spa0".into(),
            wireguard_port: 51_820,
            addresses: Vec::new(),
            keep_open: Vec::new(),
            masquerade: Masquerade::No,
            access_log: AccessLog::Off,
        }
    }

    fn attribute_of(kind: u16, payload: &[u8]) -> Vec<u8> {
        let len = u16::try_from(payload.len() + 4).expect("short");
        let mut bytes = [&len.to_ne_bytes()[..], &kind.to_ne_bytes(), payload].concat();
        bytes.resize(bytes.len().next_multiple_of(4), 0);
        bytes
    }

    /// A rule of chain `forward` as the kernel lists it, with one expression.
    fn rule(table: &str, expression: &str, data: &[u8]) -> Rule {
        let text = |kind, text: &str| attribute_of(kind, &[text.as_bytes(), &[0]].concat());
        let expression = [
            text(NFTA_EXPR_NAME, expression),
            attribute_of(NFTA_EXPR_DATA, data),
        ]
        .concat();
        let payload = [
            vec![1, 0, 0, 0],
            text(NFTA_RULE_TABLE, table),
            text(NFTA_RULE_CHAIN, "forward"),
            attribute_of(NFTA_RULE_EXPRESSIONS, &attribute_of(1, &expression)),
        ]
        .concat();
        rule_of(&payload, &plan()).expect("a rule")
    }

    fn said(table: &str, rules: &[Rule]) -> Vec<String> {
        let chain = Chain {
            family: "inet",
            table: table.into(),
            name: "forward".into(),
            base: Some((Hook::Forward, false)),
        };
        let found = past_us(&[chain], rules, &plan());
        found.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn a_chain_that_offloads_is_named_until_it_leaves_the_tunnel_out() {
        let offloads = |table| rule(table, "flow_offload", &[]);
        let value = attribute_of(NFTA_DATA_VALUE, b"spa0\0\0\0\0\0\0\0\0\0\0\0\0");
        let about_us = |table| rule(table, "cmp", &attribute_of(NFTA_CMP_DATA, &value));
        let other = rule("fast", "counter", &[]);
        let lines = said("fast", &[other.clone(), offloads("fast")]);
        let [line] = &lines[..] else {
            panic!("one line: {lines:?}")
        };
        assert!(
            line.contains("a flowtable")
                && line.contains("`nft insert rule inet fast forward iifname spa0 accept`"),
            "{line}"
        );
        let [line] = &said("fw4", &[offloads("fw4")])[..] else {
            panic!("one line")
        };
        assert!(line.contains("flow_offloading=0"), "{line}");
        // One direction is not enough, and behind it our interface is too late.
        let us = || about_us("fast");
        assert_eq!(said("fast", &[us(), offloads("fast"), us()]).len(), 1);
        assert!(said("fast", &[us(), us(), offloads("fast")]).is_empty());
        assert!(said("fast", &[other]).is_empty());
    }
}
