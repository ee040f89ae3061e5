//! Whose turn is it for the public-key work? One knock per credential waits, the newest; turns go
//! round (SPEC §8 step 5). So a flood under one stolen key delays nobody else by more than one knock.

use alloc::collections::{BTreeMap, VecDeque};
use core::net::SocketAddr;

use spa_proto::{CredentialId, VerifiedKnock};

use crate::tags::KeyRef;

/// A knock whose V holds, and how it came.
#[derive(Debug)]
pub(crate) struct QueuedKnock {
    pub(crate) knock: VerifiedKnock,
    pub(crate) arrival: Arrival,
}

/// How a knock came: under which key, from where, to where.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Arrival {
    pub(crate) key: KeyRef,
    pub(crate) source: SocketAddr,
    pub(crate) destination: SocketAddr,
}

/// The waiting knocks. Bounded by the number of credentials.
#[derive(Debug, Default)]
pub(crate) struct Queue {
    turns: VecDeque<CredentialId>,
    waiting: BTreeMap<CredentialId, QueuedKnock>,
}

impl Queue {
    /// Queues a knock; gives back the one it pushes out. The newer keeps the older one's turn.
    pub(crate) fn push(&mut self, knock: QueuedKnock) -> Option<QueuedKnock> {
        let credential = knock.arrival.key.credential;
        let pushed_out = self.waiting.insert(credential, knock);
        if pushed_out.is_none() {
            self.turns.push_back(credential);
        }
        pushed_out
    }

    /// Takes the next knock of a credential that is `ready`.
    pub(crate) fn pop(&mut self, ready: impl Fn(CredentialId) -> bool) -> Option<QueuedKnock> {
        let at = self
            .turns
            .iter()
            .position(|credential| ready(*credential))?;
        let credential = self.turns.remove(at)?;
        self.waiting.remove(&credential)
    }

    /// Gives how many knocks wait.
    pub(crate) fn len(&self) -> usize {
        self.turns.len()
    }
}
