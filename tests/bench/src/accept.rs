//! One knock on an idle gateway: from the moment it is sent to the moment its door is in the kernel, beside one sync of this disk.

use std::time::{Duration, Instant};

use spa_tests::gateway::Gateway;
use spa_tests::topology::Town;
use spa_tests::wire::Sender;

use crate::Pass;
use crate::disk::Disk;
use crate::figures::Figures;
use crate::fleet::{Fleet, hush};
use crate::notices::{Change, Notices};
use crate::table::{Budget, Row, Table};

/// How long a door may take before the knock counts as lost.
const PATIENCE: Duration = Duration::from_secs(2);

/// Measures it.
pub fn measure(pass: Pass, table: &mut Table) -> anyhow::Result<()> {
    let count = pass.of(200, 1000);
    let town = Town::build()?;
    hush(&town.stranger)?;
    let mut gateway = Gateway::init(&town)?;
    let mut fleet = Fleet::enlist(&gateway, count, "1h")?;
    gateway.start()?;
    let mut disk = Disk::open(gateway.folder())?;
    let notices = Notices::listen(&town.gateway)?;
    let mut times = Vec::new();
    let mut syncs = Vec::new();
    let mut lost = 0;
    town.stranger.run(|| {
        let sender = Sender::open()?;
        for _ in 0..count {
            let knock = fleet.knocks(1)?.remove(0);
            let sent = Instant::now();
            sender.send(&knock.packet)?;
            let is_it = |change: &Change| change.door() == Some(knock.door);
            match notices.wait_for("a door", PATIENCE, is_it) {
                Ok(at) => times.push(at.duration_since(sent)),
                Err(_) => lost += 1,
            }
            notices.take()?;
            syncs.push(disk.sync()?);
        }
        anyhow::Ok(())
    })??;
    let (doors, syncs) = (Figures::of_times(times), Figures::of_times(syncs));
    let what = "knock on the wire → door in the kernel";
    table.put(
        Row::new(
            "knock-to-door-p50",
            &format!("{what}, p50"),
            doors.median(),
            "ms",
        )
        .within(Budget::Most(1.0))
        .detail(format!("{}, {lost} lost", doors.spread())),
    );
    table.put(
        Row::new(
            "knock-to-door-p99",
            &format!("{what}, p99"),
            doors.p99(),
            "ms",
        )
        .within(Budget::Most(5.0)),
    );
    table.put(
        Row::new(
            "fsync-p50",
            "  of it: one sync of this disk, p50",
            syncs.median(),
            "ms",
        )
        .detail(format!("p99 {:.2}", syncs.p99())),
    );
    Ok(())
}
