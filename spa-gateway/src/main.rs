//! `spa-gateway`: the daemon; on a router `spa-admin` as well, under that name (docs/decisions/0028).
#![forbid(unsafe_code)]

use std::process::ExitCode;

use clap::Parser;
use spa_gateway::cli::{self, Cli};

fn main() -> ExitCode {
    #[cfg(feature = "spa-admin")]
    if spa_gateway::admin::run::is_meant(std::env::args_os().next().as_deref()) {
        return spa_gateway::admin::run::main();
    }
    cli::main(&Cli::parse())
}
