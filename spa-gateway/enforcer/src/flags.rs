//! The command line the daemon starts us with: our limits, and the one place they are read.
//!
//! Every flag is known, every value in range, nothing is given twice that may be given once.

use std::ffi::{CStr, CString, OsString};
use std::net::IpAddr;

use spa_order::{MAX_KNOCK_INTERFACES, MAX_PEERS, MAX_TTL_MS};
use spa_wireguard::BackendChoice;

use crate::nft::{AccessLog, Masquerade, Mode, Plan, Port, TABLE};

/// The whole command line.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Flags {
    /// What the table is made for.
    pub plan: Plan,
    /// Which WireGuard may be used.
    pub backend: BackendChoice,
    /// The longest ttl of any order, milliseconds.
    pub max_ttl_ms: u32,
    /// The most peers.
    pub max_peers: u32,
    /// How many credentials there are now; the tag table has room for more.
    pub credentials: u32,
    /// The user `spa-tunnel` runs as: a name or a number.
    pub tunnel_user: String,
    /// What to do.
    pub task: Task,
}

/// What the enforcer is started for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Task {
    /// To take orders.
    Serve,
    /// To make the machine dark, and to end. Nothing needs to be there yet: no interface, no user, no daemon.
    Close,
    /// To take away what it and its predecessors made, and to end: the machine is no gateway any more.
    Clear,
    /// To say what is in the way of a gateway, on standard output, and to end. Changes nothing.
    Look,
}

/// One line: which flag, and what it takes.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum FlagError {
    /// Not one of ours.
    #[error("unknown flag {0}: spa-enforcer is started by spa-gateway, not by hand")]
    Unknown(String),
    /// Nothing behind it.
    #[error("{0} needs a value")]
    NoValue(String),
    /// A value out of range.
    #[error("{flag} {value}: expected {expected}")]
    Value {
        /// The flag.
        flag: String,
        /// What it was given.
        value: String,
        /// What it takes.
        expected: &'static str,
    },
    /// Twice or too often.
    #[error("{0} is given too often")]
    Again(String),
    /// Not at all.
    #[error("{0} is missing: spa-enforcer is started by spa-gateway, not by hand")]
    Missing(&'static str),
    /// The control channel open to the world.
    #[error(
        "--keep-open {0}/tcp is the control port, which is reached through the tunnel only: leave it out"
    )]
    ControlKeptOpen(u16),
    /// Rules of ours where there are none.
    #[error(
        "--sets leaves --keep-open and --masquerade to the ruleset of that table: leave them out"
    )]
    NotWithSets,
}

impl Flags {
    /// Parses the arguments, the program's name left out.
    ///
    /// # Errors
    /// See [`FlagError`].
    pub fn parse(arguments: impl Iterator<Item = OsString>) -> Result<Self, FlagError> {
        let mut given = Given::default();
        let mut arguments = arguments.map(|argument| argument.to_string_lossy().into_owned());
        while let Some(flag) = arguments.next() {
            if flag == "--masquerade" {
                once(&mut given.masquerade, &flag, ())?;
                continue;
            }
            let task = match flag.as_str() {
                "--close" => Some(Task::Close),
                "--clear" => Some(Task::Clear),
                "--look" => Some(Task::Look),
                _ => None,
            };
            if let Some(task) = task {
                once(&mut given.task, &flag, task)?;
                continue;
            }
            if flag == "--fw4" {
                once(&mut given.mode, "--sets or --fw4", Mode::Fw4)?;
                continue;
            }
            if !VALUED.contains(&flag.as_str()) {
                return Err(FlagError::Unknown(flag));
            }
            let value = arguments
                .next()
                .ok_or_else(|| FlagError::NoValue(flag.clone()))?;
            given.take(&flag, &value)?;
        }
        given.finish()
    }
}

const VALUED: [&str; 13] = [
    "--knock-interface",
    "--port",
    "--wg-interface",
    "--wg-port",
    "--wg-backend",
    "--address",
    "--max-ttl-ms",
    "--max-peers",
    "--credentials",
    "--control-port",
    "--keep-open",
    "--tunnel-user",
    "--sets",
];

