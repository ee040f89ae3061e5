//! One gateway and all it stands on: the core, its store, its kernel. Performs effects as the daemon does, strictly in
//! order, fails when it is told to, and checks each effect as it comes out.

mod happens;

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::Duration;

use spa_gateway_core::{
    Change, ClockTrust, Effect, EffectFailure, EffectKind, Entropy, Gateway, Moment, Now, Passed,
    PresentPeer, Purpose, Record, Snapshot, Standing,
};
use spa_order::Order;
use spa_proto::WallTime;

use crate::client::Packet;
use crate::disk::Disk;
use crate::judge::{Judge, Known, Permit, millis};
use crate::kernel::Kernel;
use crate::place;
use crate::store::copy_of;

/// How long a gateway whose enforcer works may take to close: one retry, and a bit.
const GRACE: Duration = Duration::from_secs(2);

/// A reply on its way.
pub(crate) struct Replied {
    pub(crate) permit: Permit,
    pub(crate) bytes: Box<[u8; 512]>,
}

/// A gateway.
pub(crate) struct Host {
    number: usize,
    gateway: Option<Gateway>,
    store: Snapshot,
    disk: Disk,
    pub(crate) kernel: Kernel,
    entropy: Counting,
    pub(crate) judge: Judge,
    /// How far its clock is from the right time, milliseconds.
    pub(crate) offset: i64,
    pub(crate) trust: ClockTrust,
    pub(crate) stalled: bool,
    /// Since when effects have waited for it, and the longest that any did. A ttl counts from when its order came out, so
    /// what the daemon hangs for is added to what the kernel alone would do (docs/assurance.md).
    stalled_since: Option<Moment>,
    longest_stall: Duration,
    pub(crate) fail_orders: (u8, bool),
    pub(crate) fail_store: u8,
    /// A clock was set, so wall times are not what they were.
    pub(crate) clock_was_set: bool,
    /// Until when an address is not to be lent again.
    rests: BTreeMap<IpAddr, WallTime>,
    /// When something last failed, hung or was set.
    trouble: Moment,
    /// From when its timers are counted, and how often they rang since.
    rings: (Moment, u32),
    pub(crate) replies: Vec<Replied>,
    pub(crate) accepted: u32,
}

/// Random bytes that count up, so that every run is the same.
pub(crate) struct Counting(u64);

impl Counting {
    /// Those of one gateway.
    pub(crate) const fn of(gateway: usize) -> Self {
        Self(gateway as u64 * 1_000_000_007)
    }
}

impl Entropy for Counting {
    fn fill(&mut self, _: Purpose, out: &mut [u8]) {
        self.0 += 1;
        for (at, byte) in out.iter_mut().enumerate() {
            let turn = u8::try_from(at / 8).unwrap_or(0);
            *byte = self.0.to_le_bytes()[at % 8].wrapping_add(turn);
        }
    }
}

type Checked = Result<(), String>;

impl Host {
    pub(crate) fn new(number: usize, mono: Moment) -> Result<Self, String> {
        let store = place::store(number);
        let now = Now {
            wall: WallTime::from_millis(place::START),
            mono,
        };
        let mut host = Self {
            number,
            gateway: None,
            judge: Judge::new(number, &store, false, now),
            store,
            disk: Disk::default(),
            kernel: Kernel::default(),
            entropy: Counting::of(number),
            offset: 0,
            trust: ClockTrust::Trusted,
            stalled: false,
            stalled_since: None,
            longest_stall: Duration::ZERO,
            fail_orders: (0, false),
            fail_store: 0,
            clock_was_set: false,
            rests: BTreeMap::new(),
            trouble: mono,
            rings: (mono, 0),
            replies: Vec::new(),
            accepted: 0,
        };
        host.start(now)?;
        Ok(host)
    }

    pub(crate) const fn is_dead(&self) -> bool {
        self.gateway.is_none()
    }

    pub(crate) fn due(&self) -> Option<Moment> {
        self.gateway.as_ref()?.poll_timeout()
    }

