//! What goes through sessions: counted by the kernel for each flow, looked at now and then, to end what is idle.
//!
//! Flows and not peers: keepalives and handshakes of WireGuard, and the control channel, are no use of a session.
//! Invariant: a session that could not be counted is not idle.

use alloc::collections::BTreeMap;
use alloc::vec::Vec;
use core::time::Duration;

use spa_order::{Flow, FlowTarget, Protocol};
use spa_proto::SessionId;

use crate::agenda::Timer;
use crate::closing::EndReason;
use crate::effect::EffectKind;
use crate::gateway::Gateway;
use crate::outbox::Waiter;
use crate::session::Phase;
use crate::time::Now;

/// How often at the most rarely: one listing of all flows, 1 ms for a thousand.
pub const COUNT_EVERY: Duration = Duration::from_secs(60);
/// How often at the most often, for an `idle` of seconds.
const SHORTEST: Duration = Duration::from_secs(5);
/// A session is found idle at the latest by this part of `idle` too late.
const PART_OF_IDLE: u32 = 4;

impl Gateway {
    /// Hears how many packets went through each open flow since it was opened, both ways together.
    pub fn handle_counts(&mut self, counts: &[(Flow, u64)], now: Now) {
        let counts: BTreeMap<Flow, u64> = counts.iter().copied().collect();
        let control_port = self.settings.control_port;
        let idle = self.policy.defaults().idle;
        let open = self.open_sessions();
        for id in open {
            let Some(session) = self.sessions.of_mut(id) else {
                continue;
            };
            let is_use = |flow: &&Flow| !is_control(flow, control_port);
            let found: BTreeMap<Flow, u64> = session
                .terms
                .flows
                .keys()
                .filter(is_use)
                .filter_map(|flow| Some((*flow, *counts.get(flow)?)))
                .collect();
            // A flow that was opened anew counts from nothing.
            let moved = |(flow, count): (&Flow, &u64)| {
                session.seen.counted.get(flow).copied().unwrap_or(0) != *count
            };
            let all_counted = found.len() == session.terms.flows.keys().filter(is_use).count();
            if found.iter().any(moved) || !all_counted || session.seen.active.is_none() {
                session.seen.active = Some(now.mono);
            }
            session.seen.counted = found;
            let quiet = session.seen.active.map(|active| now.mono.since(active));
            // One that reaches nothing but the control channel has no use to lack.
            let has_use = !session.terms.resources.is_empty();
            if has_use && idle.is_some_and(|idle| quiet.is_some_and(|quiet| quiet >= idle)) {
                self.end_session(id, EndReason::Idle, now);
            }
        }
    }

    /// It is time to count.
    pub(crate) fn count(&mut self, now: Now) {
        self.set_count(now);
        if self.agenda.is_set(Timer::Count) {
            self.outbox.put(EffectKind::CountFlows, Waiter::Nobody);
        }
    }

    /// Comes back to count, as long as there is a session and a reason.
    pub(crate) fn set_count(&mut self, now: Now) {
        let Some(every) = self
            .counts_every()
            .filter(|_| !self.open_sessions().is_empty())
        else {
            return self.agenda.cancel(Timer::Count);
        };
        if !self.agenda.is_set(Timer::Count) {
            self.agenda.set(Timer::Count, now.mono.after(every));
        }
    }

    fn counts_every(&self) -> Option<Duration> {
        let idle = self.policy.defaults().idle?;
        Some((idle / PART_OF_IDLE).clamp(SHORTEST, COUNT_EVERY))
    }

    fn open_sessions(&self) -> Vec<SessionId> {
        let open = self
            .sessions
            .iter()
            .filter(|(_, session)| session.phase == Phase::Open);
        open.map(|(id, _)| id).collect()
    }
}

fn is_control(flow: &Flow, port: Option<u16>) -> bool {
    let FlowTarget::Gateway = flow.to else {
        return false;
    };
    flow.protocol == Protocol::Tcp && port.is_some_and(|port| flow.ports == (port, port))
}
