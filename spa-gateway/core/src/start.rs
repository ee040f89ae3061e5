//! The enforcer is ready: the kernel is made equal to the live sessions of the store (SPEC §11).
//!
//! Its table is new and empty, so every flow and door of a session that goes on is opened again.
//! A session whose peer is gone cannot go on: its preshared key was never stored.

use alloc::vec::Vec;

use spa_proto::SessionId;

use crate::closing::EndReason;
use crate::gateway::Gateway;
use crate::peer::{PeerState, door_of};
use crate::plan::{OnFailure, Operation, Step};
use crate::session::Phase;
use crate::time::Now;

/// A peer that the WireGuard interface has.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct PresentPeer {
    /// Its key.
    pub wg_key: [u8; 32],
    /// What WireGuard knows of it.
    pub state: PeerState,
}

impl Gateway {
    /// Hears which peers there are. Once, before any other effect was performed.
    pub fn handle_start(&mut self, peers: &[PresentPeer], now: Now) {
        let restored: Vec<SessionId> = self.restored_sessions();
        for peer in peers {
            match self.sessions.with_peer(&peer.wg_key) {
                Some(session) if restored.contains(&session) => {
                    self.resume(session, &peer.state, now)
                }
                Some(_) => {}
                None => self.close_stray_peer(peer.wg_key, now),
            }
        }
        for id in self.restored_sessions() {
            self.end_session(id, EndReason::LostInRestart, now);
        }
    }

    fn restored_sessions(&self) -> Vec<SessionId> {
        let restored = self
            .sessions
            .iter()
            .filter(|(_, session)| session.phase == Phase::Restored);
        restored.map(|(id, _)| id).collect()
    }

    /// Opens the flows and the door of a session again; what policy no longer allows is left out.
    fn resume(&mut self, id: SessionId, state: &PeerState, now: Now) {
        // Never heard from: its door was still waiting, and its client will knock again.
        let Some(door) = state
            .endpoint
            .filter(|_| state.handshake_age_ms.is_some())
            .and_then(door_of)
        else {
            return self.end_session(id, EndReason::LostInRestart, now);
        };
        if !self.reduce(id, now) {
            return;
        }
        let Some(session) = self.sessions.of_mut(id) else {
            return;
        };
        session.phase = Phase::Opening;
        session.seen.handshake = true;
        session.seen.endpoint = state.endpoint;
        session.seen.rx = state.rx;
        session.seen.tx = state.tx;
        let flows = session.terms.flows.keys().copied().collect();
        let steps = [
            Step::Flows(id, flows),
            Step::SettledDoor(id, door),
            Step::Opened(id),
        ];
        let credential = session.credential;
        self.begin(Operation::new(credential, OnFailure::End(id), steps), now);
    }
}
