//! A reply as the client takes it: sealed with real keys around the fuzzer's plaintext, then damaged.

use std::sync::LazyLock;

use spa_proto::{
    DefaultRoute, Ext, Info, Op, OpenedKnock, PendingKnock, ReplyError, SealedKnock, Signer,
    build_knock, seal_reply,
};

use crate::choices::Choices;
use crate::keys::{KEYS, NOW, slot};
use crate::tlv;

/// One knock of each op, at both ends.
static KNOCKS: LazyLock<[(PendingKnock, OpenedKnock); 2]> =
    LazyLock::new(|| [(0x10, 3, [8; 32].as_slice()), (0x11, 8, &[2; 8])].map(knock));

fn knock((op, tlv, value): (u8, u8, &[u8])) -> (PendingKnock, OpenedKnock) {
    let keys = &*KEYS;
    let mut info = [0; Info::LEN];
    info[0] = op;
    info[4..12].copy_from_slice(&NOW.as_millis().to_be_bytes());
    info[12..].fill(0xFF);
    let mut ext = [0; Ext::LEN];
    ext[0] = tlv;
    ext[1] = u8::try_from(value.len()).expect("short");
    ext[2..2 + value.len()].copy_from_slice(value);
    let signer = if op == 0x10 {
        Signer::Password(&keys.proof)
    } else {
        Signer::Session(&keys.session)
    };
    let (info, ext) = (Info::from_bytes(info), Ext::from_bytes(ext));
    let public = keys.knock.public();
    let (packet, pending) = build_knock(
        &keys.derived,
        0,
        &public,
        slot(),
        [4; 32],
        &info,
        &ext,
        signer,
    )
    .expect("a request");
    let sealed = SealedKnock::parse(&packet).expect("a knock");
    let verified = sealed.unmask(&keys.derived, slot()).expect("the MAC holds");
    let opened = verified
        .open(&keys.derived, |_| Some(&keys.knock))
        .expect("it opens");
    (pending, opened)
}

/// What the client is told is what the gateway sealed; a changed byte is never believed.
pub fn run(data: &[u8]) {
    let mut choices = Choices::new(data);
    let (pending, opened) = &KNOCKS[usize::from(choices.below(2))];
    if choices.one_in(4) {
        let made_up = pending.open_reply(choices.rest(), NOW, DefaultRoute::Allow);
        assert!(made_up.is_err(), "a forged reply");
        return;
    }
    let (flip, with) = (usize::from(choices.u16()), choices.byte());
    let (e_s, payload) = (choices.array(), choices.array());
    tlv::payload(&payload, pending.op(), DefaultRoute::Refuse);
    let Ok(sealed) = seal_reply(&opened.reply_keys(), e_s, &payload) else {
        return;
    };
    let mut packet = sealed.packet;
    packet[flip % 512] ^= with;
    match pending.open_reply(&packet, NOW, DefaultRoute::Refuse) {
        Ok((_, secrets)) => {
            assert_eq!(with, 0, "a changed reply was believed");
            assert_eq!(secrets.wg_psk.expose(), sealed.secrets.wg_psk.expose());
            assert_eq!(secrets.k_sess.expose(), sealed.secrets.k_sess.expose());
        }
        Err(ReplyError::Payload(_)) => assert_eq!(with, 0, "a changed reply was read"),
        Err(_) => assert_ne!(with, 0, "our own reply does not open"),
    }
    assert!(matches!(pending.op(), Op::Open | Op::Roam));
}
