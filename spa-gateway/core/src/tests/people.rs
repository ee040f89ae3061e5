//! People and devices: from the invite to the first session, and what an administrator is refused.

use alloc::format;
use alloc::string::{String, ToString};
use core::time::Duration;

use spa_proto::{Ask, DerivedKeys, Outcome, RecoveryCode, SecondFactor};

use super::rig::{Device, Did, Rig};
use crate::{
    AdminRefusal, AuditKind, Confirm, DeviceRef, InviteTerms, LockTarget, Name, PersonKind,
    Refusal, SHORTEST_DOOR,
};

const TERMS: InviteTerms = InviteTerms {
    valid: Duration::from_secs(24 * 60 * 60),
    confirm: Confirm::ByWords,
};

fn name(text: &str) -> Name {
    Name::parse(text).expect("a name")
}

/// A person with an invite that her device has redeemed; the device does not know yet which key won.
fn enrolled(rig: &mut Rig) -> Device {
    rig.gateway
        .add_person(&name("ana"), PersonKind::Human, &mut rig.entropy)
        .expect("added");
    rig.run();
    let offer = rig
        .gateway
        .invite(&name("ana"), TERMS, rig.now, &mut rig.entropy)
        .expect("invited")
        .value;
    rig.run();
    let mut device = Device::of("ana", 1);
    device.id = offer.credential;
    device.keys = DerivedKeys::derive(&offer.key, rig.gateway.id(), offer.credential);
    let ask = device.enrol_ask();
    let (info, ext) = device.request(ask, rig.now).encode().expect("fits");
    let sent = device.build(&info, &ext, rig.now);
    let (payload, secrets) = rig.send(&sent, device.source).expect("answered");
    let Outcome::Enrolled(Some(totp)) = payload.outcome else {
        panic!("the first enrolment hands the phone's secret over");
    };
    assert_eq!(totp.secret.expose().len(), 20);
    device.keys = DerivedKeys::derive(&secrets.k_cred, rig.gateway.id(), device.id);
    device
}

#[test]
fn from_invite_to_first_session() {
    let mut rig = Rig::with(&[]);
    let mut device = enrolled(&mut rig);
    assert!(
        rig.open(&mut device, &[]).is_some(),
        "the control channel, before the words are compared"
    );
    assert_eq!(rig.gateway.invites().count(), 0);
    assert_eq!(
        rig.store.credentials[0].keys.len(),
        1,
        "the invite's key is erased"
    );
    rig.pass_secs(30);
    assert!(rig.open(&mut device, &["wiki"]).is_none());
    let device_ref = DeviceRef {
        person: name("ana"),
        label: "laptop".into(),
    };
    let words = rig
        .gateway
        .devices()
        .next()
        .and_then(|device| device.fingerprint)
        .expect("enrolled")
        .words();
    assert!(words.iter().all(|word| !word.is_empty()));
    rig.gateway.confirm_device(&device_ref).expect("confirmed");
    rig.run();
    rig.pass_secs(30);
    assert!(rig.open(&mut device, &["wiki"]).is_some());
    assert_eq!(
        rig.gateway.confirm_device(&device_ref).map(|_| ()),
        Err(AdminRefusal::AlreadyConfirmed(name("ana"), "laptop".into()))
    );
}

#[test]
fn a_candidate_is_on_disk_before_the_reply_leaves() {
    let mut rig = Rig::with(&[]);
    enrolled(&mut rig);
    let reply = rig
        .did
        .iter()
        .position(|did| *did == Did::Reply)
        .expect("a reply");
    let record = rig.did[..reply].iter().rposition(|did| *did == Did::Record);
    assert!(record.is_some());
    assert_eq!(rig.store.credentials[0].keys.len(), 2);
}

#[test]
fn the_secret_of_the_phone_is_not_handed_over_once_a_code_was_accepted() {
    let mut rig = Rig::with(&[]);
    let mut device = enrolled(&mut rig);
    rig.open(&mut device, &[]).expect("granted");
    let offer = rig
        .gateway
        .invite(&name("ana"), TERMS, rig.now, &mut rig.entropy)
        .expect("invited")
        .value;
    rig.run();
    let mut second = Device::of("ana", 2);
    second.id = offer.credential;
    second.keys = DerivedKeys::derive(&offer.key, rig.gateway.id(), offer.credential);
    let ask = second.enrol_ask();
    assert!(matches!(
        rig.ask(&mut second, ask),
        Some(Outcome::Enrolled(None))
    ));
    let labels: alloc::vec::Vec<_> = rig.gateway.devices().map(|device| device.label).collect();
    assert!(labels.contains(&"laptop-2".to_string()), "{labels:?}");
}

