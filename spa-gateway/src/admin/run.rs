//! What each command of `spa-admin` does: the ones about people are in `people.rs`, about the policy in `policy.rs`.

use std::ffi::OsStr;
use std::io::Write;
use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use clap::{CommandFactory, Parser};
use spa_gateway_core::{LockTarget, Name};

use super::cli::{
    ApproveArgs, Cli, ClockCommand, Command, GrantArgs, GrantCommand, ListArgs, ListCommand,
    LockArgs, LogArgs, MfaCommand, PolicyCommand, SessionCommand, StoreCommand,
};
use super::client::Client;
use super::policy::{check_policy, explain_offline, typed};
use super::{doctor, init, openwrt, show};
use crate::calendar;
use crate::clock;
use crate::config::Config;
use crate::control::protocol::{
    AccessEntry, AccessPage, AuditEntry, AuditPage, Cut, DeviceName, Exceptions, LOCK_TARGETS,
    Lock, Request, Selector, Session, Status,
};

/// How often `log --follow` asks for more.
const FOLLOW_EVERY: Duration = Duration::from_millis(500);

/// Whether a program that was started as `program` is to be `spa-admin`: where one file has both names.
#[must_use]
pub fn is_meant(program: Option<&OsStr>) -> bool {
    program.and_then(|path| Path::new(path).file_name()) == Some(OsStr::new("spa-admin"))
}

/// All of `spa-admin`.
#[must_use]
pub fn main() -> ExitCode {
    match run(&Cli::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(line) => {
            eprintln!("spa-admin: {line}");
            ExitCode::FAILURE
        }
    }
}

/// Runs one command.
///
/// # Errors
/// One line: what, why, what to do.
pub fn run(cli: &Cli) -> Result<(), String> {
    if let Command::Init(args) = &cli.command {
        return init::run(&cli.config, args);
    }
    if let Command::Completions { shell } = &cli.command {
        let mut script = Vec::new();
        clap_complete::generate(*shell, &mut Cli::command(), "spa-admin", &mut script);
        out!("{}", String::from_utf8_lossy(&script));
        return Ok(());
    }
    if let Command::Uci(args) = &cli.command {
        return openwrt::run(&cli.config, args);
    }
    if let Command::Policy(PolicyCommand::Check {
        file: Some(file),
        json,
    }) = &cli.command
    {
        return check_policy(file, *json);
    }
    if let Command::Explain(args) = &cli.command
        && let Some(file) = &args.policy
    {
        show::explanation(&explain_offline(args, file)?, args.json);
        return Ok(());
    }
    let config = Config::load(&cli.config).map_err(|error| error.to_string())?;
    let client = Client {
        socket: config.paths.admin_socket(),
    };
    let admin = Admin {
        config: &config,
        client: &client,
    };
    match &cli.command {
        Command::Init(_) | Command::Uci(_) | Command::Completions { .. } => Ok(()),
        Command::User(command) => admin.user(command),
        Command::Invite(args) => admin.invite(args),
        Command::Device(command) => admin.device(command),
        Command::Resource(command) => admin.resource(command),
        Command::Allow(args) => admin.allow(args),
        Command::Disallow { group, resource } => admin.disallow(group, resource),
        Command::Policy(command) => admin.policy(command),
        Command::Learn(command) => admin.learn(command),
        Command::Session(command) => admin.session(command),
        Command::Explain(args) => {
            show::explanation(&admin.ask(&Request::Explain(typed(args)))?, args.json);
            Ok(())
        }
        Command::Lock(args) => admin.lock(args),
        Command::Grant(args) => admin.grant(args),
        Command::Approve(args) => admin.approve(args),
        Command::Unlock { target } => admin.told(&Request::Unlock {
            target: target.clone(),
        }),
        Command::Mfa(MfaCommand::Reset { user }) => {
            admin.told(&Request::ResetPhone { user: user.clone() })
        }
        Command::RecoveryCodes { user } => admin.recovery_codes(user),
        Command::Status(args) => admin.status(*args),
        Command::Doctor(args) => doctor::run(&config, &client, args.json),
        Command::Log(args) => admin.log(args),
        Command::Store(StoreCommand::Accept) => admin.told(&Request::AcceptStore),
        Command::Clock(ClockCommand::Accept { yes: true }) => admin.told(&Request::AcceptClock),
        Command::Clock(ClockCommand::Accept { yes: false }) => Err(format!(
            "it is {} by this machine; {COST_OF_A_CLOCK}; if it is the right time, add --yes",
            calendar::utc(clock::now().wall.as_millis())
        )),
    }
}

