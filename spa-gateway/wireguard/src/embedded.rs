//! The embedded WireGuard: a `spa-tunnel` process with our TUN device, spoken to over a socket pair.
//!
//! Invariant: the TUN device is held by that process alone, so it is gone when the process is.

use std::collections::VecDeque;
use std::io::{self, IoSlice};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::net::{
    AddressFamily, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage, SendFlags, Shutdown,
    SocketFlags, SocketType,
};
use rustix::process::{Gid, Uid};
use rustix::thread::{
    CapabilitySet, remove_capability_from_bounding_set, set_thread_groups, set_thread_res_gid,
    set_thread_res_uid,
};

use crate::WireguardError;
use crate::link::is;
use crate::message::{ANSWER_LEN, Answer, MOST_ANSWERS, Request, What};
use crate::plan::{KEY_LEN, Peer, PeerState, Plan, Psk};
use crate::tun;

/// How long an answer may take. Measured: below 1 ms; a machine that swaps may take its time.
const PATIENCE: Duration = Duration::from_secs(5);

/// How many requests are on their way at once: some 1.5 kB each with the kernel's bookkeeping, a quarter of what a socket holds.
const ON_THEIR_WAY: usize = 32;

/// A running `spa-tunnel`.
#[derive(Debug)]
pub struct Tunnel {
    name: String,
    socket: OwnedFd,
    child: Child,
    ended: Option<ExitStatus>,
    /// It once left a request unanswered or answered nonsense, so answers no longer match requests.
    silent: bool,
    /// What it answered beyond the answer that was waited for: a list comes many at a time.
    answers: VecDeque<Answer>,
}

impl Tunnel {
    /// Makes the TUN device, starts the process and waits until it listens.
    pub fn start(plan: &Plan<'_>) -> Result<Self, WireguardError> {
        // Before the device: without the program a router's owner needs another module than `tun`.
        if !plan.tunnel_program.exists() {
            return Err(WireguardError::NoTunnelProgram {
                program: plan.tunnel_program.into(),
            });
        }
        let device = tun::make(plan.name).map_err(|source| no_tun(plan.name, source))?;
        let (socket, theirs) = rustix::net::socketpair(
            AddressFamily::UNIX,
            SocketType::SEQPACKET,
            SocketFlags::CLOEXEC,
            None,
        )
        .map_err(|errno| not_started(plan, errno.into()))?;
        let child = command(plan, theirs)
            .spawn()
            .map_err(|source| not_started(plan, source))?;
        let mut tunnel = Self {
            name: plan.name.to_owned(),
            socket,
            child,
            ended: None,
            silent: false,
            answers: VecDeque::new(),
        };
        tunnel.hand_over(plan, device)?;
        match tunnel.answer()? {
            Answer::Ready => Ok(tunnel),
            Answer::Failed {
                what: What::Port,
                errno,
            } => Err(port_refused(plan.listen_port, errno)),
            other => Err(other.into()),
        }
    }

    /// Hands the private key over.
    pub fn set_private_key(&mut self, key: &[u8; KEY_LEN]) -> Result<(), WireguardError> {
        self.perform(&Request::Key((*key).into()))
    }

    /// Adds or replaces a peer.
    pub fn put_peer(&mut self, peer: &Peer<'_>) -> Result<(), WireguardError> {
        self.perform(&put(peer))
    }

