//! Devices that knock, and the store in which they are enrolled.

use alloc::string::String;
use alloc::vec::Vec;
use core::net::{IpAddr, Ipv4Addr, SocketAddr};

use spa_order::Door;
use spa_proto::{
    Ask, CredentialId, CredentialKey, DerivedKeys, EnrolAsk, GatewayId, KnockSecret, PendingKnock,
    ProofSecret, Request, SessionId, SessionKey, Signer, WallTime, build_knock,
};

use crate::{
    CredentialRow, KeyKind, KeyRow, KnockKeyRow, Name, Now, PersonKind, PersonRow, Snapshot,
    Standing, TotpRow,
};

/// A device, and what it knows.
pub struct Device {
    pub id: CredentialId,
    pub person: Name,
    pub keys: DerivedKeys,
    pub q: ProofSecret,
    pub source: SocketAddr,
    pub wg_key: [u8; 32],
    pub session: Option<(SessionId, SessionKey)>,
    pub same_port: bool,
    last_ts: u64,
    pub sent: u64,
}

/// A packet on its way, and what opens its reply.
pub struct Sent {
    pub packet: [u8; 512],
    pub pending: PendingKnock,
}

impl Device {
    /// An enrolled device of somebody; `number` makes it differ.
    pub fn of(person: &str, number: u8) -> Self {
        let id = CredentialId::from_bytes([number; 16]);
        Self {
            id,
            person: Name::parse(person).expect("a name"),
            keys: DerivedKeys::derive(&credential_key(number), gateway_id(), id),
            q: ProofSecret::from_seed(&[number; 32]),
            source: SocketAddr::new(IpAddr::V4(Ipv4Addr::new(198, 51, 100, number)), 40_000),
            wg_key: [0; 32],
            session: None,
            same_port: true,
            last_ts: 0,
            sent: 0,
        }
    }

    pub fn request(&mut self, ask: Ask, now: Now) -> Request {
        // A last ts far ahead of the clock is forgotten first (SPEC §7).
        if self.last_ts > now.wall.as_millis() + 90_000 {
            self.last_ts = 0;
        }
        self.last_ts = now.wall.as_millis().max(self.last_ts + 1);
        Request {
            ts: WallTime::from_millis(self.last_ts),
            same_port: self.same_port,
            source: None,
            ask,
        }
    }

    /// One more packet of a transaction.
    pub fn build(&mut self, info: &spa_proto::Info, ext: &spa_proto::Ext, now: Now) -> Sent {
        self.sent += 1;
        let mut e = [0x11; 32];
        e[..8].copy_from_slice(&self.sent.to_be_bytes());
        e[8..24].copy_from_slice(self.id.as_bytes());
        let op = Request::parse(info, ext).expect("a request").op();
        let signer = match (op, &self.session) {
            (spa_proto::Op::Roam | spa_proto::Op::Close, Some((_, key))) => Signer::Session(key),
            _ => Signer::Password(&self.q),
        };
        let slot = now.wall.slot();
        let (packet, pending) = build_knock(
            &self.keys,
            0,
            &identity().public(),
            slot,
            e,
            info,
            ext,
            signer,
        )
        .expect("builds");
        Sent { packet, pending }
    }

    pub fn door(&self) -> Door {
        let port = core::num::NonZeroU16::new(self.source.port()).filter(|_| self.same_port);
        Door {
            source: self.source.ip(),
            port,
        }
    }

    pub fn session_id(&self) -> SessionId {
        self.session.as_ref().expect("a session").0
    }

    pub fn enrol_ask(&self) -> Ask {
        Ask::Enrol(EnrolAsk {
            q: self.q.public(),
            label: "laptop".into(),
            posture: None,
        })
    }
}

/// A WireGuard key nobody else has.
pub fn wg_key(id: CredentialId, sent: u64) -> [u8; 32] {
    let mut key = [9; 32];
    key[..16].copy_from_slice(id.as_bytes());
    key[16..24].copy_from_slice(&sent.to_be_bytes());
    key
}

pub fn identity() -> KnockSecret {
    KnockSecret::from_bytes([0x42; 32])
}

fn gateway_id() -> GatewayId {
    GatewayId::of(&identity().public())
}

fn credential_key(number: u8) -> CredentialKey {
    CredentialKey::from_bytes([number; 32])
}

/// A store in which these devices are enrolled, active and confirmed. `bot…` are machines.
pub fn store_of(devices: &[&Device]) -> Snapshot {
    let mut store = Snapshot {
        knock_keys: [KnockKeyRow {
            kid: 0,
            secret: identity(),
            made: WallTime::from_millis(0),
            not_after: None,
        }]
        .into(),
        // Newer than six hours, so that no floor is to be saved at once.
        floor: WallTime::from_millis(1_799_999_000_000),
        ..Snapshot::default()
    };
    for device in devices {
        if store.persons.iter().all(|row| row.name != device.person) {
            store.persons.push(person_row(&device.person));
        }
        store.credentials.push(CredentialRow {
            id: device.id,
            person: device.person.clone(),
            label: String::from("laptop"),
            proof: Some(device.q.public()),
            keys: [KeyRow {
                number: 1,
                kind: KeyKind::Live,
                key: credential_key(device.id.as_bytes()[0]),
            }]
            .into(),
            standing: Standing::Enabled,
            expires: None,
            confirmed: true,
            enrolled: Some(WallTime::from_millis(1)),
            invite_until: None,
            last_ts: WallTime::from_millis(0),
            failures: 0,
        });
    }
    store
}

fn person_row(name: &Name) -> PersonRow {
    let machine = name.starts_with("bot");
    PersonRow {
        name: name.clone(),
        kind: if machine {
            PersonKind::Machine
        } else {
            PersonKind::Human
        },
        standing: Standing::Enabled,
        totp: (!machine).then(|| TotpRow {
            secret: spa_proto::TotpSecret::from_bytes(&[5; 20]).expect("20 bytes"),
            digits: 6,
            period: 30,
            proven: true,
        }),
        last_step: 0,
        recovery: Vec::new(),
    }
}
