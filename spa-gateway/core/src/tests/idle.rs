//! Sessions nobody uses end when policy says so, and not before.

use alloc::format;
use core::time::Duration;

use super::policy::{DB, RESOURCES, WIKI, has, live, put, rig};
use super::rig::Device;
use crate::AuditKind;

/// Half an hour without traffic is the most.
fn idle() -> alloc::string::String {
    format!("[defaults]\nidle = \"30m\"\n{RESOURCES}")
}

#[test]
fn a_session_without_traffic_ends_and_says_why() {
    let mut bot = Device::of("bot", 7);
    let mut rig = rig(&bot, &idle());
    live(&mut rig, &mut bot, &["wiki"]);
    rig.pass_secs(30 * 60 - 1);
    assert!(has(&rig, WIKI));
    // The first count is what idleness is told from, so one count later at the most.
    rig.pass_secs(61);
    assert!(rig.kernel.is_empty(rig.now));
    let ended = rig.audited(AuditKind::SessionEnded);
    assert_eq!(ended[0].reason, Some("idle for too long"));
    assert!(rig.store.sessions.is_empty());
}

#[test]
fn traffic_keeps_a_session_and_handshakes_do_not() {
    let mut bot = Device::of("bot", 7);
    let mut rig = rig(&bot, &idle());
    live(&mut rig, &mut bot, &["wiki"]);
    for _ in 0..5 {
        rig.pass_secs(20 * 60);
        rig.kernel.carry(WIKI, rig.now);
    }
    assert!(has(&rig, WIKI));
    for _ in 0..16 {
        rig.pass_secs(2 * 60);
        // Keepalives, handshakes, and the control channel.
        rig.kernel.carry((8700, 8700), rig.now);
        if let Some(peer) = rig.kernel.peers.get_mut(&bot.wg_key) {
            peer.rx += 148;
            peer.tx += 92;
        }
    }
    assert!(rig.kernel.is_empty(rig.now));
}

#[test]
fn without_a_limit_nothing_is_counted_and_a_session_may_rest() {
    let mut bot = Device::of("bot", 7);
    // Nothing is learned or weighed either, so nothing is counted before the limit comes.
    let policy = RESOURCES.replace(", mode = \"observe\"", "");
    let mut rig = rig(&bot, &format!("[risk]\nunusual_volume = 0\n{policy}"));
    live(&mut rig, &mut bot, &["wiki"]);
    rig.pass_secs(7 * 60 * 60);
    assert!(has(&rig, WIKI));
    // A limit that comes later counts from then on.
    put(&mut rig, &idle());
    rig.pass_secs(29 * 60);
    assert!(has(&rig, WIKI));
    rig.pass_secs(3 * 60);
    assert!(rig.kernel.is_empty(rig.now));
}

#[test]
fn a_session_that_cannot_be_counted_is_not_idle() {
    let mut bot = Device::of("bot", 7);
    let mut rig = rig(&bot, &idle());
    live(&mut rig, &mut bot, &["wiki"]);
    let flows = core::mem::take(&mut rig.kernel.flows);
    rig.pass(Duration::from_secs(60 * 60));
    assert_eq!(rig.gateway.sessions().count(), 1);
    rig.kernel.flows = flows;
    assert!(!has(&rig, DB));
}
