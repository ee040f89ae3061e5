//! The two clocks of the client: the wall for ts and slots, and one that runs through suspend for deadlines.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use jiff::tz::TimeZone;
use jiff::{Timestamp, Zoned};
use rustix::time::{ClockId, clock_gettime};
use spa_proto::WallTime;

/// Now by the wall clock. A clock before 1970 counts as 1970: the gateway refuses it anyway.
#[must_use]
pub fn wall() -> WallTime {
    let since = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    WallTime::from_millis(u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
}

/// Now by the clock that never steps and counts suspended time too.
#[must_use]
pub fn boot() -> Duration {
    let now = clock_gettime(ClockId::Boottime);
    Duration::new(
        u64::try_from(now.tv_sec).unwrap_or_default(),
        u32::try_from(now.tv_nsec).unwrap_or_default(),
    )
}

/// A time of day in local time, with the date if it is not today's.
#[must_use]
pub fn local_text(at: WallTime) -> String {
    text_in(at, wall(), TimeZone::system())
}

fn text_in(at: WallTime, now: WallTime, zone: TimeZone) -> String {
    let (Some(at), Some(now)) = (zoned(at, zone.clone()), zoned(now, zone)) else {
        return "an unknown time".to_owned();
    };
    if at.date() == now.date() {
        at.strftime("%H:%M:%S").to_string()
    } else {
        at.strftime("%Y-%m-%d %H:%M:%S").to_string()
    }
}

fn zoned(at: WallTime, zone: TimeZone) -> Option<Zoned> {
    let millis = i64::try_from(at.as_millis()).ok()?;
    Some(Timestamp::from_millisecond(millis).ok()?.to_zoned(zone))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn today_needs_no_date() {
        let now = WallTime::from_millis(1_795_633_200_000);
        let text = |ms| text_in(WallTime::from_millis(ms), now, TimeZone::UTC);
        assert_eq!(text(1_795_633_200_000), "2026-11-25 19:00:00"[11..]);
        assert_eq!(text(1_795_633_200_000 + 86_400_000), "2026-11-26 19:00:00");
        assert_eq!(text(u64::MAX), "an unknown time");
    }
}
