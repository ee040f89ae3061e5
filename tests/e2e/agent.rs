//! A session stays true while it lives: over a change of address, a sleep, a broken tunnel.

use std::fs;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::Signal;
use serde_json::Value;
use spa_tests::gateway::{Gateway, POLICY};
use spa_tests::net::{Namespace, signal};
use spa_tests::person::{PASSWORD, Person};
use spa_tests::program::Program;
use spa_tests::serve::{self, PAGE};
use spa_tests::topology::{DATABASE, HOME, SERVER, SERVER2, Town, WEB, endpoint};
use spa_tests::wait::wait_until;
use toml_edit::{DocumentMut, value};

use crate::end::{deadline, with_short_sessions};
use crate::fixture::{Place, REACHED, SILENT, policy_for, with_ana};
use crate::policy::{put_in_force, with_policy};

/// How long a session may take to follow its device: the agent looks once a second, the knock and the handshake follow.
const FOLLOWED: Duration = Duration::from_secs(15);
/// Three reports of 5 s that are missed, and what a busy machine adds.
const MISSED: Duration = Duration::from_secs(40);
/// Longer than a turn of the agent's loop takes on any machine that is awake.
const SLEPT: Duration = Duration::from_secs(11);
/// Where the home's machines appear to come from in the other network.
const ELSEWHERE: &str = "198.51.100.2";

/// Ana walks into another network under a running download: the door moves with her, the download goes on, the door where
/// she was is gone.
#[test]
fn a_download_goes_on_over_a_change_of_address() {
    let (place, mut ana) = with_ana();
    ana.knock(&["wiki"]).unwrap().success().unwrap();
    let stream = place.stream(&ana);
    let session = place.gateway.sessions().unwrap()[0]["id"].clone();
    assert!(doors(&place).iter().all(|door| door.contains(HOME)));
    move_elsewhere(&place.town);
    let before = stream.last().0;
    wait_until("the download goes on", FOLLOWED, || {
        (stream.last().0 > before + 1000).then_some(())
    })
    .unwrap();
    wait_until(
        "the door is where she is, and nowhere else",
        REACHED,
        || {
            let doors = doors(&place);
            let moved = !doors.is_empty() && doors.iter().all(|door| door.contains(ELSEWHERE));
            moved.then_some(())
        },
    )
    .unwrap_or_else(|error| panic!("{error}: {:?}", doors(&place)));
    assert_eq!(place.gateway.sessions().unwrap()[0]["id"], session);
    place.assert_reaches_wiki(&ana);
    wait_until("status tells of it", REACHED, || {
        let news = status(&ana)["news"].to_string();
        news.contains("the session goes on").then_some(())
    })
    .unwrap();
    assert_eq!(status(&ana)["state"], "connected");
}

/// A laptop that slept past the end of its session says so, before its agent has woken up and after.
#[test]
fn a_sleep_past_the_end_is_shown_truthfully() {
    let (place, mut ana) = with_short_sessions("10s");
    ana.knock(&["wiki"]).unwrap().success().unwrap();
    let ends = deadline(&place.gateway);
    let agent = agent_of(&ana);
    signal(agent, Signal::STOP);
    wait_until("the deadline", Duration::from_secs(15), || {
        (Instant::now() > ends + Duration::from_millis(500)).then_some(())
    })
    .unwrap();
    let said = ana.run(&["status"]).unwrap().success().unwrap().out;
    assert!(
        said.contains("was over") && !said.contains("connected"),
        "{said}"
    );
    assert_eq!(status(&ana)["state"], "closed");
    signal(agent, Signal::CONT);
    wait_until("the agent ends", REACHED, || {
        (!ana.space().processes().contains(&agent)).then_some(())
    })
    .unwrap();
    let said = ana.run(&["status"]).unwrap().success().unwrap().out;
    assert!(said.contains("its time was over"), "{said}");
    place.assert_everything_closed();
}

