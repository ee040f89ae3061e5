use super::*;

const GATEWAY: &str = "config gateway 'main'\n\toption enabled '1'\n\toption public '198.51.100.10:51820'\n\tlist network 'wan'\n\tlist pool '10.200.0.0/16'\n\tlist pool 'fd5a:1::/64'\n\tlist keep_open '22/tcp'\n";
const NETWORK: &str = "config interface 'lan'\n\toption device 'br-lan'\n\toption proto 'static'\n\tlist ipaddr '192.168.1.1/24'\n\
    config interface 'guest'\n\toption device 'br-guest'\n\toption ipaddr '172.20.0.1'\n\toption netmask '255.255.0.0'\n\
    config interface 'wan'\n\toption device 'eth1'\n\toption proto 'dhcp'\n\
    config interface 'modem'\n\toption proto 'wwan'\n\
    config interface 'spa'\n\toption proto 'none'\n\toption device 'spa0'\n";
const FIREWALL: &str = "config zone\n\toption name 'lan'\n\tlist network 'lan'\nconfig zone\n\toption name 'wan'\n\tlist network 'wan'\n\
    config zone 'spa'\n\toption name 'spa'\n\tlist network 'spa'\n\toption input 'REJECT'\n";

fn text(gateway: &str, devices: &[(&str, &str)]) -> Result<String, String> {
    let package = |name: &str, text: &str| {
        let file = Path::new("/etc/config").join(name);
        Package::parse(text, &file).expect("UCI")
    };
    let pair = |(network, device): &(&str, &str)| ((*network).to_owned(), (*device).to_owned());
    let router = Router {
        gateway: package("spa-gateway", gateway),
        network: package("network", NETWORK),
        firewall: package("firewall", FIREWALL),
        devices: devices.iter().map(pair).collect(),
    };
    router.config_text()
}

#[test]
fn what_uci_says_is_a_configuration() {
    let made = text(GATEWAY, &[("wan", "pppoe-wan")]).expect("sound");
    let config = Config::parse(&made, Path::new("/etc/spa/gateway.toml")).expect("sound");
    // netifd knows better than the file: PPP has an interface of its own.
    assert_eq!(config.knock.interfaces.get_ref()[0].as_str(), "pppoe-wan");
    assert_eq!(config.firewall.mode(), crate::config::FirewallMode::Fw4);
    assert_eq!(config.firewall.keep_open.len(), 1);
    assert_eq!(config.paths.state, Path::new("/etc/spa/state"));
    let pools = [config.pool4(), config.pool6()].map(|pool| pool.map(|pool| pool.to_string()));
    assert_eq!(pools[0].as_deref(), Some("10.200.0.1/16"));
    assert_eq!(pools[1].as_deref(), Some("fd5a:1::1/64"));
    let plain = text(GATEWAY, &[]).expect("sound");
    assert!(plain.contains("interfaces = [\"eth1\"]"), "{plain}");
}

#[test]
fn every_refusal_names_the_option() {
    let cases = [
        (
            "list network 'wan'",
            "list network 'wan7'",
            "option network 'wan7': there is no such interface in the network configuration",
        ),
        (
            "list network 'wan'",
            "list network 'modem'",
            "option network 'modem': it has no interface yet",
        ),
        ("list network 'wan'", "", "option network is missing"),
        (
            "list pool '10.200.0.0/16'",
            "list pool '192.168.0.0/16'",
            "option pool '192.168.0.0/16': it overlaps 192.168.1.1/24 of network lan",
        ),
        (
            "list pool '10.200.0.0/16'",
            "list pool '172.20.7.0/24'",
            "option pool '172.20.7.0/24': it overlaps 172.20.0.1/16 of network guest",
        ),
        (
            "list pool '10.200.0.0/16'",
            "list pool '10.200.0.0'",
            "option pool '10.200.0.0': `10.200.0.0` is no network",
        ),
        (
            "option public '198.51.100.10:51820'",
            "",
            "option public is missing",
        ),
        (
            "option enabled '1'",
            "option lan_zone 'office'",
            "option lan_zone 'office': there is no zone of that name in the firewall configuration",
        ),
        (
            "option enabled '1'",
            "option zone 'lan'",
            "option zone 'lan': spa0 is not in that zone",
        ),
        (
            "option enabled '1'",
            "option port '0'",
            "option port '0': no port",
        ),
        (
            "option enabled '1'",
            "option masquerade 'perhaps'",
            "option masquerade 'perhaps': neither yes nor no",
        ),
        (
            "option enabled '1'",
            "option colour 'red'",
            "option colour is no option of ours",
        ),
        (
            "list network 'wan'",
            "list device 'spa0'",
            "option interface 'spa0': strangers come from there",
        ),
    ];
    for (from, to, expected) in cases {
        let refused = text(&GATEWAY.replace(from, to), &[]).expect_err(to);
        assert!(
            refused.starts_with("/etc/config/spa-gateway: "),
            "{refused}"
        );
        assert!(refused.contains(expected), "{refused}");
        assert!(!refused.contains('\n'));
    }
}
