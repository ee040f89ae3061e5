use std::string::ToString;
use std::vec;

use super::*;
use crate::rekey::{RekeyAsk, answer_rekey};
use crate::secret::WgPsk;

#[test]
fn a_rekey_crosses_in_json_with_the_names_of_spec_12() {
    let ask = RekeyAsk::new([1; 32], [2; 64]);
    let sent = serde_json::to_string(&Rekey::from(ask.request())).unwrap();
    assert!(sent.starts_with(r#"{"x25519":""#) && sent.contains(r#","ml_kem_768_ek":""#));
    assert!(sent.len() < MAX_BODY);
    let heard: Rekey = serde_json::from_str(&sent).unwrap();
    let psk = WgPsk::from_bytes([9; 32]);
    let (answer, theirs) = answer_rekey(&psk, &heard.into(), [3; 32], [4; 32]).unwrap();
    let sent = serde_json::to_string(&Rekeying::from(&answer)).unwrap();
    assert!(sent.contains(r#","ml_kem_768_ct":""#));
    let heard: Rekeying = serde_json::from_str(&sent).unwrap();
    assert_eq!(ask.finish(&psk, &heard.into()), Ok(theirs));
}

#[test]
fn keys_are_unpadded_base64url_of_exactly_their_length() {
    let password = |q: &str| {
        let signature = "A".repeat(86);
        let text = std::format!(r#"{{"q":"{q}","code":1,"signature":"{signature}"}}"#);
        serde_json::from_str::<Password>(&text)
    };
    let right = "_-".repeat(21) + "8";
    assert_eq!(password(&right).unwrap().q().as_bytes()[0], 0xff);
    for wrong in [
        right.clone() + "=",
        right.replace('_', "/"),
        right.replace('8', "9"),
        right[1..].to_string(),
        right.clone() + "AA",
        right + "AAAA",
    ] {
        assert!(password(&wrong).is_err(), "{wrong}");
    }
}

#[test]
fn a_request_with_a_field_too_many_or_of_another_type_is_none() {
    assert!(serde_json::from_str::<Renew>(r#"{"minutes":5}"#).is_ok());
    for wrong in [
        r#"{"minutes":5,"for":1}"#,
        r#"{"minutes":-5}"#,
        r#"{"minutes":"5"}"#,
        r#"{"minutes":65536}"#,
        r#"{"minutes":5,"minutes":6}"#,
        "{}",
        "[]",
        "",
    ] {
        assert!(serde_json::from_str::<Renew>(wrong).is_err(), "{wrong}");
    }
    assert!(serde_json::from_str::<Nothing>("{}").is_ok());
    assert!(serde_json::from_str::<Nothing>(r#"{"a":1}"#).is_err());
    let fact = r#"{"facts":{"os":{"value":"6.1","age_s":3},"firewall":{"value":true},"patch_age":{"value":4}}}"#;
    let posture: Posture = serde_json::from_str(fact).unwrap();
    assert_eq!(posture.facts["os"].age_s, 3);
    assert_eq!(posture.facts["patch_age"].value, FactValue::Number(4));
    for wrong in [
        r#"{"facts":{"os":{"value":null}}}"#,
        r#"{"facts":{"os":{"value":[1]}}}"#,
        r#"{"facts":{"patch_age":{"value":-1}}}"#,
        r#"{"facts":{"os":{"value":"6","age_s":-1}}}"#,
        r#"{"facts":[]}"#,
        r#"{"facts":{"os":"6.1"}}"#,
    ] {
        assert!(serde_json::from_str::<Posture>(wrong).is_err(), "{wrong}");
    }
}

#[test]
fn an_answer_of_a_later_gateway_is_read() {
    let grants = Grants {
        session: SessionId::from_bytes([0, 1, 2, 3, 4, 5, 6, 0xff]),
        person: "ana".into(),
        now: WallTime::from_millis(1),
        not_after: WallTime::from_millis(2),
        renewable_until: WallTime::from_millis(3),
        serial: 4,
        rekey: RekeyState::Wanted,
        routes: vec!["10.0.5.10/32".into()],
        resources: vec![GrantedResource {
            name: "wiki".into(),
            to: "10.0.5.10/32".into(),
            ports: vec!["443/tcp".into()],
            not_after: WallTime::from_millis(2),
        }],
    };
    let text = serde_json::to_string(&grants).unwrap();
    assert!(text.starts_with(r#"{"session":"00010203040506ff","person":"ana","now":1,"#));
    assert!(text.contains(r#""rekey":"wanted""#));
    let later = text.replacen('{', r#"{"more":[{}],"#, 1);
    assert_eq!(serde_json::from_str::<Grants>(&later).unwrap(), grants);
    let short = text.replace("00010203040506ff", "10203040506ff");
    assert!(serde_json::from_str::<Grants>(&short).is_err());
}

#[test]
fn an_event_names_itself() {
    let event = Event::PostureRequired(PostureRequired { missed: 1, of: 3 });
    let text = serde_json::to_string(&event).unwrap();
    assert_eq!(text, r#"{"event":"posture-required","missed":1,"of":3}"#);
    let later = r#"{"event":"posture-required","missed":1,"of":3,"by":"x"}"#;
    assert_eq!(serde_json::from_str::<Event>(later).unwrap(), event);
    let ended = r#"{"event":"ended","reason":"cut","text":"cut by an administrator"}"#;
    assert!(matches!(serde_json::from_str(ended), Ok(Event::Ended(_))));
    assert!(serde_json::from_str::<Event>(r#"{"event":"tomorrow"}"#).is_err());
}
