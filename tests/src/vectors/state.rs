//! The state of a vector as the core takes it: settings, policy, store, and what only memory knows.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

use spa_gateway_core::{
    ACCEPTED, CredentialRow, KeyKind, KeyRow, KnockKeyRow, Name, PersonKind, PersonRow, Policy,
    Recollection, SessionRow, Settings, Snapshot, Standing, TotpRow,
};
use spa_proto::{
    CredentialId, CredentialKey, KnockSecret, ProofPublic, RecoveryCode, SessionId, SessionKey,
    Slot, TotpSecret, WallTime,
};

use super::case::{Case, Checked, Failure, refused, unhex};

/// Where every knock goes.
pub const KNOCKED: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1)), 51820);
/// The longest session of every case.
const LONGEST: Duration = Duration::from_secs(480 * 60);

pub fn settings(state: &Case<'_>) -> Checked<Settings> {
    let wg_public = if state.has("wg_pub") {
        state.array("wg_pub")?
    } else {
        [0xEE; 32]
    };
    Ok(Settings {
        wg_public,
        wg_port: KNOCKED.port(),
        tunnel4: Some((Ipv4Addr::new(10, 200, 0, 1), 16)),
        tunnel6: None,
        control_port: Some(8700),
        report_every: Duration::from_secs(60),
        mtu: 1280,
        keepalive: 25,
        dns: None,
        door: Duration::from_secs(10),
        longest: LONGEST,
        capacity: if state.has("capacity") {
            state.int("capacity")?
        } else {
            u32::MAX
        },
        totp_digits: 6,
    })
}

/// A resource is allowed if listed, any hour, for 480 minutes.
pub fn policy(state: &Case<'_>) -> Checked<Policy> {
    let mut allowed: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
    for credential in state.cases("credentials")? {
        let names = credential
            .value("resources")?
            .as_array()
            .into_iter()
            .flatten();
        allowed
            .entry(credential.text("person")?)
            .or_default()
            .extend(names.filter_map(|name| name.as_str()));
    }
    let mut text = String::from("defaults.for = \"8h\"\n");
    for resource in allowed.values().flatten().collect::<BTreeSet<_>>() {
        text += &format!("resource.{resource} = {{ to = \"10.0.0.1\", ports = [\"443/tcp\"] }}\n");
    }
    for (person, resources) in allowed
        .iter()
        .filter(|(_, resources)| !resources.is_empty())
    {
        text += &format!(
            "[[allow]]\nname = \"of-{person}\"\nwho = [\"{person}\"]\nto = {resources:?}\n"
        )
        .replace('{', "[")
        .replace('}', "]");
    }
    Policy::parse(&text).map_err(refused("the policy"))
}

pub fn snapshot(state: &Case<'_>, now: WallTime) -> Checked<Snapshot> {
    let credentials = state.cases("credentials")?;
    Ok(Snapshot {
        waiting: Vec::new(),
        habits: Vec::new(),
        learned: Vec::new(),
        usual: Vec::new(),
        facts: Vec::new(),
        locks: Vec::new(),
        grants: Vec::new(),
        approvals: Vec::new(),
        knock_keys: knock_keys(&state.object("knock_keys")?)?,
        persons: persons(&state.object("persons")?, &credentials)?,
        sessions: sessions(&credentials, now)?,
        credentials: credentials.iter().map(credential).collect::<Checked<_>>()?,
        resting: Vec::new(),
        floor: WallTime::from_millis(if state.has("clock_floor") {
            state.u64("clock_floor")?
        } else {
            0
        }),
    })
}

fn knock_keys(keys: &Case<'_>) -> Checked<Vec<KnockKeyRow>> {
    let row = |name: &str| {
        let key = keys.object(name)?;
        let kid = name.parse().map_err(refused("the kid"))?;
        let not_after = WallTime::from_millis(key.u64("accepted_until")?);
        Ok(KnockKeyRow {
            kid,
            secret: KnockSecret::from_bytes(key.array("private")?),
            made: not_after.saturating_sub(ACCEPTED),
            not_after: (kid != 0).then_some(not_after),
        })
    };
    keys.names().map(row).collect()
}

