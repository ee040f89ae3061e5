//! The rekey: both sides hold one key, it is rare, and where policy wants it nothing flows before it.

use alloc::format;

use spa_proto::RekeyAsk;
use spa_proto::channel::{Event, RekeyState};

use super::{BASE, MINUTE, grants, live, open, ports, put};
use crate::tests::rig::{Device, Did, Rig};
use crate::{AuditKind, Call, CallAnswer, CallRefusal};

/// Rekeys; gives the key both sides hold.
fn rekey(rig: &mut Rig, device: &Device) -> Result<([u8; 32], [u8; 32]), CallRefusal> {
    let ask = RekeyAsk::new([3; 32], [4; 64]);
    let CallAnswer::Rekey(answer) = rig.call(device, Call::Rekey(ask.request().clone()))? else {
        panic!("another answer");
    };
    let psk = rig.last_psk.as_ref().expect("a knock before");
    let clients = ask.finish(psk, &answer).expect("sound");
    let gateways = rig.kernel.psks.get(&device.wg_key).copied();
    Ok((*clients.expose(), gateways.expect("set")))
}

#[test]
fn both_sides_hold_the_same_key_after_a_rekey_and_after_one_that_is_repeated() {
    let mut bo = Device::of("bo", 7);
    let mut rig = live(BASE, &mut bo, &["wiki"]);
    rig.did.clear();
    let (clients, gateways) = rekey(&mut rig, &bo).expect("a key");
    assert_eq!(clients, gateways);
    assert_eq!(rig.did, [Did::Psk, Did::Answer]);
    assert_eq!(grants(&mut rig, &bo).rekey, RekeyState::Set);
    let (again, gateways) = rekey(&mut rig, &bo).expect("another key");
    assert_eq!(again, gateways);
    assert_ne!(again, clients);
    rig.events.clear();
    rig.pass_secs(10);
    assert!(rig.told(&bo).is_empty());
    assert!(rig.shake(&bo));
    rig.pass_secs(6);
    assert_eq!(grants(&mut rig, &bo).rekey, RekeyState::Done);
    assert!(matches!(rig.told(&bo)[..], [Event::Rekeyed(_)]));
    assert_eq!(rig.audited(AuditKind::SessionQuantumSafe).len(), 1);
    assert_eq!(ports(&rig), [443, 8700]);
}

#[test]
fn rekeys_are_rare_and_a_malformed_one_changes_nothing() {
    let mut bo = Device::of("bo", 7);
    let mut rig = live(BASE, &mut bo, &["wiki"]);
    let mut request = RekeyAsk::new([3; 32], [4; 64]).request().clone();
    request.x25519 = [0; 32];
    let refused = rig.call(&bo, Call::Rekey(request));
    assert!(matches!(refused, Err(CallRefusal::Malformed(_))));
    assert!(rig.kernel.psks.is_empty());
    for _ in 0..3 {
        rekey(&mut rig, &bo).expect("a key");
    }
    let Err(CallRefusal::TooMany(wait)) = rekey(&mut rig, &bo) else {
        panic!("a fifth one");
    };
    rig.pass(wait);
    rekey(&mut rig, &bo).expect("a key");
}

#[test]
fn a_rekey_after_a_restart_is_refused() {
    let mut bo = Device::of("bo", 7);
    let mut rig = Rig::with(&[&bo]);
    open(&mut rig, &mut bo, &["wiki"]);
    rekey(&mut rig, &bo).expect("a key");
    rig.restart();
    assert_eq!(grants(&mut rig, &bo).rekey, RekeyState::Lost);
    assert_eq!(rekey(&mut rig, &bo), Err(CallRefusal::RekeyLost));
}

#[test]
fn where_policy_wants_it_nothing_flows_before_the_handshake_after_the_rekey() {
    let required = format!("[defaults]\npq = \"required\"\n{BASE}");
    let mut bo = Device::of("bo", 7);
    let mut rig = live(&required, &mut bo, &["wiki"]);
    assert_eq!(ports(&rig), [8700]);
    assert_eq!(grants(&mut rig, &bo).rekey, RekeyState::Required);
    rekey(&mut rig, &bo).expect("a key");
    rig.pass_secs(30);
    assert_eq!(ports(&rig), [8700]);
    assert!(rig.shake(&bo));
    rig.pass_secs(6);
    assert_eq!(ports(&rig), [443, 8700]);
    // Another one does not take away what the first one gave.
    rekey(&mut rig, &bo).expect("a key");
    rig.pass_secs(11 * MINUTE);
    assert_eq!(ports(&rig), [443, 8700]);
    // A restart forgets the key every rekey starts from: what it holds back is closed until the next knock, and said.
    rig.restart();
    assert_eq!(ports(&rig), [8700]);
    assert_eq!(grants(&mut rig, &bo).rekey, RekeyState::Lost);
    open(&mut rig, &mut bo, &["wiki"]);
    assert_eq!(grants(&mut rig, &bo).rekey, RekeyState::Required);
    // A policy that does not want it any more, and one that wants it again.
    let mut ana = Device::of("ana", 8);
    let mut rig = live(BASE, &mut ana, &["wiki"]);
    assert_eq!(ports(&rig), [443, 8700]);
    put(&mut rig, &required);
    assert_eq!(ports(&rig), [8700]);
}
