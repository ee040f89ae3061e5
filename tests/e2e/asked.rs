//! Promise 3: a session reaches the resources of its knock, and nothing else.

use spa_tests::person::Person;
use spa_tests::sensor::{Sensor, marked};
use spa_tests::serve;
use spa_tests::topology::{DATABASE, GATEWAY, PORT, SERVER, SERVER2, WEB, endpoint};
use spa_tests::wait::wait_until;
use spa_tests::wire::{self, Direction, Wire};

use crate::fixture::{REACHED, REFUSED, with_ana};

/// The control channel's port.
const CONTROL: u16 = 8700;

/// One knock for wiki opens wiki; the database on the same machine, and the one elsewhere, stay closed.
#[test]
fn a_knock_for_wiki_reaches_wiki_only() {
    let (place, mut ana) = with_ana();
    place.assert_no_wiki(&ana);
    ana.knock(&["wiki"]).unwrap().success().unwrap();
    place.assert_reaches_wiki(&ana);
    assert_closed(&ana, SERVER, DATABASE);
    assert_closed(&ana, SERVER2, DATABASE);
    assert_closed(&ana, SERVER, 80);
    assert_eq!(place.town.database.accepted(), 0);
}

/// The gateway's own services are closed, inside the tunnel and outside it.
#[test]
fn the_gateways_own_ports_are_closed() {
    let (place, mut ana) = with_ana();
    let own = serve::web(&place.town.gateway, endpoint("::", 22)).unwrap();
    ana.knock(&["wiki"]).unwrap().success().unwrap();
    for target in ["10.200.0.1", GATEWAY, "10.0.5.1"] {
        assert_closed(&ana, target, 22);
    }
    assert_eq!(own.accepted(), 0);
    // The control channel's port is open on the tunnel address only.
    for target in [GATEWAY, "10.0.5.1"] {
        assert_closed(&ana, target, CONTROL);
    }
    let control = endpoint("10.200.0.1", CONTROL);
    serve::connect(ana.space(), control, REACHED).unwrap();
    assert!(serve::connect(&place.town.lan, control, REFUSED).is_err());
}

/// The neighbour behind the same NAT, whose packets come from the same address, gets past nothing.
#[test]
fn the_neighbour_behind_the_same_nat_gets_nothing() {
    let (place, mut ana) = with_ana();
    ana.knock(&["wiki"]).unwrap().success().unwrap();
    // A router that passes on what is meant for the LAN: the worst neighbour there is.
    let town = &place.town;
    town.router
        .ip(&format!("route add 10.0.5.0/24 via {GATEWAY}"))
        .unwrap();
    let sensor = Sensor::place(&town.gateway).unwrap();
    let arriving = town.tap_arriving().unwrap();
    let hears = Wire::tap(&town.neighbour, "eth0", Direction::Incoming).unwrap();
    let own = endpoint("192.168.8.10", 40_000);
    let targets = [(GATEWAY, PORT), (GATEWAY, 22), (SERVER, WEB)];
    let packets = targets.map(|(target, port)| marked(own, endpoint(target, port)));
    wire::send(&town.neighbour, &packets).unwrap();
    wait_until("they arrive", REACHED, || {
        let count = arriving.count(|packet| packet.payload.len() == spa_tests::sensor::MARK);
        (count == targets.len()).then_some(())
    })
    .unwrap();
    assert_eq!(
        (sensor.received().unwrap(), sensor.forwarded().unwrap()),
        (0, 0)
    );
    let wiki = serve::connect(&town.neighbour, endpoint(SERVER, WEB), REFUSED);
    assert!(wiki.is_err());
    // Nor does he hear that somebody is there: no reset, no ICMP.
    let heard = hears.count(|packet| !packet.is_link_housekeeping());
    assert_eq!(heard, 0);
}

