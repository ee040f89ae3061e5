//! A knock by somebody with the real keys: every byte behind MAC and AEAD is the fuzzer's.

use spa_proto::{Ext, Info, Request, SealedKnock, Signer, build_knock};

use crate::choices::Choices;
use crate::keys::{KEYS, slot};
use crate::tlv;

/// What is built opens to the same bytes; any change of a byte on the way is noticed.
pub fn run(data: &[u8]) {
    let keys = &*KEYS;
    let mut choices = Choices::new(data);
    let (flip, with) = (usize::from(choices.u16()), choices.byte());
    let (kid, e) = (choices.below(3), choices.array());
    let info = Info::from_bytes(choices.array());
    let ext = Ext::from_bytes(choices.array());
    tlv::request(&info, &ext);
    let Ok(request) = Request::parse(&info, &ext) else {
        return;
    };
    let signer = match request.op() {
        spa_proto::Op::Open | spa_proto::Op::Enrol => Signer::Password(&keys.proof),
        spa_proto::Op::Roam | spa_proto::Op::Close => Signer::Session(&keys.session),
    };
    let public = keys.knock.public();
    let built = build_knock(&keys.derived, kid, &public, slot(), e, &info, &ext, signer);
    let (mut packet, _) = built.expect("a request that parses can be sent");

    let open = |packet: &[u8]| {
        let sealed = SealedKnock::parse(packet).ok()?;
        let verified = sealed.unmask(&keys.derived, slot()).ok()?;
        verified
            .open(&keys.derived, |live| (live == kid).then_some(&keys.knock))
            .ok()
    };
    let opened = open(&packet).expect("our own knock opens");
    assert_eq!((opened.info(), opened.ext()), (&info, &ext));
    assert_eq!(opened.request().as_ref(), Ok(&request));
    match signer {
        Signer::Password(q) => assert!(bool::from(opened.verify_proof(&q.public()))),
        Signer::Session(key) => assert!(bool::from(opened.verify_session_proof(key))),
    }

    // The tag is not under the MAC: it only says which key to try.
    let at = 8 + flip % 504;
    packet[at] ^= with;
    assert_eq!(
        open(&packet).is_some(),
        with == 0,
        "byte {at} is not authentic"
    );
}
