//! ENROL: a device turns an invite into a credential (SPEC §14). Each answer makes one more candidate key.

use alloc::collections::VecDeque;
use alloc::string::String;
use alloc::vec::Vec;
use core::fmt::Write as _;

use spa_proto::{Ask, CredentialId, DerivedKeys, Outcome, TotpOffer};

use crate::addition::Addition;
use crate::audit::{AuditKind, AuditRecord};
use crate::change::{Change, Record};
use crate::closing::EndReason;
use crate::credential::AnsweredWith;
use crate::entropy::Entropy;
use crate::factors::ProvenKnock;
use crate::gateway::Gateway;
use crate::guard::Occasion;
use crate::marks::answered;
use crate::name::Name;
use crate::plan::{OnFailure, Operation, Step};
use crate::refusal::Refusal;
use crate::snapshot::Standing;
use crate::tags::KeyRef;
use crate::time::Now;

impl Gateway {
    /// Answers an ENROL: the candidate is on disk before the reply leaves.
    pub(crate) fn enrol(
        &mut self,
        knock: &ProvenKnock,
        now: Now,
        entropy: &mut dyn Entropy,
    ) -> Result<(), Refusal> {
        let Ask::Enrol(ask) = &knock.fresh().request().ask else {
            return Err(Refusal::Malformed);
        };
        let id = knock.fresh().arrival().key.credential;
        let occasion = knock.fresh().occasion();
        let mut changes = match occasion {
            Occasion::New => self.mark(knock, now).changes,
            Occasion::Repeat => Vec::new(),
        };
        let outcome = Outcome::Enrolled(self.totp_offer(id));
        let (reply, secrets) = self.answer_again(knock.fresh(), outcome, now, entropy);
        let label = self.label_for(id, &ask.label);
        let credential = self
            .credentials
            .get_mut(&id)
            .ok_or(Refusal::CredentialDisabled)?;
        let enrolled = *credential.enrolled.get_or_insert(now.wall);
        credential.proof = Some(ask.q);
        credential.label.clone_from(&label);
        let last = credential.keys.keys().next_back().copied().unwrap_or(0);
        let number = last.checked_add(1).ok_or(Refusal::TooManyCandidates)?;
        let derived = DerivedKeys::derive(&secrets.k_cred, self.id, id);
        changes.push(Change::CandidateAdded {
            credential: id,
            number,
            key: secrets.k_cred,
            proof: ask.q,
            label,
            enrolled,
        });
        let key = KeyRef {
            credential: id,
            number,
        };
        let mut audit = self.audit_of(id, AuditKind::DeviceEnrolled, now);
        audit.source = Some(knock.fresh().arrival().source);
        let mut steps = VecDeque::from([
            Step::Record(Record { changes }),
            Step::AddCandidate(key, alloc::boxed::Box::new(derived)),
        ]);
        match occasion {
            Occasion::New => {
                steps.push_back(Step::Remember(answered(
                    knock.fresh(),
                    now,
                    AnsweredWith::Enrolled,
                )));
            }
            Occasion::Repeat => self.note_repeat(id),
        }
        steps.extend([Step::Reply(reply), Step::Audit(audit)]);
        self.begin(Operation::new(id, OnFailure::Leave, steps), now);
        Ok(())
    }

    /// Hands the phone's secret over until a code of it was accepted once (SPEC §6).
    fn totp_offer(&self, id: CredentialId) -> Option<TotpOffer> {
        let person = self.persons.get(&self.credentials.get(&id)?.person)?;
        let totp = person.totp.as_ref().filter(|totp| !totp.proven)?;
        Some(TotpOffer {
            digits: totp.digits,
            period: totp.period,
            secret: totp.secret.duplicate(),
        })
    }

    fn note_repeat(&mut self, id: CredentialId) {
        let credential = self.credentials.get_mut(&id);
        if let Some(answered) =
            credential.and_then(|credential| credential.memory.answered.as_mut())
        {
            answered.repeats = answered.repeats.saturating_add(1);
        }
    }

    /// Makes a label safe to print and unique among the devices of its person.
    fn label_for(&self, id: CredentialId, wanted: &str) -> String {
        let Some(person) = self
            .credentials
            .get(&id)
            .map(|credential| &credential.person)
        else {
            return String::new();
        };
        let label = printable(wanted);
        let mut unique = label.clone();
        let mut count = 1_u32;
        while self.has_device(person, &unique, id) {
            count = count.saturating_add(1);
            unique.clone_from(&label);
            write!(unique, "-{count}").expect("a string takes any text");
        }
        unique
    }

    fn has_device(&self, person: &Name, label: &str, except: CredentialId) -> bool {
        let mut others = self.credentials.iter().filter(|(id, _)| **id != except);
        others.any(|(_, credential)| credential.person == *person && credential.label == label)
    }

    /// Erases an invite from memory; its change is the caller's.
    pub(crate) fn void_invite(&mut self, id: CredentialId, reason: &'static str, now: Now) {
        let audit = self.audit_of(id, AuditKind::InviteVoided, now);
        self.put_audit(AuditRecord {
            reason: Some(reason),
            ..audit
        });
        self.unlist_tags(id);
        self.credentials.remove(&id);
    }

    /// Disables a credential in memory and ends its sessions; its change is the caller's.
    pub(crate) fn disable_credential(&mut self, id: CredentialId, reason: EndReason, now: Now) {
        self.outbox.overrule(
            |addition| matches!(addition, Addition::CredentialEnabled(enabled) if *enabled == id),
        );
        self.unlist_tags(id);
        if let Some(credential) = self.credentials.get_mut(&id) {
            credential.standing = Standing::Disabled;
        }
        self.end_sessions_of(id, reason, now);
    }

    /// Ends every session of a credential, the one that is being opened included.
    pub(crate) fn end_sessions_of(&mut self, id: CredentialId, reason: EndReason, now: Now) {
        let sessions = self
            .sessions
            .iter()
            .filter(|(_, session)| session.credential == id);
        for session in sessions.map(|(session, _)| session).collect::<Vec<_>>() {
            self.end_session(session, reason, now);
        }
    }
}

/// Keeps letters, digits and `. _ -` of any script; all else becomes `-`, since labels are printed and typed.
fn printable(label: &str) -> String {
    let kept = |c: char| {
        if c.is_alphanumeric() || matches!(c, '.' | '_' | '-') {
            c
        } else {
            '-'
        }
    };
    label.chars().map(kept).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_label_cannot_carry_escapes_to_a_terminal() {
        assert_eq!(printable("Ana's läptop\u{1b}[2J"), "Ana-s-läptop--2J");
    }
}
