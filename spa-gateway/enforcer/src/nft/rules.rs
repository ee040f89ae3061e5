//! Every rule of the table, in order, as data: the promises of DESIGN §5 in the words of `expression`.
//!
//! Where a rule asks `ct`, it only ever narrows what a live element or the gateway's own doing lets pass: no
//! rule lets a packet of a client in because its connection is established. The WireGuard port and the
//! tunnel are decided before any rule that asks `ct`.

use std::ffi::CStr;

use super::expression::{Base, Expression, Register};
use super::sets::{Content, Family, KEEP_OPEN_ID, sets_of};
use super::table::{Masquerade, Plan};
use super::tunnel;
use super::words::*;

/// Before connection tracking, for what arrives.
pub const PREROUTING: &CStr = c"prerouting";
/// Before connection tracking, for what we send.
pub const UNTRACKED_OUTPUT: &CStr = c"untracked_output";
/// What arrives from outside and is not for the gateway.
pub const PASSING: &CStr = c"passing";
/// What arrives for the gateway.
pub const INPUT: &CStr = c"input";
/// What passes through it.
pub const FORWARD: &CStr = c"forward";
/// What it sends.
pub const OUTPUT: &CStr = c"output";
/// What leaves by another interface than it came.
pub const POSTROUTING: &CStr = c"postrouting";
/// What a session calls its resources by, before anything is decided; only where something has a name.
pub const NAMING: &CStr = c"naming";
/// From a session to the gateway.
pub const FROM_TUNNEL: &CStr = c"from_tunnel";
/// From the world to the gateway.
pub const UPLINK: &CStr = c"uplink";
/// From a session to a resource.
pub const OUT_OF_TUNNEL: &CStr = c"out_of_tunnel";
/// From a resource to a session.
pub const INTO_TUNNEL: &CStr = c"into_tunnel";
/// A packet of a session that a live flow lets pass, where there is an access log.
pub const GRANTED: &CStr = c"granted";
/// The first one of a connection.
pub const NEW: &CStr = c"new";
/// A packet of a session that no flow lets pass.
pub const REFUSED: &CStr = c"refused";
/// From the gateway to a session.
pub const OWN_INTO_TUNNEL: &CStr = c"own_into_tunnel";

/// One rule.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Line {
    /// The chain it ends.
    pub chain: &'static CStr,
    /// Why it is there, for `nft list`.
    pub comment: &'static CStr,
    /// What it consists of.
    pub words: Vec<Expression>,
}

/// All rules.
pub fn rules(plan: &Plan) -> Vec<Line> {
    let mut lines = Vec::new();
    untracked(&mut lines, plan);
    passing(&mut lines);
    input(&mut lines, plan);
    tunnel::from_tunnel(&mut lines, plan);
    uplink(&mut lines, plan);
    tunnel::forward(&mut lines, plan);
    tunnel::output(&mut lines, plan);
    tunnel::access_log(&mut lines, plan);
    if plan.masquerade == Masquerade::Yes {
        postrouting(&mut lines, plan);
    }
    lines
}

/// The rules of a table that shuts the tunnel and nothing else.
pub fn shut(plan: &Plan) -> Vec<Line> {
    let mut lines = Vec::new();
    for (chain, which) in [
        (INPUT, from(&plan.tunnel)),
        (
            INPUT,
            [protocol(UDP), to_port(plan.wireguard_port)].concat(),
        ),
        (FORWARD, from(&plan.tunnel)),
        (FORWARD, by(&plan.tunnel)),
        (OUTPUT, by(&plan.tunnel)),
    ] {
        let comment = c"the administrator's rules do not guard the tunnel";
        push(&mut lines, chain, comment, &[which, counted_drop()]);
    }
    lines
}

/// Both, for rules that name addresses.
pub const FAMILIES: [Family; 2] = [Family::V4, Family::V6];

