//! The policy file and its versions: what is in force, who put it there, what another would change.
//!
//! Invariant: the file decides, and what takes access away takes hold before it is written down. A version that
//! could not be kept is kept as soon as there is room. A file
//! that cannot be used changes nothing, be it at a reload or at a start.

use std::fmt::Display;

use spa_gateway_core::{AuditKind, Name, Policy};
use tracing::{error, info, warn};

use super::{Daemon, DaemonError};
use crate::audit::AuditLine;
use crate::clock;
use crate::control::Written;
use crate::control::protocol::{Learned, Loss, PolicyLog, PolicyText};
use crate::policy_file::{self, PolicyFile};
use crate::store::{Store, StoreError};

/// The longest name an administrator may give, characters.
const MAX_LOGIN: usize = 64;

/// The policy in force.
#[derive(Debug)]
pub(super) struct PolicyWatch {
    pub(super) file: PolicyFile,
    /// It, in words.
    pub(super) state: String,
    /// Its text; `None` where neither the file nor a version could be used at the start, so that nothing is allowed.
    text: Option<String>,
    /// Which version it is; `None` if it could not be kept.
    serial: Option<u64>,
    /// Who put a version into force that is still to be kept.
    unkept: Option<Author>,
}

/// Who puts a policy into force, and why.
#[derive(Clone, Debug)]
pub(super) struct Author {
    by: String,
    why: String,
}

impl Author {
    /// An administrator at the socket: the kernel says who, the name is what they call themselves.
    pub(super) fn administrator(uid: u32, login: &str, why: String) -> Self {
        let login: String = login.chars().take(MAX_LOGIN).collect();
        let by = if login.is_empty() {
            format!("uid {uid}")
        } else {
            format!("{login} (uid {uid})")
        };
        Self { by, why }
    }

    /// SIGHUP.
    pub(super) fn signal() -> Self {
        Self {
            by: "a signal".to_owned(),
            why: String::new(),
        }
    }

    fn start() -> Self {
        Self {
            by: "the file".to_owned(),
            why: "found at the start".to_owned(),
        }
    }

    /// What the audit says of it.
    fn note(&self, serial: Option<u64>) -> String {
        let version = serial.map_or_else(|| "not kept".to_owned(), |serial| serial.to_string());
        let mut note = format!("version {version}, by {}", self.by);
        if !self.why.is_empty() {
            note.push_str(": ");
            note.push_str(&self.why);
        }
        note
    }
}

impl PolicyWatch {
    /// Reads the policy at the start. One that was changed while no gateway ran is a version like any other. Where the
    /// file cannot be used, the version before stays in force; where there is none, nothing is allowed.
    pub(super) fn start(file: PolicyFile, store: &mut Store) -> (Self, Policy) {
        let read = file
            .text()
            .map_err(Into::into)
            .and_then(|text| Ok((policy_file::parse(&text, file.path())?, text)));
        let (policy, text) = match read {
            Ok(read) => read,
            Err::<_, policy_file::PolicyFileError>(error) => {
                return Self::without_file(file, store, &error);
            }
        };
        let serial = keep(store, &Author::start(), &text);
        let watch = Self {
            file,
            state: in_force(&policy, serial),
            text: Some(text),
            serial,
            unkept: serial.is_none().then(Author::start),
        };
        (watch, policy)
    }

    /// Gives the version in force, if it is kept.
    pub(super) const fn serial(&self) -> Option<u64> {
        self.serial
    }

