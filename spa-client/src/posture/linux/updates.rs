//! Whether a security update waits to be installed: APT's own lists held against what dpkg has, without running either.
//!
//! It is known only from lists of this week, since what was published later is in none of them.

use std::cmp::Ordering;
use std::collections::HashMap;
use std::fs::File;
use std::io::{BufRead, BufReader};
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use spa_proto::WallTime;

use crate::posture::{Fact, Machine, Value};

const NAME: &str = "security_updates";
const LISTS: &str = "var/lib/apt/lists";
const STATUS: &str = "var/lib/dpkg/status";

/// How old lists may be: a security archive is signed anew several times a day, and Debian's signature holds for a week.
const CURRENT: Duration = Duration::from_secs(7 * 86_400);

/// A longer line is none of a package.
const LONGEST_LINE: usize = 1 << 20;

/// What the lists say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Looked {
    /// When the archive signed the oldest of them.
    pub lists: SystemTime,
    /// The installed packages they have a later version of.
    pub missing: Vec<String>,
}

/// Says whether all security updates are installed.
pub fn installed(machine: &Machine, at: WallTime) -> Fact {
    let looked = match look(machine) {
        Ok(looked) => looked,
        Err(why) => return Fact::unknown(NAME, why, at),
    };
    let now = UNIX_EPOCH + Duration::from_millis(at.as_millis());
    // A list of the future is of a clock that was wrong, ours or another.
    let Some(age) = now.duration_since(looked.lists).ok() else {
        return Fact::unknown(NAME, "APT's security lists are of the future", at);
    };
    let days = age.as_secs() / 86_400;
    match looked.missing.as_slice() {
        [first, ..] => {
            let count = looked.missing.len();
            let source = format!("APT's lists have {count} that dpkg has not, {first} for one");
            Fact::seen(NAME, Value::Bool(false), source, at)
        }
        [] if age > CURRENT => Fact::unknown(
            NAME,
            format!("APT's security lists are {days} days old: `apt update`"),
            at,
        ),
        [] => {
            let source = format!("APT's lists have none that dpkg has not, {days} days old");
            Fact::seen(NAME, Value::Bool(true), source, at)
        }
    }
}

/// When every file was written, and what they said then.
type Last = (Seen, Result<Arc<Looked>, &'static str>);
type Seen = Vec<(PathBuf, Option<SystemTime>)>;

/// Looks, unless nothing was written since the last time: lists have some ten megabytes.
pub fn look(machine: &Machine) -> Result<Arc<Looked>, &'static str> {
    static LAST: Mutex<Option<Last>> = Mutex::new(None);
    let names = machine.names(LISTS);
    let security = names.iter().filter(|name| name.contains("security"));
    let files: Vec<String> = security.map(|name| format!("{LISTS}/{name}")).collect();
    let all = files.iter().map(String::as_str).chain([STATUS]);
    let seen: Seen = all
        .map(|file| (machine.path(file), machine.written(file)))
        .collect();
    let Ok(mut last) = LAST.lock() else {
        return Err("an earlier look fell over");
    };
    match &*last {
        Some((before, looked)) if *before == seen => looked.clone(),
        _ => {
            let looked = read(machine, &files).map(Arc::new);
            *last = Some((seen, looked.clone()));
            looked
        }
    }
}

fn read(machine: &Machine, files: &[String]) -> Result<Looked, &'static str> {
    let written = |file: &String| machine.written(file);
    let lists = files
        .iter()
        .filter(|file| file.ends_with("Release"))
        .filter_map(written)
        .min()
        .ok_or("APT has no lists of a security archive")?;
    let mut installed: HashMap<String, String> = HashMap::new();
    let status = stanzas(machine, STATUS, |stanza| {
        if stanza.status.ends_with(" installed") {
            installed.insert(stanza.key(), stanza.version.clone());
        }
    });
    if status.is_none() || installed.is_empty() {
        return Err("dpkg's status cannot be read");
    }
    let mut missing = Vec::new();
    let mut read = 0;
    for list in files.iter().filter(|file| file.contains("_Packages")) {
        if !list.ends_with("_Packages") {
            return Err("APT keeps its lists compressed");
        }
        stanzas(machine, list, |stanza| {
            let have = installed.get(&stanza.key());
            if have.is_some_and(|have| later(&stanza.version, have)) {
                missing.push(stanza.package.clone());
            }
        })
        .ok_or("one of APT's lists cannot be read")?;
        read += 1;
    }
    if read == 0 {
        return Err("APT has no lists of a security archive");
    }
    missing.sort();
    missing.dedup();
    Ok(Looked { lists, missing })
}

