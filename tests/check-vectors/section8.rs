//! Every word of SPEC §8's table is about something that is checked: by a vector that quotes it, or by the test that stands here.

use std::collections::BTreeSet;
use std::fs;
use std::process::Command;

use serde_json::Value;

use super::{check, vectors};

/// What one packet or a story of packets cannot show: the words of §8, and where they are shown.
const ELSEWHERE: &[(&str, &str, &str)] = &[
    (
        "socket filter in the kernel",
        "spa-gateway/enforcer/src/filter/tests.rs",
        "a_knock_passes_in_either_family",
    ),
    (
        "UDP, knock port",
        "spa-gateway/enforcer/src/filter/tests.rs",
        "another_port_protocol_or_receiver_is_dropped",
    ),
    (
        "where the kernel can, also: first 8 bytes are in the current tag set",
        "spa-gateway/enforcer/src/filter/tests.rs",
        "only_a_tag_of_the_table_passes",
    ),
    (
        "in constant time",
        "tests/src/bin/timing/main.rs",
        "V of a knock",
    ),
    (
        "public-key budget: global",
        "spa-gateway/core/src/tests/bounds.rs",
        "a_flood_under_one_key_delays_another_device_by_one_knock",
    ),
    (
        "round robin",
        "spa-gateway/core/src/tests/bounds.rs",
        "turns_go_round_and_a_newer_knock_keeps_the_turn_of_the_older",
    ),
    (
        "strict parse",
        "spa-proto/tests/hostile.rs",
        "no_plaintext_panics_the_strict_parser_and_what_it_takes_writes_back",
    ),
    (
        "or a repeat (§10)",
        "tests/vectors/replay.json",
        "five_repeats_then_no_more",
    ),
    (
        "(a failed repeat marks nothing)",
        "tests/vectors/replay.json",
        "failed_repeat_marks_nothing",
    ),
    (
        "or ended less than 10 s ago and this repeats its CLOSE",
        "tests/vectors/replay.json",
        "close_repeats",
    ),
    (
        "ended only by an OPEN that passes step 10",
        "tests/vectors/replay.json",
        "roam_does_not_end_failures_in_a_row",
    ),
    (
        "disable the credential until an administrator acts",
        "spa-gateway/core/src/tests/bounds.rs",
        "five_failures_empty_the_bucket_and_a_hundred_in_a_row_disable",
    ),
    (
        "evaluate",
        "spa-gateway/core/src/tests/people.rs",
        "the_log_says_which_factor_was_wrong_and_the_wire_says_nothing",
    ),
    (
        "combine without early exit",
        "tests/src/bin/timing/main.rs",
        "which factor is wrong",
    ),
    (
        "risk",
        "spa-gateway/core/src/tests/policy.rs",
        "failures_before_a_knock_raise_its_risk",
    ),
    (
        "is CAPACITY",
        "tests/vectors/replay.json",
        "refused_by_capacity",
    ),
    (
        "a refusal here is answered with POLICY or CAPACITY",
        "tests/vectors/replay.json",
        "refused_by_policy",
    ),
    (
        "durable record (§7)",
        "spa-gateway/core/src/tests/effects.rs",
        "nothing_is_done_before_the_record_is_on_disk",
    ),
    (
        "WireGuard peer with PSK; flows; door; read back; reply; audit",
        "spa-gateway/core/src/tests/effects.rs",
        "a_knock_leads_to_record_peer_flows_door_reply_audit_in_this_order",
    ),
];

fn text_of(path: &str) -> String {
    let root = vectors().join("../..");
    fs::read_to_string(root.join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// The middle column of the table of §8: step and what is checked.
fn rows() -> Vec<(u8, String)> {
    let spec = text_of("spa-proto/SPEC.md");
    let section = spec
        .split("\n## ")
        .find(|section| section.starts_with("8. "))
        .expect("§8");
    let row = |line: &str| {
        // A `|` in a formula is written `\|`.
        let escaped = line.replace("\\|", "\u{1}");
        let mut cells = escaped.split('|').skip(1).map(str::trim);
        let step = cells.next()?.parse().ok()?;
        Some((step, cells.next()?.replace('\u{1}', "\\|")))
    };
    section.lines().filter_map(row).collect()
}

/// What the vectors of the folder quote.
fn quoted() -> BTreeSet<String> {
    let file = |name: &str| -> Value {
        let text = fs::read_to_string(vectors().join("negative").join(name)).expect("readable");
        serde_json::from_str(&text).expect("JSON")
    };
    let mut quotes = BTreeSet::new();
    for name in ["steps.json", "stories.json"] {
        for vector in file(name)["vectors"].as_array().expect("vectors") {
            quotes.insert(vector["spec"].as_str().expect("a quote").to_owned());
        }
    }
    quotes
}

#[test]
fn the_negative_vectors_agree() {
    let output = check(&vectors().join("negative"));
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{text}");
}

#[test]
fn every_word_of_section_8_is_checked_somewhere() {
    let rows = rows();
    let steps: Vec<u8> = rows.iter().map(|(step, _)| *step).collect();
    assert_eq!(steps, (0..=12).collect::<Vec<u8>>(), "the steps of §8");
    let mut quotes: Vec<String> = quoted().into_iter().collect();
    quotes.extend(ELSEWHERE.iter().map(|(words, _, _)| (*words).to_owned()));
    // The longest first, so that none eats a part of another.
    quotes.sort_by_key(|quote| std::cmp::Reverse(quote.len()));
    let mut used = BTreeSet::new();
    for (step, text) in &rows {
        let mut left = text.clone();
        for quote in &quotes {
            if left.contains(quote.as_str()) {
                left = left.replacen(quote.as_str(), "", 1);
                used.insert(quote);
            }
        }
        let words: Vec<&str> = left
            .split(|c: char| !c.is_alphanumeric())
            .filter(|word| !word.is_empty())
            .collect();
        assert!(
            words.is_empty(),
            "step {step}: nothing checks {words:?} of {text:?}"
        );
    }
    for quote in &quotes {
        assert!(used.contains(quote), "§8 has no {quote:?}");
    }
}

#[test]
fn what_is_shown_elsewhere_is_there() {
    for (words, path, name) in ELSEWHERE {
        assert!(
            text_of(path).contains(name),
            "{words}: {path} has no {name}"
        );
    }
}

/// The script beside them still writes them; it is the other implementation, and can be read.
#[test]
fn the_script_beside_them_writes_the_negative_vectors() {
    let script = vectors().join("negative/make.py");
    match Command::new("python3").arg(&script).arg("--check").output() {
        Ok(output) => assert!(
            output.status.success(),
            "{}",
            String::from_utf8_lossy(&output.stdout)
        ),
        Err(error) => {
            eprintln!("SKIPPED: python3 does not start ({error}); the vectors were not made again")
        }
    }
}
