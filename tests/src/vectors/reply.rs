//! `reply.json`: §6. Accepted replies are built, opened and read; rejected ones must not be used.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};

use serde_json::{Value, json};
use spa_proto::intermediates;
use spa_proto::{
    DefaultRoute, DoorKind, KnockSecret, Op, Outcome, PAYLOAD_LEN, PendingKnock, RefusedFor,
    Repeat, ReplyError, ReplyKeys, ReplyPayload, ReplySecrets, ResourceId, Route, SessionReply,
    Verdict, WallTime, seal_reply,
};

use super::case::{Case, Checked, Failure, Report, equal, hex, holds, refused};

pub fn check(vectors: &Value, report: &mut Report) {
    report.each("reply.accept", &vectors["accept"], accept);
    report.each("reply.reject", &vectors["reject"], reject);
}

fn accept(case: &Case<'_>) -> Checked {
    let (keys, pending) = parties(case)?;
    let payload: [u8; PAYLOAD_LEN] = case.array("payload")?;
    build(case, &keys, &payload)?;
    open(case, &pending, &payload)?;

    let now = WallTime::from_millis(case.u64("now")?);
    let opened = pending.open_reply(&case.bytes("packet")?, now, DefaultRoute::Refuse);
    let (parsed, secrets) = opened.map_err(refused("the reply"))?;
    check_secrets(case, &secrets)?;
    check_fields(&case.object("fields")?, &parsed)?;
    let tlv = case.object("tlv")?;
    let expected: Result<BTreeMap<_, _>, Failure> = tlv
        .names()
        .map(|name| Ok((name.to_owned(), hex(&tlv.bytes(name)?))))
        .collect();
    equal("tlv", &expected?, &tlvs(&parsed))?;

    // What was read, written and read again, says the same.
    let again = parsed
        .encode()
        .map_err(refused("the payload written again"))?;
    let again = ReplyPayload::parse(&again, pending.op(), now, DefaultRoute::Refuse);
    equal(
        "the payload written again",
        &parsed,
        &again.map_err(refused("it"))?,
    )
}

fn reject(case: &Case<'_>) -> Checked {
    let (keys, pending) = parties(case)?;
    let packet = case.bytes("packet")?;
    let now = WallTime::from_millis(case.u64("now")?);
    let used = pending.open_reply(&packet, now, DefaultRoute::Refuse);
    match case.text("layer")? {
        "packet" => {
            holds(
                "the packet is refused",
                intermediates::open_reply(&pending, &packet).is_err(),
            )?;
            holds("the reply is refused", used.is_err())
        }
        "payload" => {
            let payload: [u8; PAYLOAD_LEN] = case.array("payload")?;
            build(case, &keys, &payload)?;
            open(case, &pending, &payload)?;
            holds(
                "the payload is refused",
                matches!(used, Err(ReplyError::Payload(_))),
            )
        }
        other => Err(Failure::new(format!(
            "the vector's layer {other:?} is unknown"
        ))),
    }
}

fn parties(case: &Case<'_>) -> Checked<(ReplyKeys, PendingKnock)> {
    let e = case.array("e")?;
    // Any X25519 pair: a knock key computes its public half.
    case.same("E", KnockSecret::from_bytes(e).public().as_bytes())?;
    let keys = intermediates::reply_keys(case.array("prk0")?, case.array("thk")?, case.array("E")?);
    let op = match case.has("op").then(|| case.u64("op")).transpose()? {
        // A packet that must not open is no answer to any op.
        None | Some(0) => Op::Open,
        Some(1) => Op::Roam,
        Some(2) => Op::Close,
        Some(3) => Op::Enrol,
        Some(other) => return Err(Failure::new(format!("the vector's op {other} is unknown"))),
    };
    Ok((keys.duplicate(), intermediates::pending(op, e, keys)))
}

fn build(case: &Case<'_>, keys: &ReplyKeys, payload: &[u8; PAYLOAD_LEN]) -> Checked {
    let e_s: [u8; 32] = case.array("e_s")?;
    case.all_same(&intermediates::reply(keys, &e_s, payload).map_err(refused("E"))?)?;
    let sealed = seal_reply(keys, e_s, payload).map_err(refused("E"))?;
    case.same("packet", &sealed.packet)?;
    check_secrets(case, &sealed.secrets)
}

fn open(case: &Case<'_>, pending: &PendingKnock, payload: &[u8; PAYLOAD_LEN]) -> Checked {
    let opened = intermediates::open_reply(pending, &case.bytes("packet")?);
    let (found, secrets) = opened.map_err(refused("the packet"))?;
    equal("payload", &hex(payload), &hex(&found))?;
    check_secrets(case, &secrets)
}

fn check_secrets(case: &Case<'_>, secrets: &ReplySecrets) -> Checked {
    case.same("wg_psk", secrets.wg_psk.expose())?;
    case.same("k_sess", secrets.k_sess.expose())?;
    case.same("k_cred", secrets.k_cred.expose())
}

