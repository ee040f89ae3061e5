//! How much the embedded WireGuard carries, beside wireguard-go and boringtun between the same two namespaces.

use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::Context;
use spa_tests::gateway::Gateway;
use spa_tests::net::{Namespace, run};
use spa_tests::program::Program;
use spa_tests::topology::{GATEWAY, SERVER, Town, address};
use spa_tests::wait::wait_until;

use crate::Pass;
use crate::machine::{self, IPERF};
use crate::table::{Row, Table};

/// How long a program may take to be there.
const READY: Duration = Duration::from_secs(10);
/// The port of the others.
const PORT: u16 = 51_821;

/// Another WireGuard in user space.
struct Other {
    program: &'static str,
    /// In the foreground, as the same user: nothing of it outlives a run.
    args: &'static [&'static str],
    remedy: &'static str,
}

const WIREGUARD_GO: Other = Other {
    program: "wireguard-go",
    args: &["--foreground"],
    remedy: "apt-get install wireguard-go",
};
const BORINGTUN: Other = Other {
    program: "boringtun-cli",
    args: &["--foreground", "--disable-drop-privileges"],
    remedy: "cargo install boringtun-cli",
};

/// Measures it.
pub fn measure(pass: Pass, table: &mut Table) -> anyhow::Result<()> {
    let seconds = pass.of(3, 20);
    let ours = ours(seconds)?;
    let mut theirs = Vec::new();
    for other in [WIREGUARD_GO, BORINGTUN] {
        if other.is_installed() {
            theirs.push((other.program, other.rates(seconds)?));
        } else {
            let (program, remedy) = (other.program, other.remedy);
            table.skip(&format!("{program}: not installed ({remedy})"));
        }
    }
    for (at, (name, what)) in [
        (
            "throughput-up",
            "TCP through the tunnel, client to resource",
        ),
        ("throughput-down", "  resource to client"),
    ]
    .into_iter()
    .enumerate()
    {
        let row = Row::new(name, what, ours.rates[at], "Mbit/s").detail(ours.backend.clone());
        let mut others = theirs.iter();
        table.put(match others.next() {
            Some((program, theirs)) => row.beside(program, theirs[at]),
            None => row,
        });
        // A row has room for one.
        for (program, theirs) in others {
            let (name, what) = (format!("{name}-{program}"), format!("{what}, again"));
            let row = Row::new(&name, &what, ours.rates[at], "Mbit/s");
            table.put(row.beside(program, theirs[at]));
        }
    }
    Ok(())
}

struct Ours {
    backend: String,
    rates: [f64; 2],
}

fn ours(seconds: usize) -> anyhow::Result<Ours> {
    let town = Town::build()?;
    let gateway = Gateway::running(&town)?;
    let machines = machine::enrol(&gateway, &town.client, 1)?;
    let backend = gateway.ask_json(&["status"])?["wireguard"]
        .as_str()
        .unwrap_or("unknown")
        .to_owned();
    let machine = machines.first().context("one was enrolled")?;
    machine.space().run(|| machine.knock(&["iperf"]))??;
    let rates = both_ways(&town, seconds)?;
    machine.close()?;
    Ok(Ours {
        backend: format!("{backend} WireGuard at both ends"),
        rates,
    })
}

impl Other {
    fn is_installed(&self) -> bool {
        let mut command = Command::new(self.program);
        let command = command.arg("--version").stdin(Stdio::null());
        let silent = command.stdout(Stdio::null()).stderr(Stdio::null());
        silent.status().is_ok()
    }

