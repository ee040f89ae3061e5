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
use crate::figures::Figures;
use crate::fleet::{Fleet, hush};
use crate::machine::{self, IPERF, Machine};
use crate::notices::{Change, Notices};
use crate::process;
use crate::start::memory_rows;
use crate::sustained::send_at;
use crate::table::{Budget, Row, Table};
use crate::throughput::{Direction, iperf};

/// How many.
const SESSIONS: usize = 10_000;
/// How fast they knock: below what is sustained.
const RATE: usize = 1_400;
/// How long the last of them may take, and how long until all are gone again.
const PATIENCE: Duration = Duration::from_secs(20);
/// Each direction of one measurement, seconds: all of a round lie within the time that doors wait, since nobody of the crowd comes.
const EACH: usize = 2;

/// A gateway with one machine that may reach the server of iperf, in a town of its own.
struct Lone {
    machine: Machine,
    _gateway: Gateway,
    town: Town,
}

/// Measures it.
pub fn measure(pass: Pass, table: &mut Table) -> anyhow::Result<()> {
    let (sessions, rounds) = match pass {
        Pass::Quick => (SESSIONS / 4, 1),
        Pass::Full => (SESSIONS, 6),
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
    let alone = Lone::build()?;
    let before = stored(gateway.folder());
    let mut shares = Vec::new();
    let mut rates = Vec::new();
    let mut idle = Vec::new();
    let mut ends = Vec::new();
    for round in 0..rounds {
        fill(&town, &gateway, &mut fleet, sessions)?;
        if round == 0 {
            #[expect(clippy::cast_precision_loss, reason = "some millions")]
            let each = stored(gateway.folder()).saturating_sub(before) as f64 / sessions as f64;
            table.put(Row::new(
                "store-growth",
                "the store grows by, for each knock that opens a session",
                each,
                "bytes",
            ));
            memory_rows(&gateway, &format!("{sessions} sessions"), None, table)?;
        }
        let [without, among] = both(&alone, &town, &gateway, round % 2 == 1, &mut idle)?;
        let live = gateway.sessions()?.len();
        anyhow::ensure!(live == sessions + 1, "{live} sessions after measuring");
        shares.push((among[0] + among[1]) / (without[0] + without[1]));
        rates.push([without, among]);
        ends.push(end_all(&gateway)?);
    }
    let shares = Figures::new(shares);
    let median = |which: usize, direction: usize| {
        Figures::new(rates.iter().map(|rate| rate[which][direction]).collect()).median()
    };
    table.put(
        Row::new(
            "packet-cost-10000",
            &format!("throughput among {sessions} sessions against alone"),
            shares.median(),
            "×",
        )
        .within(Budget::Least(0.95))
        .detail(format!(
            "{}; up {:.0} and {:.0}, down {:.0} and {:.0} Mbit/s; a crowd that is idle takes {:.3} s of processor in a second",
            shares.spread(),
            median(0, 0),
            median(1, 0),
            median(0, 1),
            median(1, 1),
            Figures::new(idle).median(),
        )),
    );
    for (at, (name, what)) in [
        (
            "cut-10000",
            format!(
                "{sessions} sessions cut together → no opening of theirs is left in the kernel"
            ),
        ),
        (
            "cut-10000-confirmed",
            "  and the gateway has confirmed every one, peers too".to_owned(),
        ),
    ]
    .into_iter()
    .enumerate()
    {
        let all = Figures::of_times(ends.iter().map(|end: &[Duration; 2]| end[at]));
        table.put(Row::new(name, &what, all.median() / 1e3, "s"));
    }
    alone.machine.close()?;
    machine.close()
}

impl Lone {
    fn build() -> anyhow::Result<Self> {
        let town = Town::build()?;
        let gateway = Gateway::running(&town)?;
        let machine = machine::enrol(&gateway, &town.client, 1)?.remove(0);
        machine.space().run(|| machine.knock(&["iperf"]))??;
        Ok(Self {
            machine,
            _gateway: gateway,
            town,
        })
    }
}

/// Lets all of the fleet knock, and waits until each has its door.
fn fill(town: &Town, gateway: &Gateway, fleet: &mut Fleet, sessions: usize) -> anyhow::Result<()> {
    let notices = Notices::listen(&town.gateway)?;
    fleet.rewind();
    let knocks = fleet.knocks(sessions)?;
    send_at(&town.stranger, &knocks, RATE)?;
    let is_door = |change: &Change| change.door().is_some();
    wait_until("every door", PATIENCE, || {
        (notices.count(is_door) >= sessions).then_some(())
    })
    .with_context(|| {
        format!(
            "{} doors, {} sessions",
            notices.count(is_door),
            gateway.sessions().map_or(0, |sessions| sessions.len())
        )
    })
}

/// Cuts the crowd's sessions; how long until nothing of them is open, as seen by dumping the table, and until every peer is gone.
fn end_all(gateway: &Gateway) -> anyhow::Result<[Duration; 2]> {
    let begun = Instant::now();
    std::thread::scope(|scope| {
        let cut = scope.spawn(|| gateway.ask(&["session", "cut", "resource:wiki"]));
        // The machine's own door and flows stay.
        let shut = wait_until("no opening of the crowd's is left", PATIENCE, || {
            (gateway.openings().ok()?.len() < 10).then(|| begun.elapsed())
        })?;
        cut.join().expect("it does not panic")?;
        let gone = wait_until("the crowd is gone", PATIENCE, || {
            (gateway.sessions().ok()?.len() == 1).then(|| begun.elapsed())
        })?;
        Ok([shut, gone])
    })
}

/// What goes through alone and among the crowd, up and down, one directly after the other: how fast this machine is changes by a
/// third within a minute, so what is far apart in time says nothing.
fn both(
    alone: &Lone,
    town: &Town,
    gateway: &Gateway,
    crowd_first: bool,
    idle: &mut Vec<f64>,
) -> anyhow::Result<[[f64; 2]; 2]> {
    let mut rates = [[0.0; 2]; 2];
    for direction in [Direction::Up, Direction::Down] {
        for among in [crowd_first, !crowd_first] {
            let used = process::all_time(gateway)?;
            let begun = Instant::now();
            let town = if among { town } else { &alone.town };
            rates[usize::from(among)][direction as usize] = iperf(town, direction, EACH)?;
            if !among {
                let used = process::all_time(gateway)?.saturating_sub(used);
                idle.push(used.as_secs_f64() / begun.elapsed().as_secs_f64());
            }
        }
    }
    Ok(rates)
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
