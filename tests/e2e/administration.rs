//! What an administrator does: the README's commands lead where it says, and the gateway tells its administrator why.

use std::fs;
use std::io::Write;
use std::os::unix::net::UnixStream;

use spa_tests::gateway::Gateway;
use spa_tests::person::{PASSWORD, Person, invite};
use spa_tests::phone;
use spa_tests::topology::{SERVER, Town};
use spa_tests::wait::wait_until;

use crate::fixture::{Place, REACHED, with_ana};

/// The commands of the README, in its order, lead from nothing to a page of wiki.
#[test]
fn the_readmes_commands_lead_to_a_page() {
    let town = Town::build().unwrap();
    let mut gateway = Gateway::bare(&town).unwrap();
    gateway.run_init(&[]).unwrap().success().unwrap();
    gateway.configure(|_| {}).unwrap();
    gateway.start().unwrap();
    gateway
        .ask(&["user", "add", "ana", "--group", "eng"])
        .unwrap();
    gateway
        .ask(&["resource", "add", "wiki", SERVER, "443/tcp"])
        .unwrap();
    gateway
        .ask(&["allow", "eng", "wiki", "--for", "8h"])
        .unwrap();
    let line = invite(&gateway, "ana", &["--qr"]).unwrap();
    let ana = Person::new(&gateway, &town.client, "ana", "laptop").unwrap();
    let mut ana = ana.enroll(&line).unwrap().person;
    gateway.ask(&["device", "confirm", "ana/laptop"]).unwrap();
    ana.knock(&["wiki"]).unwrap().success().unwrap();
    Place { gateway, town }.assert_reaches_wiki(&ana);
}

/// Commands that edit the policy keep what a person wrote there, comments included.
#[test]
fn edits_of_the_policy_keep_comments() {
    let town = Town::build().unwrap();
    let gateway = Gateway::init(&town).unwrap();
    let with_comment =
        spa_tests::gateway::POLICY.replace("[resource]", "# asked for by ana\n[resource]");
    gateway.write_policy(&with_comment).unwrap();
    gateway
        .ask(&["resource", "add", "chat", "10.0.5.30", "6697/tcp"])
        .unwrap();
    gateway.ask(&["allow", "eng", "chat"]).unwrap();
    let after = fs::read_to_string(gateway.policy()).unwrap();
    assert!(
        after.contains("# asked for by ana") && after.contains("10.0.5.30"),
        "{after}"
    );
    let twice = gateway
        .admin(&["resource", "add", "chat", "10.0.5.31", "1/tcp"])
        .unwrap();
    twice.refusal(1, &["chat"]).unwrap();
    assert_eq!(fs::read_to_string(gateway.policy()).unwrap(), after);
}

/// A refused knock tells a stranger nothing and the administrator which factor failed.
#[test]
fn the_log_says_which_factor_failed() {
    let (place, mut ana) = with_ana();
    let wrong = ana.code_of(phone::step_now() + 1000).unwrap();
    ana.knock_with(&["wiki"], PASSWORD, &wrong)
        .unwrap()
        .refusal(3, &[])
        .unwrap();
    let log = place.gateway.ask(&["log", "--denied"]).unwrap();
    assert!(log.contains("ana") && log.contains("code"), "{log}");
    assert!(!log.contains("proof"), "{log}");
    let fresh = ana.fresh_code().unwrap();
    ana.knock_with(&["wiki"], "incorrect horse", &fresh)
        .unwrap()
        .refusal(3, &[])
        .unwrap();
    let log = place.gateway.ask(&["log", "--denied"]).unwrap();
    assert!(log.contains("proof") || log.contains("password"), "{log}");
}

/// A recovery code stands in for the phone, once.
#[test]
fn a_recovery_code_works_once() {
    let (place, ana) = with_ana();
    let codes = place.gateway.ask(&["recovery-codes", "ana"]).unwrap();
    let code = codes.lines().next().expect("a code").trim();
    let password = ana.password_file();
    let knock = [
        "knock",
        "wiki",
        "--recovery",
        code,
        "--password-file",
        &password,
    ];
    ana.run(&knock).unwrap().success().unwrap();
    place.assert_reaches_wiki(&ana);
    ana.run(&["close"]).unwrap().success().unwrap();
    ana.run(&knock).unwrap().refusal(3, &["no answer"]).unwrap();
}

