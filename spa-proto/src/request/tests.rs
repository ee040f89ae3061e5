//! Every rule of SPEC §4 on `info` and `ext`, one broken at a time.

use super::*;
use crate::tlv::Writer;
use std::vec;

fn open() -> Request {
    Request {
        ts: WallTime::from_millis(1_803_577_530_530),
        same_port: false,
        source: None,
        ask: Ask::Open(OpenAsk {
            minutes: 30,
            factor: SecondFactor::Totp(925_731),
            wanted: Wanted::ControlOnly,
            wg_key: [9; 32],
            posture: None,
        }),
    }
}

fn enrol(label: &str) -> Request {
    let q = ProofPublic::from_bytes([1; 32]);
    Request {
        ask: Ask::Enrol(EnrolAsk {
            q,
            label: label.into(),
            posture: Some(vec![0xa0]),
        }),
        ..open()
    }
}

fn info_of(request: &Request) -> Info {
    request.encode().unwrap().0
}

fn ext(tlvs: &[(u8, &[u8])]) -> Ext {
    let mut writer = Writer::<{ Ext::LEN }>::new();
    tlvs.iter()
        .for_each(|(kind, value)| writer.push(*kind, value).unwrap());
    Ext(writer.finish())
}

fn parse_open(tlvs: &[(u8, &[u8])]) -> Result<Request, ParseError> {
    Request::parse(&info_of(&open()), &ext(tlvs))
}

const W: (u8, &[u8]) = (WG_KEY, &[9; 32]);

#[test]
fn what_is_written_reads_the_same() {
    let roam = Request {
        ask: Ask::Roam(SessionId::from_bytes([7; 8])),
        same_port: true,
        ..open()
    };
    let close = Request {
        ask: Ask::Close(SessionId::from_bytes([7; 8])),
        ..open()
    };
    let source = Request {
        source: Some("2001:db8::1".parse().unwrap()),
        ..open()
    };
    let source4 = Request {
        source: Some("192.0.2.1".parse().unwrap()),
        ..open()
    };
    for request in [open(), roam, close, source, source4, enrol("laptop")] {
        let (info, ext) = request.encode().unwrap();
        assert_eq!(Request::parse(&info, &ext), Ok(request));
    }
}

#[test]
fn the_longest_request_fits() {
    let longest = Request {
        source: Some("2001:db8::1".parse().unwrap()),
        ask: Ask::Open(OpenAsk {
            minutes: u16::MAX,
            factor: SecondFactor::Recovery(RecoveryCode::from_bytes([5; 16])),
            wanted: Wanted::Resources(vec![ResourceId::of("wiki"); 16]),
            wg_key: [9; 32],
            posture: Some(vec![1; 224]),
        }),
        ..open()
    };
    let (info, ext) = longest.encode().unwrap();
    assert_eq!(Request::parse(&info, &ext), Ok(longest));
}

#[test]
fn what_does_not_fit_is_not_written() {
    let with = |change: fn(&mut OpenAsk)| {
        let mut request = open();
        if let Ask::Open(ask) = &mut request.ask {
            change(ask);
        }
        request.encode().map(|_| ())
    };
    assert_eq!(
        with(|ask| ask.wanted = Wanted::Resources(vec![])),
        Err(EncodeError::Resources)
    );
    let seventeen =
        |ask: &mut OpenAsk| ask.wanted = Wanted::Resources(vec![ResourceId::of("a"); 17]);
    assert_eq!(with(seventeen), Err(EncodeError::Resources));
    assert_eq!(
        with(|ask| ask.posture = Some(vec![0; 225])),
        Err(EncodeError::Posture)
    );
    assert_eq!(
        with(|ask| ask.factor = SecondFactor::Totp(u32::MAX)),
        Err(EncodeError::Code)
    );
    assert_eq!(enrol("").encode().map(|_| ()), Err(EncodeError::Label));
    assert_eq!(
        enrol(&"a".repeat(33)).encode().map(|_| ()),
        Err(EncodeError::Label)
    );
}

#[test]
fn format_op_and_flags_are_the_known_ones() {
    let with = |at: usize, value: u8| {
        let mut info = info_of(&open());
        info.0[at] = value;
        Request::parse(&info, &ext(&[W]))
    };
    assert_eq!(with(0, 0x00), Err(ParseError::Format));
    assert_eq!(with(0, 0x20), Err(ParseError::Format));
    assert_eq!(with(0, 0x14), Err(ParseError::Op));
    assert_eq!(with(0, 0x1f), Err(ParseError::Op));
    assert!(with(1, 0x01).unwrap().same_port);
    for bit in 1..8 {
        assert_eq!(with(1, 1 << bit), Err(ParseError::Flags), "flag {bit}");
    }
}

