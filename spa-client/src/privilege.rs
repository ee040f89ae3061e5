//! What must be there before anything is asked or sent: CAP_NET_ADMIN, and a WireGuard to use it with.

use std::fs::OpenOptions;
use std::path::Path;

use rustix::thread::{CapabilitySet, capabilities};
use spa_wireguard::{BackendChoice, Interface, Plan, WireguardError};

use crate::failure::Failure;
use crate::tunnel;

/// Tells whether this process may make an interface.
#[must_use]
pub fn may_make_interfaces() -> bool {
    capabilities(None).is_ok_and(|sets| sets.effective.contains(CapabilitySet::NET_ADMIN))
}

/// Which WireGuard a knock would use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Available {
    /// The kernel's.
    Kernel,
    /// `spa-tunnel` over a TUN device.
    Embedded,
}

/// Checks both, in that order.
///
/// # Errors
/// One line with the remedies.
pub fn check() -> Result<Available, Failure> {
    if !may_make_interfaces() {
        return Err(Failure::Refused(no_privilege()));
    }
    wireguard()
}

/// What to say without the capability.
#[must_use]
pub fn no_privilege() -> String {
    let program = std::env::current_exe()
        .map_or_else(|_| "spa".to_owned(), |path| path.display().to_string());
    format!(
        "spa may not make a network interface (CAP_NET_ADMIN is missing), nothing was sent: run it with sudo, or allow it once for all with `sudo setcap cap_net_admin+ep {program}`"
    )
}

/// Finds a WireGuard; the kernel's is probed only where the embedded one is not to be had, since probing makes an interface.
///
/// # Errors
/// One line that names what is missing.
pub fn wireguard() -> Result<Available, Failure> {
    if Path::new("/sys/module/wireguard").exists() {
        return Ok(Available::Kernel);
    }
    let tun = OpenOptions::new()
        .read(true)
        .write(true)
        .open("/dev/net/tun");
    let program = tunnel::tunnel_program();
    let missing = match (tun, program) {
        (Ok(_), Some(_)) => return Ok(Available::Embedded),
        (Err(error), _) => format!("/dev/net/tun cannot be opened ({error}): load the module `tun` or `wireguard`"),
        (Ok(_), None) => "the program spa-tunnel is not installed: put it beside spa, or load the kernel module `wireguard`".to_owned(),
    };
    match probe_kernel() {
        Ok(()) => Ok(Available::Kernel),
        Err(_) => Err(Failure::Refused(format!(
            "this kernel has no WireGuard and {missing}"
        ))),
    }
}

/// Makes a WireGuard interface in the kernel, which loads its module, and removes it.
fn probe_kernel() -> Result<(), WireguardError> {
    let name = format!("spa-p{}", std::process::id());
    Interface::create(&Plan {
        name: &name,
        listen_port: 0,
        addresses: &[],
        mtu: 1280,
        backend: BackendChoice::Kernel,
        tunnel_program: Path::new(""),
        tunnel_uid: 0,
        tunnel_gid: 0,
    })?
    .delete()
}
