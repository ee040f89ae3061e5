//! Whether the kernel's interface is still what its owner made of it: WireGuard tells nobody who else changes it (`wg set`), so
//! that it has to be looked at.
//!
//! Invariant: what ought to be is what the kernel acknowledged or what an adopted interface had, and nothing else.

use std::collections::BTreeMap;
use std::fmt;
use std::net::IpAddr;

use netlink_packet_wireguard::{
    WireguardAllowedIp, WireguardAllowedIpAttr, WireguardAttribute, WireguardPeer,
    WireguardPeerAttribute,
};
use zeroize::Zeroizing;

use crate::plan::{KEY_LEN, Peer, Psk};

type Key = [u8; KEY_LEN];
type Network = (IpAddr, u8);

/// What somebody else changed.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Altered {
    /// Another private key, or none.
    pub key: bool,
    /// Another port.
    pub port: bool,
    /// Peers nobody ordered.
    pub added: Vec<Key>,
    /// Peers that are gone.
    pub removed: Vec<Key>,
    /// Peers with another preshared key or other networks, those included that lost a network to an added one.
    pub changed: Vec<Key>,
}

impl Altered {
    /// Whether all is as it ought to be.
    pub fn is_nothing(&self) -> bool {
        *self == Self::default()
    }
}

impl fmt::Display for Altered {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let peers = [
            (self.added.len(), "added"),
            (self.removed.len(), "removed"),
            (self.changed.len(), "changed"),
        ];
        let peers = peers
            .into_iter()
            .filter(|(count, _)| *count > 0)
            .map(|(count, what)| match count {
                1 => format!("a peer {what}"),
                _ => format!("{count} peers {what}"),
            });
        let own = [
            (self.key, "another private key"),
            (self.port, "another port"),
        ]
        .into_iter()
        .filter(|(is, _)| *is)
        .map(|(_, what)| what.to_owned());
        f.write_str(&own.chain(peers).collect::<Vec<_>>().join(", "))
    }
}

/// An interface, as far as others can change what passes through it.
#[derive(Debug, Default)]
pub struct Device {
    private: Option<Zeroizing<Key>>,
    port: Option<u16>,
    peers: BTreeMap<Key, Lasting>,
    /// Which peer has a network: one at most, as in the kernel.
    owners: BTreeMap<Network, Key>,
}

/// What of a peer only its owner changes.
#[derive(Debug)]
struct Lasting {
    psk: Psk,
    /// In order.
    networks: Vec<Network>,
}

impl Device {
    /// Reads a dump, whose messages go on where the last one ended.
    pub fn of<'a>(attributes: impl IntoIterator<Item = &'a WireguardAttribute>) -> Self {
        let mut device = Self::default();
        for attribute in attributes {
            match attribute {
                WireguardAttribute::PrivateKey(key) => device.set_private_key(key),
                WireguardAttribute::ListenPort(port) => device.set_port(*port),
                WireguardAttribute::Peers(peers) => {
                    for peer in peers {
                        device.take(peer);
                    }
                }
                _ => {}
            }
        }
        device
    }

    /// Notes the private key, as the kernel keeps it (`curve25519_clamp_secret`).
    pub fn set_private_key(&mut self, key: &Key) {
        let mut clamped = Zeroizing::new(*key);
        clamped[0] &= 248;
        clamped[31] = clamped[31] & 127 | 64;
        self.private = Some(clamped);
    }

    /// Notes the port.
    pub fn set_port(&mut self, port: u16) {
        self.port = Some(port);
    }

    /// Notes a peer in the place of the one of its key; a network another one had is its own now.
    pub fn put(&mut self, peer: &Peer<'_>) {
        self.remove(&peer.key);
        let psk = Psk::from(*peer.psk.expose());
        self.peers.insert(peer.key, Lasting::new(psk));
        for network in peer.allowed {
            self.give(peer.key, masked(*network));
        }
    }

    /// Notes a preshared key, if the peer is there.
    pub fn set_psk(&mut self, key: &Key, psk: &Psk) {
        if let Some(peer) = self.peers.get_mut(key) {
            peer.psk = Psk::from(*psk.expose());
        }
    }

    /// Forgets a peer.
    pub fn remove(&mut self, key: &Key) {
        let networks = self.peers.remove(key).map(|peer| peer.networks);
        for network in networks.unwrap_or_default() {
            self.owners.remove(&network);
        }
    }

    /// Compares with what was found. What nobody has said yet, a key or a port, may be any.
    pub fn compare(&self, found: &Self) -> Altered {
        let key = self.private.is_some() && self.private != found.private;
        let port = self.port.is_some() && self.port != found.port;
        let is_missing = |key: &&Key| !found.peers.contains_key(*key);
        let is_new = |key: &&Key| !self.peers.contains_key(*key);
        let is_another = |(key, peer): &(&Key, &Lasting)| {
            self.peers.get(*key).is_some_and(|ought| ought != *peer)
        };
        let changed = found.peers.iter().filter(is_another);
        Altered {
            key,
            port,
            added: found.peers.keys().filter(is_new).copied().collect(),
            removed: self.peers.keys().filter(is_missing).copied().collect(),
            changed: changed.map(|(key, _)| *key).collect(),
        }
    }

    /// Takes one peer of a dump. One with many networks goes on in the next message, with its key and further networks only.
    fn take(&mut self, dumped: &WireguardPeer) {
        let key = dumped.iter().find_map(|attribute| match attribute {
            WireguardPeerAttribute::PublicKey(key) => Some(*key),
            _ => None,
        });
        let Some(key) = key else { return };
        self.peers
            .entry(key)
            .or_insert_with(|| Lasting::new(Psk::from([0; KEY_LEN])));
        for attribute in dumped.iter() {
            match attribute {
                WireguardPeerAttribute::PresharedKey(psk) => self.set_psk(&key, &Psk::from(*psk)),
                WireguardPeerAttribute::AllowedIps(networks) => {
                    for network in networks.iter().filter_map(network) {
                        self.give(key, network);
                    }
                }
                _ => {}
            }
        }
    }

    fn give(&mut self, key: Key, network: Network) {
        if let Some(before) = self.owners.insert(network, key)
            && let Some(peer) = self.peers.get_mut(&before)
        {
            peer.networks.retain(|its| *its != network);
        }
        if let Some(peer) = self.peers.get_mut(&key) {
            let place = peer.networks.partition_point(|its| *its < network);
            peer.networks.insert(place, network);
        }
    }
}

