//! `spa-gateway`: the daemon.
#![forbid(unsafe_code)]

use std::process::ExitCode;

use clap::Parser;
use spa_gateway::cli::{self, Cli};

fn main() -> ExitCode {
    cli::main(&Cli::parse())
}
