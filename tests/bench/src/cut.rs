//! `session cut`, a lock and a policy that takes a resource away, each under a running stream: from the start of the
//! command to the last packet that reached the resource. A cut also while iperf3 fills the same session.

use std::net::UdpSocket;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use spa_tests::gateway::Gateway;
use spa_tests::program::Program;
use spa_tests::topology::{SERVER, Town, endpoint};
use spa_tests::wait::{wait_until, watch};
use spa_tests::wire::{Capture, Direction};

use crate::Pass;
use crate::figures::{Figures, ms};
use crate::machine::{self, BEAT, IPERF, Machine};
use crate::table::{Budget, Row, Table};

/// How many machines take turns.
const MACHINES: usize = 5;
/// How often the stream sends: five times as often as the budget.
const EVERY: Duration = Duration::from_micros(500);
/// A stream silent for this long is over.
const SILENT: Duration = Duration::from_millis(150);

/// Measures it.
pub fn measure(pass: Pass, table: &mut Table) -> anyhow::Result<()> {
    let town = Town::build()?;
    let gateway = Gateway::running(&town)?;
    let machines = machine::enrol(&gateway, &town.client, MACHINES)?;
    let arrivals = Arrivals::at(&town)?;
    let mut times = Vec::new();
    let mut told = Vec::new();
    for machine in machines.iter().cycle().take(pass.of(10, 50)) {
        machine.space().run(|| machine.knock(&["beat"]))??;
        let _beat = Beat::start(machine)?;
        let (last, took) = cut(&gateway, machine, &arrivals)?;
        times.push(last);
        told.push(took);
        machine.forget()?;
    }
    let (times, told) = (Figures::new(times), Figures::new(told));
    let what = "`spa-admin session cut` start → last packet of a running stream";
    table.put(
        Row::new(
            "cut-to-last-packet-p50",
            &format!("{what}, p50"),
            times.median(),
            "ms",
        )
        .within(Budget::Most(5.0))
        .detail(format!(
            "{}; it says itself {:.1}",
            times.spread(),
            told.median()
        )),
    );
    table.put(Row::new(
        "cut-to-last-packet-p99",
        &format!("{what}, p99"),
        times.p99(),
        "ms",
    ));
    under_iperf(pass, (&town, &gateway), &machines, table)?;
    for cause in CAUSES {
        let mut times = Vec::new();
        for machine in machines.iter().cycle().take(pass.of(6, 30)) {
            let filled =
                |words: [&str; 3]| words.map(|word| word.replace("MACHINE", &machine.name));
            let command = filled(cause.command);
            let words: Vec<&str> = command.iter().map(String::as_str).collect();
            machine.space().run(|| machine.knock(&["beat"]))??;
            let _beat = Beat::start(machine)?;
            times.push(last_packet(&gateway, &arrivals, &words)?.0);
            machine.forget()?;
            let back = filled(cause.back);
            let words: Vec<&str> = back
                .iter()
                .map(String::as_str)
                .filter(|word| !word.is_empty())
                .collect();
            gateway.ask(&words)?;
        }
        let times = Figures::new(times);
        table.put(
            Row::new(
                &format!("{}-to-last-packet-p99", cause.name),
                &format!("{} → last packet of a running stream, p99", cause.what),
                times.p99(),
                "ms",
            )
            .within(Budget::Most(100.0))
            .detail(times.spread()),
        );
    }
    Ok(())
}

/// The same where iperf3 sends as much as the tunnel takes, in the session that is cut.
fn under_iperf(
    pass: Pass,
    (town, gateway): (&Town, &Gateway),
    machines: &[Machine],
    table: &mut Table,
) -> anyhow::Result<()> {
    if Command::new("iperf3").arg("--version").output().is_err() {
        table.skip("`session cut` under iperf3: not installed (apt-get install iperf3)");
        return Ok(());
    }
    let (arrivals, _capture) = Arrivals::of_everything(town)?;
    let mut times = Vec::new();
    for machine in machines.iter().cycle().take(pass.of(12, 100)) {
        let _server = iperf(town, town.lan.command("iperf3"), &["-s", "-1"], "listening")?;
        machine.space().run(|| machine.knock(&["iperf"]))??;
        let client = machine.space().command("iperf3");
        let args = ["-c", SERVER, "-t", "60", "-i", "0.2"];
        let _client = iperf(town, client, &args, "bits/sec")?;
        times.push(cut(gateway, machine, &arrivals)?.0);
        machine.forget()?;
    }
    let times = Figures::new(times);
    for (which, value) in [("p50", times.median()), ("p99", times.p99())] {
        let what = format!("the same while iperf3 fills the session, {which}");
        let name = format!("cut-under-iperf3-{which}");
        table.put(Row::new(&name, &what, value, "ms").detail(times.spread()));
    }
    Ok(())
}

