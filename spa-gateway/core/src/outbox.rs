//! The effects that may be performed now, and who waits for the outcome of each.

use alloc::boxed::Box;
use alloc::collections::{BTreeMap, VecDeque};

use spa_order::Door;
use spa_proto::SessionId;

use crate::addition::Addition;
use crate::closing::{CloseStep, ClosingId};
use crate::effect::{Effect, EffectId, EffectKind};
use crate::plan::OperationId;

/// Who is to hear what became of an effect.
#[derive(Debug)]
pub(crate) enum Waiter {
    /// The next step of a knock's operation.
    Operation(OperationId),
    /// A closing, for this step of it.
    Closing(ClosingId, CloseStep),
    /// A session whose door is being narrowed to this one.
    Settling(SessionId, Door),
    /// A session whose peer is being looked at.
    Looking(SessionId),
    /// Something an administrator or the clock adds once it is on disk.
    Addition(Box<Addition>),
    /// Nobody: the state does not hang on it.
    Nobody,
}

/// Effects on their way out.
///
/// Where many sessions end together, the doors and flows of all are closed before the peer of the first is removed: from then on
/// nothing passes, and removing ten thousand peers takes seconds. Invariant: what is put out after a closing, and is no closing
/// itself (nor a record, a line of the audit, a word to a session), stays behind all of it.
#[derive(Debug, Default)]
pub(crate) struct Outbox {
    given: u64,
    ready: VecDeque<Effect>,
    /// What closings have to do once nothing passes any more: peers and tracked connections.
    afterwards: VecDeque<Effect>,
    waiters: BTreeMap<EffectId, Waiter>,
}

impl Outbox {
    /// Puts an effect out and notes who waits for its outcome.
    pub(crate) fn put(&mut self, kind: EffectKind, waiter: Waiter) -> EffectId {
        self.given = self.given.wrapping_add(1);
        let id = EffectId(self.given);
        let effect = Effect { id, kind };
        match (&waiter, &effect.kind) {
            (Waiter::Closing(_, CloseStep::Peer(_) | CloseStep::Forget(_)), _) => {
                self.afterwards.push_back(effect);
            }
            // Records and lines are no orders, and who is told of his end is told while his peer is there.
            (Waiter::Closing(..), _)
            | (_, EffectKind::Record(_) | EffectKind::Event { .. } | EffectKind::Audit(_)) => {
                self.ready.push_back(effect);
            }
            // Whatever else: a peer that is added now may have the key of one that is to be removed first.
            _ => {
                self.ready.append(&mut self.afterwards);
                self.ready.push_back(effect);
            }
        }
        if !matches!(waiter, Waiter::Nobody) {
            self.waiters.insert(id, waiter);
        }
        id
    }

    /// Gives the next effect to perform.
    pub(crate) fn poll(&mut self) -> Option<Effect> {
        self.ready
            .pop_front()
            .or_else(|| self.afterwards.pop_front())
    }

    /// Takes out who waited for an effect.
    pub(crate) fn waiter(&mut self, id: EffectId) -> Waiter {
        self.waiters.remove(&id).unwrap_or(Waiter::Nobody)
    }

    /// Gives how many outcomes are waited for.
    #[cfg(test)]
    pub(crate) fn waited_for(&self) -> usize {
        self.waiters.len()
    }

    /// Keeps additions that are not on disk yet from being adopted: what came after them takes what they give.
    pub(crate) fn overrule(&mut self, overruled: impl Fn(&Addition) -> bool) {
        self.waiters.retain(|_, waiter| match waiter {
            Waiter::Addition(addition) => !overruled(addition),
            Waiter::Operation(_)
            | Waiter::Closing(..)
            | Waiter::Settling(..)
            | Waiter::Looking(_)
            | Waiter::Nobody => true,
        });
    }

    /// Gives what is being added, to keep a name from being added twice.
    pub(crate) fn additions(&self) -> impl Iterator<Item = &Addition> {
        self.waiters.values().filter_map(|waiter| match waiter {
            Waiter::Addition(addition) => Some(&**addition),
            Waiter::Operation(_)
            | Waiter::Closing(..)
            | Waiter::Settling(..)
            | Waiter::Looking(_)
            | Waiter::Nobody => None,
        })
    }
}

#[cfg(test)]
mod tests {
    use core::time::Duration;

    use spa_order::{Order, Ttl};

    use super::*;

    #[test]
    fn what_opens_stays_behind_all_that_closes() {
        let key = [7; 32];
        let door = Door {
            source: [192, 0, 2, 1].into(),
            port: None,
        };
        let ttl = Ttl::from_duration(Duration::from_secs(1)).expect("a time");
        let mut outbox = Outbox::default();
        let mut put = |kind, waiter| outbox.put(kind, waiter);
        put(
            EffectKind::Order(Order::RemovePeer { key }),
            Waiter::Closing(ClosingId(1), CloseStep::Peer(key)),
        );
        put(
            EffectKind::Order(Order::CloseDoor { door }),
            Waiter::Closing(ClosingId(2), CloseStep::Door(door)),
        );
        put(EffectKind::Order(Order::Door { door, ttl }), Waiter::Nobody);
        let orders = core::iter::from_fn(|| outbox.poll()).map(|effect| match effect.kind {
            EffectKind::Order(order) => order.name(),
            _ => "",
        });
        assert!(orders.eq(["close-door", "remove-peer", "door"]));
    }
}