    /// Two processes of it, configured by `wg`, in a town of their own; what they carry, as [`both_ways`] gives it.
    fn rates(&self, seconds: usize) -> anyhow::Result<[f64; 2]> {
        let town = Town::build()?;
        let number = std::process::id();
        let (there, here) = (format!("wgg{number}"), format!("wgc{number}"));
        let keys = [
            Key::make(&town.folder, "gateway")?,
            Key::make(&town.folder, "client")?,
        ];
        let [gateway, client] = &keys;
        let _running = [
            self.start(&town, &town.gateway, &there)?,
            self.start(&town, &town.client, &here)?,
        ];
        let port = PORT.to_string();
        set(
            &town.gateway,
            &there,
            &[
                "private-key",
                &gateway.file,
                "listen-port",
                &port,
                "peer",
                &client.public,
                "allowed-ips",
                "10.9.0.2/32",
            ],
        )?;
        let endpoint = format!("{GATEWAY}:{port}");
        set(
            &town.client,
            &here,
            &[
                "private-key",
                &client.file,
                "peer",
                &gateway.public,
                "endpoint",
                &endpoint,
                "allowed-ips",
                "0.0.0.0/0",
            ],
        )?;
        town.gateway.ip(&format!(
            "address add 10.9.0.1/24 dev {there}\nlink set {there} mtu 1420 up"
        ))?;
        town.client.ip(&format!("address add 10.9.0.2/24 dev {here}\nlink set {here} mtu 1420 up\nroute add {SERVER}/32 dev {here}"))?;
        town.lan.ip("route replace 10.9.0.0/24 via 10.0.5.1")?;
        both_ways(&town, seconds)
    }

    fn start(&self, town: &Town, space: &Namespace, interface: &str) -> anyhow::Result<Program> {
        let mut command = space.command(self.program);
        command
            .args(self.args)
            .arg(interface)
            .env("WG_I_PREFER_BUGGY_USERSPACE_TO_POLISHED_KMOD", "1");
        let program = Program::start(&town.logs, interface, &mut command)?;
        wait_until(&format!("{} is ready", self.program), READY, || {
            space.output("wg", &["show", interface]).ok()
        })?;
        Ok(program)
    }
}

struct Key {
    file: String,
    public: String,
}

impl Key {
    fn make(folder: &Path, name: &str) -> anyhow::Result<Self> {
        let file = folder.join(format!("{name}.key"));
        std::fs::write(&file, run(Command::new("wg").arg("genkey"))?)?;
        let mut command = Command::new("sh");
        let public = run(command.args(["-c", "wg pubkey < \"$1\"", "sh"]).arg(&file))?;
        Ok(Self {
            file: file.to_string_lossy().into_owned(),
            public: public.trim().to_owned(),
        })
    }
}

fn set(space: &Namespace, interface: &str, what: &[&str]) -> anyhow::Result<()> {
    let mut args = vec!["set", interface];
    args.extend(what);
    space.output("wg", &args).map(drop)
}

/// Which way packets go.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Direction {
    /// From the client to the LAN.
    Up,
    /// And back.
    Down,
}

/// Mbit/s from the client to the LAN, and back.
fn both_ways(town: &Town, seconds: usize) -> anyhow::Result<[f64; 2]> {
    Ok([
        iperf(town, Direction::Up, seconds)?,
        iperf(town, Direction::Down, seconds)?,
    ])
}

/// Mbit/s through the tunnel of the town's client, after a second that does not count.
pub fn iperf(town: &Town, direction: Direction, seconds: usize) -> anyhow::Result<f64> {
    let port = IPERF.to_string();
    // A server for each: one that has just ended a test may still refuse the next.
    let mut server = town.lan.command("iperf3");
    server.args([
        "--forceflush",
        "-1",
        "-s",
        "-B",
        &address(SERVER).to_string(),
        "-p",
        &port,
    ]);
    let mut server = Program::start(&town.logs, "iperf3", &mut server)?;
    server.wait_for_words("Server listening", READY)?;
    let mut client = town.client.command("iperf3");
    client.args([
        "-J",
        "-c",
        SERVER,
        "-p",
        &port,
        "-O",
        "1",
        "-t",
        &seconds.to_string(),
    ]);
    client.args((direction == Direction::Down).then_some("-R"));
    let said = client.output().context("running iperf3")?;
    // It says what went wrong in its JSON, too.
    let said: serde_json::Value = serde_json::from_slice(&said.stdout)
        .with_context(|| format!("iperf3: {}", String::from_utf8_lossy(&said.stderr)))?;
    if let Some(error) = said["error"].as_str() {
        anyhow::bail!("iperf3: {error}");
    }
    let bits = &said["end"]["sum_received"]["bits_per_second"];
    Ok(bits.as_f64().context("iperf3 says how much arrived")? / 1e6)
}
