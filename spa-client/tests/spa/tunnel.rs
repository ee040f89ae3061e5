//! `spa knock` to the end: a WireGuard tunnel between two namespaces, held by the agent, and gone when it should be.
//!
//! Needs root, `ip`, `spa-tunnel` beside `spa` (or a kernel with WireGuard); says so loudly where they are missing.

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, SocketAddr};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Output, Stdio};
use std::time::{Duration, Instant};

use crate::gateway::{CODE, FakeGateway, Inside, Manner};
use spa_wireguard::{BackendChoice, Interface, Peer, Plan};

const OUTSIDE: Ipv4Addr = Ipv4Addr::new(10, 99, 0, 1);
const INSIDE: Ipv4Addr = Ipv4Addr::new(10, 201, 0, 1);
const CLIENT: Ipv4Addr = Ipv4Addr::new(10, 201, 0, 7);
const WG_PORT: u16 = 51_821;
/// Where the gateway answers one byte inside the tunnel.
const ECHO_PORT: u16 = 8080;
const ROLE: &str = "SPA_TEST_GATEWAY";

/// The other process of these tests, in its own namespace: `ROLE` holds the session length and how many peers are lost.
#[test]
fn gateway_process() {
    let Ok(role) = std::env::var(ROLE) else {
        return;
    };
    let (seconds, mut lost) = role
        .split_once(' ')
        .map(|(a, b)| {
            (
                a.parse().expect("seconds"),
                b.parse::<u32>().expect("peers"),
            )
        })
        .expect("two numbers");
    let private = [0x51; 32];
    let mut interface = Interface::create(&Plan {
        name: "gw0",
        listen_port: WG_PORT,
        addresses: &[(INSIDE.into(), 24)],
        mtu: 1400,
        backend: BackendChoice::Auto,
        tunnel_program: &tunnel_program(),
        tunnel_uid: 0,
        tunnel_gid: 0,
    })
    .expect("a WireGuard interface");
    interface.set_private_key(&private).expect("a key");
    let echo = std::net::TcpListener::bind((INSIDE, ECHO_PORT)).expect("a port");
    std::thread::spawn(move || {
        for stream in echo.incoming().flatten() {
            let mut stream = stream;
            let _ = stream.write_all(b"!");
        }
    });
    let fake = FakeGateway::start(OUTSIDE);
    fake.with(|state| {
        state.manner = Manner::Grant(seconds);
        state.inside = Some(Inside {
            wg_public: *spa_proto::KnockSecret::from_bytes(private)
                .public()
                .as_bytes(),
            endpoint: SocketAddr::from((OUTSIDE, WG_PORT)),
            client: CLIENT,
            gateway: INSIDE,
        });
        let mut before = None;
        state.let_in = Some(Box::new(move |peer| {
            if let Some(key) = before.replace(peer.key) {
                interface.remove_peer(&key).expect("removable");
            }
            if lost > 0 {
                lost -= 1;
                return;
            }
            interface
                .put_peer(&Peer {
                    key: peer.key,
                    psk: peer.psk.into(),
                    allowed: &[(CLIENT.into(), 32)],
                    endpoint: None,
                    keepalive: None,
                })
                .expect("a peer");
        }));
    });
    println!("\ninvite {}", fake.invite);
    for line in std::io::stdin().lines() {
        if line.expect("readable") == "seen" {
            let text = fake.with(|state| {
                let ops: Vec<&str> = state.seen.iter().map(|seen| seen.op).collect();
                format!("{} closed={}", ops.join(","), state.closed)
            });
            println!("seen {text}");
        }
    }
}

fn spa() -> &'static str {
    env!("CARGO_BIN_EXE_spa")
}

fn tunnel_program() -> PathBuf {
    Path::new(spa()).with_file_name("spa-tunnel")
}

/// Two namespaces, a gateway in one, a device in the other.
struct Town {
    name: String,
    home: PathBuf,
    gateway: Child,
    input: ChildStdin,
    output: BufReader<std::process::ChildStdout>,
}

