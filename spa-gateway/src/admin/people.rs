//! Commands about people, their invites and devices.

use qrcode::QrCode;
use qrcode::render::unicode::Dense1x2;
use serde_json::json;

use super::cli::{DeviceCommand, InviteArgs, UserCommand};
use super::policy_edit::Edit;
use super::run::{Admin, device_name, named, print_or_json};
use super::show;
use crate::calendar::utc;
use crate::control::protocol::{
    Confirm, Device, Invited, RecoveryCodes, Request, Session, User, UserKind,
};

impl Admin<'_> {
    pub(super) fn user(&self, command: &UserCommand) -> Result<(), String> {
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
        outln!("");
        show::devices(&devices);
        outln!("");
        show::sessions(&sessions);
        Ok(())
    }

    pub(super) fn invite(&self, args: &InviteArgs) -> Result<(), String> {
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
        outln!("{}", invited.invite);
        if args.qr {
            outln!("{}", qr(&invited.invite)?);
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

    pub(super) fn device(&self, command: &DeviceCommand) -> Result<(), String> {
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

    pub(super) fn recovery_codes(&self, user: &str) -> Result<(), String> {
        let codes: RecoveryCodes = self.ask(&Request::RecoveryCodes {
            user: user.to_owned(),
        })?;
        for code in &codes.codes {
            outln!("{code}");
        }
        eprintln!(
            "Each stands in for a phone code once. They are shown now and never again; earlier ones are void."
        );
        Ok(())
    }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_invite_fits_a_qr_code() {
        let line = format!("spa1:[2001:db8::1]:51820/{}", "A".repeat(108));
        assert!(qr(&line).expect("drawn").lines().count() > 20);
    }
}
