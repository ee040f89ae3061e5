//! The clocks: is ours believed, which tags does it give, and what falls due by the minute (SPEC §3.3, §7).

use alloc::vec::Vec;
use core::net::IpAddr;
use core::time::Duration;

use spa_proto::{CredentialId, KnockSecret, Slot, Tag, WallTime};

use crate::addition::Addition;
use crate::admin::Accepted;
use crate::agenda::Timer;
use crate::audit::{AuditKind, AuditRecord};
use crate::change::{Change, Record};
use crate::closing::EndReason;
use crate::credential::REPEAT_WITHIN;
use crate::effect::EffectKind;
use crate::entropy::{Entropy, Purpose, draw};
use crate::gateway::{ClockTrust, Gateway, key_refs};
use crate::knock_keys::ACCEPTED;
use crate::outbox::Waiter;
use crate::snapshot::KnockKeyRow;
use crate::step::{self, ClockStep, Reference};
use crate::time::Now;

/// How often the clock floor is saved, and how long a clock must have gone evenly before it is: a jump that somebody
/// mends until then leaves nothing behind (SPEC §7).
pub const FLOOR_EVERY: Duration = Duration::from_secs(6 * 60 * 60);
/// Milliseconds into a minute at which the window of slots moves: half a minute, since F is 90 s.
const SLOTS_MOVE_AT_MS: u64 = 30_000;
const MINUTE_MS: u64 = 60_000;

impl Gateway {
    /// Hears whether the kernel vouches for the clock.
    pub fn handle_clock(&mut self, trust: ClockTrust, now: Now) {
        self.clock.trust = trust;
        let stepped = self.was_clock_set(now);
        self.report_clock(now);
        if self.is_clock_believed(now) {
            match &mut self.clock.reference {
                Some(reference) => reference.follow(now),
                none => *none = Some(Reference::begin(now)),
            }
        }
        self.slide_tags(now);
        self.end_overdue(now);
        if stepped {
            // What ends at a time of the calendar ends now, or later: each timer stands where the old time put it.
            self.review_all(now);
            self.set_exceptions(now);
        }
        // A clock that was set moves the minute, too.
        let minute = now.mono.after(until_slots_move(now));
        if self
            .agenda
            .time_of(Timer::Minute)
            .is_none_or(|at| at > minute)
        {
            self.agenda.set(Timer::Minute, minute);
        }
    }

    /// Gives every tag a packet may carry now or in the next minute, for the kernel's filter (SPEC §8
    /// step 0): a packet with another one cannot be a knock. One that keys share is there more than once.
    pub fn tags(&self) -> impl Iterator<Item = Tag> {
        self.tags.tags()
    }

    /// A number that is another whenever [`tags`](Self::tags) may give others.
    #[must_use]
    pub const fn tags_edition(&self) -> u32 {
        self.tags.edition()
    }

    /// Hears which addresses are our own: no knock comes from them.
    pub fn handle_addresses(&mut self, addresses: Vec<IpAddr>) {
        self.own_addresses = addresses
            .into_iter()
            .map(|address| address.to_canonical())
            .collect();
    }

    /// The process is about to stop: saves the floor, and what was counted.
    pub fn handle_stop(&mut self, now: Now) {
        self.save_learned(true, now);
        self.save_usual(true, now);
        self.save_facts(true, now);
        let settled = |reference: &Reference| reference.is_settled(FLOOR_EVERY, now);
        if self.is_clock_believed(now) && self.clock.reference.as_ref().is_some_and(settled) {
            self.set_floor(now);
        }
    }

    /// Says whether knocks are accepted as far as the clock is concerned.
    #[must_use]
    pub fn is_clock_believed(&self, now: Now) -> bool {
        self.clock.trust == ClockTrust::Trusted
            && now.wall >= self.clock.floor
            && self.clock_step(now).is_none()
    }

    /// Gives how far the clock was set since it was believed, if that is too far to believe it still.
    #[must_use]
    pub fn clock_step(&self, now: Now) -> Option<ClockStep> {
        let step = self.clock.reference.as_ref()?.step(now);
        Some(step).filter(|step| step::is_too_far(*step))
    }

    /// Says whether somebody set the clock since [`handle_clock`](Self::handle_clock), which is to hear of it then.
    #[must_use]
    pub fn was_clock_set(&self, now: Now) -> bool {
        let reference = self.clock.reference.as_ref();
        reference.is_some_and(|reference| step::was_set(reference.step(now)))
    }

    /// An administrator says that the clock is right: it is believed from here on, and the floor comes down to it once
    /// that is on disk. Gives how many devices have knocked at a later time: each is refused until its clock is
    /// there, or it is resynced.
    pub fn accept_clock(&mut self, now: Now) -> Accepted<usize> {
        let ahead = self.credentials.values().filter(|credential| {
            let step = self.persons.get(&credential.person).map_or(0, |person| {
                let period = person
                    .totp
                    .as_ref()
                    .map_or(1, |totp| u64::from(totp.period));
                person
                    .last_step
                    .saturating_mul(period)
                    .saturating_mul(1_000)
            });
            let marks = [credential.last_ts, WallTime::from_millis(step)];
            marks.iter().any(|mark| step::precedes(now.wall, *mark))
        });
        let value = ahead.count();
        let floor = now.wall;
        let record = self.add(Change::FloorSet { floor }, Addition::Clock(now));
        Accepted { value, record }
    }

