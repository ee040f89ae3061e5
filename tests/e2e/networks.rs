//! Networks as they are: both families at once, a NAT that changes addresses, odd packets, an uplink that comes and goes, and
//! resources behind translation, behind other routers, and on the gateway itself.

use std::fs;
use std::path::PathBuf;

use spa_tests::gateway::{Gateway, POLICY};
use spa_tests::net::Namespace;
use spa_tests::packet::Packet;
use spa_tests::person::Person;
use spa_tests::sensor::{Sensor, marked};
use spa_tests::serve::{self, GREETING, PAGE};
use spa_tests::topology::{
    DATABASE, GATEWAY, GATEWAY6, PORT, SERVER, SERVER6, Town, WEB, address, endpoint,
};
use spa_tests::wait::wait_until;
use spa_tests::wire;
use toml_edit::value;

use crate::dark::a_knock_that_never_arrived;
use crate::end::with_short_sessions;
use crate::fixture::{Place, REACHED, REFUSED, SILENT, with_ana};
use crate::policy::{put_in_force, with_policy};

/// A stranger's address of each family, which nobody translates.
const STRANGER: &str = "203.0.113.66";
const STRANGER6: &str = "2001:db8:66::66";

/// A knock with a wrong checksum, behind an extension header of IPv6, or in a fragment that is no part of anything is none;
/// one behind options of IPv4 is heard and answered.
#[test]
fn a_knock_is_whole_and_its_checksum_right() {
    let (place, mut ana) = with_ana();
    let knock = a_knock_that_never_arrived(&place.town, &mut ana);
    let leaving = place.town.tap_leaving().unwrap();
    let arriving = place.town.tap_arriving().unwrap();
    let (from, from6) = (endpoint(STRANGER, 4000), endpoint(STRANGER6, 4000));
    let v4 = Packet::udp(from, knock.destination, &knock.payload).to_bytes();
    let v6 = Packet::udp(from6, endpoint(GATEWAY6, PORT), &knock.payload).to_bytes();
    let wrong = |packet: &[u8], at: usize| {
        let mut packet = packet.to_vec();
        packet[at] ^= 0x40;
        packet
    };
    // The high byte of UDP's checksum, and one of the payload.
    let wrong4 = [wrong(&v4, 26), wrong(&v4, 300)];
    let mut odd6 = vec![wrong(&v6, 46), wrong(&v6, 300)];
    // Hop-by-hop and destination options with nothing but padding; the only fragment of a packet.
    for kind in [0, 60, 44] {
        odd6.push(behind_extension(&v6, kind));
    }
    let count = wrong4.len() + odd6.len();
    let town = &place.town;
    wire::send_bytes(&town.stranger, address(GATEWAY), &wrong4).unwrap();
    wire::send_bytes(&town.stranger, address(GATEWAY6), &odd6).unwrap();
    wait_until("all of it arrives", REACHED, || {
        let strange = |packet: &Packet| [from.ip(), from6.ip()].contains(&packet.source.ip());
        (arriving.count(strange) == count).then_some(())
    })
    .unwrap();
    let answer = leaving.watch_for(SILENT, |packet| !packet.is_link_housekeeping());
    assert!(answer.is_none(), "{answer:?}");

    // Record route with room for one address, and the end of the list: six words of header and one more.
    let options = [7, 7, 4, 0, 0, 0, 0, 0];
    let mut behind = [&v4[..20], &options, &v4[20..]].concat();
    behind[0] = 0x47;
    wire::send_bytes(&town.stranger, address(GATEWAY), &[behind]).unwrap();
    let reply = leaving.wait_for("a reply", REACHED, Packet::is_knock_sized);
    assert_eq!(reply.unwrap().packet.destination, from);
}

