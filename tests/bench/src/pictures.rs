//! The two pictures of the README, drawn from the measured figures and nothing else: honest knocks under a flood, and how long a
//! knock takes. One file each, beside the figures; a comparison that was not measured is not drawn.

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::Context;
use serde_json::Value;

use crate::figures::short;

/// The percentiles by which a distribution is told, in its rows and in its picture.
pub const PERCENTILES: [u8; 7] = [5, 25, 50, 75, 90, 95, 99];

const WIDTH: f64 = 720.0;
const HEIGHT: f64 = 300.0;
/// Where the axes are.
const LEFT: f64 = 60.0;
const RIGHT: f64 = 700.0;
const TOP: f64 = 60.0;
const BOTTOM: f64 = 250.0;
const OURS: &str = "#1f6f8b";
const THEIRS: &str = "#c8553d";

/// Draws what was measured into files beside `figures`, and gives their names.
///
/// # Errors
/// What the disk refuses.
pub fn draw(rows: &[Value], figures: &Path) -> anyhow::Result<Vec<PathBuf>> {
    let pictures = [
        ("bench-honest.svg", honest(rows)),
        ("bench-latency.svg", latency(rows)),
    ];
    let mut files = Vec::new();
    for (name, picture) in pictures {
        let Some(picture) = picture else { continue };
        let file = figures.with_file_name(name);
        fs::write(&file, picture).context("writing a picture")?;
        files.push(file);
    }
    Ok(files)
}

/// One figure of ours and, where it was measured, of the other's.
#[derive(Clone, Copy, PartialEq, Debug)]
struct Pair {
    ours: f64,
    theirs: Option<f64>,
}

fn pair(rows: &[Value], name: &str) -> Option<Pair> {
    let row = rows.iter().find(|row| row["name"] == name)?;
    Some(Pair {
        ours: row["value"].as_f64()?,
        theirs: row["peer_value"].as_f64(),
    })
}

/// Bars: of a hundred honest knocks, how many open a door while a stranger sends so much.
fn honest(rows: &[Value]) -> Option<String> {
    let floods = [
        ("1000", "1,000 packets/s"),
        ("10000", "10,000 packets/s"),
        ("50000", "50,000 packets/s"),
        ("100000", "100,000 packets/s"),
        ("full-speed", "full speed"),
    ];
    let measured: Vec<(&str, Pair)> = floods
        .into_iter()
        .filter_map(|(name, words)| Some((words, pair(rows, &format!("junk-honest-{name}"))?)))
        .collect();
    if measured.is_empty() {
        return None;
    }
    let mut svg = begin("Honest knocks that open a door while junk comes in, percent");
    for share in [0.0, 50.0, 100.0] {
        rule(&mut svg, share_at(share), &format!("{share:.0} %"));
    }
    let columns = f64::from(u8::try_from(measured.len()).unwrap_or(u8::MAX));
    let wide = (RIGHT - LEFT) / columns;
    let mut middle = LEFT - wide / 2.0;
    for (words, pair) in measured {
        middle += wide;
        bar(&mut svg, middle - 38.0, pair.ours, OURS);
        match pair.theirs {
            Some(theirs) => bar(&mut svg, middle + 2.0, theirs, THEIRS),
            None => text(&mut svg, middle + 20.0, BOTTOM - 6.0, "middle", "–"),
        }
        text(&mut svg, middle, BOTTOM + 20.0, "middle", words);
    }
    Some(end(svg))
}

/// Curves: so many percent of all knocks had their door after so many milliseconds, on a scale of powers of ten.
fn latency(rows: &[Value]) -> Option<String> {
    let measured: Vec<(u8, Pair)> = PERCENTILES
        .into_iter()
        .filter_map(|percent| Some((percent, pair(rows, &format!("knock-to-door-p{percent}"))?)))
        .collect();
    if measured.len() < 2 {
        return None;
    }
    let mut svg = begin(
        "From the knock on the wire to the door in the kernel: percent that were done after so long",
    );
    for share in [0.0, 50.0, 100.0] {
        rule(&mut svg, share_at(share), &format!("{share:.0} %"));
    }
    for (time, words) in [
        (0.1, "0.1 ms"),
        (1.0, "1 ms"),
        (10.0, "10 ms"),
        (100.0, "100 ms"),
        (1_000.0, "1 s"),
    ] {
        text(&mut svg, time_at(time), BOTTOM + 20.0, "middle", words);
    }
    let ours = measured.iter().map(|(percent, pair)| (*percent, pair.ours));
    curve(&mut svg, ours, OURS);
    let theirs = measured
        .iter()
        .filter_map(|(percent, pair)| Some((*percent, pair.theirs?)));
    curve(&mut svg, theirs, THEIRS);
    Some(end(svg))
}

