//! Reads single values of the file: durations, ports, addresses, names. Knows no keys.

use alloc::borrow::ToOwned;
use alloc::boxed::Box;
use alloc::format;
use alloc::string::String;
use core::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use core::time::Duration;

use spa_order::Protocol;

use super::fact::FactSource;
use super::posture::Comparison;
use super::risk::RiskLimit;
use super::rule::{Factors, Network};
use super::{PortRange, Target};
use crate::name::Name;
use crate::settings::LONGEST_SESSION;

/// What is wrong with a value, and the remedy.
pub(super) type Wrong = (String, String);

/// The oldest facts a policy may take.
const LONGEST_AGE: Duration = Duration::from_secs(90 * 24 * 60 * 60);

/// Reads "90s", "30m", "8h" or "1d".
pub(super) fn duration(text: &str) -> Result<Duration, Wrong> {
    let wrong = || {
        (
            format!("`{}` is no session length", text.escape_debug()),
            r#"write a number and a unit from ten seconds to one day, as "30m", "8h" or "1d""#
                .to_owned(),
        )
    };
    span(text)
        .filter(|length| (Duration::from_secs(10)..=LONGEST_SESSION).contains(length))
        .ok_or_else(wrong)
}

/// Reads how old facts may be.
pub(super) fn max_age(text: &str) -> Result<Duration, Wrong> {
    span(text)
        .filter(|age| (Duration::from_secs(60)..=LONGEST_AGE).contains(age))
        .ok_or_else(|| {
            (
                format!("`{}` is no age", text.escape_debug()),
                r#"write a number and a unit from one minute to 90 days, as "15m" or "7d""#
                    .to_owned(),
            )
        })
}

/// Reads a number with a unit.
fn span(text: &str) -> Option<Duration> {
    let (number, unit) = text.split_at_checked(text.len().saturating_sub(1))?;
    if !number.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let number: u64 = number.parse().ok()?;
    let seconds = match unit {
        "s" => 1,
        "m" => 60,
        "h" => 60 * 60,
        "d" => 24 * 60 * 60,
        _ => return None,
    };
    number.checked_mul(seconds).map(Duration::from_secs)
}

/// Reads where the members of a group are kept.
pub(super) fn directory(text: &str) -> Result<Box<str>, Wrong> {
    let plain = text.len() <= 256 && !text.chars().any(char::is_control);
    let known = text
        .strip_prefix("ldap:")
        .is_some_and(|rest| !rest.is_empty());
    (plain && known).then(|| text.into()).ok_or_else(|| {
        (
            format!("`{}` is no directory", text.escape_debug()),
            r#"write `ldap:` and the name of the group there, or list the members"#.to_owned(),
        )
    })
}

/// Reads the name of a factor.
pub(super) fn factor(text: &str) -> Result<Factors, Wrong> {
    let named = Factors::NAMED.into_iter().find(|(name, _)| *name == text);
    named.map(|(_, factor)| factor).ok_or_else(|| {
        (
            format!("`{}` is no factor", text.escape_debug()),
            format!(
                "the factors are: {}",
                Factors::NAMED.map(|(name, _)| name).join(", ")
            ),
        )
    })
}

/// Reads who may say something of a device.
pub(super) fn source(text: &str) -> Result<FactSource, Wrong> {
    FactSource::named(text).ok_or_else(|| {
        (
            format!("`{}` is no source of facts", text.escape_debug()),
            format!(
                "the sources are: {}",
                FactSource::ALL.map(FactSource::name).join(", ")
            ),
        )
    })
}

/// Reads "<= 40" or "<= 40 else 15m".
pub(super) fn risk(text: &str) -> Result<RiskLimit, Wrong> {
    let wrong = || {
        (
            format!("`{}` is no limit of risk", text.escape_debug()),
            r#"write it as "<= 40", or "<= 40 else 15m" to shorten the session instead"#.to_owned(),
        )
    };
    let (limit, shortened) = match text.split_once(" else ") {
        Some((limit, length)) => (limit, Some(duration(length)?)),
        None => (text, None),
    };
    let (comparison, points) = Comparison::strip(limit);
    let plain = !points.is_empty() && points.bytes().all(|byte| byte.is_ascii_digit());
    let points = points.parse().ok().filter(|_| plain).ok_or_else(wrong)?;
    if comparison == Comparison::Equal {
        return Err(wrong());
    }
    if (comparison, points) == (Comparison::Below, 0) {
        return Err((
            "no risk is below 0: this can never hold".to_owned(),
            "write a higher number, or remove it".to_owned(),
        ));
    }
    Ok(RiskLimit {
        comparison,
        points,
        shortened,
    })
}