/// Ends a chain with a rule.
pub fn push(lines: &mut Vec<Line>, chain: &'static CStr, comment: &'static CStr, words: &[Words]) {
    lines.push(Line {
        chain,
        comment,
        words: words.concat(),
    });
}

/// An established-rule of anybody must not stand in for a door, and a reply must not make such an entry.
fn untracked(lines: &mut Vec<Line>, plan: &Plan) {
    let mut ports = vec![plan.wireguard_port, plan.knock_port];
    ports.dedup();
    for port in ports {
        let arriving = [
            from_knock(),
            protocol(UDP),
            to_port(port),
            one(Expression::Notrack),
        ];
        push(
            lines,
            PREROUTING,
            c"WireGuard and knocks are not tracked",
            &arriving,
        );
        let leaving = [
            by_knock(),
            protocol(UDP),
            from_port(port),
            one(Expression::Notrack),
        ];
        push(
            lines,
            UNTRACKED_OUTPUT,
            c"WireGuard and replies are not tracked",
            &leaving,
        );
    }
    for family in FAMILIES {
        let Some(pool) = plan.pool(family) else {
            continue;
        };
        let words = [
            not_from(&plan.tunnel),
            not_from("lo"),
            source_within(family, pool),
            one(Expression::Counter),
            one(Expression::Drop),
        ];
        push(
            lines,
            PREROUTING,
            c"a tunnel address comes out of the tunnel only",
            &words,
        );
    }
}

/// A machine that forwards would take anybody on its wire to the resources, around the tunnel, and would answer
/// for packets it cannot forward. From outside passes what is for the gateway itself (a port forwarding is, until
/// destination NAT), and the answers to what came from inside. So a network with public addresses behind a knock
/// interface is not reached through it.
fn passing(lines: &mut Vec<Line>) {
    // include/uapi/linux/rtnetlink.h
    let kinds: [(u32, &CStr); 4] = [
        (2, c"for the gateway"),
        (3, c"for everybody (broadcast)"),
        (4, c"for any router (anycast)"),
        (5, c"for everybody (multicast)"),
    ];
    for (kind, comment) in kinds {
        let kind = equals(kind.to_ne_bytes().to_vec());
        let words = [
            from_knock(),
            one(Expression::DestinationKind { into: 0 }),
            kind,
            accept(),
        ];
        push(lines, PASSING, comment, &words);
    }
    let answers = [
        from_knock(),
        ct_state(ESTABLISHED | RELATED),
        ct_reply(),
        accept(),
    ];
    push(lines, PASSING, c"answers to those inside", &answers);
    push(
        lines,
        PASSING,
        c"nobody passes unasked",
        &[from_knock(), counted_drop()],
    );
}

fn input(lines: &mut Vec<Line>, plan: &Plan) {
    push(
        lines,
        INPUT,
        c"the gateway to itself",
        &[from("lo"), accept()],
    );
    let into = [from(&plan.tunnel), one(Expression::Goto(FROM_TUNNEL))];
    push(lines, INPUT, c"a session to the gateway", &into);
    for family in FAMILIES {
        let Some((address, _)) = plan.address(family) else {
            continue;
        };
        let words = [
            family_is(family),
            destination_is(family, address),
            counted_drop(),
        ];
        push(
            lines,
            INPUT,
            c"tunnel addresses through the tunnel only",
            &words,
        );
    }
    for family in FAMILIES {
        for content in [Content::Door, Content::WideDoor] {
            for set in sets_of(content, family) {
                let mut words = vec![
                    family_is(family),
                    protocol(UDP),
                    to_port(plan.wireguard_port),
                    load_source(family, 0),
                ];
                if content == Content::Door {
                    words.push(load_port(Side::Source, width(family)));
                }
                words.extend([within(set.name, set.id), accept()]);
                push(lines, INPUT, c"the door", &words);
            }
        }
    }
    let closed = [protocol(UDP), to_port(plan.wireguard_port), counted_drop()];
    push(lines, INPUT, c"no door", &closed);
    // 133 router solicitation to 137 redirect; of these a host needs 134, 135, 136. 255: never forwarded.
    for kind in [134_u8, 135, 136] {
        let words = [
            family_is(Family::V6),
            protocol(ICMP6),
            icmp_type(kind),
            one(Expression::Payload {
                base: Base::Network,
                offset: 7,
                len: 1,
                into: 0,
            }),
            equals(vec![255]),
            accept(),
        ];
        push(lines, INPUT, c"neighbours and routers", &words);
    }
    let outside = [from_knock(), one(Expression::Goto(UPLINK))];
    push(lines, INPUT, c"from outside", &outside);
    push(
        lines,
        INPUT,
        c"other interfaces are not ours to judge",
        &[accept()],
    );
}

