//! The place where everything happens: a home with two machines behind one NAT, a stranger, the gateway, and the LAN it guards.
//!
//! ```text
//!   client    192.168.7.10 ──┐
//!             2001:db8:7::10 │ router: NAT for IPv4, plain routing for IPv6
//!   neighbour 192.168.8.10 ──┼── 198.51.100.1 ─── 198.51.100.10 gateway 10.0.5.1 ─── 10.0.5.10 lan
//!             2001:db8:8::10 │   2001:db8:1::1    2001:db8:1::10       fd00:5::1     fd00:5::10
//!   stranger  203.0.113.66 ──┘                    eth0             lan0
//!             2001:db8:66::66 (not translated)
//! ```

use std::fs;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, Ordering};

use anyhow::Context;

use crate::net::{Lab, Namespace};
use crate::scan::Scanner;
use crate::serve::{self, Service};
use crate::wire::{Direction, Wire};

/// The gateway as the outside knows it.
pub const GATEWAY: &str = "198.51.100.10";
/// The same for IPv6.
pub const GATEWAY6: &str = "2001:db8:1::10";
/// Where the home's machines appear to come from.
pub const HOME: &str = "198.51.100.1";
/// The knock port, which is the WireGuard port too.
pub const PORT: u16 = 51820;
/// The machine in the LAN.
pub const SERVER: &str = "10.0.5.10";
/// A second address of it, for resources that are somewhere else.
pub const SERVER2: &str = "10.0.5.20";
/// Its IPv6 address.
pub const SERVER6: &str = "fd00:5::10";
/// The web server's port.
pub const WEB: u16 = 443;
/// The database's port.
pub const DATABASE: u16 = 5432;

static TOWNS: AtomicU32 = AtomicU32::new(0);

/// All machines, wired up, with services in the LAN and nothing of ours running yet.
#[derive(Debug)]
pub struct Town {
    /// A person's computer.
    pub client: Namespace,
    /// Another computer behind the same NAT.
    pub neighbour: Namespace,
    /// The NAT router and the internet in one.
    pub router: Namespace,
    /// Somebody on the internet.
    pub stranger: Namespace,
    /// The gateway.
    pub gateway: Namespace,
    /// The machine the gateway guards.
    pub lan: Namespace,
    /// The web server on it.
    pub web: Service,
    /// The database on it.
    pub database: Service,
    /// Configuration, state and sockets of this town's programs; removed with it.
    pub folder: PathBuf,
    /// Where programs leave their words; kept when a test fails.
    pub logs: PathBuf,
    // Last: the namespaces go after everything that uses them.
    _lab: Lab,
}

impl Town {
    /// Builds a town with its own folder below the temporary directory.
    ///
    /// # Errors
    /// When the machine does not let us.
    pub fn build() -> anyhow::Result<Self> {
        let number = TOWNS.fetch_add(1, Ordering::Relaxed);
        // Short, because paths of unix sockets end at 107 bytes.
        let folder = std::env::temp_dir().join(format!("e2e{}-{number}", std::process::id()));
        fs::create_dir(&folder).with_context(|| format!("making {}", folder.display()))?;
        let logs = folder.join("logs");
        Self::build_in(folder, logs)
    }

