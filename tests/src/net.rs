//! Network namespaces: made for one test, entered by a thread, gone with everything that runs in them when dropped.
//!
//! Names carry the process id of the run that made them, so that a later run can sweep what a killed one left behind.

use std::fs;
use std::io::Write;
use std::os::fd::AsFd;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};

use anyhow::{Context, bail};
use rustix::process::{Pid, Signal, kill_process};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

/// What every namespace of this harness is called first.
const PREFIX: &str = "e2e";
/// Where `ip netns` keeps its handles.
const HANDLES: &str = "/run/netns";

static LABS: AtomicU32 = AtomicU32::new(0);

/// A handle on one namespace. Cloning copies the name; the [`Lab`] owns the thing.
#[derive(Clone, Debug)]
pub struct Namespace {
    name: String,
}

/// The namespaces of one test. Dropping it ends every process inside and removes them.
#[derive(Debug)]
pub struct Lab {
    prefix: String,
    namespaces: Vec<Namespace>,
}

impl Lab {
    /// Starts an empty lab and sweeps what dead runs left.
    ///
    /// # Errors
    /// When this process may not make namespaces.
    pub fn new() -> anyhow::Result<Self> {
        privileged()?;
        sweep();
        let number = LABS.fetch_add(1, Ordering::Relaxed);
        Ok(Self {
            prefix: format!("{PREFIX}{}-{number}", std::process::id()),
            namespaces: Vec::new(),
        })
    }

    /// Makes a namespace with loopback up, no duplicate address detection and no router solicitations (they would be noise on the wire).
    ///
    /// # Errors
    /// When `ip` refuses.
    pub fn namespace(&mut self, name: &str) -> anyhow::Result<Namespace> {
        let space = Namespace {
            name: format!("{}-{name}", self.prefix),
        };
        run(Command::new("ip").args(["netns", "add", &space.name]))?;
        self.namespaces.push(space.clone());
        space.sysctl("net/ipv6/conf/default/accept_dad", "0")?;
        space.sysctl("net/ipv6/conf/default/router_solicitations", "0")?;
        space.ip("link set lo up")?;
        Ok(space)
    }

    /// Joins two namespaces by a veth pair whose ends have the given names.
    ///
    /// # Errors
    /// When `ip` refuses.
    pub fn join(&self, left: (&Namespace, &str), right: (&Namespace, &str)) -> anyhow::Result<()> {
        left.0.ip(&format!(
            "link add {} type veth peer name {} netns {}\nlink set {} up",
            left.1, right.1, right.0.name, left.1
        ))?;
        right.0.ip(&format!("link set {} up", right.1))
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        for space in &self.namespaces {
            remove(&space.name);
        }
    }
}

impl Namespace {
    /// The name `ip netns` knows it by.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Runs `inside` on a thread that has entered the namespace, and gives back what it returns.
    ///
    /// # Errors
    /// When the namespace cannot be entered.
    pub fn run<T: Send>(&self, inside: impl FnOnce() -> T + Send) -> anyhow::Result<T> {
        std::thread::scope(|scope| {
            scope
                .spawn(|| {
                    self.enter()?;
                    Ok(inside())
                })
                .join()
                .expect("a panic inside a namespace is a bug of the test")
        })
    }

    /// Moves the calling thread into the namespace, for good.
    ///
    /// # Errors
    /// When the handle is gone or the process may not.
    pub fn enter(&self) -> anyhow::Result<()> {
        let path = Path::new(HANDLES).join(&self.name);
        let handle =
            fs::File::open(&path).with_context(|| format!("opening {}", path.display()))?;
        move_into_link_name_space(handle.as_fd(), Some(LinkNameSpaceType::Network))
            .with_context(|| format!("entering {}", self.name))
    }

