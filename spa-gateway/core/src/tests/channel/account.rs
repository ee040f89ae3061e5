//! A new password and an approval, from inside a session.

use alloc::boxed::Box;

use spa_proto::ProofSecret;
use spa_proto::channel::{Approve, Event, Password};

use super::{BASE, HOUR, MINUTE, db, live, open, ports, put};
use crate::tests::rig::{Device, Did, Rig};
use crate::{AuditKind, Call, CallAnswer, CallRefusal};

/// A new password, signed by the old one.
fn password(rig: &Rig, device: &Device, old: &ProofSecret, code: u32) -> (ProofSecret, Call) {
    let new = ProofSecret::from_seed(&[77; 32]);
    let of = (rig.gateway.id(), device.id, device.session_id());
    let signature = old.sign_password(&new.public(), of);
    let ask = Password::new(new.public(), code, signature);
    (new, Call::Password(Box::new(ask)))
}

#[test]
fn a_new_password_needs_the_old_one_and_an_unused_code_and_is_on_disk_first() {
    let mut ana = Device::of("ana", 7);
    let mut rig = live(BASE, &mut ana, &["wiki"]);
    // After a restart there is one failure to be had, and one more every ten minutes.
    rig.pass_secs(20 * MINUTE);
    open(&mut rig, &mut ana, &["wiki"]);
    let used = rig.code(&ana.person).expect("a person");
    let (_, call) = password(&rig, &ana, &ana.q, used);
    assert!(matches!(rig.call(&ana, call), Err(CallRefusal::Refused(_))));
    rig.pass_secs(31);
    let code = rig.code(&ana.person).expect("a person");
    let (_, call) = password(&rig, &ana, &ProofSecret::from_seed(&[66; 32]), code);
    assert!(matches!(rig.call(&ana, call), Err(CallRefusal::Refused(_))));
    assert_eq!(rig.audited(AuditKind::FactorFailed).len(), 2);
    assert_eq!(rig.store.credentials[0].failures, 2);
    rig.did.clear();
    let (new, call) = password(&rig, &ana, &ana.q, code);
    assert_eq!(rig.call(&ana, call), Ok(CallAnswer::Done));
    assert_eq!(rig.did[..2], [Did::Record, Did::Answer]);
    assert_eq!(rig.store.credentials[0].proof, Some(new.public()));
    // The old one opens nothing any more, the new one does.
    rig.pass_secs(31);
    assert!(rig.open(&mut ana, &["wiki"]).is_none());
    ana.q = new;
    rig.pass_secs(10 * MINUTE);
    assert!(rig.open(&mut ana, &["wiki"]).is_some());
}

#[test]
fn guessing_passwords_from_inside_is_bounded_like_knocking() {
    let mut ana = Device::of("ana", 7);
    let mut rig = live(BASE, &mut ana, &["wiki"]);
    rig.pass_secs(HOUR);
    for guess in 0..20 {
        let wrong = ProofSecret::from_seed(&[guess; 32]);
        let (_, call) = password(&rig, &ana, &wrong, 1);
        assert!(matches!(rig.call(&ana, call), Err(CallRefusal::Refused(_))));
    }
    assert_eq!(rig.audited(AuditKind::FactorFailed).len(), 5);
    rig.pass_secs(31);
    let code = rig.code(&ana.person).expect("a person");
    let (_, call) = password(&rig, &ana, &ana.q, code);
    assert!(matches!(rig.call(&ana, call), Err(CallRefusal::Refused(_))));
}

#[test]
fn a_password_that_cannot_be_written_down_is_the_old_one() {
    let mut ana = Device::of("ana", 7);
    let mut rig = live(BASE, &mut ana, &["wiki"]);
    rig.pass_secs(31);
    rig.store_works = false;
    let code = rig.code(&ana.person).expect("a person");
    let (_, call) = password(&rig, &ana, &ana.q, code);
    assert_eq!(rig.call(&ana, call), Err(CallRefusal::Failed));
    rig.store_works = true;
    rig.pass_secs(31);
    assert!(rig.open(&mut ana, &["wiki"]).is_some());
}

#[test]
fn an_approver_agrees_from_an_own_session_and_whoever_asked_hears_of_it() {
    let (mut ana, mut bo) = (Device::of("ana", 7), Device::of("bo", 8));
    let mut rig = Rig::with(&[&ana, &bo]);
    put(&mut rig, &db("approve = [\"group:ops\"]"));
    open(&mut rig, &mut bo, &["wiki"]);
    open(&mut rig, &mut ana, &["wiki", "db"]);
    let Some(Event::Waiting(request)) = rig.told(&bo).pop().cloned() else {
        panic!("{:?}", rig.told(&bo));
    };
    assert_eq!(
        (request.person.as_str(), request.resource.as_str()),
        ("ana", "db")
    );
    let Ok(CallAnswer::Waiting(listed)) = rig.call(&bo, Call::Waiting) else {
        panic!("no list");
    };
    assert_eq!((listed.to_approve.len(), listed.own.len()), (1, 0));
    let Ok(CallAnswer::Waiting(listed)) = rig.call(&ana, Call::Waiting) else {
        panic!("no list");
    };
    assert_eq!((listed.to_approve.len(), listed.own.len()), (0, 1));
    let approve = |id, minutes| Call::Approve(Approve { id, minutes });
    // Not one's own, not one that is not there, not for no time.
    assert_eq!(
        rig.call(&ana, approve(request.id, 60)),
        Err(CallRefusal::NotFound)
    );
    assert_eq!(
        rig.call(&bo, approve(request.id + 1, 60)),
        Err(CallRefusal::NotFound)
    );
    let never = rig.call(&bo, approve(request.id, 0));
    assert!(matches!(never, Err(CallRefusal::Refused(_))));
    let approved = rig.call(&bo, approve(request.id, 60));
    assert!(
        matches!(approved, Ok(CallAnswer::Approved(_))),
        "{approved:?}"
    );
    assert_eq!(rig.store.approvals.len(), 1);
    assert!(matches!(rig.told(&ana).last(), Some(Event::Approved(_))));
    rig.pass_secs(31);
    open(&mut rig, &mut ana, &["wiki", "db"]);
    assert!(ports(&rig).contains(&5432));
}
