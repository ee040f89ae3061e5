//! What a profile remembers from one knock to the next: last ts, prekey, addresses, verdicts.
//!
//! Invariant: the ts of a transaction is on the disk before its first packet leaves (SPEC §7), so that no ts is ever
//! used twice, whatever crashes.

use std::net::SocketAddr;

use spa_proto::{KnockPublic, Prekey, WallTime, next_transaction_time};

use crate::fields::{self, Writer, once};

const FIRST_LINE: &str = "spa-memory 1";

/// How many resource names are remembered; the oldest go.
const MOST_VERDICTS: usize = 64;

/// How many addresses of the gateway are remembered, for a name server that does not answer.
const MOST_ADDRESSES: usize = 4;

/// The memory of one profile.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Memory {
    last_ts: Option<WallTime>,
    code_sent: Option<WallTime>,
    prekey: Option<Prekey>,
    addresses: Vec<SocketAddr>,
    verdicts: Vec<Remembered>,
}

/// What the gateway last said of a resource.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Remembered {
    /// Its name as it was asked for.
    pub name: String,
    /// The verdict code of SPEC §6.
    pub verdict: u8,
    /// When.
    pub at: WallTime,
}

impl Memory {
    /// Chooses the ts of a new transaction and remembers it: later than any before, and a last ts more than F ahead
    /// of the clock is forgotten first, since the clock has run ahead once (SPEC §7).
    #[must_use]
    pub fn take_ts(&mut self, now: WallTime) -> WallTime {
        let ts = next_transaction_time(now, self.last_ts);
        self.last_ts = Some(ts);
        ts
    }

    /// The newest rotating key, if it lives for more than F from now; without one kid 0 is used (SPEC §3.3).
    #[must_use]
    pub fn prekey(&self, now: WallTime) -> Option<Prekey> {
        self.prekey.filter(|prekey| prekey.is_usable(now))
    }

    /// Remembers the key a reply handed out: the gateway always hands out its newest.
    pub fn keep_prekey(&mut self, prekey: Prekey) {
        self.prekey = Some(prekey);
    }

    /// Where the gateway was last found.
    #[must_use]
    pub fn addresses(&self) -> &[SocketAddr] {
        &self.addresses
    }

    /// Remembers where the gateway is.
    pub fn keep_addresses(&mut self, addresses: &[SocketAddr]) {
        self.addresses = addresses.iter().copied().take(MOST_ADDRESSES).collect();
    }

    /// When a code was last sent and taken.
    #[must_use]
    pub fn code_sent(&self) -> Option<WallTime> {
        self.code_sent
    }

    /// Remembers that a code was taken: it opens nothing any more.
    pub fn keep_code_sent(&mut self, at: WallTime) {
        self.code_sent = Some(at);
    }

    /// What is remembered of resources, the latest last.
    #[must_use]
    pub fn verdicts(&self) -> &[Remembered] {
        &self.verdicts
    }

    /// Remembers a verdict in place of an earlier one for the same name.
    pub fn keep_verdict(&mut self, name: &str, verdict: u8, at: WallTime) {
        self.verdicts.retain(|old| old.name != name);
        if self.verdicts.len() >= MOST_VERDICTS {
            self.verdicts.remove(0);
        }
        self.verdicts.push(Remembered {
            name: name.to_owned(),
            verdict,
            at,
        });
    }

    /// The text of its file.
    #[must_use]
    pub fn to_text(&self) -> Writer {
        let mut text = Writer::new(FIRST_LINE);
        if let Some(ts) = self.last_ts {
            text.line("last-ts", ts.as_millis());
        }
        if let Some(at) = self.code_sent {
            text.line("code-sent", at.as_millis());
        }
        if let Some(prekey) = self.prekey {
            text.line("prekey-kid", prekey.kid);
            text.line("prekey-not-after", prekey.not_after.as_millis());
            text.bytes("prekey-key", prekey.key.as_bytes());
        }
        for address in &self.addresses {
            text.line("address", address);
        }
        for old in &self.verdicts {
            text.line(
                "verdict",
                format_args!("{} {} {}", old.verdict, old.at.as_millis(), old.name),
            );
        }
        text
    }

