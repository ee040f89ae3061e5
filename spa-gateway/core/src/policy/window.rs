//! `when`: hours of the week, as the clock on the wall shows them.
//!
//! Invariant: a window is open exactly while the zone's clock shows a time inside it. When clocks
//! go forward, hours that are skipped are nobody's; when they go back, an hour shown twice counts twice.

use alloc::borrow::ToOwned;
use alloc::boxed::Box;
use alloc::collections::BTreeMap;
use alloc::format;
use alloc::vec::Vec;

use super::read::Wrong;
use super::zone::{Face, Zone};

const DAY: u32 = 24 * 60 * 60;
const WEEK: u32 = 7 * DAY;
/// How far ahead an end is looked for, seconds. No session is longer than a day.
const HORIZON: i64 = 2 * DAY as i64;
/// How far ahead an opening is looked for, seconds. An hour that clocks skip may cost a week.
const OPENING: i64 = 3 * WEEK as i64;
/// The days as they are written, from Monday.
const DAYS: [&str; 7] = ["Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun"];

/// Hours of the week.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Windows {
    /// As it is written in the policy.
    text: Box<str>,
    /// From and until, in seconds since Monday 00:00; in order, apart from each other.
    spans: Vec<(u32, u32)>,
    /// The same for the same hours, throughout a policy: a decision looks at each once.
    number: usize,
}

/// Numbers the windows of a policy; gives how many there are.
pub(super) fn number<'a>(all: impl Iterator<Item = &'a mut Windows>) -> usize {
    let mut numbers: BTreeMap<Vec<(u32, u32)>, usize> = BTreeMap::new();
    for windows in all {
        let next = numbers.len();
        windows.number = *numbers.entry(windows.spans.clone()).or_insert(next);
    }
    numbers.len()
}

impl Windows {
    /// Reads "Mon-Fri 08:00-19:00" or several of them.
    pub(super) fn parse<'t>(texts: impl Iterator<Item = &'t str>) -> Result<Self, Wrong> {
        let mut spans = Vec::new();
        let mut shown = alloc::string::String::new();
        for text in texts {
            spans.extend(window(text)?);
            if !shown.is_empty() {
                shown.push_str(", ");
            }
            shown.push_str(text);
        }
        spans.sort_unstable();
        let mut merged: Vec<(u32, u32)> = Vec::new();
        for (from, until) in spans {
            match merged.last_mut() {
                Some(last) if from <= last.1 => last.1 = last.1.max(until),
                Some(_) | None => merged.push((from, until)),
            }
        }
        Ok(Self {
            text: shown.into(),
            spans: merged,
            number: 0,
        })
    }

    /// Gives the text of the policy.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// Gives its number in the policy.
    pub(super) const fn number(&self) -> usize {
        self.number
    }

    /// Gives the spans, in seconds since Monday 00:00.
    #[must_use]
    pub fn spans(&self) -> &[(u32, u32)] {
        &self.spans
    }

    /// Gives when the window that is open at `face` closes, Unix seconds; `None` if none is open.
    /// One that stays open beyond two days is said to close then.
    pub(super) fn closes(&self, zone: &Zone, face: &Face) -> Option<i64> {
        let mut face = *face;
        let horizon = face.now.saturating_add(HORIZON);
        let mut open_until = None;
        while let Some(left) = self.left(&face) {
            let end = face.now.saturating_add(left).min(face.change);
            open_until = Some(end.min(horizon));
            // Spans are apart: only at the end of the week, or where the clock changes, can one go on.
            let in_week = face.in_week().saturating_add(left);
            if end >= horizon || (end < face.change && in_week < i64::from(WEEK)) {
                break;
            }
            face = if end < face.change {
                face.at(end)
            } else {
                zone.face_at(end)
            };
        }
        open_until
    }

    /// Gives when a window opens next, Unix seconds; `None` if none does within three weeks.
    pub(super) fn opens(&self, zone: &Zone, face: &Face) -> Option<i64> {
        let mut face = *face;
        let horizon = face.now.saturating_add(OPENING);
        while face.now < horizon {
            if self.left(&face).is_some() {
                return Some(face.now);
            }
            let in_week = face.in_week();
            let ahead = self
                .spans
                .iter()
                .map(|(from, _)| i64::from(*from))
                .map(|from| (from - in_week).rem_euclid(i64::from(WEEK)))
                .min()?;
            let next = face.now.saturating_add(ahead);
            face = if next < face.change {
                face.at(next)
            } else {
                zone.face_at(face.change)
            };
        }
        None
    }

    /// Gives the seconds the clock must go on to leave the window it shows a time of.
    fn left(&self, face: &Face) -> Option<i64> {
        let now = face.in_week();
        self.spans
            .iter()
            .map(|(from, until)| (i64::from(*from), i64::from(*until)))
            .find(|(from, until)| (*from..*until).contains(&now))
            .map(|(_, until)| until - now)
    }
}

