//! A thousand sessions: what they weigh, and how soon all are closed when they end in the same second.
//!
//! No peer of theirs ever shakes hands, so their doors wait as long as they may, 30 s; the sessions end before.

use std::time::Duration;

use anyhow::Context;
use spa_tests::gateway::Gateway;
use spa_tests::topology::Town;
use spa_tests::wait::{wait_until, watch};
use toml_edit::value;

use crate::Pass;
use crate::fleet::{Fleet, hush, now};
use crate::notices::{Change, Notices};
use crate::start::memory_rows;
use crate::sustained::send_at;
use crate::table::{Budget, Row, Table};

/// How many.
const SESSIONS: usize = 1_000;
/// How long they are.
const LENGTH: &str = "20s";
/// How long they may take to open, and how long to be gone.
const PATIENCE: Duration = Duration::from_secs(15);

/// Measures it.
pub fn measure(_: Pass, table: &mut Table) -> anyhow::Result<()> {
    let town = Town::build()?;
    hush(&town.stranger)?;
    let mut gateway = Gateway::init(&town)?;
    gateway.configure(|config| config["session"]["door"] = value("30s"))?;
    let mut fleet = Fleet::enlist(&gateway, SESSIONS, LENGTH)?;
    gateway.start()?;
    memory_rows(&gateway, "1000 devices", None, table)?;
    let notices = Notices::listen(&town.gateway)?;
    let knocks = fleet.knocks(SESSIONS)?;
    send_at(&town.stranger, &knocks, 1_500)?;
    let is_door = |change: &Change| change.door().is_some();
    wait_until("1000 doors", PATIENCE, || {
        (notices.count(is_door) >= SESSIONS).then_some(())
    })
    .with_context(|| format!("{} doors", notices.count(is_door)))?;
    drop(notices);
    let ends: Vec<u64> = gateway
        .sessions()?
        .iter()
        .filter_map(|session| session["not_after"].as_u64())
        .collect();
    let (first, last) = (ends.iter().min(), ends.iter().max());
    let (first, last) = first
        .zip(last)
        .context("no session is left before its end")?;
    // Some seconds in which nothing happens but the daemon's own looks at its peers.
    let _quiet = watch(Duration::from_secs(3), || None::<()>);
    memory_rows(&gateway, "1000 sessions", Some(16.0), table)?;
    let _until_just_before = watch(
        Duration::from_millis(last.saturating_sub(now().as_millis() + 50)),
        || None::<()>,
    );
    let openings = wait_until("no opening is left", PATIENCE, || {
        let left = gateway.openings().ok()?;
        left.is_empty().then(|| now().as_millis())
    })?;
    let known = wait_until(
        "the gateway knows of no session, peer or opening",
        PATIENCE,
        || {
            let sessions = gateway.sessions().ok()?;
            let nothing = sessions.is_empty() && gateway.counts().ok()? == [0; 3];
            nothing.then(|| now().as_millis())
        },
    )
    .with_context(|| {
        let left = gateway.sessions().map(|sessions| sessions.len());
        format!(
            "peers, doors, flows {:?}, sessions {left:?}",
            gateway.counts()
        )
    })?;
    let after = |at: u64| Duration::from_millis(at.saturating_sub(*last)).as_secs_f64();
    table.put(
        Row::new(
            "ending-1000",
            "1000 sessions end together → no opening is left in the kernel",
            after(openings),
            "s",
        )
        .within(Budget::Most(0.2))
        .detail(format!(
            "all end within {} ms; as seen by dumping the table",
            last - first
        )),
    );
    table.put(Row::new(
        "ending-1000-confirmed",
        "  and the gateway has confirmed every one, peers too",
        after(known),
        "s",
    ));
    Ok(())
}
