//! The other end: the UDP port, bound before gotatun begins. Packets of one size for one place go to the kernel as one.
//!
//! Joined packets (`UDP_SEGMENT`, Linux 4.18) pass through the sender's whole network stack once and are parted by the card, or not at
//! all where the receiver is of our kind: a packet costs a fraction of what it costs by itself. Invariant: what arrives
//! is the same packets in the same order; where the kernel refuses to part them, they leave one by one.

use std::io::{self, IoSlice};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::AsRawFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use gotatun::packet::Packet;
use gotatun::udp::socket::{SockOpt, UdpSocket};
use gotatun::udp::{UdpRecv, UdpSend, UdpTransportFactory, UdpTransportFactoryParams};
use nix::sys::socket::{ControlMessage, MsgFlags, SockaddrStorage, sendmsg};
use rustix::io::Errno;
use tokio::io::Interest;

/// `UDP_MAX_SEGMENTS` of the oldest kernels that join.
const MOST_JOINED: usize = 64;
/// The most bytes of one datagram, with room for the headers of either family.
const MOST_BYTES: usize = 65_000;

/// A UDP port that is bound already, so that gotatun never opens a socket itself.
pub struct Port(UdpSocket);

impl Port {
    /// Binds the port for IPv6 and IPv4 at once, or for IPv4 alone where there is no IPv6.
    pub fn bind(port: u16) -> io::Result<Self> {
        let both = SockOpt {
            only_v6: Some(false),
            ..SockOpt::default()
        };
        let bound = UdpSocket::bind((IpAddr::from(Ipv6Addr::UNSPECIFIED), port).into(), both);
        let socket = match bound {
            Err(error) if no_ipv6(&error) => UdpSocket::bind(
                (IpAddr::from(Ipv4Addr::UNSPECIFIED), port).into(),
                SockOpt::default(),
            )?,
            other => other?,
        };
        // An older kernel refuses; packets then come one by one.
        let _ = socket.enable_udp_gro();
        Ok(Self(socket))
    }
}

impl UdpTransportFactory for Port {
    type Send = Joining;
    type Recv = UdpSocket;

    async fn bind(&mut self, _: &UdpTransportFactoryParams) -> io::Result<(Joining, UdpSocket)> {
        let sender = Joining {
            socket: self.0.clone(),
            joins: Arc::new(AtomicBool::new(true)),
        };
        Ok((sender, self.0.clone()))
    }
}

/// The sending half; clones share it.
#[derive(Clone)]
pub struct Joining {
    socket: UdpSocket,
    /// The kernel has not refused yet.
    joins: Arc<AtomicBool>,
}

impl UdpSend for Joining {
    type SendManyBuf = <UdpSocket as UdpSend>::SendManyBuf;

    async fn send_to(&self, packet: Packet, destination: SocketAddr) -> io::Result<()> {
        self.socket.send_to(packet, destination).await
    }

    fn max_number_of_packets_to_send(&self) -> usize {
        self.socket.max_number_of_packets_to_send()
    }

    async fn send_many_to(
        &self,
        buffer: &mut Self::SendManyBuf,
        packets: &mut Vec<(Packet, SocketAddr)>,
    ) -> io::Result<()> {
        let mut sent = 0;
        while let Some(rest) = packets.get(sent..).filter(|rest| !rest.is_empty()) {
            let row = row(rest);
            if row.len() > 1 && self.joins.load(Ordering::Relaxed) {
                match self.send_joined(row).await {
                    Ok(()) => {
                        sent += row.len();
                        continue;
                    }
                    Err(error) if is_refusal(&error) => self.joins.store(false, Ordering::Relaxed),
                    Err(error) => return Err(error),
                }
            }
            let count = if self.joins.load(Ordering::Relaxed) {
                row.len()
            } else {
                rest.len()
            };
            let mut plain = packets.drain(sent..sent + count).collect();
            self.socket.send_many_to(buffer, &mut plain).await?;
        }
        packets.clear();
        Ok(())
    }

    fn local_addr(&self) -> io::Result<Option<SocketAddr>> {
        UdpSend::local_addr(&self.socket)
    }

    fn set_fwmark(&self, mark: u32) -> io::Result<()> {
        self.socket.set_fwmark(mark)
    }
}

