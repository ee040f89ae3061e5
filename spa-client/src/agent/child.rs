//! The agent as `knock` starts it: a child whose pipe carries the session in, and its words out.
//!
//! Until it is told to stay, the end of the pipe ends it, and everything it raised.

use std::io::{self, BufReader, Read, Write};
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::process::{ChildStdin, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};

use crate::agent::AgentError;
use crate::exchange::Handshake;
use crate::places::{HOME_VARIABLE, Places};
use crate::say;
use crate::session::Session;

/// The byte that lets the agent stay.
pub(super) const STAY: u8 = b'k';

/// What the agent says to it.
pub(super) const STAYING: &str = "staying";

/// What it says when the post-quantum key is set.
pub(super) const REKEYED: &str = "rekeyed";

/// What it says, with a reason, when there will be none.
pub(super) const NOT_REKEYED: &str = "not-rekeyed";

/// What it says for the person.
const NEWS: &str = "news ";

/// How long the rekey may hold a knock back: three ways there and back.
const REKEY: Duration = Duration::from_secs(2);

/// How long that may take.
const ANSWER: Duration = Duration::from_secs(3);

/// How long raising a tunnel may take; measured 1 to 30 ms, a loaded machine takes longer.
const RAISE: Duration = Duration::from_secs(10);

/// How often a foreground agent is listened to.
const LOOK: Duration = Duration::from_secs(1);

/// How long an agent may take to tear down.
const GONE: Duration = Duration::from_secs(10);

/// A running agent that is ours to end.
pub struct Child {
    process: std::process::Child,
    input: Option<ChildStdin>,
    output: Lines,
    backend: String,
    warnings: Vec<String>,
}

impl Child {
    /// Starts it, hands the session over and waits until the interface is up.
    ///
    /// # Errors
    /// When it cannot be started or the tunnel cannot be raised; nothing is left behind then.
    pub fn start(places: &Places, session: &Session) -> Result<Self, AgentError> {
        let program = std::env::current_exe().map_err(AgentError::Start)?;
        let mut command = Command::new(program);
        command
            .arg("agent")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null());
        if let Some(home) = places.home() {
            command.env(HOME_VARIABLE, home);
        }
        let mut process = command.spawn().map_err(AgentError::Start)?;
        let (input, output) = (process.stdin.take(), process.stdout.take());
        let (Some(mut input), Some(output)) = (input, output) else {
            return Err(AgentError::Start(io::ErrorKind::BrokenPipe.into()));
        };
        let text = session.to_text();
        let length = u32::try_from(text.text().len())
            .map_err(|_| AgentError::Start(io::ErrorKind::FileTooLarge.into()))?;
        input
            .write_all(&length.to_be_bytes())
            .and_then(|()| input.write_all(text.text().as_bytes()))
            .map_err(AgentError::Start)?;
        let output = Lines {
            reader: BufReader::new(output),
            line: Vec::new(),
        };
        let mut child = Self {
            process,
            input: Some(input),
            output,
            backend: String::new(),
            warnings: Vec::new(),
        };
        child.wait_raised()?;
        Ok(child)
    }

    fn wait_raised(&mut self) -> Result<(), AgentError> {
        let deadline = Instant::now() + RAISE;
        loop {
            match self
                .output
                .next(deadline.saturating_duration_since(Instant::now()))?
            {
                Said::Line(line) => match line.split_once(' ').unwrap_or((&line, "")) {
                    ("raised", backend) => {
                        self.backend = backend.to_owned();
                        return Ok(());
                    }
                    ("warning", text) => self.warnings.push(text.to_owned()),
                    ("failed", why) => return Err(AgentError::Tunnel(why.to_owned())),
                    _ => return Err(AgentError::Version(line)),
                },
                Said::NothingYet => return Err(AgentError::Talk(io::ErrorKind::TimedOut.into())),
                Said::Gone => return Err(AgentError::Talk(io::ErrorKind::UnexpectedEof.into())),
            }
        }
    }

    /// Which WireGuard carries the tunnel.
    #[must_use]
    pub fn backend(&self) -> &str {
        &self.backend
    }

    /// What it said of routes.
    #[must_use]
    pub fn warnings(&self) -> &[String] {
        &self.warnings
    }

    /// Waits for the first handshake.
    ///
    /// # Errors
    /// When the tunnel fails meanwhile.
    pub fn wait_handshake(&mut self, patience: Duration) -> Result<Handshake, AgentError> {
        match self.output.next(patience)? {
            Said::Line(line) if line == "handshake" => Ok(Handshake::Done),
            Said::Line(line) => match line.strip_prefix("failed ") {
                Some(why) => Err(AgentError::Tunnel(why.to_owned())),
                None => Err(AgentError::Version(line)),
            },
            Said::NothingYet => Ok(Handshake::NotYet),
            Said::Gone => Err(AgentError::Talk(io::ErrorKind::UnexpectedEof.into())),
        }
    }

    /// Lets the agent stay after us, or for as long as we stay with it. When this returns its note is written, so that
    /// the next command knows of it.
    ///
    /// # Errors
    /// When it is gone.
    pub fn stay(&mut self) -> Result<(), AgentError> {
        let gone = |kind: io::ErrorKind| AgentError::Talk(kind.into());
        let input = self
            .input
            .as_mut()
            .ok_or_else(|| gone(io::ErrorKind::BrokenPipe))?;
        input.write_all(&[STAY]).map_err(AgentError::Talk)?;
        match self.output.next(ANSWER)? {
            Said::Line(line) if line == STAYING => Ok(()),
            Said::Line(line) => match line.strip_prefix("failed ") {
                Some(why) => Err(AgentError::Tunnel(why.to_owned())),
                None => Err(AgentError::Version(line)),
            },
            Said::NothingYet => Err(gone(io::ErrorKind::TimedOut)),
            Said::Gone => Err(gone(io::ErrorKind::UnexpectedEof)),
        }
    }

    /// Waits until the tunnel has its post-quantum key, for a moment: policy may let nothing through before, and a
    /// connection that is begun meanwhile would stumble. The agent goes on with it in any case.
    ///
    /// # Errors
    /// When the agent is gone.
    pub fn wait_rekeyed(&mut self) -> Result<Rekeyed, AgentError> {
        match self.output.next(REKEY)? {
            Said::Line(line) if line == REKEYED => Ok(Rekeyed::Yes),
            Said::Line(line) => match line.strip_prefix(NOT_REKEYED) {
                Some(why) => Ok(Rekeyed::No(why.trim().to_owned())),
                None => Err(AgentError::Version(line)),
            },
            Said::NothingYet => Ok(Rekeyed::NotYet),
            Said::Gone => Err(AgentError::Talk(io::ErrorKind::UnexpectedEof.into())),
        }
    }

    /// Takes everything down and waits until it is gone.
    ///
    /// # Errors
    /// When the agent does not end.
    pub fn end(mut self) -> Result<(), AgentError> {
        drop(self.input.take());
        let deadline = Instant::now() + GONE;
        loop {
            match self
                .output
                .next(deadline.saturating_duration_since(Instant::now()))?
            {
                Said::Line(_) => {}
                Said::NothingYet => return Err(AgentError::Talk(io::ErrorKind::TimedOut.into())),
                Said::Gone => break,
            }
        }
        self.process.wait().map(|_| ()).map_err(AgentError::Talk)
    }

    /// Stays with a foreground agent until its session ends; gives its last words. When `signals` becomes readable the
    /// agent is told to close the session, which `told` hears once.
    ///
    /// # Errors
    /// When it ends without any.
    pub fn accompany(
        mut self,
        signals: &UnixStream,
        told: impl FnOnce(),
    ) -> Result<String, AgentError> {
        let mut told = Some(told);
        let mut last = None;
        loop {
            if told.is_some() && self.output.wait_or(signals)? == Woken::BySignal {
                // The end of the pipe is the word to close.
                drop(self.input.take());
                if let Some(told) = told.take() {
                    told();
                }
            }
            match self.output.next(LOOK)? {
                Said::Line(line) => last = line.strip_prefix("ended ").map(str::to_owned).or(last),
                Said::NothingYet => {}
                Said::Gone => break,
            }
        }
        let _ = self.process.wait();
        last.ok_or_else(|| AgentError::Talk(io::ErrorKind::UnexpectedEof.into()))
    }
}