/// Starts one end of it and waits for its words.
fn iperf(town: &Town, mut command: Command, args: &[&str], words: &str) -> anyhow::Result<Program> {
    command
        .args(["--forceflush", "-p", &IPERF.to_string()])
        .args(args);
    let mut program = Program::start(&town.logs, "iperf3", &mut command)?;
    program.wait_for_words(words, Duration::from_secs(10))?;
    Ok(program)
}

/// Something that takes a resource away, and what gives it back.
struct Cause {
    name: &'static str,
    what: &'static str,
    command: [&'static str; 3],
    back: [&'static str; 3],
}

const CAUSES: [Cause; 2] = [
    Cause {
        name: "lock",
        what: "`spa-admin lock` start",
        command: ["lock", "user:MACHINE", "--json"],
        back: ["unlock", "user:MACHINE", ""],
    },
    Cause {
        name: "policy",
        what: "`spa-admin disallow`, which writes the policy and has it read, start",
        command: ["disallow", "bots", "beat"],
        back: ["allow", "bots", "beat"],
    },
];

/// Milliseconds to the last packet, and what the command says it took.
fn cut(gateway: &Gateway, machine: &Machine, arrivals: &Arrivals) -> anyhow::Result<(f64, f64)> {
    let command = ["session", "cut", &machine.name, "--json"];
    let (last, said) = last_packet(gateway, arrivals, &command)?;
    let said: serde_json::Value =
        serde_json::from_slice(&said).context("what the cut says is JSON")?;
    let took = said["took_ms"].as_f64();
    Ok((last, took.context("it says how long it took")?))
}

/// Milliseconds from the start of a command of `spa-admin` to the last packet, and what the command says.
fn last_packet(
    gateway: &Gateway,
    arrivals: &Arrivals,
    command: &[&str],
) -> anyhow::Result<(f64, Vec<u8>)> {
    arrivals.forget();
    wait_until("the stream flows", Duration::from_secs(5), || {
        (arrivals.seen().0 > 100).then_some(())
    })?;
    let begun = Instant::now();
    let output = Command::new(gateway.programs().path("spa-admin"))
        .arg("--config")
        .arg(gateway.config())
        .args(command)
        .stdin(Stdio::null())
        .output()?;
    if !output.status.success() {
        bail!(
            "spa-admin {}: {}",
            command.join(" "),
            String::from_utf8_lossy(&output.stderr)
        );
    }
    let last = wait_until("the stream ends", Duration::from_secs(5), || {
        let (_, last) = arrivals.seen();
        (last.elapsed() >= SILENT).then_some(last)
    })?;
    Ok((ms(last.saturating_duration_since(begun)), output.stdout))
}

/// What arrives at the resource.
struct Arrivals(Arc<Mutex<(u64, Instant)>>);

impl Arrivals {
    fn at(town: &Town) -> anyhow::Result<Self> {
        let socket = town.lan.run(|| UdpSocket::bind(endpoint(SERVER, BEAT)))??;
        let seen = Arc::new(Mutex::new((0, Instant::now())));
        let theirs = Arc::downgrade(&seen);
        socket.set_read_timeout(Some(SILENT))?;
        std::thread::spawn(move || {
            while let Some(seen) = theirs.upgrade() {
                if socket.recv(&mut [0; 64]).is_ok() {
                    let mut seen = seen.lock().expect("no holder panics");
                    *seen = (seen.0 + 1, Instant::now());
                }
            }
        });
        Ok(Self(seen))
    }

    /// What comes out of the tunnels for the resources, whatever it is: a stream too fast for a socket of its own.
    fn of_everything(town: &Town) -> anyhow::Result<(Self, Capture)> {
        let seen = Arc::new(Mutex::new((0, Instant::now())));
        let theirs = Arc::clone(&seen);
        let count = move |_: &[u8]| {
            let mut seen = theirs.lock().expect("no holder panics");
            *seen = (seen.0 + 1, Instant::now());
        };
        let capture = Capture::start(&town.lan, "eth0", Direction::Incoming, count)?;
        Ok((Self(seen), capture))
    }

    fn seen(&self) -> (u64, Instant) {
        *self.0.lock().expect("no holder panics")
    }

    fn forget(&self) {
        self.0.lock().expect("no holder panics").0 = 0;
    }
}

/// A stream of small packets to the resource, until it is dropped.
struct Beat(Arc<AtomicBool>);

impl Beat {
    fn start(machine: &Machine) -> anyhow::Result<Self> {
        let socket = machine.space().run(|| UdpSocket::bind("0.0.0.0:0"))??;
        let stop = Arc::new(AtomicBool::new(false));
        let theirs = Arc::clone(&stop);
        std::thread::spawn(move || {
            while !theirs.load(Ordering::Acquire) {
                // Refused once the session is over.
                let _still_sending = socket.send_to(b"beat", endpoint(SERVER, BEAT));
                let _nothing_to_see = watch(EVERY, || None::<()>);
            }
        });
        Ok(Self(stop))
    }
}

impl Drop for Beat {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Release);
    }
}
