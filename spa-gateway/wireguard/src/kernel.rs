//! The kernel's WireGuard, by generic netlink (`linux/wireguard.h`).

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::os::fd::{AsFd, BorrowedFd};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use netlink_packet_generic::GenlMessage;
use netlink_packet_generic::ctrl::nlas::GenlCtrlAttrs;
use netlink_packet_generic::ctrl::{GenlCtrl, GenlCtrlCmd};
use netlink_packet_wireguard::{
    WireguardAddressFamily, WireguardAllowedIp, WireguardAllowedIpAttr, WireguardAttribute,
    WireguardCmd, WireguardDeviceFlags, WireguardMessage, WireguardPeer, WireguardPeerAttribute,
    WireguardPeerFlags, WireguardTimeSpec,
};
use netlink_sys::protocols::NETLINK_GENERIC;
use rustix::io::Errno;
use zeroize::Zeroize;

use crate::WireguardError;
use crate::altered::{Altered, Device};
use crate::link::failed;
use crate::netlink::{Carried, Netlink};
use crate::plan::{KEY_LEN, Peer, PeerState, Psk};

/// A kernel WireGuard interface, spoken to over a socket of its own.
#[derive(Debug)]
pub struct Wireguard {
    name: String,
    index: u32,
    generic: Netlink,
    family: u16,
    /// What was made of it.
    ought: Device,
}

impl Carried for GenlMessage<GenlCtrl> {}

impl Carried for GenlMessage<WireguardMessage> {
    fn wipe(&mut self) {
        for attribute in &mut self.payload.attributes {
            match attribute {
                WireguardAttribute::PrivateKey(key) => key.zeroize(),
                WireguardAttribute::Peers(peers) => {
                    for attribute in peers.iter_mut().flat_map(|peer| peer.0.iter_mut()) {
                        if let WireguardPeerAttribute::PresharedKey(key) = attribute {
                            key.zeroize();
                        }
                    }
                }
                _ => {}
            }
        }
    }
}

impl Wireguard {
    /// Opens the socket and asks for the number the kernel gave WireGuard's messages; the interface exists.
    pub fn open(name: &str, index: u32) -> Result<Self, WireguardError> {
        let mut generic =
            Netlink::open(NETLINK_GENERIC).map_err(failed("opening a netlink socket", name))?;
        let question = GenlMessage::from_payload(GenlCtrl {
            cmd: GenlCtrlCmd::GetFamily,
            nlas: vec![GenlCtrlAttrs::FamilyName("wireguard".to_owned())],
        });
        let answers = generic
            .request(question, 0)
            .map_err(failed("asking for WireGuard", name))?;
        let family = answers
            .iter()
            .flat_map(|answer| &answer.payload.nlas)
            .find_map(|attribute| match attribute {
                GenlCtrlAttrs::FamilyId(id) => Some(*id),
                _ => None,
            })
            .ok_or_else(|| failed("asking for WireGuard", name)(Errno::NOENT.into()))?;
        Ok(Self {
            name: name.to_owned(),
            index,
            generic,
            family,
            ought: Device::default(),
        })
    }

    /// Takes an interface that an earlier run left, as it is.
    pub fn adopt(name: &str, index: u32) -> Result<Self, WireguardError> {
        let mut wireguard = Self::open(name, index)?;
        wireguard.ought = wireguard.dump(|dumped| Device::of(dumped))?;
        Ok(wireguard)
    }

    /// Sets the private key.
    pub fn set_private_key(&mut self, key: &[u8; KEY_LEN]) -> Result<(), WireguardError> {
        self.set(
            "setting the private key",
            WireguardAttribute::PrivateKey(*key),
        )?;
        self.ought.set_private_key(key);
        Ok(())
    }

    /// Sets the port; it is bound when the interface comes up.
    pub fn set_listen_port(&mut self, port: u16) -> Result<(), WireguardError> {
        match self.set("setting the port", WireguardAttribute::ListenPort(port)) {
            // An adopted interface is up and binds at once.
            Err(error) if error.errno() == Some(Errno::ADDRINUSE.raw_os_error()) => {
                Err(WireguardError::PortInUse { port })
            }
            Err(error) => Err(error),
            Ok(()) => {
                // Where the kernel chooses nobody knows before it is up.
                if port != 0 {
                    self.ought.set_port(port);
                }
                Ok(())
            }
        }
    }

