//! Where the built programs are: in the folder this program itself was built into, or where `SPA_PROGRAMS` says.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};

/// What must have been built before a demo or a test of the whole can run.
const NEEDED: [&str; 6] = [
    "spa-gateway",
    "spa-admin",
    "spa-enforcer",
    "spa-tunnel",
    "spa",
    "spa-phone",
];

/// The variable that names another folder.
const ELSEWHERE: &str = "SPA_PROGRAMS";

/// The folder with all programs.
#[derive(Clone, Debug)]
pub struct Programs {
    folder: PathBuf,
}

impl Programs {
    /// Finds them beside the running program, or one folder up (tests are built into `deps/`). The folder `SPA_PROGRAMS` comes before:
    /// it holds programs that were built another way, to be tested as they are.
    ///
    /// # Errors
    /// Naming the first one that is missing, and how to build it.
    pub fn find() -> anyhow::Result<Self> {
        let folder = match std::env::var_os(ELSEWHERE) {
            Some(folder) => PathBuf::from(folder),
            None => own_folder()?,
        };
        if let Some(missing) = NEEDED.iter().find(|name| !folder.join(name).exists()) {
            bail!("{missing} is not in {}: run `make build`", folder.display());
        }
        Ok(Self { folder })
    }

    /// The same programs where every user may run them: copied into `place` when a folder above them is closed to others
    /// (a checkout below `/root` is), else as they are.
    ///
    /// # Errors
    /// When copying fails.
    pub fn reachable(self, place: &Path) -> anyhow::Result<Self> {
        if self.folder.ancestors().all(open_to_others) {
            return Ok(self);
        }
        let folder = place.join("bin");
        std::fs::create_dir_all(&folder)?;
        for name in NEEDED {
            std::fs::copy(self.folder.join(name), folder.join(name))
                .with_context(|| format!("copying {name}"))?;
        }
        Ok(Self { folder })
    }

    /// The path of one of them.
    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }
}

fn own_folder() -> anyhow::Result<PathBuf> {
    let own = std::env::current_exe().context("finding this program")?;
    let folder = own.parent().context("finding its folder")?;
    let above = folder.parent().filter(|_| folder.ends_with("deps"));
    Ok(above.unwrap_or(folder).to_path_buf())
}

fn open_to_others(folder: &Path) -> bool {
    std::fs::metadata(folder).is_ok_and(|metadata| metadata.permissions().mode() & 0o001 != 0)
}