/// What it costs to take a clock for right.
const COST_OF_A_CLOCK: &str = "if that is too late, nobody gets in, and invites and grants end early; if too early, a knock or code of that time that never arrived is worth something again (what arrived is worth nothing ever after)";

pub(super) struct Admin<'a> {
    pub(super) config: &'a Config,
    pub(super) client: &'a Client,
}

impl Admin<'_> {
    pub(super) fn ask<T: serde::de::DeserializeOwned>(
        &self,
        request: &Request,
    ) -> Result<T, String> {
        self.client.ask(request).map_err(|error| error.to_string())
    }

    /// Asks for something whose answer is a line to print.
    pub(super) fn told(&self, request: &Request) -> Result<(), String> {
        let done: String = self.ask(request)?;
        outln!("{done}");
        Ok(())
    }
    fn session(&self, command: &SessionCommand) -> Result<(), String> {
        match command {
            SessionCommand::List(args) => {
                let sessions: Vec<Session> = self.ask(&Request::Sessions)?;
                print_or_json(args.json, &sessions, |sessions| show::sessions(sessions));
                Ok(())
            }
            SessionCommand::Cut { what, json } => {
                let cut: Cut = self.ask(&Request::Cut(selector(what)))?;
                print_or_json(*json, &cut, |cut| match cut.sessions.len() {
                    1 => outln!("1 session cut in {:.1} ms", cut.took_ms),
                    many => outln!("{many} sessions cut in {:.1} ms", cut.took_ms),
                });
                Ok(())
            }
        }
    }

    fn lock(&self, args: &LockArgs) -> Result<(), String> {
        let Some(target) = args.target.clone() else {
            let locks: Vec<Lock> = self.ask(&Request::Locks)?;
            let json = matches!(args.list, Some(ListCommand::List(ListArgs { json: true })));
            print_or_json(json, &locks, |locks| show::locks(locks));
            return Ok(());
        };
        let cut: Cut = self.ask(&Request::Lock {
            target: target.clone(),
            seconds: args.length.map(|length| length.0.as_secs()),
            why: args.why.clone(),
        })?;
        print_or_json(args.json, &cut, |cut| {
            outln!(
                "{target} is locked; sessions ended: {}, in {:.1} ms",
                cut.sessions.len(),
                cut.took_ms
            );
        });
        Ok(())
    }

    fn grant(&self, args: &GrantArgs) -> Result<(), String> {
        match (&args.other, &args.user, &args.resource, args.length) {
            (Some(GrantCommand::End { id }), ..) => self.told(&Request::EndException { id: *id }),
            (None, Some(user), Some(resource), Some(length)) => self.told(&Request::Grant {
                user: user.clone(),
                resource: resource.clone(),
                seconds: length.0.as_secs(),
                why: args.why.clone().unwrap_or_default(),
            }),
            (Some(GrantCommand::List(ListArgs { json: true })), ..) => self.exceptions(true),
            _ => self.exceptions(false),
        }
    }

    fn approve(&self, args: &ApproveArgs) -> Result<(), String> {
        match (args.id, &args.by) {
            (Some(id), Some(by)) => self.told(&Request::Approve {
                id,
                by: by.clone(),
                seconds: args.length.0.as_secs(),
            }),
            _ => self.exceptions(matches!(
                args.list,
                Some(ListCommand::List(ListArgs { json: true }))
            )),
        }
    }

    fn exceptions(&self, json: bool) -> Result<(), String> {
        let exceptions: Exceptions = self.ask(&Request::Exceptions)?;
        print_or_json(json, &exceptions, show::exceptions);
        Ok(())
    }

    fn status(&self, args: ListArgs) -> Result<(), String> {
        let status: Status = self.ask(&Request::Status)?;
        print_or_json(args.json, &status, show::status);
        Ok(())
    }

    fn log(&self, args: &LogArgs) -> Result<(), String> {
        let mut after = None;
        let mut limit = args.lines;
        loop {
            let lines = if args.connections {
                self.connections(args, after, limit)?
            } else {
                self.audit_lines(args, after, limit)?
            };
            let read = lines
                .iter()
                .try_for_each(|(_, line)| writeln!(std::io::stdout(), "{line}"));
            // Whoever reads has gone, or these were all.
            if read.is_err() || !args.follow {
                return Ok(());
            }
            after = lines.last().map(|(id, _)| *id).or(after).or(Some(0));
            limit = 1_000;
            std::thread::sleep(FOLLOW_EVERY);
        }
    }

    fn audit_lines(&self, args: &LogArgs, after: Option<u64>, limit: u32) -> Result<Lines, String> {
        let page: AuditPage = self.ask(&Request::Audit {
            after,
            user: args.user.clone(),
            denied: args.denied,
            limit,
        })?;
        let lines = page.lines.into_iter().map(|AuditEntry { id, line }| {
            let text = if args.json {
                line.to_json()
            } else {
                line.to_text()
            };
            (id, text)
        });
        Ok(lines.collect())
    }

    fn connections(&self, args: &LogArgs, after: Option<u64>, limit: u32) -> Result<Lines, String> {
        let page: AccessPage = self.ask(&Request::Access {
            after,
            user: args.user.clone(),
            resource: args.resource.clone(),
            denied: args.denied,
            limit,
        })?;
        let lines = page.lines.into_iter().map(|AccessEntry { id, line }| {
            let text = if args.json {
                line.to_json()
            } else {
                line.to_text()
            };
            (id, text)
        });
        Ok(lines.collect())
    }
}

