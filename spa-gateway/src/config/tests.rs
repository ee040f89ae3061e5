use super::*;

const SOUND: &str = r#"
[knock]
interfaces = ["eth0"]
port = 51820
public = "198.51.100.10:51820"
[wireguard]
addresses = ["10.200.0.1/16", "fd5a:1::1/64"]
"#;

fn parse(text: &str) -> Result<Config, String> {
    Config::parse(text, Path::new("/etc/spa/gateway.toml")).map_err(|e| e.to_string())
}

fn refusal(text: &str) -> String {
    parse(text).expect_err("refused")
}

#[test]
fn what_is_left_out_has_the_documented_value() {
    let config = parse(SOUND).expect("sound");
    assert_eq!(config.wireguard_port(), 51820);
    assert_eq!(config.wireguard.interface.get_ref().as_str(), "spa0");
    assert_eq!(config.wireguard.backend, Backend::Auto);
    assert_eq!(config.session.door.get_ref().to_string(), "10s");
    assert_eq!(config.session.longest.get_ref().to_string(), "1d");
    assert_eq!(config.control.port.get(), 8700);
    assert_eq!(config.paths, Paths::default());
    assert_eq!(config.clock.trust, Trust::Auto);
    assert!(config.firewall.keep_open.is_empty() && !config.firewall.masquerade);
    assert_eq!(
        config.pool6().map(|p| p.to_string()).as_deref(),
        Some("fd5a:1::1/64")
    );
}

#[test]
fn the_example_of_the_design_is_sound() {
    let text = r#"
[knock]
interfaces = ["eth0"]
port = 51820
public = "198.51.100.10:51820"
[wireguard]
interface = "spa0"
port = 51820
backend = "auto"
addresses = ["10.200.0.1/16", "fd5a:1::1/64"]
[firewall]
mode = "own"
keep-open = ["22/tcp"]
masquerade = true
[session]
door = "10s"
longest = "24h"
[control]
port = 8700
[paths]
policy = "policy.toml"
state = "/var/lib/spa"
runtime = "/run/spa"
[process]
user = 64180
tunnel-user = "spa-tunnel"
[clock]
trust = "always"
"#;
    let config = parse(text).expect("sound");
    assert_eq!(config.paths.policy, Path::new("/etc/spa/policy.toml"));
    assert_eq!(config.process.user, UserRef::Number(64180));
    assert_eq!(config.clock.trust, Trust::Always);
}

#[test]
fn an_unknown_key_names_file_line_and_what_is_known() {
    let text = SOUND.replace("port = 51820\n", "prot = 51820\n");
    assert_eq!(
        refusal(&text),
        "/etc/spa/gateway.toml:4: unknown key `prot`, expected one of `interfaces`, `port`, `public`; correct its name or remove the line"
    );
    let text = SOUND.to_owned() + "[knok]\nport = 1\n";
    assert!(refusal(&text).starts_with("/etc/spa/gateway.toml:8: unknown key `knok`"));
}

#[test]
fn a_missing_key_is_named() {
    let text = SOUND.replace("port = 51820\n", "");
    assert_eq!(
        refusal(&text),
        "/etc/spa/gateway.toml:2: key `port` is missing; add it"
    );
}

