//! One path of the core, walked a number of times, to be counted by valgrind: `instructions stranger|bad-mac|open COUNT`.
//!
//! Nothing is random, no clock is read and every map is ordered, so two runs differ by nothing but the count. What a
//! packet costs is the difference of two counts; see tests/tools/instructions.sh.
#![forbid(unsafe_code)]

use anyhow::{Context, bail};
use spa_gateway_core::Refusal;
use spa_tests::machines::{Counting, MACHINES, NOW, datagram, filled, gateway, keys, knock, open};

fn main() -> anyhow::Result<()> {
    let mut arguments = std::env::args().skip(1);
    let path = arguments.next().context("which path?")?;
    let count: u32 = arguments.next().context("how often?")?.parse()?;
    let mut gateway = gateway(MACHINES)?;
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
    let mut entropy = Counting::default();
    for (packet, number) in packets.iter().zip(0..) {
        let outcome = gateway.handle_datagram(datagram(number, packet), NOW);
        match (path.as_str(), outcome) {
            ("stranger", Err(Refusal::UnknownTag)) | ("bad-mac", Err(Refusal::OuterMac)) => {}
            ("open", Ok(())) => drop(open(&mut gateway, &mut entropy)?),
            (_, outcome) => bail!("{outcome:?}"),
        }
    }
    Ok(())
}