/// Whether the tunnel has its post-quantum key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Rekeyed {
    /// It has.
    Yes,
    /// It will not, for this reason.
    No(String),
    /// Not yet.
    NotYet,
}

/// What ended a wait for both.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Woken {
    ByAgent,
    BySignal,
}

enum Said {
    Line(String),
    NothingYet,
    Gone,
}

/// Lines out of a pipe, with patience.
struct Lines {
    reader: BufReader<ChildStdout>,
    line: Vec<u8>,
}

impl Lines {
    fn next(&mut self, patience: Duration) -> Result<Said, AgentError> {
        let deadline = Instant::now() + patience;
        loop {
            if self.reader.buffer().is_empty() && !self.readable(deadline)? {
                return Ok(Said::NothingYet);
            }
            let mut byte = [0];
            match self.reader.read(&mut byte) {
                Ok(0) => return Ok(Said::Gone),
                Ok(_) if byte == *b"\n" => {
                    let line = String::from_utf8_lossy(&self.line).into_owned();
                    self.line.clear();
                    match line.strip_prefix(NEWS) {
                        Some(news) => eprintln!("spa: {}", say::printable(news)),
                        None => return Ok(Said::Line(line)),
                    }
                }
                Ok(_) => self.line.extend_from_slice(&byte),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(AgentError::Talk(error)),
            }
        }
    }

    /// Waits for a word of the agent or a signal, however long.
    fn wait_or(&self, signals: &UnixStream) -> Result<Woken, AgentError> {
        if !self.reader.buffer().is_empty() {
            return Ok(Woken::ByAgent);
        }
        let pipe = self.reader.get_ref().as_fd();
        let mut fds = [
            PollFd::from_borrowed_fd(pipe, PollFlags::IN),
            PollFd::new(signals, PollFlags::IN),
        ];
        loop {
            match poll(&mut fds, None) {
                Ok(_) if !fds[1].revents().is_empty() => return Ok(Woken::BySignal),
                Ok(_) => return Ok(Woken::ByAgent),
                Err(rustix::io::Errno::INTR) => {}
                Err(errno) => return Err(AgentError::Talk(errno.into())),
            }
        }
    }

    fn readable(&self, deadline: Instant) -> Result<bool, AgentError> {
        let left = deadline.saturating_duration_since(Instant::now());
        let timeout = Timespec::try_from(left)
            .map_err(|_| AgentError::Talk(io::ErrorKind::InvalidInput.into()))?;
        let pipe = self.reader.get_ref().as_fd();
        match poll(
            &mut [PollFd::from_borrowed_fd(pipe, PollFlags::IN)],
            Some(&timeout),
        ) {
            Ok(ready) => Ok(ready > 0),
            Err(rustix::io::Errno::INTR) => Ok(false),
            Err(errno) => Err(AgentError::Talk(errno.into())),
        }
    }
}