#[test]
fn a_name_is_taken_from_the_moment_it_is_asked_for() {
    let mut rig = Rig::with(&[]);
    let add = |rig: &mut Rig| {
        rig.gateway
            .add_person(&name("ana"), PersonKind::Human, &mut rig.entropy)
            .map(drop)
    };
    assert_eq!(add(&mut rig), Ok(()));
    // The disk does not have it yet.
    assert_eq!(add(&mut rig), Err(AdminRefusal::PersonExists(name("ana"))));
    rig.run();
    assert_eq!(rig.store.persons.len(), 1);
}

#[test]
fn an_invite_that_is_not_on_disk_cannot_be_used() {
    let mut rig = Rig::with(&[]);
    rig.gateway
        .add_person(&name("ana"), PersonKind::Human, &mut rig.entropy)
        .expect("added");
    rig.run();
    rig.store_works = false;
    rig.gateway
        .invite(&name("ana"), TERMS, rig.now, &mut rig.entropy)
        .expect("accepted");
    rig.run();
    assert_eq!(rig.gateway.invites().count(), 0);
    assert_eq!(rig.audited(AuditKind::RecordFailed).len(), 1);
}

#[test]
fn a_recovery_code_stands_in_for_the_phone_once() {
    let mut ana = Device::of("ana", 7);
    let mut rig = Rig::with(&[&ana]);
    let codes = rig
        .gateway
        .replace_recovery_codes(&name("ana"), &mut rig.entropy)
        .expect("made")
        .value;
    rig.run();
    let code = |code: &RecoveryCode| spa_proto::SecondFactor::Recovery(code.duplicate());
    let mut open = |rig: &mut Rig| {
        let mut ask = rig.open_ask(&mut ana, &["wiki"]);
        if let spa_proto::Ask::Open(open) = &mut ask {
            open.factor = code(&codes[0]);
        }
        rig.ask(&mut ana, ask).is_some()
    };
    assert!(open(&mut rig));
    assert!(!open(&mut rig));
    assert_eq!(rig.store.persons[0].recovery.len(), codes.len() - 1);
}

#[test]
fn a_disabled_person_has_no_session_and_no_tag() {
    let mut ana = Device::of("ana", 7);
    let mut rig = Rig::with(&[&ana]);
    rig.open(&mut ana, &["wiki"]).expect("granted");
    rig.gateway
        .disable_person(&name("ana"), rig.now)
        .expect("disabled");
    rig.run();
    assert!(rig.kernel.is_empty(rig.now));
    rig.pass_secs(30);
    assert!(rig.open(&mut ana, &["wiki"]).is_none());
    assert_eq!(rig.count(Refusal::UnknownTag), 1);
    rig.gateway.enable_person(&name("ana")).expect("enabled");
    rig.run();
    rig.pass_secs(30);
    assert!(rig.open(&mut ana, &["wiki"]).is_some());
    rig.gateway
        .remove_person(&name("ana"), rig.now)
        .expect("removed");
    rig.run();
    assert!(rig.kernel.is_empty(rig.now));
    assert!(rig.store.persons.is_empty() && rig.store.credentials.is_empty());
    let last = rig.audited(AuditKind::SessionEnded).pop().expect("audited");
    assert_eq!(last.person, Some(name("ana")), "the log names who is gone");
}

#[test]
fn a_no_that_comes_before_the_disk_has_the_yes_outlives_it() {
    let mut ana = Device::of("ana", 7);
    let mut rig = Rig::with(&[&ana]);
    let device = DeviceRef {
        person: name("ana"),
        label: "laptop".into(),
    };
    let target = LockTarget::All;

    // Each yes is on its way to the disk when its no comes.
    rig.gateway.enable_person(&name("ana")).expect("enabled");
    rig.gateway
        .disable_person(&name("ana"), rig.now)
        .expect("disabled");
    rig.run();
    assert!(rig.open(&mut ana, &["wiki"]).is_none(), "a disabled person");

    rig.gateway.enable_person(&name("ana")).expect("enabled");
    rig.run();
    rig.gateway.enable_device(&device).expect("enabled");
    rig.gateway
        .revoke_device(&device, rig.now)
        .expect("revoked");
    rig.run();
    rig.pass_secs(30);
    assert!(rig.open(&mut ana, &["wiki"]).is_none(), "a revoked device");

    rig.gateway.enable_device(&device).expect("enabled");
    rig.gateway
        .lock(target.clone(), None, String::new(), rig.now)
        .expect("locked");
    rig.run();
    rig.gateway.unlock(&target).expect("lifted");
    rig.gateway
        .lock(target.clone(), None, String::new(), rig.now)
        .expect("locked again");
    rig.run();
    assert_eq!(rig.gateway.locks().count(), 1, "the newer lock");
    assert_eq!(rig.store.locks.len(), 1);
}

