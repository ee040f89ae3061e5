//! Many devices that knock without Argon2: machines written into the store before the gateway starts, knocks built by spa-proto.
//!
//! To the gateway they are like any other: each has its own key, each knock its own ephemeral key, proof and record. Their proof
//! key is one and the same, since only the devices would have to tell them apart.

use std::fmt::Write as _;
use std::net::SocketAddr;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context, bail};
use spa_gateway::config::Config;
use spa_gateway::store::Store;
use spa_gateway_core::{
    Change, CredentialRow, KeyKind, KeyRow, Name, PersonKind, PersonRow, Record, Standing,
};
use spa_proto::{
    Ask, CredentialId, CredentialKey, DefaultRoute, DerivedKeys, GatewayId, KnockPublic, OpenAsk,
    Outcome, PendingKnock, ProofSecret, Request, ResourceId, SecondFactor, Signer, WallTime,
    Wanted, build_knock,
};
use spa_tests::gateway::Gateway;
use spa_tests::net::Namespace;
use spa_tests::packet::Packet;
use spa_tests::topology::{GATEWAY, PORT, SERVER, WEB, endpoint};

/// The most members of one group of the policy.
const GROUP: usize = 4_096;
/// Where the fleet is.
const SOURCE: &str = "203.0.113.66";
/// The source port of the first member; each has its own, so that each has its own door.
const FIRST_PORT: u16 = 2_000;
/// What they may reach.
const RESOURCE: &str = "wiki";

/// The devices.
#[derive(Debug)]
pub struct Fleet {
    knock_key: KnockPublic,
    proof: ProofSecret,
    members: Vec<DerivedKeys>,
    /// How many of them have knocked.
    used: usize,
}

/// What an enrolled attacker gets wrong.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Dishonest {
    /// Everything but the tag, as whoever captured one knock could.
    BadMac,
    /// The proof: the password is not his.
    BadProof,
    /// Nothing: a device of ours that knocks far too often.
    Eager,
}

/// A knock, the door it is to open, and what its reply is opened with.
#[derive(Debug)]
pub struct Knock {
    /// The packet, from the IP header on.
    pub packet: Packet,
    /// Its source, and so its door.
    pub door: SocketAddr,
    member: usize,
    ts: WallTime,
    pending: PendingKnock,
}

impl Fleet {
    /// Writes `count` machines and their policy to a gateway that does not run yet; `length` is that of their sessions.
    ///
    /// # Errors
    /// When the store cannot be written.
    pub fn enlist(gateway: &Gateway, count: usize, length: &str) -> anyhow::Result<Self> {
        let config = Config::load(gateway.config())?;
        let mut store = Store::open(&config.paths)?;
        let snapshot = store.load()?;
        let identity = snapshot
            .knock_keys
            .first()
            .context("a gateway has a knock key")?
            .secret
            .public();
        let gateway_id = GatewayId::of(&identity);
        let proof = ProofSecret::from_seed(&random()?);
        let mut members = Vec::with_capacity(count);
        let mut changes = Vec::with_capacity(2 * count);
        for number in 0..count {
            let id = CredentialId::from_bytes(random()?);
            let key = CredentialKey::from_bytes(random()?);
            members.push(DerivedKeys::derive(&key, gateway_id, id));
            let name = Name::parse(&name(number))
                .ok()
                .context("a name of letters and digits")?;
            changes.push(Change::PersonAdded(machine(name.clone())));
            changes.push(Change::InviteMade(CredentialRow {
                id,
                person: name,
                label: "bench".to_owned(),
                proof: Some(proof.public()),
                keys: vec![KeyRow {
                    number: 1,
                    kind: KeyKind::Live,
                    key,
                }],
                standing: Standing::Enabled,
                expires: None,
                confirmed: true,
                enrolled: Some(now()),
                invite_until: None,
                last_ts: WallTime::from_millis(0),
                failures: 0,
            }));
        }
        store.commit(&[Record { changes }])?;
        gateway.write_policy(&policy(count, length))?;
        Ok(Self {
            knock_key: identity,
            proof,
            members,
            used: 0,
        })
    }

    /// Builds the knocks of the next `count` members, for the minute that begins now.
    ///
    /// # Errors
    /// When there are not so many left.
    pub fn knocks(&mut self, count: usize) -> anyhow::Result<Vec<Knock>> {
        let first = self.used;
        let members = self
            .members
            .get(first..first + count)
            .context("the fleet is too small")?;
        let knocks = members
            .iter()
            .enumerate()
            .map(|(at, keys)| self.knock(first + at, keys));
        let knocks = knocks.collect::<anyhow::Result<Vec<_>>>()?;
        self.used += count;
        Ok(knocks)
    }

    /// Lets the first of them knock again: their sessions have ended.
    pub fn rewind(&mut self) {
        self.used = 0;
    }

