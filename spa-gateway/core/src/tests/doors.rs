//! Doors: for a moment, then for the one who shook hands, and never wider than needed.

use core::time::Duration;

use spa_order::{Door, Order};
use spa_proto::{Ask, Outcome};

use super::rig::{Device, Rig};
use crate::{AuditKind, EffectFailure, EffectKind, LOOK_WHILE_LIVE, PeerState, SessionState};

#[test]
fn a_door_without_a_handshake_closes_and_its_session_is_withdrawn() {
    let mut ana = Device::of("ana", 7);
    let mut rig = Rig::with(&[&ana]);
    rig.open(&mut ana, &["wiki"]).expect("granted");
    rig.pass(Duration::from_millis(9_999));
    assert_eq!(rig.kernel.doors(rig.now), [ana.door()]);
    rig.pass(Duration::from_millis(1));
    assert!(rig.kernel.is_empty(rig.now));
    assert_eq!(
        rig.audited(AuditKind::SessionEnded)[0].reason,
        Some("no handshake in time")
    );
}

#[test]
fn what_a_late_look_says_is_heard_before_a_door_is_given_up() {
    let mut ana = Device::of("ana", 7);
    let mut rig = Rig::with(&[&ana]);
    rig.open(&mut ana, &["wiki"]).expect("granted");
    rig.pass(Duration::from_millis(9_850));
    let peer = rig.kernel.peers.get_mut(&ana.wg_key).expect("a peer");
    peer.endpoint = Some(ana.source);
    peer.handshake_age_ms = Some(0);
    // Whoever works the gateway was busy until after the end.
    let late = Duration::from_millis(200);
    rig.go_to(rig.now.mono.after(late));
    rig.pass(Duration::from_millis(100));
    assert_eq!(
        rig.gateway.sessions().next().map(|session| session.state),
        Some(SessionState::Live)
    );
    assert_eq!(rig.kernel.doors(rig.now), [ana.door()]);
}

#[test]
fn a_door_that_is_over_rests_until_its_last_look_is_answered() {
    let quiet = PeerState {
        endpoint: None,
        handshake_age_ms: None,
        rx: 0,
        tx: 0,
    };
    for answer in [Some(quiet), None] {
        let mut ana = Device::of("ana", 7);
        let mut rig = Rig::with(&[&ana]);
        rig.open(&mut ana, &["wiki"]).expect("granted");
        rig.pass(Duration::from_millis(9_850));
        let mut look = None;
        // The enforcer does not answer: nothing is performed, only timers ring.
        let mut rings = 0;
        let hung = rig.now.mono.after(Duration::from_secs(5));
        while let Some(due) = rig.gateway.poll_timeout().filter(|due| *due <= hung) {
            rig.go_to(due.max(rig.now.mono));
            rig.gateway.handle_timeout(rig.now, &mut rig.entropy);
            while let Some(effect) = rig.gateway.poll_effect() {
                assert!(matches!(effect.kind, EffectKind::Observe { .. }));
                look = Some(effect.id);
            }
            rings += 1;
        }
        // A look each 100 ms and little else: whoever waits for an answer does not spin.
        assert!(rings <= 60, "{rings}");
        assert_eq!(rig.audited(AuditKind::SessionEnded).len(), 0);
        let look = look.expect("a last look");
        match answer {
            Some(state) => rig.gateway.handle_peer(ana.wg_key, Some(state), rig.now),
            None => rig
                .gateway
                .handle_performed(look, Err(EffectFailure::Failed), rig.now),
        }
        rig.run();
        assert!(rig.kernel.is_empty(rig.now));
        assert_eq!(
            rig.audited(AuditKind::SessionEnded)[0].reason,
            Some("no handshake in time")
        );
    }
}

#[test]
fn a_handshake_narrows_the_door_to_its_endpoint_for_as_long_as_the_session() {
    let mut ana = Device::of("ana", 7);
    ana.same_port = false;
    let mut rig = Rig::with(&[&ana]);
    rig.open(&mut ana, &["wiki"]).expect("granted");
    assert_eq!(
        rig.kernel.doors(rig.now),
        [Door {
            source: ana.source.ip(),
            port: None
        }]
    );
    // The NAT gave WireGuard another port.
    ana.source.set_port(61_000);
    assert!(rig.shake(&ana));
    ana.same_port = true;
    assert_eq!(rig.kernel.doors(rig.now), [ana.door()]);
    rig.pass_secs(7 * 60 * 60);
    assert_eq!(rig.kernel.doors(rig.now), [ana.door()]);
    assert_eq!(rig.audited(AuditKind::SessionLive).len(), 1);
    assert_eq!(
        rig.gateway.sessions().next().map(|session| session.state),
        Some(SessionState::Live)
    );
}

