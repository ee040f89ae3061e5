//! `spa-admin doctor`: what keeps the gateway from working, or from being dark.

use super::client::Client;
use super::show;
use crate::config::Config;
use crate::control::protocol::{Request, Status};
use crate::preflight::{self, Finding};

/// Prints every finding, as lines or as JSON, and fails if one keeps the gateway from working.
///
/// # Errors
/// One line that counts the problems.
pub fn run(config: &Config, client: &Client, json: bool) -> Result<(), String> {
    let mut findings = preflight::machine(config);
    match client.ask::<Status>(&Request::Status) {
        Ok(status) => findings.extend(of_status(&status)),
        Err(error) => findings.push(Finding::Problem(error.to_string())),
    }
    if json {
        show::json(&findings);
    } else {
        findings.iter().for_each(|finding| outln!("{finding}"));
    }
    let problems = findings
        .iter()
        .filter(|finding| matches!(finding, Finding::Problem(_)))
        .count();
    match problems {
        0 if findings.is_empty() => {
            if !json {
                outln!("all is well");
            }
            Ok(())
        }
        0 => Ok(()),
        1 => Err("1 problem keeps the gateway from working; it is named above".to_owned()),
        many => Err(format!(
            "{many} problems keep the gateway from working; they are named above"
        )),
    }
}

fn of_status(status: &Status) -> Vec<Finding> {
    let mut findings = Vec::new();
    if !status.accepting {
        findings.push(Finding::Problem(format!(
            "no knock is accepted: clock {}; store {}",
            status.clock, status.store
        )));
    }
    if !status.policy.starts_with("in force") {
        findings.push(Finding::Warning(format!("policy: {}", status.policy)));
    }
    findings
}
