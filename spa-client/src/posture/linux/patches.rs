//! How long ago this machine took its updates: days since packages were last upgraded, since an unattended run found
//! nothing left to upgrade, or since APT's lists were written that have no security update it lacks.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use spa_proto::WallTime;

use crate::posture::linux::updates;
use crate::posture::{Fact, Machine, Value};

const NAME: &str = "patch_age";

/// Written by APT after a run of unattended-upgrades that went well (`apt.systemd.daily`).
const UNATTENDED: &str = "var/lib/apt/periodic/upgrade-stamp";

/// Written whenever packages change: the database of RPM, of APK, the deployments of OSTree.
const DATABASES: [&str; 5] = [
    "usr/lib/sysimage/rpm/rpmdb.sqlite",
    "var/lib/rpm/rpmdb.sqlite",
    "lib/apk/db/installed",
    "usr/lib/apk/db/installed",
    "ostree/deploy",
];

/// Looks for the latest of all traces.
pub fn age(machine: &Machine, at: WallTime) -> Fact {
    let traces = [
        dpkg(machine),
        unattended(machine),
        nothing_missing(machine),
        pacman(machine),
        database(machine),
    ];
    match traces.into_iter().flatten().max_by_key(|trace| trace.0) {
        Some((when, source)) => {
            let now = UNIX_EPOCH + Duration::from_millis(at.as_millis());
            // A trace of the future is of a clock that was wrong, and says nothing of now.
            match now.duration_since(when) {
                Ok(age) => Fact::seen(NAME, Value::Number(age.as_secs() / 86_400), source, at),
                Err(_) => Fact::unknown(NAME, format!("{source} is later than now"), at),
            }
        }
        None => Fact::unknown(NAME, "no package manager that is known left a trace", at),
    }
}

type Trace = (SystemTime, String);

/// `2026-11-20 06:12:01 upgrade openssl:amd64 3.0.15-1 3.0.16-1`, in local time.
fn dpkg(machine: &Machine) -> Option<Trace> {
    let logs = ["var/log/dpkg.log", "var/log/dpkg.log.1"];
    let latest = logs.iter().find_map(|log| {
        let text = machine.text(log)?;
        text.lines()
            .filter_map(|line| {
                let (stamp, rest) = line.split_at_checked(19)?;
                rest.starts_with(" upgrade ")
                    .then(|| local(stamp))
                    .flatten()
            })
            .max()
    })?;
    Some((latest, "last upgrade in dpkg's log".to_owned()))
}

fn unattended(machine: &Machine) -> Option<Trace> {
    Some((
        machine.written(UNATTENDED)?,
        "last unattended upgrade".to_owned(),
    ))
}

fn nothing_missing(machine: &Machine) -> Option<Trace> {
    let looked = updates::look(machine).ok()?;
    let source = "no security update was missing in APT's lists".to_owned();
    looked.missing.is_empty().then_some((looked.lists, source))
}

/// `[2026-11-20T06:12:01+0100] [ALPM] upgraded openssl (3.3.1-1 -> 3.3.2-1)`
fn pacman(machine: &Machine) -> Option<Trace> {
    let text = machine.text("var/log/pacman.log")?;
    let latest = text
        .lines()
        .filter(|line| line.contains("[ALPM] upgraded "))
        .filter_map(|line| {
            let stamp = line.strip_prefix('[')?.split(']').next()?;
            let zoned = jiff::fmt::strtime::parse("%Y-%m-%dT%H:%M:%S%z", stamp).ok()?;
            Some(SystemTime::from(zoned.to_timestamp().ok()?))
        })
        .max()?;
    Some((latest, "last upgrade in pacman's log".to_owned()))
}

fn database(machine: &Machine) -> Option<Trace> {
    DATABASES
        .iter()
        .filter_map(|path| Some((machine.written(path)?, format!("last change of /{path}"))))
        .max_by_key(|trace| trace.0)
}

fn local(stamp: &str) -> Option<SystemTime> {
    let time = jiff::civil::DateTime::strptime("%Y-%m-%d %H:%M:%S", stamp).ok()?;
    let zoned = time.to_zoned(jiff::tz::TimeZone::system()).ok()?;
    Some(SystemTime::from(zoned.timestamp()))
}

#[cfg(test)]
mod tests {
    use std::fs::File;

    use super::*;
    use crate::posture::linux::tests::{AT, put};
    use crate::testing::Scratch;

    fn days(machine: &Machine) -> Option<Value> {
        age(machine, AT).value
    }

    #[test]
    fn the_latest_upgrade_counts_and_an_installation_does_not() {
        let scratch = Scratch::new("patch-dpkg");
        let machine = Machine::at(scratch.path());
        assert_eq!(days(&machine), None);
        put(
            scratch.path(),
            "var/log/dpkg.log.1",
            "2026-10-26 12:00:00 upgrade openssl:amd64 1 2\n\
             2026-10-16 12:00:00 upgrade bash:amd64 1 2\n",
        );
        put(
            scratch.path(),
            "var/log/dpkg.log",
            "2026-11-24 12:00:00 install hello:amd64 <none> 1\nrubbish\n",
        );
        assert_eq!(days(&machine), Some(Value::Number(30)));
        put(
            scratch.path(),
            "var/log/dpkg.log",
            "2026-11-24 12:00:00 upgrade openssl:amd64 2 3\n",
        );
        assert_eq!(days(&machine), Some(Value::Number(1)));
    }

    #[test]
    fn an_unattended_run_that_found_nothing_is_an_update_too() {
        let scratch = Scratch::new("patch-unattended");
        put(scratch.path(), UNATTENDED, "");
        let stamp = File::options()
            .write(true)
            .open(scratch.path().join(UNATTENDED))
            .expect("just written");
        let now = UNIX_EPOCH + Duration::from_millis(AT.as_millis());
        let set = |to| stamp.set_modified(to).expect("ours");
        let machine = Machine::at(scratch.path());
        set(now - Duration::from_secs(2 * 86_400 + 1));
        assert_eq!(days(&machine), Some(Value::Number(2)));
        set(now + Duration::from_secs(1));
        assert_eq!(days(&machine), None, "a trace of the future");
    }

    #[test]
    fn pacman_is_understood() {
        let scratch = Scratch::new("patch-pacman");
        put(
            scratch.path(),
            "var/log/pacman.log",
            "[2026-11-20T19:00:00+0000] [ALPM] upgraded openssl (1 -> 2)\n\
             [2026-11-24T19:00:00+0000] [ALPM] installed hello (1)\n",
        );
        assert_eq!(days(&Machine::at(scratch.path())), Some(Value::Number(5)));
    }
}
