//! 512 bytes of anybody: shape, tag, MAC. Nobody without the keys gets past them.

use spa_proto::{SealedKnock, looks_like_wireguard};

use crate::keys::{KEYS, slot};

/// Only the shape is checked before the key; then the MAC holds for nothing that is made up.
pub fn run(data: &[u8]) {
    let Ok(sealed) = SealedKnock::parse(data) else {
        assert!(data.len() != 512 || looks_like_wireguard(data));
        return;
    };
    assert_eq!(sealed.tag().as_bytes(), &data[..8]);
    assert_eq!(sealed.v(), data[8..16]);
    assert!(
        sealed.unmask(&KEYS.derived, slot()).is_err(),
        "a forged MAC"
    );
}
