//! The semantics of a policy, one line for each rule of it: (what, policy, request, answer).

use core::time::Duration;

use spa_gateway_core::Name;
use spa_gateway_core::policy::{
    Approval, Authority, Decision, EndsBy, Fact, FactSource, Factors, Facts, Field, Grant,
    HourSeen, NetworkSeen, Policy, Reason, Request, RiskInput, Signals, Value,
};
use spa_proto::WallTime;

/// 2026-11-23 10:00 UTC, a Monday.
const NOW: WallTime = WallTime::from_millis(1_795_428_000_000);
const MINUTE: Duration = Duration::from_secs(60);
const HOUR: Duration = Duration::from_secs(60 * 60);

const BASE: &str = r#"
[group]
eng = ["ana", "bo"]
ops = ["ana"]
[resource]
db = { to = "10.0.6.0/28", ports = ["5432/tcp", "53/udp"] }
wiki = { to = "10.0.5.10", ports = ["443/tcp"] }
learned = { to = "10.0.9.20", ports = ["502/tcp"], mode = "observe" }
[posture.laptop]
disk_encryption = true
max_age = "15m"
"#;

fn policy(rules: &str) -> Policy {
    Policy::parse(&format!("{BASE}{rules}")).unwrap_or_else(|error| panic!("{error}\n{rules}"))
}

fn name(text: &str) -> Name {
    Name::parse(text).expect("a name")
}

fn allow(rule: &str) -> String {
    rule_of("allow", "a", rule)
}

fn deny(rule: &str) -> String {
    rule_of("deny", "d", rule)
}

fn rule_of(effect: &str, name: &str, rest: &str) -> String {
    let who = if rest.contains("who") {
        ""
    } else {
        "who = [\"bo\"]\n"
    };
    format!("[[{effect}]]\nname = \"{name}\"\nto = [\"db\"]\n{who}{rest}\n")
}

/// Changes what is asked.
type Ask = for<'a> fn(&mut Request<'a>, &'a World);

/// What requests borrow from.
struct World {
    encrypted: Facts,
    open: Facts,
    stale: Facts,
    attested: Facts,
    by_ana: Vec<Approval>,
    by_bo: Vec<Approval>,
    quiet: Signals,
}

impl World {
    fn new() -> Self {
        let facts = |value, source, age| {
            let mut facts = Facts::default();
            let at = NOW.saturating_sub(age);
            facts.put(Field::DiskEncryption, Fact { value, source, at });
            facts
        };
        let approval = |by| {
            vec![Approval {
                rule: name("a"),
                by: name(by),
                until: NOW.saturating_add(30 * MINUTE),
            }]
        };
        let reported = FactSource::SelfReported;
        Self {
            encrypted: facts(Value::Bool(true), reported, MINUTE),
            open: facts(Value::Bool(false), reported, MINUTE),
            stale: facts(Value::Bool(true), reported, 16 * MINUTE),
            attested: facts(Value::Bool(true), FactSource::Attested, MINUTE),
            by_ana: approval("ana"),
            by_bo: approval("bo"),
            quiet: Signals {
                network: NetworkSeen::Known(NOW),
                hour: HourSeen::Usual,
                failures: 0,
            },
        }
    }
}

/// The answer in short: until when after now, or why not.
#[derive(PartialEq, Debug)]
enum Answer {
    For(Duration, EndsBy),
    Observed(Reason),
    No(Reason),
}
use Answer::{For, No, Observed};

fn answer(policy: &Policy, ask: Ask) -> (Answer, String) {
    let world = World::new();
    let (bo, db) = (name("bo"), name("db"));
    let mut request = Request::new(&bo, &db);
    request.at = Some(NOW);
    ask(&mut request, &world);
    let decision = policy.decide(&request);
    let trace = policy.explain(&request);
    assert_eq!(trace.decision, decision, "explain is not another engine");
    let short = match decision {
        Decision::Allow(allow) => For(allow.not_after.since(NOW), allow.ends_by),
        Decision::Observe(_, deny) => Observed(deny.reason),
        Decision::Deny(deny) => No(deny.reason),
    };
    (short, trace.to_string())
}

const PLAIN: Ask = |_, _| {};