    /// Adds or replaces many that pass `check`: some are on their way at once, so that the process is woken once for them.
    pub fn put_peers(
        &mut self,
        peers: &[Peer<'_>],
        check: fn(&Peer<'_>) -> Result<(), WireguardError>,
    ) -> Vec<Result<(), WireguardError>> {
        let mut outcomes = Vec::with_capacity(peers.len());
        for some in peers.chunks(ON_THEIR_WAY) {
            let sent: Vec<_> = some
                .iter()
                .map(|peer| check(peer).and_then(|()| self.send(&put(peer))))
                .collect();
            for sent in sent {
                outcomes.push(sent.and_then(|()| self.done()));
            }
        }
        outcomes
    }

    /// Gives a peer that is there another preshared key for its next handshake.
    pub fn set_psk(&mut self, key: &[u8; KEY_LEN], psk: &Psk) -> Result<(), WireguardError> {
        self.perform(&Request::Psk(*key, Psk::from(*psk.expose())))
    }

    /// Removes a peer, there or not.
    pub fn remove_peer(&mut self, key: &[u8; KEY_LEN]) -> Result<(), WireguardError> {
        self.perform(&Request::Remove(*key))
    }

    /// Asks for one peer.
    pub fn peer(&mut self, key: &[u8; KEY_LEN]) -> Result<Option<PeerState>, WireguardError> {
        self.send(&Request::Read(*key))?;
        match self.answer()? {
            Answer::Peer(peer) => Ok(Some(peer)),
            Answer::End => Ok(None),
            other => Err(other.into()),
        }
    }

    /// Asks for all peers, ordered by key.
    pub fn peers(&mut self) -> Result<Vec<PeerState>, WireguardError> {
        self.send(&Request::List)?;
        let mut peers = Vec::new();
        loop {
            match self.answer()? {
                Answer::Peer(peer) => peers.push(peer),
                Answer::End => break,
                other => return Err(other.into()),
            }
        }
        peers.sort_unstable_by_key(|peer: &PeerState| peer.key);
        Ok(peers)
    }

    /// Tells whether the process still runs.
    pub fn check(&mut self) -> Result<(), WireguardError> {
        match self.wait_for(PollFlags::empty(), Duration::ZERO)? {
            Seen::Nothing | Seen::Readable => Ok(()),
            Seen::HungUp => Err(self.ended()),
        }
    }

    /// Ends the process and waits until it is gone.
    pub fn end(mut self) -> Result<(), WireguardError> {
        self.finish()
    }

    fn finish(&mut self) -> Result<(), WireguardError> {
        // The tunnel ends at the end of its input.
        let _ = rustix::net::shutdown(&self.socket, Shutdown::Write);
        self.reap();
        if self.ended.is_some() {
            return Ok(());
        }
        // It runs as another user: only an owner with CAP_KILL gets any further here.
        let _ = self.child.kill();
        Err(WireguardError::TunnelSilent)
    }

    fn hand_over(&mut self, plan: &Plan<'_>, device: OwnedFd) -> Result<(), WireguardError> {
        let mtu = u16::try_from(plan.mtu).unwrap_or(u16::MAX);
        let bytes = Request::Start {
            port: plan.listen_port,
            mtu,
        }
        .encode()?;
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut beside = SendAncillaryBuffer::new(&mut space);
        let device = [device.as_fd()];
        beside.push(SendAncillaryMessage::ScmRights(&device));
        match rustix::net::sendmsg(
            &self.socket,
            &[IoSlice::new(bytes.as_slice())],
            &mut beside,
            SendFlags::NOSIGNAL,
        ) {
            Ok(_) => Ok(()),
            Err(_) => Err(self.ended()),
        }
    }

    fn perform(&mut self, request: &Request<'_>) -> Result<(), WireguardError> {
        self.send(request)?;
        self.done()
    }

    fn done(&mut self) -> Result<(), WireguardError> {
        match self.answer()? {
            Answer::Done => Ok(()),
            other => Err(other.into()),
        }
    }

    fn send(&mut self, request: &Request<'_>) -> Result<(), WireguardError> {
        if self.silent {
            return Err(WireguardError::TunnelSilent);
        }
        // Whatever was asked for before has had its answers: this is one too many.
        if !self.answers.is_empty() {
            return Err(self.nonsense());
        }
        let bytes = request.encode()?;
        // At most ON_THEIR_WAY are, so there is always room.
        match rustix::net::send(
            &self.socket,
            bytes.as_slice(),
            SendFlags::NOSIGNAL | SendFlags::DONTWAIT,
        ) {
            Ok(_) => Ok(()),
            Err(_) => Err(self.ended()),
        }
    }

    fn answer(&mut self) -> Result<Answer, WireguardError> {
        if self.answers.is_empty() {
            self.receive()?;
        }
        self.answers.pop_front().ok_or(WireguardError::Message)
    }

    /// Waits for a message and takes the answers in it.
    fn receive(&mut self) -> Result<(), WireguardError> {
        if self.silent {
            return Err(WireguardError::TunnelSilent);
        }
        match self.wait_for(PollFlags::IN, PATIENCE)? {
            Seen::Readable => {}
            Seen::HungUp => return Err(self.ended()),
            Seen::Nothing => {
                self.silent = true;
                return Err(WireguardError::TunnelSilent);
            }
        }
        // One byte more than a message, so that a longer one shows.
        let mut bytes = [0; MOST_ANSWERS * ANSWER_LEN + 1];
        match rustix::net::recv(&self.socket, &mut bytes, RecvFlags::DONTWAIT) {
            Ok((0, _)) | Err(_) => Err(self.ended()),
            Ok((len, _)) => {
                for bytes in bytes.get(..len).unwrap_or_default().chunks(ANSWER_LEN) {
                    let Some(answer) = Answer::decode(bytes) else {
                        return Err(self.nonsense());
                    };
                    self.answers.push_back(answer);
                }
                Ok(())
            }
        }
    }

    fn wait_for(&self, flags: PollFlags, patience: Duration) -> Result<Seen, WireguardError> {
        let deadline = Instant::now() + patience;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            // Its nanoseconds are 32 bits wide on one processor and 64 on another.
            let timeout = Timespec::try_from(left).expect("a wait of seconds");
            let mut fds = [PollFd::new(&self.socket, flags)];
            match poll(&mut fds, Some(&timeout)) {
                Err(Errno::INTR) => continue,
                Err(errno) => {
                    return Err(WireguardError::Tunnel {
                        doing: "while waiting for it",
                        source: errno.into(),
                    });
                }
                Ok(_) => {}
            }
            let seen = fds.first().map_or(PollFlags::empty(), PollFd::revents);
            // An answer sent before the end is still an answer.
            return Ok(
                match (
                    seen.contains(PollFlags::IN),
                    seen.intersects(PollFlags::HUP | PollFlags::ERR),
                ) {
                    (true, _) => Seen::Readable,
                    (false, true) => Seen::HungUp,
                    (false, false) => Seen::Nothing,
                },
            );
        }
    }

    /// The error for answers after which nobody knows which is to what.
    fn nonsense(&mut self) -> WireguardError {
        self.answers.clear();
        self.silent = true;
        WireguardError::Message
    }

    /// The error for a tunnel whose end of the pair is closed.
    fn ended(&mut self) -> WireguardError {
        self.reap();
        WireguardError::TunnelEnded {
            name: self.name.clone(),
            status: self.ended,
        }
    }

    /// Takes the exit status once the process has closed its end, which it does only by ending.
    fn reap(&mut self) {
        if self.ended.is_none()
            && matches!(
                self.wait_for(PollFlags::empty(), PATIENCE),
                Ok(Seen::HungUp)
            )
        {
            self.ended = self.child.wait().ok();
        }
    }
}

impl AsFd for Tunnel {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

impl Drop for Tunnel {
    fn drop(&mut self) {
        // Nobody is left to be told.
        let _ = self.finish();
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Seen {
    Nothing,
    Readable,
    HungUp,
}

/// The request; the preshared key is in one more place until it is sent.
fn put<'a>(peer: &Peer<'a>) -> Request<'a> {
    Request::Put(Peer {
        psk: Psk::from(*peer.psk.expose()),
        ..*peer
    })
}

fn command(plan: &Plan<'_>, socket: OwnedFd) -> Command {
    let mut command = Command::new(plan.tunnel_program);
    command
        .env_clear()
        .current_dir("/")
        .stdin(Stdio::from(socket))
        .stdout(Stdio::null());
    // A Ctrl-C is for the owner, who then ends the tunnel in order.
    command.process_group(0);
    spa_failpoint::hand_on(&mut command);
    let user = (
        Uid::from_raw(plan.tunnel_uid),
        Gid::from_raw(plan.tunnel_gid),
    );
    // Changing to the user one is already would need privileges for nothing.
    if (rustix::process::geteuid(), rustix::process::getegid()) != user {
        // SAFETY: between fork and exec, the closure makes system calls and nothing else: no memory, no lock.
        unsafe {
            command.pre_exec(move || become_user(user));
        }
    }
    command
}

/// Leaves root with every way back: what a program that is executed may have (the bounding set) goes too, which takes
/// a capability that is gone with the user.
fn become_user((uid, gid): (Uid, Gid)) -> io::Result<()> {
    for number in 0..u64::BITS {
        let capability = CapabilitySet::from_bits_retain(1 << number);
        match remove_capability_from_bounding_set(capability) {
            Ok(()) => {}
            // One the kernel does not have.
            Err(Errno::INVAL) => break,
            Err(errno) => return Err(errno.into()),
        }
    }
    set_thread_groups(&[])?;
    set_thread_res_gid(gid, gid, gid)?;
    set_thread_res_uid(uid, uid, uid)?;
    Ok(())
}

fn not_started(plan: &Plan<'_>, source: io::Error) -> WireguardError {
    WireguardError::Start {
        program: plan.tunnel_program.into(),
        uid: plan.tunnel_uid,
        source,
    }
}

fn no_tun(name: &str, source: io::Error) -> WireguardError {
    match source.raw_os_error().map(Errno::from_raw_os_error) {
        Some(Errno::BUSY) => WireguardError::Occupied {
            name: name.to_owned(),
            what: "in use".to_owned(),
        },
        Some(Errno::PERM) => WireguardError::NotPermitted {
            doing: "making a TUN device",
            name: name.to_owned(),
        },
        _ => WireguardError::NoTun { source },
    }
}

fn port_refused(port: u16, errno: i32) -> WireguardError {
    let source = io::Error::from_raw_os_error(errno);
    if is(&source, Errno::ADDRINUSE) {
        WireguardError::PortInUse { port }
    } else if is(&source, Errno::ACCESS) {
        WireguardError::PortReserved { port }
    } else {
        Answer::Failed {
            what: What::Port,
            errno,
        }
        .into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A tunnel whose process answers what the test says.
    fn tunnel() -> (Tunnel, OwnedFd) {
        let (socket, theirs) = rustix::net::socketpair(
            AddressFamily::UNIX,
            SocketType::SEQPACKET,
            SocketFlags::CLOEXEC,
            None,
        )
        .expect("a pair");
        let tunnel = Tunnel {
            name: "spa0".to_owned(),
            socket,
            child: Command::new("true").spawn().expect("true runs"),
            ended: None,
            silent: false,
            answers: VecDeque::new(),
        };
        (tunnel, theirs)
    }

    fn say(socket: &OwnedFd, bytes: &[u8]) {
        let sent = rustix::net::send(socket, bytes, SendFlags::empty());
        assert_eq!(sent.expect("sent"), bytes.len());
    }

    #[test]
    fn after_bytes_that_are_no_answer_nothing_is_believed() {
        let (mut tunnel, theirs) = tunnel();
        let mut bytes = Answer::Done.encode().to_vec();
        bytes.extend([0xFF; ANSWER_LEN]);
        say(&theirs, &bytes);
        let asked = tunnel.remove_peer(&[1; KEY_LEN]);
        assert!(matches!(asked, Err(WireguardError::Message)), "{asked:?}");
        say(&theirs, &Answer::Done.encode());
        let asked = tunnel.remove_peer(&[1; KEY_LEN]);
        assert!(
            matches!(asked, Err(WireguardError::TunnelSilent)),
            "{asked:?}"
        );
    }

    #[test]
    fn an_answer_too_many_answers_nothing() {
        let (mut tunnel, theirs) = tunnel();
        let done = Answer::Done.encode();
        say(&theirs, &[&done[..], &done[..]].concat());
        assert!(tunnel.remove_peer(&[1; KEY_LEN]).is_ok());
        for expected in ["Message", "TunnelSilent"] {
            let asked = tunnel.remove_peer(&[1; KEY_LEN]);
            assert!(format!("{asked:?}").contains(expected), "{asked:?}");
        }
    }
}