/// Reads an address a knock comes from.
pub(super) fn address(text: &str) -> Result<IpAddr, Wrong> {
    text.parse::<IpAddr>()
        .map(|address| address.to_canonical())
        .map_err(|_| {
            (
                format!("`{}` is no address", text.escape_debug()),
                r#"write it as "203.0.113.9""#.to_owned(),
            )
        })
}

/// Reads an address or a prefix a knock may come from.
pub(super) fn network(text: &str) -> Result<Network, Wrong> {
    let (address, prefix) = prefixed(text)?;
    if address != address.to_canonical() {
        return Err((
            format!(
                "`{}` is an IPv4 address in IPv6 clothes",
                text.escape_debug()
            ),
            "write it as an IPv4 address".to_owned(),
        ));
    }
    Ok(Network { address, prefix })
}

/// Reads "443/tcp" or "8000-8100/udp".
pub(super) fn ports(text: &str) -> Result<PortRange, Wrong> {
    let wrong = || {
        (
            format!("`{}` is no port", text.escape_debug()),
            r#"write PORT/PROTO or FIRST-LAST/PROTO with tcp or udp, as "443/tcp" or "8000-8100/tcp", or "icmp" for ping"#.to_owned(),
        )
    };
    if text == "icmp" {
        return Ok(PortRange {
            protocol: Protocol::Icmp,
            first: 0,
            last: 0,
        });
    }
    let (range, protocol) = text.split_once('/').ok_or_else(wrong)?;
    let protocol = match protocol {
        "tcp" => Protocol::Tcp,
        "udp" => Protocol::Udp,
        _ => return Err(wrong()),
    };
    let (first, last) = range.split_once('-').unwrap_or((range, range));
    let port = |digits: &str| {
        let plain = !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit());
        digits
            .parse::<u16>()
            .ok()
            .filter(|port| plain && *port != 0)
            .ok_or_else(wrong)
    };
    let (first, last) = (port(first)?, port(last)?);
    if first <= last {
        Ok(PortRange {
            protocol,
            first,
            last,
        })
    } else {
        Err(wrong())
    }
}

/// Reads "gateway", an address, or a prefix.
pub(super) fn target(text: &str) -> Result<Target, Wrong> {
    if text == "gateway" {
        return Ok(Target::Gateway);
    }
    let (address, prefix) = prefixed(text)?;
    if unreachable(address, prefix) {
        return Err((
            format!(
                "`{text}` can be no resource: it holds this network, loopback, link-local, multicast or reserved addresses"
            ),
            "name addresses of hosts behind the gateway".to_owned(),
        ));
    }
    Ok(Target::Network { address, prefix })
}

/// Reads the address a resource is published by.
pub(super) fn published(text: &str) -> Result<IpAddr, Wrong> {
    let address: IpAddr = text.parse().map_err(|_| {
        (
            format!("`{}` is no address", text.escape_debug()),
            r#"write one address, as "10.99.0.1""#.to_owned(),
        )
    })?;
    if unreachable(address, if address.is_ipv4() { 32 } else { 128 }) {
        return Err((
            format!("`{text}` can stand for no resource: no host has such an address"),
            "name an address that nothing else of yours has".to_owned(),
        ));
    }
    Ok(address)
}

/// Reads an address or a prefix without host bits.
fn prefixed(text: &str) -> Result<(IpAddr, u8), Wrong> {
    let wrong = || {
        (
            format!("`{}` is no address", text.escape_debug()),
            r#"write an address or a prefix, as "10.0.5.10" or "10.0.6.0/28""#.to_owned(),
        )
    };
    let (address, prefix) = match text.split_once('/') {
        Some((address, prefix)) => (address, Some(prefix)),
        None => (text, None),
    };
    let address: IpAddr = address.parse().map_err(|_| wrong())?;
    let longest = if address.is_ipv4() { 32 } else { 128 };
    let prefix = match prefix {
        None => longest,
        Some(digits) => digits
            .parse()
            .ok()
            .filter(|prefix| *prefix <= longest)
            .ok_or_else(wrong)?,
    };
    let first = first_of(address, prefix);
    if first != address {
        return Err((
            format!("`{text}` names a host and a prefix at once"),
            format!("write `{first}/{prefix}` for the network or `{address}` for the host"),
        ));
    }
    Ok((address, prefix))
}

