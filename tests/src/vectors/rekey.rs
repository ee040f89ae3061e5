//! `rekey.json`: §12.

use base64ct::{Base64UrlUnpadded, Encoding};
use serde_json::Value;
use spa_proto::{RekeyAsk, SessionKey, WgPsk, answer_rekey, control_bearer, intermediates};

use super::case::{Case, Checked, Failure, Report, equal, refused};

pub fn check(vectors: &Value, report: &mut Report) {
    report.each("rekey", vectors, case);
}

fn case(case: &Case<'_>) -> Checked {
    let (d, z): ([u8; 32], [u8; 32]) = (case.array("d")?, case.array("z")?);
    let seed = [d, z]
        .concat()
        .try_into()
        .map_err(|_| Failure::new("d and z are not 64 bytes"))?;
    let client: [u8; 32] = case.array("client_x25519")?;
    let wg_psk = WgPsk::from_bytes(case.array("wg_psk")?);

    let ask = RekeyAsk::new(client, seed);
    case.same("ek", ask.request().ml_kem_768_ek.as_slice())?;
    case.same("X_c", &ask.request().x25519)?;
    let answered = answer_rekey(
        &wg_psk,
        ask.request(),
        case.array("gateway_x25519")?,
        case.array("m")?,
    );
    let (answer, gateways) = answered.map_err(refused("the request"))?;
    case.same("ct", answer.ml_kem_768_ct.as_slice())?;
    case.same("X_s", &answer.x25519)?;
    case.all_same(&intermediates::rekey(&ask, client, &wg_psk, &answer).map_err(refused("X_s"))?)?;
    case.same("new_psk", gateways.expose())?;
    let clients = ask
        .finish(&wg_psk, &answer)
        .map_err(refused("the answer"))?;
    case.same("new_psk", clients.expose())?;

    let bearer = control_bearer(&SessionKey::from_bytes(case.array("k_sess")?));
    equal("bearer", &case.text("bearer")?, &bearer.as_str())?;
    let request = body(case, "request")?;
    equal(
        "request",
        &member(&request, "x25519")?,
        &ask.request().x25519.to_vec(),
    )?;
    equal(
        "request",
        &member(&request, "ml_kem_768_ek")?,
        &ask.request().ml_kem_768_ek.to_vec(),
    )?;
    let response = body(case, "response")?;
    equal(
        "response",
        &member(&response, "x25519")?,
        &answer.x25519.to_vec(),
    )?;
    equal(
        "response",
        &member(&response, "ml_kem_768_ct")?,
        &answer.ml_kem_768_ct.to_vec(),
    )
}

/// A JSON body, in the vector as the hex of its UTF-8.
fn body(case: &Case<'_>, name: &str) -> Checked<Value> {
    serde_json::from_slice(&case.bytes(name)?).map_err(refused("the vector's JSON"))
}

/// A binary value of a JSON body: base64url, no padding (§12).
fn member(body: &Value, name: &str) -> Checked<Vec<u8>> {
    let text = body[name]
        .as_str()
        .ok_or_else(|| Failure::new(format!("the body has no {name}")))?;
    Base64UrlUnpadded::decode_vec(text).map_err(refused("the body's base64url"))
}
