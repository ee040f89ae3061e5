//! Which flows a set of resources needs. Invariant: the flows of one session never overlap, since
//! the kernel's interval sets refuse elements that do.

use alloc::collections::BTreeMap;
use alloc::vec::Vec;
use core::cmp::Reverse;
use core::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use litemap::LiteMap;
use spa_order::{Flow, FlowTarget, Protocol};
use spa_proto::WallTime;

use super::read::first_of;
use super::{Mode, Policy, PortRange, Resource, Target};
use crate::few::exactly;
use crate::name::Name;

/// The ends of a session's tunnel.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Tunnel {
    /// The session's IPv4 address, and the gateway's.
    pub(crate) v4: Option<(Ipv4Addr, Ipv4Addr)>,
    /// The session's IPv6 address, and the gateway's.
    pub(crate) v6: Option<(Ipv6Addr, Ipv6Addr)>,
}

impl Tunnel {
    /// Gives the (session, gateway) pairs of addresses.
    fn pairs(self) -> impl Iterator<Item = (IpAddr, IpAddr)> {
        let v4 = self
            .v4
            .map(|(session, gateway)| (session.into(), gateway.into()));
        let v6 = self
            .v6
            .map(|(session, gateway)| (session.into(), gateway.into()));
        v4.into_iter().chain(v6)
    }
}

/// Gives the flows of a session, each with its end: those of its resources, which end with these, and the
/// control channel, which ends with the session.
///
/// Where two resources share ground, the wider one's end counts for it; when that has come, the flows of
/// what is left are computed anew.
pub(crate) fn flows_of(
    policy: &Policy,
    resources: &LiteMap<Name, WallTime>,
    tunnel: Tunnel,
    control_port: Option<u16>,
    not_after: WallTime,
) -> LiteMap<Flow, WallTime> {
    let control = control_port
        .into_iter()
        .flat_map(|port| control_flows(tunnel, port));
    let mut wanted: Vec<(Flow, WallTime)> = control.map(|flow| (flow, not_after)).collect();
    for (name, until) in resources {
        if let Some(resource) = policy.resource(name) {
            let flows = resource_flows(resource, tunnel).into_iter();
            wanted.extend(flows.map(|flow| (flow, *until)));
        }
    }
    disjoint(wanted)
}

/// Gives the flows of the control channel.
fn control_flows(tunnel: Tunnel, port: u16) -> Vec<Flow> {
    let ports = [PortRange {
        protocol: Protocol::Tcp,
        first: port,
        last: port,
    }];
    resource_flows(
        &Resource {
            to: Target::Gateway,
            published: None,
            ports: ports.to_vec(),
            mode: Mode::Enforce,
            sensitivity: 0,
        },
        tunnel,
    )
}

/// Gives the flows of one resource, from the tunnel address of its family.
fn resource_flows(resource: &Resource, tunnel: Tunnel) -> Vec<Flow> {
    let mut flows = Vec::new();
    for (session, gateway) in tunnel.pairs() {
        let (to, destination, prefix) = match resource.to {
            Target::Gateway => (FlowTarget::Gateway, gateway, host_prefix(gateway)),
            Target::Network { address, prefix } => (FlowTarget::Forward, address, prefix),
        };
        if destination.is_ipv4() == session.is_ipv4() {
            flows.extend(resource.ports.iter().map(|ports| Flow {
                tunnel: session,
                to,
                destination,
                prefix,
                protocol: ports.protocol,
                ports: (ports.first, ports.last),
                published: resource.published,
            }));
        }
    }
    flows
}

const fn host_prefix(address: IpAddr) -> u8 {
    if address.is_ipv4() { 32 } else { 128 }
}

/// Covers the same ground without overlap. Prefixes either nest or are apart, so going from the
/// widest to the narrowest, only ports must be cut. Of the same host a port that is published goes first: it stands for
/// itself and for the one that is not.
fn disjoint(mut wanted: Vec<(Flow, WallTime)>) -> LiteMap<Flow, WallTime> {
    wanted.sort_by_key(|(flow, until)| {
        let plain = flow.published.is_none();
        (flow.prefix, plain, *flow, Reverse(*until))
    });
    let mut flows: BTreeMap<Flow, WallTime> = BTreeMap::new();
    for (flow, until) in wanted {
        let mut uncovered = alloc::vec![flow.ports];
        for other in flows.keys().filter(|other| covers(other, &flow)) {
            uncovered = uncovered
                .into_iter()
                .flat_map(|ports| cut(ports, other.ports))
                .collect();
        }
        flows.extend(
            uncovered
                .into_iter()
                .map(|ports| (Flow { ports, ..flow }, until)),
        );
    }
    exactly(flows.into_iter())
}

