//! Answers administrators: calls the core, and lets the answer wait for the record.

use std::time::Duration;

use spa_gateway_core::{
    Accepted, AdminRefusal, Confirm, DeviceRef, InviteOffer, InviteTerms, Name, PersonKind,
    Selector,
};
use spa_proto::{Invite, SessionId};
use tracing::info;

use super::exceptions::{lock_target, reason};
use super::pending::{Answer, UNTIL_RESTART};
use super::policy::Author;
use super::{Daemon, DaemonError};
use crate::access::AccessLine;
use crate::audit::AuditLine;
use crate::calendar;
use crate::clock::{self, Verdict};
use crate::control::protocol::{
    self, AccessEntry, AccessPage, AuditEntry, AuditPage, DeviceName, Invited, RecoveryCodes,
    Request, UserKind,
};
use crate::control::{Asked, Written};
use crate::explain::Explanation;
use crate::store::{AccessQuery, AuditQuery, Freshness};

/// What holds if the record of something new fails.
const NOTHING_CHANGED: &str = "nothing was changed";

/// What is asked was done, answered, or refused by one line.
enum Outcome {
    /// The answer is there.
    Now(Written),
    /// It waits for a record.
    After(Accepted<Written>, &'static str),
}

impl Daemon {
    /// Answers one request, now or when its record is on disk.
    pub(super) fn answer(&mut self, asked: Asked) -> Result<(), DaemonError> {
        let Asked {
            request,
            by,
            at,
            answer,
        } = asked;
        let outcome = match request {
            Request::Status => Ok(Outcome::Now(Written::of(&self.status()?))),
            Request::Cut(selector) => return self.cut(&selector, at, answer),
            Request::Lock {
                target,
                seconds,
                why,
            } => {
                info!(uid = by, %target, ?seconds, why, "an administrator asks for a lock");
                self.lock(&target, seconds, why, at, answer);
                return Ok(());
            }
            Request::Reload { login, why } => {
                info!(
                    uid = by,
                    login, why, "an administrator asks for the policy to be read"
                );
                match reason(why) {
                    Ok(why) => {
                        let author = Author::administrator(by, &login, why);
                        self.reload_policy(&author)?
                            .map(|line| Outcome::Now(Written::of(&line)))
                    }
                    Err(line) => Err(line),
                }
            }
            other => {
                if changes(&other) {
                    info!(uid = by, request = %Written::of(&other), "an administrator asks");
                }
                self.decide(other)
            }
        };
        match outcome {
            Ok(Outcome::Now(value)) => send(answer, Ok(value)),
            Ok(Outcome::After(accepted, otherwise)) => {
                self.pending
                    .on_record(accepted.record, answer, accepted.value, otherwise);
            }
            Err(line) => send(answer, Err(line)),
        }
        Ok(())
    }

