//! What a device says of itself while its session lives, and what follows when it stops to say anything (SPEC §12).

use alloc::string::ToString;
use core::time::Duration;

use spa_proto::SessionId;
use spa_proto::channel::{Event, Posture, PostureRequired, PostureTaken};

use super::CallRefusal;
use crate::agenda::Timer;
use crate::gateway::Gateway;
use crate::policy::facts_of_posture;
use crate::time::Now;

/// After how many reports that did not come nothing is known of a device any more.
pub const MISSED_REPORTS: u32 = 3;
/// How much later than due a report may come, for a busy machine and a slow network. Three that are missed so end
/// within the 5 s of SPEC §12.
const GRACE: Duration = Duration::from_secs(4);
impl Gateway {
    /// Takes a report in and holds the session against it.
    pub(super) fn take_report(
        &mut self,
        id: SessionId,
        posture: &Posture,
        now: Now,
    ) -> Result<PostureTaken, CallRefusal> {
        let facts = facts_of_posture(posture, now.wall)
            .ok_or(CallRefusal::Malformed("a report has at most 64 facts"))?;
        let session = self.sessions.of_mut(id).ok_or(CallRefusal::Unauthorized)?;
        session.upkeep.missed = 0;
        let credential = session.credential;
        self.know(credential, Some(facts));
        self.await_report(id, now);
        self.review(id, now);
        Ok(PostureTaken {
            next_s: u32::try_from(self.settings.report_every.as_secs()).unwrap_or(u32::MAX),
            resources: self
                .resources_of(id)
                .iter()
                .map(ToString::to_string)
                .collect(),
        })
    }

    /// Begins to wait for the next report of a session.
    pub(crate) fn await_report(&mut self, id: SessionId, now: Now) {
        if self.settings.control_port.is_some() {
            let at = now
                .mono
                .after(self.settings.report_every.saturating_add(GRACE));
            self.agenda.set(Timer::Report(id), at);
        }
    }

    /// A report did not come. After the third what the device said before counts no more.
    pub(crate) fn report_missed(&mut self, id: SessionId, now: Now) {
        let matters = self.needs_posture(id, now);
        let Some(session) = self.sessions.of_mut(id) else {
            return;
        };
        session.upkeep.missed = session.upkeep.missed.saturating_add(1);
        let missed = session.upkeep.missed;
        let credential = session.credential;
        if matters {
            let event = PostureRequired {
                missed,
                of: MISSED_REPORTS,
            };
            self.tell_event(id, Event::PostureRequired(event));
        }
        if missed < MISSED_REPORTS {
            let next = now.mono.after(self.settings.report_every);
            self.agenda.set(Timer::Report(id), next);
            return;
        }
        self.know(credential, None);
        self.review(id, now);
    }

    /// Says whether a session has something that it would lose if nothing were known of its device.
    fn needs_posture(&self, id: SessionId, now: Now) -> bool {
        let (Some(session), Some(on)) = (self.sessions.of(id), self.circumstances_of(id, now))
        else {
            return false;
        };
        let unknown = crate::circumstances::Circumstances { facts: None, ..on };
        let mut resources = session.terms.resources.keys();
        resources.any(|name| unknown.decide(name).allowed().is_none())
    }
}
