//! What is learned where `mode = "observe"` lets would-be denials pass: who reached what, through which ports.
//!
//! A knock is noted in its own record, so it costs no sync of its own. Packets are counted in memory and saved
//! now and then: what a crash loses of them is minutes of a count. Nothing here decides anything.

use alloc::collections::{BTreeMap, BTreeSet};
use alloc::vec::Vec;
use core::time::Duration;

use spa_proto::WallTime;

use crate::change::{Change, Record};
use crate::effect::EffectKind;
use crate::gateway::Gateway;
use crate::name::Name;
use crate::outbox::Waiter;
use crate::policy::PortRange;
use crate::time::{Moment, Now};

/// The most rows. A further one pushes out the one not seen for longest.
pub const MAX_LEARNED: usize = 4096;
/// How long a row is kept after it was last seen.
pub const LEARNED_FOR: Duration = Duration::from_secs(30 * 24 * 60 * 60);
/// How often counted packets are saved.
const SAVE_EVERY: Duration = Duration::from_secs(5 * 60);

/// Somebody reached ports of a resource that no rule gives them.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct LearnedRow {
    /// Who.
    pub person: Name,
    /// What.
    pub resource: Name,
    /// Through which ports, as the resource has them.
    pub ports: PortRange,
    /// When first.
    pub first: WallTime,
    /// When last: let in, or seen to use it.
    pub last: WallTime,
    /// How many knocks were let in by it.
    pub knocks: u32,
    /// How many packets went through, both ways together.
    pub packets: u64,
}

type Key = (Name, Name, PortRange);

/// All of it.
#[derive(Debug, Default)]
pub(crate) struct Learned {
    rows: BTreeMap<Key, LearnedRow>,
    unsaved: BTreeSet<Key>,
    saved: Option<Moment>,
}

impl Learned {
    pub(crate) fn restore(rows: Vec<LearnedRow>) -> Self {
        let rows = rows.into_iter().map(|row| (row.key(), row)).collect();
        Self {
            rows,
            ..Self::default()
        }
    }

    /// Notes that a knock was let in; gives what the disk is to know of it.
    fn knock(&mut self, key: Key, now: WallTime) -> Vec<Change> {
        let mut changes = Vec::new();
        if !self.rows.contains_key(&key) && self.rows.len() >= MAX_LEARNED {
            let oldest = self.rows.values().min_by_key(|row| row.last);
            changes.extend(
                oldest
                    .map(LearnedRow::key)
                    .map(|oldest| self.forget(oldest)),
            );
        }
        let row = self.rows.entry(key.clone()).or_insert_with(|| LearnedRow {
            person: key.0.clone(),
            resource: key.1.clone(),
            ports: key.2,
            first: now,
            last: now,
            knocks: 0,
            packets: 0,
        });
        row.knocks = row.knocks.saturating_add(1);
        row.last = row.last.max(now);
        self.unsaved.remove(&key);
        changes.push(Change::Learned(row.clone()));
        changes
    }

    /// Notes packets of somebody who was let in.
    fn packets(&mut self, key: Key, packets: u64, now: WallTime) {
        if let Some(row) = self.rows.get_mut(&key) {
            row.packets = row.packets.saturating_add(packets);
            row.last = row.last.max(now);
            self.unsaved.insert(key);
        }
    }

    fn forget(&mut self, key: Key) -> Change {
        self.rows.remove(&key);
        self.unsaved.remove(&key);
        let (person, resource, ports) = key;
        Change::LearnedForgotten {
            person,
            resource,
            ports,
        }
    }

    /// Forgets what was not seen for long.
    fn forget_old(&mut self, now: WallTime) -> Vec<Change> {
        let old = |row: &&LearnedRow| now.since(row.last) >= LEARNED_FOR;
        let old: Vec<Key> = self
            .rows
            .values()
            .filter(old)
            .map(LearnedRow::key)
            .collect();
        old.into_iter().map(|key| self.forget(key)).collect()
    }

    /// Gives what is to be saved of what was counted.
    fn unsaved(&mut self) -> Vec<Change> {
        let unsaved = core::mem::take(&mut self.unsaved).into_iter();
        unsaved
            .filter_map(|key| Some(Change::Learned(self.rows.get(&key)?.clone())))
            .collect()
    }

