//! Random policies, put to Cedar and to our engine: both must give the same verdict.
//!
//! The fragment both can say: one level of priority, people and groups, resources, source networks, a risk
//! limit, a posture fact. Cedar skips a policy that errs on a missing fact; for a `forbid` that fails open, so
//! the translation says "or it is not known", as our engine does by itself.

use std::fmt::Write;
use std::str::FromStr;

use cedar_policy::{
    Authorizer, Context, Decision as Cedar, Entities, Entity, EntityUid, PolicySet,
    Request as CedarRequest,
};
use proptest::prelude::*;
use spa_gateway_core::Name;
use spa_gateway_core::policy::{Facts, Policy, Request, RiskInput};

#[derive(Clone, Debug)]
struct Rule {
    deny: bool,
    /// 0 … 2 are people, 3 … 5 are groups.
    who: usize,
    to: usize,
    from: Option<u8>,
    risk: Option<u16>,
    posture: bool,
}

#[derive(Clone, Debug)]
struct Asked {
    person: usize,
    resource: usize,
    source: Option<u8>,
    risk: Option<u16>,
    posture: bool,
}

fn rule() -> impl Strategy<Value = Rule> {
    (
        prop::bool::weighted(0.3),
        0..6_usize,
        0..2_usize,
        prop::option::weighted(0.4, 0..3_u8),
        prop::option::weighted(0.4, 0..100_u16),
        prop::bool::weighted(0.3),
    )
        .prop_map(|(deny, who, to, from, risk, posture)| Rule {
            deny,
            who,
            to,
            from,
            risk,
            posture,
        })
}

fn asked() -> impl Strategy<Value = Asked> {
    (
        0..3_usize,
        0..2_usize,
        prop::option::of(0..3_u8),
        prop::option::of(0..100_u16),
        any::<bool>(),
    )
        .prop_map(|(person, resource, source, risk, posture)| Asked {
            person,
            resource,
            source,
            risk,
            posture,
        })
}

/// Which people are in which group.
type Groups = [[bool; 3]; 3];

fn ours(rules: &[Rule], groups: &Groups) -> String {
    let mut text = String::from("[posture.laptop]\nfirewall = true\n[group]\n");
    for (number, members) in groups.iter().enumerate() {
        let members: Vec<String> = (0..3)
            .filter(|at| members[*at])
            .map(|at| format!("p{at}"))
            .collect();
        let _ = writeln!(text, "g{number} = {members:?}");
    }
    text += "[resource]\nr0 = { to = \"10.0.0.1\", ports = [\"1/tcp\"] }\nr1 = { to = \"10.0.0.2\", ports = [\"1/tcp\"] }\n";
    for (number, rule) in rules.iter().enumerate() {
        let effect = if rule.deny { "deny" } else { "allow" };
        let who = if rule.who < 3 {
            format!("p{}", rule.who)
        } else {
            format!("group:g{}", rule.who - 3)
        };
        let _ = write!(
            text,
            "[[{effect}]]\nname = \"n{number}\"\nwho = [\"{who}\"]\nto = [\"r{}\"]\n",
            rule.to
        );
        if let Some(net) = rule.from {
            let _ = writeln!(text, "from = [\"10.{net}.0.0/16\"]");
        }
        if let Some(risk) = rule.risk {
            let sign = if rule.deny { ">=" } else { "<=" };
            let _ = writeln!(text, "risk = \"{sign} {risk}\"");
        }
        if rule.posture {
            text += "posture = [\"laptop\"]\n";
        }
    }
    text
}

