use super::*;
use crate::opening::{FlowTarget, Protocol};
use core::num::NonZeroU16;
use std::vec::Vec;

/// One of every kind with the length its body has.
fn samples() -> Vec<(Answer, usize)> {
    let usage = Usage {
        remaining_ms: 9_876,
        packets: u64::MAX,
        bytes: 1 << 40,
    };
    let door = Door {
        source: [198, 51, 100, 7].into(),
        port: NonZeroU16::new(40_000),
    };
    let flow = Flow {
        tunnel: "fd5a:1::7".parse().expect("address"),
        to: FlowTarget::Forward,
        destination: "fd00::".parse().expect("address"),
        prefix: 64,
        protocol: Protocol::Tcp,
        ports: (1, 65_535),
        published: None,
    };
    let peer = PeerReport {
        key: [9; 32],
        endpoint: "[2001:db8::1]:51820".parse().ok(),
        handshake_age_ms: Some(0),
        rx: 7,
        tx: 8,
    };
    let knock = KnockInterfaces::new(&[2, 5]).expect("two");
    let hello = Hello {
        backend: Backend::Embedded,
        wireguard: 4,
        replies: Replies::Both,
        knock,
        tags: TagTable::from_buckets(4_096),
        access: Access::BegunAndEnded,
    };
    let connections = Connections {
        allowed: Told { all: 7, told: 5 },
        refused: Told {
            all: u64::MAX,
            told: 1,
        },
    };
    std::vec![
        (Answer::Hello(hello), 44),
        (Answer::Connections(connections), 32),
        (Answer::Done, 0),
        (Answer::Peer(peer), 76),
        (
            Answer::Peer(PeerReport {
                endpoint: None,
                handshake_age_ms: None,
                ..peer
            }),
            76
        ),
        (Answer::Absent, 0),
        (
            Answer::Opening {
                opening: Opening::Door(door),
                usage
            },
            79
        ),
        (
            Answer::Opening {
                opening: Opening::Flow(flow),
                usage
            },
            79
        ),
        (Answer::End, 0),
        (Answer::Refused(Reason::TtlLong), 1),
        (
            Answer::Failed {
                errno: -3,
                what: What::ReadBack
            },
            5
        ),
    ]
}

#[test]
fn every_answer_comes_back_as_it_went() {
    for (seq, (answer, _)) in (0..).zip(samples()) {
        assert_eq!(Answer::decode(&answer.encode(seq)), Ok((seq, answer)));
    }
}

#[test]
fn every_reason_and_every_what_has_a_byte_of_its_own() {
    for reason in Reason::ALL {
        let answer = Answer::Refused(*reason);
        assert_eq!(Answer::decode(&answer.encode(1)), Ok((1, answer)));
    }
    for what in What::ALL {
        let answer = Answer::Failed {
            errno: 17,
            what: *what,
        };
        assert_eq!(Answer::decode(&answer.encode(1)), Ok((1, answer)));
    }
}

#[test]
fn every_unused_byte_is_zero() {
    for (answer, body) in samples() {
        for at in (2..4).chain(12 + body..ANSWER_LEN) {
            let mut bytes = answer.encode(1);
            bytes[at] = 1;
            assert_eq!(
                Answer::decode(&bytes),
                Err(DecodeError::Padding),
                "{answer:?} {at}"
            );
        }
    }
}

#[test]
fn whatever_decodes_encodes_to_the_same_bytes() {
    for (answer, _) in samples() {
        for at in 0..ANSWER_LEN {
            for value in 0..=255 {
                let mut bytes = answer.encode(1);
                bytes[at] = value;
                if let Ok((seq, decoded)) = Answer::decode(&bytes) {
                    assert_eq!(decoded.encode(seq), bytes, "{answer:?} byte {at} = {value}");
                }
            }
        }
    }
}

#[test]
fn an_order_is_not_an_answer() {
    let order = crate::Order::ListPeers.encode(1);
    assert_eq!(Answer::decode(&order[..]), Err(DecodeError::Kind));
}

#[test]
fn the_descriptors_are_counted() {
    let knock = KnockInterfaces::new(&[2, 5, 6]).expect("three");
    let hello = Hello {
        backend: Backend::Kernel,
        wireguard: 4,
        replies: Replies::Both,
        knock,
        tags: TagTable::from_buckets(4_096),
        access: Access::None,
    };
    assert_eq!(hello.descriptors(), 6);
    assert_eq!(
        Hello {
            replies: Replies::Ipv4,
            tags: None,
            access: Access::BegunAndEnded,
            ..hello
        }
        .descriptors(),
        6
    );
}

#[test]
fn an_endpoint_of_no_family_is_none_only_when_all_zero() {
    let Some((answer, _)) = samples().into_iter().nth(4) else {
        panic!("sample")
    };
    let mut bytes = answer.encode(1);
    bytes[12 + 32 + 18] = 1;
    assert_eq!(Answer::decode(&bytes), Err(DecodeError::Padding));
}
