//! The slow and obvious gateway: it knows the truth about each packet and says what SPEC §8 makes of it, with lists
//! that are searched from end to end. Where the truth hangs on what it cannot see, it says what is allowed.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};
use std::rc::Rc;

use spa_gateway_core::{Gateway, Moment, Now, Refusal, Snapshot, Standing};
use spa_proto::SessionId;

use crate::client::{Facts, Kind, Packet};
use crate::{place, turns};

/// SPEC §7: F, and how long a failed transaction is remembered.
const F: u64 = 90_000;
/// SPEC §10.
const REPEAT_WITHIN: u64 = 10_000;
const MAX_REPEATS: u32 = 5;
/// SPEC §11.
const REST: u64 = 600_000;
/// The step of what is granted; 11 is answered too.
pub(crate) const GRANTED: u8 = 12;
pub(crate) const ANSWERED: u8 = 11;

/// Tokens that come back with time.
struct Tokens {
    most: u64,
    every: u64,
    level: u64,
    at: u64,
}

impl Tokens {
    fn new(most: u64, every: u64, tokens: u64, at: u64) -> Self {
        Self {
            most,
            every,
            level: tokens * every,
            at,
        }
    }

    fn offers(&mut self, now: u64) -> bool {
        self.level = (self.level + now.saturating_sub(self.at)).min(self.most * self.every);
        self.at = now;
        self.level >= self.every
    }

    fn take(&mut self) {
        self.level -= self.every;
    }
}

/// What is known of a credential.
struct Book {
    enabled: bool,
    last_ts: u64,
    messages: Tokens,
    failures: Tokens,
    spent: BTreeSet<u32>,
    failed: Vec<(u64, u64)>,
    answered: Option<Answered>,
    /// A session that nothing has touched since it was granted.
    untouched: bool,
}

/// The transaction answered last.
struct Answered {
    tx: u32,
    ts: u64,
    kind: Kind,
    /// When it was decided, and when its first answer left; between the two it may be counted from any time.
    first: u64,
    left: Option<u64>,
    repeats: u32,
    granted: bool,
    /// Whether an effect failed since: then it may not be remembered.
    doubtful: bool,
}

impl Answered {
    /// Says whether a packet is of this transaction. Two ROAMs of one session at one ts say the same, so they are one.
    fn is(&self, facts: &Facts) -> bool {
        let said_alike = match facts.kind {
            Kind::Open { .. } => false,
            Kind::Roam(_) | Kind::Close(_) => (self.ts, &self.kind) == (facts.ts, &facts.kind),
        };
        self.tx == facts.tx || said_alike
    }
}

/// A session the store was told of.
pub(crate) struct Known {
    pub(crate) id: SessionId,
    pub(crate) seat: usize,
    pub(crate) ts: u64,
    pub(crate) wg_key: [u8; 32],
    pub(crate) tunnel: Vec<IpAddr>,
    pub(crate) resources: Vec<String>,
    pub(crate) sources: BTreeSet<IpAddr>,
    /// Its end on the clock that cannot be set.
    pub(crate) deadline: u64,
}

/// A reply that may leave.
pub(crate) struct Permit {
    pub(crate) to: SocketAddr,
    pub(crate) packet: Rc<Packet>,
    /// When it was decided.
    pub(crate) at: Moment,
}

/// The obvious gateway.
pub(crate) struct Judge {
    gateway: usize,
    books: BTreeMap<usize, Book>,
    persons: BTreeMap<&'static str, (bool, u64)>,
    pub(crate) waiting: Vec<(Rc<Packet>, SocketAddr)>,
    pub(crate) permits: Vec<Permit>,
    pub(crate) sessions: Vec<Known>,
    granted_at: Vec<u64>,
    /// A clock was set: what counts in wall time may count longer.
    pub(crate) clock_was_set: bool,
    /// A peer of before the restart may still be there: nobody is let in until it is gone.
    pub(crate) strays: bool,
}

