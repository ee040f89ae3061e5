//! Rules that can never match: each kind is named, and what only looks like it is not.

use spa_gateway_core::policy::check;

#[test]
fn a_rule_that_can_never_match_is_named() {
    let base = "[group]\neng = [\"bo\", \"ana\"]\n[posture.laptop]\nfirewall = true\n[posture.open]\nfirewall = false\n[posture.old]\npatch_age = \"> 30d\"\n[posture.new]\npatch_age = \"<= 30d\"\n[posture.newer]\npatch_age = \"<= 7d\"\n[resource]\ndb = { to = \"10.0.6.1\", ports = [\"1/tcp\"], sensitivity = 50 }\n";
    let rule = |effect: &str, name: &str, rest: &str| {
        format!("[[{effect}]]\nname = \"{name}\"\nto = [\"db\"]\n{rest}\n")
    };
    let eng = "who = [\"group:eng\"]\n";
    let bo = "who = [\"bo\"]\n";
    for (said, one, other) in [
        // A deny that is wider in every condition.
        (
            "deny `d`",
            rule(
                "allow",
                "a",
                &format!(
                    "{bo}from = [\"10.1.0.0/16\"]\nwhen = \"Mon 09:00-10:00\"\nposture = [\"laptop\"]"
                ),
            ),
            rule(
                "deny",
                "d",
                &format!(
                    "{eng}from = [\"10.0.0.0/8\"]\nwhen = \"Mon-Fri\"\nposture = [\"laptop\"]"
                ),
            ),
        ),
        (
            "",
            rule("allow", "a", &format!("{bo}from = [\"10.0.0.0/8\"]")),
            rule("deny", "d", &format!("{bo}from = [\"10.1.0.0/16\"]")),
        ),
        (
            "",
            rule("allow", "a", bo),
            rule("deny", "d", &format!("{bo}when = \"Mon\"")),
        ),
        // An allow of a higher priority that asks for nothing.
        (
            "allow `h`",
            rule("allow", "a", bo),
            rule("allow", "h", &format!("{eng}priority = 900")),
        ),
        (
            "allow `h`",
            rule("deny", "a", eng),
            rule("allow", "h", &format!("{eng}priority = 900")),
        ),
        (
            "",
            rule("allow", "a", eng),
            rule("allow", "h", &format!("{bo}priority = 900")),
        ),
        (
            "",
            rule("allow", "a", bo),
            rule(
                "allow",
                "h",
                &format!("{eng}priority = 900\nwhen = \"Mon\""),
            ),
        ),
        // Postures no device has at once.
        (
            "postures `laptop` and `open` contradict each other about firewall",
            rule(
                "allow",
                "a",
                &format!("{bo}posture = [\"laptop\", \"open\"]"),
            ),
            String::new(),
        ),
        (
            "contradict each other about patch_age",
            rule(
                "allow",
                "a",
                &format!("{bo}posture = [\"new\", \"laptop\", \"old\"]"),
            ),
            String::new(),
        ),
        (
            "",
            rule(
                "allow",
                "a",
                &format!("{bo}posture = [\"newer\", \"new\", \"laptop\"]"),
            ),
            String::new(),
        ),
        // A limit below what the resource always adds.
        (
            "sensitivity alone is 50",
            rule("allow", "a", &format!("{bo}risk = \"<= 40\"")),
            String::new(),
        ),
        (
            "",
            rule("allow", "a", &format!("{bo}risk = \"<= 40 else 15m\"")),
            String::new(),
        ),
        (
            "",
            rule("allow", "a", &format!("{bo}risk = \"<= 50\"")),
            String::new(),
        ),
    ] {
        let report = check(&format!("{base}{one}{other}"), None);
        assert!(report.is_sound());
        let found: Vec<String> = report.findings.iter().map(ToString::to_string).collect();
        assert_eq!(
            found.len(),
            usize::from(!said.is_empty()),
            "{one}{other}{found:?}"
        );
        assert!(
            found.iter().all(|finding| finding.contains(said)),
            "{found:?}"
        );
    }
}
