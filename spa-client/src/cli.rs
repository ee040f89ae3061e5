//! What can be asked of `spa` on the command line.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};
use clap_complete::Shell;

use crate::ask;

/// Knock before connecting: open one gateway for this device, for a while.
#[derive(Debug, Parser)]
#[command(
    name = "spa",
    version,
    arg_required_else_help = true,
    after_help = "Exit codes: 0 done, 1 refused or failed, 2 usage, 3 no answer. SPA_HOME overrides where spa keeps its keys."
)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// The commands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Make this device known to a gateway, with the invite the administrator gave you
    Enroll(Enroll),
    /// Knock for resources and bring the tunnel up
    Knock(Knock),
    /// Show what is open, until when, and whether the tunnel is alive
    Status(Status),
    /// End the session: the door outside first, then the tunnel here
    Close(Choice),
    /// Show the gateways this device is enrolled at, and the resources knocked for
    List(Listing),
    /// Say why a resource is granted or refused
    Why(Why),
    /// Make the open session longer, as far as policy lets you without another knock
    Renew(Renew),
    /// Show which requests wait for your word, or let one through
    Approve(Approve),
    /// Change the password of this device at a gateway; a session must be open
    Passwd(Passwd),
    /// Check what a knock needs: clock, privilege, WireGuard, the way to the gateway
    Doctor(Doctor),
    /// Show what this device tells a gateway of itself, and how it knows
    Posture(Posture),
    /// Print completions for a shell: `spa completions bash > ~/.local/share/bash-completion/completions/spa`
    Completions {
        /// Which shell
        shell: Shell,
    },
    /// Hold one session; started by `knock`
    #[command(hide = true)]
    Agent,
}

/// Which gateway.
#[derive(Debug, Args)]
pub struct Choice {
    /// Gateway to use when this device is enrolled at several (see `spa list`)
    #[arg(long, value_name = "NAME")]
    pub gateway: Option<String>,
}

/// `spa enroll`
#[derive(Debug, Args)]
pub struct Enroll {
    /// The invite, one line that starts with spa1:. Left out it is asked for, and - reads it from standard input: every
    /// user of this machine can read a command line while the command runs
    pub invite: Option<String>,
    /// Name of this device, 1 to 32 bytes [default: the host name]
    #[arg(long, value_name = "LABEL")]
    pub name: Option<String>,
    /// Read the password from the first line of this private file
    #[arg(long, value_name = "FILE")]
    pub password_file: Option<PathBuf>,
    /// The code the phone shows
    #[arg(long, value_name = "CODE", value_parser = ask::code_text, conflicts_with = "code_command")]
    pub code: Option<String>,
    /// Run CMD by the shell to get the code; SPA_TOTP_URI holds the otpauth:// URI
    #[arg(long, value_name = "CMD")]
    pub code_command: Option<String>,
    /// Also write the otpauth:// URI to this file (mode 0600)
    #[arg(long, value_name = "FILE")]
    pub totp_out: Option<PathBuf>,
    /// Enrol a machine: no password and no phone; its invite must be a machine's
    #[arg(long, conflicts_with_all = ["password_file", "code", "code_command"])]
    pub machine: bool,
}

/// `spa knock`
#[derive(Debug, Args)]
pub struct Knock {
    /// Names of the resources to reach
    #[arg(value_name = "RESOURCE", required_unless_present = "all", conflicts_with = "all", value_parser = resource_name)]
    pub resources: Vec<String>,
    /// Everything policy allows you
    #[arg(long)]
    pub all: bool,
    /// How long, such as 90m or 2h [default: what policy gives]
    #[arg(long = "for", value_name = "TIME", value_parser = minutes)]
    pub length: Option<u16>,
    /// The code the phone shows
    #[arg(long, value_name = "CODE", value_parser = ask::code_text, conflicts_with_all = ["recovery", "code_command"])]
    pub code: Option<String>,
    /// A recovery code in place of the phone's
    #[arg(long, value_name = "CODE", value_parser = ask::recovery_text, conflicts_with = "code_command")]
    pub recovery: Option<String>,
    /// Run CMD by the shell to get the code
    #[arg(long, value_name = "CMD")]
    pub code_command: Option<String>,
    /// Read the password from the first line of this private file
    #[arg(long, value_name = "FILE")]
    pub password_file: Option<PathBuf>,
    /// Stay until the session ends; Ctrl-C closes it
    #[arg(long)]
    pub foreground: bool,
    /// Replace what is open instead of adding to it
    #[arg(long)]
    pub only: bool,
    /// Gateway to use when this device is enrolled at several (see `spa list`)
    #[arg(long, value_name = "NAME")]
    pub gateway: Option<String>,
    /// Use the gateway's long-lived knock key: only for a gateway that was restored from an old backup
    #[arg(long, hide_short_help = true)]
    pub kid0: bool,
}

/// `spa status`
#[derive(Debug, Args)]
pub struct Status {
    /// Show it again every second until Ctrl-C
    #[arg(long, conflicts_with = "json")]
    pub watch: bool,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
    /// Only this gateway
    #[arg(long, value_name = "NAME")]
    pub gateway: Option<String>,
}

