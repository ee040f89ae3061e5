//! `spa enroll`: an invite becomes a credential (SPEC §14).
//!
//! Order: r and salt on the disk, ENROL, the new key on the disk, the code, OPEN, the four words. It can be broken off
//! anywhere; the same command run again goes on with the same r, and so the same Q for the same password.

use std::path::Path;
use std::time::Duration;

use spa_proto::{
    Ask, CredentialKey, DeviceSecret, EnrolAsk, Fingerprint, Host, Invite, Outcome, ProofSecret,
    Request, SecondFactor, Signer, TotpOffer, WallTime, Wanted,
};
use zeroize::Zeroizing;

use crate::ask::{self, FactorFrom};
use crate::caller::{Caller, CodeSent, KnockKey, address_text, open_request};
use crate::cli::Enroll;
use crate::clock;
use crate::exchange::{Knocking, Reply, exchange};
use crate::failure::Failure;
use crate::places::Places;
use crate::private_file;
use crate::profile::{Holder, Profile, Stage};
use crate::progress::Progress;
use crate::say;
use crate::store::{Entry, Store};
use crate::totp;
use crate::wire::{Wire, WireError};

/// How long after its first answer the gateway answers another ENROL (SPEC §14).
const REDEEMABLE: Duration = Duration::from_secs(600);

/// How often a code is asked for on the terminal: each wrong one takes from the gateway's failure bucket.
const CODES_ASKED: usize = 3;

/// Longest device label in bytes (SPEC §4).
const LONGEST_LABEL: usize = 32;

/// Runs the command.
///
/// # Errors
/// One line; what was reached is kept for the next run.
pub fn enroll(places: &Places, asked: &Enroll) -> Result<(), Failure> {
    let invite: Invite = ask::invite(asked.invite.as_deref())?
        .trim()
        .parse()
        .map_err(|error: spa_proto::InviteError| Failure::Refused(error.to_string()))?;
    let store = Store::new(places.clone());
    let (before, profile) = prepare(&store, &invite, asked)?;
    let proof = set_password(&profile, asked.password_file.as_deref())?;
    let entry = match before {
        Some(entry) => entry,
        None => keep(&store, &profile)?,
    };
    let mut caller = Caller::new(entry, profile)?;
    let mut progress = Progress::new();

    let redeemed = redeem(&mut caller, &invite.key, &proof, &mut progress)?;
    // From here on the invite is worth nothing; its key goes.
    drop(invite);
    progress.clear();
    let uri = match redeemed {
        Redeemed::Now(offer) => {
            let uri = offer.map(|offer| totp::uri(&offer, &caller.profile.host));
            show_phone(uri.as_ref(), asked)?;
            uri
        }
        Redeemed::Before => {
            if !asked.machine {
                eprintln!(
                    "The phone's secret was shown when this enrolment began. If the phone did not take it, ask the administrator for a new invite."
                );
            }
            None
        }
    };
    activate(&mut caller, &proof, uri.as_ref(), asked, &mut progress)?;
    finish(&caller, &proof);
    forget_unfinished(&store, &caller)
}

/// Removes what earlier enrolments at the same gateway left that never came to an end: this one is what they were for.
fn forget_unfinished(store: &Store, caller: &Caller) -> Result<(), Failure> {
    for old in store.entries()? {
        let before = old.profile()?;
        if before.base_key == caller.profile.base_key
            && !matches!(before.stage, Stage::Active { .. })
        {
            old.remove()?;
        }
    }
    Ok(())
}

/// Finds the profile of an enrolment that was broken off, or makes one, with r and salt of its own.
fn prepare(
    store: &Store,
    invite: &Invite,
    asked: &Enroll,
) -> Result<(Option<Entry>, Profile), Failure> {
    let label = asked.name.as_deref().map(label).transpose()?;
    if let Some((entry, mut profile)) = store.of_credential(invite.credential)? {
        if let Stage::Active { .. } = profile.stage {
            return Err(Failure::Refused(format!(
                "this invite was used on this device already: it is enrolled as gateway {}",
                entry.name()
            )));
        }
        eprintln!(
            "Going on with the enrolment begun at {}. Use the same password as then: another one makes the gateway void the invite.",
            clock::local_text(begun(&profile))
        );
        if let Some(label) = label {
            profile.label = label;
        }
        return Ok((Some(entry), profile));
    }
    let host = match &invite.host {
        Host::Address(address) => address.to_string(),
        Host::Name(name) => name.clone(),
    };
    let mut device_secret = Zeroizing::new([0; 32]);
    let mut salt = [0; 16];
    getrandom::fill(device_secret.as_mut_slice()).map_err(WireError::Random)?;
    getrandom::fill(&mut salt).map_err(WireError::Random)?;
    let profile = Profile {
        host,
        port: invite.port.get(),
        credential: invite.credential,
        base_key: invite.b_0,
        device_secret: DeviceSecret::from_bytes(*device_secret),
        salt,
        label: label.map_or_else(host_label, Ok)?,
        holder: if asked.machine {
            Holder::Machine
        } else {
            Holder::Person
        },
        stage: Stage::Invited {
            since: clock::wall(),
        },
    };
    Ok((None, profile))
}

