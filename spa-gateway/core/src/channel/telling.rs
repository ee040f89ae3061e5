//! What a person is told of a session without asking, and the words for why something is lost.

use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use core::time::Duration;

use spa_proto::SessionId;
use spa_proto::channel::{Ended, Ending, Event, Reduced};

use crate::agenda::Timer;
use crate::closing::EndReason;
use crate::effect::EffectKind;
use crate::exception::Waiting;
use crate::gateway::Gateway;
use crate::name::Name;
use crate::outbox::Waiter;
use crate::policy::{Allow, Clause, Deny, EndsBy, Held, Keyword, Reason};
use crate::session::Phase;
use crate::time::Now;

/// How long before its end a session is announced to end.
const WARN_BEFORE: [Duration; 2] = [Duration::from_secs(10 * 60), Duration::from_secs(2 * 60)];

/// Why a session loses a resource: a word for machines and a line for people.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Loss {
    pub(crate) word: &'static str,
    pub(crate) text: String,
}

impl Loss {
    /// Because policy says no. `silent`: the device stopped to report, so that nothing is known of it.
    pub(crate) fn denied(resource: &Name, deny: &Deny, silent: bool) -> Self {
        if silent && deny.reason == Reason::Posture {
            return Self {
                word: "posture-missing",
                text: format!("{resource}: the device stopped to report its posture"),
            };
        }
        let word = match deny.reason {
            Reason::Locked => "locked",
            Reason::Posture => "posture",
            Reason::Window => "time-window",
            Reason::Risk => "risk",
            Reason::Approval => "approval",
            Reason::NoResource
            | Reason::NoPort
            | Reason::Rule
            | Reason::NoRule
            | Reason::Expired
            | Reason::Source
            | Reason::Factors => "policy",
        };
        let clause = deny.failing.iter().find(|clause| is_personal(clause));
        let text = match clause {
            Some(clause) => format!("{resource}: {}", sentence(clause)),
            None => format!("{resource}: {}", deny.reason.as_str()),
        };
        Self { word, text }
    }

    /// Because its time is over.
    pub(crate) fn ended(resource: &Name, allow: &Allow) -> Self {
        let word = match allow.ends_by {
            EndsBy::Posture => "posture",
            EndsBy::Window | EndsBy::Deny => "time-window",
            EndsBy::Grant | EndsBy::Approval => "approval",
            EndsBy::Length | EndsBy::Until | EndsBy::Ceiling => "policy",
        };
        Self {
            word,
            text: format!("{resource}: {}", allow.ends_by.as_str()),
        }
    }
}

/// Says whether a clause speaks of the person's own device or hours, and not of the rules of others.
pub(super) fn is_personal(clause: &Clause) -> bool {
    let personal = match clause.keyword {
        Keyword::Posture | Keyword::When | Keyword::Risk | Keyword::Approve => true,
        Keyword::Who | Keyword::From | Keyword::Until | Keyword::Factors => false,
    };
    personal && matches!(clause.held, Held::No | Held::Missing)
}

/// `firewall must be true, and is false`.
fn sentence(clause: &Clause) -> String {
    let about = match clause.about.as_str() {
        "" => match clause.keyword {
            Keyword::When => "the time",
            Keyword::Risk => "the risk",
            Keyword::Approve => "the approval",
            Keyword::Who | Keyword::From | Keyword::Until | Keyword::Posture | Keyword::Factors => {
                "it"
            }
        },
        about => about,
    };
    format!("{about} must be {}, and is {}", clause.wanted, clause.saw)
}

impl Gateway {
    /// Tells a session; of one that is ending the end was the last.
    pub(crate) fn tell_event(&mut self, session: SessionId, event: Event) {
        let of = self.sessions.of(session);
        if of.is_some_and(|of| of.phase != Phase::Ending) {
            self.put_event(session, event);
        }
    }

    fn put_event(&mut self, session: SessionId, event: Event) {
        // Nobody serves the channel, so nobody hears.
        if self.settings.control_port.is_some() {
            self.outbox
                .put(EffectKind::Event { session, event }, Waiter::Nobody);
        }
    }

    /// Tells that a session lost resources.
    pub(crate) fn tell_reduced(&mut self, id: SessionId, lost: &[(Name, Loss)]) {
        let Some(session) = self.sessions.of(id) else {
            return;
        };
        let Some((_, first)) = lost.first() else {
            return;
        };
        let event = Event::Reduced(Reduced {
            lost: lost.iter().map(|(name, _)| name.to_string()).collect(),
            reason: first.word.into(),
            text: texts(lost),
            not_after: session.terms.not_after,
        });
        self.tell_event(id, event);
    }

    /// Tells that a session is over: the last that is told of it.
    pub(crate) fn tell_ended(&mut self, id: SessionId, reason: EndReason, text: Option<String>) {
        let event = Event::Ended(Ended {
            reason: reason.word().into(),
            text: text.unwrap_or_else(|| reason.name().into()),
        });
        self.put_event(id, event);
    }

    /// Comes back when the end of a session is to be announced next.
    pub(crate) fn set_warning(&mut self, id: SessionId, now: Now) {
        let Some(deadline) = self.sessions.of(id).map(|session| session.terms.deadline) else {
            return;
        };
        let left = deadline.since(now.mono);
        match WARN_BEFORE.into_iter().find(|before| left > *before) {
            Some(before) => {
                let at = now.mono.after(left.saturating_sub(before));
                self.agenda.set(Timer::Warning(id), at);
            }
            None => self.agenda.cancel(Timer::Warning(id)),
        }
    }

    /// Announces the end of a session.
    pub(crate) fn warn(&mut self, id: SessionId, now: Now) {
        let Some(session) = self.sessions.of(id) else {
            return;
        };
        let not_after = session.terms.not_after;
        let event = Event::Ending(Ending {
            not_after,
            renewable_until: self.renewable_until(id, now).unwrap_or(not_after),
        });
        self.tell_event(id, event);
        self.set_warning(id, now);
    }

    /// Tells everybody with a live session who may approve a request that it waits.
    pub(crate) fn tell_approvers(&mut self, request: &Waiting) {
        let approvers: Vec<SessionId> = self
            .sessions
            .iter()
            .filter(|(_, session)| {
                self.credentials
                    .get(&session.credential)
                    .is_some_and(|credential| self.may_approve(request, &credential.person))
            })
            .map(|(id, _)| id)
            .collect();
        for id in approvers {
            self.tell_event(id, Event::Waiting(request.told(request.since)));
        }
    }
}

/// The lines of all that was lost, each once.
pub(crate) fn texts(lost: &[(Name, Loss)]) -> String {
    let mut text = String::new();
    for (_, loss) in lost {
        if !text.is_empty() {
            text.push_str("; ");
        }
        text.push_str(&loss.text);
    }
    text
}
