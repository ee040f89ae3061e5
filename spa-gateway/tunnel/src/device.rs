//! The two ends gotatun carries packets between: the TUN device and the UDP port, both open before it begins.
//!
//! Invariant: no packet, whatever is in it, and no refused write stops the tunnel; only the end of the device does.

use std::io;
use std::iter;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::fd::OwnedFd;
use std::sync::Arc;

use gotatun::packet::{Ip, Packet, PacketBufPool};
use gotatun::tun::{IpRecv, IpSend, MtuWatcher};
use gotatun::udp::socket::{SockOpt, UdpSocket};
use gotatun::udp::{UdpRecv, UdpTransportFactory, UdpTransportFactoryParams};
use rustix::io::Errno;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

use crate::readiness;

/// The TUN device; clones share it.
#[derive(Clone)]
pub struct Tun {
    device: Arc<AsyncFd<OwnedFd>>,
    mtu: u16,
}

impl Tun {
    /// Takes a device that does not block and has packets begin at their IP header.
    pub fn take(device: OwnedFd, mtu: u16) -> io::Result<Self> {
        Ok(Self {
            device: Arc::new(readiness::watch(device)?),
            mtu,
        })
    }
}

impl IpSend for Tun {
    async fn send(&mut self, packet: Packet<Ip>) -> io::Result<()> {
        let packet = packet.into_bytes();
        let written = self
            .device
            .async_io(Interest::WRITABLE, |device| {
                Ok(rustix::io::write(device, &packet)?)
            })
            .await;
        match written {
            // The interface is gone for good. Anything else is about this packet, or the link is down for a while;
            // gotatun would stop for good.
            Err(error) if error.raw_os_error() == Some(Errno::BADFD.raw_os_error()) => Err(error),
            _ => Ok(()),
        }
    }
}

impl IpRecv for Tun {
    async fn recv<'a>(
        &'a mut self,
        pool: &mut PacketBufPool,
    ) -> io::Result<impl Iterator<Item = Packet<Ip>> + Send + 'a> {
        loop {
            let mut packet = pool.get();
            let len = self
                .device
                .async_io(Interest::READABLE, |device| {
                    Ok(rustix::io::read(device, &mut packet[..])?)
                })
                .await?;
            packet.truncate(len);
            // What is no IP packet is nobody's.
            if let Ok(packet) = packet.try_into_ip() {
                return Ok(iter::once(packet));
            }
        }
    }

    fn mtu(&self) -> MtuWatcher {
        MtuWatcher::new(self.mtu)
    }
}

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
    type Send = UdpSocket;
    type Recv = UdpSocket;

    async fn bind(&mut self, _: &UdpTransportFactoryParams) -> io::Result<(UdpSocket, UdpSocket)> {
        Ok((self.0.clone(), self.0.clone()))
    }
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
