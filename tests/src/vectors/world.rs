//! A gateway put into the state of a vector, with a store and an enforcer that always succeed.
//!
//! Replies are comparable byte for byte only where the payloads are the same, and ours say more than
//! the model's. So a reply is opened (from the gateway's side: the checker knows `e_s`), its fields
//! are compared, and the other implementation's keys are put in place of ours afterwards.

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};

use spa_gateway_core::{
    Change, ClockTrust, Datagram, EffectKind, Entropy, Gateway, KeyKind, Moment, Now, PeerState,
    Policy, PresentPeer, Purpose, Refusal, Settings, Snapshot,
};
use spa_order::Order;
use spa_proto::{
    CredentialKey, DerivedKeys, Op, OpenedKnock, PAYLOAD_LEN, ReplyKeys, SealedKnock, SessionId,
    SessionKey, Slot, WallTime, intermediates,
};

use super::case::{Case, Checked, Failure, refused};
use super::state::{KNOCKED, policy, recollection, settings, snapshot};

/// The moment of `state.now`, so that what was before it has a moment too.
const START: Moment = Moment::from_millis(1 << 40);

/// A gateway and all that is around it.
pub struct World {
    gateway: Gateway,
    store: Snapshot,
    settings: Settings,
    policy: Policy,
    trust: ClockTrust,
    own_addresses: Vec<IpAddr>,
    peers: BTreeSet<[u8; 32]>,
    /// What the vector injects for the next packet.
    injected: Injected,
    first: WallTime,
    latest: Now,
    /// Every refusal so far.
    met: BTreeSet<Refusal>,
}

/// Random values that a vector gives, and a count that makes all others differ.
#[derive(Default)]
pub struct Injected {
    /// `e_s` of the next reply.
    pub e_s: Option<[u8; 32]>,
    /// The id of the next session.
    pub session: Option<[u8; 8]>,
    count: u8,
}

/// One packet.
pub struct Packet<'a> {
    pub bytes: &'a [u8],
    pub source: SocketAddr,
    pub on_loopback: bool,
    pub fragment: bool,
}

/// How far the effects of a knock are performed.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Until {
    /// All of them.
    End,
    /// The process dies just before the first record.
    BeforeRecord,
    /// Or just after it.
    AfterRecord,
}

impl Entropy for Injected {
    fn fill(&mut self, purpose: Purpose, out: &mut [u8]) {
        self.count = self.count.wrapping_add(1);
        out.fill(self.count);
        match (purpose, self.e_s, self.session) {
            (Purpose::ReplyKey, Some(e_s), _) => out.copy_from_slice(&e_s),
            (Purpose::SessionId, _, Some(session)) => out.copy_from_slice(&session),
            (
                Purpose::ReplyKey | Purpose::SessionId | Purpose::CredentialId | Purpose::Secret,
                _,
                _,
            ) => {}
        }
    }
}

impl World {
    /// Puts a gateway into the state of a case.
    pub fn new(state: &Case<'_>) -> Checked<Self> {
        let first = WallTime::from_millis(state.u64("now")?);
        let now = Now {
            wall: first,
            mono: START,
        };
        let settings = settings(state)?;
        let policy = policy(state)?;
        let trusted = !state.has("clock_trusted") || state.bool("clock_trusted")?;
        let trust = if trusted {
            ClockTrust::Trusted
        } else {
            ClockTrust::Untrusted
        };
        let own = state
            .value("own_addresses")?
            .as_array()
            .into_iter()
            .flatten();
        let own: Option<Vec<IpAddr>> = own.map(|text| text.as_str()?.parse().ok()).collect();
        let own_addresses = own.ok_or_else(|| Failure::new("own_addresses are no addresses"))?;
        let store = snapshot(state, first)?;
        let restored = Gateway::restore(settings.clone(), store.duplicate(), policy.clone(), now);
        let mut world = Self {
            gateway: restored.map_err(refused("the state"))?,
            store,
            settings,
            policy,
            trust,
            own_addresses,
            peers: BTreeSet::new(),
            injected: Injected::default(),
            first,
            latest: now,
            met: BTreeSet::new(),
        };
        world.wake(now);
        for credential in state.cases("credentials")? {
            let (id, recollection) = recollection(&credential, first)?;
            world.gateway.recollect(id, &recollection, now);
        }
        Ok(world)
    }