    /// The word of an administrator about the clock is on disk.
    pub(crate) fn adopt_clock(&mut self, accepted: Now, now: Now) {
        self.clock.floor = accepted.wall;
        self.clock.reference = Some(Reference::begin(accepted));
        self.put_audit(AuditRecord::new(now.wall, AuditKind::ClockAccepted));
        self.handle_clock(self.clock.trust, now);
    }

    /// Writes down when the clock begins or ceases to be believed.
    fn report_clock(&mut self, now: Now) {
        let believed = self.is_clock_believed(now);
        if core::mem::replace(&mut self.clock.reported, believed) == believed {
            return;
        }
        let kind = if believed {
            AuditKind::ClockTrusted
        } else {
            AuditKind::ClockUntrusted
        };
        let step = self.clock_step(now);
        let mut audit = AuditRecord::new(now.wall, kind);
        audit.note = step.map(|step| alloc::format!("set {step}"));
        self.put_audit(audit);
    }

    /// Keeps the tag table in step with the clock; empties it while the clock is not believed.
    pub(crate) fn slide_tags(&mut self, now: Now) {
        let window = self.is_clock_believed(now).then(|| Slot::window(now.wall));
        if !self.tags.lags(window) {
            return;
        }
        let Self {
            tags,
            credentials,
            persons,
            ..
        } = self;
        let usable = credentials.iter().filter(|(_, credential)| {
            let person = persons.get(&credential.person);
            person.is_some_and(|person| credential.is_honoured(person))
        });
        let keys = usable.flat_map(|(id, credential)| key_refs(*id, credential));
        tags.slide(window, keys.map(|(key, of)| (key, &of.derived)));
    }

    /// What falls due by the minute. The next one begins when the window of slots moves.
    pub(crate) fn minute(&mut self, now: Now, entropy: &mut dyn Entropy) {
        self.agenda
            .set(Timer::Minute, now.mono.after(until_slots_move(now)));
        self.end_overdue(now);
        self.forget_answers(now);
        if self.is_clock_believed(now) {
            self.void_old_invites(now);
            self.end_exceptions(now);
            self.save_learned(false, now);
            self.save_usual(false, now);
            self.save_facts(false, now);
            self.rotate_knock_keys(now, entropy);
            let steady = |reference: &Reference| reference.is_steady_for(FLOOR_EVERY, now);
            if now.wall.since(self.clock.floor) >= FLOOR_EVERY
                && self.clock.reference.as_ref().is_some_and(steady)
            {
                self.set_floor(now);
            }
        }
    }

    fn set_floor(&mut self, now: Now) {
        self.clock.floor = now.wall;
        let changes = [Change::FloorSet { floor: now.wall }].into();
        self.outbox
            .put(EffectKind::Record(Record { changes }), Waiter::Nobody);
    }

    /// Ends the sessions whose end has come on the calendar, which may have jumped.
    fn end_overdue(&mut self, now: Now) {
        let over = self
            .sessions
            .iter()
            .filter(|(_, session)| session.is_over(now));
        for id in over.map(|(id, _)| id).collect::<Vec<_>>() {
            self.end_session(id, EndReason::Expired, now);
        }
    }

    /// Forgets the transactions that cannot be repeated any more.
    fn forget_answers(&mut self, now: Now) {
        for credential in self.credentials.values_mut() {
            let memory = &mut credential.memory;
            let stale = |first| now.mono.since(first) > REPEAT_WITHIN;
            if memory
                .answered
                .as_ref()
                .is_some_and(|answered| stale(answered.first))
            {
                memory.answered = None;
            }
        }
    }

    fn void_old_invites(&mut self, now: Now) {
        let old = self.credentials.iter().filter(|(_, credential)| {
            credential.memory.under_way == 0
                && credential
                    .invite_until
                    .is_some_and(|until| now.wall >= until)
        });
        for id in old.map(|(id, _)| *id).collect::<Vec<CredentialId>>() {
            let changes = [Change::CredentialErased { credential: id }].into();
            self.outbox
                .put(EffectKind::Record(Record { changes }), Waiter::Nobody);
            self.void_invite(id, "not completed in time", now);
        }
    }

    /// Makes the next knock key when it is due, and erases those that are past.
    fn rotate_knock_keys(&mut self, now: Now, entropy: &mut dyn Entropy) {
        for kid in self.knock_keys.erase_past(now.wall) {
            let changes = [Change::KnockKeyErased { kid }].into();
            self.outbox
                .put(EffectKind::Record(Record { changes }), Waiter::Nobody);
            self.put_audit(AuditRecord::new(now.wall, AuditKind::KnockKeyErased));
        }
        let under_way = self
            .outbox
            .additions()
            .any(|addition| matches!(addition, Addition::KnockKey(_)));
        let Some(kid) = self.knock_keys.due(now.wall).filter(|_| !under_way) else {
            return;
        };
        let secret = draw(entropy, Purpose::Secret);
        let row = || KnockKeyRow {
            kid,
            secret: KnockSecret::from_bytes(*secret),
            made: now.wall,
            not_after: Some(now.wall.saturating_add(ACCEPTED)),
        };
        self.add(Change::KnockKeyMade(row()), Addition::KnockKey(row()));
    }
}

/// How long until the window of slots moves next: 1 ms to a minute.
fn until_slots_move(now: Now) -> Duration {
    let into = now.wall.as_millis() % MINUTE_MS;
    Duration::from_millis((MINUTE_MS + SLOTS_MOVE_AT_MS - into - 1) % MINUTE_MS + 1)
}
