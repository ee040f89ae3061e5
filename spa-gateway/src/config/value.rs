//! The values of `gateway.toml` that are more than a number or a text.
//!
//! Each is made by `parse` alone, so a value that exists is within its bounds; each
//! refusal says what was expected.

use std::fmt;
use std::net::IpAddr;
use std::num::NonZeroU16;
use std::str::FromStr;
use std::time::Duration;

use serde::Deserialize;

/// Why a text is no such value: what was expected instead.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("{0}")]
pub struct ValueError(String);

impl ValueError {
    pub(super) fn new(expected: impl fmt::Display) -> Self {
        Self(expected.to_string())
    }
}

macro_rules! from_text {
    ($($name:ident),+) => {$(
        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: serde::Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
                let text = String::deserialize(from)?;
                text.parse().map_err(serde::de::Error::custom)
            }
        }
    )+};
}

from_text!(Span, Subnet, HostPort, Interface, PortProtocol);

/// A port: 1 to 65535.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Port(NonZeroU16);

impl Port {
    /// Takes a number that is not zero.
    #[must_use]
    pub const fn new(number: NonZeroU16) -> Self {
        Self(number)
    }

    /// Gives the number.
    #[must_use]
    pub const fn get(self) -> u16 {
        self.0.get()
    }
}

impl<'de> Deserialize<'de> for Port {
    fn deserialize<D: serde::Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        struct Number;

        impl serde::de::Visitor<'_> for Number {
            type Value = Port;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a port, which is a number from 1 to 65535")
            }

            fn visit_i64<E: serde::de::Error>(self, number: i64) -> Result<Port, E> {
                u16::try_from(number)
                    .ok()
                    .and_then(NonZeroU16::new)
                    .map(Port)
                    .ok_or_else(|| {
                        E::custom(format_args!(
                            "`{number}` is no port; write a number from 1 to 65535"
                        ))
                    })
            }
        }

        from.deserialize_i64(Number)
    }
}

impl fmt::Display for Port {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

/// A length of time written with its unit: `"10s"`, `"5m"`, `"8h"`, `"7d"`.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Span(pub Duration);

impl FromStr for Span {
    type Err = ValueError;

    fn from_str(text: &str) -> Result<Self, ValueError> {
        let expected = || {
            ValueError::new(format_args!(
                "`{text}` is no length of time; write a whole number and its unit, like \"10s\", \"5m\", \"8h\" or \"7d\""
            ))
        };
        let digits = text.bytes().take_while(u8::is_ascii_digit).count();
        let (number, unit) = text.split_at(digits);
        let number: u64 = number.parse().map_err(|_| expected())?;
        let seconds = match unit {
            "s" => 1,
            "m" => 60,
            "h" => 3_600,
            "d" => 86_400,
            _ => return Err(expected()),
        };
        let seconds = number.checked_mul(seconds).ok_or_else(expected)?;
        Ok(Self(Duration::from_secs(seconds)))
    }
}

impl fmt::Display for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let seconds = self.0.as_secs();
        let units = [(86_400, "d"), (3_600, "h"), (60, "m")];
        let fits = units
            .iter()
            .find(|(size, _)| seconds > 0 && seconds.is_multiple_of(*size));
        match fits {
            Some((size, unit)) => write!(f, "{}{unit}", seconds / size),
            None => write!(f, "{seconds}s"),
        }
    }
}

/// An address with the prefix length of its network: `10.200.0.1/16`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Subnet {
    /// The address as written, host bits included.
    pub address: IpAddr,
    /// How many leading bits name the network.
    pub prefix: u8,
}

impl Subnet {
    /// Gives the first address: host bits cleared.
    #[must_use]
    pub fn network(self) -> IpAddr {
        match self.address {
            IpAddr::V4(v4) => IpAddr::V4((v4.to_bits() & self.mask4()).into()),
            IpAddr::V6(v6) => IpAddr::V6((v6.to_bits() & self.mask6()).into()),
        }
    }

    /// Gives the address after the network's own, the customary one of a gateway.
    #[must_use]
    pub fn first_host(self) -> IpAddr {
        match self.network() {
            IpAddr::V4(v4) => IpAddr::V4(v4.to_bits().saturating_add(1).into()),
            IpAddr::V6(v6) => IpAddr::V6(v6.to_bits().saturating_add(1).into()),
        }
    }

