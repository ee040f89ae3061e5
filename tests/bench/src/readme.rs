//! The table of the README, written from the measured figures: nobody retypes one.
//!
//! A line whose figures were not all measured says so; one that missed its budget is marked.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::Context;
use serde_json::Value;

use crate::Pass;
use crate::figures::short;
use crate::process;

/// What stands before and after it in the README.
const MARKS: [&str; 2] = ["<!-- measured -->\n", "<!-- /measured -->\n"];

/// The pictures of the README, as they are drawn and where they belong.
const PICTURES: [(&str, &str); 2] = [
    ("bench-honest.svg", "honest-knocks.svg"),
    ("bench-latency.svg", "latency.svg"),
];

/// What, budget, ours, theirs. `{name}` is the figure of a row, `{name~}` that of its peer.
type Line = [&'static str; 4];

const LINES: &[Line] = &[
    [
        "knock on the wire → door in the kernel, p50 / p99 (a sync of this disk is in it)",
        "1 / 5 ms",
        "{knock-to-door-p50} / {knock-to-door-p99} ms",
        "{knock-to-door-p50~} / {knock-to-door-p99~} ms",
    ],
    [
        "`spa knock` start → first byte, beyond Argon2id",
        "60 ms",
        "{start-to-first-byte-rest} ms",
        "135 ms°, no tunnel",
    ],
    [
        "strangers' junk, 10,000 and 100,000/s: processor per 100,000 packets",
        "0.02 s",
        "{junk-cost-10000} and {junk-cost-100000} s",
        "{junk-cost-10000~} s, 0.8 to 2 s°",
    ],
    [
        "the same where the kernel takes no tag filter, 50,000/s",
        "0.3 s",
        "{junk-cost-no-tag-filter} s",
        "",
    ],
    [
        "honest knocks that open meanwhile",
        "100 %",
        "{junk-honest-10000}, {junk-honest-100000} %",
        "{junk-honest-10000~} %, 0 %°",
    ],
    [
        "the same while a device of ours floods: bad MACs, replays, wrong passwords, right ones",
        "100 %",
        "{inside-honest-bad-mac}, {inside-honest-replay}, {inside-honest-bad-proof}, {inside-honest-eager} %",
        "",
    ],
    [
        "1,000 sessions that end together → nothing is open",
        "0.2 s",
        "{ending-1000} s",
        "922 of 1,000 open after 75 s°",
    ],
    [
        "10,000 sessions cut together (QUICK: 2,500) → nothing is open / the last peer is gone",
        "",
        "{cut-10000} / {cut-10000-confirmed} s",
        "",
    ],
    [
        "`session cut` → last packet, p50 / p99",
        "5 ms",
        "{cut-to-last-packet-p50} / {cut-to-last-packet-p99} ms",
        "",
    ],
    [
        "`lock`, a rule taken away → last packet, p99",
        "100 ms",
        "{lock-to-last-packet-p99}, {policy-to-last-packet-p99} ms",
        "",
    ],
    [
        "one decision among 1,000 rules, worst shape",
        "20 µs",
        "{policy-decide-1000-rules} µs",
        "",
    ],
    [
        "1,000 rules applied to 1,000 live sessions",
        "50 ms",
        "{policy-apply-1000-rules-1000-sessions} ms",
        "",
    ],
    [
        "valid knocks for each core that daemon and enforcer take",
        "2,000/s",
        "{knocks-per-core}/s",
        "",
    ],
    [
        "valid knocks carried out on these two cores, the sender on them too, none lost",
        "",
        "{knocks-sustained}/s",
        "{knocks-sustained~} of 100/s",
    ],
    [
        "throughput among 10,000 sessions (QUICK: 2,500) against alone",
        "0.95",
        "{packet-cost-10000}",
        "",
    ],
    [
        "resident memory of daemon and enforcer, a page of both counted once, idle / 1,000 sessions",
        "10 / 16 MB",
        "{memory-idle} / {memory-1000-sessions} MB",
        "{memory-idle~} MB idle",
    ],
    [
        "the same, such a page (the C library's) counted in each of the two",
        "",
        "{memory-twice-idle} / {memory-twice-1000-sessions} MB",
        "",
    ],
    [
        "of it their own, not a file's",
        "",
        "{memory-anonymous-idle} / {memory-anonymous-1000-sessions} MB",
        "",
    ],
    [
        "TCP through the embedded WireGuard, up / down",
        "",
        "{throughput-up} / {throughput-down} Mbit/s",
        "wireguard-go: {throughput-up~} / {throughput-down~}, boringtun: {throughput-up-boringtun-cli~} / {throughput-down-boringtun-cli~}",
    ],
];

/// When and where it was measured.
#[derive(Debug)]
pub struct Circumstances {
    /// All of it or less.
    pub pass: Pass,
    /// How long it took, seconds.
    pub took: f64,
    /// The load average before.
    pub load: f64,
}

/// Writes the table beside `figures`; where `README=1` asks for it into the README as well.
///
/// # Errors
/// What the disk refuses, or a README without room for it.
pub fn write(
    rows: &[Value],
    circumstances: &Circumstances,
    figures: &Path,
) -> anyhow::Result<PathBuf> {
    let text = text(rows, circumstances)?;
    let file = figures.with_file_name("bench-readme.md");
    fs::write(&file, &text).context("writing the table of the README")?;
    if std::env::var("README").as_deref() == Ok("1") {
        let readme = fs::read_to_string("README.md").context("reading the README")?;
        let readme = between_marks(&readme, &text).context("the README has no room for it")?;
        fs::write("README.md", readme).context("writing the README")?;
        for (picture, place) in PICTURES {
            let place = Path::new("docs/pictures").join(place);
            // One that was not measured is not drawn.
            let drawn = figures.with_file_name(picture);
            if drawn.exists() {
                fs::copy(drawn, place).context("putting a picture in its place")?;
            }
        }
    }
    Ok(file)
}

fn between_marks(readme: &str, text: &str) -> Option<String> {
    let [begin, end] = MARKS;
    let (before, rest) = readme.split_once(begin)?;
    let (_, after) = rest.split_once(end)?;
    Some(format!("{before}{begin}{text}{end}{after}"))
}

fn text(rows: &[Value], circumstances: &Circumstances) -> anyhow::Result<String> {
    let today = Command::new("date").args(["-u", "+%-d %B %Y"]).output()?;
    let command = match circumstances.pass {
        Pass::Quick => "make bench QUICK=1",
        Pass::Full => "make bench",
    };
    let mut text = format!(
        "Of {}, `{command}` ({:.0} s), {}, load {:.1}. fwknop 2.6.10 and wireguard-go, Debian's packages, and boringtun-cli 0.7.1\n\
         were measured in the same run, but for what is marked °, taken on the same kind of machine. ✗ missed its budget.\n\n\
         | | budget | measured | others (fwknop where none is named) |\n|---|---|---|---|\n",
        String::from_utf8_lossy(&today.stdout).trim(),
        circumstances.took,
        process::machine(),
        circumstances.load,
    );
    for [what, budget, ours, theirs] in LINES {
        let (ours, mark) = match filled(ours, rows) {
            Some((ours, rows)) if missed(&rows) => (ours, " ✗"),
            Some((ours, _)) => (ours, ""),
            None => ("not measured".to_owned(), ""),
        };
        let theirs = filled(theirs, rows).map_or_else(String::new, |(theirs, _)| theirs);
        text += &format!("| {what} | {budget} | {ours}{mark} | {theirs} |\n");
    }
    Ok(text)
}

/// A text with its figures in place, and the rows they are from; `None` if one of them was not measured.
fn filled<'r>(text: &str, rows: &'r [Value]) -> Option<(String, Vec<&'r Value>)> {
    let mut used = Vec::new();
    let mut parts = text.split(['{', '}']);
    let mut filled = parts.next()?.to_owned();
    while let (Some(name), Some(words)) = (parts.next(), parts.next()) {
        let (name, field) = match name.strip_suffix('~') {
            Some(name) => (name, "peer_value"),
            None => (name, "value"),
        };
        let row = rows.iter().find(|row| row["name"] == name)?;
        filled += &grouped(&short(row[field].as_f64()?));
        filled += words;
        used.push(row);
    }
    Some((filled, used))
}

