//! It ends: at its deadline whatever the clocks do, when it is cut, and until that is confirmed.

use core::time::Duration;

use spa_order::Order;

use super::rig::{Device, Did, POLICY, Rig};
use crate::policy::Policy;
use crate::{
    AdminRefusal, AuditKind, DeviceRef, LOOK_WHILE_LIVE, Name, REST, RETRY, Selector, SessionState,
};

const EIGHT_HOURS: u64 = 8 * 60 * 60;

fn live(rig: &mut Rig, device: &mut Device, resources: &[&str]) {
    rig.open(device, resources).expect("granted");
    assert!(rig.shake(device));
    rig.did.clear();
}

#[test]
fn a_session_ends_at_its_deadline_in_the_order_door_flows_peer_conntrack() {
    let mut ana = Device::of("ana", 7);
    let mut rig = Rig::with(&[&ana]);
    live(&mut rig, &mut ana, &["wiki"]);
    rig.pass_secs(EIGHT_HOURS - 1);
    assert_eq!(rig.kernel.peers.len(), 1);
    rig.did.clear();
    rig.pass_secs(1);
    let closing = [
        Did::Record,
        Did::CloseDoor,
        Did::CloseFlow,
        Did::CloseFlow,
        Did::CloseFlow,
        Did::RemovePeer,
        Did::Forget,
        Did::Forget,
        Did::Audit(AuditKind::SessionEnded),
    ];
    assert_eq!(
        rig.did.iter().filter(|did| closing.contains(did)).count(),
        closing.len()
    );
    assert!(
        rig.did
            .iter()
            .filter(|did| **did != Did::Record)
            .eq(&closing[1..])
    );
    assert!(rig.kernel.is_empty(rig.now));
    assert_eq!(rig.kernel.forgotten.len(), 2);
    assert_eq!(
        rig.audited(AuditKind::SessionEnded)[0].reason,
        Some("expired")
    );
}

#[test]
fn the_kernel_closes_it_by_itself_if_every_process_dies() {
    let mut ana = Device::of("ana", 7);
    let mut rig = Rig::with(&[&ana]);
    live(&mut rig, &mut ana, &["wiki"]);
    let end = rig.now.mono.after(Duration::from_secs(EIGHT_HOURS));
    let later = crate::Now {
        wall: rig.now.wall,
        mono: end,
    };
    assert!(rig.kernel.doors(later).is_empty() && rig.kernel.flows(later).is_empty());
}

#[test]
fn a_clock_set_back_does_not_prolong_a_session() {
    let mut ana = Device::of("ana", 7);
    let mut rig = Rig::with(&[&ana]);
    live(&mut rig, &mut ana, &["wiki"]);
    rig.now.wall = rig.now.wall.saturating_sub(Duration::from_secs(60));
    rig.pass_secs(EIGHT_HOURS);
    assert!(rig.kernel.is_empty(rig.now));
}

#[test]
fn a_clock_that_jumps_ahead_ends_what_is_over_on_the_calendar() {
    let mut ana = Device::of("ana", 7);
    let mut rig = Rig::with(&[&ana]);
    live(&mut rig, &mut ana, &["wiki"]);
    rig.now.wall = rig
        .now
        .wall
        .saturating_add(Duration::from_secs(EIGHT_HOURS));
    rig.pass_secs(60);
    assert!(rig.kernel.is_empty(rig.now));
}

#[test]
fn what_fails_to_close_is_tried_again_until_it_is_confirmed() {
    let mut bot = Device::of("bot", 7);
    let mut rig = Rig::with(&[&bot]);
    live(&mut rig, &mut bot, &["wiki"]);
    rig.refuses = |order| matches!(order, Order::RemovePeer { .. });
    rig.gateway
        .cut_sessions(&Selector::Session(bot.session_id()), rig.now)
        .expect("cut");
    rig.run();
    rig.pass(RETRY * 5);
    assert_eq!(
        rig.gateway.sessions().map(|session| session.state).next(),
        Some(SessionState::Ending)
    );
    assert!(rig.audited(AuditKind::SessionEnded).is_empty());
    rig.refuses = |_| false;
    rig.pass(RETRY);
    assert!(rig.kernel.is_empty(rig.now));
    assert_eq!(rig.gateway.sessions().count(), 0);
    assert_eq!(rig.audited(AuditKind::SessionEnded)[0].took_ms, Some(3000));
}

