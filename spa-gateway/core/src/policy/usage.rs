//! What a person did with a resource today, beside what is usual: two factors of the risk.

use alloc::format;
use alloc::string::String;

use super::risk::Weights;

/// What somebody did with a resource today.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Usage {
    /// Bytes, both ways.
    pub bytes: u64,
    /// Connections.
    pub connections: u64,
    /// Up to how many bytes and connections are usual in a day; `None` while there are too few days to tell.
    pub usual: Option<(u64, u64)>,
}

/// What may be more than usual.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum UsageSignal {
    /// Bytes.
    Volume,
    /// Connections.
    Connections,
}

impl UsageSignal {
    /// Both.
    pub const ALL: [Self; 2] = [Self::Volume, Self::Connections];

    /// Gives the name of its weight in the policy.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Volume => "unusual_volume",
            Self::Connections => "unusual_connections",
        }
    }

    /// Gives what it weighs.
    #[must_use]
    pub const fn points(self, weights: Weights) -> u16 {
        match self {
            Self::Volume => weights.unusual_volume,
            Self::Connections => weights.unusual_connections,
        }
    }
}

impl Usage {
    /// Says whether it is more than usual.
    #[must_use]
    pub fn is_beyond(&self, signal: UsageSignal) -> bool {
        let (today, usual) = self.of(signal);
        usual.is_some_and(|usual| today > usual)
    }

    /// Gives what is more than usual and was not `before`.
    pub fn beyond(&self, before: &Self) -> impl Iterator<Item = UsageSignal> {
        UsageSignal::ALL
            .into_iter()
            .filter(|signal| self.is_beyond(*signal) && !before.is_beyond(*signal))
    }

    /// Says what was seen.
    #[must_use]
    pub fn evidence(&self, signal: UsageSignal) -> String {
        let (today, usual) = self.of(signal);
        let amount = |amount: u64| match signal {
            UsageSignal::Volume => bytes(amount),
            UsageSignal::Connections => format!("{amount} connections"),
        };
        match usual {
            None => format!("{} today, too few days to tell", amount(today)),
            Some(usual) => format!("{} today, up to {} is usual", amount(today), amount(usual)),
        }
    }

    fn of(&self, signal: UsageSignal) -> (u64, Option<u64>) {
        match signal {
            UsageSignal::Volume => (self.bytes, self.usual.map(|(bytes, _)| bytes)),
            UsageSignal::Connections => (
                self.connections,
                self.usual.map(|(_, connections)| connections),
            ),
        }
    }
}

/// Writes an amount with three digits or so.
fn bytes(amount: u64) -> String {
    const STEPS: [(u32, &str); 3] = [(30, "GiB"), (20, "MiB"), (10, "KiB")];
    for (shift, unit) in STEPS {
        let whole = amount >> shift;
        if whole > 0 {
            let tenth = ((amount >> (shift - 7)) & 0x7F) * 10 / 128;
            return format!("{whole}.{tenth} {unit}");
        }
    }
    format!("{amount} B")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_seen_reads_well() {
        let usage = Usage {
            bytes: 2_415_919_104,
            connections: 12,
            usual: Some((256 << 20, 1_000)),
        };
        assert_eq!(
            usage.evidence(UsageSignal::Volume),
            "2.2 GiB today, up to 256.0 MiB is usual"
        );
        assert!(usage.is_beyond(UsageSignal::Volume));
        assert!(!usage.is_beyond(UsageSignal::Connections));
        assert_eq!(
            (bytes(1_023), bytes(1_536)),
            ("1023 B".into(), "1.5 KiB".into())
        );
    }
}
