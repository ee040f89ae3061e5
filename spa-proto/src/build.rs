//! A knock at the client: one packet of a transaction (SPEC §5).

use core::fmt;

use x25519_dalek::StaticSecret;
use zeroize::Zeroizing;

use crate::keys::{DerivedKeys, KnockPublic};
use crate::knock::{BODY_LEN, C_LEN, KNOCK_LEN, Schedule, proof_message, session_proof};
use crate::primitives::{
    Key, NotContributory, aead_seal, diffie_hellman, join, mask, x25519_public,
};
use crate::proof::ProofSecret;
use crate::reply::ReplyKeys;
use crate::request::{Ext, Info, Op, ParseError, Request};
use crate::secret::SessionKey;
use crate::time::Slot;

/// What the proof is made with (SPEC §4).
#[derive(Clone, Copy, Debug)]
pub enum Signer<'a> {
    /// `q`, for OPEN and ENROL.
    Password(&'a ProofSecret),
    /// `k_sess`, for ROAM and CLOSE.
    Session(&'a SessionKey),
}

/// Why no packet can be made.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BuildError {
    /// The gateway's knock key has small order: a broken invite or a broken gateway.
    #[error("the gateway's knock key has small order")]
    NotContributory,
    /// `info` and `ext` are not a request.
    #[error(transparent)]
    Request(#[from] ParseError),
    /// OPEN and ENROL are signed with the password, ROAM and CLOSE with the session.
    #[error("the operation is signed with the other kind of key")]
    Signer,
}

impl From<NotContributory> for BuildError {
    fn from(_: NotContributory) -> Self {
        Self::NotContributory
    }
}

/// Builds one packet of a transaction and what is needed to open its reply (SPEC §5).
///
/// `info` and `ext` come from [`Request::encode`] and stay the same in all packets of a
/// transaction; `e` (32 random bytes) MUST be fresh for each, and `slot` is that of the moment of
/// sending.
///
/// # Errors
/// If the gateway's key has small order, the request is malformed or the signer is of the wrong kind.
#[expect(
    clippy::too_many_arguments,
    reason = "they are the inputs SPEC §5 names"
)]
pub fn build_knock(
    keys: &DerivedKeys,
    kid: u8,
    knock_key: &KnockPublic,
    slot: Slot,
    e: [u8; 32],
    info: &Info,
    ext: &Ext,
    signer: Signer<'_>,
) -> Result<([u8; KNOCK_LEN], PendingKnock), BuildError> {
    let op = Request::parse(info, ext)?.op();
    match (op, signer) {
        (Op::Open | Op::Enrol, Signer::Password(_))
        | (Op::Roam | Op::Close, Signer::Session(_)) => {}
        (Op::Open | Op::Enrol, Signer::Session(_))
        | (Op::Roam | Op::Close, Signer::Password(_)) => {
            return Err(BuildError::Signer);
        }
    }
    let e = Zeroizing::new(e);
    let built = Built::new(keys, kid, knock_key, slot, &e, info, ext, signer)?;
    let reply = ReplyKeys::new(built.schedule.prk0.clone(), built.thk, built.e_public);
    Ok((
        built.packet,
        PendingKnock {
            op,
            e: StaticSecret::from(*e),
            reply,
        },
    ))
}

/// A knock that was sent and may be answered: the client keeps it for 10 s (SPEC §10).
pub struct PendingKnock {
    pub(crate) op: Op,
    pub(crate) e: StaticSecret,
    pub(crate) reply: ReplyKeys,
}

impl PendingKnock {
    /// Tells what was asked.
    #[must_use]
    pub const fn op(&self) -> Op {
        self.op
    }
}

impl fmt::Debug for PendingKnock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PendingKnock({:?})", self.op)
    }
}

/// Every value of SPEC §5, in its order.
pub(crate) struct Built {
    pub(crate) e_public: [u8; 32],
    #[cfg_attr(
        not(feature = "vectors"),
        expect(dead_code, reason = "read by the vector checker")
    )]
    pub(crate) dh: Key,
    pub(crate) schedule: Schedule,
    #[cfg_attr(
        not(feature = "vectors"),
        expect(dead_code, reason = "read by the vector checker")
    )]
    pub(crate) proof: [u8; 64],
    #[cfg_attr(
        not(feature = "vectors"),
        expect(dead_code, reason = "read by the vector checker")
    )]
    pub(crate) c: [u8; C_LEN],
    #[cfg_attr(
        not(feature = "vectors"),
        expect(dead_code, reason = "read by the vector checker")
    )]
    pub(crate) body: [u8; BODY_LEN],
    pub(crate) packet: [u8; KNOCK_LEN],
    pub(crate) thk: [u8; 32],
}

impl Built {
    #[expect(
        clippy::too_many_arguments,
        reason = "they are the inputs SPEC §5 names"
    )]
    pub(crate) fn new(
        keys: &DerivedKeys,
        kid: u8,
        knock_key: &KnockPublic,
        slot: Slot,
        e: &[u8; 32],
        info: &Info,
        ext: &Ext,
        signer: Signer<'_>,
    ) -> Result<Self, NotContributory> {
        let e = StaticSecret::from(*e);
        let e_public = x25519_public(&e);
        let dh = diffie_hellman(&e, knock_key.as_bytes())?;
        let schedule = Schedule::new(keys, slot, kid, knock_key, &e_public, &dh);

        let message = proof_message(&schedule.th1, info, ext);
        let proof = match signer {
            Signer::Password(q) => q.sign(&message),
            Signer::Session(key) => session_proof(key, &message),
        };
        let mut plain = Zeroizing::new(join::<{ C_LEN - 16 }>(&[
            info.as_bytes(),
            ext.as_bytes(),
            &proof,
        ]));
        let tag = aead_seal(&schedule.k_knock, &schedule.th1, plain.as_mut_slice());
        let c = join(&[plain.as_slice(), &tag]);
        let thk = schedule.thk(&c);

        let body = join(&[&[kid], &e_public, &c]);
        let v = keys.v(slot, &body);
        let mut masked = body;
        mask(&keys.obf, &v, &mut masked);
        let packet = join(&[keys.tag(slot).as_bytes(), &v, &masked]);
        Ok(Self {
            e_public,
            dh,
            schedule,
            proof,
            c,
            body,
            packet,
            thk,
        })
    }
}
