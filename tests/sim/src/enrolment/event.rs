//! What can happen around enrolments.

#![expect(
    missing_docs,
    reason = "a laptop, a gateway, a count, a fate: the fields say what they are"
)]

use crate::event::{ClockSet, Fate, Span};

/// One thing that happens. Numbers are taken modulo what there is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Deed {
    /// An administrator invites somebody; the invite reaches the laptop once it is on disk. `terms`: how long, and whether words are compared.
    Invite { gateway: u8, laptop: u8, terms: u8 },
    /// A laptop begins an enrolment.
    Enrol { laptop: u8, fate: Fate },
    /// Somebody who has read the invite enrols with a key of his own.
    Steal { laptop: u8, fate: Fate },
    /// A laptop sends one more packet of what it began last.
    Again { laptop: u8, fate: Fate },
    /// A laptop asks for a session under the key it was given last.
    Open { laptop: u8, wiki: bool, fate: Fate },
    /// An administrator has compared the words.
    Confirm { laptop: u8 },
    /// An administrator revokes the device.
    Revoke { laptop: u8 },
    /// The attacker sends a packet he heard, from where he likes.
    Replay {
        tape: u8,
        gateway: u8,
        place: u8,
        fate: Fate,
    },
    /// Time passes, for all.
    Pass(Span),
    /// A daemon performs nothing for a while.
    Stall { gateway: u8 },
    /// A stalled daemon performs some effects.
    Perform { gateway: u8, count: u8 },
    /// It performs everything again.
    Resume { gateway: u8 },
    /// The store fails the next commits.
    FailStore { gateway: u8, count: u8 },
    /// A gateway dies after performing this many more effects without hearing of them.
    Kill { gateway: u8, after: u8 },
    /// A dead gateway starts.
    Start { gateway: u8 },
    /// A gateway's clock is set.
    Clock { gateway: u8, set: ClockSet },
}

impl Deed {
    /// Reads a deed off a row of bytes.
    pub fn read(next: &mut dyn FnMut() -> u8) -> Self {
        match next() {
            0..=24 => Self::Invite {
                gateway: next(),
                laptop: next(),
                terms: next(),
            },
            25..=69 => Self::Enrol {
                laptop: next(),
                fate: Fate::read(next()),
            },
            70..=77 => Self::Steal {
                laptop: next(),
                fate: Fate::read(next()),
            },
            78..=99 => Self::Again {
                laptop: next(),
                fate: Fate::read(next()),
            },
            100..=139 => Self::Open {
                laptop: next(),
                wiki: next().is_multiple_of(2),
                fate: Fate::read(next()),
            },
            140..=147 => Self::Confirm { laptop: next() },
            148..=150 => Self::Revoke { laptop: next() },
            151..=174 => Self::Replay {
                tape: next(),
                gateway: next(),
                place: next(),
                fate: Fate::read(next()),
            },
            175..=211 => Self::Pass(Span::read(next())),
            212..=215 => Self::Stall { gateway: next() },
            216..=223 => Self::Perform {
                gateway: next(),
                count: next() % 6 + 1,
            },
            224..=231 => Self::Resume { gateway: next() },
            232..=235 => Self::FailStore {
                gateway: next(),
                count: next() % 3 + 1,
            },
            236..=242 => Self::Kill {
                gateway: next(),
                after: next() % 5,
            },
            243..=252 => Self::Start { gateway: next() },
            253..=255 => Self::Clock {
                gateway: next(),
                set: ClockSet::read(next()),
            },
        }
    }
}
