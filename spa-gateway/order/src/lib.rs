//! What the daemon may ask of the enforcer, and what it hears back.
//!
//! Orders travel over a `SOCK_SEQPACKET` pair, one per message, always exactly
//! [`ORDER_LEN`] bytes; answers always exactly [`ANSWER_LEN`]. Every order gets one
//! answer with the same sequence number; [`Order::ListPeers`] and
//! [`Order::ListOpenings`] get any number of them and then [`Answer::End`]. Answers
//! come in the order of the orders, but for [`Order::Forget`], which takes its time.
//! Whoever sends also reads: with about two hundred messages unread each side waits
//! for the other. The first message of all is the enforcer's [`Answer::Hello`],
//! sequence 0, with descriptors.
//!
//! Invariant: `decode` accepts precisely what `encode` writes. Every byte that a kind
//! does not use is zero, every enum byte is known, every address has one spelling. A
//! message that does not decode means the other side is broken; neither side guesses.
//!
//! | offset | size | field |
//! |---|---|---|
//! | 0 | 1 | format, [`FORMAT`] |
//! | 1 | 1 | kind |
//! | 2 | 2 | zero |
//! | 4 | 8 | sequence number, big-endian as all integers here |
//! | 12 | 116 | body of the kind, then zeros |
//!
//! | part | size | layout |
//! |---|---|---|
//! | address | 17 | family (4 or 6), then 16 bytes; IPv4 uses the first four, no mapped IPv6 |
//! | [`Flow`] | 58 | tunnel 17, target 1, destination 17, prefix 1, protocol 1, ports 2 + 2, published 17 (all zero = none) |
//! | [`Door`] | 19 | source 17, port 2 (0 = any) |
//! | [`Ttl`] | 4 | milliseconds, 1 to [`MAX_TTL_MS`] |
//! | order `Key` | 32 | private key |
//! | order `Peer` | 84 | key 32, preshared key 32, IPv4 4 (0 = none), IPv6 16 (0 = none) |
//! | orders `RemovePeer`, `ReadPeer` | 32 | key |
//! | order `Flow` / `CloseFlow` | 62 / 58 | flow, and the ttl |
//! | order `Door` / `CloseDoor` | 23 / 19 | door, and the ttl |
//! | order `Forget` | 17 | tunnel address |
//! | orders `ListPeers`, `ListOpenings`, `CountConnections` | 0 | |
//! | answer `Hello` | 44 | backend 1, WireGuard interface 4, replies 1, count 1, 8 × 4 knock interfaces, buckets of the tag table 4 (0 = none), access log 1 |
//! | answer `Connections` | 32 | allowed and refused: all 8, told 8 |
//! | answer `Peer` | 76 | key 32, endpoint 17 + 2 (all zero = none), handshake 1 + 8, received 8, sent 8 |
//! | answer `Opening` | 79 | door 0 or flow 1: 1, door or flow 58, remaining ms 4, packets 8, bytes 8 |
//! | answer `Refused` | 1 | reason |
//! | answer `Failed` | 5 | errno 4, what 1 |
//! | answers `Done`, `Absent`, `End` | 0 | |
#![no_std]
#![forbid(unsafe_code)]

#[cfg(test)]
extern crate std;

mod answer;
mod limits;
mod opening;
mod order;
mod secret;
mod tag_table;
mod wire;

pub use answer::{
    Access, Answer, Backend, Connections, Hello, Opening, PeerReport, Reason, Replies, Told, Usage,
    What,
};
pub use limits::{
    KnockInterfaces, MAX_FLOWS, MAX_KNOCK_INTERFACES, MAX_PEERS, MAX_TTL_MS, MAX_WIDE_DOOR_MS, Ttl,
};
pub use opening::{Door, Flow, FlowTarget, Protocol};
pub use order::Order;
pub use secret::SecretBytes32;
pub use tag_table::{ALL_PASS, HEADER_WORDS, SLOTS, TagTable};
pub use wire::{ANSWER_LEN, DecodeError, FORMAT, ORDER_LEN};
/// What [`Order::encode`] wraps its bytes in: a copy that wipes itself.
pub use zeroize::Zeroizing;
