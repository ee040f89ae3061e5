//! What the machine's network looks like: interfaces, addresses, forwarding, other people's tables.

use std::net::IpAddr;
use std::process::{Command, Stdio};

use pnet::datalink;

use crate::config::Subnet;

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

/// Lists the networks of every interface but the loopback and this one, with the interface's name.
#[must_use]
pub fn networks_of_others(tunnel: &str) -> Vec<(String, Subnet)> {
    let interfaces = datalink::interfaces();
    let others = interfaces
        .iter()
        .filter(|interface| interface.name != tunnel && !interface.is_loopback());
    let networks = others.flat_map(|interface| {
        let subnets = interface.ips.iter().map(|network| Subnet {
            address: network.ip(),
            prefix: network.prefix(),
        });
        subnets.map(|subnet| (interface.name.clone(), subnet))
    });
    networks.collect()
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

/// Names chains of the old iptables, which nf_tables does not show, that drop what they do not accept.
#[must_use]
pub fn legacy_chains(tunnel: &str, port: u16) -> Vec<String> {
    let mut lines = Vec::new();
    for (names, program) in [
        ("/proc/net/ip_tables_names", "iptables-legacy"),
        ("/proc/net/ip6_tables_names", "ip6tables-legacy"),
    ] {
        // Asking loads the modules of a table that nobody uses.
        let loaded = std::fs::read_to_string(names).unwrap_or_default();
        if !loaded.lines().any(|name| name == "filter") {
            continue;
        }
        let asked = Command::new(program)
            .arg("-S")
            .stdin(Stdio::null())
            .stderr(Stdio::null())
            .output();
        match asked {
            Ok(listed) => {
                let text = String::from_utf8_lossy(&listed.stdout);
                lines.extend(legacy_chains_in(&text, program, tunnel, port));
            }
            Err(_) => lines.push(format!(
                "the kernel has rules of the old iptables, and no `{program}` is here to list them; if they drop what they do not accept, accept {tunnel} and UDP port {port} there"
            )),
        }
    }
    lines
}

fn legacy_chains_in(listing: &str, program: &str, tunnel: &str, port: u16) -> Vec<String> {
    let words: Vec<Vec<&str>> = listing
        .lines()
        .map(|line| line.split_whitespace().collect())
        .collect();
    let is_end = |target: &str| target == "DROP" || target == "REJECT";
    let drops = |chain: &str| {
        words.iter().any(|line| match line[..] {
            ["-P", named, "DROP"] => named == chain,
            ["-A", named, "-j", target, ..] => named == chain && is_end(target),
            _ => false,
        })
    };
    let names = |wanted: &str| words.iter().any(|line| line.contains(&wanted));
    let mut lines = Vec::new();
    let mut advise = |chain: &str, rules: [String; 2]| {
        let [first, second] = rules.map(|rule| format!("`{program} -I {chain} {rule} -j ACCEPT`"));
        lines.push(format!(
            "chain {chain} of {program} drops what it does not accept, and no table can accept for another: {first} and {second} leave these packets to our own table"
        ));
    };
    if drops("INPUT") && !names(&port.to_string()) {
        advise(
            "INPUT",
            [format!("-p udp --dport {port}"), format!("-i {tunnel}")],
        );
    }
    if drops("FORWARD") && !names(tunnel) {
        advise("FORWARD", [format!("-i {tunnel}"), format!("-o {tunnel}")]);
    }
    lines
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
    fn chains_of_the_old_iptables_are_named_until_they_are_mended() {
        let found = |listing| legacy_chains_in(listing, "iptables-legacy", "spa0", 51820);
        let open = "-P INPUT ACCEPT\n-P FORWARD ACCEPT\n-A INPUT -s 192.0.2.1/32 -j DROP\n";
        assert_eq!(found(open), Vec::<String>::new());
        let shut = "-P INPUT ACCEPT\n-P FORWARD DROP\n-A INPUT -i lo -j ACCEPT\n-A INPUT -j REJECT --reject-with icmp-port-unreachable\n";
        let lines = found(shut);
        let [input, forward] = &lines[..] else {
            panic!("two chains: {lines:?}")
        };
        assert!(
            input.contains("`iptables-legacy -I INPUT -p udp --dport 51820 -j ACCEPT`"),
            "{input}"
        );
        assert!(
            forward.contains("`iptables-legacy -I FORWARD -o spa0 -j ACCEPT`"),
            "{forward}"
        );
        let mended = format!(
            "{shut}-A INPUT -p udp -m udp --dport 51820 -j ACCEPT\n-A FORWARD -i spa0 -j ACCEPT\n"
        );
        assert_eq!(found(&mended), Vec::<String>::new());
    }

    #[test]
    fn the_loopback_interface_is_ours() {
        let links = links();
        assert!(links.iter().any(|link| link.loopback), "{links:?}");
    }
}
