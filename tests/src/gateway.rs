//! A gateway of its own paths: set up by `spa-admin init`, run by `spa-gateway run`, asked through `spa-admin`.

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, bail};
use rustix::process::Signal;
use toml_edit::{DocumentMut, value};

use crate::net::Namespace;
use crate::program::{Ended, Program};
use crate::programs::Programs;
use crate::topology::{GATEWAY, PORT, Town, endpoint};
use crate::wait::wait_until;

/// How long a gateway may take to be ready, on a machine that compiles at the same time.
const READY: Duration = Duration::from_secs(20);
/// How long a command of an administrator may take.
const PATIENCE: Duration = Duration::from_secs(20);
/// The daemon's user: a number nobody has, because a test machine has no users of ours.
pub const USER: u32 = 64610;
/// The user of `spa-tunnel`.
pub const TUNNEL_USER: u32 = 64611;

/// What an administrator of the tests writes.
pub const POLICY: &str = r#"version = 1

[defaults]
for = "1h"

[group]
eng = ["ana", "bo"]

[resource]
wiki = { to = "10.0.5.10", ports = ["443/tcp"] }
db   = { to = "10.0.5.20", ports = ["5432/tcp"] }

[[allow]]
name = "eng-wiki"
who  = ["group:eng"]
to   = ["wiki"]

[[allow]]
name = "eng-db"
who  = ["group:eng"]
to   = ["db"]
"#;

/// One gateway.
#[derive(Debug)]
pub struct Gateway {
    space: Namespace,
    programs: Programs,
    logs: PathBuf,
    folder: PathBuf,
    config: PathBuf,
    daemon: Option<Program>,
}

impl Gateway {
    /// A gateway that is set up but does not run.
    ///
    /// # Errors
    /// When `spa-admin init` refuses.
    pub fn init(town: &Town) -> anyhow::Result<Self> {
        let gateway = Self::bare(town)?;
        gateway.run_init(&[])?.success()?;
        gateway.configure(|_| {})?;
        gateway.write_policy(POLICY)?;
        Ok(gateway)
    }

    /// A gateway before its `init`.
    ///
    /// # Errors
    /// When the programs are not built.
    pub fn bare(town: &Town) -> anyhow::Result<Self> {
        Self::bare_named(town, "gateway")
    }

    /// The same with a folder of another name, for a second one on the machine.
    ///
    /// # Errors
    /// When the programs are not built.
    pub fn bare_named(town: &Town, name: &str) -> anyhow::Result<Self> {
        let folder = town.folder.join(name);
        fs::create_dir_all(&folder)?;
        Ok(Self {
            space: town.gateway.clone(),
            programs: Programs::find()?.reachable(&town.folder)?,
            logs: town.logs.clone(),
            config: folder.join("gateway.toml"),
            folder,
            daemon: None,
        })
    }

    /// A gateway that runs, with people's names allowed by [`POLICY`] but nobody added.
    ///
    /// # Errors
    /// When it does not come up.
    pub fn running(town: &Town) -> anyhow::Result<Self> {
        let mut gateway = Self::init(town)?;
        gateway.start()?;
        Ok(gateway)
    }

    /// Runs `spa-admin init` with the flags of a test and more.
    ///
    /// # Errors
    /// When it does not end.
    pub fn run_init(&self, more: &[&str]) -> anyhow::Result<Ended> {
        self.finish("init", &mut self.init_command(more))
    }

    /// A command that runs `spa-admin init`, not over SSH.
    pub fn init_command(&self, more: &[&str]) -> Command {
        let public = endpoint(GATEWAY, PORT).to_string();
        let mut args = vec!["init", "--public", &public, "--yes"];
        args.extend(["--pool", "10.200.0.0/16", "--pool", "fd5a:1::/64"]);
        let (user, tunnel_user) = (USER.to_string(), TUNNEL_USER.to_string());
        args.extend(["--user", &user, "--tunnel-user", &tunnel_user]);
        if !more.contains(&"--interface") {
            args.extend(["--interface", "eth0"]);
        }
        args.extend(more);
        let mut command = self.admin_command(&args);
        // A test that runs over SSH is no gateway that is set up over SSH.
        command
            .env_remove("SSH_CONNECTION")
            .env_remove("SSH_CLIENT");
        command
    }

    /// Where its configuration is.
    pub fn config(&self) -> &Path {
        &self.config
    }

    /// The folder of everything that is its own.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// The programs it is made of.
    pub fn programs(&self) -> &Programs {
        &self.programs
    }

