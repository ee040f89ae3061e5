//! What a decision costs, against the budget: 1,000 rules decided in 20 µs.
//!
//! `cargo bench -p spa-gateway-core --bench policy`. Prints one line a case; asserts nothing about time.

use std::fmt::Write;
use std::hint::black_box;
use std::time::{Duration, Instant};

use spa_gateway_core::Name;
use spa_gateway_core::policy::{Facts, Policy, Request, RiskInput, check};
use spa_proto::WallTime;

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