    fn knock(&self, member: usize, keys: &DerivedKeys) -> anyhow::Result<Knock> {
        let ask = Ask::Open(OpenAsk {
            minutes: 0,
            factor: SecondFactor::None,
            wanted: Wanted::Resources(vec![ResourceId::of(RESOURCE)]),
            wg_key: random()?,
            posture: None,
        });
        let ts = now();
        let (bytes, pending) = self.build(keys, ts, ask, Signer::Password(&self.proof))?;
        let door = endpoint(SOURCE, FIRST_PORT + u16::try_from(member)?);
        Ok(Knock {
            packet: Packet::udp(door, endpoint(GATEWAY, PORT), &bytes),
            door,
            member,
            ts,
            pending,
        })
    }

    /// Builds the knock that ends the session this reply tells of.
    ///
    /// # Errors
    /// When it tells of none.
    pub fn closing(&self, knock: &Knock, reply: &[u8]) -> anyhow::Result<[u8; 512]> {
        let opened = knock.pending.open_reply(reply, now(), DefaultRoute::Refuse);
        let (payload, secrets) =
            opened.map_err(|error| anyhow::anyhow!("no reply of ours: {error}"))?;
        let Outcome::Session(session) = payload.outcome else {
            bail!("the knock was refused: {:?}", payload.outcome);
        };
        let keys = self
            .members
            .get(knock.member)
            .context("a knock of this fleet")?;
        let signer = Signer::Session(&secrets.k_sess);
        // Later than the one before, even if the answer came in the same millisecond (SPEC §7).
        let ts = now().max(knock.ts.saturating_add(Duration::from_millis(1)));
        Ok(self.build(keys, ts, Ask::Close(session.id), signer)?.0)
    }

    /// Packets of one member that a gateway is not to be kept busy with, all different: with its tag of this minute and nothing
    /// else right; right up to the proof, which is another's; or each of them a knock that could open.
    ///
    /// # Errors
    /// When there are no members, or no randomness.
    pub fn dishonest(&self, kind: Dishonest, count: usize) -> anyhow::Result<Vec<[u8; 512]>> {
        let keys = self.members.last().context("a fleet")?;
        let stranger = ProofSecret::from_seed(&random()?);
        let begun = now();
        let packet = |number: usize| -> anyhow::Result<[u8; 512]> {
            let ask = Ask::Open(OpenAsk {
                minutes: 0,
                factor: SecondFactor::None,
                wanted: Wanted::All,
                wg_key: random()?,
                posture: None,
            });
            let signer = Signer::Password(match kind {
                Dishonest::BadMac | Dishonest::BadProof => &stranger,
                Dishonest::Eager => &self.proof,
            });
            // Each is newer than the one before (SPEC §7).
            let ts = begun.saturating_add(Duration::from_millis(number.try_into()?));
            let (mut packet, _) = self.build(keys, ts, ask, signer)?;
            if kind == Dishonest::BadMac {
                packet[8..].copy_from_slice(&random::<504>()?);
            }
            Ok(packet)
        };
        (0..count).map(packet).collect()
    }

    fn build(
        &self,
        keys: &DerivedKeys,
        ts: WallTime,
        ask: Ask,
        signer: Signer<'_>,
    ) -> anyhow::Result<([u8; 512], PendingKnock)> {
        let request = Request {
            ts,
            same_port: true,
            source: None,
            ask,
        };
        let (info, ext) = request.encode()?;
        Ok(build_knock(
            keys,
            0,
            &self.knock_key,
            ts.slot(),
            random()?,
            &info,
            &ext,
            signer,
        )?)
    }
}

/// Keeps a namespace from answering replies to ports on which nobody listens.
///
/// # Errors
/// When nft refuses.
pub fn hush(space: &Namespace) -> anyhow::Result<()> {
    space.nft(
        "table inet hush {
           chain out { type filter hook output priority 0; icmp type destination-unreachable drop; }
         }",
    )
}

/// A random array.
///
/// # Errors
/// When the kernel gives none.
pub fn random<const N: usize>() -> anyhow::Result<[u8; N]> {
    let mut bytes = [0; N];
    getrandom::fill(&mut bytes).map_err(|error| anyhow::anyhow!("no randomness: {error}"))?;
    Ok(bytes)
}

/// The wall clock.
pub fn now() -> WallTime {
    let since = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    WallTime::from_millis(u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
}

fn machine(name: Name) -> PersonRow {
    PersonRow {
        name,
        kind: PersonKind::Machine,
        standing: Standing::Enabled,
        totp: None,
        last_step: 0,
        recovery: Vec::new(),
    }
}

fn name(number: usize) -> String {
    format!("m{number}")
}

fn policy(count: usize, length: &str) -> String {
    let mut groups = String::new();
    let mut who = Vec::new();
    for (number, first) in (0..count).step_by(GROUP).enumerate() {
        let members: Vec<String> = (first..count.min(first + GROUP))
            .map(|number| format!("{:?}", name(number)))
            .collect();
        let _never_fails = writeln!(groups, "fleet{number} = [{}]", members.join(", "));
        who.push(format!("\"group:fleet{number}\""));
    }
    format!(
        "version = 1\n\n[group]\n{groups}\n[resource]\n{RESOURCE} = {{ to = \"{SERVER}\", ports = [\"{WEB}/tcp\"] }}\n\n\
         [[allow]]\nname = \"fleet\"\nwho = [{}]\nto = [\"{RESOURCE}\"]\nfor = \"{length}\"\n",
        who.join(", ")
    )
}
