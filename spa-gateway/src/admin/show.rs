//! Prints listings: columns for people, JSON for programs.

use serde::Serialize;
use spa_gateway_core::policy::Report;

use crate::audit::printable;
use crate::calendar::utc;
use crate::control::protocol::{
    Device, Exceptions, Lock, Session, SessionRisk, Status, User, UserKind,
};
use crate::explain::Explanation;

/// Prints a value as JSON on one line.
pub fn json(value: &impl Serialize) {
    outln!(
        "{}",
        serde_json::to_string(value).expect("listings are JSON")
    );
}

/// Prints rows below their heads, each column as wide as it needs.
pub fn table(heads: &[&str], rows: &[Vec<String>]) {
    out!("{}", table_text(heads, rows));
}

fn table_text(heads: &[&str], rows: &[Vec<String>]) -> String {
    let heads: Vec<String> = heads.iter().map(|head| (*head).to_owned()).collect();
    let all = || std::iter::once(&heads).chain(rows);
    let widths: Vec<usize> = (0..heads.len())
        .map(|column| {
            all()
                .filter_map(|row| row.get(column))
                .map(|cell| cell.chars().count())
                .max()
                .unwrap_or(0)
        })
        .collect();
    let mut text = String::new();
    for row in all() {
        let cells: Vec<String> = row
            .iter()
            .zip(&widths)
            .map(|(cell, width)| format!("{cell:width$}"))
            .collect();
        text.push_str(cells.join("  ").trim_end());
        text.push('\n');
    }
    text
}

/// Prints users.
pub fn users(users: &[User]) {
    let rows: Vec<Vec<String>> = users
        .iter()
        .map(|user| {
            let kind = match user.kind {
                UserKind::Human => "human",
                UserKind::Machine => "machine",
            };
            let state = if user.enabled { "enabled" } else { "disabled" };
            vec![
                user.user.clone(),
                kind.to_owned(),
                state.to_owned(),
                user.devices.to_string(),
                user.groups.join(", "),
            ]
        })
        .collect();
    table(&["USER", "KIND", "STATE", "DEVICES", "GROUPS"], &rows);
}

/// Writes what a look at a policy found, worst first; of a test that failed also why.
pub fn report(report: &Report) -> String {
    let mut text = String::new();
    for finding in &report.findings {
        text.push_str(&format!("{finding}\n"));
    }
    for test in &report.tests {
        text.push_str(&format!("{test}\n"));
        if !test.passed {
            let why = test.trace.to_string();
            // The first two lines are in the line above.
            let lines = why.lines().skip(2);
            lines.for_each(|line| text.push_str(&format!("    {line}\n")));
        }
    }
    text
}

/// Prints a decision with everything that made it.
pub fn explanation(explanation: &Explanation, as_json: bool) {
    if as_json {
        json(explanation);
    } else {
        out!("{}", explanation.text);
    }
}

/// Prints grants, approvals and requests that wait.
pub fn exceptions(exceptions: &Exceptions) {
    let row = |id: u32, user: &str, resource: &str, state: String, why: String| {
        vec![
            id.to_string(),
            user.to_owned(),
            resource.to_owned(),
            state,
            why,
        ]
    };
    let mut rows: Vec<Vec<String>> = Vec::new();
    for wish in &exceptions.waiting {
        let state = format!("waits since {}", utc(wish.since));
        let why = format!("rule {}", wish.rule);
        rows.push(row(wish.id, &wish.user, &wish.resource, state, why));
    }
    for grant in &exceptions.grants {
        let state = format!("granted until {}", utc(grant.until));
        let why = printable(&grant.why);
        rows.push(row(grant.id, &grant.user, &grant.resource, state, why));
    }
    for approval in &exceptions.approvals {
        let state = format!("approved until {}", utc(approval.until));
        let why = format!("rule {}, by {}", approval.rule, approval.by);
        rows.push(row(
            approval.id,
            &approval.user,
            &approval.resource,
            state,
            why,
        ));
    }
    table(&["ID", "USER", "RESOURCE", "STATE", "WHY"], &rows);
}

/// Prints locks.
pub fn locks(locks: &[Lock]) {
    let row = |lock: &Lock| {
        let until = lock.until.map_or_else(|| "unlocked".to_owned(), utc);
        vec![printable(&lock.target), until, printable(&lock.why)]
    };
    let rows: Vec<Vec<String>> = locks.iter().map(row).collect();
    table(&["LOCKED", "UNTIL", "WHY"], &rows);
}

/// Prints devices.
pub fn devices(devices: &[Device]) {
    let rows: Vec<Vec<String>> = devices
        .iter()
        .map(|device| {
            let name = if device.device.is_empty() {
                &device.credential
            } else {
                &device.device
            };
            let state = match (device.confirmed, device.state.as_str()) {
                (false, "active" | "enrolled") => format!("{}, not confirmed", device.state),
                _ => device.state.clone(),
            };
            vec![
                format!("{}/{}", device.user, printable(name)),
                state,
                device.words.clone().unwrap_or_default(),
                device.last_knock.map(utc).unwrap_or_default(),
            ]
        })
        .collect();
    table(&["DEVICE", "STATE", "WORDS", "LAST KNOCK"], &rows);
}

