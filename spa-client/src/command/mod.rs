//! One file per command; here which one runs, and how its end becomes an exit code.

mod approve;
mod close;
mod doctor;
mod enroll;
mod knock;
mod list;
mod passwd;
mod posture;
mod renew;
mod status;
mod why;
mod wish;

use std::process::ExitCode;

use clap::CommandFactory;

use crate::agent::{self, Link};
use crate::cli::{Cli, Command};
use crate::failure::Failure;
use crate::places::Places;
use crate::profile::Profile;
use crate::store::{Entry, Store};

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
    if let Command::Completions { shell } = command {
        let mut script = Vec::new();
        clap_complete::generate(shell, &mut Cli::command(), "spa", &mut script);
        out!("{}", String::from_utf8_lossy(&script));
        return Ok(());
    }
    let places = Places::find()?;
    match command {
        Command::Completions { .. } => Ok(()),
        Command::Enroll(asked) => enroll::enroll(&places, &asked),
        Command::Knock(asked) => knock::knock(&places, &asked),
        Command::Status(asked) => status::status(&places, &asked),
        Command::Close(asked) => close::close(&places, &asked),
        Command::List(asked) => list::list(&places, &asked),
        Command::Why(asked) => why::why(&places, &asked),
        Command::Approve(asked) => approve::approve(&places, &asked),
        Command::Renew(asked) => renew::renew(&places, &asked),
        Command::Passwd(asked) => passwd::passwd(&places, &asked),
        Command::Doctor(asked) => doctor::doctor(&places, &asked),
        Command::Posture(asked) => posture::posture(&places, &asked),
        Command::Agent => Ok(agent::hold(&places)?),
    }
}

/// The session that is open at a gateway, for what the gateway must be asked through it.
fn open_link(places: &Places, gateway: Option<&str>) -> Result<(Entry, Profile, Link), Failure> {
    let (entry, profile) = Store::new(places.clone()).choose(gateway)?;
    match Link::connect(places, entry.name())? {
        Some(link) => Ok((entry, profile, link)),
        None => Err(Failure::Refused(format!(
            "no session is open at {}, and this is asked through one: knock first",
            entry.name()
        ))),
    }
}
