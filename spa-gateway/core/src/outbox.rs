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
#[derive(Debug, Default)]
pub(crate) struct Outbox {
    given: u64,
    ready: VecDeque<Effect>,
    waiters: BTreeMap<EffectId, Waiter>,
}

impl Outbox {
    /// Puts an effect out and notes who waits for its outcome.
    pub(crate) fn put(&mut self, kind: EffectKind, waiter: Waiter) -> EffectId {
        self.given = self.given.wrapping_add(1);
        let id = EffectId(self.given);
        if !matches!(waiter, Waiter::Nobody) {
            self.waiters.insert(id, waiter);
        }
        self.ready.push_back(Effect { id, kind });
        id
    }

    /// Gives the next effect to perform.
    pub(crate) fn poll(&mut self) -> Option<Effect> {
        self.ready.pop_front()
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
