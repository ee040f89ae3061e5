//! fwknop 2.6.10 as Debian ships it, in the same town, measured the same way: its figures go beside ours.

use std::fs::{self, DirBuilder};
use std::net::{Ipv4Addr, UdpSocket};
use std::os::unix::fs::DirBuilderExt;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::Context;
use spa_tests::net::Namespace;
use spa_tests::program::Program;
use spa_tests::topology::{GATEWAY, Town, endpoint};
use spa_tests::wait::watch;
use spa_tests::wire::{Direction, Wire};

use crate::Pass;
use crate::figures::Figures;
use crate::fleet::random;
use crate::notices::{Change, Notice, Notices};
use crate::pictures::PERCENTILES;
use crate::process;
use crate::sustained::wait_for;
use crate::table::Table;

/// What the figures are called.
const NAME: &str = "fwknop";
/// Its port, and that of the service it opens.
const PORT: u16 = 62_201;
/// How long a rule may take before the knock counts as lost.
const PATIENCE: Duration = Duration::from_secs(3);
/// It takes its packets in some seconds late under load.
const SETTLE: Duration = Duration::from_secs(8);
/// How often an honest knock is sent within a flood.
const HONEST: Duration = Duration::from_millis(300);

/// Measures it, and sets its figures beside ours.
pub fn measure(pass: Pass, table: &mut Table) -> anyhow::Result<()> {
    if !["fwknopd", "fwknop", "iptables"]
        .iter()
        .all(|name| is_installed(name))
    {
        table.skip("fwknop: not installed (apt-get install fwknop-server fwknop-client iptables)");
        return Ok(());
    }
    let town = Town::build()?;
    let fwknop = Fwknop::start(&town)?;
    let (resident, knock) = (
        process::memory(fwknop.pid())?.resident,
        fwknop.knock_times(pass.of(15, 40))?,
    );
    #[expect(clippy::cast_precision_loss, reason = "far below 2^52 bytes")]
    table.beside("memory-idle", NAME, resident as f64 / 1e6);
    for percent in PERCENTILES {
        let time = knock.at(f64::from(percent) / 100.0);
        table.beside(&format!("knock-to-door-p{percent}"), NAME, time);
    }
    let opened = fwknop.steady(100, Duration::from_secs(5))?;
    table.beside("knocks-sustained", "fwknop, of 100/s", opened);
    let rates: &[u32] = match pass {
        Pass::Quick => &[10_000],
        Pass::Full => &[1_000, 10_000, 100_000, u32::MAX],
    };
    for rate in rates {
        let (cost, share) = fwknop.flood(*rate, Duration::from_secs(5))?;
        let rate = match *rate {
            u32::MAX => "full-speed".to_owned(),
            rate => rate.to_string(),
        };
        table.beside(&format!("junk-cost-{rate}"), NAME, cost);
        table.beside(&format!("junk-honest-{rate}"), NAME, share);
    }
    Ok(())
}

struct Fwknop<'t> {
    town: &'t Town,
    daemon: Program,
    notices: Notices,
    keys: [String; 2],
}

