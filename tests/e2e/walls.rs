//! Other people's walls: an administrator's own ruleset that asks our sets, and firewalls that would drop what ours lets pass.

use std::fs;
use std::path::Path;
use std::time::Duration;

use spa_tests::foreign::ForeignRoot;
use spa_tests::gateway::Gateway;
use spa_tests::person::Person;
use spa_tests::program::{Ended, Program};
use spa_tests::serve::{self, Stream};
use spa_tests::topology::{DATABASE, GATEWAY, PORT, SERVER2, Town, address, endpoint};
use spa_tests::wait::wait_until;
use toml_edit::value;

use crate::fixture::{Place, REACHED, REFUSED, SILENT};

/// Where the sets lie once they are installed.
const INSTALLED: &str = "/usr/share/spa/nftables/spa.nft";
/// How long an opening may take to be back in a table that its owner loaded anew, on a machine that compiles at the same time, and
/// TCP to try again after it was cut off.
const PATIENCE: Duration = Duration::from_secs(15);

/// The ruleset of `packaging/nftables`, as shipped but for the place of what it includes.
fn administrators() -> String {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../packaging/nftables");
    let text = fs::read_to_string(folder.join("nftables.conf.example")).unwrap();
    assert!(text.contains(INSTALLED));
    text.replace(INSTALLED, folder.join("spa.nft").to_str().unwrap())
}

fn check(gateway: &Gateway) -> Ended {
    let mut check = gateway
        .space()
        .command(gateway.programs().path("spa-gateway"));
    check.args(["check", "--config"]).arg(gateway.config());
    let check = Program::start(gateway.logs(), "check", &mut check).unwrap();
    check.wait(REACHED).unwrap()
}

/// A download that goes on: at once, or when TCP tries again after a pause.
fn flows(stream: &Stream, within: Duration) {
    let before = stream.last().0;
    let moved = || (stream.last().0 > before + 100).then_some(());
    wait_until("the stream goes on", within, moved).unwrap();
}

/// With `mode = "sets"` the machine has the administrator's rules and no table of ours. Without what guards the tunnel nothing
/// starts, and the line that is missing is named; with the shipped ruleset the main job is done: the machine is dark, a page
/// comes through and nothing else does, and with the session all of it ends, whatever is tracked.
#[test]
fn an_administrators_own_ruleset_asks_our_sets() {
    let (place, mut ana) = with_sets(|gateway| {
        let refused = check(gateway);
        assert_eq!(refused.code, 1);
        let line = "table inet filter has no set door4";
        assert!(
            refused.out.contains(line) || refused.err.contains(line),
            "{refused:?}"
        );
        let ended = gateway.start_and_end().unwrap();
        ended.refusal(1, &[line, "shuts the tunnel"]).unwrap();
    });
    assert_eq!(check(&place.gateway).code, 0);
    let tables = place.town.gateway.output("nft", &["list", "tables"]);
    assert_eq!(tables.unwrap().trim(), "table inet filter");
    let scanner = place.town.scanner();
    let findings = scanner.oddities(address(GATEWAY), PORT).unwrap();
    assert!(findings.is_silent(), "{:?}", findings.answers);

    ana.knock(&["wiki"]).unwrap();
    place.assert_reaches_wiki(&ana);
    let database = endpoint(SERVER2, DATABASE);
    assert!(serve::connect(ana.space(), database, REFUSED).is_err());
    let stream = place.stream(&ana);
    place.gateway.ask(&["session", "cut", "ana"]).unwrap();
    wait_until("the stream is cut", REACHED, || {
        (stream.last().1.elapsed() > SILENT).then_some(())
    })
    .unwrap();
    place.assert_everything_closed();
}

