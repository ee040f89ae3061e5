//! Who lives where, who may what: the whole configuration of the town, as tables one can read.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::LazyLock;
use std::time::Duration;

use spa_gateway_core::{
    CredentialRow, KeyKind, KeyRow, KnockKeyRow, Name, PersonKind, PersonRow, Policy, Settings,
    Snapshot, Standing, TotpRow,
};
use spa_proto::{
    CredentialId, CredentialKey, DerivedKeys, GatewayId, KnockPublic, KnockSecret, ProofPublic,
    ProofSecret, ResourceId, TotpSecret, WallTime,
};
use totp_rs::{Algorithm, Builder, Secret};

/// How many gateways there are.
pub(crate) const GATEWAYS: usize = 2;
/// The devices, by their people. ana has two; bo lives behind ana's address; bot is a machine.
pub(crate) const CLIENTS: [&str; 4] = ["ana", "ana", "bot", "bo"];
/// Every device is enrolled at every gateway.
pub(crate) const SEATS: usize = GATEWAYS * CLIENTS.len();
/// The most sessions of a gateway.
pub(crate) const CAPACITY: u32 = 3;
/// The addresses of a pool: a /28 without network, broadcast and the gateway's own.
pub(crate) const POOL: usize = 13;
/// The time at the start: a Saturday in 2026.
pub(crate) const START: u64 = 1_792_843_200_000;

const POLICY: &str = r#"
    defaults.for = "12m"
    [group]
    eng = ["ana", "bot", "bo"]
    [resource]
    wiki = { to = "10.0.5.10", ports = ["443/tcp"] }
    db   = { to = "10.0.6.0/28", ports = ["5432/tcp"] }
    [[allow]]
    name = "wiki"
    who = ["group:eng"]
    to = ["wiki"]
    for = "10m"
    [[allow]]
    name = "db"
    who = ["bot"]
    to = ["db"]
    for = "4m"
"#;

/// What POLICY says, said again: resource, where it is, for how long.
const ALLOWED: [(&str, &str, [u8; 4], u64); 4] = [
    ("ana", "wiki", [10, 0, 5, 10], 600),
    ("bo", "wiki", [10, 0, 5, 10], 600),
    ("bot", "wiki", [10, 0, 5, 10], 600),
    ("bot", "db", [10, 0, 6, 0], 240),
];

/// What is the same in every town, made once: a run that the fuzzer tries is over in milliseconds.
struct Made {
    policy: Policy,
    gateways: Vec<KnockPublic>,
    keys: Vec<DerivedKeys>,
    proofs: Vec<(ProofSecret, ProofPublic)>,
    /// Of nobody.
    wrong: ProofSecret,
}

static MADE: LazyLock<Made> = LazyLock::new(|| {
    let gateways: Vec<_> = (0..GATEWAYS)
        .map(|gateway| knock_secret(gateway).public())
        .collect();
    let keys = (0..SEATS).map(|seat| {
        let gateway = GatewayId::of(&gateways[gateway_of(seat)]);
        DerivedKeys::derive(&credential_key(seat), gateway, credential(seat))
    });
    let proofs = (0..SEATS).map(|seat| {
        let secret = ProofSecret::from_seed(&[small(seat) + 1; 32]);
        let public = secret.public();
        (secret, public)
    });
    Made {
        policy: Policy::parse(POLICY).expect("a policy"),
        keys: keys.collect(),
        proofs: proofs.collect(),
        gateways,
        wrong: ProofSecret::from_seed(&[0xBD; 32]),
    }
});

pub(crate) fn policy() -> Policy {
    MADE.policy.clone()
}

/// Gives the address a person may reach by this name.
pub(crate) fn destination(person: &str, resource: &str) -> Option<IpAddr> {
    let row = ALLOWED
        .iter()
        .find(|row| (row.0, row.1) == (person, resource))?;
    Some(row.2.into())
}

/// Says whether a person gets anything of what is asked.
pub(crate) fn may(person: &str, resources: &[&str]) -> bool {
    resources
        .iter()
        .any(|resource| destination(person, resource).is_some())
}

/// The longest session of anybody: the control channel alone gets the default.
pub(crate) const LONGEST: Duration = Duration::from_secs(12 * 60);

pub(crate) const fn gateway_of(seat: usize) -> usize {
    seat / CLIENTS.len()
}

pub(crate) const fn client_of(seat: usize) -> usize {
    seat % CLIENTS.len()
}

pub(crate) fn person_of(seat: usize) -> &'static str {
    CLIENTS[client_of(seat)]
}

pub(crate) fn is_machine(seat: usize) -> bool {
    person_of(seat) == "bot"
}

/// Where the knocks of a gateway go.
pub(crate) fn address_of(gateway: usize) -> SocketAddr {
    SocketAddr::new([192, 0, 2, small(gateway) + 1].into(), 51_820)
}

