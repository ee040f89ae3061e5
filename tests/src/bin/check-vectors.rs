//! `check-vectors DIR [--refusals]`: does this implementation compute what another one wrote down?
//!
//! Checks every JSON file of a folder (format: `README.md` beside them). One line per failure,
//! `N passed, M failed` last, exit 1 on any failure. `--refusals` names every refusal that was met, too.

use std::path::PathBuf;
use std::process::ExitCode;

#[path = "../vectors/mod.rs"]
mod vectors;

fn main() -> ExitCode {
    let mut arguments = std::env::args_os().skip(1);
    let (folder, option, more) = (arguments.next(), arguments.next(), arguments.next());
    let refusals = option.as_ref().is_some_and(|option| option == "--refusals");
    let (Some(folder), true, None) = (folder, option.is_none() || refusals, more) else {
        eprintln!("usage: check-vectors DIR [--refusals]");
        return ExitCode::from(2);
    };
    let report = vectors::check_folder(&PathBuf::from(folder));
    for refusal in report.met.iter().filter(|_| refusals) {
        println!("{}", refusal.name());
    }
    println!("{} passed, {} failed", report.passed, report.failed);
    if report.failed == 0 {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}