/// The administrator loads his ruleset anew, in one step or by way of nothing, under a live session: what is open is back within
/// two seconds, and the download goes on. While there are no rules, a table of ours shuts the tunnel.
#[test]
fn a_reload_of_the_administrators_ruleset_is_survived() {
    let (mut place, mut ana) = with_sets(|_| {});
    ana.knock(&["wiki"]).unwrap();
    // While there are no rules nothing is translated, and a server would be told so by a reset.
    let translates = "iifname $tunnel oifname $inside masquerade";
    let ruleset = administrators().replace(translates, "");
    place.town.gateway.nft(&ruleset).unwrap();
    let stream = place.stream(&ana);
    for _ in 0..3 {
        place.town.gateway.nft(&ruleset).unwrap();
        flows(&stream, PATIENCE);
    }
    let gateway = place.town.gateway.clone();
    gateway.nft("flush ruleset").unwrap();
    wait_until("a table of ours shuts the tunnel", PATIENCE, || {
        let tables = gateway.output("nft", &["list", "tables"]).ok()?;
        tables.contains("table inet spa").then_some(())
    })
    .unwrap();
    place.assert_no_wiki(&ana);
    gateway.nft(&ruleset).unwrap();
    wait_until("what was open is open again", PATIENCE, || {
        let open = place.gateway.openings().ok()?;
        open.iter()
            .any(|opening| opening.contains("flow4"))
            .then_some(())
    })
    .unwrap();
    place.assert_reaches_wiki(&ana);
    flows(&stream, PATIENCE);
    // Taken out and put in by hand, of what we opened and of what we did not.
    gateway
        .nft("flush set inet filter flow4\nadd element inet filter door_addr4 { 203.0.113.66 timeout 1h }")
        .unwrap();
    flows(&stream, PATIENCE);
    wait_until("what we did not open is taken out", PATIENCE, || {
        let open = place.gateway.openings().ok()?;
        let strangers = |opening: &String| opening.contains("203.0.113.66");
        (!open.iter().any(strangers)).then_some(())
    })
    .unwrap();
    assert!(place.gateway.daemon().is_running());
    place.gateway.ask(&["session", "cut", "ana"]).unwrap();
    place.assert_everything_closed();
}

/// A gateway behind the administrator's own ruleset, and ana.
fn with_sets(before: impl FnOnce(&Gateway)) -> (Place, Person) {
    let town = Town::build().unwrap();
    let mut gateway = Gateway::init(&town).unwrap();
    gateway
        .configure(|config| {
            config["firewall"]["mode"] = value("sets");
            config["firewall"]["table"] = value("inet filter");
            let firewall = config["firewall"].as_table_mut().unwrap();
            firewall.remove("keep-open");
            firewall.remove("masquerade");
        })
        .unwrap();
    before(&gateway);
    town.gateway.nft(&administrators()).unwrap();
    gateway.start().unwrap();
    let place = Place { gateway, town };
    let ana = Person::enrolled(&place.gateway, &place.town.client, "ana").unwrap();
    (place, ana)
}

/// Debian's ufw as it comes: it would drop what our doors and flows let pass. What `check` says about it, done word for word,
/// mends it, and the main job is done.
#[test]
fn real_ufw_is_mended_by_what_check_says() {
    let begin = |wall: &mut Wall| wall.run("ufw", &["--force", "enable"]);
    real_firewall(&["ufw"], begin, "ufw ");
}

/// The same for Debian's firewalld, on a bus of its own.
#[test]
fn real_firewalld_is_mended_by_what_check_says() {
    let begin = |wall: &mut Wall| {
        fs::write(wall.root.path("tmp/bus.conf"), BUS).unwrap();
        wall.keep(
            "dbus-daemon",
            &["--config-file=/tmp/bus.conf", "--nofork", "--nopidfile"],
        );
        wait_until("the bus is there", REACHED, || {
            wall.root
                .path("run/dbus/system_bus_socket")
                .exists()
                .then_some(())
        })
        .unwrap();
        wall.keep("firewalld", &["--nofork", "--nopid"]);
        wait_until("firewalld runs", PATIENCE, || {
            (wall.end("firewall-cmd", &["--state"]).code == 0).then_some(())
        })
        .unwrap();
    };
    real_firewall(&["firewalld", "dbus"], begin, "firewall-cmd ");
}

