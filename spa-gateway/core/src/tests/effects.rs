//! What a knock leads to: in which order, only once recorded, and undone whole if anything fails.

use alloc::vec::Vec;
use core::time::Duration;

use spa_order::{FlowTarget, Order};
use spa_proto::{Ask, Outcome, RefusedFor, Repeat, Verdict};

use super::rig::{Device, Did, Rig};
use crate::{AuditKind, EffectKind, Refusal};

#[test]
fn a_knock_leads_to_record_peer_flows_door_reply_audit_in_this_order() {
    let mut ana = Device::of("ana", 7);
    let mut rig = Rig::with(&[&ana]);
    let session = rig.open(&mut ana, &["wiki"]).expect("granted");
    assert_eq!(
        rig.did,
        [
            Did::Record,
            Did::Peer,
            // Control channel on IPv4 and IPv6, and wiki.
            Did::Flow,
            Did::Flow,
            Did::Flow,
            Did::Door,
            Did::Reply,
            Did::Audit(AuditKind::SessionOpened),
        ]
    );
    assert_eq!(rig.kernel.doors(rig.now), [ana.door()]);
    let wiki: Vec<_> = rig
        .kernel
        .flows(rig.now)
        .into_iter()
        .filter(|flow| flow.to == FlowTarget::Forward)
        .collect();
    assert_eq!(wiki.len(), 1);
    assert_eq!((wiki[0].ports, wiki[0].prefix), ((443, 443), 32));
    assert_eq!(wiki[0].tunnel, session.tunnel4.expect("an IPv4 tunnel"));
    assert_eq!(session.door_secs, 10);
}

#[test]
fn nothing_is_done_before_the_record_is_on_disk() {
    let mut ana = Device::of("ana", 7);
    let mut rig = Rig::with(&[&ana]);
    let ask = rig.open_ask(&mut ana, &["wiki"]);
    let (info, ext) = ana.request(ask, rig.now).encode().expect("fits");
    let sent = ana.build(&info, &ext, rig.now);
    rig.take_in(&sent.packet, ana.source).expect("queued");
    rig.work();
    let record = rig.gateway.poll_effect().expect("the record");
    assert!(matches!(record.kind, EffectKind::Record(_)));
    assert!(
        rig.gateway.poll_effect().is_none(),
        "an effect came out before the record was on disk"
    );
    rig.perform(record);
    assert!(matches!(
        rig.gateway.poll_effect().map(|effect| effect.kind),
        Some(EffectKind::Order(_))
    ));
}

#[test]
fn knocks_that_arrive_together_may_share_one_commit() {
    let mut devices: Vec<Device> = (1..=5).map(|number| Device::of("bot", number)).collect();
    let mut rig = Rig::with(&devices.iter().collect::<Vec<_>>());
    for device in &mut devices {
        let ask = rig.open_ask(device, &["db"]);
        let (info, ext) = device.request(ask, rig.now).encode().expect("fits");
        let sent = device.build(&info, &ext, rig.now);
        rig.take_in(&sent.packet, device.source).expect("queued");
    }
    rig.work();
    let mut together = Vec::new();
    while let Some(effect) = rig.gateway.poll_effect() {
        assert!(matches!(effect.kind, EffectKind::Record(_)));
        together.push(effect);
    }
    assert_eq!(together.len(), 5);
}

#[test]
fn a_record_that_fails_opens_nothing_answers_nothing_and_spends_the_code() {
    let mut ana = Device::of("ana", 7);
    let mut rig = Rig::with(&[&ana]);
    rig.store_works = false;
    assert!(rig.open(&mut ana, &["wiki"]).is_none());
    assert!(rig.kernel.is_empty(rig.now));
    assert_eq!(rig.gateway.sessions().count(), 0);
    assert_eq!(rig.count(Refusal::RecordFailed), 1);
    rig.store_works = true;
    assert!(rig.open(&mut ana, &["wiki"]).is_none());
    assert_eq!(rig.count(Refusal::WrongCode), 1);
    // The one failure token after a restart is spent; the next comes in ten minutes.
    rig.pass_secs(600);
    assert!(rig.open(&mut ana, &["wiki"]).is_some());
}

#[test]
fn an_order_that_fails_is_undone_whole_and_not_answered() {
    let failing: [fn(&Order) -> bool; 3] = [
        |order| matches!(order, Order::Peer { .. }),
        |order| matches!(order, Order::Flow { flow, .. } if flow.to == FlowTarget::Forward),
        |order| matches!(order, Order::Door { .. }),
    ];
    for refuses in failing {
        let mut ana = Device::of("ana", 7);
        let mut rig = Rig::with(&[&ana]);
        rig.refuses = refuses;
        assert!(rig.open(&mut ana, &["wiki"]).is_none());
        assert!(rig.kernel.is_empty(rig.now), "something stayed open");
        assert_eq!(rig.gateway.sessions().count(), 0);
        assert!(rig.store.sessions.is_empty());
        assert_eq!(rig.audited(AuditKind::OpeningFailed).len(), 1);
        assert_eq!(rig.count(Refusal::OrderFailed), 1);
    }
}

#[test]
fn a_session_reaches_what_was_asked_and_allowed_and_says_so() {
    let mut ana = Device::of("ana", 7);
    let mut rig = Rig::with(&[&ana]);
    let session = rig
        .open(&mut ana, &["db", "wiki", "nowhere"])
        .expect("wiki is granted");
    let verdicts: Vec<Verdict> = session
        .verdicts
        .iter()
        .map(|(_, verdict)| *verdict)
        .collect();
    assert_eq!(
        verdicts,
        [Verdict::NotAllowed, Verdict::Granted, Verdict::NotAllowed]
    );
    assert_eq!(rig.kernel.flows(rig.now).len(), 3);
    assert_eq!(session.routes.len(), 1);
}

