//! How much is usual for a person: bytes and connections of each resource in a day. Feeds the risk; decides nothing.
//!
//! What is usual is the most of the days before, fading by an eighth with each day of use. What is far beyond it is learned
//! only as far as it would have been usual, so that one day does not make the next of its kind usual. Invariants: a bounded
//! number of resources is remembered of each person; the same counts in the same order give the same memory.

use alloc::collections::{BTreeMap, BTreeSet};
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;
use core::time::Duration;

use litemap::LiteMap;
use spa_proto::WallTime;

use crate::change::{Change, Record};
use crate::effect::EffectKind;
use crate::gateway::Gateway;
use crate::name::Name;
use crate::outbox::Waiter;
use crate::policy::Usage;
use crate::time::{Moment, Now};

/// The most resources remembered of one person.
pub const MAX_RESOURCES: usize = 32;
/// The most persons whose use is remembered.
const MAX_PERSONS: usize = crate::gateway::MAX_PERSONS;
/// Fewer days of use than this say nothing.
pub const ENOUGH_DAYS: u32 = 5;
/// How many times the most of the days before is still usual.
const TIMES: u64 = 4;
/// What is usual in any case: a person may need something big for once.
const USUAL_BYTES: u64 = 256 << 20;
/// The same of connections.
const USUAL_CONNECTIONS: u64 = 1_000;
/// By what part of itself the most fades with each day of use.
const FADES: u64 = 8;
/// How often what was counted is saved.
const SAVE_EVERY: Duration = Duration::from_secs(15 * 60);
const DAY_MS: u64 = 24 * 60 * 60 * 1_000;

/// What went through to a resource, or how often.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Amount {
    /// Bytes, both ways.
    pub bytes: u64,
    /// Connections.
    pub connections: u64,
}

/// What a person did with a resource.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct UsualRow {
    /// Who.
    pub person: Name,
    /// With what.
    pub resource: Name,
    /// The last day of use, counted from 1970 in UTC.
    pub day: u64,
    /// On that day.
    pub today: Amount,
    /// The most of the days before.
    pub most: Amount,
    /// How many days of use there were before.
    pub days: u32,
}

impl UsualRow {
    fn new(person: &Name, resource: &Name, day: u64) -> Self {
        Self {
            person: person.clone(),
            resource: resource.clone(),
            day,
            today: Amount::default(),
            most: Amount::default(),
            days: 0,
        }
    }

    /// Begins a day; a clock that was set back goes on with the one that is.
    fn turn_to(&mut self, day: u64) {
        if day <= self.day {
            return;
        }
        let learned = if self.days < ENOUGH_DAYS {
            self.today
        } else {
            let limit = self.limit();
            Amount {
                bytes: self.today.bytes.min(limit.bytes),
                connections: self.today.connections.min(limit.connections),
            }
        };
        let faded = |most: u64| most - most / FADES;
        self.most = Amount {
            bytes: learned.bytes.max(faded(self.most.bytes)),
            connections: learned.connections.max(faded(self.most.connections)),
        };
        self.days = self.days.saturating_add(1);
        self.today = Amount::default();
        self.day = day;
    }

    /// Up to this is usual.
    fn limit(&self) -> Amount {
        let limit = |most: u64, always| most.saturating_mul(TIMES).saturating_add(always);
        Amount {
            bytes: limit(self.most.bytes, USUAL_BYTES),
            connections: limit(self.most.connections, USUAL_CONNECTIONS),
        }
    }

    /// How this day stands to the days before.
    fn usage(&self, day: u64) -> Usage {
        let today = if day > self.day {
            Amount::default()
        } else {
            self.today
        };
        Usage {
            bytes: today.bytes,
            connections: today.connections,
            usual: (self.days >= ENOUGH_DAYS).then(|| {
                let limit = self.limit();
                (limit.bytes, limit.connections)
            }),
        }
    }
}

/// What all persons usually do.
#[derive(Debug, Default)]
pub(crate) struct Usual {
    rows: BTreeMap<Name, LiteMap<Name, UsualRow>>,
    unsaved: BTreeSet<(Name, Name)>,
    saved: Option<Moment>,
}

