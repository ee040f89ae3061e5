//! The manual page of the policy: every example in it would be accepted, nothing is left out, and the page `man`
//! shows is made from the one people edit.
//!
//! After an edit of `docs/man/spa-policy.5.md`: `WRITE_MANUAL=1 cargo test -p spa-gateway-core --test policy_manual`.

mod troff;

use spa_gateway_core::policy::{Field, Reason, check};

const MANUAL: &str = include_str!("../../../../docs/man/spa-policy.5.md");
const COMPLETE: &str = include_str!("../../../../packaging/policy.example.toml");
const SHOWN: &str = "../../docs/man/spa-policy.5";

/// The blocks of the page in this language.
fn blocks(language: &str) -> Vec<&'static str> {
    let mut blocks = Vec::new();
    let mut rest = MANUAL;
    while let Some((_, after)) = rest.split_once("```") {
        let (fence, body) = after.split_once('\n').expect("a fence ends its line");
        let (block, after) = body.split_once("```").expect("a block is closed");
        if fence == language {
            blocks.push(block);
        }
        rest = after;
    }
    blocks
}

#[test]
fn every_example_is_sound_and_its_tests_pass() {
    let examples = blocks("toml");
    assert!(examples.len() >= 5);
    for example in examples {
        let report = check(example, None);
        let said: Vec<String> = report.findings.iter().map(ToString::to_string).collect();
        assert!(report.is_sound(), "{said:?}\n{example}");
        // The complete one has a group of a directory, and a resource that is being learned.
        assert!(said.is_empty() || example == COMPLETE, "{said:?}");
    }
}

#[test]
fn the_complete_example_is_the_one_that_is_installed() {
    assert_eq!(blocks("toml").last().copied(), Some(COMPLETE));
}

#[test]
fn every_reason_field_and_key_is_explained() {
    for reason in Reason::ALL {
        let row = format!("| `{}` | ", reason.as_str());
        assert!(MANUAL.contains(&row), "{}", reason.as_str());
    }
    let keys = [
        "for",
        "idle",
        "factors",
        "mode",
        "to",
        "as",
        "ports",
        "sensitivity",
        "max_age",
        "source",
        "new_network",
        "unusual_hour",
        "recent_failure",
        "posture_age",
        "name",
        "who",
        "from",
        "when",
        "until",
        "posture",
        "risk",
        "approve",
        "priority",
        "at",
        "with",
        "expect",
        "approved",
        "version",
        "timezone",
    ];
    for key in Field::ALL.map(Field::name).into_iter().chain(keys) {
        assert!(MANUAL.contains(&format!("`{key}`")), "{key}");
    }
}

#[test]
fn what_man_shows_is_what_people_edit() {
    let made = troff::from_markdown(MANUAL);
    if std::env::var_os("WRITE_MANUAL").is_some() {
        std::fs::write(SHOWN, &made).expect("written");
    }
    let shown = std::fs::read_to_string(SHOWN).expect("read");
    assert!(
        shown == made,
        "{SHOWN} is not made from its source; run this test with WRITE_MANUAL=1"
    );
}
