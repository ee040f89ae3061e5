//! One path of the core, walked a number of times, to be counted by valgrind: `instructions stranger|bad-mac|open COUNT`.
//!
//! Nothing is random, no clock is read and every map is ordered, so two runs differ by nothing but the count. What a
//! packet costs is the difference of two counts; see tests/tools/instructions.sh.
#![forbid(unsafe_code)]

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context, bail};
use spa_gateway_core::{
    ClockTrust, CredentialRow, Datagram, Effect, EffectKind, Entropy, Gateway, KeyKind, KeyRow,
    KnockKeyRow, Moment, Name, Now, PersonKind, PersonRow, Policy, Purpose, Refusal, Settings,
    Snapshot, Standing,
};
use spa_proto::{
    Ask, CredentialId, CredentialKey, DerivedKeys, GatewayId, KnockSecret, OpenAsk, ProofSecret,
    Request, ResourceId, SecondFactor, Signer, WallTime, Wanted, build_knock,
};

/// How many machines the gateway knows.
const MACHINES: u32 = 1_000;
const NOW: Now = Now {
    wall: WallTime::from_millis(1_800_000_000_000),
    mono: Moment::from_millis(1 << 40),
};
const POLICY: &str = r#"
    [resource]
    wiki = { to = "10.0.5.10", ports = ["443/tcp"] }
    [[allow]]
    name = "wiki"
    who = ["bot"]
    to = ["wiki"]
"#;

fn main() -> anyhow::Result<()> {
    let mut arguments = std::env::args().skip(1);
    let path = arguments.next().context("which path?")?;
    let count: u32 = arguments.next().context("how often?")?.parse()?;
    let mut gateway = gateway()?;
    let packets: Vec<[u8; 512]> = match path.as_str() {
        // Its tag is nobody's.
        "stranger" => (0..count).map(|number| filled(number, 0x5A)).collect(),
        // The tag of somebody, and nothing else right.
        "bad-mac" => (0..count)
            .map(|number| {
                let mut packet = filled(number, 0x5A);
                let tag = keys(number % MACHINES).tag(NOW.wall.slot());
                packet[..8].copy_from_slice(tag.as_bytes());
                packet
            })
            .collect(),
        "open" => (0..count.min(MACHINES))
            .map(knock)
            .collect::<anyhow::Result<_>>()?,
        other => bail!("no path {other}"),
    };
    for packet in &packets {
        let outcome = gateway.handle_datagram(datagram(packet), NOW);
        match (path.as_str(), outcome) {
            ("stranger", Err(Refusal::UnknownTag)) | ("bad-mac", Err(Refusal::OuterMac)) => {}
            ("open", Ok(())) => open(&mut gateway)?,
            (_, outcome) => bail!("{outcome:?}"),
        }
    }
    Ok(())
}

/// Opens what waits; a store and an enforcer that do everything at once.
fn open(gateway: &mut Gateway) -> anyhow::Result<()> {
    let mut replied = false;
    loop {
        let worked = gateway.handle_work(NOW, &mut Counting(7));
        let mut performed = false;
        while let Some(Effect { id, kind }) = gateway.poll_effect() {
            performed = true;
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
            return replied.then_some(()).context("a knock that is answered");
        }
    }
}

fn gateway() -> anyhow::Result<Gateway> {
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
    let name = Name::parse("bot").map_err(|error| anyhow::anyhow!("{error:?}"))?;
    store.persons.push(PersonRow {
        name: name.clone(),
        kind: PersonKind::Machine,
        standing: Standing::Enabled,
        totp: None,
        last_step: 0,
        recovery: Vec::new(),
    });
    for number in 0..MACHINES {
        store.credentials.push(CredentialRow {
            id: id(number),
            person: name.clone(),
            label: format!("m{number}"),
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
        tunnel6: None,
        control_port: None,
        report_every: Duration::from_secs(60),
        mtu: 1_420,
        keepalive: 25,
        dns: None,
        door: Duration::from_secs(10),
        longest: Duration::from_secs(24 * 60 * 60),
        capacity: MACHINES,
        totp_digits: 6,
    };
    let policy = Policy::parse(POLICY).map_err(|error| anyhow::anyhow!("{error}"))?;
    let mut gateway = Gateway::restore(settings, store, policy, NOW)?;
    gateway.handle_clock(ClockTrust::Trusted, NOW);
    gateway.handle_start(&[], NOW);
    while let Some(effect) = gateway.poll_effect() {
        gateway.handle_performed(effect.id, Ok(()), NOW);
    }
    Ok(gateway)
}

fn knock(number: u32) -> anyhow::Result<[u8; 512]> {
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

fn datagram(payload: &[u8; 512]) -> Datagram<'_> {
    Datagram {
        payload,
        source: SocketAddr::from(([198, 51, 100, 7], 40_000)),
        destination: SocketAddr::from(([192, 0, 2, 1], 51_820)),
        on_loopback: false,
        fragment: false,
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

fn keys(number: u32) -> DerivedKeys {
    let gateway = GatewayId::of(&identity().public());
    DerivedKeys::derive(&CredentialKey::from_bytes(key(number)), gateway, id(number))
}

/// A packet that differs from the others and looks like no WireGuard header.
fn filled(number: u32, byte: u8) -> [u8; 512] {
    let mut packet = [byte; 512];
    packet[..4].copy_from_slice(&number.wrapping_mul(0x9E37_79B9).to_be_bytes());
    packet
}

/// "Randomness" that is the same in every run.
struct Counting(u8);

impl Entropy for Counting {
    fn fill(&mut self, _: Purpose, out: &mut [u8]) {
        for byte in out {
            self.0 = self.0.wrapping_mul(31).wrapping_add(17);
            *byte = self.0;
        }
    }
}
