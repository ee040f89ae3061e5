//! Where the client keeps what it must remember, and where its agents listen.
//!
//! `SPA_HOME` overrides the platform's directories, so that several clients live on one machine. Every directory made
//! here has mode 0700.

use std::env;
use std::fs::{self, DirBuilder};
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};

use directories::ProjectDirs;

/// The variable that names the client's directory.
pub const HOME_VARIABLE: &str = "SPA_HOME";

/// The two directories of a client.
#[derive(Clone, Debug)]
pub struct Places {
    home: Option<PathBuf>,
    store: PathBuf,
    runtime: PathBuf,
}

/// Why a directory cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum PlaceError {
    /// Neither `SPA_HOME` nor a home directory is known.
    #[error(
        "no home directory is known: set SPA_HOME to the directory where spa may keep its keys"
    )]
    Nowhere,
    /// A directory cannot be made or read.
    #[error("cannot use directory {}: {source}", path.display())]
    Directory {
        /// The directory.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// It belongs to somebody else.
    #[error("{} belongs to another user (uid {owner}): `chown` gives it to who runs spa", path.display())]
    OfAnother {
        /// The directory.
        path: PathBuf,
        /// Whose it is.
        owner: u32,
    },
    /// Others can read or write it.
    #[error("{} is open to others (mode {mode:03o}): `chmod 700 {}` makes it private", path.display(), path.display())]
    OpenToOthers {
        /// The directory.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
}

impl Places {
    /// Finds the directories; makes nothing.
    ///
    /// # Errors
    /// When there is no home to find them in.
    pub fn find() -> Result<Self, PlaceError> {
        if let Some(home) = env::var_os(HOME_VARIABLE).filter(|home| !home.is_empty()) {
            let path = PathBuf::from(home);
            // The agent leaves the working directory, so a relative one is made absolute here.
            let home = std::path::absolute(&path)
                .map_err(|source| PlaceError::Directory { path, source })?;
            return Ok(Self::under(&home));
        }
        let dirs = ProjectDirs::from("", "", "spa").ok_or(PlaceError::Nowhere)?;
        let store = dirs.data_local_dir().to_path_buf();
        // XDG_RUNTIME_DIR is absent under sudo and in minimal systems.
        let runtime = dirs
            .runtime_dir()
            .map_or_else(|| store.join("run"), Path::to_path_buf);
        Ok(Self {
            home: None,
            store,
            runtime,
        })
    }

    /// Both directories under one.
    #[must_use]
    pub fn under(home: &Path) -> Self {
        Self {
            home: Some(home.to_path_buf()),
            store: home.to_path_buf(),
            runtime: home.join("run"),
        }
    }

    /// What `SPA_HOME` is, absolute, if it is set.
    #[must_use]
    pub fn home(&self) -> Option<&Path> {
        self.home.as_deref()
    }

    /// The directory of one profile.
    #[must_use]
    pub fn profile(&self, name: &str) -> PathBuf {
        self.profiles().join(name)
    }

    /// The directory of all profiles.
    #[must_use]
    pub fn profiles(&self) -> PathBuf {
        self.store.join("gateways")
    }

    /// The directory of sockets and session notes.
    #[must_use]
    pub fn runtime(&self) -> &Path {
        &self.runtime
    }

    /// Makes the runtime directory, private.
    ///
    /// # Errors
    /// When it cannot be made or is open to others.
    pub fn make_runtime(&self) -> Result<(), PlaceError> {
        make_private(&self.runtime)
    }
}

/// Makes `path` and what lies above it with mode 0700; one that exists must be private already.
///
/// # Errors
/// When it cannot be made or is open to others.
pub fn make_private(path: &Path) -> Result<(), PlaceError> {
    let wrap = |source| PlaceError::Directory {
        path: path.to_path_buf(),
        source,
    };
    DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(path)
        .map_err(wrap)?;
    let metadata = fs::metadata(path).map_err(wrap)?;
    let (mode, owner) = (metadata.mode() & 0o777, metadata.uid());
    if owner != 0 && owner != rustix::process::geteuid().as_raw() {
        return Err(PlaceError::OfAnother {
            path: path.to_path_buf(),
            owner,
        });
    }
    if mode & 0o077 != 0 {
        return Err(PlaceError::OpenToOthers {
            path: path.to_path_buf(),
            mode,
        });
    }
    Ok(())
}
