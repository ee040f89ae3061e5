//! The policy file: read whole, used whole or not at all.
//!
//! It is opened through its directory, which the daemon keeps open: an edit replaces
//! the file, and after leaving root the way there may be closed.

use std::ffi::OsString;
use std::fs::File;
use std::io::Read;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use rustix::fs::{Mode, OFlags};
use spa_gateway_core::policy::{self, MAX_POLICY_BYTES, Severity};
use spa_gateway_core::{Policy, PolicyError};

use crate::files::{self, FileError, Wanted};

/// Where the policy is read from.
#[derive(Debug)]
pub struct PolicyFile {
    directory: OwnedFd,
    name: OsString,
    path: PathBuf,
}

/// Why a policy is not used. Its text is one line.
#[derive(Debug, thiserror::Error)]
pub enum PolicyFileError {
    /// The file is not there, or open to others, or cannot be read.
    #[error(transparent)]
    File(#[from] FileError),
    /// Its content.
    #[error("{}:{}:{}: {}; {}", path.display(), error.line, error.column, error.what, error.remedy)]
    Content {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        error: PolicyError,
    },
    /// It can be read, and is not fit to be put into force.
    #[error("{}: {what}; `spa-admin policy check` shows everything", path.display())]
    Unfit {
        /// The file.
        path: PathBuf,
        /// The first thing that is wrong with it.
        what: String,
    },
}

impl PolicyFile {
    /// Opens the directory of the policy. The file itself need not be there.
    ///
    /// # Errors
    /// A directory that cannot be opened.
    pub fn at(path: &Path) -> Result<Self, FileError> {
        let refused = |source: rustix::io::Errno| FileError::Io {
            action: "open the directory of",
            file: path.to_owned(),
            source: source.into(),
        };
        // A bare name is one in the working directory, whose path is empty.
        let beside = path.parent().unwrap_or(Path::new("/"));
        let beside = Some(beside)
            .filter(|beside| *beside != Path::new(""))
            .unwrap_or(Path::new("."));
        let name = path
            .file_name()
            .ok_or_else(|| refused(rustix::io::Errno::ISDIR))?;
        let flags = OFlags::DIRECTORY | OFlags::CLOEXEC | OFlags::RDONLY;
        let directory = rustix::fs::open(beside, flags, Mode::empty()).map_err(refused)?;
        Ok(Self {
            directory,
            name: name.to_owned(),
            path: path.to_owned(),
        })
    }

    /// Reads the policy as it is now.
    ///
    /// # Errors
    /// A file that is missing, open to others, too long or wrong; what is in force then stays.
    pub fn read(&self) -> Result<Policy, PolicyFileError> {
        parse(&self.text()?, &self.path)
    }

    /// Reads the text of the file as it is now.
    ///
    /// # Errors
    /// A file that is missing, open to others, or not text.
    pub fn text(&self) -> Result<String, FileError> {
        let flags = OFlags::CLOEXEC | OFlags::RDONLY | OFlags::NONBLOCK;
        let opened = rustix::fs::openat(&self.directory, &self.name, flags, Mode::empty());
        let opened = File::from(opened.map_err(|errno| self.refused(errno.into()))?);
        files::check(&opened, &self.path, Wanted::NotWritableByOthers)?;
        let limit = u64::try_from(MAX_POLICY_BYTES).unwrap_or(u64::MAX);
        let mut text = String::new();
        // One byte more, so that the parser sees a file that is too long as one.
        opened
            .take(limit.saturating_add(1))
            .read_to_string(&mut text)
            .map_err(|error| self.refused(error))?;
        Ok(text)
    }

    /// Gives where it is.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    fn refused(&self, source: std::io::Error) -> FileError {
        let file = self.path.clone();
        if source.kind() == std::io::ErrorKind::InvalidData {
            return FileError::NotText(file);
        }
        if source.kind() == std::io::ErrorKind::NotFound {
            let remedy = "write one, `spa-admin policy check` looks at it";
            return FileError::Missing { file, remedy };
        }
        FileError::Io {
            action: "read",
            file,
            source,
        }
    }
}

