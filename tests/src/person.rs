//! A person with a device, a password and a phone: enrolled by the real programs, knocking through them.

use std::fs;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, bail};

use crate::gateway::Gateway;
use crate::net::Namespace;
use crate::phone::{self, Phone};
use crate::program::{Ended, Program};
use crate::programs::Programs;

/// How long `spa` may take: Argon2id, six packets over 6 s, a handshake, on a machine that compiles at the same time.
pub const PATIENCE: Duration = Duration::from_secs(40);
/// Everybody's password in these tests.
pub const PASSWORD: &str = "correct horse battery staple";

/// One person on one device.
#[derive(Clone, Debug)]
pub struct Person {
    /// The name the administrator uses.
    pub name: String,
    /// The device's name.
    pub device: String,
    space: Namespace,
    programs: Programs,
    logs: PathBuf,
    home: PathBuf,
    phone: Option<Phone>,
    used: Option<u64>,
}

/// What a person has in hand when an enrolment has ended well.
#[derive(Clone, Debug)]
pub struct Enrolled {
    /// The person.
    pub person: Person,
    /// What `spa enroll` said.
    pub said: Ended,
    /// The four words it showed.
    pub words: Vec<String>,
}

impl Person {
    /// A person with a new device in `space` that is not enrolled yet.
    ///
    /// # Errors
    /// When its directory cannot be made.
    pub fn new(
        gateway: &Gateway,
        space: &Namespace,
        name: &str,
        device: &str,
    ) -> anyhow::Result<Self> {
        let home = gateway
            .folder()
            .parent()
            .context("a gateway's folder lies in its town's")?
            .join(format!("{name}-{device}"));
        fs::DirBuilder::new().mode(0o700).create(&home)?;
        let person = Self {
            name: name.to_owned(),
            device: device.to_owned(),
            space: space.clone(),
            programs: gateway.programs().clone(),
            logs: gateway.logs().to_path_buf(),
            home,
            phone: None,
            used: None,
        };
        write_private(&person.file("password"), PASSWORD)?;
        Ok(person)
    }

    /// A person who is added, invited, enrolled, and confirmed by the words.
    ///
    /// # Errors
    /// When any of it fails.
    pub fn enrolled(gateway: &Gateway, space: &Namespace, name: &str) -> anyhow::Result<Self> {
        gateway.ask(&["user", "add", name])?;
        let invite = invite(gateway, name, &[])?;
        let Enrolled { person, .. } = Self::new(gateway, space, name, "laptop")?.enroll(&invite)?;
        gateway.ask(&["device", "confirm", &person.credential()])?;
        Ok(person)
    }

    /// Enrols with an invite.
    ///
    /// # Errors
    /// When `spa enroll` fails.
    pub fn enroll(mut self, invite: &str) -> anyhow::Result<Enrolled> {
        let step = phone::next_step(self.used)?;
        let said = self
            .try_enroll(invite, step)?
            .success()
            .context("spa enroll")?;
        let uri = fs::read_to_string(self.file("totp"));
        if let Ok(uri) = uri {
            self.phone = Some(Phone::from_uri(&uri)?);
        }
        self.used = Some(step);
        let words =
            four_words(&said.out).with_context(|| format!("no four words in {}", said.out))?;
        Ok(Enrolled {
            person: self,
            said,
            words,
        })
    }

    /// Runs `spa enroll` with the phone at a step, whatever comes of it.
    ///
    /// # Errors
    /// When it does not end.
    pub fn try_enroll(&self, invite: &str, step: u64) -> anyhow::Result<Ended> {
        let phone = format!("{} {step}", self.programs.path("spa-phone").display());
        let mut command = self.spa(&["enroll", invite, "--name", &self.device]);
        command.args(["--code-command", &phone]);
        command.arg("--password-file").arg(self.file("password"));
        command.arg("--totp-out").arg(self.file("totp"));
        if let Some(uri) = self
            .phone
            .as_ref()
            .and(fs::read_to_string(self.file("totp")).ok())
        {
            command.env("SPA_TOTP_URI", uri.trim());
        }
        self.finish("enroll", &mut command)
    }

    /// How an administrator names this credential.
    pub fn credential(&self) -> String {
        format!("{}/{}", self.name, self.device)
    }

    /// The directory of the device.
    pub fn home(&self) -> &Path {
        &self.home
    }

    /// The file with the right password.
    pub fn password_file(&self) -> String {
        self.file("password").to_string_lossy().into_owned()
    }

    /// The namespace the device is in.
    pub fn space(&self) -> &Namespace {
        &self.space
    }

    /// A code that was not used, waiting for one when needed.
    ///
    /// # Errors
    /// When the person has no phone.
    pub fn fresh_code(&mut self) -> anyhow::Result<String> {
        let step = phone::next_step(self.used)?;
        self.used = Some(step);
        self.code_of(step)
    }

    /// The code that was used last.
    ///
    /// # Errors
    /// When none was.
    pub fn used_code(&self) -> anyhow::Result<String> {
        self.code_of(self.used.context("no code was used yet")?)
    }

    /// The phone, for another device of the same person.
    pub fn share_phone_with(&self, other: &mut Self) -> anyhow::Result<()> {
        other.phone = self.phone.clone();
        other.used = self.used;
        write_private(&other.file("totp"), &fs::read_to_string(self.file("totp"))?)
    }

