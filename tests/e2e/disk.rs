//! The disk fails: what cannot be recorded is not opened, what is open can still be closed, and the machine stays dark.

use std::fs::{self, OpenOptions};
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use spa_tests::gateway::Gateway;
use spa_tests::net::run;
use spa_tests::person::{PASSWORD, Person};
use spa_tests::topology::{GATEWAY, PORT, Town, address};
use spa_tests::wait::wait_until;

use crate::fixture::{Place, REACHED, with_ana};

/// A store that is gone, cut short, empty, or no store at all keeps the gateway from starting, in one line; the machine stays
/// dark. The file put back, all works again.
#[test]
fn a_store_that_cannot_be_read_keeps_the_gateway_from_starting() {
    let (mut place, mut ana) = with_ana();
    place.gateway.stop().unwrap();
    let store = store_of(&place.gateway);
    let sound = fs::read(&store).unwrap();
    let half = &sound[..sound.len() / 2];
    let junk = vec![b'x'; sound.len()];
    for (what, bytes) in [
        ("missing", None),
        ("cut short", Some(half)),
        ("empty", Some(&[][..])),
        ("junk", Some(&junk[..])),
    ] {
        match bytes {
            None => fs::remove_file(&store).unwrap(),
            Some(bytes) => fs::write(&store, bytes).unwrap(),
        }
        let ended = place.gateway.start_and_end().unwrap();
        ended
            .refusal(1, &["store"])
            .unwrap_or_else(|error| panic!("{what}: {error}"));
        let findings = place.town.scanner().oddities(address(GATEWAY), PORT);
        assert!(findings.unwrap().is_silent(), "{what}");
        fs::write(&store, &sound).unwrap();
        fs::set_permissions(&store, fs::Permissions::from_mode(0o600)).unwrap();
    }
    place.gateway.start().unwrap();
    ana.knock(&["wiki"]).unwrap().success().unwrap();
    place.assert_reaches_wiki(&ana);
}

/// Yesterday's copy of the store knows neither today's codes nor today's revocations: nothing is accepted until an administrator
/// has looked.
#[test]
fn yesterdays_copy_accepts_nothing_until_somebody_looked() {
    let (mut place, mut ana) = with_ana();
    place.gateway.stop().unwrap();
    let store = store_of(&place.gateway);
    let yesterday = fs::read(&store).unwrap();
    place.gateway.start().unwrap();
    ana.knock(&["wiki"]).unwrap().success().unwrap();
    ana.run(&["close"]).unwrap().success().unwrap();
    let used = ana.used_code().unwrap();
    place.gateway.stop().unwrap();
    fs::write(&store, &yesterday).unwrap();
    place.gateway.start().unwrap();
    // Yesterday the code of today was not used yet.
    let again = ana.knock_with(&["wiki"], PASSWORD, &used).unwrap();
    again.refusal(3, &["no answer"]).unwrap();
    let status = place.gateway.ask(&["status"]).unwrap();
    assert!(status.contains("restored"), "{status}");
    place.gateway.ask(&["store", "accept"]).unwrap();
    ana.knock(&["wiki"]).unwrap().success().unwrap();
    place.assert_reaches_wiki(&ana);
}

