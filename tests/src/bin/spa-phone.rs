//! Stands in for a person's phone: prints the code of `$SPA_TOTP_URI` for the 30-second step given as argument, or for now.
#![forbid(unsafe_code)]

use anyhow::Context;

fn main() -> anyhow::Result<()> {
    let uri = std::env::var("SPA_TOTP_URI").context("SPA_TOTP_URI is not set")?;
    let step = match std::env::args().nth(1) {
        Some(step) => step.parse().context("the argument is a step number")?,
        None => spa_tests::phone::step_now(),
    };
    println!("{}", spa_tests::phone::Phone::from_uri(&uri)?.code(step)?);
    Ok(())
}