/// From outside pass answers to what the gateway itself asked, and what the administrator keeps open.
fn uplink(lines: &mut Vec<Line>, plan: &Plan) {
    let answers = [ct_state(ESTABLISHED | RELATED), ct_reply(), accept()];
    push(lines, UPLINK, c"answers to the gateway's own", &answers);
    let keep_open = [
        one(Expression::Meta {
            key: META_L4PROTO,
            into: 0,
        }),
        load_port(Side::Destination, 1),
        within(c"keep_open", KEEP_OPEN_ID),
        accept(),
    ];
    push(lines, UPLINK, c"kept open by the administrator", &keep_open);
    let dhcp = |family, server, client| {
        [
            family_is(family),
            protocol(UDP),
            from_port(server),
            to_port(client),
            accept(),
        ]
    };
    push(lines, UPLINK, c"DHCP client", &dhcp(Family::V4, 67, 68));
    push(lines, UPLINK, c"DHCPv6 client", &dhcp(Family::V6, 547, 546));
    too_big(lines, plan);
    push(lines, UPLINK, c"dark", &[counted_drop()]);
}

/// A router may say that a packet of WireGuard to a live door was too big. WireGuard is not tracked, so
/// `related` does not know; the packet inside the error tells.
fn too_big(lines: &mut Vec<Line>, plan: &Plan) {
    /// Bytes of an ICMP header in front of the packet it speaks of.
    const ICMP_LEN: u32 = 8;
    for family in FAMILIES {
        // Type and code; then where protocol, destination and the end of the header are inside.
        let (number, kind, protocol_at, destination_at, header) = match family {
            Family::V4 => (ICMP, vec![3, 4], 9, 16, 20),
            Family::V6 => (ICMP6, vec![2, 0], 6, 24, 40),
        };
        let inside = |offset: u32, len: u32, into: Register| {
            one(Expression::Payload {
                base: Base::Transport,
                offset: ICMP_LEN + offset,
                len,
                into,
            })
        };
        for set in sets_of(Content::Door, family) {
            let words = [
                family_is(family),
                protocol(number),
                one(Expression::Payload {
                    base: Base::Transport,
                    offset: 0,
                    len: 2,
                    into: 0,
                }),
                equals(kind.clone()),
                inside(protocol_at, 1, 0),
                equals(vec![UDP]),
                inside(header, 2, 0),
                equals(plan.wireguard_port.to_be_bytes().to_vec()),
                inside(destination_at, 4 * width(family), 0),
                inside(header + 2, 2, width(family)),
                within(set.name, set.id),
                accept(),
            ];
            push(lines, UPLINK, c"too big, of a live door", &words);
        }
    }
}

fn postrouting(lines: &mut Vec<Line>, plan: &Plan) {
    for family in FAMILIES {
        let Some(pool) = plan.pool(family) else {
            continue;
        };
        let words = [
            not_by(&plan.tunnel),
            not_by("lo"),
            source_within(family, pool),
            one(Expression::Masquerade),
        ];
        push(
            lines,
            POSTROUTING,
            c"sessions leave with the gateway's address",
            &words,
        );
    }
}
