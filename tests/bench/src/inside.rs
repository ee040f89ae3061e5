//! An attacker inside the fence: with a key of his own but the wrong password, or with a tag he captured. What his flood
//! costs, whether others notice, and what it leaves behind in memory and log.

use std::fs;
use std::path::Path;

use spa_tests::gateway::Gateway;
use spa_tests::topology::Town;

use crate::Pass;
use crate::fleet::{Dishonest, Fleet, hush};
use crate::flood::{Junk, flood};
use crate::notices::Notices;
use crate::process;
use crate::table::{Budget, Row, Table};

/// Packets a second.
const RATE: usize = 20_000;
/// How many different ones there are.
const KINDS: usize = 512;

/// Measures it.
pub fn measure(pass: Pass, table: &mut Table) -> anyhow::Result<()> {
    // 100,000 packets of each kind, or a million.
    let lasts = pass.of(5, 50);
    let town = Town::build()?;
    hush(&town.stranger)?;
    let mut gateway = Gateway::init(&town)?;
    let mut fleet = Fleet::enlist(&gateway, 5 * (lasts * 10 + 10) + 1, "1h")?;
    gateway.start()?;
    let notices = Notices::listen(&town.gateway)?;
    let none = Junk::Payloads(vec![[0; 512]]);
    let calm = flood(&town, &gateway, &notices, &mut fleet, &none, 0, lasts)?.processor;
    let attacks = [
        (
            "bad-mac",
            "a captured tag, the rest random",
            Dishonest::BadMac,
            false,
        ),
        (
            "spoofed",
            "the same from a million addresses",
            Dishonest::BadMac,
            true,
        ),
        (
            "replay",
            "one captured knock again and again",
            Dishonest::BadProof,
            false,
        ),
        (
            "bad-proof",
            "a device of ours, the password wrong",
            Dishonest::BadProof,
            false,
        ),
    ];
    for (name, what, kind, spoofed) in attacks {
        // Built now: a tag is of its minute, and four of them are taken.
        let kinds = if name == "replay" { 1 } else { KINDS };
        let packets = fleet.dishonest(kind, kinds)?;
        let junk = if spoofed {
            Junk::Spoofed(packets)
        } else {
            Junk::Payloads(packets)
        };
        let (memory, log) = (process::gateway_memory(&gateway)?, written(gateway.logs()));
        let outcome = flood(&town, &gateway, &notices, &mut fleet, &junk, RATE, lasts)?;
        let gained = process::mb_gained(memory, process::gateway_memory(&gateway)?);
        let logged = written(gateway.logs()).saturating_sub(log);
        table.put(
            Row::new(
                &format!("inside-cost-{name}"),
                &format!("{what}, {RATE}/s: processor per 100k packets"),
                outcome.cost(calm),
                "s",
            )
            .detail(format!(
                "{} sent; resident memory +{gained:.1} MB; {} kB of log, the honest knocks' with it",
                outcome.sent,
                logged / 1_000
            )),
        );
        table.put(outcome.honest_row(&format!("inside-honest-{name}")));
        table.put(
            Row::new(
                &format!("inside-memory-{name}"),
                "  resident memory gained",
                gained,
                "MB",
            )
            .within(Budget::Most(1.0)),
        );
    }
    Ok(())
}

/// Bytes of all files of a folder.
fn written(folder: &Path) -> u64 {
    let Ok(files) = fs::read_dir(folder) else {
        return 0;
    };
    files
        .flatten()
        .filter_map(|file| Some(file.metadata().ok()?.len()))
        .sum()
}
