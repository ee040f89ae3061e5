//! Why a knock was dropped: one enum, one counter each, never a text on the wire (SPEC §8).

macro_rules! refusals {
    ($($(#[$doc:meta])+ $variant:ident = $step:literal, $name:literal;)+) => {
        /// Why a knock was not honoured. The order is that of the checks.
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
        pub enum Refusal { $($(#[$doc])+ $variant,)+ }

        impl Refusal {
            /// All of them, in the order of the checks.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)+];

            /// Gives the step of SPEC §8 that refused.
            #[must_use]
            pub const fn step(self) -> u8 {
                match self { $(Self::$variant => $step,)+ }
            }

            /// Gives the name in metrics and logs.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self { $(Self::$variant => $name,)+ }
            }
        }
    };
}

refusals! {
    /// Not 512 bytes.
    Length = 0, "length";
    /// A part of a fragmented packet.
    Fragment = 0, "fragment";
    /// It begins as a WireGuard message does.
    WireGuardHeader = 0, "wireguard_header";
    /// The source address is not a unicast address of somebody else.
    SourceAddress = 1, "source_address";
    /// The source port is 0.
    SourcePort = 1, "source_port";
    /// Our own clock is not trusted, so the tag table is empty.
    ClockUntrusted = 1, "clock_untrusted";
    /// No key has this tag now.
    UnknownTag = 1, "unknown_tag";
    /// The credential was disabled, or lost this key, while the knock waited.
    CredentialDisabled = 2, "credential_disabled";
    /// The credential or the invite has expired.
    CredentialExpired = 2, "credential_expired";
    /// This very packet was here before.
    Spent = 2, "spent";
    /// The outer MAC does not verify.
    OuterMac = 3, "outer_mac";
    /// The message bucket of the credential is empty.
    MessageRate = 4, "message_rate";
    /// A newer knock of the same credential took its place in the queue.
    PushedOut = 5, "pushed_out";
    /// No live knock key has this kid.
    UnknownKnockKey = 6, "unknown_knock_key";
    /// The ephemeral key contributes nothing.
    NotContributory = 6, "not_contributory";
    /// The AEAD does not open.
    Seal = 6, "seal";
    /// The plaintext breaks a rule of SPEC §4.
    Malformed = 7, "malformed";
    /// The client believes to have another source address.
    SourceMismatch = 7, "source_mismatch";
    /// This kind of knock does not belong under this kind of key.
    WrongKey = 7, "wrong_key";
    /// The transaction began more than the freshness window away.
    Stale = 8, "stale";
    /// A transaction that is not newer than the one answered last, and does not repeat it.
    Replayed = 8, "replayed";
    /// The transaction answered last lies ahead of our clock: it ran ahead once.
    ClockRanAhead = 8, "clock_ran_ahead";
    /// A transaction that failed a factor a moment ago.
    FailedBefore = 8, "failed_before";
    /// The session it speaks of is not live.
    NoSession = 8, "no_session";
    /// The failure bucket of the credential is empty.
    FailureRate = 9, "failure_rate";
    /// The proof is wrong: device, password or session key.
    WrongProof = 10, "wrong_proof";
    /// The second factor is wrong, used, missing or out of place.
    WrongCode = 10, "wrong_code";
    /// Proof and second factor are both wrong.
    WrongProofAndCode = 10, "wrong_proof_and_code";
    /// An invite used by a second enroller.
    OtherEnroller = 10, "other_enroller";
    /// A seventh candidate key for one invite.
    TooManyCandidates = 10, "too_many_candidates";
    /// An enrolment that was not completed within ten minutes.
    EnrolmentOver = 10, "enrolment_over";
    /// Policy grants nothing of what was asked.
    Policy = 11, "policy";
    /// No room: sessions, addresses, flows, or a WireGuard key that cannot be used.
    Capacity = 11, "capacity";
    /// The store could not record it, so nothing was done.
    RecordFailed = 12, "record_failed";
    /// The enforcer could not open everything, so what it opened was undone.
    OrderFailed = 12, "order_failed";
}

/// How often each refusal happened since the start.
#[derive(Clone, Debug)]
pub struct Counters([u32; Refusal::ALL.len()]);

impl Counters {
    pub(crate) const fn new() -> Self {
        Self([0; Refusal::ALL.len()])
    }

    /// Counts one; wraps around, as a metric does.
    pub(crate) fn count(&mut self, refusal: Refusal) {
        if let Some(counter) = self.0.get_mut(refusal as usize) {
            *counter = counter.wrapping_add(1);
        }
    }

    /// Gives the count of one refusal. 32 bits, since small routers have no 64-bit atomics to export it with.
    #[must_use]
    pub fn of(&self, refusal: Refusal) -> u32 {
        self.0.get(refusal as usize).copied().unwrap_or(0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refusals_are_listed_in_the_order_of_the_checks() {
        assert!(Refusal::ALL.is_sorted_by_key(|refusal| refusal.step()));
        assert!(Refusal::ALL.is_sorted());
    }

    #[test]
    fn every_refusal_has_a_counter_and_a_name_of_its_own() {
        let mut counters = Counters::new();
        for refusal in Refusal::ALL {
            counters.count(*refusal);
        }
        for (at, refusal) in Refusal::ALL.iter().enumerate() {
            assert_eq!(counters.of(*refusal), 1);
            assert!(
                Refusal::ALL[..at]
                    .iter()
                    .all(|other| other.name() != refusal.name())
            );
        }
    }
}
