//! The socket calls that `rustix` has no safe form of: options of packet sockets, and binding one.
//!
//! Invariant: every pointer handed to the kernel is to a value that outlives the call, with its true size.

use std::io;
use std::os::fd::{AsFd, AsRawFd};

use libc::{c_int, sock_filter, sock_fprog, socklen_t};

/// `PACKET_IGNORE_OUTGOING`, Linux 4.20.
const PACKET_IGNORE_OUTGOING: c_int = 23;

/// Attaches a filter and locks it: whoever holds the socket later cannot change or remove it.
///
/// # Errors
/// The kernel's errno.
pub fn filter_for_good(socket: impl AsFd, program: &mut [sock_filter]) -> io::Result<()> {
    let len = u16::try_from(program.len()).map_err(io::Error::other)?;
    let program = sock_fprog {
        len,
        filter: program.as_mut_ptr(),
    };
    set(&socket, libc::SOL_SOCKET, libc::SO_ATTACH_FILTER, &program)?;
    set(&socket, libc::SOL_SOCKET, libc::SO_LOCK_FILTER, &1)
}

/// Attaches a loaded program and locks it, as [`filter_for_good`] does.
///
/// # Errors
/// The kernel's errno.
pub fn attach_for_good(socket: impl AsFd, program: impl AsFd) -> io::Result<()> {
    let program = program.as_fd().as_raw_fd();
    set(&socket, libc::SOL_SOCKET, libc::SO_ATTACH_BPF, &program)?;
    set(&socket, libc::SOL_SOCKET, libc::SO_LOCK_FILTER, &1)
}

/// Keeps what the machine itself sends off a packet socket.
///
/// # Errors
/// The kernel's errno.
pub fn ignore_outgoing(socket: impl AsFd) -> io::Result<()> {
    set(&socket, libc::SOL_PACKET, PACKET_IGNORE_OUTGOING, &1)
}

/// Binds a packet socket to one interface and every protocol.
///
/// # Errors
/// The kernel's errno.
pub fn bind_to_interface(socket: impl AsFd, index: u32) -> io::Result<()> {
    // SAFETY: sockaddr_ll is plain integers; all zero is a valid value.
    let mut address: libc::sockaddr_ll = unsafe { std::mem::zeroed() };
    address.sll_family = u16::try_from(libc::AF_PACKET).map_err(io::Error::other)?;
    address.sll_protocol = u16::try_from(libc::ETH_P_ALL)
        .map_err(io::Error::other)?
        .to_be();
    address.sll_ifindex = i32::try_from(index).map_err(io::Error::other)?;
    let len = size_of_as_socklen(&address)?;
    // SAFETY: `address` is live and `len` its size; the kernel only reads it.
    let result =
        unsafe { libc::bind(socket.as_fd().as_raw_fd(), (&raw const address).cast(), len) };
    checked(result)
}

/// `T` is an integer or a C structure of the kernel's interface.
fn set<T>(socket: &impl AsFd, level: c_int, name: c_int, value: &T) -> io::Result<()> {
    let len = size_of_as_socklen(value)?;
    // SAFETY: `value` is live and `len` its size; the kernel only reads it.
    let result = unsafe {
        let value = (&raw const *value).cast();
        libc::setsockopt(socket.as_fd().as_raw_fd(), level, name, value, len)
    };
    checked(result)
}

fn size_of_as_socklen<T>(_: &T) -> io::Result<socklen_t> {
    socklen_t::try_from(size_of::<T>()).map_err(io::Error::other)
}

fn checked(result: c_int) -> io::Result<()> {
    if result < 0 {
        Err(io::Error::last_os_error())
    } else {
        Ok(())
    }
}
