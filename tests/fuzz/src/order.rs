//! The boundary of privilege: `decode` takes precisely what `encode` writes, on both sides.

use spa_order::{Answer, Order};

/// Bytes that decode are the bytes that are encoded.
pub fn run(data: &[u8]) {
    if let Ok((seq, order)) = Order::decode(data) {
        assert_eq!(order.encode(seq).as_slice(), data);
    }
    if let Ok((seq, answer)) = Answer::decode(data) {
        assert_eq!(answer.encode(seq).as_slice(), data);
    }
}
