//! A table of the administrator as the kernel shows it: its sets, its chains and what each rule asks and does.
//!
//! Only what `guarded` needs is understood; whatever else a rule asks is [`Test::Other`], and whatever else it does that may
//! let a packet pass is [`End::Many`].

use std::ffi::CStr;
use std::io;

use super::foreign::{NFGEN_LEN, expressions_of};
use crate::netlink::{DUMP, Link, REQUEST_ACK, Request, attribute, be32, string};

// include/uapi/linux/netfilter/nf_tables.h
const NFNL_NFTABLES: u16 = 10 << 8;
const NEW_TABLE: u16 = NFNL_NFTABLES;
const GET_TABLE: u16 = NFNL_NFTABLES | 1;
const NEW_CHAIN: u16 = NFNL_NFTABLES | 3;
const GET_CHAIN: u16 = NFNL_NFTABLES | 4;
const NEW_RULE: u16 = NFNL_NFTABLES | 6;
const GET_RULE: u16 = NFNL_NFTABLES | 7;
const NEW_SET: u16 = NFNL_NFTABLES | 9;
const GET_SET: u16 = NFNL_NFTABLES | 10;
const NFPROTO_INET: u8 = 1;
/// Of table, chain, rule and set alike.
const TABLE: u16 = 1;
const TABLE_FLAGS: u16 = 2;
const DORMANT: u32 = 1;
const CHAIN_NAME: u16 = 3;
const CHAIN_HOOK: u16 = 4;
const CHAIN_TYPE: u16 = 7;
const HOOK_NUMBER: u16 = 1;
const HOOK_PRIORITY: u16 = 2;
const RULE_CHAIN: u16 = 2;
const RULE_EXPRESSIONS: u16 = 4;
const SET_NAME: u16 = 2;
const SET_FLAGS: u16 = 3;
const SET_KEY_LEN: u16 = 5;
const DATA_VALUE: u16 = 1;
const DATA_VERDICT: u16 = 2;
const VERDICT_CODE: u16 = 1;
const VERDICT_CHAIN: u16 = 2;
const NF_DROP: u32 = 0;
const NF_ACCEPT: u32 = 1;
const NFT_CONTINUE: u32 = (-1_i32).cast_unsigned();
const NFT_BREAK: u32 = (-2_i32).cast_unsigned();
const NFT_JUMP: u32 = (-3_i32).cast_unsigned();
const NFT_GOTO: u32 = (-4_i32).cast_unsigned();
/// The register of meta, payload and ct that load; those that set something have none.
const LOADED_INTO: u16 = 1;
const META_IIF: u32 = 4;
const META_OIF: u32 = 5;
const META_IIFNAME: u32 = 6;
const META_OIFNAME: u32 = 7;
const META_L4PROTO: u32 = 16;
/// The loopback interface's index, in every namespace.
const LOOPBACK: u32 = 1;

/// Everything in one table.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Ruleset {
    /// Whether packets come to it.
    pub state: State,
    /// Its sets.
    pub sets: Vec<SetFound>,
    /// Its chains.
    pub chains: Vec<Chain>,
    /// Its rules, those of one chain in their order.
    pub rules: Vec<Rule>,
}

/// Whether packets come to a table.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum State {
    /// They do.
    #[default]
    Awake,
    /// `flags dormant`: all of it is there, and none of it is asked.
    Dormant,
}

/// A set, as far as it matters.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct SetFound {
    /// Its name.
    pub name: String,
    /// `NFT_SET_*`.
    pub flags: u32,
    /// Bytes of a key.
    pub key_len: u32,
}

/// A chain.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Chain {
    /// Its name.
    pub name: String,
    /// `NF_INET_*` and its priority, where every packet comes to it by itself: to one of type nat only the first of a connection does.
    pub base: Option<(u32, i32)>,
}

/// A rule.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Rule {
    /// The chain it is in.
    pub chain: String,
    /// What it asks; all must hold.
    pub tests: Vec<Test>,
    /// What it then does.
    pub end: End,
}