/// A laptop that sleeps under a running download and wakes in another network goes on in the same session.
#[test]
fn a_session_outlives_a_sleep_and_wakes_elsewhere() {
    let (place, mut ana) = with_ana();
    ana.knock(&["wiki"]).unwrap().success().unwrap();
    let stream = place.stream(&ana);
    let session = place.gateway.sessions().unwrap()[0]["id"].clone();
    let asleep: Vec<_> = ana
        .space()
        .processes()
        .into_iter()
        .filter(|pid| is_ours(*pid))
        .collect();
    assert!(asleep.contains(&agent_of(&ana)));
    asleep.iter().for_each(|pid| signal(*pid, Signal::STOP));
    let fell_asleep = Instant::now();
    stream.stopped(SILENT, REACHED).expect("the laptop sleeps");
    move_elsewhere(&place.town);
    wait_until("a sleep that is one", FOLLOWED, || {
        (fell_asleep.elapsed() > SLEPT).then_some(())
    })
    .unwrap();
    let before = stream.last().0;
    asleep.iter().for_each(|pid| signal(*pid, Signal::CONT));
    wait_until("the download goes on", FOLLOWED * 2, || {
        (stream.last().0 > before + 1000).then_some(())
    })
    .unwrap();
    assert_eq!(place.gateway.sessions().unwrap()[0]["id"], session);
    assert_eq!(status(&ana)["state"], "connected");
}

/// `spa close` ends the session at the gateway although nothing comes through the tunnel any more: by a knock.
#[test]
fn close_comes_through_where_the_tunnel_does_not() {
    let (place, mut ana) = with_ana();
    ana.knock(&["wiki"]).unwrap().success().unwrap();
    let stream = place.stream(&ana);
    // 8 bytes of UDP and 512 of knock: nothing else passes.
    place
        .town
        .router
        .nft(
            "table inet broken {
               chain forward {
                 type filter hook forward priority 0
                 udp dport 51820 udp length != 520 drop
               }
             }",
        )
        .unwrap();
    stream
        .stopped(SILENT, REACHED)
        .expect("the tunnel is broken");
    assert_eq!(place.gateway.sessions().unwrap().len(), 1);
    let said = ana.run(&["close"]).unwrap().success().unwrap().out;
    assert!(said.contains("the gateway has ended the session"), "{said}");
    place.assert_everything_closed();
}

/// Whoever takes the interface away has closed the session: the gateway is told from outside, and nothing stays open there.
#[test]
fn a_tunnel_that_is_lost_is_closed_at_the_gateway_too() {
    let (place, mut ana) = with_ana();
    ana.knock(&["wiki"]).unwrap().success().unwrap();
    let interface = status(&ana)["interface"].clone();
    let interface = interface.as_str().expect("a name");
    ana.space().ip(&format!("link delete {interface}")).unwrap();
    wait_until("the gateway has ended it", FOLLOWED, || {
        place.gateway.sessions().unwrap().is_empty().then_some(())
    })
    .unwrap();
    place.assert_everything_closed();
    let said = wait_until("status says so", REACHED, || {
        let said = ana.run(&["status"]).unwrap().success().unwrap().out;
        said.contains("nothing is open").then_some(said)
    })
    .unwrap();
    assert!(said.contains("the tunnel was lost"), "{said}");
}

/// Disk encryption is turned off under way: what demands it is cut, what does not goes on, and ana is told why.
#[test]
fn a_fact_that_changes_cuts_the_one_resource_that_demands_it() {
    let (place, mut ana) = with_policy(&demanding(POLICY));
    let disk = disk(&ana);
    encrypted(&disk, true);
    ana.knock(&["wiki", "db"]).unwrap().success().unwrap();
    let stream = place.stream(&ana);
    let mut database = serve::connect(ana.space(), endpoint(SERVER2, DATABASE), REACHED).unwrap();
    let changed = Instant::now();
    encrypted(&disk, false);
    let last = stream.stopped(SILENT, FOLLOWED).expect("wiki is cut");
    let took = last.saturating_duration_since(changed);
    println!("from the change of a fact to the last byte: {took:?} (looked at every 4 s)");
    assert_eq!(echo(&mut database), "database ready\nhello\n");
    place.assert_no_wiki(&ana);
    let news = wait_until("ana is told", REACHED, || {
        let news = status(&ana)["news"].to_string();
        news.contains("wiki").then_some(news)
    })
    .unwrap();
    assert!(news.contains("lost"), "{news}");
    assert_eq!(status(&ana)["resources"], serde_json::json!(["db"]));
    let why = ana.run(&["why", "wiki"]).unwrap().success().unwrap().out;
    assert!(
        why.contains("asked now") && why.contains("disk_encryption"),
        "{why}"
    );
}