/// Prints one device.
pub fn device(device: &Device) {
    let mut lines = vec![
        (
            "device",
            format!("{}/{}", device.user, printable(&device.device)),
        ),
        ("credential", device.credential.clone()),
        ("state", device.state.clone()),
        (
            "confirmed",
            if device.confirmed { "yes" } else { "no" }.to_owned(),
        ),
    ];
    let mut put = |what, value: Option<String>| lines.extend(value.map(|value| (what, value)));
    put("words", device.words.clone());
    put("invite until", device.invite_until.map(utc));
    put("last knock", device.last_knock.map(utc));
    put("failures", Some(device.failures.to_string()));
    print_lines(&lines);
}

/// Prints sessions.
pub fn sessions(sessions: &[Session]) {
    let rows: Vec<Vec<String>> = sessions
        .iter()
        .map(|session| {
            let resources = match &session.resources[..] {
                [] => "control channel alone".to_owned(),
                some => some.join(", "),
            };
            vec![
                session.session.clone(),
                format!("{}/{}", session.user, printable(&session.device)),
                session.state.clone(),
                resources,
                session.source.clone(),
                risk(&session.risk),
                utc(session.not_after),
            ]
        })
        .collect();
    table(
        &[
            "SESSION", "DEVICE", "STATE", "REACHES", "FROM", "RISK", "UNTIL",
        ],
        &rows,
    );
}

/// The highest risk of a session's resources, with the names of what it is the sum of.
fn risk(of: &[SessionRisk]) -> String {
    let Some(highest) = of.iter().max_by_key(|risk| risk.points) else {
        return "-".to_owned();
    };
    let parts = highest.parts.iter();
    let parts: Vec<_> = parts
        .map(|part| format!("{} {}", part.factor, part.points))
        .collect();
    match &parts[..] {
        [] => "0".to_owned(),
        some => format!("{} ({})", highest.points, some.join(", ")),
    }
}

/// Prints how the gateway is.
pub fn status(status: &Status) {
    let yes = |yes| if yes { "yes" } else { "no" };
    let keep_open = match &status.keep_open[..] {
        [] => "none".to_owned(),
        some => format!("{}  (everybody reaches them)", some.join(", ")),
    };
    let mut lines = vec![
        (
            "gateway",
            format!(
                "{}, version {}, since {}",
                status.gateway,
                status.version,
                utc(status.since)
            ),
        ),
        ("accepts knocks", yes(status.accepting).to_owned()),
        (
            "knocks",
            format!(
                "UDP port {} on {}, invites name {}",
                status.port,
                status.interfaces.join(", "),
                status.public
            ),
        ),
        (
            "wireguard",
            format!(
                "{}, {} on UDP port {}",
                status.wireguard, status.wireguard_interface, status.wireguard_port
            ),
        ),
        ("clock", status.clock.clone()),
        ("policy", status.policy.clone()),
        ("store", status.store.clone()),
        ("ports kept open", keep_open),
        (
            "users",
            format!("{}, devices {}", status.users, status.devices),
        ),
        (
            "sessions",
            format!(
                "{}, peers {}, doors {}, flows {}",
                status.sessions, status.peers, status.doors, status.flows
            ),
        ),
    ];
    let counts = |counts: &std::collections::BTreeMap<String, u32>| {
        let some: Vec<String> = counts
            .iter()
            .map(|(name, count)| format!("{name} {count}"))
            .collect();
        if some.is_empty() {
            "none".to_owned()
        } else {
            some.join(", ")
        }
    };
    lines.push(("refused knocks", counts(&status.refusals)));
    lines.push(("kernel filter", status.filter.clone()));
    lines.push(("dropped unread", counts(&status.dropped)));
    print_lines(&lines);
}

/// Prints names and values in two columns.
pub fn print_lines(lines: &[(&str, String)]) {
    let width = lines.iter().map(|(name, _)| name.len()).max().unwrap_or(0);
    for (name, value) in lines {
        outln!("{name:width$}  {value}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_report_says_why_a_test_failed() {
        let text = r#"version = 1
[resource]
wiki = { to = "10.0.5.10", ports = ["443/tcp"] }
[[allow]]
name = "ana-wiki"
who = ["ana"]
to = ["wiki"]
[[test]]
who = "bo"
to = "wiki:443"
expect = "allow"
[[test]]
who = "ana"
to = "wiki:443"
expect = "allow"
"#;
        let checked = spa_gateway_core::policy::check(text, None);
        let shown = report(&checked);
        assert!(!checked.is_sound());
        assert!(
            shown.contains("\u{2717} line 11: bo -> wiki:443/tcp"),
            "{shown}"
        );
        assert!(shown.contains("    to be allowed:"), "{shown}");
        assert!(shown.contains("\u{2713} line 15: ana"), "{shown}");
    }

    #[test]
    fn columns_are_as_wide_as_they_need() {
        let rows = vec![
            vec!["ana".to_owned(), String::new()],
            vec!["böris".to_owned(), "x".to_owned()],
        ];
        assert_eq!(
            table_text(&["USER", "B"], &rows),
            "USER   B\nana\nböris  x\n"
        );
    }
}
