//! Steps 7 and 8: is it understood, and is it of now? Makes [`UnderstoodKnock`] and [`FreshKnock`].

use spa_proto::{Ask, CredentialId, FRESHNESS, OpenedKnock, Request, SessionId, WallTime};

use crate::credential::{AnsweredWith, Credential};
use crate::queue::Arrival;
use crate::refusal::Refusal;
use crate::session::Sessions;
use crate::snapshot::KeyKind;
use crate::time::Now;

/// A knock whose plaintext keeps every rule of SPEC §4 for its op and key.
#[derive(Debug)]
pub(crate) struct UnderstoodKnock {
    opened: OpenedKnock,
    request: Request,
    arrival: Arrival,
}

/// A knock that is of now: a new transaction, or a repeat of the one answered last.
#[derive(Debug)]
pub(crate) struct FreshKnock {
    opened: OpenedKnock,
    request: Request,
    arrival: Arrival,
    occasion: Occasion,
}

/// Which of the two.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Occasion {
    New,
    Repeat,
}

impl UnderstoodKnock {
    /// Parses strictly; an op belongs under its kind of key, and SOURCE is the source (step 7).
    pub(crate) fn parse(
        opened: OpenedKnock,
        kind: KeyKind,
        arrival: Arrival,
    ) -> Result<Self, Refusal> {
        let request = opened.request().map_err(|_| Refusal::Malformed)?;
        let belongs = match (&request.ask, kind) {
            // An invite knows kid 0 only (SPEC §14).
            (Ask::Enrol(_), KeyKind::Invite) => opened.kid() == 0,
            (Ask::Enrol(_), KeyKind::Candidate | KeyKind::Live) => false,
            (Ask::Open(_) | Ask::Roam(_) | Ask::Close(_), kind) => kind != KeyKind::Invite,
        };
        if !belongs {
            return Err(Refusal::WrongKey);
        }
        if request
            .source
            .is_some_and(|source| source != arrival.source.ip().to_canonical())
        {
            return Err(Refusal::SourceMismatch);
        }
        Ok(Self {
            opened,
            request,
            arrival,
        })
    }

    pub(crate) const fn credential(&self) -> CredentialId {
        self.arrival.key.credential
    }
}

impl FreshKnock {
    /// Checks time, order and session (step 8).
    pub(crate) fn check(
        knock: UnderstoodKnock,
        credential: &Credential,
        sessions: &Sessions,
        now: Now,
    ) -> Result<Self, Refusal> {
        let UnderstoodKnock {
            opened,
            request,
            arrival,
        } = knock;
        if now.wall.distance(request.ts) > FRESHNESS {
            return Err(Refusal::Stale);
        }
        let occasion = occasion(&opened, &request, credential, sessions, now)?;
        Ok(Self {
            opened,
            request,
            arrival,
            occasion,
        })
    }

    pub(crate) const fn opened(&self) -> &OpenedKnock {
        &self.opened
    }

    pub(crate) const fn request(&self) -> &Request {
        &self.request
    }

    pub(crate) const fn arrival(&self) -> Arrival {
        self.arrival
    }

    pub(crate) const fn occasion(&self) -> Occasion {
        self.occasion
    }
}

fn occasion(
    opened: &OpenedKnock,
    request: &Request,
    credential: &Credential,
    sessions: &Sessions,
    now: Now,
) -> Result<Occasion, Refusal> {
    if repeats(opened, credential, sessions, now) {
        return Ok(Occasion::Repeat);
    }
    is_newer(request.ts, credential.last_ts, now)?;
    if credential.memory.has_failed(request.ts, now.mono) {
        return Err(Refusal::FailedBefore);
    }
    match &request.ask {
        Ask::Roam(session) | Ask::Close(session)
            if !is_live(*session, credential, sessions, now) =>
        {
            Err(Refusal::NoSession)
        }
        Ask::Open(_) | Ask::Roam(_) | Ask::Close(_) | Ask::Enrol(_) => Ok(Occasion::New),
    }
}

/// Says whether it repeats the transaction answered last (SPEC §10).
fn repeats(opened: &OpenedKnock, credential: &Credential, sessions: &Sessions, now: Now) -> bool {
    let memory = &credential.memory;
    let Some(answered) = memory.repeatable(opened, now.mono) else {
        return false;
    };
    match &answered.outcome {
        AnsweredWith::Opened { session, .. } => {
            let unheard = sessions
                .of(*session)
                .is_some_and(|session| session.seen.rx == 0);
            unheard && is_live(*session, credential, sessions, now)
        }
        AnsweredWith::Roamed { session } => is_live(*session, credential, sessions, now),
        AnsweredWith::Closed { .. } | AnsweredWith::Enrolled | AnsweredWith::Refused(_) => true,
    }
}

fn is_newer(ts: WallTime, last_ts: WallTime, now: Now) -> Result<(), Refusal> {
    if last_ts > now.wall.saturating_add(FRESHNESS) {
        return Err(Refusal::ClockRanAhead);
    }
    if ts <= last_ts {
        Err(Refusal::Replayed)
    } else {
        Ok(())
    }
}

fn is_live(id: SessionId, credential: &Credential, sessions: &Sessions, now: Now) -> bool {
    credential.session == Some(id) && sessions.of(id).is_some_and(|session| session.is_live(now))
}