#[test]
fn a_resync_that_the_disk_has_after_a_knock_does_not_bring_its_marks_back() {
    let mut ana = Device::of("ana", 7);
    let mut rig = Rig::with(&[&ana]);
    let device = DeviceRef {
        person: name("ana"),
        label: "laptop".into(),
    };
    let ask = rig.open_ask(&mut ana, &["wiki"]);
    let (info, ext) = ana.request(ask, rig.now).encode().expect("fits");
    let [first, held_back] = [(); 2].map(|()| ana.build(&info, &ext, rig.now));
    rig.gateway
        .resync_device(&device, rig.now)
        .expect("resynced");
    rig.take_in(&first.packet, ana.source).expect("queued");
    rig.run();
    assert_eq!(rig.replies.len(), 1);
    // Later than a repeat may come; its code still counts.
    rig.pass_secs(11);
    rig.take_in(&held_back.packet, ana.source).expect("queued");
    rig.run();
    assert_eq!(rig.count(Refusal::Replayed), 1);
    assert_eq!(rig.replies.len(), 1);
}

#[test]
fn a_phone_that_was_reset_opens_nothing_and_its_session_goes_on() {
    let mut ana = Device::of("ana", 7);
    let mut rig = Rig::with(&[&ana]);
    rig.open(&mut ana, &["wiki"]).expect("granted");
    assert!(rig.shake(&ana));
    rig.pass_secs(31);
    let old = rig.code(&ana.person).expect("a person");
    rig.gateway
        .reset_totp(&ana.person, &mut rig.entropy)
        .expect("reset");
    rig.run();
    assert_ne!(rig.code(&ana.person), Some(old));
    let mut ask = rig.open_ask(&mut ana, &["wiki"]);
    if let Ask::Open(open) = &mut ask {
        open.factor = SecondFactor::Totp(old);
    }
    assert!(rig.ask(&mut ana, ask).is_none(), "silence");
    assert_eq!(rig.kernel.peers.len(), 1);
    let row = rig.store.persons[0].totp.as_ref().expect("a secret");
    assert!(!row.proven, "the next enrolment hands it over");
}

#[test]
fn every_administrators_refusal_is_one_line_that_names_what_it_is_about() {
    let bot = Device::of("bot", 7);
    let mut rig = Rig::with(&[&bot]);
    let nobody = DeviceRef {
        person: name("bot"),
        label: "phone".into(),
    };
    let refused = [
        rig.gateway
            .add_person(&name("bot"), PersonKind::Human, &mut rig.entropy)
            .map(|_| ()),
        rig.gateway.enable_person(&name("eve")).map(|_| ()),
        rig.gateway
            .reset_totp(&name("bot"), &mut rig.entropy)
            .map(|_| ()),
        rig.gateway.revoke_device(&nobody, rig.now).map(|_| ()),
        rig.gateway
            .invite(
                &name("bot"),
                InviteTerms {
                    valid: SHORTEST_DOOR,
                    ..TERMS
                },
                rig.now,
                &mut rig.entropy,
            )
            .map(|_| ()),
    ];
    for refusal in refused {
        let line = format!("{}", refusal.expect_err("refused"));
        assert!(!line.contains('\n') && line.len() > 20, "{line}");
    }
    rig.run();
    assert_eq!(rig.gateway.persons().count(), 1);
}

#[test]
fn a_device_is_named_by_its_label_or_the_beginning_of_its_id() {
    let bot = Device::of("bot", 7);
    let mut rig = Rig::with(&[&bot]);
    let by = |label: &str| DeviceRef {
        person: name("bot"),
        label: label.into(),
    };
    assert!(rig.gateway.resync_device(&by("0707"), rig.now).is_ok());
    assert!(rig.gateway.resync_device(&by("070"), rig.now).is_err());
    assert!(rig.gateway.resync_device(&by("laptop"), rig.now).is_ok());
}

#[test]
fn the_log_says_which_factor_was_wrong_and_the_wire_says_nothing() {
    let mut ana = Device::of("ana", 7);
    let mut rig = Rig::with(&[&ana]);
    ana.q = spa_proto::ProofSecret::from_seed(&[99; 32]);
    assert!(rig.open(&mut ana, &["wiki"]).is_none());
    assert!(rig.replies.is_empty());
    assert_eq!(
        rig.audited(AuditKind::FactorFailed)[0].reason,
        Some("wrong_proof")
    );
}
