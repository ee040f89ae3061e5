//! No bytes from outside panic a parser, and what a parser takes has one meaning.

mod parties;

use parties::Parties;
use proptest::collection::vec;
use proptest::prelude::*;
use spa_proto::*;

const OPS: [Op; 4] = [Op::Open, Op::Roam, Op::Close, Op::Enrol];

/// Bytes that look like TLVs more often than chance makes them.
fn tlv_like(len: usize) -> impl Strategy<Value = Vec<u8>> {
    let kind = prop_oneof![0..0x18_u8, Just(0x80), any::<u8>()];
    let length = prop_oneof![
        Just(4_u8),
        Just(5),
        Just(6),
        Just(8),
        Just(16),
        Just(18),
        Just(22),
        Just(32),
        Just(33),
        Just(41),
        any::<u8>(),
    ];
    let value = |len: u8| {
        prop_oneof![
            Just(vec![0; len.into()]),
            vec(any::<u8>(), usize::from(len))
        ]
    };
    let tlv = (kind, length.prop_flat_map(value)).prop_map(|(kind, value)| {
        let length = u8::try_from(value.len()).expect("made of a byte");
        [&[kind, length], value.as_slice()].concat()
    });
    (vec(tlv, 0..6), any::<bool>()).prop_map(move |(tlvs, dirty)| {
        let mut area = tlvs.concat();
        area.resize(len, u8::from(dirty));
        area
    })
}

fn info() -> impl Strategy<Value = [u8; 16]> {
    (
        prop_oneof![
            Just(0x10_u8),
            Just(0x11),
            Just(0x12),
            Just(0x13),
            any::<u8>()
        ],
        0..3_u8,
        any::<[u8; 14]>(),
        any::<bool>(),
    )
        .prop_map(|(kind, flags, rest, no_code)| {
            let mut info = [0; 16];
            info[0] = kind;
            info[1] = flags;
            info[2..].copy_from_slice(&rest);
            if no_code {
                info[12..].fill(0xff);
            }
            info
        })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn no_payload_panics_the_gateways_first_steps(payload in vec(any::<u8>(), 500..524)) {
        let parties = Parties::new(1);
        if let Ok(sealed) = SealedKnock::parse(&payload) {
            prop_assert_eq!(payload.len(), 512);
            prop_assert!(sealed.unmask(&parties.keys, Slot::default()).is_err());
            prop_assert!(parties.open(&payload, Slot::default()).is_none());
        }
    }

    #[test]
    fn no_plaintext_panics_the_strict_parser_and_what_it_takes_writes_back(
        info in info(), ext in tlv_like(367),
    ) {
        let ext: [u8; 367] = ext.try_into().expect("367 bytes");
        if let Ok(request) = Request::parse(&Info::from_bytes(info), &Ext::from_bytes(ext)) {
            let (info, ext) = request.encode().expect("what was read can be written");
            prop_assert_eq!(Request::parse(&info, &ext), Ok(request));
        }
    }

    #[test]
    fn no_payload_of_a_reply_panics_the_client_and_what_it_takes_writes_back(
        mut payload in vec(any::<u8>(), 138), tlvs in tlv_like(318), status in 0..6_u8, bare: bool, op in 0..4_usize,
    ) {
        let now = WallTime::from_millis(1_800_000_000_000);
        payload[0] = status;
        payload[1] &= 1;
        if bare {
            payload[1..12].fill(0);
            payload[20..78].fill(0);
            payload[96..].fill(0);
        } else {
            payload[20..28].copy_from_slice(&(now.as_millis() + 1000).to_be_bytes());
        }
        let payload: [u8; PAYLOAD_LEN] = [payload, tlvs].concat().try_into().expect("456 bytes");
        if let Ok(reply) = ReplyPayload::parse(&payload, OPS[op], now, DefaultRoute::Allow) {
            let again = reply.encode().expect("what was read can be written");
            prop_assert_eq!(ReplyPayload::parse(&again, OPS[op], now, DefaultRoute::Allow), Ok(reply));
        }
    }

    #[test]
    fn no_packet_panics_a_client_that_waits_for_a_reply(packet in vec(any::<u8>(), 500..524)) {
        let parties = Parties::new(1);
        let ask = Ask::Close(SessionId::from_bytes([1; 8]));
        let request = Request { ts: WallTime::default(), same_port: false, source: None, ask };
        let mut transaction = Transaction::new(&request).expect("it fits");
        parties.knock(&mut transaction, Slot::default(), [1; 32]);
        let opened = transaction.open_reply(&packet, WallTime::default(), DefaultRoute::Refuse);
        prop_assert!(opened.is_err());
    }

    #[test]
    fn no_line_panics_the_reader_of_invites_and_what_it_takes_writes_back(
        line in "(spa1:)?[a-z0-9.\\[\\]:-]{0,20}(:[0-9]{0,6})?/?[A-Za-z0-9_-]{0,110}|\\PC{0,60}",
    ) {
        if let Ok(invite) = line.parse::<Invite>() {
            let again = invite.to_line();
            prop_assert_eq!(again.parse::<Invite>().ok(), Some(invite));
        }
    }

    #[test]
    fn no_key_panics_a_rekey(x25519: [u8; 32], seed: [u8; 32], fill: u8) {
        let psk = WgPsk::from_bytes(seed);
        let request = RekeyRequest { x25519, ml_kem_768_ek: Box::new([fill; 1184]) };
        let _ = answer_rekey(&psk, &request, seed, seed);
    }
}
