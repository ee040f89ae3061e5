//! Every bound is reached once, and what lies beyond it is refused, not dropped silently or grown.

use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;
use core::time::Duration;

use super::rig::{Device, Rig, settings, store_of};
use crate::policy::Policy;
use crate::{Refusal, Settings};

fn packet(rig: &Rig, device: &mut Device) -> [u8; 512] {
    let ask = rig.open_ask(device, &["wiki"]);
    let (info, ext) = device.request(ask, rig.now).encode().expect("fits");
    device.build(&info, &ext, rig.now).packet
}

#[test]
fn a_flood_under_one_key_delays_another_device_by_one_knock() {
    let mut flood = Device::of("bot", 1);
    let mut honest = Device::of("bot", 2);
    let mut rig = Rig::with(&[&flood, &honest]);
    for _ in 0..6 {
        let packet = packet(&rig, &mut flood);
        rig.take_in(&packet, flood.source).expect("queued");
    }
    let waiting = packet(&rig, &mut honest);
    rig.take_in(&waiting, honest.source).expect("queued");
    assert_eq!(rig.gateway.waiting_knocks(), 2);
    assert_eq!(rig.count(Refusal::PushedOut), 5);
    let late = packet(&rig, &mut flood);
    assert_eq!(rig.take_in(&late, flood.source), Err(Refusal::MessageRate));
    assert_eq!(
        rig.gateway.handle_work(rig.now, &mut rig.entropy),
        Some(Ok(()))
    );
    assert_eq!(
        rig.gateway.handle_work(rig.now, &mut rig.entropy),
        Some(Ok(()))
    );
    assert_eq!(rig.gateway.handle_work(rig.now, &mut rig.entropy), None);
}

#[test]
fn turns_go_round_and_a_newer_knock_keeps_the_turn_of_the_older() {
    let mut devices: Vec<Device> = (1..=3).map(|number| Device::of("bot", number)).collect();
    let mut rig = Rig::with(&devices.iter().collect::<Vec<_>>());
    let queue = |rig: &mut Rig, device: &mut Device| {
        let packet = packet(rig, device);
        rig.take_in(&packet, device.source).expect("queued");
    };
    let serve_one = |rig: &mut Rig| {
        let worked = rig.gateway.handle_work(rig.now, &mut rig.entropy);
        assert_eq!(worked, Some(Ok(())));
        while let Some(effect) = rig.gateway.poll_effect() {
            rig.perform(effect);
        }
    };
    let served = |rig: &Rig, device: &Device| rig.kernel.peers.contains_key(&device.wg_key);
    devices
        .iter_mut()
        .for_each(|device| queue(&mut rig, device));
    queue(&mut rig, &mut devices[1]);
    serve_one(&mut rig);
    assert!(served(&rig, &devices[0]));
    // The first one again: behind the two that wait.
    queue(&mut rig, &mut devices[0]);
    serve_one(&mut rig);
    assert!(served(&rig, &devices[1]));
    serve_one(&mut rig);
    assert!(served(&rig, &devices[2]));
    assert!(!served(&rig, &devices[0]), "its turn is still to come");
}

#[test]
fn a_credential_with_something_under_way_waits_its_turn_and_others_do_not() {
    let mut first = Device::of("bot", 1);
    let mut second = Device::of("bot", 2);
    let mut rig = Rig::with(&[&first, &second]);
    let opened = packet(&rig, &mut first);
    rig.take_in(&opened, first.source).expect("queued");
    rig.work();
    for device in [&mut first, &mut second] {
        let packet = packet(&rig, device);
        rig.take_in(&packet, device.source).expect("queued");
    }
    rig.work();
    assert_eq!(
        rig.gateway.waiting_knocks(),
        1,
        "the first one's record is not on disk yet"
    );
    rig.run();
    assert_eq!(rig.gateway.waiting_knocks(), 0);
    assert_eq!(rig.kernel.peers.len(), 2);
}

#[test]
fn the_last_place_is_given_and_the_next_one_is_refused() {
    let mut devices: Vec<Device> = (1..=3).map(|number| Device::of("bot", number)).collect();
    let full = Settings {
        capacity: 2,
        ..settings()
    };
    let mut rig = Rig::restored(store_of(&devices.iter().collect::<Vec<_>>()), full);
    assert!(rig.open(&mut devices[0], &["wiki"]).is_some());
    assert!(rig.open(&mut devices[1], &["wiki"]).is_some());
    assert!(rig.open(&mut devices[2], &["wiki"]).is_none());
    assert_eq!(rig.count(Refusal::Capacity), 1);
    assert!(
        rig.open(&mut devices[0], &["wiki"]).is_some(),
        "one that replaces its own does not count"
    );
}

#[test]
fn a_full_pool_is_capacity_and_every_address_is_given_once() {
    let mut devices: Vec<Device> = (1..=6).map(|number| Device::of("bot", number)).collect();
    let small = Settings {
        tunnel4: Some((core::net::Ipv4Addr::new(10, 200, 0, 1), 29)),
        tunnel6: None,
        ..settings()
    };
    let mut rig = Rig::restored(store_of(&devices.iter().collect::<Vec<_>>()), small);
    let given: Vec<_> = devices
        .iter_mut()
        .map(|device| rig.open(device, &["wiki"]).map(|session| session.tunnel4))
        .collect();
    // 10.200.0.2 to .6: neither the network, the gateway nor the broadcast address.
    let expected: Vec<_> = (2..=6)
        .map(|host| Some(Some(core::net::Ipv4Addr::new(10, 200, 0, host))))
        .collect();
    assert_eq!(given[..5], expected);
    assert_eq!(given[5], None);
    assert_eq!(rig.count(Refusal::Capacity), 1);
}

