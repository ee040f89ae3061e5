//! Base chains of other tables that may drop what ours lets pass, and how to mend that.
//!
//! An accept of ours ends our chain and no other. So every foreign base chain on `input` or `forward` that
//! drops by default is looked at; one that has a rule accepting our port, or our interface, is silent.

use std::fmt;
use std::io;

use crate::netlink::{DUMP, Link, REQUEST_ACK, Request, attribute, attributes, be32, string};

use super::table::Plan;

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
const HOOK_INPUT: u32 = 1;
const HOOK_FORWARD: u32 = 2;
const POLICY_DROP: u32 = 0;
/// Bytes of `struct nfgenmsg`: family, version, resource.
const NFGEN_LEN: usize = 4;

/// A chain that may be in the way.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Warning {
    family: &'static str,
    table: String,
    chain: String,
    hook: Hook,
    plan: (u16, String),
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Hook {
    Input,
    Forward,
}

impl fmt::Display for Warning {
    /// One line: what, why, what to do.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            family,
            table,
            chain,
            hook,
            plan: (port, tunnel),
        } = self;
        let rule = format!("nft insert rule {family} {table} {chain}");
        match hook {
            Hook::Input => write!(
                f,
                "chain {chain} of table {family} {table} drops by default and will drop WireGuard even where \
                 a door is open; mend it with `{rule} udp dport {port} accept` and `{rule} iifname {tunnel} \
                 accept` (what has no door stays dropped by table inet spa)"
            ),
            Hook::Forward => write!(
                f,
                "chain {chain} of table {family} {table} drops by default and will drop granted flows; mend it \
                 with `{rule} iifname {tunnel} accept` and `{rule} oifname {tunnel} accept` (what was not \
                 granted stays dropped by table inet spa)"
            ),
        }
    }
}

/// Looks for chains in the way.
///
/// # Errors
/// The kernel's errno.
pub fn warnings(link: &mut Link, plan: &Plan) -> io::Result<Vec<Warning>> {
    let mut all = Vec::new();
    link.ask(
        Request::new(NFT_MSG_GETCHAIN, REQUEST_ACK | DUMP, &[0; NFGEN_LEN]),
        |kind, payload| {
            if kind == NFT_MSG_NEWCHAIN {
                all.extend(dropping(payload, plan));
            }
        },
    )?;
    let mut opened = Vec::new();
    link.ask(
        Request::new(NFT_MSG_GETRULE, REQUEST_ACK | DUMP, &[0; NFGEN_LEN]),
        |kind, payload| {
            if kind == NFT_MSG_NEWRULE {
                opened.extend(mending(payload, plan));
            }
        },
    )?;
    all.retain(|warning| {
        !opened.iter().any(|(family, table, chain, hook)| {
            (*family, table, chain, *hook)
                == (warning.family, &warning.table, &warning.chain, warning.hook)
        })
    });
    Ok(all)
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

fn dropping(payload: &[u8], plan: &Plan) -> Option<Warning> {
    let family = family_name(payload)?;
    let chain = payload.get(NFGEN_LEN..)?;
    let hook = attribute(attribute(chain, NFTA_CHAIN_HOOK)?, NFTA_HOOK_HOOKNUM).and_then(be32)?;
    let hook = match hook {
        HOOK_INPUT => Hook::Input,
        HOOK_FORWARD => Hook::Forward,
        _ => return None,
    };
    let policy = attribute(chain, NFTA_CHAIN_POLICY).and_then(be32)?;
    let table = string(attribute(chain, NFTA_CHAIN_TABLE)?);
    let ours = family == "inet" && table == "spa";
    (policy == POLICY_DROP && !ours).then_some(())?;
    let chain = string(attribute(chain, NFTA_CHAIN_NAME)?);
    let plan = (plan.wireguard_port, plan.tunnel.clone());
    Some(Warning {
        family,
        table,
        chain,
        hook,
        plan,
    })
}

/// The chain a rule is in, and the hook it speaks for: it names our port (input) or our interface (forward).
fn mending(payload: &[u8], plan: &Plan) -> Option<(&'static str, String, String, Hook)> {
    let family = family_name(payload)?;
    let rule = payload.get(NFGEN_LEN..)?;
    let expressions = attribute(rule, NFTA_RULE_EXPRESSIONS)?;
    let compared = |wanted: &[u8]| {
        attributes(expressions).any(|(_, expression)| {
            let data = attribute(expression, NFTA_EXPR_DATA).unwrap_or_default();
            let value =
                attribute(data, NFTA_CMP_DATA).and_then(|data| attribute(data, NFTA_DATA_VALUE));
            let name = attribute(expression, NFTA_EXPR_NAME).map(string);
            // An interface name is compared with or without the zeros behind it.
            name.as_deref() == Some("cmp") && value.is_some_and(|value| value.starts_with(wanted))
        })
    };
    let hook = if compared(&plan.wireguard_port.to_be_bytes()) {
        Hook::Input
    } else if compared(plan.tunnel.as_bytes()) {
        Hook::Forward
    } else {
        return None;
    };
    let table = string(attribute(rule, NFTA_RULE_TABLE)?);
    Some((
        family,
        table,
        string(attribute(rule, NFTA_RULE_CHAIN)?),
        hook,
    ))
}
