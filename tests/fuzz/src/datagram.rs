//! An IP packet off the capture socket, and what the core makes of it, as a stranger sends it.

use spa_gateway::capture::Frame;
use spa_gateway::checksum;

/// Whatever is taken for a datagram lies inside the frame, behind two headers at least.
pub fn run(data: &[u8]) {
    look(data);
    // No fuzzer guesses a sum, and behind it lies the rest.
    look(&with_right_sum(data));
}

fn look(data: &[u8]) {
    let Ok(frame) = Frame::parse(data) else {
        return;
    };
    let (outer, inner) = (data.as_ptr_range(), frame.payload.as_ptr_range());
    assert!(inner.start >= outer.start && inner.end <= outer.end);
    assert!(frame.payload.len() + 28 <= data.len());
    assert_eq!(frame.source.is_ipv4(), frame.destination.is_ipv4());
    assert_eq!(frame.source.is_ipv4(), data[0] >> 4 == 4);
}

/// The packet with the checksum its IPv4 header should have, if it has such a header.
fn with_right_sum(data: &[u8]) -> Vec<u8> {
    let mut packet = data.to_vec();
    let header = packet.first().map_or(0, |byte| usize::from(byte & 0xF) * 4);
    if let Some(header) = packet.get_mut(..header).filter(|header| header.len() >= 20) {
        header[10..12].fill(0);
        let sum = !checksum::add(0, header);
        header[10..12].copy_from_slice(&sum.to_be_bytes());
    }
    packet
}
