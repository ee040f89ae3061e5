//! The agent's own life: raise the tunnel, hold it until one of its ends comes, take everything down.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::os::fd::AsFd;
use std::os::unix::net::{UnixListener, UnixStream};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Resource, Rlimit, setrlimit, setsid};
use spa_proto::{Ask, DerivedKeys, GatewayId, Outcome, Request, Signer};
use zeroize::Zeroizing;

use crate::agent::child::{STAY, STAYING};
use crate::agent::link::{CLOSE, GIVE_WAY, Moving, STATUS, live_line};
use crate::agent::note::{Ended, Note};
use crate::agent::{AgentError, ending_signals, socket_path};
use crate::clock;
use crate::exchange::{Knocking, exchange};
use crate::failure::Failure;
use crate::places::Places;
use crate::private_file;
use crate::profile::Stage;
use crate::progress::Progress;
use crate::session::{Session, Stay};
use crate::store::Store;
use crate::tunnel::Raised;
use crate::wire::Wire;

/// How often the handshake is looked for until it is there; neither WireGuard announces it.
const HANDSHAKE_LOOK: Duration = Duration::from_millis(2);

/// How often the tunnel and the clock are looked at afterwards.
const LOOK: Duration = Duration::from_secs(1);

/// How long a command may take to say its word.
const WORD: Duration = Duration::from_millis(500);

/// A longer handover is none of ours.
const LONGEST_HANDOVER: u32 = 32 * 1024;

/// Holds the session that arrives on stdin, until it ends.
///
/// # Errors
/// When the session cannot be taken over; a lost tunnel is an end like another.
pub fn hold(places: &Places) -> Result<(), AgentError> {
    // A core dump would hold the session's keys.
    let _ = setrlimit(
        Resource::Core,
        Rlimit {
            current: Some(0),
            maximum: Some(0),
        },
    );
    // Not `Stdin`: its buffer would hide a byte from poll.
    let mut input = io::stdin()
        .as_fd()
        .try_clone_to_owned()
        .map(File::from)
        .map_err(AgentError::Start)?;
    let session = take_over(&mut input)?;
    // Away from the terminal: its Ctrl-C and its hang-up reach `knock`, not us and `spa-tunnel`. It cannot fail for a
    // fresh child.
    let _ = setsid();
    let _ = std::env::set_current_dir("/");
    let signals = ending_signals().map_err(AgentError::Start)?;
    places.make_runtime()?;
    let listener = listen(places, &session.profile)?;
    let raised = match Raised::raise(&session) {
        Ok(raised) => raised,
        Err(error) => {
            say(&format!("failed {error}"));
            private_file::remove(&socket_path(places, &session.profile))?;
            return Ok(());
        }
    };
    for warning in raised.warnings() {
        say(&format!("warning {warning}"));
    }
    say(&format!("raised {}", raised.backend()));
    let mut holder = Holder {
        places,
        session: &session,
        raised,
        parent: Some(input),
        stays: false,
        shaken: None,
    };
    let end = holder.run(&listener, &signals);
    holder.finish(end)
}

fn take_over(input: &mut File) -> Result<Session, AgentError> {
    let damaged = |error: io::Error| AgentError::Handover(error.to_string());
    let mut length = [0; 4];
    input.read_exact(&mut length).map_err(damaged)?;
    let length = u32::from_be_bytes(length);
    if length > LONGEST_HANDOVER {
        return Err(AgentError::Handover("it is too long".to_owned()));
    }
    let mut bytes = Zeroizing::new(vec![0; length as usize]);
    input.read_exact(&mut bytes).map_err(damaged)?;
    let text =
        std::str::from_utf8(&bytes).map_err(|error| AgentError::Handover(error.to_string()))?;
    Session::parse(text).map_err(AgentError::Handover)
}

fn listen(places: &Places, profile: &str) -> Result<UnixListener, AgentError> {
    let path = socket_path(places, profile);
    private_file::remove(&path)?;
    // The directory has mode 0700; the socket gets 0600 all the same.
    let mask = rustix::process::umask(rustix::fs::Mode::from_raw_mode(0o177));
    let listener = UnixListener::bind(&path);
    rustix::process::umask(mask);
    listener.map_err(|source| AgentError::Listen { path, source })
}

/// Says a line to `knock`, which may be gone.
fn say(line: &str) {
    let mut out = io::stdout().lock();
    let _ = out
        .write_all(format!("{}\n", line.replace('\n', " ")).as_bytes())
        .and_then(|()| out.flush());
}