/// What is wanted of a paragraph of either file.
#[derive(Default)]
struct Stanza {
    package: String,
    architecture: String,
    version: String,
    status: String,
}

impl Stanza {
    /// Two architectures of a package are two.
    fn key(&self) -> String {
        format!("{}:{}", self.package, self.architecture)
    }
}

/// Hands on every paragraph of a file (deb822(5)); `None` if it cannot be read to its end.
fn stanzas(machine: &Machine, file: &str, mut take: impl FnMut(&Stanza)) -> Option<()> {
    let mut lines = BufReader::new(File::open(machine.path(file)).ok()?);
    let mut line = Vec::new();
    let mut stanza = Stanza::default();
    loop {
        line.clear();
        let read = lines.read_until(b'\n', &mut line).ok()?;
        if line.len() > LONGEST_LINE {
            return None;
        }
        let text = line.trim_ascii_end();
        if text.is_empty() {
            take(&stanza);
            stanza = Stanza::default();
        }
        if read == 0 {
            return Some(());
        }
        for (field, into) in [
            (&b"Package: "[..], &mut stanza.package),
            (b"Architecture: ", &mut stanza.architecture),
            (b"Version: ", &mut stanza.version),
            (b"Status: ", &mut stanza.status),
        ] {
            if let Some(value) = text.strip_prefix(field) {
                *into = String::from_utf8_lossy(value).into_owned();
            }
        }
    }
}

/// Whether one Debian version is later than another (deb-version(7)).
fn later(one: &str, other: &str) -> bool {
    let (one, other) = (Parts::of(one), Parts::of(other));
    one.epoch
        .cmp(&other.epoch)
        .then_with(|| compare(one.upstream, other.upstream))
        .then_with(|| compare(one.revision, other.revision))
        .is_gt()
}

/// `epoch:upstream-revision`, the first and the last of which may be left out.
struct Parts<'v> {
    epoch: u32,
    upstream: &'v [u8],
    revision: &'v [u8],
}

impl<'v> Parts<'v> {
    fn of(version: &'v str) -> Self {
        let (epoch, rest) = version.split_once(':').unwrap_or(("0", version));
        let (upstream, revision) = rest.rsplit_once('-').unwrap_or((rest, ""));
        Self {
            epoch: epoch.parse().unwrap_or(0),
            upstream: upstream.as_bytes(),
            revision: revision.as_bytes(),
        }
    }
}

/// By turns what is no number, letters before all else and `~` before the end; and numbers.
fn compare(mut one: &[u8], mut other: &[u8]) -> Ordering {
    while !one.is_empty() || !other.is_empty() {
        let (left, right) = (split(&mut one, false), split(&mut other, false));
        for place in 0..left.len().max(right.len()) {
            let order = weight(left.get(place)).cmp(&weight(right.get(place)));
            if order.is_ne() {
                return order;
            }
        }
        let (left, right) = (
            number(split(&mut one, true)),
            number(split(&mut other, true)),
        );
        let order = left.len().cmp(&right.len()).then_with(|| left.cmp(right));
        if order.is_ne() {
            return order;
        }
    }
    Ordering::Equal
}

/// Takes the digits, or what is none, from the front.
fn split<'v>(text: &mut &'v [u8], digits: bool) -> &'v [u8] {
    let end = text
        .iter()
        .position(|byte| byte.is_ascii_digit() != digits)
        .unwrap_or(text.len());
    let (front, rest) = text.split_at(end);
    *text = rest;
    front
}

fn number(digits: &[u8]) -> &[u8] {
    let zeros = digits.iter().take_while(|digit| **digit == b'0').count();
    &digits[zeros..]
}