/// Puts a new profile on the disk, in place of one for the same gateway that none ever answered: that has nothing worth
/// keeping once there is another invite.
fn keep(store: &Store, profile: &Profile) -> Result<Entry, Failure> {
    for old in store.entries()? {
        let before = old.profile()?;
        if before.base_key == profile.base_key && matches!(before.stage, Stage::Invited { .. }) {
            old.remove()?;
        }
    }
    let entry = store.create(&profile.host)?;
    entry.write_profile(profile)?;
    Ok(entry)
}

fn begun(profile: &Profile) -> WallTime {
    match profile.stage {
        Stage::Invited { since } | Stage::Candidate { since, .. } => since,
        Stage::Active { .. } => clock::wall(),
    }
}

/// A device label that fits the wire and a terminal.
fn label(text: &str) -> Result<String, Failure> {
    let fits = (1..=LONGEST_LABEL).contains(&text.len())
        && !text.chars().any(char::is_control)
        && text.trim() == text;
    if fits {
        Ok(text.to_owned())
    } else {
        Err(Failure::Usage("the name of a device has 1 to 32 bytes, without control characters and without spaces around it".to_owned()))
    }
}

/// The host name, as far as it fits.
fn host_label() -> Result<String, Failure> {
    let name = rustix::system::uname()
        .nodename()
        .to_string_lossy()
        .into_owned();
    let mut short = name.trim();
    while short.len() > LONGEST_LABEL {
        short = short
            .get(..short.len() - 1)
            .or_else(|| short.get(..short.len().saturating_sub(4)))
            .unwrap_or("device");
    }
    label(if short.is_empty() { "device" } else { short })
}

fn set_password(profile: &Profile, file: Option<&Path>) -> Result<ProofSecret, Failure> {
    let password = match profile.holder {
        Holder::Machine => None,
        Holder::Person => Some(ask::new_password(file)?),
    };
    Ok(profile
        .proof(password.as_ref().map(|password| password.as_str()))
        .map_err(ask::AskError::Password)?)
}

/// How the invite was redeemed.
enum Redeemed {
    /// In this run, with the phone's secret if the person had none.
    Now(Option<TotpOffer>),
    /// In an earlier one: a candidate key is here.
    Before,
}

/// Sends ENROL; on return the profile holds a candidate key, on the disk.
fn redeem(
    caller: &mut Caller,
    key: &CredentialKey,
    proof: &ProofSecret,
    progress: &mut Progress,
) -> Result<Redeemed, Failure> {
    let since = begun(&caller.profile);
    let had_answer = matches!(caller.profile.stage, Stage::Candidate { .. });
    if had_answer && clock::wall().since(since) >= REDEEMABLE {
        return Ok(Redeemed::Before);
    }
    let reply = match send_enrol(caller, key, proof, progress)? {
        Some(reply) => reply,
        // The gateway may have erased the invite because the earlier OPEN did arrive.
        None if had_answer => return Ok(Redeemed::Before),
        None => {
            return Err(Failure::NoAnswer(say::silence_at_enrolment(
                &caller.gateway(),
            )));
        }
    };
    match reply.payload.outcome {
        Outcome::Enrolled(offer) => {
            // The gateway's ten minutes run from its first answer.
            let since = if had_answer { since } else { reply.wall };
            caller.profile.stage = Stage::Candidate {
                since,
                key: reply.secrets.k_cred,
            };
            caller.entry.write_profile(&caller.profile)?;
            Ok(Redeemed::Now(offer))
        }
        Outcome::Refused { why, reason, .. } => {
            Err(Failure::Refused(say::refused(why, reason.as_deref())))
        }
        Outcome::Session(_) | Outcome::Closed { .. } => Err(Failure::Refused(
            "the gateway answered something that does not belong to an enrolment".to_owned(),
        )),
    }
}

fn send_enrol(
    caller: &mut Caller,
    key: &CredentialKey,
    proof: &ProofSecret,
    progress: &mut Progress,
) -> Result<Option<Reply>, Failure> {
    let addresses = caller.resolve()?;
    let keys = caller.keys(key);
    let ts = caller.begin()?;
    let ask = Ask::Enrol(EnrolAsk {
        q: proof.public(),
        label: caller.profile.label.clone(),
        posture: None,
    });
    let request = Request {
        ts,
        same_port: false,
        source: None,
        ask,
    };
    // ENROL needs kid 0 (SPEC §14).
    let knocking = Knocking::new(
        &keys,
        caller.knock_key(KnockKey::LongLived),
        &request,
        Signer::Password(proof),
    )?;
    progress.phase(format!("Enrolling at {}", caller.gateway()));
    let mut wire = Wire::open(addresses.clone())?;
    let exchanged = exchange(&mut wire, &knocking, None, progress)?;
    if let Some(reply) = &exchanged.reply {
        caller.learn(reply, &addresses, CodeSent::No)?;
    }
    Ok(exchanged.reply)
}

