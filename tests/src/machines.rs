//! A core that knows a thousand machines, and packets for it: to be counted, where nothing may differ between two runs.

use std::net::SocketAddr;
use std::time::Duration;

use spa_gateway_core::{
    ClockTrust, CredentialRow, Datagram, Gateway, KeyKind, KeyRow, KnockKeyRow, Moment, Name, Now,
    PersonKind, PersonRow, Policy, Settings, Snapshot, Standing,
};
use spa_proto::{
    Ask, CredentialId, CredentialKey, DerivedKeys, GatewayId, KnockSecret, OpenAsk, ProofSecret,
    Request, ResourceId, SecondFactor, Signer, WallTime, Wanted, build_knock,
};

/// How many machines the gateway knows.
pub const MACHINES: u32 = 1_000;
/// When all of it happens.
pub const NOW: Now = Now {
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

/// A gateway that has begun, with [`MACHINES`] machines that may open `wiki`.
///
/// # Errors
/// When a part of it is not what the core takes.
pub fn gateway() -> anyhow::Result<Gateway> {
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

/// Such a packet as it comes in.
pub fn datagram(payload: &[u8; 512]) -> Datagram<'_> {
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