impl Lasting {
    const fn new(psk: Psk) -> Self {
        Self {
            psk,
            networks: Vec::new(),
        }
    }
}

impl PartialEq for Lasting {
    fn eq(&self, other: &Self) -> bool {
        // Both are ours or the kernel's: nobody chooses one and measures how long this takes.
        self.psk.expose() == other.psk.expose() && self.networks == other.networks
    }
}

fn network(dumped: &WireguardAllowedIp) -> Option<Network> {
    let address = dumped.iter().find_map(|attribute| match attribute {
        WireguardAllowedIpAttr::IpAddr(address) => Some(*address),
        _ => None,
    });
    let prefix = dumped.iter().find_map(|attribute| match attribute {
        WireguardAllowedIpAttr::Cidr(prefix) => Some(*prefix),
        _ => None,
    });
    Some((address?, prefix?))
}

/// A network as the kernel keeps it: without the bits beyond its prefix.
fn masked((address, prefix): Network) -> Network {
    let masked = match address {
        IpAddr::V4(v4) => {
            let beyond = u32::MAX.checked_shr(prefix.into()).unwrap_or(0);
            IpAddr::V4((v4.to_bits() & !beyond).into())
        }
        IpAddr::V6(v6) => {
            let beyond = u128::MAX.checked_shr(prefix.into()).unwrap_or(0);
            IpAddr::V6((v6.to_bits() & !beyond).into())
        }
    };
    (masked, prefix)
}

#[cfg(test)]
mod tests {
    use super::*;
    use netlink_packet_wireguard::WireguardAddressFamily;

    const ANA: Key = [1; KEY_LEN];
    const BEN: Key = [2; KEY_LEN];
    const FOREIGN: Key = [3; KEY_LEN];

    fn ours() -> Device {
        let mut device = Device::default();
        device.set_private_key(&[0xFF; KEY_LEN]);
        device.set_port(51_820);
        for (key, address) in [(ANA, "10.200.0.2"), (BEN, "10.200.0.3")] {
            device.put(&Peer {
                key,
                psk: [7; KEY_LEN].into(),
                allowed: &[(address.parse().expect("an address"), 32)],
                endpoint: None,
                keepalive: None,
            });
        }
        device
    }

    fn allowed(address: &str) -> WireguardAllowedIp {
        WireguardAllowedIp(vec![
            WireguardAllowedIpAttr::Family(WireguardAddressFamily::Ipv4),
            WireguardAllowedIpAttr::IpAddr(address.parse().expect("an address")),
            WireguardAllowedIpAttr::Cidr(32),
        ])
    }

