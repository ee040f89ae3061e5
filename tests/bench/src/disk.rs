//! What one sync of this disk takes: the floor under every durable record.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::time::{Duration, Instant};

/// A page of the store.
const PAGE: usize = 4096;
/// How many pages the file has before the first measurement, so that none of them is new.
const PAGES: u64 = 256;

/// A file that is overwritten page by page, as a write-ahead log is.
#[derive(Debug)]
pub struct Disk {
    file: File,
    page: u64,
}

impl Disk {
    /// Makes the file in `folder`.
    ///
    /// # Errors
    /// What the disk refuses.
    pub fn open(folder: &Path) -> io::Result<Self> {
        let path = folder.join("fsync");
        let file = OpenOptions::new()
            .create(true)
            .truncate(true)
            .write(true)
            .open(path)?;
        for page in 0..PAGES {
            file.write_all_at(&[0; PAGE], page * PAGE as u64)?;
        }
        file.sync_all()?;
        Ok(Self { file, page: 0 })
    }

    /// Writes one page and syncs it.
    ///
    /// # Errors
    /// What the disk refuses.
    pub fn sync(&mut self) -> io::Result<Duration> {
        self.page = (self.page + 1) % PAGES;
        let begun = Instant::now();
        self.file
            .write_all_at(&[1; PAGE], self.page * PAGE as u64)?;
        self.file.sync_data()?;
        Ok(begun.elapsed())
    }
}
