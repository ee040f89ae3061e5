//! The answers: what became of an order, or what was asked for.

use core::fmt;
use core::net::SocketAddr;

use crate::limits::KnockInterfaces;
use crate::opening::{DOOR_LEN, Door, FLOW_LEN, Flow};
use crate::tag_table::TagTable;
use crate::wire::{ANSWER_LEN, DecodeError, Reader, Writer};

/// One answer to one order, or one line of a list.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Answer {
    /// The enforcer is ready. Sequence 0; its descriptors travel with it (see [`Hello`]).
    Hello(Hello),
    /// Done, and read back from the kernel.
    Done,
    /// One peer.
    Peer(PeerReport),
    /// No such peer.
    Absent,
    /// One door or flow.
    Opening {
        /// Which.
        opening: Opening,
        /// What is left of it and what passed.
        usage: Usage,
    },
    /// How many connections sessions began, or tried to.
    Connections(Connections),
    /// The end of a list.
    End,
    /// Outside the enforcer's limits. Nothing changed.
    Refused(Reason),
    /// The kernel, or the WireGuard process, said no. What was begun is undone as far as it can be.
    Failed {
        /// The errno; 0 where there is none.
        errno: i32,
        /// What was tried.
        what: What,
    },
}

/// The first answer of all.
///
/// With it come, by `SCM_RIGHTS` and in this order: one `AF_PACKET` socket per knock
/// interface, then the raw IPv4 reply socket, then the raw IPv6 one if `replies` says so, then the
/// memory of the tag table if there is one, then the sockets of the access log that `access` says.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Hello {
    /// Who does WireGuard.
    pub backend: Backend,
    /// The index of the WireGuard interface.
    pub wireguard: u32,
    /// Which reply sockets come along.
    pub replies: Replies,
    /// The knock interfaces, in the order of the capture sockets.
    pub knock: KnockInterfaces,
    /// The table of tags in front of the capture sockets; `None` where the kernel takes no such filter.
    pub tags: Option<TagTable>,
    /// Which sockets of the access log come along.
    pub access: Access,
}

impl Hello {
    /// Counts the descriptors that come along.
    #[must_use]
    pub fn descriptors(&self) -> usize {
        let replies = match self.replies {
            Replies::Ipv4 => 1,
            Replies::Both => 2,
        };
        let access = match self.access {
            Access::None => 0,
            Access::Begun => 1,
            Access::BegunAndEnded => 2,
        };
        self.knock.indices().len() + replies + usize::from(self.tags.is_some()) + access
    }
}

/// Who does WireGuard.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Backend {
    /// The kernel's own.
    Kernel,
    /// `spa-tunnel`, in a process of its own.
    Embedded,
}

/// Which raw reply sockets there are.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Replies {
    /// IPv4 only: a kernel without IPv6.
    Ipv4,
    /// IPv4, then IPv6.
    Both,
}

/// Which sockets of the access log there are. Both are netlink, in the words of the kernel.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Access {
    /// None: this kernel does not tell.
    None,
    /// Of the connections that begin, by nfnetlink_log.
    Begun,
    /// And of those that end, by connection tracking.
    BegunAndEnded,
}

/// How many connections sessions began, and tried to, since the table was made.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Connections {
    /// Those that passed.
    pub allowed: Told,
    /// Packets that did not.
    pub refused: Told,
}

/// How many there were, and how many of them the kernel told of.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Told {
    /// All of them.
    pub all: u64,
    /// Those on the socket of the access log.
    pub told: u64,
}

/// What WireGuard knows of a peer.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct PeerReport {
    /// The peer's public key.
    pub key: [u8; 32],
    /// Where it was last heard from.
    pub endpoint: Option<SocketAddr>,
    /// How long ago its last handshake was, milliseconds; `None` before the first.
    pub handshake_age_ms: Option<u64>,
    /// Bytes received from it.
    pub rx: u64,
    /// Bytes sent to it.
    pub tx: u64,
}

/// A door or a flow.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Opening {
    /// A door.
    Door(Door),
    /// A flow.
    Flow(Flow),
}

/// What is left of an opening and what passed through it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Usage {
    /// Until the kernel closes it by itself, milliseconds.
    pub remaining_ms: u32,
    /// Packets, both directions of a flow together.
    pub packets: u64,
    /// Bytes, both directions of a flow together.
    pub bytes: u64,
}

