//! A route: an address without host bits and the length of its prefix (SPEC §6, TLV 0x11).

use alloc::vec::Vec;
use core::fmt;
use core::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::bytes::Reader;

/// A destination network.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Route {
    address: IpAddr,
    prefix: u8,
}

/// Why bytes or an address and a length are no route.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RouteError {
    /// Neither 4 nor 6, or cut short.
    #[error("a route is cut short or of an unknown family")]
    Shape,
    /// More than 32 or 128.
    #[error("a route's prefix is longer than its address")]
    Prefix,
    /// A bit behind the prefix is set.
    #[error("a route has host bits set")]
    HostBits,
}

/// How much of the address space a route takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Extent {
    /// Some network.
    Network,
    /// So wide that loopback or multicast lies inside: a default route, or half of one.
    Default,
    /// Loopback or multicast itself.
    Forbidden,
}

impl Route {
    /// Takes a network address and the length of its prefix in bits.
    ///
    /// # Errors
    /// If the prefix is too long or a host bit is set.
    pub fn new(address: IpAddr, prefix: u8) -> Result<Self, RouteError> {
        let route = Self { address, prefix };
        if prefix > width(address) {
            return Err(RouteError::Prefix);
        }
        if route.masked(address) != Some(bits(address)) {
            return Err(RouteError::HostBits);
        }
        Ok(route)
    }

    /// Gives the network address.
    #[must_use]
    pub const fn address(&self) -> IpAddr {
        self.address
    }

    /// Gives the length of the prefix in bits.
    #[must_use]
    pub const fn prefix(&self) -> u8 {
        self.prefix
    }

    /// Tells whether an address lies in this network.
    #[must_use]
    pub fn contains(&self, address: IpAddr) -> bool {
        self.masked(address) == Some(bits(self.address))
    }

    /// `family(1) ‖ prefix length(1) ‖ 4 or 16 bytes`.
    pub(super) fn write(&self, out: &mut Vec<u8>) {
        match self.address {
            IpAddr::V4(v4) => {
                out.extend_from_slice(&[4, self.prefix]);
                out.extend_from_slice(&v4.octets());
            }
            IpAddr::V6(v6) => {
                out.extend_from_slice(&[6, self.prefix]);
                out.extend_from_slice(&v6.octets());
            }
        }
    }

    /// Bytes [`Route::write`] appends.
    pub(super) const fn wire_len(&self) -> usize {
        match self.address {
            IpAddr::V4(_) => 6,
            IpAddr::V6(_) => 18,
        }
    }

    pub(super) fn read(reader: &mut Reader<'_>) -> Result<Self, RouteError> {
        let mut next = || {
            let family = reader.u8()?;
            let prefix = reader.u8()?;
            let address = match family {
                4 => IpAddr::from(reader.array::<4>()?),
                6 => IpAddr::from(reader.array::<16>()?),
                _ => return None,
            };
            Some((address, prefix))
        };
        let (address, prefix) = next().ok_or(RouteError::Shape)?;
        Self::new(address, prefix)
    }

    /// Tells whether this is some network: no default route or half of one, no loopback, no multicast (SPEC §6). To be
    /// asked of a route that came by another way than in a reply.
    #[must_use]
    pub fn is_some_network(&self) -> bool {
        self.extent() == Extent::Network
    }

    pub(super) fn extent(&self) -> Extent {
        let route = self.unmapped();
        let (loopback, multicast) = match route.address {
            IpAddr::V4(_) => (
                IpAddr::V4(Ipv4Addr::LOCALHOST),
                IpAddr::from([224, 0, 0, 0]),
            ),
            IpAddr::V6(_) => (
                IpAddr::V6(Ipv6Addr::LOCALHOST),
                IpAddr::from([0xff00, 0, 0, 0, 0, 0, 0, 0]),
            ),
        };
        if route.address.is_loopback() || (route.address.is_multicast()) {
            return Extent::Forbidden;
        }
        if route.contains(loopback) || route.contains(multicast) {
            return Extent::Default;
        }
        Extent::Network
    }

    /// An IPv4 network written as ::ffff:a.b.c.d/(96 + n), unwrapped.
    fn unmapped(&self) -> Self {
        match (self.address.to_canonical(), self.prefix.checked_sub(96)) {
            (address @ IpAddr::V4(_), Some(prefix)) if self.address.is_ipv6() => {
                Self { address, prefix }
            }
            _ => *self,
        }
    }

    /// The first `prefix` bits of an address of this route's family.
    fn masked(&self, address: IpAddr) -> Option<u128> {
        if address.is_ipv4() != self.address.is_ipv4() {
            return None;
        }
        let host = width(address).saturating_sub(self.prefix);
        let mask = u128::MAX.checked_shl(u32::from(host)).unwrap_or(0);
        Some(bits(address) & mask)
    }
}

const fn width(address: IpAddr) -> u8 {
    match address {
        IpAddr::V4(_) => 32,
        IpAddr::V6(_) => 128,
    }
}

fn bits(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(v4) => u128::from(v4.to_bits()),
        IpAddr::V6(v6) => v6.to_bits(),
    }
}

impl fmt::Display for Route {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.address, self.prefix)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn route(text: &str) -> Result<Route, RouteError> {
        let (address, prefix) = text.split_once('/').unwrap();
        Route::new(address.parse().unwrap(), prefix.parse().unwrap())
    }

    #[test]
    fn host_bits_and_long_prefixes_are_refused() {
        for good in [
            "10.0.0.0/8",
            "10.0.0.1/32",
            "0.0.0.0/0",
            "fd00::/8",
            "::/0",
            "fd00::1/128",
        ] {
            assert!(route(good).is_ok(), "{good}");
        }
        for bad in [
            "10.0.0.1/31",
            "10.0.0.0/6",
            "fd00::1/127",
            "fd00::/7",
            "128.0.0.0/0",
        ] {
            assert_eq!(route(bad), Err(RouteError::HostBits), "{bad}");
        }
        assert_eq!(route("10.0.0.0/33"), Err(RouteError::Prefix));
        assert_eq!(route("fd00::/129"), Err(RouteError::Prefix));
    }

    #[test]
    fn a_route_contains_its_network_only() {
        let net = route("10.1.0.0/16").unwrap();
        assert!(net.contains("10.1.255.255".parse().unwrap()));
        assert!(!net.contains("10.2.0.0".parse().unwrap()));
        assert!(!net.contains("fd00::1".parse().unwrap()));
    }

    #[test]
    fn loopback_and_multicast_are_no_destinations() {
        for text in [
            "127.0.0.0/8",
            "127.0.0.1/32",
            "224.0.0.0/4",
            "239.1.0.0/16",
            "::1/128",
            "ff02::/16",
            "::ffff:127.0.0.0/104",
            "::ffff:224.0.0.0/100",
        ] {
            assert_eq!(route(text).unwrap().extent(), Extent::Forbidden, "{text}");
        }
    }

    #[test]
    fn half_a_default_route_counts_as_one() {
        for text in [
            "0.0.0.0/0",
            "0.0.0.0/1",
            "128.0.0.0/1",
            "192.0.0.0/2",
            "::/0",
            "::/1",
            "8000::/1",
            "::ffff:0.0.0.0/96",
        ] {
            assert_eq!(route(text).unwrap().extent(), Extent::Default, "{text}");
        }
        for text in [
            "10.0.0.0/8",
            "192.168.0.0/16",
            "64.0.0.0/3",
            "fd00::/8",
            "2000::/3",
        ] {
            assert_eq!(route(text).unwrap().extent(), Extent::Network, "{text}");
        }
    }
}
