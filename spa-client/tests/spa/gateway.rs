//! A gateway for one credential on loopback: the wire as SPEC §4 to §6 and §14 have it, no policy, no tunnel.

use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use spa_proto::{
    Ask, CredentialId, CredentialKey, DerivedKeys, DoorKind, GatewayId, Invite, KnockSecret,
    OpenAsk, OpenedKnock, Outcome, Prekey, ProofPublic, RefusedFor, Repeat, ReplyPayload, Request,
    ResourceId, Route, SealedKnock, SecondFactor, SessionId, SessionKey, SessionReply, Slot,
    TotpOffer, TotpSecret, Verdict, WallTime, Wanted, seal_reply,
};

/// The code this gateway takes.
pub const CODE: u32 = 123_456;

/// How it answers an OPEN whose factors are right.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Manner {
    /// POLICY, one verdict for each resource.
    Policy,
    /// Nothing.
    Silence,
    /// A session of this length in seconds, whatever is asked.
    Grant(u64),
}

/// What a session of this gateway looks like from the client.
#[derive(Clone, Copy, Debug)]
pub struct Inside {
    /// The gateway's WireGuard key and where it listens.
    pub wg_public: [u8; 32],
    /// Its endpoint.
    pub endpoint: SocketAddr,
    /// The client's address.
    pub client: Ipv4Addr,
    /// The gateway's address.
    pub gateway: Ipv4Addr,
}

/// A peer to be let in.
pub struct Peer {
    /// W.
    pub key: [u8; 32],
    /// wg_psk.
    pub psk: [u8; 32],
}

/// What it saw.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Seen {
    /// The transaction.
    pub ts: u64,
    /// The knock key.
    pub kid: u8,
    /// `enrol`, `open`, `close` or `roam`.
    pub op: &'static str,
    /// What an OPEN asked for.
    pub wanted: Option<Wanted>,
    /// What an OPEN said of the device.
    pub posture: Option<Vec<u8>>,
    /// Source port.
    pub port: u16,
    /// Whether proof and code were right.
    pub proven: bool,
}

/// Everything a test can turn or look at.
pub struct State {
    /// How many packets get lost, first ones first.
    pub lose: usize,
    /// Answers to OPEN.
    pub manner: Manner,
    /// What came in, lost packets too.
    pub seen: Vec<Seen>,
    /// Q of the enrolment.
    pub q: Option<ProofPublic>,
    /// Its words.
    pub words: Option<String>,
    /// Whether an OPEN passed.
    pub active: bool,
    /// Sessions, if it grants any.
    pub inside: Option<Inside>,
    /// Lets a peer in.
    pub let_in: Option<Box<dyn FnMut(Peer) + Send>>,
    /// How many CLOSE were proven.
    pub closed: usize,
    keys: Vec<CredentialKey>,
    session_key: Option<SessionKey>,
    time: u64,
}

/// The gateway, until dropped.
pub struct FakeGateway {
    /// Its invite.
    pub invite: String,
    /// What it saw and how it behaves.
    pub state: Arc<Mutex<State>>,
    stop: Arc<UdpSocket>,
    address: SocketAddr,
    thread: Option<JoinHandle<()>>,
}

impl FakeGateway {
    /// Starts one.
    pub fn start(host: Ipv4Addr) -> Self {
        let socket = UdpSocket::bind((host, 0)).expect("a port");
        let address = socket.local_addr().expect("bound");
        let base = KnockSecret::from_bytes([7; 32]);
        let credential = CredentialId::from_bytes([0xc1; 16]);
        let invite = Invite {
            host: host.to_string().parse().expect("a host"),
            port: address.port().try_into().expect("not zero"),
            credential,
            key: CredentialKey::from_bytes([9; 32]),
            b_0: base.public(),
        }
        .to_line()
        .to_string();
        let state = Arc::new(Mutex::new(State {
            lose: 0,
            manner: Manner::Policy,
            seen: Vec::new(),
            q: None,
            words: None,
            active: false,
            inside: None,
            let_in: None,
            closed: 0,
            session_key: None,
            keys: vec![CredentialKey::from_bytes([9; 32])],
            time: 0,
        }));
        let stop = Arc::new(socket.try_clone().expect("a second handle"));
        let work = Work {
            socket,
            base,
            rotating: KnockSecret::from_bytes([8; 32]),
            credential,
            state: Arc::clone(&state),
        };
        let thread = Some(thread::spawn(move || work.run()));
        Self {
            invite,
            state,
            stop,
            address,
            thread,
        }
    }

