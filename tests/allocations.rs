//! No packet makes anybody allocate before SPEC §8 step 4, whoever sent it: not in the capture thread, not in the core. A flood of
//! junk then costs time and nothing else.
//!
//! One test, and a file of its own: what is counted is the whole process.
#![forbid(unsafe_code)]

use std::alloc::System;

use spa_gateway::capture::{Frame, KnownTags};
use spa_gateway_core::{Gateway, Refusal};
use spa_tests::machines::{MACHINES, NOW, datagram, filled, gateway, keys, knock};
use stats_alloc::{INSTRUMENTED_SYSTEM, Region, StatsAlloc};

#[global_allocator]
static COUNTING: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

/// How many packets of each kind.
const COUNT: u32 = 100;

/// Has something done and gives how often it allocated.
fn allocations(of: impl FnOnce()) -> usize {
    let region = Region::new(COUNTING);
    of();
    let change = region.change();
    change.allocations + change.reallocations
}

fn refused(gateway: &mut Gateway, packets: &[[u8; 512]], refusal: Refusal) -> usize {
    allocations(|| {
        for packet in packets {
            let outcome = gateway.handle_datagram(datagram(0, packet), NOW);
            assert_eq!(outcome, Err(refusal));
        }
    })
}

#[test]
fn junk_allocates_nothing_before_step_4() {
    let mut gateway = gateway(MACHINES).expect("a gateway");
    let bytes: Vec<u8> = Vec::new();
    assert_eq!(
        allocations(|| drop(vec![bytes; 3])),
        1,
        "allocations are counted"
    );

    let strangers: Vec<_> = (0..COUNT).map(|number| filled(number, 0x5A)).collect();
    let bad_macs = strangers.iter().zip(0..).map(|(packet, number)| {
        let mut packet = *packet;
        packet[..8].copy_from_slice(keys(number).tag(NOW.wall.slot()).as_bytes());
        packet
    });
    let bad_macs: Vec<_> = bad_macs.collect();
    assert_eq!(refused(&mut gateway, &strangers, Refusal::UnknownTag), 0);
    assert_eq!(refused(&mut gateway, &bad_macs, Refusal::OuterMac), 0);

    // A knock that was taken in once: whoever captured it and sends it again is told apart by the set of spent ones.
    let spent = [knock(7).expect("a knock"); COUNT as usize];
    let taken_in = allocations(|| {
        let outcome = gateway.handle_datagram(datagram(0, &spent[0]), NOW);
        assert_eq!(outcome, Ok(()));
    });
    assert!(taken_in > 0, "step 4 remembers it, and it is queued");
    assert_eq!(refused(&mut gateway, &spent, Refusal::Spent), 0);

    let mut known = KnownTags::ours(0);
    known.follow(&gateway);
    let look = known.look().expect("nobody has looked");
    let frame = frame(&strangers[0]);
    let ended_in_capture = allocations(|| {
        for _ in 0..COUNT {
            let shaped = Frame::shape(&frame).expect("a datagram");
            let tag = shaped.payload().first_chunk().expect("512 bytes");
            assert!(!look.knows(*tag));
            shaped.check().expect("whole");
        }
    });
    assert_eq!(ended_in_capture, 0);
    assert_eq!(known.strangers(), COUNT);
}

/// As it comes from the capture socket: IPv4, UDP, no checksum.
fn frame(payload: &[u8; 512]) -> Vec<u8> {
    // The last two bytes are the header's checksum.
    let mut frame = vec![0x45, 0, 0x02, 0x1C, 0, 0, 0x40, 0, 64, 17, 0x4C, 0x95];
    frame.extend([198, 51, 100, 7, 192, 0, 2, 1]);
    frame.extend([0x9C, 0x40, 0xCA, 0x6C, 0x02, 0x08, 0, 0]);
    frame.extend(payload);
    frame
}