/// An agent that says nothing any more: after three reports that did not come, what demands a posture is cut under traffic,
/// and what does not goes on.
#[test]
fn without_reports_a_session_loses_what_demands_a_posture() {
    let (place, mut ana) = with_frequent_reports();
    ana.knock(&["wiki", "db"]).unwrap().success().unwrap();
    let stream = place.stream(&ana);
    let mut database = serve::connect(ana.space(), endpoint(SERVER2, DATABASE), REACHED).unwrap();
    // Stopped and not killed: the tunnel would go with it, and nobody could see what is cut.
    signal(agent_of(&ana), Signal::STOP);
    let silent = Instant::now();
    let last = stream.stopped(SILENT, MISSED).expect("wiki is cut");
    let took = last.saturating_duration_since(silent);
    println!("from the agent's silence to the last byte: {took:?} (three reports of 5 s)");
    assert_eq!(echo(&mut database), "database ready\nhello\n");
    place.assert_no_wiki(&ana);
    assert_eq!(resources(&place), serde_json::json!(["db"]));
}

/// An agent that was killed: the session at the gateway is reduced as well.
#[test]
fn a_killed_agent_loses_what_demands_a_posture() {
    let (place, mut ana) = with_frequent_reports();
    ana.knock(&["wiki", "db"]).unwrap().success().unwrap();
    assert_eq!(resources(&place), serde_json::json!(["db", "wiki"]));
    signal(agent_of(&ana), Signal::KILL);
    wait_until("wiki is lost", MISSED, || {
        (resources(&place) == serde_json::json!(["db"])).then_some(())
    })
    .unwrap();
    let said = ana.run(&["status"]).unwrap().success().unwrap().out;
    assert!(
        said.contains("not connected") && said.contains("died"),
        "{said}"
    );
}

/// How many fifths of a second iperf3 has carried something in.
fn carried(load: &Program) -> usize {
    let said = load.said();
    let rate = |line: &str| {
        let words: Vec<_> = line.split_whitespace().collect();
        let unit = words.iter().position(|word| word.ends_with("bits/sec"))?;
        words.get(unit.checked_sub(1)?)?.parse::<f64>().ok()
    };
    said.lines()
        .filter(|line| rate(line).is_some_and(|rate| rate > 0.0))
        .count()
}