/// A client with both families, whose gateway has a name with an address of each: it gets in though either family is dead, and
/// its tunnel carries both.
#[test]
fn a_client_of_both_families_gets_in_by_either() {
    let town = Town::build().unwrap();
    let _names = Names::of(
        &town.client,
        &format!("{GATEWAY6} gateway.example\n{GATEWAY} gateway.example\n"),
    );
    let mut gateway = Gateway::init(&town).unwrap();
    gateway
        .configure(|config| config["knock"]["public"] = value("gateway.example:51820"))
        .unwrap();
    let six = format!("[resource]\nwiki6 = {{ to = \"{SERVER6}\", ports = [\"443/tcp\"] }}");
    let policy = POLICY
        .replace("[resource]", &six)
        .replace("to   = [\"wiki\"]", "to   = [\"wiki\", \"wiki6\"]");
    gateway.write_policy(&policy).unwrap();
    gateway.start().unwrap();
    let mut ana = Person::enrolled(&gateway, &town.client, "ana").unwrap();
    let place = Place { gateway, town };
    for (dead, alive_is_v4) in [("ip6", true), ("ip", false)] {
        let arriving = place.town.tap_arriving().unwrap();
        let router = &place.town.router;
        router
            .nft(&format!(
                "table {dead} dead {{ chain forward {{ type filter hook forward priority 0; iifname home0 drop; }}; }}"
            ))
            .unwrap();
        ana.knock(&["wiki", "wiki6", "--only"])
            .unwrap()
            .success()
            .unwrap();
        place.assert_reaches_wiki(&ana);
        let page = serve::fetch(ana.space(), endpoint(SERVER6, WEB), REACHED).unwrap();
        assert_eq!(page, PAGE);
        assert_eq!(
            arriving
                .count(|packet| packet.source.is_ipv4() != alive_is_v4 && packet.is_knock_sized()),
            0
        );
        router.nft(&format!("delete table {dead} dead")).unwrap();
    }
    ana.run(&["close"]).unwrap().success().unwrap();
    place.assert_everything_closed();
}

/// A NAT with a pool of addresses gives every conversation the next one: knock and tunnel are one conversation, so the door
/// fits, and a neighbour who leaves by the very same address gets past nothing.
#[test]
fn behind_a_pool_of_addresses_the_door_is_the_conversations() {
    let (place, mut ana) = with_ana();
    let town = &place.town;
    town.router
        .ip("address add 198.51.100.2/24 dev wan\naddress add 198.51.100.3/24 dev wan\naddress add 198.51.100.4/24 dev wan")
        .unwrap();
    town.router
        .nft(
            "table ip pool {
               chain out {
                 type nat hook postrouting priority 90
                 ip saddr 192.168.0.0/16 oifname wan meta l4proto { tcp, udp } snat to numgen inc mod 4 map { 0 : 198.51.100.1, 1 : 198.51.100.2, 2 : 198.51.100.3, 3 : 198.51.100.4 }
               }
             }",
        )
        .unwrap();
    let sensor = Sensor::place(&town.gateway).unwrap();
    let mut seen = Vec::new();
    for _ in 0..2 {
        let arriving = town.tap_arriving().unwrap();
        ana.knock(&["wiki", "--only"]).unwrap().success().unwrap();
        place.assert_reaches_wiki(&ana);
        let knock = arriving
            .wait_for("the knock", REACHED, Packet::is_knock_sized)
            .unwrap();
        let tunnel = arriving
            .wait_for("the tunnel", REACHED, |packet| {
                packet.is_wireguard() && packet.source == knock.packet.source
            })
            .unwrap();
        seen.push(tunnel.packet.source.ip());
    }
    assert_ne!(seen[0], seen[1], "the pool gave another address");
    // By whichever address of the pool: of eight conversations each address gets two.
    let arriving = town.tap_arriving().unwrap();
    let own = |port| endpoint("192.168.8.10", port);
    let packets: Vec<_> = (0..8)
        .map(|number| marked(own(30_000 + number), endpoint(GATEWAY, PORT)))
        .collect();
    wire::send(&town.neighbour, &packets).unwrap();
    let is_marked = |packet: &Packet| packet.payload.len() == spa_tests::sensor::MARK;
    wait_until("they arrive", REACHED, || {
        (arriving.count(is_marked) == packets.len()).then_some(())
    })
    .unwrap();
    let same = arriving.count(|packet| is_marked(packet) && packet.source.ip() == seen[1]);
    assert!(same > 0, "one of them came by ana's address");
    assert_eq!(sensor.received().unwrap(), 0);
    place.assert_reaches_wiki(&ana);
}

