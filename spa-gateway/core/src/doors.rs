//! Who needs which door? Two sessions behind one address can hold the same door, so one may
//! close it only when nobody else needs it.

use alloc::collections::BTreeMap;

use litemap::LiteMap;
use spa_order::Door;
use spa_proto::SessionId;

use crate::time::Moment;

/// Every open door and who holds it until when. Bounded by two doors a session.
#[derive(Debug, Default)]
pub(crate) struct DoorBook {
    holders: BTreeMap<Door, LiteMap<SessionId, Moment>>,
}

impl DoorBook {
    /// Notes that a session needs a door; gives until when the door must stay open for everybody.
    pub(crate) fn hold(&mut self, door: Door, session: SessionId, until: Moment) -> Moment {
        let nobody = || LiteMap::with_capacity(1);
        let holders = self.holders.entry(door).or_insert_with(nobody);
        holders.insert(session, until);
        holders.values().copied().max().unwrap_or(until)
    }

    /// Notes that a session does not need a door any more.
    pub(crate) fn release(&mut self, door: Door, session: SessionId) {
        if let Some(holders) = self.holders.get_mut(&door) {
            holders.remove(&session);
            if holders.is_empty() {
                self.holders.remove(&door);
            }
        }
    }

    /// Gives until when somebody needs the door; `None` if nobody does.
    pub(crate) fn needed_until(&self, door: Door) -> Option<Moment> {
        self.holders.get(&door)?.values().copied().max()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use core::net::{IpAddr, Ipv4Addr};

    #[test]
    fn a_shared_door_is_needed_until_its_last_holder_lets_go() {
        let door = Door {
            source: IpAddr::V4(Ipv4Addr::new(198, 51, 100, 7)),
            port: None,
        };
        let [first, second] = [1, 2].map(|byte| SessionId::from_bytes([byte; 8]));
        let mut book = DoorBook::default();
        assert_eq!(
            book.hold(door, first, Moment::from_millis(10)),
            Moment::from_millis(10)
        );
        assert_eq!(
            book.hold(door, second, Moment::from_millis(5)),
            Moment::from_millis(10)
        );
        book.release(door, first);
        assert_eq!(book.needed_until(door), Some(Moment::from_millis(5)));
        book.release(door, second);
        assert_eq!(book.needed_until(door), None);
    }
}
