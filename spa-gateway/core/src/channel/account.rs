//! What a person does from inside a session for good: a new password, an approval (SPEC §12).

use alloc::boxed::Box;
use alloc::vec::Vec;
use core::time::Duration;

use spa_proto::channel::{Approve, Approved, Event, Password};
use spa_proto::{SecondFactor, SessionId};

use super::{CallAnswer, CallId, CallRefusal};
use crate::addition::Addition;
use crate::admin::AdminRefusal;
use crate::audit::AuditKind;
use crate::change::{Change, Record};
use crate::exception::ApprovalRow;
use crate::gateway::Gateway;
use crate::plan::{OnFailure, Operation, Step};
use crate::refusal::Refusal;
use crate::snapshot::PersonKind;
use crate::time::Now;

/// One sentence for a wrong password, a wrong or used code, and too many of them: the caller learns which of them
/// no more than a knock would tell (SPEC §9).
const NOT_ACCEPTED: CallRefusal =
    CallRefusal::Refused("password or code was not accepted; wait for the next code and try again");

impl Gateway {
    /// Replaces `Q`: the old one signs, and a code of the phone is spent. A failure counts as a knock's does.
    pub(super) fn change_password(
        &mut self,
        call: CallId,
        id: SessionId,
        ask: &Password,
        now: Now,
    ) -> Result<(), CallRefusal> {
        let session = self.sessions.of(id).ok_or(CallRefusal::Unauthorized)?;
        let (credential_id, source) = (session.credential, session.source);
        let credential = self
            .credentials
            .get(&credential_id)
            .ok_or(CallRefusal::Unauthorized)?;
        let person = self
            .persons
            .get(&credential.person)
            .ok_or(CallRefusal::Unauthorized)?;
        if person.kind == PersonKind::Machine {
            return Err(CallRefusal::Refused("a machine has no password"));
        }
        let q = ask.q();
        if !q.is_usable() {
            return Err(CallRefusal::Malformed("the new key is no proof key"));
        }
        if !credential.memory.failures.offers(now.mono) {
            return Err(NOT_ACCEPTED);
        }
        let old = credential.proof.ok_or(CallRefusal::Unauthorized)?;
        // Both are evaluated, then combined (SPEC §8 step 10).
        let proof = old.gives_way_to(&q, (self.id, credential_id, id), &ask.signature);
        let (factor, spend) = person.judge(&SecondFactor::Totp(ask.code), now.wall);
        if !bool::from(proof & factor) {
            let refusal = Refusal::of_factors(proof.into(), factor.into());
            self.count_wrong_factor(credential_id, source, refusal, now);
            return Err(NOT_ACCEPTED);
        }
        let mut changes = Vec::from([Change::ProofReplaced {
            credential: credential_id,
            proof: q,
        }]);
        changes.extend(self.spend(credential_id, spend));
        let mut audit = self.audit_of(credential_id, AuditKind::PasswordChanged, now);
        audit.session = Some(id);
        audit.source = Some(source);
        let steps = [
            Step::Record(Record { changes }),
            Step::Proof(credential_id, q),
            Step::Answer(call, Box::new(CallAnswer::Done)),
            Step::Audit(audit),
        ];
        let operation = Operation::new(credential_id, OnFailure::Leave, steps);
        self.begin(operation.answering(call), now);
        Ok(())
    }

    /// Approves a request in the name of the session's person.
    pub(super) fn approve_on_call(
        &mut self,
        call: CallId,
        id: SessionId,
        ask: Approve,
        now: Now,
    ) -> Result<(), CallRefusal> {
        let by = self
            .person_of(id)
            .cloned()
            .ok_or(CallRefusal::Unauthorized)?;
        let credential = self
            .sessions
            .of(id)
            .map(|session| session.credential)
            .ok_or(CallRefusal::Unauthorized)?;
        let length = Duration::from_secs(u64::from(ask.minutes) * 60);
        // A request somebody may not approve is none to them.
        let row = self
            .approval(ask.id, &by, length, now)
            .map_err(|refusal| match refusal {
                AdminRefusal::BadLength => CallRefusal::Refused("approve for 1 minute or more"),
                AdminRefusal::Full { .. } => CallRefusal::Refused(
                    "there are too many grants and approvals; an administrator can end some",
                ),
                _ => CallRefusal::NotFound,
            })?;
        let until = row.until;
        let steps = [
            Step::Record(Record {
                changes: [Change::Approved(row.clone())].into(),
            }),
            Step::Adopt(Box::new(Addition::Approved(row))),
            Step::Answer(call, Box::new(CallAnswer::Approved(Approved { until }))),
        ];
        let operation = Operation::new(credential, OnFailure::Leave, steps);
        self.begin(operation.answering(call), now);
        Ok(())
    }

    /// Tells whoever asked that they may knock again.
    pub(crate) fn tell_approved(&mut self, row: &ApprovalRow) {
        let theirs: Vec<SessionId> = self
            .sessions
            .iter()
            .filter(|(id, _)| self.person_of(*id) == Some(&row.person))
            .map(|(id, _)| id)
            .collect();
        for id in theirs {
            self.tell_event(id, Event::Approved(row.told()));
        }
    }
}
