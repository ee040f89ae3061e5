//! Junk of a knock's length to the knock port: what it costs the gateway, and whether honest knocks in the middle get through.

use std::collections::BTreeMap;
use std::fs;
use std::net::{SocketAddr, UdpSocket};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use spa_tests::gateway::Gateway;
use spa_tests::net::Namespace;
use spa_tests::packet::Packet;
use spa_tests::topology::{GATEWAY, PORT, Town, endpoint};
use spa_tests::wait::watch;
use spa_tests::wire::Sender;

use crate::Pass;
use crate::figures::Figures;
use crate::fleet::{Fleet, Knock, hush, random};
use crate::notices::Notices;
use crate::process;
use crate::sustained::wait_for;
use crate::table::{Budget, Row, Table};

/// How many different junk packets there are.
const KINDS: usize = 1_024;
/// How often an honest knock is sent.
const HONEST: Duration = Duration::from_millis(100);
/// How long after the flood a door still counts.
const LATEST: Duration = Duration::from_secs(2);

/// What is sent again and again.
pub enum Junk {
    /// Payloads, by one socket: as fast as it gets.
    Payloads(Vec<[u8; 512]>),
    /// Payloads, each from another address than the one before: of a million.
    Spoofed(Vec<[u8; 512]>),
}

/// What one flood came to.
pub struct Outcome {
    pub sent: usize,
    took: Duration,
    pub honest: usize,
    pub lags: Figures,
    pub processor: Duration,
    /// Packets the kernel dropped before anybody could see them: its receive queue was full.
    overrun: u64,
    /// Doors that opened for anybody but the honest.
    pub other_doors: usize,
}

/// Seconds of processor that 100,000 junk packets may cost.
const JUNK: f64 = 0.02;

/// Measures it.
pub fn measure(pass: Pass, table: &mut Table) -> anyhow::Result<()> {
    let lasts = pass.of(5, 15);
    let rates: &[usize] = match pass {
        Pass::Quick => &[0, 0, 10_000, 100_000, 0],
        Pass::Full => &[0, 0, 1_000, 10_000, 50_000, 100_000, usize::MAX, 0],
    };
    let town = Town::build()?;
    hush(&town.stranger)?;
    let mut gateway = Gateway::init(&town)?;
    let mut fleet = Fleet::enlist(&gateway, rates.len() * (lasts * 10 + 10), "1h")?;
    gateway.start()?;
    let notices = Notices::listen(&town.gateway)?;
    // What the honest knocks cost by themselves: the very first, before, and after.
    let mut calm = Vec::new();
    let mut floods = Vec::new();
    let junk = (0..KINDS).map(|_| random::<512>());
    let junk = Junk::Payloads(junk.collect::<anyhow::Result<_>>()?);
    let before = process::gateway_memory(&gateway)?;
    for rate in rates {
        let outcome = flood(&town, &gateway, &notices, &mut fleet, &junk, *rate, lasts)?;
        match *rate {
            0 => calm.push(outcome.processor),
            rate => floods.push((rate, outcome)),
        }
    }
    let calm = Calm::of(calm.get(1..).unwrap_or_default());
    for (rate, outcome) in floods {
        outcome.rows(rate, calm, table);
    }
    table.put(Row::new(
        "junk-memory",
        "  resident memory gained in all these floods",
        process::mb_gained(before, process::gateway_memory(&gateway)?),
        "MB",
    ));
    without_tags(pass, table)
}

/// The same on a kernel, or in a container, that takes no tag filter: bpf(2) is refused there.
fn without_tags(pass: Pass, table: &mut Table) -> anyhow::Result<()> {
    let lasts = pass.of(3, 10);
    let town = Town::build()?;
    hush(&town.stranger)?;
    let mut gateway = Gateway::init(&town)?;
    let mut fleet = Fleet::enlist(&gateway, 2 * (lasts * 10 + 10), "1h")?;
    gateway.start_without_bpf()?;
    let notices = Notices::listen(&town.gateway)?;
    let junk = (0..KINDS).map(|_| random::<512>());
    let junk = Junk::Payloads(junk.collect::<anyhow::Result<_>>()?);
    let calm = flood(&town, &gateway, &notices, &mut fleet, &junk, 0, lasts)?.processor;
    let rate = 50_000;
    let outcome = flood(&town, &gateway, &notices, &mut fleet, &junk, rate, lasts)?;
    table.put(
        Row::new(
            "junk-cost-no-tag-filter",
            "junk at 50000/s without the tag filter: processor per 100k packets",
            outcome.cost(calm),
            "s",
        )
        .within(Budget::Most(0.3)),
    );
    table.put(outcome.honest_row("junk-honest-no-tag-filter"));
    Ok(())
}

