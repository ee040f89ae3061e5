//! Ten thousand devices: how soon a gateway with them starts, what their sessions weigh, what a packet costs among them, and what a
//! knock leaves on the disk.

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::Context;
use spa_tests::gateway::Gateway;
use spa_tests::topology::{SERVER, Town};
use spa_tests::wait::wait_until;
use toml_edit::value;

use crate::Pass;
use crate::fleet::{Fleet, hush};
use crate::machine::{self, IPERF};
use crate::notices::{Change, Notices};
use crate::start::memory_rows;
use crate::sustained::send_at;
use crate::table::{Budget, Row, Table};
use crate::throughput::iperf;

/// How many.
const SESSIONS: usize = 10_000;
/// How fast they knock: well below what is sustained.
const RATE: usize = 800;
/// How long the last of them may take.
const PATIENCE: Duration = Duration::from_secs(20);

/// Measures it.
pub fn measure(pass: Pass, table: &mut Table) -> anyhow::Result<()> {
    let (sessions, seconds) = match pass {
        Pass::Quick => (SESSIONS / 4, 2),
        Pass::Full => (SESSIONS, 4),
    };
    let town = Town::build()?;
    hush(&town.stranger)?;
    let mut gateway = Gateway::init(&town)?;
    gateway.configure(|config| config["session"]["door"] = value("30s"))?;
    gateway.start()?;
    let machines = machine::enrol(&gateway, &town.client, 1)?;
    gateway.stop()?;
    let mut fleet = Fleet::enlist(&gateway, sessions, "2m")?;
    let fleets = fs::read_to_string(gateway.policy())?;
    gateway.write_policy(&with_machine(&fleets))?;
    let begun = Instant::now();
    gateway.start()?;
    table.put(Row::new(
        "start-10000",
        &format!("start of a gateway with {sessions} credentials → it listens"),
        begun.elapsed().as_secs_f64() * 1e3,
        "ms",
    ));
    memory_rows(&gateway, &format!("{sessions} devices"), None, table)?;
    let machine = machines.first().context("one was enrolled")?;
    machine.space().run(|| machine.knock(&["iperf"]))??;
    let alone = iperf(&town, seconds)?;
    let before = stored(gateway.folder());
    let notices = Notices::listen(&town.gateway)?;
    let knocks = fleet.knocks(sessions)?;
    send_at(&town.stranger, &knocks, RATE)?;
    let is_door = |change: &Change| change.door().is_some();
    wait_until("every door", PATIENCE, || {
        (notices.count(is_door) >= sessions).then_some(())
    })
    .with_context(|| format!("{} doors", notices.count(is_door)))?;
    let grown = stored(gateway.folder()).saturating_sub(before);
    drop(notices);
    let among = iperf(&town, seconds)?;
    let live = gateway.sessions()?.len();
    memory_rows(&gateway, &format!("{sessions} sessions"), None, table)?;
    table.put(
        Row::new(
            "packet-cost-10000",
            &format!("throughput among {sessions} sessions against alone"),
            (among[0] + among[1]) / (alone[0] + alone[1]),
            "×",
        )
        .within(Budget::Least(0.95))
        .detail(format!(
            "up {:.0} and {:.0}, down {:.0} and {:.0} Mbit/s; {live} live",
            alone[0], among[0], alone[1], among[1]
        )),
    );
    #[expect(clippy::cast_precision_loss, reason = "some millions")]
    let each = grown as f64 / sessions as f64;
    table.put(Row::new(
        "store-growth",
        "the store grows by, for each knock that opens a session",
        each,
        "bytes",
    ));
    machine.close()
}

/// What the one machine with a tunnel may, beside what the fleet may.
fn with_machine(fleets: &str) -> String {
    let resource = format!("iperf = {{ to = \"{SERVER}\", ports = [\"{IPERF}/tcp\"] }}");
    let both = fleets
        .replacen("[group]\n", "[group]\nbots = [\"bot0\"]\n", 1)
        .replacen("[resource]\n", &format!("[resource]\n{resource}\n"), 1);
    both + "\n[[allow]]\nname = \"bots\"\nwho = [\"group:bots\"]\nto = [\"iperf\"]\nfor = \"1h\"\n"
}

/// Bytes of the store and its log.
fn stored(folder: &Path) -> u64 {
    let Ok(files) = fs::read_dir(folder) else {
        return 0;
    };
    files
        .flatten()
        .map(|file| match file.metadata() {
            Ok(metadata) if metadata.is_dir() => stored(&file.path()),
            Ok(metadata) => metadata.len(),
            Err(_) => 0,
        })
        .sum()
}
