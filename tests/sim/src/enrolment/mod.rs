//! Enrolments on the same bad network: invites, laptops, a thief who has read one, gateways that crash, stores that fail.
//!
//! An invite becomes one device, of the first Q that was accepted, at the gateway that made it, before its end; what a reply gives is
//! on disk; a packet is answered once, over crashes too; who is not confirmed reaches the control channel alone. In the end, when
//! everything is set right, a new invite makes a device that opens.

mod desk;
mod event;
mod laptop;

use std::rc::Rc;
use std::time::Duration;

use spa_gateway_core::{ClockTrust, Moment, Now};
use spa_proto::WallTime;

pub use event::Deed;

use crate::client::source;
use crate::event::{ClockSet, Fate, Span};
use crate::network::Network;
use crate::place::{self, GATEWAYS};
use crate::town::{Broken, or_panic};
use desk::Desk;
use laptop::{LAPTOPS, Laptop, Letter};

/// When the clock that cannot be set begins: far from 0.
const BEGIN: u64 = 1 << 40;
/// Longer than the longest session and its rest.
const ALL_ENDS: Span = Span(24 * 60_000);

/// What a run came to, so that one sees that it was about something.
#[derive(Clone, Copy, Debug, Default)]
pub struct Tally {
    /// ENROLLED that left.
    pub enrolled: u32,
    /// Invites that became devices.
    pub used: u32,
    /// Invites that a second enroller showed.
    pub voided: u32,
    /// Packets that came after an end.
    pub late: u32,
}

struct Hall {
    mono: Moment,
    desks: Vec<Desk>,
    laptops: Vec<Laptop>,
    network: Network<Letter>,
    serial: u32,
}

/// Gives the deeds of a seed.
#[must_use]
pub fn deeds_of(seed: u64) -> Vec<Deed> {
    crate::row_of(seed, Deed::read)
}

/// Lets deeds happen, then sets everything right and sees that people can enrol.
///
/// # Errors
/// The first promise that was broken.
pub fn run(deeds: &[Deed]) -> Result<Tally, Broken> {
    or_panic(deeds.len(), || {
        let broken = |at| move |what| Broken { at, what };
        let mut hall = Hall::new().map_err(broken(0))?;
        for (at, deed) in deeds.iter().enumerate() {
            hall.happen(*deed).map_err(broken(at))?;
        }
        hall.end().map_err(broken(deeds.len()))?;
        let mut tally = Tally::default();
        for desk in &hall.desks {
            tally.enrolled += desk.enrolled;
            tally.used += desk.used;
            tally.voided += desk.voided;
            tally.late += desk.late;
        }
        Ok(tally)
    })
}