/// Shows the secret to the phone, and to the file that was asked for.
fn show_phone(uri: Option<&Zeroizing<String>>, asked: &Enroll) -> Result<(), Failure> {
    let Some(uri) = uri else {
        if !asked.machine {
            eprintln!("The phone has an entry for this gateway already: use its code.");
        }
        return Ok(());
    };
    if let Some(path) = &asked.totp_out {
        private_file::replace(path, &format!("{}\n", uri.as_str()))?;
    }
    // A script that computes the code has no use for a picture of the secret in its log.
    if asked.code_command.is_none() || std::io::IsTerminal::is_terminal(&std::io::stdout()) {
        outln!("Scan this with the authenticator on your phone:\n");
        if let Some(qr) = totp::qr(uri) {
            outln!("{qr}\n");
        }
        outln!("or type it in: {}\n", uri.as_str());
    }
    Ok(())
}

/// Sends the OPEN that makes the candidate key the credential's; asks again on a terminal when a code was wrong.
fn activate(
    caller: &mut Caller,
    proof: &ProofSecret,
    uri: Option<&Zeroizing<String>>,
    asked: &Enroll,
    progress: &mut Progress,
) -> Result<(), Failure> {
    let source = match caller.profile.holder {
        Holder::Machine => FactorFrom::Machine,
        Holder::Person => {
            FactorFrom::options(asked.code.as_deref(), None, asked.code_command.as_deref())
        }
    };
    let tries = if matches!(source, FactorFrom::Terminal) {
        CODES_ASKED
    } else {
        1
    };
    for left in (0..tries).rev() {
        let factor = source.have(uri.map(|uri| uri.as_str()))?;
        if open_control(caller, proof, factor, progress)? {
            return Ok(());
        }
        if left > 0 {
            progress.note("No answer: code, password, network or clock. Wait for the next code, then try again.");
        }
    }
    Err(Failure::NoAnswer(say::silence_at_activation(
        &caller.gateway(),
    )))
}

/// OPEN for the control channel alone. Any answer to it means that every factor was right, and the key is the credential's.
fn open_control(
    caller: &mut Caller,
    proof: &ProofSecret,
    factor: SecondFactor,
    progress: &mut Progress,
) -> Result<bool, Failure> {
    let Stage::Candidate { key, .. } = &caller.profile.stage else {
        return Err(Failure::Refused(
            "there is no key to activate: run the command again".to_owned(),
        ));
    };
    let key = key.duplicate();
    let keys = caller.keys(&key);
    let addresses = caller.resolve()?;
    let ts = caller.begin()?;
    let sent = CodeSent::of(&factor);
    let (request, _) = open_request(ts, 0, factor, Wanted::ControlOnly, None)?;
    let knocking = Knocking::new(
        &keys,
        caller.knock_key(KnockKey::Newest),
        &request,
        Signer::Password(proof),
    )?;
    progress.phase("Activating this device");
    let mut wire = Wire::open(addresses.clone())?;
    let exchanged = exchange(&mut wire, &knocking, None, progress)?;
    progress.clear();
    let Some(reply) = exchanged.reply else {
        return Ok(false);
    };
    caller.profile.stage = Stage::Active { key };
    caller.entry.write_profile(&caller.profile)?;
    caller.learn(&reply, &addresses, sent)?;
    if let Some(skew) = say::skew(reply.payload.gateway_time, reply.wall) {
        eprintln!("Note: {skew}");
    }
    Ok(true)
}

/// Shows the four words, which are the point of it all for the person.
fn finish(caller: &Caller, proof: &ProofSecret) {
    let words = Fingerprint::of(
        caller.profile.credential,
        &proof.public(),
        &caller.profile.base_key,
    )
    .to_string();
    let frame = "─".repeat(words.len() + 8);
    outln!(
        "This device is enrolled as \"{}\" at {}.\n",
        caller.profile.label,
        address_text(&caller.profile.host, caller.profile.port)
    );
    outln!("Read these four words to the administrator, who must see the same:\n");
    outln!("    {frame}\n        {words}\n    {frame}\n");
    outln!("If they differ, someone stands between you and the gateway: tell the administrator.");
    outln!(
        "Once they are confirmed: spa knock RESOURCE   (gateway: {})",
        caller.entry.name()
    );
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_label_fits_the_wire() {
        assert!(label("Ana's laptop").is_ok());
        assert!(label(&"é".repeat(16)).is_ok());
        for wrong in ["", " x", "a\nb", &"x".repeat(33), &"é".repeat(17)] {
            assert!(matches!(label(wrong), Err(Failure::Usage(_))), "{wrong:?}");
        }
        assert!(host_label().is_ok());
    }
}
