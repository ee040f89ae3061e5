//! A machine enrolled by the real programs: no phone, so it may knock as often as the gateway lets it; its password is empty, and
//! Argon2id takes the same time over it as over any other.

use std::net::{SocketAddr, TcpStream};
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context, bail};
use rustix::process::Signal;
use spa_tests::gateway::Gateway;
use spa_tests::net::{Namespace, signal};
use spa_tests::person::{Person, invite};
use spa_tests::topology::{SERVER, WEB};
use spa_tests::wait::wait_until;

/// UDP port of the resource `beat`.
pub const BEAT: u16 = 9_000;
/// TCP port of the resource `iperf`.
pub const IPERF: u16 = 5_201;

/// How long an agent may take to be gone, or a connection to be there.
const PATIENCE: Duration = Duration::from_secs(5);

/// One machine.
#[derive(Debug)]
pub struct Machine {
    /// What the gateway calls it.
    pub name: String,
    person: Person,
    program: PathBuf,
}

/// Writes a policy that lets machines `bot0` to `bot{count-1}` have everything for an hour, and enrols them.
///
/// # Errors
/// When any of it fails.
pub fn enrol(gateway: &Gateway, space: &Namespace, count: usize) -> anyhow::Result<Vec<Machine>> {
    let names: Vec<String> = (0..count).map(|number| format!("bot{number}")).collect();
    gateway.write_policy(&format!(
        "version = 1\n\n[group]\nbots = {names:?}\n\n[resource]\n\
         wiki = {{ to = \"{SERVER}\", ports = [\"{WEB}/tcp\"] }}\n\
         beat = {{ to = \"{SERVER}\", ports = [\"{BEAT}/udp\"] }}\n\
         iperf = {{ to = \"{SERVER}\", ports = [\"{IPERF}/tcp\"] }}\n\n\
         [[allow]]\nname = \"bots\"\nwho = [\"group:bots\"]\nto = [\"wiki\", \"beat\", \"iperf\"]\nfor = \"1h\"\n"
    ))?;
    gateway
        .ask(&["policy", "reload"])
        .context("reloading the policy")?;
    names
        .into_iter()
        .map(|name| Machine::enrol(gateway, space, name))
        .collect()
}

impl Machine {
    fn enrol(gateway: &Gateway, space: &Namespace, name: String) -> anyhow::Result<Self> {
        gateway.ask(&["user", "add", &name, "--machine"])?;
        let invite = invite(gateway, &name, &["--no-confirm"])?;
        let person = Person::new(gateway, space, &name, "box")?;
        person
            .run(&["enroll", &invite, "--machine", "--name", "box"])?
            .success()?;
        Ok(Self {
            name,
            person,
            program: gateway.programs().path("spa"),
        })
    }

    /// Knocks. To be called in the namespace of the machine: no other program stands between.
    ///
    /// # Errors
    /// When it fails.
    pub fn knock(&self, resources: &[&str]) -> anyhow::Result<()> {
        let output = Command::new(&self.program)
            .arg("knock")
            .args(resources)
            .env("SPA_HOME", self.person.home())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .output()?;
        if !output.status.success() {
            bail!(
                "spa knock {}: {}",
                resources.join(" "),
                String::from_utf8_lossy(&output.stderr)
            );
        }
        Ok(())
    }

    /// Ends the session, here and there; it may be over already.
    pub fn close(&self) -> anyhow::Result<()> {
        self.person.run(&["close"]).map(drop)
    }

    /// Ends its agent without a word, and its tunnel with it: the session is over already.
    ///
    /// # Errors
    /// When a program of it stays.
    pub fn forget(&self) -> anyhow::Result<()> {
        for pid in self.space().processes() {
            signal(pid, Signal::KILL);
        }
        wait_until("the agent ends", PATIENCE, || {
            self.space().processes().is_empty().then_some(())
        })
    }

    /// Where it is.
    pub fn space(&self) -> &Namespace {
        self.person.space()
    }
}

/// A TCP connection from the namespace of the calling thread, without delay.
///
/// # Errors
/// When there is none.
pub fn connect(to: SocketAddr) -> anyhow::Result<TcpStream> {
    let stream = TcpStream::connect_timeout(&to, PATIENCE)?;
    stream.set_nodelay(true)?;
    Ok(stream)
}