impl Hall {
    fn new() -> Result<Self, String> {
        let mono = Moment::from_millis(BEGIN);
        let now = Now {
            wall: WallTime::from_millis(place::START),
            mono,
        };
        Ok(Self {
            mono,
            desks: (0..GATEWAYS)
                .map(|number| Desk::new(number, now))
                .collect::<Result<_, _>>()?,
            laptops: (0..LAPTOPS).map(Laptop::new).collect(),
            network: Network::new(),
            serial: 0,
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

    fn wall(&self) -> u64 {
        self.right().wall.as_millis()
    }

    fn now_of(&self, gateway: usize) -> Now {
        self.desks[gateway].now(self.right())
    }

    fn happen(&mut self, deed: Deed) -> Result<(), String> {
        let gateway = |number: u8| usize::from(number) % GATEWAYS;
        let of = |number: u8| usize::from(number) % LAPTOPS;
        match deed {
            Deed::Invite {
                gateway: at,
                laptop,
                terms,
            } => self.invite(gateway(at), of(laptop), terms),
            Deed::Enrol { laptop, fate } => {
                let wall = self.wall();
                self.laptops[of(laptop)].enrol(wall);
                self.send(of(laptop), fate)
            }
            Deed::Open { laptop, wiki, fate } => {
                let wall = self.wall();
                self.laptops[of(laptop)].open(wiki, wall);
                self.send(of(laptop), fate)
            }
            Deed::Again { laptop, fate } => self.send(of(laptop), fate),
            Deed::Steal { laptop, fate } => {
                self.serial += 1;
                let letter = self.laptops[of(laptop)].stolen(self.serial, self.wall());
                self.post(letter, 8, fate)
            }
            Deed::Confirm { laptop } => self.administer(of(laptop), false),
            Deed::Revoke { laptop } => self.administer(of(laptop), true),
            Deed::Replay {
                tape,
                gateway: to,
                place,
                fate,
            } => {
                let Some(letter) = self.network.heard(tape) else {
                    return Ok(());
                };
                self.network
                    .send(&letter, gateway(to), source(9, place), fate, self.mono);
                self.deliver()
            }
            Deed::Pass(span) => self.pass(span),
            Deed::Stall { gateway: at } => {
                self.desks[gateway(at)].stalled = true;
                Ok(())
            }
            Deed::Perform { gateway: at, count } => {
                let now = self.now_of(gateway(at));
                for _ in 0..count {
                    self.desks[gateway(at)].step(now)?;
                }
                self.hear()
            }
            Deed::Resume { gateway: at } => {
                let now = self.now_of(gateway(at));
                self.desks[gateway(at)].stalled = false;
                self.desks[gateway(at)].settle(now)?;
                self.hear()
            }
            Deed::FailStore { gateway: at, count } => {
                self.desks[gateway(at)].fail_store = count;
                Ok(())
            }
            Deed::Kill { gateway: at, after } => {
                let now = self.now_of(gateway(at));
                self.desks[gateway(at)].kill(after, now)
            }
            Deed::Start { gateway: at } => {
                let now = self.now_of(gateway(at));
                match &mut self.desks[gateway(at)] {
                    desk if desk.is_dead() => desk.start(now),
                    _ => Ok(()),
                }
            }
            Deed::Clock { gateway: at, set } => {
                let right = self.right();
                self.desks[gateway(at)].set_clock(set, right)?;
                self.hear()
            }
        }
    }

    fn invite(&mut self, gateway: usize, laptop: usize, terms: u8) -> Result<(), String> {
        let now = self.now_of(gateway);
        if let Some(invited) = self.desks[gateway].invite(laptop, terms, now)? {
            self.laptops[laptop].invite(invited);
        }
        self.hear()
    }

    fn administer(&mut self, laptop: usize, revoke: bool) -> Result<(), String> {
        let Some(invited) = &self.laptops[laptop].invited else {
            return Ok(());
        };
        let (gateway, credential) = (invited.gateway, invited.credential);
        let now = self.now_of(gateway);
        self.desks[gateway].administer(laptop, credential, revoke, now)?;
        self.hear()
    }

    fn send(&mut self, laptop: usize, fate: Fate) -> Result<(), String> {
        self.serial += 1;
        let letter = self.laptops[laptop].letter(self.serial, self.wall());
        self.post(letter, laptop, fate)
    }

    fn post(
        &mut self,
        letter: Option<Rc<Letter>>,
        client: usize,
        fate: Fate,
    ) -> Result<(), String> {
        let Some(letter) = letter else {
            return Ok(());
        };
        let place = u8::try_from(client).expect("few");
        self.network.overhear(&letter);
        self.network.send(
            &letter,
            letter.gateway,
            source(client, place),
            fate,
            self.mono,
        );
        self.deliver()
    }

    fn deliver(&mut self) -> Result<(), String> {
        while let Some(flying) = self.network.take(self.mono) {
            let now = self.now_of(flying.to);
            self.desks[flying.to].take(&flying.packet, flying.source, now)?;
        }
        self.hear()
    }

    /// Replies reach their laptops, unless the network loses them or somebody else had sent the packet.
    fn hear(&mut self) -> Result<(), String> {
        let wall = self.wall();
        for desk in &mut self.desks {
            let right = !desk.clock_was_set;
            for ((letter, to), bytes) in std::mem::take(&mut desk.replies) {
                let laptop = letter.laptop;
                let here = to.port() == source(laptop, 0).port();
                let lost = letter.serial % 7 == 6;
                let right = right && wall.abs_diff(letter.made) <= 20_000;
                if here && !lost {
                    self.laptops[laptop].hear(&letter, bytes.as_slice(), wall, right)?;
                }
            }
        }
        Ok(())
    }

    /// Time passes: packets arrive, timers ring, openings lapse.
    fn pass(&mut self, span: Span) -> Result<(), String> {
        let target = self.mono.after(Duration::from_millis(span.0.into()));
        loop {
            let timers = self.desks.iter().filter_map(Desk::due);
            let next = timers
                .chain(self.network.next_at())
                .min()
                .filter(|next| *next <= target);
            let Some(next) = next else {
                break;
            };
            self.go_to(next.max(self.mono));
            for gateway in 0..GATEWAYS {
                if self.desks[gateway]
                    .due()
                    .is_some_and(|due| due <= self.mono)
                {
                    let now = self.now_of(gateway);
                    self.desks[gateway].ring(now)?;
                }
            }
            self.deliver()?;
        }
        self.go_to(target);
        Ok(())
    }

    fn go_to(&mut self, mono: Moment) {
        self.mono = mono;
        self.desks
            .iter_mut()
            .for_each(|desk| desk.kernel.lapse(mono));
    }

    /// Everything is set right: then all that was open is closed, and whoever is invited enrols and opens.
    fn end(&mut self) -> Result<(), String> {
        let right = self.right();
        for desk in &mut self.desks {
            (desk.fail_store, desk.trust) = (0, ClockTrust::Trusted);
            if desk.is_dead() {
                desk.start(desk.now(right))?;
            }
            desk.stalled = false;
            if desk.offset != 0 {
                desk.set_clock(ClockSet::Right, right)?;
            }
            desk.set_clock(ClockSet::Trusted, right)?;
        }
        self.hear()?;
        self.pass(ALL_ENDS)?;
        for gateway in 0..GATEWAYS {
            let kernel = &self.desks[gateway].kernel;
            if !kernel.peers.is_empty() || !kernel.doors.is_empty() || !kernel.flows.is_empty() {
                return Err("something is open after everything ended".into());
            }
            // After a clock was set, codes and marks may lie ahead: an administrator's to mend.
            if !self.desks[gateway].clock_was_set {
                // A person's and a machine's.
                self.becomes_a_device(gateway, 0)?;
                self.becomes_a_device(gateway, LAPTOPS - 1)?;
            }
        }
        Ok(())
    }

    fn becomes_a_device(&mut self, gateway: usize, laptop: usize) -> Result<(), String> {
        let failed = |what: &str| Err(format!("laptop {laptop} {what} though all is well"));
        // A day, words to be compared.
        self.invite(gateway, laptop, 15)?;
        if self.laptops[laptop]
            .invited
            .as_ref()
            .is_none_or(|invited| invited.gateway != gateway)
        {
            return failed("is not invited");
        }
        let opens = |hall: &mut Self, wiki| {
            // A new code of the phone; and some replies are lost.
            for _ in 0..2 {
                hall.pass(Span(31_000))?;
                hall.laptops[laptop].session = false;
                hall.happen(Deed::Open {
                    laptop: u8::try_from(laptop).expect("few"),
                    wiki,
                    fate: Fate::Arrives,
                })?;
                if hall.laptops[laptop].session {
                    return Ok(true);
                }
            }
            Ok::<_, String>(false)
        };
        for _ in 0..2 {
            self.happen(Deed::Enrol {
                laptop: u8::try_from(laptop).expect("few"),
                fate: Fate::Arrives,
            })?;
            self.pass(Span(2_000))?;
        }
        if !opens(self, false)? {
            return failed("does not open");
        }
        if opens(self, true)? {
            return failed("gets the wiki before its words were compared, or hears no refusal,");
        }
        self.administer(laptop, false)?;
        if !opens(self, true)? {
            return failed("does not get the wiki");
        }
        Ok(())
    }
}