    /// Forgets somebody, whom the store has forgotten.
    pub(crate) fn forget_person(&mut self, person: &Name) {
        self.rows.retain(|(of, ..), _| of != person);
        self.unsaved.retain(|(of, ..)| of != person);
    }
}

impl LearnedRow {
    /// Says whether both are about the same person, resource and ports.
    pub(crate) fn is_about(&self, other: &Self) -> bool {
        (&self.person, &self.resource, self.ports) == (&other.person, &other.resource, other.ports)
    }

    fn key(&self) -> Key {
        (self.person.clone(), self.resource.clone(), self.ports)
    }
}

impl Gateway {
    /// Gives all that was learned.
    pub fn learned(&self) -> impl Iterator<Item = &LearnedRow> {
        self.learned.rows.values()
    }

    /// Notes that a knock for a resource was let in only since it is being learned.
    pub(crate) fn learn_knock(&mut self, person: &Name, resource: &Name, now: Now) -> Vec<Change> {
        let ports = self
            .policy
            .resource(resource)
            .map(|resource| resource.ports.clone())
            .unwrap_or_default();
        ports
            .into_iter()
            .flat_map(|ports| {
                let key = (person.clone(), resource.clone(), ports);
                self.learned.knock(key, now.wall)
            })
            .collect()
    }

    /// Notes packets that went through ports of a resource that is being learned.
    pub(crate) fn learn_packets(
        &mut self,
        person: &Name,
        (resource, ports): (Name, PortRange),
        packets: u64,
        now: Now,
    ) {
        let key = (person.clone(), resource, ports);
        self.learned.packets(key, packets, now.wall);
    }

    /// Saves what was counted, if it is time or the process stops, and forgets what is old.
    pub(crate) fn save_learned(&mut self, at_once: bool, now: Now) {
        let due = |saved| now.mono.since(saved) >= SAVE_EVERY;
        let mut changes = self.learned.forget_old(now.wall);
        if at_once || self.learned.saved.is_none_or(due) {
            self.learned.saved = Some(now.mono);
            changes.extend(self.learned.unsaved());
        }
        if !changes.is_empty() {
            self.outbox
                .put(EffectKind::Record(Record { changes }), Waiter::Nobody);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(person: &str) -> Key {
        let name = |text| Name::parse(text).expect("a name");
        let ports = PortRange::parse("502/tcp").expect("ports");
        (name(person), name("plc"), ports)
    }

    #[test]
    fn the_row_not_seen_for_longest_makes_room() {
        let mut learned = Learned::default();
        let at = |millis: usize| WallTime::from_millis(u64::try_from(millis).expect("small"));
        for number in 0..MAX_LEARNED {
            let changes = learned.knock(key(&alloc::format!("p{number}")), at(number));
            assert_eq!(changes.len(), 1);
        }
        learned.packets(key("p0"), 9, at(MAX_LEARNED));
        let changes = learned.knock(key("new"), at(MAX_LEARNED + 1));
        assert!(
            matches!(&changes[..], [Change::LearnedForgotten { person, .. }, Change::Learned(_)] if person.as_str() == "p1"),
            "{changes:?}"
        );
        assert_eq!(learned.rows.len(), MAX_LEARNED);
        assert_eq!(learned.unsaved().len(), 1, "the packets of p0");
        assert!(learned.unsaved().is_empty());
        // Nobody who was not let in is noted for packets.
        learned.packets(key("p1"), 9, at(1));
        assert!(!learned.rows.contains_key(&key("p1")));
    }

    #[test]
    fn what_was_not_seen_for_a_month_is_forgotten() {
        let mut learned = Learned::default();
        let start = WallTime::from_millis(1_000);
        let _ = learned.knock(key("ana"), start);
        let month = start.saturating_add(LEARNED_FOR);
        assert!(
            learned
                .forget_old(month.saturating_sub(Duration::from_millis(1)))
                .is_empty()
        );
        assert_eq!(learned.forget_old(month).len(), 1);
        assert!(learned.rows.is_empty());
    }
}
