//! Every rule of the table, in order, as data: the promises of DESIGN §5 in the words of `expression`.
//!
//! Where a rule asks `ct`, it only ever narrows what a live element or the gateway's own doing lets pass: no
//! rule lets a packet of a client in because its connection is established. The WireGuard port and the
//! tunnel are decided before any rule that asks `ct`.

use std::ffi::CStr;

use super::expression::{Base, Direction, Expression, Register};
use super::sets::{Content, Family, KEEP_OPEN_ID, KNOCK_ID, sets_of};
use super::table::{Masquerade, Plan, interface_bytes};

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
/// From a session to the gateway.
pub const FROM_TUNNEL: &CStr = c"from_tunnel";
/// From the world to the gateway.
pub const UPLINK: &CStr = c"uplink";
/// From a session to a resource.
pub const OUT_OF_TUNNEL: &CStr = c"out_of_tunnel";
/// From a resource to a session.
pub const INTO_TUNNEL: &CStr = c"into_tunnel";
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
    from_tunnel(&mut lines);
    uplink(&mut lines, plan);
    forward(&mut lines, plan);
    output(&mut lines, plan);
    if plan.masquerade == Masquerade::Yes {
        postrouting(&mut lines, plan);
    }
    lines
}

const FAMILIES: [Family; 2] = [Family::V4, Family::V6];
const UDP: u8 = 17;

fn push(lines: &mut Vec<Line>, chain: &'static CStr, comment: &'static CStr, words: &[Words]) {
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
    let into = [from(&plan.tunnel), one(Expression::Jump(FROM_TUNNEL))];
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
    let outside = [from_knock(), one(Expression::Jump(UPLINK))];
    push(lines, INPUT, c"from outside", &outside);
    push(
        lines,
        INPUT,
        c"other interfaces are not ours to judge",
        &[accept()],
    );
}

