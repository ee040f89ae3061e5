//! How an agent begins: the session comes through a pipe, the tunnel is raised, and `hold.rs` has it from there.

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::AsFd;
use std::os::unix::net::UnixListener;

use rustix::process::{Resource, Rlimit, setrlimit, setsid};
use zeroize::Zeroizing;

use crate::agent::hold::Holder;
use crate::agent::{AgentError, ending_signals, socket_path};
use crate::places::Places;
use crate::private_file;
use crate::session::Session;
use crate::tunnel::Raised;

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
    let mut holder = Holder::new(places, &session, raised, input)?;
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
pub(super) fn say(line: &str) {
    let mut out = io::stdout().lock();
    let _ = out
        .write_all(format!("{}\n", line.replace('\n', " ")).as_bytes())
        .and_then(|()| out.flush());
}