#[test]
fn a_door_that_cannot_be_narrowed_is_tried_again_and_else_withdrawn() {
    let mut bot = Device::of("bot", 7);
    let mut rig = Rig::with(&[&bot]);
    rig.open(&mut bot, &["wiki"]).expect("granted");
    rig.refuses = |order| matches!(order, Order::Door { .. });
    assert!(rig.shake(&bot));
    assert_eq!(
        rig.gateway.sessions().next().map(|session| session.state),
        Some(SessionState::Waiting)
    );
    rig.refuses = |_| false;
    rig.pass(Duration::from_millis(50));
    assert_eq!(
        rig.gateway.sessions().next().map(|session| session.state),
        Some(SessionState::Live)
    );

    rig.open(&mut bot, &["wiki"]).expect("granted");
    rig.refuses = |order| matches!(order, Order::Door { .. });
    assert!(rig.shake(&bot));
    rig.pass_secs(10);
    assert!(rig.kernel.is_empty(rig.now));
}

#[test]
fn roam_moves_the_door_and_prolongs_nothing() {
    let mut bot = Device::of("bot", 7);
    let mut rig = Rig::with(&[&bot]);
    let opened = rig.open(&mut bot, &["wiki"]).expect("granted");
    assert!(rig.shake(&bot));
    rig.pass_secs(60);
    bot.source = "203.0.113.50:41000".parse().expect("an address");
    assert!(!rig.shake(&bot), "no door for the new address yet");
    let roam = Ask::Roam(bot.session_id());
    let Some(Outcome::Session(session)) = rig.ask(&mut bot, roam) else {
        panic!("it roamed");
    };
    assert_eq!(
        (session.id, session.not_after),
        (opened.id, opened.not_after)
    );
    assert_eq!(rig.kernel.doors(rig.now), [bot.door()]);
    assert!(rig.shake(&bot));
    rig.pass_secs(60);
    assert_eq!(rig.kernel.doors(rig.now), [bot.door()]);
}

/// A client behind a NAT that changes ports does not know its own: the door is for the address, for a moment, and narrows
/// to the endpoint of the handshake.
#[test]
fn a_roam_that_does_not_know_its_port_opens_the_address_until_the_handshake() {
    let mut bot = Device::of("bot", 7);
    let mut rig = Rig::with(&[&bot]);
    rig.open(&mut bot, &["wiki"]).expect("granted");
    assert!(rig.shake(&bot));
    bot.source = "203.0.113.50:41000".parse().expect("an address");
    bot.same_port = false;
    let roam = Ask::Roam(bot.session_id());
    assert!(rig.ask(&mut bot, roam).is_some());
    let doors = rig.kernel.doors(rig.now);
    assert!(doors.iter().all(|door| door.source == bot.source.ip()));
    assert!(doors.iter().any(|door| door.port.is_none()));
    assert!(rig.shake(&bot));
    rig.pass_secs(60);
    let doors = rig.kernel.doors(rig.now);
    assert!(doors.iter().all(|door| door.port.is_some()), "{doors:?}");
    assert_eq!(rig.store.sessions[0].source, bot.source);
    rig.restart();
    assert_eq!(
        rig.gateway.sessions().next().map(|of| of.source),
        Some(bot.source)
    );
}

#[test]
fn a_roam_without_its_peer_closes_the_new_door_and_the_session_can_roam_again() {
    let mut bot = Device::of("bot", 7);
    let mut rig = Rig::with(&[&bot]);
    rig.open(&mut bot, &["wiki"]).expect("granted");
    assert!(rig.shake(&bot));
    // An attacker forwards a fresh ROAM from its own address.
    let home = core::mem::replace(
        &mut bot.source,
        "203.0.113.66:6".parse().expect("an address"),
    );
    let roam = Ask::Roam(bot.session_id());
    assert!(rig.ask(&mut bot, roam).is_some());
    rig.pass_secs(10);
    assert!(rig.kernel.doors(rig.now).is_empty());
    assert_eq!(rig.gateway.sessions().count(), 1);
    bot.source = home;
    let roam = Ask::Roam(bot.session_id());
    assert!(rig.ask(&mut bot, roam).is_some());
    assert!(rig.shake(&bot));
    assert_eq!(rig.kernel.doors(rig.now), [bot.door()]);
}

#[test]
fn the_end_of_one_session_does_not_shut_the_door_another_needs() {
    let mut ana = Device::of("ana", 1);
    let mut bot = Device::of("bot", 2);
    for device in [&mut ana, &mut bot] {
        device.source = "198.51.100.77:5000".parse().expect("an address");
        device.same_port = false;
    }
    let mut rig = Rig::with(&[&ana, &bot]);
    rig.open(&mut ana, &["wiki"]).expect("granted");
    rig.pass_secs(5);
    rig.open(&mut bot, &["db"]).expect("granted");
    let shared = bot.door();
    rig.pass_secs(5);
    assert_eq!(rig.gateway.sessions().count(), 1, "the first was withdrawn");
    assert_eq!(rig.kernel.doors(rig.now), [shared]);
    assert!(rig.shake(&bot));
    bot.same_port = true;
    assert_eq!(
        rig.kernel.doors(rig.now),
        [bot.door()],
        "nobody needs the shared door any more"
    );
}

