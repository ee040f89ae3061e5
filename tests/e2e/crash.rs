//! Promise 4 when things break: openings lapse by the kernel's own clock, and a restart makes the kernel equal to the store.

use std::time::{Duration, Instant};

use rustix::process::Signal;
use spa_tests::net::signal;
use spa_tests::packet::Packet;
use spa_tests::topology::{GATEWAY, PORT, address, endpoint};
use spa_tests::wait::wait_until;
use spa_tests::wire;

use crate::end::{deadline, with_short_sessions};
use crate::fixture::{Place, REACHED, SILENT, with_ana};

/// When the enforcer dies the daemon says so in one line and stops; what was open lapses, and the gateway stays dark.
#[test]
fn when_the_enforcer_dies_the_daemon_stops_and_everything_lapses() {
    let (mut place, mut ana) = with_short_sessions("12s");
    ana.knock(&["wiki"]).unwrap().success().unwrap();
    let _stream = place.stream(&ana);
    let enforcer = place.gateway.process("spa-enforcer").expect("it runs");
    signal(enforcer, Signal::KILL);
    let ended = place.gateway.wait_for_end(REACHED).unwrap();
    assert_eq!(ended.code, 1);
    assert!(ended.err.contains("enforcer"), "{}", ended.err);
    assert_everything_lapses(&place, Duration::from_secs(15));
    place.assert_no_wiki(&ana);
    let findings = place
        .town
        .scanner()
        .oddities(address(GATEWAY), PORT)
        .unwrap();
    assert!(findings.is_silent(), "{:?}", findings.answers);
}

/// When the daemon is killed without warning what is open lapses by itself at its deadline.
#[test]
fn after_a_kill_everything_lapses_by_itself() {
    let (mut place, mut ana) = with_short_sessions("12s");
    ana.knock(&["wiki"]).unwrap().success().unwrap();
    let stream = place.stream(&ana);
    let ends = deadline(&place.gateway);
    place.gateway.kill().unwrap();
    let left = ends.saturating_duration_since(Instant::now());
    // Looking takes its time on a busy machine.
    let limit = left + Duration::from_secs(5);
    assert_everything_lapses(&place, limit);
    // The embedded WireGuard ends with its enforcer, the kernel's with the flows.
    stream
        .stopped(SILENT, REACHED)
        .expect("the stream has ended");
}

/// A restart after a kill makes the kernel equal to the store: what lives on in the store is open again until its deadline,
/// openings that no live session accounts for are gone.
#[test]
fn a_restart_makes_the_kernel_equal_to_the_store() {
    let (mut place, mut ana) = with_ana();
    ana.knock(&["wiki"]).unwrap().success().unwrap();
    place.gateway.kill().unwrap();
    place.gateway.start().unwrap();
    let sessions = place.gateway.sessions().unwrap().len();
    let open = place.gateway.openings().unwrap();
    let flows = open.iter().any(|opening| opening.contains("flow"));
    assert_eq!(flows, sessions == 1, "{sessions} sessions, {open:?}");
    // Whatever became of the session, the next knock works and is the only one.
    ana.knock(&["wiki", "--only"]).unwrap().success().unwrap();
    place.assert_reaches_wiki(&ana);
    assert_eq!(place.gateway.sessions().unwrap().len(), 1);
}

/// What somebody takes out of the table by hand is put right by a new start, which the audit log tells; then all works.
#[test]
fn elements_flushed_by_hand_are_put_right_by_a_new_start() {
    let (mut place, mut ana) = with_ana();
    ana.knock(&["wiki"]).unwrap().success().unwrap();
    place.town.gateway.nft("flush set inet spa flow4").unwrap();
    let ended = place.gateway.wait_for_end(REACHED).unwrap();
    assert_eq!(ended.code, 1);
    assert!(ended.err.contains("by hand"), "{}", ended.err);
    place.assert_no_wiki(&ana);
    place.gateway.start().unwrap();
    let log = place.gateway.ask(&["log"]).unwrap();
    assert!(log.contains("gateway-stopped"), "{log}");
    ana.knock(&["wiki", "--only"]).unwrap().success().unwrap();
    place.assert_reaches_wiki(&ana);
}

