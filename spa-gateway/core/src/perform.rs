//! An effect was performed, or not: whoever waited for it goes on.

use crate::agenda::Timer;
use crate::audit::{AuditKind, AuditRecord};
use crate::closing::EndReason;
use crate::effect::{EffectFailure, EffectId};
use crate::entropy::Entropy;
use crate::gateway::Gateway;
use crate::outbox::Waiter;
use crate::time::Now;

impl Gateway {
    /// Hears what became of an effect. Every record and order is reported; an outcome nobody waits
    /// for changes nothing.
    pub fn handle_performed(&mut self, id: EffectId, outcome: Result<(), EffectFailure>, now: Now) {
        match (self.outbox.waiter(id), outcome) {
            (Waiter::Operation(operation), Ok(())) => self.confirm(operation, now),
            (Waiter::Operation(operation), Err(failure)) => self.fail(operation, failure, now),
            (Waiter::Closing(closing, step), outcome) => {
                self.closing_performed(closing, step, outcome, now);
            }
            (Waiter::Settling(session, door), outcome) => {
                self.settled(session, door, outcome.is_ok(), now)
            }
            (Waiter::Looking(session), Err(_)) => self.look_failed(session, now),
            (Waiter::Addition(addition), Ok(())) => self.adopt(*addition, now),
            (Waiter::Addition(_), Err(_)) => {
                self.put_audit(AuditRecord::new(now.wall, AuditKind::RecordFailed));
            }
            (Waiter::Looking(_), Ok(())) | (Waiter::Nobody, _) => {}
        }
    }

    /// Does what is due. Call it at [`poll_timeout`](Self::poll_timeout), or any time later.
    pub fn handle_timeout(&mut self, now: Now, entropy: &mut dyn Entropy) {
        self.slide_tags(now);
        while let Some(timer) = self.agenda.take_due(now.mono) {
            match timer {
                Timer::Minute => self.minute(now, entropy),
                // While the clock is not believed, the minute in which it is ends them.
                Timer::Exceptions if self.is_clock_believed(now) => self.end_exceptions(now),
                Timer::Exceptions => {}
                Timer::Count => self.count(now),
                Timer::Unwritten => self.say_unwritten(now),
                Timer::End(session) => self.end_session(session, EndReason::Expired, now),
                Timer::Review(session) => self.review(session, now),
                Timer::Door(session) => self.door_expired(session, now),
                Timer::Warning(session) => self.warn(session, now),
                Timer::Report(session) => self.report_missed(session, now),
                Timer::Observe(session) => self.look(session, now),
                Timer::LastWord(closing) => self.close_the_rest(closing, now),
                Timer::Retry(closing) => self.advance_closing(closing, now),
            }
        }
    }
}
