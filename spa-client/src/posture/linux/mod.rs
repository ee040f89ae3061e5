//! Linux: what can be read from files and from the system's own programs, without asking anybody.

mod desktop;
mod disk;
mod firewall;
mod patches;
mod updates;

use spa_proto::WallTime;

use crate::posture::{Collector, Fact, Machine, Value};

/// The variable every EFI firmware keeps the state of secure boot in (UEFI 2.10 §3.3).
const SECURE_BOOT: &str =
    "sys/firmware/efi/efivars/SecureBoot-8be4df61-93ca-11d2-aa0d-00e098032b8c";

/// A Linux machine.
pub struct Linux<'a> {
    machine: &'a Machine,
}

impl<'a> Linux<'a> {
    /// Looks at this one.
    pub fn new(machine: &'a Machine) -> Self {
        Self { machine }
    }

    /// The kernel's version, which is what a policy compares (spa-policy(5)).
    fn os(&self, at: WallTime) -> Fact {
        let path = "proc/sys/kernel/osrelease";
        match self.machine.text(path) {
            Some(release) => Fact::seen("os", Value::Text(release.trim().to_owned()), "kernel", at),
            None => Fact::unknown("os", "the kernel does not say its version", at),
        }
    }

    /// The distribution, for the administrator's eye.
    fn release(&self, at: WallTime) -> Fact {
        let text = self.machine.text("etc/os-release").unwrap_or_default();
        let field = |key: &str| {
            text.lines()
                .find_map(|line| line.strip_prefix(key)?.strip_prefix('='))
                .map(|value| value.trim_matches('"').to_owned())
        };
        match field("ID") {
            Some(id) => {
                let version = field("VERSION_ID").unwrap_or_default();
                let text = format!("{id} {version}").trim_end().to_owned();
                Fact::seen("release", Value::Text(text), "/etc/os-release", at)
            }
            None => Fact::unknown("release", "/etc/os-release does not say", at),
        }
    }

    fn secure_boot(&self, at: WallTime) -> Fact {
        let name = "secure_boot";
        if !self.machine.has("sys/firmware/efi") {
            return Fact::unknown(name, "not booted by EFI", at);
        }
        // Four bytes of attributes, then the value.
        match self.machine.bytes(SECURE_BOOT).as_deref() {
            Some([_, _, _, _, value]) => Fact::seen(
                name,
                Value::Bool(*value == 1),
                "EFI variable SecureBoot",
                at,
            ),
            Some(_) | None => Fact::unknown(name, "the firmware does not say", at),
        }
    }
}

impl Collector for Linux<'_> {
    fn collect(&self, at: WallTime) -> Vec<Fact> {
        vec![
            Fact::seen(
                "platform",
                Value::Text("linux".to_owned()),
                "this program",
                at,
            ),
            self.os(at),
            self.release(at),
            patches::age(self.machine, at),
            updates::installed(self.machine, at),
            disk::encryption(self.machine, at),
            firewall::state(self.machine, at),
            desktop::screen_lock(self.machine, at),
            desktop::antivirus(self.machine, at),
            self.secure_boot(at),
        ]
    }
}

#[cfg(test)]
pub(super) mod tests {
    use std::fs;
    use std::path::Path;

    use super::*;
    use crate::testing::Scratch;

    pub const AT: WallTime = WallTime::from_millis(1_795_633_200_000);

    /// Puts a file into a machine that a test makes.
    pub fn put(root: &Path, path: &str, bytes: impl AsRef<[u8]>) {
        let path = root.join(path);
        fs::create_dir_all(path.parent().expect("below the root")).expect("scratch is writable");
        fs::write(path, bytes).expect("scratch is writable");
    }

    #[test]
    fn version_release_and_secure_boot_are_what_the_machine_says() {
        let scratch = Scratch::new("posture-linux");
        let machine = Machine::at(scratch.path());
        let linux = Linux::new(&machine);
        assert_eq!(linux.secure_boot(AT).value, None);
        put(
            scratch.path(),
            "proc/sys/kernel/osrelease",
            "6.1.0-28-amd64\n",
        );
        put(
            scratch.path(),
            "etc/os-release",
            "NAME=x\nID=debian\nVERSION_ID=\"12\"\n",
        );
        put(scratch.path(), SECURE_BOOT, [6, 0, 0, 0, 1]);
        let text = |text: &str| Some(Value::Text(text.to_owned()));
        assert_eq!(linux.os(AT).value, text("6.1.0-28-amd64"));
        assert_eq!(linux.release(AT).value, text("debian 12"));
        assert_eq!(linux.secure_boot(AT).value, Some(Value::Bool(true)));
        put(scratch.path(), SECURE_BOOT, [6, 0, 0, 0, 0]);
        assert_eq!(linux.secure_boot(AT).value, Some(Value::Bool(false)));
        put(scratch.path(), SECURE_BOOT, [6, 0]);
        assert_eq!(linux.secure_boot(AT).value, None);
    }
}
