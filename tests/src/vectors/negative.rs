//! `negative.json`: one packet against one state (§8), by `spa-gateway-core`. The step that refuses
//! must be the right one, and something is sent if and only if that is step 11 or 12.

use std::collections::BTreeSet;
use std::net::SocketAddr;

use serde_json::Value;
use spa_gateway_core::Refusal;

use super::case::{Case, Checked, Failure, Report, refused};
use super::world::{Packet, Until, World};

/// The first step whose outcome is answered.
const ANSWERED_FROM: u64 = 11;
/// The step of what is granted.
const GRANTED: u64 = 12;

pub fn check(vectors: &Value, report: &mut Report) {
    let mut met = BTreeSet::new();
    report.each("negative", vectors, |case| one(case, &mut met));
    report.met.extend(met);
}

fn one(case: &Case<'_>, met: &mut BTreeSet<Refusal>) -> Checked {
    let mut world = World::new(&case.object("state")?)?;
    world.at(case.u64("now")?);
    let step = send(&mut world, &packet(case, &case.bytes("packet")?)?)?;
    let replies = world.perform(Until::End);
    met.extend(world.met());
    judge(case, step, replies.len())
}

/// The packet of a case.
pub fn packet<'b>(case: &Case<'_>, bytes: &'b [u8]) -> Checked<Packet<'b>> {
    Ok(Packet {
        bytes,
        source: source(case)?,
        on_loopback: case.has("on_lo") && case.bool("on_lo")?,
        fragment: case.has("fragment") && case.bool("fragment")?,
    })
}

/// Where a packet comes from.
pub fn source(case: &Case<'_>) -> Checked<SocketAddr> {
    let address = case.text("src")?.parse().map_err(refused("the source"))?;
    Ok(SocketAddr::new(address, case.int("sport")?))
}

/// Sends one packet and does the work it leads to; gives the step that decided.
pub fn send(world: &mut World, packet: &Packet<'_>) -> Checked<u64> {
    if let Err(refusal) = world.take_in(packet) {
        return Ok(step_of(refusal));
    }
    match world.work() {
        Some(Ok(())) => Ok(GRANTED),
        Some(Err(refusal)) => Ok(step_of(refusal)),
        None => Err(Failure::new("the knock was queued and is not to be had")),
    }
}

/// The step of §8 that refused.
pub fn step_of(refusal: Refusal) -> u64 {
    u64::from(refusal.step())
}

/// Compares the step, and whether something was sent.
fn judge(case: &Case<'_>, step: u64, replies: usize) -> Checked {
    let also = case.value("also_accept")?.as_array().into_iter().flatten();
    let right = also
        .filter_map(Value::as_u64)
        .chain([case.u64("step")?])
        .any(|right| right == step);
    if !right {
        return Err(Failure::new(format!(
            "step {step}, expected {}",
            case.u64("step")?
        )));
    }
    match (replies, case.u64("step")? >= ANSWERED_FROM) {
        (1, true) | (0, false) => Ok(()),
        (count, _) => Err(Failure::new(format!("{count} replies at step {step}"))),
    }
}