    fn decide(&mut self, request: Request) -> Result<Outcome, String> {
        let now = clock::now();
        match request {
            Request::Users => Ok(Outcome::Now(Written::list(self.users()))),
            Request::Devices => Ok(Outcome::Now(Written::list(self.devices()))),
            Request::Sessions => Ok(Outcome::Now(Written::list(self.sessions()))),
            Request::AddUser { user, kind } => {
                let kind = match kind {
                    UserKind::Human => PersonKind::Human,
                    UserKind::Machine => PersonKind::Machine,
                };
                let accepted = self
                    .gateway
                    .add_person(&name(&user)?, kind, &mut self.entropy);
                given(accepted, format!("{user} is added"))
            }
            Request::RemoveUser { user } => {
                let accepted = self.gateway.remove_person(&name(&user)?, now);
                taken(
                    accepted,
                    format!("{user} is removed, with every device and session"),
                )
            }
            Request::EnableUser { user } => {
                let accepted = self.gateway.enable_person(&name(&user)?);
                given(accepted, format!("{user} is enabled"))
            }
            Request::DisableUser { user } => {
                let accepted = self.gateway.disable_person(&name(&user)?, now);
                taken(
                    accepted,
                    format!("{user} is disabled; every session of theirs ends"),
                )
            }
            Request::Invite {
                user,
                valid_seconds,
                confirm,
            } => self.invite(&user, valid_seconds, confirm),
            Request::ConfirmDevice(device) => {
                let accepted = self.gateway.confirm_device(&device_ref(&device)?);
                given(accepted, format!("{} is confirmed", shown(&device)))
            }
            Request::RevokeDevice(device) => {
                let accepted = self.gateway.revoke_device(&device_ref(&device)?, now);
                taken(
                    accepted,
                    format!(
                        "{0} is revoked and out; only `spa-admin device enable {0}` takes that back",
                        shown(&device)
                    ),
                )
            }
            Request::EnableDevice(device) => {
                let accepted = self.gateway.enable_device(&device_ref(&device)?);
                given(accepted, format!("{} is enabled", shown(&device)))
            }
            Request::ResyncDevice(device) => {
                let accepted = self.gateway.resync_device(&device_ref(&device)?, now);
                given(
                    accepted,
                    format!("{} is in step with the clock", shown(&device)),
                )
            }
            Request::ResetPhone { user } => {
                let accepted = self.gateway.reset_totp(&name(&user)?, &mut self.entropy);
                given(
                    accepted,
                    format!(
                        "the phone of {user} is void; the next enrolment of a device hands a new secret over"
                    ),
                )
            }
            Request::RecoveryCodes { user } => {
                let accepted = self
                    .gateway
                    .replace_recovery_codes(&name(&user)?, &mut self.entropy);
                let Accepted { value, record } = accepted.map_err(line)?;
                let codes = value.iter().map(|code| hex(code.expose())).collect();
                let value = Written::of(&RecoveryCodes { codes });
                Ok(Outcome::After(Accepted { value, record }, NOTHING_CHANGED))
            }
            Request::Audit {
                after,
                user,
                denied,
                limit,
            } => self.audit_page(&AuditQuery {
                after,
                user,
                denied,
                limit,
            }),
            Request::Access {
                after,
                user,
                resource,
                denied,
                limit,
            } => self.access_page(&AccessQuery {
                after,
                user,
                resource,
                denied,
                limit,
            }),
            Request::Locks => Ok(Outcome::Now(Written::of(&self.locks()))),
            Request::Unlock { target } => {
                let accepted = self.gateway.unlock(&lock_target(&target)?);
                given(accepted, format!("{target} is unlocked"))
            }
            Request::Explain(typed) => {
                let question = typed.read(self.gateway.policy())?;
                let device = match typed.device {
                    Some(device) => Some(device_ref(&DeviceName {
                        user: typed.user,
                        device,
                    })?),
                    None => None,
                };
                let trace = self.gateway.explain(&question, device.as_ref(), now);
                Ok(Outcome::Now(Written::of(&Explanation::from(
                    &trace.map_err(line)?,
                ))))
            }
            Request::Exceptions => Ok(Outcome::Now(Written::of(&self.exceptions()))),
            Request::Grant {
                user,
                resource,
                seconds,
                why,
            } => {
                let accepted = self.gateway.grant_access(
                    &name(&user)?,
                    &name(&resource)?,
                    Duration::from_secs(seconds),
                    reason(why)?,
                    now,
                );
                let Accepted { value: id, record } = accepted.map_err(line)?;
                let value = Written::of(&format!(
                    "grant {id}: {user} may reach {resource}; a knock for it is needed"
                ));
                Ok(Outcome::After(Accepted { value, record }, NOTHING_CHANGED))
            }
            Request::Approve { id, by, seconds } => {
                let length = Duration::from_secs(seconds);
                let accepted = self.gateway.approve(id, &name(&by)?, length, now);
                let Accepted { value, record } = accepted.map_err(line)?;
                let value = Written::of(&format!(
                    "request {id} is approved until {}; another knock is needed",
                    crate::calendar::utc(value.as_millis())
                ));
                Ok(Outcome::After(Accepted { value, record }, NOTHING_CHANGED))
            }
            Request::EndException { id } => {
                let accepted = self.gateway.end_exception(id, now);
                taken(accepted, format!("{id} is taken back"))
            }
            Request::Learned => Ok(Outcome::Now(Written::of(&self.learned()))),
            Request::PolicyLog => self.policy_log().map(Outcome::Now),
            Request::PolicyText { serial } => self.policy_text(serial).map(Outcome::Now),
            Request::WouldCut { text } => self.would_cut(&text).map(Outcome::Now),
            Request::AcceptStore => self.accept_store(),
            Request::AcceptClock => self.accept_clock(),
            Request::Status | Request::Cut(_) | Request::Lock { .. } | Request::Reload { .. } => {
                unreachable!("answered above")
            }
        }
    }

