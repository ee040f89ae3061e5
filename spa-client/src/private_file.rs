//! Files only their owner may read: checked when read, replaced whole when written.
//!
//! Invariant: after a crash a file holds what it held before or what was written, never a part (write beside, fsync,
//! rename, fsync of the directory).

use std::ffi::OsString;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::fs::{FlockOperation, OFlags};
use zeroize::Zeroizing;

/// No file of ours is longer; a longer one is damaged.
const LONGEST: u64 = 64 * 1024;

/// How often a lock that is held is tried again.
const LOOK: Duration = Duration::from_millis(20);

/// Why a private file cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum FileError {
    /// It cannot be read or written.
    #[error("cannot {doing} {}: {source}", path.display())]
    Io {
        /// What was tried.
        doing: &'static str,
        /// On what.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Others may read or write it.
    #[error("{} can be read by others (mode {mode:03o}) and is not used: `chmod 600 {}` makes it private", path.display(), path.display())]
    OpenToOthers {
        /// The file.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// It belongs to somebody else, who can change it at any time.
    #[error("{} belongs to another user (uid {owner}) and is not used: `chown` gives it to who runs spa", path.display())]
    OfAnother {
        /// The file.
        path: PathBuf,
        /// Whose it is.
        owner: u32,
    },
    /// It is no file of ours.
    #[error("{} is damaged: {what}", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong, with its line where there is one.
        what: String,
    },
    /// Another command holds the lock.
    #[error("another spa command is at work for this gateway: wait until it has ended")]
    Busy,
}

/// Reads the whole file; `None` when there is none.
///
/// # Errors
/// When it cannot be read, is open to others or too long.
pub fn read(path: &Path) -> Result<Option<Zeroizing<String>>, FileError> {
    let io = |doing| {
        move |source| FileError::Io {
            doing,
            path: path.to_path_buf(),
            source,
        }
    };
    let opened = OpenOptions::new()
        .read(true)
        .custom_flags(OFlags::NOFOLLOW.bits().cast_signed())
        .open(path);
    let file = match opened {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(io("open")(error)),
    };
    check_private(path, &file)?;
    let metadata = file.metadata().map_err(io("examine"))?;
    // A password file given by hand may be of the person who called sudo; what we keep is ours, or root's.
    let owner = metadata.uid();
    if owner != 0 && owner != rustix::process::geteuid().as_raw() {
        return Err(FileError::OfAnother {
            path: path.to_path_buf(),
            owner,
        });
    }
    let length = metadata.len();
    if length > LONGEST {
        return Err(damaged(path, "it is too long"));
    }
    // Room for all at once: a growing buffer would leave copies of secrets behind.
    let mut text = Zeroizing::new(String::with_capacity(LONGEST as usize));
    file.take(LONGEST)
        .read_to_string(&mut text)
        .map_err(io("read"))?;
    Ok(Some(text))
}

/// Refuses a regular file that its group or others may read or write.
///
/// # Errors
/// When it is open to others.
pub fn check_private(path: &Path, file: &File) -> Result<(), FileError> {
    let metadata = file.metadata().map_err(|source| FileError::Io {
        doing: "examine",
        path: path.to_path_buf(),
        source,
    })?;
    let mode = metadata.mode() & 0o777;
    if metadata.is_file() && mode & 0o077 != 0 {
        return Err(FileError::OpenToOthers {
            path: path.to_path_buf(),
            mode,
        });
    }
    Ok(())
}

/// Replaces the file by `text`, mode 0600; on return it is on the disk.
///
/// # Errors
/// When the disk or the directory does not take it; then the old file stays.
pub fn replace(path: &Path, text: &str) -> Result<(), FileError> {
    let io = |doing| {
        move |source| FileError::Io {
            doing,
            path: path.to_path_buf(),
            source,
        }
    };
    let beside = beside(path);
    match fs::remove_file(&beside) {
        Ok(()) => {}
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(io("replace")(error)),
    }
    let mut file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(&beside)
        .map_err(io("write"))?;
    file.write_all(text.as_bytes()).map_err(io("write"))?;
    file.sync_all().map_err(io("write"))?;
    fs::rename(&beside, path).map_err(io("write"))?;
    sync_parent(path).map_err(io("write"))
}

/// Removes the file for good; one that is not there is removed already.
///
/// # Errors
/// When the directory does not let it go.
pub fn remove(path: &Path) -> Result<(), FileError> {
    match fs::remove_file(path) {
        Ok(()) => sync_parent(path),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(error),
    }
    .map_err(|source| FileError::Io {
        doing: "remove",
        path: path.to_path_buf(),
        source,
    })
}

