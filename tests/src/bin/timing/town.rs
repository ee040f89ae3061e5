//! What is asked: one gateway, one person, one device, the same each time.

use std::net::Ipv4Addr;
use std::time::Duration;

use spa_gateway_core::{
    ClockTrust, CredentialRow, Datagram, Entropy, Gateway, KeyKind, KeyRow, KnockKeyRow, Name, Now,
    PeerState, PersonKind, PersonRow, Policy, PresentPeer, Purpose, SessionRow, Settings, Snapshot,
    Standing, TotpRow,
};
use spa_proto::{
    Ask, CredentialId, CredentialKey, DerivedKeys, GatewayId, KnockSecret, OpenAsk, PendingKnock,
    ProofSecret, Request, SealedKnock, SecondFactor, SessionId, SessionKey, Signer, TotpSecret,
    WallTime, Wanted, build_knock,
};
use totp_rs::{Algorithm, Builder, Secret};

use super::{HERE, MONO, NOW, THERE, TUNNEL};

/// What is wrong with a knock.
#[derive(Clone, Copy, Default)]
pub struct Wrong {
    pub password: bool,
    pub code: Option<u32>,
}

/// One gateway, one person, one device.
pub struct Town {
    pub secret: KnockSecret,
    pub keys: DerivedKeys,
    pub proof: ProofSecret,
    pub session: SessionKey,
    pub now: Now,
    pub settings: Settings,
    pub policy: Policy,
}

const CREDENTIAL: CredentialId = CredentialId::from_bytes([7; 16]);
const PHONE: [u8; 20] = [11; 20];
const SESSION: SessionId = SessionId::from_bytes([4; 8]);

impl Town {
    pub fn new() -> Self {
        let secret = KnockSecret::from_bytes([0x42; 32]);
        let gateway = GatewayId::of(&secret.public());
        Self {
            keys: DerivedKeys::derive(&CredentialKey::from_bytes([9; 32]), gateway, CREDENTIAL),
            secret,
            proof: ProofSecret::from_seed(&[5; 32]),
            session: SessionKey::from_bytes([3; 32]),
            now: Now { wall: NOW, mono: MONO },
            settings: settings(),
            policy: Policy::parse(
                "defaults.for = \"8h\"\nresource.wiki = { to = \"10.0.0.1\", ports = [\"443/tcp\"] }\n[[allow]]\nname = \"a\"\nwho = [\"ana\"]\nto = [\"wiki\"]\n",
            )
            .expect("a policy"),
        }
    }

    /// A gateway just started: each sample meets it in the same state.
    pub fn gateway(&self) -> Gateway {
        self.start(&self.snapshot(), &[])
    }

    pub fn with_session(&self) -> Gateway {
        let mut store = self.snapshot();
        store.sessions.push(SessionRow {
            id: SESSION,
            credential: CREDENTIAL,
            key: SessionKey::from_bytes([3; 32]),
            wg_key: [8; 32],
            tunnel4: Some(TUNNEL),
            tunnel6: None,
            resources: Vec::new(),
            source: THERE,
            signals: None,
            opened: NOW,
            not_after: NOW.saturating_add(Duration::from_secs(3_600)),
        });
        let state = PeerState {
            endpoint: Some(THERE),
            handshake_age_ms: Some(0),
            rx: 148,
            tx: 92,
        };
        self.start(
            &store,
            &[PresentPeer {
                wg_key: [8; 32],
                state,
            }],
        )
    }

    pub fn start(&self, store: &Snapshot, peers: &[PresentPeer]) -> Gateway {
        let restored = Gateway::restore(
            self.settings.clone(),
            store.duplicate(),
            self.policy.clone(),
            self.now,
        );
        let mut gateway = restored.expect("a store");
        gateway.handle_clock(ClockTrust::Trusted, self.now);
        gateway.handle_start(peers, self.now);
        while let Some(effect) = gateway.poll_effect() {
            gateway.handle_performed(effect.id, Ok(()), self.now);
        }
        gateway
    }

