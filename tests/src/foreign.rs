//! A root of its own with packages that this machine has not, for programs that would change it.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use crate::net::Namespace;
use crate::program::Program;

/// How long packages may take to be fetched and installed.
const INSTALLED: Duration = Duration::from_secs(180);

/// The root; it goes when dropped.
#[derive(Debug)]
pub struct ForeignRoot {
    holder: Program,
    root: PathBuf,
}

impl ForeignRoot {
    /// Installs packages of Debian's in a root below `folder`; `None` where they cannot be had, said loudly.
    ///
    /// # Errors
    /// When the script cannot be run.
    pub fn with(packages: &[&str], folder: &Path, logs: &Path) -> anyhow::Result<Option<Self>> {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tools/foreign-root.sh");
        let place = folder.join("foreign");
        let mut command = Command::new("unshare");
        command.args(["--mount", "--propagation", "private"]);
        command.arg(script).arg(&place).args(packages);
        let mut holder = Program::start(logs, "foreign-root", &mut command)?;
        if let Err(error) = holder.wait_for_words("ready", INSTALLED) {
            let said = holder.said();
            if said.contains("SKIPPED") {
                eprintln!("{}", said.trim());
                return Ok(None);
            }
            return Err(error);
        }
        let root = place.join("root");
        Ok(Some(Self { holder, root }))
    }

    /// Where a file of it is.
    pub fn path(&self, file: &str) -> PathBuf {
        // Its mounts are not ours: what is seen of it from here is seen through its holder.
        let holder = PathBuf::from(format!("/proc/{}/root", self.holder.pid()));
        let root = self.root.strip_prefix("/").unwrap_or(&self.root);
        holder.join(root).join(file)
    }

    /// A command that runs in it and in a network namespace.
    pub fn command(&self, space: &Namespace, program: &str) -> Command {
        let mut command = space.command("nsenter");
        command.args(["--mount", "--target", &self.holder.pid().to_string()]);
        command.arg("chroot").arg(&self.root).arg(program);
        command
    }
}