/// On a full disk a knock opens nothing and gets no answer, while a session can be cut and closed. With room again all works, without a new
/// start. From a read-only disk a gateway does not start, and says so; the machine stays dark.
#[test]
fn a_full_disk_opens_nothing_and_closes_everything() {
    let town = Town::build().unwrap();
    let disk = SmallDisk::mount(&town.folder.join("state")).unwrap();
    let mut gateway = Gateway::init(&town).unwrap();
    // The state moves to the small disk.
    let own = gateway.folder().join("state");
    copy_onto(&own, &disk.folder);
    gateway
        .configure(|config| {
            let folder = disk.folder.to_str().expect("a path of ours");
            config["paths"]["state"] = toml_edit::value(folder);
        })
        .unwrap();
    gateway.start().unwrap();
    let mut ana = Person::enrolled(&gateway, &town.client, "ana").unwrap();
    let mut place = Place { gateway, town };
    ana.knock(&["wiki"]).unwrap().success().unwrap();
    place.assert_reaches_wiki(&ana);
    disk.fill().unwrap();
    let knocked = ana.knock(&["db"]).unwrap();
    assert_ne!(knocked.code, 0, "{}{}", knocked.out, knocked.err);
    let open = place.gateway.openings().unwrap();
    assert!(
        !open.iter().any(|opening| opening.contains("5432")),
        "{open:?}"
    );
    // The administrator may hear that it is not on the disk; the kernel's doors are shut.
    let _said = place.gateway.admin(&["session", "cut", "ana"]).unwrap();
    wait_until("the session is shut", REACHED, || {
        place.gateway.openings().ok()?.is_empty().then_some(())
    })
    .unwrap();
    place.assert_no_wiki(&ana);
    disk.empty().unwrap();
    ana.knock(&["wiki"]).unwrap().success().unwrap();
    place.assert_reaches_wiki(&ana);

    place.gateway.stop().unwrap();
    disk.remount("ro").unwrap();
    let ended = place.gateway.start_and_end().unwrap();
    ended.refusal(1, &["Read-only"]).unwrap();
    let findings = place.town.scanner().oddities(address(GATEWAY), PORT);
    assert!(findings.unwrap().is_silent());
    disk.remount("rw").unwrap();
    place.gateway.start().unwrap();
    ana.knock(&["wiki", "--only"]).unwrap().success().unwrap();
    place.assert_reaches_wiki(&ana);
    disk.fill().unwrap();
    ana.run(&["close"]).unwrap().success().unwrap();
    place.assert_everything_closed();
}

/// A log that nobody can write any more, its disk being full, does not hold the gateway up.
#[test]
fn a_full_log_disk_is_no_reason_to_stop() {
    let town = Town::build().unwrap();
    let mut gateway = Gateway::init(&town).unwrap();
    gateway.start_with_a_full_log().unwrap();
    let mut ana = Person::enrolled(&gateway, &town.client, "ana").unwrap();
    let place = Place { gateway, town };
    ana.knock(&["wiki"]).unwrap().success().unwrap();
    place.assert_reaches_wiki(&ana);
    let log = place.gateway.ask(&["log"]).unwrap();
    assert!(
        log.contains("session-opened"),
        "the audit is in the store: {log}"
    );
}

fn store_of(gateway: &Gateway) -> PathBuf {
    gateway.folder().join("state/store.db")
}

/// A file system of a few MiB. It goes before the town does, whose folder it is in.
struct SmallDisk {
    folder: PathBuf,
}

impl SmallDisk {
    fn mount(folder: &Path) -> anyhow::Result<Self> {
        fs::create_dir(folder)?;
        let mut mount = Command::new("mount");
        mount.args(["-t", "tmpfs", "-o", "size=4m", "spa-e2e"]);
        run(mount.arg(folder))?;
        Ok(Self {
            folder: folder.to_path_buf(),
        })
    }

    fn remount(&self, how: &str) -> anyhow::Result<()> {
        let mut mount = Command::new("mount");
        run(mount
            .args(["-o", &format!("remount,{how}")])
            .arg(&self.folder))
        .map(drop)
    }

    fn ballast(&self) -> PathBuf {
        self.folder.join("ballast")
    }

    fn fill(&self) -> anyhow::Result<()> {
        let mut ballast = OpenOptions::new()
            .create(true)
            .append(true)
            .open(self.ballast())?;
        while ballast.write_all(&[0; 4096]).is_ok() {}
        Ok(())
    }

    fn empty(&self) -> anyhow::Result<()> {
        Ok(fs::remove_file(self.ballast())?)
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _gone_already = run(Command::new("umount").arg("--lazy").arg(&self.folder));
    }
}

fn copy_onto(from: &Path, to: &Path) {
    let mut copy = Command::new("cp");
    run(copy.arg("-a").arg(from.join(".")).arg(to)).unwrap();
}
