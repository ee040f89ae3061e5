//! After a crash the kernel is made equal to the store, or to nothing.

use spa_order::Order;
use spa_proto::Ask;

use super::rig::{Device, Rig};
use crate::{AuditKind, PeerState, Refusal};

#[test]
fn a_live_session_outlives_a_restart_with_its_flows_and_its_door() {
    let mut bot = Device::of("bot", 7);
    let mut rig = Rig::with(&[&bot]);
    rig.open(&mut bot, &["wiki", "db"]).expect("granted");
    assert!(rig.shake(&bot));
    let (flows, doors) = (rig.kernel.flows(rig.now), rig.kernel.doors(rig.now));
    let until = rig.kernel.door_until(bot.door());
    rig.restart();
    assert_eq!(
        (rig.kernel.flows(rig.now), rig.kernel.doors(rig.now)),
        (flows, doors)
    );
    assert_eq!(
        rig.kernel.door_until(bot.door()),
        until,
        "nothing is prolonged"
    );
    let close = Ask::Close(bot.session_id());
    assert!(rig.ask(&mut bot, close).is_some(), "its key was kept");
}

#[test]
fn a_crash_between_record_and_effect_leaves_no_session_and_no_second_use() {
    let mut ana = Device::of("ana", 7);
    let mut rig = Rig::with(&[&ana]);
    let ask = rig.open_ask(&mut ana, &["wiki"]);
    let (info, ext) = ana.request(ask, rig.now).encode().expect("fits");
    let sent = ana.build(&info, &ext, rig.now);
    rig.take_in(&sent.packet, ana.source).expect("queued");
    rig.work();
    let record = rig.gateway.poll_effect().expect("the record");
    rig.perform(record);
    rig.restart();
    assert!(rig.kernel.is_empty(rig.now));
    assert!(rig.store.sessions.is_empty());
    assert!(rig.send(&sent, ana.source).is_none());
    assert_eq!(rig.count(Refusal::Replayed), 1);
}

#[test]
fn a_peer_that_no_session_accounts_for_is_removed() {
    let mut rig = Rig::with(&[]);
    let state = PeerState {
        endpoint: None,
        handshake_age_ms: None,
        rx: 0,
        tx: 0,
    };
    rig.kernel.peers.insert([3; 32], state);
    rig.restart();
    assert!(rig.kernel.peers.is_empty());
}

#[test]
fn no_address_is_lent_while_a_peer_that_may_have_it_is_still_there() {
    let mut bot = Device::of("bot", 7);
    let mut rig = Rig::with(&[&bot]);
    let state = PeerState {
        endpoint: None,
        handshake_age_ms: None,
        rx: 0,
        tx: 0,
    };
    rig.kernel.peers.insert([3; 32], state);
    rig.refuses = |order| matches!(order, Order::RemovePeer { .. });
    rig.restart();
    assert!(rig.open(&mut bot, &["wiki"]).is_none());
    assert_eq!(rig.count(Refusal::Capacity), 1);
    rig.refuses = |_| false;
    rig.pass_secs(1);
    assert!(rig.open(&mut bot, &["wiki"]).is_some());
}

#[test]
fn a_session_whose_peer_was_lost_or_never_came_ends_at_the_start() {
    for shaken in [true, false] {
        let mut bot = Device::of("bot", 7);
        let mut rig = Rig::with(&[&bot]);
        rig.open(&mut bot, &["wiki"]).expect("granted");
        if shaken {
            assert!(rig.shake(&bot));
            rig.kernel.peers.clear();
        }
        rig.restart();
        assert!(rig.kernel.is_empty(rig.now));
        assert!(rig.store.sessions.is_empty());
        assert_eq!(
            rig.audited(AuditKind::SessionEnded)[0].reason,
            Some("lost in a restart")
        );
    }
}

#[test]
fn a_session_that_ended_while_the_gateway_was_down_is_not_resumed() {
    let mut bot = Device::of("bot", 7);
    let mut rig = Rig::with(&[&bot]);
    rig.open(&mut bot, &["db"]).expect("granted");
    assert!(rig.shake(&bot));
    let two_hours = core::time::Duration::from_secs(2 * 60 * 60);
    rig.now.wall = rig.now.wall.saturating_add(two_hours);
    rig.now.mono = rig.now.mono.after(two_hours);
    rig.restart();
    assert!(rig.kernel.is_empty(rig.now));
    assert!(rig.store.sessions.is_empty());
}

#[test]
fn a_resting_address_rests_on_over_a_restart() {
    let mut bot = Device::of("bot", 7);
    let mut rig = Rig::with(&[&bot]);
    let first = rig.open(&mut bot, &["wiki"]).expect("granted");
    let close = Ask::Close(bot.session_id());
    rig.ask(&mut bot, close).expect("closed");
    rig.restart();
    let second = rig.open(&mut bot, &["wiki"]).expect("granted");
    assert_ne!(first.tunnel4, second.tunnel4);
}

/// The daemon may have been killed between the record of an end and conntrack's forgetting.
#[test]
fn conntrack_forgets_at_the_start_what_the_store_knows_to_be_over() {
    let mut bot = Device::of("bot", 7);
    let mut rig = Rig::with(&[&bot]);
    let session = rig.open(&mut bot, &["wiki"]).expect("granted");
    let close = Ask::Close(bot.session_id());
    rig.ask(&mut bot, close).expect("closed");
    rig.kernel.forgotten.clear();
    rig.restart();
    let address = session.tunnel4.expect("the pool has IPv4");
    assert!(rig.kernel.forgotten.contains(&address.into()));
    rig.pass(crate::pool::REST);
    rig.kernel.forgotten.clear();
    rig.restart();
    assert!(rig.kernel.forgotten.is_empty());
}

#[test]
fn a_revoked_device_stays_revoked_over_a_restart() {
    let mut bot = Device::of("bot", 7);
    let mut rig = Rig::with(&[&bot]);
    let device = crate::DeviceRef {
        person: bot.person.clone(),
        label: "laptop".into(),
    };
    rig.gateway
        .revoke_device(&device, rig.now)
        .expect("revoked");
    rig.run();
    rig.restart();
    assert!(rig.open(&mut bot, &["wiki"]).is_none());
}
