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
