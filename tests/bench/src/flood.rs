//! Junk of a knock's length to the knock port: what it costs the gateway, and whether honest knocks in the middle get through.

use std::collections::BTreeMap;
use std::fs;
use std::net::{SocketAddr, UdpSocket};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use spa_tests::gateway::Gateway;
use spa_tests::net::Namespace;
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

/// What one flood came to.
struct Outcome {
    sent: usize,
    took: Duration,
    honest: usize,
    lags: Figures,
    processor: Duration,
    /// Packets the kernel dropped before anybody could see them: its receive queue was full.
    overrun: u64,
}

/// Measures it.
pub fn measure(pass: Pass, table: &mut Table) -> anyhow::Result<()> {
    let lasts = pass.of(5, 15);
    let rates: &[usize] = match pass {
        Pass::Quick => &[0, 10_000, 100_000],
        Pass::Full => &[0, 1_000, 10_000, 50_000, 100_000, usize::MAX],
    };
    let town = Town::build()?;
    hush(&town.stranger)?;
    let mut gateway = Gateway::init(&town)?;
    let mut fleet = Fleet::enlist(&gateway, rates.len() * (lasts * 10 + 10), "1h")?;
    gateway.start()?;
    let notices = Notices::listen(&town.gateway)?;
    let mut calm = Duration::ZERO;
    for rate in rates {
        let outcome = flood(&town, &gateway, &notices, &mut fleet, *rate, lasts)?;
        if *rate == 0 {
            // What the honest knocks cost by themselves.
            calm = outcome.processor;
            continue;
        }
        outcome.rows(*rate, calm, table);
    }
    Ok(())
}

impl Outcome {
    #[expect(clippy::cast_precision_loss, reason = "some millions")]
    fn rows(&self, rate: usize, calm: Duration, table: &mut Table) {
        let rate = match rate {
            usize::MAX => "full speed".to_owned(),
            rate => format!("{rate}/s"),
        };
        let name = rate.trim_end_matches("/s").replace(' ', "-");
        let pps = self.sent as f64 / self.took.as_secs_f64();
        let cost = self.processor.saturating_sub(calm).as_secs_f64() * 1e5 / self.sent as f64;
        let share = 100.0 * self.lags.count() as f64 / self.honest.max(1) as f64;
        table.put(
            Row::new(
                &format!("junk-cost-{name}"),
                &format!("junk at {rate}: processor per 100k packets"),
                cost,
                "s",
            )
            .within(Budget::Most(0.3))
            .detail(format!(
                "{pps:.0}/s sent, {} lost to the kernel's queue",
                self.overrun
            )),
        );
        table.put(
            Row::new(
                &format!("junk-honest-{name}"),
                "  honest knocks that open a door meanwhile",
                share,
                "%",
            )
            .within(Budget::Least(100.0))
            .detail(format!(
                "{} of {}, p50 {:.1} p99 {:.0} ms",
                self.lags.count(),
                self.honest,
                self.lags.median(),
                self.lags.p99()
            )),
        );
    }
}

fn flood(
    town: &Town,
    gateway: &Gateway,
    notices: &Notices,
    fleet: &mut Fleet,
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
        let sent = junk(
            &town.stranger,
            rate,
            Duration::from_secs(seconds.try_into()?),
        );
        over.store(true, Ordering::Release);
        let honest = honest.join().expect("a sender does not panic")?;
        anyhow::Ok((sent?, honest))
    })?;
    let took = begun.elapsed();
    let _late_ones = watch(LATEST, || None::<()>);
    let processor = process::gateway_time(gateway)?.saturating_sub(before);
    let opened: BTreeMap<SocketAddr, Instant> = notices
        .take()?
        .iter()
        .rev()
        .filter_map(|notice| Some((notice.change.door()?, notice.at)))
        .collect();
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
    })
}

/// Sends junk for a while and tells how much.
fn junk(space: &Namespace, rate: usize, lasts: Duration) -> anyhow::Result<usize> {
    let packets = (0..KINDS)
        .map(|_| random::<512>())
        .collect::<anyhow::Result<Vec<_>>>()?;
    space.run(|| {
        let socket = UdpSocket::bind("0.0.0.0:0")?;
        socket.connect(endpoint(GATEWAY, PORT))?;
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
                for packet in packets.iter().cycle().skip(sent % KINDS).take(batch) {
                    // A full queue of the interface is no failure of the sender.
                    let _perhaps_refused = socket.send(packet);
                }
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
