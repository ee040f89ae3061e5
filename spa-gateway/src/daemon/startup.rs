//! From root and a configuration to a confined daemon that runs: each step before the next, nothing half-done.
//!
//! Everything that can be refused without touching the machine is refused first. Then
//! the admin socket, the enforcer, the user, the sandbox, the threads.

use std::io;
use std::path::Path;
use std::process::{Child, ExitStatus};
use std::sync::Arc;
use std::thread;

use spa_gateway_core::{Gateway, NoIdentity, PresentPeer, Settings};
use spa_order::{Answer, Backend, Order, SecretBytes32};
use tracing::{error, info, warn};
use x25519_dalek::{PublicKey, StaticSecret};
use zeroize::Zeroizing;

use super::calls::Calls;
use super::effects::state_of;
use super::{ClockWatch, Daemon, DaemonError, Facts, Intake, KernelEntropy, PolicyWatch};
use crate::access;
use crate::accounts::{self, AccountError};
use crate::capture::{self, Dropped, KernelQueue, KnownTags, Source, TagLook};
use crate::channel::{self, Patience};
use crate::clock::{self, SetWatch};
use crate::config::{Config, ConfigError};
use crate::control::{self, SocketError};
use crate::enforcer_link::{self, EnforcerLink, LinkError, Ready};
use crate::files::FileError;
use crate::network;
use crate::policy_file::PolicyFile;
use crate::preflight;
use crate::sandbox::{self, Directories, SandboxError};
use crate::store::{Freshness, Store, StoreError};

/// What a tunnel carries over Ethernet and IPv6: 1500 − 40 − 8 − 32, in bytes.
const MTU: u16 = 1_420;
/// How often a client behind a NAT says that it is there, seconds.
const KEEPALIVE: u16 = 25;
/// Files that are no connection of the control channel: sockets, the store, the admin socket's connections.
const OTHER_FILES: u64 = 256;
/// Digits of a phone's code.
const TOTP_DIGITS: u8 = 6;

