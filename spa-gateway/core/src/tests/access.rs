//! The access log: names, bounds, and what is not written is said.

use alloc::vec::Vec;
use core::net::IpAddr;

use spa_order::{Connections, Told};

use super::policy::{RESOURCES, live, rig};
use super::rig::{Device, Rig};
use crate::{AccessKind, AccessRecord, Bytes, Connection, MAX_CONNECTIONS_WAITING, Traffic};

fn https(rig: &Rig, device: &Device, port: u16) -> Connection {
    Connection {
        tunnel: rig.tunnel_of(device.session_id()),
        tunnel_port: port,
        destination: IpAddr::from([10, 0, 5, 10]),
        protocol: 6,
        port: 443,
    }
}

fn hear(rig: &mut Rig, seen: &[Traffic]) {
    rig.gateway.handle_traffic(seen, rig.now);
    rig.run();
}

fn of(rig: &Rig, kind: AccessKind) -> Vec<&AccessRecord> {
    rig.accesses
        .iter()
        .filter(|line| line.kind == kind)
        .collect()
}

fn open() -> (Rig, Device) {
    let mut bot = Device::of("bot", 7);
    let mut rig = rig(&bot, RESOURCES);
    live(&mut rig, &mut bot, &["wiki"]);
    (rig, bot)
}

#[test]
fn a_connection_has_names_at_its_beginning_and_its_bytes_at_its_end() {
    let (mut rig, bot) = open();
    let connection = https(&rig, &bot, 40_000);
    let bytes = Bytes {
        sent: 700,
        received: 9_000,
    };
    hear(&mut rig, &[Traffic::Began(connection)]);
    // Its session is over before its end is heard of.
    rig.pass_secs(2 * 24 * 60 * 60);
    hear(&mut rig, &[Traffic::Ended(connection, Some(bytes))]);
    let kinds: Vec<_> = rig.accesses.iter().map(|line| line.kind).collect();
    assert_eq!(kinds, [AccessKind::Allowed, AccessKind::Ended]);
    for line in &rig.accesses {
        assert_eq!(line.person.as_ref().map(crate::Name::as_str), Some("bot"));
        assert_eq!(
            line.resource.as_ref().map(crate::Name::as_str),
            Some("wiki")
        );
        assert!(line.rule.is_some() && line.connection == Some(connection));
    }
    assert_eq!(rig.accesses[1].bytes, Some(bytes));
    // An end without a beginning, and an end twice, are nothing.
    hear(&mut rig, &[Traffic::Ended(connection, None)]);
    assert_eq!(rig.accesses.len(), 2);
}

#[test]
fn a_scan_fills_its_own_bucket_only_and_what_is_not_written_is_said() {
    let (mut rig, bot) = open();
    let connection = https(&rig, &bot, 40_000);
    let scan = (1..=1_000).map(|port| Traffic::Refused(Connection { port, ..connection }));
    let mut seen: Vec<_> = scan.collect();
    seen.push(Traffic::Began(connection));
    hear(&mut rig, &seen);
    let written = of(&rig, AccessKind::Refused).len();
    assert_eq!(written, 20);
    assert_eq!(of(&rig, AccessKind::Allowed).len(), 1);
    rig.pass_secs(6);
    let said = of(&rig, AccessKind::NotLogged);
    assert_eq!(said.len(), 1);
    assert_eq!(said[0].more, Some(980));
    assert!(said[0].session == Some(bot.session_id()));
    // The bucket fills again, slowly.
    rig.pass_secs(60);
    hear(&mut rig, &seen[..5]);
    assert_eq!(of(&rig, AccessKind::Refused).len(), written + 5);
}

#[test]
fn what_the_kernel_did_not_tell_is_said_once() {
    let (mut rig, bot) = open();
    let connection = https(&rig, &bot, 40_000);
    rig.kernel.connections = Connections {
        allowed: Told { all: 3, told: 3 },
        refused: Told {
            all: 90_000,
            told: 2_000,
        },
    };
    hear(&mut rig, &[Traffic::Refused(connection), Traffic::Lost]);
    rig.pass_secs(6);
    let said: Vec<_> = of(&rig, AccessKind::NotLogged)
        .iter()
        .map(|line| line.more)
        .collect();
    assert_eq!(said, [None, Some(88_000)]);
    hear(&mut rig, &[Traffic::Refused(connection)]);
    rig.pass_secs(6);
    assert_eq!(of(&rig, AccessKind::NotLogged).len(), 2);
}

#[test]
fn nobody_waits_for_more_ends_than_there_is_room_for() {
    let (mut rig, bot) = open();
    let connection = https(&rig, &bot, 0);
    for at in 0..MAX_CONNECTIONS_WAITING + 500 {
        let next = Connection {
            tunnel_port: u16::try_from(at).expect("fits"),
            ..connection
        };
        rig.pass_secs(1);
        hear(&mut rig, &[Traffic::Began(next)]);
    }
    // Of the first ones nobody waits for the end any more; of the last ones somebody does.
    let before = of(&rig, AccessKind::Ended).len();
    hear(&mut rig, &[Traffic::Ended(connection, None)]);
    assert_eq!(of(&rig, AccessKind::Ended).len(), before);
    let last = u16::try_from(MAX_CONNECTIONS_WAITING + 499).expect("fits");
    let last = Connection {
        tunnel_port: last,
        ..connection
    };
    hear(&mut rig, &[Traffic::Ended(last, None)]);
    assert_eq!(of(&rig, AccessKind::Ended).len(), before + 1);
}

#[test]
fn the_control_channel_and_addresses_of_nobody_are_not_in_it() {
    let (mut rig, bot) = open();
    let connection = https(&rig, &bot, 40_000);
    let control = Connection {
        destination: IpAddr::from([10, 200, 0, 1]),
        port: 8_700,
        ..connection
    };
    let nobody = Connection {
        tunnel: IpAddr::from([10, 200, 200, 200]),
        ..connection
    };
    hear(&mut rig, &[Traffic::Began(control), Traffic::Began(nobody)]);
    // With a datagram to its port a client finds its way, which nothing is to answer.
    let way = Connection {
        protocol: 17,
        ..control
    };
    hear(&mut rig, &[Traffic::Refused(nobody), Traffic::Refused(way)]);
    assert!(rig.accesses.is_empty(), "{:?}", rig.accesses);
    let elsewhere = Connection {
        destination: IpAddr::from([10, 0, 5, 10]),
        ..way
    };
    hear(&mut rig, &[Traffic::Refused(elsewhere)]);
    assert_eq!(of(&rig, AccessKind::Refused).len(), 1);
}
