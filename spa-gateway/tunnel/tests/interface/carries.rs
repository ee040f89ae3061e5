//! What an interface promises about packets and peers, on real packets between two namespaces.

use std::time::{Duration, Instant};

use crate::support::{
    PATIENCE, PORT, arrives, backend, client_peer, gateway_peer, ip, lab_or_return, pair,
    route_to_gateway,
};
use spa_wireguard::{BackendChoice, Peer, WireguardError};

/// Long enough for a packet that could pass to have passed many times over.
const NEVER: Duration = Duration::from_millis(400);

#[test]
fn packets_pass_both_ways_in_both_families_over_both_families() {
    for endpoint in ["192.0.2.1:51820", "[2001:db8::1]:51820"] {
        let lab = lab_or_return!();
        let (mut gateway, mut client) = (lab.gateway_interface(), lab.client_interface());
        gateway.put_peer(&client_peer(7)).expect("a peer");
        client.put_peer(&gateway_peer(7, endpoint)).expect("a peer");
        let seen = client
            .wait_handshake(&pair(1).public, Instant::now() + PATIENCE)
            .expect("a handshake");
        assert_eq!(seen.endpoint, endpoint.parse().ok());
        route_to_gateway(&mut client);
        for (inner_gateway, inner_client) in [
            ("10.200.0.1:9", "10.200.0.2:9"),
            ("[fd5a:1::1]:9", "[fd5a:1::2]:9"),
        ] {
            let (here, there) = (
                lab.client.socket(inner_client),
                lab.gateway.socket(inner_gateway),
            );
            assert!(
                arrives(&here, &there, PATIENCE),
                "{inner_client} to {inner_gateway} over {endpoint}"
            );
            assert!(
                arrives(&there, &here, PATIENCE),
                "{inner_gateway} to {inner_client} over {endpoint}"
            );
        }
        let peer = gateway
            .peer(&pair(2).public)
            .expect("an answer")
            .expect("the peer");
        assert_eq!(peer.endpoint.map(|endpoint| endpoint.port()), Some(40001));
        assert!(
            peer.handshake_age.is_some_and(|age| age < PATIENCE),
            "{peer:?}"
        );
        assert!(peer.rx > 0 && peer.tx > 0, "{peer:?}");
    }
}

#[test]
fn the_handshake_begins_with_the_peer_and_not_with_traffic() {
    let lab = lab_or_return!();
    let (mut gateway, mut client) = (lab.gateway_interface(), lab.client_interface());
    gateway.put_peer(&client_peer(7)).expect("a peer");
    let begun = Instant::now();
    client
        .put_peer(&gateway_peer(7, "192.0.2.1:51820"))
        .expect("a peer");
    client
        .wait_handshake(&pair(1).public, begun + PATIENCE)
        .expect("a handshake without a packet or a route");
    eprintln!("put_peer to handshake done: {:?}", begun.elapsed());
}

#[test]
fn a_wrong_preshared_key_never_completes_a_handshake() {
    let lab = lab_or_return!();
    let (mut gateway, mut client) = (lab.gateway_interface(), lab.client_interface());
    gateway.put_peer(&client_peer(7)).expect("a peer");
    client
        .put_peer(&gateway_peer(8, "192.0.2.1:51820"))
        .expect("a peer");
    let waited = client.wait_handshake(&pair(1).public, Instant::now() + NEVER);
    assert!(
        matches!(waited, Err(WireguardError::NoHandshake)),
        "{waited:?}"
    );
    route_to_gateway(&mut client);
    let (here, there) = (
        lab.client.socket("10.200.0.2:9"),
        lab.gateway.socket("10.200.0.1:9"),
    );
    assert!(!arrives(&here, &there, NEVER));
}

/// A new preshared key for a peer that lives breaks nothing that flows, and the next handshake takes it and no other.
#[test]
fn a_preshared_key_is_replaced_under_a_live_session() {
    let lab = lab_or_return!();
    let (mut gateway, mut client) = (lab.gateway_interface(), lab.client_interface());
    gateway.put_peer(&client_peer(7)).expect("a peer");
    client
        .put_peer(&gateway_peer(7, "192.0.2.1:51820"))
        .expect("a peer");
    client
        .wait_handshake(&pair(1).public, Instant::now() + PATIENCE)
        .expect("a handshake");
    route_to_gateway(&mut client);
    let (here, there) = (
        lab.client.socket("10.200.0.2:9"),
        lab.gateway.socket("10.200.0.1:9"),
    );
    assert!(arrives(&here, &there, PATIENCE));
    gateway
        .set_psk(&pair(2).public, &[9; 32].into())
        .expect("a new key");
    // The keys of the handshake before go on, both ways.
    assert!(arrives(&here, &there, PATIENCE));
    assert!(arrives(&there, &here, PATIENCE));
    // A handshake with the old one comes to nothing; one with the new one does.
    client.remove_peer(&pair(1).public).expect("removed");
    client
        .put_peer(&gateway_peer(7, "192.0.2.1:51820"))
        .expect("a peer");
    let old = client.wait_handshake(&pair(1).public, Instant::now() + NEVER);
    assert!(matches!(old, Err(WireguardError::NoHandshake)), "{old:?}");
    client.remove_peer(&pair(1).public).expect("removed");
    client
        .put_peer(&gateway_peer(9, "192.0.2.1:51820"))
        .expect("a peer");
    client
        .wait_handshake(&pair(1).public, Instant::now() + PATIENCE)
        .expect("a handshake with the new key");
    // For a peer that is not there it is not refused, and makes none.
    gateway
        .set_psk(&pair(3).public, &[9; 32].into())
        .expect("nothing to do");
    let known = gateway.peers().expect("a list");
    assert_eq!(known.len(), 1);
}

