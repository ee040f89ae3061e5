//! What keeps a session true while it lives, and what a restart forgets of it: reports that are missing, and
//! the rekey (SPEC §12).

use core::time::Duration;

use spa_proto::WgPsk;

use crate::access::AccessMeter;
use crate::bucket::{Bucket, REKEYS};
use crate::time::Moment;

/// How long the handshake after a rekey is looked for often: the client makes it at once.
const SOON: Duration = Duration::from_secs(5);

/// What is kept of a live session beside what it has.
#[derive(Debug)]
pub(crate) struct Upkeep {
    /// How many reports in a row did not come.
    pub(crate) missed: u32,
    /// The preshared key of the reply, from which every rekey starts; `None` after a restart.
    pub(crate) psk: Option<WgPsk>,
    pub(crate) rekey: Rekeyed,
    /// A handshake after a rekey was seen, so all that flows since is safe from a later quantum computer.
    pub(crate) quantum_safe: bool,
    pub(crate) rekeys: Bucket,
    /// It called, so somebody is there to be told things.
    pub(crate) speaks: bool,
    /// How much of the access log it may still fill.
    pub(crate) access: AccessMeter,
}

/// How far the last rekey has come.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Rekeyed {
    /// Not begun.
    Not,
    /// The new key is set; what counts is a handshake after that. `seen`: the last look saw one.
    Set { at: Moment, seen: bool },
    /// Its handshake was seen.
    Done,
}

impl Upkeep {
    /// Begins to keep a session up.
    pub(crate) fn new(now: Moment) -> Self {
        Self {
            missed: 0,
            psk: None,
            rekey: Rekeyed::Not,
            quantum_safe: false,
            rekeys: Bucket::full(&REKEYS, now),
            speaks: false,
            access: AccessMeter::new(now),
        }
    }

    /// The peer begins anew, with the preshared key of another reply.
    pub(crate) fn begin_with(&mut self, psk: WgPsk) {
        self.psk = Some(psk);
        self.rekey = Rekeyed::Not;
        self.quantum_safe = false;
    }

    /// Says whether a handshake is expected any moment.
    pub(crate) fn awaits_handshake(&self, now: Moment) -> bool {
        match self.rekey {
            Rekeyed::Set { at, seen } => seen || now.since(at) < SOON,
            Rekeyed::Not | Rekeyed::Done => false,
        }
    }
}
