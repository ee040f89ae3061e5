//! Clocks: nothing is accepted while ours is not believed; keys and invites age by the calendar.

use alloc::collections::BTreeSet;
use core::time::Duration;

use spa_proto::{Slot, Tag, WallTime};

use super::rig::{Device, Did, Rig, settings, store_of};
use crate::{
    ACCEPTED, AuditKind, ClockTrust, Confirm, FLOOR_EVERY, HANDED_OUT, InviteTerms, MAX_ROTATING,
    Now, Refusal,
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

/// Somebody sets the clock, and the gateway hears of it.
fn set(rig: &mut Rig, to: WallTime) {
    rig.now.wall = to;
    rig.gateway.handle_clock(ClockTrust::Trusted, rig.now);
    rig.run();
}

const HOUR: Duration = Duration::from_secs(60 * 60);
const YEAR: Duration = Duration::from_secs(365 * DAY);

#[test]
fn a_clock_that_jumps_a_year_is_not_believed_until_it_is_back_and_nothing_remembers_it() {
    for ahead in [true, false] {
        let mut bot = Device::of("bot", 7);
        let mut rig = Rig::with(&[&bot]);
        rig.pass(FLOOR_EVERY * 2);
        let (right, floor, keys) = (rig.now, rig.store.floor, rig.store.knock_keys.len());
        let wrong = if ahead {
            right.wall.saturating_add(YEAR)
        } else {
            right.wall.saturating_sub(YEAR)
        };
        // Not even before the gateway hears of it.
        rig.now.wall = wrong;
        assert!(!rig.gateway.is_clock_believed(rig.now));
        set(&mut rig, wrong);
        assert!(rig.open(&mut bot, &["wiki"]).is_none());
        assert_eq!(rig.gateway.tags().count(), 0);
        let audits = rig.audited(AuditKind::ClockUntrusted);
        let way = if ahead { "ahead" } else { "back" };
        let note = alloc::format!("set 365 days {way}");
        assert_eq!(audits[0].note.as_ref(), Some(&note));
        // However long it lasts.
        rig.pass(FLOOR_EVERY * 2);
        rig.gateway.handle_stop(rig.now);
        rig.run();
        assert_eq!((rig.store.floor, rig.store.knock_keys.len()), (floor, keys));
        let went = rig.now.mono.since(right.mono);
        set(&mut rig, right.wall.saturating_add(went));
        assert!(rig.open(&mut bot, &["wiki"]).is_some(), "back: {way}");
        assert_eq!(rig.audited(AuditKind::ClockTrusted).len(), 1);
    }
}

#[test]
fn a_clock_that_jumps_an_hour_is_believed_and_leaves_no_floor_if_it_is_back_in_time() {
    let mut bot = Device::of("bot", 7);
    let mut rig = Rig::with(&[&bot]);
    rig.pass(FLOOR_EVERY * 2);
    let right = rig.now.wall;
    set(&mut rig, right.saturating_add(HOUR));
    rig.pass(FLOOR_EVERY - Duration::from_secs(120));
    rig.gateway.handle_stop(rig.now);
    rig.run();
    assert!(
        rig.store.floor <= right,
        "a time of its own making is no floor"
    );
    let mended = rig.now.wall.saturating_sub(HOUR);
    set(&mut rig, mended);
    assert!(rig.open(&mut bot, &["wiki"]).is_some());
    let back = rig.now.wall.saturating_sub(HOUR);
    set(&mut rig, back);
    assert!(rig.gateway.is_clock_believed(rig.now));
}

#[test]
fn a_session_that_is_over_by_a_clock_that_was_set_ends_at_once_and_lives_no_longer_for_one_set_back()
 {
    for (by, whole) in [(HOUR, false), (YEAR, false)] {
        let mut bot = Device::of("bot", 7);
        let mut rig = Rig::with(&[&bot]);
        assert!(rig.open(&mut bot, &["wiki"]).is_some());
        let ahead = rig.now.wall.saturating_add(by + 8 * HOUR);
        set(&mut rig, ahead);
        assert_eq!(rig.gateway.sessions().count(), usize::from(whole), "{by:?}");
        assert_eq!(rig.kernel.flows.len(), 0);
    }
    for by in [HOUR, YEAR] {
        let mut bot = Device::of("bot", 7);
        let mut rig = Rig::with(&[&bot]);
        assert!(rig.open(&mut bot, &["wiki"]).is_some());
        let length = rig.gateway.sessions().next().expect("one").not_after;
        let length = length.since(rig.now.wall);
        let back = rig.now.wall.saturating_sub(by);
        set(&mut rig, back);
        rig.pass(length);
        assert_eq!(rig.gateway.sessions().count(), 0, "{by:?}");
        assert_eq!(rig.kernel.flows.len(), 0);
    }
}

#[test]
fn after_a_restart_on_a_clock_that_was_set_back_no_session_goes_on() {
    let mut bot = Device::of("bot", 7);
    let mut rig = Rig::with(&[&bot]);
    rig.pass(FLOOR_EVERY);
    assert!(rig.open(&mut bot, &["wiki"]).is_some());
    rig.now.wall = rig.now.wall.saturating_sub(HOUR);
    rig.restart();
    assert_eq!(rig.gateway.sessions().count(), 0);
    assert_eq!(rig.kernel.peers.len(), 0);
}

#[test]
fn what_an_administrator_accepts_is_believed_from_the_disk_on() {
    let mut bot = Device::of("bot", 7);
    let mut rig = Rig::with(&[&bot]);
    rig.pass(FLOOR_EVERY * 2);
    let right = rig.now.wall;
    // A year ahead, accepted by mistake, for long enough to be the floor; a knock of that time passes.
    set(&mut rig, right.saturating_add(YEAR));
    assert_eq!(rig.gateway.accept_clock(rig.now).value, 0);
    assert!(!rig.gateway.is_clock_believed(rig.now));
    rig.run();
    assert!(rig.open(&mut bot, &["wiki"]).is_some());
    rig.pass(FLOOR_EVERY + HOUR);
    assert!(rig.store.floor > right.saturating_add(YEAR));
    // And back: only an administrator brings the floor down, and the device that knocked there waits for its resync.
    set(&mut rig, right.saturating_add(FLOOR_EVERY + HOUR));
    assert!(!rig.gateway.is_clock_believed(rig.now));
    rig.store_works = false;
    rig.gateway.accept_clock(rig.now);
    rig.run();
    assert!(!rig.gateway.is_clock_believed(rig.now), "it is not on disk");
    rig.store_works = true;
    assert_eq!(rig.gateway.accept_clock(rig.now).value, 1);
    rig.run();
    assert_eq!(rig.audited(AuditKind::ClockAccepted).len(), 2);
    assert!(rig.gateway.is_clock_believed(rig.now));
    assert_eq!(rig.store.floor, rig.now.wall);
    assert!(rig.open(&mut bot, &["wiki"]).is_none());
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

/// The tags a packet may carry at this time.
fn in_window(bot: &Device, at: WallTime) -> BTreeSet<Tag> {
    Slot::window(at).map(|slot| bot.keys.tag(slot)).into()
}

fn known(rig: &Rig) -> BTreeSet<Tag> {
    rig.gateway.tags().collect()
}

#[test]
fn the_kernel_knows_every_tag_before_a_packet_may_carry_it() {
    let late = Duration::from_millis(900);
    let bot = Device::of("bot", 7);
    let mut rig = Rig::with(&[&bot]);
    let begun = rig.now.mono;
    let (mut slides, mut edition) = (0, rig.gateway.tags_edition());
    while rig.now.mono.since(begun) < Duration::from_secs(15 * 60) {
        // What the daemon wrote when it was last awake must do until it is awake again, which is late.
        let written = known(&rig);
        let due = rig
            .gateway
            .poll_timeout()
            .expect("there is always a minute");
        let sleeps = due.since(rig.now.mono) + late;
        for part in 0..=100 {
            let at = rig.now.wall.saturating_add(sleeps * part / 100);
            assert!(written.is_superset(&in_window(&bot, at)), "{at:?}");
        }
        rig.now = Now {
            wall: rig.now.wall.saturating_add(sleeps),
            mono: rig.now.mono.after(sleeps),
        };
        rig.gateway.handle_timeout(rig.now, &mut rig.entropy);
        rig.run();
        let is_new = rig.gateway.tags_edition()
            != core::mem::replace(&mut edition, rig.gateway.tags_edition());
        assert!(is_new || known(&rig) == written);
        slides += u32::from(is_new);
    }
    assert!((14..=16).contains(&slides), "{slides}");
}

#[test]
fn a_clock_that_is_set_moves_the_tags_and_the_next_minute() {
    let mut bot = Device::of("bot", 7);
    let mut rig = Rig::with(&[&bot]);
    for (hours, millis) in [(7, 0), (0, 59_999), (25, 29_999), (0, 1)] {
        rig.pass_secs(61);
        let jump = Duration::from_secs(hours * 3_600) + Duration::from_millis(millis);
        rig.now.wall = rig.now.wall.saturating_add(jump);
        rig.gateway.handle_clock(ClockTrust::Trusted, rig.now);
        rig.run();
        let (at, due) = (rig.now, rig.gateway.poll_timeout().expect("a minute"));
        assert!(known(&rig).is_superset(&in_window(&bot, at.wall)));
        let then = at.wall.saturating_add(due.since(at.mono));
        assert!(known(&rig).is_superset(&in_window(&bot, then)), "{jump:?}");
        assert!(rig.open(&mut bot, &["wiki"]).is_some(), "{jump:?}");
    }
}

#[test]
fn a_device_that_is_revoked_has_no_tag_and_nobody_has_one_on_a_clock_without_trust() {
    let (bot, bo) = (Device::of("bot", 7), Device::of("bo", 8));
    let mut rig = Rig::with(&[&bot, &bo]);
    let of = |device: &Device, rig: &Rig| {
        let window = in_window(device, rig.now.wall);
        known(rig).intersection(&window).count()
    };
    assert_eq!((of(&bot, &rig), of(&bo, &rig)), (4, 4));
    let device = crate::DeviceRef {
        person: bot.person.clone(),
        label: "laptop".into(),
    };
    rig.gateway
        .revoke_device(&device, rig.now)
        .expect("revoked");
    rig.run();
    assert_eq!((of(&bot, &rig), of(&bo, &rig)), (0, 4));
    rig.gateway.handle_clock(ClockTrust::Untrusted, rig.now);
    assert_eq!(rig.gateway.tags().count(), 0);
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
