//! Somebody and the second factor (SPEC §10): the phone's code, a recovery code, or none for a machine.

use alloc::vec::Vec;
use core::fmt::{self, Write as _};

use spa_proto::{SecondFactor, TotpSecret, WallTime};
use subtle::{Choice, ConditionallySelectable, ConstantTimeEq, ConstantTimeGreater};
use totp_rs::{Algorithm, Builder, Secret};

use crate::habit::Habits;
use crate::snapshot::{PersonKind, PersonRow, Standing, TotpRow};

/// A person or a machine.
#[derive(Debug)]
pub(crate) struct Person {
    pub(crate) kind: PersonKind,
    pub(crate) standing: Standing,
    pub(crate) totp: Option<Totp>,
    pub(crate) last_step: u64,
    pub(crate) recovery: Vec<[u8; 32]>,
    pub(crate) habits: Habits,
}

/// A phone's secret.
#[derive(Debug)]
pub(crate) struct Totp {
    pub(crate) secret: TotpSecret,
    pub(crate) digits: u8,
    pub(crate) period: u8,
    pub(crate) proven: bool,
}

/// What an accepted second factor uses up.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Spend {
    Nothing,
    Step(u64),
    Recovery([u8; 32]),
}

impl Person {
    pub(crate) fn restore(row: PersonRow) -> Self {
        Self {
            kind: row.kind,
            standing: row.standing,
            totp: row.totp.map(Totp::restore),
            last_step: row.last_step,
            recovery: row.recovery,
            habits: Habits::default(),
        }
    }

    /// Judges a second factor. Says yes or no without telling by its time which code was near.
    pub(crate) fn judge(&self, factor: &SecondFactor, now: WallTime) -> (Choice, Spend) {
        let machine = Choice::from(u8::from(self.kind == PersonKind::Machine));
        match factor {
            SecondFactor::None => (machine, Spend::Nothing),
            SecondFactor::Totp(code) => {
                let (known, step) = self
                    .totp
                    .as_ref()
                    .map_or((Choice::from(0), 0), |totp| totp.judge(*code, now));
                (
                    !machine & known & step.ct_gt(&self.last_step),
                    Spend::Step(step),
                )
            }
            SecondFactor::Recovery(code) => {
                let digest = code.digest();
                let known = self
                    .recovery
                    .iter()
                    .fold(Choice::from(0), |known, hash| known | hash.ct_eq(&digest));
                (!machine & known, Spend::Recovery(digest))
            }
        }
    }

    /// Uses up what an accepted second factor spends. In memory at once: no second knock may see the old state.
    pub(crate) fn spend(&mut self, spend: Spend) {
        match spend {
            Spend::Nothing => {}
            Spend::Step(step) => {
                self.last_step = self.last_step.max(step);
                if let Some(totp) = &mut self.totp {
                    totp.proven = true;
                }
            }
            Spend::Recovery(digest) => self.recovery.retain(|hash| *hash != digest),
        }
    }
}

impl Totp {
    pub(crate) fn restore(row: TotpRow) -> Self {
        // A period of zero would divide by zero; the store never wrote one.
        Self {
            secret: row.secret,
            digits: row.digits,
            period: row.period.max(1),
            proven: row.proven,
        }
    }

    /// Gives whether the code fits now−1, now or now+1, and the highest step it fits.
    fn judge(&self, code: u32, now: WallTime) -> (Choice, u64) {
        let period = u64::from(self.period);
        let current = now.as_millis() / 1000 / period;
        let mut fits = Choice::from(0);
        let mut highest = 0;
        for step in [
            current.saturating_sub(1),
            current,
            current.saturating_add(1),
        ] {
            let equal = self.code(step).ct_eq(&code);
            highest = u64::conditional_select(&highest, &step, equal);
            fits |= equal;
        }
        (fits, highest)
    }

    /// Computes the code of a step.
    pub(crate) fn code(&self, step: u64) -> u32 {
        let period = u64::from(self.period);
        let secret = Secret::new(self.secret.expose().into());
        let totp = Builder::new()
            .with_secret(secret)
            .with_algorithm(Algorithm::SHA1)
            .with_digits(self.digits.clamp(6, 8))
            .with_step_duration(period)
            .build_noncompliant();
        let mut number = Number(0);
        write!(number, "{}", totp.generate(step.saturating_mul(period)))
            .expect("Number takes any text");
        number.0
    }
}

