//! The kernel of a test: peers, doors and flows. Openings lapse at their time, whether anybody closes
//! them or not.

use alloc::collections::BTreeMap;
use alloc::vec::Vec;
use core::net::IpAddr;
use core::time::Duration;

use spa_order::{Connections, Door, Flow, Order, Ttl};

use crate::{AuditKind, Moment, Now, Passed, PeerState};

/// What the kernel has open. Openings lapse at their time, whether anybody closes them or not.
#[derive(Default)]
pub struct Kernel {
    pub peers: BTreeMap<[u8; 32], PeerState>,
    /// When each peer shook hands last.
    pub shaken: BTreeMap<[u8; 32], Moment>,
    /// Of each peer that has one of a rekey.
    pub psks: BTreeMap<[u8; 32], [u8; 32]>,
    pub doors: BTreeMap<Door, Moment>,
    pub flows: BTreeMap<Flow, Moment>,
    pub packets: BTreeMap<Flow, Passed>,
    pub forgotten: Vec<IpAddr>,
    pub connections: Connections,
}

/// One thing that was performed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Did {
    Record,
    Peer,
    Flow,
    Door,
    CloseDoor,
    CloseFlow,
    RemovePeer,
    Forget,
    Reply,
    Answer,
    Psk,
    Audit(AuditKind),
}

impl Kernel {
    pub fn doors(&self, now: Now) -> Vec<Door> {
        self.doors
            .iter()
            .filter(|(_, until)| **until > now.mono)
            .map(|(door, _)| *door)
            .collect()
    }

    pub fn flows(&self, now: Now) -> Vec<Flow> {
        self.flows
            .iter()
            .filter(|(_, until)| **until > now.mono)
            .map(|(flow, _)| *flow)
            .collect()
    }

    /// Packets go through every open flow of these ports.
    pub fn carry(&mut self, ports: (u16, u16), now: Now) {
        for flow in self.flows(now) {
            if flow.ports == ports {
                let passed = self.packets.entry(flow).or_default();
                passed.packets += 3;
                passed.bytes += 300;
            }
        }
    }

    pub fn counts(&self, now: Now) -> Vec<(Flow, Passed)> {
        let of = |flow: Flow| (flow, self.packets.get(&flow).copied().unwrap_or_default());
        self.flows(now).into_iter().map(of).collect()
    }

    /// A peer as it is seen now.
    pub fn state(&self, wg_key: &[u8; 32], now: Now) -> Option<PeerState> {
        let state = *self.peers.get(wg_key)?;
        let shaken = self
            .shaken
            .get(wg_key)
            .filter(|_| state.handshake_age_ms.is_some());
        let age = shaken.map(|at| now.mono.as_millis() - at.as_millis());
        Some(PeerState {
            handshake_age_ms: age.or(state.handshake_age_ms),
            ..state
        })
    }

    pub fn door_until(&self, door: Door) -> Option<Moment> {
        self.doors.get(&door).copied()
    }

    pub fn is_empty(&self, now: Now) -> bool {
        self.peers.is_empty() && self.doors(now).is_empty() && self.flows(now).is_empty()
    }

    pub fn obey(&mut self, order: &Order, now: Now) -> Did {
        let until = |ttl: &Ttl| {
            now.mono
                .after(Duration::from_millis(u64::from(ttl.as_millis())))
        };
        match order {
            Order::Peer { key, .. } => {
                let fresh = PeerState {
                    endpoint: None,
                    handshake_age_ms: None,
                    rx: 0,
                    tx: 0,
                };
                self.peers.insert(*key, fresh);
                Did::Peer
            }
            Order::Psk { key, psk } => {
                assert!(self.peers.contains_key(key));
                self.psks.insert(*key, *psk.expose());
                Did::Psk
            }
            Order::RemovePeer { key } => {
                self.peers.remove(key);
                Did::RemovePeer
            }
            Order::Flow { flow, ttl } => {
                self.flows.insert(*flow, until(ttl));
                Did::Flow
            }
            Order::CloseFlow { flow } => {
                self.flows.remove(flow);
                Did::CloseFlow
            }
            Order::Door { door, ttl } => {
                self.doors.insert(*door, until(ttl));
                Did::Door
            }
            Order::CloseDoor { door } => {
                self.doors.remove(door);
                Did::CloseDoor
            }
            Order::Forget { tunnel } => {
                self.forgotten.push(*tunnel);
                Did::Forget
            }
            Order::Key { .. }
            | Order::ReadPeer { .. }
            | Order::ListPeers
            | Order::ListOpenings
            | Order::CountConnections => {
                panic!("the core never orders this")
            }
        }
    }
}
