//! Performs orders, one after the other, each checked against the limits first.
//!
//! Invariant: an order that is refused changes nothing, and one that is answered `Done` is done in the
//! kernel. Only `Forget` is handed on (`forgetter`); everything else is answered before the next is looked at.

use std::collections::BTreeSet;
use std::io;
use std::net::IpAddr;

use spa_order::{Answer, Door, Opening, Order, PeerReport, Reason, SecretBytes32, Ttl, What};
use spa_wireguard::{Interface, Peer, PeerState, Psk, WireguardError};

use crate::forgetter::{Forgetter, ForgetterError};
use crate::limits::Limits;
use crate::netlink::Link;
use crate::nft::{OpenError, Table};
use crate::route::{Owner, owner};
use crate::say::say;
use crate::watch::Changed;

/// Everything that performs.
pub struct Enforcer {
    limits: Limits,
    max_peers: usize,
    table: Table,
    wireguard: Interface,
    routes: Link,
    forgetter: Forgetter,
    peers: BTreeSet<[u8; 32]>,
    key: Key,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Key {
    Missing,
    Set,
}

/// Why the process must end.
#[derive(Debug, thiserror::Error)]
pub enum Fatal {
    /// WireGuard is gone.
    #[error("{0}")]
    Wireguard(WireguardError),
    /// Nobody forgets.
    #[error(transparent)]
    Forgetter(#[from] ForgetterError),
    /// The ground is another.
    #[error(transparent)]
    Changed(#[from] Changed),
}

/// What is left of an order that was not performed.
enum Failure {
    Refused(Reason),
    Failed(Answer),
    Fatal(Fatal),
}

impl From<Reason> for Failure {
    fn from(reason: Reason) -> Self {
        Self::Refused(reason)
    }
}

/// The answers to one order; none when they come later.
type Answers = Vec<Answer>;

impl Enforcer {
    /// Puts it together. Peers of an adopted interface count from the start.
    ///
    /// # Errors
    /// WireGuard's refusal to list them.
    pub fn new(
        limits: Limits,
        max_peers: u32,
        table: Table,
        mut wireguard: Interface,
        routes: Link,
        forgetter: Forgetter,
    ) -> Result<Self, WireguardError> {
        let peers = wireguard
            .peers()?
            .into_iter()
            .map(|peer| peer.key)
            .collect();
        Ok(Self {
            limits,
            max_peers: usize::try_from(max_peers).unwrap_or(usize::MAX),
            table,
            wireguard,
            routes,
            forgetter,
            peers,
            key: Key::Missing,
        })
    }

    /// The interface, to be watched.
    pub fn wireguard(&mut self) -> &mut Interface {
        &mut self.wireguard
    }

    /// The table, to be watched.
    pub fn table(&mut self) -> &mut Table {
        &mut self.table
    }

    /// Performs one order.
    ///
    /// # Errors
    /// [`Fatal`], and only that: everything else is an answer.
    pub fn perform(&mut self, seq: u64, order: &Order) -> Result<Answers, Fatal> {
        spa_failpoint::reach("enforcer", "before", order.name());
        let outcome = match self.limits.check(order) {
            Ok(()) => self.perform_checked(seq, order),
            Err(reason) => Err(Failure::Refused(reason)),
        };
        spa_failpoint::reach("enforcer", "after", order.name());
        match outcome {
            Ok(answers) => Ok(answers),
            Err(Failure::Refused(reason)) => Ok(vec![Answer::Refused(reason)]),
            Err(Failure::Failed(answer)) => Ok(vec![answer]),
            Err(Failure::Fatal(fatal)) => Err(fatal),
        }
    }

    fn perform_checked(&mut self, seq: u64, order: &Order) -> Result<Answers, Failure> {
        match order {
            Order::Key { private } => self.set_key(private)?,
            Order::Peer {
                key,
                psk,
                tunnel4,
                tunnel6,
            } => {
                let addresses = tunnel4
                    .map(IpAddr::V4)
                    .into_iter()
                    .chain(tunnel6.map(IpAddr::V6));
                self.put_peer(key, psk, addresses)?;
            }
            Order::Psk { key, psk } => {
                if !self.peers.contains(key) {
                    return Err(Failure::Refused(Reason::PeerMissing));
                }
                let psk = Psk::from(*psk.expose());
                self.wireguard
                    .set_psk(key, &psk)
                    .map_err(wireguard_failed)?;
            }
            Order::RemovePeer { key } => {
                self.wireguard.remove_peer(key).map_err(wireguard_failed)?;
                self.peers.remove(key);
            }
            Order::ReadPeer { key } => {
                let peer = self.wireguard.peer(key).map_err(wireguard_failed)?;
                return Ok(vec![peer.map_or(Answer::Absent, |peer| report(&peer))]);
            }
            Order::ListPeers => {
                let peers = self.wireguard.peers().map_err(wireguard_failed)?;
                return Ok(peers.iter().map(report).chain([Answer::End]).collect());
            }
            Order::Flow { flow, ttl } => self.open(&Opening::Flow(*flow), *ttl)?,
            Order::Door { door, ttl } => {
                self.check_source(door)?;
                self.open(&Opening::Door(*door), *ttl)?;
            }
            Order::CloseFlow { flow } => self.close(&Opening::Flow(*flow))?,
            Order::CloseDoor { door } => self.close(&Opening::Door(*door))?,
            Order::Forget { tunnel } => {
                self.forgetter
                    .forget(seq, *tunnel)
                    .map_err(|ended| Failure::Fatal(Fatal::Forgetter(ended)))?;
                return Ok(Vec::new());
            }
            Order::ListOpenings => {
                let list = self.table.list().map_err(table_failed)?;
                let lines = list
                    .into_iter()
                    .map(|(opening, usage)| Answer::Opening { opening, usage });
                return Ok(lines.chain([Answer::End]).collect());
            }
            Order::CountConnections => {
                let connections = self.table.connections().map_err(table_failed)?;
                return Ok(vec![Answer::Connections(connections)]);
            }
        }
        Ok(vec![Answer::Done])
    }

    fn set_key(&mut self, private: &SecretBytes32) -> Result<(), Failure> {
        if self.key == Key::Set {
            return Err(Failure::Refused(Reason::KeyAgain));
        }
        self.wireguard
            .set_private_key(private.expose())
            .map_err(wireguard_failed)?;
        self.key = Key::Set;
        Ok(())
    }

    fn put_peer(
        &mut self,
        key: &[u8; 32],
        psk: &SecretBytes32,
        addresses: impl Iterator<Item = IpAddr>,
    ) -> Result<(), Failure> {
        if self.key == Key::Missing {
            return Err(Failure::Refused(Reason::KeyMissing));
        }
        if !self.peers.contains(key) && self.peers.len() >= self.max_peers {
            return Err(Failure::Refused(Reason::PeersFull));
        }
        let host = |address: IpAddr| (address, if address.is_ipv4() { 32 } else { 128 });
        let allowed: Vec<_> = addresses.map(host).collect();
        let psk = Psk::from(*psk.expose());
        let peer = Peer {
            key: *key,
            psk,
            allowed: &allowed,
            endpoint: None,
            keepalive: None,
        };
        self.wireguard.put_peer(&peer).map_err(wireguard_failed)?;
        self.peers.insert(*key);
        Ok(())
    }

    fn check_source(&mut self, door: &Door) -> Result<(), Failure> {
        // Allowed by the limits only where `lo` is a knock interface.
        if door.source.is_loopback() {
            return Ok(());
        }
        match owner(&mut self.routes, door.source) {
            Ok(Owner::Elsewhere) => Ok(()),
            Ok(Owner::NotAHost) => Err(Failure::Refused(Reason::SourceForbidden)),
            Err(error) => Err(table_failed(error)),
        }
    }

    fn open(&mut self, opening: &Opening, ttl: Ttl) -> Result<(), Failure> {
        self.table.open(opening, ttl).map_err(|error| match error {
            OpenError::Full => Failure::Refused(Reason::OpeningsFull),
            OpenError::Kernel(source) => table_failed(source),
            OpenError::ReadBack => Failure::Failed(failed(What::ReadBack, None, &error)),
        })
    }

    fn close(&mut self, opening: &Opening) -> Result<(), Failure> {
        self.table.close(opening).map_err(table_failed)
    }
}

fn table_failed(error: io::Error) -> Failure {
    Failure::Failed(failed(What::Table, error.raw_os_error(), &error))
}

fn wireguard_failed(error: WireguardError) -> Failure {
    match error {
        WireguardError::TunnelEnded { .. } | WireguardError::TunnelSilent => {
            Failure::Fatal(Fatal::Wireguard(error))
        }
        _ => Failure::Failed(failed(What::WireGuard, error.errno(), &error)),
    }
}

/// Says on standard error what an answer has no room for.
fn failed(what: What, errno: Option<i32>, error: &dyn std::error::Error) -> Answer {
    say(format_args!("{what} failed: {error}"));
    Answer::Failed {
        errno: errno.unwrap_or(0),
        what,
    }
}

fn report(peer: &PeerState) -> Answer {
    let age = peer
        .handshake_age
        .map(|age| u64::try_from(age.as_millis()).unwrap_or(u64::MAX));
    Answer::Peer(PeerReport {
        key: peer.key,
        endpoint: peer.endpoint,
        handshake_age_ms: age,
        rx: peer.rx,
        tx: peer.tx,
    })
}
