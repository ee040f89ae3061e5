//! What each command of `spa-admin` does.

use std::path::Path;
use std::time::Duration;

use qrcode::QrCode;
use qrcode::render::unicode::Dense1x2;
use serde_json::{Value, json};
use spa_gateway_core::policy::{self, Finding, PortRange, Severity, Target};
use spa_gateway_core::{Name, Policy};
use spa_order::Protocol;

use super::cli::{
    AllowArgs, Cli, Command, DeviceCommand, InviteArgs, ListArgs, ListCommand, LockArgs, LogArgs,
    MfaCommand, PolicyCommand, ResourceCommand, SessionCommand, StoreCommand, UserCommand,
};
use super::client::{AskError, Client};
use super::policy_edit::Edit;
use super::{doctor, init, show};
use crate::calendar::utc;
use crate::clock;
use crate::config::Config;
use crate::control::protocol::{
    AuditPage, Confirm, Cut, Device, DeviceName, Invited, Lock, RecoveryCodes, Request, Selector,
    Session, Status, User, UserKind,
};
use crate::policy_file::PolicyFile;

/// How often `log --follow` asks for more.
const FOLLOW_EVERY: Duration = Duration::from_millis(500);

/// Runs one command.
///
/// # Errors
/// One line: what, why, what to do.
pub fn run(cli: &Cli) -> Result<(), String> {
    if let Command::Init(args) = &cli.command {
        return init::run(&cli.config, args);
    }
    if let Command::Policy(PolicyCommand::Check { file: Some(file) }) = &cli.command {
        return check_policy(file);
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
        Command::Init(_) => Ok(()),
        Command::User(command) => admin.user(command),
        Command::Invite(args) => admin.invite(args),
        Command::Device(command) => admin.device(command),
        Command::Resource(command) => admin.resource(command),
        Command::Allow(args) => admin.allow(args),
        Command::Policy(PolicyCommand::Check { .. }) => check_policy(&config.paths.policy),
        Command::Policy(PolicyCommand::Reload) => admin.told(&Request::Reload),
        Command::Session(command) => admin.session(command),
        Command::Lock(args) => admin.lock(args),
        Command::Unlock { target } => admin.told(&Request::Unlock {
            target: target.clone(),
        }),
        Command::Mfa(MfaCommand::Reset { user }) => {
            admin.told(&Request::ResetPhone { user: user.clone() })
        }
        Command::RecoveryCodes { user } => admin.recovery_codes(user),
        Command::Status(args) => admin.status(*args),
        Command::Doctor => doctor::run(&config, &client),
        Command::Log(args) => admin.log(args),
        Command::Store(StoreCommand::Accept) => admin.told(&Request::AcceptStore),
    }
}

struct Admin<'a> {
    config: &'a Config,
    client: &'a Client,
}