#[test]
fn a_wrong_value_names_its_line_and_what_was_expected() {
    let cases = [
        (
            "port = 51820\n",
            "port = \"x\"\n",
            ":4: invalid type: string \"x\", expected a port, which is a number from 1 to 65535; correct the value",
        ),
        (
            "port = 51820\n",
            "port = 70000\n",
            ":4: `70000` is no port; write a number from 1 to 65535",
        ),
        (
            "port = 51820\n",
            "port = 0\n",
            ":4: `0` is no port; write a number from 1 to 65535",
        ),
        (
            "[\"eth0\"]",
            "[]",
            ":3: no knock interface; name the interface strangers come from, like interfaces = [\"eth0\"]",
        ),
        (
            "[\"eth0\"]",
            "[\"a\", \"a\"]",
            ":3: interface `a` is listed twice; list it once",
        ),
        (
            "[\"eth0\"]",
            "[\"spa0\"]",
            ":1: `spa0` is a knock interface; give the tunnel a name of its own, like \"spa0\"",
        ),
        (
            "[\"eth0\"]",
            "[\"a b\"]",
            ":3: `a b` is no interface name; `ip -br link` lists them",
        ),
        (
            "198.51.100.10:51820",
            "198.51.100.10",
            ":5: `198.51.100.10` is no address; write host and port, like \"198.51.100.10:51820\", \"gw.example.net:51820\" or \"[2001:db8::1]:51820\"",
        ),
        (
            "10.200.0.1/16",
            "10.200.0.0/16",
            ":7: `10.200.0.0/16` is no address for the gateway; use 10.200.0.1/16",
        ),
        (
            "10.200.0.1/16",
            "10.200.255.255/16",
            ":7: `10.200.255.255/16` is no address for the gateway; use 10.200.0.1/16",
        ),
        (
            "10.200.0.1/16",
            "10.200.0.1/31",
            ":7: `10.200.0.1/31` is no pool for clients; choose a prefix length of 8 to 30",
        ),
        (
            "10.200.0.1/16",
            "fd00::1/64",
            ":7: 2 tunnel addresses; give one IPv4 network, one IPv6 network, or one of each",
        ),
    ];
    for (from, to, expected) in cases {
        let text = SOUND.replacen(from, to, 1);
        assert_eq!(
            refusal(&text),
            format!("/etc/spa/gateway.toml{expected}"),
            "{to}"
        );
    }
}

#[test]
fn sections_below_are_checked_as_well() {
    let cases = [
        (
            "[session]\ndoor = \"10\"\n",
            ":9: `10` is no length of time; write a whole number and its unit, like \"10s\", \"5m\", \"8h\" or \"7d\"",
        ),
        (
            "[session]\ndoor = \"1m\"\n",
            ":9: `door` is 1m; choose 5s to 30s",
        ),
        (
            "[session]\nlongest = \"25h\"\n",
            ":9: `longest` is 25h; choose 1m to 1d",
        ),
        (
            "[firewall]\nmode = \"ufw\"\n",
            ":9: `ufw` is no firewall mode; use \"own\", \"sets\" with a table of yours, or \"fw4\" on OpenWrt",
        ),
        (
            "[firewall]\nmode = \"sets\"\n",
            ":9: mode = \"sets\" needs the name of your table; add table = \"inet filter\", or whatever it is called",
        ),
        (
            "[firewall]\nmode = \"sets\"\ntable = \"ip filter\"\n",
            ":10: `ip filter` is no table of yours; write family and name, like \"inet filter\" (the family is always inet, and inet spa is ours)",
        ),
        (
            "[firewall]\nmode = \"sets\"\ntable = \"inet spa\"\n",
            ":10: `inet spa` is no table of yours; write family and name, like \"inet filter\" (the family is always inet, and inet spa is ours)",
        ),
        (
            "[firewall]\ntable = \"inet filter\"\n",
            ":9: table is for mode = \"sets\" only; remove it",
        ),
        (
            "[firewall]\nmode = \"sets\"\ntable = \"inet filter\"\nkeep-open = [\"22/tcp\"]\n",
            ":9: with mode = \"sets\" your own ruleset says what is open; accept the port there and remove keep-open",
        ),
        (
            "[firewall]\nkeep-open = [\"22\"]\n",
            ":9: `22` is no port; write number and protocol, like \"22/tcp\"",
        ),
        (
            "[clock]\ntrust = \"never\"\n",
            ":9: unknown value `never`, expected `auto` or `always`; choose one of those",
        ),
    ];
    for (section, expected) in cases {
        let text = SOUND.to_owned() + section;
        assert_eq!(
            refusal(&text),
            format!("/etc/spa/gateway.toml{expected}"),
            "{section}"
        );
    }
}

#[test]
fn broken_toml_names_its_line() {
    let refusal = refusal("[knock\ninterfaces = 1\n");
    assert!(
        refusal.starts_with("/etc/spa/gateway.toml:1: "),
        "{refusal}"
    );
    assert!(!refusal.contains('\n'));
}
