//! The enforcer as a program: where it is, its limits as its command line, starting it to stay or for one thing.

use std::ffi::OsString;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};

use rustix::net::{AddressFamily, SocketFlags, SocketType};

use super::{EnforcerLink, LinkError};
use crate::accounts::Account;
use crate::config::{Config, FirewallMode};
use crate::preflight::Finding;

/// The name of its executable.
pub(super) const EXECUTABLE: &str = "spa-enforcer";

/// Starts the enforcer. It greets when it is ready; see [`EnforcerLink::wait_ready`].
///
/// # Errors
/// No executable, or one that cannot be run.
pub fn spawn(
    config: &Config,
    tunnel_user: Account,
    capacity: u32,
    credentials: usize,
) -> Result<(Child, EnforcerLink), LinkError> {
    let (ours, theirs) = rustix::net::socketpair(
        AddressFamily::UNIX,
        SocketType::SEQPACKET,
        SocketFlags::CLOEXEC,
        None,
    )?;
    let file = find_executable().ok_or(LinkError::NotFound)?;
    // The orders are its standard input: nothing else of ours is open in it.
    let mut command = Command::new(&file);
    command
        .args(flags(
            config,
            &tunnel_user.uid.as_raw().to_string(),
            capacity,
            credentials,
        ))
        .env_clear()
        .stdin(Stdio::from(theirs))
        .stdout(Stdio::null())
        // A Ctrl-C on the terminal is for us; the enforcer ends when we do.
        .process_group(0);
    spa_failpoint::hand_on(&mut command);
    let child = command
        .spawn()
        .map_err(|source| LinkError::Run { file, source })?;
    Ok((child, EnforcerLink::over(ours)))
}

/// What the enforcer does once, instead of taking orders.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Once {
    /// Makes the machine dark, if no table of ours does so yet.
    Close,
    /// Takes away what it made, for good.
    Clear,
}

/// Has the enforcer do something once, and waits for its end. It says itself what went wrong.
///
/// # Errors
/// No executable, or one that cannot be run.
pub fn once(config: &Config, what: Once) -> Result<ExitStatus, LinkError> {
    let file = find_executable().ok_or(LinkError::NotFound)?;
    Command::new(&file)
        .args(flags(config, &config.process.tunnel_user.to_string(), 1, 0))
        .arg(match what {
            Once::Close => "--close",
            Once::Clear => "--clear",
        })
        .env_clear()
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .status()
        .map_err(|source| LinkError::Run { file, source })
}

/// Has the enforcer say what keeps the firewall from working, with the remedy. `None` if it cannot.
#[must_use]
pub fn look(config: &Config) -> Option<Vec<Finding>> {
    let output = Command::new(find_executable()?)
        .args(flags(config, &config.process.tunnel_user.to_string(), 1, 0))
        .arg("--look")
        .env_clear()
        .stdin(Stdio::null())
        .stderr(Stdio::null())
        .output()
        .ok()
        .filter(|output| output.status.success())?;
    let text = String::from_utf8_lossy(&output.stdout);
    let finding = |line: &str| match line.strip_prefix("problem: ") {
        Some(line) => Finding::Problem(line.to_owned()),
        None => Finding::Warning(line.strip_prefix("warning: ").unwrap_or(line).to_owned()),
    };
    Some(text.lines().map(finding).collect())
}

/// The enforcer's limits as its command line.
pub(super) fn flags(
    config: &Config,
    tunnel_user: &str,
    capacity: u32,
    credentials: usize,
) -> Vec<OsString> {
    let mut flags: Vec<String> = Vec::new();
    let mut put = |flag: &str, value: String| flags.extend([flag.to_owned(), value]);
    for interface in config.knock.interfaces.get_ref() {
        put("--knock-interface", interface.to_string());
    }
    put("--port", config.knock_port().to_string());
    put(
        "--wg-interface",
        config.wireguard.interface.get_ref().to_string(),
    );
    put("--wg-port", config.wireguard_port().to_string());
    put("--wg-backend", config.wireguard.backend.to_string());
    for address in config.wireguard.addresses.get_ref() {
        put("--address", address.to_string());
    }
    put(
        "--max-ttl-ms",
        config.session.longest.get_ref().0.as_millis().to_string(),
    );
    put("--max-peers", max_peers(capacity).to_string());
    put("--credentials", credentials.to_string());
    put("--control-port", config.control.port.to_string());
    for open in &config.firewall.keep_open {
        put("--keep-open", open.to_string());
    }
    put("--tunnel-user", tunnel_user.to_owned());
    if config.firewall.masquerade {
        flags.push("--masquerade".to_owned());
    }
    match (config.firewall.mode(), config.firewall.table()) {
        (FirewallMode::Fw4, _) => flags.push("--fw4".to_owned()),
        (FirewallMode::Sets, Some(table)) => {
            flags.extend(["--sets".to_owned(), table.name().to_owned()]);
        }
        (FirewallMode::Own, _) | (FirewallMode::Sets, None) => {}
    }
    flags.into_iter().map(OsString::from).collect()
}

/// A session that replaces another has its peer beside the old one for a moment.
fn max_peers(capacity: u32) -> u32 {
    capacity.saturating_mul(2).min(spa_order::MAX_PEERS)
}

/// Beside this program, or where the `spa-gateway` beside it is a link to, as beside a package's `spa-admin`; else in PATH.
fn find_executable() -> Option<PathBuf> {
    let folder = |file: PathBuf| file.parent().map(Path::to_owned);
    let beside = std::env::current_exe().ok().and_then(folder);
    let linked = beside
        .as_deref()
        .and_then(|own| own.join("spa-gateway").canonicalize().ok())
        .and_then(folder);
    let path = std::env::var_os("PATH").unwrap_or_default();
    beside
        .into_iter()
        .chain(linked)
        .chain(std::env::split_paths(&path))
        .map(|directory| directory.join(EXECUTABLE))
        .find(|file| file.is_file())
}