impl Judge {
    pub(crate) fn new(gateway: usize, store: &Snapshot, clock_was_set: bool, now: Now) -> Self {
        let mono = now.mono.as_millis();
        let book = |row: &spa_gateway_core::CredentialRow| {
            let seat = place::seat_of(row.id);
            let book = Book {
                enabled: row.standing == Standing::Enabled,
                last_ts: row.last_ts.as_millis(),
                messages: Tokens::new(6, 2_000, 6, mono),
                failures: Tokens::new(5, 600_000, 1, mono),
                spent: BTreeSet::new(),
                failed: Vec::new(),
                answered: None,
                untouched: false,
            };
            (seat, book)
        };
        let person = |name: &&'static str| {
            let row = store.persons.iter().find(|row| *row.name == **name)?;
            Some((*name, (row.standing == Standing::Enabled, row.last_step)))
        };
        Self {
            gateway,
            books: store.credentials.iter().map(book).collect(),
            persons: place::CLIENTS.iter().filter_map(person).collect(),
            waiting: Vec::new(),
            permits: Vec::new(),
            sessions: Vec::new(),
            granted_at: Vec::new(),
            clock_was_set,
            strays: false,
        }
    }

    /// Steps 1 to 4 for a packet as it was sent. `None`: it is queued. `taken`: the gateway has queued it.
    pub(crate) fn arrives(
        &mut self,
        packet: &Rc<Packet>,
        source: SocketAddr,
        believed: bool,
        taken: bool,
        now: Now,
    ) -> Option<u8> {
        let facts = &packet.facts;
        let wall = now.wall.as_millis();
        let window = wall.saturating_sub(F) / 60_000..=(wall + F) / 60_000;
        let ours = place::gateway_of(facts.seat) == self.gateway;
        if !believed || !ours || !window.contains(&facts.slot) || !self.honours(facts.seat) {
            return Some(1);
        }
        let book = self.books.get_mut(&facts.seat)?;
        // A spent packet is forgotten with its slot; a clock that is set back brings the slot, not the memory. Its ts
        // is past (step 8).
        if book.spent.contains(&facts.serial) && !(taken && self.clock_was_set) {
            return Some(2);
        }
        if !book.messages.offers(now.mono.as_millis()) {
            return Some(4);
        }
        book.messages.take();
        book.spent.insert(facts.serial);
        self.waiting
            .retain(|(other, _)| other.facts.seat != facts.seat);
        self.waiting.push((Rc::clone(packet), source));
        None
    }

    /// Steps 1 to 3 for a packet that was changed at a byte.
    pub(crate) fn damaged(
        &self,
        packet: &Packet,
        at: usize,
        believed: bool,
        now: Now,
    ) -> &'static [u8] {
        let facts = &packet.facts;
        let wall = now.wall.as_millis();
        let window = wall.saturating_sub(F) / 60_000..=(wall + F) / 60_000;
        let ours = place::gateway_of(facts.seat) == self.gateway;
        if at < 8
            || !believed
            || !ours
            || !window.contains(&facts.slot)
            || !self.honours(facts.seat)
        {
            return &[1];
        }
        let spent = self
            .books
            .get(&facts.seat)
            .is_some_and(|book| book.spent.contains(&facts.serial));
        match (spent && at >= 16, self.clock_was_set) {
            (true, true) => &[2, 3],
            (true, false) => &[2],
            (false, _) => &[3],
        }
    }

    fn honours(&self, seat: usize) -> bool {
        let person = self
            .persons
            .get(place::person_of(seat))
            .is_some_and(|person| person.0);
        person && self.books.get(&seat).is_some_and(|book| book.enabled)
    }

    /// Whose knocks wait. Only the gateway's own list says so when there are several.
    pub(crate) fn turns(&self, gateway: &Gateway) -> Vec<usize> {
        if self.waiting.len() < 2 {
            // Asked before and after: afterwards the only one that waited may be gone.
            let waits = self.waiting.iter().map(|(packet, _)| packet.facts.seat);
            return if gateway.waiting_knocks() == 0 {
                Vec::new()
            } else {
                waits.collect()
            };
        }
        let all = (0..place::SEATS).map(place::credential).collect();
        turns::waiting(gateway, all)
            .into_iter()
            .map(place::seat_of)
            .collect()
    }

    /// The knock of a seat was worked on: whether that outcome was right.
    pub(crate) fn worked(
        &mut self,
        seat: usize,
        outcome: Result<(), Refusal>,
        believed: bool,
        store: &Snapshot,
        now: Now,
    ) -> Result<(), String> {
        let step = outcome.map_or_else(Refusal::step, |()| GRANTED);
        let Some(at) = self
            .waiting
            .iter()
            .position(|(packet, _)| packet.facts.seat == seat)
        else {
            return Err(format!(
                "seat {seat}: worked on what was never queued: {outcome:?}"
            ));
        };
        let (packet, source) = self.waiting.remove(at);
        // The clock may have been set while it waited.
        let (steps, repeat) = if believed {
            self.expects(&packet.facts, store, now)
        } else {
            (vec![1], false)
        };
        if !steps.contains(&step) {
            return Err(format!(
                "{outcome:?} of step {step}, expected {steps:?}: {:?}",
                packet.facts
            ));
        }
        self.follow(&packet, source, step, repeat, now);
        Ok(())
    }

    /// Steps 6 to 12: every step that would be right, and whether it is a repeat.
    fn expects(&mut self, facts: &Facts, store: &Snapshot, now: Now) -> (Vec<u8>, bool) {
        let (wall, mono) = (now.wall.as_millis(), now.mono.as_millis());
        if !self.honours(facts.seat) {
            return (vec![2], false);
        }
        let live_kid = |row: &&spa_gateway_core::KnockKeyRow| {
            row.kid == facts.kid && row.not_after.is_none_or(|until| wall < until.as_millis())
        };
        if !store.knock_keys.iter().any(|row| live_kid(&row)) {
            return (vec![6], false);
        }
        if wall.abs_diff(facts.ts) > F {
            return (vec![8], false);
        }
        let full = self.may_be_full(facts.seat, now);
        let code_fits = self.code_fits(facts, wall);
        let Some(book) = self.books.get_mut(&facts.seat) else {
            return (vec![2], false);
        };
        let tokens = book.failures.offers(mono);
        let repeated = book.answered.as_ref().filter(|answered| {
            let latest = answered.left.unwrap_or(mono);
            answered.is(facts) && answered.repeats < MAX_REPEATS && mono - latest <= REPEAT_WITHIN
        });
        if let Some(answered) = repeated {
            let granted_before = if answered.granted { GRANTED } else { ANSWERED };
            let mut steps = match (tokens, facts.signed) {
                (false, _) => vec![9],
                (true, false) => vec![10],
                (true, true) => vec![granted_before],
            };
            // What it repeats may be over, or unknown: then it is an old transaction.
            let sure = match facts.kind {
                // The door waits as long as a repeat may come: then nothing is there to be repeated.
                Kind::Open { .. } => book.untouched && mono - answered.first < REPEAT_WITHIN,
                Kind::Roam(_) => false,
                Kind::Close(_) => true,
            };
            let late = mono - answered.first > REPEAT_WITHIN;
            if answered.doubtful || late || (answered.granted && !sure) {
                steps.push(8);
            }
            // A ROAM is signed with the session key, and the client may hold an older one.
            if matches!(facts.kind, Kind::Roam(_) | Kind::Close(_)) {
                steps.push(10);
            }
            return (steps, true);
        }
        if book.last_ts > wall + F || facts.ts <= book.last_ts {
            return (vec![8], false);
        }
        let failed = |(ts, at): &(u64, u64)| *ts == facts.ts && mono - at <= 2 * F;
        if book.failed.iter().any(failed) {
            return (vec![8], false);
        }
        let steps = match &facts.kind {
            _ if !tokens && !matches!(facts.kind, Kind::Open { .. }) => vec![8, 9],
            Kind::Roam(_) | Kind::Close(_) if !facts.signed => vec![8, 10],
            Kind::Roam(_) | Kind::Close(_) => vec![8, 10, GRANTED],
            Kind::Open { .. } if !tokens => vec![9],
            Kind::Open { .. } if !facts.signed || code_fits.is_none() => vec![10],
            Kind::Open {
                resources, anyway, ..
            } => {
                let allowed = *anyway || place::may(place::person_of(facts.seat), resources);
                match (allowed, full) {
                    (false, _) => vec![ANSWERED],
                    (true, true) => vec![ANSWERED, GRANTED],
                    (true, false) => vec![GRANTED],
                }
            }
        };
        (steps, false)
    }

    /// The step whose code it is; 0 for a machine without one.
    fn code_fits(&self, facts: &Facts, wall: u64) -> Option<u64> {
        let person = place::person_of(facts.seat);
        if place::is_machine(facts.seat) {
            return facts.code.is_none().then_some(0);
        }
        let (_, last_step) = self.persons.get(person)?;
        let step = wall / 30_000;
        let shown = |step: &u64| Some(place::code(self.gateway, person, *step)) == facts.code;
        (step - 1..=step + 1)
            .rev()
            .find(shown)
            .filter(|step| step > last_step)
    }

    fn may_be_full(&self, seat: usize, now: Now) -> bool {
        let mono = now.mono.as_millis();
        let live = self
            .sessions
            .iter()
            .filter(|known| known.seat != seat && known.deadline > mono);
        // One that was granted and is not on disk yet takes room already.
        let granted = self
            .permits
            .iter()
            .map(|permit| permit.packet.facts.seat)
            .filter(|other| *other != seat);
        let live: BTreeSet<SessionId> = live.map(|known| known.id).collect();
        let places = live.len() + granted.collect::<BTreeSet<usize>>().len();
        let recent = self
            .granted_at
            .iter()
            .filter(|at| mono.saturating_sub(**at) <= REST + 13 * 60_000);
        self.clock_was_set
            || self.strays
            || places >= place::CAPACITY as usize
            || recent.count() >= place::POOL
    }

    /// Takes the outcome as it came.
    fn follow(
        &mut self,
        packet: &Rc<Packet>,
        source: SocketAddr,
        step: u8,
        repeat: bool,
        now: Now,
    ) {
        let (wall, mono) = (now.wall.as_millis(), now.mono.as_millis());
        let facts = &packet.facts;
        let fits = self.code_fits(facts, wall);
        let Some(book) = self.books.get_mut(&facts.seat) else {
            return;
        };
        // A repeat that was taken for an old transaction was none.
        let repeat = repeat && step != 8;
        match step {
            10 => {
                book.failures.take();
                if !repeat {
                    book.failed.push((facts.ts, mono));
                }
            }
            ANSWERED | GRANTED => {
                self.permits.push(Permit {
                    to: source,
                    packet: Rc::clone(packet),
                    at: now.mono,
                });
                if repeat {
                    if let Some(answered) = &mut book.answered {
                        answered.repeats += 1;
                    }
                } else {
                    book.last_ts = facts.ts;
                    book.answered = Some(Answered {
                        tx: facts.tx,
                        ts: facts.ts,
                        kind: facts.kind.clone(),
                        first: mono,
                        left: None,
                        repeats: 0,
                        granted: step == GRANTED,
                        doubtful: false,
                    });
                    book.untouched = true;
                    if let Kind::Open { .. } = facts.kind {
                        if let (Some(fits), false) = (fits, place::is_machine(facts.seat)) {
                            self.persons
                                .entry(place::person_of(facts.seat))
                                .and_modify(|person| person.1 = fits);
                        }
                        self.granted_at.push(mono);
                    }
                }
                if let Kind::Roam(id) | Kind::Close(id) = facts.kind {
                    let known = self.sessions.iter_mut().filter(|known| known.id == id);
                    known.for_each(|known| known.sources.extend([source.ip()]));
                }
                if let Kind::Open { wg_key, .. } = facts.kind {
                    let known = self
                        .sessions
                        .iter_mut()
                        .filter(|known| known.wg_key == wg_key);
                    known.for_each(|known| known.sources.extend([source.ip()]));
                }
            }
            _ => {}
        }
    }

    /// A session is in a record that came out: what it has is what policy gives, until when policy says.
    pub(crate) fn opens(&mut self, row: &spa_gateway_core::SessionRow) -> Result<(), String> {
        let seat = place::seat_of(row.credential);
        let permit = self.permits.iter().rev().find(|permit| {
            matches!(permit.packet.facts.kind, Kind::Open { wg_key, .. } if wg_key == row.wg_key)
        });
        let Some(permit) = permit else {
            return Err(format!("seat {seat}: a session nobody was granted"));
        };
        let Kind::Open { resources, .. } = &permit.packet.facts.kind else {
            return Err("not an OPEN".into());
        };
        for name in &row.resources {
            let asked = resources.iter().any(|asked| *asked == &**name);
            if !asked || place::destination(place::person_of(seat), name).is_none() {
                return Err(format!(
                    "seat {seat}: {name} was not asked for, or is not allowed"
                ));
            }
        }
        let length = row.not_after.since(row.opened);
        if length.is_zero() || length > place::LONGEST {
            return Err(format!("seat {seat}: a session of {length:?}"));
        }
        let mut sources = BTreeSet::from([row.source.ip()]);
        sources.insert(permit.to.ip());
        let ts = permit.packet.facts.ts;
        let decided = Now {
            wall: row.opened,
            mono: permit.at,
        };
        self.know(row, ts, sources, decided);
        Ok(())
    }

    /// A session that was on disk when the gateway started.
    pub(crate) fn restores(&mut self, row: &spa_gateway_core::SessionRow, now: Now) {
        self.know(row, 0, BTreeSet::from([row.source.ip()]), now);
    }

    fn know(
        &mut self,
        row: &spa_gateway_core::SessionRow,
        ts: u64,
        sources: BTreeSet<IpAddr>,
        now: Now,
    ) {
        self.sessions.push(Known {
            id: row.id,
            seat: place::seat_of(row.credential),
            ts,
            wg_key: row.wg_key,
            tunnel: row
                .tunnel4
                .map(IpAddr::V4)
                .into_iter()
                .chain(row.tunnel6.map(IpAddr::V6))
                .collect(),
            resources: row.resources.iter().map(ToString::to_string).collect(),
            sources,
            deadline: now.mono.as_millis() + millis(row.not_after.since(now.wall)),
        });
    }

    /// Something failed, or somebody meddled: what was granted may be gone.
    pub(crate) fn doubt(&mut self) {
        for book in self.books.values_mut() {
            book.untouched = false;
            if let Some(answered) = &mut book.answered {
                answered.doubtful = true;
            }
        }
    }

    /// The first answer of a transaction leaves.
    pub(crate) fn answers(&mut self, facts: &Facts, now: Now) {
        let answered = self
            .books
            .get_mut(&facts.seat)
            .and_then(|book| book.answered.as_mut());
        if let Some(answered) = answered.filter(|answered| answered.is(facts)) {
            answered.left.get_or_insert(now.mono.as_millis());
        }
    }

    /// A peer shook hands: its OPEN is not repeated any more.
    pub(crate) fn touched(&mut self, seat: usize) {
        self.books
            .entry(seat)
            .and_modify(|book| book.untouched = false);
    }

    pub(crate) fn person_standing(&mut self, person: &'static str, enabled: bool) {
        self.persons.entry(person).and_modify(|row| row.0 = enabled);
    }

    pub(crate) fn credential_standing(&mut self, seat: usize, enabled: bool) {
        self.books
            .entry(seat)
            .and_modify(|book| book.enabled = enabled);
    }

    pub(crate) fn known(&self, wg_key: &[u8; 32]) -> Option<&Known> {
        self.sessions
            .iter()
            .rev()
            .find(|known| known.wg_key == *wg_key)
    }
}

pub(crate) fn millis(duration: std::time::Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
