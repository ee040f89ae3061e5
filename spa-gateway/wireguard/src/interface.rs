//! The interface as its owner holds it: one value, whichever WireGuard is behind it.

use std::net::IpAddr;
use std::os::fd::{AsFd, BorrowedFd};
use std::thread;
use std::time::{Duration, Instant};

use crate::altered::Altered;
use crate::embedded::Tunnel;
use crate::kernel::Wireguard;
use crate::link::{Adoption, Links};
use crate::message::MAX_ALLOWED;
use crate::plan::{Backend, BackendChoice, KEY_LEN, Peer, PeerState, Plan, Psk};
use crate::{WireguardError, link};

/// How often [`Interface::wait_handshake`] looks; neither backend announces a handshake.
const HANDSHAKE_POLL: Duration = Duration::from_millis(2);

/// A WireGuard interface that is up. Dropping it leaves a kernel interface with its peers in place (the next
/// [`Interface::create`] adopts it) and ends an embedded one; [`Interface::delete`] ends both.
#[derive(Debug)]
pub struct Interface {
    name: String,
    index: u32,
    links: Links,
    engine: Engine,
}

#[derive(Debug)]
enum Engine {
    Kernel(Wireguard),
    Embedded(Tunnel),
}

impl Interface {
    /// Makes the interface, or adopts the kernel WireGuard interface an earlier run of ours left, with its
    /// peers; addresses and MTU are as planned and it is up when this returns. A new one has no private key.
    ///
    /// # Errors
    /// An interface of that name that is not ours, a port in use, a missing privilege, an absent WireGuard:
    /// one sentence with its remedy each. Nothing is left behind.
    pub fn create(plan: &Plan<'_>) -> Result<Self, WireguardError> {
        link::check_name(plan.name)?;
        plan.addresses
            .iter()
            .try_for_each(|&network| link::check_prefix(network))?;
        let mut links = Links::open(plan.name)?;
        let adoption = links.look_for_ours(plan.name)?;
        let (index, engine) = match (plan.backend, adoption) {
            (BackendChoice::Auto | BackendChoice::Kernel, Adoption::Wireguard { index }) => {
                (index, Engine::Kernel(Wireguard::adopt(plan.name, index)?))
            }
            (BackendChoice::Embedded, Adoption::Wireguard { index }) => {
                links.delete(plan.name, index)?;
                Self::embed(&mut links, plan)?
            }
            (BackendChoice::Embedded, Adoption::Nothing) => Self::embed(&mut links, plan)?,
            (choice, Adoption::Nothing) => match (links.add_wireguard(plan.name)?, choice) {
                (Some(index), _) => (index, Engine::Kernel(Wireguard::open(plan.name, index)?)),
                (None, BackendChoice::Kernel) => return Err(WireguardError::NoKernelWireguard),
                (None, BackendChoice::Auto | BackendChoice::Embedded) => {
                    Self::embed(&mut links, plan)?
                }
            },
        };
        let mut interface = Self {
            name: plan.name.to_owned(),
            index,
            links,
            engine,
        };
        match interface.bring_up(plan) {
            Ok(()) => Ok(interface),
            Err(error) => {
                // An adopted interface stays: its peers are worth more than tidiness.
                if matches!(adoption, Adoption::Nothing) {
                    // The first error is the one to report.
                    let _ = interface.delete();
                }
                Err(error)
            }
        }
    }

    /// Which WireGuard carries it.
    pub fn backend(&self) -> Backend {
        match self.engine {
            Engine::Kernel(_) => Backend::Kernel,
            Engine::Embedded(_) => Backend::Embedded,
        }
    }

    /// The interface index.
    pub fn index(&self) -> u32 {
        self.index
    }

    /// The interface name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Sets the private key of the interface: once, before the first peer. The same key again changes nothing;
    /// another one holds from the next handshake of each peer on at the latest.
    ///
    /// # Errors
    /// The kernel's refusal, or the end of `spa-tunnel`.
    pub fn set_private_key(&mut self, key: &[u8; KEY_LEN]) -> Result<(), WireguardError> {
        match &mut self.engine {
            Engine::Kernel(wireguard) => wireguard.set_private_key(key),
            Engine::Embedded(tunnel) => tunnel.set_private_key(key),
        }
    }

