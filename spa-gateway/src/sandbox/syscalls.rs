//! The system calls of the daemon: an allowlist, found by running it under strace.
//!
//! Any other call fails with `EPERM`, so that a library that probes goes on without it.

use std::collections::BTreeMap;

use libc::{
    SYS_accept4, SYS_adjtimex, SYS_bind, SYS_brk, SYS_clock_adjtime, SYS_clock_gettime,
    SYS_clock_nanosleep, SYS_clone, SYS_clone3, SYS_close, SYS_dup, SYS_epoll_create1,
    SYS_epoll_ctl, SYS_epoll_pwait, SYS_eventfd2, SYS_exit, SYS_exit_group, SYS_fchmod, SYS_fchown,
    SYS_fcntl, SYS_fdatasync, SYS_fstat, SYS_fsync, SYS_ftruncate, SYS_futex, SYS_getcwd,
    SYS_geteuid, SYS_getpeername, SYS_getpid, SYS_getrandom, SYS_getsockname, SYS_getsockopt,
    SYS_gettid, SYS_getuid, SYS_ioctl, SYS_lseek, SYS_madvise, SYS_membarrier, SYS_mmap,
    SYS_mprotect, SYS_mremap, SYS_munmap, SYS_nanosleep, SYS_newfstatat, SYS_openat, SYS_ppoll,
    SYS_prctl, SYS_pread64, SYS_pwrite64, SYS_read, SYS_readlinkat, SYS_readv, SYS_recvfrom,
    SYS_recvmmsg, SYS_recvmsg, SYS_restart_syscall, SYS_rseq, SYS_rt_sigaction, SYS_rt_sigprocmask,
    SYS_rt_sigreturn, SYS_sched_getaffinity, SYS_sched_yield, SYS_sendmsg, SYS_sendto,
    SYS_set_robust_list, SYS_setsockopt, SYS_shutdown, SYS_sigaltstack, SYS_socket, SYS_socketpair,
    SYS_statx, SYS_tgkill, SYS_uname, SYS_unlinkat, SYS_wait4, SYS_waitid, SYS_write, SYS_writev,
    c_long,
};
use seccompiler::{
    BackendError, BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition,
    SeccompFilter, SeccompRule,
};

/// Open with any argument.
const PLAIN: &[c_long] = &[
    // Files that are open, and the store's own.
    SYS_read,
    SYS_readv,
    SYS_pread64,
    SYS_write,
    SYS_writev,
    SYS_pwrite64,
    SYS_lseek,
    SYS_fstat,
    SYS_newfstatat,
    SYS_statx,
    SYS_fsync,
    SYS_fdatasync,
    SYS_ftruncate,
    SYS_fchmod,
    SYS_fchown,
    SYS_openat,
    SYS_unlinkat,
    SYS_readlinkat,
    SYS_getcwd,
    SYS_close,
    SYS_dup,
    SYS_fcntl,
    SYS_ioctl,
    // Sockets. New ones are limited below.
    SYS_accept4,
    SYS_bind,
    SYS_getpeername,
    SYS_getsockname,
    SYS_getsockopt,
    SYS_setsockopt,
    SYS_recvfrom,
    SYS_recvmsg,
    SYS_recvmmsg,
    SYS_sendto,
    SYS_sendmsg,
    SYS_shutdown,
    SYS_ppoll,
    SYS_epoll_create1,
    SYS_epoll_ctl,
    SYS_epoll_pwait,
    SYS_eventfd2,
    // Memory and threads.
    SYS_brk,
    SYS_mmap,
    SYS_mprotect,
    SYS_mremap,
    SYS_munmap,
    SYS_madvise,
    SYS_membarrier,
    // Answered by a filter of its own, below.
    SYS_clone3,
    SYS_set_robust_list,
    SYS_rseq,
    SYS_futex,
    SYS_sched_yield,
    SYS_sched_getaffinity,
    SYS_getpid,
    SYS_gettid,
    SYS_getuid,
    SYS_geteuid,
    SYS_uname,
    // Signals, the end, the enforcer's end.
    SYS_rt_sigaction,
    SYS_rt_sigprocmask,
    SYS_rt_sigreturn,
    SYS_sigaltstack,
    SYS_tgkill,
    SYS_wait4,
    SYS_waitid,
    SYS_exit,
    SYS_exit_group,
    SYS_restart_syscall,
    // Clocks and randomness. Without a capability adjtimex only reads.
    SYS_clock_gettime,
    SYS_clock_nanosleep,
    SYS_nanosleep,
    SYS_adjtimex,
    SYS_clock_adjtime,
    SYS_getrandom,
];