#[test]
fn a_known_tlv_has_its_length() {
    for (kind, value) in [
        (RESOURCES, &[0; 0][..]),
        (RESOURCES, &[0; 5]),
        (RESOURCES, &[0; 68]),
        (ALL, &[0; 1]),
        (POSTURE, &[0; 225]),
        (SOURCE, &[0; 4]),
        (RECOVERY, &[0; 15]),
    ] {
        assert_eq!(
            parse_open(&[W, (kind, value)]),
            Err(TlvError::Malformed(kind).into()),
            "{kind}"
        );
    }
    assert_eq!(
        parse_open(&[(WG_KEY, &[9; 31])]),
        Err(TlvError::Malformed(WG_KEY).into())
    );
}

#[test]
fn a_known_tlv_stands_only_where_it_belongs() {
    for kind in [ENROL, SESSION] {
        assert_eq!(
            parse_open(&[W, (kind, &[0; 8])]),
            Err(TlvError::Misplaced(kind).into())
        );
    }
    let roam = info_of(&Request {
        ask: Ask::Roam(SessionId::from_bytes([7; 8])),
        ..open()
    });
    for kind in [RESOURCES, ALL, WG_KEY, POSTURE, ENROL, RECOVERY] {
        let parsed = Request::parse(&roam, &ext(&[(SESSION, &[7; 8]), (kind, &[])]));
        assert_eq!(parsed, Err(TlvError::Misplaced(kind).into()));
    }
}

#[test]
fn required_tlvs_are_required() {
    assert_eq!(parse_open(&[]), Err(TlvError::Missing(WG_KEY).into()));
    let close = info_of(&Request {
        ask: Ask::Close(SessionId::from_bytes([7; 8])),
        ..open()
    });
    assert_eq!(
        Request::parse(&close, &ext(&[])),
        Err(TlvError::Missing(SESSION).into())
    );
    let enrol = info_of(&enrol("laptop"));
    assert_eq!(
        Request::parse(&enrol, &ext(&[])),
        Err(TlvError::Missing(ENROL).into())
    );
}

#[test]
fn resources_and_all_exclude_each_other() {
    assert_eq!(
        parse_open(&[W, (ALL, &[]), (RESOURCES, &[0; 4])]),
        Err(TlvError::Misplaced(ALL).into())
    );
}

#[test]
fn an_unknown_type_is_skipped_unless_it_is_critical() {
    // 0x11 is known in replies only.
    for kind in [0x09, 0x11, 0x7f] {
        assert_eq!(parse_open(&[(kind, &[1, 2]), W]), Ok(open()), "{kind:#x}");
    }
    for kind in [0x80, 0x83, 0xff] {
        assert_eq!(
            parse_open(&[W, (kind, &[])]),
            Err(TlvError::Critical(kind).into()),
            "{kind:#x}"
        );
    }
}

#[test]
fn a_code_stands_in_open_only_and_not_beside_recovery() {
    let code = info_of(&open());
    let parsed = Request::parse(&code, &ext(&[W, (RECOVERY, &[5; 16])]));
    assert_eq!(parsed, Err(ParseError::Code));
    for (op, tlv) in [
        (1, (SESSION, &[7; 8][..])),
        (2, (SESSION, &[7; 8])),
        (3, (ENROL, &[b'a'; 40])),
    ] {
        let mut info = code.clone();
        info.0[0] = FORMAT << 4 | op;
        assert_eq!(
            Request::parse(&info, &ext(&[tlv])),
            Err(ParseError::Code),
            "op {op}"
        );
    }
}

#[test]
fn a_label_is_utf_8_of_1_to_32_bytes() {
    let info = info_of(&enrol("laptop"));
    for (label, good) in [
        (&b"a"[..], true),
        (&[b'a'; 32], true),
        (&[], false),
        (&[b'a'; 33], false),
        (&[0xc3, 0x28], false),
    ] {
        let value = [&[1; 32][..], label].concat();
        let parsed = Request::parse(&info, &ext(&[(ENROL, &value)]));
        assert_eq!(parsed.is_ok(), good, "{label:?}");
    }
}
