//! A knock at the gateway: shape, mask and MAC, AEAD, proof (SPEC §4, §5, §8 steps 0–7 and 10).
//!
//! Each type is made only by the check before it, and none of them keeps a reference to the packet.

use core::fmt;

use subtle::{Choice, ConstantTimeEq};

use crate::ids::Tag;
use crate::keys::{DerivedKeys, KnockPublic, KnockSecret};
use crate::primitives::{
    AEAD_TAG_LEN, Key, NotContributory, aead_open, expand, extract, hash, join, mac, mask, split,
};
use crate::proof::ProofPublic;
use crate::reply::ReplyKeys;
use crate::request::{Ext, Info, ParseError, Request};
use crate::secret::SessionKey;
use crate::time::Slot;

/// Length of a knock and of a reply in bytes (SPEC §4, §6).
pub const KNOCK_LEN: usize = 512;
/// `kid ‖ E ‖ C`.
pub(crate) const BODY_LEN: usize = KNOCK_LEN - 8 - 8;
/// `info ‖ ext ‖ proof`.
pub(crate) const PLAIN_LEN: usize = Info::LEN + Ext::LEN + PROOF_LEN;
/// The AEAD of the plaintext and its tag.
pub(crate) const C_LEN: usize = PLAIN_LEN + AEAD_TAG_LEN;
const PROOF_LEN: usize = 64;
const PROOF_LABEL: &[u8] = b"KNOCK/1 proof";
const PROOF_MESSAGE_LEN: usize = PROOF_LABEL.len() + 32 + Info::LEN + Ext::LEN;

/// Why a payload is no knock at all (SPEC §8 step 0).
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ShapeError {
    /// Not exactly 512 bytes.
    #[error("a knock has exactly 512 bytes")]
    Length,
    /// It begins like a WireGuard message.
    #[error("a WireGuard message")]
    WireGuard,
}

/// `V` does not hold under this key and slot (SPEC §8 step 3).
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the knock's MAC does not hold")]
pub struct MacMismatch;

/// Why a verified knock does not open (SPEC §8 step 6).
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum OpenError {
    /// No live knock key has this `kid`.
    #[error("no live knock key has this number")]
    UnknownKid,
    /// `E` has small order.
    #[error("the knock's ephemeral key has small order")]
    NotContributory,
    /// The AEAD does not hold.
    #[error("the knock does not open")]
    Aead,
}

impl From<NotContributory> for OpenError {
    fn from(_: NotContributory) -> Self {
        Self::NotContributory
    }
}

/// Tells whether a UDP payload begins like a WireGuard message: type 1 to 4, three zeros (SPEC §5).
#[must_use]
pub const fn looks_like_wireguard(payload: &[u8]) -> bool {
    matches!(payload, [1..=4, 0, 0, 0, ..])
}

/// 512 bytes that could be a knock. Nothing is known of them.
#[derive(Clone)]
pub struct SealedKnock {
    tag: Tag,
    v: [u8; 8],
    masked: [u8; BODY_LEN],
}

impl SealedKnock {
    /// Takes the payload of a UDP packet; allocates nothing.
    ///
    /// # Errors
    /// If it is not 512 bytes long or begins like a WireGuard message.
    pub fn parse(payload: &[u8]) -> Result<Self, ShapeError> {
        let whole: &[u8; KNOCK_LEN] = payload.try_into().map_err(|_| ShapeError::Length)?;
        if looks_like_wireguard(whole) {
            return Err(ShapeError::WireGuard);
        }
        let (head, masked) = split::<16, BODY_LEN, KNOCK_LEN>(whole);
        let (tag, v) = split::<8, 8, 16>(head);
        Ok(Self {
            tag: Tag::from_bytes(*tag),
            v: *v,
            masked: *masked,
        })
    }

    /// Gives `T`, by which the key is looked up.
    #[must_use]
    pub const fn tag(&self) -> Tag {
        self.tag
    }

    /// Gives `V`, by which a packet that was seen before is known (SPEC §7, spent set).
    #[must_use]
    pub const fn v(&self) -> [u8; 8] {
        self.v
    }

