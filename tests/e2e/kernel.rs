//! What only a kernel of one's own shows: WireGuard in the kernel, which others can change, a clock that can be set, a VLAN.
//!
//! For the virtual machine of `make test-vm`; elsewhere each of these says that it was skipped.

use std::io::Write;
use std::process::Command;
use std::time::{Duration, Instant, SystemTime};

use spa_tests::gateway::Gateway;
use spa_tests::net::run;
use spa_tests::person::Person;
use spa_tests::topology::Town;
use spa_tests::wait::wait_until;

use crate::clock::{Clocked, each_way};
use crate::fixture::{Place, REACHED, with_ana};

/// What somebody does to WireGuard with `wg` and `ip` is noticed: whose peer it is loses the session, everybody else's goes on over the
/// new start, and what was put in is gone.
#[test]
fn what_somebody_changes_in_wireguard_is_undone() {
    if !in_a_machine_of_its_own() {
        return;
    }
    let (mut place, mut ana) = with_ana();
    let mut open = false;
    for (change, says, goes_on) in [
        (
            "wg set spa0 peer FOREIGN allowed-ips 10.200.9.9/32",
            "a peer added",
            true,
        ),
        (
            "wg set spa0 peer FOREIGN allowed-ips ANA4",
            "a peer added, a peer changed",
            false,
        ),
        (
            "wg set spa0 peer ANA allowed-ips 0.0.0.0/0",
            "a peer changed",
            false,
        ),
        (
            "wg set spa0 peer ANA preshared-key /dev/null",
            "a peer changed",
            false,
        ),
        ("wg set spa0 listen-port 51999", "another port", false),
        (
            "wg set spa0 private-key /dev/null",
            "another private key",
            false,
        ),
        (
            "ip link set spa0 down; ip link set spa0 name vpn7",
            "renamed to vpn7",
            false,
        ),
        (
            "ip link delete spa0",
            "removed tunnel interface spa0",
            false,
        ),
    ] {
        if !open {
            knock(&place, &mut ana);
        }
        place.assert_reaches_wiki(&ana);
        by_hand(&place, change);
        let ended = place.gateway.wait_for_end(REACHED).unwrap();
        assert_eq!(ended.code, 1, "{change}");
        assert!(ended.err.contains(says), "{change}: {}", ended.err);
        let peers = place
            .town
            .gateway
            .output("wg", &["show", "all", "peers"])
            .unwrap();
        assert_eq!(
            peers.lines().count(),
            usize::from(goes_on),
            "{change}: {peers}"
        );
        if !goes_on {
            place.assert_no_wiki(&ana);
        }
        open = goes_on;
        place.gateway.start().unwrap();
        let sessions = place.gateway.sessions().unwrap();
        assert_eq!(
            sessions.len(),
            usize::from(goes_on),
            "{change}: {sessions:?}"
        );
        let log = place.gateway.ask(&["log"]).unwrap();
        assert!(log.contains("gateway-stopped"), "{log}");
    }
    knock(&place, &mut ana);
    place.assert_reaches_wiki(&ana);
    by_hand(&place, "wg set spa0 peer ANA remove");
    // The daemon asks for each peer every 5 s, and may be first: then the session ends without a new start.
    wait_until("it is noticed", REACHED, || {
        let sessions = place.gateway.sessions();
        sessions
            .is_ok_and(|sessions| sessions.is_empty())
            .then_some(())
            .or_else(|| (!place.gateway.daemon().is_running()).then_some(()))
    })
    .unwrap();
    place.assert_no_wiki(&ana);
    if !place.gateway.daemon().is_running() {
        let ended = place.gateway.wait_for_end(REACHED).unwrap();
        assert!(ended.err.contains("a peer removed"), "{}", ended.err);
        place.gateway.start().unwrap();
    }
    knock(&place, &mut ana);
    place.assert_reaches_wiki(&ana);
}

/// The promises of `clock::a_clock_that_is_set_while_the_gateway_runs_keeps_nothing_open`, where it is the machine's own clock that is set.
#[test]
fn the_machines_own_clock_is_set_while_the_gateway_runs() {
    if !in_a_machine_of_its_own() {
        return;
    }
    let (now, since) = (SystemTime::now(), Instant::now());
    each_way(&mut Clocked::build(), |_, shift| {
        let right = (now + since.elapsed()).duration_since(SystemTime::UNIX_EPOCH)?;
        let seconds = i64::try_from(right.as_millis())? + shift;
        let mut date = Command::new("date");
        run(date.args([
            "--set",
            &format!("@{}.{:03}", seconds / 1_000, seconds % 1_000),
        ]))
        .map(drop)
    });
}

/// Knocks that come over a VLAN are heard by its interface, and the door is one of it.
#[test]
fn a_vlan_is_an_uplink_like_any_other() {
    if !in_a_machine_of_its_own() {
        return;
    }
    let town = Town::build().unwrap();
    for (space, link, own) in [
        (&town.router, "wan", "198.51.100.1/24"),
        (&town.gateway, "eth0", "198.51.100.10/24"),
    ] {
        space
            .ip(&format!(
                "address flush dev {link}\nlink add {link}.7 link {link} type vlan id 7\naddress add {own} dev {link}.7\nlink set {link}.7 up"
            ))
            .unwrap();
    }
    town.gateway
        .ip("route add default via 198.51.100.1")
        .unwrap();
    town.router
        .nft("table ip tagged { chain out { type nat hook postrouting priority srcnat; oifname wan.7 masquerade; }; }")
        .unwrap();
    let mut gateway = Gateway::bare(&town).unwrap();
    gateway
        .run_init(&["--interface", "eth0.7"])
        .unwrap()
        .success()
        .unwrap();
    gateway.configure(|_| {}).unwrap();
    gateway.write_policy(spa_tests::gateway::POLICY).unwrap();
    gateway.start().unwrap();
    let mut ana = Person::enrolled(&gateway, &town.client, "ana").unwrap();
    let place = Place { gateway, town };
    place.assert_main_job(&mut ana);
}

/// Whether this is the virtual machine, whose clock and WireGuard are nobody else's. Says so past the test harness, which
/// keeps to itself what a test that passes says.
fn in_a_machine_of_its_own() -> bool {
    let own = std::env::var_os("IN_VM").is_some();
    if !own {
        let line = "SKIPPED, NOT PASSED: a test of the kernel's own WireGuard and clock; `make test-vm` runs it\n";
        std::io::stderr().write_all(line.as_bytes()).unwrap();
    }
    own
}

/// Knocks with a recovery code, which need not wait for the next half minute.
fn knock(place: &Place, ana: &mut Person) {
    let codes = place.gateway.ask(&["recovery-codes", "ana"]).unwrap();
    let code = codes.lines().next().expect("a code").trim();
    let knock = ana.start_recovery(&["wiki", "--only"], code).unwrap();
    let ended = knock.wait(Duration::from_secs(20)).unwrap();
    ended.success().unwrap();
}

/// Runs a line of a shell on the gateway, with what is known of its peers put in.
fn by_hand(place: &Place, line: &str) {
    let space = &place.town.gateway;
    let listing = space
        .output("wg", &["show", "spa0", "allowed-ips"])
        .unwrap();
    let mut words = listing.split_whitespace();
    let ana = words.next().expect("a peer");
    let network = words.next().expect("its address");
    let line = line
        .replace("FOREIGN", "mqNG4uxVBZZ0zUTYmFsFhQp7p60QXwaVZQf7NlVpLms=")
        .replace("ANA4", network)
        .replace("ANA", ana);
    space.output("sh", &["-c", &line]).unwrap();
}
