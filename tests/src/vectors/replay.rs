//! `replay.json`: §8 to §10 by `spa-gateway-core`.

use serde_json::Value;

use super::case::{Failure, Report};

pub fn check(vectors: &Value, report: &mut Report) {
    report.each("replay", vectors, |_| {
        Err(Failure::new("spa-gateway-core is not driven here yet"))
    });
}
