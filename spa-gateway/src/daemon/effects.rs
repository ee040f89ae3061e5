//! Performs what the core asks for: orders, looks, replies and audit lines in their order, records in one commit.
//!
//! What is out at the same time does not depend on each other, so a closing never waits
//! for the disk, and records that are out together share one sync.

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::time::Duration;

use spa_gateway_core::{
    AccessRecord, AuditKind, AuditRecord, Change, Effect, EffectFailure, EffectId, EffectKind,
    Passed, PeerState, Record, Reply,
};
use spa_order::{Answer, Flow, Opening, Order, PeerReport, Usage};
use tracing::{debug, error, info, warn};

use super::{AUDIT_WAITS, Daemon, DaemonError, open_queued};
use crate::access::AccessLine;
use crate::audit::AuditLine;
use crate::clock;
use crate::enforcer_link::{Given, LinkError};
use crate::store::StoreError;

/// From how many peers on one listing is asked for and not each by itself: every WireGuard we know
/// goes through all its peers for either.
const LIST_FROM: usize = 3;

/// Orders on their way to the enforcer, with what waits for each answer, and peers to look at after them.
#[derive(Default)]
struct Orders {
    orders: Vec<Order>,
    waits: Vec<EffectId>,
    looks: Vec<(EffectId, [u8; 32])>,
}

impl Daemon {
    /// Performs everything that is out now. Tells whether there was anything.
    ///
    /// What the core decided is known to the kernel's filter before anybody is answered: the new key of a
    /// device is used as soon as its reply is there.
    pub(super) fn perform(&mut self) -> Result<bool, DaemonError> {
        self.known_tags.follow(&self.gateway);
        let mut orders = Orders::default();
        let mut recorded = Vec::new();
        let mut records = Vec::new();
        let mut any = false;
        while let Some(Effect { id, kind }) = self.gateway.poll_effect() {
            any = true;
            match kind {
                EffectKind::Record(record) => {
                    recorded.push(id);
                    records.push(record);
                }
                EffectKind::Order(order) => {
                    orders.orders.push(order);
                    orders.waits.push(id);
                }
                EffectKind::Observe { wg_key } => orders.looks.push((id, wg_key)),
                EffectKind::CountFlows => {
                    self.give_orders(&mut orders)?;
                    self.count_flows()?;
                }
                EffectKind::CountConnections => {
                    self.give_orders(&mut orders)?;
                    if let Some(counted) = self.link.count_connections()? {
                        self.gateway.handle_connections(counted, clock::now());
                    }
                }
                EffectKind::Access(record) => self.write_access(record),
                // Only what is done already is answered, and a session is told that it ends before it is closed.
                EffectKind::Answer { call, answer } => self.calls.answer(call, answer),
                EffectKind::Event { session, event } => {
                    if let Some(teller) = &self.calls.teller {
                        teller.tell(session, event);
                    }
                }
                EffectKind::Reply(reply) => {
                    self.give_orders(&mut orders)?;
                    spa_failpoint::reach("daemon", "before", "reply");
                    self.reply(&reply);
                    spa_failpoint::reach("daemon", "after", "reply");
                }
                EffectKind::Audit(record) => {
                    self.give_orders(&mut orders)?;
                    self.audit(record);
                    spa_failpoint::reach("daemon", "after", "audit");
                }
            }
        }
        self.give_orders(&mut orders)?;
        self.commit(&recorded, &records);
        Ok(any)
    }

