//! The vectors agree, and the checker is no rubber stamp: it fails on what is wrong.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use spa_gateway_core::Refusal;

mod section8;

/// The copy of the vectors that lives in this repository.
fn vectors() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("vectors")
}

fn check(folder: &Path) -> Output {
    Command::new(env!("CARGO_BIN_EXE_check-vectors"))
        .arg(folder)
        .output()
        .expect("the checker starts")
}

/// The lines of a failed run, without the summary, and the summary.
fn failed(folder: &Path) -> (Vec<String>, String) {
    let output = check(folder);
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    let text = String::from_utf8(output.stdout).expect("the checker writes text");
    let mut lines: Vec<_> = text.lines().map(str::to_owned).collect();
    let summary = lines.pop().expect("there is a summary");
    (lines, summary)
}

/// A folder with one file, removed with the test.
struct Folder(PathBuf);

impl Folder {
    fn with(name: &str, content: &str) -> Self {
        let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("check-vectors-{name}"));
        fs::create_dir_all(&path).expect("the folder can be made");
        fs::write(path.join(format!("{name}.json")), content).expect("the file can be written");
        Self(path)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        // A folder that stays is overwritten by the next run.
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn content(kind: &str) -> String {
    fs::read_to_string(vectors().join(format!("{kind}.json"))).expect("the vectors are there")
}

#[test]
fn every_vector_agrees() {
    let output = check(&vectors());
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{text}");
    let summary = text.lines().last().expect("there is a summary");
    assert!(summary.ends_with(" passed, 0 failed"), "{summary}");
}

#[test]
fn one_changed_digit_fails_one_case_and_names_the_value() {
    let folder = Folder::with(
        "kdf",
        &content("kdf")
            .replacen("\"seed\":\"", "\"seed\":\"00", 1)
            .replacen("\"seed\": \"", "\"seed\": \"00", 1),
    );
    let (lines, summary) = failed(&folder.0);
    assert_eq!(summary, "8 passed, 1 failed");
    assert_eq!(lines.len(), 1);
    assert!(
        lines[0].starts_with("FAIL kdf - #0: seed is "),
        "{}",
        lines[0]
    );
}

#[test]
fn an_integer_is_read_exactly_up_to_2_64() {
    let file = |slot: &str| {
        format!(
            r#"{{"spec": "KNOCK/1", "kind": "tag", "vectors": {{"tags": [], "reply_tags": [], "complement": [],
            "window": [{{"now_ms": 18446744073709551615, "slots": [307445734561824, 307445734561825, 307445734561826, {slot}]}}]}}}}"#
        )
    };
    let right = Folder::with("exact", &file("307445734561827"));
    assert!(check(&right.0).status.success(), "{:?}", check(&right.0));
    let wrong = Folder::with("inexact", &file("307445734561828"));
    assert_eq!(failed(&wrong.0).1, "0 passed, 1 failed");
}

#[test]
fn what_cannot_be_checked_is_one_clear_line() {
    for (name, content, line) in [
        (
            "unknown",
            r#"{"spec": "KNOCK/1", "kind": "knick", "vectors": []}"#,
            "is of the unknown kind \"knick\"",
        ),
        (
            "other-spec",
            r#"{"spec": "KNOCK/2", "kind": "tag", "vectors": []}"#,
            "is not for the spec KNOCK/1",
        ),
        (
            "kindless",
            r#"{"spec": "KNOCK/1", "vectors": []}"#,
            "names no kind",
        ),
        (
            "empty",
            r#"{"spec": "KNOCK/1", "kind": "kdf", "vectors": []}"#,
            "holds no vectors",
        ),
        ("torn", r#"{"spec": "#, "EOF while parsing"),
    ] {
        let folder = Folder::with(name, content);
        let (lines, summary) = failed(&folder.0);
        assert_eq!(
            (lines.len(), summary.as_str()),
            (1, "0 passed, 1 failed"),
            "{lines:?}"
        );
        assert!(lines[0].contains(line), "{}", lines[0]);
    }
}

#[test]
fn an_unreadable_folder_fails() {
    let (lines, summary) = failed(Path::new("/nowhere/at/all"));
    assert_eq!((lines.len(), summary.as_str()), (1, "0 passed, 1 failed"));
}

/// Each way to be refused is in a vector, which also sees that nothing was sent. Three cannot be, and say what shows them.
#[test]
fn every_refusal_has_a_vector() {
    const ELSEWHERE: [Refusal; 3] = [
        // Its tags leave the table with it, so only a knock that waited meets it: `tests/sim`.
        Refusal::CredentialDisabled,
        // The store and the enforcer of a vector never fail: `tests/sim`, and the core's `tests/effects.rs`.
        Refusal::RecordFailed,
        Refusal::OrderFailed,
    ];
    let output = Command::new(env!("CARGO_BIN_EXE_check-vectors"))
        .arg(vectors())
        .arg("--refusals")
        .output()
        .expect("the checker starts");
    let text = String::from_utf8(output.stdout).expect("the checker writes text");
    for refusal in Refusal::ALL {
        let met = text.lines().any(|line| line == refusal.name());
        assert_eq!(met, !ELSEWHERE.contains(refusal), "{refusal:?}");
    }
}
