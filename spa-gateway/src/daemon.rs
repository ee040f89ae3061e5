//! The daemon: carries events to the core and effects from it, in order, and decides nothing.
//!
//! One thread owns the core, the store, the enforcer's link and the reply sockets. Others
//! only hand events on: capture threads, the control thread, and one that waits for the
//! enforcer's end. Invariant: an order or a reply that depends on a record leaves after
//! the record is on disk; the core gives it out no earlier.

mod calls;
mod effects;
mod exceptions;
mod listings;
mod pending;
mod policy;
mod requests;
mod startup;

use std::collections::BTreeMap;
use std::process::ExitStatus;
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, TrySendError, sync_channel};
use std::sync::{Arc, Condvar, Mutex};
use std::time::{Duration, Instant};

use spa_gateway_core::{
    AuditKind, ClockTrust, Datagram, EffectId, Entropy, Gateway, Moment, Now, Purpose, Traffic,
};
use spa_proto::FRESHNESS;
use tracing::{debug, error, info, warn};

use crate::access;
use crate::audit::AuditLine;
use crate::capture::{self, Captured, Dropped, KernelQueue, KnownTags};
use crate::channel::{self, Called};
use crate::clock::{self, Verdict};
use crate::config::Trust;
use crate::control::{self, Message, Signalled};
use crate::enforcer_link::{EnforcerLink, LinkError};
use crate::network;
use crate::reply::ReplySockets;
use crate::store::{Freshness, Store};
use calls::Calls;
use pending::Pending;
use policy::{Author, PolicyWatch};

pub use startup::{StartError, run};

/// How many events wait for the core at most.
const INTAKE: usize = 256;
/// How many of them are knocks: the rest is room for administrators. More knocks wait where they
/// cost nothing, in the kernel's queue of the capture sockets, which holds some thousands.
const KNOCKS: usize = INTAKE - 32;
/// How many events are taken in before effects are performed.
const EVENTS_AT_ONCE: usize = 256;
/// How many knocks are opened before their records are committed: some 5 ms of work,
/// about what the commit costs.
const WORK_AT_ONCE: usize = 32;
/// How often to look for the answers that come late, while some are to come.
const LATE_LOOK: Duration = Duration::from_micros(250);
/// How often the clock is judged and our addresses are read again.
const LOOK_AROUND: Duration = Duration::from_secs(30);
/// How long audit lines wait for a commit to go with.
const AUDIT_WAITS: Duration = Duration::from_millis(500);

/// How long the enforcer may take to end behind us; the service manager's own limit is longer.
const ENFORCER_ENDS: Duration = Duration::from_secs(5);

/// Something that happened, on its way to the core.
#[derive(Debug)]
#[expect(
    clippy::large_enum_variant,
    reason = "knocks are nearly all of the events, and none of them is to allocate"
)]
enum Event {
    /// A knock-sized datagram.
    Knock(Captured),
    /// An administrator or a signal.
    Message(Message),
    /// The enforcer ended.
    EnforcerEnded(ExitStatus),
    /// Somebody set the wall clock.
    ClockSet,
    /// A session called from inside its tunnel.
    Called(Called),
    /// The kernel told of connections inside the tunnels.
    Traffic(Vec<Traffic>),
}

/// Why the daemon stops. Its text is one line.
#[derive(Debug, thiserror::Error)]
pub enum DaemonError {
    /// The enforcer ended.
    #[error(
        "the enforcer ended ({0}), so the gateway stops; what is open lapses by kernel timeouts, start the gateway again"
    )]
    EnforcerEnded(ExitStatus),
    /// The enforcer cannot be relied on.
    #[error(
        "{0}, so the gateway stops; what is open lapses by kernel timeouts, start the gateway again"
    )]
    Enforcer(#[from] LinkError),
}

