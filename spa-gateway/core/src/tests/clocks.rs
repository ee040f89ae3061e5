//! Clocks: nothing is accepted while ours is not believed; keys and invites age by the calendar.

use core::time::Duration;

use super::rig::{Device, Did, Rig, settings, store_of};
use crate::{
    ACCEPTED, AuditKind, ClockTrust, Confirm, FLOOR_EVERY, HANDED_OUT, InviteTerms, MAX_ROTATING,
    Refusal,
};

const DAY: u64 = 24 * 60 * 60;

#[test]
fn nothing_is_accepted_while_the_clock_is_not_trusted() {
    let mut bot = Device::of("bot", 7);
    let mut rig = Rig::with(&[&bot]);
    rig.gateway.handle_clock(ClockTrust::Untrusted, rig.now);
    assert!(rig.open(&mut bot, &["wiki"]).is_none());
    assert_eq!(rig.count(Refusal::ClockUntrusted), 1);
    rig.gateway.handle_clock(ClockTrust::Trusted, rig.now);
    assert!(rig.open(&mut bot, &["wiki"]).is_some());
}

#[test]
fn nothing_is_accepted_behind_the_saved_floor() {
    let mut bot = Device::of("bot", 7);
    let mut store = store_of(&[&bot]);
    store.floor = spa_proto::WallTime::from_millis(1_800_000_060_000);
    let mut rig = Rig::restored(store, settings());
    assert!(rig.open(&mut bot, &["wiki"]).is_none());
    rig.pass_secs(61);
    assert!(rig.open(&mut bot, &["wiki"]).is_some());
}

#[test]
fn the_floor_is_saved_every_six_hours_and_at_the_stop() {
    let mut rig = Rig::with(&[]);
    let before = rig.store.floor;
    rig.pass(FLOOR_EVERY + Duration::from_secs(60));
    let saved = rig.store.floor;
    assert!(saved > before);
    rig.pass_secs(60 * 60);
    assert_eq!(rig.store.floor, saved);
    rig.gateway.handle_stop(rig.now);
    rig.run();
    assert_eq!(rig.store.floor, rig.now.wall);
}

#[test]
fn a_clock_that_ran_ahead_once_is_reported_and_mended_by_resync() {
    let mut bot = Device::of("bot", 7);
    let mut rig = Rig::with(&[&bot]);
    rig.store.credentials[0].last_ts = rig.now.wall.saturating_add(Duration::from_secs(DAY));
    rig.restart();
    assert!(rig.open(&mut bot, &["wiki"]).is_none());
    assert_eq!(rig.audited(AuditKind::ClockRanAhead).len(), 1);
    let device = crate::DeviceRef {
        person: bot.person.clone(),
        label: "laptop".into(),
    };
    rig.gateway
        .resync_device(&device, rig.now)
        .expect("resynced");
    rig.run();
    rig.pass_secs(1);
    assert!(rig.open(&mut bot, &["wiki"]).is_some());
}

#[test]
fn a_knock_passes_in_every_slot_as_minutes_go_by() {
    let mut bot = Device::of("bot", 7);
    let mut rig = Rig::with(&[&bot]);
    for _ in 0..20 {
        rig.pass_secs(17);
        assert!(rig.open(&mut bot, &[]).is_some());
    }
}

#[test]
fn knock_keys_rotate_weekly_and_are_handed_out_only_from_the_disk() {
    let bot = Device::of("bot", 7);
    let mut rig = Rig::with(&[&bot]);
    rig.store_works = false;
    rig.pass_secs(60);
    rig.store_works = true;
    assert_eq!(rig.store.knock_keys.len(), 1);
    assert_eq!(rig.gateway.knock_keys.newest(rig.now.wall), None);
    rig.pass_secs(60);
    let first = rig
        .gateway
        .knock_keys
        .newest(rig.now.wall)
        .expect("a prekey");
    assert_eq!(
        first.not_after.since(rig.now.wall).as_secs().div_ceil(DAY),
        14
    );
    let mut most = 0;
    for _ in 0..60 {
        rig.pass_secs(DAY);
        most = most.max(rig.store.knock_keys.len() - 1);
    }
    assert!((2..=MAX_ROTATING).contains(&most));
    let newest = rig
        .gateway
        .knock_keys
        .newest(rig.now.wall)
        .expect("a prekey");
    assert_ne!(newest.kid, first.kid);
    let age = ACCEPTED - newest.not_after.since(rig.now.wall);
    assert!(age <= HANDED_OUT + Duration::from_secs(60));
}

#[test]
fn an_invite_that_nobody_completes_is_void_and_the_log_says_so() {
    let bot = Device::of("bot", 7);
    let mut rig = Rig::with(&[&bot]);
    let terms = InviteTerms {
        valid: Duration::from_secs(DAY),
        confirm: Confirm::ByWords,
    };
    rig.gateway
        .invite(&bot.person, terms, rig.now, &mut rig.entropy)
        .expect("invited");
    rig.run();
    assert_eq!(
        (rig.gateway.invites().count(), rig.store.credentials.len()),
        (1, 2)
    );
    rig.pass_secs(DAY + 60);
    assert_eq!(
        (rig.gateway.invites().count(), rig.store.credentials.len()),
        (0, 1)
    );
    assert_eq!(
        rig.audited(AuditKind::InviteVoided)[0].reason,
        Some("not completed in time")
    );
}

#[test]
fn an_idle_gateway_wakes_once_a_minute() {
    let mut rig = Rig::with(&[]);
    rig.pass_secs(61);
    let mut wakes = 0;
    let end = rig.now.mono.after(Duration::from_secs(600));
    while let Some(due) = rig.gateway.poll_timeout().filter(|due| *due <= end) {
        wakes += 1;
        let step = due.since(rig.now.mono);
        rig.pass(step);
    }
    assert!(wakes <= 11, "{wakes} wakes in ten minutes");
    assert!(
        rig.did
            .iter()
            .all(|did| !matches!(did, Did::Door | Did::Flow | Did::Peer))
    );
}