impl Town {
    /// `None` where such a town cannot be built.
    fn build(name: &str, seconds: u64, lost: u32) -> Option<Self> {
        let root = fs::read_to_string("/proc/self/status")
            .is_ok_and(|status| status.contains("\nUid:\t0\t"));
        let wireguard = tunnel_program().is_file() || Path::new("/sys/module/wireguard").exists();
        if !root || !wireguard {
            eprintln!(
                "SKIPPED: needs root and {} (cargo build -p spa-tunnel)",
                tunnel_program().display()
            );
            return None;
        }
        let name = format!("client-{name}-{}", std::process::id());
        let (gw, cl) = (format!("{name}-g"), format!("{name}-c"));
        for space in [&gw, &cl] {
            run(&["netns", "add", space]);
            run(&["-n", space, "link", "set", "lo", "up"]);
        }
        run(&[
            "-n", &gw, "link", "add", "eth0", "type", "veth", "peer", "name", "eth0", "netns", &cl,
        ]);
        run(&["-n", &gw, "addr", "add", "10.99.0.1/24", "dev", "eth0"]);
        run(&["-n", &cl, "addr", "add", "10.99.0.2/24", "dev", "eth0"]);
        for space in [&gw, &cl] {
            run(&["-n", space, "link", "set", "eth0", "up"]);
        }
        let mut gateway = Command::new("ip")
            .args(["netns", "exec", &gw])
            .arg(std::env::current_exe().expect("our own path"))
            .args(["--exact", "tunnel::gateway_process", "--nocapture"])
            .env(ROLE, format!("{seconds} {lost}"))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("ip is installed");
        let input = gateway.stdin.take().expect("piped");
        let output = BufReader::new(gateway.stdout.take().expect("piped"));
        let home = std::env::temp_dir().join(&name);
        fs::create_dir_all(&home).expect("the temporary directory is writable");
        fs::set_permissions(&home, fs::Permissions::from_mode(0o700)).expect("ours");
        fs::write(home.join("pw"), "correct horse").expect("ours");
        fs::set_permissions(home.join("pw"), fs::Permissions::from_mode(0o600)).expect("ours");
        let mut town = Self {
            name,
            home,
            gateway,
            input,
            output,
        };
        let invite = town.hear("invite ");
        let output = town.spa(&[
            "enroll",
            &invite,
            "--code",
            &CODE.to_string(),
            "--password-file",
            &town.password(),
        ]);
        assert!(output.status.success(), "{}", err(&output));
        Some(town)
    }

    fn hear(&mut self, prefix: &str) -> String {
        let mut line = String::new();
        loop {
            line.clear();
            assert_ne!(
                self.output.read_line(&mut line).expect("readable"),
                0,
                "the gateway's process ended"
            );
            if let Some(rest) = line.strip_prefix(prefix) {
                return rest.trim().to_owned();
            }
        }
    }

    fn seen(&mut self) -> String {
        self.input.write_all(b"seen\n").expect("it lives");
        self.hear("seen ")
    }

    fn password(&self) -> String {
        self.home.join("pw").display().to_string()
    }

    fn command(&self, program: &str, args: &[&str]) -> Command {
        let mut command = Command::new("ip");
        command
            .args(["netns", "exec", &format!("{}-c", self.name), program])
            .args(args)
            .env("SPA_HOME", &self.home);
        command
    }

    fn spa(&self, args: &[&str]) -> Output {
        self.command(spa(), args).output().expect("spa runs")
    }

    fn knock(&self, args: &[&str]) -> Output {
        self.knocking(args).output().expect("spa runs")
    }

    fn knocking(&self, args: &[&str]) -> Command {
        let mut command = self.command(spa(), &["knock"]);
        command.args(args).args([
            "--code",
            &CODE.to_string(),
            "--password-file",
            &self.password(),
        ]);
        command
    }

    fn status(&self) -> serde_json::Value {
        let all: serde_json::Value =
            serde_json::from_slice(&self.spa(&["status", "--json"]).stdout).expect("JSON");
        all[0].clone()
    }