    fn invite(
        &mut self,
        user: &str,
        valid_seconds: u64,
        confirm: protocol::Confirm,
    ) -> Result<Outcome, String> {
        let terms = InviteTerms {
            valid: Duration::from_secs(valid_seconds),
            confirm: match confirm {
                protocol::Confirm::ByWords => Confirm::ByWords,
                protocol::Confirm::Waived => Confirm::Waived,
            },
        };
        let public = &self.facts.public;
        // Both are of the configuration: said before an invite is made for nothing.
        let host = if public.host.contains(':') {
            format!("[{}]", public.host)
        } else {
            public.host.clone()
        };
        let host = host
            .parse()
            .map_err(|_| format!("`{host}` cannot stand in an invite; correct [knock] public"))?;
        let port = public
            .port
            .try_into()
            .map_err(|_| "port 0 cannot stand in an invite; correct [knock] public".to_owned())?;
        let accepted = self
            .gateway
            .invite(&name(user)?, terms, clock::now(), &mut self.entropy);
        let Accepted { value, record } = accepted.map_err(line)?;
        let InviteOffer {
            credential,
            key,
            b_0,
            until,
        } = value;
        let invite = Invite {
            host,
            port,
            credential,
            key,
            b_0,
        };
        let value = Written::of(&Invited {
            invite: invite.to_line().as_str().to_owned(),
            user: user.to_owned(),
            until: until.as_millis(),
            confirm,
        });
        Ok(Outcome::After(Accepted { value, record }, NOTHING_CHANGED))
    }

    fn cut(
        &mut self,
        selector: &protocol::Selector,
        at: std::time::Instant,
        answer: Answer,
    ) -> Result<(), DaemonError> {
        let cut = selected(selector).and_then(|selector| {
            self.gateway
                .cut_sessions(&selector, clock::now())
                .map_err(line)
        });
        match cut {
            Ok(sessions) => self.pending.on_ended(sessions, answer, at),
            Err(line) => send(answer, Err(line)),
        }
        Ok(())
    }

    fn accept_store(&mut self) -> Result<Outcome, String> {
        if self.store.freshness() == Freshness::Current {
            return Err(
                "the store is the newest one already; there is nothing to accept".to_owned(),
            );
        }
        self.store
            .accept_restored()
            .map_err(|error| error.to_string())?;
        self.look_around(clock::now());
        Ok(Outcome::Now(Written::of(
            &"the store is accepted as the newest one",
        )))
    }

    /// Only a doubt about what the clock reads is an administrator's to end; how it is kept is the machine's.
    fn accept_clock(&mut self) -> Result<Outcome, String> {
        let now = clock::now();
        let verdict = self.verdict(now);
        match verdict {
            Verdict::Stepped(_) | Verdict::BehindFloor => {}
            Verdict::Configured | Verdict::Synchronised | Verdict::BatteryClock => {
                return Err(format!(
                    "the clock is {verdict}; there is nothing to accept"
                ));
            }
            Verdict::Unsynchronised => return Err(format!("the clock is {verdict}")),
        }
        let Accepted {
            value: ahead,
            record,
        } = self.gateway.accept_clock(now);
        let mut line = format!(
            "the clock is right at {}",
            calendar::utc(now.wall.as_millis())
        );
        if ahead > 0 {
            line.push_str(&format!(
                "; devices that knocked at a later time: {ahead}, each is refused until then, or until `spa-admin device resync USER/DEVICE`"
            ));
        }
        let value = Written::of(&line);
        Ok(Outcome::After(Accepted { value, record }, NOTHING_CHANGED))
    }

    fn access_page(&mut self, query: &AccessQuery) -> Result<Outcome, String> {
        let lines = self
            .store
            .access(query)
            .map_err(|error| error.to_string())?;
        let lines = lines
            .into_iter()
            .filter_map(|(id, json)| {
                let line: AccessLine = serde_json::from_str(&json).ok()?;
                Some(AccessEntry { id, line })
            })
            .collect();
        Ok(Outcome::Now(Written::of(&AccessPage { lines })))
    }

