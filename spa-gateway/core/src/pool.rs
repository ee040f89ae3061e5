//! Which tunnel addresses does a session get? A number below the pool's size names both of them.
//!
//! Invariant: no address is given to two sessions, nor again within [`REST`] of the end of one.

use alloc::collections::{BTreeMap, BTreeSet};
use core::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use core::time::Duration;

use crate::settings::Settings;
use crate::time::Moment;

/// How long an address rests after its session (SPEC §11): packets of the old one must have died out.
pub const REST: Duration = Duration::from_secs(10 * 60);
/// The most addresses of a pool, however wide the prefix.
pub const MAX_POOL: u32 = 65_536;

/// The addresses of one session.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) struct Addresses {
    number: u32,
    pub(crate) v4: Option<Ipv4Addr>,
    pub(crate) v6: Option<Ipv6Addr>,
}

impl Addresses {
    /// Gives each of them.
    pub(crate) fn each(self) -> impl Iterator<Item = IpAddr> {
        self.v4
            .map(IpAddr::V4)
            .into_iter()
            .chain(self.v6.map(IpAddr::V6))
    }
}

/// All tunnel addresses.
#[derive(Debug)]
pub(crate) struct Pool {
    net4: Option<u32>,
    net6: Option<u128>,
    /// Numbers are 1 to `last`.
    last: u32,
    /// The number given last; numbers go round, so that each rests as long as possible.
    cursor: u32,
    taken: BTreeSet<u32>,
    /// Until when; an entry stays until its number's turn comes.
    resting: BTreeMap<u32, Moment>,
}

impl Pool {
    /// Makes the pool around the gateway's own addresses, which nobody gets.
    pub(crate) fn new(settings: &Settings) -> Self {
        let net4 = settings.tunnel4.map(|(address, prefix)| {
            let mask = u32::MAX
                .checked_shl(32 - u32::from(prefix.min(32)))
                .unwrap_or(0);
            (u32::from(address) & mask, !mask, u32::from(address) & !mask)
        });
        let net6 = settings.tunnel6.map(|(address, prefix)| {
            let mask = u128::MAX
                .checked_shl(128 - u32::from(prefix.min(128)))
                .unwrap_or(0);
            (
                u128::from(address) & mask,
                !mask,
                u128::from(address) & !mask,
            )
        });
        // The network address has number 0; the last IPv4 address is the broadcast address.
        let last4 = net4.map_or(MAX_POOL, |(_, hosts, _)| hosts.saturating_sub(1));
        let last6 = net6.map_or(MAX_POOL, |(_, hosts, _)| {
            u32::try_from(hosts).unwrap_or(MAX_POOL)
        });
        let exists = net4.is_some() || net6.is_some();
        let own4 = net4.map(|(_, _, own)| own);
        let own6 = net6.and_then(|(_, _, own)| u32::try_from(own).ok());
        Self {
            net4: net4.map(|(net, _, _)| net),
            net6: net6.map(|(net, _, _)| net),
            last: if exists {
                last4.min(last6).min(MAX_POOL)
            } else {
                0
            },
            cursor: 0,
            taken: own4.into_iter().chain(own6).collect(),
            resting: BTreeMap::new(),
        }
    }

    /// Gives addresses that are free; `None` if all are taken or rest.
    pub(crate) fn take(&mut self, now: Moment) -> Option<Addresses> {
        let rests = |number: &u32| self.resting.get(number).is_some_and(|until| *until > now);
        let round = (self.cursor + 1..=self.last).chain(1..=self.cursor.min(self.last));
        let number = round
            .into_iter()
            .find(|number| !self.taken.contains(number) && !rests(number))?;
        self.cursor = number;
        self.resting.remove(&number);
        self.taken.insert(number);
        Some(self.named(number))
    }

    /// Takes the addresses of a session that was there before a restart; `None` if they are not of
    /// this pool, or taken.
    pub(crate) fn retake(
        &mut self,
        v4: Option<Ipv4Addr>,
        v6: Option<Ipv6Addr>,
    ) -> Option<Addresses> {
        let addresses = self.find(v4, v6)?;
        self.cursor = self.cursor.max(addresses.number);
        self.taken.insert(addresses.number).then_some(addresses)
    }

    /// Lets addresses of a session that ended before a restart rest on.
    pub(crate) fn rest(&mut self, v4: Option<Ipv4Addr>, v6: Option<Ipv6Addr>, until: Moment) {
        if let Some(addresses) = self.find(v4, v6) {
            self.resting.insert(addresses.number, until);
        }
    }

    /// Takes addresses back; they rest until `until`.
    pub(crate) fn give_back(&mut self, addresses: Addresses, until: Moment) {
        if self.taken.remove(&addresses.number) {
            self.resting.insert(addresses.number, until);
        }
    }

    /// Takes addresses back that were never used.
    pub(crate) fn put_back(&mut self, addresses: Addresses) {
        self.taken.remove(&addresses.number);
    }

