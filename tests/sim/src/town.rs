//! The whole: gateways, clients, network and time. [`run`] lets a row of events happen and checks after each.

use std::fmt;
use std::rc::Rc;
use std::time::Duration;

use spa_gateway_core::{ClockTrust, Moment, Now};
use spa_proto::WallTime;

use crate::client::{Packet, Seat, source};
use crate::event::{Ask, ClockSet, Event, Fate, Flaw, Span};
use crate::host::Host;
use crate::network::Network;
use crate::place::{self, CLIENTS, GATEWAYS, SEATS, client_of, gateway_of};

/// When the clock that cannot be set begins: far from 0.
const BEGIN: u64 = 1 << 40;
/// Longer than the longest session, its rest and its retries.
const ALL_ENDS: Span = Span(15 * 60_000);

/// A promise that was broken.
#[derive(Debug)]
pub struct Broken {
    /// After which event; one past the last: at the end, when everything is set right.
    pub at: usize,
    /// What was wrong.
    pub what: String,
}

/// What a run came to, so that one sees that it was about something.
#[derive(Clone, Copy, Debug, Default)]
pub struct Tally {
    /// Packets that arrived somewhere.
    pub packets: u32,
    /// Knocks that were accepted.
    pub accepted: u32,
    /// Replies that left.
    pub replies: u32,
    /// Handshakes through a door.
    pub handshakes: u32,
}

struct Town {
    mono: Moment,
    hosts: Vec<Host>,
    seats: Vec<Seat>,
    places: [u8; CLIENTS.len()],
    network: Network<Packet>,
    tally: Tally,
    /// Whose packets were sent, so that the end sees to them.
    touched: [bool; SEATS],
}

/// Lets events happen, then sets everything right and sees that it is.
///
/// # Errors
/// The first promise that was broken.
pub fn run(events: &[Event]) -> Result<Tally, Broken> {
    or_panic(events.len(), || happen_all(events))
}

/// A panic is a broken promise too; nobody knows of which event.
pub(crate) fn or_panic<T>(
    end: usize,
    run: impl FnOnce() -> Result<T, Broken> + std::panic::UnwindSafe,
) -> Result<T, Broken> {
    std::panic::catch_unwind(run).unwrap_or_else(|panicked| {
        let what = panicked.downcast_ref::<String>().cloned();
        let what = what.or_else(|| {
            panicked
                .downcast_ref::<&str>()
                .map(|text| (*text).to_owned())
        });
        Err(Broken {
            at: end,
            what: format!("a panic: {}", what.unwrap_or_default()),
        })
    })
}

fn happen_all(events: &[Event]) -> Result<Tally, Broken> {
    let broken = |at| move |what| Broken { at, what };
    let mut town = Town::new().map_err(broken(0))?;
    for (at, event) in events.iter().enumerate() {
        town.happen(*event).map_err(broken(at))?;
        town.check().map_err(broken(at))?;
    }
    town.end().map_err(broken(events.len()))?;
    town.tally.accepted = town.hosts.iter().map(|host| host.accepted).sum();
    Ok(town.tally)
}

impl Town {
    fn new() -> Result<Self, String> {
        let mono = Moment::from_millis(BEGIN);
        Ok(Self {
            mono,
            hosts: (0..GATEWAYS)
                .map(|number| Host::new(number, mono))
                .collect::<Result<_, _>>()?,
            seats: (0..SEATS).map(Seat::new).collect(),
            // bo lives where ana does.
            places: [0, 1, 2, 0],
            network: Network::new(),
            tally: Tally::default(),
            touched: [false; SEATS],
        })
    }

    /// The right time.
    fn right(&self) -> Now {
        let wall = place::START + (self.mono.as_millis() - BEGIN);
        Now {
            wall: WallTime::from_millis(wall),
            mono: self.mono,
        }
    }

    fn now_of(&self, gateway: usize) -> Now {
        self.hosts[gateway].now(self.mono, self.right())
    }

    fn wall(&self) -> u64 {
        self.right().wall.as_millis()
    }

