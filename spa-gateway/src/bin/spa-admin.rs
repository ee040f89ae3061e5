//! `spa-admin`: administers a gateway through its admin socket and its policy file.
#![forbid(unsafe_code)]

use std::process::ExitCode;

fn main() -> ExitCode {
    spa_gateway::admin::run::main()
}
