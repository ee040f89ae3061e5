//! Calls of the control channel on their way to the core, and back.

use std::collections::BTreeMap;

use spa_gateway_core::{CallAnswer, CallId, CallRefusal, Caller};
use tokio::sync::oneshot;

use super::Daemon;
use crate::channel::{Called, Teller};
use crate::clock;

/// Calls that are with the core. Each is an open connection, and few at once: see `channel`.
#[derive(Debug)]
pub(super) struct Calls {
    last: u64,
    waiting: BTreeMap<CallId, oneshot::Sender<Result<CallAnswer, CallRefusal>>>,
    /// Where events go; `None` while nobody serves the channel.
    pub(super) teller: Option<Teller>,
}

impl Calls {
    pub(super) const fn new(teller: Option<Teller>) -> Self {
        Self {
            last: 0,
            waiting: BTreeMap::new(),
            teller,
        }
    }

    /// Gives a call its answer. Whoever called may be gone.
    pub(super) fn answer(&mut self, call: CallId, answer: Result<CallAnswer, CallRefusal>) {
        if let Some(waiting) = self.waiting.remove(&call) {
            let _ = waiting.send(answer);
        }
    }
}

impl Daemon {
    /// Hands a call to the core.
    pub(super) fn call(&mut self, called: Called) {
        let Called {
            source,
            bearer,
            call,
            answer,
        } = called;
        self.calls.last = self.calls.last.wrapping_add(1);
        let id = CallId(self.calls.last);
        self.calls.waiting.insert(id, answer);
        let caller = Caller {
            source,
            bearer: &bearer,
        };
        self.gateway
            .handle_call(id, caller, call, clock::now(), &mut self.entropy);
    }
}
