//! The manual page: every example in it is a policy that would be accepted without a warning.

use spa_gateway_core::policy::{Field, Reason, check};

const MANUAL: &str = include_str!("../../../docs/man/spa-policy.5");

#[test]
fn every_example_is_sound() {
    let examples: Vec<&str> = MANUAL
        .split(".Bd -literal -offset indent\n")
        .skip(1)
        .filter_map(|rest| rest.split(".Ed\n").next())
        .collect();
    assert!(examples.len() >= 4);
    for example in examples {
        let report = check(example, None);
        let said: Vec<String> = report.findings.iter().map(ToString::to_string).collect();
        assert!(said.is_empty(), "{said:?}\n{example}");
        let failed: Vec<String> = report.failed().map(ToString::to_string).collect();
        assert!(failed.is_empty(), "{failed:?}");
    }
}

#[test]
fn every_reason_and_every_field_is_named() {
    let text = MANUAL.replace('\n', " ");
    for reason in Reason::ALL {
        assert!(text.contains(reason.as_str()), "{}", reason.as_str());
    }
    for field in Field::ALL {
        assert!(text.contains(field.name()), "{}", field.name());
    }
}