/// A resource on the gateway itself is open in the tunnel, in both families, by its ports, to whom it was granted, while the
/// session lives; at the gateway's other addresses it is not there.
#[test]
fn a_resource_on_the_gateway_itself() {
    let resource = "[resource]\nadmin = { to = \"gateway\", ports = [\"2222/tcp\", \"icmp\"] }";
    let policy = POLICY
        .replace("[resource]", resource)
        .replace("to   = [\"db\"]", "to   = [\"db\", \"admin\"]");
    let (place, mut ana) = with_policy(&policy);
    let town = &place.town;
    let own = serve::database(&town.gateway, endpoint("::", 2222)).unwrap();
    let other = serve::database(&town.gateway, endpoint("::", 2223)).unwrap();
    ana.knock(&["wiki"]).unwrap().success().unwrap();
    assert!(serve::connect(ana.space(), endpoint("10.200.0.1", 2222), REFUSED).is_err());
    ana.knock(&["admin", "--only"]).unwrap().success().unwrap();
    for tunnel in ["10.200.0.1", "fd5a:1::1"] {
        let stream = serve::connect(ana.space(), endpoint(tunnel, 2222), REACHED).unwrap();
        assert_eq!(serve::greeting(stream).unwrap(), GREETING);
        assert!(serve::connect(ana.space(), endpoint(tunnel, 2223), REFUSED).is_err());
    }
    assert!(serve::ping(ana.space(), address("10.200.0.1"), REACHED).unwrap());
    for elsewhere in [GATEWAY, GATEWAY6, "10.0.5.1", "fd00:5::1"] {
        let reached = serve::connect(ana.space(), endpoint(elsewhere, 2222), REFUSED);
        assert!(reached.is_err(), "{elsewhere}");
    }
    place.assert_no_wiki(&ana);
    let mut held = serve::connect(ana.space(), endpoint("10.200.0.1", 2222), REACHED).unwrap();
    assert!(serve::is_alive(&mut held));
    place.gateway.ask(&["session", "cut", "ana"]).unwrap();
    place.assert_everything_closed();
    assert!(!serve::is_alive(&mut held));
    assert_eq!((own.accepted(), other.accepted()), (3, 0));
}

