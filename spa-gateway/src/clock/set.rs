//! Hears when somebody sets the wall clock, or the machine wakes up: a timer that never rings and is cancelled then.
//!
//! Without it the tags in the kernel would be those of the old time until the next minute, and no knock would come
//! to say otherwise.

use std::io;
use std::os::fd::OwnedFd;

use rustix::io::Errno;
use rustix::time::{
    Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, timerfd_create,
    timerfd_settime,
};

/// The timer.
#[derive(Debug)]
pub struct SetWatch(OwnedFd);

/// Seconds since 1970 at which it would ring: the year 2242.
const NEVER: i64 = 1 << 33;

impl SetWatch {
    /// Sets the timer.
    ///
    /// # Errors
    /// A kernel older than Linux 3.0, or one that refuses.
    pub fn new() -> io::Result<Self> {
        let timer = timerfd_create(TimerfdClockId::Realtime, TimerfdFlags::CLOEXEC)?;
        let watch = Self(timer);
        watch.arm()?;
        Ok(watch)
    }

    /// Waits until the clock was set.
    ///
    /// # Errors
    /// What the kernel says instead.
    pub fn wait(&self) -> io::Result<()> {
        let mut rings = [0; 8];
        match rustix::io::retry_on_intr(|| rustix::io::read(&self.0, &mut rings)) {
            Ok(_) | Err(Errno::CANCELED) => self.arm(),
            Err(error) => Err(error.into()),
        }
    }

    fn arm(&self) -> io::Result<()> {
        let zero = Timespec {
            tv_sec: 0,
            tv_nsec: 0,
        };
        let value = Itimerspec {
            it_interval: zero,
            it_value: Timespec {
                tv_sec: NEVER,
                tv_nsec: 0,
            },
        };
        let flags = TimerfdTimerFlags::ABSTIME | TimerfdTimerFlags::CANCEL_ON_SET;
        timerfd_settime(&self.0, flags, &value)?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clock_that_nobody_sets_says_nothing() {
        let watch = SetWatch::new().expect("a timer");
        let mut wanted = [rustix::event::PollFd::new(
            &watch.0,
            rustix::event::PollFlags::IN,
        )];
        let at_once = Timespec {
            tv_sec: 0,
            tv_nsec: 0,
        };
        assert_eq!(rustix::event::poll(&mut wanted, Some(&at_once)), Ok(0));
    }
}
