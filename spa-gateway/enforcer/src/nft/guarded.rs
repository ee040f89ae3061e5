//! Whether the administrator's own ruleset (`mode = "sets"`) guards the tunnel, and the very line that is missing where it
//! does not.
//!
//! It does when, in his table, whatever comes from the tunnel, goes into it, or is for the WireGuard port is led to a chain
//! that accepts only what lies in one of our sets and ends with a drop, before anything else can accept it: so no
//! "established, accept" lets an ended session live on. Invariant: what is not understood counts as missing.

use super::message::{INTERVAL, MAP, TIMEOUT};
use super::ruleset::{Chain, End, Rule, Ruleset, SetFound, State, Test};
use super::sets::{Content, Family, SETS, Set};
use super::table::Plan;

/// How deep chains may lead to others: as deep as the kernel lets them (`NFT_JUMP_STACK_SIZE`).
const DEPTH: usize = 16;
const UDP: u8 = 17;

/// One line for each thing that is missing; none when the tunnel is guarded. `shipped` is the file that has all sets and
/// chains, to be included.
pub fn missing(found: &Ruleset, plan: &Plan, table: &str, shipped: &str) -> Vec<String> {
    let look = Look {
        found,
        plan,
        table,
        shipped,
    };
    if found.state == State::Dormant {
        return vec![format!(
            "table inet {table} is dormant, so that no packet is asked anything: load it without `flags dormant`"
        )];
    }
    let mut lines = look.sets();
    if lines.is_empty() {
        lines.extend(sides(plan).iter().filter_map(|side| look.side(side).err()));
    }
    lines
}

/// The sets that must be there: a gateway without IPv6 addresses has no IPv6 flows.
pub fn wanted(plan: &Plan) -> impl Iterator<Item = &'static Set> {
    SETS.iter().filter(|set| match set.content {
        Content::Door | Content::WideDoor => true,
        Content::Flow | Content::FlowRange | Content::Own | Content::OwnRange | Content::Name => {
            plan.address(set.family).is_some()
        }
    })
}

/// One of the ways of a packet that must be guarded.
struct Side {
    hook: (u32, &'static str),
    whose: Whose,
    contents: [Content; 2],
    /// The chain of the shipped file.
    chain: &'static str,
    /// What passes unguarded without it.
    what: &'static str,
}

/// What this machine itself tells a session in an error is no secret and no answer.
const ICMP: [u8; 2] = [1, 58];

/// Which packets.
#[derive(Clone, PartialEq, Eq)]
enum Whose {
    From(String),
    By(String),
    Wireguard(u16),
}

// `NF_INET_*` and its name.
const INPUT: (u32, &str) = (1, "input");
const FORWARD: (u32, &str) = (2, "forward");
const OUTPUT: (u32, &str) = (3, "output");

fn sides(plan: &Plan) -> [Side; 5] {
    let flows = [Content::Flow, Content::FlowRange];
    let own = [Content::Own, Content::OwnRange];
    let from = || Whose::From(plan.tunnel.clone());
    let by = || Whose::By(plan.tunnel.clone());
    let side = |hook, whose, contents, chain, what| Side {
        hook,
        whose,
        contents,
        chain,
        what,
    };
    [
        side(
            INPUT,
            from(),
            own,
            "spa_from_tunnel",
            "a session reaches this machine",
        ),
        side(
            INPUT,
            Whose::Wireguard(plan.wireguard_port),
            [Content::Door, Content::WideDoor],
            "spa_door",
            "WireGuard is open to everybody, or to nobody",
        ),
        side(
            FORWARD,
            from(),
            flows,
            "spa_out_of_tunnel",
            "a session reaches everything",
        ),
        side(
            FORWARD,
            by(),
            flows,
            "spa_into_tunnel",
            "everything reaches a session, also one that ended",
        ),
        side(
            OUTPUT,
            by(),
            own,
            "spa_own_into_tunnel",
            "this machine reaches a session, also one that ended",
        ),
    ]
}

impl Side {
    /// The line an administrator writes.
    fn line(&self) -> String {
        let chain = self.chain;
        match &self.whose {
            Whose::From(tunnel) => format!("iifname \"{tunnel}\" goto {chain}"),
            Whose::By(tunnel) => format!("oifname \"{tunnel}\" goto {chain}"),
            Whose::Wireguard(port) => format!("udp dport {port} goto {chain}"),
        }
    }

