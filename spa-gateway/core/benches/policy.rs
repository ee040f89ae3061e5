//! What policy costs, against the budgets: 1,000 rules decided in 20 µs, 1,000 rules applied to 1,000 live
//! sessions in 50 ms.
//!
//! `cargo bench -p spa-gateway-core --bench policy`. Prints one line a case; asserts nothing about time.

use std::fmt::Write;
use std::hint::black_box;
use std::time::{Duration, Instant};

use spa_gateway_core::policy::{Facts, Policy, Request, RiskInput, check};
use spa_gateway_core::{
    ClockTrust, CredentialRow, Gateway, KnockKeyRow, Moment, Name, Now, PeerState, PersonKind,
    PersonRow, PresentPeer, SessionRow, Settings, Snapshot, Standing,
};
use spa_proto::{CredentialId, KnockSecret, SessionId, SessionKey, WallTime};

/// 2026-11-23 10:00 UTC, a Monday.
const NOW: WallTime = WallTime::from_millis(1_795_428_000_000);
/// How long each case runs.
const EACH: Duration = Duration::from_millis(300);

fn main() {
    let mut facts = Facts::default();
    facts.assume(name("laptop"));
    println!("{:<58} {:>12}", "decide, 1000 rules", "per decision");
    for (what, rules) in [
        ("one of 100 resources", spread(1000)),
        ("one resource, rules of other people", others(1000)),
        ("one resource, every rule fails a condition", failing(1000)),
        ("one resource, every rule matches", matching(1000)),
        (
            "one resource, every rule matches with a window and posture",
            conditioned(1000),
        ),
    ] {
        let policy = Policy::parse(&rules).expect("a policy");
        let (person, resource) = (name("p0"), name("r0"));
        let request = Request {
            at: Some(NOW),
            facts: Some(&facts),
            risk: RiskInput::Fixed(10),
            source: Some([10, 0, 0, 1].into()),
            ..Request::new(&person, &resource)
        };
        println!(
            "{what:<58} {:>12}",
            time(|| {
                let _ = black_box(policy.decide(black_box(&request)));
            })
        );
    }
    println!("{:<58} {:>12}", "other", "per run");
    let (person, resource) = (name("p0"), name("r0"));
    let request = Request {
        at: Some(NOW),
        ..Request::new(&person, &resource)
    };
    let policy = Policy::parse(&failing(1000)).expect("a policy");
    println!(
        "{:<58} {:>12}",
        "explain over 1000 rules",
        time(|| {
            black_box(policy.explain(&request));
        })
    );
    apply();
    for count in [1000, 10_000] {
        let text = spread(count);
        println!(
            "{:<58} {:>12}",
            format!("parse {count} rules, {} KiB", text.len() / 1024),
            time(|| {
                black_box(Policy::parse(&text).is_ok());
            })
        );
        println!(
            "{:<58} {:>12}",
            format!("check {count} rules"),
            time(|| {
                black_box(check(&text, Some(NOW)).is_sound());
            })
        );
    }
}

/// A gateway with this many live sessions, each of a person of its own.
fn gateway(sessions: u16, policy: Policy) -> Gateway {
    let now = Now {
        wall: NOW,
        mono: Moment::from_millis(1 << 40),
    };
    let mut store = Snapshot {
        knock_keys: vec![KnockKeyRow {
            kid: 0,
            secret: KnockSecret::from_bytes([1; 32]),
            made: NOW,
            not_after: None,
        }],
        ..Snapshot::default()
    };
    let mut peers = Vec::new();
    for number in 0..sessions {
        let [high, low] = number.to_be_bytes();
        let mut id = [0; 32];
        id[..2].copy_from_slice(&[high, low]);
        let credential =
            CredentialId::from_bytes([[high, low]; 8].concat().try_into().expect("16"));
        let person = name(&format!("p{}", number % 50));
        if number < 50 {
            store.persons.push(PersonRow {
                name: person.clone(),
                kind: PersonKind::Machine,
                standing: Standing::Enabled,
                totp: None,
                last_step: 0,
                recovery: Vec::new(),
            });
        }
        store.credentials.push(CredentialRow {
            id: credential,
            person,
            label: format!("device-{number}"),
            proof: None,
            keys: Vec::new(),
            standing: Standing::Enabled,
            expires: None,
            confirmed: true,
            enrolled: None,
            invite_until: None,
            last_ts: NOW,
            failures: 0,
        });
        let resource = number % 50;
        store.sessions.push(SessionRow {
            id: SessionId::from_bytes([0, 0, 0, 0, 0, 0, high, low]),
            credential,
            key: SessionKey::from_bytes([2; 32]),
            wg_key: id,
            tunnel4: Some([10, 200, 1 + high, low].into()),
            tunnel6: None,
            resources: vec![
                name(&format!("r{resource}")),
                name(&format!("r{}", resource + 50)),
            ],
            source: "198.51.100.1:4000".parse().expect("an address"),
            signals: None,
            opened: NOW,
            not_after: NOW.saturating_add(Duration::from_secs(3600)),
        });
        peers.push(PresentPeer {
            wg_key: id,
            state: PeerState {
                endpoint: "198.51.100.1:4000".parse().ok(),
                handshake_age_ms: Some(1),
                rx: 1,
                tx: 1,
            },
        });
    }
    let settings = Settings {
        wg_public: [3; 32],
        wg_port: 51820,
        tunnel4: Some(([10, 200, 0, 1].into(), 16)),
        tunnel6: None,
        control_port: Some(8700),
        report_every: std::time::Duration::from_secs(60),
        mtu: 1280,
        keepalive: 25,
        dns: None,
        door: Duration::from_secs(10),
        longest: Duration::from_secs(24 * 60 * 60),
        capacity: 10_000,
        totp_digits: 6,
    };
    let mut gateway = Gateway::restore(settings, store, policy, now).expect("kid 0");
    gateway.handle_clock(ClockTrust::Trusted, now);
    gateway.handle_start(&peers, now);
    perform(&mut gateway, now);
    gateway
}