/// What a rule asks.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Test {
    /// Comes from this interface.
    From(Name),
    /// Leaves by this interface.
    By(Name),
    /// Is for this port.
    To(u16),
    /// Is of this protocol.
    Protocol(u8),
    /// Lies in this set.
    In(String),
    /// Something else.
    Other,
}

/// An interface's name, or how it begins.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Name {
    /// The name.
    Whole(String),
    /// `spa*`.
    Beginning(String),
}

impl Name {
    /// Whether an interface of this name is meant.
    pub fn is(&self, name: &str) -> bool {
        match self {
            Self::Whole(whole) => whole == name,
            Self::Beginning(beginning) => name.starts_with(beginning),
        }
    }
}

/// What a rule does with what it asks for.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub enum End {
    /// Nothing that ends a packet's way.
    #[default]
    Nothing,
    /// Lets it pass.
    Accept,
    /// Drops or rejects it.
    Drop,
    /// Leads to another chain, and may come back.
    Jump(String),
    /// Leads to another chain.
    Goto(String),
    /// One of several, by a verdict map, by a program, or by whatever comes behind a `return`.
    Many,
}

/// Reads one table of family `inet`.
///
/// # Errors
/// The kernel's errno.
pub fn read(link: &mut Link, table: &CStr) -> io::Result<Ruleset> {
    let mut all = Ruleset::default();
    for (question, answer) in [
        (GET_TABLE, NEW_TABLE),
        (GET_SET, NEW_SET),
        (GET_CHAIN, NEW_CHAIN),
        (GET_RULE, NEW_RULE),
    ] {
        // Of all tables: a kernel asked for one that is not there may answer with an error.
        let request = Request::new(question, REQUEST_ACK | DUMP, &[NFPROTO_INET, 0, 0, 0]);
        link.ask(request, |kind, payload| {
            let body = payload.get(NFGEN_LEN..).unwrap_or_default();
            let ours = payload.first() == Some(&NFPROTO_INET)
                && attribute(body, TABLE) == Some(table.to_bytes_with_nul());
            if kind != answer || !ours {
                return;
            }
            match answer {
                NEW_TABLE => all.state = state_of(body),
                NEW_SET => all.sets.extend(set_of(body)),
                NEW_CHAIN => all.chains.extend(chain_of(body)),
                _ => all.rules.extend(rule_of(body)),
            }
        })?;
    }
    Ok(all)
}

fn state_of(body: &[u8]) -> State {
    match attribute(body, TABLE_FLAGS).and_then(be32) {
        Some(flags) if flags & DORMANT != 0 => State::Dormant,
        _ => State::Awake,
    }
}

fn set_of(body: &[u8]) -> Option<SetFound> {
    Some(SetFound {
        name: attribute(body, SET_NAME).map(string)?,
        flags: attribute(body, SET_FLAGS).and_then(be32).unwrap_or(0),
        key_len: attribute(body, SET_KEY_LEN).and_then(be32)?,
    })
}

fn chain_of(body: &[u8]) -> Option<Chain> {
    let hook = attribute(body, CHAIN_HOOK);
    let number = |kind| hook.and_then(|hook| attribute(hook, kind)).and_then(be32);
    Some(Chain {
        name: attribute(body, CHAIN_NAME).map(string)?,
        base: number(HOOK_NUMBER)
            .zip(number(HOOK_PRIORITY).map(u32::cast_signed))
            .filter(|_| attribute(body, CHAIN_TYPE) != Some(b"nat\0")),
    })
}

