//! The machine as a collector sees it: files and programs under a root, which a test may put elsewhere.
//!
//! Everything read is bounded, and programs are taken from the system's own directories, never from PATH: we may be root.

use std::fs::{self, File};
use std::io::Read;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, SystemTime};

use rustix::process::{Pid, Signal, kill_process_group};

/// The longest file or output that is read: a ruleset of ten thousand elements has some megabytes.
const LONGEST: u64 = 8 << 20;

/// How long a program of the system may take.
const PATIENCE: Duration = Duration::from_secs(3);

/// Where the system keeps programs.
const BIN: [&str; 4] = ["usr/sbin", "usr/bin", "sbin", "bin"];

/// Files and programs under a root.
#[derive(Clone, Debug)]
pub struct Machine {
    root: PathBuf,
}

impl Machine {
    /// The machine we run on.
    #[must_use]
    pub fn this() -> Self {
        Self {
            root: PathBuf::from("/"),
        }
    }

    /// One that a test made.
    #[cfg(test)]
    pub fn at(root: &std::path::Path) -> Self {
        Self {
            root: root.to_path_buf(),
        }
    }

    /// A path below the root.
    #[must_use]
    pub fn path(&self, path: &str) -> PathBuf {
        self.root.join(path.trim_start_matches('/'))
    }

    /// The text of a file, if it can be read.
    #[must_use]
    pub fn text(&self, path: &str) -> Option<String> {
        Some(String::from_utf8_lossy(&self.bytes(path)?).into_owned())
    }

    /// The bytes of a file, if it can be read.
    #[must_use]
    pub fn bytes(&self, path: &str) -> Option<Vec<u8>> {
        let mut bytes = Vec::new();
        let file = File::open(self.path(path)).ok()?;
        file.take(LONGEST).read_to_end(&mut bytes).ok()?;
        Some(bytes)
    }

    /// Whether something is there.
    #[must_use]
    pub fn has(&self, path: &str) -> bool {
        self.path(path).exists()
    }

    /// The names in a directory, sorted; none if it cannot be read.
    #[must_use]
    pub fn names(&self, path: &str) -> Vec<String> {
        let Ok(listing) = fs::read_dir(self.path(path)) else {
            return Vec::new();
        };
        let mut names: Vec<String> = listing
            .filter_map(|item| item.ok()?.file_name().into_string().ok())
            .collect();
        names.sort();
        names
    }

    /// When a file was last written.
    #[must_use]
    pub fn written(&self, path: &str) -> Option<SystemTime> {
        fs::metadata(self.path(path)).ok()?.modified().ok()
    }

    /// What a link of `/dev` points to in the end, by its last name: `dm-0` for `/dev/mapper/root`.
    #[must_use]
    pub fn device(&self, path: &str) -> Option<String> {
        let path = fs::canonicalize(self.path(path)).ok()?;
        Some(path.file_name()?.to_str()?.to_owned())
    }

    /// What a program of the system prints, if it is there and ends well.
    #[must_use]
    pub fn run(&self, program: &str, args: &[&str]) -> Option<Vec<u8>> {
        let program = BIN
            .iter()
            .map(|bin| self.root.join(bin).join(program))
            .find(|path| path.is_file())?;
        output(Command::new(program).args(args), LONGEST, PATIENCE)
    }
}

/// Runs a command to its end and gives what it prints; nothing if it fails, prints more than `longest` bytes, or takes
/// longer than `patience`. It and all it started are killed then.
pub fn output(command: &mut Command, longest: u64, patience: Duration) -> Option<Vec<u8>> {
    let mut child = command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .process_group(0)
        .spawn()
        .ok()?;
    let stdout = child.stdout.take()?;
    let group = i32::try_from(child.id()).ok().and_then(Pid::from_raw)?;
    let (sender, receiver) = mpsc::channel();
    thread::spawn(move || {
        let mut bytes = Vec::new();
        // One byte more, so that too much is seen as such.
        let read = stdout.take(longest + 1).read_to_end(&mut bytes);
        let fits = read.is_ok() && bytes.len() as u64 <= longest;
        if !fits {
            let _ = kill_process_group(group, Signal::KILL);
        }
        // Waited for here, so that nothing stays of a command that nobody waits for any more.
        let ended_well = child.wait().is_ok_and(|status| status.success());
        let _ = sender.send((fits && ended_well).then_some(bytes));
    });
    receiver.recv_timeout(patience).unwrap_or_else(|_| {
        let _ = kill_process_group(group, Signal::KILL);
        None
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shell(script: &str, longest: u64, patience: Duration) -> Option<Vec<u8>> {
        output(
            Command::new("/bin/sh").args(["-c", script]),
            longest,
            patience,
        )
    }

    #[test]
    fn a_program_that_fails_floods_or_hangs_says_nothing() {
        let long = Duration::from_secs(20);
        assert_eq!(shell("echo x", 2, long), Some(b"x\n".to_vec()));
        assert_eq!(shell("echo x; exit 1", 9, long), None);
        assert_eq!(shell("yes", 1000, long), None);
        // What hangs has a child that holds the pipe, or closes it and goes on: all must go.
        assert_eq!(
            shell("exec >&-; sleep 60", 9, Duration::from_millis(50)),
            None
        );
        assert_eq!(
            shell("tail -f /dev/null & wait", 9, Duration::from_millis(50)),
            None
        );
    }
}
