//! One knock on an idle gateway: from the moment it is sent to the moment its door is in the kernel, and to its reply, beside
//! one sync of this disk. Each session is closed before the next knock.

use std::net::UdpSocket;
use std::time::{Duration, Instant};

use anyhow::Context;
use spa_tests::gateway::Gateway;
use spa_tests::topology::Town;

use crate::Pass;
use crate::disk::Disk;
use crate::figures::Figures;
use crate::fleet::{Fleet, hush};
use crate::notices::{Change, Notices};
use crate::pictures::PERCENTILES;
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
    let mut replies = Vec::new();
    let mut syncs = Vec::new();
    let mut lost = 0;
    town.stranger.run(|| {
        for _ in 0..count {
            let knock = fleet.knocks(1)?.remove(0);
            let socket = UdpSocket::bind(knock.door)?;
            socket.connect(knock.packet.destination)?;
            socket.set_read_timeout(Some(PATIENCE))?;
            let mut reply = [0; 512];
            let sent = Instant::now();
            socket.send(&knock.packet.payload)?;
            if socket.recv(&mut reply).is_err() {
                lost += 1;
                continue;
            }
            replies.push(sent.elapsed());
            let is_it = |change: &Change| change.door() == Some(knock.door);
            let at = notices.wait_for("the door of an answered knock", PATIENCE, is_it)?;
            times.push(at.duration_since(sent));
            notices.take()?;
            socket.send(&fleet.closing(&knock, &reply)?)?;
            socket.recv(&mut reply).context("closing")?;
            syncs.push(disk.sync()?);
        }
        anyhow::Ok(())
    })??;
    let [doors, replies, syncs] = [times, replies, syncs].map(Figures::of_times);
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
    // How they spread, for the picture.
    for percent in PERCENTILES
        .into_iter()
        .filter(|percent| ![50, 99].contains(percent))
    {
        table.put(Row::new(
            &format!("knock-to-door-p{percent}"),
            &format!("  p{percent}"),
            doors.at(f64::from(percent) / 100.0),
            "ms",
        ));
    }
    table.put(
        Row::new(
            "fsync-p50",
            "  of it: one sync of this disk, p50",
            syncs.median(),
            "ms",
        )
        .detail(format!("p99 {:.2}", syncs.p99())),
    );
    table.put(
        Row::new(
            "knock-to-reply-p50",
            "  knock → reply at the client, p50",
            replies.median(),
            "ms",
        )
        .detail(format!("p99 {:.2}", replies.p99())),
    );
    Ok(())
}