/// What honest knocks cost while nobody floods.
#[derive(Clone, Copy)]
struct Calm {
    /// The least, so that what junk costs is never made too little.
    processor: Duration,
    /// By how much the most is more: what junk costs is known no better.
    spread: Duration,
}

impl Calm {
    fn of(times: &[Duration]) -> Self {
        let least = times.iter().min().copied().unwrap_or_default();
        let most = times.iter().max().copied().unwrap_or_default();
        Self {
            processor: least,
            spread: most - least,
        }
    }
}

impl Outcome {
    #[expect(clippy::cast_precision_loss, reason = "some millions")]
    fn rows(&self, rate: usize, calm: Calm, table: &mut Table) {
        let rate = match rate {
            usize::MAX => "full speed".to_owned(),
            rate => format!("{rate}/s"),
        };
        let name = rate.trim_end_matches("/s").replace(' ', "-");
        let pps = self.sent as f64 / self.took.as_secs_f64();
        let known = calm.spread.as_secs_f64() * 1e5 / self.sent as f64;
        // Where it is not known that well, a verdict would be luck.
        let (budget, verdict) = if known <= JUNK {
            (Budget::Most(JUNK), "")
        } else {
            (Budget::None, ", too few packets for a verdict")
        };
        table.put(
            Row::new(
                &format!("junk-cost-{name}"),
                &format!("junk at {rate}: processor per 100k packets"),
                self.cost(calm.processor),
                "s",
            )
            .within(budget)
            .detail(format!(
                "{pps:.0}/s sent, {} lost to the kernel's queue; the honest knocks alone differ by {known:.3} s{verdict}",
                self.overrun,
            )),
        );
        table.put(self.honest_row(&format!("junk-honest-{name}")));
    }

    /// Seconds of processor for 100,000 packets, beyond what the honest knocks cost by themselves.
    #[expect(clippy::cast_precision_loss, reason = "some millions")]
    pub fn cost(&self, calm: Duration) -> f64 {
        self.processor.saturating_sub(calm).as_secs_f64() * 1e5 / self.sent as f64
    }

    /// How many honest knocks opened their door.
    #[expect(clippy::cast_precision_loss, reason = "some hundreds")]
    pub fn honest_row(&self, name: &str) -> Row {
        let share = 100.0 * self.lags.count() as f64 / self.honest.max(1) as f64;
        let what = "  honest knocks that open a door meanwhile";
        Row::new(name, what, share, "%")
            .within(Budget::Least(100.0))
            .detail(format!(
                "{} of {}, p50 {:.1} p99 {:.0} ms",
                self.lags.count(),
                self.honest,
                self.lags.median(),
                self.lags.p99()
            ))
    }
}

