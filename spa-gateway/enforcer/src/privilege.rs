//! What this process may do before it takes its first order: change networks of its namespace, on the
//! descriptors it has, and nothing else.
//!
//! Invariant: after `give_up` no file can be opened, no socket made, no program started, no capability but
//! `CAP_NET_ADMIN` used or regained, and no debugger or core dump can see the keys.

use std::collections::BTreeMap;
use std::env::consts::ARCH;
use std::io;

use rustix::process::{DumpableBehavior, Resource, Rlimit, set_dumpable_behavior, setrlimit};
use rustix::thread::{
    CapabilitySet, CapabilitySets, capabilities, clear_ambient_capability_set,
    remove_capability_from_bounding_set, set_capabilities, set_no_new_privs,
};
use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter,
    SeccompRule, TargetArch,
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
    let failed = |source| PrivilegeError::GiveUp {
        step: "system calls",
        source,
    };
    if let Some(program) = system_calls().map_err(failed)? {
        seccompiler::apply_filter(&program).map_err(|error| failed(io::Error::other(error)))?;
    }
    Ok(())
}

/// The system calls of the main loop; any other one kills the process. `None` where seccompiler does not know
/// the machine.
fn system_calls() -> io::Result<Option<BpfProgram>> {
    let Ok(arch) = TargetArch::try_from(ARCH) else {
        return Ok(None);
    };
    let mut rules: BTreeMap<i64, Vec<SeccompRule>> = ALLOWED
        .iter()
        .map(|number| (i64::from(*number), vec![]))
        .collect();
    // The standard library of a debug build looks whether a descriptor is open before it closes it.
    let look = u64::from(libc::F_GETFD.cast_unsigned());
    let look = SeccompCondition::new(1, SeccompCmpArgLen::Dword, SeccompCmpOp::Eq, look)
        .and_then(|condition| SeccompRule::new(vec![condition]))
        .map_err(io::Error::other)?;
    rules.insert(i64::from(libc::SYS_fcntl), vec![look]);
    let filter = SeccompFilter::new(
        rules,
        SeccompAction::KillProcess,
        SeccompAction::Allow,
        arch,
    )
    .map_err(io::Error::other)?;
    BpfProgram::try_from(filter)
        .map(Some)
        .map_err(io::Error::other)
}

// `c_long` is 32 bits on some machines; the numbers are small everywhere.
const ALLOWED: &[libc::c_long] = &[
    // Orders, netlink and `spa-tunnel`.
    libc::SYS_recvfrom,
    libc::SYS_sendto,
    libc::SYS_recvmsg,
    libc::SYS_sendmsg,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_poll,
    libc::SYS_ppoll,
    libc::SYS_close,
    // Is `spa-tunnel` alive? And its end with ours.
    libc::SYS_shutdown,
    libc::SYS_wait4,
    libc::SYS_waitid,
    // One line on standard error.
    libc::SYS_write,
    // Time, for waiting and for the age of handshakes.
    libc::SYS_clock_gettime,
    libc::SYS_clock_nanosleep,
    // Memory.
    libc::SYS_brk,
    libc::SYS_mmap,
    libc::SYS_munmap,
    libc::SYS_mremap,
    libc::SYS_madvise,
    libc::SYS_futex,
    // The standard library's hash maps.
    libc::SYS_getrandom,
    // The end, be it orderly or a panic.
    libc::SYS_exit_group,
    libc::SYS_exit,
    libc::SYS_rt_sigreturn,
    libc::SYS_rt_sigprocmask,
    libc::SYS_rt_sigaction,
    libc::SYS_sigaltstack,
    libc::SYS_restart_syscall,
    libc::SYS_getpid,
    libc::SYS_gettid,
    libc::SYS_tgkill,
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_filter_compiles_where_we_build() {
        assert!(system_calls().expect("it compiles").is_some());
    }
}