    /// Names of the interfaces of ours in the client's namespace.
    fn interfaces(&self) -> Vec<String> {
        let output = self
            .command("ip", &["-o", "link"])
            .output()
            .expect("ip is installed");
        out(&output)
            .lines()
            .filter_map(|line| line.split(": ").nth(1))
            .filter(|name| name.starts_with("spa-c"))
            .map(str::to_owned)
            .collect()
    }

    fn routes(&self) -> String {
        out(&self
            .command("ip", &["-4", "route"])
            .output()
            .expect("ip is installed"))
    }

    /// Whether a byte comes back through the tunnel.
    fn passes(&self) -> bool {
        let script = format!("exec 3<>/dev/tcp/{INSIDE}/{ECHO_PORT} && head -c1 <&3");
        let output = self
            .command("timeout", &["2", "bash", "-c", &script])
            .output()
            .expect("bash is installed");
        output.stdout == b"!"
    }

    /// The process that holds the session.
    fn agent(&self) -> String {
        let note = fs::read_dir(self.home.join("run"))
            .expect("a session was open")
            .flatten()
            .find(|item| {
                item.path()
                    .extension()
                    .is_some_and(|extension| extension == "session")
            })
            .expect("its note");
        let text = fs::read_to_string(note.path()).expect("ours");
        text.lines()
            .find_map(|line| line.strip_prefix("process "))
            .expect("a process")
            .to_owned()
    }
}

impl Drop for Town {
    fn drop(&mut self) {
        let _ = self.spa(&["close"]);
        let _ = self.gateway.kill();
        let _ = self.gateway.wait();
        for end in ["g", "c"] {
            let _ = Command::new("ip")
                .args(["netns", "del", &format!("{}-{end}", self.name)])
                .status();
        }
        let _ = fs::remove_dir_all(&self.home);
    }
}

fn run(args: &[&str]) {
    let output = Command::new("ip")
        .args(args)
        .output()
        .expect("ip is installed");
    assert!(output.status.success(), "ip {args:?}: {}", err(&output));
}

