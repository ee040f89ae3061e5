//! Gives up everything the daemon does not need: root, capabilities, files, system calls.
//!
//! Invariant: called while the process has one thread, since each step binds the calling
//! thread and those it starts. What cannot be given up by a kernel is said in the log;
//! root and capabilities must go, or the daemon does not run.

// The architectures seccompiler knows; all of them have 64 bits.
#[cfg(any(
    target_arch = "x86_64",
    target_arch = "aarch64",
    target_arch = "riscv64"
))]
mod syscalls;

use std::io;
use std::path::Path;

use landlock::{
    ABI, Access, AccessFs, AccessNet, CompatLevel, Compatible, PathBeneath, PathFd, Ruleset,
    RulesetAttr, RulesetCreatedAttr, RulesetError, RulesetStatus, Scope,
};
use rustix::process::DumpableBehavior;
use rustix::thread::CapabilitySet;
use tracing::{info, warn};

use crate::accounts::Account;

/// Why the daemon is not confined as it must be.
#[derive(Debug, thiserror::Error)]
pub enum SandboxError {
    /// A privilege that stays.
    #[error("cannot give up {what}: {source}; start spa-gateway as root, it leaves root by itself")]
    Privilege {
        /// Which.
        what: &'static str,
        /// The system's answer.
        source: io::Error,
    },
}

/// The directories the daemon still sees.
#[derive(Clone, Copy, Debug)]
pub struct Directories<'a> {
    /// The store: read and written.
    pub state: &'a Path,
    /// The directory of the policy: read.
    pub policy: &'a Path,
}

/// Leaves root for good: user, groups, every capability set, the way back.
///
/// # Errors
/// If any of it stays.
pub fn leave_root(account: Account) -> Result<(), SandboxError> {
    let step = |what| {
        move |errno: rustix::io::Errno| SandboxError::Privilege {
            what,
            source: errno.into(),
        }
    };
    let bounding = rustix::thread::remove_capability_from_bounding_set;
    for capability in CapabilitySet::all().iter() {
        match bounding(capability) {
            // A capability this kernel does not know cannot be held either.
            Ok(()) | Err(rustix::io::Errno::INVAL) => {}
            Err(errno) => return Err(step("the capability bounding set")(errno)),
        }
    }
    rustix::thread::set_thread_groups(&[account.gid]).map_err(step("groups"))?;
    let gid = account.gid;
    rustix::thread::set_thread_res_gid(gid, gid, gid).map_err(step("the group"))?;
    let uid = account.uid;
    // Leaving user 0 clears the permitted, effective and ambient sets.
    rustix::thread::set_thread_res_uid(uid, uid, uid).map_err(step("the user"))?;
    rustix::thread::set_no_new_privs(true).map_err(step("new privileges"))?;
    // No core file, no ptrace by another process of this user: memory holds keys.
    rustix::process::set_dumpable_behavior(DumpableBehavior::NotDumpable)
        .map_err(step("core dumps"))?;
    let held = rustix::thread::capabilities(None).map_err(step("capabilities"))?;
    if held.effective.is_empty() && held.permitted.is_empty() {
        return Ok(());
    }
    Err(SandboxError::Privilege {
        what: "capabilities",
        source: io::Error::other("some are still held"),
    })
}

/// Closes the file system but for [`Directories`], and TCP altogether, where the kernel has Landlock.
pub fn close_files(directories: Directories<'_>) {
    match landlock(directories) {
        Ok(RulesetStatus::FullyEnforced) => info!("landlock: files closed"),
        Ok(RulesetStatus::PartiallyEnforced) => {
            info!("landlock: files closed as far as this kernel can");
        }
        Ok(RulesetStatus::NotEnforced) => {
            warn!("landlock: not in this kernel; file permissions alone protect other files");
        }
        Err(error) => warn!(%error, "landlock: failed; file permissions alone protect other files"),
    }
}

fn landlock(directories: Directories<'_>) -> Result<RulesetStatus, RulesetError> {
    let abi = ABI::V6;
    let read = AccessFs::ReadFile | AccessFs::ReadDir;
    let write =
        read | AccessFs::WriteFile | AccessFs::MakeReg | AccessFs::RemoveFile | AccessFs::Truncate;
    let mut rules = Ruleset::default()
        .set_compatibility(CompatLevel::BestEffort)
        .handle_access(AccessFs::from_all(abi))?
        // No rule follows: no TCP at all. The admin socket is a unix socket.
        .handle_access(AccessNet::from_all(abi))?
        .scope(Scope::from_all(abi))?
        .create()?;
    let paths = [(directories.state, write), (directories.policy, read)];
    for (path, access) in paths {
        // A directory that cannot be opened stays closed; whoever needs it says so.
        if let Ok(opened) = PathFd::new(path) {
            rules = rules.add_rule(PathBeneath::new(opened, access))?;
        }
    }
    Ok(rules.restrict_self()?.ruleset)
}

/// Leaves only the system calls the daemon makes; any other fails with `EPERM`.
#[cfg(any(
    target_arch = "x86_64",
    target_arch = "aarch64",
    target_arch = "riscv64"
))]
pub fn close_system_calls() {
    match syscalls::restrict() {
        Ok(()) => info!("seccomp: system calls closed"),
        Err(error) => warn!(%error, "seccomp: not applied; all system calls stay open"),
    }
}

/// Says that all system calls stay open on this architecture.
#[cfg(not(any(
    target_arch = "x86_64",
    target_arch = "aarch64",
    target_arch = "riscv64"
)))]
pub fn close_system_calls() {
    warn!("seccomp: not for this architecture; all system calls stay open");
}
