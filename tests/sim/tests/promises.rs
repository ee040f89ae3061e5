//! A few hundred runs of the town with every `make test`; `make sim` does ten thousand.

use spa_sim::{enrolment, events_from, events_of, run, shrink};

#[test]
fn every_promise_holds_in_every_run() {
    let mut accepted = 0;
    let mut handshakes = 0;
    for seed in 0..200 {
        match run(&events_of(seed)) {
            Ok(tally) => {
                accepted += tally.accepted;
                handshakes += tally.handshakes;
            }
            Err(broken) => {
                let shorter = shrink(events_of(seed), run);
                panic!("seed {seed} breaks a promise {broken}\n{shorter:#?}");
            }
        }
    }
    // They were about something.
    assert!(
        accepted > 2_000 && handshakes > 500,
        "{accepted} {handshakes}"
    );
}

#[test]
fn an_invite_is_used_once_whatever_the_network_and_the_gateways_do() {
    let mut all = enrolment::Tally::default();
    for seed in 0..100 {
        match enrolment::run(&enrolment::deeds_of(seed)) {
            Ok(tally) => {
                all.enrolled += tally.enrolled;
                all.used += tally.used;
                all.voided += tally.voided;
                all.late += tally.late;
            }
            Err(broken) => {
                let shorter = shrink(enrolment::deeds_of(seed), enrolment::run);
                panic!("seed {seed} breaks a promise {broken}\n{shorter:#?}");
            }
        }
    }
    // They were about something.
    let enough = all.enrolled > 600 && all.used > 250 && all.voided > 5 && all.late > 10;
    assert!(enough, "{all:?}");
}

#[test]
fn a_seed_is_one_run() {
    let twice = [(); 2].map(|()| format!("{:?}", run(&events_of(7)).expect("holds")));
    assert_eq!(twice[0], twice[1]);
    assert_eq!(events_of(7), events_of(7));
    let twice = [(); 2].map(|()| {
        format!(
            "{:?}",
            enrolment::run(&enrolment::deeds_of(7)).expect("holds")
        )
    });
    assert_eq!(twice[0], twice[1]);
    assert_eq!(enrolment::deeds_of(7), enrolment::deeds_of(7));
}

#[test]
fn any_bytes_are_a_run() {
    assert_eq!(events_from(&[]), []);
    assert!(events_from(&[0; 4]).len() == 1);
    assert!(run(&events_from(&[0xFF; 40])).is_ok());
}