/// Reads one window: days, hours, or both.
fn window(text: &str) -> Result<Vec<(u32, u32)>, Wrong> {
    let wrong = || {
        (
            format!("`{}` is no window", text.escape_debug()),
            r#"write days and hours, as "Mon-Fri 08:00-19:00", "Tue,Thu 09:00-12:00" or "08:00-19:00""#
                .to_owned(),
        )
    };
    let (days, hours) = match text.split_once(' ') {
        Some((days, hours)) => (days, hours),
        None if text.contains(':') => ("Mon-Sun", text),
        None => (text, "00:00-24:00"),
    };
    let days = days_of(days).ok_or_else(wrong)?;
    let (from, until) = hours.split_once('-').ok_or_else(wrong)?;
    let (start, end) = (
        clock(from).ok_or_else(wrong)?,
        clock(until).ok_or_else(wrong)?,
    );
    if start >= end {
        return Err((
            format!("the window `{text}` ends before it starts"),
            format!(r#"over midnight write two: "Mon {from}-24:00", "Tue 00:00-{until}""#),
        ));
    }
    Ok((0..7_u32)
        .zip(days)
        .filter(|(_, counts)| *counts)
        .map(|(day, _)| (day * DAY + start, day * DAY + end))
        .collect())
}

/// Reads "Mon-Fri" or "Tue,Thu-Sat".
fn days_of(text: &str) -> Option<[bool; 7]> {
    let mut days = [false; 7];
    let index = |day: &str| DAYS.iter().position(|known| *known == day);
    for part in text.split(',') {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        let (first, last) = (index(first)?, index(last)?);
        for step in 0..=(last + 7 - first) % 7 {
            *days.get_mut((first + step) % 7)? = true;
        }
    }
    Some(days)
}

/// Reads "08:00" as seconds of the day; 24:00 is its end.
fn clock(text: &str) -> Option<u32> {
    let (hour, minute) = text.split_once(':')?;
    let two = |digits: &str| {
        let plain = digits.len() == 2 && digits.bytes().all(|byte| byte.is_ascii_digit());
        digits.parse::<u32>().ok().filter(|_| plain)
    };
    let (hour, minute) = (two(hour)?, two(minute)?);
    let time = hour * 60 * 60 + minute * 60;
    (minute < 60 && time <= DAY).then_some(time)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::zone::{instant_at, seconds};

    fn madrid() -> Zone {
        Zone::parse("Europe/Madrid").expect("a zone")
    }

    fn windows(texts: &[&str]) -> Windows {
        Windows::parse(texts.iter().copied()).expect("windows")
    }

    /// Unix seconds of a UTC time.
    fn utc(text: &str) -> i64 {
        text.parse::<jiff::Timestamp>().expect("a time").as_second()
    }

    fn closes(texts: &[&str], at: &str) -> Option<i64> {
        let zone = madrid();
        windows(texts).closes(&zone, &zone.face_at(utc(at)))
    }

    #[test]
    fn office_hours_end_on_the_second() {
        // Winter in Madrid is UTC + 1, summer UTC + 2.
        let office = ["Mon-Fri 08:00-19:00"];
        assert_eq!(
            closes(&office, "2026-11-23T10:00:00Z"),
            Some(utc("2026-11-23T18:00:00Z"))
        );
        assert_eq!(
            closes(&office, "2026-07-20T16:59:59Z"),
            Some(utc("2026-07-20T17:00:00Z"))
        );
        for outside in [
            "2026-11-23T06:59:59Z",
            "2026-11-23T18:00:00Z",
            "2026-11-22T10:00:00Z",
        ] {
            assert_eq!(closes(&office, outside), None, "{outside}");
        }
    }

    #[test]
    fn windows_that_touch_are_one_also_over_sunday_midnight() {
        let weekend = ["Fri 20:00-24:00", "Sat-Sun", "Mon 00:00-06:00"];
        assert_eq!(
            closes(&weekend, "2026-11-22T12:00:00Z"),
            Some(utc("2026-11-23T05:00:00Z"))
        );
        // Longer than anybody's session: said to end at the horizon.
        let always = ["00:00-24:00"];
        let at = utc("2026-11-22T12:00:00Z");
        assert_eq!(closes(&always, "2026-11-22T12:00:00Z"), Some(at + HORIZON));
    }

    #[test]
    fn the_night_clocks_go_forward() {
        // 2027-03-28 in Madrid: 02:00 CET is 03:00 CEST, at 01:00 UTC.
        let change = utc("2027-03-28T01:00:00Z");
        // Ends inside the skipped hour: at the change.
        assert_eq!(
            closes(&["01:00-02:30"], "2027-03-28T00:30:00Z"),
            Some(change)
        );
        // Spans it: one hour shorter.
        assert_eq!(
            closes(&["01:00-05:00"], "2027-03-28T00:30:00Z"),
            Some(utc("2027-03-28T03:00:00Z"))
        );
        // Inside it: not that night; begins inside it: from the change on.
        let zone = madrid();
        let before = zone.face_at(utc("2027-03-28T00:30:00Z"));
        assert_eq!(
            windows(&["02:15-02:45"]).opens(&zone, &before),
            Some(utc("2027-03-29T00:15:00Z"))
        );
        assert_eq!(
            windows(&["02:30-05:00"]).opens(&zone, &before),
            Some(change)
        );
    }

    #[test]
    fn the_night_clocks_go_back() {
        // 2026-10-25 in Madrid: 03:00 CEST is 02:00 CET, at 01:00 UTC.
        // Spans it: one hour longer.
        assert_eq!(
            closes(&["01:00-04:00"], "2026-10-24T23:30:00Z"),
            Some(utc("2026-10-25T03:00:00Z"))
        );
        // Ends inside the hour that comes twice: at the first of the two, and again at the second.
        assert_eq!(
            closes(&["01:00-02:30"], "2026-10-25T00:10:00Z"),
            Some(utc("2026-10-25T00:30:00Z"))
        );
        assert_eq!(closes(&["01:00-02:30"], "2026-10-25T00:45:00Z"), None);
        assert_eq!(
            closes(&["01:00-02:30"], "2026-10-25T01:10:00Z"),
            Some(utc("2026-10-25T01:30:00Z"))
        );
        // Ends at the change: the clock shows its beginning again, so it goes on.
        assert_eq!(
            closes(&["02:00-03:00"], "2026-10-25T00:10:00Z"),
            Some(utc("2026-10-25T02:00:00Z"))
        );
    }

    #[test]
    fn a_window_is_what_the_clock_shows_minute_by_minute() {
        let zone = madrid();
        let some = windows(&["Sat-Mon 01:10-02:40", "Sun 02:50-03:20", "Mon 02:40-02:41"]);
        for day in ["2026-10-24T12:00:00Z", "2027-03-27T12:00:00Z"] {
            let start = utc(day);
            let mut open_since = None;
            for minute in 0..40 * 60 {
                let now = start + minute * 60;
                let face = zone.face_at(now);
                match (some.closes(&zone, &face), open_since) {
                    (Some(end), None) => open_since = Some(end),
                    (Some(end), Some(said)) => assert_eq!(end, said),
                    (None, Some(said)) => {
                        assert_eq!(now, said);
                        open_since = None;
                    }
                    (None, None) => {
                        assert!(some.opens(&zone, &face).is_none_or(|opens| opens > now));
                    }
                }
            }
        }
        assert_eq!(seconds(instant_at(5)), 5);
    }

    #[test]
    fn a_window_that_is_none_says_so() {
        for bad in [
            "",
            "Mon-",
            "Monday 08:00-19:00",
            "Mon 8:00-19:00",
            "Mon 08:00",
            "Mon 08:00-24:01",
            "Mon 08:60-09:00",
            "Mon  08:00-19:00",
            "08:00-19:00 Mon",
        ] {
            assert!(Windows::parse([bad].into_iter()).is_err(), "{bad:?}");
        }
        let (what, remedy) =
            Windows::parse(["Mon 22:00-06:00"].into_iter()).expect_err("over midnight");
        assert!(what.contains("ends before it starts") && remedy.contains("22:00-24:00"));
        assert!(Windows::parse(["Fri-Mon 00:00-24:00", "Sun"].into_iter()).is_ok());
    }
}
