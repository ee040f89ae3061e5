//! `policy diff`, `apply`, `log` and `rollback`: what another policy would change, and the ways into force and back.

use std::path::Path;
use std::time::Duration;

use serde::Serialize;
use serde_json::json;
use similar::TextDiff;

use super::cli::{ApplyArgs, DiffArgs, RollbackArgs};
use super::client::AskError;
use super::policy_gate::Gate;
use super::run::{Admin, print_or_json};
use super::show;
use crate::audit::printable;
use crate::calendar::utc;
use crate::control::protocol::{Loss, PolicyLog, PolicyText, Request};
use crate::policy_file::{self, PolicyFile};

/// How long the lines are compared; past it the difference is only larger than it need be.
const COMPARING: Duration = Duration::from_secs(2);

/// What another policy would change.
#[derive(Debug, Serialize)]
struct Difference {
    /// The version in force.
    in_force: Option<u64>,
    /// The lines, as `diff -u` writes them; empty where there is none.
    diff: String,
    /// What live sessions would lose.
    losses: Vec<Loss>,
}

impl Admin<'_> {
    /// Shows a file against what is in force, and changes nothing.
    pub(super) fn policy_diff(&self, args: &DiffArgs) -> Result<(), String> {
        let own = &self.config.paths.policy;
        let file = args.file.as_ref().unwrap_or(own);
        let text = text_of(file)?;
        policy_file::parse(&text, file).map_err(|error| error.to_string())?;
        let in_force: PolicyText = self.ask(&Request::PolicyText { serial: None })?;
        let difference = Difference {
            in_force: in_force.serial,
            diff: unified(&in_force, &text, &file.display().to_string()),
            losses: self.ask(&Request::WouldCut { text })?,
        };
        print_or_json(args.json, &difference, |difference| {
            if difference.diff.is_empty() {
                outln!("{} says what is in force", file.display());
            } else {
                out!("{}", difference.diff);
            }
            print_losses(&difference.losses, "would lose");
        });
        let edited = || text_of(own).is_ok_and(|found| found != in_force.text);
        if file != own && edited() {
            eprintln!(
                "{} was edited and is not in force: `spa-admin policy diff` shows that.",
                own.display()
            );
        }
        Ok(())
    }

    /// Puts a file into force.
    pub(super) fn policy_apply(&self, args: &ApplyArgs) -> Result<(), String> {
        let text = text_of(&args.file)?;
        // Refused under the name of the file the administrator has before them.
        policy_file::parse(&text, &args.file).map_err(|error| error.to_string())?;
        self.apply(&text, &args.put.why, args.put.over_edit)
    }

    /// Puts an earlier version into force, as a new one.
    pub(super) fn policy_rollback(&self, args: &RollbackArgs) -> Result<(), String> {
        let serial = Some(args.serial);
        let PolicyText { text, .. } = self.ask(&Request::PolicyText { serial })?;
        let why = match args.put.why.as_str() {
            "" => format!("back to version {}", args.serial),
            why => format!("back to version {}: {why}", args.serial),
        };
        self.apply(&text, &why, args.put.over_edit)
    }

    fn apply(&self, text: &str, why: &str, over_edit: bool) -> Result<(), String> {
        let gate = Gate::enter(&self.config.paths.policy)?;
        let file = gate.file().display();
        let in_force: Result<PolicyText, AskError> =
            self.client.ask(&Request::PolicyText { serial: None });
        // Where no policy is in force, what stands in the file is not kept anywhere either.
        let kept = match &in_force {
            Ok(in_force) => gate.found_just(&in_force.text),
            Err(AskError::NotRunning(_)) => true,
            Err(AskError::Refused(_)) => false,
            Err(error) => return Err(error.to_string()),
        };
        if !kept && gate.found_other_than(text) && !over_edit {
            return Err(format!(
                "{file} was edited since the policy in force was read, and that edit would be lost; `spa-admin policy diff` shows it, `spa-admin policy reload` puts it into force first, --over-edit gives it up"
            ));
        }
        if in_force.is_ok_and(|in_force| in_force.text == text) && gate.found_just(text) {
            outln!("this policy is in force already; nothing was changed");
            return Ok(());
        }
        let losses: Vec<Loss> = self
            .client
            .ask(&Request::WouldCut {
                text: text.to_owned(),
            })
            .unwrap_or_default();
        gate.write_or_make(text, &self.config.process.user)?;
        if let Some(line) = self.read_again(&gate, why)? {
            outln!("{line}");
        } else {
            outln!(
                "{file} is written; the gateway is not running and reads it at its start, which its log will say in place of a reason"
            );
        }
        print_losses(&losses, "lost");
        Ok(())
    }

    /// Has the gateway read what was written; gives its line, or nothing where none runs. If the gateway
    /// refuses, the file is as it was.
    pub(super) fn read_again(&self, gate: &Gate<'_>, why: &str) -> Result<Option<String>, String> {
        match self.client.ask::<String>(&reload(why)) {
            Ok(line) => Ok(Some(line)),
            Err(AskError::NotRunning(_)) => Ok(None),
            Err(AskError::Refused(refusal)) => {
                gate.put_back()?;
                Err(format!("{refusal}; {} is as it was", gate.file().display()))
            }
            Err(error) => Err(format!(
                "{} is written, yet whether the gateway read it is not known: {error}",
                gate.file().display()
            )),
        }
    }

    /// Lists the policies that were in force.
    pub(super) fn policy_log(&self, json: bool) -> Result<(), String> {
        let log: PolicyLog = self.ask(&Request::PolicyLog)?;
        print_or_json(json, &log, |log| {
            let rows: Vec<Vec<String>> = log
                .versions
                .iter()
                .map(|version| {
                    let mark = if log.in_force == Some(version.serial) {
                        "in force"
                    } else {
                        ""
                    };
                    vec![
                        version.serial.to_string(),
                        utc(version.at),
                        format!("+{} -{}", version.added, version.removed),
                        mark.to_owned(),
                        printable(&version.by),
                        printable(&version.why),
                    ]
                })
                .collect();
            show::table(&["VERSION", "SINCE", "LINES", "", "BY", "WHY"], &rows);
        });
        Ok(())
    }
}

