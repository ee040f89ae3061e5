//! kill -9 at every effect of a grant and of its end: nothing stays open past its deadline, the machine stays dark, and the
//! next start makes the kernel equal to the store.
//!
//! A program stops at a point of `spa-failpoint` and is killed there, one point after the other. That what is open lapses is read
//! from the kernel's own timeouts, which are printed (`--nocapture`); that it does let them lapse, `crash` waits for.

use std::time::{Duration, Instant};

use rustix::process::Signal;
use spa_tests::net::signal;
use spa_tests::person::Person;
use spa_tests::program::Program;
use spa_tests::topology::{GATEWAY, PORT, address};
use spa_tests::wait::wait_until;

use crate::end::with_short_sessions;
use crate::fixture::{Place, REACHED};

/// How long a session may last here.
const LENGTH: Duration = Duration::from_secs(60);
/// How long a knock or a cut may take to come to its point, on a machine that compiles at the same time.
const PATIENCE: Duration = Duration::from_secs(20);

/// Up to the record nothing is open; from the record on a session is the store's, whatever had been done of it.
#[test]
fn the_daemon_is_killed_at_each_effect_of_a_grant() {
    let mut town = Town::build();
    town.kill_at("daemon before record", "spa-gateway", While::Granting);
    town.assert_nothing_was_open();
    town.kill_at("daemon after record", "spa-gateway", While::Granting);
    town.assert_nothing_was_open();
    for effect in [
        "after peer",
        "after flow",
        "after door",
        "before reply",
        "after reply",
    ] {
        let point = format!("daemon {effect}");
        town.kill_at(&point, "spa-gateway", While::Granting);
    }
}

/// What an administrator cut and the daemon did not live to close lapses, or is closed by the next start.
#[test]
fn the_daemon_is_killed_at_each_effect_of_an_end() {
    let mut town = Town::build();
    for effect in [
        "before close-door",
        "after close-door",
        "after close-flow",
        "after remove-peer",
        // Closed, and not written down; written down, and not forgotten by conntrack.
        "before record-of-end",
        "after record-of-end",
    ] {
        let point = format!("daemon {effect}");
        town.kill_at(&point, "spa-gateway", While::Ending);
    }
    // A start has conntrack forget the sessions that are over, so that it comes to this point itself.
    town.kill_at("daemon before forget", "spa-gateway", While::Starting);
}

/// The enforcer takes the daemon with it; what it had done is no more than what the store knows.
#[test]
fn the_enforcer_is_killed_at_each_order() {
    let mut town = Town::build();
    for effect in ["before peer", "after peer", "after flow", "after door"] {
        let point = format!("enforcer {effect}");
        town.kill_at(&point, "spa-enforcer", While::Granting);
    }
    for effect in ["before close-flow", "after close-flow", "after remove-peer"] {
        let point = format!("enforcer {effect}");
        town.kill_at(&point, "spa-enforcer", While::Ending);
    }
    town.kill_at("enforcer after forget", "spa-enforcer", While::Starting);
}

/// `spa-tunnel` takes enforcer and daemon with it.
#[test]
fn the_tunnel_is_killed_at_each_request() {
    let mut town = Town::build();
    for (point, during) in [
        ("tunnel before peer", While::Granting),
        ("tunnel after peer", While::Granting),
        ("tunnel before remove-peer", While::Ending),
        ("tunnel after remove-peer", While::Ending),
    ] {
        town.kill_at(point, "spa-tunnel", during);
    }
}

/// A power cut between the record and what follows: of the kernel's state nothing is left, of the store everything.
#[test]
fn a_power_cut_between_record_and_effect() {
    let mut town = Town::build();
    for point in ["daemon after record", "daemon after flow"] {
        let programs = town.pause_at(point, While::Granting);
        for process in town.place.town.gateway.processes() {
            signal(process, Signal::KILL);
        }
        town.assert_all_ended();
        drop(programs);
        town.place.town.gateway.nft("flush ruleset").unwrap();
        // Where WireGuard is the kernel's, it outlives the processes, though not a power cut.
        let _there_is_none = town.place.town.gateway.ip("link delete spa0");
        town.assert_next_start_is_equal();
    }
}

/// What the killed program was about.
#[derive(Clone, Copy, PartialEq, Eq)]
enum While {
    Granting,
    Ending,
    Starting,
}

/// A town with one person, whose gateway dies often.
struct Town {
    place: Place,
    ana: Person,
    /// What was open when the last victim was killed.
    open: Vec<String>,
}