/// What does not change while the daemon runs, for `status`.
#[derive(Debug)]
struct Facts {
    public: crate::config::HostPort,
    interfaces: Vec<String>,
    port: u16,
    wireguard_interface: String,
    wireguard_port: u16,
    wireguard: &'static str,
    since: u64,
    keep_open: Vec<String>,
}

/// The clock as it was last judged.
#[derive(Debug)]
struct ClockWatch {
    trust: Trust,
    has_battery_clock: bool,
    verdict: Option<Verdict>,
    /// When both clocks were last looked at.
    seen: Now,
}

impl ClockWatch {
    /// How it is kept.
    fn kept(&self) -> Verdict {
        clock::judge(self.trust, self.has_battery_clock)
    }

    /// Whether somebody set it since it was last looked at.
    fn was_set(&self, now: Now) -> bool {
        let went = now.mono.since(self.seen.mono);
        now.wall.distance(self.seen.wall.saturating_add(went)) > FRESHNESS
    }
}

struct Daemon {
    gateway: Gateway,
    store: Store,
    link: EnforcerLink,
    replies: ReplySockets,
    entropy: KernelEntropy,
    events: Receiver<Event>,
    /// What knocks may still come in.
    room: Arc<Room>,
    dropped: Arc<Dropped>,
    /// The queues of the capture sockets, to ask what they lost.
    queues: Vec<KernelQueue>,
    /// The tags of which packets are looked at.
    known_tags: KnownTags,
    /// Effects whose orders are answered late.
    late: BTreeMap<u64, EffectId>,
    pending: Pending,
    calls: Calls,
    policy: PolicyWatch,
    clock: ClockWatch,
    facts: Facts,
    look_around: Moment,
    write_audit: Option<Moment>,
    stopping: bool,
}

impl Daemon {
    /// Runs until SIGTERM, or until the enforcer is gone.
    fn run(mut self) -> Result<(), DaemonError> {
        let outcome = self.go_on();
        if let Err(error) = &outcome {
            let mut line = AuditLine::new(clock::now().wall.as_millis(), AuditKind::GatewayStopped);
            line.note = Some(error.to_string());
            info!(target: "audit", "{}", line.to_json());
            self.store.append(line);
        }
        self.end();
        if outcome.is_ok() {
            self.wait_for_enforcer();
        }
        outcome
    }

    /// Closes our end of the orders and waits for the enforcer's end, so that nothing of ours runs once we are gone.
    fn wait_for_enforcer(self) {
        let Self { link, events, .. } = self;
        drop(link);
        let until = Instant::now() + ENFORCER_ENDS;
        loop {
            match events.recv_timeout(until.saturating_duration_since(Instant::now())) {
                Ok(Event::EnforcerEnded(_)) | Err(RecvTimeoutError::Disconnected) => return,
                Ok(_) => {}
                Err(RecvTimeoutError::Timeout) => {
                    warn!("the enforcer has not ended yet");
                    return;
                }
            }
        }
    }

    fn go_on(&mut self) -> Result<(), DaemonError> {
        self.look_around(clock::now());
        self.turn()?;
        while !self.stopping {
            match self.events.recv_timeout(self.wait()) {
                Ok(event) => self.take(event)?,
                Err(RecvTimeoutError::Timeout) => {}
                // The senders live in threads that end with the process.
                Err(RecvTimeoutError::Disconnected) => break,
            }
            for _ in 1..EVENTS_AT_ONCE {
                let Ok(event) = self.events.try_recv() else {
                    break;
                };
                self.take(event)?;
            }
            self.tick();
            self.hear_late()?;
            self.turn()?;
        }
        Ok(())
    }

    /// How long nothing happens by itself.
    fn wait(&self) -> Duration {
        let now = clock::now().mono;
        let timers = [
            self.gateway.poll_timeout(),
            Some(self.look_around),
            self.write_audit,
        ];
        let next = timers
            .into_iter()
            .flatten()
            .min()
            .unwrap_or(self.look_around);
        let pause = next.since(now);
        if self.link.awaits_late() {
            pause.min(LATE_LOOK)
        } else {
            pause
        }
    }

