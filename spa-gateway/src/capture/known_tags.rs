//! Which tags there are, in a table that is looked into before anybody wakes the core (SPEC §8 step 0): by the kernel's
//! filter, through memory it shares with us, or by the capture threads where the kernel takes no such filter.
//!
//! Invariant: we are the only writer, and a knock is never dropped for a tag that is written in time; see
//! [`TagTable::write`]. Writing takes no system call and no capability.
#![allow(unsafe_code)]

use std::io;
use std::os::fd::OwnedFd;
use std::ptr::NonNull;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use rustix::mm::{MapFlags, ProtFlags, mmap, munmap};
use spa_gateway_core::Gateway;
use spa_order::TagTable;

/// The table in front of the core, and who looks into it.
#[derive(Debug)]
pub struct KnownTags {
    table: TagTable,
    memory: Arc<Memory>,
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
        let mapping = Mapping::new(table.words(), memory)?;
        Ok(Self::over(table, Memory::Kernels(mapping)))
    }

    /// Makes a table of our own, for the capture threads to look into.
    #[must_use]
    pub fn ours(credentials: u32) -> Self {
        let table = TagTable::for_credentials(credentials);
        let words = (0..table.words()).map(|_| AtomicU32::new(0)).collect();
        Self::over(table, Memory::Ours(words))
    }

    fn over(table: TagTable, memory: Memory) -> Self {
        Self {
            table,
            memory: Arc::new(memory),
            edition: None,
            count: 0,
        }
    }

    /// Gives what a capture thread looks with; `None` where the kernel has looked already.
    #[must_use]
    pub fn look(&self) -> Option<TagLook> {
        match *self.memory {
            Memory::Kernels(_) => None,
            Memory::Ours(_) => Some(TagLook {
                table: self.table,
                memory: Arc::clone(&self.memory),
            }),
        }
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

    /// Says who drops what, for `status`.
    #[must_use]
    pub fn in_words(&self) -> String {
        let count = self.count;
        match *self.memory {
            Memory::Kernels(_) => format!("by shape and tag, {count} tags"),
            Memory::Ours(_) => format!(
                "by shape only: this kernel or its settings take no tag filter, so the daemon looks at every packet that looks like a knock, for {count} tags; the log of the start says why"
            ),
        }
    }

    /// Gives how many packets of a knock's shape were dropped for their tag, modulo 2³².
    #[must_use]
    pub fn strangers(&self) -> u32 {
        self.memory
            .words()
            .first()
            .map_or(0, |word| word.load(Ordering::Relaxed))
    }
}

/// The look of a capture thread.
#[derive(Debug)]
pub struct TagLook {
    table: TagTable,
    memory: Arc<Memory>,
}

impl TagLook {
    /// Says whether the tag is anybody's; a stranger's packet is counted.
    #[must_use]
    pub fn knows(&self, tag: [u8; 8]) -> bool {
        let words = self.memory.words();
        let known = self.table.passes(words, tag);
        if !known && let Some(strangers) = words.first() {
            strangers.fetch_add(1, Ordering::Relaxed);
        }
        known
    }
}

/// Where the table is.
#[derive(Debug)]
enum Memory {
    /// Shared with the kernel's filter.
    Kernels(Mapping),
    /// In this process alone.
    Ours(Box<[AtomicU32]>),
}

impl Memory {
    fn words(&self) -> &[AtomicU32] {
        match self {
            Self::Kernels(mapping) => mapping.words(),
            Self::Ours(words) => words,
        }
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
// SAFETY: as above; a reference gives atomics and nothing else.
unsafe impl Sync for Mapping {}

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
        assert!(again.look().is_none(), "the kernel has looked already");
    }

    #[test]
    fn a_table_of_our_own_knows_what_is_written_and_counts_the_others() {
        let tags = KnownTags::ours(0);
        let look = tags.look().expect("nobody has looked");
        let tag = |number: u64| number.wrapping_mul(0x9E37_79B9_7F4A_7C15).to_be_bytes();
        assert!(!look.knows(tag(1)));
        let mut places: Vec<_> = (1..=100)
            .map(|number| tags.table.place(tag(number)))
            .collect();
        places.sort_unstable();
        tags.table.write(tags.memory.words(), &places);
        assert!((1..=100).all(|number| look.knows(tag(number))));
        assert!((101..=200).all(|number| !look.knows(tag(number))));
        assert_eq!(tags.strangers(), 101);
    }
}
