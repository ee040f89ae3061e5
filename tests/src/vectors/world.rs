//! A gateway put into the state of a vector, with a store and an enforcer that always succeed.
//!
//! Replies are comparable byte for byte only where the payloads are the same, and ours say more than
//! the model's. So a reply is opened (from the gateway's side: the checker knows `e_s`), its fields
//! are compared, and the other implementation's keys are put in place of ours afterwards.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

use spa_gateway_core::{
    Change, ClockTrust, CredentialRow, Datagram, EffectKind, Entropy, Gateway, KeyKind, KeyRow,
    KnockKeyRow, Moment, Name, Now, PeerState, PersonKind, PersonRow, Policy, PresentPeer, Purpose,
    Recollection, Refusal, SessionRow, Settings, Snapshot, Standing, TotpRow,
};
use spa_order::Order;
use spa_proto::{
    CredentialId, CredentialKey, KnockSecret, Op, OpenedKnock, PAYLOAD_LEN, ProofPublic, ReplyKeys,
    SealedKnock, SessionId, SessionKey, Slot, TotpSecret, WallTime, intermediates,
};

use super::case::{Case, Checked, Failure, refused};

/// The longest session of every case.
const LONGEST: Duration = Duration::from_secs(480 * 60);
/// Where every knock goes.
const KNOCKED: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1)), 51820);
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
        self.gateway.handle_datagram(datagram, self.latest)
    }

    /// Works on the next queued knock: steps 5 to 11.
    pub fn work(&mut self) -> Option<Result<(), Refusal>> {
        self.gateway.handle_work(self.latest, &mut self.injected)
    }

    /// How many knocks were pushed out of the queue so far.
    pub fn pushed_out(&self) -> u32 {
        self.gateway.counters().of(Refusal::PushedOut)
    }

    /// Performs effects; gives the replies.
    pub fn perform(&mut self, until: Until) -> Vec<Box<[u8; 512]>> {
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
                EffectKind::Order(_) | EffectKind::Observe { .. } | EffectKind::Audit(_) => {}
                EffectKind::Reply(reply) => replies.push(reply.bytes),
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
                let keys =
                    spa_proto::DerivedKeys::derive(&row.key, self.gateway.id(), credential.id);
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

fn settings(state: &Case<'_>) -> Checked<Settings> {
    let wg_public = if state.has("wg_pub") {
        state.array("wg_pub")?
    } else {
        [0xEE; 32]
    };
    Ok(Settings {
        wg_public,
        wg_port: KNOCKED.port(),
        tunnel4: Some((Ipv4Addr::new(10, 200, 0, 1), 16)),
        tunnel6: None,
        control_port: 8700,
        mtu: 1280,
        keepalive: 25,
        dns: None,
        door: Duration::from_secs(10),
        longest: LONGEST,
        capacity: if state.has("capacity") {
            state.int("capacity")?
        } else {
            u32::MAX
        },
        totp_digits: 6,
    })
}

/// A resource is allowed if listed, any hour, for 480 minutes.
fn policy(state: &Case<'_>) -> Checked<Policy> {
    let mut allowed: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
    for credential in state.cases("credentials")? {
        let names = credential
            .value("resources")?
            .as_array()
            .into_iter()
            .flatten();
        allowed
            .entry(credential.text("person")?)
            .or_default()
            .extend(names.filter_map(|name| name.as_str()));
    }
    let mut text = String::from("defaults.for = \"8h\"\n");
    for resource in allowed.values().flatten().collect::<BTreeSet<_>>() {
        text += &format!("resource.{resource} = {{ to = \"10.0.0.1\", ports = [\"443/tcp\"] }}\n");
    }
    for (person, resources) in allowed
        .iter()
        .filter(|(_, resources)| !resources.is_empty())
    {
        text += &format!(
            "[[allow]]\nname = \"of-{person}\"\nwho = [\"{person}\"]\nto = {resources:?}\n"
        )
        .replace('{', "[")
        .replace('}', "]");
    }
    Policy::parse(&text).map_err(refused("the policy"))
}

fn snapshot(state: &Case<'_>, now: WallTime) -> Checked<Snapshot> {
    let credentials = state.cases("credentials")?;
    Ok(Snapshot {
        knock_keys: knock_keys(&state.object("knock_keys")?)?,
        persons: persons(&state.object("persons")?, &credentials)?,
        sessions: sessions(&credentials, now)?,
        credentials: credentials.iter().map(credential).collect::<Checked<_>>()?,
        resting: Vec::new(),
        floor: WallTime::from_millis(if state.has("clock_floor") {
            state.u64("clock_floor")?
        } else {
            0
        }),
    })
}

fn knock_keys(keys: &Case<'_>) -> Checked<Vec<KnockKeyRow>> {
    let row = |name: &str| {
        let key = keys.object(name)?;
        let kid = name.parse().map_err(refused("the kid"))?;
        let not_after = WallTime::from_millis(key.u64("accepted_until")?);
        Ok(KnockKeyRow {
            kid,
            secret: KnockSecret::from_bytes(key.array("private")?),
            made: not_after.saturating_sub(spa_gateway_core::ACCEPTED),
            not_after: (kid != 0).then_some(not_after),
        })
    };
    keys.names().map(row).collect()
}

fn persons(persons: &Case<'_>, credentials: &[Case<'_>]) -> Checked<Vec<PersonRow>> {
    let row = |name: &str| {
        let person = persons.object(name)?;
        let is_machine = |case: &&Case<'_>| case.text("person").is_ok_and(|of| of == name);
        let machine = credentials
            .iter()
            .find(is_machine)
            .map(|case| case.bool("machine"))
            .transpose()?;
        let secret = TotpSecret::from_bytes(&person.bytes("totp_secret")?);
        let codes = person
            .value("recovery_codes")?
            .as_array()
            .into_iter()
            .flatten();
        let codes = codes.filter_map(|code| super::case::unhex(code.as_str()?)?.try_into().ok());
        Ok(PersonRow {
            name: Name::parse(name).map_err(refused("the person's name"))?,
            kind: if machine == Some(true) {
                PersonKind::Machine
            } else {
                PersonKind::Human
            },
            standing: Standing::Enabled,
            totp: Some(TotpRow {
                secret: secret.ok_or_else(|| Failure::new("totp_secret has a wrong length"))?,
                digits: person.int("digits")?,
                period: person.int("period")?,
                proven: !person.has("has_totp") || person.bool("has_totp")?,
            }),
            last_step: person.u64("last_step")?,
            recovery: codes
                .map(|code| spa_proto::RecoveryCode::from_bytes(code).digest())
                .collect(),
        })
    };
    persons.names().map(row).collect()
}