impl<'t> Fwknop<'t> {
    /// As its manual says: one stanza, AES and HMAC, one port, everything else at its default.
    fn start(town: &'t Town) -> anyhow::Result<Self> {
        let folder = town.folder.join("fwknop");
        DirBuilder::new().mode(0o700).create(&folder)?;
        let keys = [hex(&random::<16>()?), hex(&random::<32>()?)];
        let files = [
            (
                "fwknopd.conf",
                format!(
                    "PCAP_INTF eth0;\nFWKNOP_RUN_DIR {};\nFIREWALL_EXE /usr/sbin/iptables;\n",
                    folder.display()
                ),
            ),
            (
                "access.conf",
                format!(
                    "SOURCE ANY\nKEY {}\nHMAC_KEY {}\nOPEN_PORTS tcp/22\nREQUIRE_SOURCE_ADDRESS Y\nFW_ACCESS_TIMEOUT 30\n",
                    keys[0], keys[1]
                ),
            ),
        ];
        for (name, text) in files {
            fs::write(folder.join(name), text)?;
        }
        for rule in [
            "-A INPUT -m conntrack --ctstate ESTABLISHED,RELATED -j ACCEPT",
            "-P INPUT DROP",
        ] {
            town.gateway
                .output("iptables", &rule.split(' ').collect::<Vec<_>>())?;
        }
        let mut command = town.gateway.command("fwknopd");
        command
            .arg("-f")
            .arg("-c")
            .arg(folder.join("fwknopd.conf"))
            .arg("-a")
            .arg(folder.join("access.conf"));
        let mut daemon = Program::start(&town.logs, "fwknopd", &mut command)?;
        daemon
            .wait_for_words("main event loop", Duration::from_secs(15))
            .context("starting fwknopd")?;
        let _its_capture_opens = watch(Duration::from_millis(500), || None::<()>);
        Ok(Self {
            town,
            daemon,
            notices: Notices::listen(&town.gateway)?,
            keys,
        })
    }

    fn pid(&self) -> u32 {
        self.daemon.pid()
    }

    /// Starts its client; the knock opens for `address`, which need not be its own.
    fn knock(&self, address: Ipv4Addr) -> anyhow::Result<Child> {
        let mut command = Command::new("fwknop");
        command
            .args(["-A", "tcp/22", "-a", &address.to_string(), "-D", GATEWAY])
            .args(["--key-rijndael", &self.keys[0], "--key-hmac", &self.keys[1]])
            .args(["--use-hmac", "--no-save-args", "--no-rc-file"]);
        let command = command
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        command.spawn().context("starting fwknop")
    }

    /// From the packet on the wire to the rule in the kernel.
    fn knock_times(&self, count: usize) -> anyhow::Result<Figures> {
        let mut times = Vec::new();
        for number in 0..count {
            let address = address_of(number);
            let wire = Wire::tap(&self.town.gateway, "eth0", Direction::Incoming)?;
            self.town
                .stranger
                .run(|| self.knock(address)?.wait().context("waiting for fwknop"))??;
            let seen = wire.wait_for("its knock", PATIENCE, |packet| {
                packet.destination.port() == PORT
            })?;
            let rule = self
                .notices
                .wait_for("its rule", PATIENCE, |change| is_rule_for(change, address));
            if let Ok(at) = rule {
                times.push(at.saturating_duration_since(seen.at));
            }
            // Its loop sleeps 100 ms: another phase of it for each knock.
            let phase = Duration::from_millis(37 * u64::try_from(number % 5)?);
            let _nothing_to_see = watch(phase, || None::<()>);
        }
        Ok(Figures::of_times(times))
    }

    /// Knocks per second that opened.
    #[expect(clippy::cast_precision_loss, reason = "some hundreds")]
    fn steady(&self, rate: usize, lasts: Duration) -> anyhow::Result<f64> {
        self.notices.take()?;
        let count = rate * usize::try_from(lasts.as_secs())?;
        let begun = Instant::now();
        self.town.stranger.run(|| {
            let mut children = Vec::new();
            for number in 0..count {
                wait_for(begun + lasts * u32::try_from(number)? / u32::try_from(count)?);
                children.push(self.knock(address_of(1_000 + number))?);
            }
            children
                .into_iter()
                .try_for_each(|mut child| child.wait().map(drop).context("waiting for fwknop"))
        })??;
        let _late_ones = watch(SETTLE, || None::<()>);
        let heard = self.notices.take()?;
        let opened = opened(&heard, 1_000..1_000 + count);
        let last = heard.iter().map(|notice| notice.at).max().unwrap_or(begun);
        let took = last
            .saturating_duration_since(begun)
            .as_secs_f64()
            .max(lasts.as_secs_f64());
        Ok(opened as f64 / took)
    }

