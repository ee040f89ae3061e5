//! A live session speaks from inside the tunnel (SPEC §12): who is it, and what does it want?
//!
//! Invariant: a call is answered once, by [`EffectKind::Answer`], after everything it changes is on disk
//! and in force. Only the session that owns the source address, with its bearer, is heard at all.
//!
//! | call | file |
//! |---|---|
//! | grants, why, waiting | `listing.rs` |
//! | rekey | `rekey.rs` |
//! | renew | `renew.rs` |
//! | password, approve | `account.rs` |
//! | posture, and reports that do not come | `posture.rs` |
//! | what the person is told unasked | `telling.rs` |

mod account;
mod listing;
mod posture;
mod rekey;
mod renew;
mod telling;

use alloc::boxed::Box;
use alloc::string::String;
use alloc::vec::Vec;
use core::net::IpAddr;
use core::time::Duration;

use spa_proto::channel::{
    Approve, Approved, Grants, Password, Posture, PostureTaken, Renew, Renewed, Requests, Why,
};
use spa_proto::{RekeyAnswer, RekeyRequest, SessionId, control_bearer};
use subtle::ConstantTimeEq;

use crate::change::Record;
use crate::closing::EndReason;
use crate::effect::EffectKind;
use crate::entropy::Entropy;
use crate::gateway::Gateway;
use crate::outbox::Waiter;
use crate::plan::{OnFailure, Operation, Step};
use crate::session::Phase;
use crate::time::Now;

pub use posture::MISSED_REPORTS;
pub(crate) use renew::NewEnds;
pub(crate) use telling::{Loss, texts};

/// Names a call until it is answered; the daemon counts them.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct CallId(pub u64);

/// Who calls, as far as the connection shows.
#[derive(Clone, Copy)]
pub struct Caller<'a> {
    /// The address at the other end of the connection.
    pub source: IpAddr,
    /// What stands behind `Authorization: Bearer`.
    pub bearer: &'a [u8],
}

/// What a session may ask for.
#[derive(Debug)]
pub enum Call {
    /// What do I have?
    Grants,
    /// Tell me what happens.
    Events,
    /// Why do I have this resource, or why not?
    Why(String),
    /// What waits for an approval?
    Waiting,
    /// This is what my device is like.
    Posture(Posture),
    /// A new preshared key.
    Rekey(RekeyRequest),
    /// More time.
    Renew(Renew),
    /// I am done.
    Close,
    /// A new password.
    Password(Box<Password>),
    /// I agree to this request.
    Approve(Approve),
}

/// What it is answered.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum CallAnswer {
    /// To [`Call::Grants`].
    Grants(Box<Grants>),
    /// To [`Call::Events`]: those of this session.
    Events(SessionId),
    /// To [`Call::Why`].
    Why(Why),
    /// To [`Call::Waiting`].
    Waiting(Requests),
    /// To [`Call::Posture`].
    Posture(PostureTaken),
    /// To [`Call::Rekey`].
    Rekey(RekeyAnswer),
    /// To [`Call::Renew`].
    Renewed(Renewed),
    /// To [`Call::Approve`].
    Approved(Approved),
    /// To [`Call::Close`] and [`Call::Password`]: it is done.
    Done,
}

/// Why it is not.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum CallRefusal {
    /// No live session has this address, or this is not its bearer. Both alike, so that neither is learned.
    Unauthorized,
    /// What was said makes no sense, in these words.
    Malformed(&'static str),
    /// Policy, a limit, or a factor, in these words.
    Refused(&'static str),
    /// There is no such request.
    NotFound,
    /// The gateway restarted since the knock.
    RekeyLost,
    /// Not so often.
    TooMany(Duration),
    /// It could not be written down or carried out.
    Failed,
}

impl Gateway {
    /// Hears a call from inside the tunnel. Its answer comes as an effect.
    pub fn handle_call(
        &mut self,
        id: CallId,
        caller: Caller<'_>,
        call: Call,
        now: Now,
        entropy: &mut dyn Entropy,
    ) {
        let outcome = match self.caller(caller, now) {
            Some(session) => self.hear(id, session, call, now, entropy),
            None => Err(CallRefusal::Unauthorized),
        };
        match outcome {
            Ok(Some(answer)) => self.answer_call(id, Ok(answer)),
            // An operation is under way and ends in the answer.
            Ok(None) => {}
            Err(refusal) => self.answer_call(id, Err(refusal)),
        }
    }

    /// Gives the live session that calls.
    fn caller(&self, caller: Caller<'_>, now: Now) -> Option<SessionId> {
        let id = self.sessions.at(caller.source)?;
        let session = self.sessions.of(id)?;
        let bearer = control_bearer(&session.key);
        let known = bool::from(bearer.as_bytes().ct_eq(caller.bearer));
        (known && session.phase == Phase::Open && session.is_live(now)).then_some(id)
    }

    /// Gives the answer, or nothing where an operation will.
    fn hear(
        &mut self,
        id: CallId,
        session: SessionId,
        call: Call,
        now: Now,
        entropy: &mut dyn Entropy,
    ) -> Result<Option<CallAnswer>, CallRefusal> {
        if let Some(session) = self.sessions.of_mut(session) {
            session.upkeep.speaks = true;
        }
        match call {
            Call::Grants => Ok(self
                .grants_of(session, now)
                .map(|grants| CallAnswer::Grants(Box::new(grants)))),
            Call::Events => Ok(Some(CallAnswer::Events(session))),
            Call::Why(resource) => Ok(Some(CallAnswer::Why(self.why(session, resource, now)))),
            Call::Waiting => Ok(Some(CallAnswer::Waiting(self.requests_for(session)))),
            Call::Posture(posture) => self
                .take_report(session, &posture, now)
                .map(|taken| Some(CallAnswer::Posture(taken))),
            Call::Close => {
                self.close_on_call(id, session, now);
                Ok(None)
            }
            Call::Rekey(request) => self
                .rekey(id, session, &request, now, entropy)
                .map(|()| None),
            Call::Renew(ask) => self.renew(id, session, ask, now).map(|()| None),
            Call::Password(ask) => self.change_password(id, session, &ask, now).map(|()| None),
            Call::Approve(ask) => self.approve_on_call(id, session, ask, now).map(|()| None),
        }
    }

    pub(crate) fn answer_call(&mut self, call: CallId, answer: Result<CallAnswer, CallRefusal>) {
        self.outbox
            .put(EffectKind::Answer { call, answer }, Waiter::Nobody);
    }

    /// Over on disk, answered, then closed: once the peer is gone no answer reaches its client.
    fn close_on_call(&mut self, call: CallId, id: SessionId, now: Now) {
        let Some(credential) = self.sessions.of(id).map(|session| session.credential) else {
            return self.answer_call(call, Err(CallRefusal::Unauthorized));
        };
        let changes: Vec<_> = self.end_of(id, now).into_iter().collect();
        let steps = [
            Step::Record(Record { changes }),
            Step::Answer(call, Box::new(CallAnswer::Done)),
            Step::End(id, EndReason::ClosedByClient),
        ];
        let operation = Operation::new(credential, OnFailure::Close(id), steps);
        self.begin(operation.answering(call), now);
    }
}

impl core::fmt::Debug for Caller<'_> {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "Caller({})", self.source)
    }
}
