//! An IP packet off the capture socket, and what the core makes of it, as a stranger sends it.

use spa_gateway::capture::Frame;

/// Whatever is taken for a datagram lies inside the frame, behind two headers at least.
pub fn run(data: &[u8]) {
    let Ok(frame) = Frame::parse(data) else {
        return;
    };
    let (outer, inner) = (data.as_ptr_range(), frame.payload.as_ptr_range());
    assert!(inner.start >= outer.start && inner.end <= outer.end);
    assert!(frame.payload.len() + 28 <= data.len());
    assert_eq!(frame.source.is_ipv4(), frame.destination.is_ipv4());
    assert_eq!(frame.source.is_ipv4(), data[0] >> 4 == 4);
}
