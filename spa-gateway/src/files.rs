//! Files that decide or hide something: read only when nobody else could have written, or read, them.
//!
//! Invariant: the check is made on the opened file, never on its name.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use zeroize::Zeroizing;

/// What a file's mode must rule out.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Wanted {
    /// Nobody but the owner may write it: it decides.
    NotWritableByOthers,
    /// Nobody but the owner may read or write it: it holds secrets.
    Secret,
}

/// Why a file is not used. Its text is one line.
#[derive(Debug, thiserror::Error)]
pub enum FileError {
    /// It is not there.
    #[error("{} does not exist; {remedy}", file.display())]
    Missing {
        /// The file.
        file: PathBuf,
        /// What to do.
        remedy: &'static str,
    },
    /// The system refused.
    #[error("cannot {action} {}: {source}; see `ls -ld` of it and of its directory", file.display())]
    Io {
        /// What was tried.
        action: &'static str,
        /// The file.
        file: PathBuf,
        /// The system's answer.
        source: io::Error,
    },
    /// Others may write it.
    #[error("{} may be written by others (mode {mode:04o}); run `chmod go-w {}`", file.display(), file.display())]
    Writable {
        /// The file.
        file: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// Others may read it.
    #[error("{} may be read by others (mode {mode:04o}); run `chmod 600 {}`, and take its secrets for known if others could log in here", file.display(), file.display())]
    Readable {
        /// The file.
        file: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// Something other than a file.
    #[error("{} is not a regular file; put a file there", .0.display())]
    NotAFile(PathBuf),
    /// Longer than any sound one.
    #[error("{} is longer than {limit} bytes; it is not what its name says", file.display())]
    TooLong {
        /// The file.
        file: PathBuf,
        /// The bound.
        limit: u64,
    },
    /// A secret of another length.
    #[error("{} has {found} bytes in place of {wanted} and is damaged; restore it from its backup", file.display())]
    Length {
        /// The file.
        file: PathBuf,
        /// Its length.
        found: u64,
        /// What it must be.
        wanted: usize,
    },
    /// Not UTF-8.
    #[error("{} is not UTF-8 text; save it as UTF-8", .0.display())]
    NotText(PathBuf),
}

/// Opens a file for reading and checks who else may touch it.
///
/// # Errors
/// A file that is missing, unreadable, no file, or open to others.
pub fn open(file: &Path, wanted: Wanted) -> Result<File, FileError> {
    let opened = File::open(file).map_err(|source| refused("open", file, source))?;
    check(&opened, file, wanted)?;
    Ok(opened)
}

/// Checks who else may touch an opened file.
///
/// # Errors
/// As [`open`].
pub fn check(opened: &File, file: &Path, wanted: Wanted) -> Result<(), FileError> {
    let found = opened
        .metadata()
        .map_err(|source| refused("look at", file, source))?;
    if !found.is_file() {
        return Err(FileError::NotAFile(file.to_owned()));
    }
    let mode = found.mode() & 0o7777;
    let file = file.to_owned();
    match wanted {
        Wanted::NotWritableByOthers if mode & 0o022 != 0 => Err(FileError::Writable { file, mode }),
        Wanted::Secret if mode & 0o077 != 0 => Err(FileError::Readable { file, mode }),
        Wanted::NotWritableByOthers | Wanted::Secret => Ok(()),
    }
}

/// Reads a text of at most `limit` bytes.
///
/// # Errors
/// As [`open`]; a longer file; one that is not UTF-8.
pub fn read_text(file: &Path, wanted: Wanted, limit: u64) -> Result<String, FileError> {
    let mut bytes = Vec::new();
    open(file, wanted)?
        .take(limit.saturating_add(1))
        .read_to_end(&mut bytes)
        .map_err(|source| refused("read", file, source))?;
    if u64::try_from(bytes.len()).is_ok_and(|length| length > limit) {
        let file = file.to_owned();
        return Err(FileError::TooLong { file, limit });
    }
    String::from_utf8(bytes).map_err(|_| FileError::NotText(file.to_owned()))
}

/// Reads a secret of exactly `N` bytes.
///
/// # Errors
/// As [`open`]; a file of another length.
pub fn read_secret<const N: usize>(file: &Path) -> Result<Zeroizing<[u8; N]>, FileError> {
    let mut secret = Zeroizing::new([0; N]);
    let mut opened = open(file, Wanted::Secret)?;
    let found = opened
        .metadata()
        .map_err(|source| refused("look at", file, source))?
        .len();
    if u64::try_from(N) != Ok(found) {
        let file = file.to_owned();
        return Err(FileError::Length {
            file,
            found,
            wanted: N,
        });
    }
    opened
        .read_exact(&mut *secret)
        .map_err(|source| refused("read", file, source))?;
    Ok(secret)
}

/// Makes a new file with `mode`, on disk when this returns. Never replaces one.
///
/// # Errors
/// A file that exists; what the system refuses.
pub fn create_new(file: &Path, mode: u32, bytes: &[u8]) -> Result<File, FileError> {
    let mut made = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(mode)
        .open(file)
        .map_err(|source| refused("create", file, source))?;
    made.write_all(bytes)
        // The umask may have taken bits; the mode asked for is the one meant.
        .and_then(|()| made.set_permissions(std::fs::Permissions::from_mode(mode)))
        .and_then(|()| made.sync_all())
        .and_then(|()| sync_directory(file))
        .map_err(|source| refused("write", file, source))?;
    Ok(made)
}

/// Replaces a file's content in one step: the old or the new, never half. Owner and mode stay.
///
/// # Errors
/// What the system refuses; the old content is then still there.
pub fn replace(file: &Path, bytes: &[u8]) -> Result<(), FileError> {
    // What `file` links to is replaced, not the link.
    let target = file
        .canonicalize()
        .map_err(|source| refused("find", file, source))?;
    let found = target
        .metadata()
        .map_err(|source| refused("look at", file, source))?;
    let name = target.file_name().unwrap_or_default().to_string_lossy();
    let own = format!(".{name}.");
    remove_halves(&target, &own);
    let beside = target.with_file_name(format!("{own}{}", std::process::id()));
    let written = (|| {
        let mut made = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&beside)?;
        made.write_all(bytes)?;
        std::os::unix::fs::fchown(&made, Some(found.uid()), Some(found.gid()))?;
        made.set_permissions(std::fs::Permissions::from_mode(found.mode() & 0o7777))?;
        made.sync_all()?;
        std::fs::rename(&beside, &target)?;
        sync_directory(&target)
    })();
    written.map_err(|source| {
        // Best effort: the first error is the one worth reporting.
        let _ = std::fs::remove_file(&beside);
        refused("write", file, source)
    })
}

/// Removes what a [`replace`] left that was killed: no process of that number runs, or it is this one.
fn remove_halves(target: &Path, own: &str) {
    let directory = target.parent().unwrap_or(Path::new("/"));
    let Ok(entries) = std::fs::read_dir(directory) else {
        return;
    };
    for entry in entries.flatten() {
        let name = entry.file_name();
        let process = name.to_str().and_then(|name| name.strip_prefix(own));
        let Some(process) = process.and_then(|digits| digits.parse::<u32>().ok()) else {
            continue;
        };
        let runs = Path::new("/proc").join(process.to_string()).exists();
        if process == std::process::id() || !runs {
            // What stays is no harm: nobody reads it.
            let _ = std::fs::remove_file(entry.path());
        }
    }
}

/// A new or renamed entry is on disk only when its directory is.
fn sync_directory(file: &Path) -> io::Result<()> {
    let directory = match file.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    File::open(directory)?.sync_all()
}

fn refused(action: &'static str, file: &Path, source: io::Error) -> FileError {
    let file = file.to_owned();
    if source.kind() == io::ErrorKind::NotFound {
        let remedy = "run `spa-admin init` on a new gateway, restore it from its backup on an old one, or name another with --config";
        return FileError::Missing { file, remedy };
    }
    FileError::Io {
        action,
        file,
        source,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_killed_replacement_left_is_removed_by_the_next() {
        let (dir, file) = file_with_mode(0o640);
        let beside = |ending: &str| dir.path().join(format!(".file.{ending}"));
        // PID_MAX_LIMIT of 64-bit Linux is 2^22.
        let killed =
            [(1 << 22) + 1, std::process::id()].map(|process| beside(&process.to_string()));
        let others = [
            beside("1"),
            beside("swp"),
            dir.path().join(".other.4194305"),
        ];
        for left in killed.iter().chain(&others) {
            std::fs::write(left, "half").expect("written");
        }
        replace(&file, b"whole").expect("replaced");
        assert_eq!(std::fs::read(&file).expect("read"), b"whole");
        assert!(killed.iter().all(|left| !left.exists()));
        assert!(others.iter().all(|left| left.exists()));
    }

    fn file_with_mode(mode: u32) -> (tempfile::TempDir, PathBuf) {
        let dir = tempfile::tempdir().expect("a directory");
        let file = dir.path().join("file");
        create_new(&file, mode, b"0123456789abcdef").expect("a file");
        (dir, file)
    }

    #[test]
    fn a_secret_that_others_may_read_is_refused() {
        let (_dir, file) = file_with_mode(0o644);
        let refusal = read_secret::<16>(&file).expect_err("refused").to_string();
        assert!(
            refusal.contains("mode 0644") && refusal.contains("chmod 600"),
            "{refusal}"
        );
        let (_dir, file) = file_with_mode(0o600);
        assert_eq!(
            *read_secret::<16>(&file).expect("read"),
            *b"0123456789abcdef"
        );
    }

    #[test]
    fn a_secret_of_another_length_is_refused() {
        let (_dir, file) = file_with_mode(0o600);
        assert!(read_secret::<15>(&file).is_err());
        assert!(read_secret::<17>(&file).is_err());
    }

    #[test]
    fn a_file_that_others_may_write_is_refused() {
        for mode in [0o666, 0o620, 0o602] {
            let (_dir, file) = file_with_mode(mode);
            let refusal = read_text(&file, Wanted::NotWritableByOthers, 99).expect_err("refused");
            assert!(refusal.to_string().contains("chmod go-w"), "{refusal}");
        }
    }

    #[test]
    fn a_missing_file_says_what_to_do() {
        let refusal = read_text(Path::new("/nowhere/gateway.toml"), Wanted::Secret, 9);
        assert_eq!(
            refusal.expect_err("missing").to_string(),
            "/nowhere/gateway.toml does not exist; run `spa-admin init` on a new gateway, restore it from its backup on an old one, or name another with --config"
        );
    }

    #[test]
    fn a_text_has_a_longest_length() {
        let (_dir, file) = file_with_mode(0o600);
        assert!(read_text(&file, Wanted::Secret, 15).is_err());
        assert!(read_text(&file, Wanted::Secret, 16).is_ok());
    }

    #[test]
    fn a_replaced_file_keeps_owner_and_mode() {
        let (_dir, file) = file_with_mode(0o640);
        std::os::unix::fs::chown(&file, None, None).expect("chown");
        replace(&file, b"new").expect("replaced");
        let found = file.metadata().expect("metadata");
        assert_eq!(found.mode() & 0o7777, 0o640);
        assert_eq!(std::fs::read(&file).expect("read"), b"new");
        let entries = std::fs::read_dir(file.parent().expect("parent")).expect("list");
        assert_eq!(entries.count(), 1, "nothing is left beside it");
    }

    #[test]
    fn a_file_that_exists_is_not_made_anew() {
        let (_dir, file) = file_with_mode(0o600);
        assert!(create_new(&file, 0o600, b"other").is_err());
        assert_eq!(std::fs::read(&file).expect("read"), b"0123456789abcdef");
    }
}
