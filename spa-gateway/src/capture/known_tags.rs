//! Tells the kernel's filter which tags there are, through memory it shares with us (SPEC §8 step 0).
//!
//! Invariant: we are the only writer, and a knock is never dropped for a tag that is written in time; see
//! [`TagTable::write`]. Writing takes no system call and no capability.
#![allow(unsafe_code)]

use std::io;
use std::os::fd::OwnedFd;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU32, Ordering};

use rustix::mm::{MapFlags, ProtFlags, mmap, munmap};
use spa_gateway_core::Gateway;
use spa_order::TagTable;

/// The table in front of the capture sockets.
#[derive(Debug)]
pub struct KnownTags {
    table: TagTable,
    memory: Mapping,
    /// What was written last.
    edition: Option<u32>,
    count: usize,
}

impl KnownTags {
    /// Maps the memory the enforcer handed over.
    ///
    /// # Errors
    /// The kernel's errno.
    pub fn new(table: TagTable, memory: &OwnedFd) -> io::Result<Self> {
        Ok(Self {
            table,
            memory: Mapping::new(table.words(), memory)?,
            edition: None,
            count: 0,
        })
    }

    /// Writes the gateway's tags if they are others than last time.
    pub fn follow(&mut self, gateway: &Gateway) {
        if self.edition.replace(gateway.tags_edition()) == Some(gateway.tags_edition()) {
            return;
        }
        let mut places: Vec<_> = gateway
            .tags()
            .map(|tag| self.table.place(*tag.as_bytes()))
            .collect();
        places.sort_unstable();
        self.table.write(self.memory.words(), &places);
        self.count = places.len();
    }

    /// Gives the number of tags written last.
    #[must_use]
    pub const fn count(&self) -> usize {
        self.count
    }

    /// Gives how many packets of a knock's shape the kernel dropped for their tag, modulo 2³².
    #[must_use]
    pub fn strangers(&self) -> u32 {
        self.memory
            .words()
            .first()
            .map_or(0, |word| word.load(Ordering::Relaxed))
    }
}

/// Words shared with the kernel, unmapped with their value.
#[derive(Debug)]
struct Mapping {
    begin: NonNull<AtomicU32>,
    words: usize,
}

// SAFETY: the memory belongs to no thread and is reached as atomics only.
unsafe impl Send for Mapping {}

impl Mapping {
    fn new(words: usize, memory: &OwnedFd) -> io::Result<Self> {
        let protection = ProtFlags::READ | ProtFlags::WRITE;
        let bytes = words * size_of::<AtomicU32>();
        // SAFETY: a new mapping at an address the kernel chooses touches nothing that exists.
        let begin = unsafe {
            mmap(
                std::ptr::null_mut(),
                bytes,
                protection,
                MapFlags::SHARED,
                memory,
                0,
            )?
        };
        let begin = NonNull::new(begin.cast()).ok_or(io::ErrorKind::OutOfMemory)?;
        Ok(Self { begin, words })
    }

    fn words(&self) -> &[AtomicU32] {
        // SAFETY: the mapping is at least this long, page-aligned, zero at first and lives as long as `self`;
        // whoever else has it reaches it as 32-bit words too, and atomics may be shared.
        unsafe { std::slice::from_raw_parts(self.begin.as_ptr(), self.words) }
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: mapped by `new` with this length, and no reference outlives `self`. A mapping that
        // stays costs memory only.
        let _ = unsafe {
            munmap(
                self.begin.as_ptr().cast(),
                self.words * size_of::<AtomicU32>(),
            )
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_written_are_words_of_the_file() {
        let file = tempfile::tempfile().expect("a file");
        let table = TagTable::for_credentials(0);
        let bytes = u64::try_from(table.words() * 4).expect("small");
        file.set_len(bytes).expect("sized");
        let file = OwnedFd::from(file);
        let tags = KnownTags::new(table, &file).expect("mapped");
        table.write(tags.memory.words(), &[(0, 1), (7, 99)]);
        let again = KnownTags::new(table, &file).expect("mapped");
        let words = again.memory.words();
        assert_eq!(words.len(), table.words());
        let set = words
            .iter()
            .filter(|word| word.load(Ordering::Relaxed) != 0);
        assert_eq!(set.count(), 2);
        tags.memory.words()[0].store(5, Ordering::Relaxed);
        assert_eq!(again.strangers(), 5);
    }
}
