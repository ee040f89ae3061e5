//! Screen lock and virus scanner: known only where something that is there says so.
//!
//! Neither is ever `false` for want of evidence: Linux has many of both, and most cannot be asked.

use std::time::{Duration, UNIX_EPOCH};

use spa_proto::WallTime;

use crate::posture::{Fact, Machine, Value};

/// Signatures older than this do not make a scanner a current one: ClamAV gives them out daily.
const CURRENT: Duration = Duration::from_secs(7 * 86_400);

/// Whether the screen locks itself, of the desktop this process belongs to.
pub fn screen_lock(machine: &Machine, at: WallTime) -> Fact {
    let variable = |name: &str| std::env::var(name).unwrap_or_default();
    judged_lock(
        machine,
        &variable("XDG_CURRENT_DESKTOP"),
        &variable("HOME"),
        at,
    )
}

fn judged_lock(machine: &Machine, desktop: &str, home: &str, at: WallTime) -> Fact {
    let name = "screen_lock";
    let is = |wanted: &str| {
        desktop
            .split(':')
            .any(|one| one.eq_ignore_ascii_case(wanted))
    };
    if is("GNOME") {
        let setting = |schema: &str, key: &str| {
            let printed = machine.run("gsettings", &["get", schema, key])?;
            Some(String::from_utf8_lossy(&printed).trim().to_owned())
        };
        let locks = setting("org.gnome.desktop.screensaver", "lock-enabled");
        let delay = setting("org.gnome.desktop.session", "idle-delay");
        return match (locks.as_deref(), delay.as_deref()) {
            (Some("false"), _) | (_, Some("uint32 0")) => {
                Fact::seen(name, Value::Bool(false), "gsettings of GNOME", at)
            }
            (Some("true"), Some(_)) => {
                Fact::seen(name, Value::Bool(true), "gsettings of GNOME", at)
            }
            (_, _) => Fact::unknown(name, "gsettings does not say", at),
        };
    }
    if is("KDE") {
        let file = format!("{home}/.config/kscreenlockerrc");
        let says = machine.text(&file).and_then(|text| autolock(&text));
        return match says {
            Some(locks) => Fact::seen(name, Value::Bool(locks), file, at),
            // Without a word KDE locks after five minutes, unless its distributor changed that.
            None => Fact::unknown(name, format!("{file} does not say"), at),
        };
    }
    let why = "no desktop of this process can be asked (GNOME and KDE can)";
    Fact::unknown(name, why, at)
}

fn autolock(text: &str) -> Option<bool> {
    text.lines()
        .skip_while(|line| line.trim() != "[Daemon]")
        .skip(1)
        .take_while(|line| !line.starts_with('['))
        .find_map(|line| line.strip_prefix("Autolock="))
        .and_then(|value| value.trim().parse().ok())
}

/// ClamAV, if it runs with signatures of this week.
pub fn antivirus(machine: &Machine, at: WallTime) -> Fact {
    let name = "antivirus";
    let runs = machine
        .names("proc")
        .into_iter()
        .filter(|pid| pid.bytes().all(|b| b.is_ascii_digit()))
        .any(|pid| {
            machine
                .text(&format!("proc/{pid}/comm"))
                .is_some_and(|comm| comm.trim() == "clamd")
        });
    if !runs {
        return Fact::unknown(name, "no scanner that is known runs (ClamAV is)", at);
    }
    let now = UNIX_EPOCH + Duration::from_millis(at.as_millis());
    let current = ["cvd", "cld", "cud"]
        .iter()
        .filter_map(|kind| machine.written(&format!("var/lib/clamav/daily.{kind}")))
        .any(|when| now.duration_since(when).is_ok_and(|age| age <= CURRENT));
    let source = if current {
        "clamd runs, with signatures of this week"
    } else {
        "clamd runs, without signatures of this week"
    };
    Fact::seen(name, Value::Bool(current), source, at)
}

#[cfg(test)]
mod tests {
    use std::fs::{self, File};
    use std::os::unix::fs::PermissionsExt;

    use super::*;
    use crate::posture::linux::tests::{AT, put};
    use crate::testing::Scratch;

    #[test]
    fn a_desktop_that_says_so_locks_its_screen() {
        let scratch = Scratch::new("lock");
        let root = scratch.path();
        let machine = Machine::at(root);
        let judged = |desktop| judged_lock(&machine, desktop, "/home/ana", AT).value;
        assert_eq!(judged(""), None);
        assert_eq!(judged("KDE"), None);
        put(
            root,
            "home/ana/.config/kscreenlockerrc",
            "[Daemon]\nAutolock=false\n",
        );
        assert_eq!(judged("KDE"), Some(Value::Bool(false)));
        assert_eq!(judged("ubuntu:GNOME"), None, "no gsettings");
        for (delay, locks, expected) in [
            ("300", "true", true),
            ("0", "true", false),
            ("300", "false", false),
        ] {
            let script = format!(
                "#!/bin/sh\ncase $3 in idle-delay) echo uint32 {delay};; *) echo {locks};; esac\n"
            );
            put(root, "usr/bin/gsettings", script);
            let path = root.join("usr/bin/gsettings");
            fs::set_permissions(path, fs::Permissions::from_mode(0o755)).expect("ours");
            assert_eq!(
                judged("ubuntu:GNOME"),
                Some(Value::Bool(expected)),
                "{delay} {locks}"
            );
        }
    }

    #[test]
    fn a_scanner_counts_with_fresh_signatures() {
        let scratch = Scratch::new("antivirus");
        let root = scratch.path();
        let judged = || antivirus(&Machine::at(root), AT).value;
        assert_eq!(judged(), None);
        put(root, "proc/77/comm", "clamd\n");
        assert_eq!(judged(), Some(Value::Bool(false)));
        put(root, "var/lib/clamav/daily.cld", "");
        let file = File::options()
            .write(true)
            .open(root.join("var/lib/clamav/daily.cld"))
            .expect("just written");
        let now = UNIX_EPOCH + Duration::from_millis(AT.as_millis());
        file.set_modified(now - Duration::from_secs(86_400))
            .expect("ours");
        assert_eq!(judged(), Some(Value::Bool(true)));
    }
}