fn rule_of(body: &[u8]) -> Option<Rule> {
    let mut rule = Rule {
        chain: attribute(body, RULE_CHAIN).map(string)?,
        ..Rule::default()
    };
    let mut loaded = Loaded::Other;
    // What is loaded and compared with nothing may not be in the packet, and then the rule ends there.
    let mut uncompared = false;
    for (name, data) in expressions_of(attribute(body, RULE_EXPRESSIONS).unwrap_or_default()) {
        match name.as_str() {
            "counter" | "log" | "notrack" | "last" => {}
            "meta" | "payload" => {
                loaded = loaded_by(&name, data);
                uncompared |= attribute(data, LOADED_INTO).is_some();
            }
            "cmp" => {
                rule.tests.push(compared(loaded, data));
                uncompared = false;
            }
            "lookup" => {
                looked_up(&mut rule, data);
                uncompared = false;
            }
            "immediate" => rule.end = ended(data).unwrap_or(rule.end),
            "reject" => rule.end = End::Drop,
            // What is offloaded passes by every chain from then on.
            "queue" | "target" | "flow_offload" => rule.end = End::Many,
            _ => {
                loaded = Loaded::Other;
                // What only prepares a comparison is none itself.
                match name.as_str() {
                    "bitwise" | "byteorder" => {}
                    "ct" => uncompared |= attribute(data, LOADED_INTO).is_some(),
                    "fib" | "rt" | "socket" => uncompared = true,
                    _ => {
                        rule.tests.push(Test::Other);
                        uncompared = false;
                    }
                }
            }
        }
    }
    if uncompared {
        rule.tests.push(Test::Other);
    }
    Some(rule)
}

/// What the last register holds.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Loaded {
    InterfaceIn,
    InterfaceOut,
    IndexIn,
    IndexOut,
    Protocol,
    Port,
    Other,
}

fn loaded_by(name: &str, data: &[u8]) -> Loaded {
    let number = |kind| attribute(data, kind).and_then(be32);
    if name == "meta" {
        // NFTA_META_KEY
        return match number(2) {
            Some(META_IIFNAME) => Loaded::InterfaceIn,
            Some(META_OIFNAME) => Loaded::InterfaceOut,
            Some(META_IIF) => Loaded::IndexIn,
            Some(META_OIF) => Loaded::IndexOut,
            Some(META_L4PROTO) => Loaded::Protocol,
            _ => Loaded::Other,
        };
    }
    // NFTA_PAYLOAD_BASE, OFFSET, LEN: destination port behind the transport header's beginning.
    match (number(2), number(3), number(4)) {
        (Some(2), Some(2), Some(2)) => Loaded::Port,
        _ => Loaded::Other,
    }
}

fn compared(loaded: Loaded, data: &[u8]) -> Test {
    // NFTA_CMP_OP, NFTA_CMP_DATA; 0 is "equal".
    let equal = attribute(data, 2).and_then(be32) == Some(0);
    let value = attribute(data, 3).and_then(|data| attribute(data, DATA_VALUE));
    let Some(value) = value.filter(|_| equal) else {
        return Test::Other;
    };
    let index = || value.first_chunk().map(|bytes| u32::from_ne_bytes(*bytes));
    let lo = || Name::Whole("lo".to_owned());
    match loaded {
        Loaded::InterfaceIn => Test::From(name_of(value)),
        Loaded::InterfaceOut => Test::By(name_of(value)),
        Loaded::IndexIn if index() == Some(LOOPBACK) => Test::From(lo()),
        Loaded::IndexOut if index() == Some(LOOPBACK) => Test::By(lo()),
        Loaded::Protocol => value.first().map_or(Test::Other, |p| Test::Protocol(*p)),
        Loaded::Port => value
            .first_chunk()
            .map_or(Test::Other, |port| Test::To(u16::from_be_bytes(*port))),
        Loaded::IndexIn | Loaded::IndexOut | Loaded::Other => Test::Other,
    }
}

fn name_of(value: &[u8]) -> Name {
    match value.contains(&0) {
        true => Name::Whole(string(value)),
        false => Name::Beginning(string(value)),
    }
}