    /// Tells whether `other` lies in the network.
    #[must_use]
    pub fn contains(self, other: IpAddr) -> bool {
        let other = Self {
            address: other,
            prefix: self.prefix,
        };
        self.address.is_ipv4() == other.address.is_ipv4() && self.network() == other.network()
    }

    /// Tells whether any address lies in both.
    #[must_use]
    pub fn overlaps(self, other: Self) -> bool {
        let wider = if self.prefix <= other.prefix {
            self
        } else {
            other
        };
        wider.contains(self.address) && wider.contains(other.address)
    }

    fn mask4(self) -> u32 {
        u32::MAX
            .checked_shl(32 - u32::from(self.prefix))
            .unwrap_or(0)
    }

    fn mask6(self) -> u128 {
        u128::MAX
            .checked_shl(128 - u32::from(self.prefix))
            .unwrap_or(0)
    }
}

impl FromStr for Subnet {
    type Err = ValueError;

    fn from_str(text: &str) -> Result<Self, ValueError> {
        let expected = || {
            ValueError::new(format_args!(
                "`{text}` is no network; write an address and a prefix length, like \"10.200.0.1/16\" or \"fd5a:1::1/64\""
            ))
        };
        let (address, prefix) = text.split_once('/').ok_or_else(expected)?;
        let address: IpAddr = address.parse().map_err(|_| expected())?;
        let prefix: u8 = prefix.parse().map_err(|_| expected())?;
        let longest = if address.is_ipv4() { 32 } else { 128 };
        if prefix > longest {
            return Err(expected());
        }
        Ok(Self { address, prefix })
    }
}

impl fmt::Display for Subnet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.address, self.prefix)
    }
}

/// Where clients find the gateway: `198.51.100.10:51820`, `gw.example.net:51820`, `[2001:db8::1]:51820`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct HostPort {
    /// An address without brackets, or a name.
    pub host: String,
    /// Never 0.
    pub port: u16,
}

impl FromStr for HostPort {
    type Err = ValueError;

    fn from_str(text: &str) -> Result<Self, ValueError> {
        let expected = || {
            ValueError::new(format_args!(
                "`{text}` is no address; write host and port, like \"198.51.100.10:51820\", \"gw.example.net:51820\" or \"[2001:db8::1]:51820\""
            ))
        };
        let (host, port) = text.rsplit_once(':').ok_or_else(expected)?;
        let port: u16 = port.parse().map_err(|_| expected())?;
        let host = match host.strip_prefix('[').and_then(|h| h.strip_suffix(']')) {
            Some(inner) => inner
                .parse::<std::net::Ipv6Addr>()
                .map_err(|_| expected())?
                .to_string(),
            None => host.to_owned(),
        };
        let is_address = host.parse::<IpAddr>().is_ok();
        let is_name = !host.is_empty()
            && host.len() <= 253
            && host
                .bytes()
                .all(|b| b.is_ascii_alphanumeric() || b == b'.' || b == b'-');
        if port == 0 || !(is_address || is_name) {
            return Err(expected());
        }
        Ok(Self { host, port })
    }
}

impl fmt::Display for HostPort {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.host.contains(':') {
            write!(f, "[{}]:{}", self.host, self.port)
        } else {
            write!(f, "{}:{}", self.host, self.port)
        }
    }
}

/// The name of a network interface: 1 to 15 bytes, as the kernel has it.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Interface(String);

impl Interface {
    /// Gives the name.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for Interface {
    type Err = ValueError;

    fn from_str(text: &str) -> Result<Self, ValueError> {
        // IFNAMSIZ is 16 with its zero; the kernel refuses '/', ':' and white space.
        let fits = (1..=15).contains(&text.len())
            && text != "."
            && text != ".."
            && text
                .bytes()
                .all(|b| b.is_ascii_graphic() && b != b'/' && b != b':');
        fits.then(|| Self(text.to_owned())).ok_or_else(|| {
            ValueError::new(format_args!(
                "`{text}` is no interface name; `ip -br link` lists them"
            ))
        })
    }
}

impl fmt::Display for Interface {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A port that stays open: `"22/tcp"`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct PortProtocol {
    /// Never 0.
    pub port: u16,
    /// Tcp or udp.
    pub protocol: Transport,
}

/// What a [`PortProtocol`] speaks.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Transport {
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
}