/// The post-quantum key takes the place of the knock's under the load of iperf3, and not one connection fails.
#[test]
fn the_rekey_fails_no_connection() {
    let policy = POLICY
        .replace(
            "[resource]\n",
            "[resource]\nload = { to = \"10.0.5.10\", ports = [\"5201/tcp\"] }\n",
        )
        .replace("to   = [\"wiki\"]", "to   = [\"wiki\", \"load\"]");
    let (place, mut ana) = with_policy(&policy);
    let iperf = |space: &Namespace, name: &str, args: &[&str]| {
        let mut command = space.command("iperf3");
        command
            .args(args)
            .args(["--forceflush", "--interval", "0.2"]);
        Program::start(place.gateway.logs(), name, &mut command).unwrap()
    };
    let mut server = iperf(
        &place.town.lan,
        "iperf3-server",
        &["--server", "--bind", SERVER],
    );
    server.wait_for_words("Server listening", REACHED).unwrap();
    // The rekey is held up until there is a load: else it is over before the first connection.
    ana.space()
        .nft(
            "table inet held {
               chain out {
                 type filter hook output priority 0
                 tcp dport 8700 drop
               }
             }",
        )
        .unwrap();
    ana.knock(&["wiki", "load"]).unwrap().success().unwrap();
    assert_eq!(status(&ana)["keys"], "of the knock");
    let wiki = endpoint(SERVER, WEB);
    let mut load = iperf(ana.space(), "iperf3", &["--client", SERVER, "--time", "0"]);
    wait_until("the load flows", REACHED, || {
        (carried(&load) > 2).then_some(())
    })
    .unwrap();
    let done = AtomicBool::new(false);
    let fetched = thread::scope(|scope| {
        let fetching: Vec<_> = (0..4)
            .map(|_| {
                scope.spawn(|| {
                    let mut fetched = 0;
                    while !done.load(Ordering::Acquire) {
                        let page = serve::fetch(ana.space(), wiki, REACHED);
                        if page.as_ref().is_ok_and(|page| page == PAGE) {
                            fetched += 1;
                        } else {
                            return Err(format!("after {fetched} pages: {page:?}"));
                        }
                    }
                    Ok(fetched)
                })
            })
            .collect();
        ana.space().nft("delete table inet held").unwrap();
        let set = wait_until("the new key is in place", FOLLOWED * 2, || {
            (status(&ana)["keys"] == "post-quantum").then_some(())
        });
        // The connections after it are the ones that need the new handshake.
        let before = carried(&load);
        let flows = wait_until("the load goes on", REACHED, || {
            (carried(&load) > before + 3).then_some(())
        });
        done.store(true, Ordering::Release);
        let fetched: Result<Vec<usize>, String> = fetching
            .into_iter()
            .map(|one| one.join().expect("no fetch panics"))
            .collect();
        set.and(flows).unwrap();
        fetched
    });
    let fetched: usize = fetched.expect("no connection fails").iter().sum();
    println!("{fetched} pages by four readers over the rekey, none failed");
    assert!(fetched > 4);
    assert!(load.is_running(), "{}", load.said());
}

/// Ana wants more than policy gives at first: once it gives more, the session is made longer, to the new limit and not beyond.
#[test]
fn a_session_is_renewed_to_the_limit_and_not_beyond() {
    let (mut place, mut ana) = with_short_sessions("20s");
    let knock = ["wiki", "--for", "1h"];
    ana.knock(&knock).unwrap().success().unwrap();
    let stream = place.stream(&ana);
    let first = deadline(&place.gateway);
    put_in_force(&mut place, &policy_for("40s"));
    let limit = first + Duration::from_secs(20);
    wait_until("the session outlives its first end", FOLLOWED * 2, || {
        let (now, (_, last)) = (Instant::now(), stream.last());
        (now > first + SILENT * 3 && last > first + SILENT).then_some(())
    })
    .unwrap();
    let promised = deadline(&place.gateway);
    assert!(
        promised <= limit + SILENT,
        "{:?} too much",
        promised - limit
    );
    let more = ana.run(&["renew", "--for", "1h"]).unwrap();
    assert_eq!(more.code, 1, "{}", more.out);
    assert!(more.err.contains("knock again"), "{}", more.err);
    wait_until("the limit", FOLLOWED * 2, || {
        (Instant::now() >= limit).then_some(())
    })
    .unwrap();
    let stopped = stream.stopped(SILENT, REACHED).expect("the stream ends");
    let late = stopped.saturating_duration_since(limit);
    assert!(late < SILENT, "{late:?} beyond the limit");
    place.assert_everything_closed();
    let said = ana.run(&["status"]).unwrap().success().unwrap().out;
    assert!(said.contains("its time was over"), "{said}");
}

