//! Whose address is it? The kernel's routing table knows at this moment; a list made at start would not.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::IpAddr;

use crate::netlink::{Link, MOST_QUESTIONS, Questions, REQUEST_ACK, Request};

// include/uapi/linux/rtnetlink.h
const RTM_GETROUTE: u16 = 26;
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

/// Asks the kernel, for all of them in one call.
///
/// # Errors
/// The kernel's silence.
pub fn owners(
    link: &mut Link,
    addresses: &BTreeSet<IpAddr>,
) -> io::Result<BTreeMap<IpAddr, Owner>> {
    // No route at all: not ours, at least.
    let mut owners: BTreeMap<_, _> = addresses
        .iter()
        .map(|address| (*address, Owner::Elsewhere))
        .collect();
    let all: Vec<IpAddr> = addresses.iter().copied().collect();
    for some in all.chunks(MOST_QUESTIONS) {
        let first = link.reserve(u32::try_from(some.len()).unwrap_or(u32::MAX));
        let mut questions = Questions::default();
        for (seq, address) in (first..).zip(some) {
            questions.ask(|bytes| bytes.extend(question(*address).into_bytes(seq)));
        }
        link.gather(&questions, first, |place, route| {
            let unicast = route.get(TYPE_AT) == Some(&RTN_UNICAST);
            if let (false, Some(address)) = (unicast, some.get(place)) {
                owners.insert(*address, Owner::NotAHost);
            }
        })?;
    }
    Ok(owners)
}

fn question(address: IpAddr) -> Request {
    let (family, octets) = match address {
        IpAddr::V4(v4) => (2, v4.octets().to_vec()),
        IpAddr::V6(v6) => (10, v6.octets().to_vec()),
    };
    let bits = if address.is_ipv4() { 32 } else { 128 };
    let header = [family, bits, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    Request::new(RTM_GETROUTE, REQUEST_ACK, &header).attribute(RTA_DST, &octets)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_loopback_is_ours_and_a_stranger_is_not() {
        let mut link = Link::route().expect("netlink socket");
        let [ours, theirs] =
            ["127.0.0.1", "198.51.100.77"].map(|text| text.parse().expect("address"));
        let asked = owners(&mut link, &[ours, theirs].into()).expect("the kernel answers");
        assert_eq!(asked.get(&ours), Some(&Owner::NotAHost));
        assert_eq!(asked.get(&theirs), Some(&Owner::Elsewhere));
        // The socket is fit for the next question.
        let again = owners(&mut link, &[ours].into()).expect("the kernel answers");
        assert_eq!(again.get(&ours), Some(&Owner::NotAHost));
    }
}
