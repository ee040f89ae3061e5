//! The agent's threads that speak with the gateway inside the tunnel (SPEC §12): one asks, one listens.
//!
//! Order of the one that asks: rekey first of all, then what the device is like, at once, every minute and when it changes,
//! and more time as long as the person wants it. They decide nothing of the tunnel: all they learn goes to `hold.rs`.

use std::io::{Read, Write};
use std::net::IpAddr;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::thread;
use std::time::Duration;

use spa_proto::channel::{
    self, Event, Grants, PostureTaken, Rekey, RekeyState, Rekeying, Renew, Renewed,
};
use spa_proto::{CredentialId, RekeyAsk, WgPsk};
use zeroize::Zeroizing;

use crate::clock;
use crate::control::{Client, ControlError, Heard};
use crate::posture::Posture;
use crate::routes::Network;
use crate::session::Session;

/// How often the device is looked at, at most.
const LOOK: Duration = Duration::from_secs(4);

/// A look may take one part in this of the time, so that a slow command of the owner's runs seldom.
const SHARE: u32 = 10;

/// How long after a call without answer it is tried again: shorter than a report is late.
const AGAIN: Duration = Duration::from_secs(5);

/// A gateway heard this lately can be reached through the tunnel: it says something every 20 s (SPEC §12).
pub(super) const ALIVE: Duration = Duration::from_secs(25);

/// How long a handshake may take to be seen at the gateway: longer than the 250 ms between two ticks of gotatun's timers.
const CONFIRM: Duration = Duration::from_millis(300);

/// How often that is looked for.
const CONFIRMATIONS: u32 = 4;

/// The bounds of what a gateway may make of the interval between reports.
const REPORTS: [Duration; 2] = [Duration::from_secs(1), Duration::from_secs(300)];

/// More time is asked for from this long before the end on, or from half of a shorter session: before the first warning.
const RENEW_BEFORE: Duration = Duration::from_secs(11 * 60);

/// Less than this is not worth a renewal.
const WORTH: Duration = Duration::from_secs(10);

/// Threads here need little; ML-KEM without optimisation needs most.
const STACK: usize = 512 * 1024;

/// What the threads tell the holder.
pub(super) enum Word {
    /// A new preshared key; the gateway has it already.
    Rekeyed(WgPsk, Option<Known>),
    /// The rekey holds nothing up any more.
    Flows,
    /// There will be none, for this reason.
    NotRekeyed(String),
    /// What the session has.
    Known(Known),
    /// Something happened.
    Event(Event),
    /// The gateway was heard.
    Heard,
    /// It was not, several times.
    Deaf,
    /// How a ROAM went, for the address it was for.
    Roamed(IpAddr, Result<(), String>),
}

/// What the session has, and when that was asked, by [`clock::boot`].
pub(super) struct Known {
    pub(super) grants: Grants,
    pub(super) asked: Duration,
}

impl Known {
    /// The routes, as far as they are routes: never one that takes everything.
    pub(super) fn routes(&self) -> Vec<Network> {
        let network = |text: &String| {
            let (address, prefix) = text.split_once('/')?;
            let route = spa_proto::Route::new(address.parse().ok()?, prefix.parse().ok()?).ok()?;
            let usable = route.is_some_network();
            usable.then(|| (route.address(), route.prefix()))
        };
        self.grants.routes.iter().filter_map(network).collect()
    }
}

/// What the holder asks of the thread that asks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Task {
    /// Report the device, whether it changed or not.
    Report,
    /// Ask what the session has.
    Refresh,
}

/// Carries words to the holder, and wakes it.
pub(super) struct Mouth {
    words: Sender<Word>,
    wake: UnixStream,
}

/// The holder's end.
pub(super) struct Ear {
    words: Receiver<Word>,
    woken: UnixStream,
}

/// A way for words.
pub(super) fn way() -> std::io::Result<(Mouth, Ear)> {
    let (words, heard) = channel();
    let (wake, woken) = UnixStream::pair()?;
    wake.set_nonblocking(true)?;
    woken.set_nonblocking(true)?;
    Ok((
        Mouth { words, wake },
        Ear {
            words: heard,
            woken,
        },
    ))
}

impl Mouth {
    /// Says a word; gives whether anybody still listens.
    pub(super) fn say(&self, word: Word) -> bool {
        let heard = self.words.send(word).is_ok();
        // A full pipe wakes as well.
        let _ = (&self.wake).write(&[0]);
        heard
    }

    /// One more to the same holder.
    pub(super) fn another(&self) -> std::io::Result<Self> {
        Ok(Self {
            words: self.words.clone(),
            wake: self.wake.try_clone()?,
        })
    }
}

impl Ear {
    /// What becomes readable when there is something to hear.
    pub(super) fn woken(&self) -> &UnixStream {
        &self.woken
    }