    fn without_file(file: PolicyFile, store: &mut Store, why: &dyn Display) -> (Self, Policy) {
        let newest = store.newest_policy().ok().flatten();
        let kept = newest.and_then(|(serial, text)| {
            let policy = policy_file::parse(&text, file.path()).ok()?;
            Some((policy, text, serial))
        });
        let Some((policy, text, serial)) = kept else {
            error!("every new session is refused: {why}");
            let watch = Self {
                file,
                state: format!("none, so every new session is refused: {why}"),
                text: None,
                serial: None,
                unkept: None,
            };
            return (watch, Policy::deny_all());
        };
        error!("the policy file is not used, version {serial} stays in force: {why}");
        let mut line = AuditLine::new(clock::now().wall.as_millis(), AuditKind::PolicyChanged);
        line.note = Some(format!(
            "version {serial} again at the start, since the file cannot be used: {why}"
        ));
        store.append(line);
        let watch = Self {
            file,
            state: format!(
                "version {serial} still, since the file cannot be used; mend it, then run `spa-admin policy reload`: {why}"
            ),
            text: Some(text),
            serial: Some(serial),
            unkept: None,
        };
        (watch, policy)
    }
}

impl Daemon {
    /// Reads the policy again; a wrong one changes nothing. Gives the line that says what came of it.
    pub(super) fn reload_policy(
        &mut self,
        author: &Author,
    ) -> Result<Result<String, String>, DaemonError> {
        let read = self.policy.file.text().map_err(Into::into);
        let parsed = read.and_then(|text| {
            let policy = policy_file::parse(&text, self.policy.file.path())?;
            Ok((policy, text))
        });
        let (policy, text) = match parsed {
            Ok(parsed) => parsed,
            Err::<_, policy_file::PolicyFileError>(error) => {
                warn!(%error, by = author.by, "policy not read; the one before stays in force");
                return Ok(Err(format!("{error}; the policy before stays in force")));
            }
        };
        if let Some(resource) = self.gateway.unopenable(&policy) {
            let file = self.policy.file.path().display();
            let refusal = unopenable(resource, &file);
            warn!(refusal, by = author.by, "policy not put into force");
            return Ok(Err(format!("{refusal}; the policy before stays in force")));
        }
        let serial = next_serial(&self.store, &text).ok();
        let note = author.note(serial);
        let state = in_force(&policy, serial);
        self.gateway.handle_policy(policy, Some(note), clock::now());
        if let Some(serial) = serial {
            self.gateway.number_policy(serial);
        }
        // What is taken away is closed first: writing it down may take as long as the disk likes.
        self.turn()?;
        let serial = keep_version(&mut self.store, author, &text);
        self.policy.text = Some(text);
        self.policy.state.clone_from(&state);
        self.policy.serial = serial.as_ref().ok().copied();
        self.policy.unkept = serial.is_err().then(|| author.clone());
        info!(by = author.by, why = author.why, "policy {state}");
        Ok(Ok(match serial {
            Ok(_) => format!("policy {state}"),
            Err(error) => {
                warn!(%error, "the policy is in force, and not in its log");
                format!(
                    "policy {state}; it could not be written into the log of policies ({error}), which is tried again: until then a start that cannot use the file has the version before"
                )
            }
        }))
    }

    /// Keeps the version in force the disk had no room for: a start that cannot use the file would bring an older one back, with
    /// what was taken away since.
    pub(super) fn keep_policy(&mut self) {
        let watch = &mut self.policy;
        let (Some(author), Some(text)) = (&watch.unkept, &watch.text) else {
            return;
        };
        // What the disk refuses was said when it was put into force.
        let Ok(serial) = keep_version(&mut self.store, author, text) else {
            return;
        };
        let mut line = AuditLine::new(clock::now().wall.as_millis(), AuditKind::PolicyChanged);
        line.note = Some(format!("{}, kept only now", author.note(Some(serial))));
        watch.unkept = None;
        watch.serial = Some(serial);
        watch.state = in_force(self.gateway.policy(), Some(serial));
        self.gateway.number_policy(serial);
        self.store.append(line);
    }

    /// Gives the policies that were in force.
    pub(super) fn policy_log(&self) -> Result<Written, String> {
        let versions = self
            .store
            .policy_versions()
            .map_err(|error| error.to_string())?;
        let in_force = self.policy.serial;
        Ok(Written::of(&PolicyLog { in_force, versions }))
    }

