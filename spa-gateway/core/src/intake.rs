//! A packet came in: steps 0 to 5. Cheap checks first; a stranger's packet costs one look-up (SPEC §8).

use core::net::{IpAddr, SocketAddr};

use spa_proto::{SealedKnock, ShapeError, Slot, VerifiedKnock};

use crate::gateway::Gateway;
use crate::queue::{Arrival, QueuedKnock};
use crate::refusal::Refusal;
use crate::spent::Full;
use crate::tags::KeyRef;
use crate::time::Now;

/// A UDP packet to the knock port.
#[derive(Clone, Copy, Debug)]
pub struct Datagram<'p> {
    /// Its payload.
    pub payload: &'p [u8],
    /// Where it says it comes from.
    pub source: SocketAddr,
    /// The address and port it was sent to.
    pub destination: SocketAddr,
    /// Whether it came in on the loopback interface.
    pub on_loopback: bool,
    /// Whether it is a part of a fragmented packet.
    pub fragment: bool,
}

impl Gateway {
    /// Takes a packet in: checks it up to step 4 and queues it. `Ok` says that it waits for
    /// [`handle_work`](Self::handle_work). A knock it pushes out of the queue is counted.
    ///
    /// # Errors
    /// Why it was dropped; counted already.
    pub fn handle_datagram(&mut self, datagram: Datagram<'_>, now: Now) -> Result<(), Refusal> {
        let queued = self.take_in(datagram, now);
        if let Err(refusal) = queued {
            self.counters.count(refusal);
        }
        queued
    }

    fn take_in(&mut self, datagram: Datagram<'_>, now: Now) -> Result<(), Refusal> {
        let sealed = shape(&datagram)?;
        self.check_source(&datagram)?;
        self.slide_tags(now);
        let (key, v, knock) = self.recognise(&sealed, now)?;
        self.admit(key, v, &knock, now)?;
        let arrival = Arrival {
            key,
            source: datagram.source,
            destination: datagram.destination,
        };
        if self.queue.push(QueuedKnock { knock, arrival }).is_some() {
            self.counters.count(Refusal::PushedOut);
        }
        Ok(())
    }

    /// Step 1, the source. Shared addresses carry no penalty: only what cannot be one is refused.
    fn check_source(&self, datagram: &Datagram<'_>) -> Result<(), Refusal> {
        if datagram.source.port() == 0 {
            return Err(Refusal::SourcePort);
        }
        let source = datagram.source.ip().to_canonical();
        let broadcast = matches!(source, IpAddr::V4(v4) if v4.is_broadcast());
        let nobody = source.is_unspecified() || source.is_multicast() || broadcast;
        let astray = source.is_loopback() && !datagram.on_loopback;
        if nobody || astray || self.own_addresses.contains(&source) {
            return Err(Refusal::SourceAddress);
        }
        Ok(())
    }

    /// Steps 1 to 3: finds the key. Keys may share a tag, so each is tried; the furthest one counts.
    fn recognise(
        &self,
        sealed: &SealedKnock,
        now: Now,
    ) -> Result<(KeyRef, [u8; 8], VerifiedKnock), Refusal> {
        if !self.tags.is_open() {
            return Err(Refusal::ClockUntrusted);
        }
        let mut furthest = Refusal::UnknownTag;
        for (slot, key) in self.tags.keys_of(sealed.tag()) {
            match self.verify(sealed, slot, key, now) {
                Ok(knock) => return Ok((key, sealed.v(), knock)),
                Err(refusal) => furthest = furthest.max(refusal),
            }
        }
        Err(furthest)
    }

    /// Steps 2 and 3 for one key.
    fn verify(
        &self,
        sealed: &SealedKnock,
        slot: Slot,
        key: KeyRef,
        now: Now,
    ) -> Result<VerifiedKnock, Refusal> {
        let credential = self
            .honoured(key.credential)
            .ok_or(Refusal::CredentialDisabled)?;
        if credential.has_expired(now.wall) {
            return Err(Refusal::CredentialExpired);
        }
        if credential.memory.spent.holds(slot, sealed.v()) {
            return Err(Refusal::Spent);
        }
        let keys = credential
            .keys
            .get(&key.number)
            .ok_or(Refusal::CredentialDisabled)?;
        sealed
            .unmask(&keys.derived, slot)
            .map_err(|_| Refusal::OuterMac)
    }

    /// Step 4: the message bucket, then the spent set.
    fn admit(
        &mut self,
        key: KeyRef,
        v: [u8; 8],
        knock: &VerifiedKnock,
        now: Now,
    ) -> Result<(), Refusal> {
        let [oldest, ..] = Slot::window(now.wall);
        let memory = &mut self
            .credentials
            .get_mut(&key.credential)
            .ok_or(Refusal::CredentialDisabled)?
            .memory;
        memory
            .messages
            .take(now.mono)
            .map_err(|_| Refusal::MessageRate)?;
        memory
            .spent
            .spend(knock.slot(), v, oldest)
            .map_err(|Full| Refusal::MessageRate)
    }
}

/// Step 0, again: the kernel's filter has looked already where there is one.
fn shape(datagram: &Datagram<'_>) -> Result<SealedKnock, Refusal> {
    if datagram.fragment {
        return Err(Refusal::Fragment);
    }
    SealedKnock::parse(datagram.payload).map_err(|error| match error {
        ShapeError::Length => Refusal::Length,
        ShapeError::WireGuard => Refusal::WireGuardHeader,
    })
}
