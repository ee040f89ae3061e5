//! What can be told before anything is started: problems that keep the gateway from
//! running, and warnings about what will not work as expected.

use std::fmt;
use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::thread;
use std::time::Duration;

use crate::accounts;
use crate::clock;
use crate::config::{Config, FirewallMode};
use crate::enforcer_link;
use crate::files::{self, Wanted};
use crate::network;
use crate::policy_file::PolicyFile;

/// The oldest Linux that has all we ask of it (docs/install.md).
const OLDEST_LINUX: (u32, u32) = (5, 10);
/// How often a port is tried that the process we follow may be about to leave.
const PORT_TRIES: u32 = 20;
/// How long between two tries.
const PORT_PAUSE: Duration = Duration::from_millis(100);

/// Something to look at.
#[derive(Clone, PartialEq, Eq, Debug, serde::Serialize)]
#[serde(rename_all = "kebab-case", tag = "kind", content = "what")]
pub enum Finding {
    /// Keeps the gateway from running.
    Problem(String),
    /// Does not, yet somebody should know.
    Warning(String),
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Problem(line) => write!(f, "problem: {line}"),
            Self::Warning(line) => write!(f, "warning: {line}"),
        }
    }
}

/// Looks at everything the configuration relies on.
#[must_use]
pub fn everything(config: &Config) -> Vec<Finding> {
    let mut findings = machine(config);
    findings.extend(secrets(config).map(Finding::Problem));
    if !is_running(config) {
        findings.extend(port_taken(config).map(Finding::Problem));
    }
    findings
}

/// Looks at the machine and the policy.
#[must_use]
pub fn machine(config: &Config) -> Vec<Finding> {
    let mut findings = Vec::new();
    findings.extend(without_root().map(Finding::Problem));
    findings.extend(missing_interfaces(config).map(Finding::Problem));
    for user in [&config.process.user, &config.process.tunnel_user] {
        findings.extend(
            accounts::find(user)
                .err()
                .map(|error| Finding::Problem(error.to_string())),
        );
    }
    findings.extend(policy(config).map(Finding::Problem));
    findings.extend(warnings(config).into_iter().map(Finding::Warning));
    findings.extend(firewalls(config));
    findings
}

/// What is worth a warning, each one line.
#[must_use]
pub fn warnings(config: &Config) -> Vec<String> {
    let mut lines = Vec::new();
    lines.extend(old_linux(
        &rustix::system::uname().release().to_string_lossy(),
    ));
    for switch in network::forwarding_off(config.pool4().is_some(), config.pool6().is_some()) {
        lines.push(format!("{switch} is 0, so nothing behind the gateway can be reached; run `sysctl -w {switch}=1` and put it into /etc/sysctl.d"));
    }
    for open in &config.firewall.keep_open {
        lines.push(format!("port {open} is open to everybody (keep-open), so this gateway is not dark; empty keep-open once you can log in through the tunnel"));
    }
    let verdict = clock::judge(config.clock.trust, clock::has_battery_clock());
    if !verdict.is_trusted() {
        lines.push(format!("clock {verdict}"));
    }
    lines.extend(published_in_vain(config));
    lines
}

/// Says so if the kernel is an old one. No more than that: a distribution may have mended its own.
fn old_linux(release: &str) -> Option<String> {
    let mut numbers = release.split(|c: char| !c.is_ascii_digit());
    let mut number = || numbers.next()?.parse().ok();
    let version: (u32, u32) = (number()?, number()?);
    let (major, minor) = OLDEST_LINUX;
    (version < OLDEST_LINUX).then(|| {
        format!("Linux {release} is older than {major}.{minor}, the oldest this gateway is made for: if its table is refused, that is why; install a newer kernel")
    })
}

/// Names a resource that is published by another address where we translate nothing.
fn published_in_vain(config: &Config) -> Option<String> {
    if *config.firewall.mode.get_ref() != FirewallMode::Sets {
        return None;
    }
    let policy = PolicyFile::at(&config.paths.policy).ok()?.read().ok()?;
    let (name, _) = policy
        .resources()
        .find(|(_, resource)| resource.published.is_some())?;
    Some(format!(
        "resource `{name}` has an `as`, and with [firewall] mode = \"sets\" nothing of ours translates: knocks for it will fail; take the `as` away, or use mode = \"own\""
    ))
}

