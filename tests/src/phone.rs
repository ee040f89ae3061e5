//! A phone with an authenticator: codes of one secret, and which of them has been used.

use std::time::{Duration, SystemTime};

use anyhow::{Context, bail};
use totp_rs::{Algorithm, Builder, Secret};

use crate::wait::wait_until;

/// Length of a step, seconds (RFC 6238 §4.1, SPEC §2).
const STEP: u64 = 30;
/// A code is taken from the step before only while this much of the present one is left, seconds: it must still count when it arrives.
const MARGIN: u64 = 12;

/// One secret of one person.
#[derive(Clone, Debug)]
pub struct Phone {
    secret: String,
    digits: u8,
}

impl Phone {
    /// Reads an `otpauth://totp/…?secret=…` URI.
    ///
    /// # Errors
    /// When it is none, or of another kind than SHA-1 with 30 s.
    pub fn from_uri(uri: &str) -> anyhow::Result<Self> {
        let query = uri
            .trim()
            .strip_prefix("otpauth://totp/")
            .and_then(|rest| rest.split_once('?'))
            .map(|(_, query)| query)
            .with_context(|| format!("no otpauth URI: {uri:?}"))?;
        let field = |name: &str| {
            query
                .split('&')
                .filter_map(|pair| pair.split_once('='))
                .find(|(key, _)| *key == name)
                .map(|(_, value)| value)
        };
        if field("period").is_some_and(|period| period != "30")
            || field("algorithm").is_some_and(|algorithm| algorithm != "SHA1")
        {
            bail!("not a secret of RFC 6238's default kind: {uri:?}");
        }
        Ok(Self {
            secret: field("secret").context("no secret in the URI")?.to_owned(),
            digits: field("digits").unwrap_or("6").parse().context("digits")?,
        })
    }

    /// The code it shows in one step.
    ///
    /// # Errors
    /// When the secret is not base32 or too short.
    pub fn code(&self, step: u64) -> anyhow::Result<String> {
        let secret = Secret::try_from_base32(&self.secret)
            .map_err(|error| anyhow::anyhow!("the secret: {error:?}"))?;
        let totp = Builder::new()
            .with_secret(secret)
            .with_algorithm(Algorithm::SHA1)
            .with_digits(self.digits)
            .with_step_duration(STEP)
            .build()
            .map_err(|error| anyhow::anyhow!("the secret: {error:?}"))?;
        Ok(totp.generate(step * STEP).to_string())
    }
}

/// The step of this moment.
pub fn step_now() -> u64 {
    seconds() / STEP
}

/// The lowest step after `used` whose code a gateway accepts now (SPEC §10: the one before, the present, the next), after
/// waiting for it when there is none yet.
///
/// # Errors
/// When waiting takes longer than three steps.
pub fn next_step(used: Option<u64>) -> anyhow::Result<u64> {
    wait_until(
        "a code that was not used",
        Duration::from_secs(3 * STEP),
        || {
            let now = step_now();
            let oldest = match seconds() % STEP {
                early if early < STEP - MARGIN => now - 1,
                _ => now,
            };
            let step = used.map_or(oldest, |used| oldest.max(used + 1));
            (step <= now + 1).then_some(step)
        },
    )
}

fn seconds() -> u64 {
    SystemTime::now()
        .duration_since(SystemTime::UNIX_EPOCH)
        .expect("the year is after 1970")
        .as_secs()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// RFC 6238 appendix B: the secret "12345678901234567890" at 59 s.
    #[test]
    fn a_code_is_that_of_the_rfc() {
        let phone = Phone::from_uri(
            "otpauth://totp/spa:ana?secret=GEZDGNBVGY3TQOJQGEZDGNBVGY3TQOJQ&digits=8&period=30",
        )
        .unwrap();
        assert_eq!(phone.code(1).unwrap(), "94287082");
    }

    #[test]
    fn a_used_step_is_not_offered_again() {
        let first = next_step(None).unwrap();
        assert!(next_step(Some(first)).unwrap() > first);
    }
}
