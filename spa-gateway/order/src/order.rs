//! The orders: everything the daemon can have done with privilege.
//!
//! Removing what is not there is [`Answer::Done`](crate::Answer::Done); adding what is
//! there replaces its ttl. So an order may be repeated until it is confirmed.

use core::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use zeroize::Zeroizing;

use crate::limits::Ttl;
use crate::opening::{Door, Flow};
use crate::secret::SecretBytes32;
use crate::wire::{DecodeError, ORDER_LEN, Reader, Writer};

/// One thing to do or to tell.
#[derive(PartialEq, Eq, Debug)]
pub enum Order {
    /// Gives the interface its WireGuard private key. Once, before any peer.
    Key {
        /// The private key.
        private: SecretBytes32,
    },
    /// Adds a peer or replaces it. Its allowed addresses are the tunnel addresses and nothing else.
    Peer {
        /// The peer's WireGuard public key.
        key: [u8; 32],
        /// The preshared key of this session (SPEC §6, `wg_psk`).
        psk: SecretBytes32,
        /// The session's tunnel IPv4 address.
        tunnel4: Option<Ipv4Addr>,
        /// The session's tunnel IPv6 address.
        tunnel6: Option<Ipv6Addr>,
    },
    /// Gives a peer that is there another preshared key. It lives on: its endpoint stays, its session too until the
    /// next handshake, which takes the new key.
    Psk {
        /// The peer's WireGuard public key.
        key: [u8; 32],
        /// The preshared key of a rekey (SPEC §12).
        psk: SecretBytes32,
    },
    /// Removes a peer.
    RemovePeer {
        /// The peer's WireGuard public key.
        key: [u8; 32],
    },
    /// Asks for one peer: [`Answer::Peer`](crate::Answer::Peer) or [`Answer::Absent`](crate::Answer::Absent).
    ReadPeer {
        /// The peer's WireGuard public key.
        key: [u8; 32],
    },
    /// Asks for every peer, then [`Answer::End`](crate::Answer::End).
    ListPeers,
    /// Opens a flow, or gives an open one a new ttl.
    Flow {
        /// The flow.
        flow: Flow,
        /// Until when the kernel keeps it by itself.
        ttl: Ttl,
    },
    /// Closes a flow.
    CloseFlow {
        /// The flow.
        flow: Flow,
    },
    /// Opens a door, or gives an open one a new ttl.
    Door {
        /// The door.
        door: Door,
        /// Until when the kernel keeps it by itself; without a port at most [`MAX_WIDE_DOOR_MS`](crate::MAX_WIDE_DOOR_MS).
        ttl: Ttl,
    },
    /// Closes a door.
    CloseDoor {
        /// The door.
        door: Door,
    },
    /// Deletes every conntrack entry from or to a tunnel address.
    Forget {
        /// The tunnel address.
        tunnel: IpAddr,
    },
    /// Asks for every door and flow, then [`Answer::End`](crate::Answer::End).
    ListOpenings,
    /// Asks how many connections there were: [`Answer::Connections`](crate::Answer::Connections).
    CountConnections,
}

