//! What policy costs: a decision over a thousand rules of the worst shapes, a policy of a thousand rules put into force
//! over a thousand live sessions, and reading such a file. In the core alone; `cut` measures causes on real packets.

use std::fmt::Write;
use std::hint::black_box;
use std::time::{Duration, Instant};

use anyhow::Context;
use spa_gateway_core::policy::{Facts, Policy, Request, RiskInput, check};
use spa_gateway_core::{
    ClockTrust, CredentialRow, Gateway, KnockKeyRow, Moment, Name, Now, PeerState, PersonKind,
    PersonRow, PresentPeer, SessionRow, Settings, Snapshot, Standing,
};
use spa_proto::{CredentialId, KnockSecret, SessionId, SessionKey, WallTime};

use crate::Pass;
use crate::figures::{Figures, ms};
use crate::table::{Budget, Row, Table};

/// 2026-11-23 10:00 UTC, a Monday.
const NOW: WallTime = WallTime::from_millis(1_795_428_000_000);
/// How long each case runs.
const EACH: Duration = Duration::from_millis(300);

/// Measures it.
pub fn measure(pass: Pass, table: &mut Table) -> anyhow::Result<()> {
    decide(table)?;
    apply(pass, table)?;
    read(table)
}

/// Every shape we know to be bad; the worst one is held against the budget.
fn decide(table: &mut Table) -> anyhow::Result<()> {
    let mut facts = Facts::default();
    facts.assume(name("laptop"));
    let (person, resource) = (name("p0"), name("r0"));
    let shapes = [
        ("100 resources", spread(1000)),
        ("rules of others", others(1000)),
        ("every rule fails", failing(1000)),
        ("every rule matches", matching(1000)),
        ("every rule matches, six conditions each", conditioned(1000)),
        ("and every window another", windows(1000)),
        ("every rule a deny that waits", waiting(1000)),
    ];
    let mut each = Vec::new();
    for (what, rules) in shapes {
        let policy = Policy::parse(&rules).ok().context("a policy")?;
        let request = Request {
            at: Some(NOW),
            facts: Some(&facts),
            risk: RiskInput::Fixed(10),
            source: Some([10, 0, 0, 1].into()),
            ..Request::new(&person, &resource)
        };
        let took = time(|| {
            let _ = black_box(policy.decide(black_box(&request)));
        });
        each.push((what, took));
    }
    let worst = each.iter().map(|(_, took)| *took).fold(0.0, f64::max);
    let words: Vec<String> = each
        .iter()
        .map(|(what, took)| format!("{what} {took:.1}"))
        .collect();
    table.put(
        Row::new(
            "policy-decide-1000-rules",
            "one decision, 1000 rules of the worst shape",
            worst,
            "µs",
        )
        .within(Budget::Most(20.0))
        .detail(words.join(", ")),
    );
    let policy = Policy::parse(&failing(1000)).ok().context("a policy")?;
    let request = Request {
        at: Some(NOW),
        ..Request::new(&person, &resource)
    };
    let took = time(|| {
        black_box(policy.explain(&request));
    });
    table.put(Row::new(
        "policy-explain-1000-rules",
        "one decision explained, 1000 rules that fail",
        took,
        "µs",
    ));
    Ok(())
}

/// Reading a policy file, and all that `policy check` does with it.
fn read(table: &mut Table) -> anyhow::Result<()> {
    for count in [1000, 10_000] {
        let text = spread(count);
        anyhow::ensure!(
            Policy::parse(&text).is_ok(),
            "the policy of {count} rules is wrong"
        );
        let parsed = time(|| {
            black_box(Policy::parse(&text).is_ok());
        });
        let checked = time(|| {
            black_box(check(&text, Some(NOW)).is_sound());
        });
        table.put(
            Row::new(
                &format!("policy-read-{count}-rules"),
                &format!("reading a policy of {count} rules"),
                parsed / 1e3,
                "ms",
            )
            .detail(format!(
                "{} KiB; checked {:.1} ms",
                text.len() / 1024,
                checked / 1e3
            )),
        );
    }
    Ok(())
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
fn apply(pass: Pass, table: &mut Table) -> anyhow::Result<()> {
    let before = spread(1000);
    let denies: String = (50..100)
        .map(|number| {
            format!(
                "[[deny]]\nname = \"deny-{number}\"\nwho = [\"group:all\"]\nto = [\"r{number}\"]\n"
            )
        })
        .collect();
    let half: Vec<String> = (0..25).map(|person| format!("p{person}")).collect();
    let after = before.replace("all = [\"p0\", \"p1\"]", &format!("all = {half:?}")) + &denies;
    let now = Now {
        wall: NOW.saturating_add(Duration::from_secs(1)),
        mono: Moment::from_millis((1 << 40) + 1000),
    };
    let mut took = Vec::new();
    let mut lost = 0;
    for _ in 0..pass.of(5, 15) {
        let mut gateway = gateway(1000, Policy::parse(&before).ok().context("a policy")?);
        anyhow::ensure!(
            gateway.sessions().count() == 1000,
            "not all sessions are live"
        );
        let start = Instant::now();
        // As the daemon does it: read, decided anew for every session, and every order given.
        let policy = Policy::parse(&after).ok().context("a policy")?;
        gateway.handle_policy(policy, None, now);
        let orders = perform(&mut gateway, now);
        took.push(ms(start.elapsed()));
        lost = gateway
            .sessions()
            .filter(|session| session.resources.len() < 2)
            .count();
        anyhow::ensure!(orders > 0 && lost > 0, "nobody lost anything");
    }
    let took = Figures::new(took);
    table.put(
        Row::new(
            "policy-apply-1000-rules-1000-sessions",
            "1000 rules read and applied to 1000 live sessions, all orders out",
            took.median(),
            "ms",
        )
        .within(Budget::Most(50.0))
        .detail(format!("{}; {lost} sessions lose something", took.spread())),
    );
    Ok(())
}

/// Gives the median time of a run, microseconds.
fn time(mut run: impl FnMut()) -> f64 {
    run();
    let mut laps = Vec::new();
    let start = Instant::now();
    while start.elapsed() < EACH {
        let lap = Instant::now();
        run();
        laps.push(lap.elapsed());
    }
    Figures::of_times(laps).median() * 1e3
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

fn waiting(count: usize) -> String {
    let denies = rules(1, count, |_| {
        "who = [\"group:all\"]\nto = [\"r0\"]\nwhen = \"Sun 08:00-09:00\"\n".into()
    });
    denies.replace("[[allow]]", "[[deny]]")
}

fn windows(count: usize) -> String {
    rules(1, count, |number| {
        let (hour, minute) = (11 + number / 60 % 12, number % 60);
        format!(
            "who = [\"group:all\"]\nto = [\"r0\"]\nwhen = \"Mon-Fri 0{}:00-{hour}:{minute:02}\"\nposture = [\"laptop\"]\nrisk = \"<= 40\"\nfrom = [\"10.0.0.0/8\"]\n",
            number / 720
        )
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