impl Town {
    fn build() -> Self {
        let (place, ana) = with_short_sessions("60s");
        // What the enrolment opened is gone, so that all there is comes from the knock.
        wait_until("the enrolment's session ends", LENGTH, || {
            place.gateway.ask(&["session", "cut", "ana"]).ok();
            place.gateway.remains().ok()?.is_empty().then_some(())
        })
        .unwrap();
        Self {
            place,
            ana,
            open: Vec::new(),
        }
    }

    #[track_caller]
    fn kill_at(&mut self, point: &str, victim: &str, during: While) {
        let programs = self.pause_at(point, during);
        let paused = Instant::now();
        self.open = self.place.gateway.openings().unwrap();
        self.signal(victim);
        self.assert_all_ended();
        drop(programs);
        let left = self.place.gateway.longest_opening().unwrap();
        let allowed =
            LENGTH.saturating_sub(paused.elapsed().saturating_sub(Duration::from_secs(1)));
        assert!(
            left <= allowed,
            "{point}: open for {left:?}, not {allowed:?}"
        );
        println!(
            "{point}: {} open, the longest for {left:?}",
            self.open.len()
        );
        let scanner = self.place.town.scanner();
        let findings = scanner.oddities(address(GATEWAY), PORT).unwrap();
        assert!(findings.is_silent(), "{point}: {:?}", findings.answers);
        self.assert_next_start_is_equal();
    }

    /// Has the gateway begin something, and stop at this point of it.
    #[track_caller]
    fn pause_at(&mut self, point: &str, during: While) -> Vec<Program> {
        let gateway = &mut self.place.gateway;
        if during == While::Starting {
            gateway.stop().unwrap();
            gateway.begin_start_to_pause_at(point).unwrap();
            let words = format!("paused: {point}");
            wait_until(point, PATIENCE, || {
                gateway.daemon().said().contains(&words).then_some(())
            })
            .unwrap_or_else(|error| panic!("{error}: {}", gateway.daemon().said()));
            return Vec::new();
        }
        let codes = gateway.ask(&["recovery-codes", "ana"]).unwrap();
        let code = codes.lines().next().expect("a code").trim();
        gateway.stop().unwrap();
        gateway.start_to_pause_at(point).unwrap();
        let mut programs = vec![self.ana.start_recovery(&["wiki", "--only"], code).unwrap()];
        let words = format!("paused: {point}");
        wait_until(point, PATIENCE, || {
            if gateway.daemon().said().contains(&words) {
                return Some(());
            }
            let open = during == While::Ending && programs.len() == 1 && !programs[0].is_running();
            if open {
                let mut cut = gateway.admin_command(&["session", "cut", "ana"]);
                programs.push(Program::start(gateway.logs(), "cut", &mut cut).unwrap());
            }
            None
        })
        .unwrap_or_else(|error| panic!("{error}: {}", gateway.daemon().said()));
        programs
    }

    fn signal(&self, name: &str) {
        let process = self.place.gateway.process(name).expect("it runs");
        signal(process, Signal::KILL);
    }

    /// One of them that ends takes all of them with it.
    #[track_caller]
    fn assert_all_ended(&mut self) {
        self.place.gateway.wait_for_end(REACHED).unwrap();
        wait_until("all processes end", REACHED, || {
            let names = ["spa-gateway", "spa-enforcer", "spa-tunnel"];
            names
                .iter()
                .all(|name| self.place.gateway.process(name).is_none())
                .then_some(())
        })
        .unwrap();
    }

    #[track_caller]
    fn assert_nothing_was_open(&self) {
        assert_eq!(self.open, Vec::<String>::new());
    }

    /// After the next start a session is open if and only if the store has one, and its end leaves nothing.
    #[track_caller]
    fn assert_next_start_is_equal(&mut self) {
        self.place.gateway.start().unwrap();
        wait_until("the kernel is equal to the store", REACHED, || {
            let sessions = self.place.gateway.sessions().ok()?.len();
            let [peers, _, flows] = self.place.gateway.counts().ok()?;
            let listed = self.place.gateway.openings().ok()?;
            let open = listed.iter().filter(|opening| !opening.contains("door"));
            let peer_each = usize::try_from(peers).ok()? == sessions;
            let known = usize::try_from(flows).ok()? == open.count();
            (peer_each && known && (flows > 0) == (sessions > 0)).then_some(())
        })
        .unwrap_or_else(|error| {
            let gateway = &self.place.gateway;
            panic!(
                "{error}: {:?} {:?} {:?}",
                gateway.sessions(),
                gateway.counts(),
                gateway.openings()
            )
        });
        self.place.gateway.ask(&["session", "cut", "ana"]).ok();
        self.place.assert_everything_closed();
        self.ana.run(&["close"]).unwrap();
    }
}
