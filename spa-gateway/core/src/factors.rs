//! Steps 9 and 10: is it really them? Makes [`ProvenKnock`].
//!
//! Invariant: proof and second factor are both evaluated and then combined; which of them failed
//! shows in the audit log and nowhere else.

use spa_proto::{Ask, OpenedKnock, ProofPublic, SessionKey, WallTime};
use subtle::Choice;

use crate::credential::{AnsweredWith, Credential, ENROL_WITHIN, MAX_CANDIDATES};
use crate::guard::{FreshKnock, Occasion};
use crate::person::{Person, Spend};
use crate::queue::Arrival;
use crate::refusal::Refusal;
use crate::session::Sessions;
use crate::time::Now;

/// A knock whose every factor holds.
#[derive(Debug)]
pub(crate) struct ProvenKnock {
    fresh: FreshKnock,
    spend: Spend,
}

/// What is left of a knock that failed a factor: enough to count it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Failure {
    pub(crate) arrival: Arrival,
    pub(crate) ts: WallTime,
    pub(crate) occasion: Occasion,
    pub(crate) refusal: Refusal,
}

impl ProvenKnock {
    /// Evaluates both factors (step 10).
    pub(crate) fn prove(
        fresh: FreshKnock,
        credential: &Credential,
        person: &Person,
        sessions: &Sessions,
        now: Now,
    ) -> Result<Self, Failure> {
        let opened = fresh.opened();
        let (proof, (factor, spend)) = match &fresh.request().ask {
            Ask::Open(open) => {
                let proof = verify(opened, credential.proof.as_ref());
                let factor = match fresh.occasion() {
                    Occasion::New => person.judge(&open.factor, now.wall),
                    // Its code was checked the first time, and is used up since (SPEC §10).
                    Occasion::Repeat => (Choice::from(1), Spend::Nothing),
                };
                (proof, factor)
            }
            Ask::Roam(_) | Ask::Close(_) => {
                let key = session_key(credential, sessions);
                let proof = key.map_or(Choice::from(0), |key| opened.verify_session_proof(key));
                (proof, (Choice::from(1), Spend::Nothing))
            }
            // The invite is the second factor (SPEC §4).
            Ask::Enrol(enrol) => (
                opened.verify_proof(&enrol.q),
                (Choice::from(1), Spend::Nothing),
            ),
        };
        if !bool::from(proof & factor) {
            let refusal = Refusal::of_factors(proof.into(), factor.into());
            return Err(Failure::of(&fresh, refusal));
        }
        may_enrol(&fresh, credential, now).map_err(|refusal| Failure::of(&fresh, refusal))?;
        Ok(Self { fresh, spend })
    }

    pub(crate) const fn fresh(&self) -> &FreshKnock {
        &self.fresh
    }

    pub(crate) const fn spend(&self) -> Spend {
        self.spend
    }
}

impl Refusal {
    /// Says which factor failed; one of them did.
    pub(crate) const fn of_factors(proof: bool, factor: bool) -> Self {
        match (proof, factor) {
            (false, true) => Self::WrongProof,
            (true, _) => Self::WrongCode,
            (false, false) => Self::WrongProofAndCode,
        }
    }
}

impl Failure {
    const fn of(knock: &FreshKnock, refusal: Refusal) -> Self {
        Self {
            arrival: knock.arrival(),
            ts: knock.request().ts,
            occasion: knock.occasion(),
            refusal,
        }
    }
}

fn verify(opened: &OpenedKnock, q: Option<&ProofPublic>) -> Choice {
    q.map_or(Choice::from(0), |q| opened.verify_proof(q))
}

/// Gives the key of the credential's session, or of the one whose CLOSE may be repeated.
fn session_key<'a>(credential: &'a Credential, sessions: &'a Sessions) -> Option<&'a SessionKey> {
    let live = credential.session.and_then(|session| sessions.of(session));
    live.map(|session| &session.key).or_else(|| {
        match &credential.memory.answered.as_ref()?.outcome {
            AnsweredWith::Closed { key, .. } => Some(key),
            AnsweredWith::Opened { .. }
            | AnsweredWith::Roamed { .. }
            | AnsweredWith::Enrolled
            | AnsweredWith::Refused(_) => None,
        }
    })
}

/// Checks the limits of an enrolment, whose proof holds (SPEC §14).
fn may_enrol(fresh: &FreshKnock, credential: &Credential, now: Now) -> Result<(), Refusal> {
    let Ask::Enrol(enrol) = &fresh.request().ask else {
        return Ok(());
    };
    if credential.proof.is_some_and(|proof| proof != enrol.q) {
        return Err(Refusal::OtherEnroller);
    }
    if credential.candidates() >= MAX_CANDIDATES {
        return Err(Refusal::TooManyCandidates);
    }
    if credential
        .enrolled
        .is_some_and(|first| now.wall.since(first) > ENROL_WITHIN)
    {
        return Err(Refusal::EnrolmentOver);
    }
    Ok(())
}