    /// Removes what bears the key and adds the peer anew, in one message: the kernel holds its lock on the
    /// device from the first to the last peer of a message, and only a new peer is without its old session.
    pub fn put_peer(&mut self, peer: &Peer<'_>) -> Result<(), WireguardError> {
        let mut attributes = vec![
            WireguardPeerAttribute::PublicKey(peer.key),
            WireguardPeerAttribute::PresharedKey(*peer.psk.expose()),
            WireguardPeerAttribute::Flags(WireguardPeerFlags::ReplaceAllowedIps),
            WireguardPeerAttribute::PersistentKeepalive(peer.keepalive.unwrap_or(0)),
            WireguardPeerAttribute::AllowedIps(peer.allowed.iter().map(allowed_ip).collect()),
        ];
        if let Some(endpoint) = peer.endpoint {
            attributes.push(WireguardPeerAttribute::Endpoint(endpoint));
        }
        // Refused in the middle, it may be there or not: whatever is left of it is nobody's.
        self.ought.remove(&peer.key);
        self.set(
            "adding a peer",
            WireguardAttribute::Peers(vec![removal(&peer.key), WireguardPeer(attributes)]),
        )?;
        self.ought.put(peer);
        Ok(())
    }

    /// Gives a peer that is there another preshared key for its next handshake.
    pub fn set_psk(&mut self, key: &[u8; KEY_LEN], psk: &Psk) -> Result<(), WireguardError> {
        let attributes = vec![
            WireguardPeerAttribute::PublicKey(*key),
            WireguardPeerAttribute::Flags(WireguardPeerFlags::UpdateOnly),
            WireguardPeerAttribute::PresharedKey(*psk.expose()),
        ];
        self.set(
            "setting a preshared key",
            WireguardAttribute::Peers(vec![WireguardPeer(attributes)]),
        )?;
        self.ought.set_psk(key, psk);
        Ok(())
    }

    /// Removes a peer, there or not.
    pub fn remove_peer(&mut self, key: &[u8; KEY_LEN]) -> Result<(), WireguardError> {
        self.set(
            "removing a peer",
            WireguardAttribute::Peers(vec![removal(key)]),
        )?;
        self.ought.remove(key);
        Ok(())
    }

    /// Dumps all peers, ordered by key.
    pub fn peers(&mut self) -> Result<Vec<PeerState>, WireguardError> {
        let now = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .unwrap_or_default();
        self.dump(|attributes| {
            let mut peers = BTreeMap::new();
            for attribute in attributes {
                if let WireguardAttribute::Peers(dumped) = attribute {
                    for peer in dumped {
                        take_peer(&mut peers, peer, now);
                    }
                }
            }
            peers.into_values().collect()
        })
    }

    /// Looks what others changed, and takes every peer away that is not as it was made; all of them where the interface itself
    /// is not.
    pub fn undo_others(&mut self) -> Result<Altered, WireguardError> {
        let found = self.dump(|attributes| Device::of(attributes))?;
        let altered = self.ought.compare(&found);
        if altered.key || altered.port {
            self.set(
                "removing all peers",
                WireguardAttribute::Flags(WireguardDeviceFlags::ReplacePeers),
            )?;
        }
        for key in altered.added.iter().chain(&altered.changed) {
            self.remove_peer(key)?;
        }
        Ok(altered)
    }

    /// Reads the interface, keys included, which are wiped behind `read`.
    fn dump<T>(
        &mut self,
        read: impl FnOnce(&mut dyn Iterator<Item = &WireguardAttribute>) -> T,
    ) -> Result<T, WireguardError> {
        let (index, family) = (self.index, self.family);
        let question = || {
            message(
                family,
                WireguardCmd::GetDevice,
                vec![WireguardAttribute::IfIndex(index)],
            )
        };
        let mut answers = self
            .generic
            .dump(question)
            .map_err(failed("reading peers", &self.name))?;
        let mut attributes = answers.iter().flat_map(|answer| &answer.payload.attributes);
        let read = read(&mut attributes);
        answers.iter_mut().for_each(Carried::wipe);
        Ok(read)
    }

    fn set(
        &mut self,
        doing: &'static str,
        attribute: WireguardAttribute,
    ) -> Result<(), WireguardError> {
        let attributes = vec![WireguardAttribute::IfIndex(self.index), attribute];
        let message = message(self.family, WireguardCmd::SetDevice, attributes);
        self.generic
            .request(message, 0)
            .map(drop)
            .map_err(failed(doing, &self.name))
    }
}

