//! Both sides of an exchange may err alike; numbers made by somebody else do not. So each derivation is compared with the vectors of
//! `tests/vectors` here too, though the vector checker does it for all of them: what changes a derivation fails a test of this crate.

use std::string::String;

use serde_json::Value;

use super::*;
use crate::keys::KnockSecret;
use crate::knock::SealedKnock;
use crate::proof::ProofSecret;
use crate::secret::{CredentialKey, SessionKey};

fn vectors(text: &str) -> Value {
    serde_json::from_str::<Value>(text).expect("JSON")["vectors"].clone()
}

fn bytes<const N: usize>(case: &Value, name: &str) -> [u8; N] {
    let text = case[name].as_str().expect("hex");
    let digits = |at: usize| u8::from_str_radix(&text[2 * at..2 * at + 2], 16).expect("hex");
    assert_eq!(text.len(), 2 * N, "{name}");
    core::array::from_fn(digits)
}

fn hex(bytes: &[u8]) -> String {
    bytes
        .iter()
        .map(|byte| std::format!("{byte:02x}"))
        .collect()
}

/// Each value is that of the vector.
fn same(case: &Value, named: &[Named]) {
    for (name, value) in named {
        assert_eq!(case[*name], hex(value), "{name} of {}", case["name"]);
    }
}

fn slot(case: &Value) -> Slot {
    Slot::from_minutes(case["slot"].as_u64().expect("a slot"))
}

fn ids(case: &Value) -> (GatewayId, CredentialId) {
    (
        GatewayId::from_bytes(bytes(case, "gw_id")),
        CredentialId::from_bytes(bytes(case, "cred_id")),
    )
}

fn keys_of(case: &Value) -> DerivedKeys {
    let (gateway, credential) = ids(case);
    let secret = CredentialKey::from_bytes(bytes(case, "K_cred"));
    DerivedKeys::derive(&secret, gateway, credential)
}

#[test]
fn the_keys_of_a_credential_are_those_of_the_vectors() {
    for case in vectors(include_str!("../../../tests/vectors/kdf.json"))
        .as_array()
        .expect("a list")
    {
        let (gateway, credential) = ids(case);
        let keys = keys_of(case);
        assert_eq!((keys.gateway(), keys.credential()), (gateway, credential));
        same(case, &derived_keys(&keys));
        assert_eq!(cx(gateway, credential), bytes(case, "cx"));
        let identity = KnockSecret::from_bytes(bytes(case, "b_0")).public();
        assert_eq!(identity.as_bytes(), &bytes(case, "B_0"));
        assert_eq!(GatewayId::of(&identity), gateway);
        let q = ProofSecret::from_seed(&bytes(case, "seed")).public();
        assert_eq!(q.as_bytes(), &bytes(case, "Q"));
    }
}

#[cfg(feature = "client")]
#[test]
fn the_proof_key_of_a_password_is_that_of_the_vectors() {
    let all = vectors(include_str!("../../../tests/vectors/kdf.json"));
    // Argon2id takes its time: a machine's empty password, and one more.
    for case in all.as_array().expect("a list").iter().take(2) {
        let (password, device) = (
            case["password"].as_str().expect("text"),
            crate::DeviceSecret::from_bytes(bytes(case, "r")),
        );
        let (gateway, credential) = ids(case);
        let salt = bytes(case, "salt");
        let named = proof_key(password, &salt, &device, gateway, credential).expect("memory");
        same(case, &named);
        let q = if password.is_empty() {
            ProofSecret::for_machine(&salt, &device, gateway, credential)
        } else {
            ProofSecret::derive(password, &salt, &device, gateway, credential)
        };
        let q = q.expect("memory");
        assert_eq!(q.public().as_bytes(), &bytes(case, "Q"));
    }
}

#[test]
fn a_knock_is_byte_for_byte_that_of_the_vectors_and_opens() {
    let all = vectors(include_str!("../../../tests/vectors/knock.json"));
    let mut kids = [false; 2];
    for case in all.as_array().expect("a list").iter().take(16) {
        let keys = keys_of(case);
        let kid = u8::try_from(case["kid"].as_u64().expect("a kid")).expect("a kid");
        let secret = KnockSecret::from_bytes(bytes(case, "b_kid"));
        let (info, ext) = (
            Info::from_bytes(bytes(case, "info")),
            Ext::from_bytes(bytes(case, "ext")),
        );
        let q = ProofSecret::from_seed(&bytes(case, "seed"));
        let session = case["k_sess"]
            .is_string()
            .then(|| SessionKey::from_bytes(bytes(case, "k_sess")));
        let signer = || {
            session
                .as_ref()
                .map_or(Signer::Password(&q), Signer::Session)
        };
        let e = bytes(case, "e");
        same(
            case,
            &knock(
                &keys,
                kid,
                &secret.public(),
                slot(case),
                &e,
                &info,
                &ext,
                signer(),
            )
            .expect("contributory"),
        );

        let packet: [u8; 512] = bytes(case, "packet");
        let sealed = SealedKnock::parse(&packet).expect("512 bytes");
        assert_eq!(right_v(&keys, slot(case), &sealed), bytes(case, "V"));
        let opened = sealed.unmask(&keys, slot(case)).expect("V holds");
        let opened = opened
            .open(&keys, |of| (of == kid).then_some(&secret))
            .expect("it opens");
        assert_eq!((opened.kid(), opened.slot()), (kid, slot(case)));
        assert_eq!(opened.th1(), &bytes(case, "th1"));
        let reply = opened.reply_keys();
        same(case, &of_reply_keys(&reply));
        same(case, &of_reply_keys(&reply.duplicate()));
        kids[usize::from(kid > 0)] = true;
    }
    assert_eq!(kids, [true; 2]);
}

#[test]
fn tags_are_those_of_the_vectors() {
    let all = vectors(include_str!("../../../tests/vectors/tag.json"));
    for case in all["tags"].as_array().expect("a list") {
        let (raw, shown) = tag(&bytes(case, "K_tag"), slot(case));
        same(case, &[("raw", raw.to_vec()), ("T", shown.to_vec())]);
    }
    for case in all["reply_tags"].as_array().expect("a list") {
        let (raw, shown) = reply_tag(bytes(case, "prk0"), bytes(case, "thk"));
        same(case, &[("raw", raw.to_vec()), ("RT", shown.to_vec())]);
    }
    for case in all["complement"].as_array().expect("a list") {
        assert_eq!(complement(bytes(case, "raw")), bytes(case, "out"));
    }
}

#[test]
fn a_reply_is_byte_for_byte_that_of_the_vectors_and_opens() {
    let all = vectors(include_str!("../../../tests/vectors/reply.json"));
    for case in all["accept"].as_array().expect("a list").iter().take(12) {
        let keys = || reply_keys(bytes(case, "prk0"), bytes(case, "thk"), bytes(case, "E"));
        let payload = bytes(case, "payload");
        same(
            case,
            &reply(&keys(), &bytes(case, "e_s"), &payload).expect("contributory"),
        );
        let packet: [u8; 512] = bytes(case, "packet");
        let op = Op::Open;
        let (opened, secrets) =
            open_reply(&pending(op, bytes(case, "e"), keys()), &packet).expect("it opens");
        assert_eq!(opened, payload);
        assert_eq!(
            secrets.k_cred,
            CredentialKey::from_bytes(bytes(case, "k_cred"))
        );
    }
}