/// `spa list`
#[derive(Debug, Args)]
pub struct Listing {
    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

/// `spa posture`
#[derive(Debug, Args)]
pub struct Posture {
    /// Print JSON
    #[arg(long)]
    pub json: bool,
    /// Gateway to use when this device is enrolled at several (see `spa list`)
    #[arg(long, value_name = "NAME")]
    pub gateway: Option<String>,
}

/// `spa why`
#[derive(Debug, Args)]
pub struct Why {
    /// Name of the resource
    #[arg(value_parser = resource_name)]
    pub resource: String,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
    /// Gateway to use when this device is enrolled at several (see `spa list`)
    #[arg(long, value_name = "NAME")]
    pub gateway: Option<String>,
}

/// `spa doctor`
#[derive(Debug, Args)]
pub struct Doctor {
    /// Print JSON
    #[arg(long)]
    pub json: bool,
    /// Gateway to use when this device is enrolled at several (see `spa list`)
    #[arg(long, value_name = "NAME")]
    pub gateway: Option<String>,
}

/// `spa renew`
#[derive(Debug, Args)]
pub struct Renew {
    /// How long from now, such as 90m or 2h [default: what policy gives]
    #[arg(long = "for", value_name = "TIME", value_parser = minutes)]
    pub length: Option<u16>,
    /// Gateway to use when this device is enrolled at several (see `spa list`)
    #[arg(long, value_name = "NAME")]
    pub gateway: Option<String>,
}

/// `spa approve`
#[derive(Debug, Args)]
pub struct Approve {
    /// Number of the request, as `spa approve` alone lists it
    pub id: Option<u32>,
    /// How long it holds, such as 30m or 4h [default: 1h]
    #[arg(long = "for", value_name = "TIME", value_parser = minutes, requires = "id")]
    pub length: Option<u16>,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
    /// Gateway to use when this device is enrolled at several (see `spa list`)
    #[arg(long, value_name = "NAME")]
    pub gateway: Option<String>,
}

/// `spa passwd`
#[derive(Debug, Args)]
pub struct Passwd {
    /// Read the password as it is from the first line of this private file
    #[arg(long, value_name = "FILE")]
    pub password_file: Option<PathBuf>,
    /// Read the new password from the first line of this private file
    #[arg(long, value_name = "FILE")]
    pub new_password_file: Option<PathBuf>,
    /// The code the phone shows
    #[arg(long, value_name = "CODE", value_parser = ask::code_text, conflicts_with = "code_command")]
    pub code: Option<String>,
    /// Run CMD by the shell to get the code
    #[arg(long, value_name = "CMD")]
    pub code_command: Option<String>,
    /// Gateway to use when this device is enrolled at several (see `spa list`)
    #[arg(long, value_name = "NAME")]
    pub gateway: Option<String>,
}

/// The longest session that can be asked for: 24 h is the most a client accepts (SPEC §6).
const LONGEST_MINUTES: u64 = 24 * 60;

/// Parses `90m`, `2h`, `1h30m` or `1d` into minutes.
fn minutes(text: &str) -> Result<u16, String> {
    let wrong = || "write a time such as 90m, 2h, 1h30m or 1d".to_owned();
    let mut rest = text;
    let mut total: u64 = 0;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit()).ok_or_else(wrong)?;
        let (number, tail) = rest.split_at(digits);
        let unit = tail.chars().next().ok_or_else(wrong)?;
        let factor = match unit {
            'm' => 1,
            'h' => 60,
            'd' => 24 * 60,
            _ => return Err(wrong()),
        };
        let number: u64 = number.parse().map_err(|_| wrong())?;
        total = number
            .checked_mul(factor)
            .and_then(|n| total.checked_add(n))
            .ok_or_else(wrong)?;
        rest = &tail[unit.len_utf8()..];
    }
    match total {
        0 => Err("the shortest session is one minute".to_owned()),
        1..=LONGEST_MINUTES => u16::try_from(total).map_err(|_| wrong()),
        _ => Err("the longest session is 24h; after that it takes another knock".to_owned()),
    }
}

/// Accepts what can be the name of a resource: one printable word, so that it fits our own files.
fn resource_name(text: &str) -> Result<String, String> {
    let fits = !text.is_empty()
        && text.len() <= 128
        && !text.chars().any(|c| c.is_control() || c.is_whitespace());
    if fits {
        Ok(text.to_owned())
    } else {
        Err("a resource name is one printable word".to_owned())
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn times_are_minutes() {
        assert_eq!(minutes("90m"), Ok(90));
        assert_eq!(minutes("2h"), Ok(120));
        assert_eq!(minutes("1h30m"), Ok(90));
        assert_eq!(minutes("1d"), Ok(24 * 60));
        assert!(minutes("30d").is_err_and(|line| line.contains("longest session is 24h")));
        for wrong in [
            "",
            "0m",
            "2",
            "h",
            "25h",
            "2d",
            "1w",
            "-1h",
            "99999999999999999999h",
            "1é",
        ] {
            assert!(minutes(wrong).is_err(), "{wrong}");
        }
    }

    const RECOVERY: &str = "0011-2233-4455-6677-8899-aabb-ccdd-eeff";

    #[test]
    fn knock_needs_a_resource_or_all() {
        let usage = |args: &[&str]| {
            Cli::try_parse_from(args)
                .map(|_| ())
                .map_err(|e| e.exit_code())
        };
        assert_eq!(usage(&["spa", "knock"]), Err(2));
        assert_eq!(usage(&["spa", "knock", "wiki", "--all"]), Err(2));
        assert_eq!(
            usage(&[
                "spa",
                "knock",
                "wiki",
                "--code",
                "123456",
                "--recovery",
                RECOVERY
            ]),
            Err(2)
        );
        assert_eq!(usage(&["spa", "knock", "wiki", "--code", "123"]), Err(2));
        assert_eq!(usage(&["spa", "knock", "wiki", "--recovery", "ab"]), Err(2));
        assert_eq!(
            usage(&["spa", "knock", "wiki", "--recovery", RECOVERY]),
            Ok(())
        );
        assert_eq!(usage(&["spa", "knock", "wiki"]), Ok(()));
        assert_eq!(usage(&["spa", "knock", "--all"]), Ok(()));
    }
}
