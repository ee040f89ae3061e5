//! Observe mode: what passes that no rule allows is kept, so that rules can be made of it.

use alloc::vec::Vec;

use super::policy::{RESOURCES, live, name, put, rig};
use super::rig::{Device, Did, Rig};
use crate::{LEARNED_FOR, LearnedRow};

const PLC: (u16, u16) = (502, 502);

fn learned(rig: &Rig) -> Vec<LearnedRow> {
    let rows: Vec<LearnedRow> = rig.gateway.learned().cloned().collect();
    rows
}

#[test]
fn a_knock_let_in_by_learning_is_kept_with_its_own_record() {
    let mut bot = Device::of("bot", 7);
    let mut rig = rig(&bot, RESOURCES);
    let syncs = |rig: &Rig| rig.did.iter().filter(|did| **did == Did::Record).count();
    let before = syncs(&rig);
    rig.open(&mut bot, &["wiki", "plc"]).expect("a session");
    assert_eq!(syncs(&rig), before + 1, "no sync of its own");
    let rows = learned(&rig);
    assert_eq!(rows, rig.store.learned);
    let [row] = &rows[..] else {
        panic!("the plc alone: {rows:?}")
    };
    assert_eq!((&row.person, &row.resource), (&name("bot"), &name("plc")));
    assert_eq!((row.knocks, row.packets), (1, 0));
    rig.pass_secs(1);
    live(&mut rig, &mut bot, &["plc"]);
    rig.restart();
    let row = &learned(&rig)[0];
    assert_eq!(row.knocks, 2);
    assert!(row.first < row.last);
}

#[test]
fn packets_are_counted_in_memory_and_saved_now_and_then() {
    let mut bot = Device::of("bot", 7);
    let mut rig = rig(&bot, RESOURCES);
    live(&mut rig, &mut bot, &["wiki", "plc"]);
    let records = |rig: &Rig| rig.did.iter().filter(|did| **did == Did::Record).count();
    rig.pass_secs(5 * 60);
    let before = records(&rig);
    for _ in 0..10 {
        rig.kernel.carry(PLC, rig.now);
        rig.kernel.carry((443, 443), rig.now);
        rig.pass_secs(61);
    }
    assert_eq!(learned(&rig)[0].packets, 30);
    assert!(records(&rig) - before <= 3, "ten minutes, not ten records");
    // The process stops in order: nothing is lost.
    rig.gateway.handle_stop(rig.now);
    rig.run();
    assert_eq!(rig.store.learned[0].packets, 30);
    rig.restart();
    assert_eq!(learned(&rig)[0].packets, 30);
}

#[test]
fn what_a_rule_allows_is_not_learned_and_what_is_old_is_forgotten() {
    let mut bot = Device::of("bot", 7);
    let mut rig = rig(&bot, RESOURCES);
    live(&mut rig, &mut bot, &["plc"]);
    let rule = "[[allow]]\nname = \"plc\"\nwho = [\"bot\"]\nto = [\"plc\"]\n";
    put(&mut rig, &alloc::format!("{RESOURCES}\n{rule}"));
    rig.kernel.carry(PLC, rig.now);
    rig.pass_secs(120);
    live(&mut rig, &mut bot, &["plc"]);
    let rows = learned(&rig);
    assert_eq!((rows[0].knocks, rows[0].packets), (1, 0));
    rig.pass(LEARNED_FOR);
    assert!(learned(&rig).is_empty() && rig.store.learned.is_empty());
}