/// Lines of a log with their places.
type Lines = Vec<(u64, String)>;

pub(super) fn print_or_json<T: serde::Serialize>(json: bool, value: &T, print: impl FnOnce(&T)) {
    if json {
        show::json(value);
    } else {
        print(value);
    }
}

pub(super) fn named(text: &str) -> Result<Name, String> {
    Name::parse(text).map_err(|error| format!("`{text}` is no name: {error}"))
}

/// Refuses what names nobody that can be locked.
pub(super) fn lock_target(text: &str) -> Result<String, String> {
    match LockTarget::parse(text) {
        Some(_) => Ok(text.to_owned()),
        None => Err(LOCK_TARGETS.to_owned()),
    }
}

pub(super) fn device_name(text: &str) -> Result<DeviceName, String> {
    let (user, device) = text.split_once('/').ok_or_else(|| {
        format!("`{text}` names no device; write USER/DEVICE, as `spa-admin device list` shows it")
    })?;
    Ok(DeviceName {
        user: user.to_owned(),
        device: device.to_owned(),
    })
}

/// A session id is 16 hex digits; no user is called so by accident.
fn selector(text: &str) -> Selector {
    if let Some(resource) = text.strip_prefix("resource:") {
        return Selector::Resource(resource.to_owned());
    }
    if let Ok(device) = device_name(text) {
        return Selector::Device(device);
    }
    if text.len() == 16 && text.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return Selector::Session(text.to_lowercase());
    }
    Selector::User(text.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_file_with_two_names_knows_which_is_meant() {
        for program in ["spa-admin", "/usr/sbin/spa-admin", "./spa-admin"] {
            assert!(is_meant(Some(OsStr::new(program))), "{program}");
        }
        for program in [
            "spa-gateway",
            "/usr/sbin/spa-gateway",
            "/opt/spa-admin/spa-gateway",
            "spa-admin.old",
            "",
        ] {
            assert!(!is_meant(Some(OsStr::new(program))), "{program}");
        }
        assert!(!is_meant(None));
    }

    #[test]
    fn what_is_cut_is_told_by_its_shape() {
        assert_eq!(
            selector("00FF00ff00ff00ff"),
            Selector::Session("00ff00ff00ff00ff".to_owned())
        );
        assert_eq!(selector("ana"), Selector::User("ana".to_owned()));
        assert_eq!(selector("resource:db"), Selector::Resource("db".to_owned()));
        let device = DeviceName {
            user: "ana".to_owned(),
            device: "my laptop".to_owned(),
        };
        assert_eq!(selector("ana/my laptop"), Selector::Device(device));
    }
}