    fn happen(&mut self, event: Event) -> Result<(), String> {
        let gateway = |number: u8| usize::from(number) % GATEWAYS;
        let seat = |number: u8| usize::from(number) % SEATS;
        match event {
            Event::Knock {
                seat: number,
                ask,
                flaw,
                fate,
            } => self.knock(seat(number), ask, flaw, fate),
            Event::Again { seat: number, fate } => self.again(seat(number), fate),
            Event::Shake { seat: number } => {
                self.shake(seat(number));
                Ok(())
            }
            Event::Move { client, place } => {
                self.places[usize::from(client) % CLIENTS.len()] = place % 4;
                Ok(())
            }
            Event::Pass(span) => self.pass(span),
            Event::Replay {
                tape,
                gateway: to,
                place,
                fate,
            } => {
                let Some(packet) = self.network.heard(tape) else {
                    return Ok(());
                };
                self.network
                    .send(&packet, gateway(to), source(9, place), fate, self.mono);
                self.deliver()
            }
            Event::Damage { tape, at, with } => {
                let Some(packet) = self.network.heard(tape) else {
                    return Ok(());
                };
                let mut bytes = packet.bytes;
                let at = usize::from(at) % bytes.len();
                bytes[at] ^= with.max(1);
                let to = gateway_of(packet.facts.seat);
                if spa_proto::looks_like_wireguard(&bytes) {
                    return Ok(());
                }
                let now = self.now_of(to);
                self.hosts[to].take_strange(&bytes, source(9, 1), Some((&packet, at)), now)
            }
            Event::Noise { gateway: to, kind } => {
                let bytes = vec![kind; [0, 511, 512, 513][usize::from(kind % 4)]];
                let now = self.now_of(gateway(to));
                self.hosts[gateway(to)].take_strange(&bytes, source(9, kind), None, now)
            }
            Event::Stall { gateway: number } => {
                let now = self.now_of(gateway(number));
                self.hosts[gateway(number)].stall(now);
                Ok(())
            }
            Event::Perform {
                gateway: number,
                count,
            } => {
                let now = self.now_of(gateway(number));
                for _ in 0..count {
                    self.hosts[gateway(number)].step(now)?;
                }
                self.hear()
            }
            Event::Resume { gateway: number } => self.resume(gateway(number)),
            Event::FailOrders {
                gateway: number,
                count,
                done,
            } => {
                self.hosts[gateway(number)].fail_orders = (count, done);
                Ok(())
            }
            Event::FailStore {
                gateway: number,
                count,
            } => {
                self.hosts[gateway(number)].fail_store = count;
                Ok(())
            }
            Event::Kill {
                gateway: number,
                after,
            } => {
                let now = self.now_of(gateway(number));
                self.hosts[gateway(number)].kill(after, now)
            }
            Event::Start { gateway: number } => {
                let now = self.now_of(gateway(number));
                let host = &mut self.hosts[gateway(number)];
                if host.is_dead() {
                    host.start(now)
                } else {
                    Ok(())
                }
            }
            Event::Clock {
                gateway: number,
                set,
            } => {
                let right = self.right();
                self.hosts[gateway(number)].set_clock(set, right)?;
                self.hear()
            }
            Event::Admin { seat: number, act } => {
                let host = gateway_of(seat(number));
                let now = self.now_of(host);
                self.hosts[host].administer(seat(number), act, now)?;
                self.hear()
            }
        }
    }

    fn knock(&mut self, seat: usize, ask: Ask, flaw: Flaw, fate: Fate) -> Result<(), String> {
        let wall = self.wall();
        let packet = self.seats[seat].knock(ask, flaw, wall);
        self.send(&packet, fate)
    }

    fn again(&mut self, seat: usize, fate: Fate) -> Result<(), String> {
        let wall = self.wall();
        let Some(packet) = self.seats[seat].packet(wall) else {
            return Ok(());
        };
        self.send(&packet, fate)
    }

    fn send(&mut self, packet: &Rc<Packet>, fate: Fate) -> Result<(), String> {
        let seat = packet.facts.seat;
        self.touched[seat] = true;
        let from = source(client_of(seat), self.places[client_of(seat)]);
        self.network.overhear(packet);
        self.network
            .send(packet, gateway_of(seat), from, fate, self.mono);
        self.deliver()
    }

    fn shake(&mut self, seat: usize) -> bool {
        let from = source(client_of(seat), self.places[client_of(seat)]);
        let Some(held) = &self.seats[seat].held else {
            return false;
        };
        let shook = self.hosts[gateway_of(seat)].shake(seat, &held.wg_key, &held.psk, from);
        self.tally.handshakes += u32::from(shook);
        shook
    }

    fn resume(&mut self, gateway: usize) -> Result<(), String> {
        let now = self.now_of(gateway);
        self.hosts[gateway].stalled = false;
        self.hosts[gateway].settle(now)?;
        self.hear()
    }

    /// What has arrived is taken in.
    fn deliver(&mut self) -> Result<(), String> {
        while let Some(flying) = self.network.take(self.mono) {
            self.tally.packets += 1;
            let now = self.now_of(flying.to);
            self.hosts[flying.to].take(&flying.packet, flying.source, now)?;
        }
        self.hear()
    }

