//! A fuzzer's bytes as a row of choices. When they run out every further choice is 0, so that any input is a whole one.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

/// What is left of the input.
pub struct Choices<'a>(&'a [u8]);

impl<'a> Choices<'a> {
    /// Begins at the first byte.
    #[must_use]
    pub const fn new(data: &'a [u8]) -> Self {
        Self(data)
    }

    /// Says whether all is used up.
    #[must_use]
    pub const fn is_over(&self) -> bool {
        self.0.is_empty()
    }

    /// One byte.
    pub fn byte(&mut self) -> u8 {
        let [byte] = self.array();
        byte
    }

    /// A number below `bound`, which is not 0.
    pub fn below(&mut self, bound: u8) -> u8 {
        self.byte() % bound
    }

    /// One in `of` times true; never once the input is used up.
    pub fn one_in(&mut self, of: u8) -> bool {
        self.byte() % of == of - 1
    }

    /// A fixed number of bytes.
    pub fn array<const N: usize>(&mut self) -> [u8; N] {
        let mut out = [0; N];
        let taken = self.slice(N);
        out[..taken.len()].copy_from_slice(taken);
        out
    }

    /// At most this many bytes.
    pub fn slice(&mut self, most: usize) -> &'a [u8] {
        let (taken, left) = self.0.split_at(most.min(self.0.len()));
        self.0 = left;
        taken
    }

    /// All that is left.
    pub fn rest(&mut self) -> &'a [u8] {
        self.slice(usize::MAX)
    }

    /// A number of two bytes.
    pub fn u16(&mut self) -> u16 {
        u16::from_be_bytes(self.array())
    }

    /// A number of eight bytes.
    pub fn u64(&mut self) -> u64 {
        u64::from_be_bytes(self.array())
    }

    /// An address and port, mostly usual ones.
    pub fn source(&mut self) -> SocketAddr {
        let ip = match self.below(4) {
            0 => IpAddr::from([198, 51, 100, 7]),
            1 => IpAddr::from(self.array::<4>()),
            2 => IpAddr::from(self.array::<16>()),
            _ => IpAddr::V6(Ipv4Addr::from(self.array::<4>()).to_ipv6_mapped()),
        };
        SocketAddr::new(ip, self.u16())
    }
}