    fn dumped(key: Key, psk: u8, networks: &[&str]) -> WireguardPeer {
        WireguardPeer(vec![
            WireguardPeerAttribute::PublicKey(key),
            WireguardPeerAttribute::PresharedKey([psk; KEY_LEN]),
            WireguardPeerAttribute::AllowedIps(networks.iter().map(|one| allowed(one)).collect()),
        ])
    }

    /// A dump as the kernel gives it: the private key is clamped.
    fn found(port: u16, peers: Vec<WireguardPeer>) -> Device {
        let mut private = [0xFF; KEY_LEN];
        (private[0], private[31]) = (0xF8, 0x7F);
        Device::of(&[
            WireguardAttribute::PrivateKey(private),
            WireguardAttribute::ListenPort(port),
            WireguardAttribute::Peers(peers),
        ])
    }

    fn ana() -> WireguardPeer {
        dumped(ANA, 7, &["10.200.0.2"])
    }

    fn ben() -> WireguardPeer {
        dumped(BEN, 7, &["10.200.0.3"])
    }

    #[test]
    fn what_was_set_is_found_unaltered() {
        let altered = ours().compare(&found(51_820, vec![ana(), ben()]));
        assert!(altered.is_nothing(), "{altered}");
    }

    #[test]
    fn each_change_by_hand_is_noticed_and_named() {
        let changes = [
            (found(51_820, vec![ana()]), "a peer removed"),
            (
                found(51_820, vec![ana(), ben(), dumped(FOREIGN, 0, &[])]),
                "a peer added",
            ),
            // It took ben's address over: the kernel moves it.
            (
                found(
                    51_820,
                    vec![
                        ana(),
                        dumped(BEN, 7, &[]),
                        dumped(FOREIGN, 0, &["10.200.0.3"]),
                    ],
                ),
                "a peer added, a peer changed",
            ),
            (
                found(
                    51_820,
                    vec![ana(), dumped(BEN, 7, &["10.200.0.3", "10.0.5.0"])],
                ),
                "a peer changed",
            ),
            (
                found(51_820, vec![ana(), dumped(BEN, 8, &["10.200.0.3"])]),
                "a peer changed",
            ),
            (
                found(
                    51_820,
                    vec![
                        dumped(ANA, 7, &["10.200.0.3"]),
                        dumped(BEN, 7, &["10.200.0.2"]),
                    ],
                ),
                "2 peers changed",
            ),
            (found(51_821, vec![ana(), ben()]), "another port"),
            (
                Device::of(&[
                    WireguardAttribute::ListenPort(51_820),
                    WireguardAttribute::Peers(vec![ana(), ben()]),
                ]),
                "another private key",
            ),
        ];
        for (found, name) in changes {
            assert_eq!(ours().compare(&found).to_string(), name);
        }
    }

    #[test]
    fn what_its_owner_changes_is_no_alteration() {
        let mut device = ours();
        device.remove(&ANA);
        device.set_psk(&BEN, &[8; KEY_LEN].into());
        // A new peer with the address of the removed one and that of ben, which moves.
        device.put(&Peer {
            key: FOREIGN,
            psk: [9; KEY_LEN].into(),
            allowed: &[
                ("10.200.0.3".parse().expect("an address"), 32),
                ("10.200.0.2".parse().expect("an address"), 32),
            ],
            endpoint: None,
            keepalive: None,
        });
        let peers = vec![
            dumped(BEN, 8, &[]),
            dumped(FOREIGN, 9, &["10.200.0.2", "10.200.0.3"]),
        ];
        let altered = device.compare(&found(51_820, peers));
        assert!(altered.is_nothing(), "{altered}");
    }

    #[test]
    fn a_peer_that_goes_on_in_the_next_message_is_one() {
        let more = WireguardPeer(vec![
            WireguardPeerAttribute::PublicKey(BEN),
            WireguardPeerAttribute::AllowedIps(vec![allowed("10.0.5.0")]),
        ]);
        let altered = ours().compare(&found(51_820, vec![ana(), ben(), more]));
        assert_eq!(altered.changed, [BEN]);
    }

    #[test]
    fn networks_are_compared_as_the_kernel_keeps_them() {
        let network = |text: &str, prefix| (text.parse::<IpAddr>().expect("an address"), prefix);
        assert_eq!(masked(network("10.1.2.3", 16)), network("10.1.0.0", 16));
        assert_eq!(masked(network("10.1.2.3", 0)), network("0.0.0.0", 0));
        assert_eq!(masked(network("fd00::7", 128)), network("fd00::7", 128));
        assert_eq!(masked(network("fd00:1::7", 32)), network("fd00:1::", 32));
    }
}
