//! Has a running process make a system call, as somebody would who has taken it over: what its sandbox says to it.
//!
//! The first thread of the process is stopped by ptrace(2) in the call it waits in, makes another one from the same
//! instruction, and goes on as if nothing had been. Root may do that to any process; nothing in the programs helps.

use std::fs::{File, OpenOptions};
use std::os::unix::fs::FileExt;

use anyhow::{Context, ensure};
use nix::errno::Errno;
use nix::libc::{c_long, user_regs_struct};
use nix::sys::ptrace;
use nix::sys::signal::Signal;
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;

/// The bytes of `syscall` on x86-64.
const SYSCALL: [u8; 2] = [0x0F, 0x05];
/// How far below its stack a thread may write by itself (x86-64 psABI, the red zone), and room for what we put there.
const BELOW_STACK: u64 = 4096;

/// An argument of a system call.
#[derive(Clone, Copy, Debug)]
pub enum Argument<'a> {
    /// A number.
    Number(u64),
    /// The address of these bytes, which end in a zero.
    Bytes(&'a [u8]),
}

/// What became of a call.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Outcome {
    /// It gave this.
    Gave(u64),
    /// It was refused.
    Refused(Errno),
    /// The process was killed for it.
    Killed,
}

/// A process that is held, until it is dropped.
#[derive(Debug)]
pub struct Held {
    process: Pid,
    memory: File,
    before: user_regs_struct,
    ended: bool,
}

impl Held {
    /// Stops a process in the call it waits in.
    ///
    /// # Errors
    /// When it cannot be traced, or does not wait in a call.
    pub fn stop(process: u32) -> anyhow::Result<Self> {
        let process = Pid::from_raw(i32::try_from(process)?);
        let path = format!("/proc/{process}/mem");
        let memory = OpenOptions::new().read(true).write(true).open(&path);
        let memory = memory.with_context(|| format!("opening {path}"))?;
        ptrace::attach(process).context("attaching")?;
        waitpid(process, Some(WaitPidFlag::__WALL)).context("waiting for it to stop")?;
        let before = ptrace::getregs(process).context("reading its registers")?;
        let held = Self {
            process,
            memory,
            before,
            ended: false,
        };
        let mut instruction = [0; 2];
        held.memory
            .read_exact_at(&mut instruction, before.rip - 2)
            .context("reading its instructions")?;
        ensure!(instruction == SYSCALL, "it does not wait in a system call");
        Ok(held)
    }

    /// Has it make one call.
    ///
    /// # Errors
    /// When it cannot be made to.
    pub fn call(&mut self, number: c_long, arguments: &[Argument<'_>]) -> anyhow::Result<Outcome> {
        let mut regs = self.before;
        let mut free = (self.before.rsp - BELOW_STACK) & !0xF;
        let mut values = [0; 6];
        for (value, argument) in values.iter_mut().zip(arguments) {
            *value = match argument {
                Argument::Number(number) => *number,
                Argument::Bytes(bytes) => {
                    let whole = [bytes, &[0][..]].concat();
                    let address = free;
                    self.memory.write_all_at(&whole, address)?;
                    free += u64::try_from(whole.len().next_multiple_of(16))?;
                    address
                }
            };
        }
        [regs.rdi, regs.rsi, regs.rdx, regs.r10, regs.r8, regs.r9] = values;
        regs.rax = number.cast_unsigned();
        // In no call that the kernel would begin again.
        regs.orig_rax = u64::MAX;
        regs.rip -= 2;
        ptrace::setregs(self.process, regs).context("writing its registers")?;
        ptrace::step(self.process, None).context("letting it go one step")?;
        match waitpid(self.process, Some(WaitPidFlag::__WALL)).context("waiting for the call")? {
            WaitStatus::Signaled(..) | WaitStatus::Exited(..) => {
                self.ended = true;
                return Ok(Outcome::Killed);
            }
            WaitStatus::Stopped(_, Signal::SIGTRAP) => {}
            other => anyhow::bail!("it stopped otherwise: {other:?}"),
        }
        let after = ptrace::getregs(self.process)?.rax;
        ptrace::setregs(self.process, self.before).context("restoring its registers")?;
        // The kernel's errors are the last 4095 numbers.
        let errno = after.cast_signed();
        Ok(if (-4095..0).contains(&errno) {
            Outcome::Refused(Errno::from_raw(i32::try_from(-errno)?))
        } else {
            Outcome::Gave(after)
        })
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        if !self.ended {
            // It may have been killed meanwhile.
            let _ = ptrace::setregs(self.process, self.before);
            let _ = ptrace::detach(self.process, None);
        }
    }
}
