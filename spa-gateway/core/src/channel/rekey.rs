//! The rekey: a preshared key that no recording of the knock gives away, not even to a quantum computer (SPEC §12).
//!
//! Invariant: it always starts from the `wg_psk` of the reply, and the answer leaves after WireGuard has the new key,
//! so a client that heard nothing asks again and loses nothing.

use alloc::boxed::Box;
use core::time::Duration;

use spa_proto::channel::{Event, RekeyState, Rekeyed as RekeyedEvent};
use spa_proto::{RekeyRequest, SessionId, answer_rekey};

use super::{CallAnswer, CallId, CallRefusal};
use crate::agenda::Timer;
use crate::audit::AuditKind;
use crate::entropy::{Entropy, Purpose, draw};
use crate::gateway::Gateway;
use crate::peer::LOOK_WHILE_WAITING;
use crate::plan::{OnFailure, Operation, Step};
use crate::policy::Quantum;
use crate::session::Session;
use crate::time::{Moment, Now};
use crate::upkeep::Rekeyed;

/// How much later than it was a handshake may seem, since its age is read some time before it is heard.
const SEEMS_LATER: Duration = Duration::from_millis(1);

impl Gateway {
    /// Sets a new preshared key, then answers.
    pub(super) fn rekey(
        &mut self,
        call: CallId,
        id: SessionId,
        request: &RekeyRequest,
        now: Now,
        entropy: &mut dyn Entropy,
    ) -> Result<(), CallRefusal> {
        let session = self.sessions.of_mut(id).ok_or(CallRefusal::Unauthorized)?;
        let upkeep = &mut session.upkeep;
        let psk = upkeep.psk.as_ref().ok_or(CallRefusal::RekeyLost)?;
        if upkeep.rekeys.take(now.mono).is_err() {
            return Err(CallRefusal::TooMany(upkeep.rekeys.next_in(now.mono)));
        }
        let x25519 = draw(entropy, Purpose::Secret);
        let m = draw(entropy, Purpose::Secret);
        let (answer, psk) = answer_rekey(psk, request, *x25519, *m)
            .map_err(|_| CallRefusal::Malformed("the keys of the rekey are malformed"))?;
        let steps = [
            Step::Psk(id, psk),
            Step::Rekeyed(id),
            Step::Answer(call, Box::new(CallAnswer::Rekey(answer))),
        ];
        let operation = Operation::new(session.credential, OnFailure::Leave, steps);
        self.begin(operation.answering(call), now);
        Ok(())
    }

    /// WireGuard has the new key: its handshake is waited for.
    pub(crate) fn await_rekeyed(&mut self, id: SessionId, now: Now) {
        if let Some(session) = self.sessions.of_mut(id) {
            session.upkeep.rekey = Rekeyed::Set {
                at: now.mono,
                seen: false,
            };
            let soon = now.mono.next_of(LOOK_WHILE_WAITING);
            self.agenda.set(Timer::Observe(id), soon);
        }
    }

    /// Looks whether the handshake after the rekey is there; what waits for it then opens.
    pub(crate) fn look_for_rekeyed(&mut self, id: SessionId, age_ms: Option<u64>, now: Now) {
        let Some(session) = self.sessions.of_mut(id) else {
            return;
        };
        if !session.has_rekeyed(age_ms, now.mono) {
            return;
        }
        let credential = session.credential;
        let mut audit = self.audit_of(credential, AuditKind::SessionQuantumSafe, now);
        audit.session = Some(id);
        self.put_audit(audit);
        self.tell_event(id, Event::Rekeyed(RekeyedEvent { at: now.wall }));
        self.review(id, now);
    }

    /// Says whether a session's flows are held back until it is rekeyed.
    pub(crate) fn is_held(&self, session: &Session) -> bool {
        self.policy.defaults().quantum == Quantum::Required && !session.upkeep.quantum_safe
    }

    /// Gives how a session stands with the rekey.
    pub(super) fn rekey_state(&self, id: SessionId) -> RekeyState {
        let Some(session) = self.sessions.of(id) else {
            return RekeyState::Lost;
        };
        match session.upkeep.rekey {
            Rekeyed::Done => RekeyState::Done,
            Rekeyed::Set { .. } => RekeyState::Set,
            Rekeyed::Not if session.upkeep.psk.is_none() => RekeyState::Lost,
            Rekeyed::Not if self.is_held(session) => RekeyState::Required,
            Rekeyed::Not => RekeyState::Wanted,
        }
    }
}

impl Session {
    /// Takes note of the age of the last handshake; says whether by it the rekey is done. Two looks have to agree,
    /// since a look that was held up makes an old handshake seem newer.
    fn has_rekeyed(&mut self, age_ms: Option<u64>, now: Moment) -> bool {
        let Rekeyed::Set { at, seen } = self.upkeep.rekey else {
            return false;
        };
        let since_set = now.since(at);
        let newer = age_ms
            .is_some_and(|age| Duration::from_millis(age).saturating_add(SEEMS_LATER) < since_set);
        self.upkeep.rekey = match (newer, seen) {
            (true, true) => Rekeyed::Done,
            (true, false) => Rekeyed::Set { at, seen: true },
            (false, _) => Rekeyed::Set { at, seen: false },
        };
        let done = self.upkeep.rekey == Rekeyed::Done;
        self.upkeep.quantum_safe |= done;
        done
    }
}