    /// Starts from what disk and kernel have.
    pub(crate) fn start(&mut self, now: Now) -> Checked {
        self.kernel.new_table();
        let restored = Gateway::restore(
            place::settings(),
            copy_of(&self.store),
            place::policy(),
            now,
        );
        let mut gateway = restored.map_err(|error| error.to_string())?;
        gateway.handle_addresses(vec![place::address_of(self.number).ip()]);
        gateway.handle_clock(self.trust, now);
        let peers: Vec<PresentPeer> = self
            .kernel
            .peers
            .iter()
            .map(|(wg_key, peer)| PresentPeer {
                wg_key: *wg_key,
                state: peer.state,
            })
            .collect();
        gateway.handle_start(&peers, now);
        self.gateway = Some(gateway);
        self.judge = Judge::new(self.number, &self.store, self.clock_was_set, now);
        for row in &self.store.sessions {
            self.judge.restores(row, now);
        }
        for (wg_key, peer) in &self.kernel.peers {
            let endpoint = peer.state.endpoint.map(|endpoint| endpoint.ip());
            let known = self
                .judge
                .sessions
                .iter_mut()
                .filter(|known| known.wg_key == *wg_key);
            known.for_each(|known| known.sources.extend(endpoint));
        }
        self.stalled = false;
        self.trouble = now.mono;
        self.judge.strays = self.has_strays(now);
        self.settle(now)
    }

    /// Says whether a peer is there that no session accounts for, or one that is over.
    fn has_strays(&self, now: Now) -> bool {
        let live = |known: &Known| known.deadline > now.mono.as_millis();
        let mut peers = self.kernel.peers.keys();
        peers.any(|wg_key| !self.judge.known(wg_key).is_some_and(live))
    }

    /// Dies, after performing some effects of which it never hears.
    pub(crate) fn kill(&mut self, after: u8, now: Now) -> Checked {
        self.note_stall(now);
        for _ in 0..after {
            let Some(effect) = self.gateway.as_mut().and_then(Gateway::poll_effect) else {
                break;
            };
            self.perform(effect, now)?;
        }
        self.gateway = None;
        self.stalled_since = None;
        self.judge.permits.clear();
        self.judge.waiting.clear();
        self.replies.clear();
        self.trouble = now.mono;
        Ok(())
    }

    /// Does all the work and performs all effects, as a daemon does after every event.
    pub(crate) fn settle(&mut self, now: Now) -> Checked {
        self.work(now)?;
        if self.stalled {
            self.trouble = now.mono;
            return Ok(());
        }
        while self.step(now)? {}
        self.stalled_since = None;
        // One that is gone may have been reported as still there: then the next try finds out.
        self.judge.strays &= self.has_strays(now) || now.mono.since(self.trouble) <= GRACE;
        if self.gateway.is_some() && !self.judge.waiting.is_empty() {
            return Err("a knock waits though nothing is under way".into());
        }
        Ok(())
    }

    /// The daemon hangs.
    pub(crate) fn stall(&mut self, now: Now) {
        self.stalled = true;
        self.stalled_since.get_or_insert(now.mono);
    }

    fn note_stall(&mut self, now: Now) {
        let hung = self
            .stalled_since
            .map_or(Duration::ZERO, |since| now.mono.since(since));
        self.longest_stall = self.longest_stall.max(hung);
    }

    /// Performs one effect and reports it; gives whether there was one.
    pub(crate) fn step(&mut self, now: Now) -> Result<bool, String> {
        self.note_stall(now);
        let Some(effect) = self.gateway.as_mut().and_then(Gateway::poll_effect) else {
            return Ok(false);
        };
        let id = effect.id;
        let outcome = self.perform(effect, now)?;
        if let (Some(outcome), Some(gateway)) = (outcome, &mut self.gateway) {
            gateway.handle_performed(id, outcome, now);
        }
        self.work(now)?;
        Ok(true)
    }

    fn work(&mut self, now: Now) -> Checked {
        while let Some(gateway) = &mut self.gateway {
            let before = self.judge.turns(gateway);
            let Some(outcome) = gateway.handle_work(now, &mut self.entropy) else {
                break;
            };
            let after = self.judge.turns(gateway);
            let believed = gateway.is_clock_believed(now);
            let seat = before.into_iter().find(|seat| !after.contains(seat));
            self.accepted += u32::from(outcome.is_ok());
            let seat = seat.ok_or_else(|| format!("worked on nobody's knock: {outcome:?}"))?;
            self.judge
                .worked(seat, outcome, believed, &self.store, now)?;
        }
        Ok(())
    }