    /// The code the phone shows in one step.
    ///
    /// # Errors
    /// When the person has no phone.
    pub fn code_of(&self, step: u64) -> anyhow::Result<String> {
        self.phone
            .as_ref()
            .context("this person has no phone yet")?
            .code(step)
    }

    /// Knocks with a fresh code and the right password, and gives what came of it.
    ///
    /// # Errors
    /// When `spa` does not end.
    pub fn knock(&mut self, args: &[&str]) -> anyhow::Result<Ended> {
        let code = self.fresh_code()?;
        self.knock_with(args, PASSWORD, &code)
    }

    /// Knocks with a given password and code.
    ///
    /// # Errors
    /// When `spa` does not end.
    pub fn knock_with(&self, args: &[&str], password: &str, code: &str) -> anyhow::Result<Ended> {
        self.start_knock(args, password, code)?.wait(PATIENCE)
    }

    /// Starts a knock without waiting for what comes of it.
    ///
    /// # Errors
    /// When `spa` cannot be started.
    pub fn start_knock(
        &self,
        args: &[&str],
        password: &str,
        code: &str,
    ) -> anyhow::Result<Program> {
        let file = self.file(if password == PASSWORD {
            "password"
        } else {
            "wrong-password"
        });
        write_private(&file, password)?;
        let mut command = self.spa(&["knock"]);
        command
            .args(args)
            .args(["--code", code])
            .arg("--password-file")
            .arg(&file);
        Program::start(&self.logs, "knock", &mut command)
    }

    /// Starts a knock with a recovery code in place of the phone's, which nobody has to wait for.
    ///
    /// # Errors
    /// When `spa` cannot be started.
    pub fn start_recovery(&self, args: &[&str], code: &str) -> anyhow::Result<Program> {
        let mut command = self.spa(&["knock"]);
        command
            .args(args)
            .args(["--recovery", code])
            .arg("--password-file")
            .arg(self.file("password"));
        Program::start(&self.logs, "knock", &mut command)
    }

    /// Runs any command of `spa` to its end.
    ///
    /// # Errors
    /// When it does not end.
    pub fn run(&self, args: &[&str]) -> anyhow::Result<Ended> {
        self.finish("spa", &mut self.spa(args))
    }

    /// A thief's copy of the device's files, on another machine. The password is not in them.
    ///
    /// # Errors
    /// When copying fails.
    pub fn stolen_copy(&self, space: &Namespace, name: &str) -> anyhow::Result<Self> {
        let copy = Self {
            space: space.clone(),
            home: self.home.with_file_name(name),
            ..self.clone()
        };
        copy_tree(&self.home, &copy.home)?;
        // A thief copies files, not the sockets of a process that runs elsewhere.
        let _no_session_was_open = fs::remove_dir_all(copy.home.join("run"));
        Ok(copy)
    }

    /// A command that runs `spa` on this device.
    pub fn spa(&self, args: &[&str]) -> Command {
        let mut command = self.space.command(self.programs.path("spa"));
        command.args(args).env("SPA_HOME", &self.home);
        command
    }

    fn finish(&self, name: &str, command: &mut Command) -> anyhow::Result<Ended> {
        Program::start(&self.logs, name, command)?.wait(PATIENCE)
    }

    fn file(&self, name: &str) -> PathBuf {
        self.home.with_extension(name)
    }
}

/// Asks for an invite and gives its one line.
///
/// # Errors
/// When there is none in what `spa-admin invite` prints.
pub fn invite(gateway: &Gateway, name: &str, more: &[&str]) -> anyhow::Result<String> {
    let mut args = vec!["invite", name];
    args.extend(more);
    let out = gateway.ask(&args)?;
    out.split_whitespace()
        .find(|word| word.starts_with("spa1:"))
        .map(str::to_owned)
        .with_context(|| format!("no invite in {out}"))
}

/// The four words in what a program printed: the first line that is, or ends in, exactly four BIP-39 words after a colon or an indent.
pub fn four_words(text: &str) -> Option<Vec<String>> {
    text.lines().find_map(|line| {
        let tail = line.rsplit(':').next()?;
        let words: Vec<String> = tail
            .split(|c: char| c.is_whitespace() || c == '-')
            .filter(|word| !word.is_empty())
            .map(str::to_owned)
            .collect();
        // BIP-39 English words have three to eight small letters.
        let looks = words.len() == 4
            && words.iter().all(|word| {
                (3..=8).contains(&word.len()) && word.bytes().all(|byte| byte.is_ascii_lowercase())
            });
        looks.then_some(words)
    })
}

fn write_private(path: &Path, text: &str) -> anyhow::Result<()> {
    fs::write(path, text)?;
    fs::set_permissions(path, fs::Permissions::from_mode(0o600))?;
    Ok(())
}

fn copy_tree(from: &Path, to: &Path) -> anyhow::Result<()> {
    fs::DirBuilder::new().mode(0o700).create(to)?;
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let target = to.join(entry.file_name());
        let kind = entry.file_type()?;
        if kind.is_dir() {
            copy_tree(&entry.path(), &target)?;
        } else if kind.is_file() {
            // `copy` keeps the permissions.
            fs::copy(entry.path(), &target)
                .map(drop)
                .or_else(|error| bail!("copying {}: {error}", entry.path().display()))?;
        }
    }
    Ok(())
}