#[test]
fn a_door_that_does_not_close_keeps_neither_flow_nor_peer_open() {
    let mut bot = Device::of("bot", 7);
    let mut rig = Rig::with(&[&bot]);
    live(&mut rig, &mut bot, &["wiki"]);
    rig.refuses = |order| matches!(order, Order::CloseDoor { .. });
    rig.gateway
        .cut_sessions(&Selector::Session(bot.session_id()), rig.now)
        .expect("cut");
    rig.run();
    assert!(rig.kernel.peers.is_empty() && rig.kernel.flows(rig.now).is_empty());
    assert_eq!(rig.kernel.doors(rig.now), [bot.door()]);
    rig.did.clear();
    rig.refuses = |_| false;
    rig.pass(RETRY);
    let again = [Did::CloseDoor, Did::Audit(AuditKind::SessionEnded)];
    assert_eq!(rig.did, again, "what was confirmed is not asked for twice");
}

#[test]
fn a_session_that_could_not_be_recorded_as_over_is_recorded_later() {
    let mut bot = Device::of("bot", 7);
    let mut rig = Rig::with(&[&bot]);
    live(&mut rig, &mut bot, &["wiki"]);
    rig.store_works = false;
    rig.gateway
        .cut_sessions(&Selector::Person(bot.person.clone()), rig.now)
        .expect("cut");
    rig.run();
    assert!(
        rig.kernel.is_empty(rig.now),
        "the world does not wait for the disk"
    );
    assert_eq!(rig.store.sessions.len(), 1);
    rig.store_works = true;
    rig.pass(RETRY);
    assert!(rig.store.sessions.is_empty());
}

#[test]
fn of_sessions_that_end_together_all_are_shut_before_the_first_peer_goes() {
    let mut ana = Device::of("ana", 1);
    let mut bot = Device::of("bot", 2);
    let mut rig = Rig::with(&[&ana, &bot]);
    live(&mut rig, &mut ana, &["wiki"]);
    live(&mut rig, &mut bot, &["wiki"]);
    rig.did.clear();
    let wiki = Selector::Resource(Name::parse("wiki").expect("a name"));
    let cut = rig.gateway.cut_sessions(&wiki, rig.now).expect("cut");
    assert_eq!(cut.len(), 2);
    rig.run();
    let at = |wanted| rig.did.iter().position(|did| *did == wanted);
    let last = |wanted| rig.did.iter().rposition(|did| *did == wanted);
    let first_peer = at(Did::RemovePeer).expect("removed");
    assert!(last(Did::CloseDoor).is_some_and(|at| at < first_peer));
    assert!(last(Did::CloseFlow).is_some_and(|at| at < first_peer));
    assert_eq!(
        rig.did
            .iter()
            .filter(|did| **did == Did::RemovePeer)
            .count(),
        2
    );
    assert!(rig.kernel.is_empty(rig.now));
}

#[test]
fn a_cut_takes_what_its_selector_names_and_nothing_else() {
    let mut ana = Device::of("ana", 1);
    let mut bot = Device::of("bot", 2);
    let mut rig = Rig::with(&[&ana, &bot]);
    let name = |text| Name::parse(text).expect("a name");
    let device = DeviceRef {
        person: name("bot"),
        label: "laptop".into(),
    };
    for selector in [
        Selector::Resource(name("db")),
        Selector::Device(device),
        Selector::Person(name("bot")),
    ] {
        live(&mut rig, &mut ana, &["wiki"]);
        live(&mut rig, &mut bot, &["db"]);
        let cut = rig.gateway.cut_sessions(&selector, rig.now).expect("cut");
        assert_eq!(cut, [bot.session_id()]);
        rig.run();
        assert_eq!(
            rig.kernel
                .peers
                .keys()
                .copied()
                .collect::<alloc::vec::Vec<_>>(),
            [ana.wg_key]
        );
        assert_eq!(
            rig.gateway.cut_sessions(&selector, rig.now),
            Err(AdminRefusal::NoSession)
        );
        rig.pass_secs(30);
    }
}