/// Says what is wrong with the policy. The gateway would run without, and let nobody in.
#[must_use]
pub fn policy(config: &Config) -> Option<String> {
    match PolicyFile::at(&config.paths.policy) {
        Ok(file) => file.read().err().map(|error| error.to_string()),
        Err(error) => Some(error.to_string()),
    }
}

/// Names other people's chains that would drop our packets, and what an administrator's own ruleset lacks. At a start
/// the enforcer does that.
#[must_use]
pub fn firewalls(config: &Config) -> Vec<Finding> {
    let mut findings = enforcer_link::look(config).unwrap_or_else(|| unseen(config));
    let tunnel = config.wireguard.interface.get_ref().as_str();
    let legacy = network::legacy_chains(tunnel, config.wireguard_port());
    findings.extend(legacy.into_iter().map(Finding::Warning));
    findings
}

/// Says that nobody looked: what was not seen is not sound.
fn unseen(config: &Config) -> Vec<Finding> {
    // Which is said by itself.
    if without_root().is_some() {
        return Vec::new();
    }
    let line = "the firewalls of this machine could not be looked at; see that spa-enforcer lies beside spa-gateway, that this kernel has nf_tables, and that CAP_NET_ADMIN is there".to_owned();
    vec![match config.firewall.mode.get_ref() {
        // Whether it guards the tunnel is what a gateway stands on.
        FirewallMode::Sets => Finding::Problem(line),
        FirewallMode::Own | FirewallMode::Fw4 => Finding::Warning(line),
    }]
}

/// Says so if we are not root.
#[must_use]
pub fn without_root() -> Option<String> {
    (!rustix::process::geteuid().is_root()).then(|| {
        "not started as root: the gateway needs it to open its sockets, and leaves it by itself; run it with sudo or by systemd".to_owned()
    })
}

/// Names the first knock interface that is not there.
#[must_use]
pub fn missing_interfaces(config: &Config) -> Option<String> {
    let links = network::links();
    let missing = config
        .knock
        .interfaces
        .get_ref()
        .iter()
        .find(|name| !links.iter().any(|link| link.name == name.as_str()))?;
    Some(format!(
        "there is no interface `{missing}`; correct [knock] interfaces, `ip -br link` lists what there is"
    ))
}

/// Says so if another program has the WireGuard port.
#[must_use]
pub fn port_taken(config: &Config) -> Option<String> {
    let ours = config.wireguard.interface.get_ref().as_str();
    // The interface of an earlier run holds the port until the enforcer takes it over.
    if network::links().iter().any(|link| link.name == ours) {
        return None;
    }
    let port = config.wireguard_port();
    for _ in 0..PORT_TRIES {
        if !is_taken(port) {
            return None;
        }
        thread::sleep(PORT_PAUSE);
    }
    Some(format!(
        "UDP port {port} is taken by another program (`ss -lunp sport = :{port}` names it); stop it, or choose another [wireguard] port"
    ))
}

fn is_taken(port: u16) -> bool {
    let anywhere: [SocketAddr; 2] = [
        (Ipv4Addr::UNSPECIFIED, port).into(),
        (Ipv6Addr::UNSPECIFIED, port).into(),
    ];
    anywhere.iter().any(|address| {
        UdpSocket::bind(address).is_err_and(|error| error.kind() == io::ErrorKind::AddrInUse)
    })
}

/// Says so if a secret is missing or open to others.
#[must_use]
pub fn secrets(config: &Config) -> Option<String> {
    let look = |file: &Path| files::open(file, Wanted::Secret).err();
    let error = look(&config.paths.seal_key()).or_else(|| look(&config.paths.store()))?;
    Some(error.to_string())
}