    /// Sets the clock; gives both clocks. The monotonic one does not follow it back.
    pub fn at(&mut self, wall: u64) -> Now {
        let wall = WallTime::from_millis(wall);
        let mono = START.after(wall.since(self.first));
        self.latest = Now {
            wall,
            mono: mono.max(self.latest.mono),
        };
        self.latest
    }

    /// Gives the random values of the next packet to the gateway.
    pub fn inject(&mut self, e_s: Option<[u8; 32]>, session: Option<[u8; 8]>) {
        self.injected.e_s = e_s;
        self.injected.session = session;
    }

    /// Hands a packet in: steps 0 to 4. `Ok` says that it is queued.
    pub fn take_in(&mut self, packet: &Packet<'_>) -> Result<(), Refusal> {
        let datagram = Datagram {
            payload: packet.bytes,
            source: packet.source,
            destination: KNOCKED,
            on_loopback: packet.on_loopback,
            fragment: packet.fragment,
        };
        let taken = self.gateway.handle_datagram(datagram, self.latest);
        self.met.extend(taken.err());
        self.met
            .extend((self.pushed_out() > 0).then_some(Refusal::PushedOut));
        taken
    }

    /// Works on the next queued knock: steps 5 to 11.
    pub fn work(&mut self) -> Option<Result<(), Refusal>> {
        let outcome = self.gateway.handle_work(self.latest, &mut self.injected);
        self.met.extend(outcome.and_then(Result::err));
        outcome
    }

    /// Gives every refusal so far.
    pub fn met(&self) -> &BTreeSet<Refusal> {
        &self.met
    }

    /// How many knocks were pushed out of the queue so far.
    pub fn pushed_out(&self) -> u32 {
        self.gateway.counters().of(Refusal::PushedOut)
    }

    /// Performs effects; gives the replies.
    pub fn perform(&mut self, until: Until) -> Vec<[u8; 512]> {
        let mut replies = Vec::new();
        while let Some(effect) = self.gateway.poll_effect() {
            match effect.kind {
                EffectKind::Record(_) if until == Until::BeforeRecord => break,
                EffectKind::Record(record) => {
                    record
                        .changes
                        .into_iter()
                        .for_each(|change| self.store.apply(change));
                    if until == Until::AfterRecord {
                        break;
                    }
                }
                EffectKind::Order(Order::Peer { key, .. }) => {
                    self.peers.insert(key);
                }
                EffectKind::Order(Order::RemovePeer { key }) => {
                    self.peers.remove(&key);
                }
                EffectKind::Order(_)
                | EffectKind::Observe { .. }
                | EffectKind::CountFlows
                | EffectKind::Audit(_)
                | EffectKind::Access(_)
                | EffectKind::CountConnections
                | EffectKind::Answer { .. }
                | EffectKind::Event { .. } => {}
                EffectKind::Reply(reply) => replies.push(*reply.bytes),
            }
            self.gateway
                .handle_performed(effect.id, Ok(()), self.latest);
        }
        replies
    }

    /// The process starts again with what its store has.
    pub fn restart(&mut self) -> Checked {
        let (settings, policy) = (self.settings.clone(), self.policy.clone());
        let restored = Gateway::restore(settings, self.store.duplicate(), policy, self.latest);
        self.gateway = restored.map_err(refused("the store"))?;
        self.wake(self.latest);
        let state = seen(KNOCKED, 0);
        let peers: Vec<_> = self
            .peers
            .iter()
            .map(|key| PresentPeer {
                wg_key: *key,
                state,
            })
            .collect();
        self.gateway.handle_start(&peers, self.latest);
        self.perform(Until::End);
        Ok(())
    }

    /// WireGuard has seen the handshake of every peer there is.
    pub fn handshake(&mut self) {
        for key in self.peers.clone() {
            self.gateway
                .handle_peer(key, Some(seen(KNOCKED, 148)), self.latest);
        }
        self.perform(Until::End);
    }