/// Held while a command works with a profile; released when dropped or when the process ends.
#[derive(Debug)]
pub struct Lock(#[expect(dead_code, reason = "the open file is the lock")] File);

/// Takes the lock file at `path`, waiting up to `patience` for whoever holds it.
///
/// # Errors
/// [`FileError::Busy`] when another process still holds it then.
pub fn lock(path: &Path, patience: Duration) -> Result<Lock, FileError> {
    let io = |source: io::Error| FileError::Io {
        doing: "lock",
        path: path.to_path_buf(),
        source,
    };
    let file = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(path)
        .map_err(io)?;
    let begun = Instant::now();
    loop {
        match rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => return Ok(Lock(file)),
            Err(rustix::io::Errno::WOULDBLOCK) if begun.elapsed() < patience => {
                std::thread::sleep(LOOK);
            }
            Err(rustix::io::Errno::WOULDBLOCK) => return Err(FileError::Busy),
            Err(errno) => return Err(io(errno.into())),
        }
    }
}

/// A [`FileError::Damaged`].
#[must_use]
pub fn damaged(path: &Path, what: impl Into<String>) -> FileError {
    FileError::Damaged {
        path: path.to_path_buf(),
        what: what.into(),
    }
}

fn beside(path: &Path) -> PathBuf {
    let mut name = OsString::from(".");
    name.push(path.file_name().unwrap_or_default());
    name.push(".new");
    path.with_file_name(name)
}

fn sync_parent(path: &Path) -> io::Result<()> {
    match path.parent() {
        Some(parent) => File::open(parent)?.sync_all(),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;
    use crate::testing::Scratch;

    #[test]
    fn what_was_written_is_read_and_private() {
        let scratch = Scratch::new("private-file");
        let path = scratch.path().join("x");
        replace(&path, "one").expect("scratch is writable");
        replace(&path, "two").expect("scratch is writable");
        assert_eq!(
            read(&path).expect("readable").map(|t| t.to_string()),
            Some("two".into())
        );
        let mode = fs::metadata(&path).expect("exists").mode() & 0o777;
        assert_eq!(mode, 0o600);
    }

    #[test]
    fn a_missing_file_is_none() {
        let scratch = Scratch::new("missing-file");
        assert!(
            read(&scratch.path().join("x"))
                .expect("missing is no error")
                .is_none()
        );
    }

    #[test]
    fn a_file_others_can_read_is_refused_in_one_line() {
        let scratch = Scratch::new("open-file");
        let path = scratch.path().join("x");
        replace(&path, "one").expect("scratch is writable");
        for mode in [0o640, 0o604, 0o620, 0o666] {
            fs::set_permissions(&path, fs::Permissions::from_mode(mode)).expect("ours");
            let error = read(&path).expect_err("open to others");
            let line = error.to_string();
            assert!(matches!(error, FileError::OpenToOthers { .. }), "{line}");
            assert!(line.contains("chmod 600") && !line.contains('\n'), "{line}");
        }
    }

    #[test]
    fn a_file_of_another_user_is_refused_in_one_line() {
        if !rustix::process::geteuid().is_root() {
            eprintln!("skipped: only root can give a file away");
            return;
        }
        let scratch = Scratch::new("others-file");
        let path = scratch.path().join("x");
        replace(&path, "one").expect("scratch is writable");
        std::os::unix::fs::chown(&path, Some(65_534), None).expect("root may");
        let error = read(&path).expect_err("another's");
        assert!(
            matches!(error, FileError::OfAnother { owner: 65_534, .. }),
            "{error}"
        );
        assert!(!error.to_string().contains('\n'));
    }

    #[test]
    fn a_symlink_is_not_followed() {
        let scratch = Scratch::new("symlink");
        let (file, link) = (scratch.path().join("x"), scratch.path().join("y"));
        replace(&file, "one").expect("scratch is writable");
        std::os::unix::fs::symlink(&file, &link).expect("scratch is writable");
        assert!(matches!(read(&link), Err(FileError::Io { .. })));
    }

    #[test]
    fn a_lock_keeps_others_out() {
        let scratch = Scratch::new("lock");
        let path = scratch.path().join("lock");
        let held = lock(&path, Duration::ZERO).expect("free");
        assert!(matches!(lock(&path, Duration::ZERO), Err(FileError::Busy)));
        drop(held);
        lock(&path, Duration::ZERO).expect("free again");
    }

    #[test]
    fn a_lock_is_waited_for() {
        let scratch = Scratch::new("lock-waited");
        let path = scratch.path().join("lock");
        let held = lock(&path, Duration::ZERO).expect("free");
        let (began, begun) = std::sync::mpsc::channel();
        let waiting = {
            let path = path.clone();
            std::thread::spawn(move || {
                began.send(()).expect("the test listens");
                lock(&path, Duration::from_secs(60)).map(drop)
            })
        };
        begun.recv().expect("it began");
        drop(held);
        waiting.join().expect("no panic").expect("free in the end");
    }
}