    /// Processor seconds per 100,000 junk packets sent, and the share in percent of honest knocks that opened meanwhile.
    #[expect(clippy::cast_precision_loss, reason = "some hundred thousand")]
    fn flood(&self, rate: u32, lasts: Duration) -> anyhow::Result<(f64, f64)> {
        self.notices.take()?;
        let over = AtomicBool::new(false);
        let before = process::processor_time(self.pid())?;
        let (sent, honest) = std::thread::scope(|scope| {
            let honest = scope.spawn(|| self.honest(&over));
            let sent = junk(&self.town.stranger, rate, lasts);
            over.store(true, Ordering::Release);
            anyhow::Ok((sent?, honest.join().expect("a sender does not panic")?))
        })?;
        let _late_ones = watch(SETTLE, || None::<()>);
        let cost = process::processor_time(self.pid())?.saturating_sub(before);
        let opened = opened(&self.notices.take()?, 5_000..5_000 + honest);
        Ok((
            cost.as_secs_f64() * 1e5 / f64::from(sent),
            100.0 * opened as f64 / honest.max(1) as f64,
        ))
    }

    fn honest(&self, over: &AtomicBool) -> anyhow::Result<usize> {
        self.town.stranger.run(|| {
            let mut number = 0;
            while !over.load(Ordering::Acquire) {
                self.knock(address_of(5_000 + number))?.wait()?;
                number += 1;
                wait_for(Instant::now() + HONEST);
            }
            anyhow::Ok(number)
        })?
    }
}

/// Junk that looks like a knock of fwknop: 223 characters of base64; as fast as one sender can at `u32::MAX`.
fn junk(space: &Namespace, rate: u32, lasts: Duration) -> anyhow::Result<u32> {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let packets = (0..1_024)
        .map(|_| Ok(random::<223>()?.map(|byte| ALPHABET[usize::from(byte % 64)])))
        .collect::<anyhow::Result<Vec<_>>>()?;
    space.run(|| {
        let socket = UdpSocket::bind("0.0.0.0:0")?;
        socket.connect(endpoint(GATEWAY, PORT))?;
        let begun = Instant::now();
        let batch = (rate / 1_000).clamp(1, 256);
        let mut sent = 0;
        for packets in packets.chunks_exact(usize::try_from(batch)?).cycle() {
            if rate < u32::MAX {
                wait_for(begun + Duration::from_secs(1) * sent / rate);
            }
            if begun.elapsed() >= lasts {
                break;
            }
            for packet in packets {
                // A full queue of the interface is no failure of the sender.
                let _perhaps_refused = socket.send(packet);
            }
            sent += batch;
        }
        anyhow::Ok(sent)
    })?
}

fn opened(heard: &[Notice], numbers: std::ops::Range<usize>) -> usize {
    numbers
        .filter(|number| {
            heard
                .iter()
                .any(|notice| is_rule_for(&notice.change, address_of(*number)))
        })
        .count()
}

/// Whether a rule compares with this address: an attribute of eight bytes, type 1 (`NFTA_DATA_VALUE`), holds it.
fn is_rule_for(change: &Change, address: Ipv4Addr) -> bool {
    let [a, b, c, d] = address.octets();
    let [l0, l1] = 8_u16.to_ne_bytes();
    let [k0, k1] = 1_u16.to_ne_bytes();
    match change {
        Change::Rule(message) => message
            .windows(8)
            .any(|window| window == [l0, l1, k0, k1, a, b, c, d]),
        Change::Element { .. } => false,
    }
}

fn address_of(number: usize) -> Ipv4Addr {
    let [.., high, low] = number.to_be_bytes();
    Ipv4Addr::new(10, 77, high, low)
}

fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write as _;
    bytes.iter().fold(String::new(), |mut text, byte| {
        let _never_fails = write!(text, "{byte:02x}");
        text
    })
}

fn is_installed(name: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path)
        .chain(["/usr/sbin".into()])
        .any(|folder| folder.join(name).is_file())
}
