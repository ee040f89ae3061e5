//! Facts about a device: what is known, who says so, and how old it is.
//!
//! Invariant: a fact is never made up. What was not reported, or in a shape that is not understood, is missing.

use alloc::collections::BTreeSet;
use alloc::format;
use alloc::string::String;
use core::fmt;

use litemap::LiteMap;
use spa_proto::WallTime;

use crate::name::Name;

/// What a fact is about.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Field {
    /// The operating system's family.
    Platform,
    /// The version of the operating system, of Linux that of the kernel.
    Os,
    /// Days since the last security update.
    PatchAge,
    /// No security update that is known of waits to be installed.
    SecurityUpdates,
    /// All disks are encrypted.
    DiskEncryption,
    /// A firewall is on.
    Firewall,
    /// The screen locks itself.
    ScreenLock,
    /// A virus scanner is on and current.
    Antivirus,
    /// It booted what its maker signed.
    SecureBoot,
    /// Its user has taken the system over.
    Rooted,
    /// The organisation manages it.
    Managed,
    /// The device secret cannot leave its hardware.
    HardwareKey,
    /// The version of `spa`.
    Client,
}

/// The shape of a field's value.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Shape {
    /// Yes or no.
    Bool,
    /// A number of days.
    Days,
    /// Up to four numbers with dots.
    Version,
    /// A platform.
    Platform,
}

/// A family of operating systems.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Platform {
    /// Linux.
    Linux,
    /// Windows.
    Windows,
    /// macOS.
    MacOs,
    /// iOS and iPadOS.
    Ios,
    /// Android.
    Android,
    /// FreeBSD.
    FreeBsd,
    /// OpenBSD.
    OpenBsd,
}

/// The value of a fact.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Value {
    /// Yes or no.
    Bool(bool),
    /// A number of days.
    Days(u32),
    /// A version.
    Version(Version),
    /// A platform.
    Platform(Platform),
}

/// A version of one to four numbers; what is not written counts as zero.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Version([u32; 4]);

/// Who says it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum FactSource {
    /// The device itself; its owner can lie.
    SelfReported,
    /// The device's hardware, by signature.
    Attested,
    /// The organisation's device management.
    Mdm,
    /// This gateway saw it.
    GatewayObserved,
}

/// One fact.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Fact {
    /// What is said.
    pub value: Value,
    /// Who says it.
    pub source: FactSource,
    /// When it was so.
    pub at: WallTime,
}

/// All that is known of a device.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Facts {
    known: LiteMap<Field, Fact>,
    /// Requirements that count as met: what a `[[test]]` may assume.
    assumed: BTreeSet<Name>,
}

impl Facts {
    /// Takes one fact in; gives whether its value has the field's shape. A wrong one makes the fact missing.
    pub fn put(&mut self, field: Field, fact: Fact) -> bool {
        let fits = fact.value.shape() == field.shape();
        if fits {
            self.known.insert(field, fact);
        } else {
            self.known.remove(&field);
        }
        fits
    }

    /// Counts a posture requirement as met, for a test or a question.
    pub fn assume(&mut self, requirement: Name) {
        self.assumed.insert(requirement);
    }

    /// Gives what is known of a field.
    #[must_use]
    pub fn of(&self, field: Field) -> Option<&Fact> {
        self.known.get(&field)
    }

    /// Gives all that is known.
    pub fn iter(&self) -> impl Iterator<Item = (Field, &Fact)> {
        self.known.iter().map(|(field, fact)| (*field, fact))
    }

    /// Says whether a requirement counts as met.
    pub(super) fn assumes(&self, requirement: &Name) -> bool {
        self.assumed.contains(requirement)
    }

    /// Gives when the newest fact was so.
    #[must_use]
    pub fn newest(&self) -> Option<WallTime> {
        self.known.values().map(|fact| fact.at).max()
    }
}