#[test]
fn a_removed_peer_is_cut_off_at_once() {
    let lab = lab_or_return!();
    let (mut gateway, mut client) = (lab.gateway_interface(), lab.client_interface());
    gateway.put_peer(&client_peer(7)).expect("a peer");
    client
        .put_peer(&gateway_peer(7, "192.0.2.1:51820"))
        .expect("a peer");
    route_to_gateway(&mut client);
    let (here, there) = (
        lab.client.socket("10.200.0.2:9"),
        lab.gateway.socket("10.200.0.1:9"),
    );
    assert!(arrives(&here, &there, PATIENCE));
    gateway.remove_peer(&pair(2).public).expect("removed");
    while there.recv(&mut [0; 16]).is_ok() {}
    assert!(!arrives(&here, &there, NEVER));
    assert_eq!(gateway.peer(&pair(2).public).expect("an answer"), None);
    gateway
        .remove_peer(&pair(2).public)
        .expect("removing what is not there is done");
    let waited = gateway.wait_handshake(&pair(2).public, Instant::now() + PATIENCE);
    assert!(
        matches!(waited, Err(WireguardError::NoPeer { .. })),
        "{waited:?}"
    );
}

#[test]
fn a_peer_put_again_keeps_nothing_of_the_one_before() {
    let lab = lab_or_return!();
    let (mut gateway, mut client) = (lab.gateway_interface(), lab.client_interface());
    gateway.put_peer(&client_peer(7)).expect("a peer");
    client
        .put_peer(&gateway_peer(7, "192.0.2.1:51820"))
        .expect("a peer");
    client
        .wait_handshake(&pair(1).public, Instant::now() + PATIENCE)
        .expect("a handshake");
    route_to_gateway(&mut client);
    let moved = [(ip("10.200.0.3"), 32)];
    gateway
        .put_peer(&Peer {
            allowed: &moved,
            ..client_peer(8)
        })
        .expect("a peer");
    let fresh = gateway
        .peer(&pair(2).public)
        .expect("an answer")
        .expect("the peer");
    assert_eq!(
        (fresh.handshake_age, fresh.endpoint, fresh.rx),
        (None, None, 0)
    );
    // The old session, and the old preshared key, are worth nothing.
    let (here, there) = (
        lab.client.socket("10.200.0.2:9"),
        lab.gateway.socket("10.200.0.1:9"),
    );
    assert!(!arrives(&here, &there, NEVER));
    // With the new preshared key the handshake succeeds, and the old address is still not its own.
    client
        .put_peer(&gateway_peer(8, "192.0.2.1:51820"))
        .expect("a peer");
    client
        .wait_handshake(&pair(1).public, Instant::now() + PATIENCE)
        .expect("a handshake");
    assert!(!arrives(&here, &there, NEVER));
    gateway.put_peer(&client_peer(8)).expect("a peer");
    client
        .put_peer(&gateway_peer(8, "192.0.2.1:51820"))
        .expect("a peer");
    assert!(arrives(&here, &there, PATIENCE));
}

#[test]
fn the_endpoint_follows_a_client_that_roams() {
    let lab = lab_or_return!();
    let (mut gateway, mut client) = (lab.gateway_interface(), lab.client_interface());
    gateway.put_peer(&client_peer(7)).expect("a peer");
    client
        .put_peer(&gateway_peer(7, "192.0.2.1:51820"))
        .expect("a peer");
    route_to_gateway(&mut client);
    let (here, there) = (
        lab.client.socket("10.200.0.2:9"),
        lab.gateway.socket("10.200.0.1:9"),
    );
    assert!(arrives(&here, &there, PATIENCE));
    lab.client.ip("addr add 192.0.2.77/24 dev out0");
    lab.client.ip("addr delete 192.0.2.2/24 dev out0");
    lab.client.ip("addr replace 192.0.2.77/24 dev out0");
    assert!(arrives(&here, &there, PATIENCE));
    assert!(arrives(&there, &here, PATIENCE));
    let peer = gateway
        .peer(&pair(2).public)
        .expect("an answer")
        .expect("the peer");
    assert_eq!(peer.endpoint, "192.0.2.77:40001".parse().ok());
}

