//! `sim [RUNS [FIRST-SEED]]`: runs seeds, prints the first that breaks a promise, made as short as it goes.

use std::process::ExitCode;

use spa_sim::{Tally, events_of, run, shrink};

fn main() -> ExitCode {
    let mut numbers = std::env::args().skip(1).map(|text| text.parse::<u64>());
    let (Ok(runs), Ok(first)) = (
        numbers.next().unwrap_or(Ok(10_000)),
        numbers.next().unwrap_or(Ok(0)),
    ) else {
        eprintln!("sim: RUNS and FIRST-SEED are numbers");
        return ExitCode::from(2);
    };
    let mut all = Tally::default();
    for seed in first..first.saturating_add(runs) {
        let events = events_of(seed);
        match run(&events) {
            Ok(tally) => {
                all.packets += tally.packets;
                all.accepted += tally.accepted;
                all.replies += tally.replies;
                all.handshakes += tally.handshakes;
            }
            Err(broken) => {
                println!("seed {seed} breaks a promise {broken}");
                let shorter = shrink(events);
                if let Err(broken) = run(&shorter) {
                    println!("{} events are enough, {broken}", shorter.len());
                }
                shorter
                    .iter()
                    .enumerate()
                    .for_each(|(at, event)| println!("{at:3} {event:?}"));
                println!("again: cargo run -p spa-sim -- 1 {seed}");
                return ExitCode::FAILURE;
            }
        }
    }
    println!("{runs} runs from seed {first}, every promise held: {all:?}");
    ExitCode::SUCCESS
}
