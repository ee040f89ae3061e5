//! Registers a descriptor we own with the runtime.

use std::io;
use std::os::fd::OwnedFd;

use tokio::io::unix::AsyncFd;

/// Waits on a descriptor that blocks nobody.
#[expect(
    deprecated,
    reason = "its unsafe successor asks that the descriptor stay open and the same, which an OwnedFd warrants by itself"
)]
pub fn watch(descriptor: OwnedFd) -> io::Result<AsyncFd<OwnedFd>> {
    AsyncFd::new(descriptor)
}
