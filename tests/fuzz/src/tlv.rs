//! The plaintexts of knock and reply: strict parsers, and writers that say the same thing again.

use spa_proto::{DefaultRoute, Ext, Info, Op, PAYLOAD_LEN, ReplyPayload, Request};

use crate::choices::Choices;
use crate::keys::NOW;

/// What parses can be written, and reads the same.
pub fn run(data: &[u8]) {
    let mut choices = Choices::new(data);
    if choices.one_in(2) {
        reply(&mut choices);
    } else {
        request(
            &Info::from_bytes(choices.array()),
            &Ext::from_bytes(choices.array()),
        );
    }
}

/// A knock's plaintext.
pub fn request(info: &Info, ext: &Ext) {
    let Ok(request) = Request::parse(info, ext) else {
        return;
    };
    let (again, tlvs) = request.encode().expect("what was read can be written");
    assert_eq!(Request::parse(&again, &tlvs).as_ref(), Ok(&request));
    // `info` has one spelling; `ext` has more, since unknown types are skipped and the order is free. Minutes
    // mean nothing in other ops.
    if request.op() == Op::Open {
        assert_eq!(again.as_bytes(), info.as_bytes());
    }
}

fn reply(choices: &mut Choices<'_>) {
    let op = [Op::Open, Op::Roam, Op::Close, Op::Enrol][usize::from(choices.below(4))];
    let default_route = if choices.one_in(2) {
        DefaultRoute::Allow
    } else {
        DefaultRoute::Refuse
    };
    payload(&choices.array(), op, default_route);
}

/// A reply's plaintext.
pub fn payload(bytes: &[u8; PAYLOAD_LEN], op: Op, default_route: DefaultRoute) {
    let Ok(payload) = ReplyPayload::parse(bytes, op, NOW, default_route) else {
        return;
    };
    // A reply of another implementation may fill its area to the last byte, in ways ours never does.
    if let Ok(again) = payload.encode() {
        let read = ReplyPayload::parse(&again, op, NOW, default_route);
        assert_eq!(read.as_ref(), Ok(&payload));
    }
}