/// Sends junk at a rate for some seconds, with an honest knock every tenth of a second.
///
/// # Errors
/// When a sender or the gateway is gone.
pub fn flood(
    town: &Town,
    gateway: &Gateway,
    notices: &Notices,
    fleet: &mut Fleet,
    junk: &Junk,
    rate: usize,
    seconds: usize,
) -> anyhow::Result<Outcome> {
    let knocks = fleet.knocks(seconds * 10)?;
    let over = AtomicBool::new(false);
    let overrun = overruns();
    let before = process::gateway_time(gateway)?;
    let begun = Instant::now();
    let (sent, honest) = std::thread::scope(|scope| {
        let honest = scope.spawn(|| honest_knocks(&town.stranger, &knocks, &over));
        let lasts = Duration::from_secs(seconds.try_into()?);
        let sent = send_junk(&town.stranger, junk, rate, lasts);
        over.store(true, Ordering::Release);
        let honest = honest.join().expect("a sender does not panic")?;
        anyhow::Ok((sent?, honest))
    })?;
    let took = begun.elapsed();
    let _late_ones = watch(LATEST, || None::<()>);
    let processor = process::gateway_time(gateway)?.saturating_sub(before);
    let heard = notices.take()?;
    let doors = heard
        .iter()
        .rev()
        .filter_map(|notice| Some((notice.change.door()?, notice.at)));
    let opened: BTreeMap<SocketAddr, Instant> = doors.clone().collect();
    let is_honest = |door: &SocketAddr| honest.iter().any(|(theirs, _)| theirs == door);
    let other_doors = doors.filter(|(door, _)| !is_honest(door)).count();
    // Each flood finds the gateway as the one before did.
    let _all_end = gateway.admin(&["session", "cut", "resource:wiki"])?;
    notices.take()?;
    let lags = honest
        .iter()
        .filter_map(|(door, sent)| Some(opened.get(door)?.saturating_duration_since(*sent)));
    Ok(Outcome {
        sent: sent.max(1),
        took,
        honest: honest.len(),
        lags: Figures::of_times(lags),
        processor,
        overrun: overruns().saturating_sub(overrun),
        other_doors,
    })
}

/// Sends junk for a while and tells how much.
fn send_junk(
    space: &Namespace,
    junk: &Junk,
    rate: usize,
    lasts: Duration,
) -> anyhow::Result<usize> {
    space.run(|| {
        let gateway = endpoint(GATEWAY, PORT);
        let socket = UdpSocket::bind("0.0.0.0:0")?;
        socket.connect(gateway)?;
        let raw = Sender::open()?;
        let send = |number: usize| match junk {
            // A full queue of the interface is no failure of the sender.
            Junk::Payloads(payloads) => {
                let payload = payloads.get(number % payloads.len());
                let _perhaps_refused = payload.map(|payload| socket.send(payload));
            }
            Junk::Spoofed(payloads) => {
                // 203.0.113.66 is the stranger's; a million others are nobody's, and none is on the gateway's networks.
                let [_, b, c, d] = u32::try_from(number % 1_000_000).unwrap_or(0).to_be_bytes();
                let source = SocketAddr::from(([11, b, c, d], 4_000));
                let payload = payloads.get(number % payloads.len());
                let _perhaps_refused =
                    payload.map(|payload| raw.send(&Packet::udp(source, gateway, payload)));
            }
        };
        let begun = Instant::now();
        let mut sent = 0;
        // So many go out together that the sender sleeps a millisecond at least in between.
        let batch = (rate / 1_000).clamp(1, 256);
        while begun.elapsed() < lasts {
            match rate {
                0 => wait_for(begun + lasts),
                usize::MAX => {}
                rate => wait_for(
                    begun + Duration::from_secs(1) * u32::try_from(sent)? / u32::try_from(rate)?,
                ),
            }
            if rate > 0 {
                (sent..sent + batch).for_each(&send);
                sent += batch;
            }
        }
        anyhow::Ok(sent)
    })?
}

fn honest_knocks(
    space: &Namespace,
    knocks: &[Knock],
    over: &AtomicBool,
) -> anyhow::Result<Vec<(SocketAddr, Instant)>> {
    space.run(|| {
        let sender = Sender::open()?;
        let mut sent = Vec::new();
        for knock in knocks {
            wait_for(Instant::now() + HONEST);
            if over.load(Ordering::Acquire) {
                break;
            }
            sent.push((knock.door, Instant::now()));
            sender.send(&knock.packet)?;
        }
        anyhow::Ok(sent)
    })?
}

/// The second column of every processor: packets dropped because its backlog was full (net/core/net-procfs.c).
fn overruns() -> u64 {
    let text = fs::read_to_string("/proc/net/softnet_stat").unwrap_or_default();
    text.lines()
        .filter_map(|line| u64::from_str_radix(line.split_whitespace().nth(1)?, 16).ok())
        .sum()
}
