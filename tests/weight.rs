//! What one more device and one more session weigh in the core: bytes of heap that stay. Counted, so that it is the same on every
//! machine of 64 bits; what the whole gateway weighs is measured by `make bench`.
//!
//! One test, and a file of its own: what is counted is the whole process.
#![forbid(unsafe_code)]

use std::alloc::System;

use spa_gateway_core::{Gateway, Passed};
use spa_tests::machines::{Counting, NOW, datagram, gateway, knock, open};
use stats_alloc::{INSTRUMENTED_SYSTEM, Region, StatsAlloc};

#[global_allocator]
static COUNTING: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

/// How many of each.
const COUNT: u32 = 1_000;
/// The most bytes of a device: its person, its key, its five tags, its name in a group of the policy.
const DEVICE: usize = 1_290;
/// The most bytes of a session: its flows with their counts, its door, its timers, the answer that may be repeated.
const SESSION: usize = 2_100;

/// Has something done and gives how many bytes of it stayed.
fn stays<T>(of: impl FnOnce() -> T) -> (T, usize) {
    let region = Region::new(COUNTING);
    let made = of();
    let change = region.change();
    let stays = change.bytes_allocated - change.bytes_deallocated;
    (made, stays)
}

/// A session of each device, counted once.
fn open_all(gateway: &mut Gateway) {
    let mut entropy = Counting::default();
    let mut flows = Vec::new();
    for number in 0..COUNT {
        let knock = knock(number).expect("a knock");
        gateway
            .handle_datagram(datagram(number, &knock), NOW)
            .expect("taken in");
        flows.extend(open(gateway, &mut entropy).expect("opened"));
    }
    let counts: Vec<_> = flows
        .iter()
        .map(|flow| (*flow, Passed::default()))
        .collect();
    gateway.handle_counts(&counts, NOW);
}

#[test]
fn a_device_and_a_session_weigh_no_more_than_they_did() {
    let build = |machines| move || gateway(machines).expect("a gateway");
    let (few, with_few) = stays(build(COUNT));
    drop(few);
    let (mut gateway, with_many) = stays(build(2 * COUNT));
    let device = (with_many - with_few) / COUNT as usize;
    let ((), sessions) = stays(|| open_all(&mut gateway));
    let session = sessions / COUNT as usize;
    assert_eq!(gateway.sessions().count(), COUNT as usize);
    println!("{device} bytes a device, {session} a session");
    assert!(device <= DEVICE, "a device weighs {device} bytes");
    assert!(session <= SESSION, "a session weighs {session} bytes");
}
