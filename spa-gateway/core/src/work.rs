//! There is time for public-key work: one queued knock, steps 6 to 11 (SPEC §8).

use alloc::vec::Vec;
use core::net::SocketAddr;

use spa_proto::{Ask, CredentialId, OpenError};

use crate::audit::{AuditKind, AuditRecord};
use crate::change::{Change, Record};
use crate::closing::EndReason;
use crate::credential::MAX_FAILURES;
use crate::effect::EffectKind;
use crate::entropy::Entropy;
use crate::factors::{Failure, ProvenKnock};
use crate::gateway::Gateway;
use crate::guard::{FreshKnock, Occasion, UnderstoodKnock};
use crate::outbox::Waiter;
use crate::queue::QueuedKnock;
use crate::refusal::Refusal;
use crate::snapshot::Standing;
use crate::time::Now;

impl Gateway {
    /// Works on the next knock whose credential has nothing under way. `None`: there is none now.
    ///
    /// Call it until it gives `None` after every event: what an effect was waited for may be ready then.
    pub fn handle_work(
        &mut self,
        now: Now,
        entropy: &mut dyn Entropy,
    ) -> Option<Result<(), Refusal>> {
        let credentials = &self.credentials;
        let ready = |id| {
            credentials
                .get(&id)
                .is_none_or(|credential| credential.memory.under_way == 0)
        };
        let queued = self.queue.pop(ready)?;
        let outcome = self.work_on(queued, now, entropy);
        if let Err(refusal) = outcome {
            self.counters.count(refusal);
        }
        Some(outcome)
    }

    fn work_on(
        &mut self,
        queued: QueuedKnock,
        now: Now,
        entropy: &mut dyn Entropy,
    ) -> Result<(), Refusal> {
        let understood = self.open(queued, now)?;
        let fresh = self.freshen(understood, now)?;
        let proven = self.prove(fresh, now)?;
        match (&proven.fresh().request().ask, proven.fresh().occasion()) {
            (Ask::Open(_), Occasion::New) => self.open_session(&proven, now, entropy),
            (Ask::Roam(_), Occasion::New) => self.roam(&proven, now, entropy),
            (Ask::Close(_), Occasion::New) => self.close(&proven, now, entropy),
            (Ask::Enrol(_), _) => self.enrol(&proven, now, entropy),
            (Ask::Open(_) | Ask::Roam(_) | Ask::Close(_), Occasion::Repeat) => {
                self.repeat(&proven, now, entropy)
            }
        }
    }

    /// Steps 6 and 7. While the knock waited, the clock may have been set, and its credential have lost the key or come to its end.
    fn open(&self, queued: QueuedKnock, now: Now) -> Result<UnderstoodKnock, Refusal> {
        let QueuedKnock { knock, arrival } = queued;
        if !self.is_clock_believed(now) {
            return Err(Refusal::ClockUntrusted);
        }
        let credential = self
            .honoured(arrival.key.credential)
            .ok_or(Refusal::CredentialDisabled)?;
        if credential.has_expired(now.wall) {
            return Err(Refusal::CredentialExpired);
        }
        let key = credential
            .keys
            .get(&arrival.key.number)
            .ok_or(Refusal::CredentialDisabled)?;
        let opened = knock
            .open(&key.derived, |kid| self.knock_keys.live(kid, now.wall))
            .map_err(|error| match error {
                OpenError::UnknownKid => Refusal::UnknownKnockKey,
                OpenError::NotContributory => Refusal::NotContributory,
                OpenError::Aead => Refusal::Seal,
            })?;
        UnderstoodKnock::parse(opened, key.kind, arrival)
    }

    /// Step 8. A clock that ran ahead is the administrator's to mend, so the log says so.
    fn freshen(&mut self, knock: UnderstoodKnock, now: Now) -> Result<FreshKnock, Refusal> {
        let id = knock.credential();
        let credential = self
            .credentials
            .get(&id)
            .ok_or(Refusal::CredentialDisabled)?;
        let fresh = FreshKnock::check(knock, credential, &self.sessions, now);
        if let Err(Refusal::ClockRanAhead) = fresh {
            let mut audit = self.audit_of(id, AuditKind::ClockRanAhead, now);
            audit.reason = Some("its last knock lies ahead of the clock: `device resync` mends it");
            self.put_audit(audit);
        }
        fresh
    }

    /// Steps 9 and 10.
    fn prove(&mut self, fresh: FreshKnock, now: Now) -> Result<ProvenKnock, Refusal> {
        let id = fresh.arrival().key.credential;
        let credential = self
            .credentials
            .get(&id)
            .ok_or(Refusal::CredentialDisabled)?;
        let person = self
            .persons
            .get(&credential.person)
            .ok_or(Refusal::CredentialDisabled)?;
        if !credential.memory.failures.offers(now.mono) {
            return Err(Refusal::FailureRate);
        }
        ProvenKnock::prove(fresh, credential, person, &self.sessions, now).map_err(|failure| {
            self.count_failure(failure, now);
            failure.refusal
        })
    }

    /// Counts a failure where it counts: in the bucket, in the row of them, against its transaction.
    fn count_failure(&mut self, failure: Failure, now: Now) {
        let id = failure.arrival.key.credential;
        if let Some(credential) = self.credentials.get_mut(&id)
            && failure.occasion == Occasion::New
        {
            credential.memory.remember_failed(failure.ts, now.mono);
        }
        self.count_wrong_factor(id, failure.arrival.source, failure.refusal, now);
    }

    /// Counts a wrong factor of a credential, wherever it was given.
    pub(crate) fn count_wrong_factor(
        &mut self,
        id: CredentialId,
        source: SocketAddr,
        refusal: Refusal,
        now: Now,
    ) {
        let mut audit = self.audit_of(id, AuditKind::FactorFailed, now);
        audit.source = Some(source);
        audit.reason = Some(refusal.name());
        let Some(credential) = self.credentials.get_mut(&id) else {
            return;
        };
        // Step 9 saw a token; taking it cannot fail.
        let _ = credential.memory.failures.take(now.mono);
        credential.failures = credential.failures.saturating_add(1);
        let in_a_row = credential.failures;
        let mut changes = Vec::from([Change::FailuresCounted {
            credential: id,
            in_a_row,
        }]);
        self.put_audit(audit);
        if refusal == Refusal::OtherEnroller {
            changes.push(Change::CredentialErased { credential: id });
            self.void_invite(id, "used by a second enroller", now);
        } else if in_a_row >= MAX_FAILURES {
            changes.push(Change::CredentialStanding {
                credential: id,
                standing: Standing::Disabled,
            });
            self.disable_credential(id, EndReason::Revoked, now);
            let audit = self.audit_of(id, AuditKind::CredentialDisabled, now);
            self.put_audit(AuditRecord {
                reason: Some("a hundred failures in a row"),
                ..audit
            });
        }
        self.outbox
            .put(EffectKind::Record(Record { changes }), Waiter::Nobody);
        // A row of failures is part of the risk, also of the session that is open.
        let open = self.credentials.get(&id).and_then(|of| of.session);
        if let Some(session) = open {
            self.review(session, now);
        }
    }
}