fn credential(case: &Case<'_>) -> Checked<CredentialRow> {
    let keys = case.cases("keys")?;
    let first = u8::from(
        !keys
            .iter()
            .any(|key| key.text("kind").is_ok_and(|kind| kind == "inv")),
    );
    let key = |(number, key): (u8, &Case<'_>)| {
        let kind = match key.text("kind")? {
            "live" => KeyKind::Live,
            "inv" => KeyKind::Invite,
            "cand" => KeyKind::Candidate,
            other => return Err(Failure::new(format!("the key's kind {other:?} is unknown"))),
        };
        Ok(KeyRow {
            number,
            kind,
            key: CredentialKey::from_bytes(key.array("K_cred")?),
        })
    };
    let enabled = !case.has("enabled") || case.bool("enabled")?;
    Ok(CredentialRow {
        id: CredentialId::from_bytes(case.array("cred_id")?),
        person: Name::parse(case.text("person")?).map_err(refused("the person's name"))?,
        label: String::new(),
        proof: match case.text("Q")? {
            "" => None,
            _ => Some(ProofPublic::from_bytes(case.array("Q")?)),
        },
        keys: (first..).zip(&keys).map(key).collect::<Checked<_>>()?,
        standing: if enabled {
            Standing::Enabled
        } else {
            Standing::Disabled
        },
        expires: if case.has("expires") {
            Some(WallTime::from_millis(case.u64("expires")?))
        } else {
            None
        },
        confirmed: true,
        enrolled: None,
        invite_until: None,
        last_ts: WallTime::from_millis(case.u64("last_ts")?),
        failures: if case.has("failures_in_a_row") {
            case.int("failures_in_a_row")?
        } else {
            0
        },
    })
}

fn sessions(credentials: &[Case<'_>], now: WallTime) -> Checked<Vec<SessionRow>> {
    let mut rows = Vec::new();
    for (number, credential) in (2_u8..).zip(credentials) {
        if !credential.has("session") {
            continue;
        }
        let session = credential.object("session")?;
        let in_play = session.has("W") && session.text("W")? != "";
        rows.push(SessionRow {
            id: SessionId::from_bytes(session.array("id")?),
            credential: CredentialId::from_bytes(credential.array("cred_id")?),
            key: SessionKey::from_bytes(session.array("k_sess")?),
            wg_key: if in_play {
                session.array("W")?
            } else {
                [number; 32]
            },
            tunnel4: Some(Ipv4Addr::new(10, 200, 0, number)),
            tunnel6: None,
            resources: Vec::new(),
            source: KNOCKED,
            opened: now,
            not_after: WallTime::from_millis(session.u64("not_after")?),
        });
    }
    Ok(rows)
}

fn recollection(credential: &Case<'_>, now: WallTime) -> Checked<(CredentialId, Recollection)> {
    let tokens = |name, full| {
        if credential.has(name) {
            credential.int(name)
        } else {
            Ok(full)
        }
    };
    let list = |name| {
        if credential.has(name) {
            credential.cases(name)
        } else {
            Ok(Vec::new())
        }
    };
    let spent = list("spent")?;
    let spent = spent
        .iter()
        .map(|case| Ok((Slot::from_minutes(case.u64("slot")?), case.array("V")?)));
    let failed = list("failed_ts")?;
    let failed = failed.iter().map(|case| {
        let ago = now.since(WallTime::from_millis(case.u64("at")?));
        Ok((WallTime::from_millis(case.u64("ts")?), ago))
    });
    let recollection = Recollection {
        message_tokens: tokens("message_tokens", 6)?,
        failure_tokens: tokens("failure_tokens", 5)?,
        spent: spent.collect::<Checked<_>>()?,
        failed: failed.collect::<Checked<_>>()?,
    };
    Ok((
        CredentialId::from_bytes(credential.array("cred_id")?),
        recollection,
    ))
}