/// A session that an administrator cut is not called connected: at once where the gateway's last word arrived, else when it was
/// not heard for 50 s.
#[test]
fn a_cut_session_is_not_called_connected() {
    let (place, mut ana) = with_ana();
    ana.knock(&["wiki"]).unwrap().success().unwrap();
    wait_until("the gateway is heard", REACHED, || {
        status(&ana)["heard_age_s"].as_u64()
    })
    .unwrap();
    assert_eq!(status(&ana)["state"], "connected");
    place.gateway.ask(&["session", "cut", "ana"]).unwrap();
    wait_until("status says so", Duration::from_secs(70), || {
        (status(&ana)["state"] != "connected").then_some(())
    })
    .unwrap();
    place.assert_everything_closed();
}

/// Where policy lets nothing flow before the rekey, `spa knock` returns when everything flows.
#[test]
fn a_knock_returns_when_the_required_rekey_is_done() {
    let policy = POLICY.replace("[defaults]\n", "[defaults]\npq = \"required\"\n");
    let (place, mut ana) = with_policy(&policy);
    ana.knock(&["wiki"]).unwrap().success().unwrap();
    assert_eq!(status(&ana)["keys"], "post-quantum");
    place.assert_reaches_wiki(&ana);
}

/// `spa passwd` changes what the gateway knows: the new password opens, the old one is silence.
#[test]
fn a_password_is_changed_through_the_session() {
    let (_place, mut ana) = with_ana();
    ana.knock(&["wiki"]).unwrap().success().unwrap();
    let new = ana.home().join("new-password");
    fs::write(&new, "another horse\n").unwrap();
    fs::set_permissions(&new, fs::Permissions::from_mode(0o600)).unwrap();
    let (old, new) = (ana.password_file(), new.to_string_lossy().into_owned());
    let passwd = |code: &str, old: &str| {
        let files = ["--password-file", old, "--new-password-file", &new];
        ana.run(&[&["passwd", "--code", code], &files[..]].concat())
            .unwrap()
    };
    let used = passwd(&ana.used_code().unwrap(), &old);
    assert_eq!(used.code, 1, "a used code changes nothing: {}", used.out);
    let mut phone = ana.clone();
    passwd(&phone.fresh_code().unwrap(), &old)
        .success()
        .unwrap();
    let code = phone.fresh_code().unwrap();
    let old = phone.knock_with(&["wiki"], PASSWORD, &code).unwrap();
    assert_eq!(old.code, 3, "{}", old.err);
    let code = phone.fresh_code().unwrap();
    let new = phone.knock_with(&["wiki"], "another horse", &code).unwrap();
    new.success().unwrap();
}

/// Bo is told that ana waits, and lets her through with his own `spa approve`.
#[test]
fn one_person_approves_for_another() {
    let rule = "to   = [\"db\"]\napprove = [\"bo\"]";
    let (place, mut ana) = with_policy(&POLICY.replace("to   = [\"db\"]", rule));
    let mut bo = Person::enrolled(&place.gateway, &place.town.neighbour, "bo").unwrap();
    bo.knock(&["wiki"]).unwrap().success().unwrap();
    let waits = ana.knock(&["db"]).unwrap();
    assert_eq!(waits.code, 1);
    assert!(
        waits.err.contains("someone must approve it"),
        "{}",
        waits.err
    );
    wait_until("bo is told", REACHED, || {
        let news = status(&bo)["news"].to_string();
        news.contains("ana asks for db").then_some(())
    })
    .unwrap();
    let listed = bo.run(&["approve", "--json"]).unwrap().success().unwrap();
    let listed: Value = serde_json::from_str(&listed.out).unwrap();
    assert_eq!(listed["to_approve"][0]["person"], "ana");
    let id = listed["to_approve"][0]["id"].to_string();
    bo.run(&["approve", &id]).unwrap().success().unwrap();
    ana.knock(&["db"]).unwrap().success().unwrap();
    assert_eq!(bo.run(&["approve", &id]).unwrap().code, 1, "once is enough");
}