/// Where clients are: 0 is the address ana and bo share.
pub(crate) fn place(number: u8) -> IpAddr {
    match number % 4 {
        3 => IpAddr::from([0x2001, 0xdb8, 0, 0, 0, 0, 0, 7]),
        place => IpAddr::from([198, 51, 100, place + 1]),
    }
}

pub(crate) fn knock_secret(gateway: usize) -> KnockSecret {
    KnockSecret::from_bytes([0x40 + small(gateway); 32])
}

pub(crate) fn credential(seat: usize) -> CredentialId {
    CredentialId::from_bytes([small(seat) + 1; 16])
}

pub(crate) fn seat_of(credential: CredentialId) -> usize {
    usize::from(credential.as_bytes()[0]) - 1
}

fn credential_key(seat: usize) -> CredentialKey {
    CredentialKey::from_bytes([0x80 + small(seat); 32])
}

/// The public half of a gateway's identity.
pub(crate) fn knock_public(gateway: usize) -> KnockPublic {
    MADE.gateways[gateway]
}

pub(crate) fn keys(seat: usize) -> &'static DerivedKeys {
    &MADE.keys[seat]
}

pub(crate) fn proof(seat: usize) -> &'static ProofSecret {
    &MADE.proofs[seat].0
}

/// What a wrong password makes.
pub(crate) fn wrong_proof() -> &'static ProofSecret {
    &MADE.wrong
}

pub(crate) fn rid(resource: &str) -> ResourceId {
    ResourceId::of(resource)
}

/// A phone has a secret for each gateway.
fn totp_secret(gateway: usize, person: &str) -> [u8; 20] {
    [small(gateway) * 16 + person.len() as u8; 20]
}

/// What the phone shows in a step.
pub(crate) fn code(gateway: usize, person: &str, step: u64) -> u32 {
    let totp = Builder::new()
        .with_secret(Secret::new(totp_secret(gateway, person).as_slice().into()))
        .with_algorithm(Algorithm::SHA1)
        .with_digits(6)
        .with_step_duration(30)
        .build_noncompliant();
    totp.generate(step * 30)
        .to_string()
        .parse()
        .expect("digits")
}

pub(crate) fn settings() -> Settings {
    Settings {
        wg_public: [0xEE; 32],
        wg_port: 51_820,
        tunnel4: Some((Ipv4Addr::new(10, 200, 0, 1), 28)),
        tunnel6: Some(("fd5a:1::1".parse().expect("an address"), 64)),
        control_port: Some(8_700),
        report_every: Duration::from_secs(60),
        mtu: 1_280,
        keepalive: 25,
        dns: None,
        door: Duration::from_secs(10),
        longest: Duration::from_secs(24 * 3_600),
        capacity: CAPACITY,
        totp_digits: 6,
    }
}

/// The store of a gateway when the town begins.
pub(crate) fn store(gateway: usize) -> Snapshot {
    let seats = (0..SEATS).filter(|seat| gateway_of(*seat) == gateway);
    let mut persons = CLIENTS.to_vec();
    persons.dedup();
    Snapshot {
        knock_keys: vec![KnockKeyRow {
            kid: 0,
            secret: knock_secret(gateway),
            made: WallTime::from_millis(0),
            not_after: None,
        }],
        persons: persons
            .iter()
            .map(|person| person_row(gateway, person))
            .collect(),
        credentials: seats.map(credential_row).collect(),
        floor: WallTime::from_millis(START - 10_000_000),
        ..Snapshot::default()
    }
}

fn person_row(gateway: usize, person: &str) -> PersonRow {
    let machine = person == "bot";
    PersonRow {
        name: name(person),
        kind: if machine {
            PersonKind::Machine
        } else {
            PersonKind::Human
        },
        standing: Standing::Enabled,
        totp: (!machine).then(|| TotpRow {
            secret: TotpSecret::from_bytes(&totp_secret(gateway, person)).expect("20 bytes"),
            digits: 6,
            period: 30,
            proven: true,
        }),
        last_step: 0,
        recovery: Vec::new(),
    }
}

fn credential_row(seat: usize) -> CredentialRow {
    CredentialRow {
        id: credential(seat),
        person: name(person_of(seat)),
        label: label(seat),
        proof: Some(MADE.proofs[seat].1),
        keys: vec![KeyRow {
            number: 1,
            kind: KeyKind::Live,
            key: credential_key(seat),
        }],
        standing: Standing::Enabled,
        expires: None,
        confirmed: true,
        enrolled: Some(WallTime::from_millis(1)),
        invite_until: None,
        last_ts: WallTime::from_millis(0),
        failures: 0,
    }
}

pub(crate) fn label(seat: usize) -> String {
    format!("device{}", client_of(seat))
}

pub(crate) fn name(text: &str) -> Name {
    Name::parse(text).expect("a name")
}

fn small(number: usize) -> u8 {
    u8::try_from(number).expect("a small number")
}