    fn audit_page(&mut self, query: &AuditQuery) -> Result<Outcome, String> {
        let lines = self.store.audit(query).map_err(|error| error.to_string())?;
        let lines = lines
            .into_iter()
            .filter_map(|(id, json)| {
                let line: AuditLine = serde_json::from_str(&json).ok()?;
                Some(AuditEntry { id, line })
            })
            .collect();
        Ok(Outcome::Now(Written::of(&AuditPage { lines })))
    }
}

/// Whether a request is worth a line in the log.
const fn changes(request: &Request) -> bool {
    match request {
        Request::Status
        | Request::Users
        | Request::Devices
        | Request::Sessions
        | Request::Locks
        | Request::Exceptions
        | Request::Explain(_)
        | Request::PolicyLog
        | Request::Learned
        | Request::PolicyText { .. }
        | Request::WouldCut { .. }
        | Request::Access { .. }
        | Request::Audit { .. } => false,
        Request::AddUser { .. }
        | Request::RemoveUser { .. }
        | Request::EnableUser { .. }
        | Request::DisableUser { .. }
        | Request::Invite { .. }
        | Request::ConfirmDevice(_)
        | Request::RevokeDevice(_)
        | Request::EnableDevice(_)
        | Request::ResyncDevice(_)
        | Request::ResetPhone { .. }
        | Request::RecoveryCodes { .. }
        | Request::Cut(_)
        | Request::Lock { .. }
        | Request::Unlock { .. }
        | Request::Grant { .. }
        | Request::Approve { .. }
        | Request::EndException { .. }
        | Request::Reload { .. }
        | Request::AcceptStore
        | Request::AcceptClock => true,
    }
}

/// Whoever asked may be gone.
fn send(answer: Answer, outcome: Result<Written, String>) {
    let _ = answer.send(outcome);
}

/// Something new: it holds once it is on disk.
fn given(accepted: Result<Accepted<()>, AdminRefusal>, done: String) -> Result<Outcome, String> {
    after(accepted, done, NOTHING_CHANGED)
}

/// Something taken away: it holds at once.
fn taken(accepted: Result<Accepted<()>, AdminRefusal>, done: String) -> Result<Outcome, String> {
    after(accepted, done, UNTIL_RESTART)
}

fn after(
    accepted: Result<Accepted<()>, AdminRefusal>,
    done: String,
    otherwise: &'static str,
) -> Result<Outcome, String> {
    let Accepted { value: (), record } = accepted.map_err(line)?;
    let value = Written::of(&done);
    Ok(Outcome::After(Accepted { value, record }, otherwise))
}

#[expect(clippy::needless_pass_by_value, reason = "the shape map_err wants")]
fn line(refusal: AdminRefusal) -> String {
    refusal.to_string()
}

fn name(text: &str) -> Result<Name, String> {
    Name::parse(text).map_err(|error| format!("`{text}` is no name: {error}"))
}

fn device_ref(device: &DeviceName) -> Result<DeviceRef, String> {
    Ok(DeviceRef {
        person: name(&device.user)?,
        label: device.device.clone(),
    })
}

fn shown(device: &DeviceName) -> String {
    format!("{}/{}", device.user, device.device)
}

fn selected(selector: &protocol::Selector) -> Result<Selector, String> {
    match selector {
        protocol::Selector::Session(id) => session_id(id)
            .map(Selector::Session)
            .ok_or_else(|| format!("`{id}` is no session; `spa-admin session list` shows them")),
        protocol::Selector::User(user) => name(user).map(Selector::Person),
        protocol::Selector::Device(device) => device_ref(device).map(Selector::Device),
        protocol::Selector::Resource(resource) => name(resource).map(Selector::Resource),
    }
}

/// Sixteen hex digits.
fn session_id(text: &str) -> Option<SessionId> {
    if text.len() != 16 || !text.is_ascii() {
        return None;
    }
    let mut bytes = [0; 8];
    for (at, byte) in bytes.iter_mut().enumerate() {
        *byte = u8::from_str_radix(text.get(2 * at..2 * at + 2)?, 16).ok()?;
    }
    Some(SessionId::from_bytes(bytes))
}

fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write;
    let mut text = String::with_capacity(bytes.len() * 2);
    for byte in bytes {
        write!(text, "{byte:02x}").expect("a String takes everything");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_session_id_is_sixteen_hex_digits() {
        let id = SessionId::from_bytes([0, 1, 0xab, 0xff, 4, 5, 6, 7]);
        assert_eq!(session_id(&id.to_string()), Some(id));
        for bad in [
            "",
            "00",
            "zz01abff04050607",
            "0001abff0405060708",
            "\u{e9}1abff04050607a",
        ] {
            assert_eq!(session_id(bad), None, "{bad}");
        }
    }
}
