//! `sim [RUNS [FIRST-SEED]]`: runs seeds, in the town and where people enrol; prints the first that breaks a promise, made as short
//! as it goes.

use std::fmt::Debug;
use std::process::ExitCode;

use spa_sim::{Broken, Tally, enrolment, events_of, run, shrink};

fn main() -> ExitCode {
    let mut numbers = std::env::args().skip(1).map(|text| text.parse::<u64>());
    let (Ok(runs), Ok(first)) = (
        numbers.next().unwrap_or(Ok(10_000)),
        numbers.next().unwrap_or(Ok(0)),
    ) else {
        eprintln!("sim: RUNS and FIRST-SEED are numbers");
        return ExitCode::from(2);
    };
    let mut town = Tally::default();
    let mut enrolled = enrolment::Tally::default();
    for seed in first..first.saturating_add(runs) {
        let here = one(seed, events_of(seed), run).map(|tally| {
            town.packets += tally.packets;
            town.accepted += tally.accepted;
            town.replies += tally.replies;
            town.handshakes += tally.handshakes;
        });
        let there = one(seed, enrolment::deeds_of(seed), enrolment::run).map(|tally| {
            enrolled.enrolled += tally.enrolled;
            enrolled.used += tally.used;
            enrolled.voided += tally.voided;
            enrolled.late += tally.late;
        });
        if here.is_none() || there.is_none() {
            return ExitCode::FAILURE;
        }
    }
    println!(
        "{runs} runs from seed {first}, every promise held: {town:?}, enrolments {enrolled:?}"
    );
    ExitCode::SUCCESS
}

/// One run of a seed; says what broke, if something did.
fn one<E: Clone + Debug, T>(
    seed: u64,
    events: Vec<E>,
    run: impl Fn(&[E]) -> Result<T, Broken>,
) -> Option<T> {
    let broken = match run(&events) {
        Ok(tally) => return Some(tally),
        Err(broken) => broken,
    };
    println!("seed {seed} breaks a promise {broken}");
    let shorter = shrink(events, &run);
    if let Err(broken) = run(&shorter) {
        println!("{} events are enough, {broken}", shorter.len());
    }
    for (at, event) in shorter.iter().enumerate() {
        println!("{at:3} {event:?}");
    }
    println!("again: cargo run -p spa-sim -- 1 {seed}");
    None
}
