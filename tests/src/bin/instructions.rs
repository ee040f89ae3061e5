//! One path of the core, walked a number of times, to be counted by valgrind: `instructions stranger|bad-mac|open COUNT`.
//!
//! Nothing is random, no clock is read and every map is ordered, so two runs differ by nothing but the count. What a
//! packet costs is the difference of two counts; see tests/tools/instructions.sh.
#![forbid(unsafe_code)]

use anyhow::{Context, bail};
use spa_gateway_core::{Effect, EffectKind, Entropy, Gateway, Purpose, Refusal};
use spa_tests::machines::{MACHINES, NOW, datagram, filled, gateway, keys, knock};

fn main() -> anyhow::Result<()> {
    let mut arguments = std::env::args().skip(1);
    let path = arguments.next().context("which path?")?;
    let count: u32 = arguments.next().context("how often?")?.parse()?;
    let mut gateway = gateway()?;
    let packets: Vec<[u8; 512]> = match path.as_str() {
        // Its tag is nobody's.
        "stranger" => (0..count).map(|number| filled(number, 0x5A)).collect(),
        // The tag of somebody, and nothing else right.
        "bad-mac" => (0..count)
            .map(|number| {
                let mut packet = filled(number, 0x5A);
                let tag = keys(number % MACHINES).tag(NOW.wall.slot());
                packet[..8].copy_from_slice(tag.as_bytes());
                packet
            })
            .collect(),
        "open" => (0..count.min(MACHINES))
            .map(knock)
            .collect::<anyhow::Result<_>>()?,
        other => bail!("no path {other}"),
    };
    let mut entropy = Counting(7);
    for packet in &packets {
        let outcome = gateway.handle_datagram(datagram(packet), NOW);
        match (path.as_str(), outcome) {
            ("stranger", Err(Refusal::UnknownTag)) | ("bad-mac", Err(Refusal::OuterMac)) => {}
            ("open", Ok(())) => open(&mut gateway, &mut entropy)?,
            (_, outcome) => bail!("{outcome:?}"),
        }
    }
    Ok(())
}

/// Opens what waits; a store and an enforcer that do everything at once.
fn open(gateway: &mut Gateway, entropy: &mut Counting) -> anyhow::Result<()> {
    let mut replied = false;
    loop {
        let worked = gateway.handle_work(NOW, entropy);
        let mut performed = false;
        while let Some(Effect { id, kind }) = gateway.poll_effect() {
            performed = true;
            match kind {
                EffectKind::Record(_) | EffectKind::Order(_) => {
                    gateway.handle_performed(id, Ok(()), NOW);
                }
                EffectKind::Reply(_) => replied = true,
                EffectKind::Audit(_)
                | EffectKind::Access(_)
                | EffectKind::CountConnections
                | EffectKind::Observe { .. }
                | EffectKind::CountFlows
                | EffectKind::Answer { .. }
                | EffectKind::Event { .. } => {}
            }
        }
        if worked.is_none() && !performed {
            return replied.then_some(()).context("a knock that is answered");
        }
    }
}

/// "Randomness" that is the same in every run, and never twice the same within one: a session wants an id of its own.
struct Counting(u64);

impl Entropy for Counting {
    fn fill(&mut self, _: Purpose, out: &mut [u8]) {
        for byte in out {
            // The constants of Knuth's MMIX; the upper bits are the ones that look random.
            self.0 = self
                .0
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1_442_695_040_888_963_407);
            [*byte, ..] = self.0.to_be_bytes();
        }
    }
}