fn looked_up(rule: &mut Rule, data: &[u8]) {
    // NFTA_LOOKUP_DREG: a map, here one of verdicts. NFTA_LOOKUP_FLAGS: 1 is "not in".
    if attribute(data, 3).is_some() {
        rule.end = End::Many;
        rule.tests.push(Test::Other);
        return;
    }
    let inverted = attribute(data, 5)
        .and_then(be32)
        .is_some_and(|flags| flags != 0);
    let name = attribute(data, 1).map(string);
    rule.tests.push(match name.filter(|_| !inverted) {
        Some(name) => Test::In(name),
        None => Test::Other,
    });
}

/// `None` where it only loads a value.
fn ended(data: &[u8]) -> Option<End> {
    // NFTA_IMMEDIATE_DATA
    let verdict = attribute(attribute(data, 2)?, DATA_VERDICT)?;
    let chain = || {
        attribute(verdict, VERDICT_CHAIN)
            .map(string)
            .unwrap_or_default()
    };
    Some(match attribute(verdict, VERDICT_CODE).and_then(be32)? {
        NF_DROP => End::Drop,
        NF_ACCEPT => End::Accept,
        NFT_JUMP => End::Jump(chain()),
        NFT_GOTO => End::Goto(chain()),
        // `return` leads to the rule behind the jump or to a policy; that and what is unknown might accept.
        NFT_CONTINUE | NFT_BREAK => End::Nothing,
        _ => End::Many,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn attribute_of(kind: u16, payload: &[u8]) -> Vec<u8> {
        let len = u16::try_from(payload.len() + 4).expect("short");
        let mut bytes = [&len.to_ne_bytes()[..], &kind.to_ne_bytes(), payload].concat();
        bytes.resize(bytes.len().next_multiple_of(4), 0);
        bytes
    }

    fn number(kind: u16, number: u32) -> Vec<u8> {
        attribute_of(kind, &number.to_be_bytes())
    }

    /// A rule of these expressions, as the kernel lists it.
    fn rule(expressions: &[(&str, Vec<u8>)]) -> Rule {
        let list: Vec<_> = expressions
            .iter()
            .flat_map(|(name, data)| {
                let name = attribute_of(1, &[name.as_bytes(), &[0]].concat());
                attribute_of(1, &[name, attribute_of(2, data)].concat())
            })
            .collect();
        let body = [
            attribute_of(RULE_CHAIN, b"forward\0"),
            attribute_of(RULE_EXPRESSIONS, &list),
        ];
        rule_of(&body.concat()).expect("a rule")
    }

    fn verdict(code: u32) -> (&'static str, Vec<u8>) {
        let verdict = attribute_of(DATA_VERDICT, &number(VERDICT_CODE, code));
        ("immediate", attribute_of(2, &verdict))
    }

    /// A load of what the packet lacks ends a rule as a comparison does that fails.
    #[test]
    fn what_is_loaded_and_not_compared_is_a_condition() {
        let always = rule(&[("counter", Vec::new()), verdict(NF_DROP)]);
        assert_eq!((always.tests.len(), always.end), (0, End::Drop));
        // `meta mark set ct mark drop` spares what is not tracked.
        let load = ("ct", [number(LOADED_INTO, 1), number(2, 3)].concat());
        let set = ("meta", [number(2, 3), number(3, 1)].concat());
        let tracked = rule(&[load, set.clone(), verdict(NF_DROP)]);
        assert_eq!(tracked.tests, [Test::Other]);
        // A constant is in every packet.
        assert_eq!(rule(&[set, verdict(NF_DROP)]).tests, []);
    }

    #[test]
    fn what_leads_out_of_our_sight_may_accept() {
        let offloads = rule(&[("flow_offload", Vec::new())]);
        assert_eq!(offloads.end, End::Many);
        // NFT_RETURN
        let returns = rule(&[verdict((-5_i32).cast_unsigned())]);
        assert_eq!(returns.end, End::Many);
        assert_eq!(rule(&[verdict(NFT_CONTINUE)]).end, End::Nothing);
    }
}