    /// Gives the text of one of them, or of the one in force.
    pub(super) fn policy_text(&self, serial: Option<u64>) -> Result<Written, String> {
        let Some(serial) = serial else {
            let text = self.policy.text.clone().ok_or_else(|| {
                "no policy is in force, since the file could not be used at the start; `spa-admin policy check` says why"
                    .to_owned()
            })?;
            let serial = self.policy.serial;
            return Ok(Written::of(&PolicyText { serial, text }));
        };
        let found = self
            .store
            .policy_text(serial)
            .map_err(|error| error.to_string())?;
        let text = found.ok_or_else(|| {
            format!("there is no version {serial} any more, or not yet; `spa-admin policy log` shows those there are")
        })?;
        let serial = Some(serial);
        Ok(Written::of(&PolicyText { serial, text }))
    }

    /// Gives what observe mode let through, by resource.
    pub(super) fn learned(&self) -> Vec<Learned> {
        let rows = self.gateway.learned().map(|row| Learned {
            user: row.person.to_string(),
            resource: row.resource.to_string(),
            ports: row.ports.to_string(),
            first: row.first.as_millis(),
            last: row.last.as_millis(),
            knocks: row.knocks,
            packets: row.packets,
        });
        let mut rows: Vec<Learned> = rows.collect();
        rows.sort_by(|one, other| (&one.resource, &one.user).cmp(&(&other.resource, &other.user)));
        rows
    }

    /// Says what live sessions would lose under another policy.
    pub(super) fn would_cut(&self, text: &str) -> Result<Written, String> {
        let policy =
            policy_file::parse(text, self.policy.file.path()).map_err(|error| error.to_string())?;
        let cuts = self.gateway.would_cut(&policy, clock::now());
        let losses: Vec<Loss> = cuts
            .into_iter()
            .map(|cut| Loss {
                session: cut.session.to_string(),
                user: cut.person.to_string(),
                lost: cut.lost.iter().map(ToString::to_string).collect(),
                ends: cut.ends,
                shortened: cut
                    .shortened
                    .into_iter()
                    .map(|(name, until)| (name.to_string(), until.as_millis()))
                    .collect(),
            })
            .collect();
        Ok(Written::of(&losses))
    }
}

/// Keeps the policy of the start; if it is a new version, the audit says so.
fn keep(store: &mut Store, author: &Author, text: &str) -> Option<u64> {
    let before = store.newest_policy().ok().flatten();
    let serial = match keep_version(store, author, text) {
        Ok(serial) => serial,
        Err(error) => {
            warn!(%error, "the policy is in force, and not in its log");
            return None;
        }
    };
    if before.is_none_or(|(before, _)| before != serial) {
        let mut line = AuditLine::new(clock::now().wall.as_millis(), AuditKind::PolicyChanged);
        line.note = Some(author.note(Some(serial)));
        store.append(line);
    }
    Some(serial)
}

fn keep_version(store: &mut Store, author: &Author, text: &str) -> Result<u64, StoreError> {
    let at = clock::now().wall.as_millis();
    store.keep_policy(at, (&author.by, &author.why), text)
}

/// Gives the serial a text will have when it is kept.
fn next_serial(store: &Store, text: &str) -> Result<u64, StoreError> {
    Ok(match store.newest_policy()? {
        Some((serial, newest)) if newest == text => serial,
        Some((serial, _)) => serial.saturating_add(1),
        None => 1,
    })
}

/// A policy that was in force is not given up for it at a restart; a new one is refused.
pub(super) fn unopenable(resource: &Name, file: &impl Display) -> String {
    format!(
        "{file}: resource `{resource}` has addresses that sessions get themselves ([wireguard] addresses), and no session could open it; name networks beside those"
    )
}

fn in_force(policy: &Policy, serial: Option<u64>) -> String {
    let version = serial.map_or_else(String::new, |serial| format!(" as version {serial}"));
    format!(
        "in force{version}: groups {}, resources {}, rules {}",
        policy.groups().count(),
        policy.resources().count(),
        policy.rules().len()
    )
}