    /// Reads its file.
    ///
    /// # Errors
    /// A text that says what is wrong, with the line.
    pub fn parse(text: &str) -> Result<Self, String> {
        let mut memory = Self::default();
        let (mut kid, mut not_after, mut key) = (None, None, None);
        for line in fields::lines(text, FIRST_LINE)? {
            match line.key {
                "last-ts" => once(
                    &mut memory.last_ts,
                    WallTime::from_millis(line.parse("milliseconds")?),
                    &line,
                )?,
                "code-sent" => once(
                    &mut memory.code_sent,
                    WallTime::from_millis(line.parse("milliseconds")?),
                    &line,
                )?,
                "prekey-kid" => once(&mut kid, line.parse("1 to 255")?, &line)?,
                "prekey-not-after" => once(
                    &mut not_after,
                    WallTime::from_millis(line.parse("milliseconds")?),
                    &line,
                )?,
                "prekey-key" => once(&mut key, KnockPublic::from_bytes(*line.bytes()?), &line)?,
                "address" if memory.addresses.len() < MOST_ADDRESSES => {
                    memory.addresses.push(line.parse("an address and port")?);
                }
                "verdict" if memory.verdicts.len() < MOST_VERDICTS => {
                    memory.verdicts.push(
                        parse_verdict(line.value)
                            .ok_or_else(|| line.wrong("a code, a time and a name"))?,
                    );
                }
                _ => return Err(line.unknown()),
            }
        }
        memory.prekey = match (kid, key, not_after) {
            (Some(kid), Some(key), Some(not_after)) => Some(Prekey {
                kid,
                key,
                not_after,
            }),
            (None, None, None) => None,
            _ => return Err("its prekey is not complete".to_owned()),
        };
        Ok(memory)
    }
}

fn parse_verdict(value: &str) -> Option<Remembered> {
    let mut words = value.splitn(3, ' ');
    Some(Remembered {
        verdict: words.next()?.parse().ok()?,
        at: WallTime::from_millis(words.next()?.parse().ok()?),
        name: words.next()?.to_owned(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: u64 = 1_800_000_000_000;
    const F: u64 = 90_000;

    fn kid(number: u8) -> std::num::NonZeroU8 {
        number.try_into().expect("a kid of the test")
    }

    fn at(ms: u64) -> WallTime {
        WallTime::from_millis(ms)
    }

    fn after(last: u64) -> Memory {
        Memory {
            last_ts: Some(at(last)),
            ..Memory::default()
        }
    }

    #[test]
    fn a_ts_is_the_clock() {
        assert_eq!(Memory::default().take_ts(at(NOW)), at(NOW));
        assert_eq!(after(NOW - 5).take_ts(at(NOW)), at(NOW));
    }

    #[test]
    fn a_ts_is_later_than_the_last_even_when_the_clock_stands_or_steps_back() {
        let mut memory = after(NOW);
        assert_eq!(memory.take_ts(at(NOW)), at(NOW + 1));
        assert_eq!(memory.take_ts(at(NOW)), at(NOW + 2));
        assert_eq!(after(NOW + F).take_ts(at(NOW)), at(NOW + F + 1));
    }

    #[test]
    fn a_last_ts_more_than_f_ahead_is_forgotten() {
        assert_eq!(after(NOW + F + 1).take_ts(at(NOW)), at(NOW));
        assert_eq!(after(u64::MAX).take_ts(at(NOW)), at(NOW));
    }

    #[test]
    fn a_prekey_is_used_while_it_lives_for_more_than_f() {
        let with = |not_after| {
            let mut memory = Memory::default();
            memory.keep_prekey(Prekey {
                kid: kid(3),
                key: KnockPublic::from_bytes([7; 32]),
                not_after: at(not_after),
            });
            memory.prekey(at(NOW)).map(|prekey| prekey.kid.get())
        };
        assert_eq!(with(NOW + F + 1), Some(3));
        assert_eq!(with(NOW + F), None);
        assert_eq!(Memory::default().prekey(at(NOW)), None);
    }

    #[test]
    fn memory_survives_its_file() {
        let mut memory = after(NOW);
        memory.keep_code_sent(at(NOW));
        memory.keep_prekey(Prekey {
            kid: kid(255),
            key: KnockPublic::from_bytes([7; 32]),
            not_after: at(NOW),
        });
        memory.keep_addresses(&[
            "192.0.2.1:51820".parse().expect("an address"),
            "[2001:db8::1]:51820".parse().expect("an address"),
        ]);
        memory.keep_verdict("wiki", 0, at(NOW));
        memory.keep_verdict("db", 1, at(NOW));
        let text = memory.to_text();
        assert_eq!(Memory::parse(text.text()), Ok(memory));
    }

    #[test]
    fn only_the_latest_verdicts_are_kept() {
        let mut memory = Memory::default();
        for n in 0..MOST_VERDICTS + 3 {
            memory.keep_verdict(&format!("r{n}"), 0, at(NOW));
        }
        memory.keep_verdict("r20", 1, at(NOW));
        assert_eq!(memory.verdicts().len(), MOST_VERDICTS);
        assert!(memory.verdicts().iter().all(|old| old.name != "r2"));
        assert_eq!(
            memory
                .verdicts()
                .last()
                .map(|old| (old.name.as_str(), old.verdict)),
            Some(("r20", 1))
        );
    }

    #[test]
    fn damaged_memory_names_its_line() {
        assert_eq!(
            Memory::parse("spa-memory 1\nlast-ts x\n").expect_err("damaged"),
            "line 2: last-ts should be milliseconds"
        );
        assert!(Memory::parse("spa-memory 1\nprekey-kid 3\n").is_err());
    }
}
