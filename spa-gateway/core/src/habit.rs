//! What is usual for a person: from which networks, at which hours. Feeds the risk; decides nothing.
//!
//! What is learned is on disk with the record of the knock that taught it, so a restart forgets nothing.

use core::net::IpAddr;
use core::time::Duration;

use litemap::LiteMap;
use spa_proto::WallTime;

use crate::change::Change;
use crate::name::Name;
use crate::policy::{HourSeen, Network, NetworkSeen, Signals};
use crate::snapshot::HabitRow;

/// The most networks remembered of one person.
const MAX_NETWORKS: usize = 32;
/// How long a network stays known.
const KNOWN_FOR: Duration = Duration::from_secs(30 * 24 * 60 * 60);
/// Fewer knocks than this say nothing about hours.
const ENOUGH_KNOCKS: u32 = 20;
const HOURS: usize = 24;

/// The habits of one person.
#[derive(Clone, Debug, Default)]
pub(crate) struct Habits {
    networks: LiteMap<Network, WallTime>,
    hours: [u32; HOURS],
}

impl Habits {
    /// Weighs a knock against what was usual before.
    pub(crate) fn signals(
        &self,
        source: IpAddr,
        hour: usize,
        failures: u32,
        now: WallTime,
    ) -> Signals {
        let last = self.networks.get(&neighbourhood(source));
        let network = match last {
            Some(last) if now.since(*last) <= KNOWN_FOR => NetworkSeen::Known(*last),
            Some(_) | None => NetworkSeen::New,
        };
        let knocks: u32 = self.hours.iter().sum();
        let near = [hour + HOURS - 1, hour, hour + 1];
        let usual = near
            .iter()
            .any(|hour| self.hours.get(hour % HOURS).is_some_and(|seen| *seen > 0));
        let hour = match (knocks >= ENOUGH_KNOCKS, usual) {
            (false, _) => HourSeen::Unknown,
            (true, true) => HourSeen::Usual,
            (true, false) => HourSeen::Unusual,
        };
        Signals {
            network,
            hour,
            failures,
        }
    }

    pub(crate) fn restore(row: HabitRow) -> Self {
        Self {
            networks: row.networks.into_iter().collect(),
            hours: row.hours,
        }
    }

    /// Takes note of a knock of `person` that is let in; gives what the disk is to know of it.
    pub(crate) fn learn(
        &mut self,
        person: &Name,
        source: IpAddr,
        hour: usize,
        now: WallTime,
    ) -> Change {
        let network = neighbourhood(source);
        self.networks.insert(network, now);
        let mut forgotten = None;
        if self.networks.len() > MAX_NETWORKS {
            let oldest = self.networks.iter().min_by_key(|(_, last)| **last);
            forgotten = oldest.map(|(network, _)| *network);
            forgotten.map(|oldest| self.networks.remove(&oldest));
        }
        let hour = hour % HOURS;
        if let Some(seen) = self.hours.get_mut(hour) {
            *seen = seen.saturating_add(1);
        }
        Change::HabitSeen {
            person: person.clone(),
            network,
            hour: u8::try_from(hour).unwrap_or(0),
            at: now,
            forgotten,
        }
    }
}

/// Gives the network an address is taken for: /24, or /48.
fn neighbourhood(source: IpAddr) -> Network {
    let address = source.to_canonical();
    let prefix = if address.is_ipv4() { 24 } else { 48 };
    Network::around(address, prefix)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ana() -> Name {
        Name::parse("ana").expect("a name")
    }

    #[test]
    fn a_network_is_new_once_and_after_a_month_again() {
        let mut habits = Habits::default();
        let now = WallTime::from_millis(1_800_000_000_000);
        let source = IpAddr::from([203, 0, 113, 9]);
        let network = |habits: &Habits, at| habits.signals(source, 9, 0, at).network;
        assert_eq!(network(&habits, now), NetworkSeen::New);
        let _ = habits.learn(&ana(), IpAddr::from([203, 0, 113, 77]), 9, now);
        assert_eq!(network(&habits, now), NetworkSeen::Known(now));
        let later = now.saturating_add(KNOWN_FOR + Duration::from_secs(1));
        assert_eq!(network(&habits, later), NetworkSeen::New);
        for host in 0..100 {
            let _ = habits.learn(&ana(), IpAddr::from([10, 0, host, 1]), 9, later);
        }
        assert_eq!(habits.networks.len(), MAX_NETWORKS);
    }

    #[test]
    fn hours_are_told_after_enough_knocks_and_midnight_has_neighbours() {
        let mut habits = Habits::default();
        let now = WallTime::from_millis(1_800_000_000_000);
        let source = IpAddr::from([203, 0, 113, 9]);
        assert_eq!(habits.signals(source, 3, 0, now).hour, HourSeen::Unknown);
        for _ in 0..ENOUGH_KNOCKS {
            let _ = habits.learn(&ana(), source, 23, now);
        }
        assert_eq!(habits.signals(source, 0, 0, now).hour, HourSeen::Usual);
        assert_eq!(habits.signals(source, 3, 0, now).hour, HourSeen::Unusual);
    }
}
