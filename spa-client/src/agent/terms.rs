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