impl Admin<'_> {
    fn ask<T: serde::de::DeserializeOwned>(&self, request: &Request) -> Result<T, String> {
        self.client.ask(request).map_err(|error| error.to_string())
    }

    /// Asks for something whose answer is a line to print.
    fn told(&self, request: &Request) -> Result<(), String> {
        let done: String = self.ask(request)?;
        println!("{done}");
        Ok(())
    }

    fn user(&self, command: &UserCommand) -> Result<(), String> {
        match command {
            UserCommand::Add {
                user,
                groups,
                machine,
            } => self.add_user(user, groups, *machine),
            UserCommand::List(args) => {
                let users: Vec<User> = self.ask(&Request::Users)?;
                print_or_json(args.json, &users, |users| show::users(users));
                Ok(())
            }
            UserCommand::Show { user, json } => self.show_user(user, *json),
            UserCommand::Disable { user } => {
                self.told(&Request::DisableUser { user: user.clone() })
            }
            UserCommand::Enable { user } => self.told(&Request::EnableUser { user: user.clone() }),
            UserCommand::Remove { user } => self.remove_user(user),
        }
    }

    fn add_user(&self, user: &str, groups: &[String], machine: bool) -> Result<(), String> {
        // The edit is checked before anybody is added, so that a wrong group leaves nothing half-done.
        let mut edit = None;
        if !groups.is_empty() {
            let mut prepared = Edit::begin(&self.config.paths.policy)?;
            for group in groups {
                named(group)?;
                prepared.add_member(group, named(user)?.as_str())?;
            }
            prepared.checked()?;
            edit = Some(prepared);
        }
        let kind = if machine {
            UserKind::Machine
        } else {
            UserKind::Human
        };
        self.told(&Request::AddUser {
            user: user.to_owned(),
            kind,
        })?;
        match edit {
            Some(edit) => self.save(edit, &format!("{user} is in {}", groups.join(", "))),
            None => Ok(()),
        }
    }

    fn remove_user(&self, user: &str) -> Result<(), String> {
        let mut edit = Edit::begin(&self.config.paths.policy);
        let listed = match &mut edit {
            Ok(edit) => edit.remove_member(user)?,
            // A policy that is wrong or missing must not keep anybody in.
            Err(_) => false,
        };
        self.told(&Request::RemoveUser {
            user: user.to_owned(),
        })?;
        match edit {
            Ok(edit) if listed => self.save(edit, &format!("{user} is in no group any more")),
            Ok(_) => Ok(()),
            Err(error) => Err(format!(
                "{user} is removed, yet may be listed in a group still: {error}"
            )),
        }
    }

    fn show_user(&self, name: &str, json: bool) -> Result<(), String> {
        let users: Vec<User> = self.ask(&Request::Users)?;
        let user = users
            .into_iter()
            .find(|user| user.user == name)
            .ok_or_else(|| {
                format!("there is no user `{name}`; `spa-admin user list` shows everybody")
            })?;
        let mut devices: Vec<Device> = self.ask(&Request::Devices)?;
        devices.retain(|device| device.user == name);
        let mut sessions: Vec<Session> = self.ask(&Request::Sessions)?;
        sessions.retain(|session| session.user == name);
        if json {
            show::json(&json!({"user": user, "devices": devices, "sessions": sessions}));
            return Ok(());
        }
        show::users(std::slice::from_ref(&user));
        println!();
        show::devices(&devices);
        println!();
        show::sessions(&sessions);
        Ok(())
    }

    fn invite(&self, args: &InviteArgs) -> Result<(), String> {
        let confirm = if args.no_confirm {
            Confirm::Waived
        } else {
            Confirm::ByWords
        };
        let invited: Invited = self.ask(&Request::Invite {
            user: args.user.clone(),
            valid_seconds: args.valid.0.as_secs(),
            confirm,
        })?;
        if args.json {
            show::json(&invited);
            return Ok(());
        }
        println!("{}", invited.invite);
        if args.qr {
            println!("{}", qr(&invited.invite)?);
        }
        // The invite alone goes to stdout, so that a script can take it.
        eprintln!(
            "For {}, one use, until {}.",
            invited.user,
            utc(invited.until)
        );
        if confirm == Confirm::ByWords {
            eprintln!(
                "Then compare the four words with {} and run `spa-admin device confirm {}/DEVICE`.",
                invited.user, invited.user
            );
        }
        Ok(())
    }

    fn device(&self, command: &DeviceCommand) -> Result<(), String> {
        match command {
            DeviceCommand::List(args) => {
                let devices: Vec<Device> = self.ask(&Request::Devices)?;
                print_or_json(args.json, &devices, |devices| show::devices(devices));
                Ok(())
            }
            DeviceCommand::Show { device, json } => self.show_device(device, *json),
            DeviceCommand::Confirm { device } => {
                self.told(&Request::ConfirmDevice(device_name(device)?))
            }
            DeviceCommand::Revoke { device } => {
                self.told(&Request::RevokeDevice(device_name(device)?))
            }
            DeviceCommand::Enable { device } => {
                self.told(&Request::EnableDevice(device_name(device)?))
            }
            DeviceCommand::Resync { device } => {
                self.told(&Request::ResyncDevice(device_name(device)?))
            }
        }
    }

    fn show_device(&self, text: &str, json: bool) -> Result<(), String> {
        let name = device_name(text)?;
        let devices: Vec<Device> = self.ask(&Request::Devices)?;
        let device = devices
            .into_iter()
            .find(|device| {
                device.user == name.user
                    && [&device.device, &device.credential].contains(&&name.device)
            })
            .ok_or_else(|| {
                format!("there is no device `{text}`; `spa-admin device list` shows all")
            })?;
        print_or_json(json, &device, show::device);
        Ok(())
    }

    fn resource(&self, command: &ResourceCommand) -> Result<(), String> {
        match command {
            ResourceCommand::Add {
                name,
                address,
                ports,
            } => {
                let mut edit = Edit::begin(&self.config.paths.policy)?;
                edit.add_resource(named(name)?.as_str(), address, ports)?;
                self.save(
                    edit,
                    &format!("resource {name} is {address} {}", ports.join(" ")),
                )
            }
            ResourceCommand::List(args) => self.list_resources(args.json),
            ResourceCommand::Remove { name } => {
                let mut edit = Edit::begin(&self.config.paths.policy)?;
                edit.remove_resource(name)?;
                self.save(edit, &format!("resource {name} is removed"))
            }
        }
    }

    fn list_resources(&self, json: bool) -> Result<(), String> {
        let file = &self.config.paths.policy;
        let policy = PolicyFile::at(file)
            .map_err(|error| error.to_string())?
            .read()
            .map_err(|error| error.to_string())?;
        let rows: Vec<(String, String, Vec<String>, Vec<String>)> = policy
            .resources()
            .map(|(name, resource)| {
                let ports = resource.ports.iter().map(port_text).collect();
                (
                    name.to_string(),
                    target_text(resource.to),
                    ports,
                    rules_to(&policy, name),
                )
            })
            .collect();
        if json {
            let listed: Vec<Value> = rows
                .iter()
                .map(|(name, to, ports, rules)| json!({"resource": name, "to": to, "ports": ports, "rules": rules}))
                .collect();
            show::json(&listed);
            return Ok(());
        }
        let rows: Vec<Vec<String>> = rows
            .into_iter()
            .map(|(name, to, ports, rules)| vec![name, to, ports.join(" "), rules.join(", ")])
            .collect();
        show::table(&["RESOURCE", "TO", "PORTS", "RULES"], &rows);
        Ok(())
    }

    fn allow(&self, args: &AllowArgs) -> Result<(), String> {
        let mut edit = Edit::begin(&self.config.paths.policy)?;
        let length = args.length.map(|length| length.to_string());
        edit.allow(&args.group, &args.resource, length.as_deref())?;
        self.save(
            edit,
            &format!("group {} may reach {}", args.group, args.resource),
        )
    }

    /// Writes an edit and has the gateway read it.
    fn save(&self, edit: Edit<'_>, done: &str) -> Result<(), String> {
        edit.save()?;
        match self.client.ask::<String>(&Request::Reload) {
            Ok(_) => {
                println!("{done}");
                Ok(())
            }
            Err(AskError::NotRunning(_)) => {
                println!("{done}; the gateway is not running and reads it at its start");
                Ok(())
            }
            Err(error) => Err(format!("{done}, yet the gateway did not read it: {error}")),
        }
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
                    1 => println!("1 session cut in {:.1} ms", cut.took_ms),
                    many => println!("{many} sessions cut in {:.1} ms", cut.took_ms),
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
            println!(
                "{target} is locked; sessions ended: {}, in {:.1} ms",
                cut.sessions.len(),
                cut.took_ms
            );
        });
        Ok(())
    }

    fn recovery_codes(&self, user: &str) -> Result<(), String> {
        let codes: RecoveryCodes = self.ask(&Request::RecoveryCodes {
            user: user.to_owned(),
        })?;
        for code in &codes.codes {
            println!("{code}");
        }
        eprintln!(
            "Each stands in for a phone code once. They are shown now and never again; earlier ones are void."
        );
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
            let page: AuditPage = self.ask(&Request::Audit {
                after,
                user: args.user.clone(),
                denied: args.denied,
                limit,
            })?;
            for entry in &page.lines {
                if args.json {
                    println!("{}", entry.line.to_json());
                } else {
                    println!("{}", entry.line.to_text());
                }
            }
            if !args.follow {
                return Ok(());
            }
            after = page
                .lines
                .last()
                .map(|entry| entry.id)
                .or(after)
                .or(Some(0));
            limit = 1_000;
            std::thread::sleep(FOLLOW_EVERY);
        }
    }
}