    /// Adds a peer, or replaces the one of that key whole, in one step: preshared key, networks, endpoint and
    /// keepalive are the new ones and the old session is gone, so that [`PeerState::handshake_age`] speaks of the
    /// new preshared key. A network another peer had moves to this one.
    ///
    /// # Errors
    /// Too many networks, a prefix too long, the kernel's refusal, or the end of `spa-tunnel`. The embedded
    /// WireGuard refuses with `EINVAL` a peer put before [`set_private_key`](Self::set_private_key).
    pub fn put_peer(&mut self, peer: &Peer<'_>) -> Result<(), WireguardError> {
        check_networks(peer)?;
        match &mut self.engine {
            Engine::Kernel(wireguard) => wireguard.put_peer(peer),
            Engine::Embedded(tunnel) => tunnel.put_peer(peer),
        }
    }

    /// Puts many peers, as [`put_peer`](Self::put_peer) does each; the outcomes are in their order, one for each.
    pub fn put_peers(&mut self, peers: &[Peer<'_>]) -> Vec<Result<(), WireguardError>> {
        match &mut self.engine {
            Engine::Kernel(wireguard) => peers
                .iter()
                .map(|peer| check_networks(peer).and_then(|()| wireguard.put_peer(peer)))
                .collect(),
            Engine::Embedded(tunnel) => tunnel.put_peers(peers, check_networks),
        }
    }

    /// Gives a peer that is there another preshared key. It lives on: endpoint, networks and session stay, and the
    /// next handshake takes the new key. One that is not there is left so.
    ///
    /// # Errors
    /// The kernel's refusal, or the end of `spa-tunnel`.
    pub fn set_psk(&mut self, key: &[u8; KEY_LEN], psk: &Psk) -> Result<(), WireguardError> {
        match &mut self.engine {
            Engine::Kernel(wireguard) => wireguard.set_psk(key, psk),
            Engine::Embedded(tunnel) => tunnel.set_psk(key, psk),
        }
    }

    /// Removes a peer and its session; no packet of it passes any more when this returns. One that is not
    /// there is removed already.
    ///
    /// # Errors
    /// The kernel's refusal, or the end of `spa-tunnel`.
    pub fn remove_peer(&mut self, key: &[u8; KEY_LEN]) -> Result<(), WireguardError> {
        match &mut self.engine {
            Engine::Kernel(wireguard) => wireguard.remove_peer(key),
            Engine::Embedded(tunnel) => tunnel.remove_peer(key),
        }
    }

    /// Reads one peer; `None` if it is not there. The kernel knows no question for one peer, so this costs
    /// as much as [`peers`](Self::peers) there.
    ///
    /// # Errors
    /// The kernel's refusal, or the end of `spa-tunnel`.
    pub fn peer(&mut self, key: &[u8; KEY_LEN]) -> Result<Option<PeerState>, WireguardError> {
        match &mut self.engine {
            Engine::Kernel(wireguard) => {
                Ok(wireguard.peers()?.into_iter().find(|peer| peer.key == *key))
            }
            Engine::Embedded(tunnel) => tunnel.peer(key),
        }
    }

    /// Reads all peers, ordered by key.
    ///
    /// # Errors
    /// The kernel's refusal, or the end of `spa-tunnel`.
    pub fn peers(&mut self) -> Result<Vec<PeerState>, WireguardError> {
        match &mut self.engine {
            Engine::Kernel(wireguard) => wireguard.peers(),
            Engine::Embedded(tunnel) => tunnel.peers(),
        }
    }

    /// Waits until the first handshake with a peer is done.
    ///
    /// # Errors
    /// [`WireguardError::NoHandshake`] at the deadline, [`WireguardError::NoPeer`] if it is not there.
    pub fn wait_handshake(
        &mut self,
        key: &[u8; KEY_LEN],
        deadline: Instant,
    ) -> Result<PeerState, WireguardError> {
        loop {
            let peer = self.peer(key)?.ok_or_else(|| WireguardError::NoPeer {
                name: self.name.clone(),
            })?;
            if peer.handshake_age.is_some() {
                return Ok(peer);
            }
            if Instant::now() >= deadline {
                return Err(WireguardError::NoHandshake);
            }
            thread::sleep(HANDSHAKE_POLL);
        }
    }

    /// Sends a network into the interface. One that is there already is left as it is.
    ///
    /// # Errors
    /// [`WireguardError::RouteTaken`] where another interface has a route to the very same network, which
    /// is never replaced.
    pub fn add_route(&mut self, address: IpAddr, prefix: u8) -> Result<(), WireguardError> {
        link::check_prefix((address, prefix))?;
        self.links
            .add_route(&self.name, self.index, address, prefix)
    }

    /// Takes a route of ours away; one that is not there is removed already.
    ///
    /// # Errors
    /// The kernel's refusal.
    pub fn remove_route(&mut self, address: IpAddr, prefix: u8) -> Result<(), WireguardError> {
        link::check_prefix((address, prefix))?;
        self.links
            .remove_route(&self.name, self.index, address, prefix)
    }

    /// Tells whether the interface can still carry packets: `spa-tunnel` lives, or the kernel does the work.
    /// To be asked when [`as_fd`](AsFd::as_fd) becomes readable.
    ///
    /// # Errors
    /// [`WireguardError::TunnelEnded`].
    pub fn check(&mut self) -> Result<(), WireguardError> {
        match &mut self.engine {
            Engine::Kernel(_) => Ok(()),
            Engine::Embedded(tunnel) => tunnel.check(),
        }
    }

    /// Looks at what others may have changed with `wg set`: the private key, the port, peers, their preshared keys and networks. Every
    /// peer that is not as it was put here is taken away, all of them where key or port are others; the rest goes on. The kernel announces
    /// no change, so this has to be called as often as one may go unnoticed; peers of an adopted interface count as put here. Nobody but us can
    /// reach the peers of the embedded WireGuard: it has always changed nothing, and costs nothing.
    ///
    /// # Errors
    /// The kernel's refusal, which `ENODEV` is where the interface is gone.
    pub fn undo_others(&mut self) -> Result<Altered, WireguardError> {
        match &mut self.engine {
            Engine::Kernel(wireguard) => wireguard.undo_others(),
            Engine::Embedded(_) => Ok(Altered::default()),
        }
    }

    /// Removes the interface with its peers, addresses and routes, and ends `spa-tunnel`.
    ///
    /// # Errors
    /// The kernel's refusal, or a `spa-tunnel` that does not end.
    pub fn delete(mut self) -> Result<(), WireguardError> {
        // The interface first: from here on no packet passes, however slowly a process ends.
        self.links.delete(&self.name, self.index)?;
        match self.engine {
            Engine::Kernel(_) => Ok(()),
            Engine::Embedded(tunnel) => tunnel.end(),
        }
    }

    /// Removes a kernel interface that an earlier run of ours left, with its peers. None is removed already.
    ///
    /// # Errors
    /// An interface of that name that is not ours or still held by a `spa-tunnel`, or the kernel's refusal.
    pub fn remove(name: &str) -> Result<(), WireguardError> {
        link::check_name(name)?;
        let mut links = Links::open(name)?;
        match links.look_for_ours(name)? {
            Adoption::Wireguard { index } => links.delete(name, index),
            Adoption::Nothing => Ok(()),
        }
    }

    fn embed(links: &mut Links, plan: &Plan<'_>) -> Result<(u32, Engine), WireguardError> {
        let tunnel = Tunnel::start(plan)?;
        let index = links.mark_ours(plan.name)?;
        Ok((index, Engine::Embedded(tunnel)))
    }

    fn bring_up(&mut self, plan: &Plan<'_>) -> Result<(), WireguardError> {
        if let Engine::Kernel(wireguard) = &mut self.engine {
            wireguard.set_listen_port(plan.listen_port)?;
        }
        self.links
            .set_addresses(&self.name, self.index, plan.addresses)?;
        self.links
            .bring_up(&self.name, self.index, plan.mtu, plan.listen_port)
    }
}

fn check_networks(peer: &Peer<'_>) -> Result<(), WireguardError> {
    if peer.allowed.len() > MAX_ALLOWED {
        let count = peer.allowed.len();
        return Err(WireguardError::TooManyNetworks { count });
    }
    let mut networks = peer.allowed.iter();
    networks.try_for_each(|&network| link::check_prefix(network))
}

impl AsFd for Interface {
    /// A descriptor to poll for reading: readable (or hung up) means that `spa-tunnel` has ended, and
    /// [`Interface::check`] tells. Never to be read from. With the kernel's WireGuard it stays silent.
    fn as_fd(&self) -> BorrowedFd<'_> {
        match &self.engine {
            Engine::Kernel(wireguard) => wireguard.as_fd(),
            Engine::Embedded(tunnel) => tunnel.as_fd(),
        }
    }
}
