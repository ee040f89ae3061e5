//! One session, held: whatever happens to its tunnel, at its gateway, on its clock, until one of its ends comes.
//!
//! It alone touches the tunnel. What the threads of `talk.rs` learn from the gateway comes in as words, what commands
//! want over the socket, and the clock is looked at every second.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::IpAddr;
use std::os::fd::AsFd;
use std::os::unix::net::{UnixListener, UnixStream};
use std::sync::mpsc::Sender;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use spa_proto::WallTime;
use spa_proto::channel::{self, Event, Nothing};

use crate::agent::child::{NOT_REKEYED, REKEYED, STAY, STAYING};
use crate::agent::link::{CALL, CLOSE, GIVE_WAY, Moving, STATUS, answer_call, live_line};
use crate::agent::news::News;
use crate::agent::note::{Ended, Note};
use crate::agent::outside::Outside;
use crate::agent::scope;
use crate::agent::start::say;
use crate::agent::talk::{self, Ear, Known, Mouth, Task, Word};
use crate::agent::terms::{Keys, Terms, warns};
use crate::agent::{AgentError, socket_path};
use crate::clock;
use crate::control::Client;
use crate::places::Places;
use crate::private_file;
use crate::say::{length, printable};
use crate::session::{Session, Stay};
use crate::store::Store;
use crate::tunnel::Raised;
use crate::wire::source_towards;

/// How often the handshake is looked for until it is there; neither WireGuard announces it.
const HANDSHAKE_LOOK: Duration = Duration::from_millis(2);

/// How often the tunnel and the clock are looked at afterwards.
const LOOK: Duration = Duration::from_secs(1);

/// A turn of the loop that took longer than this was a sleep of the whole machine.
const SLEPT: Duration = Duration::from_secs(10);

/// How long a command may take to say its word.
const WORD: Duration = Duration::from_millis(500);

/// A longer word of a command is none of ours: a password change is the longest.
const LONGEST_WORD: u64 = 8 * 1024;

/// A ROAM that came to nothing is tried again after this.
const ROAM_AGAIN: Duration = Duration::from_secs(15);

/// How long the knock that replaces a session may take to say so here.
const GIVING_WAY: Duration = Duration::from_secs(5);

/// One session, being held.
pub(super) struct Holder<'a> {
    places: &'a Places,
    session: &'a Session,
    raised: Raised,
    /// `knock`'s end of the pipe, while its end would be ours.
    parent: Option<File>,
    stays: bool,
    /// When, by the clock of the boot, the last handshake was. WireGuard itself forgets it with the key it made.
    shaken: Option<Duration>,
    mouth: Mouth,
    ear: Ear,
    /// The control channel, if the gateway has one.
    client: Option<Client>,
    /// To the thread that asks, once it runs.
    tasks: Option<Sender<Task>>,
    terms: Terms,
    news: News,
    /// When the loop last came round.
    turned: Duration,
    /// Where our packets to the gateway leave from, as the gateway knows it.
    address: Option<IpAddr>,
    roaming: Roaming,
    /// When another session took our place, and no knock said so here yet.
    gives_way: Option<Duration>,
}

/// Whether a ROAM is under way.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Roaming {
    No,
    Now,
    /// It came to nothing; not before this time again.
    NotBefore(Duration),
}

/// Why the holding is over.
pub(super) enum End {
    /// `knock` went on without us: nothing was told to anyone.
    Unwanted,
    Over(Ended),
    /// A command waits for the word that everything is down.
    Told(UnixStream, Ended, String),
}

impl<'a> Holder<'a> {
    /// Takes a raised tunnel over; `parent` is `knock`'s end of the pipe.
    pub(super) fn new(
        places: &'a Places,
        session: &'a Session,
        raised: Raised,
        parent: File,
    ) -> Result<Self, AgentError> {
        let (mouth, ear) = talk::way().map_err(AgentError::Start)?;
        let tunnel = &session.tunnel;
        let client = tunnel
            .gateway
            .filter(|_| tunnel.control_port != 0)
            .map(|gateway| Client::new(gateway, tunnel.control_port, &session.key));
        Ok(Self {
            places,
            session,
            raised,
            parent: Some(parent),
            stays: false,
            shaken: None,
            mouth,
            ear,
            client,
            tasks: None,
            terms: Terms::of(session),
            news: News::of(&session.profile),
            turned: clock::boot(),
            address: source_towards(session.gateway).ok(),
            roaming: Roaming::No,
            gives_way: None,
        })
    }