#[derive(Default)]
struct Given {
    knock: Vec<String>,
    port: Option<u16>,
    tunnel: Option<String>,
    wireguard_port: Option<u16>,
    backend: Option<BackendChoice>,
    addresses: Vec<(IpAddr, u8)>,
    max_ttl_ms: Option<u32>,
    max_peers: Option<u32>,
    credentials: Option<u32>,
    control_port: Option<u16>,
    keep_open: Vec<Port>,
    masquerade: Option<()>,
    mode: Option<Mode>,
    task: Option<Task>,
    tunnel_user: Option<String>,
}

impl Given {
    fn take(&mut self, flag: &str, value: &str) -> Result<(), FlagError> {
        let wrong = |expected| FlagError::Value {
            flag: flag.to_owned(),
            value: value.to_owned(),
            expected,
        };
        let port = || {
            let port = value.parse().ok().filter(|port| *port > 0);
            port.ok_or_else(|| wrong("a port, 1 to 65535"))
        };
        let interface = || {
            let fits = (1..=15).contains(&value.len());
            let name = fits && !value.contains(|c: char| c == '/' || c.is_whitespace());
            name.then(|| value.to_owned())
                .ok_or_else(|| wrong("the name of an interface"))
        };
        match flag {
            "--knock-interface" => {
                if self.knock.len() >= MAX_KNOCK_INTERFACES {
                    return Err(FlagError::Again(flag.to_owned()));
                }
                self.knock.push(interface()?);
                Ok(())
            }
            "--port" => once(&mut self.port, flag, port()?),
            "--wg-interface" => once(&mut self.tunnel, flag, interface()?),
            "--wg-port" => once(&mut self.wireguard_port, flag, port()?),
            "--wg-backend" => {
                let choice = match value {
                    "auto" => BackendChoice::Auto,
                    "kernel" => BackendChoice::Kernel,
                    "embedded" => BackendChoice::Embedded,
                    _ => return Err(wrong("auto, kernel or embedded")),
                };
                once(&mut self.backend, flag, choice)
            }
            "--address" => {
                let network =
                    network(value).ok_or_else(|| wrong("ADDRESS/PREFIX, as 10.200.0.1/16"))?;
                if self
                    .addresses
                    .iter()
                    .any(|(other, _)| other.is_ipv4() == network.0.is_ipv4())
                {
                    return Err(FlagError::Again(format!("{flag} of one family")));
                }
                self.addresses.push(network);
                Ok(())
            }
            "--max-ttl-ms" => {
                let ttl = value
                    .parse()
                    .ok()
                    .filter(|ttl| (1..=MAX_TTL_MS).contains(ttl));
                once(
                    &mut self.max_ttl_ms,
                    flag,
                    ttl.ok_or_else(|| wrong("milliseconds, at most a day"))?,
                )
            }
            "--max-peers" => {
                let peers = value
                    .parse()
                    .ok()
                    .filter(|peers| (1..=MAX_PEERS).contains(peers));
                once(
                    &mut self.max_peers,
                    flag,
                    peers.ok_or_else(|| wrong("1 to 65536"))?,
                )
            }
            "--credentials" => {
                let credentials = value.parse().map_err(|_| wrong("a number"))?;
                once(&mut self.credentials, flag, credentials)
            }
            "--control-port" => once(&mut self.control_port, flag, port()?),
            "--keep-open" => {
                let port = kept_open(value).ok_or_else(|| wrong("PORT/tcp or PORT/udp"))?;
                self.keep_open.push(port);
                self.keep_open.sort_unstable();
                self.keep_open.dedup();
                Ok(())
            }
            "--sets" => {
                let table = table(value).ok_or_else(|| wrong("the name of an inet table"))?;
                once(&mut self.mode, "--sets or --fw4", Mode::Sets(table))
            }
            "--tunnel-user" => once(&mut self.tunnel_user, flag, value.to_owned()),
            _ => Err(FlagError::Unknown(flag.to_owned())),
        }
    }

