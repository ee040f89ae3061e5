//! Asks the kernel whether somebody keeps its clock right: `adjtimex(2)`, reading only.
#![allow(unsafe_code)]

/// Whether the kernel's clock is synchronised. A kernel that refuses to say counts as not.
pub(super) fn is_synchronised() -> bool {
    // SAFETY: `timex` is plain old data; all zero is a valid value, and `modes` = 0 only reads.
    let mut timex: libc::timex = unsafe { core::mem::zeroed() };
    // SAFETY: the pointer is to a live, writable `timex` of the size this libc knows.
    let state = unsafe { libc::adjtimex(&raw mut timex) };
    state >= 0 && state != libc::TIME_ERROR && timex.status & libc::STA_UNSYNC == 0
}
