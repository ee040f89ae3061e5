//! Valid knocks at a rate: how many doors open, how late, and from which rate on some are lost.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use anyhow::Context;
use spa_tests::gateway::Gateway;
use spa_tests::net::Namespace;
use spa_tests::topology::Town;
use spa_tests::wait::wait_until;
use spa_tests::wire::Sender;

use crate::Pass;
use crate::figures::Figures;
use crate::fleet::{Fleet, Knock, hush};
use crate::notices::{Change, Notices};
use crate::process;
use crate::table::{Budget, Row, Table};

/// How long each rate lasts, seconds.
const LASTS: usize = 2;
/// How long after the last knock a door still counts.
const LATEST: Duration = Duration::from_secs(5);

/// What one rate came to.
struct Outcome {
    sent: usize,
    opened: usize,
    /// From the first knock to the last door.
    took: Duration,
    lags: Figures,
    processor: Duration,
    /// The enforcer's share of it.
    enforcer: Duration,
}

/// Measures it.
pub fn measure(pass: Pass, table: &mut Table) -> anyhow::Result<()> {
    let rates: &[usize] = match pass {
        Pass::Quick => &[500, 1_000, 2_000],
        Pass::Full => &[500, 1_000, 2_000, 3_000],
    };
    let town = Town::build()?;
    hush(&town.stranger)?;
    let mut gateway = Gateway::init(&town)?;
    let burst = 1_000;
    let mut fleet = Fleet::enlist(&gateway, rates.iter().sum::<usize>() * LASTS + burst, "1h")?;
    gateway.start()?;
    let notices = Notices::listen(&town.gateway)?;
    let mut best = 0.0_f64;
    let mut each = Duration::MAX;
    for rate in rates {
        let outcome = offer(
            &town,
            &gateway,
            &notices,
            fleet.knocks(rate * LASTS)?,
            *rate,
        )?;
        if outcome.opened == outcome.sent && outcome.per_second() > best {
            best = outcome.per_second();
            each = outcome.each();
        }
        table.put(outcome.row(
            &format!("knocks-at-{rate}"),
            &format!("valid knocks at {rate}/s: doors opened"),
        ));
        let _all_end = gateway.admin(&["session", "cut", "resource:wiki"])?;
        notices.take()?;
    }
    let outcome = offer(&town, &gateway, &notices, fleet.knocks(burst)?, 0)?;
    table.put(outcome.row(
        "knocks-burst",
        &format!("a burst of {burst} valid knocks: doors opened"),
    ));
    table.put(Row::new(
        "knocks-sustained",
        "valid knocks accepted, sustained, none lost",
        best,
        "per s",
    ));
    table.put(
        Row::new(
            "knocks-per-core",
            "  for each core that daemon and enforcer take of it",
            1.0 / each.as_secs_f64(),
            "per s",
        )
        .within(Budget::Least(2_000.0)),
    );
    Ok(())
}

impl Outcome {
    #[expect(clippy::cast_precision_loss, reason = "some thousands")]
    fn per_second(&self) -> f64 {
        self.opened as f64 / self.took.as_secs_f64()
    }

    /// What each that opened cost.
    fn each(&self) -> Duration {
        self.processor / u32::try_from(self.opened.max(1)).unwrap_or(u32::MAX)
    }

    #[expect(clippy::cast_precision_loss, reason = "some thousands")]
    fn row(&self, name: &str, what: &str) -> Row {
        let share = 100.0 * self.opened as f64 / self.sent as f64;
        let each = |time: Duration| time.as_secs_f64() * 1e3 / self.opened.max(1) as f64;
        let (processor, enforcer) = (each(self.processor), each(self.enforcer));
        Row::new(name, what, share, "%").within(Budget::Least(100.0)).detail(format!(
            "{} of {}, {:.0}/s, lag p50 {:.1} p99 {:.0} ms, {processor:.2} ms of processor each, {enforcer:.2} of it the enforcer's",
            self.opened,
            self.sent,
            self.per_second(),
            self.lags.median(),
            self.lags.p99()
        ))
    }
}

fn offer(
    town: &Town,
    gateway: &Gateway,
    notices: &Notices,
    knocks: Vec<Knock>,
    rate: usize,
) -> anyhow::Result<Outcome> {
    let before = (process::gateway_time(gateway)?, enforcer_time(gateway)?);
    let sent = send_at(&town.stranger, &knocks, rate)?;
    let is_door = |change: &Change| change.door().is_some();
    // Not all may come: the limit is no failure.
    let _counted_below = wait_until("every door", LATEST, || {
        (notices.count(is_door) >= knocks.len()).then_some(())
    });
    let processor = process::gateway_time(gateway)?.saturating_sub(before.0);
    let enforcer = enforcer_time(gateway)?.saturating_sub(before.1);
    let opened: BTreeMap<SocketAddr, Instant> = notices
        .take()?
        .iter()
        .rev()
        .filter_map(|notice| Some((notice.change.door()?, notice.at)))
        .collect();
    let lags = knocks.iter().zip(&sent).filter_map(|(knock, sent)| {
        Some(opened.get(&knock.door)?.saturating_duration_since(*sent))
    });
    let lags = Figures::of_times(lags);
    let first = sent.first().copied().unwrap_or_else(Instant::now);
    let last = opened.values().max().copied().unwrap_or(first);
    Ok(Outcome {
        sent: knocks.len(),
        opened: lags.count(),
        took: last.saturating_duration_since(first),
        lags,
        processor,
        enforcer,
    })
}

fn enforcer_time(gateway: &Gateway) -> anyhow::Result<Duration> {
    let pid = gateway
        .process("spa-enforcer")
        .context("the enforcer runs")?;
    process::processor_time(pid)
}

/// Sends knocks at a rate, as fast as one sender can when it is 0, and tells when each left.
///
/// # Errors
/// When the kernel refuses one.
pub fn send_at(space: &Namespace, knocks: &[Knock], rate: usize) -> anyhow::Result<Vec<Instant>> {
    space.run(|| {
        let sender = Sender::open()?;
        let begun = Instant::now();
        let mut sent = Vec::with_capacity(knocks.len());
        for (number, knock) in knocks.iter().enumerate() {
            if rate > 0 {
                wait_for(
                    begun + Duration::from_secs(1) * u32::try_from(number)? / u32::try_from(rate)?,
                );
            }
            sent.push(Instant::now());
            sender.send(&knock.packet)?;
        }
        anyhow::Ok(sent)
    })?
}

/// Sleeps until a moment; late when the machine is busy, never early.
pub fn wait_for(moment: Instant) {
    let left = moment.saturating_duration_since(Instant::now());
    if !left.is_zero() {
        std::thread::sleep(left);
    }
}
