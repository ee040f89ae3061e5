//! What the machine's network looks like: interfaces, addresses, forwarding, other people's tables.

use std::net::IpAddr;
use std::process::{Command, Stdio};

use pnet::datalink;
use serde_json::Value;

/// One network interface.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Link {
    /// Its name.
    pub name: String,
    /// Its addresses.
    pub addresses: Vec<IpAddr>,
    /// It is the loopback interface.
    pub loopback: bool,
}

/// Lists the interfaces.
#[must_use]
pub fn links() -> Vec<Link> {
    datalink::interfaces()
        .into_iter()
        .map(|interface| Link {
            loopback: interface.is_loopback(),
            addresses: interface.ips.iter().map(ipnet_address).collect(),
            name: interface.name,
        })
        .collect()
}

/// Lists every address that is ours.
#[must_use]
pub fn own_addresses() -> Vec<IpAddr> {
    links()
        .into_iter()
        .flat_map(|link| link.addresses)
        .collect()
}

fn ipnet_address(network: &pnet::ipnetwork::IpNetwork) -> IpAddr {
    network.ip()
}

/// Gives the interface of the default route, the likely one for knocks.
#[must_use]
pub fn default_route() -> Option<String> {
    let table = std::fs::read_to_string("/proc/net/route").ok()?;
    default_route_in(&table)
}

/// `Iface Destination Gateway Flags …`, numbers in hex.
fn default_route_in(table: &str) -> Option<String> {
    table.lines().skip(1).find_map(|line| {
        let mut fields = line.split_whitespace();
        let interface = fields.next()?;
        (fields.next()? == "00000000").then(|| interface.to_owned())
    })
}

/// An IP version whose packets the kernel does not forward, with the remedy.
#[must_use]
pub fn forwarding_off(v4: bool, v6: bool) -> Vec<&'static str> {
    let switches = [
        (v4, "/proc/sys/net/ipv4/ip_forward", "net.ipv4.ip_forward"),
        (
            v6,
            "/proc/sys/net/ipv6/conf/all/forwarding",
            "net.ipv6.conf.all.forwarding",
        ),
    ];
    let is_off = |file: &str| std::fs::read_to_string(file).is_ok_and(|text| text.trim() == "0");
    switches
        .into_iter()
        .filter(|(wanted, file, _)| *wanted && is_off(file))
        .map(|(_, _, switch)| switch)
        .collect()
}

/// A base chain of somebody else that drops what no rule of it accepts.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ForeignChain {
    /// `FAMILY TABLE CHAIN`, as nft takes it.
    pub chain: String,
    /// `input` or `forward`.
    pub hook: String,
}

impl ForeignChain {
    /// Says what it does to us and how to mend it.
    #[must_use]
    pub fn advice(&self, wireguard_interface: &str, wireguard_port: u16) -> String {
        let rules = match self.hook.as_str() {
            "input" => format!(
                "`nft insert rule {chain} udp dport {wireguard_port} accept` and `nft insert rule {chain} iifname {wireguard_interface} accept`",
                chain = self.chain
            ),
            _ => format!(
                "`nft insert rule {chain} iifname {wireguard_interface} accept` and `nft insert rule {chain} oifname {wireguard_interface} accept`",
                chain = self.chain
            ),
        };
        format!(
            "chain {} (hook {}) drops what it does not accept, and no table can accept for another: {rules} leave these packets to our own table",
            self.chain, self.hook
        )
    }
}

/// Lists other people's base chains that would drop our packets; `None` if nobody can tell (no `nft`, no privilege).
#[must_use]
pub fn foreign_chains() -> Option<Vec<ForeignChain>> {
    let listed = Command::new("nft")
        .args(["-j", "list", "chains"])
        .stdin(Stdio::null())
        .stderr(Stdio::null())
        .output()
        .ok()?;
    let listing: Value = serde_json::from_slice(&listed.stdout).ok()?;
    Some(foreign_chains_in(&listing))
}

fn foreign_chains_in(listing: &Value) -> Vec<ForeignChain> {
    let objects = listing["nftables"].as_array();
    objects
        .into_iter()
        .flatten()
        .filter_map(|object| object.get("chain"))
        .filter(|chain| !(chain["family"] == "inet" && chain["table"] == "spa"))
        .filter(|chain| chain["policy"] == "drop")
        .filter(|chain| {
            ["ip", "ip6", "inet"]
                .iter()
                .any(|family| chain["family"] == *family)
        })
        .filter_map(|chain| {
            let hook = chain["hook"].as_str()?;
            let text = |key: &str| chain[key].as_str().unwrap_or_default().to_owned();
            ["input", "forward"].contains(&hook).then(|| ForeignChain {
                chain: [text("family"), text("table"), text("name")].join(" "),
                hook: hook.to_owned(),
            })
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_default_route_names_its_interface() {
        let table =
            "Iface\tDestination\tGateway\nlan0\t0005000A\t00000000\neth0\t00000000\t01000A0A\n";
        assert_eq!(default_route_in(table).as_deref(), Some("eth0"));
        assert_eq!(default_route_in("Iface\n"), None);
    }

    #[test]
    fn only_foreign_chains_that_drop_are_named() {
        let listing = serde_json::json!({"nftables": [
            {"metainfo": {}},
            {"chain": {"family": "inet", "table": "spa", "name": "input", "hook": "input", "policy": "drop"}},
            {"chain": {"family": "inet", "table": "filter", "name": "forward", "hook": "forward", "policy": "drop"}},
            {"chain": {"family": "ip", "table": "nat", "name": "post", "hook": "postrouting", "policy": "drop"}},
            {"chain": {"family": "inet", "table": "filter", "name": "input", "hook": "input", "policy": "accept"}},
            {"chain": {"family": "inet", "table": "filter", "name": "helper"}},
        ]});
        let found = foreign_chains_in(&listing);
        let [chain] = &found[..] else {
            panic!("one chain: {found:?}")
        };
        assert_eq!(chain.chain, "inet filter forward");
        let advice = chain.advice("spa0", 51820);
        assert!(
            advice.contains("nft insert rule inet filter forward iifname spa0 accept"),
            "{advice}"
        );
        assert!(!advice.contains('\n'));
    }

    #[test]
    fn the_loopback_interface_is_ours() {
        let links = links();
        assert!(links.iter().any(|link| link.loopback), "{links:?}");
    }
}
