//! `tag.json`: §5 tags, §6 RT, §7 window.

use serde_json::Value;
use spa_proto::{
    CredentialId, CredentialKey, DerivedKeys, GatewayId, KnockSecret, Slot, WallTime, intermediates,
};

use super::case::{Case, Checked, Report, equal};

pub fn check(vectors: &Value, report: &mut Report) {
    report.each("tag.tags", &vectors["tags"], tag);
    report.each("tag.reply_tags", &vectors["reply_tags"], reply_tag);
    report.each("tag.complement", &vectors["complement"], complement);
    report.each("tag.window", &vectors["window"], window);
}

fn tag(case: &Case<'_>) -> Checked {
    let slot = Slot::from_minutes(case.u64("slot")?);
    let k_tag = case.array("K_tag")?;
    let (raw, tag) = intermediates::tag(&k_tag, slot);
    case.same("raw", &raw)?;
    case.same("T", &tag)?;
    case.same_bool("complemented", raw != tag)?;
    if !case.has("K_cred") {
        return Ok(());
    }
    let b_0 = KnockSecret::from_bytes(case.array("b_0")?).public();
    case.same("B_0", b_0.as_bytes())?;
    let key = CredentialKey::from_bytes(case.array("K_cred")?);
    let credential = CredentialId::from_bytes(case.array("cred_id")?);
    let keys = DerivedKeys::derive(&key, GatewayId::of(&b_0), credential);
    for (name, value) in intermediates::derived_keys(&keys) {
        if name == "K_tag" {
            case.same(name, &value)?;
        }
    }
    case.same("T", keys.tag(slot).as_bytes())
}

fn reply_tag(case: &Case<'_>) -> Checked {
    let (raw, rt) = intermediates::reply_tag(case.array("prk0")?, case.array("thk")?);
    case.same("raw", &raw)?;
    case.same("RT", &rt)?;
    case.same_bool("complemented", raw != rt)
}

fn complement(case: &Case<'_>) -> Checked {
    let raw = case.array("raw")?;
    let out = intermediates::complement(raw);
    case.same("out", &out)?;
    case.same_bool("complemented", raw != out)
}

fn window(case: &Case<'_>) -> Checked {
    let window = Slot::window(WallTime::from_millis(case.u64("now_ms")?));
    let found = Value::from(window.map(Slot::as_minutes).to_vec());
    equal("slots", case.value("slots")?, &found)
}