impl FromStr for PortProtocol {
    type Err = ValueError;

    fn from_str(text: &str) -> Result<Self, ValueError> {
        let expected = || {
            ValueError::new(format_args!(
                "`{text}` is no port; write number and protocol, like \"22/tcp\""
            ))
        };
        let (port, protocol) = text.split_once('/').ok_or_else(expected)?;
        let port: u16 = port.parse().map_err(|_| expected())?;
        let protocol = match protocol {
            "tcp" => Transport::Tcp,
            "udp" => Transport::Udp,
            _ => return Err(expected()),
        };
        if port == 0 {
            return Err(expected());
        }
        Ok(Self { port, protocol })
    }
}

impl fmt::Display for PortProtocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let protocol = match self.protocol {
            Transport::Tcp => "tcp",
            Transport::Udp => "udp",
        };
        write!(f, "{}/{protocol}", self.port)
    }
}

/// A user of the system by name or number: `"spa-gateway"`, `64180`.
#[derive(Clone, PartialEq, Eq, Debug, Deserialize)]
#[serde(untagged)]
pub enum UserRef {
    /// A uid; its gid is the same number unless the user is listed.
    Number(u32),
    /// A name, or a number written as text.
    Name(String),
}

impl fmt::Display for UserRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Number(number) => write!(f, "{number}"),
            Self::Name(name) => f.write_str(name),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_span_needs_its_unit() {
        assert_eq!("10s".parse(), Ok(Span(Duration::from_secs(10))));
        assert_eq!("8h".parse(), Ok(Span(Duration::from_secs(28_800))));
        for bad in [
            "",
            "10",
            "s",
            "-1s",
            "1.5h",
            "10 s",
            "99999999999999999999s",
        ] {
            assert!(bad.parse::<Span>().is_err(), "{bad}");
        }
    }

    #[test]
    fn a_span_prints_as_it_is_written() {
        for text in ["10s", "90s", "5m", "8h", "7d", "0s"] {
            assert_eq!(text.parse::<Span>().expect(text).to_string(), text);
        }
    }

    #[test]
    fn a_subnet_knows_its_network() {
        let v4: Subnet = "10.200.3.4/16".parse().expect("v4");
        assert_eq!(v4.network().to_string(), "10.200.0.0");
        assert_eq!(v4.first_host().to_string(), "10.200.0.1");
        assert!(v4.contains("10.200.255.1".parse().expect("address")));
        assert!(!v4.contains("10.201.0.1".parse().expect("address")));
        assert!(!v4.contains("fd5a::1".parse().expect("address")));
        let v6: Subnet = "fd5a:1::7/64".parse().expect("v6");
        assert_eq!(v6.first_host().to_string(), "fd5a:1::1");
        let all: Subnet = "1.2.3.4/0".parse().expect("all");
        assert_eq!(all.network().to_string(), "0.0.0.0");
        for bad in ["10.0.0.1", "10.0.0.1/33", "fd::1/129", "x/8", "10.0.0.1/-1"] {
            assert!(bad.parse::<Subnet>().is_err(), "{bad}");
        }
    }

    #[test]
    fn a_public_address_has_host_and_port() {
        for text in [
            "198.51.100.10:51820",
            "gw.example.net:1",
            "[2001:db8::1]:51820",
        ] {
            assert_eq!(text.parse::<HostPort>().expect(text).to_string(), text);
        }
        for bad in [
            "198.51.100.10",
            "gw:0",
            ":1",
            "2001:db8::1:x",
            "[1.2.3.4]:1",
            "a b:1",
        ] {
            assert!(bad.parse::<HostPort>().is_err(), "{bad}");
        }
    }

    #[test]
    fn interfaces_and_ports_are_bounded() {
        for bad in ["", "a/b", "sixteen-letters-", "a b", "..", "a:b"] {
            assert!(bad.parse::<Interface>().is_err(), "{bad}");
        }
        assert!("eth0.100@x".parse::<Interface>().is_ok());
        for bad in ["22", "0/tcp", "22/sctp", "65536/udp"] {
            assert!(bad.parse::<PortProtocol>().is_err(), "{bad}");
        }
    }
}
