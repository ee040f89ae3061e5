//! `spa` as people and scripts run it, against a gateway on loopback, up to where WireGuard begins.

use std::fs;
use std::io::Write;
use std::net::Ipv4Addr;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};

use crate::gateway::{CODE, FakeGateway, Manner};
use spa_proto::{ResourceId, Wanted};

/// A device: its directory and its password.
struct Device {
    home: PathBuf,
}

impl Device {
    fn new() -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let home = std::env::temp_dir().join(format!("spa-cmd-{}-{number}", std::process::id()));
        fs::create_dir_all(&home).expect("the temporary directory is writable");
        fs::set_permissions(&home, fs::Permissions::from_mode(0o700)).expect("ours");
        let device = Self { home };
        device.password("correct horse");
        device
    }

    fn password(&self, text: &str) {
        let path = self.password_file();
        fs::write(&path, text).expect("ours");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).expect("ours");
    }

    fn password_file(&self) -> PathBuf {
        self.home.join("pw")
    }

    fn spa(&self, args: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_spa"));
        command
            .args(args)
            .env("SPA_HOME", &self.home)
            .env_remove("SPA_TOTP_URI");
        command
    }

    fn run(&self, args: &[&str]) -> Output {
        self.spa(args).output().expect("spa runs")
    }

    /// Enrols with the invite on standard input, where no other user of the machine reads it.
    fn enroll_in_private(&self, gateway: &FakeGateway) -> Output {
        let mut child = self
            .spa(&[
                "enroll",
                "-",
                "--name",
                "laptop",
                "--code",
                &CODE.to_string(),
            ])
            .arg("--password-file")
            .arg(self.password_file())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("spa runs");
        let line = format!("{}\n", gateway.invite);
        let mut input = child.stdin.take().expect("piped");
        input.write_all(line.as_bytes()).expect("it reads");
        drop(input);
        child.wait_with_output().expect("it ends")
    }

    fn enroll(&self, gateway: &FakeGateway) -> Output {
        let totp = self.home.join("totp");
        self.spa(&[
            "enroll",
            &gateway.invite,
            "--name",
            "laptop",
            "--code",
            &CODE.to_string(),
        ])
        .arg("--password-file")
        .arg(self.password_file())
        .arg("--totp-out")
        .arg(totp)
        .output()
        .expect("spa runs")
    }

    fn knock(&self, args: &[&str], code: u32) -> Output {
        let path = format!(
            "{}:{}",
            self.stand_in(),
            std::env::var("PATH").unwrap_or_default()
        );
        self.spa(&["knock"])
            .args(args)
            .args(["--code", &code.to_string()])
            .arg("--password-file")
            .arg(self.password_file())
            .env("PATH", path)
            .output()
            .expect("spa runs")
    }

    /// A directory with a `spa-tunnel` that is only looked at: no knock of these tests gets as far as running it.
    fn stand_in(&self) -> String {
        let directory = self.home.join("bin");
        fs::create_dir_all(&directory).expect("ours");
        fs::write(directory.join("spa-tunnel"), "#!/bin/false\n").expect("ours");
        directory.display().to_string()
    }
}

impl Drop for Device {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.home);
    }
}

