//! The files `init` writes, as text.

use std::net::IpAddr;
use std::path::Path;

use super::Plan;
use crate::config::{Interface, Subnet, UserRef};

impl Plan {
    /// The configuration, with what an administrator wants to know beside each value.
    pub(super) fn config_text(&self) -> String {
        let list = |items: Vec<String>| {
            let quoted: Vec<String> = items.iter().map(|item| format!("\"{item}\"")).collect();
            format!("[{}]", quoted.join(", "))
        };
        let addresses = self
            .pools
            .iter()
            .map(|pool| format!("{}/{}", gateway_address(*pool), pool.prefix));
        let user = |user: &UserRef| match user {
            UserRef::Number(number) => number.to_string(),
            UserRef::Name(name) => format!("\"{name}\""),
        };
        let keep_open = match self.keep_open {
            Some(port) => format!(
                "keep-open = [\"{port}\"]   # SSH, since init ran over it: empty this list once you can log in through the tunnel"
            ),
            None => "keep-open = []            # ports everybody may reach, like \"22/tcp\"; none is best".to_owned(),
        };
        format!(
            "# A single-packet-authorization gateway. Unknown keys are errors; `spa-gateway check` reads this file and says what is wrong.\n\
             \n\
             [knock]\n\
             interfaces = {interfaces}   # strangers come from here and see nothing\n\
             port = {port}\n\
             public = \"{public}\"   # what invites name\n\
             \n\
             [wireguard]\n\
             interface = \"spa0\"\n\
             port = {port}             # the same as the knock port: one NAT mapping for both\n\
             backend = \"auto\"         # auto | kernel | embedded\n\
             addresses = {addresses}   # the gateway's own; sessions get the rest\n\
             \n\
             [firewall]\n\
             mode = \"{mode}\"\n\
             {keep_open}\n\
             masquerade = {masquerade}        # true: sessions reach the LAN under the gateway's own address\n\
             \n\
             [session]\n\
             door = \"10s\"             # how long a door waits for the first handshake\n\
             longest = \"24h\"\n\
             \n\
             [control]\n\
             port = 8700\n\
             \n\
             [paths]\n\
             policy = {policy}\n\
             state = {state}\n\
             runtime = {runtime}\n\
             \n\
             [process]\n\
             user = {user}\n\
             tunnel-user = {tunnel_user}\n\
             \n\
             [clock]\n\
             trust = \"auto\"           # auto | always: \"always\" where a hypervisor keeps the time\n",
            interfaces = list(self.interfaces.iter().map(Interface::to_string).collect()),
            port = self.port,
            public = self.public,
            addresses = list(addresses.collect()),
            mode = self.mode,
            masquerade = self.masquerade,
            policy = toml_path(&self.paths.policy),
            state = toml_path(&self.paths.state),
            runtime = toml_path(&self.paths.runtime),
            user = user(&self.user),
            tunnel_user = user(&self.tunnel_user),
        )
    }
}

impl Plan {
    /// The same as OpenWrt's UCI has it.
    pub(super) fn uci_text(&self) -> String {
        let mut lines = vec!["config gateway 'main'".to_owned()];
        let mut put = |what: &str, key: &str, value: String| {
            // A quote ends a value, and none of ours may have one.
            lines.push(format!("\t{what} {key} '{}'", value.replace('\'', "")));
        };
        put("option", "enabled", "1".to_owned());
        for interface in &self.interfaces {
            put("list", "device", interface.to_string());
        }
        put("option", "public", self.public.to_string());
        put("option", "port", self.port.to_string());
        for pool in &self.pools {
            put("list", "pool", pool.to_string());
        }
        put(
            "option",
            "masquerade",
            u8::from(self.masquerade).to_string(),
        );
        if let Some(open) = &self.keep_open {
            put("list", "keep_open", open.to_string());
        }
        lines.join("\n") + "\n"
    }
}

/// A pool may be given by its network or by the gateway's address in it.
fn gateway_address(pool: Subnet) -> IpAddr {
    if pool.address == pool.network() {
        pool.first_host()
    } else {
        pool.address
    }
}

fn toml_path(path: &Path) -> String {
    toml_edit::Value::from(path.to_string_lossy().as_ref())
        .to_string()
        .trim()
        .to_owned()
}

/// A policy that allows nothing yet and shows how it is written.
pub(super) const POLICY: &str = "# Who may reach what. Nothing listed here, nothing allowed.\n\
    # `spa-admin user add`, `resource add` and `allow` write here; by hand it looks like this:\n\
    #\n\
    #   [group]\n\
    #   eng = [\"ana\", \"bo\"]\n\
    #\n\
    #   [resource]\n\
    #   wiki = { to = \"10.0.5.10\", ports = [\"443/tcp\"] }\n\
    #\n\
    #   [[allow]]\n\
    #   name = \"eng-wiki\"\n\
    #   who = [\"group:eng\"]\n\
    #   to = [\"wiki\"]\n\
    #   for = \"2h\"\n\
    #\n\
    # `spa-admin policy check FILE` tries a change, `spa-admin policy reload` puts it into force.\n\
    version = 1\n\
    \n\
    [defaults]\n\
    for = \"8h\"                 # session length unless a rule says less\n\
    \n\
    [group]\n\
    \n\
    [resource]\n";
