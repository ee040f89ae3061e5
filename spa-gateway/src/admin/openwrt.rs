//! OpenWrt: what `/etc/config/spa-gateway` says, checked against the router's networks and zones, as `gateway.toml`.
//!
//! UCI is the place where it is configured; the file is made of it at every start of the service, and written only when it has
//! changed, for it lies on flash. Every refusal names the option.

mod uci;

use std::fs;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};

use clap::Args;

use crate::config::{Config, Paths, Subnet};
use crate::{files, network};
use uci::{Package, Section};

/// What only OpenWrt has.
const RELEASE: &str = "/etc/openwrt_release";
/// Everything a section `gateway` may say.
const KEYS: [&str; 18] = [
    "enabled",
    "public",
    "network",
    "device",
    "port",
    "wireguard_port",
    "interface",
    "pool",
    "backend",
    "wan_zone",
    "zone",
    "lan_zone",
    "keep_open",
    "masquerade",
    "door",
    "longest",
    "clock_trust",
    "control_port",
];

/// The flags of `uci`.
#[derive(Debug, Args)]
pub struct UciArgs {
    /// A network and its interface, as netifd has them now; repeat for several
    #[arg(long = "device", value_name = "NETWORK=INTERFACE")]
    pub devices: Vec<String>,
    /// Where UCI keeps its files
    #[arg(long, value_name = "DIR", default_value = "/etc/config")]
    pub uci: PathBuf,
}

/// Whether this machine is one.
#[must_use]
pub fn is_here() -> bool {
    Path::new(RELEASE).exists()
}

/// Where things lie: `/var` is memory there.
#[must_use]
pub fn paths() -> Paths {
    Paths {
        state: "/etc/spa/state".into(),
        runtime: "/var/run/spa".into(),
        ..Paths::default()
    }
}

/// Writes the answers of `init` where OpenWrt keeps them.
///
/// # Errors
/// One line.
pub fn remember(text: &str) -> Result<(), String> {
    fs::write("/etc/config/spa-gateway", text)
        .map_err(|error| format!("cannot write /etc/config/spa-gateway: {error}"))
}

/// Makes `config` of what UCI says.
///
/// # Errors
/// One line that names the option; then nothing is changed.
pub fn run(config: &Path, args: &UciArgs) -> Result<(), String> {
    let router = Router::read(&args.uci, &args.devices)?;
    let text = router.config_text()?;
    Config::parse(&text, config).map_err(|error| {
        format!(
            "{} makes a configuration that is refused: {error}",
            router.gateway.file.display()
        )
    })?;
    if fs::read_to_string(config).is_ok_and(|old| old == text) {
        return Ok(());
    }
    let written = match config.symlink_metadata() {
        Ok(_) => files::replace(config, text.as_bytes()),
        Err(_) => files::create_new(config, 0o644, text.as_bytes()).map(drop),
    };
    written.map_err(|error| error.to_string())
}

/// What UCI says, read whole.
struct Router {
    gateway: Package,
    network: Package,
    firewall: Package,
    devices: Vec<(String, String)>,
}

impl Router {
    fn read(folder: &Path, devices: &[String]) -> Result<Self, String> {
        let pair = |given: &String| {
            let pair = given.split_once('=');
            pair.map(|(network, device)| (network.to_owned(), device.to_owned()))
                .ok_or_else(|| format!("--device {given}: expected NETWORK=INTERFACE"))
        };
        Ok(Self {
            gateway: Package::read(&folder.join("spa-gateway"))?,
            network: Package::read(&folder.join("network"))?,
            firewall: Package::read(&folder.join("firewall"))?,
            devices: devices.iter().map(pair).collect::<Result<_, _>>()?,
        })
    }