/// A system bus on which everybody may everything.
const BUS: &str = "<busconfig><type>system</type><listen>unix:path=/run/dbus/system_bus_socket</listen>\
    <auth>EXTERNAL</auth><policy context=\"default\"><allow send_destination=\"*\"/><allow receive_sender=\"*\"/>\
    <allow own=\"*\"/></policy></busconfig>";

/// A firewall of Debian's in a root of its own, in the gateway's network.
struct Wall {
    root: ForeignRoot,
    town: Town,
    kept: Vec<Program>,
}

impl Wall {
    fn start(&self, program: &str, args: &[&str]) -> Program {
        let mut command = self.root.command(&self.town.gateway, program);
        Program::start(&self.town.logs, program, command.args(args)).unwrap()
    }

    fn keep(&mut self, program: &str, args: &[&str]) {
        let program = self.start(program, args);
        self.kept.push(program);
    }

    fn end(&self, program: &str, args: &[&str]) -> Ended {
        self.start(program, args).wait(PATIENCE).unwrap()
    }

    fn run(&self, program: &str, args: &[&str]) {
        self.end(program, args).success().unwrap();
    }
}

fn real_firewall(packages: &[&str], begin: impl FnOnce(&mut Wall), words: &str) {
    if std::env::var_os("SPA_TEST_PACKAGES").is_none() {
        eprintln!(
            "SKIPPED, NOT PASSED: `make test-packages` runs the real {}",
            packages[0]
        );
        return;
    }
    let town = Town::build().unwrap();
    let Some(root) = ForeignRoot::with(packages, &town.folder, &town.logs).unwrap() else {
        return;
    };
    let mut wall = Wall {
        root,
        town,
        kept: Vec::new(),
    };
    begin(&mut wall);
    let mut gateway = Gateway::init(&wall.town).unwrap();
    gateway.configure(|_| {}).unwrap();
    let said = check(&gateway).err;
    let remedies: Vec<&str> = said
        .split('`')
        .skip(1)
        .step_by(2)
        .filter(|command| command.starts_with(words))
        .collect();
    assert!(remedies.len() >= 4, "{said}");
    for remedy in remedies {
        let (program, args) = remedy.split_once(' ').unwrap();
        wall.run(program, &args.split(' ').collect::<Vec<_>>());
    }
    let mended = check(&gateway);
    assert!(
        !mended.err.contains("drops what it does not accept"),
        "{}",
        mended.err
    );
    gateway.start().unwrap();
    let Wall { root, town, kept } = wall;
    let place = Place { gateway, town };
    let mut ana = Person::enrolled(&place.gateway, &place.town.client, "ana").unwrap();
    place.assert_main_job(&mut ana);
    drop((kept, root));
}

/// A ruleset laid out as OpenWrt's firewall4 lays out its own.
const FW4: &str = include_str!("fw4.nft");

