//! What the programs weigh as they are released: those of this build, and those of a router, where `make router` has built them.

use std::fs;
use std::path::Path;

use anyhow::Context;

use crate::Pass;
use crate::table::{Budget, Row, Table};

/// What a gateway needs.
const GATEWAY: [&str; 3] = ["spa-gateway", "spa-enforcer", "spa-admin"];
/// What the rest of them needs, where the kernel has no WireGuard, and on a laptop.
const OTHERS: [&str; 2] = ["spa-tunnel", "spa"];
/// The same for a router, where `spa-admin` is another name of the gateway (docs/decisions/0028).
const ROUTER: [&str; 2] = ["spa-gateway", "spa-enforcer"];

/// Measures it.
pub fn measure(_: Pass, table: &mut Table) -> anyhow::Result<()> {
    let own = std::env::current_exe()?;
    let folder = own.parent().context("a program is in a folder")?;
    let (sum, gateway) = weigh(folder, &GATEWAY)?;
    let (_, others) = weigh(folder, &OTHERS)?;
    table.put(
        Row::new(
            "program-size",
            "programs of this build, stripped: gateway, enforcer, admin",
            sum,
            "MB",
        )
        .detail(format!("{gateway}; besides {others}")),
    );
    // As `packaging/router/build.sh` lays them out, beside this build.
    let router = folder.with_file_name("router").join("programs/aarch64");
    if !router.is_dir() {
        table.skip("programs of a router: not built here (make router TARGET=aarch64)");
        return Ok(());
    }
    let (sum, each) = weigh(&router, &ROUTER)?;
    table.put(
        Row::new(
            "program-size-router",
            "  of a router, aarch64: gateway and admin (one file), enforcer",
            sum,
            "MB",
        )
        .within(Budget::Most(6.0))
        .detail(each),
    );
    Ok(())
}

/// The sum of some programs, MB, and each of them in words.
fn weigh(folder: &Path, names: &[&str]) -> anyhow::Result<(f64, String)> {
    let sizes: Vec<f64> = names
        .iter()
        .map(|name| size_of(folder, name))
        .collect::<anyhow::Result<_>>()?;
    let each = names.iter().zip(&sizes);
    let each = each.map(|(name, size)| format!("{name} {size:.1}"));
    Ok((sizes.iter().sum(), each.collect::<Vec<_>>().join(", ")))
}

#[expect(clippy::cast_precision_loss, reason = "some millions")]
fn size_of(folder: &Path, name: &str) -> anyhow::Result<f64> {
    let file = folder.join(name);
    let metadata = fs::metadata(&file).with_context(|| format!("looking at {}", file.display()))?;
    Ok(metadata.len() as f64 / 1e6)
}