    /// Builds a town with given folders.
    ///
    /// # Errors
    /// When the machine does not let us.
    pub fn build_in(folder: PathBuf, logs: PathBuf) -> anyhow::Result<Self> {
        fs::create_dir_all(&folder)?;
        fs::create_dir_all(&logs)?;
        let mut lab = Lab::new()?;
        let client = lab.namespace("client")?;
        let neighbour = lab.namespace("neighbour")?;
        let router = lab.namespace("router")?;
        let stranger = lab.namespace("stranger")?;
        let gateway = lab.namespace("gateway")?;
        let lan = lab.namespace("lan")?;

        for space in [&router, &gateway] {
            space.sysctl("net/ipv4/ip_forward", "1")?;
            space.sysctl("net/ipv6/conf/all/forwarding", "1")?;
        }
        lab.join((&client, "eth0"), (&router, "home0"))?;
        lab.join((&neighbour, "eth0"), (&router, "home1"))?;
        lab.join((&stranger, "eth0"), (&router, "far"))?;
        lab.join((&router, "wan"), (&gateway, "eth0"))?;
        lab.join((&gateway, "lan0"), (&lan, "eth0"))?;

        router.ip(
            "address add 192.168.7.1/24 dev home0\naddress add 2001:db8:7::1/64 dev home0 nodad\n\
             address add 192.168.8.1/24 dev home1\naddress add 2001:db8:8::1/64 dev home1 nodad\n\
             address add 203.0.113.1/24 dev far\naddress add 2001:db8:66::1/64 dev far nodad\n\
             address add 198.51.100.1/24 dev wan\naddress add 2001:db8:1::1/64 dev wan nodad",
        )?;
        host(
            &client,
            "192.168.7.10/24",
            "192.168.7.1",
            "2001:db8:7::10/64",
            "2001:db8:7::1",
        )?;
        host(
            &neighbour,
            "192.168.8.10/24",
            "192.168.8.1",
            "2001:db8:8::10/64",
            "2001:db8:8::1",
        )?;
        host(
            &stranger,
            "203.0.113.66/24",
            "203.0.113.1",
            "2001:db8:66::66/64",
            "2001:db8:66::1",
        )?;
        host(
            &gateway,
            "198.51.100.10/24",
            "198.51.100.1",
            "2001:db8:1::10/64",
            "2001:db8:1::1",
        )?;
        gateway.ip("address add 10.0.5.1/24 dev lan0\naddress add fd00:5::1/64 dev lan0 nodad")?;
        host(
            &lan,
            "10.0.5.10/24",
            "10.0.5.1",
            "fd00:5::10/64",
            "fd00:5::1",
        )?;
        lan.ip("address add 10.0.5.20/24 dev eth0")?;
        // The stranger is neither translated nor tracked: a scan of 131,072 ports would fill the table and look like silence.
        router.nft(
            "table ip home {
               chain out {
                 type nat hook postrouting priority srcnat
                 ip saddr 192.168.0.0/16 oifname wan meta l4proto { tcp, udp } masquerade to :40000-50000 random
                 ip saddr 192.168.0.0/16 oifname wan masquerade
               }
             }
             table inet far {
               chain untracked {
                 type filter hook prerouting priority raw
                 iifname far notrack
                 ip daddr 203.0.113.0/24 notrack
                 ip6 daddr 2001:db8:66::/64 notrack
               }
             }",
        )?;
        let web = serve::web(&lan, any(WEB))?;
        let database = serve::database(&lan, any(DATABASE))?;
        Ok(Self {
            client,
            neighbour,
            router,
            stranger,
            gateway,
            lan,
            web,
            database,
            folder,
            logs,
            _lab: lab,
        })
    }

    /// A scanner at the stranger's, IPv4.
    pub fn scanner(&self) -> Scanner<'_> {
        self.scanner_from(address("203.0.113.66"))
    }

    /// A scanner at the stranger's, IPv6.
    pub fn scanner6(&self) -> Scanner<'_> {
        self.scanner_from(address("2001:db8:66::66"))
    }

    fn scanner_from(&self, address: IpAddr) -> Scanner<'_> {
        Scanner {
            from: &self.stranger,
            interface: "eth0",
            address,
            target: (&self.gateway, "eth0"),
        }
    }

    /// Everything the gateway sends to the outside from now on.
    ///
    /// # Errors
    /// When the capture cannot be opened.
    pub fn tap_leaving(&self) -> anyhow::Result<Wire> {
        Wire::tap(&self.gateway, "eth0", Direction::Outgoing)
    }

    /// Everything that reaches the gateway from outside from now on.
    ///
    /// # Errors
    /// When the capture cannot be opened.
    pub fn tap_arriving(&self) -> anyhow::Result<Wire> {
        Wire::tap(&self.gateway, "eth0", Direction::Incoming)
    }
}

impl Drop for Town {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("what was said is in {}", self.logs.display());
        } else if self.logs.starts_with(&self.folder) {
            let _left_for_the_temporary_directory = fs::remove_dir_all(&self.folder);
        }
    }
}

/// An address that is written in this file or in a test.
///
/// # Panics
/// When it is none.
pub fn address(text: &str) -> IpAddr {
    text.parse().expect("an address in the source")
}

/// An address and port that are written in this file or in a test.
pub fn endpoint(text: &str, port: u16) -> SocketAddr {
    SocketAddr::new(address(text), port)
}

fn any(port: u16) -> SocketAddr {
    endpoint("::", port)
}

fn host(space: &Namespace, v4: &str, via4: &str, v6: &str, via6: &str) -> anyhow::Result<()> {
    space.ip(&format!(
        "address add {v4} dev eth0\naddress add {v6} dev eth0 nodad\n\
         route add default via {via4}\nroute add default via {via6}"
    ))
}
