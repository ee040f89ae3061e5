//! Bad input: every mistake is one clear line with its place and the remedy, and changes nothing.

use spa_gateway_core::Name;
use spa_gateway_core::policy::{
    MAX_POLICY_BYTES, MAX_RULES, Policy, Report, Request, Severity, check,
};
use spa_proto::WallTime;

const BASE: &str = "[group]\neng = [\"ana\", \"bo\"]\nnone = []\n[resource]\ndb = { to = \"10.0.6.0/28\", ports = [\"5432/tcp\"] }\n";

/// (line, column, part of what, part of remedy) for what is added to the base.
type Mistake = (&'static str, (usize, usize), &'static str, &'static str);

const MISTAKES: &[Mistake] = &[
    // Published addresses.
    (
        "web = { to = \"10.0.5.1\", ports = [\"80/tcp\"], as = \"10.99.0.0/24\" }",
        (6, 51),
        "`10.99.0.0/24` is no address",
        "one address",
    ),
    (
        "web = { to = \"10.0.5.1\", ports = [\"80/tcp\"], as = \"127.0.0.1\" }",
        (6, 51),
        "no host has such an address",
        "nothing else of yours",
    ),
    (
        "web = { to = \"gateway\", ports = [\"80/tcp\"], as = \"10.99.0.1\" }",
        (6, 50),
        "the gateway has its own address",
        "leave `as` out",
    ),
    (
        "web = { to = \"10.0.5.0/24\", ports = [\"80/tcp\"], as = \"10.99.0.1\" }",
        (6, 54),
        "cannot stand for a network",
        "for each host",
    ),
    (
        "web = { to = \"10.0.5.1\", ports = [\"80/tcp\"], as = \"fd99::1\" }",
        (6, 51),
        "different families",
        "two addresses",
    ),
    (
        "web = { to = \"10.0.5.1\", ports = [\"80-90/tcp\"], as = \"10.99.0.1\" }",
        (6, 54),
        "`80-90/tcp` are several",
        "each port",
    ),
    (
        "web = { to = \"10.0.5.1\", ports = [\"80/tcp\"], as = \"10.99.0.1\" }\nxeb = { to = \"10.0.5.2\", ports = [\"80/tcp\"], as = \"10.99.0.1\" }",
        (7, 1),
        "`web` and `xeb` are both found at 10.99.0.1 80/tcp",
        "another address",
    ),
    (
        "web = { to = \"10.0.5.1\", ports = [\"80/tcp\"] }\nxeb = { to = \"10.0.5.2\", ports = [\"80/tcp\"], as = \"10.0.5.1\" }",
        (7, 1),
        "`web` and `xeb` are both found at 10.0.5.1 80/tcp",
        "another address",
    ),
    (
        "web = { to = \"10.0.5.1\", ports = [\"80/tcp\"], as = \"10.99.0.1\" }\nxeb = { to = \"10.0.5.1\", ports = [\"80/tcp\"], as = \"10.99.0.2\" }",
        (7, 1),
        "one place with two addresses, for 80/tcp",
        "by the same one",
    ),
    // The file as a whole.
    ("garbage", (6, 8), "key with no value", "TOML"),
    ("\u{0}", (6, 2), "", "TOML"),
    ("version = 2", (6, 11), "a table belongs here", "in braces"),
    (
        "[groop]",
        (6, 2),
        "unknown key `groop` in policy",
        "timezone, defaults, risk, group",
    ),
    (
        "[defaults]\nlength = \"8h\"",
        (7, 1),
        "unknown key `length` in [defaults]",
        "for, idle, factors, mode",
    ),
    (
        "[defaults]\nfor = \"8 h\"",
        (7, 7),
        "`8 h` is no session length",
        "30m",
    ),
    (
        "[defaults]\nmode = \"observe\"",
        (7, 8),
        "everything would be let through",
        "single resources",
    ),
    (
        "[defaults]\nfactors = [\"sms\"]",
        (7, 12),
        "`sms` is no factor",
        "device, password, totp",
    ),
    (
        "[risk]\nnew_network = -1",
        (7, 15),
        "no number that can stand here",
        "from 0 to 1000",
    ),
    (
        "[risk]\nmagic = 1",
        (7, 1),
        "unknown key `magic` in [risk]",
        "unusual_hour",
    ),
    // Groups and resources.
    ("[group]", (6, 2), "duplicate key", "rename"),
    (
        "db = { to = \"10.0.6.1\", ports = [\"1/tcp\"] }",
        (6, 1),
        "duplicate key",
        "rename",
    ),
    (
        "x = { to = \"10.0.6.1/28\", ports = [\"1/tcp\"] }",
        (6, 12),
        "a host and a prefix at once",
        "`10.0.6.0/28` for the network",
    ),
    (
        "x = { to = \"10.0.6.1\", ports = [\"0/tcp\"] }",
        (6, 33),
        "`0/tcp` is no port",
        "443/tcp",
    ),
    (
        "x = { to = \"10.0.6.1\", ports = [\"65536/tcp\"] }",
        (6, 33),
        "`65536/tcp` is no port",
        "443/tcp",
    ),
    (
        "x = { to = \"10.0.6.1\", ports = [] }",
        (6, 32),
        "the list is empty",
        "at least one",
    ),
    (
        "x = { to = \"10.0.6.1\" }",
        (6, 5),
        "`ports` is missing",
        "443/tcp",
    ),
    (
        "x = { to = \"127.0.0.1\", ports = [\"1/tcp\"] }",
        (6, 12),
        "can be no resource",
        "behind the gateway",
    ),
    (
        "x = { to = \"10.0.6.1\", ports = [\"1/tcp\"], mode = \"learn\" }",
        (6, 50),
        "`learn` is no mode",
        "observe",
    ),
    // Rules.
    ("[[allow]]", (6, 1), "`name` is missing", "engineers-wiki"),
    ("allow = 1", (6, 9), "a table belongs here", "[heading]"),
    (
        "[allow]\nname = \"a\"",
        (6, 1),
        "`allow` is no list of rules",
        "[[allow]]",
    ),
    (
        "[[allow]]\nname = \"a\"\nwho = [\"group:ops\"]\nto = [\"db\"]",
        (8, 8),
        "there is no group `ops`",
        "user:ops",
    ),
    (
        "[[allow]]\nname = \"a\"\nwho = [\"bo\"]\nto = [\"web\"]",
        (9, 7),
        "there is no resource `web`",
        "there are: db",
    ),
    (
        "[[allow]]\nname = \"a\"\nwho = []\nto = [\"db\"]",
        (8, 7),
        "the list is empty",
        "",
    ),
    (
        "[[allow]]\nname = \"a\"\nwho = [\"bo\"]\nto = [\"db\"]\n[[deny]]\nname = \"a\"\nwho = [\"bo\"]\nto = [\"db\"]",
        (10, 1),
        "called like the one in line 7",
        "rename",
    ),
    (
        "[[allow]]\nname = \"a\"\nwho = [\"bo\"]\nto = [\"db\"]\npriority = 1001",
        (10, 12),
        "no number",
        "0 to 1000",
    ),
    (
        "[[allow]]\nname = \"a\"\nwho = [\"bo\"]\nto = [\"db\"]\nwhen = \"Mon 19:00-08:00\"",
        (10, 8),
        "ends before it starts",
        "over midnight write two",
    ),
    (
        "[[allow]]\nname = \"a\"\nwho = [\"bo\"]\nto = [\"db\"]\nwhen = [\"Mon\", \"Mo\"]",
        (10, 16),
        "`Mo` is no window",
        "Mon-Fri 08:00-19:00",
    ),
    (
        "[[allow]]\nname = \"a\"\nwho = [\"bo\"]\nto = [\"db\"]\nuntil = \"2027-03-01\"",
        (10, 9),
        "a date or a time belongs here",
        "without quotes",
    ),
    (
        "[[allow]]\nname = \"a\"\nwho = [\"bo\"]\nto = [\"db\"]\nuntil = 10:00:00",
        (10, 9),
        "is no time",
        "2027-03-01T18:00:00",
    ),
    (
        "[[allow]]\nname = \"a\"\nwho = [\"bo\"]\nto = [\"db\"]\nrisk = \"< 0\"",
        (10, 8),
        "can never hold",
        "higher",
    ),
    (
        "[[allow]]\nname = \"a\"\nwho = [\"bo\"]\nto = [\"db\"]\nrisk = \"40\"",
        (10, 8),
        "is no limit of risk",
        "<= 40",
    ),
    (
        "[[allow]]\nname = \"a\"\nwho = [\"bo\"]\nto = [\"db\"]\nposture = [\"laptop\"]",
        (10, 12),
        "no posture requirement `laptop`",
        "[posture.laptop]",
    ),
    (
        "[[allow]]\nname = \"a\"\nwho = [\"bo\"]\nto = [\"db\"]\nfrom = [\"203.0.113.1/24\"]",
        (10, 9),
        "a host and a prefix",
        "203.0.113.0/24",
    ),
    (
        "[[allow]]\nname = \"a\"\nwho = [\"bo\"]\nto = [\"db\"]\nfrom = [\"::ffff:203.0.113.1\"]",
        (10, 9),
        "IPv6 clothes",
        "IPv4",
    ),
    (
        "[[deny]]\nname = \"a\"\nwho = [\"bo\"]\nto = [\"db\"]\nfor = \"1h\"",
        (10, 1),
        "unknown key `for` in [[deny]]",
        "posture, risk, priority",
    ),
    (
        "[[deny]]\nname = \"a\"\nwho = [\"bo\"]\nto = [\"db\"]\nrisk = \">= 9 else 1h\"",
        (10, 8),
        "no session to shorten",
        "else",
    ),
    // Posture.
    (
        "[posture.laptop]\ndisk = true",
        (7, 1),
        "unknown key `disk` in [posture]",
        "disk_encryption",
    ),
    (
        "[posture.laptop]\nmax_age = \"15m\"",
        (6, 1),
        "the list is empty",
        "",
    ),
    (
        "[posture.laptop]\nfirewall = \"on\"",
        (7, 12),
        "`firewall` is true or false",
        "without quotes",
    ),
    (
        "[posture.laptop]\nos = \">= six\"",
        (7, 6),
        "says nothing about os",
        ">= 6.1",
    ),
    (
        "[posture.laptop]\npatch_age = \"< 0d\"",
        (7, 13),
        "can never hold",
        "",
    ),
    (
        "[posture.laptop]\nos = { linux = \"skip\" }",
        (7, 6),
        "checks nothing",
        "",
    ),
    (
        "[posture.laptop]\nos = { beos = \"5\" }",
        (7, 8),
        "unknown key `beos` in os",
        "linux, windows",
    ),
    (
        "[posture.laptop]\nfirewall = true\nmax_age = \"91d\"",
        (8, 11),
        "is no age",
        "90 days",
    ),
    (
        "[posture.laptop]\nfirewall = true\nsource = \"friend\"",
        (8, 10),
        "no source of facts",
        "attested",
    ),
    // Tests.
    (
        "[[test]]\nwho = \"bo\"\nto = \"db\"\nexpect = \"maybe\"",
        (9, 10),
        "`maybe` is nothing to expect",
        "deny: REASON-OR-RULE",
    ),
    (
        "[[test]]\nwho = \"bo\"\nto = \"db\"\nexpect = \"deny: because\"",
        (9, 10),
        "neither a reason nor a rule",
        "outside window",
    ),
    (
        "[[test]]\nwho = \"bo\"\nto = \"db:1-2\"\nexpect = \"deny\"",
        (8, 6),
        "several ports",
        "dns:53/udp",
    ),
    (
        "[[test]]\nwho = \"bo\"\nto = \"db\"\nwith = { mood = 1 }\nexpect = \"deny\"",
        (9, 10),
        "unknown key `mood`",
        "posture, risk, from, factors, approved",
    ),
    (
        "[[test]]\nwho = \"bo\"\nto = \"db\"\nwith = { posture = \"x\" }\nexpect = \"deny\"",
        (9, 20),
        "no posture requirement `x`",
        "facts",
    ),
    (
        "[[test]]\nwho = \"bo\"\nto = \"db\"\nwith = { posture = { firewall = 1 } }\nexpect = \"deny\"",
        (9, 33),
        "no value of `firewall`",
        "true or false",
    ),
];

#[test]
fn every_mistake_has_its_place_and_its_remedy() {
    let mut wrong = Vec::new();
    for (text, place, what, remedy) in MISTAKES {
        let text = format!("{BASE}{text}");
        let error = Policy::parse(&text).map(|_| ()).expect_err(&text);
        let as_said = (error.line, error.column) == *place
            && error.what.contains(what)
            && error.remedy.contains(remedy)
            && is_one_line(&error.to_string());
        if !as_said {
            wrong.push(format!("{place:?} {what}\n  {error}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn a_file_without_a_key_is_not_put_into_force() {
    for empty in ["", "\n \t\n", "# version = 1\n"] {
        let report = check(empty, None);
        assert!(!report.is_sound(), "{empty:?}");
        let finding = report.findings[0].to_string();
        assert!(
            finding.starts_with("line 1, column 1: the file is empty; write"),
            "{finding}"
        );
    }
    assert!(check("version = 1\n", None).is_sound());
}

#[test]
fn a_time_zone_is_checked() {
    let error = Policy::parse("timezone = \"Europe/Atlantis\"").expect_err("no such zone");
    assert!(error.to_string().contains("line 1, column 12"), "{error}");
    assert!(Policy::parse("version = 2").is_err());
    assert!(Policy::parse("version = \"1\"").is_err());
}

#[test]
fn an_empty_file_denies_everything() {
    for text in ["", "\n\n", "# nothing\n", "version = 1\n"] {
        let policy = Policy::parse(text).expect("a policy");
        let (bo, db) = (name("bo"), name("db"));
        assert!(policy.decide(&Request::new(&bo, &db)).allowed().is_none());
    }
}

#[test]
fn hostile_names_never_reach_a_terminal() {
    for hostile in [
        "a\\nb",
        "a\\u0000b",
        "a\\\"b",
        "a\\u202Eb",
        "a\\u001b[2Jb",
        "",
        " ",
        "ä",
        "a b",
    ] {
        for text in [
            format!("[group]\n\"{hostile}\" = [\"bo\"]"),
            format!("[group]\neng = [\"{hostile}\"]"),
            format!("[resource]\n\"{hostile}\" = {{ to = \"10.0.0.1\", ports = [\"1/tcp\"] }}"),
            format!("[resource]\nx = {{ to = \"{hostile}\", ports = [\"1/tcp\"] }}"),
            format!("[resource]\nx = {{ to = \"10.0.0.1\", ports = [\"{hostile}\"] }}"),
            format!("[posture.\"{hostile}\"]\nfirewall = true"),
            format!("timezone = \"{hostile}\""),
            format!("\"{hostile}\" = 1"),
            format!("[defaults]\nfor = \"{hostile}\""),
            format!("{BASE}[[allow]]\nname = \"{hostile}\"\nwho = [\"bo\"]\nto = [\"db\"]"),
            format!("{BASE}[[allow]]\nname = \"a\"\nwho = [\"group:{hostile}\"]\nto = [\"db\"]"),
            format!("{BASE}[[allow]]\nname = \"a\"\nwho = [\"bo\"]\nto = [\"{hostile}\"]"),
            format!(
                "{BASE}[[allow]]\nname = \"a\"\nwho = [\"bo\"]\nto = [\"db\"]\nwhen = \"{hostile}\""
            ),
            format!(
                "{BASE}[[allow]]\nname = \"a\"\nwho = [\"bo\"]\nto = [\"db\"]\nrisk = \"{hostile}\""
            ),
            format!("{BASE}[[test]]\nwho = \"bo\"\nto = \"db\"\nexpect = \"deny: {hostile}\""),
        ] {
            let error = Policy::parse(&text)
                .map(|_| ())
                .expect_err(&text)
                .to_string();
            assert!(is_one_line(&error), "{error:?}");
        }
    }
}

#[test]
fn ten_thousand_rules_are_read_and_one_more_is_refused() {
    let rule = |number: usize| {
        let effect = if number.is_multiple_of(10) {
            "deny"
        } else {
            "allow"
        };
        format!(
            "[[{effect}]]\nname = \"r{number}\"\nwho = [\"p{number}\", \"group:eng\"]\nto = [\"db\"]\npriority = {}\n",
            number % 1000
        )
    };
    let text: String = (0..MAX_RULES).map(rule).collect();
    let text = format!("{BASE}{text}");
    assert!(text.len() < MAX_POLICY_BYTES);
    let report = check(&text, None);
    assert!(report.is_sound(), "{:?}", report.findings.first());
    let policy = report.policy.expect("a policy");
    assert_eq!(policy.rules().len(), MAX_RULES);
    assert_eq!(
        policy.rules()[MAX_RULES - 1].line,
        6 + (MAX_RULES - 10) * 5 + 1
    );
    let error = Policy::parse(&format!("{text}{}", rule(MAX_RULES))).expect_err("one too many");
    assert!(
        error
            .to_string()
            .contains("10001 entries; the most is 10000"),
        "{error}"
    );
    let long = "#".repeat(MAX_POLICY_BYTES + 1);
    assert!(Policy::parse(&long).is_err());
}

#[test]
fn what_is_doubtful_is_a_warning_with_the_line() {
    let rule = |effect: &str, name: &str, rest: &str| {
        format!("[[{effect}]]\nname = \"{name}\"\nto = [\"db\"]\n{rest}\n")
    };
    let now = Some(WallTime::from_millis(1_795_428_000_000));
    for (rules, line, what) in [
        (
            rule("allow", "a", "who = [\"group:none\"]"),
            7,
            "rule `a` can never match: its groups have no members",
        ),
        (
            rule("allow", "a", "who = [\"bo\"]\nuntil = 2026-01-01"),
            7,
            "rule `a` ended at 2026-01-01 00:00 UTC",
        ),
        (
            rule("allow", "a", "who = [\"bo\"]\napprove = [\"bo\"]"),
            7,
            "nobody else may approve it",
        ),
        (
            rule("allow", "a", "who = [\"bo\"]") + &rule("deny", "d", "who = [\"group:eng\"]"),
            7,
            "allow `a` never counts for `bo` and `db`: deny `d` in line 11 of the same priority beats it",
        ),
        (
            rule("allow", "a", "who = [\"group:eng\"]")
                + &rule("deny", "d", "who = [\"bo\"]\npriority = 900"),
            7,
            "of a higher priority beats it",
        ),
        (String::new(), 0, "resource `db` is allowed by no rule"),
    ] {
        let report = check(&format!("{BASE}{rules}"), now);
        assert!(report.is_sound());
        assert!(warns(&report, line, what), "{what}\n{:#?}", report.findings);
    }
    // A deny with a condition of its own is how denies are meant.
    let meant = rule("allow", "a", "who = [\"bo\"]")
        + &rule("deny", "d", "who = [\"bo\"]\nrisk = \">= 80\"");
    let report = check(&format!("{BASE}{meant}"), now);
    assert!(report.findings.is_empty(), "{:#?}", report.findings);
}

#[test]
fn a_failing_test_is_not_sound_and_says_what_it_got() {
    let text = format!("{BASE}[[test]]\nwho = \"bo\"\nto = \"db:5432\"\nexpect = \"allow\"\n");
    let report = check(&text, None);
    assert!(!report.is_sound());
    let failed: Vec<String> = report.failed().map(ToString::to_string).collect();
    assert_eq!(
        failed,
        ["✗ line 9: bo -> db:5432/tcp: expected allow, got DENY (no rule)"]
    );
}

fn warns(report: &Report, line: usize, what: &str) -> bool {
    report.findings.iter().any(|finding| {
        finding.severity == Severity::Warning
            && finding.line == line
            && finding.what.contains(what)
            && is_one_line(&finding.to_string())
    })
}

/// One line, without anything a terminal would act on.
fn is_one_line(text: &str) -> bool {
    let tricky = |letter: char| {
        letter.is_control()
            || ('\u{200b}'..='\u{200f}').contains(&letter)
            || ('\u{202a}'..='\u{202e}').contains(&letter)
    };
    !text.is_empty() && !text.chars().any(tricky)
}

fn name(text: &str) -> Name {
    Name::parse(text).expect("a name")
}
