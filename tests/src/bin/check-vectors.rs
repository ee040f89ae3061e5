//! `check-vectors DIR`: does this implementation compute what another one wrote down?
//!
//! Checks every JSON file of a folder (format: `README.md` beside them). One line per failure,
//! `N passed, M failed` last, exit 1 on any failure.

use std::path::PathBuf;
use std::process::ExitCode;

#[path = "../vectors/mod.rs"]
mod vectors;

fn main() -> ExitCode {
    let mut arguments = std::env::args_os().skip(1);
    let (Some(folder), None) = (arguments.next(), arguments.next()) else {
        eprintln!("usage: check-vectors DIR");
        return ExitCode::from(2);
    };
    let report = vectors::check_folder(&PathBuf::from(folder));
    println!("{} passed, {} failed", report.passed, report.failed);
    if report.failed == 0 {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}