#[test]
fn every_rule_of_the_semantics() {
    let table: Vec<(&str, String, Ask, Answer)> = vec![
        // 1: nothing is allowed that no rule allows.
        (
            "an empty policy denies",
            String::new(),
            PLAIN,
            No(Reason::NoRule),
        ),
        (
            "a rule for others denies",
            allow("who = [\"ana\"]"),
            PLAIN,
            No(Reason::NoRule),
        ),
        (
            "a rule for the person allows",
            allow(""),
            PLAIN,
            For(8 * HOUR, EndsBy::Length),
        ),
        (
            "a rule for the group allows",
            allow("who = [\"group:eng\"]"),
            PLAIN,
            For(8 * HOUR, EndsBy::Length),
        ),
        (
            "a group of the person's name is not the person",
            allow("who = [\"group:ops\"]"),
            PLAIN,
            No(Reason::NoRule),
        ),
        // 2: each resource is decided separately, with its ports.
        (
            "a port of the resource",
            allow(""),
            |r, _| r.port = Some((spa_order::Protocol::Udp, 53)),
            For(8 * HOUR, EndsBy::Length),
        ),
        (
            "a port of the other protocol",
            allow(""),
            |r, _| r.port = Some((spa_order::Protocol::Tcp, 53)),
            No(Reason::NoPort),
        ),
        // 3: priority, deny beats allow inside a level, locks above all.
        (
            "a deny beats an allow of its level",
            allow("") + &deny(""),
            PLAIN,
            No(Reason::Rule),
        ),
        (
            "a higher allow beats a deny",
            allow("priority = 501") + &deny(""),
            PLAIN,
            For(8 * HOUR, EndsBy::Length),
        ),
        (
            "a higher deny beats an allow",
            allow("") + &deny("priority = 501"),
            PLAIN,
            No(Reason::Rule),
        ),
        (
            "a level without a match passes on",
            allow("priority = 1") + &deny("priority = 900\nfrom = [\"10.9.9.9\"]"),
            |r, _| r.source = Some([10, 0, 0, 1].into()),
            For(8 * HOUR, EndsBy::Length),
        ),
        (
            "a failing allow above decides nothing",
            allow("") + &rule_of("allow", "b", "priority = 900\nwhen = \"Sun\"\nfor = \"1h\""),
            PLAIN,
            For(8 * HOUR, EndsBy::Length),
        ),
        (
            "a lock is above every rule",
            allow("priority = 1000"),
            |r, _| r.lock = Some("user:bo"),
            No(Reason::Locked),
        ),
        // 4: conditions are AND-ed; missing fails an allow and triggers a deny.
        (
            "all conditions hold",
            allow("when = \"Mon\"\nfrom = [\"10.0.0.0/8\"]"),
            |r, _| r.source = Some([10, 1, 1, 1].into()),
            For(8 * HOUR, EndsBy::Length),
        ),
        (
            "one condition fails",
            allow("when = \"Mon\"\nfrom = [\"10.0.0.0/8\"]"),
            |r, _| r.source = Some([11, 1, 1, 1].into()),
            No(Reason::Source),
        ),
        (
            "an IPv4 source in IPv6 clothes",
            allow("from = [\"10.0.0.0/8\"]"),
            |r, _| r.source = Some("::ffff:10.1.1.1".parse().expect("an address")),
            For(8 * HOUR, EndsBy::Length),
        ),
        (
            "a missing source fails an allow",
            allow("from = [\"0.0.0.0/0\"]"),
            PLAIN,
            No(Reason::Source),
        ),
        (
            "a missing source triggers a deny",
            allow("") + &deny("from = [\"10.9.9.9\"]"),
            PLAIN,
            No(Reason::Rule),
        ),
        (
            "a source that does not fit does not",
            allow("") + &deny("from = [\"10.9.9.9\"]"),
            |r, _| r.source = Some([10, 0, 0, 1].into()),
            For(8 * HOUR, EndsBy::Length),
        ),
        (
            "missing posture fails an allow",
            allow("posture = [\"laptop\"]"),
            PLAIN,
            No(Reason::Posture),
        ),
        (
            "wrong posture fails an allow",
            allow("posture = [\"laptop\"]"),
            |r, w| r.facts = Some(&w.open),
            No(Reason::Posture),
        ),
        (
            "stale posture fails an allow",
            allow("posture = [\"laptop\"]"),
            |r, w| r.facts = Some(&w.stale),
            No(Reason::Posture),
        ),
        (
            "missing posture triggers a deny",
            allow("") + &deny("posture = [\"laptop\"]"),
            PLAIN,
            No(Reason::Rule),
        ),
        (
            "stale posture triggers a deny",
            allow("") + &deny("posture = [\"laptop\"]"),
            |r, w| r.facts = Some(&w.stale),
            No(Reason::Rule),
        ),
        (
            "posture that is not so does not, while that is known",
            allow("") + &deny("posture = [\"laptop\"]"),
            |r, w| r.facts = Some(&w.open),
            For(14 * MINUTE + Duration::from_millis(1), EndsBy::Posture),
        ),
        (
            "missing risk fails an allow",
            allow("risk = \"<= 1000\""),
            PLAIN,
            No(Reason::Risk),
        ),
        (
            "missing risk triggers a deny",
            allow("") + &deny("risk = \">= 90\""),
            PLAIN,
            No(Reason::Rule),
        ),
        (
            "a low risk does not",
            allow("") + &deny("risk = \">= 90\""),
            |r, _| r.risk = RiskInput::Fixed(89),
            For(8 * HOUR, EndsBy::Length),
        ),
        (
            "a missing time opens no window",
            allow("when = \"00:00-24:00\""),
            |r, _| r.at = None,
            No(Reason::Window),
        ),
        (
            "a missing time triggers a deny",
            allow("") + &deny("when = \"Sun\""),
            |r, _| r.at = None,
            No(Reason::Rule),
        ),
        // 5: the earliest of everything ends it.
        (
            "for of the rule",
            allow("for = \"1h\""),
            PLAIN,
            For(HOUR, EndsBy::Length),
        ),
        (
            "the end of the window",
            allow("when = \"Mon 08:00-10:30\""),
            PLAIN,
            For(30 * MINUTE, EndsBy::Window),
        ),
        (
            "the end of the rule",
            allow("until = 2026-11-23T10:20:00"),
            PLAIN,
            For(20 * MINUTE, EndsBy::Until),
        ),
        (
            "a rule that has ended",
            allow("until = 2026-11-23T10:00:00"),
            PLAIN,
            No(Reason::Expired),
        ),
        (
            "a date is its first instant",
            allow("until = 2026-11-24"),
            |r, _| r.at = Some(NOW.saturating_add(13 * HOUR)),
            For(14 * HOUR, EndsBy::Until),
        ),
        (
            "the age of posture",
            allow("posture = [\"laptop\"]"),
            |r, w| r.facts = Some(&w.encrypted),
            For(14 * MINUTE + Duration::from_millis(1), EndsBy::Posture),
        ),
        (
            "a deny whose window opens",
            allow("") + &deny("when = \"Mon 10:10-11:00\""),
            PLAIN,
            For(10 * MINUTE, EndsBy::Deny),
        ),
        (
            "one of a higher priority, and of a lower one",
            allow("")
                + &rule_of("deny", "d", "priority = 600\nwhen = \"Mon 10:20-11:00\"")
                + &rule_of("deny", "e", "priority = 400\nwhen = \"Mon 10:10-11:00\""),
            PLAIN,
            For(20 * MINUTE, EndsBy::Deny),
        ),
        (
            "a deny that has ended when its window opens",
            allow("") + &deny("when = \"Mon 11:00-12:00\"\nuntil = 2026-11-23T11:00:00"),
            PLAIN,
            For(8 * HOUR, EndsBy::Length),
        ),
        (
            "a deny for another source whose window opens",
            allow("") + &deny("when = \"Mon 11:00-12:00\"\nfrom = [\"10.9.9.9\"]"),
            |r, _| r.source = Some([10, 0, 0, 1].into()),
            For(8 * HOUR, EndsBy::Length),
        ),
        (
            "the ceiling",
            allow(""),
            |r, _| r.ceiling = Some(NOW.saturating_add(MINUTE)),
            For(MINUTE, EndsBy::Ceiling),
        ),
        (
            "a live session counts from its opening",
            allow("for = \"2h\""),
            |r, _| r.opened = Some(NOW.saturating_sub(HOUR)),
            For(HOUR, EndsBy::Length),
        ),
        (
            "a grant ends it",
            String::new(),
            |r, _| {
                r.grant = Some(Grant {
                    id: 1,
                    until: NOW.saturating_add(MINUTE),
                })
            },
            For(MINUTE, EndsBy::Grant),
        ),
        (
            "a grant shortens no rule",
            allow("for = \"1h\""),
            |r, _| {
                r.grant = Some(Grant {
                    id: 1,
                    until: NOW.saturating_add(MINUTE),
                })
            },
            For(HOUR, EndsBy::Length),
        ),
        (
            "a grant gives more than a short rule",
            allow("for = \"1m\""),
            |r, _| {
                r.grant = Some(Grant {
                    id: 1,
                    until: NOW.saturating_add(HOUR),
                })
            },
            For(HOUR, EndsBy::Grant),
        ),
        (
            "a grant that has ended",
            String::new(),
            |r, _| r.grant = Some(Grant { id: 1, until: NOW }),
            No(Reason::NoRule),
        ),
        (
            "a grant does not beat a deny",
            deny(""),
            |r, _| {
                r.grant = Some(Grant {
                    id: 1,
                    until: NOW.saturating_add(MINUTE),
                })
            },
            No(Reason::Rule),
        ),
        (
            "a grant beats a lower deny",
            deny("priority = 1"),
            |r, _| {
                r.grant = Some(Grant {
                    id: 1,
                    until: NOW.saturating_add(MINUTE),
                })
            },
            For(MINUTE, EndsBy::Grant),
        ),
        // 6: who says it.
        (
            "a rule can demand attested facts",
            format!(
                "[posture.strict]\ndisk_encryption = true\nsource = \"attested\"\n{}",
                allow("posture = [\"strict\"]")
            ),
            |r, w| r.facts = Some(&w.encrypted),
            No(Reason::Posture),
        ),
        (
            "and gets them",
            format!(
                "[posture.strict]\ndisk_encryption = true\nsource = \"attested\"\n{}",
                allow("posture = [\"strict\"]")
            ),
            |r, w| r.facts = Some(&w.attested),
            For(14 * MINUTE + Duration::from_millis(1), EndsBy::Posture),
        ),
        // 8: merging is restrictive.
        (
            "the shortest for counts",
            allow("") + &rule_of("allow", "b", "for = \"1h\""),
            PLAIN,
            For(HOUR, EndsBy::Length),
        ),
        (
            "the earliest window counts",
            allow("when = \"Mon\"") + &rule_of("allow", "b", "when = \"Mon 10:00-10:10\""),
            PLAIN,
            For(10 * MINUTE, EndsBy::Window),
        ),
        (
            "factors are united",
            allow("factors = [\"device\"]") + &rule_of("allow", "b", "factors = [\"totp\"]"),
            |r, _| r.factors = Factors::DEVICE,
            No(Reason::Factors),
        ),
        (
            "a rule may ask for less than the defaults",
            format!(
                "[defaults]\nfactors = [\"device\", \"totp\"]\n{}",
                allow("factors = [\"device\"]")
            ),
            |r, _| r.factors = Factors::DEVICE,
            For(8 * HOUR, EndsBy::Length),
        ),
        (
            "the defaults ask where a rule does not",
            format!(
                "[defaults]\nfactors = [\"device\", \"totp\"]\n{}",
                allow("")
            ),
            |r, _| r.factors = Factors::DEVICE,
            No(Reason::Factors),
        ),
        // Risk.
        (
            "risk within the limit",
            allow("risk = \"<= 40\""),
            |r, _| r.risk = RiskInput::Fixed(40),
            For(8 * HOUR, EndsBy::Length),
        ),
        (
            "risk above it",
            allow("risk = \"<= 40\""),
            |r, _| r.risk = RiskInput::Fixed(41),
            No(Reason::Risk),
        ),
        (
            "risk above it shortens where the rule says so",
            allow("risk = \"<= 40 else 15m\""),
            |r, _| r.risk = RiskInput::Fixed(41),
            For(15 * MINUTE, EndsBy::Length),
        ),
        (
            "risk that is not known does not",
            allow("risk = \"<= 40 else 15m\""),
            PLAIN,
            No(Reason::Risk),
        ),
        (
            "signals are summed up",
            allow("risk = \"<= 9\""),
            |r, w| r.risk = RiskInput::Signals(&w.quiet),
            No(Reason::Risk),
        ),
        (
            "fresh posture lowers the sum",
            allow("risk = \"<= 9\""),
            |r, w| {
                r.risk = RiskInput::Signals(&w.quiet);
                r.facts = Some(&w.open);
            },
            For(8 * HOUR, EndsBy::Length),
        ),
        // Approval.
        (
            "nobody has agreed",
            allow("approve = [\"group:ops\"]"),
            PLAIN,
            No(Reason::Approval),
        ),
        (
            "one who may has",
            allow("approve = [\"group:ops\"]"),
            |r, w| r.approvals = &w.by_ana,
            For(30 * MINUTE, EndsBy::Approval),
        ),
        (
            "one who may not has",
            allow("approve = [\"user:carol\"]"),
            |r, w| r.approvals = &w.by_ana,
            No(Reason::Approval),
        ),
        (
            "nobody approves for himself",
            allow("approve = [\"group:eng\"]"),
            |r, w| r.approvals = &w.by_bo,
            No(Reason::Approval),
        ),
        (
            "an approval for another rule",
            rule_of("allow", "b", "approve = [\"group:ops\"]"),
            |r, w| r.approvals = &w.by_ana,
            No(Reason::Approval),
        ),
        // Learning.
        (
            "what is learned passes, and is noted",
            String::new(),
            |r, _| r.resource = learned(),
            Observed(Reason::NoRule),
        ),
        (
            "a deny stays a deny",
            "[[deny]]\nname = \"d\"\nto = [\"learned\"]\nwho = [\"bo\"]\n".into(),
            |r, _| r.resource = learned(),
            No(Reason::Rule),
        ),
        (
            "a lock stays a lock",
            String::new(),
            |r, _| {
                r.resource = learned();
                r.lock = Some("all");
            },
            No(Reason::Locked),
        ),
        (
            "no factor is let off",
            "[defaults]\nfactors = [\"totp\"]\n".into(),
            |r, _| {
                r.resource = learned();
                r.factors = Factors::DEVICE;
            },
            No(Reason::NoRule),
        ),
        // What the closest rule lacks is the reason.
        (
            "the rule that fails least",
            allow("when = \"Sun\"\nposture = [\"laptop\"]")
                + &rule_of("allow", "b", "risk = \"<= 5\""),
            PLAIN,
            No(Reason::Risk),
        ),
        (
            "there is no such resource",
            allow(""),
            |r, _| r.resource = absent(),
            No(Reason::NoResource),
        ),
    ];
    for (what, rules, ask, expected) in table {
        let (answer, trace) = answer(&policy(&rules), ask);
        assert_eq!(answer, expected, "{what}\n{rules}\n{trace}");
    }
}