    fn take(&mut self, event: Event) -> Result<(), DaemonError> {
        match event {
            Event::Knock(captured) => {
                self.room.give_back();
                self.knock(&captured);
            }
            Event::Message(Message::Asked(asked)) => self.answer(asked)?,
            Event::Message(Message::Signalled(Signalled::Stop)) => self.stopping = true,
            Event::Message(Message::Signalled(Signalled::Reload)) => {
                // Its outcome is logged either way; nobody waits for an answer.
                let _ = self.reload_policy(&Author::signal())?;
            }
            Event::Called(called) => self.call(called),
            Event::Traffic(seen) => self.gateway.handle_traffic(&seen, clock::now()),
            Event::ClockSet => {
                debug!("the clock was set");
                self.look_around(clock::now());
            }
            Event::EnforcerEnded(status) => return Err(DaemonError::EnforcerEnded(status)),
        }
        Ok(())
    }

    fn knock(&mut self, captured: &Captured) {
        let datagram = Datagram {
            payload: &captured.payload,
            source: captured.source,
            destination: captured.destination,
            on_loopback: captured.on_loopback,
            // Capture drops fragments; the core's own check stays for other daemons.
            fragment: false,
        };
        match self.gateway.handle_datagram(datagram, clock::now()) {
            Ok(()) => tracing::trace!("knock queued"),
            Err(refusal) => debug!(
                step = refusal.step(),
                reason = refusal.name(),
                "knock refused"
            ),
        }
    }

    /// Everything that is due by the clock.
    fn tick(&mut self) {
        let now = clock::now();
        let is_due = |at: Moment| at <= now.mono;
        if self.gateway.poll_timeout().is_some_and(is_due) {
            self.gateway.handle_timeout(now, &mut self.entropy);
        }
        // Where the kernel does not say that the clock was set, whatever happens next does.
        if is_due(self.look_around) || self.clock.was_set(now) {
            self.look_around(now);
        }
        if self.write_audit.is_some_and(is_due) {
            self.write_audit = None;
            if let Err(error) = self.store.write_waiting() {
                warn!(%error, "audit lines not stored yet");
            }
        }
        self.pending.forget_the_gone();
    }

    /// Works and performs until the core has nothing more to do now.
    fn turn(&mut self) -> Result<(), DaemonError> {
        loop {
            let worked = open_queued(&mut self.gateway, &mut self.entropy);
            let performed = self.perform()?;
            if !worked && !performed {
                return Ok(());
            }
        }
    }

    /// Judges the clock and reads our own addresses.
    fn look_around(&mut self, now: Now) {
        self.look_around = now.mono.after(LOOK_AROUND);
        self.gateway.handle_addresses(network::own_addresses());
        self.keep_policy();
        self.clock.seen = now;
        let is_current = self.store.freshness() == Freshness::Current;
        let trust = if self.clock.kept().is_trusted() && is_current {
            ClockTrust::Trusted
        } else {
            ClockTrust::Untrusted
        };
        self.gateway.handle_clock(trust, now);
        let verdict = self.verdict(now);
        if self.clock.verdict.replace(verdict) != Some(verdict) {
            if verdict.is_trusted() {
                info!("clock {verdict}");
            } else {
                warn!("clock {verdict}");
            }
        }
    }

    /// Judges the clock by how it is kept and by what it reads.
    fn verdict(&self, now: Now) -> Verdict {
        let kept = self.clock.kept();
        match self.gateway.clock_step(now) {
            _ if !kept.is_trusted() => kept,
            Some(step) => Verdict::Stepped(step),
            None if now.wall < self.gateway.clock_floor() => Verdict::BehindFloor,
            None => kept,
        }
    }

