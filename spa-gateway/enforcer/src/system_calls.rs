//! The system calls of the two threads: sockets they have, memory, time, and an end; any other kills the process.
//!
//! For the machines seccompiler knows, which have 64 bits; others go without (`privilege`).

use std::collections::BTreeMap;
use std::env::consts::ARCH;
use std::io;

use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter,
    SeccompRule, TargetArch,
};

/// Puts the filter on this thread.
///
/// # Errors
/// The kernel's refusal.
pub fn confine() -> io::Result<()> {
    seccompiler::apply_filter(&system_calls()?).map_err(io::Error::other)
}

fn system_calls() -> io::Result<BpfProgram> {
    let arch = TargetArch::try_from(ARCH).map_err(io::Error::other)?;
    let mut rules: BTreeMap<i64, Vec<SeccompRule>> =
        ALLOWED.iter().map(|number| (*number, vec![])).collect();
    for (number, argument, operator, value) in [
        // Memory that is never to be executed.
        (
            libc::SYS_mmap,
            2,
            SeccompCmpOp::MaskedEq(bits(libc::PROT_EXEC)),
            0,
        ),
        (
            libc::SYS_mprotect,
            2,
            SeccompCmpOp::MaskedEq(bits(libc::PROT_EXEC)),
            0,
        ),
        // The standard library of a debug build looks whether a descriptor is open before it closes it.
        (libc::SYS_fcntl, 1, SeccompCmpOp::Eq, bits(libc::F_GETFD)),
    ] {
        let rule = SeccompCondition::new(argument, SeccompCmpArgLen::Dword, operator, value)
            .and_then(|condition| SeccompRule::new(vec![condition]))
            .map_err(io::Error::other)?;
        rules.insert(number, vec![rule]);
    }
    let filter = SeccompFilter::new(
        rules,
        SeccompAction::KillProcess,
        SeccompAction::Allow,
        arch,
    )
    .map_err(io::Error::other)?;
    BpfProgram::try_from(filter).map_err(io::Error::other)
}

fn bits(value: libc::c_int) -> u64 {
    u64::from(value.cast_unsigned())
}

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
    libc::SYS_munmap,
    libc::SYS_mremap,
    libc::SYS_madvise,
    // The two threads and their channel.
    libc::SYS_futex,
    libc::SYS_sched_yield,
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
        assert!(!system_calls().expect("it compiles").is_empty());
    }
}
