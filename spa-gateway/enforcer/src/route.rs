//! Whose address is it? The kernel's routing table knows at this moment; a list made at start would not.

use std::io;
use std::net::IpAddr;

use crate::netlink::{Link, REQUEST_ACK, Request};

// include/uapi/linux/rtnetlink.h
const RTM_GETROUTE: u16 = 26;
const RTM_NEWROUTE: u16 = 24;
const RTA_DST: u16 = 1;
const RTN_UNICAST: u8 = 1;
/// Where `rtm_type` is in `struct rtmsg`.
const TYPE_AT: usize = 7;

/// Who answers to an address.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Owner {
    /// Another machine, or nobody the kernel could reach.
    Elsewhere,
    /// This machine, or everybody (broadcast, multicast), or the route says "nobody".
    NotAHost,
}

/// Asks the kernel.
///
/// # Errors
/// The kernel's silence.
pub fn owner(link: &mut Link, address: IpAddr) -> io::Result<Owner> {
    let (family, octets) = match address {
        IpAddr::V4(v4) => (2, v4.octets().to_vec()),
        IpAddr::V6(v6) => (10, v6.octets().to_vec()),
    };
    let bits = if address.is_ipv4() { 32 } else { 128 };
    let header = [family, bits, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    let request = Request::new(RTM_GETROUTE, REQUEST_ACK, &header).attribute(RTA_DST, &octets);
    let mut owner = Owner::Elsewhere;
    let asked = link.ask(request, |kind, payload| {
        let unicast = payload.get(TYPE_AT) == Some(&RTN_UNICAST);
        if kind == RTM_NEWROUTE && !unicast {
            owner = Owner::NotAHost;
        }
    });
    match asked {
        // No route at all: not ours, at least.
        Err(error)
            if matches!(
                error.raw_os_error(),
                Some(libc::ENETUNREACH | libc::EHOSTUNREACH)
            ) =>
        {
            Ok(Owner::Elsewhere)
        }
        Err(error) => Err(error),
        Ok(()) => Ok(owner),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_loopback_is_ours() {
        let mut link = Link::route().expect("netlink socket");
        let ours = owner(&mut link, "127.0.0.1".parse().expect("address"));
        assert_eq!(ours.expect("the kernel answers"), Owner::NotAHost);
    }
}
