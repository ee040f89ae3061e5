//! Asks a capture socket how many packets its queue in the kernel had no room for (`PACKET_STATISTICS`).
#![allow(unsafe_code)]

use std::io;
use std::os::fd::{AsRawFd, OwnedFd};

/// The queue of one capture socket.
#[derive(Debug)]
pub struct KernelQueue {
    socket: OwnedFd,
    lost: u32,
}

/// `struct tpacket_stats`: since it was asked last.
#[repr(C)]
#[derive(Default)]
struct Statistics {
    packets: u32,
    drops: u32,
}

impl KernelQueue {
    /// Of this socket, whoever reads it.
    ///
    /// # Errors
    /// No descriptor is left.
    pub fn of(socket: &OwnedFd) -> io::Result<Self> {
        let socket = socket.try_clone()?;
        Ok(Self { socket, lost: 0 })
    }

    /// Gives how many packets were lost since the start, modulo 2³².
    pub fn lost(&mut self) -> u32 {
        let mut statistics = Statistics::default();
        let mut len = u32::try_from(size_of::<Statistics>()).unwrap_or(0);
        // SAFETY: `statistics` is live, writable and `len` bytes long; the kernel writes no more than that.
        let result = unsafe {
            libc::getsockopt(
                self.socket.as_raw_fd(),
                libc::SOL_PACKET,
                libc::PACKET_STATISTICS,
                (&raw mut statistics).cast(),
                &raw mut len,
            )
        };
        if result == 0 {
            self.lost = self.lost.wrapping_add(statistics.drops);
        }
        self.lost
    }
}
