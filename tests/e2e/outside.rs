//! The outside as it is: IPv6, lost packets, addresses that run out.

use spa_tests::gateway::Gateway;
use spa_tests::net::Namespace;
use spa_tests::packet::Packet;
use spa_tests::person::{Person, invite};
use spa_tests::topology::{GATEWAY6, Town};
use toml_edit::value;

use crate::fixture::{Place, policy_for, with_ana};

/// A client that reaches the gateway over IPv6 enrols, knocks and works as over IPv4.
#[test]
fn over_ipv6_it_is_the_same() {
    let town = Town::build().unwrap();
    let mut gateway = Gateway::init(&town).unwrap();
    gateway
        .configure(|config| config["knock"]["public"] = value(format!("[{GATEWAY6}]:51820")))
        .unwrap();
    gateway.start().unwrap();
    let mut ana = Person::enrolled(&gateway, &town.client, "ana").unwrap();
    let place = Place { gateway, town };
    let arriving = place.town.tap_arriving().unwrap();
    ana.knock(&["wiki"]).unwrap().success().unwrap();
    place.assert_reaches_wiki(&ana);
    let knocks = arriving.count(|packet| packet.is_knock_sized() && packet.source.is_ipv6());
    assert!(knocks >= 1);
    assert_eq!(arriving.count(|packet| packet.source.is_ipv4()), 0);
    ana.run(&["close"]).unwrap().success().unwrap();
    place.assert_everything_closed();
}

/// Where the machine has WireGuard in its kernel, which `make test-vm` sees to, that is what is used, on both sides.
#[test]
fn the_kernels_wireguard_is_used_where_there_is_one() {
    let (place, mut ana) = with_ana();
    ana.knock(&["wiki"]).unwrap().success().unwrap();
    let backend = place.gateway.ask_json(&["status"]).unwrap()["wireguard"].clone();
    let links = |space: &Namespace| space.output("ip", &["link", "show", "type", "wireguard"]);
    let (gateway, client) = (
        links(&place.town.gateway).unwrap(),
        links(ana.space()).unwrap(),
    );
    let kernels = (gateway.contains("spa0"), !client.is_empty());
    if std::env::var_os("SPA_TEST_BACKEND").is_some_and(|wanted| wanted == "kernel") {
        assert_eq!((backend, kernels), ("kernel".into(), (true, true)));
    } else if backend == "embedded" {
        assert_eq!(kernels, (false, false), "{gateway}{client}");
    }
    place.assert_reaches_wiki(&ana);
}

/// When the first reply is lost the client's next packet gets another one, and the session works.
#[test]
fn a_lost_reply_heals_by_repeat() {
    let (place, mut ana) = with_ana();
    // The first 512-byte packet towards the home (540 bytes with its headers) disappears, the others pass.
    place
        .town
        .router
        .nft(
            "table inet loss {
               chain replies {
                 type filter hook forward priority 0
                 iifname wan udp length 520 quota until 600 bytes drop
               }
             }",
        )
        .unwrap();
    let leaving = place.town.tap_leaving().unwrap();
    ana.knock(&["wiki"]).unwrap().success().unwrap();
    place.assert_reaches_wiki(&ana);
    assert!(leaving.count(Packet::is_knock_sized) >= 2);
    assert_eq!(place.gateway.sessions().unwrap().len(), 1);
}

/// When the pool has no address left a person is told so in one line, and nothing is half-open.
#[test]
fn a_full_pool_is_said_in_one_line() {
    let town = Town::build().unwrap();
    let mut gateway = Gateway::init(&town).unwrap();
    // 10.200.0.1 is the gateway's, .2 to .6 are for clients, and each is given once in ten minutes (SPEC §11): four enrolments
    // and one knock take them all.
    gateway
        .configure(|config| {
            let addresses: toml_edit::Array = ["10.200.0.1/29"].into_iter().collect();
            config["wireguard"]["addresses"] = value(addresses);
        })
        .unwrap();
    gateway.write_policy(&policy_for("1h")).unwrap();
    gateway.start().unwrap();
    let mut people = Vec::new();
    for (name, space) in [
        ("ana", &town.client),
        ("bo", &town.neighbour),
        ("cy", &town.client),
        ("di", &town.client),
    ] {
        gateway.ask(&["user", "add", name]).unwrap();
        let line = invite(&gateway, name, &["--no-confirm"]).unwrap();
        let person = Person::new(&gateway, space, name, "laptop").unwrap();
        people.push(person.enroll(&line).unwrap().person);
    }
    let place = Place { gateway, town };
    people[0].knock(&["wiki"]).unwrap().success().unwrap();
    people[1]
        .knock(&["wiki"])
        .unwrap()
        .refusal(1, &["no tunnel address is free"])
        .unwrap();
    place.assert_reaches_wiki(&people[0]);
    // The sessions of the enrolments reach nothing and wait for nobody; bo's knock has left none.
    let sessions = place.gateway.sessions().unwrap();
    let with_resources: Vec<_> = sessions
        .iter()
        .filter(|session| session["resources"] != serde_json::json!([]))
        .map(|session| session["user"].as_str().unwrap_or_default())
        .collect();
    assert_eq!(with_resources, ["ana"]);
}
