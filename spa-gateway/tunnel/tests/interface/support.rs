//! Two namespaces joined by a cable, a WireGuard interface in each, and a caller to try what passes.

use std::fs;
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::os::fd::AsFd;
use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use rustix::process::Pid;
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
use spa_wireguard::{BackendChoice, Interface, Peer, Plan, WireguardError};
use x25519_dalek::{PublicKey, StaticSecret};

/// How long anything may take that is to happen.
pub const PATIENCE: Duration = Duration::from_secs(10);
/// The port of the gateway's WireGuard.
pub const PORT: u16 = 51820;
/// One tick of waiting for a reply.
const TICK: Duration = Duration::from_millis(20);
/// What no test user of a machine is.
pub const NOBODY: u32 = 65534;

static LABS: AtomicU32 = AtomicU32::new(0);

/// Says loudly that a test does not run, and why.
macro_rules! lab_or_return {
    () => {
        match $crate::support::Lab::new() {
            Some(lab) => lab,
            None => return,
        }
    };
}
pub(crate) use lab_or_return;

/// The namespaces `gateway` and `client`, joined by a veth pair.
pub struct Lab {
    pub gateway: Namespace,
    pub client: Namespace,
}

/// A network namespace of its own, gone when dropped.
pub struct Namespace {
    name: String,
}

/// A private key and its public one.
pub struct Pair {
    pub private: [u8; 32],
    pub public: [u8; 32],
}

/// The private and public key made from one byte.
pub fn pair(seed: u8) -> Pair {
    let private = [seed; 32];
    Pair {
        private,
        public: PublicKey::from(&StaticSecret::from(private)).to_bytes(),
    }
}

/// The backend under test: `SPA_TEST_BACKEND=kernel`, else the embedded one.
pub fn backend() -> BackendChoice {
    match std::env::var("SPA_TEST_BACKEND").as_deref() {
        Ok("kernel") => BackendChoice::Kernel,
        _ => BackendChoice::Embedded,
    }
}

impl Lab {
    /// Makes the namespaces; `None`, loudly, without root.
    pub fn new() -> Option<Self> {
        if !rustix::process::geteuid().is_root() {
            eprintln!("NOT RUN: network namespaces need root");
            return None;
        }
        let number = LABS.fetch_add(1, Ordering::Relaxed);
        let prefix = format!("wg{}-{number}", std::process::id());
        let lab = Self {
            gateway: Namespace::new(&format!("{prefix}g")),
            client: Namespace::new(&format!("{prefix}c")),
        };
        lab.gateway.ip(&format!(
            "link add out0 type veth peer name out0 netns {}",
            lab.client.name
        ));
        for (namespace, number) in [(&lab.gateway, 1), (&lab.client, 2)] {
            namespace.ip(&format!("addr add 192.0.2.{number}/24 dev out0"));
            namespace.ip(&format!("addr add 2001:db8::{number}/64 dev out0 nodad"));
            namespace.ip("link set lo up");
            namespace.ip("link set out0 up");
        }
        Some(lab)
    }

    /// A gateway's interface that is up and has its key.
    pub fn gateway_interface(&self) -> Interface {
        let addresses = [(ip("10.200.0.1"), 16), (ip("fd5a:1::1"), 64)];
        let mut interface = self
            .gateway
            .create("spa0", PORT, &addresses)
            .expect("the gateway's interface");
        interface
            .set_private_key(&pair(1).private)
            .expect("the gateway's key");
        interface
    }

    /// A client's interface that is up and has its key.
    pub fn client_interface(&self) -> Interface {
        let addresses = [(ip("10.200.0.2"), 32), (ip("fd5a:1::2"), 128)];
        let mut interface = self
            .client
            .create("spa1", 40001, &addresses)
            .expect("the client's interface");
        interface
            .set_private_key(&pair(2).private)
            .expect("the client's key");
        interface
    }
}

impl Namespace {
    fn new(name: &str) -> Self {
        run(Command::new("ip").args(["netns", "add", name]));
        Self {
            name: name.to_owned(),
        }
    }

    /// Runs `ip` inside.
    pub fn ip(&self, arguments: &str) {
        run(Command::new("ip")
            .args(["-n", &self.name])
            .args(arguments.split(' ')));
    }

