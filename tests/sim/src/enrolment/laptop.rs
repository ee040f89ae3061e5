//! A laptop with an invite: it does what SPEC §14 asks of a client.

use std::rc::Rc;

use spa_proto::{
    Ask, CredentialId, CredentialKey, DefaultRoute, DerivedKeys, EnrolAsk, Ext, GatewayId, Info,
    OpenAsk, Outcome, PendingKnock, ProofPublic, ProofSecret, ReplyError, Request, SecondFactor,
    Signer, WallTime, Wanted, build_knock,
};

use crate::place;

/// How many laptops there are; ana and bot have two each.
pub(super) const LAPTOPS: usize = 4;

/// Whose a laptop is.
pub(super) const fn person_of(laptop: usize) -> &'static str {
    ["ana", "ana", "bot", "bot"][laptop % LAPTOPS]
}

/// A packet, the truth about it, and what opens its reply.
pub(super) struct Letter {
    pub(super) bytes: [u8; 512],
    pub(super) laptop: usize,
    pub(super) gateway: usize,
    /// Which packet of all, and when it was made.
    pub(super) serial: u32,
    pub(super) made: u64,
    pub(super) credential: CredentialId,
    /// The key it was made with: the invite's or the one that ENROLLED gave.
    pub(super) key: CredentialKey,
    /// Whose signature it carries.
    pub(super) q: ProofPublic,
    pub(super) kind: Kind,
    pub(super) pending: PendingKnock,
    /// The transaction.
    begun: u32,
}

/// What a letter asks for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Kind {
    Enrol,
    Open { wg_key: [u8; 32], wiki: bool },
}

/// An invite as it was handed over.
pub(super) struct Invited {
    pub(super) gateway: usize,
    pub(super) credential: CredentialId,
    pub(super) key: CredentialKey,
}

/// What ENROLLED gave; the valid reply of the latest gateway time counts (SPEC §10).
struct Given {
    key: CredentialKey,
    told: (u32, WallTime),
}

/// What a laptop began last: the same plaintext for each of its packets.
struct Begun {
    info: Info,
    ext: Ext,
    kind: Kind,
}

/// One laptop.
pub(super) struct Laptop {
    number: usize,
    pub(super) invited: Option<Invited>,
    given: Option<Given>,
    begun: Option<Begun>,
    count: u32,
    last_ts: u64,
    pub(super) session: bool,
}

impl Laptop {
    pub(super) const fn new(number: usize) -> Self {
        Self {
            number,
            invited: None,
            given: None,
            begun: None,
            count: 0,
            last_ts: 0,
            session: false,
        }
    }

    /// Takes an invite; what it had before is gone.
    pub(super) fn invite(&mut self, invited: Invited) {
        (self.given, self.begun, self.session) = (None, None, false);
        self.invited = Some(invited);
    }