fn persons(persons: &Case<'_>, credentials: &[Case<'_>]) -> Checked<Vec<PersonRow>> {
    let row = |name: &str| {
        let person = persons.object(name)?;
        let is_machine = |case: &&Case<'_>| case.text("person").is_ok_and(|of| of == name);
        let machine = credentials
            .iter()
            .find(is_machine)
            .map(|case| case.bool("machine"))
            .transpose()?;
        let secret = TotpSecret::from_bytes(&person.bytes("totp_secret")?);
        let codes = person
            .value("recovery_codes")?
            .as_array()
            .into_iter()
            .flatten();
        let codes = codes.filter_map(|code| unhex(code.as_str()?)?.try_into().ok());
        Ok(PersonRow {
            name: Name::parse(name).map_err(refused("the person's name"))?,
            kind: if machine == Some(true) {
                PersonKind::Machine
            } else {
                PersonKind::Human
            },
            standing: Standing::Enabled,
            totp: Some(TotpRow {
                secret: secret.ok_or_else(|| Failure::new("totp_secret has a wrong length"))?,
                digits: person.int("digits")?,
                period: person.int("period")?,
                proven: !person.has("has_totp") || person.bool("has_totp")?,
            }),
            last_step: person.u64("last_step")?,
            recovery: codes
                .map(|code| RecoveryCode::from_bytes(code).digest())
                .collect(),
        })
    };
    persons.names().map(row).collect()
}

fn credential(case: &Case<'_>) -> Checked<CredentialRow> {
    let keys = case.cases("keys")?;
    let first = u8::from(
        !keys
            .iter()
            .any(|key| key.text("kind").is_ok_and(|kind| kind == "inv")),
    );
    let key = |(number, key): (u8, &Case<'_>)| {
        let kind = match key.text("kind")? {
            "live" => KeyKind::Live,
            "inv" => KeyKind::Invite,
            "cand" => KeyKind::Candidate,
            other => return Err(Failure::new(format!("the key's kind {other:?} is unknown"))),
        };
        Ok(KeyRow {
            number,
            kind,
            key: CredentialKey::from_bytes(key.array("K_cred")?),
        })
    };
    let enabled = !case.has("enabled") || case.bool("enabled")?;
    Ok(CredentialRow {
        id: CredentialId::from_bytes(case.array("cred_id")?),
        person: Name::parse(case.text("person")?).map_err(refused("the person's name"))?,
        label: String::new(),
        proof: match case.text("Q")? {
            "" => None,
            _ => Some(ProofPublic::from_bytes(case.array("Q")?)),
        },
        keys: (first..).zip(&keys).map(key).collect::<Checked<_>>()?,
        standing: if enabled {
            Standing::Enabled
        } else {
            Standing::Disabled
        },
        expires: if case.has("expires") {
            Some(WallTime::from_millis(case.u64("expires")?))
        } else {
            None
        },
        confirmed: true,
        enrolled: None,
        invite_until: None,
        last_ts: WallTime::from_millis(case.u64("last_ts")?),
        failures: if case.has("failures_in_a_row") {
            case.int("failures_in_a_row")?
        } else {
            0
        },
    })
}

fn sessions(credentials: &[Case<'_>], now: WallTime) -> Checked<Vec<SessionRow>> {
    let mut rows = Vec::new();
    for (number, credential) in (2_u8..).zip(credentials) {
        if !credential.has("session") {
            continue;
        }
        let session = credential.object("session")?;
        let in_play = session.has("W") && !session.text("W")?.is_empty();
        rows.push(SessionRow {
            id: SessionId::from_bytes(session.array("id")?),
            credential: CredentialId::from_bytes(credential.array("cred_id")?),
            key: SessionKey::from_bytes(session.array("k_sess")?),
            wg_key: if in_play {
                session.array("W")?
            } else {
                [number; 32]
            },
            tunnel4: Some(Ipv4Addr::new(10, 200, 0, number)),
            tunnel6: None,
            resources: Vec::new(),
            source: KNOCKED,
            signals: None,
            opened: now,
            not_after: WallTime::from_millis(session.u64("not_after")?),
        });
    }
    Ok(rows)
}

pub fn recollection(credential: &Case<'_>, now: WallTime) -> Checked<(CredentialId, Recollection)> {
    let tokens = |name, full| {
        if credential.has(name) {
            credential.int(name)
        } else {
            Ok(full)
        }
    };
    let list = |name| {
        if credential.has(name) {
            credential.cases(name)
        } else {
            Ok(Vec::new())
        }
    };
    let spent = list("spent")?;
    let spent = spent
        .iter()
        .map(|case| Ok((Slot::from_minutes(case.u64("slot")?), case.array("V")?)));
    let failed = list("failed_ts")?;
    let failed = failed.iter().map(|case| {
        let ago = now.since(WallTime::from_millis(case.u64("at")?));
        Ok((WallTime::from_millis(case.u64("ts")?), ago))
    });
    let recollection = Recollection {
        message_tokens: tokens("message_tokens", 6)?,
        failure_tokens: tokens("failure_tokens", 5)?,
        spent: spent.collect::<Checked<_>>()?,
        failed: failed.collect::<Checked<_>>()?,
    };
    Ok((
        CredentialId::from_bytes(credential.array("cred_id")?),
        recollection,
    ))
}