    fn perform(
        &mut self,
        effect: Effect,
        now: Now,
    ) -> Result<Option<Result<(), EffectFailure>>, String> {
        match effect.kind {
            EffectKind::Record(record) => self.record(record, now).map(Some),
            EffectKind::Order(order) => {
                self.check_order(&order, now)?;
                let (left, done) = self.fail_orders;
                if left == 0 {
                    self.kernel.obey(&order, now.mono);
                    return Ok(Some(Ok(())));
                }
                self.fail_orders.0 -= 1;
                if done {
                    self.kernel.obey(&order, now.mono);
                }
                self.fault(now.mono);
                Ok(Some(Err(EffectFailure::Failed)))
            }
            EffectKind::Observe { wg_key } => {
                let state = self.kernel.peers.get(&wg_key).map(|peer| peer.state);
                if let Some(gateway) = &mut self.gateway {
                    gateway.handle_peer(wg_key, state, now);
                }
                Ok(None)
            }
            EffectKind::Reply(reply) => {
                if reply.from != place::address_of(self.number) {
                    return Err(format!("a reply from {}", reply.from));
                }
                let permit = self.judge.permits.iter().position(|permit| {
                    // The reply's tag belongs to one knock alone: its own client opens it.
                    permit.to == reply.to && opens(&permit.packet, reply.bytes.as_slice())
                });
                let Some(permit) = permit else {
                    return Err(format!(
                        "a reply to {} that answers no proven knock",
                        reply.to
                    ));
                };
                let permit = self.judge.permits.remove(permit);
                let facts = &permit.packet.facts;
                let row = self
                    .store
                    .credentials
                    .iter()
                    .find(|row| place::seat_of(row.id) == facts.seat);
                if row.is_none_or(|row| row.last_ts.as_millis() < facts.ts) {
                    return Err(format!("a reply before its record is on disk: {facts:?}"));
                }
                self.judge.answers(facts, now);
                self.replies.push(Replied {
                    permit,
                    bytes: reply.bytes,
                });
                Ok(None)
            }
            EffectKind::CountConnections | EffectKind::Access(_) => Ok(None),
            EffectKind::CountFlows => {
                // Everybody is busy: each look finds more packets than the one before.
                let passed = Passed {
                    packets: now.mono.as_millis(),
                    bytes: now.mono.as_millis(),
                };
                let counts: Vec<_> = self
                    .kernel
                    .flows
                    .keys()
                    .map(|flow| (*flow, passed))
                    .collect();
                if let Some(gateway) = &mut self.gateway {
                    gateway.handle_counts(&counts, now);
                }
                Ok(None)
            }
            // Nobody calls here: the control channel has tests of its own.
            EffectKind::Audit(_) | EffectKind::Answer { .. } | EffectKind::Event { .. } => Ok(None),
        }
    }

    fn record(&mut self, record: Record, now: Now) -> Result<Result<(), EffectFailure>, String> {
        for change in &record.changes {
            if let Change::SessionOpened(row) = change {
                self.judge.opens(row)?;
            }
        }
        if self.fail_store > 0 {
            self.fail_store -= 1;
            self.fault(now.mono);
            return Ok(Err(EffectFailure::Store));
        }
        for change in record.changes {
            self.disk.take(&change)?;
            match &change {
                Change::SessionEnded { resting, .. } => {
                    let v4 = resting.tunnel4.map(IpAddr::V4);
                    let addresses = v4.into_iter().chain(resting.tunnel6.map(IpAddr::V6));
                    self.rests
                        .extend(addresses.map(|address| (address, resting.until)));
                }
                Change::PersonStanding {
                    person,
                    standing: Standing::Enabled,
                } => {
                    let names = place::CLIENTS.iter().filter(|name| ***name == **person);
                    names.for_each(|name| self.judge.person_standing(name, true));
                }
                Change::CredentialStanding {
                    credential,
                    standing,
                } => {
                    self.judge.credential_standing(
                        place::seat_of(*credential),
                        *standing == Standing::Enabled,
                    );
                }
                _ => {}
            }
            self.store.apply(change);
        }
        Ok(Ok(()))
    }

