//! An attacker inside the fence: with a key of his own and the wrong password or the right one, or with a tag he captured. What his
//! flood costs, whether others notice, how much of it gets past the buckets, and what it leaves behind in memory and log.

use std::fs;
use std::path::Path;

use spa_gateway_core::Refusal;
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
/// What the bucket of one credential lets through at once, and one more in so many seconds (SPEC §8 step 4).
const BURST: f64 = 6.0;
const ONE_MORE: f64 = 2.0;
/// How much a flood may add to the log, kB.
const LOG: f64 = 64.0;

/// A bucket fills while a flood settles, too, seconds.
const SETTLES: usize = 3;

/// Measures it.
#[expect(clippy::cast_precision_loss, reason = "some thousands")]
pub fn measure(pass: Pass, table: &mut Table) -> anyhow::Result<()> {
    // 100,000 packets of each kind, or a million.
    let lasts = pass.of(5, 50);
    let town = Town::build()?;
    hush(&town.stranger)?;
    let mut gateway = Gateway::init(&town)?;
    let mut fleet = Fleet::enlist(&gateway, 6 * (lasts * 10 + 10) + 1, "1h")?;
    gateway.start()?;
    let notices = Notices::listen(&town.gateway)?;
    let none = Junk::Payloads(vec![[0; 512]]);
    let log = written(gateway.logs());
    let calm = flood(&town, &gateway, &notices, &mut fleet, &none, 0, lasts)?.processor;
    let calm_log = written(gateway.logs()).saturating_sub(log);
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
        (
            "eager",
            "a device of ours, all of it right",
            Dishonest::Eager,
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
        let refused = past_buckets(&gateway)?;
        let outcome = flood(&town, &gateway, &notices, &mut fleet, &junk, RATE, lasts)?;
        let gained = process::mb_gained(memory, process::gateway_memory(&gateway)?);
        let past = past_buckets(&gateway)? - refused + outcome.other_doors;
        let logged = written(gateway.logs()).saturating_sub(log);
        table.put(
            Row::new(
                &format!("inside-cost-{name}"),
                &format!("{what}, {RATE}/s: processor per 100k packets"),
                outcome.cost(calm),
                "s",
            )
            .detail(format!("{} sent", outcome.sent)),
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
        table.put(
            Row::new(
                &format!("inside-past-buckets-{name}"),
                "  of them to a public key, past the buckets",
                past as f64,
                "packets",
            )
            .within(Budget::Most(BURST + (lasts + SETTLES) as f64 / ONE_MORE)),
        );
        table.put(
            Row::new(
                &format!("inside-log-{name}"),
                "  log, beyond that of the honest knocks",
                logged.saturating_sub(calm_log) as f64 / 1e3,
                "kB",
            )
            .within(Budget::Most(LOG)),
        );
    }
    Ok(())
}

/// How many packets were refused at step 6 of SPEC §8 or behind it: a public key was used for each.
fn past_buckets(gateway: &Gateway) -> anyhow::Result<usize> {
    let status = gateway.ask_json(&["status"])?;
    let late = Refusal::ALL.iter().filter(|refusal| refusal.step() >= 6);
    let counts = late.filter_map(|refusal| status["refusals"][refusal.name()].as_u64());
    Ok(usize::try_from(counts.sum::<u64>())?)
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