/// Whether a gateway answers on the admin socket.
#[must_use]
pub fn is_running(config: &Config) -> bool {
    UnixStream::connect(config.paths.admin_socket()).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(interface: &str, port: u16) -> Config {
        let text = format!(
            "[knock]\ninterfaces = [\"{interface}\"]\nport = {port}\npublic = \"192.0.2.1:1\"\n[wireguard]\ninterface = \"spatest0\"\naddresses = [\"10.200.0.1/16\"]\n[paths]\nstate = \"/nowhere\"\n"
        );
        Config::parse(&text, Path::new("/etc/spa/gateway.toml")).expect("sound")
    }

    #[test]
    fn a_kernel_that_is_too_old_is_told_of() {
        for old in ["4.14.336", "5.4.0-216-generic", "5.9", "4.19.0+"] {
            let line = old_linux(old).expect("a warning");
            assert!(line.starts_with(&format!("Linux {old} is older than 5.10")));
        }
        for fine in ["5.10.0", "5.15.167", "6.1.0-31-amd64", "10.0", "strange"] {
            assert_eq!(old_linux(fine), None, "{fine}");
        }
    }

    #[test]
    fn a_published_address_that_nobody_translates_is_named() {
        use std::io::Write;

        let mut policy = tempfile::NamedTempFile::new().expect("a file");
        policy
            .write_all(b"[resource]\nwiki = { to = \"10.0.5.10\", ports = [\"443/tcp\"], as = \"10.99.0.1\" }\n")
            .expect("written");
        let text = |mode: &str| {
            format!(
                "[knock]\ninterfaces = [\"lo\"]\nport = 51820\npublic = \"192.0.2.1:1\"\n[wireguard]\naddresses = [\"10.200.0.1/16\"]\n[firewall]\n{mode}\n[paths]\npolicy = \"{}\"\n",
                policy.path().display()
            )
        };
        let with = |mode: &str| {
            let config = Config::parse(&text(mode), Path::new("/etc/spa/gateway.toml"));
            published_in_vain(&config.expect("sound"))
        };
        let line = with("mode = \"sets\"\ntable = \"inet mine\"").expect("in vain");
        assert!(line.starts_with("resource `wiki` has an `as`"), "{line}");
        assert_eq!(with("mode = \"own\""), None);
    }

    /// Tests run where no enforcer lies beside them; one on the path finds that the table is missing.
    #[test]
    fn an_administrators_ruleset_that_was_not_looked_at_is_no_sound_one() {
        if without_root().is_some() {
            eprintln!("SKIPPED, NOT PASSED: needs root");
            return;
        }
        let text = "[knock]\ninterfaces = [\"lo\"]\nport = 51820\npublic = \"192.0.2.1:1\"\n[wireguard]\naddresses = [\"10.200.0.1/16\"]\n[firewall]\nmode = \"sets\"\ntable = \"inet not-there\"\n";
        let config = Config::parse(text, Path::new("/etc/spa/gateway.toml")).expect("sound");
        let findings = firewalls(&config);
        let is_problem = |finding: &Finding| matches!(finding, Finding::Problem(_));
        assert!(findings.iter().any(is_problem), "{findings:?}");
    }

    #[test]
    fn a_missing_interface_is_named() {
        let line = missing_interfaces(&config("nowhere0", 1)).expect("missing");
        assert!(
            line.starts_with("there is no interface `nowhere0`; "),
            "{line}"
        );
        assert_eq!(missing_interfaces(&config("lo", 1)), None);
    }

    #[test]
    fn an_occupied_port_is_named() {
        let other = UdpSocket::bind("0.0.0.0:0").expect("bound");
        let port = other.local_addr().expect("address").port();
        assert!(is_taken(port));
        let line = port_taken(&config("lo", port)).expect("taken");
        assert!(
            line.contains(&format!("UDP port {port} is taken")),
            "{line}"
        );
        drop(other);
        assert_eq!(port_taken(&config("lo", port)), None);
    }

    #[test]
    fn missing_secrets_are_named() {
        let line = secrets(&config("lo", 1)).expect("missing");
        assert!(
            line.starts_with("/nowhere/K_seal does not exist; run `spa-admin init`"),
            "{line}"
        );
    }
}