    /// Whether a rule asks for exactly these packets.
    fn is_meant(&self, rule: &Rule) -> bool {
        match (&self.whose, &rule.tests[..]) {
            (Whose::From(tunnel), [Test::From(name)]) | (Whose::By(tunnel), [Test::By(name)]) => {
                name.is(tunnel)
            }
            (Whose::Wireguard(port), [Test::Protocol(UDP), Test::To(to)]) => to == port,
            _ => false,
        }
    }

    /// Whether what the rule accepts is no more than an error of this machine.
    fn is_own_error(&self, rule: &Rule) -> bool {
        let is_icmp = |test: &Test| matches!(test, Test::Protocol(number) if ICMP.contains(number));
        self.hook == OUTPUT && rule.tests.iter().any(is_icmp)
    }

    /// Whether none of these packets is what the rule asks for.
    fn is_about_others(&self, rule: &Rule, plan: &Plan) -> bool {
        rule.tests.iter().any(|test| match (&self.whose, test) {
            (Whose::From(tunnel), Test::From(name)) | (Whose::By(tunnel), Test::By(name)) => {
                !name.is(tunnel)
            }
            (Whose::Wireguard(port), Test::To(to)) => to != port,
            (Whose::Wireguard(_), Test::Protocol(protocol)) => *protocol != UDP,
            (Whose::Wireguard(_), Test::From(name)) => {
                !plan.knock.iter().any(|knock| name.is(knock))
            }
            _ => false,
        })
    }
}

struct Look<'a> {
    found: &'a Ruleset,
    plan: &'a Plan,
    table: &'a str,
    shipped: &'a str,
}