fn err(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

fn out(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// The last line of stderr, which is the one that says how it ended.
fn last(output: &Output) -> String {
    err(output).lines().last().unwrap_or_default().to_owned()
}

/// Whether this process may do what a knock needs; without it the tests that knock prove nothing and say so.
fn may_knock() -> bool {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let effective = status
        .lines()
        .find_map(|line| line.strip_prefix("CapEff:"))
        .and_then(|hex| u64::from_str_radix(hex.trim(), 16).ok())
        .unwrap_or_default();
    let may = effective >> 12 & 1 == 1 && Path::new("/dev/net/tun").exists();
    if !may {
        eprintln!("SKIPPED: a knock needs CAP_NET_ADMIN and /dev/net/tun");
    }
    may
}

#[test]
fn a_reader_who_leaves_is_no_error() {
    let device = Device::new();
    for command in [
        &["completions", "bash"][..],
        &["status"],
        &["list", "--json"],
    ] {
        let (reader, writer) = std::io::pipe().expect("a pipe");
        drop(reader);
        let read = device.run(command).status.code();
        let ended = device
            .spa(command)
            .stdout(writer)
            .output()
            .expect("spa runs");
        assert_eq!(ended.status.code(), read, "{ended:?}");
        assert!(
            !String::from_utf8_lossy(&ended.stderr).contains("panicked"),
            "{ended:?}"
        );
    }
}

#[test]
fn an_invite_can_be_kept_off_the_command_line() {
    let (gateway, device) = (FakeGateway::start(Ipv4Addr::LOCALHOST), Device::new());
    let output = device.enroll_in_private(&gateway);
    assert!(output.status.success(), "{}", err(&output));
    assert!(gateway.with(|state| state.words.is_some()));
}

#[test]
fn an_enrolment_activates_the_device_and_shows_the_four_words() {
    let (gateway, device) = (FakeGateway::start(Ipv4Addr::LOCALHOST), Device::new());
    let output = device.enroll(&gateway);
    assert!(output.status.success(), "{}", err(&output));
    let words = gateway
        .with(|state| state.words.clone())
        .expect("it was enrolled");
    assert!(
        out(&output).lines().any(|line| line.trim() == words),
        "{}",
        out(&output)
    );
    assert!(out(&output).contains("otpauth://totp/spa:127.0.0.1?secret="));
    let uri = fs::read_to_string(device.home.join("totp")).expect("it was asked for");
    assert!(uri.starts_with("otpauth://") && uri.contains("digits=6"));

    let ops: Vec<_> =
        gateway.with(|state| state.seen.iter().map(|seen| (seen.op, seen.kid)).collect());
    assert_eq!(
        ops,
        [("enrol", 0), ("open", 3)],
        "one packet each, the second under the key just handed out"
    );
    assert_eq!(
        gateway.with(|state| state.seen[1].wanted.clone()),
        Some(Wanted::ControlOnly)
    );
    assert_ne!(
        gateway.with(|state| state.seen[0].port),
        gateway.with(|state| state.seen[1].port)
    );

    let again = device.enroll(&gateway);
    assert_eq!(again.status.code(), Some(1));
    assert!(
        last(&again).contains("used on this device already"),
        "{}",
        err(&again)
    );
}

#[test]
fn what_the_device_keeps_is_private_and_does_not_know_the_password() {
    let (gateway, device) = (FakeGateway::start(Ipv4Addr::LOCALHOST), Device::new());
    assert!(device.enroll(&gateway).status.success());
    let directory = device.home.join("gateways/127.0.0.1");
    for name in ["profile", "memory", "lock"] {
        let mode = fs::metadata(directory.join(name))
            .expect("it is there")
            .permissions()
            .mode()
            & 0o777;
        assert_eq!(mode, 0o600, "{name}");
    }
    let text = fs::read_to_string(directory.join("profile")).expect("ours");
    let q = gateway.with(|state| state.q).expect("enrolled");
    assert!(!text.contains(&format!("{q:?}")), "Q is not kept");
    assert!(!text.contains(&"09".repeat(32)), "K_inv is not kept");
}

#[test]
fn a_lost_packet_heals_by_its_repeat() {
    let (gateway, device) = (FakeGateway::start(Ipv4Addr::LOCALHOST), Device::new());
    gateway.with(|state| state.lose = 1);
    assert!(device.enroll(&gateway).status.success());
    let seen = gateway.with(|state| state.seen.clone());
    assert_eq!(
        seen.iter().map(|seen| seen.op).collect::<Vec<_>>(),
        ["enrol", "enrol", "open"]
    );
    assert_eq!(
        (seen[0].ts, seen[0].port),
        (seen[1].ts, seen[1].port),
        "a repeat is the same transaction"
    );
    assert!(seen[2].ts > seen[1].ts);
}

#[test]
fn a_broken_off_enrolment_goes_on_with_the_same_q() {
    let (gateway, device) = (FakeGateway::start(Ipv4Addr::LOCALHOST), Device::new());
    let wrong = device
        .spa(&["enroll", &gateway.invite, "--code", "000000"])
        .arg("--password-file")
        .arg(device.password_file())
        .output()
        .expect("spa runs");
    assert_eq!(wrong.status.code(), Some(3), "{}", err(&wrong));
    assert!(
        last(&wrong).contains("run the same command again"),
        "{}",
        err(&wrong)
    );
    let before = gateway.with(|state| state.q);

    let output = device.enroll(&gateway);
    assert!(output.status.success(), "{}", err(&output));
    assert!(
        err(&output).contains("Use the same password"),
        "{}",
        err(&output)
    );
    assert_eq!(gateway.with(|state| state.q), before);
    assert!(gateway.with(|state| state.active));
}

#[test]
fn a_bad_invite_is_one_line_and_leaves_nothing() {
    let (gateway, device) = (FakeGateway::start(Ipv4Addr::LOCALHOST), Device::new());
    let line = gateway.invite.clone();
    for (invite, expected) in [
        (line[..line.len() - 5].to_owned(), "cut off"),
        (line.replace("spa1", "spa2"), "another version"),
        ("hello".to_owned(), "not an invite"),
        (line.replace("/Ac", "/As"), "another version"),
    ] {
        let output = device.run(&["enroll", &invite]);
        assert_eq!(output.status.code(), Some(1));
        assert_eq!(err(&output).lines().count(), 1, "{}", err(&output));
        assert!(last(&output).contains(expected), "{}", err(&output));
    }
    assert!(!device.home.join("gateways").exists());
    assert!(gateway.with(|state| state.seen.is_empty()));
}

#[test]
fn an_unanswered_enrolment_names_a_used_or_expired_invite() {
    let (gateway, device) = (FakeGateway::start(Ipv4Addr::LOCALHOST), Device::new());
    gateway.with(|state| state.lose = 6);
    let output = device.enroll(&gateway);
    assert_eq!(output.status.code(), Some(3));
    for cause in ["used", "expired", "network", "clock"] {
        assert!(last(&output).contains(cause), "{}", err(&output));
    }
    assert_eq!(gateway.with(|state| state.seen.len()), 6);
    assert!(out(&device.run(&["list"])).contains("enrolment not complete"));
}

#[test]
fn a_refused_knock_says_why_and_remembers_it() {
    if !may_knock() {
        return;
    }
    let (gateway, device) = (FakeGateway::start(Ipv4Addr::LOCALHOST), Device::new());
    assert!(device.enroll(&gateway).status.success());
    let output = device.knock(&["wiki", "late"], CODE);
    assert_eq!(output.status.code(), Some(1), "{}", err(&output));
    assert!(
        err(&output).contains("wiki: not allowed, or no such resource"),
        "{}",
        err(&output)
    );
    assert!(
        err(&output).contains("late: refused: not at this time"),
        "{}",
        err(&output)
    );
    assert!(
        last(&output).contains("not before noon"),
        "{}",
        err(&output)
    );
    let asked = gateway.with(|state| state.seen.last().and_then(|seen| seen.wanted.clone()));
    assert_eq!(
        asked,
        Some(Wanted::Resources(vec![
            ResourceId::of("wiki"),
            ResourceId::of("late")
        ]))
    );

    let why = device.run(&["why", "late"]);
    assert!(
        why.status.success() && out(&why).contains("not at this time"),
        "{}",
        out(&why)
    );
    let list: serde_json::Value =
        serde_json::from_slice(&device.run(&["list", "--json"]).stdout).expect("JSON");
    assert_eq!(list[0]["knocked"][0]["granted"], false);
    assert!(out(&device.run(&["status"])).contains("nothing is open"));
}

#[test]
fn a_knock_tells_what_its_owner_can_see() {
    if !may_knock() {
        return;
    }
    let (gateway, device) = (FakeGateway::start(Ipv4Addr::LOCALHOST), Device::new());
    assert!(device.enroll(&gateway).status.success());
    let hook = device.home.join("gateways/127.0.0.1/posture-command");
    fs::write(
        &hook,
        "#!/bin/sh\necho disk_encryption=true\necho patch_age=7\n",
    )
    .expect("ours");
    fs::set_permissions(&hook, fs::Permissions::from_mode(0o700)).expect("ours");
    device.knock(&["wiki"], CODE);
    let report = gateway
        .with(|state| state.seen.last().and_then(|seen| seen.posture.clone()))
        .expect("every knock carries one");
    let holds = |bytes: &[u8]| report.windows(bytes.len()).any(|window| window == bytes);
    for told in [
        &b"disk_encryption\xf5"[..],
        b"patch_age\x07",
        b"platform\x65linux",
    ] {
        assert!(holds(told), "{report:02x?}");
    }
    let shown: serde_json::Value =
        serde_json::from_slice(&device.run(&["posture", "--json"]).stdout).expect("JSON");
    let shown = shown.as_array().expect("a list");
    let told = shown.iter().find(|fact| fact["name"] == "disk_encryption");
    assert_eq!(
        told.map(|fact| &fact["value"]),
        Some(&serde_json::json!(true))
    );
    for fact in shown {
        let name = fact["name"].as_str().expect("a name");
        assert!(
            fact["source"]
                .as_str()
                .is_some_and(|source| !source.is_empty())
        );
        assert_eq!(holds(name.as_bytes()), !fact["value"].is_null(), "{fact}");
    }
}

#[test]
fn silence_is_one_honest_line_and_exit_code_3() {
    if !may_knock() {
        return;
    }
    let (gateway, device) = (FakeGateway::start(Ipv4Addr::LOCALHOST), Device::new());
    assert!(device.enroll(&gateway).status.success());
    gateway.with(|state| state.manner = Manner::Silence);
    let before = gateway.with(|state| state.seen.len());
    let output = device.knock(&["wiki"], CODE);
    assert_eq!(output.status.code(), Some(3));
    assert!(
        last(&output).contains("password, code, network or clock"),
        "{}",
        err(&output)
    );
    let knocks = gateway.with(|state| state.seen[before..].to_vec());
    assert_eq!(knocks.len(), 6);
    assert!(
        knocks
            .iter()
            .all(|knock| knock.ts == knocks[0].ts && knock.port == knocks[0].port && knock.proven)
    );
}

#[test]
fn a_wrong_password_looks_like_any_silence() {
    if !may_knock() {
        return;
    }
    let (gateway, device) = (FakeGateway::start(Ipv4Addr::LOCALHOST), Device::new());
    assert!(device.enroll(&gateway).status.success());
    let right = device.knock(&["wiki"], 999_999);
    device.password("wrong horse");
    let wrong = device.knock(&["wiki"], CODE);
    assert_eq!(
        (right.status.code(), wrong.status.code()),
        (Some(3), Some(3))
    );
    assert_eq!(last(&right), last(&wrong));
}

#[test]
fn without_the_capability_nothing_is_asked_or_sent() {
    let (gateway, device) = (FakeGateway::start(Ipv4Addr::LOCALHOST), Device::new());
    assert!(device.enroll(&gateway).status.success());
    let before = gateway.with(|state| state.seen.len());
    // Root runs a program with the capabilities of its bounding set; others have none anyway.
    let output = Command::new("setpriv")
        .args([
            "--bounding-set",
            "-net_admin",
            env!("CARGO_BIN_EXE_spa"),
            "knock",
            "wiki",
        ])
        .env("SPA_HOME", &device.home)
        .output()
        .expect("util-linux is installed");
    assert_eq!(output.status.code(), Some(1), "{}", err(&output));
    assert_eq!(err(&output).lines().count(), 1, "{}", err(&output));
    assert!(
        last(&output).contains("CAP_NET_ADMIN") && last(&output).contains("setcap"),
        "{}",
        err(&output)
    );
    assert_eq!(gateway.with(|state| state.seen.len()), before);
}

#[test]
fn keys_others_can_read_are_refused_before_anything_is_sent() {
    let (gateway, device) = (FakeGateway::start(Ipv4Addr::LOCALHOST), Device::new());
    assert!(device.enroll(&gateway).status.success());
    let profile = device.home.join("gateways/127.0.0.1/profile");
    fs::set_permissions(&profile, fs::Permissions::from_mode(0o644)).expect("ours");
    let output = device.knock(&["wiki"], CODE);
    assert_eq!(output.status.code(), Some(1));
    assert_eq!(err(&output).lines().count(), 1, "{}", err(&output));
    assert!(last(&output).contains("chmod 600"), "{}", err(&output));
}

#[test]
fn a_device_that_is_enrolled_nowhere_says_how_to_enrol() {
    let device = Device::new();
    for command in [
        &["knock", "wiki"][..],
        &["status"],
        &["close"],
        &["list"],
        &["list", "--json"],
        &["status", "--json"],
        &["posture"],
        &["why", "wiki"],
    ] {
        let output = device.run(command);
        assert_eq!(output.status.code(), Some(1), "{command:?}");
        assert!(
            last(&output).contains("spa enroll INVITE"),
            "{command:?}: {}",
            err(&output)
        );
    }
    assert_eq!(device.run(&["knock"]).status.code(), Some(2));
    assert_eq!(out(&device.run(&["list", "--json"])).trim(), "[]");
}

/// No condition but its end: a watch that did not notice would never end, and the harness says which test hangs.
#[test]
fn a_watch_ends_with_its_reader() {
    let (gateway, device) = (FakeGateway::start(Ipv4Addr::LOCALHOST), Device::new());
    assert!(device.enroll(&gateway).status.success());
    let (reader, writer) = std::io::pipe().expect("a pipe");
    drop(reader);
    let watched = device.spa(&["status", "--watch"]).stdout(writer).output();
    assert!(watched.expect("spa runs").status.success());
}

#[test]
fn what_a_full_disk_does_not_take_is_an_error() {
    let device = Device::new();
    let full = fs::File::options()
        .write(true)
        .open("/dev/full")
        .expect("it opens");
    let ended = device.spa(&["completions", "bash"]).stdout(full).output();
    let ended = ended.expect("spa runs");
    assert_eq!(ended.status.code(), Some(1));
    assert!(
        String::from_utf8_lossy(&ended.stderr).contains("No space left"),
        "{ended:?}"
    );
}