impl Usual {
    pub(crate) fn restore(rows: Vec<UsualRow>) -> Self {
        let mut usual = Self::default();
        for row in rows {
            let of = usual.rows.entry(row.person.clone()).or_default();
            of.insert(row.resource.clone(), row);
        }
        usual
    }

    /// Adds to what a person did; gives how that day stood before and after.
    pub(crate) fn add(
        &mut self,
        person: &Name,
        resource: &Name,
        amount: Amount,
        now: WallTime,
    ) -> Option<(Usage, Usage)> {
        let day = now.as_millis() / DAY_MS;
        if !self.rows.contains_key(person) && self.rows.len() >= MAX_PERSONS {
            return None;
        }
        let of = self.rows.entry(person.clone()).or_default();
        if !of.contains_key(resource) && of.len() >= MAX_RESOURCES {
            let oldest = of.values().min_by_key(|row| row.day);
            let oldest = oldest.map(|row| row.resource.clone())?;
            of.remove(&oldest);
            self.unsaved.insert((person.clone(), oldest));
        }
        let row = of
            .entry(resource.clone())
            .or_insert_with(|| UsualRow::new(person, resource, day));
        row.turn_to(day);
        let before = row.usage(day);
        row.today.bytes = row.today.bytes.saturating_add(amount.bytes);
        row.today.connections = row.today.connections.saturating_add(amount.connections);
        let after = row.usage(day);
        self.unsaved.insert((person.clone(), resource.clone()));
        Some((before, after))
    }

    /// How a person's day stands to the days before.
    pub(crate) fn usage(&self, person: &Name, resource: &Name, now: WallTime) -> Option<Usage> {
        let row = self.rows.get(person)?.get(resource)?;
        Some(row.usage(now.as_millis() / DAY_MS))
    }

    /// Forgets somebody, whom the store has forgotten.
    pub(crate) fn forget_person(&mut self, person: &Name) {
        self.rows.remove(person);
        self.unsaved.retain(|(of, _)| of != person);
    }

    fn unsaved(&mut self) -> Vec<Change> {
        let unsaved = core::mem::take(&mut self.unsaved).into_iter();
        unsaved
            .map(|(person, resource)| {
                let row = self.rows.get(&person).and_then(|of| of.get(&resource));
                match row {
                    Some(row) => Change::Used(row.clone()),
                    None => Change::UseForgotten { person, resource },
                }
            })
            .collect()
    }
}

impl Gateway {
    /// Adds to what somebody did with a resource. Where that is more than usual from now on, it is said, and their
    /// sessions are held against policy.
    pub(crate) fn used(&mut self, person: &Name, resource: &Name, amount: Amount, now: Now) {
        // A clock that jumped a year would make one day of the year to come.
        if self.clock_step(now).is_some() {
            return;
        }
        let Some((before, after)) = self.usual.add(person, resource, amount, now.wall) else {
            return;
        };
        let weights = self.policy.weights();
        let raised: Vec<String> = after
            .beyond(&before)
            .map(|signal| {
                let points = signal.points(weights);
                let name = signal.name();
                format!("{resource}: {name} +{points}: {}", after.evidence(signal))
            })
            .collect();
        if raised.is_empty() {
            return;
        }
        let mut audit =
            crate::audit::AuditRecord::new(now.wall, crate::audit::AuditKind::RiskRaised);
        audit.person = Some(person.clone());
        audit.resources = Vec::from([resource.clone()]);
        audit.note = Some(raised.join("; "));
        self.put_audit(audit);
        for id in self.live_sessions() {
            let owner = self
                .sessions
                .of(id)
                .and_then(|session| self.credentials.get(&session.credential));
            if owner.is_some_and(|credential| credential.person == *person) {
                self.review(id, now);
            }
        }
    }

