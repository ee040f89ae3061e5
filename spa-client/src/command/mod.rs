//! One file per command; here which one runs, and how its end becomes an exit code.

mod close;
mod doctor;
mod enroll;
mod knock;
mod list;
mod posture;
mod status;
mod why;
mod wish;

use std::process::ExitCode;

use crate::agent;
use crate::cli::{Cli, Command};
use crate::failure::Failure;
use crate::places::Places;

/// Runs what was asked.
#[must_use]
pub fn run(cli: Cli) -> ExitCode {
    match perform(cli.command) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            eprintln!("spa: {failure}");
            ExitCode::from(failure.exit_code())
        }
    }
}

fn perform(command: Command) -> Result<(), Failure> {
    let places = Places::find()?;
    match command {
        Command::Enroll(asked) => enroll::enroll(&places, &asked),
        Command::Knock(asked) => knock::knock(&places, &asked),
        Command::Status(asked) => status::status(&places, &asked),
        Command::Close(asked) => close::close(&places, &asked),
        Command::List(asked) => list::list(&places, &asked),
        Command::Why(asked) => why::why(&places, &asked),
        Command::Doctor(asked) => doctor::doctor(&places, &asked),
        Command::Posture(asked) => posture::posture(&places, &asked),
        Command::Agent => Ok(agent::hold(&places)?),
    }
}