/// Performs every effect; gives how many there were.
fn perform(gateway: &mut Gateway, now: Now) -> usize {
    let mut count = 0;
    while let Some(effect) = gateway.poll_effect() {
        gateway.handle_performed(effect.id, Ok(()), now);
        count += 1;
    }
    count
}

/// Applies a policy of 1,000 rules to 1,000 live sessions, of which every second one loses a resource.
fn apply() {
    let before = Policy::parse(&spread(1000)).expect("a policy");
    let text = spread(1000).replace("to = [\"r7", "priority = 1\nto = [\"r7");
    let denies: String = (50..100)
        .map(|number| {
            format!(
                "[[deny]]\nname = \"deny-{number}\"\nwho = [\"group:all\"]\nto = [\"r{number}\"]\n"
            )
        })
        .collect();
    let text = text.replace(
        "all = [\"p0\", \"p1\"]",
        &format!(
            "all = {:?}",
            (0..25)
                .map(|person| format!("p{person}"))
                .collect::<Vec<_>>()
        ),
    );
    let after = Policy::parse(&(text + &denies)).expect("a policy");
    let now = Now {
        wall: NOW.saturating_add(Duration::from_secs(1)),
        mono: Moment::from_millis((1 << 40) + 1000),
    };
    let mut gateway = gateway(1000, before);
    let live = gateway.sessions().count();
    let start = Instant::now();
    gateway.handle_policy(after.clone(), None, now);
    let decided = start.elapsed();
    let orders = perform(&mut gateway, now);
    println!(
        "{:<58} {:>9.1} ms",
        format!("apply to {live} live sessions, {orders} effects out"),
        decided.as_secs_f64() * 1e3
    );
    let start = Instant::now();
    gateway.handle_policy(after, None, now);
    println!(
        "{:<58} {:>9.1} ms",
        "apply again, nothing to do",
        start.elapsed().as_secs_f64() * 1e3
    );
}

/// Gives the median time of a run.
fn time(mut run: impl FnMut()) -> String {
    run();
    let mut laps = Vec::new();
    let start = Instant::now();
    while start.elapsed() < EACH {
        let lap = Instant::now();
        run();
        laps.push(lap.elapsed());
    }
    laps.sort_unstable();
    let median = laps.get(laps.len() / 2).copied().unwrap_or_default();
    format!("{:.1} µs", median.as_secs_f64() * 1e6)
}

fn name(text: &str) -> Name {
    Name::parse(text).expect("a name")
}

fn head(resources: usize) -> String {
    let mut text = String::from(
        "timezone = \"Europe/Madrid\"\n[posture.laptop]\nfirewall = true\n[group]\nall = [\"p0\", \"p1\"]\n[resource]\n",
    );
    for number in 0..resources {
        let _ = writeln!(
            text,
            "r{number} = {{ to = \"10.0.0.{number}\", ports = [\"443/tcp\"] }}"
        );
    }
    text
}

fn spread(count: usize) -> String {
    rules(100, count, |number| {
        format!(
            "who = [\"p{}\"]\nto = [\"r{}\"]\n",
            number % 50,
            number % 100
        )
    })
}

fn others(count: usize) -> String {
    rules(1, count, |number| {
        format!("who = [\"other{number}\"]\nto = [\"r0\"]\n")
    })
}

fn failing(count: usize) -> String {
    rules(1, count, |_| {
        "who = [\"group:all\"]\nto = [\"r0\"]\nwhen = \"Sun 08:00-09:00\"\n".into()
    })
}

fn matching(count: usize) -> String {
    rules(1, count, |_| {
        "who = [\"group:all\"]\nto = [\"r0\"]\n".into()
    })
}

fn conditioned(count: usize) -> String {
    rules(1, count, |_| {
        "who = [\"group:all\"]\nto = [\"r0\"]\nwhen = \"Mon-Fri 08:00-19:00\"\nposture = [\"laptop\"]\nrisk = \"<= 40\"\nfrom = [\"10.0.0.0/8\"]\n".into()
    })
}

fn rules(resources: usize, count: usize, rest: impl Fn(usize) -> String) -> String {
    let mut text = head(resources);
    for number in 0..count {
        let _ = write!(
            text,
            "[[allow]]\nname = \"rule-{number}\"\n{}",
            rest(number)
        );
    }
    text
}