/// Parses the text of the policy at `path`, and runs its tests and the built-in ones. Whether a rule has
/// ended by now is no reason to refuse it: a restart must not lose a policy that was in force.
///
/// # Errors
/// The first thing that is wrong, with file and line.
pub fn parse(text: &str, path: &Path) -> Result<Policy, PolicyFileError> {
    let policy = Policy::parse(text).map_err(|error| PolicyFileError::Content {
        path: path.to_owned(),
        error,
    })?;
    let report = policy::check(text, None);
    if report.is_sound() {
        return Ok(policy);
    }
    let error = report
        .findings
        .iter()
        .find(|finding| finding.severity == Severity::Error)
        .map(ToString::to_string);
    let failed = || {
        let test = report.failed().next()?;
        Some(format!("a [[test]] fails: {test}"))
    };
    Err(PolicyFileError::Unfit {
        path: path.to_owned(),
        what: error.or_else(failed).unwrap_or_default(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::files::create_new;

    #[test]
    fn a_replaced_policy_is_read_again() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("policy.toml");
        let file = PolicyFile::at(&path).expect("a directory");
        let missing = file.read().expect_err("missing").to_string();
        assert!(
            missing.contains("policy.toml does not exist; write one"),
            "{missing}"
        );
        create_new(&path, 0o640, b"version = 1\n").expect("written");
        assert_eq!(file.read().expect("read").resources().count(), 0);
        let text = "[resource]\nwiki = { to = \"10.0.0.1\", ports = [\"443/tcp\"] }\n";
        files::replace(&path, text.as_bytes()).expect("replaced");
        assert_eq!(file.read().expect("read").resources().count(), 1);
    }

    #[test]
    fn a_bare_name_is_a_file_of_the_working_directory() {
        let missing = PolicyFile::at(Path::new("no-such-policy.toml")).expect("a directory");
        let missing = missing.read().expect_err("missing").to_string();
        assert!(
            missing.starts_with("no-such-policy.toml does not exist"),
            "{missing}"
        );
    }

    #[test]
    fn what_is_no_text_is_said_to_be_none() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("policy.toml");
        create_new(&path, 0o640, b"\xff\xfe").expect("written");
        let refusal = PolicyFile::at(&path).expect("a directory").read();
        let refusal = refusal.expect_err("refused").to_string();
        assert!(refusal.contains("is not UTF-8 text"), "{refusal}");
    }

    #[test]
    fn a_wrong_policy_names_file_and_line() {
        let refusal = parse("version = 1\n[groop]\n", Path::new("/etc/spa/policy.toml"));
        let refusal = refusal.expect_err("refused").to_string();
        assert!(
            refusal.starts_with("/etc/spa/policy.toml:2:2: "),
            "{refusal}"
        );
        assert!(!refusal.contains('\n'));
    }

    #[test]
    fn a_policy_whose_tests_fail_is_refused() {
        let text = |expect: &str| {
            format!(
                r#"version = 1
[group]
eng = ["ana"]
[resource]
wiki = {{ to = "10.0.5.10", ports = ["443/tcp"] }}
[[allow]]
name = "eng-wiki"
who = ["group:eng"]
to = ["wiki"]
[[test]]
who = "ana"
to = "wiki:443"
expect = "{expect}"
"#
            )
        };
        let path = Path::new("policy.toml");
        assert!(parse(&text("allow"), path).is_ok());
        let refusal = parse(&text("deny"), path).expect_err("refused").to_string();
        assert!(
            refusal.contains("line 13") && refusal.contains("expected deny, got ALLOW"),
            "{refusal}"
        );
        assert!(!refusal.contains('\n'), "{refusal}");
    }

    #[test]
    fn a_policy_that_others_may_write_is_refused() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("policy.toml");
        create_new(&path, 0o666, b"").expect("written");
        let refusal = PolicyFile::at(&path).expect("a directory").read();
        assert!(
            refusal
                .expect_err("refused")
                .to_string()
                .contains("chmod go-w")
        );
    }
}