/// Nothing in the LAN can begin a conversation with somebody in the tunnel.
#[test]
fn nothing_enters_the_tunnel_unasked() {
    let (place, mut ana) = with_ana();
    ana.knock(&["wiki"]).unwrap().success().unwrap();
    let session = place.gateway.sessions().unwrap().remove(0);
    let tunnel = session["tunnel"][0].as_str().expect("a tunnel address");
    let own = serve::web(&place.town.client, endpoint("::", 8080)).unwrap();
    assert!(serve::connect(&place.town.lan, endpoint(tunnel, 8080), REFUSED).is_err());
    assert_eq!(own.accepted(), 0);
}

/// A knock for db while wiki is open keeps both and says so; `--only` keeps what it names.
#[test]
fn a_second_knock_adds_and_only_replaces() {
    let (place, mut ana) = with_ana();
    ana.knock(&["wiki"]).unwrap().success().unwrap();
    let said = ana.knock(&["db"]).unwrap().success().unwrap();
    let said = said.out + &said.err;
    assert!(said.contains("wiki") && said.contains("db"), "{said}");
    place.assert_reaches_wiki(&ana);
    serve::connect(ana.space(), endpoint(SERVER2, DATABASE), REACHED).unwrap();
    ana.knock(&["db", "--only"]).unwrap().success().unwrap();
    serve::connect(ana.space(), endpoint(SERVER2, DATABASE), REACHED).unwrap();
    place.assert_no_wiki(&ana);
    only_session(&place);
}

/// A second knock replaces the first session: there is one, with a new id, and it works.
#[test]
fn a_second_knock_replaces_the_first_session() {
    let (place, mut ana) = with_ana();
    ana.knock(&["wiki"]).unwrap().success().unwrap();
    let first = only_session(&place);
    ana.knock(&["wiki", "--only"]).unwrap().success().unwrap();
    assert_ne!(first, only_session(&place));
    place.assert_reaches_wiki(&ana);
}

/// Two people behind one NAT work at the same time, and the end of one does not touch the other.
#[test]
fn two_clients_at_once() {
    let (place, mut ana) = with_ana();
    let mut bo = Person::enrolled(&place.gateway, &place.town.neighbour, "bo").unwrap();
    ana.knock(&["wiki"]).unwrap().success().unwrap();
    bo.knock(&["wiki"]).unwrap().success().unwrap();
    place.assert_reaches_wiki(&ana);
    place.assert_reaches_wiki(&bo);
    let stream = place.stream(&bo);
    ana.run(&["close"]).unwrap().success().unwrap();
    place.assert_no_wiki(&ana);
    assert!(stream.last().1.elapsed() < crate::fixture::SILENT);
    place.assert_reaches_wiki(&bo);
}

/// What policy does not name, or names for others, is refused in one line that says no more than that.
#[test]
fn what_does_not_exist_and_what_is_not_allowed_look_the_same() {
    let (mut place, mut ana) = with_ana();
    place
        .gateway
        .write_policy(&spa_tests::gateway::POLICY.replace("[\"db\"]", "[\"wiki\"]"))
        .unwrap();
    place.gateway.stop().unwrap();
    place.gateway.start().unwrap();
    let nothing = ana.knock(&["nonsense"]).unwrap();
    nothing.refusal(1, &["policy allows nothing"]).unwrap();
    let others = ana.knock(&["db"]).unwrap();
    others.refusal(1, &["policy allows nothing"]).unwrap();
    assert!(nothing.err.contains("nonsense: "), "{}", nothing.err);
    assert_eq!(
        nothing.err.replace("nonsense", "X"),
        others.err.replace("db", "X")
    );
    place.assert_everything_closed();
}

/// The id of the one session there is, once what it replaced is closed: listed as "ending" until the kernel has confirmed
/// all of it.
#[track_caller]
fn only_session(place: &crate::fixture::Place) -> serde_json::Value {
    wait_until("one session is left", REACHED, || {
        match &place.gateway.sessions().ok()?[..] {
            [only] => Some(only["session"].clone()),
            _ => None,
        }
    })
    .unwrap()
}

#[track_caller]
fn assert_closed(person: &Person, target: &str, port: u16) {
    let reached = serve::connect(person.space(), endpoint(target, port), REFUSED);
    assert!(reached.is_err(), "{target} port {port} is reachable");
}
