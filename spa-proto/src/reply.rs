//! The reply: sealed by the gateway, opened by the client (SPEC §6).
//!
//! The three secrets of an answer come out beside the packet and nowhere else.

use core::fmt;

use subtle::ConstantTimeEq;
use x25519_dalek::StaticSecret;
use zeroize::Zeroizing;

use crate::build::PendingKnock;
use crate::keys::apart_from_wireguard;
use crate::knock::KNOCK_LEN;
use crate::payload::{DefaultRoute, PAYLOAD_LEN, PayloadError, ReplyPayload};
use crate::primitives::{
    AEAD_TAG_LEN, Key, NotContributory, aead_open, aead_seal, diffie_hellman, expand, extract,
    hash, join, split, truncate, x25519_public,
};
use crate::secret::{CredentialKey, SessionKey, WgPsk};
use crate::time::WallTime;

const C2_LEN: usize = PAYLOAD_LEN + AEAD_TAG_LEN;

/// What both sides know of one knock that its reply hangs on: `prk0`, `thk`, `E` (SPEC §6).
pub struct ReplyKeys {
    prk0: Key,
    thk: [u8; 32],
    e: [u8; 32],
}

impl ReplyKeys {
    pub(crate) const fn new(prk0: Key, thk: [u8; 32], e: [u8; 32]) -> Self {
        Self { prk0, thk, e }
    }

    /// Makes a second copy, where one is truly needed. It is wiped on its own.
    #[must_use]
    pub fn duplicate(&self) -> Self {
        Self {
            prk0: self.prk0.clone(),
            thk: self.thk,
            e: self.e,
        }
    }

    pub(crate) fn rt(&self) -> [u8; 8] {
        apart_from_wireguard(self.raw_rt())
    }

    pub(crate) fn raw_rt(&self) -> [u8; 8] {
        truncate(&expand(&self.prk0, "KNOCK/1 rtag", &self.thk))
    }

    #[cfg(feature = "vectors")]
    pub(crate) fn parts(&self) -> [(&'static str, &[u8]); 2] {
        [("prk0", self.prk0.as_slice()), ("thk", &self.thk)]
    }

    pub(crate) fn rmask(&self) -> Key {
        expand(&self.prk0, "KNOCK/1 rmask", &self.thk)
    }
}

impl fmt::Debug for ReplyKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ReplyKeys")
    }
}

/// The secrets an answer gives both sides (SPEC §6). Which count depends on the op: `wg_psk` and
/// `k_sess` after OPEN, `k_cred` after ENROL, none after ROAM and CLOSE.
#[derive(Debug)]
pub struct ReplySecrets {
    /// The preshared key of the WireGuard peer.
    pub wg_psk: WgPsk,
    /// The key of the session.
    pub k_sess: SessionKey,
    /// The credential key that replaces the invite's (SPEC §14).
    pub k_cred: CredentialKey,
}

/// A reply ready to be sent, and its secrets.
#[derive(Debug)]
pub struct SealedReply {
    /// The 512 bytes for the wire.
    pub packet: [u8; KNOCK_LEN],
    /// What the packet agrees upon.
    pub secrets: ReplySecrets,
}

/// Seals a reply to the knock `keys` belong to. `e_s` is 32 random bytes, fresh for every reply;
/// `payload` comes from [`ReplyPayload::encode`].
///
/// # Errors
/// If the knock's `E` has small order. Not after [`crate::VerifiedKnock::open`], which refuses it.
pub fn seal_reply(
    keys: &ReplyKeys,
    e_s: [u8; 32],
    payload: &[u8; PAYLOAD_LEN],
) -> Result<SealedReply, NotContributory> {
    let Answered {
        packet, secrets, ..
    } = Answered::new(keys, &Zeroizing::new(e_s), payload)?;
    Ok(SealedReply { packet, secrets })
}