    /// Unmasks and verifies `V` in constant time (SPEC §8 step 3, 3 µs).
    ///
    /// Borrows, since two keys may share a tag: try each.
    ///
    /// # Errors
    /// If `V` does not hold under these keys in this slot.
    pub fn unmask(&self, keys: &DerivedKeys, slot: Slot) -> Result<VerifiedKnock, MacMismatch> {
        let mut body = self.masked;
        mask(&keys.obf, &self.v, &mut body);
        if !bool::from(keys.v(slot, &body).ct_eq(&self.v)) {
            return Err(MacMismatch);
        }
        let (head, c) = split::<33, C_LEN, BODY_LEN>(&body);
        let (&[kid], e) = split::<1, 32, 33>(head);
        Ok(VerifiedKnock {
            slot,
            kid,
            e: *e,
            c: *c,
        })
    }

    /// `V` that would be right for these bytes, unmasked by the one they carry.
    #[cfg(feature = "vectors")]
    pub(crate) fn right_v(&self, keys: &DerivedKeys, slot: Slot) -> [u8; 8] {
        let mut body = self.masked;
        mask(&keys.obf, &self.v, &mut body);
        keys.v(slot, &body)
    }
}

impl fmt::Debug for SealedKnock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SealedKnock({})", self.tag)
    }
}

/// A knock whose `V` holds: it was made with this credential's key in this slot.
pub struct VerifiedKnock {
    slot: Slot,
    kid: u8,
    e: [u8; 32],
    c: [u8; C_LEN],
}

impl VerifiedKnock {
    /// Gives the number of the knock key the client used.
    #[must_use]
    pub const fn kid(&self) -> u8 {
        self.kid
    }

    /// Gives the slot of the tag.
    #[must_use]
    pub const fn slot(&self) -> Slot {
        self.slot
    }

    /// Opens the AEAD (SPEC §8 step 6, 75 µs). `keys` are those of [`SealedKnock::unmask`];
    /// `knock_key` gives the live key of a `kid`.
    ///
    /// # Errors
    /// If the `kid` is not live, `E` has small order, or the AEAD does not hold.
    pub fn open<'k>(
        self,
        keys: &DerivedKeys,
        knock_key: impl FnOnce(u8) -> Option<&'k KnockSecret>,
    ) -> Result<OpenedKnock, OpenError> {
        let key = knock_key(self.kid).ok_or(OpenError::UnknownKid)?;
        // e, b
        let dh = key.diffie_hellman(&self.e)?;
        let schedule = Schedule::new(keys, self.slot, self.kid, &key.public(), &self.e, &dh);
        let (sealed, tag) = split::<PLAIN_LEN, AEAD_TAG_LEN, C_LEN>(&self.c);
        let mut plain = zeroize::Zeroizing::new(*sealed);
        aead_open(&schedule.k_knock, &schedule.th1, plain.as_mut_slice(), tag)
            .map_err(|_| OpenError::Aead)?;
        let (head, proof) = split::<{ Info::LEN + Ext::LEN }, PROOF_LEN, PLAIN_LEN>(&plain);
        let (info, ext) = split::<{ Info::LEN }, { Ext::LEN }, { Info::LEN + Ext::LEN }>(head);
        Ok(OpenedKnock {
            slot: self.slot,
            kid: self.kid,
            e: self.e,
            thk: schedule.thk(&self.c),
            th1: schedule.th1,
            prk0: schedule.prk0,
            info: Info::from_bytes(*info),
            ext: Ext::from_bytes(*ext),
            proof: *proof,
        })
    }
}

impl fmt::Debug for VerifiedKnock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("VerifiedKnock")
            .field("slot", &self.slot)
            .field("kid", &self.kid)
            .finish_non_exhaustive()
    }
}

/// A knock whose AEAD opened. Who made it is not proved yet: that is [`OpenedKnock::verify_proof`].
pub struct OpenedKnock {
    slot: Slot,
    kid: u8,
    e: [u8; 32],
    th1: [u8; 32],
    thk: [u8; 32],
    prk0: Key,
    info: Info,
    ext: Ext,
    proof: [u8; PROOF_LEN],
}

impl OpenedKnock {
    /// Parses what is asked, strictly (SPEC §8 step 7).
    ///
    /// # Errors
    /// If `info` or `ext` is not exactly what the spec allows for the op.
    pub fn request(&self) -> Result<Request, ParseError> {
        Request::parse(&self.info, &self.ext)
    }

