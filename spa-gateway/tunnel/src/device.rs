//! One of the two ends gotatun carries packets between: the TUN device, open before it begins.
//!
//! Invariant: no packet, whatever is in it, and no refused write stops the tunnel; only the end of the device does.

use std::io;
use std::iter;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use gotatun::packet::{Ip, Packet, PacketBufPool};
use gotatun::tun::{IpRecv, IpSend, MtuWatcher};
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