    /// What `ip` prints inside.
    pub fn shows(&self, arguments: &str) -> String {
        let output = Command::new("ip")
            .args(["-n", &self.name])
            .args(arguments.split(' '))
            .output()
            .expect("ip runs");
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    /// Runs `inside` on a thread that has entered the namespace.
    pub fn enter<T: Send>(&self, inside: impl FnOnce() -> T + Send) -> T {
        let handle =
            fs::File::open(Path::new("/run/netns").join(&self.name)).expect("its handle exists");
        std::thread::scope(|scope| {
            let entered = scope.spawn(|| {
                move_into_link_name_space(handle.as_fd(), Some(LinkNameSpaceType::Network))
                    .expect("root may enter");
                inside()
            });
            entered.join().expect("no panic inside")
        })
    }

    /// Creates an interface inside.
    pub fn create(
        &self,
        name: &str,
        port: u16,
        addresses: &[(IpAddr, u8)],
    ) -> Result<Interface, WireguardError> {
        self.create_with(&Plan {
            backend: backend(),
            ..plan(name, port, addresses)
        })
    }

    /// Creates an interface inside, wholly as planned.
    pub fn create_with(&self, plan: &Plan<'_>) -> Result<Interface, WireguardError> {
        self.enter(|| Interface::create(plan))
    }

    /// A UDP socket inside.
    pub fn socket(&self, address: &str) -> UdpSocket {
        let socket = self
            .enter(|| UdpSocket::bind(address))
            .expect("a free address of the namespace");
        socket
            .set_read_timeout(Some(TICK))
            .expect("a time that is not zero");
        socket
    }

    /// The `spa-tunnel` processes inside.
    pub fn tunnels(&self) -> Vec<Pid> {
        let inside = fs::metadata(Path::new("/run/netns").join(&self.name))
            .map(|handle| inode(&handle))
            .ok();
        let processes = fs::read_dir("/proc").expect("/proc is mounted");
        processes
            .filter_map(|entry| {
                let pid: i32 = entry.ok()?.file_name().to_str()?.parse().ok()?;
                let is_tunnel =
                    fs::read_to_string(format!("/proc/{pid}/comm")).ok()?.trim() == "spa-tunnel";
                let there = fs::metadata(format!("/proc/{pid}/ns/net"))
                    .map(|handle| inode(&handle))
                    .ok();
                (is_tunnel && there == inside)
                    .then(|| Pid::from_raw(pid))
                    .flatten()
            })
            .collect()
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        run(Command::new("ip").args(["netns", "delete", &self.name]));
    }
}

fn inode(metadata: &fs::Metadata) -> u64 {
    std::os::unix::fs::MetadataExt::ino(metadata)
}

/// A plan with what all tests have in common.
pub fn plan<'a>(name: &'a str, listen_port: u16, addresses: &'a [(IpAddr, u8)]) -> Plan<'a> {
    Plan {
        name,
        listen_port,
        addresses,
        mtu: 1420,
        backend: BackendChoice::Auto,
        tunnel_program: Path::new(env!("CARGO_BIN_EXE_spa-tunnel")),
        tunnel_uid: NOBODY,
        tunnel_gid: NOBODY,
    }
}

/// The client as the gateway knows it.
pub fn client_peer(psk: u8) -> Peer<'static> {
    const ALLOWED: [(IpAddr, u8); 2] = [
        (IpAddr::V4(std::net::Ipv4Addr::new(10, 200, 0, 2)), 32),
        (
            IpAddr::V6(std::net::Ipv6Addr::new(0xfd5a, 1, 0, 0, 0, 0, 0, 2)),
            128,
        ),
    ];
    Peer {
        key: pair(2).public,
        psk: [psk; 32].into(),
        allowed: &ALLOWED,
        endpoint: None,
        keepalive: None,
    }
}

/// The gateway as the client knows it.
pub fn gateway_peer(psk: u8, endpoint: &str) -> Peer<'static> {
    const ALLOWED: [(IpAddr, u8); 2] = [
        (IpAddr::V4(std::net::Ipv4Addr::new(10, 200, 0, 0)), 16),
        (
            IpAddr::V6(std::net::Ipv6Addr::new(0xfd5a, 1, 0, 0, 0, 0, 0, 0)),
            64,
        ),
    ];
    let endpoint = Some(endpoint.parse().expect("an address with its port"));
    Peer {
        key: pair(1).public,
        psk: [psk; 32].into(),
        allowed: &ALLOWED,
        endpoint,
        keepalive: Some(25),
    }
}

/// Both routes of the client into its tunnel.
pub fn route_to_gateway(client: &mut Interface) {
    client.add_route(ip("10.200.0.0"), 16).expect("a route");
    client.add_route(ip("fd5a:1::"), 64).expect("a route");
}

/// Sends until it arrives or the patience is out; true if it arrived.
pub fn arrives(from: &UdpSocket, to: &UdpSocket, patience: Duration) -> bool {
    let destination: SocketAddr = to.local_addr().expect("bound");
    let deadline = Instant::now() + patience;
    let mut buffer = [0; 16];
    while Instant::now() < deadline {
        from.send_to(b"knock knock", destination)
            .expect("a route to the destination");
        // The tick of the read is the pause between two attempts.
        if matches!(to.recv_from(&mut buffer), Ok((11, source)) if Some(source) == from.local_addr().ok())
        {
            return true;
        }
    }
    false
}

/// An address from its text.
pub fn ip(text: &str) -> IpAddr {
    text.parse().expect("an address")
}

fn run(command: &mut Command) {
    let output = command.output().expect("ip is installed");
    assert!(
        output.status.success(),
        "{command:?}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
}
