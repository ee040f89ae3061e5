//! What a policy file says, and the one line it is met with where it says it wrongly.

use alloc::collections::BTreeMap;
use alloc::format;
use alloc::string::{String, ToString};
use core::time::Duration;

use spa_proto::{ResourceId, WallTime};

use super::{
    Approval, DEFAULT_LENGTH, Decision, MAX_MEMBERS, MAX_POLICY_BYTES, MAX_PORTS, MAX_RULES,
    Policy, PolicyError, Request,
};
use crate::name::Name;

const GOOD: &str = r#"version = 1

[defaults]
for = "4h"

[group]
eng = ["ana", "bo"]

[resource]
wiki  = { to = "10.0.5.10",   ports = ["443/tcp"] }
db    = { to = "10.0.6.0/28", ports = ["5432/tcp", "8000-8100/tcp"] }
admin = { to = "gateway",     ports = ["8443/tcp"] }

[[allow]]
name = "engineers"
who  = ["group:eng"]
to   = ["wiki", "db"]

[[allow]]
name = "short-db"
who  = ["user:ana"]
to   = ["db"]
for  = "30m"

[[allow]]
name = "dashboard"
who  = ["cy"]
to   = ["admin"]
for  = "8h"
"#;

fn name(text: &str) -> Name {
    Name::parse(text).expect("a name")
}

fn wrong(text: &str) -> PolicyError {
    Policy::parse(text).expect_err("the policy is wrong")
}

#[test]
fn nothing_matches_means_denied_and_no_policy_denies_everything() {
    let policy = Policy::parse(GOOD).expect("valid");
    assert_eq!(policy.allows(&name("cy"), &name("wiki")), None);
    assert_eq!(policy.allows(&name("eve"), &name("admin")), None);
    for empty in ["", "# nothing\n", "version = 1"] {
        let policy = Policy::parse(empty).expect("valid");
        assert_eq!(policy, Policy::deny_all());
        assert_eq!(policy.everything(&name("ana")).count(), 0);
    }
}

#[test]
fn groups_and_names_allow_and_the_shortest_for_counts() {
    let policy = Policy::parse(GOOD).expect("valid");
    let allows = |who: &str, what: &str| policy.allows(&name(who), &name(what));
    assert_eq!(allows("bo", "db"), Some(Duration::from_secs(4 * 60 * 60)));
    assert_eq!(allows("ana", "db"), Some(Duration::from_secs(30 * 60)));
    assert_eq!(
        allows("cy", "admin"),
        Some(Duration::from_secs(8 * 60 * 60))
    );
    let all: alloc::vec::Vec<_> = policy
        .everything(&name("ana"))
        .map(ToString::to_string)
        .collect();
    assert_eq!(all, ["db", "wiki"]);
    assert_eq!(policy.name_of(ResourceId::of("db")), Some(&name("db")));
    assert_eq!(Policy::deny_all().default_length(), DEFAULT_LENGTH);
}

#[test]
fn the_order_of_the_file_decides_nothing() {
    let policy = Policy::parse(GOOD).expect("valid");
    let at = GOOD.find("[[allow]]").expect("rules");
    let rules: alloc::vec::Vec<&str> = GOOD[at..].split("\n\n").collect();
    let reversed: String = rules
        .iter()
        .rev()
        .map(|rule| format!("{rule}\n\n"))
        .collect();
    let turned = Policy::parse(&(GOOD[..at].to_string() + &reversed)).expect("valid");
    for (who, what) in [
        ("ana", "db"),
        ("bo", "db"),
        ("bo", "wiki"),
        ("cy", "admin"),
        ("cy", "db"),
    ] {
        assert_eq!(
            policy.allows(&name(who), &name(what)),
            turned.allows(&name(who), &name(what))
        );
    }
}

#[test]
fn two_names_with_one_resource_id_are_refused() {
    let mut seen: BTreeMap<ResourceId, u32> = BTreeMap::new();
    let (first, second) = (0..)
        .find_map(|number| {
            seen.insert(ResourceId::of(&format!("r{number}")), number)
                .map(|other| (other, number))
        })
        .expect("32 bits collide soon");
    let line = |number| format!("r{number} = {{ to = \"10.0.0.1\", ports = [\"1/tcp\"] }}\n");
    let error = wrong(&format!("[resource]\n{}{}", line(first), line(second)));
    assert!(error.what.contains("the same resource id"), "{error}");
}

#[test]
fn every_bound_of_a_policy_is_reached_and_not_passed() {
    let list = |count: usize, item: fn(usize) -> String| {
        (0..count)
            .map(item)
            .collect::<alloc::vec::Vec<_>>()
            .join(",")
    };
    let members = |count| format!("[group]\ng = [{}]", list(count, |n| format!("\"m{n}\"")));
    assert!(Policy::parse(&members(MAX_MEMBERS)).is_ok());
    assert!(
        wrong(&members(MAX_MEMBERS + 1))
            .remedy
            .contains("the most is 4096")
    );
    let ports = |count| {
        format!(
            "[resource]\nr = {{ to = \"10.0.0.1\", ports = [{}] }}",
            list(count, |n| format!("\"{}/tcp\"", n + 1))
        )
    };
    assert!(Policy::parse(&ports(MAX_PORTS)).is_ok());
    assert!(Policy::parse(&ports(MAX_PORTS + 1)).is_err());
    let rules = |count| {
        let rule = |n| format!("[[allow]]\nname = \"n{n}\"\nwho = [\"a\"]\nto = [\"r\"]\n");
        let rules: String = (0..count).map(rule).collect();
        format!("resource.r = {{ to = \"10.0.0.1\", ports = [\"1/tcp\"] }}\n{rules}")
    };
    assert!(Policy::parse(&rules(MAX_RULES)).is_ok());
    assert!(Policy::parse(&rules(MAX_RULES + 1)).is_err());
    let long = "#".repeat(MAX_POLICY_BYTES + 1);
    assert!(Policy::parse(&long[..MAX_POLICY_BYTES]).is_ok());
    assert!(wrong(&long).what.contains("larger"));
}

#[test]
fn an_approval_counts_until_its_end_and_not_at_it() {
    let policy = Policy::parse(
        "resource.db = { to = \"10.0.0.1\", ports = [\"1/tcp\"] }\n[[allow]]\nname = \"a\"\nwho = [\"bo\"]\nto = [\"db\"]\napprove = [\"ana\"]\n",
    )
    .expect("sound");
    let end = WallTime::from_millis(1_800_000_000_000);
    let approvals = [Approval {
        rule: name("a"),
        by: name("ana"),
        until: end,
    }];
    let (bo, db) = (name("bo"), name("db"));
    let allowed = |at| {
        let mut request = Request::new(&bo, &db);
        request.at = Some(at);
        request.approvals = &approvals;
        matches!(policy.decide(&request), Decision::Allow(_))
    };
    assert!(allowed(end.saturating_sub(Duration::from_millis(1))));
    assert!(!allowed(end));
}
