//! The rules between a session and what it may reach: the guard.
//!
//! A packet passes because an element for it lives, in either direction. Into the tunnel it must also answer
//! something: whatever else connection tracking remembers opens nothing. What a session may reach, and what it may not,
//! is told to the access log at its first packet (`access`), so many a second; the counters behind know of the rest.

use std::ffi::CStr;

use super::expression::{Direction, Expression};
use super::rules::{
    FAMILIES, FORWARD, FROM_TUNNEL, GRANTED, INTO_TUNNEL, Line, NAMING, NEW, OUT_OF_TUNNEL, OUTPUT,
    OWN_INTO_TUNNEL, REFUSED, push,
};
use super::sets::{Content, Family, names_of, sets_of};
use super::table::{AccessLog, Plan};
use super::words::*;
use crate::access::{GROUP, TOLD_ALLOWED, TOLD_REFUSED};

/// How many connections a second the kernel tells of, of those that pass and of those that do not.
const TOLD_A_SECOND: u64 = 1_000;
/// How many at once.
const TOLD_AT_ONCE: u32 = 2_000;

pub fn from_tunnel(lines: &mut Vec<Line>, plan: &Plan) {
    flows(
        lines,
        FROM_TUNNEL,
        Way::FromClient(plan.access_log),
        [Content::Own, Content::OwnRange],
    );
    not_granted(lines, FROM_TUNNEL, plan);
}

/// Where what has no flow ends.
fn not_granted(lines: &mut Vec<Line>, chain: &'static CStr, plan: &Plan) {
    let verdict = match plan.access_log {
        AccessLog::Off => Expression::Drop,
        AccessLog::On => Expression::Goto(REFUSED),
    };
    let words = [vec![Expression::Counter, verdict]];
    push(lines, chain, c"not granted", &words);
}

/// What is told to the access log. Behind each rule that tells is one that counts all: the difference was not told.
pub fn access_log(lines: &mut Vec<Line>, plan: &Plan) {
    match plan.access_log {
        AccessLog::Off => return,
        AccessLog::On => {}
    }
    let first = [ct_first(), one(Expression::Goto(NEW))];
    push(lines, GRANTED, c"a new connection", &first);
    push(lines, GRANTED, c"live flow", &[accept()]);
    for (chain, word, verdict) in [
        (NEW, TOLD_ALLOWED, Expression::Accept),
        (REFUSED, TOLD_REFUSED, Expression::Drop),
    ] {
        let tell = vec![
            Expression::Limit {
                a_second: TOLD_A_SECOND,
                burst: TOLD_AT_ONCE,
            },
            Expression::Counter,
            Expression::Log { group: GROUP, word },
        ];
        push(lines, chain, c"told to the access log", &[tell]);
        push(lines, chain, c"all", &[vec![Expression::Counter, verdict]]);
    }
}

pub fn forward(lines: &mut Vec<Line>, plan: &Plan) {
    let out = [from(&plan.tunnel), one(Expression::Goto(OUT_OF_TUNNEL))];
    push(lines, FORWARD, c"a session to a resource", &out);
    let into = [by(&plan.tunnel), one(Expression::Goto(INTO_TUNNEL))];
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
        Way::FromClient(plan.access_log),
        [Content::Flow, Content::FlowRange],
    );
    not_granted(lines, OUT_OF_TUNNEL, plan);
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

/// ICMP errors about a connection whose flow lives. The session's end of it is as the client wrote it, the resource's as the
/// resource did: what was written to a published address is not where it went.
fn errors_of_flows(lines: &mut Vec<Line>) {
    for family in FAMILIES {
        let number = icmp_of(family);
        let source = match family {
            Family::V4 => CT_SRC_IP,
            Family::V6 => CT_SRC_IP6,
        };
        let tracked = |key, of, into| {
            let of = Some(of);
            one(Expression::Ct { key, of, into })
        };
        let client = tracked(source, Direction::Original, 0);
        let resource = tracked(source, Direction::Reply, width(family));
        let number_of = tracked(CT_PROTOCOL, Direction::Original, 2 * width(family));
        let port = tracked(CT_PROTO_SRC, Direction::Reply, 2 * width(family) + 1);
        for content in [Content::Flow, Content::FlowRange] {
            for set in sets_of(content, family) {
                let words = [
                    family_is(family),
                    protocol(number),
                    ct_state(RELATED),
                    client.clone(),
                    resource.clone(),
                    number_of.clone(),
                    port.clone(),
                    within(set.name, set.id),
                    accept(),
                ];
                push(lines, INTO_TUNNEL, c"errors about a live flow", &words);
            }
        }
    }
}

/// What the gateway itself may send into the tunnel: answers, and errors about packets that came out of it.
pub fn output(lines: &mut Vec<Line>, plan: &Plan) {
    let into = [by(&plan.tunnel), one(Expression::Goto(OWN_INTO_TUNNEL))];
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

/// What a session asks for under a published address goes to where the resource is. The guard, behind this, sees that and nothing
/// else; the answer is translated back by connection tracking, behind the guard.
pub fn naming(plan: &Plan) -> Vec<Line> {
    let mut lines = Vec::new();
    for family in FAMILIES {
        let map = names_of(family);
        let number = icmp_of(family);
        let w = width(family);
        let (echo_kind, nfproto) = match family {
            Family::V4 => (8, 2),
            Family::V6 => (128, 10),
        };
        let addresses = [
            load_source(family, 0),
            load_destination(family, w),
            one(Expression::Meta {
                key: META_L4PROTO,
                into: 2 * w,
            }),
        ]
        .concat();
        let goes_there = vec![
            Expression::Find {
                map: map.name,
                id: map.id,
            },
            Expression::Destination { family: nfproto },
        ];
        let ports = [
            from(&plan.tunnel),
            family_is(family),
            not_protocol(number),
            addresses.clone(),
            load_port(Side::Destination, 2 * w + 1),
            goes_there.clone(),
        ];
        push(&mut lines, NAMING, c"a published address", &ports);
        let echo = [
            from(&plan.tunnel),
            family_is(family),
            protocol(number),
            icmp_type(echo_kind),
            addresses,
            one(Expression::Constant {
                value: vec![0; 4],
                into: 2 * w + 1,
            }),
            goes_there,
        ];
        push(&mut lines, NAMING, c"a published address, echo", &echo);
    }
    lines
}

/// Which end of the packet is the client's.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Way {
    FromClient(AccessLog),
    ToClient,
}

/// Accepts what a live element says, both families: what has ports first, the most of it, then echo.
fn flows(lines: &mut Vec<Line>, chain: &'static CStr, way: Way, contents: [Content; 2]) {
    let verdict = match way {
        Way::FromClient(AccessLog::On) => one(Expression::Goto(GRANTED)),
        Way::FromClient(AccessLog::Off) | Way::ToClient => accept(),
    };
    for family in FAMILIES {
        let number = icmp_of(family);
        let echo_kind = match (family, way) {
            (Family::V4, Way::FromClient(_)) => 8,
            (Family::V4, Way::ToClient) => 0,
            (Family::V6, Way::FromClient(_)) => 128,
            (Family::V6, Way::ToClient) => 129,
        };
        let w = width(family);
        let (client, resource, port) = match way {
            Way::FromClient(_) => (
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
                verdict.clone(),
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
                verdict.clone(),
            ];
            push(lines, chain, c"live echo flow", &echo);
        }
    }
}