    /// A command that will run inside.
    pub fn command(&self, program: impl AsRef<std::ffi::OsStr>) -> Command {
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &self.name]).arg(program);
        command
    }

    /// Runs lines of `ip` here, as one batch.
    ///
    /// # Errors
    /// With what `ip` said.
    pub fn ip(&self, lines: &str) -> anyhow::Result<()> {
        feed(
            Command::new("ip").args(["-n", &self.name, "-batch", "-"]),
            lines,
        )
    }

    /// Loads an nft script here.
    ///
    /// # Errors
    /// With what `nft` said.
    pub fn nft(&self, script: &str) -> anyhow::Result<()> {
        feed(self.command("nft").args(["-f", "-"]), script)
    }

    /// What a command says here; standard error belongs to the error.
    ///
    /// # Errors
    /// When it fails.
    pub fn output(&self, program: &str, args: &[&str]) -> anyhow::Result<String> {
        run(self.command(program).args(args))
    }

    /// Sets one value below `/proc/sys`, of this namespace.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn sysctl(&self, key: &str, value: &str) -> anyhow::Result<()> {
        self.run(|| fs::write(Path::new("/proc/sys").join(key), value))?
            .with_context(|| format!("setting {key} to {value}"))
    }

    /// Packets an interface here has received.
    ///
    /// # Errors
    /// When there is no such interface.
    pub fn received(&self, interface: &str) -> anyhow::Result<u64> {
        let table = self.run(|| fs::read_to_string("/proc/thread-self/net/dev"))??;
        table
            .lines()
            .filter_map(|line| line.trim().split_once(':'))
            .find(|(name, _)| *name == interface)
            .and_then(|(_, figures)| figures.split_whitespace().nth(1)?.parse().ok())
            .with_context(|| format!("no interface {interface} in {}", self.name))
    }

    /// Process ids of everything that runs here.
    pub fn processes(&self) -> Vec<u32> {
        inhabitants(&self.name)
    }
}

/// Whether this process may make namespaces.
///
/// # Errors
/// When it is not root, saying what to do.
pub fn privileged() -> anyhow::Result<()> {
    if rustix::process::geteuid().is_root() {
        return Ok(());
    }
    bail!(
        "network namespaces need root: run `sudo -E env PATH=\"$PATH\" make demo`, or `make test`"
    );
}

/// Ends one process, and does not mind when it is gone already.
pub fn signal(pid: u32, signal: Signal) {
    if let Some(pid) = i32::try_from(pid).ok().and_then(Pid::from_raw) {
        let _gone_already = kill_process(pid, signal);
    }
}

/// Runs a command to its end and gives its standard output.
///
/// # Errors
/// With its standard error when it fails.
pub fn run(command: &mut Command) -> anyhow::Result<String> {
    let output = command
        .stdin(Stdio::null())
        .output()
        .with_context(|| format!("starting {command:?}"))?;
    if !output.status.success() {
        bail!(
            "{command:?}: {} {}",
            output.status,
            String::from_utf8_lossy(&output.stderr).trim()
        );
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

fn feed(command: &mut Command, text: &str) -> anyhow::Result<()> {
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .with_context(|| format!("starting {command:?}"))?;
    child
        .stdin
        .take()
        .expect("piped just above")
        .write_all(text.as_bytes())?;
    let output = child.wait_with_output()?;
    if !output.status.success() {
        bail!(
            "{command:?}: {}\n{text}",
            String::from_utf8_lossy(&output.stderr).trim()
        );
    }
    Ok(())
}

fn inhabitants(name: &str) -> Vec<u32> {
    run(Command::new("ip").args(["netns", "pids", name]))
        .unwrap_or_default()
        .lines()
        .filter_map(|pid| pid.trim().parse().ok())
        .collect()
}

fn remove(name: &str) {
    for pid in inhabitants(name) {
        // A thread of the harness may still be inside; it is not a thing to end.
        if pid != std::process::id() {
            signal(pid, Signal::KILL);
        }
    }
    let _gone_already = run(Command::new("ip").args(["netns", "delete", name]));
}

/// Removes namespaces of runs whose process no longer exists.
fn sweep() {
    let Ok(handles) = fs::read_dir(HANDLES) else {
        return;
    };
    for handle in handles.flatten() {
        let name = handle.file_name().to_string_lossy().into_owned();
        let maker = name
            .strip_prefix(PREFIX)
            .and_then(|rest| rest.split('-').next())
            .and_then(|pid| pid.parse::<u32>().ok());
        if maker.is_some_and(|pid| !Path::new(&format!("/proc/{pid}")).exists()) {
            remove(&name);
        }
    }
}