fn learned() -> &'static Name {
    Box::leak(Box::new(name("learned")))
}

fn absent() -> &'static Name {
    Box::leak(Box::new(name("absent")))
}

#[test]
fn the_order_of_the_file_decides_nothing() {
    let rules = [
        allow("for = \"2h\""),
        rule_of("allow", "b", "for = \"1h\"\nwhen = \"Mon\""),
        rule_of("allow", "c", "priority = 400\nfor = \"10m\""),
        deny("from = [\"10.9.9.9\"]"),
    ];
    let there = |r: &mut Request<'_>, _: &World| r.source = Some([10, 0, 0, 1].into());
    let forward = answer(&policy(&rules.concat()), there);
    let backward: String = rules.iter().rev().map(String::as_str).collect();
    let backward = answer(&policy(&backward), there);
    assert_eq!(forward.0, For(HOUR, EndsBy::Length));
    assert_eq!(forward.0, backward.0);
}

#[test]
fn a_platform_is_skipped_only_where_the_policy_declares_it_and_explain_says_so() {
    let text = format!(
        "{BASE}[posture.any]\nfirewall = {{ linux = true, ios = \"skip\" }}\nscreen_lock = true\n{}",
        allow("posture = [\"any\"]")
    );
    let policy = Policy::parse(&text).expect("a policy");
    let (bo, db) = (name("bo"), name("db"));
    let on = |platform: &str, firewall: Option<bool>| {
        let mut facts = Facts::default();
        let mut put = |field, value| {
            let source = FactSource::SelfReported;
            facts.put(
                field,
                Fact {
                    value,
                    source,
                    at: NOW,
                },
            );
        };
        put(
            Field::Platform,
            Value::read(Field::Platform, platform).expect("a platform"),
        );
        put(Field::ScreenLock, Value::Bool(true));
        if let Some(firewall) = firewall {
            put(Field::Firewall, Value::Bool(firewall));
        }
        let request = Request {
            at: Some(NOW),
            facts: Some(&facts),
            ..Request::new(&bo, &db)
        };
        let trace = policy.explain(&request);
        (
            policy.decide(&request).allowed().is_some(),
            trace.to_string(),
        )
    };
    assert!(on("linux", Some(true)).0);
    assert!(!on("linux", Some(false)).0);
    assert!(!on("linux", None).0);
    let (allowed, trace) = on("ios", None);
    assert!(allowed, "{trace}");
    assert!(trace.contains("– posture any.firewall"), "{trace}");
    assert!(trace.contains("declared not to describe ios"), "{trace}");
    // A platform nobody thought of is not skipped.
    let (allowed, trace) = on("android", Some(true));
    assert!(!allowed, "{trace}");
    assert!(
        trace.contains("name `android` in `firewall` of [posture.any]"),
        "{trace}"
    );
}

