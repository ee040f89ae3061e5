//! Locks: an administrator's "no", above all policy. Whom do they name, and until when?
//!
//! Invariant: a lock is in force from the moment it is set, and is lifted only once that is on disk.

use alloc::collections::BTreeMap;
use alloc::string::{String, ToString};
use core::fmt;
use core::net::IpAddr;

use spa_proto::WallTime;

use crate::admin::DeviceRef;
use crate::name::Name;
use crate::policy::Network;

/// The most locks at once.
pub const MAX_LOCKS: usize = 1024;

/// Whom a lock names.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum LockTarget {
    /// Everybody.
    All,
    /// A person or machine.
    Person(Name),
    /// One device.
    Device(DeviceRef),
    /// Everybody who knocks from there.
    Source(Network),
}

/// A lock.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct LockRow {
    /// Whom it names.
    pub target: LockTarget,
    /// When it ends by itself; `None` is when it is lifted.
    pub until: Option<WallTime>,
    /// Why, in the words of the administrator.
    pub why: String,
}

/// All locks.
#[derive(Debug, Default)]
pub(crate) struct Locks(BTreeMap<LockTarget, LockRow>);

impl Locks {
    pub(crate) fn put(&mut self, row: LockRow) {
        self.0.insert(row.target.clone(), row);
    }

    pub(crate) fn remove(&mut self, target: &LockTarget) -> Option<LockRow> {
        self.0.remove(target)
    }

    pub(crate) fn has(&self, target: &LockTarget) -> bool {
        self.0.contains_key(target)
    }

    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &LockRow> {
        self.0.values()
    }

    /// Gives a lock that holds somebody back.
    pub(crate) fn on(
        &self,
        person: &Name,
        label: &str,
        source: IpAddr,
        now: WallTime,
    ) -> Option<&LockRow> {
        self.0.values().find(|lock| {
            lock.until.is_none_or(|until| now < until)
                && match &lock.target {
                    LockTarget::All => true,
                    LockTarget::Person(name) => name == person,
                    LockTarget::Device(device) => device.person == *person && device.label == label,
                    LockTarget::Source(network) => network.holds(source),
                }
        })
    }
}

impl LockTarget {
    /// Reads "user:ana", "device:ana/laptop", "source:203.0.113.0/24" or "all".
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        if text == "all" {
            return Some(Self::All);
        }
        let (kind, rest) = text.split_once(':')?;
        match kind {
            "user" => Name::parse(rest).ok().map(Self::Person),
            "device" => {
                let (person, label) = rest.split_once('/')?;
                Some(Self::Device(DeviceRef {
                    person: Name::parse(person).ok()?,
                    label: label.to_string(),
                }))
            }
            "source" => Network::parse(rest).map(Self::Source),
            _ => None,
        }
    }
}

impl fmt::Display for LockTarget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::All => f.write_str("all"),
            Self::Person(name) => write!(f, "user:{name}"),
            Self::Device(device) => write!(f, "device:{}/{}", device.person, device.label),
            Self::Source(network) => write!(f, "source:{network}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_target_is_written_as_it_is_read() {
        for text in [
            "all",
            "user:ana",
            "device:ana/her laptop/2",
            "source:203.0.113.0/24",
            "source:fd00::/8",
        ] {
            let target = LockTarget::parse(text).expect(text);
            assert_eq!(target.to_string(), text);
        }
        for bad in [
            "",
            "ana",
            "user:",
            "user:a b",
            "device:ana",
            "source:203.0.113.1/24",
            "All",
        ] {
            assert_eq!(LockTarget::parse(bad), None, "{bad}");
        }
    }

    #[test]
    fn a_lock_that_has_ended_holds_nobody_back() {
        let mut locks = Locks::default();
        let at = WallTime::from_millis;
        locks.put(LockRow {
            target: LockTarget::parse("source:203.0.113.0/24").expect("a target"),
            until: Some(at(10)),
            why: String::new(),
        });
        let ana = Name::parse("ana").expect("a name");
        let on = |source: [u8; 4], now| locks.on(&ana, "laptop", source.into(), at(now)).is_some();
        assert!(on([203, 0, 113, 9], 9));
        assert!(!on([203, 0, 113, 9], 10));
        assert!(!on([203, 0, 114, 9], 9));
    }
}
