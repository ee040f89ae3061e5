//! The world of a test: a gateway, a store that is a `Snapshot`, a kernel. Time passes only when a test
//! says so.

use alloc::boxed::Box;
use alloc::vec::Vec;
use core::net::{IpAddr, Ipv4Addr, SocketAddr};
use core::time::Duration;

use spa_order::{Door, Order};
use spa_proto::{
    Ask, DefaultRoute, Op, OpenAsk, Outcome, ReplyPayload, ReplySecrets, ResourceId, SecondFactor,
    SessionId, SessionReply, WallTime, Wanted, WgPsk,
    channel::{Event, Fact, FactValue, Posture},
};

use super::device::wg_key;
pub use super::device::{Device, Sent, store_of};
pub use super::kernel::{Did, Kernel};
use crate::person::Totp;
use crate::{
    AccessRecord, AuditKind, AuditRecord, Call, CallAnswer, CallId, CallRefusal, Caller,
    ClockTrust, Datagram, Effect, EffectFailure, EffectKind, Entropy, Gateway, Moment, Name, Now,
    PeerState, Policy, PresentPeer, Purpose, Refusal, Reply, Settings, Snapshot, TotpRow,
};

pub const KNOCKED: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1)), 51820);
pub const POLICY: &str = r#"
    [group]
    eng = ["ana", "bot", "bo"]
    [resource]
    wiki = { to = "10.0.5.10", ports = ["443/tcp"] }
    db   = { to = "10.0.6.0/28", ports = ["5432/tcp"] }
    [[allow]]
    name = "wiki"
    who = ["group:eng"]
    to = ["wiki"]
    [[allow]]
    name = "db"
    who = ["bot"]
    to = ["db"]
    for = "2h"
"#;

/// Everything around a gateway.
pub struct Rig {
    pub gateway: Gateway,
    pub store: Snapshot,
    pub store_works: bool,
    pub kernel: Kernel,
    /// Which orders the kernel refuses.
    pub refuses: fn(&Order) -> bool,
    pub now: Now,
    /// What was performed, in order.
    pub did: Vec<Did>,
    pub replies: Vec<Reply>,
    pub audits: Vec<AuditRecord>,
    pub accesses: Vec<AccessRecord>,
    pub answers: Vec<(CallId, Result<CallAnswer, CallRefusal>)>,
    pub events: Vec<(SessionId, Event)>,
    /// The preshared key of the session opened last.
    pub last_psk: Option<WgPsk>,
    pub entropy: Counting,
}
/// Random bytes that count up, so that every run is the same.
#[derive(Default)]
pub struct Counting(u64);
impl Entropy for Counting {
    fn fill(&mut self, _: Purpose, out: &mut [u8]) {
        self.0 += 1;
        for (at, byte) in out.iter_mut().enumerate() {
            *byte = self.0.to_le_bytes()[at % 8].wrapping_add(u8::try_from(at / 8).unwrap_or(0));
        }
    }
}

impl Rig {
    /// A gateway with these devices.
    pub fn with(devices: &[&Device]) -> Self {
        Self::restored(store_of(devices), settings())
    }

    pub fn restored(store: Snapshot, settings: Settings) -> Self {
        let now = Now {
            wall: WallTime::from_millis(1_800_000_000_000),
            mono: Moment::from_millis(1 << 40),
        };
        let policy = Policy::parse(POLICY).expect("a valid policy");
        let mut gateway =
            Gateway::restore(settings, store.duplicate(), policy, now).expect("kid 0");
        gateway.handle_clock(ClockTrust::Trusted, now);
        let mut rig = Self {
            gateway,
            store,
            store_works: true,
            kernel: Kernel::default(),
            refuses: |_| false,
            now,
            did: Vec::new(),
            replies: Vec::new(),
            audits: Vec::new(),
            accesses: Vec::new(),
            answers: Vec::new(),
            events: Vec::new(),
            last_psk: None,
            entropy: Counting::default(),
        };
        rig.run();
        rig.did.clear();
        rig.audits.clear();
        rig
    }

    /// The process is killed and starts again with what its store and the kernel have.
    pub fn restart(&mut self) {
        let policy = self.gateway.policy().clone();
        let store = self.store.duplicate();
        self.gateway = Gateway::restore(settings(), store, policy, self.now).expect("kid 0");
        self.kernel.doors.clear();
        self.kernel.flows.clear();
        self.gateway.handle_clock(ClockTrust::Trusted, self.now);
        let peers: Vec<PresentPeer> = self
            .kernel
            .peers
            .iter()
            .map(|(key, state)| PresentPeer {
                wg_key: *key,
                state: *state,
            })
            .collect();
        self.gateway.handle_start(&peers, self.now);
        self.run();
    }

