//! The sentences people read: verdicts, refusals, silence.
//!
//! Calm, precise, and never more than is known: silence has one text, since a gateway tells nobody which factor failed.

use std::time::Duration;

use spa_proto::{FRESHNESS, RefusedFor, ResourceId, Verdict, WallTime};

/// A third of what makes every knock fail (SPEC §7).
const NOTABLE_SKEW: Duration = Duration::from_secs(30);

/// What silence at a knock means (SPEC §9). One text for every cause, on purpose.
#[must_use]
pub fn silence(gateway: &str) -> String {
    format!(
        "no answer from {gateway}: password, code, network or clock. A gateway never says which; `spa doctor` checks network and clock"
    )
}

/// What silence at an enrolment means: a used or expired invite is silent on the wire.
#[must_use]
pub fn silence_at_enrolment(gateway: &str) -> String {
    format!(
        "no answer from {gateway}: the invite was used, has expired or was withdrawn, or network or clock are wrong. Run the same command again, or ask for a new invite"
    )
}

/// What silence means when the new credential was to be activated.
#[must_use]
pub fn silence_at_activation(gateway: &str) -> String {
    format!(
        "no answer from {gateway}: code, password, network or clock. The device is not enrolled yet: run the same command again within 10 minutes, with the same password"
    )
}

/// Why a name is granted or not.
#[must_use]
pub fn verdict(verdict: Verdict) -> &'static str {
    match verdict {
        Verdict::Granted => "granted",
        Verdict::NotAllowed => "not allowed, or no such resource",
        Verdict::Posture => "refused: this device does not meet what is required of it",
        Verdict::TimeWindow => "refused: not at this time",
        Verdict::Risk => "refused: the risk is too high now",
        Verdict::Locked => "refused: locked by an administrator",
        Verdict::ApprovalNeeded => "refused: someone must approve it first",
        Verdict::Other(_) => "refused, for a reason this version of spa does not know",
    }
}

/// What a person can do about a verdict.
#[must_use]
pub fn remedy(verdict: Verdict) -> &'static str {
    match verdict {
        Verdict::Granted => "Nothing stands in the way.",
        Verdict::NotAllowed => {
            "Check the name; if it is right, ask the administrator to allow it to you."
        }
        Verdict::Posture => {
            "`spa posture` shows what this device tells of itself; ask the administrator what it lacks."
        }
        Verdict::TimeWindow => "Try again inside the hours the administrator set.",
        Verdict::Risk => "Try again later, or ask the administrator.",
        Verdict::Locked => "Ask the administrator to lift the lock.",
        Verdict::ApprovalNeeded => {
            "The request waits: once somebody whom the rule names has approved it, knock again."
        }
        Verdict::Other(_) => "Update spa, or ask the administrator.",
    }
}

/// What POLICY and CAPACITY say as a whole: the gateway's own words where it has some.
#[must_use]
pub fn refused(why: RefusedFor, reason: Option<&str>) -> String {
    let (ours, advice) = match why {
        RefusedFor::Policy => ("policy grants nothing of what was asked", ""),
        RefusedFor::Capacity => (
            "the gateway has no room for another session",
            "; try again later",
        ),
    };
    let text = reason.map_or_else(|| ours.to_owned(), printable);
    format!("every factor was right, and the knock is refused: {text}{advice}")
}

/// What to say of a clock that drifts away from the gateway's, before it is too far off for a knock.
#[must_use]
pub fn skew(gateway: WallTime, ours: WallTime) -> Option<String> {
    let distance = gateway.distance(ours);
    let direction = if gateway > ours { "behind" } else { "ahead of" };
    (distance >= NOTABLE_SKEW).then(|| {
        format!(
            "This clock is {} {direction} the gateway's: set it, since beyond {} no knock is answered.",
            length(distance),
            length(FRESHNESS)
        )
    })
}