#[test]
fn more_flows_than_a_session_may_have_are_capacity() {
    let mut bot = Device::of("bot", 7);
    let mut rig = Rig::with(&[&bot]);
    let mut text = String::from("[resource]\n");
    for number in 0..17 {
        let ports: Vec<String> = (1..=32)
            .map(|port| format!("\"{}/tcp\"", port * 2))
            .collect();
        text += &format!(
            "r{number} = {{ to = \"10.1.0.{number}\", ports = [{}] }}\n",
            ports.join(",")
        );
    }
    let names: Vec<String> = (0..17).map(|number| format!("\"r{number}\"")).collect();
    text += &format!(
        "[[allow]]\nname = \"all\"\nwho = [\"bot\"]\nto = [{}]\n",
        names.join(",")
    );
    rig.gateway
        .handle_policy(Policy::parse(&text).expect("valid"), None, rig.now);
    let mut ask = rig.open_ask(&mut bot, &["r0"]);
    if let spa_proto::Ask::Open(open) = &mut ask {
        open.wanted = spa_proto::Wanted::All;
    }
    assert!(matches!(
        rig.ask(&mut bot, ask),
        Some(spa_proto::Outcome::Refused { .. })
    ));
    assert_eq!(rig.count(Refusal::Capacity), 1);
    assert!(
        rig.open(&mut bot, &["r0", "r1", "r2", "r3", "r4", "r5", "r6", "r7"])
            .is_some()
    );
}

#[test]
fn five_failures_empty_the_bucket_and_a_hundred_in_a_row_disable() {
    let mut bot = Device::of("bot", 7);
    let mut rig = Rig::with(&[&bot]);
    // A full bucket: one token at the start and four more in forty minutes.
    rig.pass_secs(40 * 60);
    bot.q = spa_proto::ProofSecret::from_seed(&[99; 32]);
    for _ in 0..5 {
        assert!(rig.open(&mut bot, &[]).is_none());
        rig.pass_secs(2);
    }
    assert_eq!(rig.count(Refusal::WrongProof), 5);
    assert!(rig.open(&mut bot, &[]).is_none());
    assert_eq!(rig.count(Refusal::FailureRate), 1);
    for _ in 0..95 {
        assert_eq!(rig.store.credentials[0].standing, crate::Standing::Enabled);
        rig.pass_secs(10 * 60);
        rig.open(&mut bot, &[]);
    }
    assert_eq!(rig.store.credentials[0].failures, crate::MAX_FAILURES);
    assert_eq!(rig.store.credentials[0].standing, crate::Standing::Disabled);
    let disabled = rig.audited(crate::AuditKind::CredentialDisabled);
    let why: Vec<_> = disabled.iter().map(|audit| audit.reason).collect();
    assert_eq!(why, [Some("a hundred failures in a row")]);
    bot.q = spa_proto::ProofSecret::from_seed(&[7; 32]);
    rig.pass_secs(10 * 60);
    assert!(rig.open(&mut bot, &[]).is_none());
}

#[test]
fn a_row_of_failures_ends_with_an_open_that_passes() {
    let mut bot = Device::of("bot", 7);
    let mut rig = Rig::with(&[&bot]);
    rig.pass_secs(40 * 60);
    let own = core::mem::replace(&mut bot.q, spa_proto::ProofSecret::from_seed(&[99; 32]));
    for in_a_row in 1..=2 {
        assert!(rig.open(&mut bot, &[]).is_none());
        assert_eq!(rig.store.credentials[0].failures, in_a_row);
        rig.pass_secs(2);
    }
    bot.q = own;
    assert!(rig.open(&mut bot, &[]).is_some());
    assert_eq!(rig.store.credentials[0].failures, 0);
}

#[test]
fn a_strangers_packet_touches_no_bucket_and_no_queue() {
    let mut bot = Device::of("bot", 7);
    let mut rig = Rig::with(&[&bot]);
    let honest = packet(&rig, &mut bot);
    for byte in 8..512 {
        let mut forged = honest;
        forged[byte] ^= 1;
        assert_eq!(rig.take_in(&forged, bot.source), Err(Refusal::OuterMac));
    }
    assert_eq!(rig.gateway.waiting_knocks(), 0);
    assert_eq!(rig.take_in(&honest, bot.source), Ok(()));
}

#[test]
fn an_answered_knock_is_forgotten_within_two_minutes() {
    let mut bot = Device::of("bot", 7);
    let mut rig = Rig::with(&[&bot]);
    rig.open(&mut bot, &[]).expect("granted");
    assert!(rig.gateway.credentials[&bot.id].memory.answered.is_some());
    rig.pass(Duration::from_secs(120));
    assert!(rig.gateway.credentials[&bot.id].memory.answered.is_none());
}

#[test]
fn a_day_of_sessions_leaves_nothing_behind() {
    let mut bot = Device::of("bot", 7);
    let mut rig = Rig::with(&[&bot]);
    for _ in 0..12 {
        rig.open(&mut bot, &["wiki", "db"]).expect("granted");
        assert!(rig.shake(&bot));
        rig.pass_secs(60 * 60);
    }
    rig.pass_secs(12 * 60 * 60);
    assert!(rig.kernel.is_empty(rig.now));
    assert_eq!(rig.gateway.outbox.waited_for(), 0);
    assert!(rig.gateway.operations.is_empty() && rig.gateway.closings.is_empty());
    assert_eq!(rig.gateway.sessions().count(), 0);
    // The minute and nothing else.
    let next = rig.gateway.poll_timeout().expect("the minute");
    assert!(next.since(rig.now.mono) <= Duration::from_secs(60));
}