    fn find(&self, v4: Option<Ipv4Addr>, v6: Option<Ipv6Addr>) -> Option<Addresses> {
        let number = match (v4, self.net4, v6, self.net6) {
            (Some(v4), Some(net), _, _) => u32::from(v4).checked_sub(net)?,
            (None, None, Some(v6), Some(net)) => {
                u32::try_from(u128::from(v6).checked_sub(net)?).ok()?
            }
            _ => return None,
        };
        let addresses = self.named(number);
        let same = addresses.v4 == v4 && addresses.v6 == v6;
        ((1..=self.last).contains(&number) && same).then_some(addresses)
    }

    fn named(&self, number: u32) -> Addresses {
        Addresses {
            number,
            v4: self
                .net4
                .map(|net| Ipv4Addr::from(net.wrapping_add(number))),
            v6: self
                .net6
                .map(|net| Ipv6Addr::from(net.wrapping_add(u128::from(number)))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tests::rig::settings;

    const fn at(millis: u64) -> Moment {
        Moment::from_millis(millis)
    }

    fn pool(v4: Option<(&str, u8)>, v6: Option<(&str, u8)>) -> Pool {
        Pool::new(&Settings {
            tunnel4: v4.map(|(of, prefix)| (of.parse().expect("an address"), prefix)),
            tunnel6: v6.map(|(of, prefix)| (of.parse().expect("an address"), prefix)),
            ..settings()
        })
    }

    fn v4(last: u8) -> Option<Ipv4Addr> {
        Some(Ipv4Addr::new(10, 200, 0, last))
    }

    fn v6(last: u16) -> Option<Ipv6Addr> {
        Some(Ipv6Addr::new(0xfd5a, 1, 0, 0, 0, 0, 0, last))
    }

    /// Ten minutes (SPEC §11).
    #[test]
    fn an_address_rests_to_the_millisecond() {
        assert_eq!(REST, Duration::from_millis(600_000));
        let mut pool = pool(Some(("10.200.0.1", 30)), None);
        let only = pool.take(at(0)).expect("free");
        assert_eq!((only.v4, only.v6), (v4(2), None));
        assert_eq!(pool.take(at(0)), None);
        pool.give_back(only, at(5_000));
        assert_eq!(pool.take(at(4_999)), None);
        assert_eq!(pool.take(at(5_000)), Some(only));
        pool.put_back(only);
        assert_eq!(pool.take(at(5_000)), Some(only), "it was never used");
    }

    #[test]
    fn numbers_go_round_and_pass_over_what_is_taken() {
        let mut pool = pool(Some(("10.200.0.3", 29)), Some(("fd5a:1::3", 64)));
        let given: alloc::vec::Vec<_> = core::iter::from_fn(|| pool.take(at(0))).collect();
        let numbers: alloc::vec::Vec<u32> = given.iter().map(|of| of.number).collect();
        assert_eq!(numbers, [1, 2, 4, 5, 6]);
        pool.put_back(given[4]);
        pool.put_back(given[0]);
        pool.put_back(given[1]);
        let again = [(); 3].map(|()| pool.take(at(0)).expect("free").number);
        assert_eq!(again, [1, 2, 6], "from where it stood");
        let both: alloc::vec::Vec<IpAddr> = given[2].each().collect();
        assert_eq!((given[2].v4, given[2].v6), (v4(4), v6(4)));
        assert_eq!(both.len(), 2);
    }

    #[test]
    fn what_was_lent_before_a_restart_is_taken_again_if_it_is_of_this_pool() {
        let fresh = || pool(Some(("10.200.0.1", 29)), Some(("fd5a:1::1", 64)));
        let mut of_both = fresh();
        let taken = of_both.retake(v4(4), v6(4)).expect("free");
        assert_eq!(taken.number, 4);
        assert_eq!(of_both.retake(v4(4), v6(4)), None, "taken");
        let next = of_both.take(at(0)).expect("free");
        assert_eq!(next.number, 5, "behind the last that was lent");
        for (v4, v6) in [
            (v4(4), v6(5)),
            (v4(4), None),
            (None, v6(4)),
            (None, None),
            (v4(0), v6(0)),
            (v4(7), v6(7)),
            (Some(Ipv4Addr::new(10, 199, 0, 4)), v6(4)),
        ] {
            assert_eq!(fresh().retake(v4, v6), None, "{v4:?} {v6:?}");
        }
        assert!(fresh().retake(v4(6), v6(6)).is_some());
        let mut of_six = pool(None, Some(("fd5a:1::1", 64)));
        assert_eq!(of_six.retake(None, v6(9)).map(|of| of.number), Some(9));
        let below = Some(Ipv6Addr::new(0xfd5a, 0, 0, 0, 0, 0, 0, 9));
        assert_eq!(of_six.retake(None, below), None);
        let mut of_four = pool(Some(("10.200.0.1", 29)), None);
        assert_eq!(of_four.retake(v4(2), None).map(|of| of.number), Some(2));

        let mut resting = fresh();
        resting.rest(v4(2), v6(2), at(10));
        let numbers = [at(9), at(10)].map(|now| resting.take(now).map(|of| of.number));
        assert_eq!(numbers, [Some(3), Some(4)]);
        resting.rest(v4(7), v6(7), at(10));
        assert_eq!(resting.resting.len(), 1, "not of this pool");
    }
}