/// Calls that newer architectures have only in their `…at` form.
#[cfg(target_arch = "x86_64")]
const OLDER: &[c_long] = &[
    libc::SYS_access,
    libc::SYS_epoll_wait,
    libc::SYS_lstat,
    libc::SYS_open,
    libc::SYS_poll,
    libc::SYS_readlink,
    libc::SYS_stat,
    libc::SYS_unlink,
];
#[cfg(not(target_arch = "x86_64"))]
const OLDER: &[c_long] = &[libc::SYS_faccessat];

/// Families a new socket may have: netlink to list our own addresses, unix for signals.
const FAMILIES: [libc::c_int; 2] = [libc::AF_NETLINK, libc::AF_UNIX];

/// What `clone` may not make: a user namespace has every capability inside (include/uapi/linux/sched.h, `CLONE_NEW…`).
const NAMESPACES: u64 = 0x7E02_0000;
/// What `prctl` may do: give a thread its name and read it (include/uapi/linux/prctl.h).
const OF_PRCTL: [u64; 2] = [15, 16];

/// Applies the allowlist to this thread and those it starts.
pub(super) fn restrict() -> Result<(), seccompiler::Error> {
    // First, since the other leaves no way to apply one.
    seccompiler::apply_filter(&no_clone3()?)?;
    seccompiler::apply_filter(&program()?)
}

/// The flags of `clone3` are in memory, where no filter looks: there is none, so that the C library takes `clone`.
fn no_clone3() -> Result<BpfProgram, BackendError> {
    let none = SeccompAction::Errno(libc::ENOSYS.unsigned_abs());
    let rules = BTreeMap::from([(SYS_clone3, Vec::new())]);
    let arch = std::env::consts::ARCH.try_into()?;
    SeccompFilter::new(rules, SeccompAction::Allow, none, arch)?.try_into()
}

fn program() -> Result<BpfProgram, BackendError> {
    let mut rules: BTreeMap<c_long, Vec<SeccompRule>> = PLAIN
        .iter()
        .chain(OLDER)
        .map(|call| (*call, Vec::new()))
        .collect();
    let families = FAMILIES
        .iter()
        .map(|family| {
            let family = u64::from(family.unsigned_abs());
            let argument =
                SeccompCondition::new(0, SeccompCmpArgLen::Dword, SeccompCmpOp::Eq, family)?;
            SeccompRule::new(vec![argument])
        })
        .collect::<Result<Vec<_>, _>>()?;
    for call in [SYS_socket, SYS_socketpair] {
        rules.insert(call, families.clone());
    }
    let thread = SeccompCondition::new(
        0,
        SeccompCmpArgLen::Qword,
        SeccompCmpOp::MaskedEq(NAMESPACES),
        0,
    )?;
    rules.insert(SYS_clone, vec![SeccompRule::new(vec![thread])?]);
    let of_prctl = OF_PRCTL.iter().map(|of| {
        let of = SeccompCondition::new(0, SeccompCmpArgLen::Dword, SeccompCmpOp::Eq, *of)?;
        SeccompRule::new(vec![of])
    });
    rules.insert(SYS_prctl, of_prctl.collect::<Result<_, _>>()?);
    let refuse = SeccompAction::Errno(libc::EPERM.unsigned_abs());
    let filter = SeccompFilter::new(
        rules,
        refuse,
        SeccompAction::Allow,
        std::env::consts::ARCH.try_into()?,
    )?;
    filter.try_into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_filter_fits_the_kernel() {
        // BPF_MAXINSNS of the kernel.
        assert!(program().expect("compiles").len() < 4_096);
    }

    #[test]
    fn a_confined_thread_reads_the_clock_and_opens_no_internet_socket() {
        let outcome = std::thread::spawn(|| {
            restrict().expect("applied");
            let clock = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
            let socket = std::net::UdpSocket::bind("127.0.0.1:0");
            (
                clock.tv_sec,
                socket.map(|_| ()).map_err(|e| e.raw_os_error()),
            )
        });
        let (seconds, socket) = outcome.join().expect("ran");
        assert!(seconds > 0);
        assert_eq!(socket, Err(Some(libc::EPERM)));
    }
}
