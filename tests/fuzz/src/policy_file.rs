//! A policy as an administrator types it, and then a few questions to whatever parsed.

use spa_gateway_core::policy::{Decision, Factors, Request, check};
use spa_gateway_core::{Name, Policy};

use crate::keys::NOW;

/// A refusal is one line; what parses decides as it explains, and less knowledge never opens more.
pub fn run(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else {
        return;
    };
    let report = check(text, Some(NOW));
    match Policy::parse(text) {
        Err(error) => {
            assert!(report.policy.is_none());
            let said = error.to_string();
            assert!(
                !said.is_empty() && !said.contains('\n'),
                "not one line: {said:?}"
            );
        }
        Ok(policy) => {
            assert!(report.policy.is_some());
            let members = policy.groups().flat_map(|(_, members)| members).take(3);
            for person in members.cloned().chain(Name::parse("stranger").ok()) {
                for (resource, _) in policy.resources().take(3) {
                    decides(&policy, &person, resource);
                }
            }
        }
    }
}

fn decides(policy: &Policy, person: &Name, resource: &Name) {
    let knows_all = Request {
        at: Some(NOW),
        source: Some([203, 0, 113, 9].into()),
        ..Request::new(person, resource)
    };
    let knows_less = Request {
        factors: Factors::DEVICE,
        ..Request::new(person, resource)
    };
    let decision = policy.decide(&knows_all);
    assert_eq!(policy.explain(&knows_all).decision, decision);
    if let Decision::Allow(allow) = &decision {
        assert!(allow.not_after > NOW, "an allowance that is over");
    }
    let locked = Request {
        lock: Some("everybody"),
        ..knows_all
    };
    assert!(
        matches!(policy.decide(&locked), Decision::Deny(_)),
        "a lock that locks nobody out"
    );
    // What is not known never satisfies an allow and always triggers a deny.
    if matches!(policy.decide(&knows_less), Decision::Allow(_)) {
        assert!(
            decision.allowed().is_some(),
            "less is known, more is granted"
        );
    }
}