impl Look<'_> {
    fn sets(&self) -> Vec<String> {
        let (table, shipped) = (self.table, self.shipped);
        let mut lines = Vec::new();
        let lacking: Vec<_> = wanted(self.plan)
            .filter_map(|set| {
                let name = set.name.to_string_lossy().into_owned();
                let found = self.found.sets.iter().find(|found| found.name == name);
                match found {
                    None => Some(name),
                    Some(found) if fits(set, found) => None,
                    Some(_) => {
                        lines.push(format!(
                            "set {name} of table inet {table} is of another type than ours: take it as it is in {shipped}"
                        ));
                        None
                    }
                }
            })
            .collect();
        if !lacking.is_empty() {
            lines.push(format!(
                "table inet {table} has no set {}: put the line `include \"{shipped}\"` into `table inet {table} {{ … }}` and load it",
                lacking.join(", ")
            ));
        }
        lines
    }

    fn side(&self, side: &Side) -> Result<(), String> {
        let (number, hook) = side.hook;
        let mut chains: Vec<_> = self
            .found
            .chains
            .iter()
            .filter_map(|chain| Some((chain, chain.base?)))
            .filter(|(_, (hook, _))| *hook == number)
            .collect();
        chains.sort_by_key(|(_, (_, priority))| *priority);
        let mut verdicts = chains.iter().map(|(chain, _)| self.chain(chain, side));
        let Some(first) = verdicts.next() else {
            return Err(format!(
                "table inet {} has no filter chain on hook {hook}, so {}: add `chain {hook} {{ type filter hook {hook} priority filter; {}; }}`",
                self.table,
                side.what,
                side.line()
            ));
        };
        // An accept ends its own chain only: one chain of several that guards is enough.
        match first {
            Err(line) if !verdicts.any(|verdict| verdict.is_ok()) => Err(line),
            _ => Ok(()),
        }
    }

    fn chain(&self, chain: &Chain, side: &Side) -> Result<(), String> {
        let (name, table, line) = (&chain.name, self.table, side.line());
        for (number, rule) in self.rules(name).enumerate() {
            if side.is_meant(rule) {
                return match &rule.end {
                    End::Jump(target) | End::Goto(target) => self.target(target, side),
                    _ => Err(format!(
                        "rule {} of chain {name} of table inet {table} decides without asking our sets: write `{line}` in its place",
                        number + 1
                    )),
                };
            }
            let may_accept = match rule.end {
                End::Nothing | End::Drop => false,
                End::Accept | End::Jump(_) | End::Goto(_) | End::Many => true,
            };
            let of_another_side = sides(self.plan)
                .iter()
                .any(|other| other.hook == side.hook && other.is_meant(rule));
            if may_accept && !of_another_side && !side.is_about_others(rule, self.plan) {
                return Err(format!(
                    "rule {} of chain {name} of table inet {table} may accept before our sets are asked, so {}: write `{line}` above it",
                    number + 1,
                    side.what
                ));
            }
        }
        Err(format!(
            "chain {name} of table inet {table} lacks the line `{line}`, so {}: make it the first",
            side.what
        ))
    }

    /// A chain that decides: it accepts by our sets alone, asks each of them, and ends with a drop.
    fn target(&self, name: &str, side: &Side) -> Result<(), String> {
        let table = self.table;
        let asked = self.asked(name, side, DEPTH)?;
        let lacking = wanted(self.plan).find(|set| {
            side.contents.contains(&set.content)
                && !asked.contains(&set.name.to_string_lossy().into_owned())
        });
        if let Some(set) = lacking {
            return Err(format!(
                "no rule of chain {name} of table inet {table} accepts what is in set {}: add `{}`",
                set.name.to_string_lossy(),
                question(set, side)
            ));
        }
        self.ends(name, side)
    }

    /// Whether nothing comes out of a chain by its end.
    fn ends(&self, name: &str, side: &Side) -> Result<(), String> {
        let ends = self
            .rules(name)
            .any(|rule| rule.tests.is_empty() && rule.end == End::Drop);
        if ends {
            return Ok(());
        }
        Err(format!(
            "chain {name} of table inet {} does not end with a drop, so {}: add `counter drop` as its last line",
            self.table, side.what
        ))
    }

    /// The sets by which a chain accepts.
    fn asked(&self, name: &str, side: &Side, depth: usize) -> Result<Vec<String>, String> {
        let mut asked = Vec::new();
        for (number, rule) in self.rules(name).enumerate() {
            let by = rule.tests.iter().find_map(|test| match test {
                Test::In(set) if self.is_of(set, side) => Some(set.clone()),
                _ => None,
            });
            match (&rule.end, by) {
                (End::Nothing | End::Drop, _) => {}
                (End::Accept, Some(set)) => asked.push(set),
                (End::Accept, None) if side.is_own_error(rule) => {}
                (End::Jump(next) | End::Goto(next), _) if depth > 0 => {
                    asked.extend(self.asked(next, side, depth - 1)?);
                    // Nobody comes back from there to the drop of this chain.
                    if let End::Goto(_) = rule.end {
                        self.ends(next, side)?;
                    }
                }
                (End::Accept | End::Many | End::Jump(_) | End::Goto(_), _) => {
                    return Err(format!(
                        "rule {} of chain {name} of table inet {} may accept what is in none of our sets, so {}: remove it",
                        number + 1,
                        self.table,
                        side.what
                    ));
                }
            }
        }
        Ok(asked)
    }

    fn is_of(&self, name: &str, side: &Side) -> bool {
        wanted(self.plan).any(|set| {
            set.name.to_bytes() == name.as_bytes() && side.contents.contains(&set.content)
        })
    }

    fn rules<'b>(&'b self, chain: &'b str) -> impl Iterator<Item = &'b Rule> {
        self.found
            .rules
            .iter()
            .filter(move |rule| rule.chain == chain)
    }
}

fn fits(set: &Set, found: &SetFound) -> bool {
    let shape = set.shape();
    let kept = TIMEOUT | INTERVAL | MAP;
    found.key_len == shape.key_len && found.flags & kept == shape.flags & kept
}

/// The rule that asks a set.
fn question(set: &Set, side: &Side) -> String {
    let name = set.name.to_string_lossy();
    let ip = match set.family {
        Family::V4 => "ip",
        Family::V6 => "ip6",
    };
    match (set.content, &side.whose) {
        (Content::Door, _) => format!("{ip} saddr . udp sport @{name} accept"),
        (Content::WideDoor, _) => format!("{ip} saddr @{name} accept"),
        (_, Whose::By(_)) => {
            format!("{ip} daddr . {ip} saddr . meta l4proto . th sport @{name} accept")
        }
        (_, Whose::From(_) | Whose::Wireguard(_)) => {
            format!("{ip} saddr . {ip} daddr . meta l4proto . th dport @{name} accept")
        }
    }
}