    fn finish(self) -> Result<Flags, FlagError> {
        let control = Port {
            protocol: 6,
            port: required(self.control_port, "--control-port")?,
        };
        if self.keep_open.contains(&control) {
            return Err(FlagError::ControlKeptOpen(control.port));
        }
        if self.knock.is_empty() {
            return Err(FlagError::Missing("--knock-interface"));
        }
        if self.addresses.is_empty() {
            return Err(FlagError::Missing("--address"));
        }
        let mode = self.mode.unwrap_or(Mode::Own);
        // There it is the administrator's to say.
        if let Mode::Sets(_) = mode
            && (!self.keep_open.is_empty() || self.masquerade.is_some())
        {
            return Err(FlagError::NotWithSets);
        }
        let plan = Plan {
            mode,
            knock: self.knock,
            knock_port: required(self.port, "--port")?,
            tunnel: required(self.tunnel, "--wg-interface")?,
            wireguard_port: required(self.wireguard_port, "--wg-port")?,
            addresses: self.addresses,
            keep_open: self.keep_open,
            access_log: AccessLog::Off,
            masquerade: if self.masquerade.is_some() {
                Masquerade::Yes
            } else {
                Masquerade::No
            },
        };
        Ok(Flags {
            plan,
            backend: required(self.backend, "--wg-backend")?,
            max_ttl_ms: required(self.max_ttl_ms, "--max-ttl-ms")?,
            max_peers: required(self.max_peers, "--max-peers")?,
            credentials: required(self.credentials, "--credentials")?,
            tunnel_user: required(self.tunnel_user, "--tunnel-user")?,
            task: self.task.unwrap_or(Task::Serve),
        })
    }
}

fn once<T>(slot: &mut Option<T>, flag: &str, value: T) -> Result<(), FlagError> {
    match slot.replace(value) {
        Some(_) => Err(FlagError::Again(flag.to_owned())),
        None => Ok(()),
    }
}

fn required<T>(value: Option<T>, flag: &'static str) -> Result<T, FlagError> {
    value.ok_or(FlagError::Missing(flag))
}

/// An address with the length of the pool around it. A pool of less than two peers is a typing error.
fn network(value: &str) -> Option<(IpAddr, u8)> {
    let (address, prefix) = value.split_once('/')?;
    let (address, prefix): (IpAddr, u8) = (address.parse().ok()?, prefix.parse().ok()?);
    let fits = match address {
        IpAddr::V4(v4) => {
            let ordinary = !v4.is_unspecified() && !v4.is_loopback() && !v4.is_multicast();
            ordinary && (8..=30).contains(&prefix)
        }
        IpAddr::V6(v6) => {
            let ordinary = !v6.is_unspecified() && !v6.is_loopback() && !v6.is_multicast();
            ordinary && v6.to_ipv4_mapped().is_none() && (16..=126).contains(&prefix)
        }
    };
    fits.then_some((address, prefix))
}

/// A name `nft` takes without quotes, and not that of our own table. It is kept for the life of the process.
fn table(value: &str) -> Option<&'static CStr> {
    let is_word = |c: char| c.is_ascii_alphanumeric() || ['_', '-', '.'].contains(&c);
    let fits = value.starts_with(|c: char| c.is_ascii_alphabetic())
        && value.len() <= 63
        && value.chars().all(is_word)
        && value.as_bytes() != TABLE.to_bytes();
    let name = CString::new(value).ok().filter(|_| fits)?;
    Some(Box::leak(name.into_boxed_c_str()))
}

