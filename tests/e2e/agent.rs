//! A session stays true while it lives: over a change of address, a sleep, a broken tunnel.

use std::fs;
use std::time::{Duration, Instant};

use rustix::process::Signal;
use serde_json::Value;
use spa_tests::net::signal;
use spa_tests::person::Person;
use spa_tests::topology::{HOME, Town};
use spa_tests::wait::wait_until;

use crate::end::{deadline, with_short_sessions};
use crate::fixture::{Place, REACHED, SILENT, with_ana};

/// How long a session may take to follow its device: the agent looks once a second, the knock and the handshake follow.
const FOLLOWED: Duration = Duration::from_secs(15);
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

/// The sources the gateway's WireGuard is open for.
fn doors(place: &Place) -> Vec<String> {
    let openings = place.gateway.openings().unwrap();
    openings
        .into_iter()
        .filter(|one| one.contains("door"))
        .collect()
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
