//! The messages between an owner and its `spa-tunnel`, over a `SOCK_SEQPACKET` pair that is the tunnel's standard input.
//!
//! Every request is [`REQUEST_LEN`] bytes and every answer [`ANSWER_LEN`], of which a message holds up to [`MOST_ANSWERS`]; unused
//! bytes are zero. Any other length or content ends `spa-tunnel`. The first request is [`Request::Start`] with the TUN device beside it (`SCM_RIGHTS`) and is
//! answered by [`Answer::Ready`]; from then on each request has one answer, [`Request::List`] one [`Answer::Peer`] for each peer
//! and [`Answer::End`].

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV6};
use std::time::Duration;

use zeroize::Zeroizing;

use crate::WireguardError;
use crate::plan::{KEY_LEN, Peer, PeerState, Psk};

/// Most networks one peer may have.
pub const MAX_ALLOWED: usize = 128;
/// Kind, then the longest request, a peer: two keys, endpoint, keepalive, count, networks.
pub const REQUEST_LEN: usize = 1 + 2 * KEY_LEN + ENDPOINT_LEN + 2 + 1 + MAX_ALLOWED * NETWORK_LEN;
/// Kind, then the longest answer, a peer: key, endpoint, a flag with milliseconds, two counters.
pub const ANSWER_LEN: usize = 1 + KEY_LEN + ENDPOINT_LEN + 1 + 8 + 8 + 8;
/// How many answers one message may hold: a list of peers has thousands.
pub const MOST_ANSWERS: usize = 64;

/// Family (0 none, 4, 6), address, port, scope.
const ENDPOINT_LEN: usize = 1 + 16 + 2 + 4;
/// Family (4, 6), address, prefix length.
const NETWORK_LEN: usize = 1 + 16 + 1;

/// What an owner asks of its tunnel.
#[derive(Debug)]
pub enum Request<'a> {
    /// Carry packets between the TUN device beside this message and this UDP port; first, and only once.
    Start {
        /// UDP port; 0 lets the system choose.
        port: u16,
        /// MTU of the TUN device.
        mtu: u16,
    },
    /// Take this private key.
    Key(Zeroizing<[u8; KEY_LEN]>),
    /// Add or replace a peer.
    Put(Peer<'a>),
    /// Give a peer that is there another preshared key for its next handshake.
    Psk([u8; KEY_LEN], Psk),
    /// Remove a peer, there or not.
    Remove([u8; KEY_LEN]),
    /// Tell about one peer: [`Answer::Peer`], or [`Answer::End`] if it is not there.
    Read([u8; KEY_LEN]),
    /// Tell about all peers.
    List,
}

/// What a tunnel answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Answer {
    /// Started, and listening.
    Ready,
    /// Done.
    Done,
    /// A peer.
    Peer(PeerState),
    /// No further peer.
    End,
    /// Not done.
    Failed {
        /// What was tried.
        what: What,
        /// The system's error number, 0 where there is none.
        errno: i32,
    },
}

/// What a tunnel may fail at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum What {
    /// Binding the UDP port.
    Port,
    /// Reading and writing the TUN device.
    Tun,
    /// Giving up privileges.
    Confine,
    /// Bringing WireGuard up with the private key.
    Key,
    /// A peer before the private key.
    Order,
    /// Adding or removing a peer.
    Peer,
}

impl What {
    const ALL: [Self; 6] = [
        Self::Port,
        Self::Tun,
        Self::Confine,
        Self::Key,
        Self::Order,
        Self::Peer,
    ];

    /// As it stands in an error line, after "failed".
    pub fn doing(self) -> &'static str {
        match self {
            Self::Port => "binding its UDP port",
            Self::Tun => "taking the TUN device",
            Self::Confine => "giving up its privileges",
            Self::Key => "taking the private key",
            Self::Order => "adding a peer: the private key comes first",
            Self::Peer => "changing a peer",
        }
    }
}