fn kept_open(value: &str) -> Option<Port> {
    let (port, protocol) = value.split_once('/')?;
    let protocol = match protocol {
        "tcp" => 6,
        "udp" => 17,
        _ => return None,
    };
    let port = port.parse().ok().filter(|port| *port > 0)?;
    Some(Port { protocol, port })
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = "--knock-interface eth0 --knock-interface ppp0 --port 51820 --wg-interface spa0 \
        --wg-port 51820 --wg-backend auto --address 10.200.0.1/16 --address fd5a:1::1/64 \
        --max-ttl-ms 86400000 --max-peers 1000 --credentials 12 --control-port 8700 --keep-open 22/tcp --masquerade \
        --tunnel-user spa-tunnel";

    fn parse(line: &str) -> Result<Flags, FlagError> {
        Flags::parse(line.split_whitespace().map(OsString::from))
    }

    #[test]
    fn the_daemons_command_line_is_understood() {
        let flags = parse(GOOD).expect("every flag");
        assert_eq!(flags.plan.knock, ["eth0", "ppp0"]);
        assert_eq!(
            flags.plan.keep_open,
            [Port {
                protocol: 6,
                port: 22
            }]
        );
        assert_eq!(flags.plan.addresses.len(), 2);
        assert_eq!(flags.plan.masquerade, Masquerade::Yes);
        assert_eq!((flags.max_ttl_ms, flags.max_peers), (86_400_000, 1000));
    }

    #[test]
    fn no_flag_may_be_missing() {
        for (flag, value) in [
            ("--port", "--port 51820"),
            ("--wg-interface", "--wg-interface spa0"),
            ("--wg-backend", "--wg-backend auto"),
            ("--max-ttl-ms", "--max-ttl-ms 86400000"),
            ("--max-peers", "--max-peers 1000"),
            ("--credentials", "--credentials 12"),
            ("--control-port", "--control-port 8700"),
            ("--tunnel-user", "--tunnel-user spa-tunnel"),
        ] {
            assert_eq!(
                parse(&GOOD.replace(value, "")),
                Err(FlagError::Missing(flag))
            );
        }
    }

    #[test]
    fn a_value_out_of_range_is_named() {
        for wrong in [
            "--port 0",
            "--port 65536",
            "--max-ttl-ms 0",
            "--max-ttl-ms 86400001",
            "--max-peers 65537",
            "--credentials -1",
            "--address 10.200.0.1",
            "--address 10.200.0.1/31",
            "--address 127.0.0.1/8",
            "--keep-open 22",
            "--keep-open 0/tcp",
            "--knock-interface a/b",
            "--wg-backend any",
            "--sets spa",
            "--sets 4",
        ] {
            assert!(
                matches!(parse(wrong), Err(FlagError::Value { .. })),
                "{wrong}"
            );
        }
    }

    #[test]
    fn nothing_is_given_twice_or_unknown() {
        let again = |extra: &str| parse(&format!("{GOOD} {extra}"));
        assert!(matches!(again("--port 1"), Err(FlagError::Again(_))));
        assert!(matches!(
            again("--address 10.9.0.1/16"),
            Err(FlagError::Again(_))
        ));
        assert!(matches!(again("--masquerade"), Err(FlagError::Again(_))));
        assert!(matches!(again("--verbose"), Err(FlagError::Unknown(_))));
        assert!(matches!(again("--keep-open"), Err(FlagError::NoValue(_))));
    }

    #[test]
    fn the_administrators_table_comes_with_none_of_our_rules() {
        let bare = GOOD.replace("--keep-open 22/tcp --masquerade", "");
        let flags = parse(&format!("{bare} --sets filter")).expect("every flag");
        assert_eq!(flags.plan.mode, Mode::Sets(c"filter"));
        let all = format!("{GOOD} --sets filter");
        assert_eq!(parse(&all), Err(FlagError::NotWithSets));
        let both = format!("{bare} --sets filter --fw4");
        assert!(matches!(parse(&both), Err(FlagError::Again(_))));
    }

    #[test]
    fn the_control_port_is_never_kept_open() {
        let line = format!("{GOOD} --keep-open 8700/tcp");
        assert_eq!(parse(&line), Err(FlagError::ControlKeptOpen(8700)));
    }
}