/// Why a packet is not a reply to this knock, or one that must not be used (SPEC §6).
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ReplyError {
    /// Not 512 bytes.
    #[error("a reply has exactly 512 bytes")]
    Length,
    /// `RT` does not fit: an answer to another packet, or no answer at all.
    #[error("not an answer to this knock")]
    Tag,
    /// `E_s` has small order.
    #[error("the reply's ephemeral key has small order")]
    NotContributory,
    /// The AEAD does not hold.
    #[error("the reply does not open")]
    Aead,
    /// The gateway said something the spec forbids.
    #[error("the reply is malformed: {0}")]
    Payload(#[from] PayloadError),
}

impl From<NotContributory> for ReplyError {
    fn from(_: NotContributory) -> Self {
        Self::NotContributory
    }
}

impl PendingKnock {
    /// Opens a reply to this very packet and parses it strictly. `now` is the client's clock.
    ///
    /// # Errors
    /// If the packet answers another knock, does not open, or says what the spec forbids.
    pub fn open_reply(
        &self,
        packet: &[u8],
        now: WallTime,
        default_route: DefaultRoute,
    ) -> Result<(ReplyPayload, ReplySecrets), ReplyError> {
        let opened = open(&self.reply, &self.e, packet)?;
        let payload = ReplyPayload::parse(&opened.payload, self.op, now, default_route)?;
        Ok((payload, opened.secrets))
    }
}

/// What opening gives before the payload is judged.
pub(crate) struct Opened {
    pub(crate) payload: Zeroizing<[u8; PAYLOAD_LEN]>,
    pub(crate) secrets: ReplySecrets,
}

pub(crate) fn open(
    keys: &ReplyKeys,
    e: &StaticSecret,
    packet: &[u8],
) -> Result<Opened, ReplyError> {
    let whole: &[u8; KNOCK_LEN] = packet.try_into().map_err(|_| ReplyError::Length)?;
    let (head, c2) = split::<40, C2_LEN, KNOCK_LEN>(whole);
    let (rt, masked) = split::<8, 32, 40>(head);
    if !bool::from(keys.rt().ct_eq(rt)) {
        return Err(ReplyError::Tag);
    }
    let e_s = xor(masked, &keys.rmask());
    let shared = diffie_hellman(e, &e_s)?;
    let schedule = Schedule::new(keys, &e_s, &shared);
    let (sealed, tag) = split::<PAYLOAD_LEN, AEAD_TAG_LEN, C2_LEN>(c2);
    let mut payload = Zeroizing::new(*sealed);
    aead_open(
        &schedule.key(),
        &schedule.ad(rt),
        payload.as_mut_slice(),
        tag,
    )
    .map_err(|_| ReplyError::Aead)?;
    Ok(Opened {
        payload,
        secrets: schedule.secrets(&schedule.th3(c2)),
    })
}

/// Every value of SPEC §6, in its order.
pub(crate) struct Answered {
    #[cfg_attr(
        not(feature = "vectors"),
        expect(dead_code, reason = "read by the vector checker")
    )]
    pub(crate) e_s_public: [u8; 32],
    #[cfg_attr(
        not(feature = "vectors"),
        expect(dead_code, reason = "read by the vector checker")
    )]
    pub(crate) schedule: Schedule,
    #[cfg_attr(
        not(feature = "vectors"),
        expect(dead_code, reason = "read by the vector checker")
    )]
    pub(crate) c2: [u8; C2_LEN],
    #[cfg_attr(
        not(feature = "vectors"),
        expect(dead_code, reason = "read by the vector checker")
    )]
    pub(crate) th3: [u8; 32],
    pub(crate) packet: [u8; KNOCK_LEN],
    pub(crate) secrets: ReplySecrets,
}

impl Answered {
    pub(crate) fn new(
        keys: &ReplyKeys,
        e_s: &[u8; 32],
        payload: &[u8; PAYLOAD_LEN],
    ) -> Result<Self, NotContributory> {
        let e_s = StaticSecret::from(*e_s);
        let e_s_public = x25519_public(&e_s);
        let shared = diffie_hellman(&e_s, &keys.e)?;
        let schedule = Schedule::new(keys, &e_s_public, &shared);
        let rt = keys.rt();
        let mut text = Zeroizing::new(*payload);
        let tag = aead_seal(&schedule.key(), &schedule.ad(&rt), text.as_mut_slice());
        let c2 = join(&[text.as_slice(), &tag]);
        let th3 = schedule.th3(&c2);
        let secrets = schedule.secrets(&th3);
        let packet = join(&[&rt, &xor(&e_s_public, &keys.rmask()), &c2]);
        Ok(Self {
            e_s_public,
            schedule,
            c2,
            th3,
            packet,
            secrets,
        })
    }
}

/// The key schedule of SPEC §6, the same on both sides once `X25519(e_s, E)` is known.
pub(crate) struct Schedule {
    pub(crate) th2: [u8; 32],
    pub(crate) prk1: Key,
}

impl Schedule {
    fn new(keys: &ReplyKeys, e_s: &[u8; 32], shared: &Key) -> Self {
        Self {
            th2: hash(&[b"KNOCK/1 th2", &keys.thk, e_s]),
            prk1: extract(&keys.prk0, shared.as_slice()),
        }
    }

    fn key(&self) -> Key {
        expand(&self.prk1, "KNOCK/1 reply", &self.th2)
    }

    fn ad(&self, rt: &[u8; 8]) -> [u8; 40] {
        join(&[rt, &self.th2])
    }

    fn th3(&self, c2: &[u8; C2_LEN]) -> [u8; 32] {
        hash(&[b"KNOCK/1 th3", &self.th2, c2])
    }

    fn secrets(&self, th3: &[u8; 32]) -> ReplySecrets {
        let derive = |label| *expand(&self.prk1, label, th3);
        ReplySecrets {
            wg_psk: WgPsk::from_bytes(derive("KNOCK/1 wg psk")),
            k_sess: SessionKey::from_bytes(derive("KNOCK/1 session")),
            k_cred: CredentialKey::from_bytes(derive("KNOCK/1 credential")),
        }
    }
}

fn xor(left: &[u8; 32], right: &[u8; 32]) -> [u8; 32] {
    let mut out = *left;
    out.iter_mut()
        .zip(right)
        .for_each(|(byte, other)| *byte ^= other);
    out
}