impl<'a> Request<'a> {
    /// Writes the request.
    ///
    /// # Errors
    /// [`WireguardError::TooManyNetworks`].
    pub fn encode(&self) -> Result<Zeroizing<[u8; REQUEST_LEN]>, WireguardError> {
        let mut bytes = Zeroizing::new([0; REQUEST_LEN]);
        let mut to = Writer(bytes.as_mut_slice());
        match self {
            Self::Start { port, mtu } => {
                to.put(&[1]);
                to.put(&port.to_be_bytes());
                to.put(&mtu.to_be_bytes());
            }
            Self::Key(key) => {
                to.put(&[2]);
                to.put(key.as_slice());
            }
            Self::Put(peer) => {
                let count = peer.allowed.len();
                let count_byte = u8::try_from(count).ok().filter(|_| count <= MAX_ALLOWED);
                let count_byte = count_byte.ok_or(WireguardError::TooManyNetworks { count })?;
                to.put(&[3]);
                to.put(&peer.key);
                to.put(peer.psk.expose());
                to.put_endpoint(peer.endpoint);
                to.put(&peer.keepalive.unwrap_or(0).to_be_bytes());
                to.put(&[count_byte]);
                for &(address, prefix) in peer.allowed {
                    to.put_address(Some(address));
                    to.put(&[prefix]);
                }
            }
            Self::Remove(key) => {
                to.put(&[4]);
                to.put(key);
            }
            Self::Read(key) => {
                to.put(&[5]);
                to.put(key);
            }
            Self::List => to.put(&[6]),
            Self::Psk(key, psk) => {
                to.put(&[7]);
                to.put(key);
                to.put(psk.expose());
            }
        }
        Ok(bytes)
    }

    /// Reads a request; `networks` holds those of a peer. `None` for any other length or content.
    pub fn decode(bytes: &[u8], networks: &'a mut Vec<(IpAddr, u8)>) -> Option<Self> {
        let mut from = Reader::of(bytes, REQUEST_LEN)?;
        let request = match from.byte()? {
            1 => Self::Start {
                port: from.number()?,
                mtu: from.number()?,
            },
            2 => Self::Key(Zeroizing::new(from.take()?)),
            3 => {
                let (key, psk, endpoint) = (
                    from.take()?,
                    Psk::from(from.take::<KEY_LEN>()?),
                    from.endpoint()?,
                );
                let keepalive = Some(from.number()?).filter(|&seconds| seconds != 0);
                let count = usize::from(from.byte()?);
                networks.clear();
                for _ in 0..count {
                    let network = (from.address()??, from.byte()?);
                    crate::link::check_prefix(network).ok()?;
                    networks.push(network);
                }
                Self::Put(Peer {
                    key,
                    psk,
                    allowed: networks,
                    endpoint,
                    keepalive,
                })
            }
            4 => Self::Remove(from.take()?),
            5 => Self::Read(from.take()?),
            6 => Self::List,
            7 => Self::Psk(from.take()?, Psk::from(from.take::<KEY_LEN>()?)),
            _ => return None,
        };
        from.is_spent().then_some(request)
    }
}

impl Answer {
    /// Writes the answer.
    pub fn encode(&self) -> [u8; ANSWER_LEN] {
        let mut bytes = [0; ANSWER_LEN];
        let mut to = Writer(&mut bytes);
        match self {
            Self::Ready => to.put(&[1]),
            Self::Done => to.put(&[2]),
            Self::Peer(peer) => {
                let age = peer
                    .handshake_age
                    .map(|age| u64::try_from(age.as_millis()).unwrap_or(u64::MAX));
                to.put(&[3]);
                to.put(&peer.key);
                to.put_endpoint(peer.endpoint);
                to.put(&[u8::from(age.is_some())]);
                to.put(&age.unwrap_or(0).to_be_bytes());
                to.put(&peer.rx.to_be_bytes());
                to.put(&peer.tx.to_be_bytes());
            }
            Self::End => to.put(&[4]),
            Self::Failed { what, errno } => {
                to.put(&[5, *what as u8]);
                to.put(&errno.to_be_bytes());
            }
        }
        bytes
    }

