//! Whether what this machine keeps is encrypted: the volumes of `/`, `/home`, the owner's home, and swap.
//!
//! Each is followed down to the disks it lies on: LVM, RAID, loop files, several disks of one btrfs. It counts when
//! there is a dm-crypt layer on every way down. Encryption inside a disk or under a virtual machine cannot be seen.

use spa_proto::WallTime;

use crate::posture::{Fact, Machine, Value};

const NAME: &str = "disk_encryption";

/// Layers are not stacked deeper: filesystem, LVM, crypt, RAID, partition make five.
const DEEPEST: usize = 16;

/// Kinds of dm-crypt that encrypt, as `dm/uuid` names them; VERITY and INTEGRITY, which do not, are named alike.
const CRYPT: [&str; 7] = [
    "CRYPT-LUKS1-",
    "CRYPT-LUKS2-",
    "CRYPT-PLAIN-",
    "CRYPT-LOOPAES-",
    "CRYPT-TCRYPT-",
    "CRYPT-BITLK-",
    "CRYPT-FVAULT2-",
];

/// What one volume came to.
enum Seen {
    Encrypted,
    /// With the place that is not.
    Plain(String),
    Unknown(String),
}

/// Looks at every volume.
pub fn encryption(machine: &Machine, at: WallTime) -> Fact {
    let Some(mounts) = machine.text("proc/self/mountinfo") else {
        return Fact::unknown(NAME, "the kernel does not say what is mounted", at);
    };
    let mounts: Vec<Mount> = mounts.lines().filter_map(Mount::parse).collect();
    let home = std::env::var("HOME").unwrap_or_default();
    let mut volumes = vec!["/".to_owned(), "/home".to_owned()];
    if home.starts_with('/') {
        volumes.push(home);
    }
    let mut unknown = None;
    let mut encrypted = Vec::new();
    let looked = volumes
        .iter()
        .map(|path| (path.clone(), volume(machine, &mounts, path, 0)))
        .chain(swap(machine, &mounts));
    for (path, seen) in looked {
        match seen {
            Seen::Encrypted => encrypted.push(path),
            Seen::Plain(device) => {
                let source = format!("{path} lies on {device}, with no dm-crypt under it");
                return Fact::seen(NAME, Value::Bool(false), source, at);
            }
            Seen::Unknown(why) => unknown = Some(format!("{path}: {why}")),
        }
    }
    match unknown {
        Some(why) => Fact::unknown(NAME, why, at),
        None => {
            let source = format!("dm-crypt under {}", encrypted.join(", "));
            Fact::seen(NAME, Value::Bool(true), source, at)
        }
    }
}

/// One line of mountinfo (proc(5)).
struct Mount {
    point: String,
    device: String,
    kind: String,
    source: String,
}

impl Mount {
    fn parse(line: &str) -> Option<Self> {
        let (left, right) = line.split_once(" - ")?;
        let mut left = left.split(' ').skip(2);
        let device = left.next()?.to_owned();
        let point = unescaped(left.nth(1)?);
        let mut right = right.split(' ');
        Some(Self {
            point,
            device,
            kind: right.next()?.to_owned(),
            source: unescaped(right.next()?),
        })
    }

    fn holds(&self, path: &str) -> bool {
        self.point == "/"
            || path
                .strip_prefix(&self.point)
                .is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
    }
}

/// Blanks and backslashes are written in octal.
fn unescaped(text: &str) -> String {
    text.replace("\\040", " ")
        .replace("\\011", "\t")
        .replace("\\012", "\n")
        .replace("\\134", "\\")
}

/// The volume a path is on: the last mounted of the longest mount points that hold it.
fn volume(machine: &Machine, mounts: &[Mount], path: &str, depth: usize) -> Seen {
    let found = mounts
        .iter()
        .filter(|mount| mount.holds(path))
        .max_by_key(|mount| mount.point.len());
    let Some(mount) = found else {
        return Seen::Unknown("nothing is mounted there".to_owned());
    };
    match mount.kind.as_str() {
        // Gone when the machine is off.
        "tmpfs" | "ramfs" => Seen::Encrypted,
        "ecryptfs" => Seen::Encrypted,
        "btrfs" => btrfs(machine, mounts, &mount.source, depth),
        _ => match block_of(machine, mount) {
            Some(name) => block(machine, mounts, &name, depth),
            None => Seen::Unknown(format!(
                "a {} is on no block device that can be seen",
                mount.kind
            )),
        },
    }
}

/// The block device of a mount, by its numbers or its source.
fn block_of(machine: &Machine, mount: &Mount) -> Option<String> {
    let by_number = machine.names("sys/class/block").into_iter().find(|name| {
        machine
            .text(&format!("sys/class/block/{name}/dev"))
            .is_some_and(|dev| dev.trim() == mount.device)
    });
    by_number.or_else(|| {
        let name = machine.device(
            mount
                .source
                .strip_prefix("/dev/")
                .map(|_| mount.source.as_str())?,
        )?;
        machine
            .has(&format!("sys/class/block/{name}"))
            .then_some(name)
    })
}