/// Every listing speaks JSON, and the session's says from where, to what, until when.
#[test]
fn every_listing_speaks_json() {
    let (place, mut ana) = with_ana();
    ana.knock(&["wiki"]).unwrap().success().unwrap();
    for listing in [
        &["user", "list"][..],
        &["user", "show", "ana"],
        &["device", "list"],
        &["device", "show", "ana/laptop"],
        &["resource", "list"],
        &["session", "list"],
        &["status"],
    ] {
        place.gateway.ask_json(listing).unwrap();
    }
    let session = place.gateway.sessions().unwrap().remove(0);
    assert_eq!(session["user"], "ana");
    assert_eq!(session["resources"], serde_json::json!(["wiki"]));
    for listing in [&["status"][..], &["list"]] {
        let out = ana
            .run(&[listing, &["--json"]].concat())
            .unwrap()
            .success()
            .unwrap()
            .out;
        serde_json::from_str::<serde_json::Value>(&out).unwrap_or_else(|_| panic!("{out}"));
    }
}

/// Whoever reads what a command prints may stop reading (`| head`): it ends as if he had read, a log that is followed too.
#[test]
fn a_reader_who_leaves_is_no_error() {
    let (place, _) = with_ana();
    for command in [
        &["status"][..],
        &["user", "list", "--json"],
        &["user", "add", "bob"],
        &["completions", "bash"],
        &["log", "--follow"],
    ] {
        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);
        let mut command = place.gateway.admin_command(command);
        let ended = command.stdout(writer).output().unwrap();
        assert!(
            ended.status.success() && ended.stderr.is_empty(),
            "{ended:?}"
        );
    }
    let users = place.gateway.ask(&["user", "list"]).unwrap();
    assert!(users.contains("bob"), "{users}");
}

/// Two hundred who hold the admin socket open and talk nonsense keep nobody from knocking, and an administrator gets an answer
/// as soon as they have gone.
#[test]
fn a_hammered_admin_socket_keeps_nobody_out() {
    let (place, mut ana) = with_ana();
    let socket = place.gateway.folder().join("run/admin.sock");
    let hammers: Vec<_> = (0..200)
        .filter_map(|number| {
            let mut hammer = UnixStream::connect(&socket).ok()?;
            hammer.set_nonblocking(true).ok()?;
            let nonsense = vec![b'0' + (number % 10); 4096];
            // Refused, or read only in part: it is a hammer's luck.
            let _ = hammer.write(&nonsense);
            Some(hammer)
        })
        .collect();
    assert!(!hammers.is_empty());
    ana.knock(&["wiki"]).unwrap().success().unwrap();
    place.assert_reaches_wiki(&ana);
    drop(hammers);
    wait_until("an administrator is answered", REACHED, || {
        place.gateway.ask(&["status"]).ok()
    })
    .unwrap();
}

/// Each process has what it needs and cannot get more: the daemon and `spa-tunnel` no capability, the enforcer one; none can
/// gain any by executing something, and the kernel filters what they may ask of it.
#[test]
fn no_process_can_regain_a_privilege() {
    let place = crate::fixture::place();
    // Bit 12 is CAP_NET_ADMIN (include/uapi/linux/capability.h).
    for (name, capabilities) in [
        ("spa-gateway", 0_u64),
        ("spa-tunnel", 0),
        ("spa-enforcer", 1 << 12),
    ] {
        let Some(process) = place.gateway.process(name) else {
            assert_eq!(name, "spa-tunnel", "only it is not needed everywhere");
            continue;
        };
        for task in fs::read_dir(format!("/proc/{process}/task")).unwrap() {
            let status = fs::read_to_string(task.unwrap().path().join("status")).unwrap();
            let field = |wanted: &str| {
                let of = status.lines().find_map(|line| line.strip_prefix(wanted));
                of.map(str::trim).unwrap_or_default().to_owned()
            };
            for set in ["CapEff:", "CapPrm:", "CapInh:", "CapAmb:"] {
                let has = u64::from_str_radix(&field(set), 16).unwrap();
                assert_eq!(has & !capabilities, 0, "{name} {set} {has:x}");
            }
            // What executing something could give.
            let bound = u64::from_str_radix(&field("CapBnd:"), 16).unwrap();
            assert_eq!(bound, 0, "{name} {bound:x}");
            assert_eq!(field("NoNewPrivs:"), "1", "{name}");
            assert_eq!(field("Seccomp:"), "2", "{name}");
        }
    }
}