    /// Leaves everything on disk. Sessions go on: the next daemon takes them over.
    fn end(&mut self) {
        self.gateway.handle_stop(clock::now());
        self.keep_policy();
        if let Err(error) = self
            .commit_last()
            .and_then(|()| self.store.sync_generation())
        {
            error!(%error, "not everything is on disk");
        }
        info!(
            sessions = self.gateway.sessions().count(),
            "ended; what is open stays until its deadline"
        );
    }
}

/// Opens queued knocks, some at once, so that their records share a commit. Tells whether there was any.
fn open_queued(gateway: &mut Gateway, entropy: &mut KernelEntropy) -> bool {
    for done in 0..WORK_AT_ONCE {
        match gateway.handle_work(clock::now(), entropy) {
            None => return done > 0,
            Some(Ok(())) => {}
            Some(Err(refusal)) => {
                debug!(
                    step = refusal.step(),
                    reason = refusal.name(),
                    "knock refused"
                );
            }
        }
    }
    true
}

/// The kernel's random bytes.
#[derive(Clone, Copy, Debug)]
struct KernelEntropy;

impl Entropy for KernelEntropy {
    fn fill(&mut self, _purpose: Purpose, out: &mut [u8]) {
        getrandom::fill(out).expect("the kernel gave random bytes when the store was opened");
    }
}

/// The sending end of the events, cut to what each thread may send.
#[derive(Clone, Debug)]
struct Intake {
    sender: SyncSender<Event>,
    room: Arc<Room>,
}

/// How many knocks may still wait in the intake.
#[derive(Debug)]
struct Room {
    left: Mutex<usize>,
    more: Condvar,
}

impl Room {
    fn new() -> Arc<Self> {
        let (left, more) = (Mutex::new(KNOCKS), Condvar::new());
        Arc::new(Self { left, more })
    }

    /// Waits for a place and takes it.
    fn take(&self) {
        let left = self.left.lock().expect("nobody panics with it");
        let left = self.more.wait_while(left, |left| *left == 0);
        *left.expect("nobody panics with it") -= 1;
    }

    fn give_back(&self) {
        *self.left.lock().expect("nobody panics with it") += 1;
        self.more.notify_one();
    }
}

impl Intake {
    fn new() -> (Self, Receiver<Event>) {
        let (sender, receiver) = sync_channel(INTAKE);
        let room = Room::new();
        (Self { sender, room }, receiver)
    }

    /// Waits for room; what comes in the meantime waits in the kernel.
    fn knock(&self, captured: Captured) -> capture::Handed {
        self.room.take();
        match self.sender.send(Event::Knock(captured)) {
            Ok(()) => capture::Handed::Taken,
            Err(_) => capture::Handed::Closed,
        }
    }

    fn message(&self, message: Message) -> control::Handed {
        match self.sender.try_send(Event::Message(message)) {
            Ok(()) => control::Handed::Taken,
            Err(TrySendError::Full(Event::Message(message))) => control::Handed::Full(message),
            Err(TrySendError::Full(_) | TrySendError::Disconnected(_)) => control::Handed::Closed,
        }
    }

    fn called(&self, called: Called) -> channel::Handed {
        match self.sender.try_send(Event::Called(called)) {
            Ok(()) => channel::Handed::Taken,
            Err(_) => channel::Handed::Refused,
        }
    }

    /// Waits for room.
    fn traffic(&self, seen: Vec<Traffic>) -> access::Handed {
        match self.sender.send(Event::Traffic(seen)) {
            Ok(()) => access::Handed::Taken,
            Err(_) => access::Handed::Closed,
        }
    }

    /// Tells whether anybody still listens.
    fn clock_set(&self) -> bool {
        self.sender.send(Event::ClockSet).is_ok()
    }

    fn enforcer_ended(&self, status: ExitStatus) {
        // Nobody to tell: the daemon is ending itself.
        let _ = self.sender.send(Event::EnforcerEnded(status));
    }
}

#[cfg(test)]
mod tests;