impl AsFd for Wireguard {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.generic.as_fd()
    }
}

fn message(
    family: u16,
    cmd: WireguardCmd,
    attributes: Vec<WireguardAttribute>,
) -> GenlMessage<WireguardMessage> {
    let mut message = GenlMessage::from_payload(WireguardMessage { cmd, attributes });
    message.set_resolved_family_id(family);
    message
}

fn removal(key: &[u8; KEY_LEN]) -> WireguardPeer {
    WireguardPeer(vec![
        WireguardPeerAttribute::PublicKey(*key),
        WireguardPeerAttribute::Flags(WireguardPeerFlags::RemoveMe),
    ])
}

fn allowed_ip(&(address, prefix): &(IpAddr, u8)) -> WireguardAllowedIp {
    let family = if address.is_ipv4() {
        WireguardAddressFamily::Ipv4
    } else {
        WireguardAddressFamily::Ipv6
    };
    WireguardAllowedIp(vec![
        WireguardAllowedIpAttr::Family(family),
        WireguardAllowedIpAttr::IpAddr(address),
        WireguardAllowedIpAttr::Cidr(prefix),
    ])
}

/// Takes one peer of a dump. A peer with many networks goes on in the next message, with its key and further
/// networks only, so a key seen again adds and never clears.
fn take_peer(
    peers: &mut BTreeMap<[u8; KEY_LEN], PeerState>,
    dumped: &WireguardPeer,
    now: Duration,
) {
    let key = dumped.iter().find_map(|attribute| match attribute {
        WireguardPeerAttribute::PublicKey(key) => Some(*key),
        _ => None,
    });
    let Some(key) = key else { return };
    let peer = peers.entry(key).or_insert(PeerState {
        key,
        endpoint: None,
        handshake_age: None,
        rx: 0,
        tx: 0,
    });
    for attribute in dumped.iter() {
        match attribute {
            WireguardPeerAttribute::Endpoint(endpoint) => peer.endpoint = Some(*endpoint),
            WireguardPeerAttribute::LastHandshake(time) => peer.handshake_age = age(*time, now),
            WireguardPeerAttribute::RxBytes(bytes) => peer.rx = *bytes,
            WireguardPeerAttribute::TxBytes(bytes) => peer.tx = *bytes,
            _ => {}
        }
    }
}

/// Zero means "never"; a handshake in the future of a stepped clock is of age zero.
fn age(time: WireguardTimeSpec, now: Duration) -> Option<Duration> {
    let seconds = u64::try_from(time.seconds).ok()?;
    let nanoseconds = u32::try_from(time.nano_seconds).ok()?;
    let at = Duration::new(seconds, nanoseconds.min(999_999_999));
    (!at.is_zero()).then(|| now.saturating_sub(at))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_peer_that_goes_on_in_the_next_message_keeps_what_was_read() {
        let mut peers = BTreeMap::new();
        let whole = WireguardPeer(vec![
            WireguardPeerAttribute::PublicKey([1; KEY_LEN]),
            WireguardPeerAttribute::LastHandshake(WireguardTimeSpec {
                seconds: 90,
                nano_seconds: 0,
            }),
            WireguardPeerAttribute::RxBytes(7),
        ]);
        let rest = WireguardPeer(vec![WireguardPeerAttribute::PublicKey([1; KEY_LEN])]);
        take_peer(&mut peers, &whole, Duration::from_secs(100));
        take_peer(&mut peers, &rest, Duration::from_secs(100));
        let peer = peers.get(&[1; KEY_LEN]).expect("it was just taken");
        assert_eq!(
            (peer.handshake_age, peer.rx, peers.len()),
            (Some(Duration::from_secs(10)), 7, 1)
        );
    }

    #[test]
    fn no_handshake_has_no_age_and_a_future_one_is_new() {
        let now = Duration::from_secs(100);
        assert_eq!(age(WireguardTimeSpec::default(), now), None);
        assert_eq!(
            age(
                WireguardTimeSpec {
                    seconds: 101,
                    nano_seconds: 5
                },
                now
            ),
            Some(Duration::ZERO)
        );
        assert_eq!(
            age(
                WireguardTimeSpec {
                    seconds: -1,
                    nano_seconds: 0
                },
                now
            ),
            None
        );
    }
}