    /// The next word, without waiting.
    pub(super) fn next(&mut self) -> Option<Word> {
        let mut bytes = [0; 64];
        while (&self.woken).read(&mut bytes).is_ok_and(|read| read > 0) {}
        self.words.try_recv().ok()
    }
}

/// Starts a thread of the agent.
pub(super) fn start(name: &str, work: impl FnOnce() + Send + 'static) -> std::io::Result<()> {
    thread::Builder::new()
        .name(name.to_owned())
        .stack_size(STACK)
        .spawn(work)
        .map(|_| ())
}

/// Starts both threads; the sender gives tasks to the one that asks, and ends it when dropped.
pub(super) fn begin(
    client: &Client,
    session: &Session,
    credential: CredentialId,
    hook: PathBuf,
    mouth: &Mouth,
) -> std::io::Result<Sender<Task>> {
    let (tasks, todo) = channel();
    let listener = Listener {
        client: client.clone(),
        mouth: mouth.another()?,
        tasks: tasks.clone(),
    };
    let asker = Asker {
        client: client.clone(),
        mouth: mouth.another()?,
        todo,
        psk: session.tunnel.psk.duplicate(),
        credential,
        hook,
        until: session.deadline,
        length: session.deadline.saturating_sub(clock::boot()),
        wanted_until: session.wanted_until,
        told: None,
        resources: None,
        report_due: Duration::ZERO,
        renew_due: Duration::ZERO,
        silences: 0,
    };
    start("ask", move || asker.run())?;
    start("listen", move || listener.run())?;
    Ok(tasks)
}

/// The thread that listens to events.
struct Listener {
    client: Client,
    mouth: Mouth,
    tasks: Sender<Task>,
}

impl Listener {
    fn run(self) {
        let mut last = 0;
        loop {
            if let Ok(mut events) = self.client.events(last) {
                while let Ok(heard) = events.next() {
                    let word = match heard {
                        Heard::Event(event) => {
                            // Whatever happened, what the session has may be another thing now.
                            if matters(&event) && self.tasks.send(Task::Refresh).is_err() {
                                return;
                            }
                            Word::Event(event)
                        }
                        Heard::Alive => Word::Heard,
                    };
                    if !self.mouth.say(word) {
                        return;
                    }
                    last = events.last();
                }
            }
            thread::sleep(AGAIN);
        }
    }
}

fn matters(event: &Event) -> bool {
    match event {
        Event::Reduced(_) | Event::Extended(_) => true,
        Event::Ending(_)
        | Event::PostureRequired(_)
        | Event::Rekeyed(_)
        | Event::Ended(_)
        | Event::Waiting(_)
        | Event::Approved(_) => false,
    }
}

/// The thread that asks.
struct Asker {
    client: Client,
    mouth: Mouth,
    todo: Receiver<Task>,
    psk: WgPsk,
    credential: CredentialId,
    hook: PathBuf,
    /// When the session ends, as far as is known here.
    until: Duration,
    /// How long it was at first.
    length: Duration,
    /// Until when the person wants it; `None`: as long as the knock gave.
    wanted_until: Option<Duration>,
    /// What the gateway was told of the device last.
    told: Option<channel::Posture>,
    /// What the gateway said the session reaches.
    resources: Option<Vec<String>>,
    report_due: Duration,
    /// Not before this is more time asked for again.
    renew_due: Duration,
    silences: u32,
}

/// Whether to go on.
enum Goes {
    On,
    Over,
}

impl Asker {
    fn run(mut self) {
        if let Goes::Over = self.rekey() {
            return;
        }
        loop {
            let started = clock::boot();
            self.report(started);
            self.renew();
            let now = clock::boot();
            let look = LOOK.max(now.saturating_sub(started) * SHARE);
            // A gateway may want its reports more often than we would look.
            let due = self.report_due.saturating_sub(now).max(REPORTS[0]);
            match self.todo.recv_timeout(look.min(due)) {
                Ok(Task::Report) => self.report_due = Duration::ZERO,
                Ok(Task::Refresh) => {
                    if let Some(known) = self.known() {
                        self.mouth.say(Word::Known(known));
                    }
                }
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return,
            }
        }
    }

    /// The post-quantum key, first of all. A lost answer is mended by asking again (SPEC §12).
    fn rekey(&mut self) -> Goes {
        loop {
            let before = self.known();
            let required = before
                .as_ref()
                .is_some_and(|known| known.grants.rekey == RekeyState::Required);
            match self.try_rekey() {
                Ok(psk) => {
                    self.silences = 0;
                    self.mouth.say(Word::Rekeyed(psk.duplicate(), before));
                    if !required {
                        self.mouth.say(Word::Flows);
                    }
                    let goes = self.confirm(&psk);
                    self.mouth.say(Word::Flows);
                    return goes;
                }
                Err(ControlError::Silent(_)) => {
                    self.silence();
                    if let Goes::Over = self.pause(AGAIN) {
                        return Goes::Over;
                    }
                }
                Err(error) => {
                    self.silences = 0;
                    self.mouth.say(Word::NotRekeyed(error.to_string()));
                    return Goes::On;
                }
            }
        }
    }