/// One address stands for two resources on two machines. Each is reached by it as far as it was granted, in both families;
/// what is taken away ends in the middle, and the other goes on.
#[test]
fn one_published_address_serves_several_resources() {
    let resources = format!(
        "[resource]
         portal   = {{ to = \"{SERVER}\", as = \"10.99.0.1\", ports = [\"443/tcp\"] }}
         portaldb = {{ to = \"10.0.5.20\", as = \"10.99.0.1\", ports = [\"5432/tcp\", \"icmp\"] }}
         portal6  = {{ to = \"{SERVER6}\", as = \"fd99::1\", ports = [\"443/tcp\"] }}"
    );
    let policy = POLICY
        .replace("[resource]", &resources)
        .replace("to   = [\"wiki\"]", "to   = [\"portal\", \"portal6\"]")
        .replace("to   = [\"db\"]", "to   = [\"portaldb\"]");
    let (mut place, mut ana) = with_policy(&policy);
    ana.knock(&["portal"]).unwrap().success().unwrap();
    let web = endpoint("10.99.0.1", WEB);
    let database = endpoint("10.99.0.1", DATABASE);
    assert_eq!(serve::fetch(ana.space(), web, REACHED).unwrap(), PAGE);
    assert!(serve::connect(ana.space(), database, REFUSED).is_err());
    ana.knock(&["portaldb", "portal6"])
        .unwrap()
        .success()
        .unwrap();
    assert_eq!(serve::fetch(ana.space(), web, REACHED).unwrap(), PAGE);
    let six = serve::fetch(ana.space(), endpoint("fd99::1", WEB), REACHED);
    assert_eq!(six.unwrap(), PAGE);
    let mut held = serve::connect(ana.space(), database, REACHED).unwrap();
    assert!(serve::is_alive(&mut held));
    assert!(serve::ping(ana.space(), database.ip(), REACHED).unwrap());
    // The client is told of the address alone: to the machines' own it has no way.
    place.assert_no_wiki(&ana);
    let routes = ana.space().output("ip", &["route"]).unwrap();
    assert!(
        routes.contains("10.99.0.1") && !routes.contains("10.0.5."),
        "{routes}"
    );

    let without = policy.replace("to   = [\"portaldb\"]", "to   = [\"wiki\"]");
    put_in_force(&mut place, &without);
    wait_until("the database is closed", REACHED, || {
        let open = place.gateway.openings().ok()?;
        let gone = !open.iter().any(|opening| opening.contains("5432"));
        gone.then_some(())
    })
    .unwrap();
    assert!(!serve::is_alive(&mut held));
    assert!(!serve::ping(ana.space(), database.ip(), REFUSED).unwrap());
    assert_eq!(serve::fetch(ana.space(), web, REACHED).unwrap(), PAGE);
    ana.run(&["close"]).unwrap().success().unwrap();
    place.assert_everything_closed();
}

/// A resource in a network behind another router, which knows no way back to the tunnel: a static route leads there, and the
/// gateway's own address back. At the end nothing of it is left, translated or not.
#[test]
fn a_resource_behind_a_static_route_and_masquerade() {
    let town = Town::build().unwrap();
    let mut gateway = Gateway::init(&town).unwrap();
    gateway
        .configure(|config| config["firewall"]["masquerade"] = value(true))
        .unwrap();
    gateway
        .write_policy(&POLICY.replace("\"10.0.5.10\"", "\"10.9.0.10\""))
        .unwrap();
    town.gateway
        .ip("route add 10.9.0.0/24 via 10.0.5.10")
        .unwrap();
    town.lan
        .ip("address add 10.9.0.10/32 dev lo\nroute delete default")
        .unwrap();
    gateway.start().unwrap();
    let mut ana = Person::enrolled(&gateway, &town.client, "ana").unwrap();
    let place = Place { gateway, town };
    ana.knock(&["wiki"]).unwrap().success().unwrap();
    let arriving = wire::Wire::tap(&place.town.lan, "eth0", wire::Direction::Incoming).unwrap();
    let page = serve::fetch(ana.space(), endpoint("10.9.0.10", WEB), REACHED).unwrap();
    assert_eq!(page, PAGE);
    let own = address("10.0.5.1");
    arriving
        .wait_for("it comes from the gateway", REACHED, |packet| {
            packet.source.ip() == own
        })
        .unwrap();
    let others: Vec<_> = arriving
        .so_far()
        .into_iter()
        .map(|seen| seen.packet)
        .filter(|packet| packet.source.is_ipv4() && packet.source.ip() != own)
        .collect();
    assert!(others.is_empty(), "{others:?}");
    let stream = serve::Stream::watch(ana.space(), endpoint("10.9.0.10", WEB), REACHED).unwrap();
    wait_until("it flows", REACHED, || {
        (stream.last().0 > 100).then_some(())
    })
    .unwrap();
    place.gateway.ask(&["session", "cut", "ana"]).unwrap();
    stream.stopped(SILENT, REACHED).expect("the stream ends");
    place.assert_everything_closed();
}

/// The uplink goes down and comes back, and knocks are heard as before; it vanishes and another of its name comes, and the
/// gateway ends with a line that says so: started again, it hears.
#[test]
fn an_uplink_that_comes_back_is_heard() {
    let (mut place, mut ana) = with_short_sessions("1h");
    place.town.gateway.ip("link set eth0 down").unwrap();
    wait_until("it is noticed", REACHED, || {
        let said = place.gateway.daemon().said();
        said.contains("no knocks from this interface").then_some(())
    })
    .unwrap();
    let up = "link set eth0 up\nroute add default via 198.51.100.1";
    place.town.gateway.ip(up).unwrap();
    ana.knock(&["wiki"]).unwrap().success().unwrap();
    place.assert_reaches_wiki(&ana);

    let (router, gateway) = (&place.town.router, &place.town.gateway);
    gateway.ip("link delete eth0").unwrap();
    router
        .ip(&format!(
            "link add wan type veth peer name eth0 netns {}\naddress add 198.51.100.1/24 dev wan\nlink set wan up",
            gateway.name()
        ))
        .unwrap();
    let ended = place.gateway.wait_for_end(REACHED).unwrap();
    assert!(ended.err.contains("was made anew"), "{}", ended.err);
    place
        .town
        .gateway
        .ip(&format!("address add {GATEWAY}/24 dev eth0\n{up}"))
        .unwrap();
    // Dark meanwhile.
    let findings = place.town.scanner().oddities(address(GATEWAY), PORT);
    assert!(findings.unwrap().is_silent());
    place.gateway.start().unwrap();
    ana.knock(&["wiki", "--only"]).unwrap().success().unwrap();
    place.assert_reaches_wiki(&ana);
}

/// The datagram behind one extension header of eight bytes (RFC 8200 §4.1).
fn behind_extension(packet: &[u8], kind: u8) -> Vec<u8> {
    let udp = packet[6];
    let header = match kind {
        // Identification; offset 0 and no more to come.
        44 => [udp, 0, 0, 0, 0x77, 0x77, 0x77, 0x77],
        // Padding of six bytes.
        _ => [udp, 0, 1, 4, 0, 0, 0, 0],
    };
    let mut packet = [&packet[..40], &header, &packet[40..]].concat();
    packet[6] = kind;
    let length = u16::try_from(packet.len() - 40).expect("short");
    packet[4..6].copy_from_slice(&length.to_be_bytes());
    packet
}

/// What a machine finds in its `/etc/hosts`, as `ip netns exec` shows it to programs.
struct Names(PathBuf);

impl Names {
    fn of(space: &Namespace, hosts: &str) -> Self {
        let folder = PathBuf::from("/etc/netns").join(space.name());
        fs::create_dir_all(&folder).unwrap();
        fs::write(folder.join("hosts"), hosts).unwrap();
        Self(folder)
    }
}

impl Drop for Names {
    fn drop(&mut self) {
        let _left_behind = fs::remove_dir_all(&self.0);
    }
}