/// Gives the first address of a prefix.
pub(super) fn first_of(address: IpAddr, prefix: u8) -> IpAddr {
    let prefix = u32::from(prefix);
    match address {
        IpAddr::V4(v4) => {
            let mask = u32::MAX
                .checked_shl(32_u32.saturating_sub(prefix))
                .unwrap_or(0);
            IpAddr::V4((u32::from(v4) & mask).into())
        }
        IpAddr::V6(v6) => {
            let mask = u128::MAX
                .checked_shl(128_u32.saturating_sub(prefix))
                .unwrap_or(0);
            IpAddr::V6((u128::from(v6) & mask).into())
        }
    }
}

/// Where no ordinary host is (RFC 6890). The enforcer opens no way there, and clients take no route (SPEC §6).
const NOWHERE: [(IpAddr, u8); 8] = [
    (IpAddr::V4(Ipv4Addr::UNSPECIFIED), 8),
    (IpAddr::V4(Ipv4Addr::new(127, 0, 0, 0)), 8),
    (IpAddr::V4(Ipv4Addr::new(169, 254, 0, 0)), 16),
    (IpAddr::V4(Ipv4Addr::new(224, 0, 0, 0)), 3),
    // Unspecified, loopback, and IPv4 in IPv6 clothes.
    (IpAddr::V6(Ipv6Addr::UNSPECIFIED), 127),
    (IpAddr::V6(Ipv6Addr::new(0, 0, 0, 0, 0, 0xFFFF, 0, 0)), 96),
    (IpAddr::V6(Ipv6Addr::new(0xFE80, 0, 0, 0, 0, 0, 0, 0)), 10),
    (IpAddr::V6(Ipv6Addr::new(0xFF00, 0, 0, 0, 0, 0, 0, 0)), 8),
];

fn unreachable(address: IpAddr, prefix: u8) -> bool {
    let network = (address, prefix);
    NOWHERE.iter().any(|nowhere| overlap(*nowhere, network))
}

/// Says whether two networks have an address in common.
pub(super) fn overlap((a, a_prefix): (IpAddr, u8), (b, b_prefix): (IpAddr, u8)) -> bool {
    let common = a_prefix.min(b_prefix);
    a.is_ipv4() == b.is_ipv4() && first_of(a, common) == first_of(b, common)
}

/// Reads a name.
pub(super) fn name(text: &str) -> Result<Name, Wrong> {
    Name::parse(text).map_err(|why| {
        (
            format!("`{}` is no name", text.escape_debug()),
            format!("{why}"),
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_length_has_a_unit_and_lies_between_ten_seconds_and_a_day() {
        assert_eq!(duration("90s"), Ok(Duration::from_secs(90)));
        assert_eq!(duration("24h"), Ok(LONGEST_SESSION));
        assert_eq!(duration("1d"), Ok(LONGEST_SESSION));
        for bad in [
            "",
            "h",
            "8",
            "8 h",
            "-1h",
            "+1h",
            "9s",
            "25h",
            "2d",
            "1w",
            "99999999999999999999h",
            "8ä",
        ] {
            assert!(duration(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn ports_are_one_or_a_range_with_a_protocol() {
        let range = ports("8000-8100/udp").expect("a range");
        assert_eq!(
            (range.protocol, range.first, range.last),
            (Protocol::Udp, 8000, 8100)
        );
        assert!(ports("65535/tcp").is_ok());
        for bad in [
            "443",
            "443/sctp",
            "0/tcp",
            "65536/tcp",
            "9-8/tcp",
            "-/tcp",
            "+1/tcp",
            "1-2-3/tcp",
            "/tcp",
            "icmp/tcp",
            "8/icmp",
        ] {
            assert!(ports(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_prefix_with_host_bits_is_met_with_both_ways_to_write_it() {
        let (_, remedy) = target("10.0.6.5/28").expect_err("host bits");
        assert!(remedy.contains("10.0.6.0/28") && remedy.contains("10.0.6.5"));
        for good in ["gateway", "10.0.6.0/28", "10.0.5.10", "fd00::/64"] {
            assert!(target(good).is_ok(), "{good}");
        }
        for bad in [
            "",
            "gw",
            "10.0.0",
            "10.0.0.0/33",
            "127.0.0.1",
            "224.0.0.1",
            "::1",
            "0.0.0.0",
            "::ffff:10.0.0.1",
            "fd00::/129",
            "0.0.0.0/0",
            "::/0",
            "128.0.0.0/1",
            "126.0.0.0/7",
            "169.254.169.254",
            "255.255.255.255",
            "0.1.2.3",
            "fe80::1",
        ] {
            assert!(target(bad).is_err(), "{bad}");
        }
    }
}