#[test]
fn a_shared_door_lasts_no_longer_than_its_last_holder_needs() {
    let mut ana = Device::of("ana", 1);
    let mut bot = Device::of("bot", 2);
    for device in [&mut ana, &mut bot] {
        device.source = "198.51.100.77:5000".parse().expect("an address");
        device.same_port = false;
    }
    let mut rig = Rig::with(&[&ana, &bot]);
    rig.open(&mut ana, &["wiki"]).expect("granted");
    let needed = rig.kernel.door_until(ana.door());
    rig.pass_secs(5);
    rig.open(&mut bot, &["db"]).expect("granted");
    assert_ne!(rig.kernel.door_until(ana.door()), needed);
    let close = Ask::Close(bot.session_id());
    rig.ask(&mut bot, close).expect("closed");
    assert_eq!(rig.kernel.door_until(ana.door()), needed);
}

/// It shakes hands where it is, and nobody has looked yet.
fn shake_unseen(rig: &mut Rig, device: &Device) {
    let peer = rig.kernel.peers.get_mut(&device.wg_key).expect("a peer");
    peer.endpoint = Some(device.source);
    peer.handshake_age_ms = Some(0);
    rig.kernel.shaken.insert(device.wg_key, rig.now.mono);
}

fn roam(rig: &mut Rig, device: &mut Device) {
    device.source = "203.0.113.50:41000".parse().expect("an address");
    let roam = Ask::Roam(device.session_id());
    let told = rig.ask(device, roam);
    assert!(matches!(told, Some(Outcome::Session(_))), "{told:?}");
}

#[test]
fn a_roam_while_the_door_is_narrowed_keeps_the_new_door() {
    let mut bot = Device::of("bot", 7);
    let mut rig = Rig::with(&[&bot]);
    rig.open(&mut bot, &["wiki"]).expect("granted");
    shake_unseen(&mut rig, &bot);
    // A look falls due, and in the same turn of the daemon the client's ROAM comes in.
    rig.go_to(rig.now.mono.after(Duration::from_millis(26)));
    rig.gateway.handle_timeout(rig.now, &mut rig.entropy);
    roam(&mut rig, &mut bot);
    assert_eq!(rig.kernel.doors(rig.now), [bot.door()]);
}

#[test]
fn a_roam_before_the_first_look_keeps_the_new_door() {
    let mut bot = Device::of("bot", 7);
    let mut rig = Rig::with(&[&bot]);
    rig.open(&mut bot, &["wiki"]).expect("granted");
    shake_unseen(&mut rig, &bot);
    roam(&mut rig, &mut bot);
    rig.pass(Duration::from_millis(100));
    assert_eq!(rig.kernel.doors(rig.now), [bot.door()]);
    assert!(rig.shake(&bot));
    rig.pass_secs(60);
    assert_eq!(rig.kernel.doors(rig.now), [bot.door()]);
}

#[test]
fn an_endpoint_that_never_shook_hands_is_nobodys() {
    let mut bot = Device::of("bot", 7);
    let mut rig = Rig::with(&[&bot]);
    rig.open(&mut bot, &["wiki"]).expect("granted");
    let peer = rig.kernel.peers.get_mut(&bot.wg_key).expect("a peer");
    peer.endpoint = Some(bot.source);
    rig.pass(Duration::from_secs(9));
    assert_eq!(rig.audited(AuditKind::SessionLive).len(), 0);
    rig.pass(Duration::from_secs(1));
    assert!(rig.kernel.is_empty(rig.now));
}

#[test]
fn after_a_roam_to_another_port_the_old_one_is_the_old_place() {
    let mut bot = Device::of("bot", 7);
    let mut rig = Rig::with(&[&bot]);
    rig.open(&mut bot, &["wiki"]).expect("granted");
    assert!(rig.shake(&bot));
    bot.source.set_port(bot.source.port() + 1);
    let told = {
        let roam = Ask::Roam(bot.session_id());
        rig.ask(&mut bot, roam)
    };
    assert!(matches!(told, Some(Outcome::Session(_))), "{told:?}");
    rig.pass(Duration::from_secs(1));
    assert_eq!(rig.kernel.doors(rig.now), [bot.door()]);
}

#[test]
fn a_session_that_lives_is_looked_at_seldom() {
    let mut bot = Device::of("bot", 7);
    let mut rig = Rig::with(&[&bot]);
    rig.open(&mut bot, &["wiki"]).expect("granted");
    assert!(rig.shake(&bot));
    let end = rig.now.mono.after(LOOK_WHILE_LIVE * 4);
    let mut looks = 0;
    while let Some(due) = rig.gateway.poll_timeout().filter(|due| *due <= end) {
        rig.go_to(due.max(rig.now.mono));
        rig.gateway.handle_timeout(rig.now, &mut rig.entropy);
        while let Some(effect) = rig.gateway.poll_effect() {
            looks += usize::from(matches!(effect.kind, EffectKind::Observe { .. }));
            rig.perform(effect);
        }
    }
    assert_eq!(looks, 4);
}
