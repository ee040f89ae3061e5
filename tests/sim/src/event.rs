//! What can happen, each with what it needs to happen again exactly so.

#![expect(
    missing_docs,
    reason = "a seat, a gateway, a count, a fate: the fields say what they are"
)]

/// One thing that happens. Numbers are taken modulo what there is, so that any row of events is a run.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Event {
    /// A client begins a transaction.
    Knock {
        seat: u8,
        ask: Ask,
        flaw: Flaw,
        fate: Fate,
    },
    /// A client sends one more packet of it.
    Again { seat: u8, fate: Fate },
    /// A client shakes hands, if door and peer let it.
    Shake { seat: u8 },
    /// A client's machine is behind another address now.
    Move { client: u8, place: u8 },
    /// Time passes, for all.
    Pass(Span),
    /// The attacker sends a packet he heard, from where he likes.
    Replay {
        tape: u8,
        gateway: u8,
        place: u8,
        fate: Fate,
    },
    /// The same, with a byte changed.
    Damage { tape: u8, at: u16, with: u8 },
    /// The attacker sends something of his own.
    Noise { gateway: u8, kind: u8 },
    /// A daemon performs nothing for a while.
    Stall { gateway: u8 },
    /// A stalled daemon performs some effects.
    Perform { gateway: u8, count: u8 },
    /// It performs everything again.
    Resume { gateway: u8 },
    /// The enforcer fails the next orders; some of them after they were carried out.
    FailOrders { gateway: u8, count: u8, done: bool },
    /// The store fails the next commits.
    FailStore { gateway: u8, count: u8 },
    /// A gateway dies after performing this many more effects without hearing of them.
    Kill { gateway: u8, after: u8 },
    /// A dead gateway starts.
    Start { gateway: u8 },
    /// A gateway's clock is set.
    Clock { gateway: u8, set: ClockSet },
    /// An administrator acts.
    Admin { seat: u8, act: Act },
}

/// What is asked.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Ask {
    Wiki,
    Db,
    All,
    Control,
    Roam,
    Close,
}

/// What is wrong with a knock.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Flaw {
    None,
    Password,
    Code,
    NoCode,
    /// The code of this many steps away.
    OldCode(i8),
    /// A clock that is this many seconds off.
    Clock(i16),
    /// A ts of an earlier transaction.
    OldTs,
}

/// What the network does with a packet.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Fate {
    /// It arrives.
    Arrives,
    /// Later, milliseconds.
    Late(u16),
    /// At once and again later.
    Twice(u16),
    /// Never.
    Lost,
}

/// How long, milliseconds.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Span(pub u32);

/// How a clock is set.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ClockSet {
    By(i32),
    Right,
    Untrusted,
    Trusted,
}

/// What an administrator does.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Act {
    DisablePerson,
    EnablePerson,
    Revoke,
    Enable,
    Cut,
}

impl Event {
    /// Reads an event off a row of bytes.
    pub fn read(next: &mut dyn FnMut() -> u8) -> Self {
        match next() {
            0..=69 => Self::Knock {
                seat: next(),
                ask: Ask::read(next()),
                flaw: Flaw::read(next()),
                fate: Fate::read(next()),
            },
            70..=94 => Self::Again {
                seat: next(),
                fate: Fate::read(next()),
            },
            95..=119 => Self::Shake { seat: next() },
            120..=124 => Self::Move {
                client: next(),
                place: next(),
            },
            125..=174 => Self::Pass(Span::read(next())),
            175..=194 => Self::Replay {
                tape: next(),
                gateway: next(),
                place: next(),
                fate: Fate::read(next()),
            },
            195..=201 => Self::Damage {
                tape: next(),
                at: u16::from_be_bytes([next(), next()]),
                with: next(),
            },
            202..=205 => Self::Noise {
                gateway: next(),
                kind: next(),
            },
            206..=208 => Self::Stall { gateway: next() },
            209..=218 => Self::Perform {
                gateway: next(),
                count: next() % 8 + 1,
            },
            219..=224 => Self::Resume { gateway: next() },
            225..=228 => Self::FailOrders {
                gateway: next(),
                count: next() % 6 + 1,
                done: next().is_multiple_of(2),
            },
            229..=231 => Self::FailStore {
                gateway: next(),
                count: next() % 3 + 1,
            },
            232..=237 => Self::Kill {
                gateway: next(),
                after: next() % 6,
            },
            238..=246 => Self::Start { gateway: next() },
            247..=249 => Self::Clock {
                gateway: next(),
                set: ClockSet::read(next()),
            },
            250..=255 => Self::Admin {
                seat: next(),
                act: Act::read(next()),
            },
        }
    }
}

impl Ask {
    fn read(byte: u8) -> Self {
        match byte % 16 {
            0..=6 => Self::Wiki,
            7..=8 => Self::Db,
            9 => Self::All,
            10 => Self::Control,
            11..=13 => Self::Roam,
            _ => Self::Close,
        }
    }
}

impl Flaw {
    pub(crate) fn read(byte: u8) -> Self {
        match byte {
            0..=179 => Self::None,
            180..=199 => Self::Password,
            200..=209 => Self::Code,
            210..=214 => Self::NoCode,
            215..=229 => Self::OldCode((byte % 5).cast_signed() - 2),
            230..=244 => Self::Clock((i16::from(byte) - 237) * 23),
            245..=255 => Self::OldTs,
        }
    }
}

impl Fate {
    pub(crate) fn read(byte: u8) -> Self {
        let late = u16::from(byte % 32) * 117;
        match byte {
            0..=139 => Self::Arrives,
            140..=189 => Self::Late(late),
            190..=219 => Self::Twice(late),
            220..=255 => Self::Lost,
        }
    }
}

impl Span {
    pub(crate) fn read(byte: u8) -> Self {
        const SPANS: [u32; 16] = [
            1, 20, 30, 300, 800, 1_000, 2_000, 3_000, 8_000, 11_000, 31_000, 61_000, 91_000,
            180_000, 660_000, 2_000_000,
        ];
        Self(SPANS[usize::from(byte % 16)])
    }
}

impl ClockSet {
    pub(crate) fn read(byte: u8) -> Self {
        match byte {
            0..=39 => Self::By(-3_600),
            40..=79 => Self::By(86_400),
            80..=109 => Self::By(31),
            110..=139 => Self::By(-31),
            140..=199 => Self::Right,
            200..=219 => Self::Untrusted,
            220..=255 => Self::Trusted,
        }
    }
}

impl Act {
    pub(crate) fn read(byte: u8) -> Self {
        match byte % 8 {
            0 => Self::DisablePerson,
            1 | 2 => Self::EnablePerson,
            3 => Self::Revoke,
            4 | 5 => Self::Enable,
            _ => Self::Cut,
        }
    }
}