    /// Saves what was counted, if it is time or the process stops.
    pub(crate) fn save_usual(&mut self, at_once: bool, now: Now) {
        let due = |saved| now.mono.since(saved) >= SAVE_EVERY;
        if !at_once && self.usual.saved.is_some_and(|saved| !due(saved)) {
            return;
        }
        self.usual.saved = Some(now.mono);
        let changes = self.usual.unsaved();
        if !changes.is_empty() {
            self.outbox
                .put(EffectKind::Record(Record { changes }), Waiter::Nobody);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const MB: u64 = 1 << 20;

    fn name(text: &str) -> Name {
        Name::parse(text).expect("a name")
    }

    fn day(number: u64) -> WallTime {
        WallTime::from_millis(1_800_000_000_000 + number * DAY_MS)
    }

    fn bytes(bytes: u64) -> Amount {
        Amount {
            bytes,
            connections: 1,
        }
    }

    fn is_beyond(usage: &Usage) -> bool {
        usage.usual.is_some_and(|(most, _)| usage.bytes > most)
    }

    #[test]
    fn too_few_days_say_nothing_and_then_a_flood_is_told_from_a_day_like_the_others() {
        let (ana, wiki) = (name("ana"), name("wiki"));
        let mut usual = Usual::default();
        let mut add = |at, amount| {
            let (_, after) = usual.add(&ana, &wiki, bytes(amount), at).expect("room");
            after
        };
        assert!(
            !is_beyond(&add(day(0), u64::MAX / 2)),
            "the first day is no habit"
        );
        let mut usual = Usual::default();
        let mut add = |at, amount| {
            let (_, after) = usual.add(&ana, &wiki, bytes(amount), at).expect("room");
            after
        };
        for number in 0..6 {
            assert!(!is_beyond(&add(day(number), 100 * MB)));
        }
        assert!(!is_beyond(&add(day(7), 600 * MB)), "a big day");
        assert!(is_beyond(&add(day(7), 3_000 * MB)), "a flood");
        // It is over with the day, and what it was is learned no further than it would have been usual.
        assert!(!is_beyond(&add(day(8), 600 * MB)));
        assert!(is_beyond(&add(day(8), 3_000 * MB)));
    }

    #[test]
    fn a_person_has_so_many_resources_and_the_oldest_goes_from_the_disk_too() {
        let ana = name("ana");
        let mut usual = Usual::default();
        for number in 0..u64::try_from(MAX_RESOURCES).expect("fits") + 3 {
            let resource = name(&format!("r{number}"));
            let _ = usual.add(&ana, &resource, bytes(1), day(number));
        }
        assert_eq!(usual.rows[&ana].len(), MAX_RESOURCES);
        let forgotten = usual.unsaved();
        let forgotten = forgotten
            .iter()
            .filter(|change| matches!(change, Change::UseForgotten { .. }));
        assert_eq!(forgotten.count(), 3);
    }

    fn days() -> impl Strategy<Value = Vec<(u64, u64)>> {
        proptest::collection::vec((0_u64..40, any::<u64>()), 1..60)
    }

    proptest! {
        /// Whatever the clock and the counters do: the same memory from the same counts, nothing overflows, and what
        /// was usual yesterday is never made usual by more than four times and something by one day.
        #[test]
        fn one_day_teaches_no_more_than_would_have_been_usual(counts in days()) {
            let (ana, wiki) = (name("ana"), name("wiki"));
            let (mut usual, mut again) = (Usual::default(), Usual::default());
            for (number, amount) in &counts {
                let before = usual.rows.get(&ana).and_then(|of| of.get(&wiki)).cloned();
                let _ = usual.add(&ana, &wiki, bytes(*amount), day(*number));
                let _ = again.add(&ana, &wiki, bytes(*amount), day(*number));
                let after = &usual.rows[&ana][&wiki];
                if let Some(before) = before.filter(|before| before.days >= ENOUGH_DAYS) {
                    prop_assert!(after.most.bytes <= before.limit().bytes);
                    prop_assert!(after.day >= before.day);
                }
                prop_assert_eq!(&usual.rows, &again.rows);
            }
        }

        /// A restart changes nothing: what is restored from what was saved goes on alike.
        #[test]
        fn what_is_saved_is_all_there_is_to_know(counts in days()) {
            let (ana, wiki) = (name("ana"), name("wiki"));
            let mut usual = Usual::default();
            let mut restored = Usual::default();
            for (number, amount) in &counts {
                let here = usual.add(&ana, &wiki, bytes(*amount), day(*number));
                let there = restored.add(&ana, &wiki, bytes(*amount), day(*number));
                prop_assert_eq!(here, there);
                let rows = restored.rows.values().flat_map(LiteMap::values).cloned();
                restored = Usual::restore(rows.collect());
            }
        }
    }
}
