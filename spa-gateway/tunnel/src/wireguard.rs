//! gotatun, as the requests want it. It answers at most 100 handshake messages a second; beyond that a client is sent a
//! cookie and comes again after five seconds.
//!
//! Invariant: a peer that is put is new; nothing of one it replaces lives on, neither its session nor its keys.

use std::io;
use std::net::IpAddr;
use std::time::Duration;

use gotatun::device::configure::PeerStats;
use gotatun::device::{Device, DeviceBuilder, Error, Peer as Wanted};
use gotatun::x25519::{PublicKey, StaticSecret};
use ipnetwork::IpNetwork;
use spa_wireguard::{KEY_LEN, Peer, PeerState, Psk};
use tokio::time::timeout;

use crate::device::Tun;
use crate::port::Port;

/// How long a handshake just begun may hold up the next request. The initiation leaves within microseconds; the
/// rest is waiting for the other side, which is worth a moment since the next request asks for just that.
const FIRST_HANDSHAKE: Duration = Duration::from_millis(50);

/// A running WireGuard.
pub struct Wireguard {
    device: Device<(Port, Tun, Tun)>,
    nobody: PublicKey,
}

impl Wireguard {
    /// Brings it up with the private key.
    pub async fn bring_up(key: &[u8; KEY_LEN], port: Port, tun: Tun) -> io::Result<Self> {
        // gotatun 0.10 carries packets only if it has a peer when it is built: this one has no networks, no
        // endpoint and a key nobody holds.
        let mut nobody = [0; KEY_LEN];
        getrandom::fill(&mut nobody).map_err(io::Error::other)?;
        let nobody = PublicKey::from(nobody);
        let device = DeviceBuilder::new()
            .with_private_key(StaticSecret::from(*key))
            .with_udp(port)
            .with_ip(tun)
            .with_peer(Wanted::new(nobody))
            .build()
            .await
            .map_err(as_io)?;
        Ok(Self { device, nobody })
    }

    /// Takes another private key; the same one changes nothing.
    pub async fn set_key(&self, key: &[u8; KEY_LEN]) -> io::Result<()> {
        let key = StaticSecret::from(*key);
        self.device
            .write(async |device| device.set_private_key(key).await)
            .await
            .map_err(as_io)
    }

    /// Adds the peer, or puts it in the place of the one of that key; no packet passes in between.
    pub async fn put(&self, peer: &Peer<'_>) -> io::Result<()> {
        let key = PublicKey::from(peer.key);
        let mut wanted = Wanted::new(key)
            .with_preshared_key(*peer.psk.expose())
            .with_allowed_ips(peer.allowed.iter().filter_map(network));
        wanted.endpoint = peer.endpoint;
        wanted.keepalive = peer.keepalive;
        let replace = self.device.write(async |device| {
            device.remove_peer(&key).await;
            device.add_peer(wanted)
        });
        replace.await.map(drop).map_err(as_io)
    }

    /// Sends a handshake initiation now; gotatun by itself would at its next look at the timers, up to 250 ms later.
    pub async fn greet(&self, key: &[u8; KEY_LEN]) {
        // Done, too late, or the peer is gone: its timers go on with it either way.
        let _ = timeout(
            FIRST_HANDSHAKE,
            self.device.force_handshake(&PublicKey::from(*key)),
        )
        .await;
    }

    /// Gives a peer that is there another preshared key; its session lives on until the next handshake.
    pub async fn set_psk(&self, key: &[u8; KEY_LEN], psk: &Psk) -> io::Result<()> {
        let key = PublicKey::from(*key);
        let psk = *psk.expose();
        self.device
            .write(async |device| {
                device
                    .modify_peer(&key, |peer| peer.set_preshared_key(Some(psk)))
                    .await
            })
            .await
            .map(drop)
            .map_err(as_io)
    }

    /// Removes a peer, there or not.
    pub async fn remove(&self, key: &[u8; KEY_LEN]) -> io::Result<()> {
        let key = PublicKey::from(*key);
        self.device
            .write(async |device| device.remove_peer(&key).await)
            .await
            .map(drop)
            .map_err(as_io)
    }

    /// Tells about all peers.
    pub async fn peers(&self) -> Vec<PeerState> {
        let peers = self.device.read(async |device| device.peers().await).await;
        peers
            .iter()
            .filter(|peer| peer.peer.public_key != self.nobody)
            .map(state)
            .collect()
    }

    /// Waits until it cannot go on.
    pub async fn failed(&mut self) {
        self.device.wait().await;
    }

    /// Stops it. Every key gotatun wipes on drop is wiped; the rest goes with the process.
    pub async fn stop(self) {
        self.device.stop().await;
    }
}

fn network(&(address, prefix): &(IpAddr, u8)) -> Option<IpNetwork> {
    // The message was refused already if a prefix was too long.
    IpNetwork::new(address, prefix).ok()
}

fn state(peer: &PeerStats) -> PeerState {
    PeerState {
        key: *peer.peer.public_key.as_bytes(),
        endpoint: peer.peer.endpoint,
        handshake_age: peer.stats.last_handshake,
        rx: peer.stats.rx_bytes as u64,
        tx: peer.stats.tx_bytes as u64,
    }
}

fn as_io(error: Error) -> io::Error {
    match error {
        Error::IoError(error) | Error::Bind(error, _) => error,
        other => io::Error::other(other),
    }
}