/// A btrfs may span several devices, and mountinfo names one.
fn btrfs(machine: &Machine, mounts: &[Mount], source: &str, depth: usize) -> Seen {
    let Some(first) = machine.device(source) else {
        return Seen::Unknown(format!("{source} cannot be found"));
    };
    let devices = machine
        .names("sys/fs/btrfs")
        .into_iter()
        .map(|uuid| machine.names(&format!("sys/fs/btrfs/{uuid}/devices")))
        .find(|devices| devices.contains(&first));
    match devices {
        Some(devices) => all(devices
            .iter()
            .map(|name| block(machine, mounts, name, depth))),
        None => Seen::Unknown(format!(
            "the devices of the btrfs on {source} are not listed"
        )),
    }
}

/// A block device: encrypted itself, or lying on what is.
fn block(machine: &Machine, mounts: &[Mount], name: &str, depth: usize) -> Seen {
    if depth == DEEPEST {
        return Seen::Unknown(format!("{name} lies on more than {DEEPEST} layers"));
    }
    let path = format!("sys/class/block/{name}");
    if !machine.has(&path) {
        return Seen::Unknown(format!("{name} is not listed in /{path}"));
    }
    let uuid = machine.text(&format!("{path}/dm/uuid")).unwrap_or_default();
    if CRYPT.iter().any(|kind| uuid.starts_with(kind)) {
        return Seen::Encrypted;
    }
    let below = machine.names(&format!("{path}/slaves"));
    if !below.is_empty() {
        return all(below
            .iter()
            .map(|name| block(machine, mounts, name, depth + 1)));
    }
    if let Some(file) = machine.text(&format!("{path}/loop/backing_file")) {
        return volume(machine, mounts, file.trim_end(), depth + 1);
    }
    Seen::Plain(name.to_owned())
}

/// All of them: one that is plain decides, then one that is unknown.
fn all(seen: impl Iterator<Item = Seen>) -> Seen {
    let mut unknown = None;
    for one in seen {
        match one {
            Seen::Encrypted => {}
            Seen::Plain(device) => return Seen::Plain(device),
            Seen::Unknown(why) => unknown = Some(why),
        }
    }
    unknown.map_or(Seen::Encrypted, Seen::Unknown)
}

/// What memory is written out to.
fn swap(machine: &Machine, mounts: &[Mount]) -> Vec<(String, Seen)> {
    let Some(swaps) = machine.text("proc/swaps") else {
        let why = "the kernel does not say".to_owned();
        return vec![("swap".to_owned(), Seen::Unknown(why))];
    };
    swaps
        .lines()
        .skip(1)
        .filter_map(|line| {
            let mut words = line.split_whitespace();
            let (area, kind) = (unescaped(words.next()?), words.next()?.to_owned());
            let seen = match (kind.as_str(), machine.device(&area)) {
                ("file", _) => volume(machine, mounts, &area, 0),
                (_, Some(name)) if is_compressed_memory(machine, &name) => Seen::Encrypted,
                (_, Some(name)) => block(machine, mounts, &name, 0),
                (_, None) => Seen::Unknown(format!("{area} cannot be found")),
            };
            Some((format!("swap {area}"), seen))
        })
        .collect()
}