fn share_at(percent: f64) -> f64 {
    BOTTOM - (BOTTOM - TOP) * percent.clamp(0.0, 100.0) / 100.0
}

/// A tenth of a millisecond on the left, a second on the right.
fn time_at(ms: f64) -> f64 {
    LEFT + (RIGHT - LEFT) * (ms.clamp(0.1, 1_000.0).log10() + 1.0) / 4.0
}

fn begin(title: &str) -> String {
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {HEIGHT}\" font-family=\"sans-serif\" font-size=\"13\" \
         role=\"img\"><title>{title}</title>\n<rect width=\"{WIDTH}\" height=\"{HEIGHT}\" fill=\"#ffffff\"/>\n"
    );
    text(&mut svg, LEFT, 24.0, "start", title);
    for (at, colour, words) in [(LEFT, OURS, "spa"), (LEFT + 60.0, THEIRS, "fwknop 2.6.10")] {
        let _never_fails = writeln!(
            svg,
            "<rect x=\"{at}\" y=\"34\" width=\"12\" height=\"12\" fill=\"{colour}\"/>"
        );
        text(&mut svg, at + 18.0, 45.0, "start", words);
    }
    svg
}

fn end(svg: String) -> String {
    svg + "</svg>\n"
}

fn rule(svg: &mut String, y: f64, words: &str) {
    let _never_fails = writeln!(
        svg,
        "<line x1=\"{LEFT}\" y1=\"{y:.1}\" x2=\"{RIGHT}\" y2=\"{y:.1}\" stroke=\"#d0d0d0\"/>"
    );
    text(svg, LEFT - 8.0, y + 4.0, "end", words);
}

fn bar(svg: &mut String, left: f64, percent: f64, colour: &str) {
    let top = share_at(percent);
    let _never_fails = writeln!(
        svg,
        "<rect x=\"{left:.1}\" y=\"{top:.1}\" width=\"36\" height=\"{:.1}\" fill=\"{colour}\"/>",
        BOTTOM - top
    );
    text(svg, left + 18.0, top - 4.0, "middle", &short(percent));
}

fn curve(svg: &mut String, points: impl Iterator<Item = (u8, f64)>, colour: &str) {
    let mut line = String::new();
    let mut dots = String::new();
    for (percent, ms) in points {
        let (x, y) = (time_at(ms), share_at(f64::from(percent)));
        let _never_fails = write!(line, "{x:.1},{y:.1} ");
        let _never_fails = writeln!(
            dots,
            "<circle cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"3.5\" fill=\"{colour}\"><title>p{percent}: {} ms</title></circle>",
            short(ms)
        );
    }
    let _never_fails = writeln!(
        svg,
        "<polyline points=\"{}\" fill=\"none\" stroke=\"{colour}\" stroke-width=\"2\"/>\n{}",
        line.trim_end(),
        dots.trim_end()
    );
}

fn text(svg: &mut String, x: f64, y: f64, anchor: &str, words: &str) {
    let _never_fails = writeln!(
        svg,
        "<text x=\"{x:.1}\" y=\"{y:.1}\" text-anchor=\"{anchor}\" fill=\"#202020\">{words}</text>"
    );
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn row(name: &str, value: f64, peer: Option<f64>) -> Value {
        json!({"name": name, "value": value, "peer_value": peer})
    }

    #[test]
    fn a_bar_is_as_high_as_its_figure_and_what_was_not_measured_has_none() {
        let rows = [
            row("junk-honest-10000", 100.0, Some(12.0)),
            row("junk-honest-100000", 50.0, None),
        ];
        let svg = honest(&rows).expect("drawn");
        let bars = |colour: &str| {
            svg.lines()
                .filter(|line| line.contains("width=\"36\"") && line.contains(colour))
                .filter_map(|line| line.split("height=\"").nth(1)?.split('"').next())
                .map(str::to_owned)
                .collect::<Vec<_>>()
        };
        assert_eq!(bars(OURS), ["190.0", "95.0"]);
        assert_eq!(bars(THEIRS), ["22.8"]);
        assert_eq!(honest(&[]), None);
    }

    #[test]
    fn a_curve_goes_through_every_percentile() {
        let rows: Vec<Value> = PERCENTILES
            .iter()
            .map(|percent| row(&format!("knock-to-door-p{percent}"), 1.0, Some(100.0)))
            .collect();
        let svg = latency(&rows).expect("drawn");
        assert_eq!(
            svg.matches("<circle cx=\"220.0\"").count(),
            PERCENTILES.len()
        );
        assert_eq!(
            svg.matches("<circle cx=\"540.0\"").count(),
            PERCENTILES.len()
        );
        assert!(svg.contains("p99: 1.00 ms") && svg.contains("p99: 100 ms"));
        assert_eq!(latency(&rows[..1]), None);
    }
}