/// Says everything that can be said of a policy file; needs no gateway.
fn check_policy(file: &Path) -> Result<(), String> {
    let text = PolicyFile::at(file)
        .and_then(|at| at.text())
        .map_err(|error| error.to_string())?;
    let report = policy::check(&text, Some(clock::now().wall));
    print!("{}", show::report(&report));
    let file = file.display();
    match &report.policy {
        Some(policy) if report.is_sound() => {
            println!(
                "{file} is sound: groups {}, resources {}, rules {}, tests {}",
                policy.groups().count(),
                policy.resources().count(),
                policy.rules().len(),
                report.tests.len()
            );
            Ok(())
        }
        _ => {
            let is_error = |finding: &&Finding| finding.severity == Severity::Error;
            Err(format!(
                "{file} would be refused: errors {}, tests that fail {} of {}",
                report.findings.iter().filter(is_error).count(),
                report.failed().count(),
                report.tests.len()
            ))
        }
    }
}

fn print_or_json<T: serde::Serialize>(json: bool, value: &T, print: impl FnOnce(&T)) {
    if json {
        show::json(value);
    } else {
        print(value);
    }
}

fn named(text: &str) -> Result<Name, String> {
    Name::parse(text).map_err(|error| format!("`{text}` is no name: {error}"))
}