    /// Makes sure that the gateway saw a handshake under the new key: the embedded WireGuard tells when one was only as well
    /// as its timers go, so that one right after the key may look older than it. Then another is made.
    fn confirm(&mut self, psk: &WgPsk) -> Goes {
        for _ in 0..CONFIRMATIONS {
            if let Goes::Over = self.pause(CONFIRM) {
                return Goes::Over;
            }
            match self.known().map(|known| known.grants.rekey) {
                Some(RekeyState::Set) => {
                    self.mouth.say(Word::Rekeyed(psk.duplicate(), None));
                }
                Some(_) => return Goes::On,
                None => {}
            }
        }
        Goes::On
    }

    /// Waits; what is asked meanwhile comes after it in any case.
    fn pause(&self, length: Duration) -> Goes {
        match self.todo.recv_timeout(length) {
            Err(RecvTimeoutError::Disconnected) => Goes::Over,
            Ok(_) | Err(RecvTimeoutError::Timeout) => Goes::On,
        }
    }

    fn try_rekey(&self) -> Result<WgPsk, ControlError> {
        let mut x25519 = Zeroizing::new([0; 32]);
        let mut seed = Zeroizing::new([0; 64]);
        getrandom::fill(x25519.as_mut_slice())
            .and_then(|()| getrandom::fill(seed.as_mut_slice()))
            .map_err(|error| ControlError::Odd(error.to_string()))?;
        let ask = RekeyAsk::new(*x25519, *seed);
        let answer: Rekeying = self
            .client
            .post(channel::REKEY, &Rekey::from(ask.request()))?;
        ask.finish(&self.psk, &answer.into())
            .map_err(|error| ControlError::Odd(error.to_string()))
    }

    fn known(&mut self) -> Option<Known> {
        let asked = clock::boot();
        let grants: Grants = self.client.get(channel::GRANTS).ok()?;
        self.until = asked + grants.not_after.since(grants.now);
        Some(Known { grants, asked })
    }

    /// Looks at the device and tells the gateway, if it changed or is due.
    fn report(&mut self, now: Duration) {
        let posture = Posture::gather(self.credential, &self.hook).channel();
        if now < self.report_due && self.told.as_ref() == Some(&posture) {
            return;
        }
        match self.client.post::<PostureTaken>(channel::POSTURE, &posture) {
            Ok(taken) => {
                self.silences = 0;
                let [least, most] = REPORTS;
                let next = Duration::from_secs(u64::from(taken.next_s)).clamp(least, most);
                self.report_due = now + next;
                self.told = Some(posture);
                self.mouth.say(Word::Heard);
                let before = self.resources.replace(taken.resources.clone());
                if before.is_some_and(|before| before != taken.resources)
                    && let Some(known) = self.known()
                {
                    self.mouth.say(Word::Known(known));
                }
            }
            Err(ControlError::Silent(_)) => {
                self.report_due = clock::boot() + AGAIN;
                self.silence();
            }
            // It answers, and takes no report: asked again at its time.
            Err(ControlError::Refused(_) | ControlError::Odd(_)) => {
                self.silences = 0;
                self.told = Some(posture);
                self.report_due = now + AGAIN * 4;
            }
        }
    }

    /// Twice silent: the way to the gateway may be another one than it knows.
    fn silence(&mut self) {
        self.silences += 1;
        if self.silences >= 2 {
            self.mouth.say(Word::Deaf);
        }
    }

    /// Asks for more time while the person wants more than there is, and policy has it to give by now.
    fn renew(&mut self) {
        let now = clock::boot();
        let left = self.until.saturating_sub(now);
        let Some(wanted) = self.wanted_until else {
            return;
        };
        let early = left > RENEW_BEFORE.min(self.length / 2);
        if wanted <= self.until + WORTH || early || now < self.renew_due {
            return;
        }
        self.renew_due = now + LOOK.max(left / 4);
        let Some(known) = self.known() else {
            return;
        };
        if known.asked + known.grants.renewable_until.since(known.grants.now) <= self.until + WORTH
        {
            return;
        }
        let minutes = wanted.saturating_sub(now).as_secs().div_ceil(60);
        let minutes = u16::try_from(minutes).unwrap_or(u16::MAX);
        let renewed: Result<Renewed, ControlError> =
            self.client.post(channel::RENEW, &Renew { minutes });
        // A "no" is no news: the person hears of the end in time, and `spa renew` says why.
        if renewed.is_ok()
            && let Some(known) = self.known()
        {
            self.mouth.say(Word::Known(known));
        }
    }
}