fn theirs(rules: &[Rule]) -> String {
    let mut text = String::new();
    for rule in rules {
        let effect = if rule.deny { "forbid" } else { "permit" };
        let who = if rule.who < 3 {
            format!("principal == User::\"p{}\"", rule.who)
        } else {
            format!("principal in Group::\"g{}\"", rule.who - 3)
        };
        let mut conditions = Vec::new();
        let mut condition = |fact: &str, holds: String| {
            conditions.push(if rule.deny {
                format!("(!(context has {fact}) || {holds})")
            } else {
                format!("(context has {fact} && {holds})")
            });
        };
        if let Some(net) = rule.from {
            condition(
                "source",
                format!("context.source.isInRange(ip(\"10.{net}.0.0/16\"))"),
            );
        }
        if let Some(risk) = rule.risk {
            let sign = if rule.deny { ">=" } else { "<=" };
            condition("risk", format!("context.risk {sign} {risk}"));
        }
        if rule.posture {
            condition("firewall", "context.firewall".into());
        }
        let when = if conditions.is_empty() {
            "true".into()
        } else {
            conditions.join(" && ")
        };
        let _ = writeln!(
            text,
            "{effect}({who}, action, resource == Resource::\"r{}\") when {{ {when} }};",
            rule.to
        );
    }
    text
}

fn uid(kind: &str, name: &str) -> EntityUid {
    EntityUid::from_str(&format!("{kind}::\"{name}\"")).expect("a uid")
}

fn entities(groups: &Groups) -> Entities {
    let people = (0..3).map(|person| {
        let parents = (0..3)
            .filter(|group| groups[*group][person])
            .map(|group| uid("Group", &format!("g{group}")))
            .collect();
        Entity::new_no_attrs(uid("User", &format!("p{person}")), parents)
    });
    let groups = (0..3)
        .map(|group| Entity::new_no_attrs(uid("Group", &format!("g{group}")), Default::default()));
    Entities::from_entities(people.chain(groups), None).expect("entities")
}

fn cedar(rules: &[Rule], groups: &Groups, asked: &Asked) -> bool {
    let policies = PolicySet::from_str(&theirs(rules)).expect("policies");
    let mut context = serde_json::Map::new();
    if let Some(net) = asked.source {
        let ip = serde_json::json!({ "__extn": { "fn": "ip", "arg": format!("10.{net}.1.1") } });
        context.insert("source".into(), ip);
    }
    if let Some(risk) = asked.risk {
        context.insert("risk".into(), risk.into());
    }
    if asked.posture {
        context.insert("firewall".into(), true.into());
    }
    let context = Context::from_json_value(context.into(), None).expect("a context");
    let request = CedarRequest::new(
        uid("User", &format!("p{}", asked.person)),
        uid("Action", "reach"),
        uid("Resource", &format!("r{}", asked.resource)),
        context,
        None,
    )
    .expect("a request");
    let answer = Authorizer::new().is_authorized(&request, &policies, &entities(groups));
    answer.decision() == Cedar::Allow
}

fn engine(rules: &[Rule], groups: &Groups, asked: &Asked) -> (bool, String) {
    let text = ours(rules, groups);
    let policy = Policy::parse(&text).unwrap_or_else(|error| panic!("{error}\n{text}"));
    let name = |text: String| Name::parse(&text).expect("a name");
    let (person, resource) = (
        name(format!("p{}", asked.person)),
        name(format!("r{}", asked.resource)),
    );
    let mut facts = Facts::default();
    facts.assume(name("laptop".into()));
    let request = Request {
        source: asked.source.map(|net| [10, net, 1, 1].into()),
        risk: asked.risk.map_or(RiskInput::Unknown, RiskInput::Fixed),
        facts: asked.posture.then_some(&facts),
        ..Request::new(&person, &resource)
    };
    let trace = policy.explain(&request);
    (
        trace.decision.allowed().is_some(),
        format!("{text}\n{trace}"),
    )
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn cedar_and_our_engine_agree(
        rules in prop::collection::vec(rule(), 0..10),
        groups in any::<Groups>(),
        asked in asked(),
    ) {
        let (ours, why) = engine(&rules, &groups, &asked);
        prop_assert_eq!(ours, cedar(&rules, &groups, &asked), "{}\n{}", why, theirs(&rules));
    }
}