    pub fn snapshot(&self) -> Snapshot {
        let ana = Name::parse("ana").expect("a name");
        Snapshot {
            knock_keys: vec![KnockKeyRow {
                kid: 0,
                secret: KnockSecret::from_bytes([0x42; 32]),
                made: WallTime::from_millis(0),
                not_after: None,
            }],
            persons: vec![PersonRow {
                name: ana.clone(),
                kind: PersonKind::Human,
                standing: Standing::Enabled,
                totp: Some(TotpRow {
                    secret: TotpSecret::from_bytes(&PHONE).expect("20 bytes"),
                    digits: 6,
                    period: 30,
                    proven: true,
                }),
                // The code of the step before was used.
                last_step: NOW.as_millis() / 30_000 - 1,
                recovery: Vec::new(),
            }],
            credentials: vec![CredentialRow {
                id: CREDENTIAL,
                person: ana,
                label: "laptop".to_owned(),
                proof: Some(self.proof.public()),
                keys: vec![KeyRow {
                    number: 1,
                    kind: KeyKind::Live,
                    key: CredentialKey::from_bytes([9; 32]),
                }],
                standing: Standing::Enabled,
                expires: None,
                confirmed: true,
                enrolled: Some(WallTime::from_millis(1)),
                invite_until: None,
                last_ts: WallTime::from_millis(0),
                failures: 0,
            }],
            ..Snapshot::default()
        }
    }

    pub fn knock(&self, wrong: Wrong, e: u8) -> ([u8; 512], PendingKnock) {
        let code = wrong
            .code
            .unwrap_or_else(|| Self::code(NOW.as_millis() / 30_000));
        let other = ProofSecret::from_seed(&[6; 32]);
        let signer = Signer::Password(if wrong.password { &other } else { &self.proof });
        let ask = Ask::Open(OpenAsk {
            minutes: 0,
            factor: SecondFactor::Totp(code),
            wanted: Wanted::All,
            wg_key: [9; 32],
            posture: None,
        });
        self.build(ask, signer, e)
    }

    pub fn close(&self, key: &SessionKey, e: u8) -> ([u8; 512], PendingKnock) {
        self.build(Ask::Close(SESSION), Signer::Session(key), e)
    }

    pub fn build(&self, ask: Ask, signer: Signer<'_>, e: u8) -> ([u8; 512], PendingKnock) {
        let request = Request {
            ts: NOW,
            same_port: true,
            source: None,
            ask,
        };
        let (info, ext) = request.encode().expect("fits");
        let public = self.secret.public();
        build_knock(
            &self.keys,
            0,
            &public,
            NOW.slot(),
            [e; 32],
            &info,
            &ext,
            signer,
        )
        .expect("builds")
    }

    pub fn datagram<'a>(&self, payload: &'a [u8]) -> Datagram<'a> {
        Datagram {
            payload,
            source: THERE,
            destination: HERE,
            on_loopback: false,
            fragment: false,
        }
    }

    /// V as it would be right for these bytes, unmasked by the V they carry.
    pub fn right_v(&self, bytes: &[u8; 512]) -> [u8; 8] {
        let sealed = SealedKnock::parse(bytes).expect("shape");
        spa_proto::intermediates::right_v(&self.keys, NOW.slot(), &sealed)
    }

    pub fn code(step: u64) -> u32 {
        let totp = Builder::new()
            .with_secret(Secret::new(PHONE.as_slice().into()))
            .with_algorithm(Algorithm::SHA1)
            .with_digits(6)
            .with_step_duration(30)
            .build_noncompliant();
        totp.generate(step * 30)
            .to_string()
            .parse()
            .expect("digits")
    }

    pub fn no_code() -> u32 {
        let step = NOW.as_millis() / 30_000;
        let near: Vec<u32> = (step - 2..=step + 2).map(Self::code).collect();
        (0..)
            .find(|code| !near.contains(code))
            .expect("there are many")
    }
}

fn settings() -> Settings {
    Settings {
        wg_public: [0xEE; 32],
        wg_port: HERE.port(),
        tunnel4: Some((Ipv4Addr::new(10, 200, 0, 1), 16)),
        tunnel6: None,
        control_port: Some(8_700),
        report_every: Duration::from_secs(60),
        mtu: 1_280,
        keepalive: 25,
        dns: None,
        door: Duration::from_secs(10),
        longest: Duration::from_secs(24 * 3_600),
        capacity: 100,
        totp_digits: 6,
    }
}

/// The same bytes every time: chance has no part in what is measured.
pub struct NoDice;

impl Entropy for NoDice {
    fn fill(&mut self, _: Purpose, out: &mut [u8]) {
        out.fill(0x33);
    }
}
