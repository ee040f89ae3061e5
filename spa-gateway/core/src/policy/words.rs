//! The words of a clause: what the rule wanted, what there was, and what would make it hold.

use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;

use spa_proto::WallTime;

use super::decide::{Evaluation, listed};
use super::held::{Clause, Held, Keyword};
use super::posture::span;
use super::risk::{RiskInput, RiskLimit};
use super::rule::{Factors, Network, Rule, Who};
use super::window::Windows;
use super::zone::instant_at;

pub(super) fn who(rule: &Rule, on: &Evaluation<'_>) -> Clause {
    let through: Vec<String> = rule
        .who
        .iter()
        .filter(|who| match who {
            Who::Person(name) => name == on.request.person,
            Who::Group(group) => on.policy.is_member(group, on.request.person),
        })
        .map(ToString::to_string)
        .collect();
    Clause {
        keyword: Keyword::Who,
        about: String::new(),
        held: Held::Yes,
        wanted: listed(&rule.who),
        saw: format!("user:{} as {}", on.request.person, through.join(", ")),
        remedy: String::new(),
    }
}

pub(super) fn until(until: WallTime, held: Held, on: &Evaluation<'_>) -> Clause {
    clause(
        Keyword::Until,
        held,
        format!("before {}", on.policy.zone.show(until)),
        time(on),
        "the rule has ended: give it a later `until`".into(),
    )
}

pub(super) fn from(from: &[Network], held: Held, on: &Evaluation<'_>) -> Clause {
    let wanted = listed(from);
    let saw = on.request.source.map_or_else(
        || "no source known".into(),
        |source| source.to_canonical().to_string(),
    );
    let remedy = format!("knock from one of: {wanted}");
    clause(Keyword::From, held, wanted, saw, remedy)
}

pub(super) fn when(when: &Windows, held: Held, on: &Evaluation<'_>) -> Clause {
    let zone = &on.policy.zone;
    let opens = on.face.and_then(|face| when.opens(zone, &face));
    let remedy = match opens {
        Some(opens) => format!("come again at {}", zone.show(instant_at(opens))),
        None => format!("come within {}", when.as_str()),
    };
    clause(
        Keyword::When,
        held,
        format!("{} {}", when.as_str(), zone.name()),
        time(on),
        remedy,
    )
}

pub(super) fn risk(limit: RiskLimit, held: Held, on: &Evaluation<'_>) -> Clause {
    let saw = match on.risk {
        None => "no risk known".into(),
        Some(total) => {
            let parts = on.policy.weighing(on.request, on.resource).explain();
            let parts: Vec<String> = parts
                .iter()
                .filter(|part| part.points != 0)
                .map(|part| format!("{} {} ({})", part.points, part.factor, part.evidence))
                .collect();
            if parts.is_empty() || matches!(on.request.risk, RiskInput::Fixed(_)) {
                format!("{total}")
            } else {
                format!("{total} = {}", parts.join(" + "))
            }
        }
    };
    let remedy = match on.risk {
        None => "the risk must be known".into(),
        Some(_) => format!(
            "the risk must come to {} {}",
            limit.comparison.words(),
            limit.points
        ),
    };
    clause(Keyword::Risk, held, limit.to_string(), saw, remedy)
}

pub(super) fn approve(approvers: &[Who], held: Held) -> Clause {
    let wanted = format!("one of {} agrees", listed(approvers));
    let saw = match held {
        Held::Yes | Held::Skipped => "agreed",
        Held::No | Held::Missing => "nobody has agreed",
    };
    let remedy = format!("ask one of {} to approve", listed(approvers));
    clause(Keyword::Approve, held, wanted, saw.into(), remedy)
}

pub(super) fn factors(wanted: Factors, held: Held, on: &Evaluation<'_>) -> Clause {
    let remedy = format!("knock with all of: {wanted}");
    clause(
        Keyword::Factors,
        held,
        wanted.to_string(),
        on.request.factors.to_string(),
        remedy,
    )
}

/// Gives when the request is made, as the policy's clock shows it.
fn time(on: &Evaluation<'_>) -> String {
    on.request
        .at
        .map_or_else(|| "no time known".into(), |at| on.policy.zone.show(at))
}

fn clause(keyword: Keyword, held: Held, wanted: String, saw: String, remedy: String) -> Clause {
    Clause {
        keyword,
        about: String::new(),
        held,
        wanted,
        saw,
        remedy: if held.satisfies() {
            String::new()
        } else {
            remedy
        },
    }
}

/// Gives how long something still lasts, for a line of `explain`.
pub(super) fn left(until: WallTime, at: WallTime) -> String {
    span(until.since(at))
}
