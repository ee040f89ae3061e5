//! `spa-admin init`: a new gateway's configuration, policy, keys and store. All of it, or none.

mod ssh;
mod text;

use std::fs;
use std::io::{self, BufRead, Write};
use std::net::IpAddr;
use std::os::unix::fs::{DirBuilderExt, chown};
use std::path::{Path, PathBuf};

use clap::Args;
use rustix::fs::Gid;
use spa_proto::{GatewayId, KnockSecret};
use zeroize::Zeroizing;

use super::openwrt;
use super::service::Keeper;
use crate::accounts;
use crate::config::{
    Config, DEFAULT_CONFIG, HostPort, Interface, Paths, PortProtocol, Subnet, UserRef,
};
use crate::network::{self, Link};
use crate::store::{Founding, Store};
use crate::{clock, files};
use ssh::ssh_through;
use text::POLICY;

/// The knock port unless the public address names another: WireGuard's customary one.
const DEFAULT_PORT: u16 = 51_820;
/// The tunnel's interface.
const TUNNEL: &str = "spa0";
/// The pool that is proposed.
const DEFAULT_POOL: &str = "10.200.0.0/16";
/// Users by number where the system has none by name: outside the ranges of Debian and Fedora for people and packages.
const FALLBACK_USERS: [u32; 2] = [64_180, 64_181];

/// The flags of `init`. What is not given is asked for, unless `--yes` is.
#[derive(Debug, Args)]
pub struct InitArgs {
    /// Interface that faces strangers; repeat for several
    #[arg(long = "interface", value_name = "IF")]
    pub interfaces: Vec<Interface>,
    /// Address and port that invites name, as clients reach this gateway
    #[arg(long, value_name = "HOST:PORT")]
    pub public: Option<HostPort>,
    /// Network that sessions get their tunnel addresses from; one IPv4, one IPv6, or both
    #[arg(long = "pool", value_name = "CIDR")]
    pub pools: Vec<Subnet>,
    /// Knock port and WireGuard port on this machine [default: the port of --public]
    #[arg(long, value_name = "PORT")]
    pub port: Option<u16>,
    /// Let sessions reach the LAN under the gateway's own address; needed unless the LAN has a route to the pool
    #[arg(long)]
    pub masquerade: bool,
    /// User of spa-gateway, by name or number
    #[arg(long, value_name = "USER")]
    pub user: Option<String>,
    /// User of spa-tunnel, by name or number
    #[arg(long, value_name = "USER")]
    pub tunnel_user: Option<String>,
    /// Ask nothing: take defaults for what is not given
    #[arg(long)]
    pub yes: bool,
}

/// All that is decided before anything is written.
#[derive(Debug)]
struct Plan {
    interfaces: Vec<Interface>,
    public: HostPort,
    port: u16,
    pools: Vec<Subnet>,
    masquerade: bool,
    keep_open: Option<PortProtocol>,
    user: UserRef,
    tunnel_user: UserRef,
    paths: Paths,
    /// Whose rules: our own, or on OpenWrt fw4's beside them.
    mode: &'static str,
}

/// Makes a gateway.
///
/// # Errors
/// One line; then nothing is left behind.
pub fn run(config: &Path, args: &InitArgs) -> Result<(), String> {
    if !rustix::process::geteuid().is_root() {
        return Err(
            "init writes the gateway's keys and so must run as root; run it with sudo".to_owned(),
        );
    }
    let paths = paths_beside(config)?;
    refuse_overwriting(config, &paths)?;
    let links = network::links();
    let plan = plan(args, paths, &links)?;
    refuse_overlap(&plan.pools, &network::networks_of_others(TUNNEL))?;
    let text = plan.config_text();
    // The daemon's own check, before anything is on disk.
    let checked = Config::parse(&text, config).map_err(|error| error.to_string())?;
    let account = accounts::find(&plan.user).map_err(|error| error.to_string())?;
    accounts::find(&plan.tunnel_user).map_err(|error| error.to_string())?;
    let founding = founding()?;
    let identity = GatewayId::of(&founding.identity.public());
    let mut made = Made::default();
    let outcome = write_all(config, &checked.paths, &text, account, &founding, &mut made);
    if let Err(error) = outcome {
        made.remove();
        return Err(error);
    }
    if openwrt::is_here() && config == Path::new(DEFAULT_CONFIG) {
        openwrt::remember(&plan.uci_text())?;
    }
    report(config, &plan, identity, &links);
    Ok(())
}