fn missed(rows: &[&Value]) -> bool {
    rows.iter().any(|row| row["ok"] == Value::Bool(false))
}

/// Thousands with a comma.
fn grouped(number: &str) -> String {
    match number.len() {
        4..=6 if number.bytes().all(|byte| byte.is_ascii_digit()) => {
            let (thousands, rest) = number.split_at(number.len() - 3);
            format!("{thousands},{rest}")
        }
        _ => number.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_line_has_the_measured_figures_or_says_that_there_are_none() {
        let rows = [
            json!({"name": "knocks", "value": 1721.4, "ok": false, "peer_value": 76.2}),
            json!({"name": "cut", "value": 2.345, "ok": true, "peer_value": null}),
        ];
        let fill = |text| filled(text, &rows).map(|(text, rows)| (text, missed(&rows)));
        assert_eq!(fill("{knocks}/s"), Some(("1,721/s".to_owned(), true)));
        assert_eq!(fill("{cut} ms"), Some(("2.35 ms".to_owned(), false)));
        assert_eq!(
            fill("{knocks~} of 100"),
            Some(("76.2 of 100".to_owned(), true))
        );
        assert_eq!(fill("{cut~}"), None);
        assert_eq!(fill("{nothing}"), None);
        assert_eq!(fill("135 ms"), Some(("135 ms".to_owned(), false)));
    }

    #[test]
    fn only_what_is_between_the_marks_is_replaced() {
        let [begin, end] = MARKS;
        let readme = format!("before\n{begin}old\n{end}after\n");
        let expected = format!("before\n{begin}new\n{end}after\n");
        assert_eq!(between_marks(&readme, "new\n"), Some(expected));
        assert_eq!(between_marks("no marks", "new\n"), None);
    }

    #[test]
    fn the_readme_has_room_for_it() {
        let readme = fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/../../README.md"));
        assert!(between_marks(&readme.expect("a README"), "").is_some());
    }
}