impl Facts {
    /// Reads what `Display` writes, as a store keeps it. What this version does not know is left out.
    #[must_use]
    pub fn parse(text: &str) -> Self {
        let mut facts = Self::default();
        for line in text.lines() {
            let mut words = line.split(' ');
            let mut next = || words.next();
            let fact = (|| {
                let field = Field::named(next()?)?;
                let value = Value::read(field, next()?)?;
                let source = FactSource::named(next()?)?;
                let at = WallTime::from_millis(next()?.parse().ok()?);
                Some((field, Fact { value, source, at }))
            })();
            if let Some((field, fact)) = fact {
                facts.put(field, fact);
            }
        }
        facts
    }
}

impl fmt::Display for Facts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (field, fact) in self.iter() {
            let (name, source) = (field.name(), fact.source.name());
            writeln!(f, "{name} {} {source} {}", fact.value, fact.at.as_millis())?;
        }
        Ok(())
    }
}

impl Field {
    /// All fields.
    pub const ALL: [Self; 13] = [
        Self::Platform,
        Self::Os,
        Self::PatchAge,
        Self::SecurityUpdates,
        Self::DiskEncryption,
        Self::Firewall,
        Self::ScreenLock,
        Self::Antivirus,
        Self::SecureBoot,
        Self::Rooted,
        Self::Managed,
        Self::HardwareKey,
        Self::Client,
    ];

    /// Gives its name in the policy file and in reports.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Platform => "platform",
            Self::Os => "os",
            Self::PatchAge => "patch_age",
            Self::SecurityUpdates => "security_updates",
            Self::DiskEncryption => "disk_encryption",
            Self::Firewall => "firewall",
            Self::ScreenLock => "screen_lock",
            Self::Antivirus => "antivirus",
            Self::SecureBoot => "secure_boot",
            Self::Rooted => "rooted",
            Self::Managed => "managed",
            Self::HardwareKey => "hardware_key",
            Self::Client => "client",
        }
    }

    /// Gives the field of this name.
    #[must_use]
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|field| field.name() == name)
    }

    /// Gives the shape of its values.
    #[must_use]
    pub const fn shape(self) -> Shape {
        match self {
            Self::Platform => Shape::Platform,
            Self::Os | Self::Client => Shape::Version,
            Self::PatchAge => Shape::Days,
            Self::SecurityUpdates
            | Self::DiskEncryption
            | Self::Firewall
            | Self::ScreenLock
            | Self::Antivirus
            | Self::SecureBoot
            | Self::Rooted
            | Self::Managed
            | Self::HardwareKey => Shape::Bool,
        }
    }
}

impl Platform {
    /// All platforms.
    pub const ALL: [Self; 7] = [
        Self::Linux,
        Self::Windows,
        Self::MacOs,
        Self::Ios,
        Self::Android,
        Self::FreeBsd,
        Self::OpenBsd,
    ];

    /// Gives its name in the policy file and in reports: what Rust calls the platform.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Linux => "linux",
            Self::Windows => "windows",
            Self::MacOs => "macos",
            Self::Ios => "ios",
            Self::Android => "android",
            Self::FreeBsd => "freebsd",
            Self::OpenBsd => "openbsd",
        }
    }

    /// Gives the platform of this name.
    #[must_use]
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|known| known.name() == name)
    }
}

impl Value {
    const fn shape(self) -> Shape {
        match self {
            Self::Bool(_) => Shape::Bool,
            Self::Days(_) => Shape::Days,
            Self::Version(_) => Shape::Version,
            Self::Platform(_) => Shape::Platform,
        }
    }

    /// Reads a value as it is written on a command line: `true`, `12d`, `6.1`, `linux`.
    #[must_use]
    pub fn read(field: Field, text: &str) -> Option<Self> {
        match field.shape() {
            Shape::Bool => text.parse().ok().map(Self::Bool),
            Shape::Days => {
                let digits = text.strip_suffix('d').unwrap_or(text);
                digits.parse().ok().map(Self::Days)
            }
            Shape::Version => Version::reported(text).map(Self::Version),
            Shape::Platform => Platform::named(text).map(Self::Platform),
        }
    }
}

