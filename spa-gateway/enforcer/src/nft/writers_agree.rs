//! libnftnl and the writer without it say the same to the kernel, byte for byte: what the live tests show of one holds
//! for the other.

use std::net::{Ipv4Addr, Ipv6Addr};
use std::num::NonZeroU16;

use spa_order::{Door, Flow, FlowTarget, Opening, Protocol};

use super::element;
use super::libnftnl::Library;
use super::message::{Element, Message, Writer};
use super::plain::Plain;
use super::sets::{NAMES, SETS, keep_open_shape, knock_shape, sets_of};
use super::table::{AccessLog, Masquerade, Mode, Plan, Port, contents, naming};

/// Asserts it of one message.
fn agree(message: &Message<'_>) {
    let (mut by_library, mut plain) = (Vec::new(), Vec::new());
    // A new buffer for each: libnftnl leaves what was there before between attributes.
    Library::new().append(&mut by_library, message, 0x0102_0304);
    Plain::new().append(&mut plain, message, 0x0102_0304);
    assert_eq!(plain, by_library, "{message:?}");
}

fn plan(masquerade: Masquerade, keep_open: Vec<Port>, access_log: AccessLog) -> Plan {
    Plan {
        mode: Mode::Own,
        knock: vec!["eth0".into(), "a-long-name-000".into()],
        knock_port: 51_820,
        tunnel: "spa0".into(),
        wireguard_port: 443,
        addresses: vec![
            (Ipv4Addr::new(10, 200, 0, 1).into(), 16),
            (Ipv6Addr::new(0xfd5a, 1, 0, 0, 0, 0, 0, 1).into(), 64),
        ],
        keep_open,
        masquerade,
        access_log,
    }
}

#[test]
fn on_every_message_that_makes_a_table() {
    let ssh = Port {
        protocol: 6,
        port: 22,
    };
    let mut messages = 0;
    for plan in [
        plan(Masquerade::No, Vec::new(), AccessLog::Off),
        plan(Masquerade::Yes, vec![ssh], AccessLog::On),
    ] {
        contents(&plan, |message| {
            agree(message);
            messages += 1;
        });
        naming(&plan, agree);
    }
    assert!(messages > 2 * SETS.len(), "{messages} messages");
    for message in [
        Message::Begin,
        Message::NewTable,
        Message::DeleteTable,
        Message::End,
    ] {
        agree(&message);
    }
}

#[test]
fn on_every_message_about_elements() {
    let flow = |ports, prefix| Flow {
        tunnel: Ipv4Addr::new(10, 200, 0, 7).into(),
        to: FlowTarget::Forward,
        destination: Ipv4Addr::new(10, 0, 5, 0).into(),
        prefix,
        protocol: Protocol::Tcp,
        ports,
        published: None,
    };
    for opening in [
        Opening::Door(Door {
            source: Ipv6Addr::LOCALHOST.into(),
            port: NonZeroU16::new(40_000),
        }),
        Opening::Flow(flow((443, 443), 32)),
        Opening::Flow(flow((1, 65_535), 24)),
    ] {
        let (content, family, key) = element::key(&opening);
        for set in sets_of(content, family) {
            let shape = set.shape();
            let new = Element {
                key: key.first.clone(),
                key_end: key.last.clone(),
                timeout_ms: Some(10_000),
                data: None,
            };
            let old = Element {
                timeout_ms: None,
                ..new.clone()
            };
            agree(&Message::AddElements(&shape, std::slice::from_ref(&new)));
            agree(&Message::DeleteElement(&shape, &old));
            agree(&Message::EmptySet(&shape));
            agree(&Message::GetElement(&shape, &old));
            agree(&Message::DumpElements(&shape));
        }
    }
    for map in &NAMES {
        let shape = map.shape();
        let (key, data) = (vec![7; 16], Some(vec![10, 0, 5, 10]));
        let name = Element {
            key,
            key_end: None,
            timeout_ms: Some(10_000),
            data,
        };
        agree(&Message::AddElements(&shape, std::slice::from_ref(&name)));
    }
    for shape in [knock_shape(), keep_open_shape()] {
        agree(&Message::DumpElements(&shape));
    }
}