    /// Does all the work and performs all effects there are.
    pub fn run(&mut self) {
        self.work();
        while let Some(effect) = self.gateway.poll_effect() {
            self.perform(effect);
            self.work();
        }
    }

    pub fn work(&mut self) {
        while self
            .gateway
            .handle_work(self.now, &mut self.entropy)
            .is_some()
        {}
    }

    pub fn perform(&mut self, effect: Effect) {
        let outcome = match effect.kind {
            EffectKind::Record(record) if self.store_works => {
                self.did.push(Did::Record);
                record
                    .changes
                    .into_iter()
                    .for_each(|change| self.store.apply(change));
                Ok(())
            }
            EffectKind::Record(_) => Err(EffectFailure::Store),
            EffectKind::Order(order) if (self.refuses)(&order) => Err(EffectFailure::Failed),
            EffectKind::Order(order) => {
                self.did.push(self.kernel.obey(&order, self.now));
                Ok(())
            }
            EffectKind::Observe { wg_key } => {
                let state = self.kernel.state(&wg_key, self.now);
                self.gateway.handle_peer(wg_key, state, self.now);
                return;
            }
            EffectKind::CountFlows => {
                let counts = self.kernel.counts(self.now);
                self.gateway.handle_counts(&counts, self.now);
                return;
            }
            EffectKind::CountConnections => {
                self.gateway
                    .handle_connections(self.kernel.connections, self.now);
                return;
            }
            EffectKind::Access(record) => {
                self.accesses.push(record);
                return;
            }
            EffectKind::Reply(reply) => {
                self.did.push(Did::Reply);
                self.replies.push(reply);
                return;
            }
            EffectKind::Answer { call, answer } => {
                self.did.push(Did::Answer);
                self.answers.push((call, answer));
                return;
            }
            EffectKind::Event { session, event } => {
                self.events.push((session, event));
                return;
            }
            EffectKind::Audit(audit) => {
                self.did.push(Did::Audit(audit.kind));
                self.audits.push(audit);
                return;
            }
        };
        self.gateway.handle_performed(effect.id, outcome, self.now);
    }

    /// A device calls from inside its tunnel; gives the answer.
    pub fn call(&mut self, device: &Device, call: Call) -> Result<CallAnswer, CallRefusal> {
        let (id, key) = device.session.as_ref().expect("a session");
        let bearer = spa_proto::control_bearer(key);
        let tunnel = self.tunnel_of(*id);
        self.call_from(tunnel, bearer.as_bytes(), call)
    }

    /// Somebody calls from an address with a bearer.
    pub fn call_from(
        &mut self,
        source: IpAddr,
        bearer: &[u8],
        call: Call,
    ) -> Result<CallAnswer, CallRefusal> {
        let id = CallId(self.answers.len() as u64);
        let caller = Caller { source, bearer };
        self.gateway
            .handle_call(id, caller, call, self.now, &mut self.entropy);
        self.run();
        let (answered, answer) = self.answers.last().expect("an answer").clone();
        assert_eq!((answered, self.answers.len() as u64), (id, id.0 + 1));
        answer
    }

