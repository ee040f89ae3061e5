//! `spa-admin`: administers a gateway through its admin socket and its policy file.
#![forbid(unsafe_code)]

use std::process::ExitCode;

use clap::Parser;
use spa_gateway::admin::{cli::Cli, run};

fn main() -> ExitCode {
    match run::run(&Cli::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(line) => {
            eprintln!("spa-admin: {line}");
            ExitCode::FAILURE
        }
    }
}
