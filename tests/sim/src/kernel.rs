//! The kernel of a gateway: peers, doors, flows. Openings lapse at their time, whether anybody closes them or not.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::Duration;

use spa_gateway_core::{Moment, PeerState};
use spa_order::{Door, Flow, Order, Ttl};

/// What is open.
#[derive(Default)]
pub(crate) struct Kernel {
    pub(crate) peers: BTreeMap<[u8; 32], Peer>,
    pub(crate) doors: BTreeMap<Door, Moment>,
    pub(crate) flows: BTreeMap<Flow, Moment>,
}

/// A WireGuard peer.
pub(crate) struct Peer {
    pub(crate) psk: [u8; 32],
    pub(crate) tunnel: Vec<IpAddr>,
    pub(crate) state: PeerState,
}

impl Kernel {
    /// Carries an order out.
    pub(crate) fn obey(&mut self, order: &Order, now: Moment) {
        let until = |ttl: &Ttl| now.after(Duration::from_millis(ttl.as_millis().into()));
        match order {
            Order::Peer {
                key,
                psk,
                tunnel4,
                tunnel6,
            } => {
                let tunnel: Vec<IpAddr> = tunnel4
                    .map(IpAddr::V4)
                    .into_iter()
                    .chain(tunnel6.map(IpAddr::V6))
                    .collect();
                let state = PeerState {
                    endpoint: None,
                    handshake_age_ms: None,
                    rx: 0,
                    tx: 0,
                };
                self.peers.insert(
                    *key,
                    Peer {
                        psk: *psk.expose(),
                        tunnel,
                        state,
                    },
                );
            }
            Order::Psk { key, psk } => {
                if let Some(peer) = self.peers.get_mut(key) {
                    peer.psk = *psk.expose();
                }
            }
            Order::RemovePeer { key } => {
                self.peers.remove(key);
            }
            Order::Flow { flow, ttl } => drop(self.flows.insert(*flow, until(ttl))),
            Order::CloseFlow { flow } => drop(self.flows.remove(flow)),
            Order::Door { door, ttl } => drop(self.doors.insert(*door, until(ttl))),
            Order::CloseDoor { door } => drop(self.doors.remove(door)),
            Order::Forget { .. } => {}
            Order::Key { .. }
            | Order::ReadPeer { .. }
            | Order::ListPeers
            | Order::ListOpenings
            | Order::CountConnections => {
                panic!("the core never orders this")
            }
        }
    }

    /// Lets lapse what has lapsed.
    pub(crate) fn lapse(&mut self, now: Moment) {
        self.doors.retain(|_, until| *until > now);
        self.flows.retain(|_, until| *until > now);
    }

    /// A gateway starts: its table is made anew, its peers are still there.
    pub(crate) fn new_table(&mut self) {
        self.doors.clear();
        self.flows.clear();
    }

    /// Gives the peer that has a tunnel address.
    pub(crate) fn peer_at(&self, tunnel: IpAddr) -> Option<[u8; 32]> {
        self.peers
            .iter()
            .find(|(_, peer)| peer.tunnel.contains(&tunnel))
            .map(|(key, _)| *key)
    }
}
