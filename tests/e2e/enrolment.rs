//! Enrolment: in band, with words to compare, by an invite that works once.

use spa_tests::packet::Packet;
use spa_tests::person::{Enrolled, Person, invite};
use spa_tests::phone;
use spa_tests::program::Ended;

use crate::fixture::{Place, place, with_ana};

/// A device enrols through knocks alone; client and gateway show the same four words.
#[test]
fn both_sides_show_the_same_four_words() {
    let place = place();
    let gateway = &place.gateway;
    gateway.ask(&["user", "add", "ana"]).unwrap();
    let line = invite(gateway, "ana", &[]).unwrap();
    let leaving = place.town.tap_leaving().unwrap();
    let ana = Person::new(gateway, &place.town.client, "ana", "laptop").unwrap();
    let Enrolled { person, words, .. } = ana.enroll(&line).unwrap();
    assert_eq!(
        gateway.words(&person.credential()).unwrap(),
        words.join(" ")
    );
    let others = leaving.count(|packet| !packet.is_knock_sized() && !packet.is_link_housekeeping());
    // The control channel of the first session runs inside WireGuard, and nothing else leaves.
    let wireguard = leaving.count(Packet::is_wireguard);
    assert_eq!(others, wireguard);
}

/// Before an administrator has confirmed the words, a device gets no resource; afterwards it does.
#[test]
fn a_device_that_is_not_confirmed_gets_no_resource() {
    let place = place();
    let gateway = &place.gateway;
    gateway.ask(&["user", "add", "ana"]).unwrap();
    let line = invite(gateway, "ana", &[]).unwrap();
    let ana = Person::new(gateway, &place.town.client, "ana", "laptop").unwrap();
    let mut ana = ana.enroll(&line).unwrap().person;
    ana.knock(&["wiki"])
        .unwrap()
        .refusal(1, &["administrator has to confirm"])
        .unwrap();
    place.assert_no_wiki(&ana);
    gateway
        .ask(&["device", "confirm", &ana.credential()])
        .unwrap();
    ana.knock(&["wiki"]).unwrap().success().unwrap();
    place.assert_reaches_wiki(&ana);
}

/// An invite handed over in person may waive the words.
#[test]
fn an_invite_without_confirmation_works_at_once() {
    let place = place();
    place.gateway.ask(&["user", "add", "ana"]).unwrap();
    let line = invite(&place.gateway, "ana", &["--no-confirm"]).unwrap();
    let ana = Person::new(&place.gateway, &place.town.client, "ana", "laptop").unwrap();
    let mut ana = ana.enroll(&line).unwrap().person;
    ana.knock(&["wiki"]).unwrap().success().unwrap();
    place.assert_reaches_wiki(&ana);
}

/// An invite that is cut short, mistyped, or of another version is refused here, in one line, before anything is sent.
#[test]
fn an_invite_that_is_none_is_refused_before_a_packet_leaves() {
    let place = place();
    place.gateway.ask(&["user", "add", "ana"]).unwrap();
    let line = invite(&place.gateway, "ana", &[]).unwrap();
    let arriving = place.town.tap_arriving().unwrap();
    let other_version = line.replacen("spa1:", "spa2:", 1);
    for (number, (wrong, words)) in [
        (&line[..line.len() - 7], "invite"),
        (other_version.as_str(), "version"),
        ("spa1:", "invite"),
        ("hello", "invite"),
    ]
    .into_iter()
    .enumerate()
    {
        let ana = Person::new(
            &place.gateway,
            &place.town.client,
            "ana",
            &format!("d{number}"),
        );
        let ended = ana.unwrap().try_enroll(wrong, phone::step_now()).unwrap();
        ended.refusal(1, &[words]).unwrap();
    }
    assert_eq!(arriving.count(|packet| !packet.is_link_housekeeping()), 0);
}

/// An invite works once: a second device that uses it gets silence, and the first keeps working.
#[test]
fn an_invite_works_once() {
    let place = place();
    place.gateway.ask(&["user", "add", "ana"]).unwrap();
    let line = invite(&place.gateway, "ana", &["--no-confirm"]).unwrap();
    let ana = Person::new(&place.gateway, &place.town.client, "ana", "laptop").unwrap();
    let mut ana = ana.enroll(&line).unwrap().person;
    assert_silence(&enrol_another(&place, &line));
    ana.knock(&["wiki"]).unwrap().success().unwrap();
    place.assert_reaches_wiki(&ana);
}

/// An invite that has expired gets silence.
#[test]
fn an_expired_invite_gets_silence() {
    let place = place();
    place.gateway.ask(&["user", "add", "ana"]).unwrap();
    let line = invite(&place.gateway, "ana", &["--valid", "1m"]).unwrap();
    spa_tests::wait::watch(std::time::Duration::from_secs(61), || None::<()>);
    assert_silence(&enrol_another(&place, &line));
}

/// Somebody who is not on the gateway cannot be invited, and nobody is added twice.
#[test]
fn people_are_added_once_and_invited_after_that() {
    let (place, _ana) = with_ana();
    let gateway = &place.gateway;
    gateway
        .admin(&["invite", "eve"])
        .unwrap()
        .refusal(1, &["eve"])
        .unwrap();
    gateway
        .admin(&["user", "add", "ana"])
        .unwrap()
        .refusal(1, &["ana"])
        .unwrap();
}

fn enrol_another(place: &Place, line: &str) -> Ended {
    let other = Person::new(&place.gateway, &place.town.neighbour, "ana", "phone").unwrap();
    other.try_enroll(line, phone::step_now()).unwrap()
}

#[track_caller]
fn assert_silence(ended: &Ended) {
    ended.refusal(3, &["no answer"]).unwrap();
}