#[test]
fn an_unconfirmed_device_reaches_the_control_channel_only() {
    let mut ana = Device::of("ana", 7);
    let mut rig = Rig::with(&[&ana]);
    rig.store.credentials[0].confirmed = false;
    rig.restart();
    let ask = rig.open_ask(&mut ana, &["wiki"]);
    let Some(Outcome::Refused {
        why,
        verdicts,
        reason,
    }) = rig.ask(&mut ana, ask)
    else {
        panic!("it was granted something");
    };
    assert_eq!(
        (why, verdicts[0].1),
        (RefusedFor::Policy, Verdict::ApprovalNeeded)
    );
    assert!(reason.is_some_and(|reason| reason.contains("four words")));
    rig.pass_secs(30);
    let session = rig.open(&mut ana, &[]).expect("the control channel");
    assert!(session.routes.is_empty());
    assert!(
        rig.kernel
            .flows(rig.now)
            .iter()
            .all(|flow| flow.to == FlowTarget::Gateway)
    );
}

#[test]
fn a_lost_reply_heals_by_a_repeat_with_fresh_keys() {
    let mut ana = Device::of("ana", 7);
    let mut rig = Rig::with(&[&ana]);
    let ask = rig.open_ask(&mut ana, &["wiki"]);
    let (info, ext) = ana.request(ask, rig.now).encode().expect("fits");
    let first = ana.build(&info, &ext, rig.now);
    let (lost, lost_secrets) = rig.send(&first, ana.source).expect("answered");
    rig.pass(Duration::from_millis(800));
    let again = ana.build(&info, &ext, rig.now);
    let moved = "203.0.113.9:999".parse().expect("an address");
    let (healed, secrets) = rig.send(&again, moved).expect("answered again");
    let (Outcome::Session(lost_session), Outcome::Session(session)) =
        (&lost.outcome, &healed.outcome)
    else {
        panic!("both are sessions");
    };
    assert_eq!(
        (session.id, session.not_after, session.repeat),
        (lost_session.id, lost_session.not_after, Repeat::Again)
    );
    assert_ne!(secrets.wg_psk, lost_secrets.wg_psk);
    assert_eq!(rig.store.sessions[0].key, secrets.k_sess);
    ana.source = moved;
    assert_eq!(
        rig.kernel.doors(rig.now),
        [ana.door()],
        "the door follows the last repeat"
    );
    assert_eq!(rig.kernel.peers.len(), 1);
}

#[test]
fn a_second_open_replaces_the_first_session() {
    let mut bot = Device::of("bot", 7);
    let mut rig = Rig::with(&[&bot]);
    let first = rig.open(&mut bot, &["wiki"]).expect("granted");
    let second = rig.open(&mut bot, &["wiki", "db"]).expect("granted");
    assert_ne!(first.tunnel4, second.tunnel4);
    let left: Vec<_> = rig.gateway.sessions().map(|session| session.id).collect();
    assert_eq!(left, [second.id]);
    assert_eq!(rig.store.sessions.len(), 1);
    assert_eq!(rig.kernel.peers.len(), 1);
    // Both had the same door: the end of the first must not close it.
    assert_eq!(rig.kernel.doors(rig.now), [bot.door()]);
    assert!(
        rig.kernel
            .flows(rig.now)
            .iter()
            .all(|flow| Some(flow.tunnel) != first.tunnel4.map(Into::into))
    );
    assert_eq!(
        rig.audited(AuditKind::SessionEnded)[0].reason,
        Some("replaced by a newer session")
    );
}

#[test]
fn close_is_answered_and_closes_everything() {
    let mut bot = Device::of("bot", 7);
    let mut rig = Rig::with(&[&bot]);
    rig.open(&mut bot, &["wiki"]).expect("granted");
    let closed = Ask::Close(bot.session_id());
    let outcome = rig.ask(&mut bot, closed);
    assert!(matches!(
        outcome,
        Some(Outcome::Closed {
            repeat: Repeat::First,
            ..
        })
    ));
    assert!(rig.kernel.is_empty(rig.now));
    assert!(rig.store.sessions.is_empty());
}

/// From outside too; only a knock that is on disk is answered.
#[test]
fn a_close_that_cannot_be_written_down_closes_unanswered() {
    let mut bot = Device::of("bot", 7);
    let mut rig = Rig::with(&[&bot]);
    rig.open(&mut bot, &["wiki"]).expect("granted");
    rig.store_works = false;
    let closed = Ask::Close(bot.session_id());
    assert!(rig.ask(&mut bot, closed).is_none());
    assert!(rig.kernel.is_empty(rig.now));
    rig.store_works = true;
    rig.pass(crate::closing::RETRY);
    assert!(rig.store.sessions.is_empty());
}

#[test]
fn a_refusal_is_recorded_and_answered_and_opens_nothing() {
    let mut bo = Device::of("bo", 7);
    let mut rig = Rig::with(&[&bo]);
    let ask = rig.open_ask(&mut bo, &["db"]);
    let outcome = rig.ask(&mut bo, ask);
    assert!(matches!(
        outcome,
        Some(Outcome::Refused {
            why: RefusedFor::Policy,
            ..
        })
    ));
    assert_eq!(
        rig.did,
        [
            Did::Record,
            Did::Reply,
            Did::Audit(AuditKind::RefusedByPolicy)
        ]
    );
    assert!(rig.store.persons[0].last_step > 0);
    assert!(rig.store.credentials[0].last_ts.as_millis() > 0);
}
