//! Routes into the interface, in the main table; a route of another interface is never replaced.

use std::net::IpAddr;

use netlink_packet_core::{NLM_F_CREATE, NLM_F_EXCL};
use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::route::{
    RouteAddress, RouteAttribute, RouteHeader, RouteMessage, RouteProtocol, RouteScope, RouteType,
};
use rustix::io::Errno;

use crate::WireguardError;
use crate::link::{Links, failed, family, is};

impl Links {
    /// Adds a route; one that exists through this interface is enough.
    pub fn add_route(
        &mut self,
        name: &str,
        index: u32,
        address: IpAddr,
        prefix: u8,
    ) -> Result<(), WireguardError> {
        let route = route_message(index, address, prefix);
        match self.route.request(
            RouteNetlinkMessage::NewRoute(route),
            NLM_F_CREATE | NLM_F_EXCL,
        ) {
            Ok(_) => Ok(()),
            Err(error) if is(&error, Errno::EXIST) => {
                match self.has_route(name, index, address, prefix)? {
                    true => Ok(()),
                    false => Err(WireguardError::RouteTaken { address, prefix }),
                }
            }
            Err(error) => Err(failed("adding a route", name)(error)),
        }
    }

    /// Removes a route of this interface; one that is gone is removed already.
    pub fn remove_route(
        &mut self,
        name: &str,
        index: u32,
        address: IpAddr,
        prefix: u8,
    ) -> Result<(), WireguardError> {
        let mut route = route_message(index, address, prefix);
        // Whoever added it and in whatever scope: the interface is what makes it ours.
        route.header.scope = RouteScope::NoWhere;
        route.header.protocol = RouteProtocol::Unspec;
        match self.route.request(RouteNetlinkMessage::DelRoute(route), 0) {
            Err(error) if !is(&error, Errno::SRCH) => Err(failed("removing a route", name)(error)),
            _ => Ok(()),
        }
    }

    fn has_route(
        &mut self,
        name: &str,
        index: u32,
        address: IpAddr,
        prefix: u8,
    ) -> Result<bool, WireguardError> {
        let question = || {
            let mut all = RouteMessage::default();
            all.header.address_family = family(address);
            RouteNetlinkMessage::GetRoute(all)
        };
        let wanted = RouteAddress::from(network(address, prefix));
        let routes = self
            .route
            .dump(question)
            .map_err(failed("reading routes", name))?;
        Ok(routes.iter().any(|answer| match answer {
            RouteNetlinkMessage::NewRoute(route) => {
                route.header.table == RouteHeader::RT_TABLE_MAIN
                    && route.header.destination_prefix_length == prefix
                    && route.attributes.contains(&RouteAttribute::Oif(index))
                    // A default route names no destination.
                    && (prefix == 0 || route.attributes.contains(&RouteAttribute::Destination(wanted.clone())))
            }
            _ => false,
        }))
    }
}

fn route_message(index: u32, address: IpAddr, prefix: u8) -> RouteMessage {
    let mut route = RouteMessage::default();
    route.header.address_family = family(address);
    route.header.destination_prefix_length = prefix;
    route.header.table = RouteHeader::RT_TABLE_MAIN;
    route.header.protocol = RouteProtocol::Static;
    // IPv4 calls a route without gateway link scope; IPv6 knows no scopes.
    route.header.scope = if address.is_ipv4() {
        RouteScope::Link
    } else {
        RouteScope::Universe
    };
    route.header.kind = RouteType::Unicast;
    route.attributes = vec![
        RouteAttribute::Destination(RouteAddress::from(network(address, prefix))),
        RouteAttribute::Oif(index),
    ];
    route
}

/// The address with the bits beyond the prefix cleared: the kernel refuses a destination with host bits.
fn network(address: IpAddr, prefix: u8) -> IpAddr {
    let beyond = |width: u32| width.saturating_sub(u32::from(prefix));
    match address {
        IpAddr::V4(four) => IpAddr::V4(
            (four.to_bits() & u32::MAX.checked_shl(beyond(u32::BITS)).unwrap_or(0)).into(),
        ),
        IpAddr::V6(six) => IpAddr::V6(
            (six.to_bits() & u128::MAX.checked_shl(beyond(u128::BITS)).unwrap_or(0)).into(),
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn host_bits_of_a_destination_are_cleared() {
        let four = |text: &str| text.parse::<IpAddr>().expect("a literal");
        assert_eq!(network(four("10.1.2.3"), 16), four("10.1.0.0"));
        assert_eq!(network(four("10.1.2.3"), 32), four("10.1.2.3"));
        assert_eq!(network(four("10.1.2.3"), 0), four("0.0.0.0"));
        assert_eq!(network(four("fd5a:1::9"), 64), four("fd5a:1::"));
        assert_eq!(network(four("fd5a:1::9"), 0), four("::"));
    }
}
