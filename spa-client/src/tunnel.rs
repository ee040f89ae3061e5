//! A session's WireGuard interface: addresses, peer, and routes for what was granted and nothing else.

use std::env;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, UdpSocket};
use std::os::fd::{AsFd, BorrowedFd};
use std::path::{Path, PathBuf};

use rustix::net::{AddressFamily, SocketFlags, SocketType, netdevice, socket_with};
use rustix::process::{getegid, geteuid};
use spa_proto::WgPsk;
use spa_wireguard::message::MAX_ALLOWED;
use spa_wireguard::{Backend, BackendChoice, Interface, Peer, PeerState, Plan, WireguardError};

use crate::routes::{self, Network};
use crate::session::Session;

/// The process that carries the tunnel where the kernel has no WireGuard.
const TUNNEL_PROGRAM: &str = "spa-tunnel";

/// Where distributions put programs that are not for people.
const LIBEXEC: [&str; 3] = ["/usr/libexec/spa", "/usr/lib/spa", "/usr/local/libexec/spa"];

/// `nobody`: what the embedded WireGuard runs as when we are root.
const NOBODY: u32 = 65_534;

/// The smallest MTU of IPv6, and so of any tunnel (RFC 8200 §5).
const LEAST_MTU: u16 = 1280;

/// A raised tunnel.
pub struct Raised {
    interface: Interface,
    peer: [u8; 32],
    routes: Vec<Network>,
    warnings: Vec<String>,
    /// Bytes of the peers before this one: a rekey begins a new count.
    counted: (u64, u64),
}

impl Raised {
    /// Makes the interface and starts the handshake; nothing is left behind on failure.
    ///
    /// # Errors
    /// The reason, with its remedy.
    pub fn raise(session: &Session) -> Result<Self, WireguardError> {
        let tunnel = &session.tunnel;
        let addresses: Vec<Network> = tunnel
            .addresses
            .iter()
            .map(|address| host(*address))
            .collect();
        let program = tunnel_program().unwrap_or_else(|| PathBuf::from(TUNNEL_PROGRAM));
        let (uid, gid) = tunnel_user();
        let mut interface = Interface::create(&Plan {
            name: &session.interface,
            listen_port: tunnel.listen_port,
            addresses: &addresses,
            mtu: u32::from(tunnel.mtu.max(LEAST_MTU)),
            backend: BackendChoice::Auto,
            tunnel_program: &program,
            tunnel_uid: uid,
            tunnel_gid: gid,
        })?;
        match furnish(&mut interface, session) {
            Ok((routes, warnings)) => Ok(Self {
                interface,
                peer: tunnel.peer,
                routes,
                warnings,
                counted: (0, 0),
            }),
            Err(error) => {
                // The first error is the one to report.
                let _ = interface.delete();
                Err(error)
            }
        }
    }

    /// What to tell the person about routes: of the last time that some were put.
    #[must_use]
    pub fn warnings(&self) -> &[String] {
        &self.warnings
    }

    /// The routes that lead into the tunnel.
    #[must_use]
    pub fn routes(&self) -> &[Network] {
        &self.routes
    }

    /// Which WireGuard carries it.
    #[must_use]
    pub fn backend(&self) -> Backend {
        self.interface.backend()
    }

    /// What WireGuard says of the gateway.
    ///
    /// # Errors
    /// When the tunnel is gone.
    pub fn state(&mut self) -> Result<PeerState, WireguardError> {
        self.interface.check()?;
        let name = self.interface.name().to_owned();
        // A TUN device that is taken away looks like a silent one to the process that holds it.
        if !exists(&name) {
            return Err(WireguardError::Removed { name });
        }
        let state = self
            .interface
            .peer(&self.peer)?
            .ok_or(WireguardError::NoPeer { name })?;
        let (rx, tx) = self.counted;
        Ok(PeerState {
            rx: state.rx.saturating_add(rx),
            tx: state.tx.saturating_add(tx),
            ..state
        })
    }

    /// Puts the peer anew with this preshared key, and with routes that were not known when the tunnel was raised; the
    /// new handshake begins at once. Connections inside wait for it and go on.
    ///
    /// # Errors
    /// When WireGuard does not take it.
    pub fn rekey(
        &mut self,
        session: &Session,
        psk: &WgPsk,
        more: &[Network],
    ) -> Result<(), WireguardError> {
        let state = self.state()?;
        let mut granted = session.tunnel.routes.clone();
        granted.extend(
            more.iter()
                .filter(|one| !session.tunnel.routes.contains(one)),
        );
        let (mut wanted, mut warnings) = wanted(session, &granted);
        warnings.retain(|warning| !self.warnings.contains(warning));
        if wanted.len() > MAX_ALLOWED {
            wanted.truncate(MAX_ALLOWED);
            warnings.push(format!(
                "more than {MAX_ALLOWED} networks are granted, and a tunnel carries no more: the rest is not reached"
            ));
        }
        self.interface.put_peer(&peer(session, psk, &wanted))?;
        self.counted = (state.rx, state.tx);
        self.warnings = warnings;
        for (address, prefix) in wanted {
            if self.routes.contains(&(address, prefix)) {
                continue;
            }
            match self.interface.add_route(address, prefix) {
                Ok(()) => self.routes.push((address, prefix)),
                Err(error @ WireguardError::RouteTaken { .. }) => {
                    self.warnings.push(error.to_string());
                }
                Err(error) => return Err(error),
            }
        }
        self.prod(session);
        Ok(())
    }