#[test]
fn spa_tunnel_outlives_a_link_that_was_down_and_carries_again() {
    if backend() == BackendChoice::Kernel {
        eprintln!(
            "NOT RUN: the kernel forgets its sessions, and the client notices after 15 seconds"
        );
        return;
    }
    let lab = lab_or_return!();
    let (mut gateway, mut client) = (lab.gateway_interface(), lab.client_interface());
    gateway.put_peer(&client_peer(7)).expect("a peer");
    client
        .put_peer(&gateway_peer(7, "192.0.2.1:51820"))
        .expect("a peer");
    route_to_gateway(&mut client);
    let (here, there) = (
        lab.client.socket("10.200.0.2:9"),
        lab.gateway.socket("10.200.0.1:9"),
    );
    assert!(arrives(&here, &there, PATIENCE));
    lab.gateway.ip("link set spa0 down");
    assert!(!arrives(&here, &there, NEVER));
    gateway.check().expect("it lives");
    lab.gateway.ip("link set spa0 up");
    assert!(arrives(&here, &there, PATIENCE));
}

#[test]
fn a_thousand_peers_are_listed_each_once() {
    const COUNT: u16 = 1000;
    let lab = lab_or_return!();
    let mut gateway = lab.gateway_interface();
    let key = |number: u16| {
        let mut key = [3; 32];
        key[..2].copy_from_slice(&number.to_be_bytes());
        key
    };
    let begun = Instant::now();
    for number in 0..COUNT {
        let [high, low] = number.to_be_bytes();
        // Many networks each, so that a kernel has to spread one peer over two messages here and there.
        let allowed: Vec<_> = (0..8)
            .map(|net| (ip(&format!("10.{}.{high}.{low}", 100 + net)), 32))
            .collect();
        let peer = Peer {
            key: key(number),
            psk: [7; 32].into(),
            allowed: &allowed,
            endpoint: None,
            keepalive: None,
        };
        gateway.put_peer(&peer).expect("a peer");
    }
    let put = begun.elapsed();
    let begun = Instant::now();
    let peers = gateway.peers().expect("all peers");
    eprintln!(
        "put_peer, mean of {COUNT}: {:?}; list of {COUNT}: {:?}",
        put / u32::from(COUNT),
        begun.elapsed()
    );
    let begun = Instant::now();
    gateway
        .peer(&key(500))
        .expect("an answer")
        .expect("the peer");
    eprintln!("peer() among {COUNT}: {:?}", begun.elapsed());
    assert!(peers.iter().map(|peer| peer.key).eq((0..COUNT).map(key)));
}

#[test]
fn a_route_goes_in_once_and_never_takes_anothers_place() {
    let lab = lab_or_return!();
    let mut client = lab.client_interface();
    for network in [(ip("10.9.0.0"), 16), (ip("fd99::"), 48)] {
        client.add_route(network.0, network.1).expect("a route");
        client
            .add_route(network.0, network.1)
            .expect("once more is the same");
        client.remove_route(network.0, network.1).expect("gone");
        client
            .remove_route(network.0, network.1)
            .expect("gone already");
    }
    assert!(!lab.client.shows("route show").contains("10.9.0.0"));
    assert!(!lab.client.shows("-6 route show").contains("fd99"));
    lab.client.ip("route add 10.9.0.0/16 dev out0");
    let taken = client.add_route(ip("10.9.0.0"), 16);
    assert!(
        matches!(taken, Err(WireguardError::RouteTaken { prefix: 16, .. })),
        "{taken:?}"
    );
    client
        .remove_route(ip("10.9.0.0"), 16)
        .expect("ours is not there");
    assert!(
        lab.client
            .shows("route show")
            .contains("10.9.0.0/16 dev out0")
    );
}

#[test]
fn an_adopted_kernel_interface_keeps_its_peers_and_their_sessions() {
    if backend() != BackendChoice::Kernel {
        eprintln!("NOT RUN: only a kernel's interface outlives its owner");
        return;
    }
    let lab = lab_or_return!();
    let (mut gateway, mut client) = (lab.gateway_interface(), lab.client_interface());
    gateway.put_peer(&client_peer(7)).expect("a peer");
    client
        .put_peer(&gateway_peer(7, "192.0.2.1:51820"))
        .expect("a peer");
    client
        .wait_handshake(&pair(1).public, Instant::now() + PATIENCE)
        .expect("a handshake");
    let index = gateway.index();
    drop(gateway);
    let addresses = [(ip("10.200.0.1"), 16)];
    let mut gateway = lab
        .gateway
        .create("spa0", PORT, &addresses)
        .expect("adopted");
    gateway
        .set_private_key(&pair(1).private)
        .expect("the same key");
    assert_eq!(gateway.index(), index);
    assert!(
        gateway
            .peers()
            .expect("peers")
            .first()
            .is_some_and(|peer| peer.handshake_age.is_some())
    );
    let shown = lab.gateway.shows("addr show dev spa0");
    assert!(
        shown.contains("10.200.0.1/16") && !shown.contains("fd5a"),
        "{shown}"
    );
}
