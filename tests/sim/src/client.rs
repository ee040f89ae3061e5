//! Clients: they do what SPEC asks of one, and sometimes something is wrong with what they know.
//!
//! A packet carries its [`Facts`], the truth about it, so that the judge needs no key to know what it is.

use std::net::SocketAddr;
use std::rc::Rc;

use spa_proto::{
    Ask, DefaultRoute, DerivedKeys, Ext, Info, KnockPublic, OpenAsk, Outcome, PendingKnock, Prekey,
    ProofSecret, ReplyError, Request, SecondFactor, SessionId, SessionKey, Signer, WallTime,
    Wanted, build_knock,
};

use crate::event::{self, Flaw};
use crate::place;

/// The truth about a packet.
#[derive(Clone, Debug)]
pub(crate) struct Facts {
    pub(crate) seat: usize,
    /// The transaction, and which packet of all the seat's.
    pub(crate) tx: u32,
    pub(crate) serial: u32,
    pub(crate) slot: u64,
    pub(crate) kid: u8,
    pub(crate) ts: u64,
    pub(crate) kind: Kind,
    /// Signed with the right device and password, or the session key the client holds.
    pub(crate) signed: bool,
    pub(crate) code: Option<u32>,
}

/// What a packet asks for.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Kind {
    Open {
        resources: Vec<&'static str>,
        anyway: bool,
        wg_key: [u8; 32],
    },
    Roam(SessionId),
    Close(SessionId),
}

/// A packet, and what opens its reply.
pub(crate) struct Packet {
    pub(crate) bytes: [u8; 512],
    pub(crate) facts: Facts,
    pub(crate) pending: PendingKnock,
}

/// A session as the client knows it.
pub(crate) struct Held {
    pub(crate) id: SessionId,
    pub(crate) wg_key: [u8; 32],
    pub(crate) psk: [u8; 32],
    key: SessionKey,
    tx: u32,
    told: WallTime,
}

/// A user action under way: the same plaintext for each of its packets.
struct Transaction {
    info: Info,
    ext: Ext,
    facts: Facts,
}

/// One device at one gateway.
pub(crate) struct Seat {
    number: usize,
    keys: &'static DerivedKeys,
    q: &'static ProofSecret,
    last_ts: u64,
    sent: u32,
    begun: u32,
    current: Option<Transaction>,
    pub(crate) held: Option<Held>,
    prekey: Option<Prekey>,
}

impl Seat {
    pub(crate) fn new(number: usize) -> Self {
        Self {
            number,
            keys: place::keys(number),
            q: place::proof(number),
            last_ts: 0,
            sent: 0,
            begun: 0,
            current: None,
            held: None,
            prekey: None,
        }
    }

    /// Begins a transaction and makes its first packet. `wall` is the right time.
    pub(crate) fn knock(&mut self, ask: event::Ask, flaw: Flaw, wall: u64) -> Rc<Packet> {
        let clock = match flaw {
            Flaw::Clock(seconds) => wall.saturating_add_signed(i64::from(seconds) * 1_000),
            Flaw::None
            | Flaw::Password
            | Flaw::Code
            | Flaw::NoCode
            | Flaw::OldCode(_)
            | Flaw::OldTs => wall,
        };
        // A last ts far ahead of the clock is forgotten first (SPEC §7).
        if self.last_ts > clock + 90_000 {
            self.last_ts = 0;
        }
        let ts = if flaw == Flaw::OldTs {
            self.last_ts
        } else {
            clock.max(self.last_ts + 1)
        };
        self.last_ts = ts.max(self.last_ts);
        self.begun += 1;
        let code = self.code(flaw, clock);
        let (request, kind) = self.request(ask, ts, code);
        let (info, ext) = request.encode().expect("fits");
        let facts = Facts {
            seat: self.number,
            tx: self.begun,
            serial: 0,
            slot: 0,
            kid: 0,
            ts,
            kind,
            signed: flaw != Flaw::Password,
            code,
        };
        self.current = Some(Transaction { info, ext, facts });
        self.packet(clock).expect("a transaction")
    }

    /// Makes one more packet of the transaction.
    pub(crate) fn packet(&mut self, wall: u64) -> Option<Rc<Packet>> {
        let now = WallTime::from_millis(wall);
        let transaction = self.current.as_ref()?;
        self.sent += 1;
        let usable = self.prekey.filter(|prekey| prekey.is_usable(now));
        let identity = place::knock_public(place::gateway_of(self.number));
        let (kid, public): (u8, KnockPublic) =
            usable.map_or((0, identity), |prekey| (prekey.kid.get(), prekey.key));
        let facts = Facts {
            serial: self.sent,
            slot: now.slot().as_minutes(),
            kid,
            ..transaction.facts.clone()
        };
        let strange = SessionKey::from_bytes([0xBD; 32]);
        let signer = match (&facts.kind, facts.signed, &self.held) {
            (Kind::Open { .. }, true, _) => Signer::Password(self.q),
            (Kind::Open { .. }, false, _) => Signer::Password(place::wrong_proof()),
            (Kind::Roam(_) | Kind::Close(_), true, Some(held)) => Signer::Session(&held.key),
            (Kind::Roam(_) | Kind::Close(_), _, _) => Signer::Session(&strange),
        };
        let mut e = [0x11; 32];
        e[..4].copy_from_slice(&self.sent.to_be_bytes());
        e[4] = u8::try_from(self.number).expect("few");
        let (info, ext) = (&transaction.info, &transaction.ext);
        let built = build_knock(self.keys, kid, &public, now.slot(), e, info, ext, signer);
        let (bytes, pending) = built.expect("builds");
        Some(Rc::new(Packet {
            bytes,
            facts,
            pending,
        }))
    }