#[test]
fn revoking_a_device_ends_its_session_and_takes_its_tags_away_at_once() {
    let mut bot = Device::of("bot", 7);
    let mut rig = Rig::with(&[&bot]);
    live(&mut rig, &mut bot, &["wiki"]);
    let device = DeviceRef {
        person: bot.person.clone(),
        label: "laptop".into(),
    };
    rig.gateway
        .revoke_device(&device, rig.now)
        .expect("revoked");
    rig.run();
    assert!(rig.kernel.is_empty(rig.now));
    assert!(rig.open(&mut bot, &["wiki"]).is_none());
    assert_eq!(rig.count(crate::Refusal::UnknownTag), 1);
    rig.gateway.enable_device(&device).expect("enabled");
    rig.run();
    assert!(rig.open(&mut bot, &["wiki"]).is_some());
}

#[test]
fn revoking_while_a_session_is_being_opened_leaves_nothing_open() {
    let mut bot = Device::of("bot", 7);
    let mut rig = Rig::with(&[&bot]);
    let ask = rig.open_ask(&mut bot, &["wiki"]);
    let (info, ext) = bot.request(ask, rig.now).encode().expect("fits");
    let sent = bot.build(&info, &ext, rig.now);
    rig.take_in(&sent.packet, bot.source).expect("queued");
    rig.work();
    // Record, peer, first flow are done; the second flow is under way.
    for _ in 0..3 {
        let effect = rig.gateway.poll_effect().expect("a step");
        rig.perform(effect);
    }
    let device = DeviceRef {
        person: bot.person.clone(),
        label: "laptop".into(),
    };
    rig.gateway
        .revoke_device(&device, rig.now)
        .expect("revoked");
    rig.run();
    assert!(rig.kernel.is_empty(rig.now));
    assert!(rig.replies.is_empty());
    assert_eq!(rig.gateway.sessions().count(), 0);
}

#[test]
fn losing_a_resource_closes_its_flows_and_losing_all_ends_the_session() {
    let mut bot = Device::of("bot", 7);
    let mut rig = Rig::with(&[&bot]);
    live(&mut rig, &mut bot, &["wiki", "db"]);
    let flows = rig.kernel.flows(rig.now).len();
    let without_db = super::rig::POLICY.replace("who = [\"bot\"]", "who = [\"bo\"]");
    rig.gateway
        .handle_policy(Policy::parse(&without_db).expect("valid"), None, rig.now);
    rig.run();
    assert_eq!(rig.kernel.flows(rig.now).len(), flows - 1);
    assert_eq!(
        rig.store.sessions[0].resources,
        [Name::parse("wiki").expect("a name")]
    );
    rig.gateway.handle_policy(Policy::deny_all(), None, rig.now);
    rig.run();
    assert!(rig.kernel.is_empty(rig.now));
    assert_eq!(
        rig.audited(AuditKind::SessionEnded)[0].reason,
        Some("withdrawn by policy")
    );
}

#[test]
fn a_policy_that_comes_while_a_session_is_recorded_counts_for_it() {
    let mut bot = Device::of("bot", 7);
    let mut rig = Rig::with(&[&bot]);
    let ask = rig.open_ask(&mut bot, &["wiki", "db"]);
    let (info, ext) = bot.request(ask, rig.now).encode().expect("fits");
    let sent = bot.build(&info, &ext, rig.now);
    rig.take_in(&sent.packet, bot.source).expect("queued");
    rig.work();
    let without_db = super::rig::POLICY.replace("who = [\"bot\"]", "who = [\"bo\"]");
    rig.gateway
        .handle_policy(Policy::parse(&without_db).expect("valid"), None, rig.now);
    rig.run();
    assert_eq!(
        rig.kernel
            .flows(rig.now)
            .iter()
            .filter(|flow| flow.ports == (5432, 5432))
            .count(),
        0
    );
    assert_eq!(
        rig.kernel
            .flows(rig.now)
            .iter()
            .filter(|flow| flow.ports == (443, 443))
            .count(),
        1
    );
}

