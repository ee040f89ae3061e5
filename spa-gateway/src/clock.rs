//! The two clocks of an event, and whether the wall clock is believed (SPEC §7).
//!
//! Deadlines run on `CLOCK_BOOTTIME`, which goes on while the machine sleeps: a session
//! must not live longer for a closed lid.

mod set;
mod synchronised;

use std::fmt;
use std::path::Path;

use rustix::time::{ClockId, clock_gettime};
use spa_gateway_core::{ClockStep, Moment, Now};
use spa_proto::WallTime;

use crate::config::Trust;
pub use set::SetWatch;

/// Where the kernel lists battery clocks.
const BATTERY_CLOCKS: &str = "/sys/class/rtc";

/// Reads both clocks, once for an event.
#[must_use]
pub fn now() -> Now {
    // Nothing but a test shifts it.
    let wall = millis(ClockId::Realtime).saturating_add_signed(spa_failpoint::clock_shift());
    Now {
        wall: WallTime::from_millis(wall),
        mono: Moment::from_millis(millis(ClockId::Boottime)),
    }
}

/// A clock before its origin reads as the origin.
fn millis(clock: ClockId) -> u64 {
    let time = clock_gettime(clock);
    let seconds = u64::try_from(time.tv_sec).unwrap_or(0);
    let rest = u64::try_from(time.tv_nsec / 1_000_000).unwrap_or(0);
    seconds.saturating_mul(1_000).saturating_add(rest)
}

/// Why the wall clock is believed, or is not.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Verdict {
    /// The configuration says so.
    Configured,
    /// The kernel says it is synchronised.
    Synchronised,
    /// Not synchronised, yet a battery clock kept it.
    BatteryClock,
    /// Neither.
    Unsynchronised,
    /// It reads less than the floor saved earlier.
    BehindFloor,
    /// It was set too far since it was believed.
    Stepped(ClockStep),
}

impl Verdict {
    /// Whether knocks are accepted on this clock.
    #[must_use]
    pub const fn is_trusted(self) -> bool {
        match self {
            Self::Configured | Self::Synchronised | Self::BatteryClock => true,
            Self::Unsynchronised | Self::BehindFloor | Self::Stepped(_) => false,
        }
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let words = match self {
            Self::Stepped(step) => {
                return write!(
                    f,
                    "not trusted: it was set {step} while the gateway ran, so no knock is accepted; set the right time, or run `spa-admin clock accept` if this is it"
                );
            }
            Self::Configured => "trusted: [clock] trust = \"always\"",
            Self::Synchronised => "trusted: synchronised",
            Self::BatteryClock => "trusted: kept by a battery clock",
            Self::Unsynchronised => {
                "not trusted: not synchronised and no battery clock, so no knock is accepted; start a time service, or set [clock] trust = \"always\" if the hypervisor keeps the time"
            }
            Self::BehindFloor => {
                "not trusted: it reads earlier than it did before, so no knock is accepted; set the right time, or run `spa-admin clock accept` if this is it"
            }
        };
        f.write_str(words)
    }
}

/// Judges the wall clock now: how it is kept, whatever it reads.
#[must_use]
pub fn judge(trust: Trust, has_battery_clock: bool) -> Verdict {
    match trust {
        Trust::Always => Verdict::Configured,
        Trust::Auto if synchronised::is_synchronised() => Verdict::Synchronised,
        Trust::Auto if has_battery_clock => Verdict::BatteryClock,
        Trust::Auto => Verdict::Unsynchronised,
    }
}

/// Whether the machine has a battery clock. Asked once, before the sandbox closes `/sys`.
#[must_use]
pub fn has_battery_clock() -> bool {
    std::fs::read_dir(Path::new(BATTERY_CLOCKS)).is_ok_and(|entries| {
        entries
            .flatten()
            .any(|entry| entry.file_name().as_encoded_bytes().starts_with(b"rtc"))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_configuration_can_vouch_for_a_clock() {
        assert_eq!(judge(Trust::Always, false), Verdict::Configured);
    }

    #[test]
    fn a_battery_clock_is_enough() {
        assert!(judge(Trust::Auto, true).is_trusted());
    }

    #[test]
    fn what_it_reads_can_make_a_clock_untrusted_however_it_is_kept() {
        let year = std::time::Duration::from_secs(365 * 24 * 60 * 60);
        for verdict in [
            Verdict::BehindFloor,
            Verdict::Stepped(ClockStep::Ahead(year)),
            Verdict::Stepped(ClockStep::Back(year)),
        ] {
            assert!(!verdict.is_trusted());
            assert!(verdict.to_string().contains("spa-admin clock accept"));
        }
    }

    #[test]
    fn both_clocks_go_on() {
        let before = now();
        let after = now();
        assert!(after.mono >= before.mono);
        assert!(before.wall.as_millis() > 1_700_000_000_000);
    }
}