    /// Opens a reply to a packet; gives its payload if it is what our own sealing makes of it.
    pub fn open(&self, packet: &[u8], e_s: &[u8; 32], reply: &[u8]) -> Checked<[u8; PAYLOAD_LEN]> {
        let keys = self.opened(packet)?.reply_keys();
        // One key for any payload (SPEC §6): sealing zeros gives the key stream.
        let stream = sealed(&keys, e_s, &[0; PAYLOAD_LEN], "C2")?;
        let c2 = reply.get(40..).unwrap_or_default();
        let mut payload = [0; PAYLOAD_LEN];
        for (byte, (c, k)) in payload.iter_mut().zip(c2.iter().zip(&stream)) {
            *byte = c ^ k;
        }
        let again = sealed(&keys, e_s, &payload, "packet")?;
        if again == reply {
            Ok(payload)
        } else {
            Err(Failure::new("the reply does not open"))
        }
    }

    /// The key of a live session becomes that of the other implementation.
    pub fn replace_session_key(&mut self, session: SessionId, key: [u8; 32]) {
        self.gateway
            .replace_session_key(session, SessionKey::from_bytes(key));
        self.store.apply(Change::SessionRekeyed {
            session,
            key: SessionKey::from_bytes(key),
        });
    }

    /// The newest candidate key becomes that of the other implementation.
    pub fn replace_candidate_key(&mut self, key: [u8; 32]) {
        let mut newest = None;
        for credential in &mut self.store.credentials {
            let candidates = credential
                .keys
                .iter_mut()
                .filter(|row| row.kind == KeyKind::Candidate);
            if let Some(row) = candidates.max_by_key(|row| row.number) {
                newest = Some((credential.id, row));
            }
        }
        if let Some((credential, row)) = newest {
            row.key = CredentialKey::from_bytes(key);
            self.gateway
                .replace_candidate_key(credential, row.number, &row.key);
        }
    }

    fn wake(&mut self, now: Now) {
        self.gateway.handle_addresses(self.own_addresses.clone());
        self.gateway.handle_clock(self.trust, now);
    }

    /// Says whether a packet is an OPEN: only its reply gives a session a key.
    pub fn is_open(&self, packet: &[u8]) -> Checked<bool> {
        let request = self
            .opened(packet)?
            .request()
            .map_err(refused("the request"))?;
        Ok(request.op() == Op::Open)
    }

    /// Opens a knock with the keys of the store, whatever its time.
    fn opened(&self, packet: &[u8]) -> Checked<OpenedKnock> {
        let sealed = SealedKnock::parse(packet).map_err(refused("the packet"))?;
        let knock_key = |kid| {
            self.store
                .knock_keys
                .iter()
                .find(|row| row.kid == kid)
                .map(|row| &row.secret)
        };
        for credential in &self.store.credentials {
            for row in &credential.keys {
                let keys = DerivedKeys::derive(&row.key, self.gateway.id(), credential.id);
                let slots = Slot::window(self.latest.wall);
                let verified = slots
                    .iter()
                    .find_map(|slot| sealed.unmask(&keys, *slot).ok());
                if let Some(verified) = verified {
                    return verified
                        .open(&keys, knock_key)
                        .map_err(refused("the knock"));
                }
            }
        }
        Err(Failure::new("no key of the store opens the knock"))
    }
}

/// What WireGuard says of a peer that shook hands.
fn seen(endpoint: SocketAddr, rx: u64) -> PeerState {
    PeerState {
        endpoint: Some(endpoint),
        handshake_age_ms: Some(0),
        rx,
        tx: 0,
    }
}

fn sealed(
    keys: &ReplyKeys,
    e_s: &[u8; 32],
    payload: &[u8; PAYLOAD_LEN],
    name: &str,
) -> Checked<Vec<u8>> {
    let values = intermediates::reply(keys, e_s, payload).map_err(refused("the reply"))?;
    let value = values.into_iter().find(|(found, _)| *found == name);
    value
        .map(|(_, value)| value)
        .ok_or_else(|| Failure::new(format!("the reply has no {name}")))
}