fn from_tunnel(lines: &mut Vec<Line>) {
    flows(
        lines,
        FROM_TUNNEL,
        Way::FromClient,
        [Content::Own, Content::OwnRange],
    );
    push(lines, FROM_TUNNEL, c"not granted", &[counted_drop()]);
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

fn forward(lines: &mut Vec<Line>, plan: &Plan) {
    let out = [from(&plan.tunnel), one(Expression::Jump(OUT_OF_TUNNEL))];
    push(lines, FORWARD, c"a session to a resource", &out);
    let into = [by(&plan.tunnel), one(Expression::Jump(INTO_TUNNEL))];
    push(lines, FORWARD, c"a resource to a session", &into);
    astray(lines, FORWARD, plan);
    push(
        lines,
        FORWARD,
        c"other forwarding is not ours to judge",
        &[accept()],
    );
    flows(
        lines,
        OUT_OF_TUNNEL,
        Way::FromClient,
        [Content::Flow, Content::FlowRange],
    );
    push(lines, OUT_OF_TUNNEL, c"not granted", &[counted_drop()]);
    // A connection a client opened, and its flow still lives: either alone is not enough.
    let unasked = [ct_not_state(ESTABLISHED | RELATED), counted_drop()];
    push(lines, INTO_TUNNEL, c"nothing enters unasked", &unasked);
    let backwards = [ct_original(), counted_drop()];
    push(lines, INTO_TUNNEL, c"only answers enter", &backwards);
    flows(
        lines,
        INTO_TUNNEL,
        Way::ToClient,
        [Content::Flow, Content::FlowRange],
    );
    errors_of_flows(lines);
    push(lines, INTO_TUNNEL, c"no live flow", &[counted_drop()]);
}

/// When WireGuard's interface is gone, its route is, and what a resource still sends to a session would leave by
/// the default route, for everybody to read. To be called behind what goes into the tunnel.
fn astray(lines: &mut Vec<Line>, chain: &'static CStr, plan: &Plan) {
    for family in FAMILIES {
        let Some(pool) = plan.pool(family) else {
            continue;
        };
        let words = [
            not_by("lo"),
            destination_within(family, pool),
            counted_drop(),
        ];
        push(
            lines,
            chain,
            c"to a tunnel address through the tunnel only",
            &words,
        );
    }
}

/// ICMP errors about a connection whose flow lives.
fn errors_of_flows(lines: &mut Vec<Line>) {
    for family in FAMILIES {
        let number = icmp_of(family);
        let (source, destination) = match family {
            Family::V4 => (CT_SRC_IP, CT_DST_IP),
            Family::V6 => (CT_SRC_IP6, CT_DST_IP6),
        };
        let original = |key, into| {
            one(Expression::Ct {
                key,
                of: Some(Direction::Original),
                into,
            })
        };
        for content in [Content::Flow, Content::FlowRange] {
            for set in sets_of(content, family) {
                let words = [
                    family_is(family),
                    protocol(number),
                    ct_state(RELATED),
                    original(source, 0),
                    original(destination, width(family)),
                    original(CT_PROTOCOL, 2 * width(family)),
                    original(CT_PROTO_DST, 2 * width(family) + 1),
                    within(set.name, set.id),
                    accept(),
                ];
                push(lines, INTO_TUNNEL, c"errors about a live flow", &words);
            }
        }
    }
}

/// What the gateway itself may send into the tunnel: answers, and errors about packets that came out of it.
fn output(lines: &mut Vec<Line>, plan: &Plan) {
    let into = [by(&plan.tunnel), one(Expression::Jump(OWN_INTO_TUNNEL))];
    push(lines, OUTPUT, c"the gateway to a session", &into);
    astray(lines, OUTPUT, plan);
    flows(
        lines,
        OWN_INTO_TUNNEL,
        Way::ToClient,
        [Content::Own, Content::OwnRange],
    );
    let errors: [(Family, &[u8]); 2] = [(Family::V4, &[3, 11, 12]), (Family::V6, &[1, 2, 3, 4])];
    for (family, kinds) in errors {
        for kind in kinds {
            let words = [
                family_is(family),
                protocol(icmp_of(family)),
                icmp_type(*kind),
                accept(),
            ];
            push(lines, OWN_INTO_TUNNEL, c"errors", &words);
        }
    }
    push(lines, OWN_INTO_TUNNEL, c"no live flow", &[counted_drop()]);
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

/// Which end of the packet is the client's.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Way {
    FromClient,
    ToClient,
}

/// Accepts what a live element says, both families: what has ports first, the most of it, then echo.
fn flows(lines: &mut Vec<Line>, chain: &'static CStr, way: Way, contents: [Content; 2]) {
    for family in FAMILIES {
        let number = icmp_of(family);
        let echo_kind = match (family, way) {
            (Family::V4, Way::FromClient) => 8,
            (Family::V4, Way::ToClient) => 0,
            (Family::V6, Way::FromClient) => 128,
            (Family::V6, Way::ToClient) => 129,
        };
        let w = width(family);
        let (client, resource, port) = match way {
            Way::FromClient => (
                load_source(family, 0),
                load_destination(family, w),
                Side::Destination,
            ),
            Way::ToClient => (
                load_destination(family, 0),
                load_source(family, w),
                Side::Source,
            ),
        };
        let addresses = [
            client,
            resource,
            one(Expression::Meta {
                key: META_L4PROTO,
                into: 2 * w,
            }),
        ];
        let sets = || {
            contents
                .into_iter()
                .flat_map(|content| sets_of(content, family))
        };
        for set in sets() {
            // Where TCP and UDP have ports ICMP has its type or its checksum: kept out of the look-up.
            let ports = [
                family_is(family),
                not_protocol(number),
                addresses.concat(),
                load_port(port, 2 * w + 1),
                within(set.name, set.id),
                accept(),
            ];
            push(lines, chain, c"live flow", &ports);
        }
        for set in sets() {
            // An echo has no port: flows of echo have port 0.
            let echo = [
                family_is(family),
                protocol(number),
                icmp_type(echo_kind),
                addresses.concat(),
                one(Expression::Constant {
                    value: vec![0; 4],
                    into: 2 * w + 1,
                }),
                within(set.name, set.id),
                accept(),
            ];
            push(lines, chain, c"live echo flow", &echo);
        }
    }
}

// ---- the words ----

type Words = Vec<Expression>;

// include/uapi/linux/netfilter/nf_tables.h
const META_IIFNAME: u32 = 6;
const META_OIFNAME: u32 = 7;
const META_NFPROTO: u32 = 15;
const META_L4PROTO: u32 = 16;
const CT_STATE: u32 = 0;
const CT_DIRECTION: u32 = 1;
const CT_PROTOCOL: u32 = 10;
const CT_PROTO_DST: u32 = 12;
const CT_SRC_IP: u32 = 19;
const CT_DST_IP: u32 = 20;
const CT_SRC_IP6: u32 = 21;
const CT_DST_IP6: u32 = 22;
const ESTABLISHED: u32 = 1 << 1;
const RELATED: u32 = 1 << 2;
const ICMP: u8 = 1;
const ICMP6: u8 = 58;

fn icmp_of(family: Family) -> u8 {
    match family {
        Family::V4 => ICMP,
        Family::V6 => ICMP6,
    }
}

/// Registers an address takes.
fn width(family: Family) -> Register {
    match family {
        Family::V4 => 1,
        Family::V6 => 4,
    }
}

fn one(expression: Expression) -> Words {
    vec![expression]
}

fn accept() -> Words {
    one(Expression::Accept)
}

fn counted_drop() -> Words {
    vec![Expression::Counter, Expression::Drop]
}

fn equals(value: Vec<u8>) -> Words {
    one(Expression::Equals { value })
}

fn meta_is(key: u32, value: Vec<u8>) -> Words {
    vec![
        Expression::Meta { key, into: 0 },
        Expression::Equals { value },
    ]
}

fn meta_is_not(key: u32, value: Vec<u8>) -> Words {
    vec![
        Expression::Meta { key, into: 0 },
        Expression::Differs { value },
    ]
}

fn from(interface: &str) -> Words {
    meta_is(META_IIFNAME, interface_bytes(interface))
}

fn not_from(interface: &str) -> Words {
    meta_is_not(META_IIFNAME, interface_bytes(interface))
}

fn by(interface: &str) -> Words {
    meta_is(META_OIFNAME, interface_bytes(interface))
}

fn not_by(interface: &str) -> Words {
    meta_is_not(META_OIFNAME, interface_bytes(interface))
}

fn from_knock() -> Words {
    [
        one(Expression::Meta {
            key: META_IIFNAME,
            into: 0,
        }),
        within(c"knock", KNOCK_ID),
    ]
    .concat()
}

fn by_knock() -> Words {
    [
        one(Expression::Meta {
            key: META_OIFNAME,
            into: 0,
        }),
        within(c"knock", KNOCK_ID),
    ]
    .concat()
}

fn within(set: &'static CStr, id: u32) -> Words {
    one(Expression::In { set, id })
}

fn family_is(family: Family) -> Words {
    let number = match family {
        Family::V4 => 2,
        Family::V6 => 10,
    };
    meta_is(META_NFPROTO, vec![number])
}

fn protocol(number: u8) -> Words {
    meta_is(META_L4PROTO, vec![number])
}

fn not_protocol(number: u8) -> Words {
    meta_is_not(META_L4PROTO, vec![number])
}

fn icmp_type(kind: u8) -> Words {
    let load = Expression::Payload {
        base: Base::Transport,
        offset: 0,
        len: 1,
        into: 0,
    };
    vec![load, Expression::Equals { value: vec![kind] }]
}

#[derive(Clone, Copy)]
enum Side {
    Source,
    Destination,
}

fn load_port(side: Side, into: Register) -> Words {
    let offset = match side {
        Side::Source => 0,
        Side::Destination => 2,
    };
    one(Expression::Payload {
        base: Base::Transport,
        offset,
        len: 2,
        into,
    })
}

fn to_port(port: u16) -> Words {
    [
        load_port(Side::Destination, 0),
        equals(port.to_be_bytes().to_vec()),
    ]
    .concat()
}

fn from_port(port: u16) -> Words {
    [
        load_port(Side::Source, 0),
        equals(port.to_be_bytes().to_vec()),
    ]
    .concat()
}

fn load_source(family: Family, into: Register) -> Words {
    let (offset, len) = match family {
        Family::V4 => (12, 4),
        Family::V6 => (8, 16),
    };
    one(Expression::Payload {
        base: Base::Network,
        offset,
        len,
        into,
    })
}

fn load_destination(family: Family, into: Register) -> Words {
    let (offset, len) = match family {
        Family::V4 => (16, 4),
        Family::V6 => (24, 16),
    };
    one(Expression::Payload {
        base: Base::Network,
        offset,
        len,
        into,
    })
}

fn destination_is(family: Family, address: std::net::IpAddr) -> Words {
    let octets = match address {
        std::net::IpAddr::V4(v4) => v4.octets().to_vec(),
        std::net::IpAddr::V6(v6) => v6.octets().to_vec(),
    };
    [load_destination(family, 0), equals(octets)].concat()
}

fn source_within(family: Family, pool: (Vec<u8>, Vec<u8>)) -> Words {
    [family_is(family), load_source(family, 0), masked_is(pool)].concat()
}

fn destination_within(family: Family, pool: (Vec<u8>, Vec<u8>)) -> Words {
    [
        family_is(family),
        load_destination(family, 0),
        masked_is(pool),
    ]
    .concat()
}

fn masked_is((mask, network): (Vec<u8>, Vec<u8>)) -> Words {
    [one(Expression::Mask { mask }), equals(network)].concat()
}

/// Loads the state's bits that matter; they are in the machine's byte order.
fn ct_bits(bits: u32) -> Words {
    let load = Expression::Ct {
        key: CT_STATE,
        of: None,
        into: 0,
    };
    vec![
        load,
        Expression::Mask {
            mask: bits.to_ne_bytes().to_vec(),
        },
    ]
}

fn ct_state(bits: u32) -> Words {
    [
        ct_bits(bits),
        one(Expression::Differs { value: vec![0; 4] }),
    ]
    .concat()
}

fn ct_not_state(bits: u32) -> Words {
    [ct_bits(bits), equals(vec![0; 4])].concat()
}

fn ct_original() -> Words {
    [
        one(Expression::Ct {
            key: CT_DIRECTION,
            of: None,
            into: 0,
        }),
        equals(vec![0]),
    ]
    .concat()
}

fn ct_reply() -> Words {
    [
        one(Expression::Ct {
            key: CT_DIRECTION,
            of: None,
            into: 0,
        }),
        equals(vec![1]),
    ]
    .concat()
}
