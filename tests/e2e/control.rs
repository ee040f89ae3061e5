//! The harness itself: what it calls silent is silent, and it hears what is not.

use std::time::{Duration, Instant};

use spa_tests::packet::Packet;
use spa_tests::sensor::{Sensor, marked};
use spa_tests::serve::{self, Stream};
use spa_tests::topology::{self, GATEWAY, GATEWAY6, Town, address, endpoint};
use spa_tests::wait::wait_until;

/// How long anything here may take.
const LIMIT: Duration = Duration::from_secs(5);

/// A machine without our gateway answers a scan, so the scanner's silence elsewhere means something.
#[test]
fn a_scan_hears_an_ordinary_machine() {
    let town = Town::build().unwrap();
    for (scanner, target) in [(town.scanner(), GATEWAY), (town.scanner6(), GATEWAY6)] {
        let findings = scanner.every_port(address(target)).unwrap();
        assert_eq!(findings.probes, 2 * 65_536);
        let reset = (0..=u16::MAX)
            .filter(|port| findings.answers.contains_key(&format!("tcp {port}")))
            .count();
        assert_eq!(
            reset, 65_536,
            "every closed TCP port of an open machine answers"
        );
        assert!(
            findings
                .answers
                .keys()
                .any(|what| what.starts_with("icmp type")),
            "closed UDP ports answer too"
        );
        let findings = scanner.oddities(address(target), 51820).unwrap();
        assert!(!findings.is_silent());
    }
}

/// A home behind a router that translates: the gateway sees the router's address and a rewritten port.
#[test]
fn the_home_is_behind_a_translating_router() {
    let town = Town::build().unwrap();
    let arriving = town.tap_arriving().unwrap();
    let payload = vec![7; 512];
    let packet = Packet::udp(
        endpoint("192.168.7.10", 12345),
        endpoint(GATEWAY, topology::PORT),
        &payload,
    );
    spa_tests::wire::send(&town.client, &[packet]).unwrap();
    let seen = arriving
        .wait_for("the packet", LIMIT, Packet::is_knock_sized)
        .unwrap();
    assert_eq!(seen.packet.source.ip(), address(topology::HOME));
    assert!((40_000..=50_000).contains(&seen.packet.source.port()));
}

/// The sensor counts a marked packet where nothing drops it before.
#[test]
fn a_sensor_counts_what_gets_past() {
    let town = Town::build().unwrap();
    let sensor = Sensor::place(&town.gateway).unwrap();
    let packet = marked(
        endpoint("203.0.113.66", 4000),
        endpoint(GATEWAY, topology::PORT),
    );
    spa_tests::wire::send(&town.stranger, &[packet]).unwrap();
    wait_until("the packet is counted", LIMIT, || {
        (sensor.received().ok()? == 1).then_some(())
    })
    .unwrap();
    assert_eq!(sensor.forwarded().unwrap(), 0);
}

/// A stream that is cut in the middle is noticed, and one that flows is not called cut.
#[test]
fn a_stream_that_is_cut_is_noticed() {
    let town = Town::build().unwrap();
    let web = endpoint("10.0.5.10", topology::WEB);
    let stream = Stream::watch(&town.gateway, web, LIMIT).unwrap();
    let silent = Duration::from_millis(300);
    assert!(stream.stopped(silent, 2 * silent).is_none());
    let cut = Instant::now();
    town.lan
        .nft("table inet cut { chain out { type filter hook output priority 0; tcp sport 443 drop; }; }")
        .unwrap();
    let stopped = stream.stopped(silent, LIMIT).expect("it was cut");
    assert!(stopped < cut + silent);
}

/// A page is fetched, and counted, where nothing is in the way.
#[test]
fn a_page_is_fetched_where_nothing_is_in_the_way() {
    let town = Town::build().unwrap();
    let web = endpoint("10.0.5.10", topology::WEB);
    assert_eq!(
        serve::fetch(&town.gateway, web, LIMIT).unwrap(),
        serve::PAGE
    );
    assert_eq!(town.web.accepted(), 1);
}