macro_rules! byte_enum {
    ($(#[$meta:meta])* $name:ident { $($(#[$doc:meta])* $variant:ident = $byte:literal, $text:literal;)+ }) => {
        $(#[$meta])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
        pub enum $name { $($(#[$doc])* $variant,)+ }

        impl $name {
            /// All of them, in the order of their bytes.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)+];

            fn byte(self) -> u8 {
                match self { $(Self::$variant => $byte,)+ }
            }

            fn from_byte(byte: u8) -> Result<Self, DecodeError> {
                match byte { $($byte => Ok(Self::$variant),)+ _ => Err(DecodeError::Value) }
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(match self { $(Self::$variant => $text,)+ })
            }
        }
    };
}

byte_enum! {
    /// Which limit an order broke.
    Reason {
        /// A second private key.
        KeyAgain = 1, "the WireGuard key is already set";
        /// A peer before the private key.
        KeyMissing = 2, "the WireGuard key is not set yet";
        /// An all-zero key.
        KeyWeak = 3, "the key is all zero";
        /// More than `--max-peers`.
        PeersFull = 4, "no room for another peer";
        /// More than [`MAX_FLOWS`](crate::MAX_FLOWS), or more than four flows of one session that overlap in part.
        OpeningsFull = 5, "no room for another opening";
        /// A peer without any tunnel address.
        TunnelMissing = 6, "the peer has no tunnel address";
        /// A tunnel address outside the pool, or its network or broadcast address.
        TunnelOutside = 7, "the tunnel address is outside the pool";
        /// The gateway's own tunnel address given to a peer.
        TunnelOurs = 8, "the tunnel address is the gateway's own";
        /// Tunnel address and destination of different families.
        FamilyMixed = 9, "tunnel address and destination are of different families";
        /// A prefix beyond the family, or host bits set.
        Prefix = 10, "the prefix does not fit the destination";
        /// Port 0, first after last, or ports with echo.
        Ports = 11, "the ports do not fit the protocol";
        /// Loopback, multicast, link-local, unspecified or broadcast.
        DestinationForbidden = 12, "the destination is no ordinary host";
        /// A destination in the tunnel pool: a neighbour.
        DestinationInPool = 13, "the destination is inside the tunnel pool";
        /// A flow to the gateway that is not for one host.
        GatewayPrefix = 14, "a flow to the gateway is for one address";
        /// A ttl beyond `--max-ttl-ms`.
        TtlLong = 15, "the ttl is longer than allowed";
        /// A ttl beyond [`MAX_WIDE_DOOR_MS`](crate::MAX_WIDE_DOOR_MS) for a door without a port.
        TtlWideDoor = 16, "a door without a port may not stay open that long";
        /// A source that is no unicast address of somebody else.
        SourceForbidden = 17, "the source is no ordinary host";
        /// A source in the tunnel pool.
        SourceInPool = 18, "the source is inside the tunnel pool";
        /// A preshared key for a peer that is not there.
        PeerMissing = 19, "there is no such peer";
        /// A published address of a network, of several ports or of the gateway.
        PublishedWide = 20, "a published address stands for one host and one port";
        /// A published address that no host could have, or that is in the tunnel pool.
        PublishedForbidden = 21, "the published address is no ordinary host's";
    }
}

byte_enum! {
    /// What failed.
    What {
        /// An element of the table.
        Table = 1, "changing the table";
        /// An element was not there, or not as ordered, when read back.
        ReadBack = 2, "reading the table back";
        /// A peer or the key.
        WireGuard = 3, "changing the WireGuard interface";
        /// Connection tracking.
        Conntrack = 4, "deleting tracked connections";
    }
}

impl Answer {
    /// Writes the answer.
    #[must_use]
    pub fn encode(&self, seq: u64) -> [u8; ANSWER_LEN] {
        let mut bytes = [0; ANSWER_LEN];
        let mut out = Writer::new(&mut bytes, self.kind(), seq);
        match self {
            Self::Hello(hello) => hello.write(&mut out),
            Self::Peer(peer) => peer.write(&mut out),
            Self::Opening { opening, usage } => {
                opening.write(&mut out);
                usage.write(&mut out);
            }
            Self::Connections(Connections { allowed, refused }) => {
                allowed.write(&mut out);
                refused.write(&mut out);
            }
            Self::Refused(reason) => out.put(&[reason.byte()]),
            Self::Failed { errno, what } => {
                out.put(&errno.to_be_bytes());
                out.put(&[what.byte()]);
            }
            Self::Done | Self::Absent | Self::End => {}
        }
        bytes
    }

    /// Reads what [`encode`](Self::encode) wrote, and nothing else.
    ///
    /// # Errors
    /// Any other length or content; see [`DecodeError`].
    pub fn decode(message: &[u8]) -> Result<(u64, Self), DecodeError> {
        let (kind, seq, mut body) = Reader::open(message)?;
        let answer = match kind {
            0x81 => Self::Hello(Hello::read(&mut body)?),
            0x82 => Self::Done,
            0x83 => Self::Peer(PeerReport::read(&mut body)?),
            0x84 => Self::Absent,
            0x85 => Self::Opening {
                opening: Opening::read(&mut body)?,
                usage: Usage::read(&mut body)?,
            },
            0x86 => Self::End,
            0x87 => Self::Refused(Reason::from_byte(body.u8()?)?),
            0x88 => Self::Failed {
                errno: i32::from_be_bytes(body.take()?),
                what: What::from_byte(body.u8()?)?,
            },
            0x89 => Self::Connections(Connections {
                allowed: Told::read(&mut body)?,
                refused: Told::read(&mut body)?,
            }),
            _ => return Err(DecodeError::Kind),
        };
        body.finish()?;
        Ok((seq, answer))
    }

    fn kind(&self) -> u8 {
        match self {
            Self::Hello(_) => 0x81,
            Self::Done => 0x82,
            Self::Peer(_) => 0x83,
            Self::Absent => 0x84,
            Self::Opening { .. } => 0x85,
            Self::End => 0x86,
            Self::Refused(_) => 0x87,
            Self::Failed { .. } => 0x88,
            Self::Connections(_) => 0x89,
        }
    }
}

impl Hello {
    fn write(&self, out: &mut Writer<'_>) {
        out.put(&[match self.backend {
            Backend::Kernel => 1,
            Backend::Embedded => 2,
        }]);
        out.put(&self.wireguard.to_be_bytes());
        out.put(&[match self.replies {
            Replies::Ipv4 => 1,
            Replies::Both => 2,
        }]);
        self.knock.write(out);
        let buckets = self.tags.map_or(0, TagTable::buckets);
        out.put(&buckets.to_be_bytes());
        out.put(&[match self.access {
            Access::None => 0,
            Access::Begun => 1,
            Access::BegunAndEnded => 2,
        }]);
    }

    fn read(from: &mut Reader<'_>) -> Result<Self, DecodeError> {
        Ok(Self {
            backend: match from.u8()? {
                1 => Backend::Kernel,
                2 => Backend::Embedded,
                _ => return Err(DecodeError::Value),
            },
            wireguard: from.u32()?,
            replies: match from.u8()? {
                1 => Replies::Ipv4,
                2 => Replies::Both,
                _ => return Err(DecodeError::Value),
            },
            knock: KnockInterfaces::read(from)?,
            tags: match from.u32()? {
                0 => None,
                buckets => Some(TagTable::from_buckets(buckets).ok_or(DecodeError::Value)?),
            },
            access: match from.u8()? {
                0 => Access::None,
                1 => Access::Begun,
                2 => Access::BegunAndEnded,
                _ => return Err(DecodeError::Value),
            },
        })
    }
}

impl PeerReport {
    fn write(&self, out: &mut Writer<'_>) {
        out.put(&self.key);
        match self.endpoint {
            Some(endpoint) => {
                out.put_address(endpoint.ip());
                out.put(&endpoint.port().to_be_bytes());
            }
            None => out.put(&[0; 19]),
        }
        out.put(&[u8::from(self.handshake_age_ms.is_some())]);
        out.put(&self.handshake_age_ms.unwrap_or(0).to_be_bytes());
        out.put(&self.rx.to_be_bytes());
        out.put(&self.tx.to_be_bytes());
    }

    fn read(from: &mut Reader<'_>) -> Result<Self, DecodeError> {
        Ok(Self {
            key: from.take()?,
            endpoint: read_endpoint(from)?,
            handshake_age_ms: match (from.u8()?, from.u64()?) {
                (0, 0) => None,
                (1, age) => Some(age),
                _ => return Err(DecodeError::Value),
            },
            rx: from.u64()?,
            tx: from.u64()?,
        })
    }
}

/// Nineteen zeros are no endpoint; else an address and a port.
fn read_endpoint(from: &mut Reader<'_>) -> Result<Option<SocketAddr>, DecodeError> {
    if from.next_is_zero() {
        return from.zeros::<19>().map(|()| None);
    }
    Ok(Some(SocketAddr::new(from.address()?, from.u16()?)))
}

impl Opening {
    fn write(&self, out: &mut Writer<'_>) {
        match self {
            Self::Door(door) => {
                out.put(&[0]);
                door.write(out);
                out.put(&[0; FLOW_LEN - DOOR_LEN]);
            }
            Self::Flow(flow) => {
                out.put(&[1]);
                flow.write(out);
            }
        }
    }

    fn read(from: &mut Reader<'_>) -> Result<Self, DecodeError> {
        match from.u8()? {
            0 => {
                let door = Door::read(from)?;
                from.zeros::<{ FLOW_LEN - DOOR_LEN }>()?;
                Ok(Self::Door(door))
            }
            1 => Ok(Self::Flow(Flow::read(from)?)),
            _ => Err(DecodeError::Value),
        }
    }
}

impl Told {
    fn write(self, out: &mut Writer<'_>) {
        out.put(&self.all.to_be_bytes());
        out.put(&self.told.to_be_bytes());
    }

    fn read(from: &mut Reader<'_>) -> Result<Self, DecodeError> {
        Ok(Self {
            all: from.u64()?,
            told: from.u64()?,
        })
    }
}

impl Usage {
    fn write(&self, out: &mut Writer<'_>) {
        out.put(&self.remaining_ms.to_be_bytes());
        out.put(&self.packets.to_be_bytes());
        out.put(&self.bytes.to_be_bytes());
    }

    fn read(from: &mut Reader<'_>) -> Result<Self, DecodeError> {
        Ok(Self {
            remaining_ms: from.u32()?,
            packets: from.u64()?,
            bytes: from.u64()?,
        })
    }
}

#[cfg(test)]
mod tests;
