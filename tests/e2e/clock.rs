//! The clock of the gateway is set while it runs: what is open never lasts longer for it, nothing is accepted on a time nobody
//! vouches for, and once the clock is back all works as if nothing had been.
//!
//! The daemon of these tests shifts the calendar clock it reads by what a file says: the machine's own is everybody's.

use std::time::Duration;

use spa_tests::gateway::Gateway;
use spa_tests::person::Person;
use spa_tests::topology::Town;
use spa_tests::wait::wait_until;

use crate::fixture::{Place, REACHED};

const HOUR: i64 = 60 * 60 * 1_000;
const YEAR: i64 = 365 * 24 * HOUR;

/// Ahead, a session that is over by the new time ends at once; back, it lasts as long as the kernel said from the beginning.
/// A year either way, or any time before the saved floor, accepts nothing, until the clock is right again.
#[test]
fn a_clock_that_is_set_while_the_gateway_runs_keeps_nothing_open() {
    each_way(&mut Clocked::build(), |gateway, shift| {
        gateway.shift_clock(shift)
    });
}

/// Has the clock set by an hour and a year, either way and back again, with a session open each time.
pub fn each_way(town: &mut Clocked, mut set: impl FnMut(&Gateway, i64) -> anyhow::Result<()>) {
    for (shift, ends, says) in [
        (HOUR, true, None),
        (YEAR, true, Some("set 365 days ahead")),
        (-HOUR, false, Some("earlier than it did before")),
        (-YEAR, false, Some("set 365 days back")),
    ] {
        town.knock();
        town.place.assert_reaches_wiki(&town.ana);
        let left = town.place.gateway.longest_opening().unwrap();
        set(&town.place.gateway, shift).unwrap();
        // Whatever the daemon hears next; where the clock of the machine itself is set, the kernel says so.
        let status = town.place.gateway.ask_json(&["status"]).unwrap();
        let clock = status["clock"].as_str().unwrap_or_default();
        assert_eq!(status["accepting"], says.is_none(), "{shift}: {clock}");
        assert!(
            clock.contains(says.unwrap_or("trusted")),
            "{shift}: {clock}"
        );
        if ends {
            town.place.assert_everything_closed();
            town.place.assert_no_wiki(&town.ana);
        } else {
            let then = town.place.gateway.longest_opening().unwrap();
            assert!(
                !then.is_zero() && then <= left,
                "{shift}: {then:?}, {left:?}"
            );
        }
        set(&town.place.gateway, 0).unwrap();
        let status = town.place.gateway.ask_json(&["status"]).unwrap();
        assert_eq!(status["accepting"], true, "{shift}: {status}");
        town.end();
    }
    let log = town.place.gateway.ask(&["log"]).unwrap();
    assert!(
        log.contains("clock-untrusted") && log.contains("set 365 days"),
        "{log}"
    );
    town.knock();
    town.place.assert_reaches_wiki(&town.ana);
}

/// A time that became the floor, because somebody accepted it or a start knew no better, is mended by one command, which says
/// what it costs before it does anything.
#[test]
fn a_floor_that_is_too_high_comes_down_when_an_administrator_says_so() {
    let mut town = Clocked::build();
    let accept = ["clock", "accept", "--yes"];
    let gateway = &mut town.place.gateway;
    let nothing = gateway.admin(&accept).unwrap();
    nothing.refusal(1, &["nothing to accept"]).unwrap();
    gateway.shift_clock(YEAR).unwrap();
    let cost = gateway.admin(&["clock", "accept"]).unwrap();
    cost.refusal(1, &["if that is too late", "--yes"]).unwrap();
    gateway.ask(&accept).unwrap();
    assert_eq!(gateway.ask_json(&["status"]).unwrap()["accepting"], true);
    gateway.stop().unwrap();
    gateway.shift_clock(0).unwrap();
    gateway.start_with_a_clock_of_its_own().unwrap();
    let status = gateway.ask_json(&["status"]).unwrap();
    let clock = status["clock"].as_str().unwrap_or_default();
    assert_eq!(status["accepting"], false);
    assert!(clock.contains("earlier than it did before"), "{clock}");
    gateway.ask(&accept).unwrap();
    let log = gateway.ask(&["log"]).unwrap();
    assert!(log.contains("clock-accepted"), "{log}");
    town.knock();
    town.place.assert_reaches_wiki(&town.ana);
}

/// A town whose gateway has a clock of its own, and a person who has recovery codes, which no clock makes wrong.
pub struct Clocked {
    place: Place,
    ana: Person,
    codes: Vec<String>,
}

impl Clocked {
    pub fn build() -> Self {
        let town = Town::build().unwrap();
        let mut gateway = Gateway::init(&town).unwrap();
        gateway.start_with_a_clock_of_its_own().unwrap();
        let ana = Person::enrolled(&gateway, &town.client, "ana").unwrap();
        let codes = gateway.ask(&["recovery-codes", "ana"]).unwrap();
        let codes = codes.lines().map(|line| line.trim().to_owned()).collect();
        let place = Place { gateway, town };
        let mut town = Self { place, ana, codes };
        town.end();
        town
    }

    fn knock(&mut self) {
        let code = self.codes.pop().expect("a code");
        let knock = self.ana.start_recovery(&["wiki"], &code).unwrap();
        let ended = knock.wait(Duration::from_secs(20)).unwrap();
        ended.success().unwrap();
    }

    /// Ends whatever is open, at both ends.
    fn end(&mut self) {
        self.ana.run(&["close"]).unwrap();
        wait_until("the session ends", REACHED, || {
            self.place.gateway.ask(&["session", "cut", "ana"]).ok();
            self.place.gateway.remains().ok()?.is_empty().then_some(())
        })
        .unwrap();
    }
}