fn device_name(text: &str) -> Result<DeviceName, String> {
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

fn qr(text: &str) -> Result<String, String> {
    let code = QrCode::new(text)
        .map_err(|error| format!("cannot draw a QR code: {error}; use the line"))?;
    // Dark on light: most terminals are dark, and readers want a light margin.
    Ok(code
        .render::<Dense1x2>()
        .dark_color(Dense1x2::Light)
        .light_color(Dense1x2::Dark)
        .quiet_zone(true)
        .build())
}

fn target_text(target: Target) -> String {
    match target {
        Target::Gateway => "gateway".to_owned(),
        Target::Network { address, prefix }
            if prefix == if address.is_ipv4() { 32 } else { 128 } =>
        {
            address.to_string()
        }
        Target::Network { address, prefix } => format!("{address}/{prefix}"),
    }
}

fn port_text(range: &PortRange) -> String {
    let protocol = match range.protocol {
        Protocol::Tcp => "tcp",
        Protocol::Udp => "udp",
        Protocol::Icmp => return "icmp".to_owned(),
    };
    if range.first == range.last {
        format!("{}/{protocol}", range.first)
    } else {
        format!("{}-{}/{protocol}", range.first, range.last)
    }
}

fn rules_to(policy: &Policy, resource: &Name) -> Vec<String> {
    let naming = policy
        .rules()
        .iter()
        .filter(|rule| rule.to.contains(resource));
    naming.map(|rule| rule.name.to_string()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

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

    #[test]
    fn an_invite_fits_a_qr_code() {
        let line = format!("spa1:[2001:db8::1]:51820/{}", "A".repeat(108));
        assert!(qr(&line).expect("drawn").lines().count() > 20);
    }
}
