//! Promise 1: a scanner sees nothing, and nothing that is not an honest knock gets an answer.

use std::time::Duration;

use spa_tests::gateway::{Gateway, TUNNEL_USER};
use spa_tests::net::Namespace;
use spa_tests::packet::{Packet, UDP};
use spa_tests::person::{PASSWORD, Person};
use spa_tests::sensor::{Sensor, marked};
use spa_tests::serve;
use spa_tests::topology::{GATEWAY, GATEWAY6, HOME, PORT, SERVER, Town, WEB, address, endpoint};
use spa_tests::wait::wait_until;
use spa_tests::wire::{self, Direction, Wire};
use toml_edit::value;

use crate::fixture::{Place, REACHED, REFUSED, SILENT, place, with_ana};

/// How long the kernel looks for a neighbour before it says that there is none: three solicitations, a second apart.
const UNREACHABLE: Duration = Duration::from_millis(3500);

/// All 65,536 TCP and 65,536 UDP ports are silent on IPv4 and on IPv6, and so is every other way to ask; the knock port is
/// no exception.
#[test]
fn every_port_is_silent() {
    let place = place();
    let leaving = place.town.tap_leaving().unwrap();
    for (scanner, target) in [
        (place.town.scanner(), GATEWAY),
        (place.town.scanner6(), GATEWAY6),
    ] {
        let findings = scanner.every_port(address(target)).unwrap();
        assert_eq!(findings.probes, 2 * 65_536);
        assert!(findings.is_silent(), "{:?}", findings.answers);
        for port in [PORT, 1, 22] {
            let findings = scanner.oddities(address(target), port).unwrap();
            assert!(findings.is_silent(), "port {port}: {:?}", findings.answers);
        }
    }
    let left: Vec<_> = leaving
        .finish()
        .into_iter()
        .filter(|seen| !seen.packet.is_link_housekeeping())
        .collect();
    assert!(left.is_empty(), "{left:?}");
}

/// Without the gateway's table the same scan is answered: the silence is the table's, and it outlives the gateway's processes.
#[test]
fn the_silence_is_the_tables_work() {
    let mut place = place();
    place.gateway.kill().unwrap();
    let silent = |place: &Place| {
        let findings = place.town.scanner().oddities(address(GATEWAY), PORT);
        findings.unwrap().is_silent()
    };
    assert!(silent(&place));
    place.town.gateway.nft("delete table inet spa").unwrap();
    assert!(!silent(&place));
}

/// Before the gateway has run, `spa-gateway close` makes the machine dark: no interface, no user and no store needs to be
/// there yet. Where a gateway runs it changes nothing.
#[test]
fn closed_before_the_first_start() {
    let town = Town::build().unwrap();
    let mut gateway = Gateway::init(&town).unwrap();
    let silent = || {
        let findings = town.scanner().oddities(address(GATEWAY), PORT).unwrap();
        findings.is_silent()
    };
    assert!(!silent(), "an ordinary machine answers");
    gateway
        .configure(|config| config["process"]["tunnel-user"] = value("nobody-yet"))
        .unwrap();
    // As early as the unit runs it: no network is up.
    town.gateway.ip("link set eth0 down").unwrap();
    gateway.close().unwrap().success().unwrap();
    town.gateway
        .ip(&format!("link set eth0 up\nroute add default via {HOME}"))
        .unwrap();
    assert!(silent());
    let number = TUNNEL_USER.to_string();
    gateway
        .configure(|config| config["process"]["tunnel-user"] = value(number))
        .unwrap();
    gateway.start().unwrap();
    let mut ana = Person::enrolled(&gateway, &town.client, "ana").unwrap();
    let place = Place { gateway, town };
    ana.knock(&["wiki"]).unwrap().success().unwrap();
    place.gateway.close().unwrap().success().unwrap();
    place.assert_reaches_wiki(&ana);
}

/// 512 bytes of junk, a real knock cut short, made longer, or in pieces, and anything that looks like WireGuard get no answer.
/// The same real knock, whole, gets one.
#[test]
fn only_a_whole_knock_is_answered() {
    let (place, mut ana) = with_ana();
    let knock = a_knock_that_never_arrived(&place.town, &mut ana);
    let leaving = place.town.tap_leaving().unwrap();
    let arriving = place.town.tap_arriving().unwrap();

    let mut longer = knock.payload.clone();
    longer.push(0);
    let mut changed = knock.payload.clone();
    changed[300] ^= 1;
    let mut handshake = vec![0_u8; 148];
    handshake[0] = 1;
    let mut junk = Vec::new();
    for seed in 0..200_u32 {
        junk.push(noise(512, seed));
    }
    junk.extend([
        knock.payload[..511].to_vec(),
        longer,
        changed,
        knock.payload[..8].to_vec(),
        Vec::new(),
        noise(1232, 1),
        handshake,
    ]);
    let sent = junk.len();
    let junk: Vec<_> = junk
        .iter()
        .map(|payload| Packet::udp(knock.source, knock.destination, payload))
        .collect();
    wire::send(&place.town.client, &junk).unwrap();
    wire::send_bytes(
        &place.town.client,
        knock.destination.ip(),
        &in_pieces(&knock),
    )
    .unwrap();
    wait_until("all of it arrives", REACHED, || {
        (arriving.count(|packet| packet.protocol == UDP) >= sent).then_some(())
    })
    .unwrap();
    let answer = leaving.watch_for(SILENT, |packet| !packet.is_link_housekeeping());
    assert!(answer.is_none(), "{answer:?}");

    wire::send(&place.town.client, &[knock]).unwrap();
    leaving
        .wait_for(
            "a reply to the whole knock",
            REACHED,
            Packet::is_knock_sized,
        )
        .unwrap();
}

