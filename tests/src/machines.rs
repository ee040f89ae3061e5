//! A core that knows machines, and packets for it: to be counted, where nothing may differ between two runs.

use std::net::{Ipv6Addr, SocketAddr};
use std::time::Duration;

use anyhow::Context;
use spa_gateway_core::{
    ClockTrust, CredentialRow, Datagram, Effect, EffectKind, Entropy, Gateway, KeyKind, KeyRow,
    KnockKeyRow, Moment, Name, Now, PersonKind, PersonRow, Policy, Purpose, Settings, Snapshot,
    Standing,
};
use spa_order::{Flow, Order};
use spa_proto::{
    Ask, CredentialId, CredentialKey, DerivedKeys, GatewayId, KnockSecret, OpenAsk, ProofSecret,
    Request, ResourceId, SecondFactor, Signer, WallTime, Wanted, build_knock,
};

/// How many machines it knows where nobody wants another number.
pub const MACHINES: u32 = 1_000;
/// When all of it happens.
pub const NOW: Now = Now {
    wall: WallTime::from_millis(1_800_000_000_000),
    mono: Moment::from_millis(1 << 40),
};

/// A gateway that has begun, with so many machines that may open `wiki`.
///
/// # Errors
/// When a part of it is not what the core takes.
pub fn gateway(machines: u32) -> anyhow::Result<Gateway> {
    let mut store = Snapshot {
        knock_keys: [KnockKeyRow {
            kid: 0,
            secret: identity(),
            made: WallTime::from_millis(0),
            not_after: None,
        }]
        .into(),
        floor: NOW.wall,
        ..Snapshot::default()
    };
    for number in 0..machines {
        let name = Name::parse(&format!("m{number}"));
        let name = name.map_err(|error| anyhow::anyhow!("{error:?}"))?;
        store.persons.push(PersonRow {
            name: name.clone(),
            kind: PersonKind::Machine,
            standing: Standing::Enabled,
            totp: None,
            last_step: 0,
            recovery: Vec::new(),
        });
        store.credentials.push(CredentialRow {
            id: id(number),
            person: name,
            label: "box".to_owned(),
            proof: Some(proof().public()),
            keys: [KeyRow {
                number: 1,
                kind: KeyKind::Live,
                key: CredentialKey::from_bytes(key(number)),
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
    let settings = Settings {
        wg_public: [0xEE; 32],
        wg_port: 51_820,
        tunnel4: Some(([10, 200, 0, 1].into(), 16)),
        tunnel6: Some((Ipv6Addr::new(0xfd5a, 1, 0, 0, 0, 0, 0, 1), 64)),
        control_port: Some(8_700),
        report_every: Duration::from_secs(60),
        mtu: 1_420,
        keepalive: 25,
        dns: None,
        door: Duration::from_secs(10),
        longest: Duration::from_secs(24 * 60 * 60),
        capacity: machines,
        totp_digits: 6,
    };
    let policy = Policy::parse(&policy(machines)).map_err(|error| anyhow::anyhow!("{error}"))?;
    let mut gateway = Gateway::restore(settings, store, policy, NOW)?;
    gateway.handle_clock(ClockTrust::Trusted, NOW);
    gateway.handle_start(&[], NOW);
    while let Some(effect) = gateway.poll_effect() {
        gateway.handle_performed(effect.id, Ok(()), NOW);
    }
    Ok(gateway)
}

/// All machines are one group, and have one resource.
fn policy(machines: u32) -> String {
    let names: Vec<String> = (0..machines).map(|number| format!("m{number}")).collect();
    format!(
        r#"
        [group]
        machines = {names:?}
        [resource]
        wiki = {{ to = "10.0.5.10", ports = ["443/tcp"] }}
        [[allow]]
        name = "wiki"
        who = ["group:machines"]
        to = ["wiki"]
        "#
    )
}

/// The knock of one machine.
///
/// # Errors
/// When it cannot be built.
pub fn knock(number: u32) -> anyhow::Result<[u8; 512]> {
    let mut wg_key = [9; 32];
    wg_key[..4].copy_from_slice(&number.to_be_bytes());
    let ask = Ask::Open(OpenAsk {
        minutes: 0,
        factor: SecondFactor::None,
        wanted: Wanted::Resources(vec![ResourceId::of("wiki")]),
        wg_key,
        posture: None,
    });
    let request = Request {
        ts: NOW.wall,
        same_port: true,
        source: None,
        ask,
    };
    let (info, ext) = request.encode()?;
    let mut e = [0x11; 32];
    e[..4].copy_from_slice(&number.to_be_bytes());
    let signer = Signer::Password(&proof());
    let slot = NOW.wall.slot();
    Ok(build_knock(
        &keys(number),
        0,
        &identity().public(),
        slot,
        e,
        &info,
        &ext,
        signer,
    )?
    .0)
}

/// Such a packet as it comes in, from an address of its own.
pub fn datagram(number: u32, payload: &[u8; 512]) -> Datagram<'_> {
    let [.., high, low] = number.to_be_bytes();
    Datagram {
        payload,
        source: SocketAddr::from(([198, 18, high, low], 40_000)),
        destination: SocketAddr::from(([192, 0, 2, 1], 51_820)),
        on_loopback: false,
        fragment: false,
    }
}

/// Opens what waits, with a store and an enforcer that do everything at once; gives the flows that were opened.
///
/// # Errors
/// When no knock is answered.
pub fn open(gateway: &mut Gateway, entropy: &mut Counting) -> anyhow::Result<Vec<Flow>> {
    let mut replied = false;
    let mut flows = Vec::new();
    loop {
        let worked = gateway.handle_work(NOW, entropy);
        let mut performed = false;
        while let Some(Effect { id, kind }) = gateway.poll_effect() {
            performed = true;
            if let EffectKind::Order(Order::Flow { flow, .. }) = &kind {
                flows.push(*flow);
            }
            match kind {
                EffectKind::Record(_) | EffectKind::Order(_) => {
                    gateway.handle_performed(id, Ok(()), NOW);
                }
                EffectKind::Reply(_) => replied = true,
                EffectKind::Audit(_)
                | EffectKind::Access(_)
                | EffectKind::CountConnections
                | EffectKind::Observe { .. }
                | EffectKind::CountFlows
                | EffectKind::Answer { .. }
                | EffectKind::Event { .. } => {}
            }
        }
        if worked.is_none() && !performed {
            return replied.then_some(flows).context("a knock that is answered");
        }
    }
}

/// "Randomness" that is the same in every run, and never twice the same within one: a session wants an id of its own.
#[derive(Debug)]
pub struct Counting(u64);

impl Default for Counting {
    fn default() -> Self {
        Self(7)
    }
}

impl Entropy for Counting {
    fn fill(&mut self, _: Purpose, out: &mut [u8]) {
        for byte in out {
            // The constants of Knuth's MMIX; the upper bits are the ones that look random.
            self.0 = self
                .0
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1_442_695_040_888_963_407);
            [*byte, ..] = self.0.to_be_bytes();
        }
    }
}

fn identity() -> KnockSecret {
    KnockSecret::from_bytes([0x42; 32])
}

fn proof() -> ProofSecret {
    ProofSecret::from_seed(&[3; 32])
}

fn id(number: u32) -> CredentialId {
    let mut bytes = [1; 16];
    bytes[..4].copy_from_slice(&number.wrapping_mul(0x9E37_79B9).to_be_bytes());
    CredentialId::from_bytes(bytes)
}

fn key(number: u32) -> [u8; 32] {
    let mut bytes = [2; 32];
    bytes[..4].copy_from_slice(&number.to_be_bytes());
    bytes
}

/// The keys of one machine.
pub fn keys(number: u32) -> DerivedKeys {
    let gateway = GatewayId::of(&identity().public());
    DerivedKeys::derive(&CredentialKey::from_bytes(key(number)), gateway, id(number))
}

/// A packet that differs from the others and looks like no WireGuard header.
pub fn filled(number: u32, byte: u8) -> [u8; 512] {
    let mut packet = [byte; 512];
    packet[..4].copy_from_slice(&number.wrapping_mul(0x9E37_79B9).to_be_bytes());
    packet
}
