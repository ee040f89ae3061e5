//! `invite.json`: §14.

use serde_json::Value;
use spa_proto::{Host, Invite};

use super::case::{Case, Checked, Failure, Report, equal, refused};

pub fn check(vectors: &Value, report: &mut Report) {
    report.each("invite.accept", &vectors["accept"], accept);
    report.each("invite.reject", &vectors["reject"], reject);
}

fn accept(case: &Case<'_>) -> Checked {
    let line = case.text("invite")?;
    let invite: Invite = line.parse().map_err(refused("the invite"))?;
    let host = match &invite.host {
        Host::Address(address) => address.to_string(),
        Host::Name(name) => name.clone(),
    };
    equal("host", &case.text("host")?, &host.as_str())?;
    case.same_int("port", invite.port.get())?;
    case.same("cred_id", invite.credential.as_bytes())?;
    case.same("K_inv", invite.key.expose())?;
    case.same("B_0", invite.b_0.as_bytes())?;
    case.same("gw_id", invite.gateway().as_bytes())?;
    equal("the line written again", &line, &invite.to_line().as_str())
}

fn reject(case: &Case<'_>) -> Checked {
    match case.text("invite")?.parse::<Invite>() {
        Ok(_) => Err(Failure::new("the invite is accepted")),
        Err(_) => Ok(()),
    }
}
