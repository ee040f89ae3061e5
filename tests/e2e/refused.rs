//! Promise 2, and 1 with it: a knock that is not fresh, or lacks one of three factors, gets silence.

use spa_tests::packet::Packet;
use spa_tests::person::{PASSWORD, Person};
use spa_tests::phone;
use spa_tests::topology::{GATEWAY, PORT, endpoint};
use spa_tests::wait::wait_until;
use spa_tests::wire;

use crate::fixture::{Place, REACHED, SILENT, with_ana};

/// A captured knock, sent again by the client's machine, the neighbour's, and a stranger's, gets nothing: no reply, no session.
#[test]
fn a_captured_knock_is_worth_nothing_a_second_time() {
    let (place, mut ana) = with_ana();
    let arriving = place.town.tap_arriving().unwrap();
    ana.knock(&["wiki"]).unwrap().success().unwrap();
    let knock = arriving
        .wait_for("the knock", REACHED, Packet::is_knock_sized)
        .unwrap();
    ana.run(&["close"]).unwrap().success().unwrap();
    place.assert_everything_closed();
    let leaving = place.town.tap_leaving().unwrap();
    for (space, own) in [
        (&place.town.client, "192.168.7.10"),
        (&place.town.neighbour, "192.168.8.10"),
        (&place.town.stranger, "203.0.113.66"),
    ] {
        let again = Packet::udp(
            endpoint(own, 47_000),
            endpoint(GATEWAY, PORT),
            &knock.packet.payload,
        );
        wire::send(space, &[again]).unwrap();
    }
    wait_until("all three arrive", REACHED, || {
        let same = |packet: &Packet| packet.payload == knock.packet.payload;
        (arriving.count(same) >= 4).then_some(())
    })
    .unwrap();
    assert!(leaving.watch_for(SILENT, Packet::is_knock_sized).is_none());
    place.assert_everything_closed();
}

/// A wrong password with the right device and code: silence, and exit code 3.
#[test]
fn a_wrong_password_gets_silence() {
    let (place, mut ana) = with_ana();
    let code = ana.fresh_code().unwrap();
    assert_silence(&place, &ana, "incorrect horse", &code);
}

/// A wrong code with the right device and password: silence, and exit code 3.
#[test]
fn a_wrong_code_gets_silence() {
    let (place, ana) = with_ana();
    let code = ana.code_of(phone::step_now() + 1000).unwrap();
    assert_silence(&place, &ana, PASSWORD, &code);
}

/// A code that opened once does not open again, and a fresh one then does.
#[test]
fn a_used_code_gets_silence() {
    let (place, mut ana) = with_ana();
    ana.knock(&["wiki"]).unwrap().success().unwrap();
    ana.run(&["close"]).unwrap().success().unwrap();
    let code = ana.used_code().unwrap();
    assert_silence(&place, &ana, PASSWORD, &code);
    ana.knock(&["wiki"]).unwrap().success().unwrap();
    place.assert_reaches_wiki(&ana);
}

/// A device that was revoked gets silence with everything right, and its live session has ended.
#[test]
fn a_revoked_device_gets_silence() {
    let (place, mut ana) = with_ana();
    ana.knock(&["wiki"]).unwrap().success().unwrap();
    let stream = place.stream(&ana);
    place
        .gateway
        .ask(&["device", "revoke", &ana.credential()])
        .unwrap();
    stream.stopped(SILENT, REACHED).expect("the stream ends");
    place.assert_everything_closed();
    let code = ana.fresh_code().unwrap();
    assert_silence(&place, &ana, PASSWORD, &code);
}

#[track_caller]
fn assert_silence(place: &Place, person: &Person, password: &str, code: &str) {
    let leaving = place.town.tap_leaving().unwrap();
    let knocked = person.knock_with(&["wiki"], password, code).unwrap();
    knocked
        .refusal(3, &["no answer", "password", "code", "network", "clock"])
        .unwrap();
    let left = leaving.finish();
    assert_eq!(
        left.iter()
            .filter(|seen| seen.packet.is_knock_sized())
            .count(),
        0
    );
    place.assert_everything_closed();
}