    /// Holds the session until one of its ends comes.
    pub(super) fn run(&mut self, listener: &UnixListener, signals: &UnixStream) -> End {
        loop {
            let now = clock::boot();
            let left = self.terms.deadline.saturating_sub(now);
            if left.is_zero() {
                return End::Over(Ended::Expired);
            }
            if self.gives_way.is_some_and(|until| now >= until) {
                return End::Over(Ended::Replaced);
            }
            self.turn(now, left);
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
                return End::Over(self.closed());
            }
            if ready.parent
                && let Some(end) = self.hear_parent()
            {
                return end;
            }
            if let Err(end) = self.look() {
                return end;
            }
            while let Some(word) = self.ear.next() {
                if let Some(end) = self.hear(word) {
                    return end;
                }
            }
            if ready.command
                && let Ok((stream, _)) = listener.accept()
                && let Some(end) = self.serve(stream)
            {
                return end;
            }
        }
    }

    /// What the clock and the routes bring.
    fn turn(&mut self, now: Duration, left: Duration) {
        let turn = now.saturating_sub(self.turned);
        self.turned = now;
        if turn > SLEPT {
            // WireGuard's timers slept too: without a packet of ours nothing would begin.
            self.raised.prod(self.session);
            self.ask(Task::Report);
        }
        if warns(left + turn, left) {
            self.news
                .tell(&format!("the session ends in {}", length(left)));
        }
        if self.shaken.is_none() {
            return;
        }
        if let Ok(address) = source_towards(self.session.gateway)
            && self.address != Some(address)
        {
            self.roam(now, address);
        }
    }

    /// Tells the gateway that we are somewhere else, unless that is under way.
    fn roam(&mut self, now: Duration, address: IpAddr) {
        match self.roaming {
            Roaming::Now => return,
            Roaming::NotBefore(then) if now < then => return,
            Roaming::NotBefore(_) | Roaming::No => {}
        }
        let outside = Outside::of(self.places, self.session);
        let started = self.mouth.another().and_then(|mouth| {
            talk::start("roam", move || {
                let went = outside.roam().map_err(|failure| failure.to_string());
                mouth.say(Word::Roamed(address, went));
            })
        });
        self.roaming = match started {
            Ok(()) => Roaming::Now,
            Err(_) => Roaming::NotBefore(now + ROAM_AGAIN),
        };
    }

    fn ask(&self, task: Task) {
        // A thread that is gone has been told why by whoever ended it.
        let _ = self.tasks.as_ref().map(|tasks| tasks.send(task));
    }

    /// Takes in what the threads say.
    fn hear(&mut self, word: Word) -> Option<End> {
        match word {
            Word::Rekeyed(psk, known) => {
                let more = known.as_ref().map(Known::routes).unwrap_or_default();
                if let Err(error) = self.raised.rekey(self.session, &psk, &more) {
                    return Some(End::Over(Ended::Lost(error.to_string())));
                }
                for warning in self.raised.warnings() {
                    self.news.tell(warning);
                }
                self.terms.keys = Keys::PostQuantum;
                if let Some(known) = known {
                    self.know(&known);
                }
            }
            Word::Flows => say(REKEYED),
            Word::NotRekeyed(why) => {
                say(&format!("{NOT_REKEYED} {why}"));
                self.terms.keys = Keys::Refused(why);
            }
            Word::Known(known) => self.know(&known),
            Word::Heard => self.terms.heard = Some(clock::boot()),
            Word::Deaf => {
                // The same address, and perhaps another one behind a NAT: the door is to follow.
                if let Some(address) = self.address {
                    self.roam(clock::boot(), address);
                }
            }
            Word::Event(event) => return self.hear_event(event),
            Word::Roamed(address, went) => self.roamed(address, went),
        }
        None
    }

    fn hear_event(&mut self, event: Event) -> Option<End> {
        self.terms.heard = Some(clock::boot());
        match event {
            Event::Reduced(reduced) => {
                self.terms
                    .granted
                    .retain(|name| !reduced.lost.contains(name));
                let lost = reduced.lost.join(", ");
                self.news.tell(&format!("{lost}: lost. {}", reduced.text));
            }
            Event::PostureRequired(_) => self.ask(Task::Report),
            // Our own clock warns, and what the session has is asked for.
            Event::Ending(_) | Event::Extended(_) | Event::Rekeyed(_) => {}
            Event::Waiting(waiting) => self.news.tell(&format!(
                "{} asks for {} (rule {}): `spa approve {}` lets it through",
                waiting.person, waiting.resource, waiting.rule, waiting.id
            )),
            Event::Approved(approved) => self.news.tell(&format!(
                "{} is approved until {}: knock for it again",
                approved.resource,
                clock::local_text(approved.at)
            )),
            Event::Ended(ended) if ended.reason == "replaced" => {
                self.gives_way = Some(clock::boot() + GIVING_WAY);
            }
            Event::Ended(ended) if ended.reason == "expired" => {
                return Some(End::Over(Ended::Expired));
            }
            Event::Ended(ended) => {
                let why = printable(&ended.text);
                self.news.tell(&format!("the session was ended: {why}"));
                return Some(End::Over(Ended::ByGateway(why)));
            }
        }
        None
    }

    /// Takes in what the session has.
    fn know(&mut self, known: &Known) {
        if let Some(news) = self.terms.know(known, self.session) {
            if let Some(text) = news {
                self.news.tell(&text);
            }
            self.write_note();
        }
    }

    fn roamed(&mut self, address: IpAddr, went: Result<(), String>) {
        match went {
            Ok(()) => {
                self.roaming = Roaming::NotBefore(clock::boot() + ROAM_AGAIN);
                if self.address.replace(address) != Some(address) {
                    self.roaming = Roaming::No;
                    let text = format!("this device is at {address} now, and the session goes on");
                    self.news.tell(&text);
                }
                self.raised.prod(self.session);
                self.ask(Task::Report);
            }
            Err(_) => self.roaming = Roaming::NotBefore(clock::boot() + ROAM_AGAIN),
        }
    }

    fn write_note(&self) {
        if self.stays {
            // A note that cannot be written costs only what `status` says after our death.
            let _ = self.note(None).write(self.places);
        }
    }

    fn note(&self, ended: Option<(WallTime, Ended)>) -> Note {
        Note {
            granted: self.terms.granted.clone(),
            not_after: self.terms.not_after,
            ended,
            ..Note::of(self.session)
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
            PollFd::new(self.ear.woken(), PollFlags::IN),
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
            parent: ready(4),
        })
    }

    /// Reads what `knock` says: stay, or nothing more.
    fn hear_parent(&mut self) -> Option<End> {
        let mut byte = [0];
        let heard = self.parent.as_mut().map(|parent| parent.read(&mut byte));
        match heard {
            Some(Ok(1)) if byte == [STAY] => {
                self.stays = true;
                self.write_note();
                say(STAYING);
                self.begin_talking();
                if self.session.stay == Stay::Background {
                    self.parent = None;
                    scope::enter(self.session);
                }
                None
            }
            Some(Err(error)) if error.kind() == io::ErrorKind::Interrupted => None,
            Some(_) if self.stays => Some(End::Over(self.closed())),
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

    /// The tunnel carries, and `knock` wants it: the control channel can be spoken to.
    fn begin_talking(&mut self) {
        let Some(client) = &self.client else {
            return;
        };
        let profile = Store::new(self.places.clone()).choose(Some(&self.session.profile));
        let begun = match profile {
            Ok((entry, profile)) => {
                let hook = entry.posture_command();
                let credential = profile.credential;
                talk::begin(client, self.session, credential, hook, &self.mouth)
                    .map_err(|error| error.to_string())
            }
            Err(error) => Err(error.to_string()),
        };
        match begun {
            Ok(tasks) => self.tasks = Some(tasks),
            Err(error) => say(&format!("{NOT_REKEYED} {error}")),
        }
    }

    fn serve(&mut self, mut stream: UnixStream) -> Option<End> {
        let line = read_word(&stream)?;
        let (word, rest) = line.split_once(' ').unwrap_or((&line, ""));
        match word {
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
            CALL => {
                self.call(rest.to_owned(), stream);
                None
            }
            _ => None,
        }
    }

    /// Passes a call on to the gateway, beside the loop.
    fn call(&self, call: String, mut stream: UnixStream) {
        let (client, tasks) = (self.client.clone(), self.tasks.clone());
        let started = talk::start("call", move || {
            let answer = answer_call(client.as_ref(), &call);
            // It may have changed what the session has.
            let _ = tasks.map(|tasks| tasks.send(Task::Refresh));
            let _ = stream.write_all(format!("{answer}\n").as_bytes());
        });
        // Whoever asked sees the end of the stream.
        drop(started);
    }

    fn status_line(&mut self) -> String {
        let state = self.raised.state().ok();
        let now = clock::boot();
        let moving = Moving {
            granted: self.terms.granted.clone(),
            not_after: self.terms.not_after,
            backend: self.raised.backend().to_string(),
            routes: self
                .raised
                .routes()
                .iter()
                .map(|(address, prefix)| format!("{address}/{prefix}"))
                .collect(),
            left: self.terms.deadline.saturating_sub(now),
            handshake_age: state
                .and_then(|state| state.handshake_age)
                .or_else(|| self.shaken.map(|at| now.saturating_sub(at))),
            heard_age: self.terms.heard.map(|at| now.saturating_sub(at)),
            renewable_until: self.terms.renewable_until,
            keys: self.terms.keys.text(),
            news: self.news.json(),
            scope: scope::current(self.session),
            received: state.map_or(0, |state| state.rx),
            sent: state.map_or(0, |state| state.tx),
        };
        live_line(self.session, &moving) + "\n"
    }

    fn closed(&self) -> Ended {
        match self.close() {
            Ok(()) => Ended::Closed,
            Err(_) => Ended::ClosedUnconfirmed,
        }
    }

    /// Ends the session at the gateway: through the tunnel while that carries, else from outside (SPEC §12, §13).
    fn close(&self) -> Result<(), String> {
        let lately = |at: Duration| clock::boot().saturating_sub(at) < talk::ALIVE;
        if self.terms.heard.is_some_and(lately)
            && let Some(client) = &self.client
            && client
                .hasty()
                .post::<Nothing>(channel::CLOSE, &Nothing {})
                .is_ok()
        {
            return Ok(());
        }
        let outside = Outside::of(self.places, self.session);
        outside.close().map_err(|failure| failure.to_string())
    }

    /// Takes everything down, then tells.
    pub(super) fn finish(self, end: End) -> Result<(), AgentError> {
        let note = |ended: &Ended| self.note(Some((clock::wall(), ended.clone())));
        let (ended, told) = match end {
            End::Unwanted => (None, None),
            End::Over(ended) => (Some(ended), None),
            End::Told(stream, ended, answer) => (Some(ended), Some((stream, answer))),
        };
        let note = ended.as_ref().filter(|_| self.stays).map(note);
        let lowered = self.raised.lower();
        private_file::remove(&socket_path(self.places, &self.session.profile))?;
        if self.stays && matches!(ended, Some(Ended::Lost(_))) {
            // Nobody will come through that door any more. Without an answer it closes at its time.
            let _ = Outside::of(self.places, self.session).close();
        }
        if let Some(ended) = ended {
            let text = match &lowered {
                Ok(()) => ended.text(),
                Err(error) => format!(
                    "{}, and its interface could not be removed: {error}",
                    ended.text()
                ),
            };
            if let Some(note) = note {
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
    BufReader::new(stream)
        .take(LONGEST_WORD)
        .read_line(&mut line)
        .ok()?;
    Some(line.trim_end().to_owned())
}
