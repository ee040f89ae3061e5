//! Performs orders in their order, each checked against the limits first; what opens in a row is opened together, and
//! peers in a row are put together.
//!
//! Invariant: an order that is refused changes nothing, and one that is answered `Done` is done in the
//! kernel. Only `Forget` is handed on (`forgetter`); everything else is answered in its turn.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::IpAddr;
use std::time::{Duration, Instant};

use spa_order::{Answer, Opening, Order, PeerReport, Reason, SecretBytes32, Ttl, What};
use spa_wireguard::{Interface, Peer, PeerState, Psk, WireguardError};

use crate::forgetter::{Forgetter, ForgetterError};
use crate::limits::Limits;
use crate::netlink::Link;
use crate::nft::{OpenError, Table};
use crate::route::{Owner, owners};
use crate::say::say;
use crate::watch::{Changed, unpublished};

/// Everything that performs.
pub struct Enforcer {
    limits: Limits,
    max_peers: usize,
    table: Table,
    wireguard: Interface,
    routes: Link,
    forgetter: Forgetter,
    peers: BTreeSet<[u8; 32]>,
    /// What was opened and not closed, and until when. Of use only to tell it from what somebody else opened.
    opened: BTreeMap<Opening, Instant>,
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

impl Failure {
    fn answer(self) -> Result<Answer, Fatal> {
        match self {
            Self::Refused(reason) => Ok(Answer::Refused(reason)),
            Self::Failed(answer) => Ok(answer),
            Self::Fatal(fatal) => Err(fatal),
        }
    }
}

/// The answers to one order; none when they come later.
type Answers = Vec<Answer>;

/// Which orders in a row are performed together.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Opening,
    Peer,
    Other,
}

impl Kind {
    const fn of(order: &Order) -> Self {
        match order {
            Order::Flow { .. } | Order::Door { .. } => Self::Opening,
            Order::Peer { .. } => Self::Peer,
            Order::Key { .. }
            | Order::Psk { .. }
            | Order::RemovePeer { .. }
            | Order::ReadPeer { .. }
            | Order::ListPeers
            | Order::CloseFlow { .. }
            | Order::CloseDoor { .. }
            | Order::Forget { .. }
            | Order::ListOpenings
            | Order::CountConnections => Self::Other,
        }
    }
}

/// A peer there is room for.
struct NewPeer<'a> {
    key: [u8; 32],
    psk: &'a SecretBytes32,
    allowed: Vec<(IpAddr, u8)>,
    /// It replaces one of this key.
    replaces: bool,
}

