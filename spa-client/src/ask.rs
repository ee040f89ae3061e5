//! Where password and code come from: the terminal, a private file, a command.
//!
//! Invariant: a password lives in a wiped buffer and nowhere else.

use std::fs::{File, OpenOptions};
use std::io::{self, BufRead, BufReader, Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};

use spa_proto::{PasswordError, RecoveryCode, SecondFactor};
use zeroize::{Zeroize, Zeroizing};

use crate::fields;
use crate::private_file::{FileError, check_private};

/// The variable that holds the `otpauth://` URI for `--code-command` at enrolment.
pub const TOTP_VARIABLE: &str = "SPA_TOTP_URI";

/// A longer password is no password.
const LONGEST_PASSWORD: u64 = 1024;

/// Why a password or code is not to be had.
#[derive(Debug, thiserror::Error)]
pub enum AskError {
    /// There is no terminal.
    #[error("there is no terminal to ask for the {what} on ({source}): give it with {option}")]
    NoTerminal {
        /// What was to be asked.
        what: &'static str,
        /// The option that gives it.
        option: &'static str,
        /// Why.
        source: io::Error,
    },
    /// Standard input cannot be read.
    #[error("cannot read the invite from standard input: {0}")]
    Invite(io::Error),
    /// The password file cannot be read.
    #[error("cannot read the password from {}: {source}", path.display())]
    PasswordFile {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The password file is open to others.
    #[error(transparent)]
    File(#[from] FileError),
    /// The password cannot be used.
    #[error("{0}: choose another")]
    Password(#[from] PasswordError),
    /// The two passwords typed differ.
    #[error("the two passwords differ: nothing was changed")]
    Different,
    /// It is no code.
    #[error("a code is 6 to 8 digits")]
    Code,
    /// It is no recovery code.
    #[error(
        "a recovery code is 32 letters and digits of 0-9 and a-f, as the administrator printed it"
    )]
    Recovery,
    /// The command that gives the code cannot be run.
    #[error("cannot run the code command: {0}")]
    CommandStart(io::Error),
    /// The command that gives the code failed.
    #[error("the code command failed ({0})")]
    Command(ExitStatus),
}

/// The longest invite is some 350 bytes.
const LONGEST_INVITE: u64 = 1024;

/// The invite that was given, or read from standard input (`-`), or typed. It is worth a credential until it is used, and
/// a command line is no secret.
///
/// # Errors
/// When it is not to be had.
pub fn invite(given: Option<&str>) -> Result<Zeroizing<String>, AskError> {
    match given {
        Some("-") => {
            let mut line = Zeroizing::new(String::with_capacity(LONGEST_INVITE as usize));
            BufReader::new(io::stdin().lock().take(LONGEST_INVITE))
                .read_line(&mut line)
                .map_err(AskError::Invite)?;
            Ok(line)
        }
        Some(given) => Ok(Zeroizing::new(given.to_owned())),
        None => typed_line("Invite: ")
            .map(Zeroizing::new)
            .map_err(|source| AskError::NoTerminal {
                what: "invite",
                option: "`spa enroll -` on standard input",
                source,
            }),
    }
}

/// A password, wiped on drop.
pub type Password = Zeroizing<String>;

/// Reads the password from the first line of a private file, or asks for it.
///
/// # Errors
/// When it is not to be had.
pub fn password(file: Option<&Path>, prompt: &str) -> Result<Password, AskError> {
    match file {
        Some(path) => password_from(path),
        None => typed(prompt),
    }
}

/// Like [`password`], for one that is being set: what is typed is typed twice (SPEC §3.2).
///
/// # Errors
/// When it is not to be had, or the two differ.
pub fn new_password(file: Option<&Path>) -> Result<Password, AskError> {
    if let Some(path) = file {
        return password_from(path);
    }
    let first = typed("Password for this gateway: ")?;
    if first.is_empty() {
        return Err(PasswordError::Empty.into());
    }
    let second = typed("The same again: ")?;
    if *first == *second {
        Ok(first)
    } else {
        Err(AskError::Different)
    }
}

fn typed(prompt: &str) -> Result<Password, AskError> {
    rpassword::prompt_password(prompt)
        .map(Zeroizing::new)
        .map_err(|source| AskError::NoTerminal {
            what: "password",
            option: "--password-file FILE",
            source,
        })
}

fn password_from(path: &Path) -> Result<Password, AskError> {
    let io = |source| AskError::PasswordFile {
        path: path.to_path_buf(),
        source,
    };
    let file = File::open(path).map_err(io)?;
    check_private(path, &file)?;
    let mut text = Zeroizing::new(String::with_capacity(LONGEST_PASSWORD as usize));
    file.take(LONGEST_PASSWORD)
        .read_to_string(&mut text)
        .map_err(io)?;
    let length = text.lines().next().map_or(0, str::len);
    // Shortening keeps the buffer, so the rest is wiped with it.
    text.truncate(length);
    if text.is_empty() {
        return Err(PasswordError::Empty.into());
    }
    Ok(text)
}

/// How the second factor is given.
#[derive(Clone, Copy, Debug)]
pub enum FactorFrom<'a> {
    /// The code itself.
    Code(&'a str),
    /// A recovery code itself.
    Recovery(&'a str),
    /// A command that prints it.
    Command(&'a str),
    /// Ask on the terminal.
    Terminal,
    /// None: a machine.
    Machine,
}

impl<'a> FactorFrom<'a> {
    /// From the options of the command line.
    #[must_use]
    pub fn options(
        code: Option<&'a str>,
        recovery: Option<&'a str>,
        command: Option<&'a str>,
    ) -> Self {
        match (code, recovery, command) {
            (Some(code), _, _) => Self::Code(code),
            (None, Some(code), _) => Self::Recovery(code),
            (None, None, Some(command)) => Self::Command(command),
            (None, None, None) => Self::Terminal,
        }
    }

    /// Has the factor. `totp_uri` goes into the environment of a command.
    ///
    /// # Errors
    /// When it is not to be had or is none.
    pub fn have(self, totp_uri: Option<&str>) -> Result<SecondFactor, AskError> {
        match self {
            Self::Code(text) => code(text),
            Self::Recovery(text) => recovery(text),
            Self::Command(command) => {
                let mut text = Zeroizing::new(run(command, totp_uri)?);
                let factor = code(&text);
                text.zeroize();
                factor
            }
            Self::Terminal => {
                let line =
                    typed_line("Code on the phone: ").map_err(|source| AskError::NoTerminal {
                        what: "code",
                        option: "--code or --code-command",
                        source,
                    })?;
                code(&line)
            }
            Self::Machine => Ok(SecondFactor::None),
        }
    }
}

/// Asks for one line, shown as it is typed.
fn typed_line(prompt: &str) -> io::Result<String> {
    let mut terminal = OpenOptions::new().read(true).write(true).open("/dev/tty")?;
    terminal.write_all(prompt.as_bytes())?;
    let mut line = String::new();
    if BufReader::new(terminal).read_line(&mut line)? == 0 {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    Ok(line.trim().to_owned())
}

/// What is given as a code on the command line, if it can be one.
///
/// # Errors
/// When it cannot.
pub fn code_text(text: &str) -> Result<String, AskError> {
    code(text).map(|_| text.to_owned())
}

/// What is given as a recovery code on the command line, if it can be one.
///
/// # Errors
/// When it cannot.
pub fn recovery_text(text: &str) -> Result<String, AskError> {
    recovery(text).map(|_| text.to_owned())
}

/// A code as people type it: digits, perhaps in two groups.
fn code(text: &str) -> Result<SecondFactor, AskError> {
    let digits: String = text.chars().filter(|c| !c.is_whitespace()).collect();
    if !(6..=8).contains(&digits.len()) || !digits.bytes().all(|b| b.is_ascii_digit()) {
        return Err(AskError::Code);
    }
    digits
        .parse()
        .map(SecondFactor::Totp)
        .map_err(|_| AskError::Code)
}

/// A recovery code: 16 bytes in hex, groups and case as one likes.
fn recovery(text: &str) -> Result<SecondFactor, AskError> {
    let digits: Zeroizing<String> = Zeroizing::new(
        text.chars()
            .filter(|c| !c.is_whitespace() && *c != '-')
            .collect::<String>()
            .to_ascii_lowercase(),
    );
    fields::bytes::<16>(&digits)
        .map(|bytes| SecondFactor::Recovery(RecoveryCode::from_bytes(*bytes)))
        .ok_or(AskError::Recovery)
}

fn run(command: &str, totp_uri: Option<&str>) -> Result<String, AskError> {
    let mut shell = Command::new("/bin/sh");
    shell.arg("-c").arg(command).stdout(Stdio::piped());
    // Without a new secret the variable is what the caller made it: a second device uses the phone's old entry.
    if let Some(uri) = totp_uri {
        shell.env(TOTP_VARIABLE, uri);
    }
    let output = shell
        .spawn()
        .and_then(std::process::Child::wait_with_output)
        .map_err(AskError::CommandStart)?;
    if !output.status.success() {
        return Err(AskError::Command(output.status));
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

#[cfg(test)]
mod tests {
    use std::fs::{self, Permissions};
    use std::os::unix::fs::PermissionsExt;

    use super::*;
    use crate::testing::Scratch;

    #[test]
    fn a_code_is_digits_however_grouped() {
        assert_eq!(code("012 345").ok(), Some(SecondFactor::Totp(12_345)));
        assert_eq!(
            code("12345678\n").ok(),
            Some(SecondFactor::Totp(12_345_678))
        );
        for wrong in ["", "12345", "123456789", "12345a", "-12345"] {
            assert!(matches!(code(wrong), Err(AskError::Code)), "{wrong}");
        }
    }

    #[test]
    fn a_recovery_code_is_sixteen_bytes_however_grouped() {
        let text = "0011-2233 4455-6677 8899-AABB ccdd-eeff";
        assert!(matches!(recovery(text), Ok(SecondFactor::Recovery(_))));
        assert!(matches!(recovery("0011"), Err(AskError::Recovery)));
    }

    #[test]
    fn a_command_gives_the_code_and_sees_the_uri() {
        let factor = FactorFrom::Command("test \"$SPA_TOTP_URI\" = otpauth://x && echo 123456")
            .have(Some("otpauth://x"));
        assert_eq!(factor.ok(), Some(SecondFactor::Totp(123_456)));
        assert!(matches!(
            FactorFrom::Command("exit 4").have(None),
            Err(AskError::Command(_))
        ));
        assert!(matches!(
            FactorFrom::Command("echo nothing").have(None),
            Err(AskError::Code)
        ));
    }

    #[test]
    fn a_password_file_gives_its_first_line_and_must_be_private() {
        let scratch = Scratch::new("password");
        let path = scratch.path().join("pw");
        fs::write(&path, "correct horse \nsecond\n").expect("scratch is writable");
        fs::set_permissions(&path, Permissions::from_mode(0o600)).expect("ours");
        assert_eq!(
            password(Some(&path), "").expect("readable").as_str(),
            "correct horse "
        );
        fs::set_permissions(&path, Permissions::from_mode(0o644)).expect("ours");
        assert!(matches!(
            password(Some(&path), ""),
            Err(AskError::File(FileError::OpenToOthers { .. }))
        ));
        fs::set_permissions(&path, Permissions::from_mode(0o600)).expect("ours");
        fs::write(&path, "\n").expect("scratch is writable");
        assert!(matches!(
            new_password(Some(&path)),
            Err(AskError::Password(PasswordError::Empty))
        ));
    }
}