impl Version {
    /// Reads a version of the policy: one to four numbers with dots, and nothing else.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let mut numbers = [0; 4];
        let mut parts = text.split('.');
        for (number, part) in numbers.iter_mut().zip(parts.by_ref()) {
            *number = digits(part)?;
        }
        parts.next().is_none().then_some(Self(numbers))
    }

    /// Reads a version a device reports: what follows the numbers is left out, as in "6.1.0-28-amd64".
    #[must_use]
    pub fn reported(text: &str) -> Option<Self> {
        let end = text
            .find(|letter: char| !letter.is_ascii_digit() && letter != '.')
            .unwrap_or(text.len());
        let text = text.get(..end)?.trim_end_matches('.');
        let mut dots = text.match_indices('.');
        let four = dots.nth(3).map_or(text.len(), |(fifth, _)| fifth);
        Self::parse(text.get(..four)?)
    }
}

fn digits(text: &str) -> Option<u32> {
    let plain = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    text.parse().ok().filter(|_| plain)
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let last = self.0.iter().rposition(|number| *number != 0).unwrap_or(0);
        let text: String = self
            .0
            .iter()
            .take(last + 1)
            .enumerate()
            .map(|(at, number)| match at {
                0 => format!("{number}"),
                _ => format!(".{number}"),
            })
            .collect();
        f.write_str(&text)
    }
}

impl fmt::Display for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Bool(value) => write!(f, "{value}"),
            Self::Days(days) => write!(f, "{days}d"),
            Self::Version(version) => write!(f, "{version}"),
            Self::Platform(platform) => f.write_str(platform.name()),
        }
    }
}

impl FactSource {
    /// All sources.
    pub const ALL: [Self; 4] = [
        Self::SelfReported,
        Self::Attested,
        Self::Mdm,
        Self::GatewayObserved,
    ];

    /// Gives its name.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::SelfReported => "self-reported",
            Self::Attested => "attested",
            Self::Mdm => "mdm",
            Self::GatewayObserved => "gateway-observed",
        }
    }

    /// Gives the source of this name.
    #[must_use]
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|known| known.name() == name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_compare_number_by_number() {
        let version = |text| Version::parse(text).expect("a version");
        assert!(version("6.10") > version("6.9"));
        assert!(version("10.0.22631") > version("10.0.9999.9"));
        assert_eq!(version("14"), version("14.0.0.0"));
        for bad in [
            "",
            ".",
            "1.",
            "1..2",
            "v1",
            "1.2.3.4.5",
            "+1",
            "99999999999",
        ] {
            assert_eq!(Version::parse(bad), None, "{bad:?}");
        }
        for (reported, means) in [
            ("6.1.0-28-amd64", "6.1"),
            ("1.2.3.4.5", "1.2.3.4"),
            ("14.", "14"),
        ] {
            assert_eq!(
                Version::reported(reported).map(|version| format!("{version}")),
                Some(means.into())
            );
        }
        assert_eq!(Version::reported("rolling"), None);
    }

    #[test]
    fn facts_come_back_as_they_were_kept() {
        let mut facts = Facts::default();
        let texts = ["true", "12d", "6.1", "linux"];
        for (at, field) in (1..).zip(Field::ALL) {
            let value = texts.iter().find_map(|text| Value::read(field, text));
            let fact = Fact {
                value: value.expect("a value of every shape"),
                source: FactSource::SelfReported,
                at: WallTime::from_millis(at),
            };
            assert!(facts.put(field, fact));
        }
        let text = format!("{facts}");
        assert_eq!(text.lines().count(), Field::ALL.len());
        assert_eq!(Facts::parse(&text), facts);
        assert_eq!(
            Facts::parse("a lie\nfirewall perhaps self-reported 1\nfirewall true"),
            Facts::default()
        );
    }

    #[test]
    fn a_fact_of_the_wrong_shape_is_missing() {
        let mut facts = Facts::default();
        let fact = |value| Fact {
            value,
            source: FactSource::SelfReported,
            at: WallTime::from_millis(1),
        };
        assert!(facts.put(Field::Firewall, fact(Value::Bool(true))));
        assert!(!facts.put(Field::Firewall, fact(Value::Days(1))));
        assert_eq!(facts.of(Field::Firewall), None);
        assert_eq!(Value::read(Field::PatchAge, "12d"), Some(Value::Days(12)));
        assert_eq!(Value::read(Field::Firewall, "yes"), None);
    }
}
