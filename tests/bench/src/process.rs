//! What a process has used: memory by kind, processor time of all its threads; and what machine this is.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::time::Duration;

use anyhow::Context;
use spa_tests::gateway::Gateway;

/// Bytes of a page, on every processor this is measured on.
pub const PAGE: u64 = 4096;

/// Resident memory, in bytes.
#[derive(Clone, Copy, Debug, Default)]
pub struct Memory {
    /// All of it: what `ps` calls RSS.
    pub resident: u64,
    /// The part that belongs to no file: heap, stacks, written data.
    pub anonymous: u64,
}

/// The memory of a process now.
///
/// # Errors
/// When it is gone.
pub fn memory(pid: u32) -> anyhow::Result<Memory> {
    let path = format!("/proc/{pid}/smaps_rollup");
    let text = fs::read_to_string(&path).with_context(|| format!("reading {path}"))?;
    let field = |name: &str| {
        text.lines()
            .find_map(|line| {
                line.strip_prefix(name)?
                    .split_whitespace()
                    .next()?
                    .parse::<u64>()
                    .ok()
            })
            .map(|kib| kib * 1024)
            .with_context(|| format!("no {name} in {path}"))
    };
    Ok(Memory {
        resident: field("Rss:")?,
        anonymous: field("Anonymous:")?,
    })
}

/// The pages of a process that are in memory now, by their place in it: what two processes share is in both sets.
///
/// # Errors
/// When it is gone, or the kernel tells nobody where a page is (it tells root).
pub fn pages(pid: u32) -> anyhow::Result<BTreeSet<u64>> {
    let maps = fs::read_to_string(format!("/proc/{pid}/maps"))?;
    let pagemap = File::open(format!("/proc/{pid}/pagemap"))?;
    let mut pages = BTreeSet::new();
    for line in maps.lines() {
        let (range, _) = line.split_once(' ').context("a line of maps")?;
        let (start, end) = range.split_once('-').context("a range of maps")?;
        let (start, end) = (
            u64::from_str_radix(start, 16)?,
            u64::from_str_radix(end, 16)?,
        );
        // The kernel's own page at the very top has no entry.
        if start >= 1 << 63 {
            continue;
        }
        let mut entries = vec![0; usize::try_from((end - start) / PAGE * 8)?];
        pagemap.read_exact_at(&mut entries, start / PAGE * 8)?;
        for entry in entries.as_chunks().0 {
            let entry = u64::from_le_bytes(*entry);
            // Bit 63: in memory; bits 0 to 54: where (pagemap.rst).
            if entry >> 63 == 1 {
                let place = entry & ((1 << 55) - 1);
                anyhow::ensure!(place != 0, "the kernel does not tell where a page is");
                pages.insert(place);
            }
        }
    }
    Ok(pages)
}

/// Processor time of a process so far, all threads that live.
///
/// # Errors
/// When it is gone.
pub fn processor_time(pid: u32) -> anyhow::Result<Duration> {
    let folder = format!("/proc/{pid}/task");
    let mut total = 0;
    for task in fs::read_dir(&folder).with_context(|| format!("reading {folder}"))? {
        // Nanoseconds on a processor, then waiting for one, then turns (sched-stats.rst).
        let text = fs::read_to_string(task?.path().join("schedstat")).unwrap_or_default();
        total += text
            .split_whitespace()
            .next()
            .and_then(|first| first.parse::<u64>().ok())
            .unwrap_or_default();
    }
    Ok(Duration::from_nanos(total))
}

/// The processes of a gateway that runs.
pub fn of_gateway(gateway: &Gateway) -> Vec<(&'static str, u32)> {
    ["spa-gateway", "spa-enforcer", "spa-tunnel"]
        .into_iter()
        .filter_map(|name| Some((name, gateway.process(name)?)))
        .collect()
}

/// Processor time of daemon and enforcer together.
///
/// # Errors
/// When one of them is gone.
pub fn gateway_time(gateway: &Gateway) -> anyhow::Result<Duration> {
    of_gateway(gateway)
        .into_iter()
        .filter(|(name, _)| *name != "spa-tunnel")
        .map(|(_, pid)| processor_time(pid))
        .sum()
}

/// Processor time of all its processes together.
///
/// # Errors
/// When one of them is gone.
pub fn all_time(gateway: &Gateway) -> anyhow::Result<Duration> {
    let all = of_gateway(gateway).into_iter();
    all.map(|(_, pid)| processor_time(pid)).sum()
}

/// Resident memory of daemon and enforcer together, bytes.
///
/// # Errors
/// When one of them is gone.
pub fn gateway_memory(gateway: &Gateway) -> anyhow::Result<u64> {
    of_gateway(gateway)
        .into_iter()
        .filter(|(name, _)| *name != "spa-tunnel")
        .map(|(_, pid)| Ok(memory(pid)?.resident))
        .sum()
}

/// Megabytes between two amounts; never below zero.
#[expect(clippy::cast_precision_loss, reason = "far below 2^52 bytes")]
pub fn mb_gained(before: u64, after: u64) -> f64 {
    after.saturating_sub(before) as f64 / 1e6
}

/// Load average of the last minute.
pub fn load() -> f64 {
    fs::read_to_string("/proc/loadavg")
        .ok()
        .and_then(|text| text.split_whitespace().next()?.parse().ok())
        .unwrap_or_default()
}

/// Processor, kernel and memory in one line.
pub fn machine() -> String {
    let line = |path: &str, name: &str| {
        let text = fs::read_to_string(path).unwrap_or_default();
        let found = text.lines().find_map(|line| {
            Some(
                line.strip_prefix(name)?
                    .trim_start_matches([' ', '\t', ':'])
                    .to_owned(),
            )
        });
        found.unwrap_or_default()
    };
    format!(
        "{} × {}, Linux {}, {} memory",
        std::thread::available_parallelism().map_or(1, usize::from),
        line("/proc/cpuinfo", "model name"),
        fs::read_to_string("/proc/sys/kernel/osrelease")
            .unwrap_or_default()
            .trim(),
        line("/proc/meminfo", "MemTotal")
    )
}
