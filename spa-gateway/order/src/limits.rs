//! How much one may ask at all. The enforcer's flags may only lower these.

use core::num::NonZeroU32;
use core::time::Duration;

use crate::wire::{DecodeError, Reader, Writer};

/// The longest life of any opening, milliseconds: 24 h, the longest `not_after` a client accepts (SPEC §6).
pub const MAX_TTL_MS: u32 = 24 * 60 * 60 * 1000;

/// The longest life of a door without a port, milliseconds: 30 s, the upper end of SPEC §11.
///
/// Such a door lets everybody behind one address reach WireGuard; one that lasts as
/// long as a session is for the peer's actual endpoint.
pub const MAX_WIDE_DOOR_MS: u32 = 30_000;

/// The most WireGuard peers, and so sessions, one enforcer keeps: a /16 pool.
pub const MAX_PEERS: u32 = 65_536;

/// The most flows per set: sixteen resources (SPEC §4) and the control channel for each of 15,000 sessions.
pub const MAX_FLOWS: u32 = 262_144;

/// The most interfaces knocks may arrive on; each has a socket of its own.
pub const MAX_KNOCK_INTERFACES: usize = 8;

/// How long an opening lasts: 1 ms to [`MAX_TTL_MS`].
///
/// Zero cannot be said: the kernel takes a timeout of zero for "never".
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Ttl(NonZeroU32);

impl Ttl {
    /// Takes milliseconds; `None` outside 1 to [`MAX_TTL_MS`].
    #[must_use]
    pub fn from_millis(millis: u64) -> Option<Self> {
        let millis = u32::try_from(millis).ok()?;
        (millis <= MAX_TTL_MS).then_some(())?;
        NonZeroU32::new(millis).map(Self)
    }

    /// Takes a duration, cut to whole milliseconds; `None` outside 1 ms to [`MAX_TTL_MS`].
    #[must_use]
    pub fn from_duration(duration: Duration) -> Option<Self> {
        Self::from_millis(u64::try_from(duration.as_millis()).ok()?)
    }

    /// Gives the milliseconds.
    #[must_use]
    pub const fn as_millis(self) -> u32 {
        self.0.get()
    }

    pub(crate) fn write(self, out: &mut Writer<'_>) {
        out.put(&self.0.get().to_be_bytes());
    }

    pub(crate) fn read(from: &mut Reader<'_>) -> Result<Self, DecodeError> {
        Self::from_millis(u64::from(from.u32()?)).ok_or(DecodeError::Value)
    }
}

/// The indices of the knock interfaces, in the order of the flags and of the capture sockets.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct KnockInterfaces {
    indices: [u32; MAX_KNOCK_INTERFACES],
    count: usize,
}

impl KnockInterfaces {
    /// Takes one to [`MAX_KNOCK_INTERFACES`] non-zero indices; `None` otherwise.
    #[must_use]
    pub fn new(indices: &[u32]) -> Option<Self> {
        let mut all = [0; MAX_KNOCK_INTERFACES];
        all.get_mut(..indices.len())?.copy_from_slice(indices);
        let fits = !indices.is_empty() && !indices.contains(&0);
        fits.then_some(Self {
            indices: all,
            count: indices.len(),
        })
    }

    /// Gives the indices.
    #[must_use]
    pub fn indices(&self) -> &[u32] {
        self.indices.get(..self.count).unwrap_or_default()
    }

    pub(crate) fn write(&self, out: &mut Writer<'_>) {
        out.put(&[u8::try_from(self.count).unwrap_or(0)]);
        for index in self.indices {
            out.put(&index.to_be_bytes());
        }
    }

    pub(crate) fn read(from: &mut Reader<'_>) -> Result<Self, DecodeError> {
        let count = usize::from(from.u8()?);
        let mut indices = [0; MAX_KNOCK_INTERFACES];
        for index in &mut indices {
            *index = from.u32()?;
        }
        let unused_are_zero = indices.iter().skip(count).all(|index| *index == 0);
        unused_are_zero.then_some(()).ok_or(DecodeError::Padding)?;
        Self::new(indices.get(..count).ok_or(DecodeError::Value)?).ok_or(DecodeError::Value)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ttl_is_never_zero_and_never_beyond_a_day() {
        assert_eq!(Ttl::from_millis(0), None);
        assert_eq!(Ttl::from_millis(u64::from(MAX_TTL_MS) + 1), None);
        assert_eq!(Ttl::from_millis(u64::MAX), None);
        assert_eq!(Ttl::from_duration(Duration::from_micros(999)), None);
        assert_eq!(
            Ttl::from_millis(u64::from(MAX_TTL_MS)).map(Ttl::as_millis),
            Some(MAX_TTL_MS)
        );
    }

    #[test]
    fn knock_interfaces_are_one_to_eight() {
        assert_eq!(KnockInterfaces::new(&[]), None);
        assert_eq!(KnockInterfaces::new(&[1, 0]), None);
        assert_eq!(KnockInterfaces::new(&[1; MAX_KNOCK_INTERFACES + 1]), None);
        let two = KnockInterfaces::new(&[7, 3]).expect("two indices");
        assert_eq!(two.indices(), [7, 3]);
    }
}
