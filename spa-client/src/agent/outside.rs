//! What an agent says to the gateway from outside the tunnel: CLOSE, and ROAM when this device has another address (SPEC §13).

use std::net::SocketAddr;

use spa_proto::{Ask, DerivedKeys, GatewayId, Outcome, Request, SessionId, SessionKey, Signer};

use crate::caller::begin;
use crate::clock;
use crate::exchange::{Knocking, exchange};
use crate::failure::Failure;
use crate::places::Places;
use crate::profile::Stage;
use crate::progress::Progress;
use crate::session::Session;
use crate::store::Store;
use crate::wire::Wire;

/// All that such a knock takes: no password, since the session's key proves it.
pub(super) struct Outside {
    places: Places,
    profile: String,
    gateway: SocketAddr,
    id: SessionId,
    key: SessionKey,
}

impl Outside {
    pub(super) fn of(places: &Places, session: &Session) -> Self {
        Self {
            places: places.clone(),
            profile: session.profile.clone(),
            gateway: session.gateway,
            id: session.id,
            key: session.key.duplicate(),
        }
    }

    /// Ends the session.
    pub(super) fn close(&self) -> Result<(), Failure> {
        match self.knock(Ask::Close(self.id))? {
            Outcome::Closed { .. } => Ok(()),
            Outcome::Session(_) | Outcome::Refused { .. } | Outcome::Enrolled(_) => {
                Err(something_else())
            }
        }
    }

    /// Moves the door to the address this knock comes from. Not to its port: that is WireGuard's, which holds it, and
    /// the gateway narrows the door to it at the next packet.
    pub(super) fn roam(&self) -> Result<(), Failure> {
        match self.knock(Ask::Roam(self.id))? {
            Outcome::Session(_) => Ok(()),
            Outcome::Closed { .. } | Outcome::Refused { .. } | Outcome::Enrolled(_) => {
                Err(something_else())
            }
        }
    }

    fn knock(&self, ask: Ask) -> Result<Outcome, Failure> {
        let (entry, profile) = Store::new(self.places.clone()).choose(Some(&self.profile))?;
        let Stage::Active { key } = &profile.stage else {
            return Err(Failure::Refused(
                "the profile is not enrolled any more".to_owned(),
            ));
        };
        let _lock = entry.lock()?;
        let mut memory = entry.memory()?;
        let ts = begin(&entry, &mut memory)?;
        let keys = DerivedKeys::derive(key, GatewayId::of(&profile.base_key), profile.credential);
        let newest = memory.prekey(clock::wall());
        let knock_key = newest.map_or((0, profile.base_key), |prekey| {
            (prekey.kid.get(), prekey.key)
        });
        let request = Request {
            ts,
            same_port: false,
            source: None,
            ask,
        };
        let signer = Signer::Session(&self.key);
        let knocking = Knocking::new(&keys, knock_key, &request, signer)?;
        let mut wire = Wire::open(vec![self.gateway])?;
        let exchanged = exchange(&mut wire, &knocking, None, &mut Progress::silent())?;
        match exchanged.reply {
            Some(reply) => Ok(reply.payload.outcome),
            None => Err(Failure::NoAnswer("the gateway did not answer".to_owned())),
        }
    }
}

fn something_else() -> Failure {
    Failure::Refused("the gateway answered something else".to_owned())
}