impl NewPeer<'_> {
    fn wanted(&self) -> Peer<'_> {
        Peer {
            key: self.key,
            psk: Psk::from(*self.psk.expose()),
            allowed: &self.allowed,
            endpoint: None,
            keepalive: None,
        }
    }
}

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
            opened: BTreeMap::new(),
            key: Key::Missing,
        })
    }

    /// The interface, to be watched.
    pub fn wireguard(&mut self) -> &mut Interface {
        &mut self.wireguard
    }

    /// The table, to be watched, and what was opened in it.
    pub fn table(&mut self) -> (&mut Table, &BTreeMap<Opening, Instant>) {
        (&mut self.table, &self.opened)
    }

    /// Looks whether somebody else changed WireGuard, and takes away what is not as it was ordered; the sessions of the other peers
    /// go on over the next start.
    ///
    /// # Errors
    /// [`Changed::Peers`] and [`Changed::TunnelGone`]; a kernel that does not say.
    pub fn undo_others(&mut self) -> Result<(), Fatal> {
        let name = self.wireguard.name().to_owned();
        match self.wireguard.undo_others() {
            Ok(altered) if altered.is_nothing() => Ok(()),
            Ok(altered) => Err(Changed::Peers { name, altered }.into()),
            Err(error) if error.errno() == Some(libc::ENODEV) => {
                Err(Changed::TunnelGone(name).into())
            }
            Err(error) => Err(Fatal::Wireguard(error)),
        }
    }

    /// Removes the interface, and with it every session.
    ///
    /// # Errors
    /// WireGuard's refusal.
    pub fn remove_tunnel(self) -> Result<(), WireguardError> {
        self.wireguard.delete()
    }

    /// Performs orders that came together and answers each in its turn.
    ///
    /// # Errors
    /// [`Fatal`], and only that: everything else is an answer. Inside, whatever `answer` fails with.
    pub fn perform_all<E>(
        &mut self,
        orders: &[(u64, Order)],
        mut answer: impl FnMut(u64, &Answer) -> Result<(), E>,
    ) -> Result<Result<(), E>, Fatal> {
        for row in orders.chunk_by(|(_, one), (_, next)| Kind::of(one) == Kind::of(next)) {
            let answers = match row {
                [] => Vec::new(),
                [(_, first), ..] => match Kind::of(first) {
                    Kind::Opening => self.in_a_row(row, Self::open_all)?,
                    Kind::Peer => self.in_a_row(row, Self::put_peers)?,
                    Kind::Other => {
                        for (seq, order) in row {
                            for given in self.perform(*seq, order)? {
                                if let Err(error) = answer(*seq, &given) {
                                    return Ok(Err(error));
                                }
                            }
                        }
                        Vec::new()
                    }
                },
            };
            for ((seq, _), given) in row.iter().zip(answers) {
                if let Err(error) = answer(*seq, &given) {
                    return Ok(Err(error));
                }
            }
        }
        Ok(Ok(()))
    }

    /// Performs orders of one kind together, as far as they hold to the limits, and gives an answer to each.
    fn in_a_row(
        &mut self,
        row: &[(u64, Order)],
        together: impl FnOnce(&mut Self, &[&Order]) -> Vec<Result<(), Failure>>,
    ) -> Result<Vec<Answer>, Fatal> {
        for (_, order) in row {
            spa_failpoint::reach("enforcer", "before", order.name());
        }
        let checked: Vec<_> = row
            .iter()
            .map(|(_, order)| self.limits.check(order).map(|()| order))
            .collect();
        let allowed: Vec<&Order> = checked.iter().flatten().copied().collect();
        let mut outcomes = together(self, &allowed).into_iter();
        let mut answers = Vec::with_capacity(row.len());
        for ((_, order), checked) in row.iter().zip(checked) {
            let outcome = match checked {
                Ok(_) => outcomes
                    .next()
                    .expect("an outcome for each that was allowed"),
                Err(reason) => Err(Failure::Refused(reason)),
            };
            spa_failpoint::reach("enforcer", "after", order.name());
            answers.push(match outcome {
                Ok(()) => Answer::Done,
                Err(failure) => failure.answer()?,
            });
        }
        Ok(answers)
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
        outcome.or_else(|failure| Ok(vec![failure.answer()?]))
    }

    fn perform_checked(&mut self, seq: u64, order: &Order) -> Result<Answers, Failure> {
        match order {
            Order::Key { private } => self.set_key(private)?,
            Order::Peer { .. } => first_of(self.put_peers(&[order]))?,
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
            Order::Flow { .. } | Order::Door { .. } => first_of(self.open_all(&[order]))?,
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

    fn put_peers(&mut self, orders: &[&Order]) -> Vec<Result<(), Failure>> {
        let room: Vec<_> = orders.iter().map(|order| self.make_room(order)).collect();
        let wanted: Vec<Peer<'_>> = room.iter().flatten().map(NewPeer::wanted).collect();
        let mut put = self.wireguard.put_peers(&wanted).into_iter();
        let outcome = |room: Result<NewPeer<'_>, Failure>| {
            let peer = room?;
            let put = put.next().expect("an outcome for each that was put");
            put.map_err(|error| {
                if !peer.replaces {
                    self.peers.remove(&peer.key);
                }
                wireguard_failed(error)
            })
        };
        room.into_iter().map(outcome).collect()
    }

    /// Takes a place among the peers; whoever does not come to be gives it back.
    fn make_room<'a>(&mut self, order: &'a Order) -> Result<NewPeer<'a>, Failure> {
        let Order::Peer {
            key,
            psk,
            tunnel4,
            tunnel6,
        } = order
        else {
            return Err(Failure::Refused(Reason::PeerMissing));
        };
        if self.key == Key::Missing {
            return Err(Failure::Refused(Reason::KeyMissing));
        }
        let replaces = self.peers.contains(key);
        if !replaces && self.peers.len() >= self.max_peers {
            return Err(Failure::Refused(Reason::PeersFull));
        }
        self.peers.insert(*key);
        let v4 = tunnel4.map(|address| (IpAddr::V4(address), 32));
        let v6 = tunnel6.map(|address| (IpAddr::V6(address), 128));
        Ok(NewPeer {
            key: *key,
            psk,
            allowed: v4.into_iter().chain(v6).collect(),
            replaces,
        })
    }

    /// Opens flows and doors, the doors of those sources alone that are somewhere else.
    fn open_all(&mut self, orders: &[&Order]) -> Vec<Result<(), Failure>> {
        let sources = orders.iter().filter_map(|order| match order {
            // Allowed by the limits only where `lo` is a knock interface.
            Order::Door { door, .. } if !door.source.is_loopback() => Some(door.source),
            _ => None,
        });
        let sources: BTreeSet<IpAddr> = sources.collect();
        let owners = owners(&mut self.routes, &sources);
        let wanted: Vec<Result<(Opening, Ttl), Failure>> = orders
            .iter()
            .map(|order| match order {
                Order::Door { door, ttl } => {
                    let owner = owners.as_ref().map(|owners| owners.get(&door.source));
                    match owner {
                        Ok(Some(Owner::Elsewhere) | None) => Ok((Opening::Door(*door), *ttl)),
                        Ok(Some(Owner::NotAHost)) => Err(Failure::Refused(Reason::SourceForbidden)),
                        Err(error) => Err(failed_of(error)),
                    }
                }
                Order::Flow { flow, ttl } => Ok((Opening::Flow(*flow), *ttl)),
                _ => Err(Failure::Refused(Reason::SourceForbidden)),
            })
            .collect();
        let possible: Vec<(Opening, Ttl)> = wanted.iter().flatten().copied().collect();
        let mut opened = self.table.open_all(&possible).into_iter();
        let outcome = |wanted: Result<(Opening, Ttl), Failure>| {
            let (opening, ttl) = wanted?;
            let opened = opened.next().expect("an outcome for each that was wanted");
            opened.map_err(not_opened)?;
            let lasts = Duration::from_millis(ttl.as_millis().into());
            let until = Instant::now() + lasts;
            self.opened.insert(unpublished(opening), until);
            Ok(())
        };
        wanted.into_iter().map(outcome).collect()
    }

    fn close(&mut self, opening: &Opening) -> Result<(), Failure> {
        self.table.close(opening).map_err(table_failed)?;
        self.opened.remove(&unpublished(*opening));
        Ok(())
    }
}

/// The outcome of a row of one.
fn first_of(row: Vec<Result<(), Failure>>) -> Result<(), Failure> {
    row.into_iter().collect()
}

fn not_opened(error: OpenError) -> Failure {
    match error {
        OpenError::Full => Failure::Refused(Reason::OpeningsFull),
        OpenError::Kernel(source) => table_failed(source),
        OpenError::ReadBack => Failure::Failed(failed(What::ReadBack, None, &error)),
    }
}

fn table_failed(error: io::Error) -> Failure {
    failed_of(&error)
}

fn failed_of(error: &io::Error) -> Failure {
    Failure::Failed(failed(What::Table, error.raw_os_error(), error))
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