    /// Reads an answer; `None` for any other length or content.
    pub fn decode(bytes: &[u8]) -> Option<Self> {
        let mut from = Reader::of(bytes, ANSWER_LEN)?;
        let answer = match from.byte()? {
            1 => Self::Ready,
            2 => Self::Done,
            3 => {
                let (key, endpoint) = (from.take()?, from.endpoint()?);
                let handshake_age = match (from.byte()?, u64::from_be_bytes(from.take()?)) {
                    (0, 0) => None,
                    (1, age) => Some(Duration::from_millis(age)),
                    _ => return None,
                };
                let (rx, tx) = (
                    u64::from_be_bytes(from.take()?),
                    u64::from_be_bytes(from.take()?),
                );
                Self::Peer(PeerState {
                    key,
                    endpoint,
                    handshake_age,
                    rx,
                    tx,
                })
            }
            4 => Self::End,
            5 => {
                let what = *What::ALL.get(usize::from(from.byte()?))?;
                Self::Failed {
                    what,
                    errno: i32::from_be_bytes(from.take()?),
                }
            }
            _ => return None,
        };
        from.is_spent().then_some(answer)
    }
}

impl From<Answer> for WireguardError {
    /// What an answer that was not the one expected means.
    fn from(answer: Answer) -> Self {
        match answer {
            Answer::Failed { what, errno } => {
                let source = match errno {
                    0 => io::Error::other("it did not say why"),
                    number => io::Error::from_raw_os_error(number),
                };
                Self::Tunnel {
                    doing: what.doing(),
                    source,
                }
            }
            Answer::Ready | Answer::Done | Answer::Peer(_) | Answer::End => Self::Message,
        }
    }
}

struct Writer<'a>(&'a mut [u8]);

impl Writer<'_> {
    fn put(&mut self, bytes: &[u8]) {
        let (head, tail) = std::mem::take(&mut self.0).split_at_mut(bytes.len());
        head.copy_from_slice(bytes);
        self.0 = tail;
    }

    fn put_address(&mut self, address: Option<IpAddr>) {
        let mut field = [0; 17];
        let (family, room) = field.split_at_mut(1);
        match address {
            None => {}
            Some(IpAddr::V4(four)) => {
                family.fill(4);
                room.iter_mut()
                    .zip(four.octets())
                    .for_each(|(to, from)| *to = from);
            }
            Some(IpAddr::V6(six)) => {
                family.fill(6);
                room.copy_from_slice(&six.octets());
            }
        }
        self.put(&field);
    }

    fn put_endpoint(&mut self, endpoint: Option<SocketAddr>) {
        self.put_address(endpoint.map(|endpoint| endpoint.ip()));
        self.put(&endpoint.map_or(0, |endpoint| endpoint.port()).to_be_bytes());
        let scope = match endpoint {
            Some(SocketAddr::V6(six)) => six.scope_id(),
            Some(SocketAddr::V4(_)) | None => 0,
        };
        self.put(&scope.to_be_bytes());
    }
}

struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn of(bytes: &'a [u8], len: usize) -> Option<Self> {
        (bytes.len() == len).then_some(Self(bytes))
    }

    fn take<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (head, tail) = self.0.split_first_chunk()?;
        self.0 = tail;
        Some(*head)
    }

    fn byte(&mut self) -> Option<u8> {
        self.take::<1>().map(|[byte]| byte)
    }

    fn number(&mut self) -> Option<u16> {
        self.take().map(u16::from_be_bytes)
    }

    /// Outer `None` is a fault, inner `None` no address.
    fn address(&mut self) -> Option<Option<IpAddr>> {
        let (family, octets) = (self.byte()?, self.take::<16>()?);
        let (four, rest) = octets.split_first_chunk::<4>()?;
        match family {
            0 if octets == [0; 16] => Some(None),
            4 if rest.iter().all(|&byte| byte == 0) => Some(Some(Ipv4Addr::from(*four).into())),
            6 => Some(Some(Ipv6Addr::from(octets).into())),
            _ => None,
        }
    }

    fn endpoint(&mut self) -> Option<Option<SocketAddr>> {
        let (address, port, scope) = (
            self.address()?,
            self.number()?,
            u32::from_be_bytes(self.take()?),
        );
        match address {
            None => (port == 0 && scope == 0).then_some(None),
            Some(IpAddr::V4(four)) => (scope == 0).then_some(Some((four, port).into())),
            Some(IpAddr::V6(six)) => Some(Some(SocketAddrV6::new(six, port, 0, scope).into())),
        }
    }

    fn is_spent(&self) -> bool {
        self.0.iter().all(|&byte| byte == 0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn round(request: &Request<'_>) -> String {
        let bytes = request.encode().expect("few networks");
        let mut networks = Vec::new();
        format!(
            "{:?}",
            Request::decode(bytes.as_slice(), &mut networks).expect("what was encoded")
        )
    }

    fn peer<'a>(allowed: &'a [(IpAddr, u8)], endpoint: Option<SocketAddr>) -> Peer<'a> {
        Peer {
            key: [1; KEY_LEN],
            psk: [2; KEY_LEN].into(),
            allowed,
            endpoint,
            keepalive: Some(25),
        }
    }

    #[test]
    fn every_request_reads_back_as_it_was_written() {
        let allowed =
            [([10, 0, 0, 0].into(), 8), (Ipv6Addr::LOCALHOST.into(), 128)].repeat(MAX_ALLOWED / 2);
        for request in [
            Request::Start {
                port: 51820,
                mtu: 1420,
            },
            Request::Key([3; KEY_LEN].into()),
            Request::Put(peer(&allowed, "[fe80::1%7]:9".parse().ok())),
            Request::Put(peer(&[], "198.51.100.10:51820".parse().ok())),
            Request::Put(peer(&[], None)),
            Request::Psk([4; KEY_LEN], [8; KEY_LEN].into()),
            Request::Remove([4; KEY_LEN]),
            Request::Read([5; KEY_LEN]),
            Request::List,
        ] {
            assert_eq!(round(&request), format!("{request:?}"));
        }
    }

    #[test]
    fn every_answer_reads_back_as_it_was_written() {
        let mut answers = vec![Answer::Ready, Answer::Done, Answer::End];
        answers.extend(What::ALL.map(|what| Answer::Failed { what, errno: 98 }));
        for handshake_age in [None, Some(Duration::ZERO), Some(Duration::from_millis(1))] {
            let endpoint = "[2001:db8::1]:1".parse().ok();
            answers.push(Answer::Peer(PeerState {
                key: [6; KEY_LEN],
                endpoint,
                handshake_age,
                rx: 7,
                tx: u64::MAX,
            }));
        }
        for answer in answers {
            assert_eq!(Answer::decode(&answer.encode()), Some(answer));
        }
    }

    #[test]
    fn a_message_of_another_length_or_with_a_stray_byte_is_refused() {
        let mut networks = Vec::new();
        let good = Request::List.encode().expect("no networks");
        assert!(Request::decode(good.get(1..).expect("longer"), &mut networks).is_none());
        assert!(Request::decode(&[good.as_slice(), &[0]].concat(), &mut networks).is_none());
        for at in 1..REQUEST_LEN {
            let mut stray = good.clone();
            if let Some(byte) = stray.get_mut(at) {
                *byte = 1;
            }
            assert!(
                Request::decode(stray.as_slice(), &mut networks).is_none(),
                "{at}"
            );
        }
        for kind in [0, 8, 255] {
            let mut unknown = good.clone();
            if let Some(byte) = unknown.first_mut() {
                *byte = kind;
            }
            assert!(
                Request::decode(unknown.as_slice(), &mut networks).is_none(),
                "{kind}"
            );
        }
    }

    #[test]
    fn more_networks_than_fit_are_refused() {
        let allowed = vec![([10, 0, 0, 0].into(), 8); MAX_ALLOWED + 1];
        let refused = Request::Put(peer(&allowed, None)).encode();
        assert!(
            matches!(refused, Err(WireguardError::TooManyNetworks { count }) if count == MAX_ALLOWED + 1)
        );
    }
}
