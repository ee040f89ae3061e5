//! `replay.json`: stories over time on one gateway (§7 to §10, §14), by `spa-gateway-core`.

use std::collections::BTreeSet;

use serde_json::Value;
use spa_gateway_core::Refusal;
use spa_proto::SessionId;

use super::case::{Case, Checked, Failure, Report, equal, unhex};
use super::negative::{packet, send, source, step_of};
use super::world::{Packet, Until, World};

/// Offsets in a reply's payload (SPEC §6).
const STATUS: usize = 0;
const SESSION: std::ops::Range<usize> = 4..12;
const GATEWAY_TIME: std::ops::Range<usize> = 12..20;
const NOT_AFTER: std::ops::Range<usize> = 20..28;
/// The status that answers ENROL.
const ENROLLED: u8 = 4;
/// The first step whose outcome is answered.
const ANSWERED_FROM: u64 = 11;
/// The step of a knock that a newer one pushed out.
const PUSHED_OUT: u64 = 5;
/// The step of what is granted.
const GRANTED: u64 = 12;

pub fn check(vectors: &Value, report: &mut Report) {
    let mut met = BTreeSet::new();
    report.each("replay", vectors, |case| story(case, &mut met));
    report.met.extend(met);
}

fn story(case: &Case<'_>, met: &mut BTreeSet<Refusal>) -> Checked {
    let mut world = World::new(&case.object("state")?)?;
    for (number, event) in case.cases("events")?.iter().enumerate() {
        world.at(event.u64("at")?);
        let told = match event.text("type")? {
            "packet" => one_packet(&mut world, event),
            "batch" => batch(&mut world, event),
            "handshake" => {
                world.handshake();
                Ok(())
            }
            "restart" => world.restart(),
            other => Err(Failure::new(format!("the event {other:?} is unknown"))),
        };
        told.map_err(|failure| failure.within(&format!("event {number}")))?;
    }
    met.extend(world.met());
    Ok(())
}

fn one_packet(world: &mut World, event: &Case<'_>) -> Checked {
    let bytes = event.bytes("packet")?;
    let expect = event.object("expect")?;
    world.inject(
        Some(event.array("e_s")?),
        Some(event.array("new_session_id")?),
    );
    let step = send(world, &packet(event, &bytes)?)?;
    equal("step", &expect.u64("step")?, &step)?;
    if event.has("crash") {
        let until = match event.text("crash")? {
            "before_record" => Until::BeforeRecord,
            "after_record" => Until::AfterRecord,
            other => return Err(Failure::new(format!("the crash {other:?} is unknown"))),
        };
        let replies = world.perform(until);
        equal("replies before the crash", &0, &replies.len())?;
        return world.restart();
    }
    let replies = world.perform(Until::End);
    match (replies.as_slice(), step >= ANSWERED_FROM) {
        ([reply], true) => compare(world, event, &bytes, reply.as_slice()),
        ([], false) => Ok(()),
        (replies, _) => Err(Failure::new(format!(
            "{} replies at step {step}",
            replies.len()
        ))),
    }
}

/// Opens our reply and the other implementation's, and compares what does not depend on the set-up.
fn compare(world: &mut World, event: &Case<'_>, bytes: &[u8], reply: &[u8]) -> Checked {
    let expect = event.object("expect")?;
    let e_s = event.array("e_s")?;
    let ours = world.open(bytes, &e_s, reply)?;
    // This one also says that our sealing of the model's payload is the model's reply.
    let theirs = world.open(bytes, &e_s, &expect.bytes("reply")?)?;
    equal("status", &expect.int("status")?, &ours[STATUS])?;
    equal("session", &theirs[SESSION], &ours[SESSION])?;
    equal("not_after", &theirs[NOT_AFTER], &ours[NOT_AFTER])?;
    equal("gateway_time", &theirs[GATEWAY_TIME], &ours[GATEWAY_TIME])?;
    equal(
        "gateway_time",
        &expect.u64("gateway_time")?.to_be_bytes()[..],
        &ours[GATEWAY_TIME],
    )?;
    if ours[STATUS] == ENROLLED {
        world.replace_candidate_key(expect.array("k_cred")?);
    } else if is_session(&ours) && world.is_open(bytes)? {
        let session =
            <[u8; 8]>::try_from(&ours[SESSION]).map_err(|_| Failure::new("no session id"))?;
        world.replace_session_key(SessionId::from_bytes(session), expect.array("k_sess")?);
    }
    Ok(())
}

/// Says whether a payload speaks of a session, as no refusal and no answer to CLOSE does.
fn is_session(payload: &[u8]) -> bool {
    payload[SESSION] != [0; 8]
}

fn batch(world: &mut World, event: &Case<'_>) -> Checked {
    let packets = event.value("packets")?.as_array().into_iter().flatten();
    let packets: Option<Vec<Vec<u8>>> = packets.map(|packet| unhex(packet.as_str()?)).collect();
    let packets = packets.ok_or_else(|| Failure::new("the packets are no hex"))?;
    let expected: Vec<u64> = event
        .cases("expect")?
        .iter()
        .map(|case| case.u64("step"))
        .collect::<Checked<_>>()?;
    let mut steps: Vec<u64> = Vec::new();
    let mut waiting = None;
    for (number, bytes) in packets.iter().enumerate() {
        let before = world.pushed_out();
        let packet = Packet {
            bytes,
            source: source(event)?,
            on_loopback: false,
            fragment: false,
        };
        let taken = world.take_in(&packet);
        steps.push(taken.map_or_else(step_of, |()| 0));
        if taken.is_ok() {
            let older = waiting.replace(number);
            if let (Some(older), true) = (
                older.and_then(|at| steps.get_mut(at)),
                world.pushed_out() != before,
            ) {
                *older = PUSHED_OUT;
            }
        }
    }
    let worked = world
        .work()
        .map(|outcome| outcome.map_or_else(step_of, |()| GRANTED));
    if let (Some(step), Some(worked)) = (waiting.and_then(|at| steps.get_mut(at)), worked) {
        *step = worked;
    }
    equal("steps", &expected, &steps)
}