    /// `gateway.toml`.
    fn config_text(&self) -> Result<String, String> {
        let file = self.gateway.file.display();
        let mut sections = self.gateway.of("gateway");
        let main = sections.next().ok_or_else(|| {
            format!("{file}: no section `gateway`; write `config gateway 'main'`")
        })?;
        if sections.next().is_some() {
            return Err(format!("{file}: two sections `gateway`; keep one"));
        }
        let options = Options {
            file: file.to_string(),
            section: main,
        };
        if let Some(unknown) = main.keys().find(|key| !KEYS.contains(key)) {
            return options.refuse(
                unknown,
                "is no option of ours; correct its name or remove it",
            );
        }
        let interfaces = self.interfaces(&options)?;
        self.check_zones(&options, &interfaces)?;
        let pools = self.pools(&options)?;
        let quoted = |key: &str, default: &str| quote(main.option(key).unwrap_or(default));
        let list = |items: &[String]| {
            let quoted: Vec<_> = items.iter().map(|item| quote(item)).collect();
            format!("[{}]", quoted.join(", "))
        };
        let keep_open: Vec<_> = main.list("keep_open").map(str::to_owned).collect();
        let port = options.number("port", "51820")?;
        Ok(format!(
            "# Made of {file} by `spa-admin uci` at every start of the service: change that, not this.\n\
             [knock]\n\
             interfaces = {interfaces}\n\
             port = {port}\n\
             public = {public}\n\
             [wireguard]\n\
             interface = {interface}\n\
             port = {wireguard_port}\n\
             backend = {backend}\n\
             addresses = {addresses}\n\
             [firewall]\n\
             mode = \"fw4\"\n\
             keep-open = {keep_open}\n\
             masquerade = {masquerade}\n\
             [session]\n\
             door = {door}\n\
             longest = {longest}\n\
             [control]\n\
             port = {control_port}\n\
             [paths]\n\
             policy = \"/etc/spa/policy.toml\"\n\
             state = \"/etc/spa/state\"\n\
             runtime = \"/var/run/spa\"\n\
             [clock]\n\
             trust = {trust}\n",
            interfaces = list(&interfaces),
            public = quote(&options.required(
                "public",
                "the address and port clients reach, like '198.51.100.10:51820'"
            )?),
            interface = quoted("interface", "spa0"),
            wireguard_port = options.number("wireguard_port", &port.to_string())?,
            backend = quoted("backend", "auto"),
            addresses = list(&pools.iter().map(ToString::to_string).collect::<Vec<_>>()),
            keep_open = list(&keep_open),
            masquerade = options.boolean("masquerade")?,
            door = quoted("door", "10s"),
            longest = quoted("longest", "24h"),
            control_port = options.number("control_port", "8700")?,
            trust = quoted("clock_trust", "auto"),
        ))
    }

    /// The knock interfaces: networks by netifd's word, and devices by name.
    fn interfaces(&self, options: &Options<'_>) -> Result<Vec<String>, String> {
        let mut interfaces: Vec<String> =
            options.section.list("device").map(str::to_owned).collect();
        for name in options.section.list("network") {
            let known = self
                .network
                .of("interface")
                .find(|known| known.name == name);
            let Some(known) = known else {
                return options.refuse_value(
                    "network",
                    name,
                    "there is no such interface in the network configuration; `uci show network | grep =interface` lists them",
                );
            };
            let now = self.devices.iter().find(|(network, _)| network == name);
            let device = now.map(|(_, device)| device.as_str());
            let device = device
                .or(known.option("device"))
                .filter(|device| !device.is_empty());
            let Some(device) = device else {
                return options.refuse_value(
                    "network",
                    name,
                    "it has no interface yet; the service starts by itself when it is up",
                );
            };
            if !interfaces.iter().any(|known| known == device) {
                interfaces.push(device.to_owned());
            }
        }
        if interfaces.is_empty() {
            return options.refuse(
                "network",
                "is missing; name the network strangers come from, like 'wan'",
            );
        }
        Ok(interfaces)
    }

    /// fw4 makes our rules for these zones; one that is not there would leave us without, and nobody told.
    fn check_zones(&self, options: &Options<'_>, interfaces: &[String]) -> Result<(), String> {
        let zone = |name: &str| {
            self.firewall
                .of("zone")
                .find(|zone| zone.option("name") == Some(name))
        };
        for (key, default) in [("wan_zone", "wan"), ("zone", "spa"), ("lan_zone", "lan")] {
            let given: Vec<_> = options.section.list(key).collect();
            let names = if given.is_empty() {
                vec![default]
            } else {
                given
            };
            if let Some(missing) = names.iter().find(|name| zone(name).is_none()) {
                return options.refuse_value(
                    key,
                    missing,
                    "there is no zone of that name in the firewall configuration; `uci show firewall | grep name` lists them",
                );
            }
        }
        let tunnel = options.section.option("interface").unwrap_or("spa0");
        let own = options.section.option("zone").unwrap_or("spa");
        let of_zone = zone(own);
        let holds = of_zone.is_some_and(|zone| {
            let by_network = |network: &str| {
                let known = self
                    .network
                    .of("interface")
                    .find(|known| known.name == network);
                known.is_some_and(|known| known.option("device") == Some(tunnel))
            };
            zone.list("device").any(|device| device == tunnel)
                || zone
                    .list("network")
                    .flat_map(str::split_whitespace)
                    .any(by_network)
        });
        if !holds {
            return options.refuse_value(
                "zone",
                own,
                &format!("{tunnel} is not in that zone; run `uci add_list firewall.@zone[…].device='{tunnel}'` for it"),
            );
        }
        if interfaces.iter().any(|interface| interface == tunnel) {
            return options.refuse_value(
                "interface",
                tunnel,
                "strangers come from there; give the tunnel a name of its own, like 'spa0'",
            );
        }
        Ok(())
    }