fn check_fields(fields: &Case<'_>, reply: &ReplyPayload) -> Checked {
    let status: u64 = match &reply.outcome {
        Outcome::Session(session) => repeat(session.repeat),
        Outcome::Closed { repeat: again, .. } => repeat(*again),
        Outcome::Refused {
            why: RefusedFor::Policy,
            ..
        } => 2,
        Outcome::Refused {
            why: RefusedFor::Capacity,
            ..
        } => 3,
        Outcome::Enrolled(_) => 4,
    };
    fields.same_int("status", status)?;
    fields.same_int("gw_time", reply.gateway_time.as_millis())?;
    fields.same("src_ip", &wire(reply.source.ip()))?;
    fields.same_int("src_port", reply.source.port())?;
    match &reply.outcome {
        Outcome::Session(session) => check_session(fields, session),
        Outcome::Closed { .. } | Outcome::Refused { .. } | Outcome::Enrolled(_) => {
            check_bare(fields)
        }
    }?;
    let (routes, verdicts) = lists(&reply.outcome);
    let routes: Vec<_> = routes.iter().map(Route::to_string).collect();
    equal("routes", fields.value("routes")?, &json!(routes))?;
    let verdicts: Vec<_> = verdicts
        .iter()
        .map(|(id, verdict)| json!({"rid": id.to_string(), "code": verdict.code(), "granted": verdict.is_granted()}))
        .collect();
    equal(
        "verdicts",
        fields.value("verdicts")?,
        &Value::from(verdicts),
    )
}

fn check_session(fields: &Case<'_>, session: &SessionReply) -> Checked {
    let flags: u64 = match session.door {
        DoorKind::Address => 0,
        DoorKind::AddressAndPort => 1,
    };
    fields.same_int("flags", flags)?;
    fields.same_int("door_s", session.door_secs)?;
    fields.same("session", session.id.as_bytes())?;
    fields.same_int("not_after", session.not_after.as_millis())?;
    fields.same("wg_pub", &session.wg_public)?;
    fields.same(
        "ep_ip",
        &session
            .endpoint
            .map_or([0; 16], |endpoint| wire(endpoint.ip())),
    )?;
    fields.same_int(
        "ep_port",
        session.endpoint.as_ref().map_or(0, SocketAddr::port),
    )?;
    fields.same(
        "tun4",
        &session.tunnel4.map_or([0; 4], |address| address.octets()),
    )?;
    fields.same(
        "tun6",
        &session.tunnel6.map_or([0; 16], |address| address.octets()),
    )?;
    fields.same("gw_tun", &session.gateway_tunnel.map_or([0; 16], wire))?;
    fields.same_int("ctl_port", session.control_port)?;
    fields.same_int("mtu", session.mtu)?;
    fields.same_int("keepalive", session.keepalive)
}

/// What a reply without session has no fields for must be zero in the vector.
fn check_bare(fields: &Case<'_>) -> Checked {
    for name in [
        "flags",
        "door_s",
        "not_after",
        "ep_port",
        "ctl_port",
        "mtu",
        "keepalive",
    ] {
        fields.same_int(name, 0_u64)?;
    }
    fields.same("session", &[0; 8])?;
    fields.same("wg_pub", &[0; 32])?;
    fields.same("tun4", &[0; 4])?;
    for name in ["ep_ip", "tun6", "gw_tun"] {
        fields.same(name, &[0; 16])?;
    }
    Ok(())
}

const fn repeat(repeat: Repeat) -> u64 {
    match repeat {
        Repeat::First => 0,
        Repeat::Again => 1,
    }
}

fn lists(outcome: &Outcome) -> (&[Route], &[(ResourceId, Verdict)]) {
    match outcome {
        Outcome::Session(session) => (&session.routes, &session.verdicts),
        Outcome::Closed { verdicts, .. } | Outcome::Refused { verdicts, .. } => (&[], verdicts),
        Outcome::Enrolled(_) => (&[], &[]),
    }
}

fn wire(address: IpAddr) -> [u8; 16] {
    match address {
        IpAddr::V4(v4) => v4.to_ipv6_mapped().octets(),
        IpAddr::V6(v6) => Ipv6Addr::octets(&v6),
    }
}

/// The known TLVs of a reply as the vectors write them.
fn tlvs(reply: &ReplyPayload) -> BTreeMap<String, String> {
    let mut tlvs = BTreeMap::new();
    let mut put = |kind: &str, value: &[u8]| tlvs.insert(kind.to_owned(), hex(value));
    if let Some(prekey) = &reply.prekey {
        let end = prekey.not_after.as_millis().to_be_bytes();
        put(
            "13",
            &[[prekey.kid.get()].as_slice(), prekey.key.as_bytes(), &end].concat(),
        );
    }
    let (routes, verdicts) = lists(&reply.outcome);
    if !routes.is_empty() {
        put("11", &routes.iter().flat_map(route).collect::<Vec<_>>());
    }
    if !verdicts.is_empty() {
        let verdict = |(id, verdict): &(ResourceId, Verdict)| {
            [id.as_bytes().as_slice(), &[verdict.code()]].concat()
        };
        put("12", &verdicts.iter().flat_map(verdict).collect::<Vec<_>>());
    }
    let reason = match &reply.outcome {
        Outcome::Session(session) => {
            if let Some(dns) = session.dns {
                put("15", &wire(dns));
            }
            session.reason.as_ref()
        }
        Outcome::Closed { reason, .. } | Outcome::Refused { reason, .. } => reason.as_ref(),
        Outcome::Enrolled(offer) => {
            if let Some(offer) = offer {
                put(
                    "14",
                    &[&[offer.digits, offer.period], offer.secret.expose()].concat(),
                );
            }
            None
        }
    };
    if let Some(reason) = reason {
        put("16", reason.as_bytes());
    }
    tlvs
}

fn route(route: &Route) -> Vec<u8> {
    match route.address() {
        IpAddr::V4(v4) => [&[4, route.prefix()], v4.octets().as_slice()].concat(),
        IpAddr::V6(v6) => [&[6, route.prefix()], v6.octets().as_slice()].concat(),
    }
}
