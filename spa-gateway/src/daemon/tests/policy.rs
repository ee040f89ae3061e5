//! The policy file, its versions, and who put them into force.

use super::*;
use crate::audit::AuditLine;
use crate::control::protocol::{PolicyLog, PolicyText};

const WIKI: &str = "[resource]\nwiki = { to = \"10.0.5.10\", ports = [\"443/tcp\"] }\n";

fn write(town: &Town, text: &str) {
    crate::files::replace(&town.paths.policy, text.as_bytes()).expect("written");
}

fn log(town: &mut Town) -> PolicyLog {
    let log = town.ask(Request::PolicyLog).expect("listed");
    serde_json::from_value(log).expect("a log")
}

fn text(town: &mut Town, serial: Option<u64>) -> Result<PolicyText, String> {
    let text = town.ask(Request::PolicyText { serial })?;
    Ok(serde_json::from_value(text).expect("a text"))
}

/// The notes of the audit about policies.
fn notes(town: &mut Town) -> Vec<String> {
    let page = town
        .ask(Request::Audit {
            after: Some(0),
            user: None,
            denied: false,
            limit: 1_000,
        })
        .expect("read");
    let lines = page["lines"].as_array().expect("lines").clone();
    let lines = lines
        .into_iter()
        .map(|entry| serde_json::from_value::<AuditLine>(entry["line"].clone()).expect("a line"));
    lines
        .filter(|line| line.kind == "policy-changed")
        .map(|line| line.note.unwrap_or_default())
        .collect()
}

#[test]
fn a_file_that_cannot_be_used_at_a_start_leaves_the_last_version_in_force() {
    let mut town = Town::new();
    write(&town, WIKI);
    town.reload("").expect("read");
    for bad in [Some("[resorce]\n"), Some(""), None] {
        match bad {
            Some(text) => write(&town, text),
            None => std::fs::remove_file(&town.paths.policy).expect("removed"),
        }
        town = town.restart();
        assert_eq!(town.daemon.gateway.policy().resources().count(), 1);
        let status = town.status();
        assert!(
            status.policy.starts_with("version 2 still"),
            "{}",
            status.policy
        );
        assert!(status.policy.contains("policy.toml"), "{}", status.policy);
        assert!(
            notes(&mut town)
                .last()
                .expect("a note")
                .contains("version 2 again")
        );
        assert_eq!(text(&mut town, None).expect("in force").text, WIKI);
        town.reload("").expect_err("still bad");
    }
    crate::files::create_new(&town.paths.policy, 0o640, WIKI.as_bytes()).expect("mended");
    town.reload("").expect("read");
    assert!(town.status().policy.starts_with("in force as version 2"));
}

/// Else a start that cannot use the file would bring the one before it back.
#[test]
fn a_version_the_disk_had_no_room_for_is_kept_when_there_is_room() {
    let mut town = Town::new();
    town.daemon.store.fill_the_disk();
    // Longer than what fits into pages that are half empty.
    let long = format!("{WIKI}# {}\n", "x".repeat(100_000));
    write(&town, &long);
    let line = town.reload("it moved").expect("in force").to_string();
    assert!(line.contains("could not be written"), "{line}");
    assert_eq!(town.daemon.gateway.policy().resources().count(), 1);
    town.daemon.look_around(clock::now());
    assert_eq!(log(&mut town).in_force, None);
    assert_eq!(text(&mut town, None).expect("in force").text, long);
    town.daemon.store.empty_the_disk();
    town.daemon.look_around(clock::now());
    assert_eq!(log(&mut town).in_force, Some(2));
    assert!(town.status().policy.starts_with("in force as version 2"));
    let note = notes(&mut town).pop().expect("a note");
    assert_eq!(note, "version 2, by bo (uid 0): it moved, kept only now");
    write(&town, "[resorce]\n");
    let mut town = town.restart();
    assert_eq!(text(&mut town, None).expect("in force").text, long);
}

#[test]
fn every_policy_in_force_is_a_version_with_who_and_why() {
    let mut town = Town::new();
    let first = text(&mut town, None).expect("in force");
    assert_eq!(first.serial, Some(1));
    write(&town, WIKI);
    let line = town.reload("the wiki moved").expect("read");
    assert!(line.as_str().expect("a line").contains("as version 2"));
    town.reload("nothing new").expect("read");
    let log = log(&mut town);
    assert_eq!(log.in_force, Some(2));
    let [found, wiki] = &log.versions[..] else {
        panic!("two versions")
    };
    assert_eq!(found.why, "found at the start");
    assert_eq!(
        (wiki.serial, wiki.by.as_str(), wiki.why.as_str()),
        (2, "bo (uid 0)", "the wiki moved")
    );
    assert_eq!((wiki.added, wiki.removed), (2, 2));
    assert_eq!(text(&mut town, Some(1)).expect("kept"), first);
    assert_eq!(text(&mut town, None).expect("in force").text, WIKI);
    let refusal = text(&mut town, Some(9)).expect_err("none");
    assert!(refusal.contains("policy log"), "{refusal}");
    assert_eq!(
        notes(&mut town),
        [
            "version 1, by the file: found at the start",
            "version 2, by bo (uid 0): the wiki moved",
            "version 2, by bo (uid 0): nothing new",
        ]
    );
}

#[test]
fn a_policy_changed_while_no_gateway_ran_is_a_version_and_the_same_one_is_none() {
    let mut town = Town::new().restart();
    assert_eq!(log(&mut town).versions.len(), 1);
    write(&town, WIKI);
    // As after a kill between the renamed file and its version.
    let mut town = town.restart();
    let log = log(&mut town);
    assert_eq!((log.in_force, log.versions.len()), (Some(2), 2));
    assert_eq!(notes(&mut town).len(), 2);
}

#[test]
fn a_policy_that_cannot_be_used_at_the_start_is_no_version() {
    let mut town = Town::with_policy("[resorce]\n");
    town.reload("a slip").expect_err("refused");
    let none = log(&mut town);
    assert_eq!((none.versions.len(), none.in_force), (0, None));
    let refusal = text(&mut town, None).expect_err("none in force");
    assert!(refusal.contains("policy check"), "{refusal}");
    assert!(town.status().policy.starts_with("none"));
    write(&town, "[group]\neng = [\"ana\"]\n");
    town.reload("mended").expect("read");
    assert_eq!(log(&mut town).in_force, Some(1));
}

#[test]
fn what_another_policy_would_cut_is_asked_with_a_sound_one() {
    let mut town = Town::new();
    let ask = |town: &mut Town, text: &str| {
        town.ask(Request::WouldCut {
            text: text.to_owned(),
        })
    };
    assert_eq!(ask(&mut town, WIKI), Ok(serde_json::json!([])));
    let refusal = ask(&mut town, "[resorce]\n").expect_err("refused");
    assert!(refusal.contains("policy.toml:1:"), "{refusal}");
    assert_eq!(town.daemon.gateway.policy().resources().count(), 0);
}

#[test]
fn a_resource_among_the_addresses_of_sessions_is_refused() {
    let mut town = Town::new();
    for (to, fits) in [
        ("10.0.0.0/8", false),
        ("10.200.0.9", false),
        ("10.0.5.10", true),
    ] {
        write(
            &town,
            &format!("[resource]\nwide = {{ to = \"{to}\", ports = [\"443/tcp\"] }}\n"),
        );
        let read = town.reload("wider");
        assert_eq!(read.is_ok(), fits, "{read:?}");
        let refusal = read.err().unwrap_or_default();
        assert!(
            fits || refusal.contains("`wide` has addresses that sessions get"),
            "{refusal}"
        );
    }
}