impl Joining {
    /// Sends packets of one row as one datagram to be parted.
    async fn send_joined(&self, row: &[(Packet, SocketAddr)]) -> io::Result<()> {
        let Some((first, to)) = row.first() else {
            return Ok(());
        };
        let size = u16::try_from(first.len()).map_err(io::Error::other)?;
        let to = SockaddrStorage::from(*to);
        let socket = self.socket.socket();
        socket
            .async_io(Interest::WRITABLE, || {
                let mut parts = [IoSlice::new(&[]); MOST_JOINED];
                for (part, (packet, _)) in parts.iter_mut().zip(row) {
                    *part = IoSlice::new(packet);
                }
                let parts = parts.get(..row.len()).unwrap_or_default();
                let segments = [ControlMessage::UdpGsoSegments(&size)];
                let flags = MsgFlags::MSG_DONTWAIT;
                sendmsg(socket.as_raw_fd(), parts, &segments, flags, Some(&to))?;
                Ok(())
            })
            .await
    }
}

/// The longest beginning that can be sent as one: one place, one size, of which the last may fall short.
fn row(packets: &[(Packet, SocketAddr)]) -> &[(Packet, SocketAddr)] {
    let lengths = packets.iter().map(|(packet, to)| (packet.len(), *to));
    packets.get(..joinable(lengths)).unwrap_or(packets)
}

fn joinable(packets: impl Iterator<Item = (usize, SocketAddr)>) -> usize {
    let mut first = None;
    let mut bytes = 0;
    let mut count = 0;
    for (length, to) in packets.take(MOST_JOINED) {
        let (size, place) = *first.get_or_insert((length, to));
        bytes += length;
        if place != to || length > size || bytes > MOST_BYTES {
            break;
        }
        count += 1;
        if length < size {
            break;
        }
    }
    // One goes out by itself, whatever it is.
    count.max(1)
}

/// This kernel, this card or this path does not part packets; anything else is about these packets.
fn is_refusal(error: &io::Error) -> bool {
    let refusals = [
        Errno::IO,
        Errno::INVAL,
        Errno::NOPROTOOPT,
        Errno::OPNOTSUPP,
        Errno::MSGSIZE,
    ];
    refusals
        .iter()
        .any(|errno| error.raw_os_error() == Some(errno.raw_os_error()))
}

fn no_ipv6(error: &io::Error) -> bool {
    let absent = [
        Errno::AFNOSUPPORT,
        Errno::ADDRNOTAVAIL,
        Errno::PROTONOSUPPORT,
    ];
    absent
        .iter()
        .any(|errno| error.raw_os_error() == Some(errno.raw_os_error()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn count(lengths: &[(usize, u16)]) -> usize {
        let place = |port| SocketAddr::from(([192, 0, 2, 1], port));
        joinable(lengths.iter().map(|(length, port)| (*length, place(*port))))
    }

    #[test]
    fn one_size_and_one_place_go_together_and_a_shorter_one_is_the_last() {
        assert_eq!(count(&[(1_452, 9), (1_452, 9), (1_452, 9)]), 3);
        assert_eq!(count(&[(1_452, 9), (1_452, 9), (100, 9), (100, 9)]), 3);
        assert_eq!(count(&[(100, 9), (1_452, 9)]), 1);
        assert_eq!(count(&[(1_452, 9), (1_452, 8)]), 1);
        assert_eq!(count(&[(1_452, 9); 100]), 44);
        assert_eq!(count(&[(32, 9); 100]), MOST_JOINED);
        assert_eq!(count(&[(70_000, 9), (1, 9)]), 1);
    }

    #[test]
    fn packets_arrive_whole_and_in_their_order_joined_or_not() {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_io()
            .build()
            .expect("a runtime");
        runtime.block_on(async {
            let receiver = std::net::UdpSocket::bind("127.0.0.1:0").expect("a socket");
            let to = receiver.local_addr().expect("its address");
            let socket = UdpSocket::bind(
                "127.0.0.1:0".parse().expect("an address"),
                SockOpt::default(),
            );
            let sender = Joining {
                socket: socket.expect("a socket"),
                joins: Arc::new(AtomicBool::new(true)),
            };
            let lengths = [1_200, 1_200, 1_200, 700, 40, 40, 900];
            for joins in [true, false] {
                sender.joins.store(joins, Ordering::Relaxed);
                let packets = lengths.iter().zip(0_u8..);
                let mut packets: Vec<(Packet, SocketAddr)> = packets
                    .map(|(length, byte)| (Packet::copy_from(&vec![byte; *length][..]), to))
                    .collect();
                let mut buffer = Default::default();
                sender
                    .send_many_to(&mut buffer, &mut packets)
                    .await
                    .expect("sent");
                assert!(packets.is_empty());
                for (length, byte) in lengths.iter().zip(0_u8..) {
                    let mut datagram = [0; 2_000];
                    let received = receiver.recv(&mut datagram).expect("received");
                    assert_eq!(&datagram[..received], &vec![byte; *length][..]);
                }
                assert_eq!(
                    sender.joins.load(Ordering::Relaxed),
                    joins,
                    "this kernel joins"
                );
            }
        });
    }
}
