//! `spa passwd`: another password for this device at this gateway (SPEC §12).
//!
//! Nothing changes on the device: r and salt stay, and what it keeps does not know the password (SPEC §3.2). The gateway
//! gets another public key, signed by the old one.

use spa_proto::channel::{self, Grants, Nothing, Password};
use spa_proto::{GatewayId, SecondFactor};

use crate::agent::Method;
use crate::ask::{self, FactorFrom};
use crate::cli;
use crate::command::open_link;
use crate::failure::Failure;
use crate::places::Places;
use crate::profile::Holder;

/// Runs the command.
///
/// # Errors
/// When no session is open, or the gateway says no; the old password holds then.
pub fn passwd(places: &Places, asked: &cli::Passwd) -> Result<(), Failure> {
    let (entry, profile, link) = open_link(places, asked.gateway.as_deref())?;
    if profile.holder == Holder::Machine {
        return Err(Failure::Refused("a machine has no password".to_owned()));
    }
    let grants: Grants = link.call(Method::Get, channel::GRANTS, &())?;
    let old = ask::password(asked.password_file.as_deref(), "The password as it is: ")?;
    let new = ask::new_password(asked.new_password_file.as_deref())?;
    let source = FactorFrom::options(asked.code.as_deref(), None, asked.code_command.as_deref());
    let SecondFactor::Totp(code) = source.have(None)? else {
        return Err(Failure::Usage("it takes a code of the phone".to_owned()));
    };
    let old = profile.proof(Some(&old)).map_err(ask::AskError::Password)?;
    let new = profile
        .proof(Some(&new))
        .map_err(ask::AskError::Password)?
        .public();
    let gateway = GatewayId::of(&profile.base_key);
    let signature = old.sign_password(&new, (gateway, profile.credential, grants.session));
    let body = Password::new(new, code, signature);
    let (_, _, link) = open_link(places, Some(entry.name()))?;
    let Nothing {} = link.call(Method::Post, channel::PASSWORD, &body)?;
    outln!("The password is changed. The session stays open; the next knock takes the new one.");
    Ok(())
}