/// The system's places for the system's configuration; everything beside it otherwise.
fn paths_beside(config: &Path) -> Result<Paths, String> {
    if config == Path::new(DEFAULT_CONFIG) {
        return Ok(if openwrt::is_here() {
            openwrt::paths()
        } else {
            Paths::default()
        });
    }
    let absolute = std::path::absolute(config).map_err(|error| {
        format!(
            "cannot find {}: {error}; give an absolute path",
            config.display()
        )
    })?;
    let beside = absolute.parent().unwrap_or(Path::new("/"));
    Ok(Paths {
        policy: beside.join("policy.toml"),
        state: beside.join("state"),
        runtime: beside.join("run"),
    })
}

fn refuse_overwriting(config: &Path, paths: &Paths) -> Result<(), String> {
    let files = [
        config.to_owned(),
        paths.policy.clone(),
        paths.seal_key(),
        paths.store(),
    ];
    match files.iter().find(|file| file.symlink_metadata().is_ok()) {
        None => Ok(()),
        Some(file) => Err(format!(
            "{} exists and init replaces nothing; move it away, or name another place with --config",
            file.display()
        )),
    }
}

/// A pool that is somebody's network already would take its packets, or lose its own.
fn refuse_overlap(pools: &[Subnet], taken: &[(String, Subnet)]) -> Result<(), String> {
    for pool in pools {
        if let Some((whose, taken)) = taken.iter().find(|(_, taken)| pool.overlaps(*taken)) {
            return Err(format!(
                "pool {pool} overlaps {taken} of {whose}; choose a network that is nobody's with --pool, like 10.201.0.0/16"
            ));
        }
    }
    Ok(())
}

fn plan(args: &InitArgs, paths: Paths, links: &[Link]) -> Result<Plan, String> {
    let interfaces = match &args.interfaces[..] {
        [] => vec![ask(
            args,
            "Interface that faces strangers",
            network::default_route().as_deref(),
            "--interface",
        )?],
        given => given.to_vec(),
    };
    if let Some(missing) = interfaces
        .iter()
        .find(|name| !links.iter().any(|link| link.name == name.as_str()))
    {
        return Err(format!(
            "there is no interface `{missing}`; `ip -br link` lists them"
        ));
    }
    let public = match &args.public {
        Some(public) => public.clone(),
        None => {
            let guess = address_of(&interfaces, links).map(|ip| {
                HostPort {
                    host: ip.to_string(),
                    port: args.port.unwrap_or(DEFAULT_PORT),
                }
                .to_string()
            });
            ask(
                args,
                "Address and port as clients reach it",
                guess.as_deref(),
                "--public",
            )?
        }
    };
    let pools = match &args.pools[..] {
        [] => vec![ask(
            args,
            "Network for tunnel addresses",
            Some(DEFAULT_POOL),
            "--pool",
        )?],
        given => given.to_vec(),
    };
    // Works with every LAN; who asks for nothing by flags gets what works, and is told.
    let masquerade = args.masquerade || !args.yes;
    let user = |given: &Option<String>, name: &str, fallback| match given {
        Some(given) => UserRef::Name(given.clone()),
        None if accounts::exists(name) => UserRef::Name(name.to_owned()),
        None => UserRef::Number(fallback),
    };
    Ok(Plan {
        port: args.port.unwrap_or(public.port),
        keep_open: ssh_through(&interfaces, links),
        user: user(&args.user, "spa-gateway", FALLBACK_USERS[0]),
        tunnel_user: user(&args.tunnel_user, "spa-tunnel", FALLBACK_USERS[1]),
        interfaces,
        public,
        pools,
        masquerade,
        paths,
        mode: if openwrt::is_here() { "fw4" } else { "own" },
    })
}

/// Takes a value from the terminal. With `--yes` the default is the answer.
fn ask<T>(args: &InitArgs, question: &str, default: Option<&str>, flag: &str) -> Result<T, String>
where
    T: std::str::FromStr,
    T::Err: std::fmt::Display,
{
    if args.yes {
        let default =
            default.ok_or_else(|| format!("{flag} is missing and has no default here; give it"))?;
        return default.parse().map_err(|error: T::Err| error.to_string());
    }
    let hint = default
        .map(|default| format!(" [{default}]"))
        .unwrap_or_default();
    let answer = prompt(&format!("{question}{hint}: "))
        .map_err(|error| format!("cannot ask for {flag}: {error}; give it as a flag, or --yes"))?;
    let answer = match (answer.as_str(), default) {
        ("", Some(default)) => default,
        (answer, _) => answer,
    };
    answer.parse().map_err(|error: T::Err| error.to_string())
}

