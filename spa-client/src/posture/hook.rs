//! The owner's own command: `gateways/NAME/posture-command`, a program whose output adds facts of this device.
//!
//! It runs as whoever runs `spa`, so it must be his or root's, and nobody else may write to it. It has 5 s and 4 KiB.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use serde_json::Value as Json;
use spa_proto::WallTime;

use crate::posture::machine::output;
use crate::posture::{Fact, Value};

/// How long it may take.
const PATIENCE: Duration = Duration::from_secs(5);

/// How much it may print.
const LONGEST: u64 = 4096;

/// How many facts it may add.
const MOST: usize = 16;

/// The longest name and the longest text of a value, bytes.
const LONGEST_WORD: usize = 32;

/// What stands for its output when it has none.
const SELF: &str = "posture_command";

/// Runs it, if there is one.
pub fn run(path: &Path, at: WallTime) -> Vec<Fact> {
    let Ok(metadata) = fs::symlink_metadata(path) else {
        return Vec::new();
    };
    let ours = [0, rustix::process::geteuid().as_raw()].contains(&metadata.uid());
    if !metadata.is_file() || !ours || metadata.mode() & 0o022 != 0 {
        let why = format!(
            "{} is not run: it must be a file of yours that nobody else may write (`chmod 700`)",
            path.display()
        );
        return vec![Fact::unknown(SELF, why, at)];
    }
    match output(&mut Command::new(path), LONGEST, PATIENCE) {
        Some(bytes) => read(&String::from_utf8_lossy(&bytes), path, at),
        None => vec![Fact::unknown(
            SELF,
            format!(
                "{} failed, printed more than {LONGEST} bytes or took longer than {} s",
                path.display(),
                PATIENCE.as_secs()
            ),
            at,
        )],
    }
}

/// Reads one JSON object, or lines of `key=value`. What is no fact is said to be none.
fn read(text: &str, path: &Path, at: WallTime) -> Vec<Fact> {
    let pairs: Vec<(String, Option<Value>)> = if text.trim_start().starts_with('{') {
        match serde_json::from_str(text) {
            Ok(Json::Object(object)) => object
                .into_iter()
                .map(|(name, value)| (name, of_json(&value)))
                .collect(),
            Ok(_) | Err(_) => {
                let why = format!("what {} printed is not one JSON object", path.display());
                return vec![Fact::unknown(SELF, why, at)];
            }
        }
    } else {
        text.lines()
            .filter(|line| !line.trim().is_empty())
            .map(|line| line.split_once('=').unwrap_or((line, "")))
            .map(|(name, value)| (name.trim().to_owned(), of_text(value.trim())))
            .collect()
    };
    let mut facts: Vec<Fact> = Vec::new();
    for (name, value) in pairs.into_iter().take(MOST) {
        if !is_name(&name) {
            let why = format!("{} printed a name that is none: {name:?}", path.display());
            facts.push(Fact::unknown(SELF, why, at));
            continue;
        }
        let mut fact = Fact {
            name,
            value,
            source: path.display().to_string(),
            at,
        };
        if fact.value.is_none() || !fact.fits() {
            fact.value = None;
            fact.source = format!("{} printed a value that does not fit", path.display());
        }
        // Twice is once: the later line counts.
        facts.retain(|known| known.name != fact.name);
        facts.push(fact);
    }
    facts
}

fn is_name(name: &str) -> bool {
    (1..=LONGEST_WORD).contains(&name.len())
        && name.starts_with(|c: char| c.is_ascii_lowercase())
        && name
            .bytes()
            .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_')
}

fn of_json(value: &Json) -> Option<Value> {
    match value {
        Json::Bool(value) => Some(Value::Bool(*value)),
        Json::Number(number) => number.as_u64().map(Value::Number),
        Json::String(text) => short(text),
        Json::Null | Json::Array(_) | Json::Object(_) => None,
    }
}

fn of_text(text: &str) -> Option<Value> {
    match text {
        "true" | "yes" => Some(Value::Bool(true)),
        "false" | "no" => Some(Value::Bool(false)),
        _ if !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit()) => {
            text.parse().ok().map(Value::Number)
        }
        _ => short(text),
    }
}

fn short(text: &str) -> Option<Value> {
    let fits = (1..=LONGEST_WORD).contains(&text.len()) && !text.chars().any(char::is_control);
    fits.then(|| Value::Text(text.to_owned()))
}

#[cfg(test)]
pub(super) mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;
    use crate::testing::Scratch;

    const AT: WallTime = WallTime::from_millis(1);

    pub(in crate::posture) fn write(path: &Path, script: &str, mode: u32) {
        fs::write(path, script).expect("scratch is writable");
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).expect("ours");
    }

    fn values(text: &str) -> Vec<(String, Option<Value>)> {
        read(text, Path::new("x"), AT)
            .into_iter()
            .map(|fact| (fact.name, fact.value))
            .collect()
    }

    #[test]
    fn lines_and_json_say_the_same() {
        let lines = values("disk_encryption=true\npatch_age=3\nvendor=Acme 7\n");
        let json = values(r#" {"disk_encryption":true,"patch_age":3,"vendor":"Acme 7"}"#);
        assert_eq!(lines, json);
        assert_eq!(lines[0].1, Some(Value::Bool(true)));
        assert_eq!(lines[1].1, Some(Value::Number(3)));
    }

    #[test]
    fn what_is_no_fact_is_unknown_and_never_false() {
        for bad in [
            "{",
            "{} {}",
            "firewall",
            "firewall=",
            "firewall=1",
            "patch_age=-1",
            "patch_age=99999999999999999999999",
            "Upper=1",
            "a b=1",
            "x=\u{1b}[2J",
            r#"{"firewall":null}"#,
            r#"{"firewall":{"on":true}}"#,
            r#"{"patch_age":1.5}"#,
        ] {
            for (name, value) in values(bad) {
                assert_eq!(value, None, "{bad:?} gave {name}");
            }
        }
        assert_eq!(values("firewall=true\nfirewall=false").len(), 1);
        assert!(values(&"a=1\n".repeat(9999)).len() <= MOST);
    }

    #[test]
    fn a_command_others_may_write_is_not_run() {
        let scratch = Scratch::new("posture-hook");
        let (path, trace) = (scratch.path().join("hook"), scratch.path().join("trace"));
        let script = format!("#!/bin/sh\ntouch {}\necho firewall=true\n", trace.display());
        for mode in [0o720, 0o702, 0o777] {
            write(&path, &script, mode);
            let facts = run(&path, AT);
            assert!(facts.iter().all(|fact| fact.value.is_none()), "{facts:?}");
        }
        assert!(!trace.exists());
        write(&path, &script, 0o700);
        assert_eq!(run(&path, AT)[0].value, Some(Value::Bool(true)));
        assert!(trace.exists());
        write(&path, "#!/bin/sh\necho firewall=true\nexit 1\n", 0o700);
        assert_eq!(run(&path, AT)[0].value, None);
        assert!(run(&scratch.path().join("none"), AT).is_empty());
    }
}
