//! What goes through sessions: counted by the kernel for each flow, looked at now and then, to end what is idle and
//! to learn which ports are used.
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
use crate::name::Name;
use crate::outbox::Waiter;
use crate::policy::{Decision, Mode, PortRange, Resource, flows_of};
use crate::session::Phase;
use crate::time::Now;

/// How often at the most rarely: each time is one listing of all flows.
pub const COUNT_EVERY: Duration = Duration::from_secs(60);
/// How often at the most often, for an `idle` of seconds.
const SHORTEST: Duration = Duration::from_secs(5);
/// A session is found idle at the latest by this part of `idle` too late.
const PART_OF_IDLE: u32 = 4;

impl Gateway {
    /// Hears how many packets went through each open flow since it was opened, both ways together.
    pub fn handle_counts(&mut self, counts: &[(Flow, u64)], now: Now) {
        let counts: BTreeMap<Flow, u64> = counts.iter().copied().collect();
        for id in self.open_sessions() {
            let moved = self.take_counts(id, &counts, now);
            self.learn_of(id, &moved, now);
            self.end_if_idle(id, now);
        }
    }

    /// Takes over the counts of a session; gives the packets of each flow since the last count.
    fn take_counts(
        &mut self,
        id: SessionId,
        counts: &BTreeMap<Flow, u64>,
        now: Now,
    ) -> BTreeMap<Flow, u64> {
        let control_port = self.settings.control_port;
        let Some(session) = self.sessions.of_mut(id) else {
            return BTreeMap::new();
        };
        let flows = session.terms.flows.keys();
        let uses: Vec<Flow> = flows
            .filter(|flow| !is_control(flow, control_port))
            .copied()
            .collect();
        let found: BTreeMap<Flow, u64> = uses
            .iter()
            .filter_map(|flow| Some((*flow, *counts.get(flow)?)))
            .collect();
        let moved: BTreeMap<Flow, u64> = found
            .iter()
            .map(|(flow, count)| {
                let before = session.seen.counted.get(flow).copied().unwrap_or(0);
                // A flow that was opened anew counts from nothing.
                (*flow, count.checked_sub(before).unwrap_or(*count))
            })
            .filter(|(_, packets)| *packets > 0)
            .collect();
        let all_counted = found.len() == uses.len();
        if !moved.is_empty() || !all_counted || session.seen.active.is_none() {
            session.seen.active = Some(now.mono);
        }
        session.seen.counted = found;
        moved
    }

    /// Notes what a session used of resources it has only since they are being learned.
    fn learn_of(&mut self, id: SessionId, moved: &BTreeMap<Flow, u64>, now: Now) {
        if moved.is_empty() || !self.learns() {
            return;
        }
        let (Some(session), Some(on)) = (self.sessions.of(id), self.circumstances_of(id, now))
        else {
            return;
        };
        let tunnel = self.tunnel(session.terms.addresses);
        let mut seen: Vec<(Name, PortRange, u64)> = Vec::new();
        for (name, until) in &session.terms.resources {
            let observed = |resource: &&Resource| resource.mode == Mode::Observe;
            let Some(resource) = self.policy.resource(name).filter(observed) else {
                continue;
            };
            if !matches!(on.decide(name), Decision::Observe(..)) {
                continue;
            }
            let only = BTreeMap::from([(name.clone(), *until)]);
            for flow in flows_of(&self.policy, &only, tunnel, None, *until).keys() {
                let ports = resource.ports.iter().find(|ports| {
                    ports.protocol == flow.protocol && (ports.first, ports.last) == flow.ports
                });
                let packets = moved.get(flow);
                let both = ports.zip(packets);
                seen.extend(both.map(|(ports, packets)| (name.clone(), *ports, *packets)));
            }
        }
        let person = on.person.clone();
        for (resource, ports, packets) in seen {
            self.learn_packets(&person, (resource, ports), packets, now);
        }
    }

    fn end_if_idle(&mut self, id: SessionId, now: Now) {
        let (Some(idle), Some(session)) = (self.policy.defaults().idle, self.sessions.of(id))
        else {
            return;
        };
        let quiet = session.seen.active.map(|active| now.mono.since(active));
        // One that reaches nothing but the control channel has no use to lack.
        let has_use = !session.terms.resources.is_empty();
        if has_use && quiet.is_some_and(|quiet| quiet >= idle) {
            self.end_session(id, EndReason::Idle, now);
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
        let idle = self.policy.defaults().idle;
        match idle {
            Some(idle) => Some((idle / PART_OF_IDLE).clamp(SHORTEST, COUNT_EVERY)),
            None => self.learns().then_some(COUNT_EVERY),
        }
    }

    fn learns(&self) -> bool {
        let mut resources = self.policy.resources();
        resources.any(|(_, resource)| resource.mode == Mode::Observe)
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