    /// The pools, which must be nobody's yet.
    fn pools(&self, options: &Options<'_>) -> Result<Vec<Subnet>, String> {
        let given: Vec<_> = options.section.list("pool").collect();
        let given = if given.is_empty() {
            vec!["10.200.0.0/16"]
        } else {
            given
        };
        let mut pools = Vec::new();
        for text in given {
            let pool: Subnet = match text.parse() {
                Ok(pool) => pool,
                Err(error) => return options.refuse_value("pool", text, &format!("{error}")),
            };
            let tunnel = options.section.option("interface").unwrap_or("spa0");
            let configured = self.configured(tunnel);
            let live = network::networks_of_others(tunnel);
            let taken = configured.into_iter().chain(live);
            if let Some((whose, taken)) = taken.into_iter().find(|(_, taken)| pool.overlaps(*taken))
            {
                return options.refuse_value(
                    "pool",
                    text,
                    &format!("it overlaps {taken} of {whose}; choose a network that is nobody's, like '10.201.0.0/16'"),
                );
            }
            pools.push(Subnet {
                address: if pool.address == pool.network() {
                    pool.first_host()
                } else {
                    pool.address
                },
                prefix: pool.prefix,
            });
        }
        Ok(pools)
    }

    /// The networks with static addresses, up or not.
    fn configured(&self, tunnel: &str) -> Vec<(String, Subnet)> {
        let mut all = Vec::new();
        for interface in self.network.of("interface") {
            if interface.option("device") == Some(tunnel) {
                continue;
            }
            let mask = interface
                .option("netmask")
                .and_then(|mask| mask.parse().ok());
            let bits = mask.map_or(32, |mask: Ipv4Addr| mask.to_bits().count_ones());
            for address in ["ipaddr", "ip6addr"]
                .iter()
                .flat_map(|key| interface.list(key))
            {
                let long = format!("{address}/{bits}");
                let subnet = address.parse().or_else(|_| long.parse());
                all.extend(subnet.map(|subnet| (format!("network {}", interface.name), subnet)));
            }
        }
        all
    }
}

/// The options of our section, and how they are refused.
struct Options<'a> {
    file: String,
    section: &'a Section,
}

impl Options<'_> {
    fn refuse<T>(&self, key: &str, why: &str) -> Result<T, String> {
        Err(format!("{}: option {key} {why}", self.file))
    }

    fn refuse_value<T>(&self, key: &str, value: &str, why: &str) -> Result<T, String> {
        Err(format!("{}: option {key} '{value}': {why}", self.file))
    }

    fn required(&self, key: &str, what: &str) -> Result<String, String> {
        match self.section.option(key).filter(|value| !value.is_empty()) {
            Some(value) => Ok(value.to_owned()),
            None => self.refuse(key, &format!("is missing; give {what}")),
        }
    }

    fn number(&self, key: &str, default: &str) -> Result<u16, String> {
        let value = self.section.option(key).unwrap_or(default);
        match value.parse() {
            Ok(number) if number > 0 => Ok(number),
            _ => self.refuse_value(key, value, "no port; write a number from 1 to 65535"),
        }
    }

    fn boolean(&self, key: &str) -> Result<bool, String> {
        match self.section.option(key).unwrap_or("0") {
            "1" | "on" | "true" | "yes" | "enabled" => Ok(true),
            "0" | "off" | "false" | "no" | "disabled" => Ok(false),
            other => self.refuse_value(key, other, "neither yes nor no; write 1 or 0"),
        }
    }
}

fn quote(text: &str) -> String {
    toml_edit::Value::from(text).to_string().trim().to_owned()
}

#[cfg(test)]
mod tests;
