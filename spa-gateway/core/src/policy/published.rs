//! What an address may stand for: `as`, by which a session knows a resource that has another address.
//!
//! Invariant: of one policy, an address and a port lead to one place, and a place has one such address; so whatever of it a
//! session is granted, its names never contradict each other.

use alloc::format;
use core::net::IpAddr;

use super::read::Wrong;
use super::{PortRange, Resource, Target};
use crate::name::Name;

/// Says what keeps a resource from being published by this address.
pub(super) fn fit(resource: &Resource, published: IpAddr) -> Result<(), Wrong> {
    let Target::Network { address, prefix } = resource.to else {
        return Err((
            "the gateway has its own address in the tunnel".into(),
            "leave `as` out, or write the address of one host to `to`".into(),
        ));
    };
    let host = if address.is_ipv4() { 32 } else { 128 };
    if prefix != host {
        return Err((
            "one address cannot stand for a network".into(),
            "leave `as` out, or write one resource with an `as` of its own for each host".into(),
        ));
    }
    if address.is_ipv4() != published.is_ipv4() {
        return Err((
            format!("`{published}` and `{address}` are of different families"),
            "write two addresses of IPv4 or two of IPv6".into(),
        ));
    }
    if let Some(range) = resource
        .ports
        .iter()
        .find(|range| range.first != range.last)
    {
        return Err((
            format!("an address stands for single ports, and `{range}` are several"),
            "name each port, or leave `as` out".into(),
        ));
    }
    Ok(())
}

/// Says why two resources of one policy cannot be where they say, whichever of them is published.
pub(super) fn clash(one: (&Name, &Resource), other: (&Name, &Resource)) -> Option<Wrong> {
    let ((one_name, one), (other_name, other)) = (one, other);
    let port = shared(one, other)?;
    let (one_at, other_at) = (one.found_at()?, other.found_at()?);
    let published = one.published.is_some() || other.published.is_some();
    if published && one_at == other_at && one.to != other.to {
        return Some((
            format!(
                "`{one_name}` and `{other_name}` are both found at {} {port}",
                one_at.0
            ),
            "publish one of them by another address".into(),
        ));
    }
    let twice = one.published.is_some() && other.published.is_some() && one_at != other_at;
    (twice && one.to == other.to).then(|| {
        (
            format!("`{one_name}` and `{other_name}` are one place with two addresses, for {port}"),
            "publish both by the same one".into(),
        )
    })
}

/// A port both have.
fn shared(one: &Resource, other: &Resource) -> Option<PortRange> {
    let meets = |a: &PortRange, b: &PortRange| {
        a.protocol == b.protocol && a.first <= b.last && b.first <= a.last
    };
    let mut ports = one.ports.iter();
    ports
        .find(|range| other.ports.iter().any(|theirs| meets(range, theirs)))
        .copied()
}
