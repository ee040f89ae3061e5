//! What goes through sessions: counted by the kernel for each flow, looked at now and then, to end what is idle, to
//! learn which ports are used, and to tell what is more than usual.
//!
//! Flows and not peers: keepalives and handshakes of WireGuard, and the control channel, are no use of a session.
//! Invariant: a session that could not be counted is not idle.

use alloc::collections::BTreeMap;
use alloc::vec::Vec;
use core::time::Duration;

use litemap::LiteMap;
use spa_order::{Flow, FlowTarget, Protocol};
use spa_proto::SessionId;

use crate::agenda::Timer;
use crate::closing::EndReason;
use crate::effect::EffectKind;
use crate::gateway::Gateway;
use crate::name::Name;
use crate::outbox::Waiter;
use crate::policy::{Decision, Mode, Network, PortRange, Resource, flows_of};
use crate::session::Phase;
use crate::time::Now;
use crate::usual::Amount;

/// How often at the most rarely: each time is one listing of all flows.
pub const COUNT_EVERY: Duration = Duration::from_secs(60);
/// How often at the most often, for an `idle` of seconds.
const SHORTEST: Duration = Duration::from_secs(5);
/// A session is found idle at the latest by this part of `idle` too late.
const PART_OF_IDLE: u32 = 4;

impl Gateway {
    /// Hears what went through each open flow since it was opened, both ways together.
    pub fn handle_counts(&mut self, counts: &[(Flow, Passed)], now: Now) {
        let counts: BTreeMap<Flow, Passed> = counts.iter().copied().collect();
        for id in self.open_sessions() {
            let moved = self.take_counts(id, &counts, now);
            self.learn_of(id, &moved, now);
            self.use_of(id, &moved, now);
            self.end_if_idle(id, now);
        }
    }

    /// Takes over the counts of a session; gives what went through each flow since the last count.
    fn take_counts(
        &mut self,
        id: SessionId,
        counts: &BTreeMap<Flow, Passed>,
        now: Now,
    ) -> LiteMap<Flow, Passed> {
        let control_port = self.settings.control_port;
        let Some(session) = self.sessions.of_mut(id) else {
            return LiteMap::new();
        };
        let flows = session.terms.flows.keys();
        let uses: Vec<Flow> = flows
            .filter(|flow| !is_control(flow, control_port))
            .copied()
            .collect();
        let mut found: LiteMap<Flow, Passed> = LiteMap::with_capacity(uses.len());
        found.extend(
            uses.iter()
                .filter_map(|flow| Some((*flow, *counts.get(flow)?))),
        );
        let moved: LiteMap<Flow, Passed> = found
            .iter()
            .map(|(flow, count)| {
                let before = session.seen.counted.get(flow).copied();
                (*flow, count.since(before.unwrap_or_default()))
            })
            .filter(|(_, passed)| passed.packets > 0)
            .collect();
        let all_counted = found.len() == uses.len();
        if !moved.is_empty() || !all_counted || session.seen.active.is_none() {
            session.seen.active = Some(now.mono);
        }
        session.seen.counted = found;
        moved
    }

    /// Notes what a session used of resources it has only since they are being learned.
    fn learn_of(&mut self, id: SessionId, moved: &LiteMap<Flow, Passed>, now: Now) {
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
            let only = LiteMap::from_iter([(name.clone(), *until)]);
            for flow in flows_of(&self.policy, &only, tunnel, None, *until).keys() {
                let ports = resource.ports.iter().find(|ports| {
                    ports.protocol == flow.protocol && (ports.first, ports.last) == flow.ports
                });
                let packets = moved.get(flow).map(|passed| &passed.packets);
                let both = ports.zip(packets);
                seen.extend(both.map(|(ports, packets)| (name.clone(), *ports, *packets)));
            }
        }
        let person = on.person.clone();
        for (resource, ports, packets) in seen {
            self.learn_packets(&person, (resource, ports), packets, now);
        }
    }

    /// Adds what went through to what its person did today, resource by resource.
    fn use_of(&mut self, id: SessionId, moved: &LiteMap<Flow, Passed>, now: Now) {
        let Some(session) = self.sessions.of(id).filter(|_| !moved.is_empty()) else {
            return;
        };
        let Some(credential) = self.credentials.get(&session.credential) else {
            return;
        };
        let tunnel = self.tunnel(session.terms.addresses);
        let mut used: Vec<(Name, u64)> = Vec::new();
        for (name, until) in &session.terms.resources {
            let only = LiteMap::from_iter([(name.clone(), *until)]);
            let own = flows_of(&self.policy, &only, tunnel, None, *until);
            // Where resources share ground the flow that is open is that of the wider one.
            let of_it = |flow: &Flow| own.keys().any(|own| own == flow || within(flow, own));
            let bytes = moved.iter().filter(|(flow, _)| of_it(flow));
            let bytes = bytes.fold(0, |sum: u64, (_, passed)| sum.saturating_add(passed.bytes));
            if bytes > 0 {
                used.push((name.clone(), bytes));
            }
        }
        let person = credential.person.clone();
        for (resource, bytes) in used {
            let amount = Amount {
                bytes,
                connections: 0,
            };
            self.used(&person, &resource, amount, now);
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
        let Some(every) = self.counts_every().filter(|_| {
            self.sessions
                .iter()
                .any(|(_, session)| session.phase == Phase::Open)
        }) else {
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
            None => (self.learns() || self.weighs_use()).then_some(COUNT_EVERY),
        }
    }

    /// Says whether how much somebody moves is of any weight.
    fn weighs_use(&self) -> bool {
        self.policy.weights().unusual_volume > 0
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

/// What went through a flow, both ways together.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Passed {
    /// Packets.
    pub packets: u64,
    /// Bytes, with their IP headers.
    pub bytes: u64,
}

impl Passed {
    /// Gives what came after an earlier count. A flow that was opened anew counts from nothing.
    fn since(self, before: Self) -> Self {
        let Some(packets) = self.packets.checked_sub(before.packets) else {
            return self;
        };
        Self {
            packets,
            bytes: self.bytes.saturating_sub(before.bytes),
        }
    }
}

/// Says whether all that one flow lets through another does too.
fn within(narrow: &Flow, wide: &Flow) -> bool {
    narrow.tunnel == wide.tunnel
        && narrow.to == wide.to
        && narrow.protocol == wide.protocol
        && narrow.prefix >= wide.prefix
        && Network::around(narrow.destination, wide.prefix)
            == Network::around(wide.destination, wide.prefix)
        && wide.ports.0 <= narrow.ports.0
        && narrow.ports.1 <= wide.ports.1
}

fn is_control(flow: &Flow, port: Option<u16>) -> bool {
    let FlowTarget::Gateway = flow.to else {
        return false;
    };
    flow.protocol == Protocol::Tcp && port.is_some_and(|port| flow.ports == (port, port))
}
