//! The TLV areas of knock and reply (SPEC §4): `type(1) len(1) value(len)`, type 0 ends.
//!
//! Strict: no overrun, nothing but zeros after the end, no type twice. Which types are known
//! is the business of the caller.

use alloc::vec::Vec;

use crate::bytes::Reader;

/// Why an area is not a list of TLVs, or holds one that may not be ignored.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TlvError {
    /// A TLV has no length byte or claims more than the area holds.
    #[error("a TLV overruns its area")]
    Overrun,
    /// Something other than zero follows the end mark.
    #[error("the padding after the TLVs is not zero")]
    Padding,
    /// A type occurs twice.
    #[error("TLV {0:#04x} occurs twice")]
    Twice(u8),
    /// An unknown type has bit 7 set: whoever does not know it must refuse.
    #[error("TLV {0:#04x} is unknown and critical")]
    Critical(u8),
    /// A known type does not belong here.
    #[error("TLV {0:#04x} does not belong here")]
    Misplaced(u8),
    /// A known type has a length or content it cannot have.
    #[error("TLV {0:#04x} is malformed")]
    Malformed(u8),
    /// A required type is absent.
    #[error("TLV {0:#04x} is missing")]
    Missing(u8),
}

/// Whether an unknown type rejects the packet (SPEC §4).
pub(crate) const fn is_critical(kind: u8) -> bool {
    kind & 0x80 != 0
}

/// Splits an area into (type, value), in order.
pub(crate) fn read(area: &[u8]) -> Result<Vec<(u8, &[u8])>, TlvError> {
    let mut reader = Reader::new(area);
    let mut found: Vec<(u8, &[u8])> = Vec::new();
    while let Some(kind) = reader.u8() {
        if kind == 0 {
            let clean = reader.rest().iter().all(|byte| *byte == 0);
            return if clean {
                Ok(found)
            } else {
                Err(TlvError::Padding)
            };
        }
        let len = reader.u8().ok_or(TlvError::Overrun)?;
        let value = reader.slice(usize::from(len)).ok_or(TlvError::Overrun)?;
        if found.iter().any(|(seen, _)| *seen == kind) {
            return Err(TlvError::Twice(kind));
        }
        found.push((kind, value));
    }
    Ok(found)
}

/// A value that must have exactly `N` bytes.
pub(crate) fn exact<const N: usize>(kind: u8, value: &[u8]) -> Result<[u8; N], TlvError> {
    value.try_into().map_err(|_| TlvError::Malformed(kind))
}

/// Fills an area of `N` bytes; what stays free is zero, which reads as "end".
pub(crate) struct Writer<const N: usize> {
    area: [u8; N],
    used: usize,
}

/// A TLV does not fit into what is left of the area.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Full;

impl<const N: usize> Writer<N> {
    pub(crate) const fn new() -> Self {
        Self {
            area: [0; N],
            used: 0,
        }
    }

    /// Bytes still free.
    pub(crate) const fn free(&self) -> usize {
        N.saturating_sub(self.used)
    }

    pub(crate) fn push(&mut self, kind: u8, value: &[u8]) -> Result<(), Full> {
        let len = u8::try_from(value.len()).map_err(|_| Full)?;
        let whole = value.len().saturating_add(2);
        let free = self.area.get_mut(self.used..).ok_or(Full)?;
        let (head, _) = free.split_at_mut_checked(whole).ok_or(Full)?;
        let (mark, body) = head.split_first_chunk_mut::<2>().ok_or(Full)?;
        *mark = [kind, len];
        body.copy_from_slice(value);
        self.used = self.used.saturating_add(whole);
        Ok(())
    }

    pub(crate) const fn finish(self) -> [u8; N] {
        self.area
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::vec;

    #[test]
    fn an_area_that_a_tlv_fills_needs_no_end_mark() {
        assert_eq!(read(&[5, 1, 9]), Ok(vec![(5, &[9][..])]));
        assert_eq!(read(&[5, 1, 9, 0]), Ok(vec![(5, &[9][..])]));
        assert_eq!(read(&[]), Ok(vec![]));
    }

    #[test]
    fn an_overrun_is_refused() {
        assert_eq!(read(&[5]), Err(TlvError::Overrun));
        assert_eq!(read(&[5, 2, 9]), Err(TlvError::Overrun));
    }

    #[test]
    fn padding_is_zero() {
        assert_eq!(read(&[5, 0, 0, 0, 1]), Err(TlvError::Padding));
    }

    #[test]
    fn no_type_occurs_twice_even_if_it_is_unknown() {
        assert_eq!(
            read(&[0x70, 0, 0x71, 0, 0x70, 0]),
            Err(TlvError::Twice(0x70))
        );
    }

    #[test]
    fn a_full_area_takes_no_more() {
        let mut writer = Writer::<4>::new();
        assert_eq!(writer.push(1, &[7]), Ok(()));
        assert_eq!(writer.free(), 1);
        assert_eq!(writer.push(2, &[]), Err(Full));
        assert_eq!(writer.finish(), [1, 1, 7, 0]);
    }
}
