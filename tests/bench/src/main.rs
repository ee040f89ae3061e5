//! `make bench`: every budget of the project measured on this machine, with the incumbents beside it in the same run.
//!
//! A figure belongs to a machine and an hour, so nothing here fails for being slow: the table says what missed its budget.
//! Each section builds its own town and stands alone; one that fails says so and the rest goes on.
#![forbid(unsafe_code)]

mod accept;
mod crowd;
mod cut;
mod disk;
mod figures;
mod fleet;
mod flood;
mod incumbent;
mod inside;
mod machine;
mod notices;
mod pictures;
mod policy;
mod process;
mod readme;
mod scanner;
mod size;
mod start;
mod sustained;
mod table;
mod thousand;
mod throughput;

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Instant;

use table::Table;

/// How thorough a run is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Pass {
    /// Under five minutes after the build.
    Quick,
    /// All repetitions and rates.
    Full,
}

impl Pass {
    /// How many repetitions.
    fn of(self, quick: usize, full: usize) -> usize {
        match self {
            Self::Quick => quick,
            Self::Full => full,
        }
    }
}

type Section = fn(Pass, &mut Table) -> anyhow::Result<()>;

/// In the order of the table.
const SECTIONS: [(&str, Section); 13] = [
    ("size", size::measure),
    ("accept", accept::measure),
    ("start", start::measure),
    ("thousand", thousand::measure),
    ("sustained", sustained::measure),
    ("cut", cut::measure),
    ("policy", policy::measure),
    ("flood", flood::measure),
    ("scanner", scanner::measure),
    ("inside", inside::measure),
    ("crowd", crowd::measure),
    ("throughput", throughput::measure),
    ("incumbent", incumbent::measure),
];

fn main() -> ExitCode {
    let pass = match std::env::var("QUICK").as_deref() {
        Ok("1") => Pass::Quick,
        _ => Pass::Full,
    };
    let asked = std::env::var("SECTIONS").unwrap_or_default();
    let asked: Vec<&str> = asked.split_whitespace().collect();
    let file = PathBuf::from("target/bench.json");
    let begun = Instant::now();
    let mut table = Table::begin();
    for (name, measure) in SECTIONS {
        if !asked.is_empty() && !asked.contains(&name) {
            continue;
        }
        let section = Instant::now();
        if let Err(error) = measure(pass, &mut table) {
            table.failed(name, &error);
        }
        eprintln!("bench: {name}, {:.0} s", section.elapsed().as_secs_f64());
    }
    table.print();
    println!(
        "{:.0} s in all; {}",
        begun.elapsed().as_secs_f64(),
        file.display()
    );
    let circumstances = readme::Circumstances {
        pass,
        took: begun.elapsed().as_secs_f64(),
        load: table.load(),
    };
    let written = table.write(&file).and_then(|rows| {
        let mut files = pictures::draw(&rows, &file)?;
        files.push(readme::write(&rows, &circumstances, &file)?);
        Ok(files)
    });
    match written {
        Ok(files) => {
            for file in files {
                println!("{}", file.display());
            }
            if table.is_whole() {
                ExitCode::SUCCESS
            } else {
                ExitCode::FAILURE
            }
        }
        Err(error) => {
            eprintln!("bench: {}: {error:#}", file.display());
            ExitCode::FAILURE
        }
    }
}