/// The request that has the gateway read its policy again.
pub(super) fn reload(why: &str) -> Request {
    Request::Reload {
        login: login(),
        why: why.to_owned(),
    }
}

/// What the administrator is called: whoever became root by sudo is not "root". For the log only; the
/// gateway asks the kernel, too.
fn login() -> String {
    let named = ["SUDO_USER", "LOGNAME", "USER"].iter();
    named
        .filter_map(|name| std::env::var(name).ok())
        .find(|name| !name.is_empty())
        .unwrap_or_default()
}

fn text_of(file: &Path) -> Result<String, String> {
    let text = PolicyFile::at(file).and_then(|at| at.text());
    text.map_err(|error| error.to_string())
}

/// Writes the difference as `diff -u` does.
fn unified(in_force: &PolicyText, text: &str, name: &str) -> String {
    let before = in_force.serial.map_or_else(
        || "in force".to_owned(),
        |serial| format!("in force (version {serial})"),
    );
    difference(&in_force.text, text, (&before, name))
}

/// Writes the difference of two texts as `diff -u` does; nothing where there is none.
pub(super) fn difference(before: &str, after: &str, (from, to): (&str, &str)) -> String {
    TextDiff::configure()
        .timeout(COMPARING)
        .diff_lines(before, after)
        .unified_diff()
        .context_radius(3)
        .header(from, to)
        .to_string()
}

pub(super) fn print_losses(losses: &[Loss], verb: &str) {
    if losses.is_empty() {
        outln!(
            "no live session {} anything",
            if verb == "lost" { "lost" } else { "would lose" }
        );
        return;
    }
    outln!("sessions that {verb} something: {}", losses.len());
    let rows: Vec<Vec<String>> = losses
        .iter()
        .map(|loss| {
            let mut what = Vec::new();
            if loss.ends {
                what.push("all of it".to_owned());
            } else if !loss.lost.is_empty() {
                what.push(loss.lost.join(", "));
            }
            let sooner = loss.shortened.iter();
            what.extend(sooner.map(|(name, until)| format!("{name} from {} on", utc(*until))));
            vec![loss.session.clone(), loss.user.clone(), what.join("; ")]
        })
        .collect();
    show::table(&["SESSION", "USER", "LOSES"], &rows);
}

