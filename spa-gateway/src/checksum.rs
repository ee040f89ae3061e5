//! The Internet checksum (RFC 1071) over UDP and its pseudo-header, for what comes in and what goes out.

use std::net::IpAddr;

/// IP protocol number of UDP.
pub const UDP: u8 = 17;

/// Sums the pseudo-header of a UDP datagram of `length` bytes (RFC 768, RFC 8200 §8.1), folded to 16 bits.
#[must_use]
pub fn pseudo_header(source: IpAddr, destination: IpAddr, length: u16) -> u16 {
    let mut sum = u32::from(UDP) + u32::from(length);
    for address in [source, destination] {
        match address {
            IpAddr::V4(v4) => sum += words(&v4.octets()),
            IpAddr::V6(v6) => sum += words(&v6.octets()),
        }
    }
    fold(sum)
}

/// Adds the sum of `bytes` to `start`, folded to 16 bits.
#[must_use]
pub fn add(start: u16, bytes: &[u8]) -> u16 {
    fold(u32::from(start) + words(bytes))
}

/// At most 32,767 words of 16 bits: the sum of one IP packet fits 32 bits.
fn words(bytes: &[u8]) -> u32 {
    let (pairs, odd) = bytes.as_chunks::<2>();
    let last = odd.first().map_or(0, |byte| u32::from(*byte) << 8);
    pairs
        .iter()
        .map(|pair| u32::from(u16::from_be_bytes(*pair)))
        .fold(last, u32::wrapping_add)
}

fn fold(sum: u32) -> u16 {
    let once = (sum & 0xFFFF) + (sum >> 16);
    let twice = (once & 0xFFFF) + (once >> 16);
    u16::try_from(twice).expect("two folds leave 16 bits")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_example_of_rfc_1071_adds_up() {
        let bytes = [0x00, 0x01, 0xf2, 0x03, 0xf4, 0xf5, 0xf6, 0xf7];
        assert_eq!(add(0, &bytes), 0xddf2);
    }

    #[test]
    fn an_odd_byte_is_the_high_half_of_a_word() {
        assert_eq!(add(0, &[0x12, 0x34, 0x56]), 0x1234 + 0x5600);
    }

    #[test]
    fn the_largest_packet_does_not_overflow() {
        assert_eq!(add(0xFFFF, &[0xFF; 65_535]), add(0, &[0xFF, 0]));
    }
}
