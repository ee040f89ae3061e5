//! The one way into the policy file: one administrator at a time, checked, written whole, taken back if refused.
//!
//! Invariant: what stands in the file when the gate is entered is what is replaced. A file that changed
//! meanwhile is somebody's work and is left alone.

use std::fs::{File, OpenOptions};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::time::{Duration, Instant};

use rustix::fs::FlockOperation;
use spa_gateway_core::policy::MAX_POLICY_BYTES;

use crate::files::{self, Wanted};
use crate::policy_file;

/// How long another administrator may take: a change is written and read within a second.
const PATIENCE: Duration = Duration::from_secs(5);
const LOOK_AGAIN: Duration = Duration::from_millis(50);

/// A policy file nobody else changes by `spa-admin` while this lives.
#[derive(Debug)]
pub struct Gate<'a> {
    file: &'a Path,
    found: String,
    /// Closing it unlocks; the kernel does that for a process that was killed, too.
    _lock: File,
}

impl<'a> Gate<'a> {
    /// Waits for the others and reads the file.
    pub fn enter(file: &'a Path) -> Result<Self, String> {
        let lock = lock(file, PATIENCE)?;
        let found = read(file)?;
        Ok(Self {
            file,
            found,
            _lock: lock,
        })
    }

    /// Gives the file's path.
    pub const fn file(&self) -> &'a Path {
        self.file
    }

    /// Gives what stood in the file.
    pub fn found(&self) -> &str {
        &self.found
    }

    /// Writes a policy the gateway would accept.
    pub fn write(&self, text: &str) -> Result<(), String> {
        policy_file::parse(text, self.file).map_err(|error| error.to_string())?;
        if read(self.file)? != self.found {
            return Err(format!(
                "{} was changed meanwhile, and not by spa-admin; look at it with `spa-admin policy diff`, then do this again",
                self.file.display()
            ));
        }
        self.replace(text)
    }

    /// Writes what stood in the file before.
    pub fn put_back(&self) -> Result<(), String> {
        self.replace(&self.found)
    }

    fn replace(&self, text: &str) -> Result<(), String> {
        files::replace(self.file, text.as_bytes()).map_err(|error| error.to_string())
    }
}

fn read(file: &Path) -> Result<String, String> {
    let limit = u64::try_from(MAX_POLICY_BYTES).unwrap_or(u64::MAX);
    files::read_text(file, Wanted::NotWritableByOthers, limit).map_err(|error| error.to_string())
}

/// Locks a file beside the policy: the policy itself is replaced by each change.
fn lock(file: &Path, patience: Duration) -> Result<File, String> {
    let name = file.file_name().unwrap_or_default().to_string_lossy();
    let beside = file.with_file_name(format!(".{name}.lock"));
    let opened = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(false)
        // Nobody else may hold administrators up.
        .mode(0o600)
        .open(&beside)
        .map_err(|error| {
            format!(
                "cannot open {}: {error}; whoever changes the policy must be able to write its directory, run this as root",
                beside.display()
            )
        })?;
    let until = Instant::now() + patience;
    loop {
        match rustix::fs::flock(&opened, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => return Ok(opened),
            Err(rustix::io::Errno::WOULDBLOCK) if Instant::now() < until => {
                std::thread::sleep(LOOK_AGAIN);
            }
            Err(rustix::io::Errno::WOULDBLOCK) => {
                return Err(format!(
                    "another spa-admin is changing {}; try again when it is done",
                    file.display()
                ));
            }
            Err(error) => return Err(format!("cannot lock {}: {error}", beside.display())),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::*;

    fn policy() -> (tempfile::TempDir, PathBuf) {
        let dir = tempfile::tempdir().expect("a directory");
        let file = dir.path().join("policy.toml");
        files::create_new(&file, 0o640, b"version = 1\n").expect("written");
        (dir, file)
    }

    #[test]
    fn one_administrator_at_a_time() {
        let (_dir, file) = policy();
        let first = Gate::enter(&file).expect("entered");
        let refusal = lock(&file, Duration::ZERO).expect_err("occupied");
        assert!(refusal.contains("another spa-admin"), "{refusal}");
        first.write("version = 1\n# mine\n").expect("written");
        drop(first);
        assert_eq!(
            Gate::enter(&file).expect("free again").found(),
            "version = 1\n# mine\n"
        );
    }

    #[test]
    fn what_an_editor_saved_meanwhile_is_left_alone() {
        let (_dir, file) = policy();
        let gate = Gate::enter(&file).expect("entered");
        files::replace(&file, b"version = 1\n# by hand\n").expect("saved");
        let refusal = gate.write("version = 1\n# mine\n").expect_err("refused");
        assert!(refusal.contains("was changed meanwhile"), "{refusal}");
        let text = std::fs::read_to_string(&file).expect("read");
        assert_eq!(text, "version = 1\n# by hand\n");
    }

    #[test]
    fn a_bad_policy_is_not_written_and_a_refused_one_is_put_back() {
        let (_dir, file) = policy();
        let gate = Gate::enter(&file).expect("entered");
        let refusal = gate.write("version = 1\n[groop]\n").expect_err("refused");
        assert!(
            refusal.contains("policy.toml:2: ") && !refusal.contains('\n'),
            "{refusal}"
        );
        gate.write("version = 1\n# other\n").expect("written");
        gate.put_back().expect("put back");
        let text = std::fs::read_to_string(&file).expect("read");
        assert_eq!(text, "version = 1\n");
    }
}