    /// Replies reach their clients, unless the network loses them or the client has moved on.
    fn hear(&mut self) -> Result<(), String> {
        let wall = self.wall();
        for host in &mut self.hosts {
            let right = !host.clock_was_set;
            for replied in std::mem::take(&mut host.replies) {
                self.tally.replies += 1;
                let facts = &replied.permit.packet.facts;
                let client = client_of(facts.seat);
                let here = source(client, self.places[client]) == replied.permit.to;
                let lost = facts.serial % 9 == 8;
                // A client with a wrong clock finds the times in it odd.
                let right = right && facts.ts.abs_diff(wall) <= 20_000;
                if here && !lost {
                    self.seats[facts.seat].hear(
                        &replied.permit.packet,
                        replied.bytes.as_slice(),
                        wall,
                        right,
                    )?;
                }
            }
        }
        Ok(())
    }

    /// Time passes: packets arrive, timers ring, openings lapse.
    fn pass(&mut self, span: Span) -> Result<(), String> {
        let target = self.mono.after(Duration::from_millis(span.0.into()));
        loop {
            let timers = self.hosts.iter().filter_map(Host::due);
            let next = timers
                .chain(self.network.next_at())
                .min()
                .filter(|next| *next <= target);
            let Some(next) = next else {
                break;
            };
            self.go_to(next.max(self.mono));
            for gateway in 0..GATEWAYS {
                if self.hosts[gateway]
                    .due()
                    .is_some_and(|due| due <= self.mono)
                {
                    let now = self.now_of(gateway);
                    self.hosts[gateway].ring(now)?;
                }
            }
            self.deliver()?;
            self.check()?;
        }
        self.go_to(target);
        Ok(())
    }

    fn go_to(&mut self, mono: Moment) {
        self.mono = mono;
        for host in &mut self.hosts {
            host.kernel.lapse(mono);
        }
    }

    fn check(&self) -> Result<(), String> {
        for (number, host) in self.hosts.iter().enumerate() {
            host.check(self.now_of(number))
                .map_err(|what| format!("gateway {number}: {what}"))?;
        }
        Ok(())
    }

    /// Everything is set right: then all that was open is closed, and whoever may come in does (SPEC §1, G8): everybody who has
    /// knocked before, and the first device of each gateway.
    fn end(&mut self) -> Result<(), String> {
        let right = self.right();
        for gateway in 0..GATEWAYS {
            let host = &mut self.hosts[gateway];
            host.fail_orders.0 = 0;
            host.fail_store = 0;
            host.trust = ClockTrust::Trusted;
            if host.is_dead() {
                let now = host.now(right.mono, right);
                host.start(now)?;
            }
            host.stalled = false;
            if host.offset != 0 {
                host.set_clock(ClockSet::Right, right)?;
            }
            host.set_clock(ClockSet::Trusted, right)?;
        }
        for seat in 0..SEATS {
            for act in [crate::event::Act::EnablePerson, crate::event::Act::Enable] {
                let now = self.now_of(gateway_of(seat));
                self.hosts[gateway_of(seat)].administer(seat, act, now)?;
            }
        }
        self.hear()?;
        self.pass(ALL_ENDS)?;
        for (number, host) in self.hosts.iter().enumerate() {
            host.check_closed()
                .map_err(|what| format!("gateway {number}: {what}"))?;
        }
        for seat in 0..SEATS {
            let looked_at = self.touched[seat] || client_of(seat) == 0;
            if looked_at && !self.hosts[gateway_of(seat)].clock_was_set {
                self.comes_in(seat)?;
            }
        }
        Ok(())
    }

    /// One who has everything gets in, and out again.
    fn comes_in(&mut self, seat: usize) -> Result<(), String> {
        // One step of the phone later, since its person may have two devices.
        self.pass(Span(31_000))?;
        let replies = self.tally.replies;
        self.knock(seat, Ask::Wiki, Flaw::None, Fate::Arrives)?;
        if self.tally.replies == replies {
            return Err(format!("seat {seat} is not answered though all is well"));
        }
        // A lost reply leaves the client with an older preshared key: it goes on with the packets it has left.
        let mut tries = 0;
        while !self.shake(seat) {
            tries += 1;
            if tries == 6 {
                return Err(format!("seat {seat} does not get through its door"));
            }
            self.pass(Span(800))?;
            self.again(seat, Fate::Arrives)?;
        }
        self.pass(Span(1_000))?;
        self.knock(seat, Ask::Close, Flaw::None, Fate::Arrives)?;
        self.pass(Span(1_000))
    }
}

impl fmt::Display for Broken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "after event {}: {}", self.at, self.what)
    }
}
