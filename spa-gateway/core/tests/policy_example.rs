//! The complete example of the manual: it is sound, its tests pass, and it decides what it says.

use core::time::Duration;

use spa_gateway_core::Name;
use spa_gateway_core::policy::{
    Authority, Decision, EndsBy, Factors, Facts, Reason, Request, RiskInput, RuleState, Severity,
    check,
};
use spa_proto::WallTime;

const EXAMPLE: &str = include_str!("../../../packaging/policy.example.toml");

/// 2026-11-23 10:00 in Madrid, a Monday.
const MONDAY_TEN: WallTime = WallTime::from_millis(1_795_424_400_000);
const HOUR: Duration = Duration::from_secs(60 * 60);

fn name(text: &str) -> Name {
    Name::parse(text).expect("a name")
}

#[test]
fn it_is_sound_and_its_tests_pass() {
    let report = check(EXAMPLE, Some(MONDAY_TEN));
    for test in &report.tests {
        assert!(test.passed, "{test}\n{}", test.trace);
    }
    assert_eq!(report.tests.len(), 3);
    let findings: Vec<String> = report.findings.iter().map(ToString::to_string).collect();
    assert!(report.is_sound(), "{findings:#?}");
    assert!(
        report
            .findings
            .iter()
            .all(|finding| finding.severity == Severity::Warning)
    );
}

#[test]
fn office_hours_end_the_session() {
    let policy = check(EXAMPLE, None).policy.expect("a policy");
    let (bo, db) = (name("bo"), name("db"));
    let mut facts = Facts::default();
    facts.assume(name("laptop"));
    let at = MONDAY_TEN.saturating_add(8 * HOUR);
    let request = Request {
        at: Some(at),
        facts: Some(&facts),
        risk: RiskInput::Fixed(10),
        ..Request::new(&bo, &db)
    };
    let Decision::Allow(allow) = policy.decide(&request) else {
        panic!("{}", policy.explain(&request));
    };
    // At 18:00 the rule's two hours would last until 20:00; the window closes at 19:00.
    assert_eq!(allow.not_after, at.saturating_add(HOUR));
    assert_eq!(allow.ends_by, EndsBy::Window);
    assert_eq!(allow.factors, Factors::ALL);
    assert_eq!(allow.by, Authority::Rule(name("eng-db-office-hours")));
    // A second before it closes it is still open, and not a second longer.
    let last = Request {
        at: Some(allow.not_after.saturating_sub(Duration::from_secs(1))),
        ..request
    };
    assert_eq!(
        policy.decide(&last).allowed().map(|allow| allow.not_after),
        Some(allow.not_after)
    );
    let after = Request {
        at: Some(allow.not_after),
        ..request
    };
    let trace = policy.explain(&after);
    let Decision::Deny(deny) = &trace.decision else {
        panic!("{trace}");
    };
    assert_eq!(deny.reason, Reason::Window);
    assert_eq!(
        trace.changes,
        ["come again at 2026-11-24 08:00 Europe/Madrid (2026-11-24 07:00 UTC)"]
    );
}

#[test]
fn explain_shows_every_clause_with_what_it_saw() {
    let policy = check(EXAMPLE, None).policy.expect("a policy");
    let (bo, db) = (name("bo"), name("db"));
    let request = Request {
        at: Some(MONDAY_TEN),
        risk: RiskInput::Fixed(70),
        ..Request::new(&bo, &db)
    };
    let trace = policy.explain(&request);
    let text = trace.to_string();
    for line in [
        "bo -> db, at 2026-11-23 10:00 Europe/Madrid (2026-11-23 09:00 UTC)",
        "DENY (posture; closest is rule eng-db-office-hours)",
        "  [[deny]] vendors-never-db (line 59), priority 900: speaks of others",
        "    ✓ who: wanted group:eng, saw user:bo as group:eng",
        "    ? posture laptop.firewall: wanted true, saw nothing reported",
        "    ✗ risk: wanted <= 40, saw 70",
        "  - the risk must come to at most 40",
    ] {
        assert!(text.lines().any(|found| found == line), "{line}\n{text}");
    }
    assert_eq!(trace.rules[0].state, RuleState::OtherPeople);
    assert_eq!(trace.decision, policy.decide(&request));
}
