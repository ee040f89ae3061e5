//! Makes the TUN device of the embedded WireGuard; it lives as long as a descriptor of it does.

use std::ffi::c_short;
use std::io;
use std::os::fd::OwnedFd;

use rustix::fs::{Mode, OFlags};
use rustix::ioctl::{Updater, ioctl, opcode};

/// `TUNSETIFF` of `linux/if_tun.h`.
const SET_INTERFACE: rustix::ioctl::Opcode = opcode::write::<i32>(b'T', 202);
/// `IFF_TUN | IFF_NO_PI | IFF_TUN_EXCL`: packets begin at the IP header, and an interface that exists is not joined.
const FLAGS: u16 = 0x0001 | 0x1000 | 0x8000;

/// `struct ifreq` of `linux/if.h`, no shorter than on any platform.
#[repr(C)]
struct InterfaceRequest {
    name: [u8; 16],
    flags: c_short,
    rest: [u8; 22],
}

/// Makes the device. What is read from and written to it is one IP packet each, without blocking.
///
/// # Errors
/// `/dev/net/tun` cannot be opened, the caller lacks `CAP_NET_ADMIN`, or the name is taken (`EBUSY`).
pub fn make(name: &str) -> io::Result<OwnedFd> {
    let device = rustix::fs::open(
        "/dev/net/tun",
        OFlags::RDWR | OFlags::CLOEXEC | OFlags::NONBLOCK,
        Mode::empty(),
    )?;
    let mut request = InterfaceRequest {
        name: [0; 16],
        flags: FLAGS.cast_signed(),
        rest: [0; 22],
    };
    // The caller checked the name; the last byte stays zero in any case.
    request
        .name
        .iter_mut()
        .take(15)
        .zip(name.bytes())
        .for_each(|(to, from)| *to = from);
    // SAFETY: TUNSETIFF reads and writes one `struct ifreq`, which `InterfaceRequest` covers, and keeps no pointer.
    unsafe {
        ioctl(
            &device,
            Updater::<SET_INTERFACE, InterfaceRequest>::new(&mut request),
        )
    }?;
    Ok(device)
}
