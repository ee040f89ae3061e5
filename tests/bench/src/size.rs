//! What the programs weigh as they are released: stripped, beside this one.

use std::fs;
use std::path::Path;

use anyhow::Context;

use crate::Pass;
use crate::table::{Budget, Row, Table};

/// What a router needs.
const ROUTER: [&str; 3] = ["spa-gateway", "spa-enforcer", "spa-admin"];
/// What the rest of them needs, where the kernel has no WireGuard, and on a laptop.
const OTHERS: [&str; 2] = ["spa-tunnel", "spa"];

/// Measures it.
pub fn measure(_: Pass, table: &mut Table) -> anyhow::Result<()> {
    let own = std::env::current_exe()?;
    let folder = own.parent().context("a program is in a folder")?;
    let size = |name: &&str| size_of(folder, name);
    let [router, others]: [Vec<f64>; 2] = [
        ROUTER.iter().map(size).collect::<anyhow::Result<_>>()?,
        OTHERS.iter().map(size).collect::<anyhow::Result<_>>()?,
    ];
    let words = |names: &[&str], sizes: &[f64]| {
        let each = names.iter().zip(sizes);
        let each = each.map(|(name, size)| format!("{name} {size:.1}"));
        each.collect::<Vec<_>>().join(", ")
    };
    let what = "programs of this build, stripped: gateway, enforcer, admin";
    table.put(
        Row::new("program-size", what, router.iter().sum(), "MB")
            .within(Budget::Most(6.0))
            .detail(format!(
                "{}; besides {}",
                words(&ROUTER, &router),
                words(&OTHERS, &others)
            )),
    );
    Ok(())
}

#[expect(clippy::cast_precision_loss, reason = "some millions")]
fn size_of(folder: &Path, name: &str) -> anyhow::Result<f64> {
    let file = folder.join(name);
    let metadata = fs::metadata(&file).with_context(|| format!("looking at {}", file.display()))?;
    Ok(metadata.len() as f64 / 1e6)
}
