//! The calls of bpf(2) that a socket filter with a table takes: no library, no ELF file, nothing pinned.
//!
//! Map and program live as long as their descriptors and the sockets the program is attached to. Invariant:
//! every pointer handed to the kernel is to memory that outlives the call, with its true size.

use std::io;
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd};

// linux/bpf.h, `enum bpf_cmd`.
const MAP_CREATE: libc::c_long = 0;
const PROG_LOAD: libc::c_long = 5;
/// `BPF_MAP_TYPE_ARRAY`.
const ARRAY: u32 = 2;
/// `BPF_F_MMAPABLE`, Linux 5.5.
const MMAPABLE: u32 = 1 << 10;
/// `BPF_PROG_TYPE_SOCKET_FILTER`.
const SOCKET_FILTER: u32 = 1;
/// What the kernel's helpers would want to know; we call none.
const LICENSE: &std::ffi::CStr = c"Apache-2.0 OR MIT";

/// One instruction, `struct bpf_insn`.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Instruction {
    /// Class, and size or operation, and mode or source.
    pub code: u8,
    registers: u8,
    /// Instructions to jump over, or bytes from a register.
    pub offset: i16,
    /// The operand.
    pub operand: i32,
}

impl Instruction {
    /// Puts one together.
    pub const fn new(code: u8, to: u8, from: u8, offset: i16, operand: i32) -> Self {
        // Two bit fields in C: the first is in the low half on little-endian machines only.
        let registers = if cfg!(target_endian = "big") {
            to << 4 | from
        } else {
            from << 4 | to
        };
        Self {
            code,
            registers,
            offset,
            operand,
        }
    }

    /// The register it writes, and the one it reads.
    #[cfg(test)]
    pub const fn registers(self) -> (u8, u8) {
        let (high, low) = (self.registers >> 4, self.registers & 0xF);
        if cfg!(target_endian = "big") {
            (high, low)
        } else {
            (low, high)
        }
    }
}

/// The start of `union bpf_attr` for `BPF_MAP_CREATE`.
#[repr(C)]
struct MapCreate {
    map_type: u32,
    key_size: u32,
    value_size: u32,
    max_entries: u32,
    map_flags: u32,
}

/// The start of `union bpf_attr` for `BPF_PROG_LOAD`.
#[repr(C)]
struct ProgLoad {
    prog_type: u32,
    insn_cnt: u32,
    insns: u64,
    license: u64,
}

/// Makes memory of so many bytes that a program reads and whoever holds the descriptor maps.
///
/// # Errors
/// The kernel's errno.
pub fn memory(bytes: u32) -> io::Result<OwnedFd> {
    let attributes = MapCreate {
        map_type: ARRAY,
        key_size: 4,
        value_size: bytes,
        max_entries: 1,
        map_flags: MMAPABLE,
    };
    call(MAP_CREATE, &attributes)
}

/// Has the kernel verify a socket filter and take it.
///
/// # Errors
/// The kernel's errno.
pub fn load(program: &[Instruction]) -> io::Result<OwnedFd> {
    let attributes = ProgLoad {
        prog_type: SOCKET_FILTER,
        insn_cnt: u32::try_from(program.len()).map_err(io::Error::other)?,
        insns: program.as_ptr().expose_provenance() as u64,
        license: LICENSE.as_ptr().expose_provenance() as u64,
    };
    call(PROG_LOAD, &attributes)
}

/// Gives the number of a descriptor as an instruction names it.
pub fn operand(of: impl AsFd) -> i32 {
    of.as_fd().as_raw_fd()
}

/// `T` begins as `union bpf_attr` does for the command; the kernel takes the rest for zero.
fn call<T>(command: libc::c_long, attributes: &T) -> io::Result<OwnedFd> {
    let size = libc::c_long::try_from(size_of::<T>()).map_err(io::Error::other)?;
    // SAFETY: `attributes` is live and `size` its size; what it points to is borrowed by our callers for
    // longer than the call. The kernel only reads.
    let result = unsafe { libc::syscall(libc::SYS_bpf, command, &raw const *attributes, size) };
    if result < 0 {
        return Err(io::Error::last_os_error());
    }
    let descriptor = i32::try_from(result).map_err(io::Error::other)?;
    // SAFETY: both commands give a new descriptor that nobody else owns, closed on exec.
    Ok(unsafe { OwnedFd::from_raw_fd(descriptor) })
}