/// zram, as long as it has no disk behind it.
fn is_compressed_memory(machine: &Machine, name: &str) -> bool {
    name.starts_with("zram")
        && machine
            .text(&format!("sys/class/block/{name}/backing_dev"))
            .is_none_or(|backing| backing.trim() == "none")
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;
    use std::path::Path;

    use super::*;
    use crate::posture::linux::tests::{AT, put};
    use crate::testing::Scratch;

    /// A laptop as Debian's installer makes it: root and swap in LVM, LVM in LUKS, LUKS on a partition.
    fn laptop(root: &Path) {
        put(
            root,
            "proc/self/mountinfo",
            "22 27 0:21 / /proc rw - proc proc rw\n\
             27 1 254:1 / / rw,relatime shared:1 - ext4 /dev/mapper/vg-root rw\n\
             30 27 8:1 / /boot rw - ext4 /dev/sda1 rw\n",
        );
        put(
            root,
            "proc/swaps",
            "Filename Type Size Used Priority\n/dev/dm-2 partition 9 0 -2\n",
        );
        for (name, number, uuid) in [
            ("sda", "8:0", ""),
            ("sda1", "8:1", ""),
            ("sda5", "8:5", ""),
            ("dm-0", "254:0", "CRYPT-LUKS2-0123-sda5_crypt\n"),
            ("dm-1", "254:1", "LVM-abc\n"),
            ("dm-2", "254:2", "LVM-def\n"),
        ] {
            put(
                root,
                &format!("sys/class/block/{name}/dev"),
                format!("{number}\n"),
            );
            put(root, &format!("dev/{name}"), "");
            if !uuid.is_empty() {
                put(root, &format!("sys/class/block/{name}/dm/uuid"), uuid);
            }
        }
        for (upper, lower) in [("dm-0", "sda5"), ("dm-1", "dm-0"), ("dm-2", "dm-0")] {
            put(root, &format!("sys/class/block/{upper}/slaves/{lower}"), "");
        }
        fs::create_dir_all(root.join("dev/mapper")).expect("scratch is writable");
        symlink("../dm-1", root.join("dev/mapper/vg-root")).expect("scratch is writable");
    }

    fn judged(root: &Path) -> (Option<bool>, String) {
        let fact = encryption(&Machine::at(root), AT);
        let value = match fact.value {
            Some(Value::Bool(value)) => Some(value),
            None => None,
            other => panic!("{other:?} is no yes or no"),
        };
        (value, fact.source)
    }

    #[test]
    fn lvm_on_luks_is_encrypted_and_boot_need_not_be() {
        let scratch = Scratch::new("disk-lvm");
        laptop(scratch.path());
        assert_eq!(
            judged(scratch.path()).0,
            Some(true),
            "{:?}",
            judged(scratch.path())
        );
    }

    #[test]
    fn one_plain_disk_under_any_volume_is_plain() {
        for (case, path, text) in [
            ("lvm-spans", "sys/class/block/dm-1/slaves/sda1", ""),
            (
                "verity",
                "sys/class/block/dm-0/dm/uuid",
                "CRYPT-VERITY-0123-x\n",
            ),
            (
                "swap",
                "proc/swaps",
                "F T S U P\n/dev/sda1 partition 9 0 -2\n",
            ),
        ] {
            let scratch = Scratch::new(&format!("disk-{case}"));
            laptop(scratch.path());
            put(scratch.path(), path, text);
            let (value, source) = judged(scratch.path());
            assert_eq!(value, Some(false), "{case}: {source}");
            assert!(source.contains("sda"), "{case}: {source}");
        }
    }

    #[test]
    fn a_home_of_its_own_is_looked_at() {
        let scratch = Scratch::new("disk-home");
        laptop(scratch.path());
        let mounts = Machine::at(scratch.path())
            .text("proc/self/mountinfo")
            .expect("just written");
        let home = "31 27 8:1 / /home rw - ext4 /dev/sda1 rw\n";
        put(scratch.path(), "proc/self/mountinfo", mounts.clone() + home);
        assert_eq!(judged(scratch.path()).0, Some(false));
        // A network's: who knows.
        let home = "31 27 0:50 / /home rw - nfs4 server:/home rw\n";
        put(scratch.path(), "proc/self/mountinfo", mounts + home);
        assert_eq!(judged(scratch.path()).0, None);
    }

    #[test]
    fn every_disk_of_a_btrfs_counts() {
        let scratch = Scratch::new("disk-btrfs");
        laptop(scratch.path());
        put(
            scratch.path(),
            "proc/self/mountinfo",
            "27 1 0:25 /@ / rw - btrfs /dev/mapper/vg-root rw\n",
        );
        assert_eq!(judged(scratch.path()).0, None, "its devices are not known");
        put(scratch.path(), "sys/fs/btrfs/uuid/devices/dm-1", "");
        assert_eq!(judged(scratch.path()).0, Some(true));
        put(scratch.path(), "sys/fs/btrfs/uuid/devices/sda1", "");
        assert_eq!(judged(scratch.path()).0, Some(false));
    }

    #[test]
    fn a_container_and_a_circle_are_unknown() {
        let scratch = Scratch::new("disk-unknown");
        laptop(scratch.path());
        put(
            scratch.path(),
            "proc/self/mountinfo",
            "27 1 0:99 / / rw - overlay overlay rw\n",
        );
        assert_eq!(judged(scratch.path()).0, None);
        let circle = Scratch::new("disk-circle");
        laptop(circle.path());
        put(circle.path(), "sys/class/block/dm-0/dm/uuid", "LVM-x\n");
        put(circle.path(), "sys/class/block/dm-0/slaves/dm-1", "");
        fs::remove_file(circle.path().join("sys/class/block/dm-0/slaves/sda5")).expect("ours");
        assert_eq!(judged(circle.path()).0, None);
    }

    #[test]
    fn compressed_memory_is_no_disk() {
        let scratch = Scratch::new("disk-zram");
        laptop(scratch.path());
        put(
            scratch.path(),
            "proc/swaps",
            "F T S U P\n/dev/zram0 partition 9 0 100\n",
        );
        put(scratch.path(), "dev/zram0", "");
        put(
            scratch.path(),
            "sys/class/block/zram0/backing_dev",
            "none\n",
        );
        assert_eq!(judged(scratch.path()).0, Some(true));
        put(
            scratch.path(),
            "sys/class/block/zram0/backing_dev",
            "/dev/sda1\n",
        );
        assert_eq!(judged(scratch.path()).0, Some(false));
    }
}