    /// Peer after record, flows and door after the peer, no address lent twice.
    fn check_order(&self, order: &Order, now: Now) -> Checked {
        match order {
            Order::Peer {
                key,
                tunnel4,
                tunnel6,
                ..
            } => {
                let Some(row) = self.store.sessions.iter().find(|row| row.wg_key == *key) else {
                    return Err("a peer before its session is on disk".into());
                };
                if (row.tunnel4, row.tunnel6) != (*tunnel4, *tunnel6) {
                    return Err("a peer with other addresses than its session".into());
                }
                let ts = self.judge.known(key).map_or(0, |known| known.ts);
                let marked = self
                    .store
                    .credentials
                    .iter()
                    .find(|marked| marked.id == row.credential);
                if marked.is_none_or(|marked| marked.last_ts.as_millis() < ts) {
                    return Err("a peer before its knock is marked on disk".into());
                }
                let known = self.judge.known(key).map_or(&[][..], |known| &known.tunnel);
                for address in known {
                    if self
                        .kernel
                        .peer_at(*address)
                        .is_some_and(|other| other != *key)
                    {
                        return Err(format!("{address} belongs to two peers"));
                    }
                    // Counted from when the end was decided: what a crash kept from being closed has no door by then.
                    let rests = self
                        .rests
                        .get(address)
                        .is_some_and(|until| now.wall < *until);
                    if rests && !self.clock_was_set {
                        return Err(format!("{address} is lent again before it has rested"));
                    }
                }
            }
            Order::Flow { flow, .. } if self.kernel.peer_at(flow.tunnel).is_none() => {
                return Err(format!("a flow before its peer: {flow:?}"));
            }
            Order::Door { door, .. } => {
                let whose = self.judge.sessions.iter().any(|known| {
                    let peer = self.kernel.peers.get(&known.wg_key);
                    let endpoint = peer.and_then(|peer| peer.state.endpoint);
                    let here = known.sources.contains(&door.source);
                    peer.is_some() && (here || endpoint.is_some_and(|at| at.ip() == door.source))
                });
                if !whose {
                    return Err(format!("a door for nobody, or before its peer: {door:?}"));
                }
            }
            _ => {}
        }
        Ok(())
    }

    /// What must hold after every step, whatever happened.
    pub(crate) fn check(&self, now: Now) -> Checked {
        let mono = now.mono;
        let lasts = |known: &Known, until: &Moment| {
            known.deadline + millis(self.longest_stall) >= until.as_millis()
        };
        for (door, until) in &self.kernel.doors {
            let whose = self.judge.sessions.iter().any(|known| {
                let here = known.sources.contains(&door.source);
                lasts(known, until)
                    && (here || self.endpoint_of(&known.wg_key) == Some(door.source))
            });
            if !whose && !self.is_dead() {
                return Err(format!(
                    "{door:?} is open until {until:?}, past every session it is for"
                ));
            }
        }
        for (flow, until) in &self.kernel.flows {
            let whose = self.judge.sessions.iter().any(|known| {
                let control = flow.destination == IpAddr::from([10, 200, 0, 1])
                    || flow.destination == IpAddr::from([0xfd5a, 1, 0, 0, 0, 0, 0, 1]);
                let person = place::person_of(known.seat);
                let granted = known
                    .resources
                    .iter()
                    .any(|name| place::destination(person, name) == Some(flow.destination));
                known.tunnel.contains(&flow.tunnel) && lasts(known, until) && (control || granted)
            });
            if !whose && !self.is_dead() {
                return Err(format!(
                    "{flow:?} is open until {until:?}: not granted, or past its session"
                ));
            }
        }
        let well = !self.is_dead() && !self.stalled && mono.since(self.trouble) > GRACE;
        for wg_key in self.kernel.peers.keys().filter(|_| well) {
            let known = self.judge.known(wg_key);
            if known.is_none_or(|known| known.deadline + 2_000 < mono.as_millis()) {
                return Err("a peer is there past its session".into());
            }
        }
        Ok(())
    }

    /// Nothing is open and nobody waits.
    pub(crate) fn check_closed(&self) -> Checked {
        let kernel = &self.kernel;
        if kernel.peers.is_empty() && kernel.doors.is_empty() && kernel.flows.is_empty() {
            return Ok(());
        }
        Err(format!(
            "still open after everything ended: {} peers, {:?}, {:?}",
            kernel.peers.len(),
            kernel.doors,
            kernel.flows
        ))
    }

    fn endpoint_of(&self, wg_key: &[u8; 32]) -> Option<IpAddr> {
        Some(self.kernel.peers.get(wg_key)?.state.endpoint?.ip())
    }

    fn fault(&mut self, now: Moment) {
        self.trouble = now;
        self.judge.doubt();
    }

    fn believes(&self, now: Now) -> bool {
        self.gateway
            .as_ref()
            .is_some_and(|gateway| gateway.is_clock_believed(now))
    }
}

/// Says whether a reply answers this packet, whatever is in it.
fn opens(packet: &Packet, reply: &[u8]) -> bool {
    use spa_proto::{DefaultRoute, ReplyError};
    let far = WallTime::from_millis(0);
    let opened = packet.pending.open_reply(reply, far, DefaultRoute::Allow);
    matches!(opened, Ok(_) | Err(ReplyError::Payload(_)))
}