/// What a look at a policy file found, for programs.
pub(super) fn report_json(
    report: &spa_gateway_core::policy::Report,
    sound: bool,
) -> serde_json::Value {
    use spa_gateway_core::policy::Severity;
    let findings = report.findings.iter().map(|finding| {
        json!({
            "severity": match finding.severity {
                Severity::Error => "error",
                Severity::Warning => "warning",
            },
            "line": finding.line,
            "column": finding.column,
            "what": finding.what,
            "remedy": finding.remedy,
        })
    });
    let tests = report.tests.iter().map(|test| {
        json!({
            "line": test.line,
            "passed": test.passed,
            "expected": test.expected,
            "got": crate::explain::Explanation::from(&test.trace),
        })
    });
    json!({
        "sound": sound,
        "findings": findings.collect::<Vec<_>>(),
        "tests": tests.collect::<Vec<_>>(),
        "groups": report.policy.as_ref().map(|policy| policy.groups().count()),
        "resources": report.policy.as_ref().map(|policy| policy.resources().count()),
        "rules": report.policy.as_ref().map(|policy| policy.rules().len()),
    })
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixListener;
    use std::path::PathBuf;
    use std::sync::{Arc, Mutex, mpsc};

    use rustix::fs::Uid;

    use super::*;
    use crate::admin::cli::PutArgs;
    use crate::admin::client::Client;
    use crate::config::Config;
    use crate::control::{self, Handed, Message, Written};
    use crate::files;

    const BEFORE: &str = "version = 1\n[group]\neng = [\"ana\"]\n";
    const AFTER: &str = "version = 1\n[group]\neng = [\"ana\", \"bo\"]\n";

    /// A policy file, and something that answers as a gateway with `BEFORE` in force would.
    struct Desk {
        _dir: tempfile::TempDir,
        config: Config,
        client: Client,
        asked: Arc<Mutex<Vec<Request>>>,
    }

    impl Desk {
        fn new(reload: Result<&'static str, &'static str>) -> Self {
            let dir = tempfile::tempdir().expect("a directory");
            let at = dir.path().display();
            let text = format!(
                "[knock]\ninterfaces = [\"eth0\"]\nport = 51820\npublic = \"192.0.2.1:51820\"\n[wireguard]\naddresses = [\"10.200.0.1/24\"]\n[paths]\npolicy = \"{at}/policy.toml\"\nstate = \"{at}\"\nruntime = \"{at}\"\n"
            );
            let config = Config::parse(&text, Path::new("gateway.toml")).expect("sound");
            files::create_new(&config.paths.policy, 0o640, BEFORE.as_bytes()).expect("written");
            let socket = config.paths.admin_socket();
            let listener = UnixListener::bind(&socket).expect("bound");
            listener.set_nonblocking(true).expect("nonblocking");
            let (sender, receiver) = mpsc::sync_channel(4);
            let hand_on = move |message| match sender.try_send(message) {
                Ok(()) => Handed::Taken,
                Err(mpsc::TrySendError::Full(message)) => Handed::Full(message),
                Err(mpsc::TrySendError::Disconnected(_)) => Handed::Closed,
            };
            control::start(listener, [64_180, 64_181].map(Uid::from_raw), hand_on)
                .expect("started");
            let asked = Arc::new(Mutex::new(Vec::new()));
            let heard = Arc::clone(&asked);
            std::thread::spawn(move || {
                for message in receiver {
                    let Message::Asked(asked) = message else {
                        continue;
                    };
                    let answer = match &asked.request {
                        Request::PolicyText { serial } => Ok(Written::of(&PolicyText {
                            serial: serial.or(Some(3)),
                            text: BEFORE.to_owned(),
                        })),
                        Request::WouldCut { .. } => Ok(Written::of(&[(); 0])),
                        _ => reload.map(|line| Written::of(&line)).map_err(str::to_owned),
                    };
                    heard.lock().expect("alone").push(asked.request);
                    let _ = asked.answer.send(answer);
                }
            });
            Self {
                _dir: dir,
                client: Client { socket },
                config,
                asked,
            }
        }

        fn admin(&self) -> Admin<'_> {
            Admin {
                config: &self.config,
                client: &self.client,
            }
        }

        fn candidate(&self, text: &str) -> PathBuf {
            let file = self.config.paths.policy.with_file_name("new.toml");
            let _ = std::fs::remove_file(&file);
            files::create_new(&file, 0o640, text.as_bytes()).expect("written");
            file
        }

        fn apply(&self, text: &str, over_edit: bool) -> Result<(), String> {
            self.admin().policy_apply(&ApplyArgs {
                file: self.candidate(text),
                put: PutArgs {
                    why: "bo joins".to_owned(),
                    over_edit,
                },
            })
        }

        fn file(&self) -> String {
            std::fs::read_to_string(&self.config.paths.policy).expect("read")
        }

        fn reasons(&self) -> Vec<String> {
            let asked = self.asked.lock().expect("alone");
            let reasons = asked.iter().filter_map(|request| match request {
                Request::Reload { why, .. } => Some(why.clone()),
                _ => None,
            });
            reasons.collect()
        }
    }

    #[test]
    fn a_good_policy_is_written_and_read() {
        let desk = Desk::new(Ok("policy in force"));
        desk.apply(AFTER, false).expect("applied");
        assert_eq!(desk.file(), AFTER);
        assert_eq!(desk.reasons(), ["bo joins"]);
        desk.admin()
            .policy_rollback(&RollbackArgs {
                serial: 2,
                put: PutArgs {
                    why: String::new(),
                    over_edit: true,
                },
            })
            .expect("back");
        assert_eq!(desk.file(), BEFORE);
        assert_eq!(desk.reasons(), ["bo joins", "back to version 2"]);
    }

    #[test]
    fn the_complete_example_applies() {
        let desk = Desk::new(Ok("policy in force"));
        let example = include_str!("../../../packaging/policy.example.toml");
        desk.apply(example, false).expect("applied, with its tests");
        assert_eq!(desk.file(), example);
        let failing = example.replace("expect = \"allow\"", "expect = \"deny\"");
        let refusal = desk.apply(&failing, true).expect_err("a test fails");
        assert!(refusal.contains("[[test]]"), "{refusal}");
        assert_eq!(desk.file(), example);
    }

    #[test]
    fn a_bad_policy_changes_nothing() {
        let desk = Desk::new(Ok("policy in force"));
        let refusal = desk
            .apply("version = 1\n[group]\neng = 7\n", false)
            .expect_err("refused");
        assert!(refusal.contains("new.toml:3:"), "{refusal}");
        assert_eq!(desk.file(), BEFORE);
        assert!(desk.reasons().is_empty());
    }

    #[test]
    fn a_policy_the_gateway_refuses_is_taken_out_of_the_file_again() {
        let desk = Desk::new(Err("no; because"));
        let refusal = desk.apply(AFTER, false).expect_err("refused");
        assert!(
            refusal.starts_with("no; because") && refusal.ends_with("is as it was"),
            "{refusal}"
        );
        assert_eq!(desk.file(), BEFORE);
    }

    #[test]
    fn an_edit_by_hand_is_not_lost_silently() {
        let desk = Desk::new(Ok("policy in force"));
        let edited = format!("{BEFORE}# by hand\n");
        files::replace(&desk.config.paths.policy, edited.as_bytes()).expect("edited");
        let refusal = desk.apply(AFTER, false).expect_err("refused");
        assert!(refusal.contains("--over-edit"), "{refusal}");
        assert_eq!(desk.file(), edited);
        desk.apply(AFTER, true).expect("applied");
        assert_eq!(desk.file(), AFTER);
    }

    #[test]
    fn without_a_gateway_the_file_is_written_for_its_start() {
        let desk = Desk::new(Ok("policy in force"));
        let away = Client {
            socket: desk.config.paths.policy.with_file_name("nobody.sock"),
        };
        let admin = Admin {
            config: &desk.config,
            client: &away,
        };
        let args = ApplyArgs {
            file: desk.candidate(AFTER),
            put: PutArgs {
                why: String::new(),
                over_edit: false,
            },
        };
        admin.policy_apply(&args).expect("written");
        assert_eq!(desk.file(), AFTER);
    }

    #[test]
    fn a_difference_is_lines_and_nothing_where_there_is_none() {
        let before = "version = 1\n# kept\n[group]\neng = [\"ana\"]\n";
        assert_eq!(difference(before, before, ("a", "b")), "");
        let after = before.replace("[\"ana\"]", "[\"ana\", \"bo\"]");
        assert_eq!(
            difference(before, &after, ("in force (version 3)", "new.toml")),
            "--- in force (version 3)\n+++ new.toml\n@@ -1,4 +1,4 @@\n version = 1\n # kept\n [group]\n-eng = [\"ana\"]\n+eng = [\"ana\", \"bo\"]\n"
        );
    }
}
