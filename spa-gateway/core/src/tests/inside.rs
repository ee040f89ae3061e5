//! An attacker inside the fence, with a key or a tag: his flood ends at a cheap step, leaves nothing behind and costs nobody else a knock.

use alloc::vec::Vec;
use core::net::SocketAddr;

use super::rig::{Device, Rig};
use crate::spent::MAX_SPENT;
use crate::{AuditKind, Refusal};

const PACKETS: u32 = 3_000;
/// How many of the attacker's packets come between two honest knocks.
const BETWEEN: u32 = 500;

fn packet(rig: &Rig, device: &mut Device) -> [u8; 512] {
    let ask = rig.open_ask(device, &["wiki"]);
    let (info, ext) = device.request(ask, rig.now).encode().expect("fits");
    device.build(&info, &ext, rig.now).packet
}

/// What of a gateway could grow by what it is sent.
fn weight(rig: &Rig) -> [usize; 5] {
    let gateway = &rig.gateway;
    let spent = gateway.credentials.values();
    [
        gateway.waiting_knocks(),
        gateway.operations.len(),
        gateway.outbox.waited_for(),
        spent.map(|of| of.memory.spent.len()).sum(),
        gateway.tags.len(),
    ]
}

/// Sends a flood, everything it leads to done at once, and lets the honest in between.
fn flood(
    rig: &mut Rig,
    honest: &mut Device,
    mut next: impl FnMut(&mut Rig, u32) -> Result<(), Refusal>,
) -> Vec<Refusal> {
    let mut refusals = Vec::new();
    for number in 0..PACKETS {
        refusals.extend(next(rig, number).err());
        rig.run();
        if number % BETWEEN == BETWEEN - 1 {
            // One a minute is the honest device's own bucket.
            rig.pass_secs(10);
            assert!(rig.open(honest, &["wiki"]).is_some(), "after {number}");
        }
    }
    refusals
}

#[test]
fn a_captured_tag_opens_no_queue_from_whatever_address_it_is_sent() {
    let mut victim = Device::of("bot", 7);
    let mut honest = Device::of("bot", 8);
    let mut rig = Rig::with(&[&victim, &honest]);
    // Never spent: the thief held it back and does not know what else would be right.
    let mut captured = packet(&rig, &mut victim);
    captured[20] ^= 1;
    let before = weight(&rig);
    let refusals = flood(&mut rig, &mut honest, |rig, number| {
        let [a, b, c, d] = number.to_be_bytes();
        rig.take_in(&captured, SocketAddr::from(([11 + a, b, c, d], 4_000)))
    });
    assert_eq!(refusals.len(), PACKETS as usize);
    assert!(refusals.iter().all(|refusal| *refusal == Refusal::OuterMac));
    let after = weight(&rig);
    assert!(
        after[3] - before[3] <= 6,
        "the honest device's own: {after:?}"
    );
    assert_eq!(
        [before[0], before[1], before[4]],
        [after[0], after[1], after[4]]
    );
    // The victim's own bucket was not touched.
    assert!(rig.open(&mut victim, &["wiki"]).is_some());
}

#[test]
fn a_captured_knock_is_worth_one_session_and_a_thousand_cheap_refusals() {
    let mut victim = Device::of("bot", 7);
    let mut honest = Device::of("bot", 8);
    let mut rig = Rig::with(&[&victim, &honest]);
    let captured = packet(&rig, &mut victim);
    let thief = SocketAddr::from(([11, 0, 0, 1], 4_000));
    let refusals = flood(&mut rig, &mut honest, |rig, _| {
        rig.take_in(&captured, thief)
    });
    assert_eq!(refusals.len(), PACKETS as usize - 1);
    assert!(refusals.iter().all(|refusal| *refusal == Refusal::Spent));
    assert_eq!(rig.gateway.waiting_knocks(), 0);
    // The victim's own bucket was touched once.
    assert!(rig.open(&mut victim, &["wiki"]).is_some());
}

#[test]
fn a_device_that_floods_with_a_wrong_password_is_slowed_down_alone() {
    let mut attacker = Device::of("bot", 7);
    attacker.q = spa_proto::ProofSecret::from_seed(&[99; 32]);
    let mut honest = Device::of("bot", 8);
    let mut rig = Rig::with(&[&{ Device::of("bot", 7) }, &honest]);
    let source = attacker.source;
    let refusals = flood(&mut rig, &mut honest, |rig, _| {
        let packet = packet(rig, &mut attacker);
        rig.take_in(&packet, source)
    });
    // Six at once and one every two seconds pass step 4; of those, what the failure bucket holds is looked at.
    let passed = PACKETS as usize - refusals.len();
    assert!((6..=60).contains(&passed), "{passed}");
    assert!(
        refusals
            .iter()
            .all(|refusal| *refusal == Refusal::MessageRate)
    );
    assert!(rig.count(Refusal::WrongProof) <= 6);
    assert!(
        rig.audited(AuditKind::FactorFailed).len() <= 20,
        "the log is bounded"
    );
    let spent = rig.gateway.credentials[&attacker.id].memory.spent.len();
    assert!(spent <= MAX_SPENT, "{spent}");
    assert_eq!(weight(&rig)[..3], [0, 0, 0]);
}
