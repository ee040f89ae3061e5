//! The one way into the policy file: one administrator at a time, checked, written whole, taken back if refused.
//!
//! Invariant: what stands in the file when the gate is entered is what is replaced. A file that changed
//! meanwhile is somebody's work and is left alone.

use std::fs::{File, OpenOptions};
use std::io::Read;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::time::{Duration, Instant};

use rustix::fs::FlockOperation;
use spa_gateway_core::policy::MAX_POLICY_BYTES;

use crate::accounts;
use crate::config::UserRef;
use crate::files::{self, FileError, Wanted};
use crate::policy_file;

/// How long another administrator may take: a change is written and read within a second.
const PATIENCE: Duration = Duration::from_secs(5);
const LOOK_AGAIN: Duration = Duration::from_millis(50);

/// A policy file nobody else changes by `spa-admin` while this lives.
#[derive(Debug)]
pub struct Gate<'a> {
    file: &'a Path,
    /// `None` where there is none.
    found: Option<Vec<u8>>,
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

    /// Says whether there is a file, and not this text in it.
    pub fn found_other_than(&self, text: &str) -> bool {
        let other = |found: &Vec<u8>| found != text.as_bytes();
        self.found.as_ref().is_some_and(other)
    }

    /// Says whether this text stood in the file.
    pub fn found_just(&self, text: &str) -> bool {
        self.found.as_deref() == Some(text.as_bytes())
    }

    /// Gives what stood in the file, to be edited.
    pub fn text(&self) -> Result<&str, String> {
        let file = self.file.display();
        let found = self.found.as_deref().ok_or_else(|| {
            format!("{file} does not exist; `spa-admin policy rollback` puts a version of `spa-admin policy log` there")
        })?;
        std::str::from_utf8(found).map_err(|_| {
            format!("{file} is not UTF-8 text; `spa-admin policy rollback SERIAL --over-edit` replaces it by a version of `spa-admin policy log`")
        })
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
        self.replace(text.as_bytes())
    }

    /// Makes the file anew where there is none, for the gateway to read; otherwise as [`write`](Self::write).
    pub fn write_or_make(&self, text: &str, readers: &UserRef) -> Result<(), String> {
        if self.found.is_some() {
            return self.write(text);
        }
        policy_file::parse(text, self.file).map_err(|error| error.to_string())?;
        let account = accounts::find(readers).map_err(|error| error.to_string())?;
        let made = files::create_new(self.file, 0o640, text.as_bytes());
        let made = made.map_err(|error| error.to_string())?;
        rustix::fs::fchown(&made, None, Some(account.gid)).or_else(|error| {
            self.put_back()?;
            Err(format!(
                "cannot give {} to the gateway's group: {error}; run this as root",
                self.file.display()
            ))
        })
    }

    /// Writes what stood in the file before.
    pub fn put_back(&self) -> Result<(), String> {
        match &self.found {
            Some(found) => self.replace(found),
            None => std::fs::remove_file(self.file).map_err(|error| {
                format!(
                    "cannot remove {} again: {error}; remove it",
                    self.file.display()
                )
            }),
        }
    }

    fn replace(&self, text: &[u8]) -> Result<(), String> {
        files::replace(self.file, text).map_err(|error| error.to_string())
    }
}

/// Gives what stands in the file, be it text or not.
fn read(file: &Path) -> Result<Option<Vec<u8>>, String> {
    let limit = u64::try_from(MAX_POLICY_BYTES).unwrap_or(u64::MAX);
    let mut found = Vec::new();
    let opened = match files::open(file, Wanted::NotWritableByOthers) {
        Ok(opened) => opened,
        Err(FileError::Missing { .. }) => return Ok(None),
        Err(error) => return Err(error.to_string()),
    };
    opened
        .take(limit.saturating_add(1))
        .read_to_end(&mut found)
        .map_err(|error| format!("cannot read {}: {error}", file.display()))?;
    Ok(Some(found))
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
            Gate::enter(&file).expect("free again").text(),
            Ok("version = 1\n# mine\n")
        );
    }

    #[test]
    fn a_file_that_is_gone_is_made_again_and_one_that_is_no_text_replaced() {
        let (_dir, file) = policy();
        // Nobody but root gives a file to others.
        let us = match rustix::process::getuid().as_raw() {
            0 => UserRef::Number(64_180),
            uid => UserRef::Number(uid),
        };
        std::fs::remove_file(&file).expect("removed");
        let gate = Gate::enter(&file).expect("entered");
        let refusal = gate.text().expect_err("nothing to edit");
        assert!(refusal.contains("policy rollback"), "{refusal}");
        gate.write_or_make("version = 1\n", &us).expect("made");
        let mode = std::fs::metadata(&file).expect("there").permissions();
        assert_eq!(
            std::os::unix::fs::PermissionsExt::mode(&mode) & 0o7777,
            0o640
        );
        gate.put_back().expect("as it was");
        assert!(!file.exists());
        drop(gate);
        files::create_new(&file, 0o640, b"\xff").expect("written");
        let gate = Gate::enter(&file).expect("entered");
        assert!(gate.text().is_err() && gate.found_other_than("version = 1\n"));
        gate.write_or_make("version = 1\n", &us).expect("replaced");
        gate.put_back().expect("as it was");
        assert_eq!(std::fs::read(&file).expect("there"), b"\xff");
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
            refusal.contains("policy.toml:2:2: ") && !refusal.contains('\n'),
            "{refusal}"
        );
        gate.write("version = 1\n# other\n").expect("written");
        gate.put_back().expect("put back");
        let text = std::fs::read_to_string(&file).expect("read");
        assert_eq!(text, "version = 1\n");
    }
}