    /// The tunnel address a session has, or had.
    pub fn tunnel_of(&self, id: SessionId) -> IpAddr {
        let view = self.gateway.sessions().find(|view| view.id == id);
        view.and_then(|view| view.tunnel4)
            .map_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED), IpAddr::V4)
    }

    /// What the person of a device was told, oldest first.
    pub fn told(&self, device: &Device) -> Vec<&Event> {
        let id = device.session_id();
        self.events
            .iter()
            .filter(|(of, _)| *of == id)
            .map(|(_, event)| event)
            .collect()
    }

    /// Lets time pass, doing what falls due.
    pub fn pass(&mut self, time: Duration) {
        let target = self.now.mono.after(time);
        while let Some(due) = self.gateway.poll_timeout().filter(|due| *due <= target) {
            self.go_to(due.max(self.now.mono));
            self.gateway.handle_timeout(self.now, &mut self.entropy);
            self.run();
        }
        self.go_to(target);
    }

    /// Lets time pass while nobody works the gateway.
    pub fn go_to(&mut self, mono: Moment) {
        let passed = mono.since(self.now.mono);
        self.now = Now {
            wall: self.now.wall.saturating_add(passed),
            mono,
        };
    }

    pub fn pass_secs(&mut self, seconds: u64) {
        self.pass(Duration::from_secs(seconds));
    }

    /// Hands a packet in.
    pub fn take_in(&mut self, packet: &[u8], source: SocketAddr) -> Result<(), Refusal> {
        let datagram = Datagram {
            payload: packet,
            source,
            destination: KNOCKED,
            on_loopback: false,
            fragment: false,
        };
        self.gateway.handle_datagram(datagram, self.now)
    }

    /// Hands a packet in and does all it leads to; gives the reply.
    pub fn send(
        &mut self,
        sent: &Sent,
        source: SocketAddr,
    ) -> Option<(ReplyPayload, ReplySecrets)> {
        let before = self.replies.len();
        // A refusal shows in the counters.
        let _ = self.take_in(&sent.packet, source);
        self.run();
        let reply = self.replies.get(before)?;
        assert_eq!((reply.from, reply.to), (KNOCKED, source));
        let opened =
            sent.pending
                .open_reply(reply.bytes.as_slice(), self.now.wall, DefaultRoute::Refuse);
        Some(opened.expect("our own reply opens"))
    }

    /// A device asks, and takes what it is given.
    pub fn ask(&mut self, device: &mut Device, ask: Ask) -> Option<Outcome> {
        let (info, ext) = device.request(ask, self.now).encode().expect("fits");
        let sent = device.build(&info, &ext, self.now);
        let (payload, secrets) = self.send(&sent, device.source)?;
        if let (Outcome::Session(session), Op::Open) = (&payload.outcome, sent.pending.op()) {
            device.session = Some((session.id, secrets.k_sess));
            self.last_psk = Some(secrets.wg_psk);
        }
        Some(payload.outcome)
    }

    /// A device opens a session for these resources.
    pub fn open(&mut self, device: &mut Device, resources: &[&str]) -> Option<Box<SessionReply>> {
        let ask = self.open_ask(device, resources);
        match self.ask(device, ask)? {
            Outcome::Session(session) => Some(session),
            Outcome::Refused { .. } | Outcome::Closed { .. } | Outcome::Enrolled(_) => None,
        }
    }

    pub fn open_ask(&self, device: &mut Device, resources: &[&str]) -> Ask {
        device.wg_key = wg_key(device.id, device.sent);
        let wanted = if resources.is_empty() {
            Wanted::ControlOnly
        } else {
            Wanted::Resources(resources.iter().map(|name| ResourceId::of(name)).collect())
        };
        let factor = match self.code(&device.person) {
            Some(code) => SecondFactor::Totp(code),
            None => SecondFactor::None,
        };
        Ask::Open(OpenAsk {
            minutes: 0,
            factor,
            wanted,
            wg_key: device.wg_key,
            posture: None,
        })
    }

    /// What the phone of a person shows.
    pub fn code(&self, person: &Name) -> Option<u32> {
        let row = self
            .store
            .persons
            .iter()
            .find(|row| row.name == *person)?
            .totp
            .as_ref()?;
        let totp = TotpRow {
            secret: row.secret.duplicate(),
            ..*row
        };
        Some(Totp::restore(totp).code(self.now.wall.as_millis() / 30_000))
    }

    /// The peer of a device shakes hands, if a door lets it.
    pub fn shake(&mut self, device: &Device) -> bool {
        let source = device.source.ip();
        let admits = |door: &Door| {
            door.source == source
                && door
                    .port
                    .is_none_or(|port| port.get() == device.source.port())
        };
        if !self.kernel.doors(self.now).iter().any(admits) {
            return false;
        }
        let Some(peer) = self.kernel.peers.get_mut(&device.wg_key) else {
            return false;
        };
        *peer = PeerState {
            endpoint: Some(device.source),
            handshake_age_ms: Some(0),
            rx: peer.rx + 148,
            tx: peer.tx + 92,
        };
        self.kernel.shaken.insert(device.wg_key, self.now.mono);
        self.pass(Duration::from_millis(100));
        true
    }

    pub fn count(&self, refusal: Refusal) -> u32 {
        self.gateway.counters().of(refusal)
    }

    pub fn audited(&self, kind: AuditKind) -> Vec<&AuditRecord> {
        self.audits
            .iter()
            .filter(|audit| audit.kind == kind)
            .collect()
    }
}

/// A report that says whether the firewall is on.
pub fn firewall(on: bool) -> Call {
    report("firewall", FactValue::Bool(on))
}

/// A report of one fact.
pub fn report(name: &str, value: FactValue) -> Call {
    let fact = Fact { value, age_s: 0 };
    Call::Posture(Posture {
        facts: [(name.into(), fact)].into(),
    })
}

pub fn settings() -> Settings {
    Settings {
        wg_public: [0xEE; 32],
        wg_port: 51820,
        tunnel4: Some((Ipv4Addr::new(10, 200, 0, 1), 24)),
        tunnel6: Some(("fd5a:1::1".parse().expect("an address"), 64)),
        control_port: Some(8700),
        report_every: Duration::from_secs(60),
        mtu: 1280,
        keepalive: 25,
        dns: None,
        door: Duration::from_secs(10),
        longest: Duration::from_secs(24 * 60 * 60),
        capacity: 1000,
        totp_digits: 6,
    }
}