/// Says whether, ports aside, all that `narrow` lets through `wide` lets through too. What is published is covered by
/// nothing that is not: without its flow its name would be gone.
fn covers(wide: &Flow, narrow: &Flow) -> bool {
    (narrow.published.is_none() || narrow.published == wide.published)
        && wide.tunnel == narrow.tunnel
        && wide.to == narrow.to
        && wide.protocol == narrow.protocol
        && wide.prefix <= narrow.prefix
        && first_of(narrow.destination, wide.prefix) == wide.destination
}

/// Cuts a range of ports out of another: what is left below and above.
fn cut((first, last): (u16, u16), (from, to): (u16, u16)) -> impl Iterator<Item = (u16, u16)> {
    let below = from.checked_sub(1).map(|end| (first, last.min(end)));
    let above = to.checked_add(1).map(|start| (first.max(start), last));
    [below, above]
        .into_iter()
        .flatten()
        .filter(|(first, last)| first <= last)
}

#[cfg(test)]
mod tests {
    use super::*;

    const TUNNEL: Tunnel = Tunnel {
        v4: Some((Ipv4Addr::new(10, 200, 0, 7), Ipv4Addr::new(10, 200, 0, 1))),
        v6: None,
    };

    fn flows(text: &str, names: &[&str]) -> Vec<(FlowTarget, IpAddr, u8, (u16, u16))> {
        let policy = Policy::parse(text).expect("a valid policy");
        let end = WallTime::from_millis(1);
        let names: LiteMap<Name, WallTime> = names
            .iter()
            .map(|name| (Name::parse(name).expect("a name"), end))
            .collect();
        flows_of(&policy, &names, TUNNEL, Some(8700), end)
            .keys()
            .map(|flow| (flow.to, flow.destination, flow.prefix, flow.ports))
            .collect()
    }

    #[test]
    fn a_session_without_resources_has_the_control_channel_alone() {
        let control = (
            FlowTarget::Gateway,
            IpAddr::V4(Ipv4Addr::new(10, 200, 0, 1)),
            32,
            (8700, 8700),
        );
        assert_eq!(flows("", &[]), [control]);
    }

    #[test]
    fn overlapping_resources_become_flows_that_do_not_overlap() {
        let text = r#"
            [resource]
            net  = { to = "10.0.6.0/24", ports = ["80-90/tcp"] }
            host = { to = "10.0.6.3", ports = ["85-95/tcp", "70-200/udp", "82/tcp"] }
            all  = { to = "gateway", ports = ["8000-9000/tcp"] }
        "#;
        let all = flows(text, &["net", "host", "all"]);
        let host = IpAddr::V4(Ipv4Addr::new(10, 0, 6, 3));
        let gateway = IpAddr::V4(Ipv4Addr::new(10, 200, 0, 1));
        assert_eq!(
            all,
            [
                (
                    FlowTarget::Forward,
                    IpAddr::V4(Ipv4Addr::new(10, 0, 6, 0)),
                    24,
                    (80, 90)
                ),
                (FlowTarget::Forward, host, 32, (91, 95)),
                (FlowTarget::Forward, host, 32, (70, 200)),
                (FlowTarget::Gateway, gateway, 32, (8000, 9000)),
            ]
        );
    }

    /// The flow is to where the resource is, with the address by which it is known; and nothing wider takes that away.
    #[test]
    fn a_published_resource_keeps_its_name_beside_whatever_covers_it() {
        let text = r#"
            [resource]
            wiki  = { to = "10.0.5.10", ports = ["443/tcp", "icmp"], as = "10.99.0.1" }
            plain = { to = "10.0.5.10", ports = ["440-450/tcp"] }
            net   = { to = "10.0.5.0/24", ports = ["1-65535/tcp"] }
        "#;
        let policy = Policy::parse(text).expect("a valid policy");
        let end = WallTime::from_millis(1);
        let of = |names: &[&str]| {
            let names = names
                .iter()
                .map(|name| (Name::parse(name).expect("a name"), end));
            let flows = flows_of(&policy, &names.collect(), TUNNEL, None, end);
            let shown = flows
                .keys()
                .map(|flow| (flow.prefix, flow.protocol, flow.ports, flow.published));
            shown.collect::<Vec<_>>()
        };
        let known = Some(IpAddr::V4(Ipv4Addr::new(10, 99, 0, 1)));
        let (tcp, echo) = (Protocol::Tcp, Protocol::Icmp);
        assert_eq!(
            of(&["wiki", "plain"]),
            [
                (32, tcp, (440, 442), None),
                (32, tcp, (443, 443), known),
                (32, tcp, (444, 450), None),
                (32, echo, (0, 0), known),
            ]
        );
        assert_eq!(
            of(&["wiki", "plain", "net"]),
            [
                (24, tcp, (1, 65_535), None),
                (32, tcp, (443, 443), known),
                (32, echo, (0, 0), known),
            ]
        );
    }

    #[test]
    fn a_resource_of_a_family_the_session_lacks_has_no_flow() {
        let text = r#"resource.six = { to = "fd00::1", ports = ["1-65535/tcp"] }"#;
        assert_eq!(flows(text, &["six"]).len(), 1);
    }
}
