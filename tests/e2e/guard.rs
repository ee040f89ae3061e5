//! The guard: once a session, or what it had of a resource, has ended, nothing passes in either direction, whatever connection
//! tracking still remembers of it.

use std::io::Write;
use std::net::{IpAddr, SocketAddr, UdpSocket};

use spa_tests::gateway::POLICY;
use spa_tests::net::Namespace;
use spa_tests::packet::{ICMP, Packet, TCP, UDP};
use spa_tests::serve::{self, GREETING, Stream};
use spa_tests::topology::{DATABASE, SERVER, SERVER2, WEB, address, endpoint};
use spa_tests::wait::wait_until;
use spa_tests::wire::{Direction, Wire};

use crate::fixture::{Place, REACHED, REFUSED, SILENT, with_ana};
use crate::policy::{put_in_force, with_policy};

/// Where the machine in the LAN takes datagrams.
const TALK: u16 = 5353;

/// Two resources on two addresses are taken from a session that goes on: an established TCP connection, a server that pushes
/// without being asked, UDP, and ping, all remembered as established. Then the session itself is cut.
#[test]
fn nothing_passes_after_the_end_whatever_is_remembered() {
    let resources = format!(
        "[resource]
         talk = {{ to = \"{SERVER}\", ports = [\"{DATABASE}/tcp\", \"{TALK}/udp\", \"icmp\"] }}
         feed = {{ to = \"{SERVER2}\", ports = [\"{WEB}/tcp\"] }}"
    );
    let policy = POLICY
        .replace("[resource]", &resources)
        .replace("to   = [\"db\"]", "to   = [\"talk\", \"feed\"]");
    let (mut place, mut ana) = with_policy(&policy);
    ana.knock(&["wiki", "talk", "feed"])
        .unwrap()
        .success()
        .unwrap();
    let (client, lan) = (ana.space().clone(), place.town.lan.clone());

    // The database speaks first, and then both do.
    let mut database = serve::connect(&client, endpoint(SERVER, DATABASE), REACHED).unwrap();
    assert_eq!(
        serve::greeting(database.try_clone().unwrap()).unwrap(),
        GREETING
    );
    assert!(serve::is_alive(&mut database));
    let feed = Stream::watch(&client, endpoint(SERVER2, WEB), REACHED).unwrap();
    wait_until("it flows", REACHED, || (feed.last().0 > 100).then_some(())).unwrap();
    let theirs = socket(&lan, endpoint(SERVER, TALK));
    let ours = socket(&client, endpoint("0.0.0.0", 0));
    ours.connect(endpoint(SERVER, TALK)).unwrap();
    ours.send(b"hello").unwrap();
    let (_, tunnel) = theirs.recv_from(&mut [0; 16]).unwrap();
    theirs.send_to(b"hello", tunnel).unwrap();
    ours.recv(&mut [0; 16]).unwrap();
    assert!(serve::ping(&client, address(SERVER), REACHED).unwrap());

    put_in_force(
        &mut place,
        &policy.replace("to   = [\"talk\", \"feed\"]", "to   = [\"db\"]"),
    );
    feed.stopped(SILENT, REACHED).expect("the feed ends");
    let remembered = place.gateway.remains().unwrap();
    let remembers = |what: &str| {
        let mut entries = remembered.iter();
        entries.any(|entry| entry.starts_with("conntrack") && entry.contains(what))
    };
    assert!(
        remembers("dport=5432") && remembers("dport=5353"),
        "{remembered:?}"
    );

    let passing = Passing::begin(&place, tunnel.ip());
    let dropped = Dropped::so_far(&place);
    let _into_the_socket = database.write_all(b"more");
    ours.send(b"more").unwrap();
    assert!(!serve::ping(&client, address(SERVER), REFUSED).unwrap());
    theirs.send_to(b"push", tunnel).unwrap();
    assert!(!serve::ping(&lan, tunnel.ip(), REFUSED).unwrap());
    // Out of the tunnel three kinds, into it the datagram, the ping, and what the feed's server still sends.
    dropped.wait_for(&place, "out_of_tunnel", 3);
    dropped.wait_for(&place, "into_tunnel", 3);
    passing.assert_nothing();
    place.assert_reaches_wiki(&ana);

    place.gateway.ask(&["session", "cut", "ana"]).unwrap();
    place.assert_everything_closed();
    let passing = Passing::begin(&place, tunnel.ip());
    let dropped = Dropped::so_far(&place);
    theirs.send_to(b"push", tunnel).unwrap();
    let _the_way_may_be_gone = ours.send(b"more");
    let _into_the_socket = database.write_all(b"more");
    dropped.wait_for(&place, "into_tunnel", 1);
    passing.assert_nothing();
    // And what was dropped is not remembered again.
    place.assert_everything_closed();
}

/// Where the administrator's flowtable leaves the tunnel out, as `doctor` says, an end is an end: nothing of a session is taken
/// past our table.
#[test]
fn beside_a_flowtable_that_leaves_the_tunnel_out_an_end_is_an_end() {
    let (mut place, mut ana) = with_ana();
    let offloads = "table inet fast {
        flowtable f { hook ingress priority 0; devices = { eth0, lan0 }; }
        chain pass { type filter hook forward priority 10; iifname spa0 accept; oifname spa0 accept; ip protocol tcp flow add @f; }
    }";
    if let Err(refused) = place.town.gateway.nft(offloads) {
        eprintln!("SKIPPED, NOT PASSED: this kernel has no flowtable: {refused}");
        return;
    }
    ana.knock(&["wiki"]).unwrap().success().unwrap();
    let stream = place.stream(&ana);
    let without = POLICY.replace("to   = [\"wiki\"]", "to   = [\"db\"]");
    put_in_force(&mut place, &without);
    stream.stopped(SILENT, REACHED).expect("the stream ends");
    place.assert_no_wiki(&ana);
}

/// What gets through between the tunnel and the LAN, from now on.
struct Passing {
    out: Wire,
    into: Wire,
    tunnel: IpAddr,
}

impl Passing {
    fn begin(place: &Place, tunnel: IpAddr) -> Self {
        Self {
            out: Wire::tap(&place.town.lan, "eth0", Direction::Incoming).unwrap(),
            into: Wire::tap(&place.town.gateway, "spa0", Direction::Outgoing).unwrap(),
            tunnel,
        }
    }

    #[track_caller]
    fn assert_nothing(&self) {
        let lan = [address(SERVER), address(SERVER2)];
        let kinds = [TCP, UDP, ICMP];
        let between = |packet: &Packet, from: &[IpAddr], to: &[IpAddr]| {
            kinds.contains(&packet.protocol)
                && from.contains(&packet.source.ip())
                && to.contains(&packet.destination.ip())
        };
        let tunnel = [self.tunnel];
        let out = self.out.count(|packet| between(packet, &tunnel, &lan));
        let into = self.into.count(|packet| between(packet, &lan, &tunnel));
        assert_eq!((out, into), (0, 0));
    }
}

/// Packets our table dropped in the two chains of the tunnel.
struct Dropped(Vec<(String, u64)>);

impl Dropped {
    fn so_far(place: &Place) -> Self {
        let count = |chain: &str| (chain.to_owned(), count(place, chain));
        Self(["out_of_tunnel", "into_tunnel"].map(count).into())
    }

    #[track_caller]
    fn wait_for(&self, place: &Place, chain: &str, more: u64) {
        let (_, before) = self
            .0
            .iter()
            .find(|(name, _)| name == chain)
            .expect("counted");
        wait_until(chain, REACHED, || {
            (count(place, chain) >= before + more).then_some(())
        })
        .unwrap();
    }
}

fn count(place: &Place, chain: &str) -> u64 {
    let list = ["-j", "list", "chain", "inet", "spa", chain];
    let text = place.town.gateway.output("nft", &list).unwrap();
    let listing: serde_json::Value = serde_json::from_str(&text).unwrap();
    let objects = listing["nftables"].as_array().expect("a list").iter();
    let words = objects.filter_map(|object| object["rule"]["expr"].as_array());
    words
        .flatten()
        .filter_map(|word| word["counter"]["packets"].as_u64())
        .sum()
}

fn socket(space: &Namespace, at: SocketAddr) -> UdpSocket {
    let socket = space.run(|| UdpSocket::bind(at)).unwrap().unwrap();
    socket.set_read_timeout(Some(REACHED)).unwrap();
    socket
}