#[test]
fn an_approval_or_a_grant_names_itself() {
    let policy = policy("");
    let (bo, db) = (name("bo"), name("db"));
    let request = Request {
        at: Some(NOW),
        grant: Some(Grant {
            id: 12,
            until: NOW.saturating_add(HOUR),
        }),
        ..Request::new(&bo, &db)
    };
    let decision = policy.decide(&request);
    assert_eq!(
        decision.allowed().map(|allow| &allow.by),
        Some(&Authority::Grant(12))
    );
    assert!(policy.explain(&request).to_string().contains("by grant 12"));
}

#[test]
fn explain_tells_of_the_rules_that_were_not_reached() {
    let rules = [
        deny(""),
        allow(""),
        rule_of("allow", "low", "priority = 400"),
    ];
    let (decided, trace) = answer(&policy(&rules.concat()), PLAIN);
    assert_eq!(decided, No(Reason::Rule));
    for unreached in ["[[allow]] a ", "[[allow]] low "] {
        let line = trace.lines().find(|line| line.contains(unreached));
        assert!(
            line.is_some_and(|line| line.ends_with("not reached")),
            "{trace}"
        );
    }
}

#[test]
fn of_two_allows_that_are_equally_near_the_first_is_named() {
    let rules = [
        rule_of("allow", "first", "when = \"Tue\""),
        rule_of("allow", "second", "posture = [\"laptop\"]"),
    ];
    let (decided, trace) = answer(&policy(&rules.concat()), PLAIN);
    assert_eq!(decided, No(Reason::Window), "{trace}");
    assert!(trace.contains("closest is rule first"), "{trace}");
}

#[test]
fn explain_shows_a_list_as_the_policy_has_it() {
    let rules = allow("from = [\"10.9.0.0/16\", \"10.8.0.0/16\"]");
    let (_, trace) = answer(&policy(&rules), PLAIN);
    assert!(
        trace.contains("wanted 10.9.0.0/16, 10.8.0.0/16,"),
        "{trace}"
    );
}

#[test]
fn of_two_ends_in_the_same_moment_the_length_is_named() {
    let rules = allow("for = \"30m\"\napprove = [\"group:ops\"]");
    let approved: Ask = |request, world| request.approvals = &world.by_ana;
    let (decided, trace) = answer(&policy(&rules), approved);
    assert_eq!(decided, For(30 * MINUTE, EndsBy::Length), "{trace}");
}
