//! What of a session changes while it lives, and what of that a gateway may change.

use std::time::Duration;

use spa_proto::WallTime;
use spa_proto::channel::RekeyState;

use crate::agent::talk::Known;
use crate::clock;
use crate::say::printable;
use crate::session::Session;

/// The longest session a client accepts (SPEC §6).
const LONGEST: Duration = Duration::from_secs(24 * 60 * 60);

/// An end that moved by no more is the same: the question took its time on the way.
const NOT_WORTH_A_WORD: Duration = Duration::from_secs(2);

/// The person hears of the end this long before, if the session is longer than that.
const WARNINGS: [Duration; 2] = [Duration::from_secs(600), Duration::from_secs(120)];

/// What of the session changes while it lives.
pub(super) struct Terms {
    pub(super) granted: Vec<String>,
    pub(super) not_after: WallTime,
    pub(super) deadline: Duration,
    /// How much longer it can be made, by our clock.
    pub(super) renewable_until: Option<WallTime>,
    pub(super) keys: Keys,
    /// When the control channel was last heard.
    pub(super) heard: Option<Duration>,
}

/// Which preshared key the tunnel has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Keys {
    /// That of the knock.
    Knock,
    /// That of the rekey.
    PostQuantum,
    /// That of the knock, for this reason.
    Refused(String),
}

impl Keys {
    /// For people.
    pub(super) fn text(&self) -> String {
        match self {
            Self::Knock => "of the knock".to_owned(),
            Self::PostQuantum => "post-quantum".to_owned(),
            Self::Refused(why) => format!("of the knock; no post-quantum rekey: {why}"),
        }
    }
}

impl Terms {
    /// As the knock gave them.
    pub(super) fn of(session: &Session) -> Self {
        Self {
            granted: session.granted.clone(),
            not_after: session.not_after,
            deadline: session.deadline,
            renewable_until: None,
            keys: Keys::Knock,
            heard: None,
        }
    }
    /// Takes in what the gateway says the session has. It is a peer like any other: it can make a session no longer than a
    /// day. `None`: nothing changed that must be noted; else what to tell the person, if anything.
    pub(super) fn know(&mut self, known: &Known, session: &Session) -> Option<Option<String>> {
        let grants = &known.grants;
        let left = grants.not_after.since(grants.now);
        if left.is_zero() || left > LONGEST || grants.session != session.id {
            return None;
        }
        self.heard = Some(clock::boot());
        let ours = |at: WallTime| clock::wall().saturating_add(at.since(grants.now));
        self.renewable_until = Some(ours(grants.renewable_until));
        let names: Vec<String> = grants
            .resources
            .iter()
            .map(|one| printable(&one.name))
            .collect();
        let other_names = names != self.granted;
        self.granted = names;
        if grants.rekey == RekeyState::Lost && self.keys == Keys::Knock {
            self.keys = Keys::Refused("the gateway restarted".to_owned());
        }
        let deadline = known.asked + left;
        if deadline.abs_diff(self.deadline) <= NOT_WORTH_A_WORD {
            return other_names.then_some(None);
        }
        let longer = deadline > self.deadline;
        self.deadline = deadline;
        self.not_after = ours(grants.not_after);
        let until = clock::local_text(self.not_after);
        Some(Some(if longer {
            format!("the session lasts until {until} now")
        } else {
            format!("the session ends at {until} already")
        }))
    }
}

/// Whether a turn from so much time left to so much passed a moment at which the person is warned. A sleep over both is one.
pub(super) fn warns(before: Duration, left: Duration) -> bool {
    WARNINGS
        .iter()
        .any(|warning| left <= *warning && before > *warning)
}

#[cfg(test)]
mod tests {
    use spa_proto::SessionId;
    use spa_proto::channel::{GrantedResource, Grants};

    use super::*;
    use crate::session::tests::sample;

    fn known(seconds: u64) -> Known {
        let at = |seconds: u64| WallTime::from_millis(seconds * 1000);
        Known {
            grants: Grants {
                session: SessionId::from_bytes([5; 8]),
                person: "ana".to_owned(),
                now: at(1000),
                not_after: at(1000 + seconds),
                renewable_until: at(1000 + seconds),
                serial: 1,
                rekey: RekeyState::Lost,
                routes: [
                    "0.0.0.0/0",
                    "128.0.0.0/1",
                    "127.0.0.0/8",
                    "::/0",
                    "x/8",
                    "10.0.5.0/24",
                ]
                .map(str::to_owned)
                .to_vec(),
                resources: vec![GrantedResource {
                    name: "db\x1b[2J".to_owned(),
                    to: "10.0.5.20/32".to_owned(),
                    ports: Vec::new(),
                    not_after: at(1000 + seconds),
                }],
            },
            asked: Duration::from_secs(50),
        }
    }

    #[test]
    fn a_gateway_makes_a_session_longer_and_no_longer_than_a_day() {
        let session = sample();
        let mut terms = Terms::of(&session);
        let told = terms.know(&known(60), &session).flatten();
        assert!(told.is_some_and(|line| line.contains("lasts until")));
        assert_eq!(terms.deadline, Duration::from_secs(110));
        assert_eq!(terms.granted, ["db [2J"]);
        assert_eq!(terms.know(&known(61), &session), None, "no news");
        for wrong in [0, 24 * 3600 + 1] {
            assert_eq!(terms.know(&known(wrong), &session), None);
            assert_eq!(terms.deadline, Duration::from_secs(110));
        }
        let mut other = known(600);
        other.grants.session = SessionId::from_bytes([6; 8]);
        assert_eq!(terms.know(&other, &session), None);
        let told = terms.know(&known(10), &session).flatten();
        assert!(told.is_some_and(|line| line.contains("already")));
    }

    #[test]
    fn a_rekey_that_was_done_is_not_called_lost() {
        let session = sample();
        let mut terms = Terms::of(&session);
        terms.keys = Keys::PostQuantum;
        terms.know(&known(60), &session);
        assert_eq!(terms.keys, Keys::PostQuantum);
        let mut terms = Terms::of(&session);
        terms.know(&known(60), &session);
        assert!(terms.keys.text().contains("restarted"));
    }

    #[test]
    fn a_route_that_takes_everything_is_passed_over() {
        let routes = known(60).routes();
        assert_eq!(routes, [("10.0.5.0".parse().expect("an address"), 24)]);
    }

    #[test]
    fn a_person_is_warned_ten_and_two_minutes_before_the_end_and_once_after_a_sleep_over_both() {
        // A session of a quarter of an hour, looked at every second.
        let warned: Vec<u64> = (0..900)
            .rev()
            .filter(|left| warns(Duration::from_secs(left + 1), Duration::from_secs(*left)))
            .collect();
        assert_eq!(warned, [600, 120]);
        assert!(warns(Duration::from_secs(700), Duration::from_secs(30)));
        assert!(!warns(Duration::from_secs(90), Duration::from_secs(30)));
    }
}