#[test]
fn a_shorter_for_shortens_a_live_session_and_a_longer_one_does_not_prolong_it() {
    let mut bot = Device::of("bot", 7);
    let mut rig = Rig::with(&[&bot]);
    live(&mut rig, &mut bot, &["db"]);
    let before = rig.store.sessions[0].not_after;
    for (length, shortened_by_hours) in [("8h", 0), ("1h", 1)] {
        let policy = super::rig::POLICY.replace("2h", length);
        rig.gateway
            .handle_policy(Policy::parse(&policy).expect("valid"), None, rig.now);
        rig.run();
        let now = rig.store.sessions[0].not_after;
        assert_eq!(
            before.since(now),
            Duration::from_secs(shortened_by_hours * 60 * 60)
        );
        let left = rig.kernel.door_until(bot.door()).expect("its door");
        assert_eq!(
            left.since(rig.now.mono),
            now.since(rig.now.wall),
            "the kernel has the old end"
        );
    }
    rig.pass_secs(60 * 60);
    assert!(rig.kernel.is_empty(rig.now));
}

#[test]
fn a_session_whose_peer_vanished_ends() {
    let mut bot = Device::of("bot", 7);
    let mut rig = Rig::with(&[&bot]);
    live(&mut rig, &mut bot, &["wiki"]);
    rig.kernel.peers.clear();
    rig.pass(LOOK_WHILE_LIVE);
    assert!(rig.kernel.is_empty(rig.now));
    assert_eq!(
        rig.audited(AuditKind::SessionEnded)[0].reason,
        Some("the peer is gone")
    );
}

#[test]
fn a_tunnel_address_rests_for_ten_minutes_after_its_session() {
    let mut bot = Device::of("bot", 7);
    let small = crate::Settings {
        tunnel4: Some((core::net::Ipv4Addr::new(10, 200, 0, 1), 30)),
        tunnel6: None,
        ..super::rig::settings()
    };
    let mut rig = Rig::restored(super::rig::store_of(&[&bot]), small);
    let first = rig.open(&mut bot, &["wiki"]).expect("the only address");
    let close = spa_proto::Ask::Close(bot.session_id());
    rig.ask(&mut bot, close).expect("closed");
    rig.pass(REST - Duration::from_secs(1));
    assert!(rig.open(&mut bot, &["wiki"]).is_none());
    assert_eq!(rig.count(crate::Refusal::Capacity), 1);
    rig.pass_secs(2);
    assert_eq!(
        rig.open(&mut bot, &["wiki"]).expect("rested").tunnel4,
        first.tunnel4
    );
}

#[test]
fn one_that_is_reduced_between_lets_no_peer_go_before() {
    let mut ana = Device::of("ana", 1);
    let mut bot = Device::of("bot", 2);
    let mut bo = Device::of("bo", 3);
    let mut rig = Rig::with(&[&ana, &bot, &bo]);
    live(&mut rig, &mut ana, &["wiki"]);
    live(&mut rig, &mut bot, &["wiki", "db"]);
    live(&mut rig, &mut bo, &["wiki"]);
    rig.did.clear();
    let nobody_reads = POLICY.replacen("\"group:eng\"", "\"bot\"", 1).replacen(
        "to = [\"wiki\"]",
        "to = [\"db\"]",
        1,
    );
    let policy = Policy::parse(&nobody_reads).expect("a policy");
    rig.gateway.handle_policy(policy, None, rig.now);
    rig.run();
    let first_peer = rig
        .did
        .iter()
        .position(|did| *did == Did::RemovePeer)
        .expect("one");
    let last_flow = rig
        .did
        .iter()
        .rposition(|did| *did == Did::CloseFlow)
        .expect("one");
    assert!(last_flow < first_peer, "{:?}", rig.did);
}
