//! `kdf.json`: §3 keys, §14 fingerprint.

use serde_json::Value;
use spa_proto::{
    CredentialId, CredentialKey, DerivedKeys, DeviceSecret, Fingerprint, GatewayId, KnockSecret,
    ProofSecret, intermediates,
};

use super::case::{Case, Checked, Failure, Report, equal, refused};

pub fn check(vectors: &Value, report: &mut Report) {
    report.each("kdf", vectors, case);
}

fn case(case: &Case<'_>) -> Checked {
    let b_0 = KnockSecret::from_bytes(case.array("b_0")?).public();
    case.same("B_0", b_0.as_bytes())?;
    let gateway = GatewayId::of(&b_0);
    case.same("gw_id", gateway.as_bytes())?;
    let credential = CredentialId::from_bytes(case.array("cred_id")?);
    case.same("cx", &intermediates::cx(gateway, credential))?;
    let key = CredentialKey::from_bytes(case.array("K_cred")?);
    case.all_same(&intermediates::derived_keys(&DerivedKeys::derive(
        &key, gateway, credential,
    )))?;

    let password = case.text("password")?;
    case.same("password_utf8", password.as_bytes())?;
    let (salt, device) = (
        case.array("salt")?,
        DeviceSecret::from_bytes(case.array("r")?),
    );
    let proof = intermediates::proof_key(password, &salt, &device, gateway, credential);
    case.all_same(&proof.map_err(refused("the password"))?)?;
    let q = if password.is_empty() {
        ProofSecret::for_machine(&salt, &device, gateway, credential)
    } else {
        ProofSecret::derive(password, &salt, &device, gateway, credential)
    };
    let q = q.map_err(refused("the password"))?.public();
    case.same("Q", q.as_bytes())?;

    let fingerprint = Fingerprint::of(credential, &q, &b_0);
    case.same("fingerprint", fingerprint.hash())?;
    let words = case.value("fingerprint_words")?.as_array();
    let words: Option<Vec<_>> = words.map(|words| words.iter().map(Value::as_u64).collect());
    let words =
        words.ok_or_else(|| Failure::new("the vector's fingerprint_words is not a list"))?;
    equal(
        "fingerprint_words",
        &words,
        &fingerprint.indices().map(|word| Some(word.into())).to_vec(),
    )
}
