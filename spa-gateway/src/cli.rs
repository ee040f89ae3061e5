//! The command line of `spa-gateway`.

use std::io::IsTerminal;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand, ValueEnum};
use tracing::level_filters::LevelFilter;

use crate::config::{Config, DEFAULT_CONFIG};
use crate::daemon::{self, StartError};
use crate::enforcer_link::{self, Once};
use crate::preflight::{self, Finding};

/// Keeps every port closed and lets in who knocks with all factors
///
/// Exit codes: 0 done, 1 refused or failed, 2 usage.
#[derive(Debug, Parser)]
#[command(name = "spa-gateway", version, max_term_width = 100)]
pub struct Cli {
    /// What to do
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the gateway; start it as root, it leaves root by itself
    ///
    /// SIGHUP reads the policy again, SIGTERM ends it; sessions outlive a restart.
    Run {
        #[command(flatten)]
        common: Common,
        /// Only look whether it could run, as `check` does
        #[arg(long)]
        check: bool,
        /// How much to log on stdout; `debug` names clients
        #[arg(long, value_enum, default_value_t = LogLevel::Info)]
        log: LogLevel,
    },
    /// Make the machine dark before the gateway runs, and end; for the early boot, before there is a network
    ///
    /// Does nothing where the gateway's table is in place already. `spa-gateway clear` takes it away.
    Close {
        #[command(flatten)]
        common: Common,
    },
    /// Take away all that gateways of this configuration made in the kernel, and end: the machine is dark no longer
    ///
    /// What is open ends at once. For the day this machine is to be no gateway any more; stop the gateway before.
    Clear {
        #[command(flatten)]
        common: Common,
    },
    /// Say what would keep the gateway from running, or from working as expected; changes nothing
    Check {
        #[command(flatten)]
        common: Common,
    },
}

#[derive(Debug, Args)]
struct Common {
    /// The configuration
    #[arg(long, value_name = "FILE", default_value = DEFAULT_CONFIG)]
    config: PathBuf,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum LogLevel {
    Error,
    Warn,
    Info,
    Debug,
    Trace,
}

/// Runs what the command line says.
#[must_use]
pub fn main(cli: &Cli) -> ExitCode {
    match &cli.command {
        Command::Check { common }
        | Command::Run {
            common,
            check: true,
            ..
        } => check(&common.config),
        Command::Close { common } => once(&common.config, Once::Close),
        Command::Clear { common } => once(&common.config, Once::Clear),
        Command::Run { common, log, .. } => {
            log_to_stdout(*log);
            run(&common.config)
        }
    }
}

fn run(config: &Path) -> ExitCode {
    match daemon::run(config) {
        Ok(()) => ExitCode::SUCCESS,
        // Its own line is out already.
        Err(StartError::EnforcerSaidWhy) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("spa-gateway: {error}");
            ExitCode::FAILURE
        }
    }
}

fn once(file: &Path, what: Once) -> ExitCode {
    let done = Config::load(file)
        .map_err(|error| error.to_string())
        .and_then(|config| {
            if what == Once::Clear && preflight::is_running(&config) {
                return Err("the gateway runs; stop it before".to_owned());
            }
            enforcer_link::once(&config, what).map_err(|error| error.to_string())
        });
    match done {
        Ok(status) if status.success() => ExitCode::SUCCESS,
        // The enforcer's own line is out already.
        Ok(_) => ExitCode::FAILURE,
        Err(line) => {
            let so = match what {
                Once::Close => "the machine is not dark",
                Once::Clear => "nothing was taken away",
            };
            eprintln!("spa-gateway: {line}; {so}");
            ExitCode::FAILURE
        }
    }
}

fn check(file: &Path) -> ExitCode {
    let findings = match Config::load(file) {
        Ok(config) => preflight::everything(&config),
        Err(error) => vec![Finding::Problem(error.to_string())],
    };
    for finding in &findings {
        eprintln!("{finding}");
    }
    if findings
        .iter()
        .any(|finding| matches!(finding, Finding::Problem(_)))
    {
        return ExitCode::FAILURE;
    }
    outln!("{}: the gateway can run", file.display());
    ExitCode::SUCCESS
}

fn log_to_stdout(level: LogLevel) {
    let level = match level {
        LogLevel::Error => LevelFilter::ERROR,
        LogLevel::Warn => LevelFilter::WARN,
        LogLevel::Info => LevelFilter::INFO,
        LogLevel::Debug => LevelFilter::DEBUG,
        LogLevel::Trace => LevelFilter::TRACE,
    };
    tracing_subscriber::fmt()
        .with_max_level(level)
        // It would say on stderr that stdout is full, and that it cannot even do that would end us.
        .log_internal_errors(false)
        .with_ansi(std::io::stdout().is_terminal())
        .init();
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_sound() {
        Cli::command().debug_assert();
    }
}