    /// Where its programs leave their words.
    pub fn logs(&self) -> &Path {
        &self.logs
    }

    /// The namespace it runs in.
    pub fn space(&self) -> &Namespace {
        &self.space
    }

    /// Gives the configuration what a test machine needs, a clock that is trusted, and what `change` says.
    ///
    /// # Errors
    /// When the file is not as `init` wrote it.
    pub fn configure(&self, change: impl FnOnce(&mut DocumentMut)) -> anyhow::Result<()> {
        let text = fs::read_to_string(&self.config).context("reading the configuration")?;
        let mut document: DocumentMut = text.parse().context("the configuration is TOML")?;
        document["clock"]["trust"] = value("always");
        change(&mut document);
        fs::write(&self.config, document.to_string()).context("writing the configuration")
    }

    /// Replaces the policy file, which a running gateway reads again by itself or when asked.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn write_policy(&self, policy: &str) -> anyhow::Result<()> {
        fs::write(self.policy(), policy).context("writing the policy")
    }

    /// Where the policy is.
    pub fn policy(&self) -> PathBuf {
        self.folder.join("policy.toml")
    }

    /// Starts the daemon and waits until an administrator gets an answer.
    ///
    /// # Errors
    /// With its words when it ends, or does not answer in time.
    pub fn start(&mut self) -> anyhow::Result<()> {
        self.start_as(self.daemon_command())
    }

    /// The same, with all of its programs to stop at one point of `spa-failpoint`.
    ///
    /// # Errors
    /// As [`Self::start`].
    pub fn start_to_pause_at(&mut self, point: &str) -> anyhow::Result<()> {
        let mut command = self.daemon_command();
        command.env("SPA_PAUSE_AT", point);
        self.start_as(command)
    }

    /// The same, with a calendar clock that [`Self::shift_clock`] sets.
    ///
    /// # Errors
    /// As [`Self::start`].
    pub fn start_with_a_clock_of_its_own(&mut self) -> anyhow::Result<()> {
        let mut command = self.daemon_command();
        command.env("SPA_CLOCK_SHIFT", self.clock_shift());
        self.start_as(command)
    }

    /// Sets that clock to this many milliseconds from the machine's.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn shift_clock(&self, by: i64) -> anyhow::Result<()> {
        let beside = self.folder.join("clock-shift");
        fs::write(&beside, by.to_string())?;
        // In one step: the daemon reads it at any time.
        fs::rename(&beside, self.clock_shift()).context("setting the clock")
    }

    /// Among the state, which the daemon may still read when its sandbox is closed.
    fn clock_shift(&self) -> PathBuf {
        self.folder.join("state/clock-shift")
    }

    /// Starts the daemon towards a point that lies in its start; whoever calls waits for it.
    ///
    /// # Errors
    /// When it cannot be run.
    pub fn begin_start_to_pause_at(&mut self, point: &str) -> anyhow::Result<()> {
        let mut command = self.daemon_command();
        command.env("SPA_PAUSE_AT", point);
        self.daemon = Some(Program::start(&self.logs, "spa-gateway", &mut command)?);
        Ok(())
    }

    /// The same, with a log on a disk that is full.
    ///
    /// # Errors
    /// As [`Self::start`].
    pub fn start_with_a_full_log(&mut self) -> anyhow::Result<()> {
        let mut command = self.space.command("sh");
        command.args(["-c", "exec \"$0\" \"$@\" > /dev/full 2>&1"]);
        command.arg(self.programs.path("spa-gateway"));
        command.args(["run", "--config"]).arg(&self.config);
        self.start_as(command)
    }

    /// The same, where bpf(2) is refused, as in many containers: without the two capabilities it takes.
    ///
    /// # Errors
    /// As [`Self::start`].
    pub fn start_without_bpf(&mut self) -> anyhow::Result<()> {
        let plain = self.daemon_command();
        // Behind `ip netns exec`, which needs one of them itself.
        let mut words = plain.get_args().map(ToOwned::to_owned).collect::<Vec<_>>();
        let program = self.programs.path("spa-gateway").into_os_string();
        let at = words.iter().position(|word| *word == program);
        let at = at.context("a command that runs the daemon")?;
        let drop = ["setpriv", "--bounding-set", "-bpf,-sys_admin"];
        words.splice(at..at, drop.map(Into::into));
        let mut command = Command::new(plain.get_program());
        command.args(words);
        self.start_as(command)
    }

    fn start_as(&mut self, mut command: Command) -> anyhow::Result<()> {
        self.daemon = Some(Program::start(&self.logs, "spa-gateway", &mut command)?);
        let answered = wait_until("the gateway answers `spa-admin status`", READY, || {
            let daemon = self.daemon.as_mut().expect("started just above");
            if !daemon.is_running() {
                return Some(Err(daemon.said()));
            }
            let status = self.admin(&["status"]).ok()?;
            (status.code == 0).then_some(Ok(()))
        });
        match answered {
            Ok(Ok(())) => Ok(()),
            Ok(Err(words)) => bail!("the gateway ended: {words}"),
            Err(error) => Err(error.context(self.daemon().said())),
        }
    }

    /// Runs the daemon where it is expected to refuse, and gives its end.
    ///
    /// # Errors
    /// When it does not end by itself.
    pub fn start_and_end(&self) -> anyhow::Result<Ended> {
        self.finish("spa-gateway", &mut self.daemon_command())
    }

    /// Runs `spa-gateway close`, which makes the machine dark before there is a gateway.
    ///
    /// # Errors
    /// When it does not end.
    pub fn close(&self) -> anyhow::Result<Ended> {
        let mut command = self.space.command(self.programs.path("spa-gateway"));
        command.args(["close", "--config"]).arg(&self.config);
        self.finish("spa-gateway-close", &mut command)
    }

    /// Runs `spa-gateway clear`, which takes away what gateways made in the kernel.
    ///
    /// # Errors
    /// When it does not end.
    pub fn clear(&self) -> anyhow::Result<Ended> {
        let mut command = self.space.command(self.programs.path("spa-gateway"));
        command.args(["clear", "--config"]).arg(&self.config);
        self.finish("spa-gateway-clear", &mut command)
    }

    /// A command that runs the daemon.
    pub fn daemon_command(&self) -> Command {
        let mut command = self.space.command(self.programs.path("spa-gateway"));
        command.args(["run", "--config"]).arg(&self.config);
        command
    }

    /// The running daemon.
    ///
    /// # Panics
    /// When it was not started.
    pub fn daemon(&mut self) -> &mut Program {
        self.daemon.as_mut().expect("the gateway was started")
    }

    /// Stops the daemon as systemd does, and gives its end.
    ///
    /// # Errors
    /// When it does not end.
    pub fn stop(&mut self) -> anyhow::Result<Ended> {
        let ended = self.end(Signal::TERM)?;
        anyhow::ensure!(
            self.process("spa-enforcer").is_none(),
            "the daemon ended before its enforcer"
        );
        Ok(ended)
    }

    /// Kills the daemon without warning, and waits until its children have gone too.
    ///
    /// # Errors
    /// When something of it stays.
    pub fn kill(&mut self) -> anyhow::Result<Ended> {
        let ended = self.end(Signal::KILL)?;
        wait_until("the daemon's children end", PATIENCE, || {
            self.process("spa-enforcer").is_none().then_some(())
        })?;
        Ok(ended)
    }

    fn end(&mut self, signal: Signal) -> anyhow::Result<Ended> {
        let daemon = self.daemon.take().context("the gateway was started")?;
        daemon.signal(signal);
        daemon.wait(PATIENCE)
    }

    /// Waits for the daemon to end by itself.
    ///
    /// # Errors
    /// When it does not.
    pub fn wait_for_end(&mut self, limit: Duration) -> anyhow::Result<Ended> {
        self.daemon
            .take()
            .context("the gateway was started")?
            .wait(limit)
    }

    /// The process of this name in the gateway's namespace.
    pub fn process(&self, name: &str) -> Option<u32> {
        self.space.processes().into_iter().find(|pid| {
            fs::read_to_string(format!("/proc/{pid}/comm")).is_ok_and(|comm| comm.trim() == name)
        })
    }

    /// Runs `spa-admin` to its end, whatever that is.
    ///
    /// # Errors
    /// When it does not end.
    pub fn admin(&self, args: &[&str]) -> anyhow::Result<Ended> {
        self.finish("spa-admin", &mut self.admin_command(args))
    }

    /// Runs `spa-admin` and gives what it printed.
    ///
    /// # Errors
    /// When it fails.
    pub fn ask(&self, args: &[&str]) -> anyhow::Result<String> {
        let ended = self.admin(args)?;
        Ok(ended
            .success()
            .with_context(|| format!("spa-admin {}", args.join(" ")))?
            .out)
    }

    /// Runs `spa-admin … --json` and gives what it printed.
    ///
    /// # Errors
    /// When it fails or prints no JSON.
    pub fn ask_json(&self, args: &[&str]) -> anyhow::Result<serde_json::Value> {
        let mut args = args.to_vec();
        args.push("--json");
        let out = self.ask(&args)?;
        serde_json::from_str(&out).with_context(|| format!("not JSON: {out}"))
    }

    /// A command that runs `spa-admin` for this gateway.
    pub fn admin_command(&self, args: &[&str]) -> Command {
        let mut command = self.space.command(self.programs.path("spa-admin"));
        command.arg("--config").arg(&self.config).args(args);
        command
    }

    fn finish(&self, name: &str, command: &mut Command) -> anyhow::Result<Ended> {
        Program::start(&self.logs, name, command)?.wait(PATIENCE)
    }

    /// Every opening and every conntrack entry of the tunnel's pool: what must be empty once all sessions have ended.
    ///
    /// # Errors
    /// When the tables cannot be read.
    pub fn remains(&self) -> anyhow::Result<Vec<String>> {
        let mut found = self.openings()?;
        for family in ["ipv4", "ipv6"] {
            let entries = self.space.output("conntrack", &["-L", "-f", family])?;
            found.extend(
                entries
                    .lines()
                    .filter(|entry| entry.contains("=10.200.") || entry.contains("=fd5a:1:"))
                    .map(|entry| format!("conntrack {entry}")),
            );
        }
        Ok(found)
    }

    /// Every element of whatever table that opens something. The keep-open set is the administrator's and no opening of ours.
    ///
    /// # Errors
    /// When the table cannot be read.
    pub fn openings(&self) -> anyhow::Result<Vec<String>> {
        let open = self.elements()?;
        Ok(open.into_iter().map(|(opening, _)| opening).collect())
    }

    /// How long the last of them still stays open if nobody does anything, by the kernel's own clock.
    ///
    /// # Errors
    /// When the table cannot be read.
    pub fn longest_opening(&self) -> anyhow::Result<Duration> {
        let open = self.elements()?;
        Ok(open
            .into_iter()
            .map(|(_, left)| left)
            .max()
            .unwrap_or_default())
    }

    fn elements(&self) -> anyhow::Result<Vec<(String, Duration)>> {
        let listing = self.space.output("nft", &["-j", "list", "ruleset"])?;
        let listing: serde_json::Value = serde_json::from_str(&listing)?;
        let mut found = Vec::new();
        for set in listing["nftables"].as_array().into_iter().flatten() {
            let set = &set["set"];
            for element in set["elem"].as_array().into_iter().flatten() {
                // Elements with a timeout are openings; a set of fixed ports has none.
                let element = &element["elem"];
                let timeout = element["timeout"].as_u64();
                // Seconds; one of which less than a second is left may show its timeout alone.
                if let Some(left) = element["expires"].as_u64().or(timeout) {
                    let opening = format!("{} {}", set["name"], element["val"]);
                    found.push((opening, Duration::from_secs(left)));
                }
            }
        }
        Ok(found)
    }

    /// The sessions it lists.
    ///
    /// # Errors
    /// When it does not answer.
    pub fn sessions(&self) -> anyhow::Result<Vec<serde_json::Value>> {
        let listing = self.ask_json(&["session", "list"])?;
        let sessions = listing
            .as_array()
            .or_else(|| listing["sessions"].as_array());
        sessions
            .cloned()
            .with_context(|| format!("no list of sessions: {listing}"))
    }

    /// The four words it shows for a device.
    ///
    /// # Errors
    /// When there is no such device, or it has none yet.
    pub fn words(&self, credential: &str) -> anyhow::Result<String> {
        let devices = self.ask_json(&["device", "list"])?;
        devices
            .as_array()
            .into_iter()
            .flatten()
            .find(|device| {
                let field = |name: &str| device[name].as_str().unwrap_or_default().to_owned();
                format!("{}/{}", field("user"), field("device")) == credential
            })
            .and_then(|device| device["words"].as_str())
            .map(str::to_owned)
            .with_context(|| format!("no words of {credential} in {devices}"))
    }

    /// How many peers, doors and flows it has.
    ///
    /// # Errors
    /// When it does not answer.
    pub fn counts(&self) -> anyhow::Result<[u64; 3]> {
        let status = self.ask_json(&["status"])?;
        let count = |name: &str| {
            status[name]
                .as_u64()
                .with_context(|| format!("no {name} in {status}"))
        };
        Ok([count("peers")?, count("doors")?, count("flows")?])
    }

    /// Where people knock.
    pub fn public(&self) -> SocketAddr {
        endpoint(GATEWAY, PORT)
    }
}
