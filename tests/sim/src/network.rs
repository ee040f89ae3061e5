//! What is on its way, and the attacker's tape: he hears every packet.

use std::net::SocketAddr;
use std::rc::Rc;

use spa_gateway_core::Moment;

use crate::event::Fate;

/// The most packets the attacker keeps.
const TAPE: usize = 256;

/// A packet on its way.
pub(crate) struct Flying<P> {
    pub(crate) at: Moment,
    pub(crate) to: usize,
    pub(crate) source: SocketAddr,
    pub(crate) packet: Rc<P>,
}

/// The network, for packets of one kind.
pub(crate) struct Network<P> {
    flying: Vec<Flying<P>>,
    tape: Vec<Rc<P>>,
}

impl<P> Network<P> {
    pub(crate) const fn new() -> Self {
        Self {
            flying: Vec::new(),
            tape: Vec::new(),
        }
    }

    /// Sends a packet; it may be lost, late or doubled.
    pub(crate) fn send(
        &mut self,
        packet: &Rc<P>,
        to: usize,
        source: SocketAddr,
        fate: Fate,
        now: Moment,
    ) {
        let later = |ms: u16| now.after(std::time::Duration::from_millis(ms.into()));
        let arrivals: &[Moment] = match fate {
            Fate::Arrives => &[now],
            Fate::Late(ms) => &[later(ms)],
            Fate::Twice(ms) => &[now, later(ms)],
            Fate::Lost => &[],
        };
        for at in arrivals {
            self.flying.push(Flying {
                at: *at,
                to,
                source,
                packet: Rc::clone(packet),
            });
        }
    }

    /// The attacker hears it, whatever becomes of it.
    pub(crate) fn overhear(&mut self, packet: &Rc<P>) {
        if self.tape.len() < TAPE {
            self.tape.push(Rc::clone(packet));
        }
    }

    /// A packet off the tape; the newest is 0.
    pub(crate) fn heard(&self, number: u8) -> Option<Rc<P>> {
        let back = usize::from(number) % self.tape.len().max(1);
        self.tape.iter().rev().nth(back).map(Rc::clone)
    }

    /// When the next packet arrives.
    pub(crate) fn next_at(&self) -> Option<Moment> {
        self.flying.iter().map(|flying| flying.at).min()
    }

    /// Takes one that has arrived.
    pub(crate) fn take(&mut self, now: Moment) -> Option<Flying<P>> {
        let at = self.flying.iter().position(|flying| flying.at <= now)?;
        Some(self.flying.remove(at))
    }
}