    /// Verifies the proof of OPEN and ENROL: Ed25519 under `Q`, strictly (SPEC §4, §8 step 10).
    pub fn verify_proof(&self, q: &ProofPublic) -> Choice {
        q.verify(&self.proof_message(), &self.proof)
    }

    /// Verifies the proof of ROAM and CLOSE: a MAC under `k_sess`, then 32 zeros (SPEC §4).
    pub fn verify_session_proof(&self, key: &SessionKey) -> Choice {
        session_proof(key, &self.proof_message()).ct_eq(&self.proof)
    }

    /// Gives a digest of `info` and `ext`, which tell a repeat from another transaction (SPEC §10).
    #[must_use]
    pub fn transaction(&self) -> [u8; 32] {
        hash(&[self.info.as_bytes(), self.ext.as_bytes()])
    }

    /// Gives `info`.
    #[must_use]
    pub const fn info(&self) -> &Info {
        &self.info
    }

    /// Gives `ext`.
    #[must_use]
    pub const fn ext(&self) -> &Ext {
        &self.ext
    }

    /// Gives the proof as it was sent.
    #[must_use]
    pub const fn proof(&self) -> &[u8; 64] {
        &self.proof
    }

    /// Gives the number of the knock key the client used.
    #[must_use]
    pub const fn kid(&self) -> u8 {
        self.kid
    }

    /// Gives the slot of the tag.
    #[must_use]
    pub const fn slot(&self) -> Slot {
        self.slot
    }

    /// Gives `th1`, the hash of everything the key schedule hangs on.
    #[must_use]
    pub const fn th1(&self) -> &[u8; 32] {
        &self.th1
    }

    /// Gives what [`crate::seal_reply`] needs to answer this very packet.
    #[must_use]
    pub fn reply_keys(&self) -> ReplyKeys {
        ReplyKeys::new(self.prk0.clone(), self.thk, self.e)
    }

    fn proof_message(&self) -> [u8; PROOF_MESSAGE_LEN] {
        proof_message(&self.th1, &self.info, &self.ext)
    }
}

impl fmt::Debug for OpenedKnock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("OpenedKnock")
            .field("slot", &self.slot)
            .field("kid", &self.kid)
            .finish_non_exhaustive()
    }
}

/// The key schedule of SPEC §5, the same on both sides once `dh` is known.
pub(crate) struct Schedule {
    pub(crate) th1: [u8; 32],
    pub(crate) prk0: Key,
    pub(crate) k_knock: Key,
}

impl Schedule {
    pub(crate) fn new(
        keys: &DerivedKeys,
        slot: Slot,
        kid: u8,
        b_kid: &KnockPublic,
        e: &[u8; 32],
        dh: &Key,
    ) -> Self {
        let th1 = hash(&[
            b"KNOCK/1 th1",
            keys.gateway().as_bytes(),
            keys.credential().as_bytes(),
            &slot.to_bytes(),
            &[kid],
            b_kid.as_bytes(),
            e,
        ]);
        let prk0 = extract(&keys.psk, dh.as_slice());
        let k_knock = expand(&prk0, "KNOCK/1 knock", &th1);
        Self { th1, prk0, k_knock }
    }

    /// `thk = H("KNOCK/1 thk" ‖ th1 ‖ C)`.
    pub(crate) fn thk(&self, c: &[u8; C_LEN]) -> [u8; 32] {
        hash(&[b"KNOCK/1 thk", &self.th1, c])
    }
}

/// `"KNOCK/1 proof" ‖ th1 ‖ info ‖ ext` (SPEC §4).
pub(crate) fn proof_message(th1: &[u8; 32], info: &Info, ext: &Ext) -> [u8; PROOF_MESSAGE_LEN] {
    join(&[PROOF_LABEL, th1, info.as_bytes(), ext.as_bytes()])
}

/// `Mac(k_sess, message) ‖ 32 zero bytes` (SPEC §4).
pub(crate) fn session_proof(key: &SessionKey, message: &[u8]) -> [u8; PROOF_LEN] {
    join(&[&mac(key.expose(), &[message]), &[0; 32]])
}

#[cfg(test)]
mod tests;
