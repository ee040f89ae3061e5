//! What the reply says, and its sealing (SPEC §6).

use alloc::boxed::Box;
use alloc::string::String;
use alloc::vec::Vec;
use core::net::SocketAddr;
use core::num::NonZeroU8;

use spa_order::Door;
use spa_proto::{
    DoorKind, Outcome, Prekey, Repeat, ReplyPayload, ReplySecrets, Route, SealedReply, SessionId,
    SessionReply, WallTime, seal_reply,
};

use crate::credential::Verdicts;
use crate::effect::Reply;
use crate::entropy::{Entropy, Purpose, draw};
use crate::gateway::Gateway;
use crate::guard::FreshKnock;
use crate::queue::Arrival;
use crate::session::Terms;
use crate::time::Now;

/// What the reply to one knock says of a session beyond the session itself.
#[derive(Debug)]
pub(crate) struct Telling {
    pub(crate) repeat: Repeat,
    pub(crate) door: Door,
    pub(crate) arrival: Arrival,
    pub(crate) verdicts: Verdicts,
    pub(crate) reason: Option<&'static str>,
}

impl Gateway {
    /// Seals the reply to a knock. The secrets come out beside it.
    pub(crate) fn answer(
        &self,
        knock: &FreshKnock,
        gateway_time: WallTime,
        outcome: Outcome,
        now: Now,
        entropy: &mut dyn Entropy,
    ) -> (Reply, ReplySecrets) {
        let arrival = knock.arrival();
        let payload = ReplyPayload {
            gateway_time,
            source: arrival.source,
            prekey: self.prekey(now),
            outcome,
        };
        let payload = payload
            .encode()
            .expect("16 verdicts and our own reasons always fit");
        let e_s = draw(entropy, Purpose::ReplyKey);
        let SealedReply { packet, secrets } =
            seal_reply(&knock.opened().reply_keys(), *e_s, &payload)
                .expect("opening the knock refused an E of small order");
        let reply = Reply {
            bytes: Box::new(packet),
            from: arrival.destination,
            to: arrival.source,
        };
        (reply, secrets)
    }

    /// Seals an answer that may not be the first of its transaction: its gateway time strictly
    /// increases (SPEC §6).
    pub(crate) fn answer_again(
        &mut self,
        knock: &FreshKnock,
        outcome: Outcome,
        now: Now,
        entropy: &mut dyn Entropy,
    ) -> (Reply, ReplySecrets) {
        let memory = self
            .credentials
            .get_mut(&knock.arrival().key.credential)
            .map(|of| &mut of.memory);
        let gateway_time = memory.map_or(now.wall, |memory| memory.next_gateway_time(now));
        self.answer(knock, gateway_time, outcome, now, entropy)
    }

    fn prekey(&self, now: Now) -> Option<Prekey> {
        let newest = self.knock_keys.newest(now.wall)?;
        Some(Prekey {
            kid: NonZeroU8::new(newest.kid)?,
            key: newest.public,
            not_after: newest.not_after,
        })
    }

    /// Says what a client needs to know of its session.
    pub(crate) fn tell(&self, id: SessionId, terms: &Terms, telling: Telling) -> Outcome {
        let Telling {
            repeat,
            door,
            arrival,
            verdicts,
            reason,
        } = telling;
        let door_kind = if door.port.is_some() {
            DoorKind::AddressAndPort
        } else {
            DoorKind::Address
        };
        Outcome::Session(Box::new(SessionReply {
            repeat,
            door: door_kind,
            door_secs: u16::try_from(self.settings.door.as_secs()).unwrap_or(u16::MAX),
            id,
            not_after: terms.not_after,
            wg_public: self.settings.wg_public,
            endpoint: self.endpoint(arrival.destination),
            tunnel4: terms.addresses.v4,
            tunnel6: terms.addresses.v6,
            gateway_tunnel: self.settings.gateway_tunnel(),
            control_port: self.settings.control_port.unwrap_or(0),
            mtu: self.settings.mtu,
            keepalive: self.settings.keepalive,
            routes: self.routes(terms),
            dns: self.settings.dns,
            verdicts,
            reason: reason.map(String::from),
        }))
    }

    /// `None` is "where the knock went": the same port, the recommended layout (SPEC §11).
    fn endpoint(&self, knocked: SocketAddr) -> Option<SocketAddr> {
        let port = self.settings.wg_port;
        (knocked.port() != port).then(|| SocketAddr::new(knocked.ip(), port))
    }

    pub(crate) fn routes(&self, terms: &Terms) -> Vec<Route> {
        let resources = terms
            .resources
            .keys()
            .filter_map(|name| self.policy.resource(name));
        // The way to the gateway's own address in the tunnel is the reply's to tell; it names one.
        let named = self.settings.gateway_tunnel();
        let other = self
            .settings
            .tunnel6
            .map(|(address, _)| (address.into(), 128));
        let other = other.filter(|(address, _)| Some(*address) != named);
        let mut routes: Vec<Route> = resources
            .filter_map(|resource| resource.found_at().or(other))
            .filter_map(|(address, prefix)| Route::new(address, prefix).ok())
            .filter(|route| match route.address() {
                core::net::IpAddr::V4(_) => terms.addresses.v4.is_some(),
                core::net::IpAddr::V6(_) => terms.addresses.v6.is_some(),
            })
            .collect();
        routes.sort();
        routes.dedup();
        routes
    }
}

/// Gives the door a knock asks for: for its port too if WireGuard will send from it (SPEC §11).
pub(crate) fn door_of(knock: &FreshKnock) -> Door {
    let source = knock.arrival().source;
    let port = core::num::NonZeroU16::new(source.port());
    Door {
        source: source.ip().to_canonical(),
        port: port.filter(|_| knock.request().same_port),
    }
}