    /// Looks at, or turns, its state.
    pub fn with<T>(&self, look: impl FnOnce(&mut State) -> T) -> T {
        look(
            &mut self
                .state
                .lock()
                .expect("the gateway's thread does not panic"),
        )
    }
}

impl Drop for FakeGateway {
    fn drop(&mut self) {
        // One byte is no knock: it ends the thread.
        let _ = self.stop.send_to(&[0], self.address);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

struct Work {
    socket: UdpSocket,
    base: KnockSecret,
    rotating: KnockSecret,
    credential: CredentialId,
    state: Arc<Mutex<State>>,
}

impl Work {
    fn run(self) {
        let mut buffer = [0; 600];
        while let Ok((length, from)) = self.socket.recv_from(&mut buffer) {
            if length == 1 {
                return;
            }
            if let Some(reply) = self.answer(&buffer[..length], from) {
                self.socket
                    .send_to(&reply, from)
                    .expect("loopback takes it");
            }
        }
    }

    fn answer(&self, payload: &[u8], from: SocketAddr) -> Option<[u8; 512]> {
        let now = WallTime::from_millis(
            SystemTime::now()
                .duration_since(UNIX_EPOCH)
                .ok()?
                .as_millis() as u64,
        );
        let mut state = self.state.lock().ok()?;
        let opened = self.open(payload, &state, now)?;
        let request = opened
            .request()
            .expect("the client builds what the spec allows");
        let proven = self.proven(&opened, &request, &state);
        state.seen.push(Seen {
            ts: request.ts.as_millis(),
            kid: opened.kid(),
            op: match &request.ask {
                Ask::Open(_) => "open",
                Ask::Enrol(_) => "enrol",
                Ask::Close(_) => "close",
                Ask::Roam(_) => "roam",
            },
            wanted: match &request.ask {
                Ask::Open(open) => Some(open.wanted.clone()),
                Ask::Enrol(_) | Ask::Close(_) | Ask::Roam(_) => None,
            },
            posture: match &request.ask {
                Ask::Open(open) => open.posture.clone(),
                Ask::Enrol(_) | Ask::Close(_) | Ask::Roam(_) => None,
            },
            port: from.port(),
            proven,
        });
        if state.lose > 0 {
            state.lose -= 1;
            return None;
        }
        if !proven {
            return None;
        }
        self.reply(&opened, &request, &mut state, from, now)
    }

    fn open(&self, payload: &[u8], state: &State, now: WallTime) -> Option<OpenedKnock> {
        let sealed = SealedKnock::parse(payload).ok()?;
        for key in &state.keys {
            let keys =
                DerivedKeys::derive(key, GatewayId::of(&self.base.public()), self.credential);
            for slot in Slot::window(now) {
                if keys.tag(slot) != sealed.tag() {
                    continue;
                }
                let Ok(verified) = sealed.unmask(&keys, slot) else {
                    continue;
                };
                let knock_key = |kid| match kid {
                    0 => Some(&self.base),
                    3 => Some(&self.rotating),
                    _ => None,
                };
                return verified.open(&keys, knock_key).ok();
            }
        }
        None
    }

    fn proven(&self, opened: &OpenedKnock, request: &Request, state: &State) -> bool {
        match &request.ask {
            Ask::Enrol(enrol) => {
                bool::from(opened.verify_proof(&enrol.q))
                    && state.q.is_none_or(|q| q == enrol.q)
                    && !state.active
            }
            Ask::Open(open) => {
                let q = state.q.is_some_and(|q| bool::from(opened.verify_proof(&q)));
                q && open.factor == SecondFactor::Totp(CODE)
            }
            Ask::Close(_) => {
                let key = state.session_key.as_ref();
                key.is_some_and(|key| bool::from(opened.verify_session_proof(key)))
            }
            Ask::Roam(_) => false,
        }
    }

    fn reply(
        &self,
        opened: &OpenedKnock,
        request: &Request,
        state: &mut State,
        from: SocketAddr,
        now: WallTime,
    ) -> Option<[u8; 512]> {
        let outcome = match &request.ask {
            Ask::Enrol(enrol) => {
                state.q = Some(enrol.q);
                let words =
                    spa_proto::Fingerprint::of(self.credential, &enrol.q, &self.base.public());
                state.words = Some(words.to_string());
                let secret = TotpSecret::from_bytes(b"12345678901234567890").expect("20 bytes");
                Outcome::Enrolled(Some(TotpOffer {
                    digits: 6,
                    period: 30,
                    secret,
                }))
            }
            Ask::Open(open) => {
                state.active = true;
                if state.manner == Manner::Silence && open.wanted != Wanted::ControlOnly {
                    return None;
                }
                self.open_outcome(open, state, now)
            }
            Ask::Close(_) => {
                state.closed += 1;
                Outcome::Closed {
                    repeat: Repeat::First,
                    verdicts: Vec::new(),
                    reason: None,
                }
            }
            Ask::Roam(_) => return None,
        };
        state.time = now.as_millis().max(state.time + 1);
        let payload = ReplyPayload {
            gateway_time: WallTime::from_millis(state.time),
            source: from,
            prekey: Some(Prekey {
                kid: 3.try_into().expect("not zero"),
                key: self.rotating.public(),
                not_after: now.saturating_add(Duration::from_secs(7 * 24 * 3600)),
            }),
            outcome,
        };
        let enrolled = matches!(payload.outcome, Outcome::Enrolled(_));
        let granted = matches!(payload.outcome, Outcome::Session(_));
        let encoded = payload.encode().expect("it fits");
        let sealed = seal_reply(
            &opened.reply_keys(),
            [u8::try_from(state.seen.len()).ok()?; 32],
            &encoded,
        )
        .ok()?;
        if enrolled {
            state.keys.push(sealed.secrets.k_cred);
        }
        if granted && let Ask::Open(open) = &request.ask {
            state.session_key = Some(sealed.secrets.k_sess);
            let peer = Peer {
                key: open.wg_key,
                psk: *sealed.secrets.wg_psk.expose(),
            };
            if let Some(let_in) = &mut state.let_in {
                let_in(peer);
            }
        }
        Some(sealed.packet)
    }
}

impl Work {
    fn open_outcome(&self, open: &OpenAsk, state: &State, now: WallTime) -> Outcome {
        let ids = match &open.wanted {
            Wanted::Resources(ids) => ids.clone(),
            Wanted::All | Wanted::ControlOnly => Vec::new(),
        };
        let (Manner::Grant(seconds), Some(inside)) = (state.manner, state.inside) else {
            return Outcome::Refused {
                why: RefusedFor::Policy,
                verdicts: ids.iter().map(|id| (*id, verdict(*id))).collect(),
                reason: Some("not before noon".to_owned()),
            };
        };
        Outcome::Session(Box::new(SessionReply {
            repeat: Repeat::First,
            door: DoorKind::AddressAndPort,
            door_secs: 10,
            id: SessionId::from_bytes([5; 8]),
            not_after: now.saturating_add(Duration::from_secs(seconds)),
            wg_public: inside.wg_public,
            endpoint: Some(inside.endpoint),
            tunnel4: Some(inside.client),
            tunnel6: None,
            gateway_tunnel: Some(inside.gateway.into()),
            control_port: 8700,
            mtu: 1400,
            keepalive: 0,
            routes: vec![
                Route::new("10.201.9.0".parse().expect("an address"), 24).expect("a route"),
                Route::new(inside.endpoint.ip(), 32).expect("a route"),
            ],
            dns: None,
            verdicts: ids.iter().map(|id| (*id, Verdict::Granted)).collect(),
            reason: None,
        }))
    }
}

fn verdict(id: ResourceId) -> Verdict {
    if id == ResourceId::of("late") {
        Verdict::TimeWindow
    } else {
        Verdict::NotAllowed
    }
}
