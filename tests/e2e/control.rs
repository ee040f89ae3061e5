//! The harness itself: what it calls silent is silent, and it hears what is not.

use spa_tests::packet::Packet;
use spa_tests::topology::{self, GATEWAY, GATEWAY6, Town, address, endpoint};

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
        .wait_for(
            "the packet",
            std::time::Duration::from_secs(2),
            Packet::is_knock_sized,
        )
        .unwrap();
    assert_eq!(seen.packet.source.ip(), address(topology::HOME));
    assert!((40_000..=50_000).contains(&seen.packet.source.port()));
}
