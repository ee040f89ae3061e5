//! What this process may do before it takes its first order: change networks of its namespace, on the
//! descriptors it has, and nothing else.
//!
//! Invariant: after `give_up` no file can be opened, no socket made, no program started, no capability but
//! `CAP_NET_ADMIN` used or regained, and no debugger or core dump can see the keys.

use std::io;

use rustix::process::{DumpableBehavior, Resource, Rlimit, set_dumpable_behavior, setrlimit};
use rustix::thread::{
    CapabilitySet, CapabilitySets, capabilities, clear_ambient_capability_set,
    remove_capability_from_bounding_set, set_capabilities, set_no_new_privs,
};

/// Why privilege could not be checked or given up.
#[derive(Debug, thiserror::Error)]
pub enum PrivilegeError {
    /// Too little of it.
    #[error(
        "no privilege to guard the network: start spa-gateway as root (CAP_NET_ADMIN and CAP_NET_RAW are needed)"
    )]
    Missing,
    /// It stayed.
    #[error("cannot give up privilege ({step}): {source}")]
    GiveUp {
        /// Which step.
        step: &'static str,
        /// Why.
        source: io::Error,
    },
}

/// Finds out whether we may do our work at all.
///
/// # Errors
/// [`PrivilegeError::Missing`].
pub fn check() -> Result<(), PrivilegeError> {
    let needed = CapabilitySet::NET_ADMIN | CapabilitySet::NET_RAW;
    let has = capabilities(None).is_ok_and(|sets| sets.effective.contains(needed));
    has.then_some(()).ok_or(PrivilegeError::Missing)
}

/// Gives up everything but `CAP_NET_ADMIN` and the system calls of the main loop. Every thread does so for
/// itself.
///
/// # Errors
/// The step that failed; the process must end then.
pub fn give_up() -> Result<(), PrivilegeError> {
    let step = |step| {
        move |source: rustix::io::Errno| PrivilegeError::GiveUp {
            step,
            source: source.into(),
        }
    };
    let none = Rlimit {
        current: Some(0),
        maximum: Some(0),
    };
    setrlimit(Resource::Core, none).map_err(step("core dumps"))?;
    set_dumpable_behavior(DumpableBehavior::NotDumpable).map_err(step("dumpable"))?;
    clear_ambient_capability_set().map_err(step("ambient set"))?;
    for number in 0..u64::BITS {
        match remove_capability_from_bounding_set(CapabilitySet::from_bits_retain(1 << number)) {
            Ok(()) => {}
            // One the kernel does not have.
            Err(rustix::io::Errno::INVAL) => break,
            Err(error) => return Err(step("bounding set")(error)),
        }
    }
    let kept = CapabilitySet::NET_ADMIN;
    let sets = CapabilitySets {
        effective: kept,
        permitted: kept,
        inheritable: CapabilitySet::empty(),
    };
    set_capabilities(None, sets).map_err(step("capabilities"))?;
    set_no_new_privs(true).map_err(step("no_new_privs"))?;
    // Where seccompiler is not at home the capabilities are all there is.
    #[cfg(any(
        target_arch = "x86_64",
        target_arch = "aarch64",
        target_arch = "riscv64"
    ))]
    crate::system_calls::confine().map_err(|source| PrivilegeError::GiveUp {
        step: "system calls",
        source,
    })?;
    Ok(())
}