/// Reads decimal digits as they are written, so that a code never lies in a string.
struct Number(u32);

impl fmt::Write for Number {
    fn write_str(&mut self, digits: &str) -> fmt::Result {
        for byte in digits.bytes().filter(u8::is_ascii_digit) {
            self.0 = self.0.wrapping_mul(10).wrapping_add(u32::from(byte - b'0'));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The secret of RFC 6238, appendix B.
    fn person(kind: PersonKind) -> Person {
        let secret = TotpSecret::from_bytes(b"12345678901234567890").expect("20 bytes");
        Person {
            kind,
            standing: Standing::Enabled,
            totp: Some(Totp {
                secret,
                digits: 8,
                period: 30,
                proven: false,
            }),
            last_step: 0,
            recovery: [[7; 32]].into(),
            habits: Habits::default(),
        }
    }

    const AT_59_S: WallTime = WallTime::from_millis(59_000);
    const CODE_AT_59_S: u32 = 94_287_082;

    fn accepts(person: &Person, code: u32, millis: u64) -> bool {
        person
            .judge(&SecondFactor::Totp(code), WallTime::from_millis(millis))
            .0
            .into()
    }

    #[test]
    fn a_code_of_rfc_6238_fits_one_step_early_and_one_step_late() {
        let person = person(PersonKind::Human);
        assert!(accepts(&person, CODE_AT_59_S, 59_000));
        assert!(accepts(&person, CODE_AT_59_S, 29_999));
        assert!(accepts(&person, CODE_AT_59_S, 89_999));
        assert!(!accepts(&person, CODE_AT_59_S, 90_000));
        assert!(!accepts(&person, CODE_AT_59_S + 100_000_000, 59_000));
    }

    /// Appendix B, the rows of SHA-1.
    #[test]
    fn codes_are_those_of_rfc_6238() {
        let person = person(PersonKind::Human);
        for (seconds, code) in [
            (59, 94_287_082),
            (1_111_111_109, 7_081_804),
            (1_111_111_111, 14_050_471),
            (1_234_567_890, 89_005_924),
            (2_000_000_000, 69_279_037),
            (20_000_000_000, 65_353_130),
        ] {
            let totp = person.totp.as_ref().expect("a phone");
            assert_eq!(totp.code(seconds / 30), code);
            assert!(accepts(&person, code, seconds * 1_000));
            assert!(!accepts(&person, code, (seconds + 90) * 1_000));
        }
    }

    #[test]
    fn a_code_opens_once() {
        let mut person = person(PersonKind::Human);
        let (_, spend) = person.judge(&SecondFactor::Totp(CODE_AT_59_S), AT_59_S);
        assert_eq!(spend, Spend::Step(1));
        person.spend(spend);
        assert!(!accepts(&person, CODE_AT_59_S, 59_000));
    }

    #[test]
    fn a_recovery_code_that_stands_twice_is_known() {
        let mut person = person(PersonKind::Human);
        let code = spa_proto::RecoveryCode::from_bytes([3; 16]);
        person.recovery = [code.digest(), code.digest()].into();
        let (known, spend) = person.judge(&SecondFactor::Recovery(code), AT_59_S);
        assert!(bool::from(known));
        person.spend(spend);
        assert!(person.recovery.is_empty());
    }

    #[test]
    fn a_machine_has_no_code_and_a_person_cannot_go_without() {
        let judge = |kind, factor| bool::from(person(kind).judge(&factor, AT_59_S).0);
        assert!(judge(PersonKind::Machine, SecondFactor::None));
        assert!(!judge(
            PersonKind::Machine,
            SecondFactor::Totp(CODE_AT_59_S)
        ));
        assert!(!judge(PersonKind::Human, SecondFactor::None));
        assert!(judge(PersonKind::Human, SecondFactor::Totp(CODE_AT_59_S)));
    }
}