struct Holder<'a> {
    places: &'a Places,
    session: &'a Session,
    raised: Raised,
    /// `knock`'s end of the pipe, while its end would be ours.
    parent: Option<File>,
    stays: bool,
    /// When, by the clock of the boot, the last handshake was. WireGuard itself forgets it with the key it made.
    shaken: Option<Duration>,
}

/// Why the holding is over.
enum End {
    /// `knock` went on without us: nothing was told to anyone.
    Unwanted,
    Over(Ended),
    /// A command waits for the word that everything is down.
    Told(UnixStream, Ended, String),
}

impl Holder<'_> {
    fn run(&mut self, listener: &UnixListener, signals: &UnixStream) -> End {
        loop {
            let left = self.session.deadline.saturating_sub(clock::boot());
            if left.is_zero() {
                return End::Over(Ended::Expired);
            }
            let look = if self.shaken.is_some() {
                LOOK
            } else {
                HANDSHAKE_LOOK
            };
            let ready = match self.wait(listener, signals, look.min(left)) {
                Ok(ready) => ready,
                Err(error) => return End::Over(Ended::Lost(error.to_string())),
            };
            if ready.signal {
                return End::Over(
                    self.close()
                        .map_or_else(|_| Ended::ClosedUnconfirmed, |()| Ended::Closed),
                );
            }
            if ready.parent
                && let Some(end) = self.hear_parent()
            {
                return end;
            }
            if let Err(end) = self.look() {
                return end;
            }
            if ready.command
                && let Ok((stream, _)) = listener.accept()
                && let Some(end) = self.serve(stream)
            {
                return end;
            }
        }
    }

    fn wait(
        &self,
        listener: &UnixListener,
        signals: &UnixStream,
        patience: Duration,
    ) -> io::Result<Ready> {
        let timeout = Timespec::try_from(patience).map_err(|_| io::ErrorKind::InvalidInput)?;
        let mut fds = vec![
            PollFd::new(signals, PollFlags::IN),
            PollFd::new(listener, PollFlags::IN),
            PollFd::from_borrowed_fd(self.raised.as_fd(), PollFlags::IN),
        ];
        if let Some(parent) = &self.parent {
            fds.push(PollFd::new(parent, PollFlags::IN));
        }
        match poll(&mut fds, Some(&timeout)) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(errno) => return Err(errno.into()),
        }
        let ready = |index: usize| fds.get(index).is_some_and(|fd| !fd.revents().is_empty());
        Ok(Ready {
            signal: ready(0),
            command: ready(1),
            parent: ready(3),
        })
    }

    /// Reads what `knock` says: stay, or nothing more.
    fn hear_parent(&mut self) -> Option<End> {
        let mut byte = [0];
        let heard = self.parent.as_mut().map(|parent| parent.read(&mut byte));
        match heard {
            Some(Ok(1)) if byte == [STAY] => {
                self.stays = true;
                // A note that cannot be written costs only what `status` says after our death.
                let _ = Note::of(self.session).write(self.places);
                say(STAYING);
                if self.session.stay == Stay::Background {
                    self.parent = None;
                }
                None
            }
            Some(Err(error)) if error.kind() == io::ErrorKind::Interrupted => None,
            Some(_) if self.stays => Some(End::Over(
                self.close()
                    .map_or_else(|_| Ended::ClosedUnconfirmed, |()| Ended::Closed),
            )),
            Some(_) => Some(End::Unwanted),
            None => None,
        }
    }

    /// Looks whether the tunnel lives.
    fn look(&mut self) -> Result<(), End> {
        match self.raised.state() {
            Ok(state) => {
                if let Some(age) = state.handshake_age
                    && self
                        .shaken
                        .replace(clock::boot().saturating_sub(age))
                        .is_none()
                {
                    say("handshake");
                }
                Ok(())
            }
            Err(error) => {
                say(&format!("failed {error}"));
                Err(End::Over(Ended::Lost(error.to_string())))
            }
        }
    }

    fn serve(&mut self, mut stream: UnixStream) -> Option<End> {
        let word = read_word(&stream)?;
        match word.as_str() {
            STATUS => {
                let line = self.status_line();
                // Whoever asked may be gone.
                let _ = stream.write_all(line.as_bytes());
                None
            }
            CLOSE => {
                let (ended, answer) = match self.close() {
                    Ok(()) => (Ended::Closed, "confirmed".to_owned()),
                    Err(why) => (Ended::ClosedUnconfirmed, format!("unconfirmed {why}")),
                };
                Some(End::Told(stream, ended, answer))
            }
            GIVE_WAY => Some(End::Told(stream, Ended::Replaced, "gone".to_owned())),
            _ => None,
        }
    }

    fn status_line(&mut self) -> String {
        let state = self.raised.state().ok();
        let moving = Moving {
            backend: self.raised.backend().to_string(),
            routes: self
                .raised
                .routes()
                .iter()
                .map(|(address, prefix)| format!("{address}/{prefix}"))
                .collect(),
            left: self.session.deadline.saturating_sub(clock::boot()),
            handshake_age: state
                .and_then(|state| state.handshake_age)
                .or_else(|| self.shaken.map(|at| clock::boot().saturating_sub(at))),
            received: state.map_or(0, |state| state.rx),
            sent: state.map_or(0, |state| state.tx),
        };
        live_line(self.session, &moving) + "\n"
    }

    /// Closes the session at the gateway, from outside (SPEC §13).
    fn close(&self) -> Result<(), String> {
        self.try_close().map_err(|failure| failure.to_string())
    }

    fn try_close(&self) -> Result<(), Failure> {
        let (entry, profile) =
            Store::new(self.places.clone()).choose(Some(&self.session.profile))?;
        let Stage::Active { key } = &profile.stage else {
            return Err(Failure::Refused(
                "the profile is not enrolled any more".to_owned(),
            ));
        };
        let _lock = entry.lock()?;
        let mut memory = entry.memory()?;
        let now = clock::wall();
        let ts = memory.take_ts(now);
        entry.write_memory(&memory)?;
        let keys = DerivedKeys::derive(key, GatewayId::of(&profile.base_key), profile.credential);
        let knock_key = memory.prekey(now).map_or((0, profile.base_key), |prekey| {
            (prekey.kid.get(), prekey.key)
        });
        let request = Request {
            ts,
            same_port: false,
            source: None,
            ask: Ask::Close(self.session.id),
        };
        let knocking = Knocking::new(
            &keys,
            knock_key,
            &request,
            Signer::Session(&self.session.key),
        )?;
        let mut wire = Wire::open(vec![self.session.gateway])?;
        let exchanged = exchange(&mut wire, &knocking, None, &mut Progress::silent())?;
        match exchanged.reply.map(|reply| reply.payload.outcome) {
            Some(Outcome::Closed { .. }) => Ok(()),
            Some(Outcome::Session(_) | Outcome::Refused { .. } | Outcome::Enrolled(_)) => Err(
                Failure::Refused("the gateway answered something else".to_owned()),
            ),
            None => Err(Failure::NoAnswer("the gateway did not answer".to_owned())),
        }
    }

    /// Takes everything down, then tells.
    fn finish(self, end: End) -> Result<(), AgentError> {
        let lowered = self.raised.lower();
        let (ended, told) = match end {
            End::Unwanted => (None, None),
            End::Over(ended) => (Some(ended), None),
            End::Told(stream, ended, answer) => (Some(ended), Some((stream, answer))),
        };
        private_file::remove(&socket_path(self.places, &self.session.profile))?;
        if let Some(ended) = ended {
            let text = match &lowered {
                Ok(()) => ended.text(),
                Err(error) => format!(
                    "{}, and its interface could not be removed: {error}",
                    ended.text()
                ),
            };
            if self.stays {
                let note = Note {
                    ended: Some((clock::wall(), ended)),
                    ..Note::of(self.session)
                };
                note.write(self.places)?;
            }
            say(&format!("ended {text}"));
        }
        if let Some((mut stream, answer)) = told {
            let answer = match lowered {
                Ok(()) => answer,
                Err(error) => format!("{answer} {error}"),
            };
            let _ = stream.write_all(format!("{answer}\n").as_bytes());
        }
        Ok(())
    }
}

struct Ready {
    signal: bool,
    command: bool,
    parent: bool,
}

fn read_word(stream: &UnixStream) -> Option<String> {
    stream.set_read_timeout(Some(WORD)).ok()?;
    stream.set_write_timeout(Some(WORD)).ok()?;
    let mut line = String::new();
    BufReader::new(stream).take(64).read_line(&mut line).ok()?;
    Some(line.trim_end().to_owned())
}
