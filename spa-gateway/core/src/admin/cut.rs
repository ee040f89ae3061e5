//! `session cut`: ends every session that a selector names, at once.

use alloc::vec::Vec;

use spa_proto::SessionId;

use super::{AdminRefusal, DeviceRef};
use crate::closing::EndReason;
use crate::gateway::Gateway;
use crate::name::Name;
use crate::session::{Phase, Session};
use crate::time::Now;

/// Which sessions.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Selector {
    /// This one.
    Session(SessionId),
    /// All of a person or machine.
    Person(Name),
    /// That of a device.
    Device(DeviceRef),
    /// All that were granted a resource.
    Resource(Name),
}

impl Gateway {
    /// Cuts sessions. Each is over when its `SessionEnded` audit record comes out, which says how
    /// many milliseconds that took.
    ///
    /// # Errors
    /// If nothing that is live matches.
    pub fn cut_sessions(
        &mut self,
        selector: &Selector,
        now: Now,
    ) -> Result<Vec<SessionId>, AdminRefusal> {
        let device = match selector {
            Selector::Device(device) => Some(self.find_device(device)?),
            Selector::Session(_) | Selector::Person(_) | Selector::Resource(_) => None,
        };
        let matches = |id: SessionId, session: &Session| match selector {
            Selector::Session(wanted) => id == *wanted,
            Selector::Person(name) => self
                .credentials
                .get(&session.credential)
                .is_some_and(|credential| credential.person == *name),
            Selector::Device(_) => Some(session.credential) == device,
            Selector::Resource(name) => session.terms.resources.contains_key(name),
        };
        let live = self
            .sessions
            .iter()
            .filter(|(_, session)| session.phase != Phase::Ending);
        let cut: Vec<SessionId> = live
            .filter(|(id, session)| matches(*id, session))
            .map(|(id, _)| id)
            .collect();
        for id in &cut {
            self.end_session(*id, EndReason::Cut, now);
        }
        if cut.is_empty() {
            Err(AdminRefusal::NoSession)
        } else {
            Ok(cut)
        }
    }
}