/// A knock that was accepted is worth nothing after a kill and a restart either.
#[test]
fn a_captured_knock_is_worth_nothing_after_a_restart() {
    let (mut place, mut ana) = with_ana();
    let arriving = place.town.tap_arriving().unwrap();
    ana.knock(&["wiki"]).unwrap().success().unwrap();
    let knock = arriving
        .wait_for("the knock", REACHED, Packet::is_knock_sized)
        .unwrap();
    place.gateway.ask(&["session", "cut", "ana"]).unwrap();
    place.gateway.kill().unwrap();
    place.gateway.start().unwrap();
    let leaving = place.town.tap_leaving().unwrap();
    let again = Packet::udp(
        endpoint("192.168.8.10", 47_000),
        endpoint(GATEWAY, PORT),
        &knock.packet.payload,
    );
    wire::send(&place.town.neighbour, &[again]).unwrap();
    wait_until("it arrives again", REACHED, || {
        let same = |packet: &Packet| packet.payload == knock.packet.payload;
        (arriving.count(same) >= 2).then_some(())
    })
    .unwrap();
    assert!(leaving.watch_for(SILENT, Packet::is_knock_sized).is_none());
    place.assert_everything_closed();
}

/// A code that opened before a kill does not open after it.
#[test]
fn a_used_code_is_remembered_over_a_kill() {
    let (mut place, mut ana) = with_ana();
    ana.knock(&["wiki"]).unwrap().success().unwrap();
    ana.run(&["close"]).unwrap().success().unwrap();
    place.gateway.kill().unwrap();
    place.gateway.start().unwrap();
    let code = ana.used_code().unwrap();
    let knocked = ana
        .knock_with(&["wiki"], spa_tests::person::PASSWORD, &code)
        .unwrap();
    knocked.refusal(3, &["no answer"]).unwrap();
}

/// Soon no door and no flow is left, without anybody to close them.
#[track_caller]
fn assert_everything_lapses(place: &Place, limit: Duration) {
    let lapsed = wait_until("every opening lapses", limit, || {
        place.gateway.openings().ok()?.is_empty().then_some(())
    });
    lapsed.unwrap_or_else(|error| panic!("{error}: {:?}", place.gateway.openings()));
}

/// What the enforcer refuses is not opened, and what was opened with it is taken back: nobody gets a session half of which is
/// there. A policy that names an address of the pool is not put into force, and a start only warns of it.
#[test]
fn a_session_of_which_the_enforcer_refuses_a_part_is_none_at_all() {
    let (mut place, mut ana) = with_ana();
    place.gateway.stop().unwrap();
    let policy = spa_tests::gateway::POLICY.replace("10.0.5.20", "10.200.77.77");
    place.gateway.write_policy(&policy).unwrap();
    place.gateway.start().unwrap();
    let knocked = ana.knock(&["wiki", "db"]).unwrap();
    assert_ne!(knocked.code, 0, "{}{}", knocked.out, knocked.err);
    place.assert_everything_closed();
    let [peers, doors, flows] = place.gateway.counts().unwrap();
    assert_eq!([peers, doors, flows], [0, 0, 0]);
    let log = place.gateway.ask(&["log"]).unwrap();
    assert!(log.contains("opening-failed"), "{log}");
    ana.knock(&["wiki"]).unwrap().success().unwrap();
    place.assert_reaches_wiki(&ana);
}

/// Another tool makes its own table anew, as ufw, firewalld and Docker do at a reload: a download goes on, and nothing opens.
#[test]
fn another_firewalls_reload_neither_opens_nor_ends_anything() {
    let (mut place, mut ana) = with_ana();
    ana.knock(&["wiki"]).unwrap().success().unwrap();
    let stream = place.stream(&ana);
    let open = place.gateway.openings().unwrap();
    let theirs = "table ip filter { chain INPUT { type filter hook input priority 0; policy accept; tcp dport 1-65535 accept; }; \
                  chain FORWARD { type filter hook forward priority 0; policy accept; accept; }; }";
    for _ in 0..5 {
        let reload = format!("add table ip filter\ndelete table ip filter\n{theirs}\n");
        place.town.gateway.nft(&reload).unwrap();
    }
    let (so_far, _) = stream.last();
    wait_until("the download goes on", REACHED, || {
        (stream.last().0 > so_far + 50).then_some(())
    })
    .unwrap();
    assert_eq!(place.gateway.openings().unwrap(), open);
    assert!(place.gateway.daemon().is_running());
    let scanner = place.town.scanner();
    let findings = scanner.oddities(address(GATEWAY), PORT).unwrap();
    assert!(findings.is_silent(), "{:?}", findings.answers);
}