fn prompt(question: &str) -> io::Result<String> {
    io::stdout().write_all(question.as_bytes())?;
    io::stdout().flush()?;
    let mut answer = String::new();
    if io::stdin().lock().read_line(&mut answer)? == 0 {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    Ok(answer.trim().to_owned())
}

/// The first address of the knock interfaces that somebody far away could use.
fn address_of(interfaces: &[Interface], links: &[Link]) -> Option<IpAddr> {
    let ours = links
        .iter()
        .filter(|link| interfaces.iter().any(|name| name.as_str() == link.name));
    ours.flat_map(|link| &link.addresses)
        .find(|address| match address {
            IpAddr::V4(v4) => !v4.is_link_local(),
            IpAddr::V6(v6) => !v6.is_unicast_link_local(),
        })
        .copied()
}

fn founding() -> Result<Founding, String> {
    let mut identity = Zeroizing::new([0; 32]);
    let mut wireguard = Zeroizing::new([0; 32]);
    for secret in [&mut identity, &mut wireguard] {
        getrandom::fill(&mut **secret)
            .map_err(|_| "the kernel gives no random bytes; try again later".to_owned())?;
    }
    Ok(Founding {
        identity: KnockSecret::from_bytes(*identity),
        wireguard,
        made: clock::now().wall,
    })
}

/// What was made so far, to take it back.
#[derive(Default)]
struct Made {
    files: Vec<PathBuf>,
    directories: Vec<PathBuf>,
}

impl Made {
    fn remove(&self) {
        // Best effort: the first error is the one worth reporting.
        for file in &self.files {
            let _ = fs::remove_file(file);
        }
        for directory in self.directories.iter().rev() {
            let _ = fs::remove_dir(directory);
        }
    }
}

fn write_all(
    config: &Path,
    paths: &Paths,
    text: &str,
    account: accounts::Account,
    founding: &Founding,
    made: &mut Made,
) -> Result<(), String> {
    let line = |error: files::FileError| error.to_string();
    for (directory, mode) in [
        (config.parent(), 0o755),
        (paths.policy.parent(), 0o755),
        (Some(&*paths.state), 0o700),
    ] {
        if let Some(directory) = directory.filter(|directory| !directory.as_os_str().is_empty()) {
            make_directory(directory, mode, made)?;
        }
    }
    Store::create(paths, founding).map_err(|error| error.to_string())?;
    made.files.extend([
        paths.seal_key(),
        paths.generation(),
        paths.store(),
        paths.store().with_extension("db-wal"),
    ]);
    Store::hand_over(paths, account).map_err(|error| error.to_string())?;
    files::create_new(&paths.policy, 0o640, POLICY.as_bytes()).map_err(line)?;
    made.files.push(paths.policy.clone());
    // The daemon reads it with its group; only root writes it.
    give_group(&paths.policy, account.gid)?;
    // Last: where a configuration is, everything is.
    files::create_new(config, 0o644, text.as_bytes()).map_err(line)?;
    Ok(())
}

fn make_directory(directory: &Path, mode: u32, made: &mut Made) -> Result<(), String> {
    if directory.is_dir() {
        return Ok(());
    }
    fs::DirBuilder::new()
        .recursive(true)
        .mode(mode)
        .create(directory)
        .map_err(|error| {
            format!(
                "cannot make {}: {error}; name another place with --config",
                directory.display()
            )
        })?;
    made.directories.push(directory.to_owned());
    Ok(())
}

fn give_group(file: &Path, gid: Gid) -> Result<(), String> {
    chown(file, None, Some(gid.as_raw())).map_err(|error| {
        format!(
            "cannot give {} to group {}: {error}",
            file.display(),
            gid.as_raw()
        )
    })
}

fn report(config: &Path, plan: &Plan, identity: GatewayId, links: &[Link]) {
    outln!("gateway {identity}");
    outln!("  configuration  {}", config.display());
    outln!("  policy         {}", plan.paths.policy.display());
    outln!("  store          {}", plan.paths.store().display());
    if let Some(port) = plan.keep_open {
        outln!(
            "  {port} stays open to everybody: you came over it. Once you can log in through the tunnel, empty keep-open in {} and restart.",
            config.display()
        );
    }
    if plan.masquerade {
        outln!(
            "  sessions reach the LAN under the gateway's own address; where the LAN has a route to their network, masquerade = false shows it who comes."
        );
    }
    if let UserRef::Number(number) = plan.user {
        outln!(
            "  runs as user {number}: there is no user spa-gateway here. `systemd-sysusers` makes one; name it under [process]."
        );
    }
    let public: Option<IpAddr> = plan.public.host.parse().ok();
    if public.is_some_and(|public| !links.iter().any(|link| link.addresses.contains(&public))) {
        outln!(
            "  {} is none of this machine's addresses: UDP port {} must be forwarded here.",
            plan.public.host,
            plan.public.port
        );
    }
    let start = Keeper::here().enable();
    outln!(
        "Next: start it with {start}, then `spa-admin user add NAME --group GROUP` and `spa-admin invite NAME`."
    );
}

#[cfg(test)]
mod tests {
    use super::ssh::ssh_server;
    use super::*;

    fn plan(keep_open: Option<PortProtocol>) -> Plan {
        Plan {
            interfaces: vec!["eth0".parse().expect("a name")],
            public: "[2001:db8::1]:51820".parse().expect("an address"),
            port: 4_000,
            pools: vec![
                "10.200.0.0/16".parse().expect("a pool"),
                "fd5a:1::/64".parse().expect("a pool"),
            ],
            masquerade: true,
            keep_open,
            user: UserRef::Number(64_180),
            tunnel_user: UserRef::Name("spa-tunnel".to_owned()),
            paths: Paths {
                policy: "/tmp/a \"b\"/policy.toml".into(),
                ..Paths::default()
            },
            mode: "own",
        }
    }

    #[test]
    fn what_init_writes_is_what_the_daemon_reads() {
        let text = plan(None).config_text();
        let config = Config::parse(&text, Path::new("/etc/spa/gateway.toml")).expect("sound");
        assert_eq!(config.knock_port(), 4_000);
        assert_eq!(config.wireguard_port(), 4_000);
        assert_eq!(
            config.pool4().map(|pool| pool.to_string()).as_deref(),
            Some("10.200.0.1/16")
        );
        assert_eq!(
            config.pool6().map(|pool| pool.to_string()).as_deref(),
            Some("fd5a:1::1/64")
        );
        assert_eq!(config.paths.policy, Path::new("/tmp/a \"b\"/policy.toml"));
        assert!(config.firewall.keep_open.is_empty() && config.firewall.masquerade);
        let policy = crate::policy_file::parse(POLICY, Path::new("policy.toml")).expect("sound");
        assert_eq!(policy.rules().len(), 0);
    }

    #[test]
    fn a_pool_that_overlaps_a_network_is_refused_by_name() {
        let subnet = |text: &str| text.parse::<Subnet>().expect("a network");
        let taken = [
            ("br-lan".to_owned(), subnet("10.200.7.1/24")),
            ("wan".to_owned(), subnet("2001:db8::1/64")),
        ];
        assert_eq!(
            refuse_overlap(&[subnet("fd5a:1::/64"), subnet("10.200.0.0/16")], &taken),
            Err("pool 10.200.0.0/16 overlaps 10.200.7.1/24 of br-lan; choose a network that is nobody's with --pool, like 10.201.0.0/16".to_owned())
        );
        assert_eq!(refuse_overlap(&[subnet("10.201.0.0/16")], &taken), Ok(()));
        // Either may be the wider one.
        assert!(refuse_overlap(&[subnet("10.200.7.128/25")], &taken).is_err());
    }

    #[test]
    fn the_port_of_ssh_stays_open_when_init_came_through_it() {
        let eth0 = Link {
            name: "eth0".to_owned(),
            addresses: vec!["198.51.100.10".parse().expect("address")],
            loopback: false,
        };
        assert_eq!(
            ssh_server("192.0.2.7 50000 ::ffff:198.51.100.10 2222"),
            Some((eth0.addresses[0], 2_222))
        );
        assert_eq!(ssh_server("192.0.2.7 50000"), None);
        let kept = "2222/tcp".parse().ok();
        let text = plan(kept).config_text();
        let config = Config::parse(&text, Path::new("/etc/spa/gateway.toml")).expect("sound");
        assert_eq!(config.firewall.keep_open.first().copied(), kept);
    }

    #[test]
    fn a_gateway_elsewhere_has_everything_beside_its_configuration() {
        let paths = paths_beside(Path::new("/srv/gw/gateway.toml")).expect("paths");
        assert_eq!(paths.store(), Path::new("/srv/gw/state/store.db"));
        assert_eq!(paths.admin_socket(), Path::new("/srv/gw/run/admin.sock"));
        assert_eq!(
            paths_beside(Path::new(DEFAULT_CONFIG)).expect("paths"),
            Paths::default()
        );
    }

    #[test]
    fn nothing_that_exists_is_replaced() {
        let dir = tempfile::tempdir().expect("a directory");
        let config = dir.path().join("gateway.toml");
        let paths = paths_beside(&config).expect("paths");
        refuse_overwriting(&config, &paths).expect("nothing is there");
        fs::write(&paths.policy, "").expect("written");
        let refusal = refuse_overwriting(&config, &paths).expect_err("refused");
        assert!(
            refusal.contains("policy.toml exists") && refusal.contains("--config"),
            "{refusal}"
        );
    }
}
