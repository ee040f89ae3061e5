//! Commands that read or edit the policy file.

use std::path::Path;

use serde_json::{Value, json};
use spa_gateway_core::policy::{self, Finding, Resource, Severity, Target};
use spa_gateway_core::{Name, Policy};

use super::cli::{AllowArgs, ExplainArgs, PolicyCommand, ResourceCommand};
use super::policy_edit::Edit;
use super::policy_versions::{reload, report_json};
use super::run::{Admin, named};
use super::show;
use crate::clock;
use crate::control::protocol::MAX_WHY;
use crate::explain::{Explanation, Typed};
use crate::policy_file::{PolicyFile, PolicyFileError};

impl Admin<'_> {
    pub(super) fn resource(&self, command: &ResourceCommand) -> Result<(), String> {
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
                let ports = resource.ports.iter().map(ToString::to_string).collect();
                (
                    name.to_string(),
                    place_text(resource),
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

    pub(super) fn policy(&self, command: &PolicyCommand) -> Result<(), String> {
        match command {
            PolicyCommand::Check { file, json } => {
                check_policy(file.as_ref().unwrap_or(&self.config.paths.policy), *json)
            }
            PolicyCommand::Diff(args) => self.policy_diff(args),
            PolicyCommand::Apply(args) => self.policy_apply(args),
            PolicyCommand::Log(args) => self.policy_log(args.json),
            PolicyCommand::Rollback(args) => self.policy_rollback(args),
            PolicyCommand::Reload { why } => self.told(&reload(why)),
        }
    }

    pub(super) fn disallow(&self, group: &str, resource: &str) -> Result<(), String> {
        let mut edit = Edit::begin(&self.config.paths.policy)?;
        edit.disallow(group, resource)?;
        self.save(
            edit,
            &format!("no rule allows group {group} {resource} any more"),
        )
    }

    pub(super) fn allow(&self, args: &AllowArgs) -> Result<(), String> {
        let mut edit = Edit::begin(&self.config.paths.policy)?;
        let length = args.length.map(|length| length.to_string());
        edit.allow(&args.group, &args.resource, length.as_deref())?;
        self.save(
            edit,
            &format!("group {} may reach {}", args.group, args.resource),
        )
    }

    /// Writes an edit and has the gateway read it.
    pub(super) fn save(&self, edit: Edit<'_>, done: &str) -> Result<(), String> {
        let gate = edit.save()?;
        let why: String = done.chars().take(MAX_WHY).collect();
        match self.read_again(&gate, &why)? {
            Some(_) => outln!("{done}"),
            None => outln!("{done}; the gateway is not running and reads it at its start"),
        }
        Ok(())
    }
}

pub(super) fn typed(args: &ExplainArgs) -> Typed {
    let (user, device) = match args.user.split_once('/') {
        Some((user, device)) => (user, Some(device.to_owned())),
        None => (args.user.as_str(), None),
    };
    Typed {
        user: user.to_owned(),
        device,
        resource: args.resource.clone(),
        at: args.at.clone(),
        from: args.from,
        posture: args.posture.clone(),
        risk: args.risk,
    }
}

/// Asks a policy file, without a gateway. One whose tests fail is explained all the same.
pub(super) fn explain_offline(args: &ExplainArgs, file: &Path) -> Result<Explanation, String> {
    let text = PolicyFile::at(file)
        .and_then(|at| at.text())
        .map_err(|error| error.to_string())?;
    let path = file.to_owned();
    let policy = Policy::parse(&text)
        .map_err(|error| PolicyFileError::Content { path, error }.to_string())?;
    let mut question = typed(args).read(&policy)?;
    question.at.get_or_insert(clock::now().wall);
    Ok(Explanation::from(&question.answer(&policy)))
}

/// Says everything that can be said of a policy file; needs no gateway.
pub(super) fn check_policy(file: &Path, json: bool) -> Result<(), String> {
    let text = PolicyFile::at(file)
        .and_then(|at| at.text())
        .map_err(|error| error.to_string())?;
    let report = policy::check(&text, Some(clock::now().wall));
    if json {
        show::json(&report_json(&report, report.is_sound()));
    } else {
        out!("{}", show::report(&report));
    }
    let file = file.display();
    match &report.policy {
        Some(policy) if report.is_sound() => {
            if !json {
                outln!(
                    "{file} is sound: groups {}, resources {}, rules {}, tests {}",
                    policy.groups().count(),
                    policy.resources().count(),
                    policy.rules().len(),
                    report.tests.len()
                );
            }
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

fn place_text(resource: &Resource) -> String {
    let to = target_text(resource.to);
    match resource.published {
        Some(published) => format!("{to} as {published}"),
        None => to,
    }
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
    fn a_policy_whose_tests_fail_is_explained_without_a_gateway() {
        use std::io::Write;

        use clap::Parser;

        use crate::admin::cli::{Cli, Command};

        let mut file = tempfile::NamedTempFile::new().expect("a file");
        file.write_all(
            b"version = 1\n[resource]\nwiki = { to = \"10.0.5.10\", ports = [\"443/tcp\"] }\n\
              [[test]]\nwho = \"ana\"\nto = \"wiki:443\"\nexpect = \"allow\"\n",
        )
        .expect("written");
        assert!(check_policy(file.path(), false).is_err());
        let line = [
            "spa-admin",
            "explain",
            "ana/laptop",
            "wiki:443",
            "--policy",
            "-",
        ];
        let Command::Explain(args) = Cli::try_parse_from(line).expect("parses").command else {
            panic!("explain")
        };
        assert_eq!(typed(&args).device.as_deref(), Some("laptop"));
        let explained = explain_offline(&args, file.path()).expect("explained");
        assert_eq!(explained.reason.as_deref(), Some("no rule"));
    }
}
