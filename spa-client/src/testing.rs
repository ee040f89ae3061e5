//! A directory for a test, private and removed afterwards.

use std::fs;
use std::path::{Path, PathBuf};

/// A scratch directory.
pub struct Scratch(PathBuf);

impl Scratch {
    /// Makes one.
    pub fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("spa-client-{name}-{}", std::process::id()));
        crate::places::make_private(&path).expect("the temporary directory is writable");
        Self(path)
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}