    fn code(&self, flaw: Flaw, clock: u64) -> Option<u32> {
        let step = clock / 30_000;
        let gateway = place::gateway_of(self.number);
        let shown = |step| place::code(gateway, place::person_of(self.number), step);
        match flaw {
            Flaw::NoCode => None,
            Flaw::Code => Some(99_999_999),
            Flaw::OldCode(by) => Some(shown(step.saturating_add_signed(by.into()))),
            _ if place::is_machine(self.number) => None,
            Flaw::None | Flaw::Password | Flaw::Clock(_) | Flaw::OldTs => Some(shown(step)),
        }
    }

    fn request(&self, ask: event::Ask, ts: u64, code: Option<u32>) -> (Request, Kind) {
        let mut wg_key = [9; 32];
        wg_key[0] = u8::try_from(self.number).expect("few");
        wg_key[1..5].copy_from_slice(&self.begun.to_be_bytes());
        let session = self
            .held
            .as_ref()
            .map_or(SessionId::from_bytes([9; 8]), |held| held.id);
        let open = |resources: &[&'static str], wanted, anyway| {
            let factor = code.map_or(SecondFactor::None, SecondFactor::Totp);
            let ask = OpenAsk {
                minutes: 0,
                factor,
                wanted,
                wg_key,
                posture: None,
            };
            (
                Ask::Open(ask),
                Kind::Open {
                    resources: resources.to_vec(),
                    anyway,
                    wg_key,
                },
            )
        };
        let named = |resource| {
            open(
                &[resource],
                Wanted::Resources(vec![place::rid(resource)]),
                false,
            )
        };
        let (ask, kind) = match ask {
            event::Ask::Wiki => named("wiki"),
            event::Ask::Db => named("db"),
            event::Ask::All => open(&["wiki", "db"], Wanted::All, true),
            event::Ask::Control => open(&[], Wanted::ControlOnly, true),
            event::Ask::Roam => (Ask::Roam(session), Kind::Roam(session)),
            event::Ask::Close => (Ask::Close(session), Kind::Close(session)),
        };
        let ts = WallTime::from_millis(ts);
        (
            Request {
                ts,
                same_port: true,
                source: None,
                ask,
            },
            kind,
        )
    }

    /// Takes a reply to one of its packets. `right`: whether the gateway's clock is, so that nothing in it may be odd.
    pub(crate) fn hear(
        &mut self,
        packet: &Packet,
        reply: &[u8],
        wall: u64,
        right: bool,
    ) -> Result<(), String> {
        let now = WallTime::from_millis(wall);
        let opened = packet.pending.open_reply(reply, now, DefaultRoute::Refuse);
        let (payload, secrets) = match opened {
            Ok(opened) => opened,
            Err(ReplyError::Payload(_)) if !right => return Ok(()),
            Err(error) => return Err(format!("a reply that its own client refuses: {error}")),
        };
        self.prekey = payload.prekey.or(self.prekey);
        match (payload.outcome, &packet.facts.kind) {
            (Outcome::Session(session), Kind::Open { wg_key, .. }) => {
                // The valid reply with the latest gateway time counts (SPEC §10).
                let stale = self.held.as_ref().is_some_and(|held| {
                    (held.tx, held.told) > (packet.facts.tx, payload.gateway_time)
                });
                if !stale {
                    self.held = Some(Held {
                        id: session.id,
                        wg_key: *wg_key,
                        psk: *secrets.wg_psk.expose(),
                        key: secrets.k_sess,
                        tx: packet.facts.tx,
                        told: payload.gateway_time,
                    });
                }
            }
            (Outcome::Closed { .. }, Kind::Close(id)) => {
                self.held = self.held.take().filter(|held| held.id != *id);
            }
            (Outcome::Session(_), Kind::Roam(_)) | (Outcome::Refused { .. }, _) => {}
            (outcome, kind) => return Err(format!("{outcome:?} in answer to {kind:?}")),
        }
        Ok(())
    }
}

/// Where the packets of a client come from: its place, and a port the NAT gave it.
pub(crate) fn source(client: usize, place_number: u8) -> SocketAddr {
    let port = 40_000 + u16::try_from(client).expect("few");
    SocketAddr::new(place::place(place_number), port)
}
