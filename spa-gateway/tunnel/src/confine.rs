//! Gives up what the process will not need again: files, new privileges, being inspected, and most system calls.
//!
//! Invariant: called once, after the last descriptor is open and before the first packet and the first key.

use std::collections::BTreeMap;
use std::io;

use landlock::{ABI, Access, AccessFs, AccessNet, Ruleset, RulesetAttr};
use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter,
    SeccompRule, TargetArch,
};

/// What carrying packets between two descriptors needs. Everything else fails with `EPERM`, which no code path
/// that is left should ever see.
const ALLOWED: &[libc::c_long] = &[
    // packets and messages
    libc::SYS_read,
    libc::SYS_write,
    libc::SYS_readv,
    libc::SYS_writev,
    libc::SYS_recvfrom,
    libc::SYS_recvmsg,
    libc::SYS_recvmmsg,
    libc::SYS_sendto,
    libc::SYS_sendmsg,
    libc::SYS_sendmmsg,
    libc::SYS_getsockname,
    libc::SYS_close,
    // what std asks in a debug build before it closes
    libc::SYS_fcntl,
    libc::SYS_shutdown,
    // the runtime
    libc::SYS_epoll_ctl,
    libc::SYS_epoll_pwait,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_epoll_wait,
    libc::SYS_futex,
    libc::SYS_clock_gettime,
    libc::SYS_clock_nanosleep,
    libc::SYS_sched_yield,
    libc::SYS_restart_syscall,
    libc::SYS_rt_sigreturn,
    // memory
    libc::SYS_brk,
    libc::SYS_munmap,
    libc::SYS_mremap,
    libc::SYS_madvise,
    // randomness
    libc::SYS_getrandom,
    // the end, in peace or not
    libc::SYS_exit,
    libc::SYS_exit_group,
    libc::SYS_rt_sigaction,
    libc::SYS_rt_sigprocmask,
    libc::SYS_sigaltstack,
    libc::SYS_gettid,
    libc::SYS_getpid,
    libc::SYS_tgkill,
];

/// Memory that may be had as long as it is not to be executed.
const ALLOWED_WITHOUT_EXEC: &[libc::c_long] = &[MMAP, libc::SYS_mprotect];
#[cfg(not(target_arch = "arm"))]
const MMAP: libc::c_long = libc::SYS_mmap;
#[cfg(target_arch = "arm")]
const MMAP: libc::c_long = libc::SYS_mmap2;
/// Which argument of those two holds the protection.
const PROTECTION: u8 = 2;

/// Gives up everything.
pub fn give_up_everything() -> io::Result<()> {
    rustix::thread::set_no_new_privs(true)?;
    // No core file and no ptrace by the tunnel user's other processes: keys will be in memory.
    rustix::process::set_dumpable_behavior(rustix::process::DumpableBehavior::NotDumpable)?;
    no_files().map_err(io::Error::other)?;
    few_system_calls().map_err(io::Error::other)
}

/// An older kernel restricts what it knows of, or nothing; the user has no rights to speak of anyway.
fn no_files() -> Result<(), landlock::RulesetError> {
    let newest = ABI::V5;
    Ruleset::default()
        .handle_access(AccessFs::from_all(newest))?
        .handle_access(AccessNet::from_all(newest))?
        .create()?
        .restrict_self()
        .map(drop)
}

/// Machines seccompiler does not know (32-bit ones) go without.
fn few_system_calls() -> Result<(), seccompiler::Error> {
    let Ok(arch) = TargetArch::try_from(std::env::consts::ARCH) else {
        return Ok(());
    };
    let execute = u64::from(libc::PROT_EXEC.unsigned_abs());
    let not_executable = SeccompCondition::new(
        PROTECTION,
        SeccompCmpArgLen::Dword,
        SeccompCmpOp::MaskedEq(execute),
        0,
    )?;
    let not_executable = SeccompRule::new(vec![not_executable])?;
    let plain = ALLOWED.iter().map(|&call| (number(call), Vec::new()));
    let bounded = ALLOWED_WITHOUT_EXEC
        .iter()
        .map(|&call| (number(call), vec![not_executable.clone()]));
    let rules: BTreeMap<i64, Vec<SeccompRule>> = plain.chain(bounded).collect();
    let refused = SeccompAction::Errno(libc::EPERM.unsigned_abs());
    let program: BpfProgram =
        SeccompFilter::new(rules, refused, SeccompAction::Allow, arch)?.try_into()?;
    seccompiler::apply_filter(&program)
}

#[allow(
    clippy::useless_conversion,
    reason = "c_long has 32 bits on machines seccompiler does not know"
)]
fn number(call: libc::c_long) -> i64 {
    i64::from(call)
}