fn err(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

fn out(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// Waits until a process is gone.
fn wait_gone(process: &str) {
    let status = Command::new("timeout")
        .args(["10", "tail", "-f", "/dev/null", "--pid", process])
        .status()
        .expect("coreutils");
    assert!(status.success(), "process {process} lives");
}

#[test]
fn a_knock_raises_a_tunnel_and_close_takes_everything_down() {
    let Some(mut town) = Town::build("a", 600, 0) else {
        return;
    };
    let output = town.knock(&["wiki"]);
    assert!(output.status.success(), "{}{}", out(&output), err(&output));
    assert!(err(&output).contains("wiki: granted"), "{}", err(&output));
    assert!(
        err(&output).contains("route 10.99.0.1/32 is not taken"),
        "{}",
        err(&output)
    );
    assert!(town.passes(), "{}", town.routes());
    let routes = town.routes();
    assert!(
        routes.contains("10.201.9.0/24 dev spa-c") && routes.contains("10.201.0.1 dev spa-c"),
        "{routes}"
    );
    assert_eq!(town.status()["state"], "connected");
    assert_eq!(town.status()["resources"][0], "wiki");

    let agent = town.agent();
    let second = town.knock(&["db"]);
    assert!(second.status.success(), "{}", err(&second));
    assert!(
        err(&second).contains("wiki is open: asking for db, wiki"),
        "{}",
        err(&second)
    );
    assert_eq!(
        town.interfaces().len(),
        1,
        "the session before left nothing"
    );
    wait_gone(&agent);
    assert!(town.passes());
    assert_eq!(
        town.status()["resources"],
        serde_json::json!(["db", "wiki"])
    );

    let agent = town.agent();
    let close = town.spa(&["close"]);
    assert!(close.status.success(), "{}", err(&close));
    assert!(town.seen().ends_with("closed=1"), "the gateway was told");
    wait_gone(&agent);
    assert_eq!(town.interfaces(), Vec::<String>::new());
    assert!(!town.routes().contains("10.201"), "{}", town.routes());
    assert_eq!(town.status()["state"], "closed");
    assert!(!town.passes());
}

#[test]
fn a_session_is_gone_at_its_end_and_foreground_says_so() {
    let Some(town) = Town::build("b", 4, 0) else {
        return;
    };
    let started = Instant::now();
    let output = town.knock(&["wiki", "--foreground"]);
    assert!(output.status.success(), "{}", err(&output));
    assert!(
        out(&output).contains("its time was over"),
        "{}",
        out(&output)
    );
    assert!(started.elapsed() >= Duration::from_secs(4) - Duration::from_millis(200));
    assert_eq!(town.interfaces(), Vec::<String>::new());
    assert_eq!(town.status()["state"], "closed");
}

#[test]
fn ctrl_c_in_the_foreground_closes_the_session_at_the_gateway() {
    let Some(mut town) = Town::build("c", 600, 0) else {
        return;
    };
    let mut knock = town
        .knocking(&["wiki", "--foreground"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("spa runs");
    let mut words = BufReader::new(knock.stderr.take().expect("piped"));
    let mut line = String::new();
    while !line.contains("Ctrl-C closes it") {
        line.clear();
        assert_ne!(
            words.read_line(&mut line).expect("readable"),
            0,
            "spa ended early"
        );
    }
    assert!(town.passes());
    // `ip netns exec` is replaced by spa, so this is its process.
    let status = Command::new("kill")
        .args(["-INT", &knock.id().to_string()])
        .status()
        .expect("kill");
    assert!(status.success());
    let mut said = String::new();
    knock
        .stdout
        .take()
        .expect("piped")
        .read_to_string(&mut said)
        .expect("readable");
    assert!(knock.wait().expect("it ends").success());
    assert!(said.contains("confirmed by the gateway"), "{said}");
    assert!(town.seen().ends_with("closed=1"));
    assert_eq!(town.interfaces(), Vec::<String>::new());
}

#[test]
fn what_a_killed_agent_leaves_is_said_and_cleared() {
    let Some(town) = Town::build("d", 600, 0) else {
        return;
    };
    assert!(town.knock(&["wiki"]).status.success());
    let agent = town.agent();
    assert!(
        Command::new("kill")
            .args(["-KILL", &agent])
            .status()
            .expect("kill")
            .success()
    );
    wait_gone(&agent);
    assert_eq!(town.status()["state"], "agent-died");
    assert!(out(&town.spa(&["status"])).contains("not connected"));
    let close = town.spa(&["close"]);
    assert_eq!(close.status.code(), Some(1));
    assert!(err(&close).contains("ends there at"), "{}", err(&close));
    assert_eq!(town.interfaces(), Vec::<String>::new());
    assert!(
        town.knock(&["wiki"]).status.success(),
        "a new knock mends it"
    );
    assert!(town.passes());
}

#[test]
fn a_lost_handshake_heals_by_the_remaining_packets() {
    // The OPEN of the enrolment is granted first, and needs no tunnel.
    let Some(mut town) = Town::build("e", 600, 2) else {
        return;
    };
    let output = town.knock(&["wiki"]);
    assert!(output.status.success(), "{}", err(&output));
    assert!(err(&output).contains("2 packets"), "{}", err(&output));
    assert!(
        town.seen().starts_with("enrol,open,open,open "),
        "{}",
        town.seen()
    );
    assert!(town.passes());
}

#[test]
fn a_grant_without_any_handshake_leaves_nothing() {
    let Some(town) = Town::build("f", 600, 100) else {
        return;
    };
    let output = town.knock(&["wiki"]);
    assert_eq!(output.status.code(), Some(1), "{}", err(&output));
    assert!(
        err(&output).contains("WireGuard did not answer"),
        "{}",
        err(&output)
    );
    assert_eq!(town.interfaces(), Vec::<String>::new());
    assert_eq!(town.status()["state"], "closed");
}
