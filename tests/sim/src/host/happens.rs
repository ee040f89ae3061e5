//! What happens to a gateway from outside: packets, timers, clocks that are set, administrators, handshakes.

use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Duration;

use spa_gateway_core::{
    ClockTrust, Datagram, DeviceRef, Gateway, Moment, Now, PeerState, Refusal, Selector,
};
use spa_proto::WallTime;

use super::{Checked, Host};
use crate::client::{Facts, Packet};
use crate::event::{Act, ClockSet};
use crate::place;

/// Most rings of a gateway's timers in a second: looks at peers are the most frequent, each 25 ms for all of them.
const MOST_RINGS: u32 = 200;

impl Host {
    /// A packet as it was sent arrives.
    pub(crate) fn take(&mut self, packet: &Rc<Packet>, source: SocketAddr, now: Now) -> Checked {
        let believed = self.believes(now);
        let Some(gateway) = &mut self.gateway else {
            return Ok(());
        };
        let outcome = gateway.handle_datagram(datagram(&packet.bytes, source, self.number), now);
        let expected = self
            .judge
            .arrives(packet, source, believed, outcome.is_ok(), now);
        same(outcome, expected, &packet.facts)?;
        self.settle(now)
    }

    /// Something a stranger made arrives: it is refused early, and changes nothing but a counter.
    pub(crate) fn take_strange(
        &mut self,
        bytes: &[u8],
        source: SocketAddr,
        of: Option<(&Packet, usize)>,
        now: Now,
    ) -> Checked {
        let believed = self.believes(now);
        let Some(gateway) = &mut self.gateway else {
            return Ok(());
        };
        // Any packet moves the tag table on with the clock, if no timer has yet.
        gateway.handle_clock(self.trust, now);
        let before = state_of(gateway);
        let outcome = gateway.handle_datagram(datagram(bytes, source, self.number), now);
        if before != state_of(gateway) {
            return Err("a stranger changed more than a counter".into());
        }
        match of {
            Some((packet, at)) => {
                let expected = self.judge.damaged(packet, at, believed, now);
                let step = outcome.err().map(Refusal::step);
                if step.is_some_and(|step| expected.contains(&step)) {
                    return Ok(());
                }
                Err(format!(
                    "damaged at {at}: {outcome:?}, expected {expected:?}: {:?}",
                    packet.facts
                ))
            }
            None if outcome.is_ok() => Err("a stranger's bytes were taken in".into()),
            None => Ok(()),
        }
    }

    /// Timers ring.
    pub(crate) fn ring(&mut self, now: Now) -> Checked {
        if let Some(gateway) = &mut self.gateway {
            gateway.handle_timeout(now, &mut self.entropy);
            if gateway.poll_timeout().is_some_and(|due| due <= now.mono) {
                return Err("a timer that is due after it rang".into());
            }
            self.count_ring(now.mono)?;
        }
        self.settle(now)
    }

    /// Whoever waits does not spin, whatever he waits for: timers ring a bounded number of times in a second.
    fn count_ring(&mut self, mono: Moment) -> Checked {
        if mono.since(self.rings.0) >= Duration::from_secs(1) {
            self.rings = (mono, 0);
        }
        self.rings.1 += 1;
        if self.rings.1 > MOST_RINGS {
            return Err(format!("its timers ring {MOST_RINGS} times a second"));
        }
        Ok(())
    }

    pub(crate) fn set_clock(&mut self, set: ClockSet, now: Now) -> Checked {
        match set {
            ClockSet::By(seconds) => self.offset += i64::from(seconds) * 1_000,
            ClockSet::Right => self.offset = 0,
            ClockSet::Untrusted => self.trust = ClockTrust::Untrusted,
            ClockSet::Trusted => self.trust = ClockTrust::Trusted,
        }
        let was_set = matches!(set, ClockSet::By(_) | ClockSet::Right);
        self.clock_was_set |= was_set;
        self.judge.clock_was_set |= was_set;
        self.fault(now.mono);
        let now = self.now(now.mono, now);
        if let Some(gateway) = &mut self.gateway {
            gateway.handle_clock(self.trust, now);
        }
        self.settle(now)
    }

    /// Its own clock at a moment; `right` has the right time.
    pub(crate) fn now(&self, mono: Moment, right: Now) -> Now {
        let wall = right.wall.as_millis().saturating_add_signed(self.offset);
        Now {
            wall: WallTime::from_millis(wall),
            mono,
        }
    }

    pub(crate) fn administer(&mut self, seat: usize, act: Act, now: Now) -> Checked {
        let Some(gateway) = &mut self.gateway else {
            return Ok(());
        };
        let person = place::person_of(seat);
        let name = place::name(person);
        let device = DeviceRef {
            person: name.clone(),
            label: place::label(seat),
        };
        match act {
            Act::DisablePerson => {
                let _ = gateway.disable_person(&name, now);
                self.judge.person_standing(person, false);
            }
            Act::EnablePerson => {
                let _ = gateway.enable_person(&name);
            }
            Act::Revoke => {
                let _ = gateway.revoke_device(&device, now);
                self.judge.credential_standing(seat, false);
            }
            Act::Enable => {
                let _ = gateway.enable_device(&device);
            }
            Act::Cut => {
                let _ = gateway.cut_sessions(&Selector::Person(name), now);
            }
        }
        self.fault(now.mono);
        self.settle(now)
    }

    /// A peer shakes hands through its door, with the preshared key its client has.
    pub(crate) fn shake(
        &mut self,
        seat: usize,
        wg_key: &[u8; 32],
        psk: &[u8; 32],
        source: SocketAddr,
    ) -> bool {
        let admits = |door: &spa_order::Door| {
            door.source == source.ip() && door.port.is_none_or(|port| port.get() == source.port())
        };
        let open = self.kernel.doors.keys().any(admits);
        let Some(peer) = self
            .kernel
            .peers
            .get_mut(wg_key)
            .filter(|peer| open && peer.psk == *psk)
        else {
            return false;
        };
        let PeerState { rx, tx, .. } = peer.state;
        peer.state = PeerState {
            endpoint: Some(source),
            handshake_age_ms: Some(0),
            rx: rx + 148,
            tx: tx + 92,
        };
        let known = self
            .judge
            .sessions
            .iter_mut()
            .filter(|known| known.wg_key == *wg_key);
        known.for_each(|known| known.sources.extend([source.ip()]));
        self.judge.touched(seat);
        true
    }
}

fn datagram(payload: &[u8], source: SocketAddr, gateway: usize) -> Datagram<'_> {
    Datagram {
        payload,
        source,
        destination: place::address_of(gateway),
        on_loopback: false,
        fragment: false,
    }
}

fn same(outcome: Result<(), Refusal>, expected: Option<u8>, facts: &Facts) -> Checked {
    if outcome.err().map(Refusal::step) == expected {
        return Ok(());
    }
    Err(format!(
        "on arrival {outcome:?}, expected step {expected:?}: {facts:?}"
    ))
}

/// Everything a gateway is, its counters aside.
fn state_of(gateway: &Gateway) -> String {
    let all = format!("{gateway:?}");
    let (before, counters) = all
        .split_once("counters: Counters(")
        .expect("it has counters");
    let after = counters.split_once(')').map_or("", |(_, after)| after);
    format!("{before}{after}")
}