/// A stranger's packets to the WireGuard port never reach WireGuard, whether or not somebody else's session is open.
#[test]
fn a_stranger_does_not_reach_wireguard() {
    let (place, mut ana) = with_ana();
    let sensor = Sensor::place(&place.town.gateway).unwrap();
    let try_it = || {
        let arriving = place.town.tap_arriving().unwrap();
        let own = endpoint("203.0.113.66", 4000);
        let own6 = endpoint("2001:db8:66::66", 4000);
        let packets = [
            marked(own, endpoint(GATEWAY, PORT)),
            marked(own6, endpoint(GATEWAY6, PORT)),
        ];
        wire::send(&place.town.stranger, &packets).unwrap();
        wait_until("both arrive", REACHED, || {
            (arriving.count(|packet| packet.source.port() == 4000) == 2).then_some(())
        })
        .unwrap();
        assert_eq!(sensor.received().unwrap(), 0);
    };
    try_it();
    ana.knock(&["wiki"]).unwrap().success().unwrap();
    try_it();
}

/// Somebody on the gateway's own link, who sends it what is meant for the LAN, reaches nothing and hears nothing: no machine,
/// no error about a machine that is not there, none about a packet at the end of its life.
#[test]
fn nobody_passes_through_the_gateway_around_the_tunnel() {
    let place = place();
    let town = &place.town;
    town.router
        .ip(&format!("route add 10.0.5.0/24 via {GATEWAY}"))
        .unwrap();
    let sensor = Sensor::place(&town.gateway).unwrap();
    let leaving = town.tap_leaving().unwrap();
    let arriving = town.tap_arriving().unwrap();
    let own = endpoint(HOME, 4000);
    let nobody = marked(own, endpoint("10.0.5.77", 443));
    let somebody = marked(own, endpoint(SERVER, 443));
    let mut dying = somebody.to_bytes();
    dying[8] = 1; // time to live
    wire::send(&town.router, &[nobody, somebody]).unwrap();
    wire::send_bytes(&town.router, address(SERVER), &[dying]).unwrap();
    wait_until("all three arrive", REACHED, || {
        (arriving.count(|packet| packet.source.port() == 4000) == 3).then_some(())
    })
    .unwrap();
    let answer = leaving.watch_for(UNREACHABLE, |packet| !packet.is_link_housekeeping());
    assert!(answer.is_none(), "{answer:?}");
    assert_eq!(sensor.forwarded().unwrap(), 0);
    assert!(serve::connect(&town.router, endpoint(SERVER, WEB), REFUSED).is_err());
    assert_eq!(town.web.accepted(), 0);
}

/// A genuine knock that the router swallowed, as it left the client.
pub fn a_knock_that_never_arrived(town: &Town, ana: &mut spa_tests::person::Person) -> Packet {
    let leaving = Wire::tap(&town.client, "eth0", Direction::Outgoing).unwrap();
    block(&town.router, true);
    let code = ana.fresh_code().unwrap();
    let knocking = ana.start_knock(&["wiki"], PASSWORD, &code).unwrap();
    let knock = leaving
        .wait_for(
            "the knock leaves the client",
            Duration::from_secs(20),
            Packet::is_knock_sized,
        )
        .unwrap();
    drop(knocking);
    block(&town.router, false);
    knock.packet
}

fn block(router: &Namespace, blocked: bool) {
    let script = if blocked {
        "table inet block { chain knocks { type filter hook forward priority 0; iifname home0 udp length 520 drop; }; }"
    } else {
        "delete table inet block"
    };
    router.nft(script).unwrap();
}

/// The packet as two IPv4 fragments (RFC 791 §3.1), the first with 256 bytes of the UDP packet.
fn in_pieces(packet: &Packet) -> [Vec<u8>; 2] {
    const CUT: usize = 256;
    const MORE: u8 = 0x20;
    let bytes = packet.to_bytes();
    let (header, body) = bytes.split_at(20);
    let piece = |part: &[u8], flags: u8, eighths: u8| {
        let mut piece = [header, part].concat();
        // Identification: the kernel leaves it alone when it is not zero, and fills in length and checksum.
        piece[4..6].copy_from_slice(&[0x77, 0x77]);
        piece[6..8].copy_from_slice(&[flags, eighths]);
        piece
    };
    [
        piece(&body[..CUT], MORE, 0),
        piece(
            &body[CUT..],
            0,
            u8::try_from(CUT / 8).expect("256 / 8 is 32"),
        ),
    ]
}

/// Bytes that look random and are the same in every run (xorshift32).
fn noise(length: usize, seed: u32) -> Vec<u8> {
    let mut state = seed.wrapping_mul(2_654_435_761) | 1;
    (0..length)
        .map(|_| {
            state ^= state << 13;
            state ^= state >> 17;
            state ^= state << 5;
            state.to_be_bytes()[1]
        })
        .collect()
}
