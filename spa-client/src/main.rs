#![forbid(unsafe_code)]
//! `spa`: knock before connecting.

use std::process::ExitCode;

use clap::Parser;

#[macro_use]
mod out;

mod agent;
mod ask;
mod caller;
mod cli;
mod clock;
mod command;
mod control;
mod exchange;
mod failure;
mod fields;
mod memory;
mod places;
mod posture;
mod private_file;
mod privilege;
mod profile;
mod progress;
mod routes;
mod say;
mod schedule;
mod session;
mod store;
#[cfg(test)]
mod testing;
mod totp;
mod tunnel;
mod wire;

fn main() -> ExitCode {
    command::run(cli::Cli::parse())
}