    /// Has the orders performed and reports what came of each, then looks at peers.
    fn give_orders(&mut self, orders: &mut Orders) -> Result<(), DaemonError> {
        let Orders {
            orders,
            waits,
            looks,
        } = std::mem::take(orders);
        if !orders.is_empty() {
            let Self {
                link,
                gateway,
                entropy,
                ..
            } = self;
            // Two processors then share the work: the keys of the next knocks are looked at while the enforcer opens these.
            let given = link.perform_all(&orders, || {
                open_queued(gateway, entropy);
            })?;
            let now = clock::now();
            for ((order, id), given) in orders.iter().zip(waits).zip(given) {
                match given {
                    Given::Answered(answer) => {
                        spa_failpoint::reach("daemon", "after", order.name());
                        let outcome = outcome_of(order, &answer)?;
                        self.gateway.handle_performed(id, outcome, now);
                    }
                    Given::Later(seq) => {
                        self.late.insert(seq, id);
                    }
                }
            }
        }
        if looks.len() >= LIST_FROM {
            self.look_at_all(&looks)
        } else {
            looks
                .into_iter()
                .try_for_each(|(id, key)| self.look_at(id, key))
        }
    }

    fn look_at(&mut self, id: EffectId, key: [u8; 32]) -> Result<(), DaemonError> {
        let order = Order::ReadPeer { key };
        let asked = clock::now().mono;
        let answer = self.link.perform(&order)?;
        let now = clock::now();
        match answer {
            Answer::Peer(report) => {
                let state = aged(state_of(&report), now.mono.since(asked));
                self.gateway.handle_peer(key, Some(state), now);
            }
            Answer::Absent => self.gateway.handle_peer(key, None, now),
            answer => {
                let outcome = outcome_of(&order, &answer)?;
                self.gateway.handle_performed(id, outcome, now);
            }
        }
        Ok(())
    }

    fn look_at_all(&mut self, looks: &[(EffectId, [u8; 32])]) -> Result<(), DaemonError> {
        let asked = clock::now().mono;
        let listed = self.link.try_list_peers()?;
        let now = clock::now();
        let waited = now.mono.since(asked);
        let peers: BTreeMap<[u8; 32], PeerState> = match listed {
            Ok(peers) => peers
                .iter()
                .map(|peer| (peer.key, aged(state_of(peer), waited)))
                .collect(),
            Err(answer) => {
                let outcome = outcome_of(&Order::ListPeers, &answer)?;
                for (id, _) in looks {
                    self.gateway.handle_performed(*id, outcome, now);
                }
                return Ok(());
            }
        };
        for (_, key) in looks {
            self.gateway.handle_peer(*key, peers.get(key).copied(), now);
        }
        Ok(())
    }

    /// Has the core know what went through each flow.
    fn count_flows(&mut self) -> Result<(), DaemonError> {
        let openings = self.link.list_openings()?;
        let flows = openings
            .into_iter()
            .filter_map(|(opening, usage)| match opening {
                Opening::Flow(flow) => {
                    let Usage { packets, bytes, .. } = usage;
                    Some((flow, Passed { packets, bytes }))
                }
                Opening::Door(_) => None,
            });
        let counts: Vec<(Flow, Passed)> = flows.collect();
        self.gateway.handle_counts(&counts, clock::now());
        Ok(())
    }

    /// Reports what was done late.
    pub(super) fn hear_late(&mut self) -> Result<(), DaemonError> {
        for (seq, answer) in self.link.take_late()? {
            let id = self.late.remove(&seq).ok_or(LinkError::OutOfTurn)?;
            let outcome = outcome_of(&"Forget", &answer)?;
            self.gateway.handle_performed(id, outcome, clock::now());
        }
        Ok(())
    }

    fn reply(&mut self, reply: &Reply) {
        if let Err(error) = self.replies.send(reply.from, reply.to, &reply.bytes) {
            // A repeat of the knock heals a lost reply (SPEC §10).
            debug!(%error, to = %reply.to, "reply not sent");
        }
    }

    fn audit(&mut self, record: AuditRecord) {
        let ended = (record.kind == AuditKind::SessionEnded).then_some(record.session);
        let line = AuditLine::of(record);
        info!(target: "audit", "{}", line.to_json());
        self.store.append(line);
        if let Some(session) = ended.flatten() {
            self.pending.ended(session);
        }
        let now = clock::now().mono;
        self.write_audit.get_or_insert(now.after(AUDIT_WAITS));
    }

