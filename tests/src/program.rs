//! A program running in a namespace: its words go to files that outlive it, its end is awaited with a limit.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use rustix::process::Signal;

use crate::net::signal;
use crate::wait::wait_until;

static NUMBER: AtomicU32 = AtomicU32::new(1);

/// A started program. Dropping it ends it.
#[derive(Debug)]
pub struct Program {
    name: String,
    child: Child,
    begun: Instant,
    out: PathBuf,
    err: PathBuf,
}

/// A program that has ended.
#[derive(Clone, Debug)]
pub struct Ended {
    /// Exit code; 128 + signal when a signal ended it.
    pub code: i32,
    /// Everything it said on standard output.
    pub out: String,
    /// Everything it said on standard error.
    pub err: String,
    /// How long it ran.
    pub took: Duration,
}

impl Program {
    /// Starts `command` with its output in `NUMBER-name.out` and `.err` of the folder `logs`.
    ///
    /// Files and not pipes: a child that a program leaves behind keeps writing without holding anybody up.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn start(logs: &Path, name: &str, command: &mut Command) -> anyhow::Result<Self> {
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let out = logs.join(format!("{number:03}-{name}.out"));
        let err = logs.join(format!("{number:03}-{name}.err"));
        let child = command
            .stdin(Stdio::null())
            .stdout(File::create(&out)?)
            .stderr(File::create(&err)?)
            .spawn()
            .with_context(|| format!("starting {command:?}"))?;
        Ok(Self {
            name: name.to_owned(),
            child,
            begun: Instant::now(),
            out,
            err,
        })
    }

    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Everything it has said, on both channels.
    pub fn said(&self) -> String {
        read(&self.out) + &read(&self.err)
    }

    /// Waits until it has said a line that contains `words`, and gives that line. A program that ends first is an error with its words.
    ///
    /// # Errors
    /// When it ends or the limit passes without.
    pub fn wait_for_words(&mut self, words: &str, limit: Duration) -> anyhow::Result<String> {
        let what = format!("{} says {words:?}", self.name);
        let found = wait_until(&what, limit, || {
            let ended = self.child.try_wait().ok().flatten();
            let said = self.said();
            match (said.lines().find(|line| line.contains(words)), ended) {
                (Some(line), _) => Some(Ok(line.to_owned())),
                (None, Some(status)) => Some(Err(format!("{status}\n{said}"))),
                (None, None) => None,
            }
        });
        match found {
            Ok(Ok(line)) => Ok(line),
            Ok(Err(end)) => bail!("{what}: but it ended, {end}"),
            Err(error) => Err(error.context(self.said())),
        }
    }

    /// Whether it still runs.
    pub fn is_running(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(None))
    }

    /// Sends it a signal.
    pub fn signal(&self, which: Signal) {
        signal(self.pid(), which);
    }

    /// Waits for its end.
    ///
    /// # Errors
    /// When it still runs at the limit.
    pub fn wait(mut self, limit: Duration) -> anyhow::Result<Ended> {
        let what = format!("{} ends", self.name);
        let status = wait_until(&what, limit, || self.child.try_wait().ok().flatten())
            .with_context(|| self.said())?;
        use std::os::unix::process::ExitStatusExt;
        let code = status
            .code()
            .unwrap_or_else(|| 128 + status.signal().unwrap_or_default());
        Ok(Ended {
            code,
            out: read(&self.out),
            err: read(&self.err),
            took: self.begun.elapsed(),
        })
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        let _ended_already = self.child.kill();
        let _ended_already = self.child.wait();
    }
}

impl Ended {
    /// Itself when it succeeded.
    ///
    /// # Errors
    /// With its words when it failed.
    pub fn success(self) -> anyhow::Result<Self> {
        if self.code == 0 {
            return Ok(self);
        }
        bail!("exit code {}: {}{}", self.code, self.out, self.err)
    }

    /// Asserts that it failed with `code` and one clear line of refusal, "program: …", that contains all of `words`. Progress and
    /// verdicts may stand before it; nothing after it.
    ///
    /// # Errors
    /// When it did anything else.
    pub fn refusal(&self, code: i32, words: &[&str]) -> anyhow::Result<()> {
        if self.code != code {
            bail!(
                "exit code {} and not {code}: {}{}",
                self.code,
                self.out,
                self.err
            );
        }
        let is_refusal = |line: &&str| {
            let named = line.split_once(": ").map(|(name, _)| name);
            named.is_some_and(|name| name == "problem" || name.starts_with("spa"))
        };
        let lines: Vec<&str> = self.err.lines().filter(is_refusal).collect();
        let ([line], true) = (
            lines.as_slice(),
            self.err.lines().last().as_ref().is_some_and(is_refusal),
        ) else {
            bail!("not one line of refusal at the end: {}", self.err);
        };
        match words.iter().find(|word| !line.contains(**word)) {
            None => Ok(()),
            Some(word) => bail!("{line:?} does not say {word:?}"),
        }
    }
}

fn read(path: &Path) -> String {
    fs::read(path)
        .map(|bytes| String::from_utf8_lossy(&bytes).into_owned())
        .unwrap_or_default()
}