/// The client gets another address, and with it another one outside the NAT.
fn move_elsewhere(town: &Town) {
    town.router
        .ip("address add 198.51.100.2/24 dev wan")
        .unwrap();
    town.router
        .nft("insert rule ip home out ip saddr 192.168.7.11 oifname wan meta l4proto udp snat to 198.51.100.2")
        .unwrap();
    town.client
        .ip("address add 192.168.7.11/24 dev eth0\naddress delete 192.168.7.10/24 dev eth0")
        .unwrap();
    // What was the second address of the network may have gone with the first, and the way out too.
    town.client
        .ip("address replace 192.168.7.11/24 dev eth0\nroute replace default via 192.168.7.1")
        .unwrap();
}

/// Whether this is the agent or its tunnel.
fn is_ours(pid: u32) -> bool {
    let name = fs::read_to_string(format!("/proc/{pid}/comm"));
    name.is_ok_and(|name| matches!(name.trim(), "spa" | "spa-tunnel"))
}

/// The sources the gateway's WireGuard is open for.
fn doors(place: &Place) -> Vec<String> {
    let openings = place.gateway.openings().unwrap();
    openings
        .into_iter()
        .filter(|one| one.contains("door"))
        .collect()
}

/// A town in which wiki demands an encrypted disk, devices report every 5 s, and ana's says that hers is.
fn with_frequent_reports() -> (Place, Person) {
    let town = Town::build().unwrap();
    let mut gateway = Gateway::init(&town).unwrap();
    gateway.write_policy(&demanding(POLICY)).unwrap();
    let often = |config: &mut DocumentMut| config["control"]["report"] = value("5s");
    gateway.configure(often).unwrap();
    gateway.start().unwrap();
    let ana = Person::enrolled(&gateway, &town.client, "ana").unwrap();
    encrypted(&disk(&ana), true);
    (Place { gateway, town }, ana)
}

/// What the only session has.
fn resources(place: &Place) -> Value {
    let sessions = place.gateway.sessions().unwrap();
    assert_eq!(sessions.len(), 1, "{sessions:?}");
    sessions[0]["resources"].clone()
}

/// The policy of the tests, in which wiki demands an encrypted disk.
fn demanding(policy: &str) -> String {
    let rule = "to   = [\"wiki\"]\nposture = [\"laptop\"]";
    let policy = policy.replace("to   = [\"wiki\"]", rule);
    policy + "\n[posture.laptop]\ndisk_encryption = true\n"
}

/// A disk as the owner's own command reports it: the file it looks at.
fn disk(person: &Person) -> PathBuf {
    let profiles = person.home().join("gateways");
    let profile = fs::read_dir(profiles).unwrap().next().unwrap().unwrap();
    let (disk, command) = (
        person.home().join("disk"),
        profile.path().join("posture-command"),
    );
    fs::write(&command, format!("#!/bin/sh\ncat {}\n", disk.display())).unwrap();
    fs::set_permissions(&command, fs::Permissions::from_mode(0o700)).unwrap();
    disk
}

fn encrypted(disk: &Path, encrypted: bool) {
    let beside = disk.with_extension("new");
    fs::write(&beside, format!("disk_encryption={encrypted}\n")).unwrap();
    fs::rename(beside, disk).unwrap();
}

/// Says hello to the database, which says it back.
fn echo(database: &mut TcpStream) -> String {
    database.write_all(b"hello\n").unwrap();
    let mut said = String::new();
    let mut buffer = [0; 64];
    while !said.ends_with("hello\n") {
        let length = database.read(&mut buffer).unwrap();
        assert_ne!(length, 0, "the database hung up after {said:?}");
        said.push_str(&String::from_utf8_lossy(&buffer[..length]));
    }
    said
}

fn status(person: &Person) -> Value {
    let said = person
        .run(&["status", "--json"])
        .unwrap()
        .success()
        .unwrap();
    let all: Value = serde_json::from_str(&said.out).unwrap();
    all[0].clone()
}

/// The process that holds the person's session.
fn agent_of(person: &Person) -> u32 {
    let is_agent = |pid: &u32| {
        fs::read(format!("/proc/{pid}/cmdline")).is_ok_and(|line| line.ends_with(b"/spa\0agent\0"))
    };
    let found = person.space().processes().into_iter().find(is_agent);
    found.expect("an agent holds the session")
}
