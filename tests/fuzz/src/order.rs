//! The boundary of privilege: `decode` takes precisely what `encode` writes, on both sides.

use spa_order::{Answer, Order};

/// Bytes that decode are the bytes that are encoded; and if they differ from such in the last alone, too.
pub fn run(data: &[u8]) {
    let mut dirty = data.to_vec();
    if let (true, Some(last)) = (is_written(data), dirty.last_mut()) {
        *last ^= 1;
        is_written(&dirty);
    }
}

/// Says whether the bytes are a message; then they are what is written for it.
fn is_written(data: &[u8]) -> bool {
    let order = Order::decode(data);
    if let Ok((seq, order)) = &order {
        assert_eq!(order.encode(*seq).as_slice(), data);
    }
    let answer = Answer::decode(data);
    if let Ok((seq, answer)) = &answer {
        assert_eq!(answer.encode(*seq).as_slice(), data);
    }
    order.is_ok() || answer.is_ok()
}