    fn write_access(&mut self, record: AccessRecord) {
        let line = AccessLine::of(record);
        info!(target: "access", "{}", line.to_json());
        self.store.append_access(line);
        let now = clock::now().mono;
        self.write_audit.get_or_insert(now.after(AUDIT_WAITS));
    }

    /// Puts records on disk with one sync and reports each.
    fn commit(&mut self, recorded: &[EffectId], records: &[Record]) {
        if recorded.is_empty() {
            return;
        }
        let ends = |change: &Change| matches!(change, Change::SessionEnded { .. });
        let end = records.iter().flat_map(|record| &record.changes).any(ends);
        let what = if end { "record-of-end" } else { "record" };
        spa_failpoint::reach("daemon", "before", what);
        let outcome = self.store.commit(records).map_err(|error| {
            warn!(%error, records = records.len(), "nothing recorded, so nothing opened");
            error.to_string()
        });
        spa_failpoint::reach("daemon", "after", what);
        if outcome.is_ok() {
            self.write_audit = None;
        }
        let now = clock::now();
        for id in recorded {
            let (to_core, to_administrator) = match &outcome {
                Ok(()) => (Ok(()), Ok(())),
                Err(line) => (Err(EffectFailure::Store), Err(line.as_str())),
            };
            self.gateway.handle_performed(*id, to_core, now);
            self.pending.recorded(*id, to_administrator);
        }
    }

    /// Commits what is out at the end, and the audit lines that wait; opens and closes nothing.
    pub(super) fn commit_last(&mut self) -> Result<(), StoreError> {
        let mut records = Vec::new();
        while let Some(effect) = self.gateway.poll_effect() {
            match effect.kind {
                EffectKind::Record(record) => records.push(record),
                EffectKind::Audit(record) => self.audit(record),
                EffectKind::Access(record) => self.write_access(record),
                EffectKind::Order(_)
                | EffectKind::Observe { .. }
                | EffectKind::CountFlows
                | EffectKind::CountConnections
                | EffectKind::Reply(_)
                | EffectKind::Answer { .. }
                | EffectKind::Event { .. } => {}
            }
        }
        self.store.commit(&records)
    }
}

fn outcome_of(
    order: &dyn Debug,
    answer: &Answer,
) -> Result<Result<(), EffectFailure>, DaemonError> {
    match answer {
        Answer::Done => Ok(Ok(())),
        Answer::Refused(reason) => {
            warn!(?order, %reason, "the enforcer refused an order");
            Ok(Err(EffectFailure::Refused))
        }
        Answer::Failed { errno, what } => {
            let error = std::io::Error::from_raw_os_error(*errno);
            warn!(?order, %what, %error, "the enforcer could not perform an order");
            Ok(Err(EffectFailure::Failed))
        }
        Answer::Hello(_)
        | Answer::Peer(_)
        | Answer::Absent
        | Answer::Opening { .. }
        | Answer::Connections(_)
        | Answer::End => {
            error!(?order, ?answer, "the enforcer answered with another kind");
            Err(LinkError::OutOfTurn.into())
        }
    }
}

/// A handshake is as old as it may be: its age was read some time since we asked, and among thousands of peers that is long ago. One
/// that seemed newer than it is would pass for the one after a rekey.
fn aged(state: PeerState, waited: Duration) -> PeerState {
    let waited = u64::try_from(waited.as_millis()).unwrap_or(u64::MAX);
    let handshake_age_ms = state.handshake_age_ms.map(|age| age.saturating_add(waited));
    PeerState {
        handshake_age_ms,
        ..state
    }
}

/// What the enforcer reports of a peer, in the words of the core.
pub(super) fn state_of(report: &PeerReport) -> PeerState {
    PeerState {
        endpoint: report.endpoint,
        handshake_age_ms: report.handshake_age_ms,
        rx: report.rx,
        tx: report.tx,
    }
}