    fn q(&self) -> &'static ProofSecret {
        place::proof(self.number)
    }

    pub(super) fn enrol(&mut self, wall: u64) {
        let ask = EnrolAsk {
            q: self.q().public(),
            label: "laptop".into(),
            posture: None,
        };
        self.begin(Ask::Enrol(ask), Kind::Enrol, wall);
    }

    pub(super) fn open(&mut self, wiki: bool, wall: u64) {
        let Some(invited) = self.invited.as_ref().filter(|_| self.given.is_some()) else {
            return;
        };
        let mut wg_key = [8; 32];
        wg_key[0] = u8::try_from(self.number).expect("few");
        wg_key[1..5].copy_from_slice(&self.count.to_be_bytes());
        let person = person_of(self.number);
        let factor = match person {
            "bot" => SecondFactor::None,
            _ => SecondFactor::Totp(place::code(invited.gateway, person, wall / 30_000)),
        };
        let wanted = if wiki {
            Wanted::Resources(vec![place::rid("wiki")])
        } else {
            Wanted::ControlOnly
        };
        let ask = OpenAsk {
            minutes: 0,
            factor,
            wanted,
            wg_key,
            posture: None,
        };
        self.begin(Ask::Open(ask), Kind::Open { wg_key, wiki }, wall);
    }

    fn begin(&mut self, ask: Ask, kind: Kind, wall: u64) {
        self.last_ts = wall.max(self.last_ts + 1);
        self.count += 1;
        let ts = WallTime::from_millis(self.last_ts);
        let request = Request {
            ts,
            same_port: true,
            source: None,
            ask,
        };
        let (info, ext) = request.encode().expect("fits");
        self.begun = Some(Begun { info, ext, kind });
    }

    /// Makes one more packet of what was begun last.
    pub(super) fn letter(&self, serial: u32, wall: u64) -> Option<Rc<Letter>> {
        let (begun, invited) = (self.begun.as_ref()?, self.invited.as_ref()?);
        let key = match (begun.kind, &self.given) {
            (Kind::Enrol, _) => &invited.key,
            (Kind::Open { .. }, Some(given)) => &given.key,
            (Kind::Open { .. }, None) => return None,
        };
        Some(self.write(
            (&begun.info, &begun.ext, begun.kind),
            key,
            self.q(),
            serial,
            wall,
        ))
    }

    /// What somebody makes who has read the invite.
    pub(super) fn stolen(&self, serial: u32, wall: u64) -> Option<Rc<Letter>> {
        let thief = place::wrong_proof();
        let ask = Ask::Enrol(EnrolAsk {
            q: thief.public(),
            label: "mine".into(),
            posture: None,
        });
        let ts = WallTime::from_millis(wall);
        let request = Request {
            ts,
            same_port: true,
            source: None,
            ask,
        };
        let (info, ext) = request.encode().expect("fits");
        let key = &self.invited.as_ref()?.key;
        Some(self.write((&info, &ext, Kind::Enrol), key, thief, serial, wall))
    }

    fn write(
        &self,
        (info, ext, kind): (&Info, &Ext, Kind),
        key: &CredentialKey,
        q: &ProofSecret,
        serial: u32,
        wall: u64,
    ) -> Rc<Letter> {
        let invited = self.invited.as_ref().expect("an invite");
        let public = place::knock_public(invited.gateway);
        let keys = DerivedKeys::derive(key, GatewayId::of(&public), invited.credential);
        let mut e = [0x22; 32];
        e[..4].copy_from_slice(&serial.to_be_bytes());
        let slot = WallTime::from_millis(wall).slot();
        let (bytes, pending) =
            build_knock(&keys, 0, &public, slot, e, info, ext, Signer::Password(q))
                .expect("builds");
        Rc::new(Letter {
            bytes,
            laptop: self.number,
            gateway: invited.gateway,
            serial,
            made: wall,
            credential: invited.credential,
            key: key.duplicate(),
            q: q.public(),
            kind,
            pending,
            begun: self.count,
        })
    }

    /// Takes a reply. `right`: whether it comes soon and the gateway's clock was never set, so that nothing in it may be odd.
    pub(super) fn hear(
        &mut self,
        letter: &Letter,
        reply: &[u8],
        wall: u64,
        right: bool,
    ) -> Result<(), String> {
        let ours = self
            .invited
            .as_ref()
            .is_some_and(|invited| invited.credential == letter.credential);
        if !ours || letter.q != self.q().public() {
            return Ok(());
        }
        let now = WallTime::from_millis(wall);
        let (payload, secrets) = match letter.pending.open_reply(reply, now, DefaultRoute::Refuse) {
            Ok(opened) => opened,
            Err(ReplyError::Payload(_)) if !right => return Ok(()),
            Err(error) => return Err(format!("a reply that its own client refuses: {error}")),
        };
        match (payload.outcome, letter.kind) {
            (Outcome::Enrolled(_), Kind::Enrol) => {
                let told = (letter.begun, payload.gateway_time);
                if self.given.as_ref().is_none_or(|given| given.told < told) {
                    self.given = Some(Given {
                        key: secrets.k_cred,
                        told,
                    });
                }
            }
            (Outcome::Session(_), Kind::Open { .. }) => self.session = true,
            (Outcome::Refused { .. }, Kind::Open { .. }) => self.session = false,
            (outcome, kind) => return Err(format!("{outcome:?} in answer to {kind:?}")),
        }
        Ok(())
    }
}
