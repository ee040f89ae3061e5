//! What a person waits for: from the start of `spa knock` to the first byte of the resource, and the Argon2id within.

use std::collections::BTreeSet;
use std::io::{Read, Write};
use std::time::{Duration, Instant};

use spa_proto::{CredentialId, DeviceSecret, GatewayId, ProofSecret};
use spa_tests::gateway::Gateway;
use spa_tests::topology::{SERVER, Town, WEB, endpoint};
use spa_tests::wait::watch;

use crate::Pass;
use crate::figures::Figures;
use crate::machine::{self, Machine};
use crate::process;
use crate::table::{Budget, Row, Table};

/// How many machines take turns: each may send a packet every two seconds for long (SPEC §8 step 4).
const MACHINES: usize = 3;

/// Measures it.
pub fn measure(pass: Pass, table: &mut Table) -> anyhow::Result<()> {
    let town = Town::build()?;
    let gateway = Gateway::running(&town)?;
    idle(&gateway, table)?;
    let machines = machine::enrol(&gateway, &town.client, MACHINES)?;
    let mut totals = Vec::new();
    let mut argons = Vec::new();
    let mut rests = Vec::new();
    for machine in machines.iter().cycle().take(pass.of(9, 30)) {
        let argon = argon2id()?;
        let total = first_byte(machine)?;
        machine.close()?;
        totals.push(total);
        argons.push(argon);
        rests.push(total.saturating_sub(argon));
        // The bucket of the machine fills again.
        let _nothing_to_see = watch(Duration::from_millis(1_400), || None::<()>);
    }
    let [totals, argons, rests] = [totals, argons, rests].map(Figures::of_times);
    let what = "`spa knock` start → first byte";
    table.put(Row::new("start-to-first-byte", what, totals.median(), "ms").detail(totals.spread()));
    table.put(
        Row::new(
            "argon2id",
            "  of it: Argon2id, 64 MiB",
            argons.median(),
            "ms",
        )
        .detail(argons.spread()),
    );
    table.put(
        Row::new(
            "start-to-first-byte-rest",
            "  the rest",
            rests.median(),
            "ms",
        )
        .within(Budget::Most(60.0))
        .detail(rests.spread()),
    );
    Ok(())
}

/// A gateway that has done nothing yet.
fn idle(gateway: &Gateway, table: &mut Table) -> anyhow::Result<()> {
    memory_rows(gateway, "idle", Some(10.0), table)
}

/// One row for each process, and one for daemon and enforcer together.
pub fn memory_rows(
    gateway: &Gateway,
    when: &str,
    budget: Option<f64>,
    table: &mut Table,
) -> anyhow::Result<()> {
    let mut sum = process::Memory::default();
    let mut pages = BTreeSet::new();
    let mut parts = Vec::new();
    for (name, pid) in process::of_gateway(gateway) {
        let memory = process::memory(pid)?;
        parts.push(format!(
            "{name} {:.1}, {:.1} of it anonymous",
            mib(memory.resident),
            mib(memory.anonymous)
        ));
        if name != "spa-tunnel" {
            sum.resident += memory.resident;
            sum.anonymous += memory.anonymous;
            pages.append(&mut process::pages(pid)?);
        }
    }
    let row = |name: &str, what: &str, value| {
        Row::new(
            &format!("{name}-{}", when.replace(' ', "-")),
            what,
            value,
            "MB",
        )
    };
    let distinct = pages.len() as u64 * process::PAGE;
    table.put(
        row(
            "memory",
            &format!("resident memory of daemon + enforcer, a page of both counted once, {when}"),
            mib(distinct),
        )
        .within(budget.map_or(Budget::None, Budget::Most))
        .detail(parts.join("; ")),
    );
    table.put(row(
        "memory-twice",
        "  a page of both counted in each",
        mib(sum.resident),
    ));
    table.put(row("memory-anonymous", "  anonymous", mib(sum.anonymous)));
    Ok(())
}

#[expect(clippy::cast_precision_loss, reason = "far below 2^52 bytes")]
fn mib(bytes: u64) -> f64 {
    bytes as f64 / 1e6
}

fn first_byte(machine: &Machine) -> anyhow::Result<Duration> {
    machine.space().run(|| {
        let begun = Instant::now();
        machine.knock(&["wiki"])?;
        let mut stream = machine::connect(endpoint(SERVER, WEB))?;
        stream.write_all(b"GET / HTTP/1.1\r\nHost: wiki\r\n\r\n")?;
        stream.read_exact(&mut [0])?;
        anyhow::Ok(begun.elapsed())
    })?
}

/// The same computation as the client's, in this process.
fn argon2id() -> anyhow::Result<Duration> {
    let begun = Instant::now();
    let gateway = GatewayId::from_bytes([1; 16]);
    let credential = CredentialId::from_bytes([2; 16]);
    ProofSecret::for_machine(
        &[3; 16],
        &DeviceSecret::from_bytes([4; 32]),
        gateway,
        credential,
    )?;
    Ok(begun.elapsed())
}
