//! The frame around every message and the two cursors that shape its body.
//!
//! A `Reader` knows what it has read: `finish` refuses a body with anything behind it.

use core::fmt;
use core::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Bytes of an order, always.
pub const ORDER_LEN: usize = 128;
/// Bytes of an answer, always.
pub const ANSWER_LEN: usize = 128;
/// The first byte of every message; changes with any change of a layout.
pub const FORMAT: u8 = 2;

/// Where the body starts: format, kind, two zeros, sequence number.
const BODY: usize = 12;

/// Why bytes are not a message. The peer of such a message is broken or not ours.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum DecodeError {
    /// Not exactly [`ORDER_LEN`] or [`ANSWER_LEN`] bytes.
    Length,
    /// Another format.
    Format,
    /// No such kind.
    Kind,
    /// A byte that the kind does not use is not zero.
    Padding,
    /// An address of no known family, or an IPv4 address in IPv6 clothes.
    Address,
    /// A field outside its range.
    Value,
}

impl fmt::Display for DecodeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Length => "message of a wrong length",
            Self::Format => "message of another format",
            Self::Kind => "message of an unknown kind",
            Self::Padding => "message with a non-zero unused byte",
            Self::Address => "message with an address that is none",
            Self::Value => "message with a value out of range",
        })
    }
}

impl core::error::Error for DecodeError {}

/// Writes a message into its fixed bytes, front to back.
///
/// Overrunning them is a bug of this crate that the tests of every kind would meet.
pub(crate) struct Writer<'a> {
    bytes: &'a mut [u8; ORDER_LEN],
    at: usize,
}

impl<'a> Writer<'a> {
    pub(crate) fn new(bytes: &'a mut [u8; ORDER_LEN], kind: u8, seq: u64) -> Self {
        *bytes = [0; ORDER_LEN];
        let mut writer = Self { bytes, at: 0 };
        writer.put(&[FORMAT, kind, 0, 0]);
        writer.put(&seq.to_be_bytes());
        writer
    }

    pub(crate) fn put(&mut self, part: &[u8]) {
        let end = self.at + part.len();
        self.bytes[self.at..end].copy_from_slice(part);
        self.at = end;
    }

    pub(crate) fn put_address(&mut self, address: IpAddr) {
        match address {
            IpAddr::V4(v4) => {
                self.put(&[4]);
                self.put(&v4.octets());
                self.put(&[0; 12]);
            }
            IpAddr::V6(v6) => {
                self.put(&[6]);
                self.put(&v6.octets());
            }
        }
    }
}

/// Reads a message front to back.
pub(crate) struct Reader<'a> {
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    /// Checks length, format and the two zeros; gives kind, sequence number and the body.
    pub(crate) fn open(message: &'a [u8]) -> Result<(u8, u64, Self), DecodeError> {
        let frame: &[u8; ORDER_LEN] = message.try_into().map_err(|_| DecodeError::Length)?;
        let (head, body) = frame.split_at(BODY);
        let mut head = Self { rest: head };
        (head.u8()? == FORMAT)
            .then_some(())
            .ok_or(DecodeError::Format)?;
        let kind = head.u8()?;
        (head.take()? == [0; 2])
            .then_some(())
            .ok_or(DecodeError::Padding)?;
        let seq = head.u64()?;
        Ok((kind, seq, Self { rest: body }))
    }

    pub(crate) fn take<const N: usize>(&mut self) -> Result<[u8; N], DecodeError> {
        let (part, rest) = self.rest.split_first_chunk().ok_or(DecodeError::Length)?;
        self.rest = rest;
        Ok(*part)
    }

    pub(crate) fn u8(&mut self) -> Result<u8, DecodeError> {
        self.take().map(|[byte]| byte)
    }

    pub(crate) fn u16(&mut self) -> Result<u16, DecodeError> {
        self.take().map(u16::from_be_bytes)
    }

    pub(crate) fn u32(&mut self) -> Result<u32, DecodeError> {
        self.take().map(u32::from_be_bytes)
    }

    pub(crate) fn u64(&mut self) -> Result<u64, DecodeError> {
        self.take().map(u64::from_be_bytes)
    }

    pub(crate) fn address(&mut self) -> Result<IpAddr, DecodeError> {
        let family = self.u8()?;
        let bytes: [u8; 16] = self.take()?;
        match (family, bytes) {
            (4, [a, b, c, d, rest @ ..]) => {
                (rest == [0; 12])
                    .then_some(())
                    .ok_or(DecodeError::Padding)?;
                Ok(IpAddr::V4(Ipv4Addr::new(a, b, c, d)))
            }
            (6, bytes) => {
                let v6 = Ipv6Addr::from(bytes);
                v6.to_ipv4_mapped()
                    .is_none()
                    .then_some(IpAddr::V6(v6))
                    .ok_or(DecodeError::Address)
            }
            _ => Err(DecodeError::Address),
        }
    }

    /// Whether the next byte is zero; the end of the body is not.
    pub(crate) fn next_is_zero(&self) -> bool {
        self.rest.first() == Some(&0)
    }

    /// Ends the body: whatever follows is zero.
    pub(crate) fn finish(self) -> Result<(), DecodeError> {
        self.rest
            .iter()
            .all(|byte| *byte == 0)
            .then_some(())
            .ok_or(DecodeError::Padding)
    }

    /// Skips `N` bytes that must be zero, inside a body.
    pub(crate) fn zeros<const N: usize>(&mut self) -> Result<(), DecodeError> {
        (self.take()? == [0; N])
            .then_some(())
            .ok_or(DecodeError::Padding)
    }
}