/// Why the daemon does not start, or stopped. Its text is one line.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The configuration.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The machine.
    #[error("{0}")]
    Machine(String),
    /// A user.
    #[error(transparent)]
    Account(#[from] AccountError),
    /// The store.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The store is no gateway's.
    #[error("{0}")]
    Identity(#[from] NoIdentity),
    /// The directory of the policy.
    #[error(transparent)]
    Policy(#[from] FileError),
    /// The admin socket.
    #[error(transparent)]
    Socket(#[from] SocketError),
    /// The enforcer could not be started.
    #[error(transparent)]
    Enforcer(#[from] LinkError),
    /// The enforcer ended at once and said why itself.
    #[error("the enforcer did not start")]
    EnforcerSaidWhy,
    /// The enforcer ended at once and said nothing.
    #[error("the enforcer ended at its start ({0}); its log says more")]
    EnforcerEnded(ExitStatus),
    /// The sandbox.
    #[error(transparent)]
    Sandbox(#[from] SandboxError),
    /// The control channel.
    #[error(
        "cannot listen for the control channel on TCP port {port} of the tunnel addresses: {source}; choose another [control] port"
    )]
    Channel {
        /// Its port.
        port: u16,
        /// The system's answer.
        source: std::io::Error,
    },
    /// A thread.
    #[error("cannot start {what}: {source}")]
    Thread {
        /// Which.
        what: &'static str,
        /// The system's answer.
        source: std::io::Error,
    },
    /// It ran, and had to stop.
    #[error(transparent)]
    Stopped(#[from] DaemonError),
}

/// Runs a gateway until SIGTERM.
///
/// # Errors
/// Why it does not start, or had to stop. The process should then end.
pub fn run(config_file: &Path) -> Result<(), StartError> {
    let config = Config::load(config_file)?;
    let account = accounts::find(&config.process.user)?;
    let tunnel_account = accounts::find(&config.process.tunnel_user)?;
    for problem in [
        preflight::without_root(),
        preflight::missing_interfaces(&config),
    ] {
        problem.map_or(Ok(()), |line| Err(StartError::Machine(line)))?;
    }
    if preflight::is_running(&config) {
        return Err(SocketError::Alive(config.paths.admin_socket()).into());
    }
    let mut store = Store::open(&config.paths)?;
    let socket = control::bind(&config.paths.admin_socket())?;
    if let Some(line) = preflight::port_taken(&config) {
        return Err(StartError::Machine(line));
    }
    let policy_file = PolicyFile::at(&config.paths.policy)?;
    Store::hand_over(&config.paths, account)?;
    warn_about(&config);
    let has_battery_clock = clock::has_battery_clock();

    let capacity = capacity(&config);
    let clock_set = SetWatch::new();
    let credentials = store.credentials()?;
    let (child, mut link) = enforcer_link::spawn(&config, tunnel_account, capacity, credentials)?;
    let (child, ready) = wait_ready(child, &mut link)?;
    let port = config.control.port.get();
    let listeners = channel::bind(
        tunnel_addresses(&config),
        port,
        config.wireguard.interface.get_ref().as_str(),
    )
    .map_err(|source| StartError::Channel { port, source })?;
    let connections = raise_files(capacity);
    sandbox::leave_root(account)?;
    sandbox::close_files(Directories {
        state: &config.paths.state,
        policy: config.paths.policy.parent().unwrap_or(Path::new("/")),
    });
    sandbox::close_system_calls();

    let (policy_watch, policy) = PolicyWatch::start(policy_file, &mut store);
    let wireguard_key = store.wireguard_key()?;
    let now = clock::now();
    let mut gateway = Gateway::restore(
        settings(&config, &wireguard_key, capacity),
        store.load()?,
        policy,
        now,
    )?;
    if let Some(serial) = policy_watch.serial() {
        gateway.number_policy(serial);
    }
    if let Some(resource) = gateway.unopenable(gateway.policy()) {
        let file = policy_watch.file.path().display();
        warn!("{}", super::policy::unopenable(resource, &file));
    }
    if store.freshness() == Freshness::Restored {
        warn!(
            "the store was restored from a backup, so no knock is accepted; look at `spa-admin device list`, then run `spa-admin store accept`"
        );
    }
    let facts = facts(&config, &ready, now.wall.as_millis());
    let (intake, events) = Intake::new();
    let dropped = Arc::new(Dropped::default());
    let Ready {
        hello,
        captures,
        replies,
        tags,
        access,
    } = ready;
    let queues = captures.iter().map(KernelQueue::of);
    let queues = queues.collect::<io::Result<_>>().map_err(LinkError::from)?;
    let room = Arc::clone(&intake.room);
    let ours = || KnownTags::ours(u32::try_from(credentials).unwrap_or(u32::MAX));
    let mut tags = tags.unwrap_or_else(ours);
    // Before anybody looks: whoever knocks while we start is known.
    tags.follow(&gateway);
    let look = || tags.look();
    start_threads(
        &config,
        captures,
        hello.knock.indices(),
        &dropped,
        look,
        &intake,
    )?;
    if let Some(sockets) = access {
        let intake = intake.clone();
        access::start(sockets, move |seen| intake.traffic(seen)).map_err(|source| {
            StartError::Thread {
                what: "the access log",
                source,
            }
        })?;
    }
    watch(child, intake.clone())?;
    watch_clock(clock_set, intake.clone())?;
    let mut daemon = Daemon {
        gateway,
        store,
        link,
        replies,
        entropy: KernelEntropy,
        events,
        room,
        dropped,
        queues,
        known_tags: tags,
        late: std::collections::BTreeMap::new(),
        pending: super::Pending::default(),
        calls: Calls::new(None),
        policy: policy_watch,
        clock: ClockWatch {
            trust: config.clock.trust,
            has_battery_clock,
            verdict: None,
            seen: now,
        },
        facts,
        look_around: now.mono,
        write_audit: None,
        stopping: false,
    };
    daemon.take_over(&wireguard_key)?;
    drop(wireguard_key);
    info!(
        gateway = %daemon.gateway.id(),
        interfaces = daemon.facts.interfaces.join(","),
        port = daemon.facts.port,
        wireguard = daemon.facts.wireguard,
        sessions = daemon.gateway.sessions().count(),
        "ready"
    );
    let to_core = intake.clone();
    let call = move |called| to_core.called(called);
    let teller =
        channel::start(listeners, connections, Patience::OURS, call).map_err(|source| {
            StartError::Thread {
                what: "the channel thread",
                source,
            }
        })?;
    daemon.calls.teller = Some(teller);
    // Last: whoever gets an answer here has a gateway that listens.
    let ours = [account.uid, tunnel_account.uid];
    control::start(socket, ours, move |message| intake.message(message)).map_err(|source| {
        StartError::Thread {
            what: "the control thread",
            source,
        }
    })?;
    Ok(daemon.run()?)
}

impl Daemon {
    /// Gives the enforcer the WireGuard key and makes the kernel equal to the store.
    fn take_over(&mut self, key: &[u8; 32]) -> Result<(), DaemonError> {
        let order = Order::Key {
            private: SecretBytes32::from_bytes(*key),
        };
        match self.link.perform(&order)? {
            Answer::Done => {}
            answer => {
                error!(?answer, "the enforcer did not take the WireGuard key");
                return Err(LinkError::OutOfTurn.into());
            }
        }
        let peers: Vec<PresentPeer> = self
            .link
            .list_peers()?
            .iter()
            .map(|report| PresentPeer {
                wg_key: report.key,
                state: state_of(report),
            })
            .collect();
        self.gateway.handle_start(&peers, clock::now());
        self.turn()
    }
}

fn warn_about(config: &Config) {
    for line in preflight::warnings(config) {
        warn!("{line}");
    }
}

/// Waits for the enforcer's greeting; one that ended instead has said why.
fn wait_ready(mut child: Child, link: &mut EnforcerLink) -> Result<(Child, Ready), StartError> {
    match link.wait_ready() {
        Ok(ready) => Ok((child, ready)),
        Err(LinkError::NotReady) => match child.wait() {
            Ok(status) if status.code() == Some(1) => Err(StartError::EnforcerSaidWhy),
            Ok(status) => Err(StartError::EnforcerEnded(status)),
            Err(error) => Err(LinkError::Socket(error).into()),
        },
        Err(error) => Err(error.into()),
    }
}

/// How many sessions fit into the pools: all addresses but the network's, the gateway's and the last.
fn capacity(config: &Config) -> u32 {
    let pools = [config.pool4(), config.pool6()];
    let sizes = pools.into_iter().flatten().map(|pool| {
        let bits = if pool.address.is_ipv4() { 32 } else { 128 };
        let host_bits = u32::from(bits - pool.prefix).min(31);
        (1_u32 << host_bits).saturating_sub(3)
    });
    // Half of what the enforcer takes: a session that replaces another needs both peers for a moment.
    sizes.min().unwrap_or(0).min(spa_order::MAX_PEERS / 2)
}

/// The gateway's own addresses in the tunnel.
fn tunnel_addresses(config: &Config) -> impl Iterator<Item = std::net::IpAddr> {
    [config.pool4(), config.pool6()]
        .into_iter()
        .flatten()
        .map(|pool| pool.address)
}

/// Lets the process have a connection for the events and one for the calls of each session, as far as the system
/// goes; gives how many there may be.
fn raise_files(capacity: u32) -> usize {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let wanted = 2 * u64::from(capacity) + OTHER_FILES;
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    let possible = maximum.map_or(wanted, |most| most.min(wanted));
    let raised = Rlimit {
        current: Some(possible.max(current.unwrap_or(possible))),
        maximum,
    };
    // What it was is then what there is.
    let _ = setrlimit(Resource::Nofile, raised);
    let files = getrlimit(Resource::Nofile).current.unwrap_or(wanted);
    let connections = files.min(wanted).saturating_sub(OTHER_FILES);
    usize::try_from(connections).unwrap_or(usize::MAX)
}

fn settings(config: &Config, wireguard_key: &Zeroizing<[u8; 32]>, capacity: u32) -> Settings {
    let public = PublicKey::from(&StaticSecret::from(**wireguard_key));
    Settings {
        wg_public: public.to_bytes(),
        wg_port: config.wireguard_port(),
        tunnel4: config.pool4().and_then(|pool| match pool.address {
            std::net::IpAddr::V4(address) => Some((address, pool.prefix)),
            std::net::IpAddr::V6(_) => None,
        }),
        tunnel6: config.pool6().and_then(|pool| match pool.address {
            std::net::IpAddr::V6(address) => Some((address, pool.prefix)),
            std::net::IpAddr::V4(_) => None,
        }),
        control_port: Some(config.control.port.get()),
        report_every: config.control.report.get_ref().0,
        mtu: MTU,
        keepalive: KEEPALIVE,
        dns: None,
        door: config.session.door.get_ref().0,
        longest: config.session.longest.get_ref().0,
        capacity,
        totp_digits: TOTP_DIGITS,
    }
}

fn facts(config: &Config, ready: &Ready, since: u64) -> Facts {
    Facts {
        public: config.knock.public.clone(),
        interfaces: config
            .knock
            .interfaces
            .get_ref()
            .iter()
            .map(ToString::to_string)
            .collect(),
        port: config.knock_port(),
        wireguard_interface: config.wireguard.interface.get_ref().to_string(),
        wireguard_port: config.wireguard_port(),
        wireguard: match ready.hello.backend {
            Backend::Kernel => "kernel",
            Backend::Embedded => "embedded",
        },
        since,
        keep_open: config
            .firewall
            .keep_open
            .iter()
            .map(ToString::to_string)
            .collect(),
    }
}

fn start_threads(
    config: &Config,
    captures: Vec<std::os::fd::OwnedFd>,
    indices: &[u32],
    dropped: &Arc<Dropped>,
    look: impl Fn() -> Option<TagLook>,
    intake: &Intake,
) -> Result<(), StartError> {
    let links = network::links();
    let interfaces = config.knock.interfaces.get_ref();
    for ((name, index), socket) in interfaces.iter().zip(indices).zip(captures) {
        let source = Source {
            name: name.to_string(),
            index: *index,
            loopback: links
                .iter()
                .any(|link| link.loopback && link.name == name.as_str()),
            socket,
        };
        let intake = intake.clone();
        capture::start(source, Arc::clone(dropped), look(), move |captured| {
            intake.knock(captured)
        })
        .map_err(|source| StartError::Thread {
            what: "capture",
            source,
        })?;
    }
    Ok(())
}

/// Waits for the enforcer's end in a thread of its own.
fn watch(mut child: Child, intake: Intake) -> Result<(), StartError> {
    thread::Builder::new()
        .name("enforcer-watch".to_owned())
        .stack_size(64 * 1024)
        .spawn(move || {
            if let Ok(status) = child.wait() {
                intake.enforcer_ended(status);
            }
        })
        .map(|_| ())
        .map_err(|source| StartError::Thread {
            what: "the enforcer's watch",
            source,
        })
}

/// Waits in a thread of its own for somebody to set the clock.
fn watch_clock(set: io::Result<SetWatch>, intake: Intake) -> Result<(), StartError> {
    let watch = move || -> io::Result<()> {
        let set = set?;
        loop {
            set.wait()?;
            if !intake.clock_set() {
                return Ok(());
            }
        }
    };
    thread::Builder::new()
        .name("clock-watch".to_owned())
        .stack_size(64 * 1024)
        .spawn(move || {
            if let Err(error) = watch() {
                warn!(%error, "a clock that is set is noticed within half a minute only");
            }
        })
        .map(|_| ())
        .map_err(|source| StartError::Thread {
            what: "the clock's watch",
            source,
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with_pools(pools: &str) -> Config {
        let text = format!(
            "[knock]\ninterfaces = [\"eth0\"]\nport = 51820\npublic = \"192.0.2.1:51820\"\n[wireguard]\naddresses = {pools}\n"
        );
        Config::parse(&text, Path::new("/etc/spa/gateway.toml")).expect("sound")
    }

    #[test]
    fn the_smaller_pool_says_how_many_sessions_there_are() {
        assert_eq!(capacity(&with_pools("[\"10.200.0.1/30\"]")), 1);
        assert_eq!(
            capacity(&with_pools("[\"10.200.0.1/24\", \"fd5a:1::1/64\"]")),
            253
        );
        assert_eq!(
            capacity(&with_pools("[\"fd5a:1::1/64\"]")),
            spa_order::MAX_PEERS / 2
        );
        assert_eq!(
            capacity(&with_pools("[\"10.0.0.1/8\"]")),
            spa_order::MAX_PEERS / 2
        );
    }

    #[test]
    fn the_core_is_told_the_public_half_of_the_key() {
        let key = Zeroizing::new([7; 32]);
        let settings = settings(
            &with_pools("[\"10.200.0.1/24\", \"fd5a:1::1/64\"]"),
            &key,
            9,
        );
        assert_eq!(
            settings.wg_public,
            *spa_proto::KnockSecret::from_bytes([7; 32])
                .public()
                .as_bytes()
        );
        assert_eq!(settings.tunnel4.map(|(_, prefix)| prefix), Some(24));
        assert_eq!(settings.tunnel6.map(|(_, prefix)| prefix), Some(64));
    }
}