impl Order {
    /// Gives its name.
    #[must_use]
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Key { .. } => "key",
            Self::Peer { .. } => "peer",
            Self::Psk { .. } => "psk",
            Self::RemovePeer { .. } => "remove-peer",
            Self::ReadPeer { .. } => "read-peer",
            Self::ListPeers => "list-peers",
            Self::Flow { .. } => "flow",
            Self::CloseFlow { .. } => "close-flow",
            Self::Door { .. } => "door",
            Self::CloseDoor { .. } => "close-door",
            Self::Forget { .. } => "forget",
            Self::ListOpenings => "list-openings",
            Self::CountConnections => "count-connections",
        }
    }

    /// Writes the order. The bytes may hold a key: they wipe themselves.
    #[must_use]
    pub fn encode(&self, seq: u64) -> Zeroizing<[u8; ORDER_LEN]> {
        let mut bytes = Zeroizing::new([0; ORDER_LEN]);
        let mut out = Writer::new(&mut bytes, self.kind(), seq);
        match self {
            Self::Key { private } => out.put(private.expose()),
            Self::Peer {
                key,
                psk,
                tunnel4,
                tunnel6,
            } => {
                out.put(key);
                out.put(psk.expose());
                out.put(&tunnel4.unwrap_or(Ipv4Addr::UNSPECIFIED).octets());
                out.put(&tunnel6.unwrap_or(Ipv6Addr::UNSPECIFIED).octets());
            }
            Self::Psk { key, psk } => {
                out.put(key);
                out.put(psk.expose());
            }
            Self::RemovePeer { key } | Self::ReadPeer { key } => out.put(key),
            Self::Flow { flow, ttl } => {
                flow.write(&mut out);
                ttl.write(&mut out);
            }
            Self::CloseFlow { flow } => flow.write(&mut out),
            Self::Door { door, ttl } => {
                door.write(&mut out);
                ttl.write(&mut out);
            }
            Self::CloseDoor { door } => door.write(&mut out),
            Self::Forget { tunnel } => out.put_address(*tunnel),
            Self::ListPeers | Self::ListOpenings | Self::CountConnections => {}
        }
        bytes
    }

    /// Reads what [`encode`](Self::encode) wrote, and nothing else.
    ///
    /// # Errors
    /// Any other length or content; see [`DecodeError`].
    pub fn decode(message: &[u8]) -> Result<(u64, Self), DecodeError> {
        let (kind, seq, mut body) = Reader::open(message)?;
        let order = match kind {
            1 => Self::Key {
                private: SecretBytes32::from_bytes(body.take()?),
            },
            2 => Self::Peer {
                key: body.take()?,
                psk: SecretBytes32::from_bytes(body.take()?),
                tunnel4: Some(Ipv4Addr::from(body.take::<4>()?)).filter(|v4| !v4.is_unspecified()),
                tunnel6: Some(Ipv6Addr::from(body.take::<16>()?)).filter(|v6| !v6.is_unspecified()),
            },
            3 => Self::RemovePeer { key: body.take()? },
            4 => Self::ReadPeer { key: body.take()? },
            5 => Self::ListPeers,
            6 => Self::Flow {
                flow: Flow::read(&mut body)?,
                ttl: Ttl::read(&mut body)?,
            },
            7 => Self::CloseFlow {
                flow: Flow::read(&mut body)?,
            },
            8 => Self::Door {
                door: Door::read(&mut body)?,
                ttl: Ttl::read(&mut body)?,
            },
            9 => Self::CloseDoor {
                door: Door::read(&mut body)?,
            },
            10 => Self::Forget {
                tunnel: body.address()?,
            },
            11 => Self::ListOpenings,
            12 => Self::Psk {
                key: body.take()?,
                psk: SecretBytes32::from_bytes(body.take()?),
            },
            13 => Self::CountConnections,
            _ => return Err(DecodeError::Kind),
        };
        body.finish()?;
        Ok((seq, order))
    }

    fn kind(&self) -> u8 {
        match self {
            Self::Key { .. } => 1,
            Self::Peer { .. } => 2,
            Self::RemovePeer { .. } => 3,
            Self::ReadPeer { .. } => 4,
            Self::ListPeers => 5,
            Self::Flow { .. } => 6,
            Self::CloseFlow { .. } => 7,
            Self::Door { .. } => 8,
            Self::CloseDoor { .. } => 9,
            Self::Forget { .. } => 10,
            Self::ListOpenings => 11,
            Self::Psk { .. } => 12,
            Self::CountConnections => 13,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::opening::{FlowTarget, Protocol};
    use core::num::NonZeroU16;
    use std::vec::Vec;

    fn flow(protocol: Protocol, to: FlowTarget) -> Flow {
        Flow {
            tunnel: [10, 200, 0, 7].into(),
            to,
            destination: [10, 0, 6, 0].into(),
            prefix: 28,
            protocol,
            ports: (5432, 5433),
            published: None,
        }
    }

    /// One of every kind with the length its body has.
    fn samples() -> Vec<(Order, usize)> {
        let ttl = Ttl::from_millis(10_000).expect("in range");
        let v6 = Flow {
            tunnel: "fd5a:1::7".parse().expect("address"),
            destination: "fd00::1".parse().expect("address"),
            prefix: 128,
            ..flow(Protocol::Icmp, FlowTarget::Forward)
        };
        let door = Door {
            source: [198, 51, 100, 7].into(),
            port: NonZeroU16::new(40_000),
        };
        let wide = Door {
            source: "2001:db8::7".parse().expect("address"),
            port: None,
        };
        let secret = |n| SecretBytes32::from_bytes([n; 32]);
        std::vec![
            (Order::Key { private: secret(1) }, 32),
            (
                Order::Peer {
                    key: [2; 32],
                    psk: secret(3),
                    tunnel4: Some([10, 200, 0, 7].into()),
                    tunnel6: None,
                },
                84,
            ),
            (
                Order::Peer {
                    key: [2; 32],
                    psk: secret(3),
                    tunnel4: None,
                    tunnel6: "fd5a:1::7".parse().ok(),
                },
                84,
            ),
            (
                Order::Psk {
                    key: [2; 32],
                    psk: secret(4)
                },
                64
            ),
            (Order::RemovePeer { key: [2; 32] }, 32),
            (Order::ReadPeer { key: [2; 32] }, 32),
            (Order::ListPeers, 0),
            (
                Order::Flow {
                    flow: flow(Protocol::Tcp, FlowTarget::Forward),
                    ttl
                },
                62
            ),
            (Order::Flow { flow: v6, ttl }, 62),
            (
                Order::Flow {
                    flow: Flow {
                        published: Some([10, 99, 0, 1].into()),
                        ..flow(Protocol::Tcp, FlowTarget::Forward)
                    },
                    ttl
                },
                62
            ),
            (
                Order::CloseFlow {
                    flow: Flow {
                        published: "fd99::1".parse().ok(),
                        ..v6
                    }
                },
                58
            ),
            (
                Order::CloseFlow {
                    flow: flow(Protocol::Udp, FlowTarget::Gateway)
                },
                58
            ),
            (Order::Door { door, ttl }, 23),
            (Order::Door { door: wide, ttl }, 23),
            (Order::CloseDoor { door: wide }, 19),
            (
                Order::Forget {
                    tunnel: [10, 200, 0, 7].into()
                },
                17
            ),
            (Order::ListOpenings, 0),
            (Order::CountConnections, 0),
        ]
    }

    #[test]
    fn every_order_comes_back_as_it_went() {
        for (seq, (order, _)) in (u64::MAX - 20..).zip(samples()) {
            let bytes = order.encode(seq);
            assert_eq!(Order::decode(&bytes[..]), Ok((seq, order)));
        }
    }

    #[test]
    fn only_one_length_is_an_order() {
        let bytes = Order::ListPeers.encode(1);
        for len in 0..ORDER_LEN {
            assert_eq!(Order::decode(&bytes[..len]), Err(DecodeError::Length));
        }
        let longer = [&bytes[..], &[0]].concat();
        assert_eq!(Order::decode(&longer), Err(DecodeError::Length));
    }

    #[test]
    fn every_unused_byte_is_zero() {
        for (order, body) in samples() {
            for at in (2..4).chain(12 + body..ORDER_LEN) {
                let mut bytes = order.encode(1);
                bytes[at] = 1;
                assert_eq!(
                    Order::decode(&bytes[..]),
                    Err(DecodeError::Padding),
                    "{order:?} {at}"
                );
            }
        }
    }

    #[test]
    fn whatever_decodes_encodes_to_the_same_bytes() {
        for (order, _) in samples() {
            for at in 0..ORDER_LEN {
                for value in 0..=255 {
                    let mut bytes = order.encode(1);
                    bytes[at] = value;
                    if let Ok((seq, decoded)) = Order::decode(&bytes[..]) {
                        assert_eq!(decoded.encode(seq), bytes, "{order:?} byte {at} = {value}");
                    }
                }
            }
        }
    }

    #[test]
    fn another_format_kind_ttl_or_address_is_refused() {
        let door = Door {
            source: [198, 51, 100, 7].into(),
            port: None,
        };
        let order = Order::Door {
            door,
            ttl: Ttl::from_millis(1).expect("in range"),
        };
        let with = |at: usize, value: &[u8]| {
            let mut bytes = order.encode(1);
            bytes[at..at + value.len()].copy_from_slice(value);
            Order::decode(&bytes[..])
        };
        assert_eq!(with(0, &[1]), Err(DecodeError::Format));
        assert_eq!(with(1, &[0]), Err(DecodeError::Kind));
        assert_eq!(with(1, &[14]), Err(DecodeError::Kind));
        assert_eq!(with(12, &[5]), Err(DecodeError::Address));
        assert_eq!(with(17, &[1]), Err(DecodeError::Padding));
        assert_eq!(with(31, &[0; 4]), Err(DecodeError::Value));
        assert_eq!(with(31, &[0xFF; 4]), Err(DecodeError::Value));
        let mapped = [6, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xFF, 0xFF, 198, 51, 100, 7];
        assert_eq!(with(12, &mapped), Err(DecodeError::Address));
    }
}