/// A name for a resource of which only the id is known.
#[must_use]
pub fn name_of(id: ResourceId, known: &[String]) -> String {
    known
        .iter()
        .find(|name| ResourceId::of(name) == id)
        .cloned()
        .unwrap_or_else(|| format!("resource-{id}"))
}

/// Text from outside, harmless on a terminal.
#[must_use]
pub fn printable(text: &str) -> String {
    text.chars()
        .map(|c| if c.is_control() { ' ' } else { c })
        .collect()
}

/// A length of time for people: "2 h 5 min", "41 s".
#[must_use]
pub fn length(length: Duration) -> String {
    let seconds = length.as_secs();
    let (hours, minutes) = (seconds / 3600, seconds / 60 % 60);
    match (hours, minutes) {
        (0, 0) => format!("{seconds} s"),
        (0, m) if m < 5 && !seconds.is_multiple_of(60) => format!("{m} min {} s", seconds % 60),
        (0, m) => format!("{m} min"),
        (h, 0) => format!("{h} h"),
        (h, m) => format!("{h} h {m} min"),
    }
}

/// Bytes for people.
#[must_use]
pub fn bytes(count: u64) -> String {
    const UNITS: [&str; 4] = ["KiB", "MiB", "GiB", "TiB"];
    if count < 1024 {
        return format!("{count} B");
    }
    let mut whole = count;
    let mut tenths = 0;
    let mut unit = "B";
    for next in UNITS {
        if whole < 1024 {
            break;
        }
        tenths = whole % 1024 * 10 / 1024;
        whole /= 1024;
        unit = next;
    }
    format!("{whole}.{tenths} {unit}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn silence_names_every_cause_and_accuses_none() {
        let text = silence("gw:51820");
        for cause in ["password", "code", "network", "clock"] {
            assert!(text.contains(cause), "{cause}");
        }
        assert!(!text.contains('\n') && !text.contains("wrong"));
        let text = silence_at_enrolment("gw:51820");
        for cause in ["used", "expired", "network", "clock"] {
            assert!(text.contains(cause), "{cause}");
        }
    }

    #[test]
    fn a_verdict_never_tells_a_missing_resource_from_a_forbidden_one() {
        assert_eq!(
            verdict(Verdict::NotAllowed),
            "not allowed, or no such resource"
        );
        assert!(verdict(Verdict::Other(99)).starts_with("refused"));
    }

    #[test]
    fn a_reason_cannot_write_on_the_terminal() {
        let text = refused(RefusedFor::Policy, Some("no\x1b[2Jway\n"));
        assert!(!text.chars().any(char::is_control), "{text:?}");
    }

    #[test]
    fn a_drifting_clock_is_said_before_it_is_too_late() {
        let at = |seconds: u64| WallTime::from_millis(seconds * 1000);
        assert_eq!(skew(at(100), at(129)), None);
        assert!(skew(at(100), at(130)).is_some_and(|line| line.contains("30 s ahead of")));
        assert!(skew(at(140), at(100)).is_some_and(|line| line.contains("40 s behind")));
    }

    #[test]
    fn an_unknown_id_is_shown_as_such() {
        let known = ["wiki".to_owned()];
        assert_eq!(name_of(ResourceId::of("wiki"), &known), "wiki");
        assert!(name_of(ResourceId::of("db"), &known).starts_with("resource-"));
    }

    #[test]
    fn lengths_and_sizes_read_like_speech() {
        let text = |s| length(Duration::from_secs(s));
        assert_eq!(
            [
                text(41),
                text(60),
                text(125),
                text(600),
                text(7200),
                text(7500)
            ],
            ["41 s", "1 min", "2 min 5 s", "10 min", "2 h", "2 h 5 min"]
        );
        assert_eq!(
            [bytes(7), bytes(1536), bytes(1 << 30)],
            ["7 B", "1.5 KiB", "1.0 GiB"]
        );
    }
}