/// With `mode = "fw4"` our table guards, and fw4 asks only whether an address has a door or a session. A reload that keeps
/// the sets, a restart that loses them and a start after our own lose nothing: addresses are put back, downloads go on. With
/// the session its address is gone from fw4, and nothing passes by what is established.
#[test]
fn openwrts_firewall_starts_reloads_and_restarts_under_live_sessions() {
    let town = Town::build().unwrap();
    let mut gateway = Gateway::init(&town).unwrap();
    gateway
        .configure(|config| config["firewall"]["mode"] = value("fw4"))
        .unwrap();
    // Ours is up first, as it is when a router boots.
    gateway.start().unwrap();
    let space = town.gateway.clone();
    space.nft("table inet fw4 { }").unwrap();
    let unasked = check(&gateway);
    assert!(
        unasked
            .err
            .contains("fw4 has no rule that asks set spa1_door4"),
        "{unasked:?}"
    );
    space.nft(FW4).unwrap();
    assert!(!check(&gateway).err.contains("fw4"));
    let mut place = Place { gateway, town };
    let mut ana = Person::enrolled(&place.gateway, &place.town.client, "ana").unwrap();
    ana.knock(&["wiki"]).unwrap().success().unwrap();
    place.assert_reaches_wiki(&ana);
    let scanner = place.town.scanner();
    let findings = scanner.oddities(address(GATEWAY), PORT).unwrap();
    assert!(findings.is_silent(), "{:?}", findings.answers);
    let stream = place.stream(&ana);
    let put_back = || {
        wait_until("the addresses are put back", PATIENCE, || {
            let listed = space
                .output("nft", &["list", "table", "inet", "fw4"])
                .ok()?;
            let has = |set: &str| {
                let of_set = listed
                    .split(set)
                    .nth(1)
                    .and_then(|rest| rest.split('}').next());
                of_set.is_some_and(|of_set| of_set.contains("expires"))
            };
            (has("spa1_door4") && has("spa1_session4")).then_some(())
        })
        .unwrap();
    };
    put_back();
    // Reload: rules anew, sets kept. Restart: the table anew.
    let rules_only: String = FW4
        .lines()
        .filter(|line| !line.contains("set spa1_"))
        .collect::<Vec<_>>()
        .join("\n");
    space
        .nft(&format!("flush table inet fw4\n{rules_only}"))
        .unwrap();
    put_back();
    flows(&stream, PATIENCE);
    for _ in 0..3 {
        space.nft("delete table inet fw4").unwrap();
        space.nft(FW4).unwrap();
        put_back();
        flows(&stream, PATIENCE);
    }
    assert!(place.gateway.daemon().is_running());
    // A hole by hand is closed, an address taken out is back.
    space
        .nft("add element inet fw4 spa1_session4 { 10.200.0.99 timeout 1h }\nflush set inet fw4 spa1_door4")
        .unwrap();
    put_back();
    let listed = || {
        space
            .output("nft", &["list", "table", "inet", "fw4"])
            .unwrap()
    };
    wait_until("the hole is closed", PATIENCE, || {
        (!listed().contains("10.200.0.99")).then_some(())
    })
    .unwrap();
    place.gateway.ask(&["session", "cut", "ana"]).unwrap();
    wait_until("the stream is cut", REACHED, || {
        (stream.last().1.elapsed() > SILENT).then_some(())
    })
    .unwrap();
    place.assert_everything_closed();
    assert!(!listed().contains("expires"), "{}", listed());
}

/// `/etc/init.d/firewall stop` on OpenWrt flushes everybody's tables: ours is back at once and closed, and the gateway ends to
/// be started again by procd.
#[test]
fn a_stop_of_openwrts_firewall_leaves_the_machine_closed() {
    let town = Town::build().unwrap();
    let mut gateway = Gateway::init(&town).unwrap();
    gateway
        .configure(|config| config["firewall"]["mode"] = value("fw4"))
        .unwrap();
    town.gateway.nft(FW4).unwrap();
    gateway.start().unwrap();
    let mut place = Place { gateway, town };
    let mut ana = Person::enrolled(&place.gateway, &place.town.client, "ana").unwrap();
    ana.knock(&["wiki"]).unwrap().success().unwrap();
    place.assert_reaches_wiki(&ana);
    place.town.gateway.nft("flush ruleset").unwrap();
    place.gateway.wait_for_end(REACHED).unwrap();
    place.assert_no_wiki(&ana);
    let scanner = place.town.scanner();
    let findings = scanner.oddities(address(GATEWAY), PORT).unwrap();
    assert!(findings.is_silent(), "{:?}", findings.answers);
    assert_eq!(place.gateway.openings().unwrap(), Vec::<String>::new());
}