    /// Sends something through the tunnel, so that the gateway sees where we are and WireGuard makes a handshake if it
    /// has none.
    pub fn prod(&self, session: &Session) {
        if let Some(address) = session.tunnel.gateway {
            start_handshake(address, session.tunnel.control_port);
        }
    }

    /// Removes interface, addresses, routes and keys.
    ///
    /// # Errors
    /// When the kernel keeps it.
    pub fn lower(self) -> Result<(), WireguardError> {
        self.interface.delete()
    }
}

impl AsFd for Raised {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.interface.as_fd()
    }
}

type Furnished = (Vec<Network>, Vec<String>);

/// The networks that lead into the tunnel, and what to say of the others.
fn wanted(session: &Session, granted: &[Network]) -> Furnished {
    let tunnel = &session.tunnel;
    let outside = [session.gateway.ip(), tunnel.endpoint.ip()];
    let judged = routes::judge(
        granted,
        &outside,
        &routes::local_networks(&session.interface),
    );
    let warnings: Vec<String> = judged.iter().filter_map(routes::Judged::warning).collect();
    let mut wanted: Vec<Network> = judged.iter().filter_map(routes::Judged::taken).collect();
    let inside = tunnel
        .gateway
        .filter(|address| !outside.contains(address))
        .map(host);
    if let Some(network) = inside
        && !wanted.contains(&network)
    {
        // First, so that it is there whatever else does not fit.
        wanted.insert(0, network);
    }
    (wanted, warnings)
}

fn peer<'a>(session: &Session, psk: &WgPsk, allowed: &'a [Network]) -> Peer<'a> {
    let tunnel = &session.tunnel;
    Peer {
        key: tunnel.peer,
        psk: WgPsk::expose(psk).to_owned().into(),
        allowed,
        endpoint: Some(tunnel.endpoint),
        keepalive: (tunnel.keepalive > 0).then_some(tunnel.keepalive),
    }
}

fn furnish(interface: &mut Interface, session: &Session) -> Result<Furnished, WireguardError> {
    let tunnel = &session.tunnel;
    let (wanted, mut warnings) = wanted(session, &tunnel.routes);
    interface.set_private_key(tunnel.private_key.expose())?;
    interface.put_peer(&peer(session, &tunnel.psk, &wanted))?;

    let mut taken = Vec::with_capacity(wanted.len());
    for (address, prefix) in wanted {
        match interface.add_route(address, prefix) {
            Ok(()) => taken.push((address, prefix)),
            Err(error @ WireguardError::RouteTaken { .. }) => warnings.push(error.to_string()),
            Err(error) => return Err(error),
        }
    }
    if tunnel.keepalive == 0
        && let Some(address) = tunnel.gateway
    {
        start_handshake(address, tunnel.control_port);
    }
    Ok((taken, warnings))
}

/// Without a keepalive it is the first packet that starts the handshake: one byte to the control port, which no UDP
/// service of the gateway has. Whether it arrives does not matter.
fn start_handshake(gateway: IpAddr, control_port: u16) {
    let any: IpAddr = if gateway.is_ipv6() {
        Ipv6Addr::UNSPECIFIED.into()
    } else {
        Ipv4Addr::UNSPECIFIED.into()
    };
    let _ = UdpSocket::bind((any, 0))
        .and_then(|socket| socket.send_to(&[0], (gateway, control_port.max(1))));
}

fn host(address: IpAddr) -> Network {
    (address, if address.is_ipv6() { 128 } else { 32 })
}

/// Who `spa-tunnel` runs as: nobody under root, else ourselves, since we may not change users.
#[must_use]
pub fn tunnel_user() -> (u32, u32) {
    let (uid, gid) = (geteuid().as_raw(), getegid().as_raw());
    if uid == 0 {
        (NOBODY, NOBODY)
    } else {
        (uid, gid)
    }
}

/// Finds `spa-tunnel`: beside us, in PATH, or where distributions put such programs.
#[must_use]
pub fn tunnel_program() -> Option<PathBuf> {
    let own = env::current_exe()
        .ok()
        .and_then(|own| own.parent().map(Path::to_path_buf));
    let path = env::var_os("PATH").unwrap_or_default();
    own.into_iter()
        .chain(env::split_paths(&path).collect::<Vec<_>>())
        .chain(LIBEXEC.iter().map(PathBuf::from))
        .map(|directory| directory.join(TUNNEL_PROGRAM))
        .find(|program| program.is_file())
}

/// Tells whether an interface of this name exists.
#[must_use]
pub fn exists(interface: &str) -> bool {
    socket_with(
        AddressFamily::INET,
        SocketType::DGRAM,
        SocketFlags::CLOEXEC,
        None,
    )
    .is_ok_and(|socket| netdevice::name_to_index(&socket, interface).is_ok())
}

/// Removes an interface a dead agent left behind. One that is not there is removed already.
///
/// # Errors
/// When it is not ours, or the kernel keeps it.
pub fn remove_leftover(name: &str) -> Result<(), WireguardError> {
    if !exists(name) {
        return Ok(());
    }
    let (uid, gid) = tunnel_user();
    Interface::create(&Plan {
        name,
        listen_port: 0,
        addresses: &[],
        mtu: u32::from(LEAST_MTU),
        backend: BackendChoice::Kernel,
        tunnel_program: Path::new(TUNNEL_PROGRAM),
        tunnel_uid: uid,
        tunnel_gid: gid,
    })?
    .delete()
}