fn weight(byte: Option<&u8>) -> i32 {
    match byte {
        None => 0,
        Some(b'~') => -1,
        Some(letter) if letter.is_ascii_alphabetic() => i32::from(*letter),
        Some(other) => i32::from(*other) + 256,
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::posture::linux::tests::{AT, put};
    use crate::testing::Scratch;

    const PACKAGES: &str =
        "var/lib/apt/lists/security.debian.org_dists_bookworm-security_main_binary-amd64_Packages";
    const RELEASE: &str = "var/lib/apt/lists/security.debian.org_dists_bookworm-security_InRelease";

    /// Signed this long before now.
    fn signed(root: &Path, age: Duration) {
        put(root, RELEASE, "");
        let file = File::options()
            .write(true)
            .open(root.join(RELEASE))
            .expect("just written");
        let now = UNIX_EPOCH + Duration::from_millis(AT.as_millis());
        file.set_modified(now - age).expect("ours");
    }

    fn package(name: &str, version: &str) -> String {
        format!(
            "Package: {name}\nArchitecture: amd64\nVersion: {version}\nStatus: install ok installed\nDescription: x\n Version: 9\n\n"
        )
    }

    #[test]
    fn an_update_is_missing_where_the_lists_have_a_later_version() {
        let scratch = Scratch::new("updates");
        let root = scratch.path();
        let machine = Machine::at(root);
        let judged = || read(&machine, &files(&machine));
        assert!(judged().is_err());
        let day = Duration::from_secs(86_400);
        signed(root, day);
        assert!(judged().is_err(), "no dpkg");
        put(
            root,
            STATUS,
            package("openssl", "3.0.15-1~deb12u1") + &package("bash", "5.2-2"),
        );
        assert!(judged().is_err(), "no packages in the lists");
        put(
            root,
            PACKAGES,
            package("openssl", "3.0.15-1~deb12u1") + &package("vim", "9"),
        );
        assert_eq!(installed(&machine, AT).value, Some(Value::Bool(true)));
        // Of the same instant for the clock of a file system, perhaps: looked at without the memory of the last look.
        put(root, PACKAGES, package("openssl", "3.0.16-1~deb12u1"));
        assert_eq!(judged().expect("all is there").missing, ["openssl"]);
        put(root, &format!("{PACKAGES}.lz4"), "");
        assert_eq!(judged(), Err("APT keeps its lists compressed"));
    }

    #[test]
    fn old_lists_know_nothing_unless_they_know_of_something_missing() {
        let scratch = Scratch::new("updates-old");
        let root = scratch.path();
        let machine = Machine::at(root);
        signed(root, CURRENT + Duration::from_secs(1));
        put(root, STATUS, package("bash", "5.2-2"));
        put(root, PACKAGES, package("bash", "5.2-2"));
        let fact = installed(&machine, AT);
        assert_eq!(fact.value, None, "{fact:?}");
        assert!(fact.source.contains("apt update"), "{fact:?}");
        put(
            root,
            &PACKAGES.replace("main", "contrib"),
            package("bash", "5.2-3"),
        );
        assert_eq!(installed(&machine, AT).value, Some(Value::Bool(false)));
    }

    fn files(machine: &Machine) -> Vec<String> {
        let names = machine.names(LISTS).into_iter();
        names.map(|name| format!("{LISTS}/{name}")).collect()
    }

    #[test]
    fn versions_are_in_debians_order() {
        for [early, late] in [
            ["1.0~rc1-1", "1.0-1"],
            ["1.0", "1.0-1"],
            ["1.0-1", "1.0-1+b1"],
            ["1.0-1", "1.0-1+deb12u1"],
            ["1.0a", "1.0+"],
            ["1.9", "1.10"],
            ["9", "1:0"],
            ["1.0-1~deb12u1", "1.0-1"],
            ["2.38.1-5+deb12u2", "2.38.1-5+deb12u10"],
            ["1.a", "1.a0b"],
        ] {
            assert!(later(late, early) && !later(early, late), "{early} {late}");
        }
        for [one, same] in [
            ["1.0-1", "1.0-1"],
            ["1.00", "1.0"],
            ["0:1", "1"],
            ["1", "1-0"],
        ] {
            assert!(!later(one, same) && !later(same, one), "{one} {same}");
        }
    }
}
