//! The audit line: what the core recorded, as one line of JSON and as one line to read.

use serde::{Deserialize, Serialize};
use spa_gateway_core::{AuditKind, AuditRecord, Name};

use crate::calendar;

/// One audit line. Times are Unix milliseconds; what does not apply is absent.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct AuditLine {
    /// When.
    pub at: u64,
    /// What happened, a word of [`AuditKind`].
    pub kind: String,
    /// Who.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub user: Option<String>,
    /// On which device.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub device: Option<String>,
    /// Under which credential, hex.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub credential: Option<String>,
    /// In which session, hex.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub session: Option<String>,
    /// From where.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub source: Option<String>,
    /// The resources granted, or of the session.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub resources: Vec<String>,
    /// Until when.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub not_after: Option<u64>,
    /// Why.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// More about it, in an administrator's words or in ours.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub note: Option<String>,
    /// How long it took, milliseconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub took_ms: Option<u64>,
}

impl AuditLine {
    /// Begins a line of the daemon's own; the rest is filled in by name.
    #[must_use]
    pub fn new(at: u64, kind: AuditKind) -> Self {
        Self {
            at,
            kind: kind.name().to_owned(),
            user: None,
            device: None,
            credential: None,
            session: None,
            source: None,
            resources: Vec::new(),
            not_after: None,
            reason: None,
            note: None,
            took_ms: None,
        }
    }

    /// Takes over what the core recorded.
    #[must_use]
    pub fn of(record: AuditRecord) -> Self {
        Self {
            at: record.at.as_millis(),
            kind: record.kind.name().to_owned(),
            user: record.person.as_ref().map(Name::to_string),
            device: record.device,
            credential: record.credential.map(|id| id.to_string()),
            session: record.session.map(|id| id.to_string()),
            source: record.source.map(|source| source.to_string()),
            resources: record.resources.iter().map(Name::to_string).collect(),
            not_after: record.not_after.map(spa_proto::WallTime::as_millis),
            reason: record.reason.map(str::to_owned),
            note: record.note,
            took_ms: record.took_ms,
        }
    }

    /// Tells whether somebody did not get what was asked for.
    #[must_use]
    pub fn is_denial(&self) -> bool {
        AuditKind::ALL
            .iter()
            .find(|kind| kind.name() == self.kind)
            .is_some_and(|kind| is_denial(*kind))
    }

    /// Gives the line as JSON.
    #[must_use]
    pub fn to_json(&self) -> String {
        serde_json::to_string(self).expect("texts and numbers are always JSON")
    }

    /// Gives the line as a person reads it, without control characters whoever wrote the label.
    #[must_use]
    pub fn to_text(&self) -> String {
        let mut parts = heading(
            self.at,
            &self.kind,
            self.user.as_ref(),
            self.device.as_ref(),
        );
        let mut put = |word: &str, value: &Option<String>| {
            if let Some(value) = value {
                parts.push(format!("{word} {}", printable(value)));
            }
        };
        put("session", &self.session);
        put("from", &self.source);
        let resources = Some(self.resources.join(", ")).filter(|list| !list.is_empty());
        put("for", &resources);
        put("until", &self.not_after.map(calendar::utc));
        put("took", &self.took_ms.map(|took| format!("{took} ms")));
        put("because", &self.reason);
        put("note:", &self.note);
        parts.join("  ")
    }
}

/// What a line of either log begins with for a person: when, what, and who.
pub(crate) fn heading(
    at: u64,
    kind: &str,
    user: Option<&String>,
    device: Option<&String>,
) -> Vec<String> {
    let who = user.map(|user| match device {
        Some(device) => format!("{user}/{}", printable(device)),
        None => user.clone(),
    });
    [calendar::utc(at), kind.to_owned()]
        .into_iter()
        .chain(who)
        .collect()
}

/// Replaces what could steer a terminal. Labels come from devices.
#[must_use]
pub fn printable(text: &str) -> String {
    let safe = |c: char| if c.is_control() { '\u{FFFD}' } else { c };
    text.chars().map(safe).collect()
}

const fn is_denial(kind: AuditKind) -> bool {
    match kind {
        AuditKind::RefusedByPolicy
        | AuditKind::RefusedByCapacity
        | AuditKind::FactorFailed
        | AuditKind::CredentialDisabled
        | AuditKind::ClockRanAhead
        | AuditKind::OpeningFailed
        | AuditKind::RecordFailed
        | AuditKind::WouldBeDenied
        | AuditKind::InviteVoided => true,
        AuditKind::SessionOpened
        | AuditKind::SessionLive
        | AuditKind::SessionRepeated
        | AuditKind::SessionRoamed
        | AuditKind::SessionReduced
        | AuditKind::SessionRenewed
        | AuditKind::SessionQuantumSafe
        | AuditKind::SessionEnded
        | AuditKind::GatewayStopped
        | AuditKind::PasswordChanged
        | AuditKind::InviteMade
        | AuditKind::DeviceEnrolled
        | AuditKind::DeviceActivated
        | AuditKind::DeviceConfirmed
        | AuditKind::DeviceRevoked
        | AuditKind::DeviceEnabled
        | AuditKind::DeviceResynced
        | AuditKind::PersonAdded
        | AuditKind::PersonDisabled
        | AuditKind::PersonEnabled
        | AuditKind::PersonRemoved
        | AuditKind::TotpReplaced
        | AuditKind::RecoveryReplaced
        | AuditKind::KnockKeyMade
        | AuditKind::KnockKeyErased
        | AuditKind::ClockUntrusted
        | AuditKind::ClockTrusted
        | AuditKind::ClockAccepted
        | AuditKind::RiskRaised
        | AuditKind::ApprovalAsked
        | AuditKind::ApprovalGiven
        | AuditKind::GrantMade
        | AuditKind::ExceptionEnded
        | AuditKind::Locked
        | AuditKind::Unlocked
        | AuditKind::PolicyChanged => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line() -> AuditLine {
        AuditLine {
            at: 1_795_633_445_123,
            kind: "session-opened".to_owned(),
            user: Some("ana".to_owned()),
            device: Some("lap\u{1b}[2Jtop".to_owned()),
            credential: None,
            session: Some("00ff".to_owned()),
            source: Some("192.0.2.1:4000".to_owned()),
            resources: vec!["wiki".to_owned(), "db".to_owned()],
            not_after: None,
            reason: None,
            note: Some("back\u{8}on Monday".to_owned()),
            took_ms: Some(3),
        }
    }

    #[test]
    fn a_line_survives_json() {
        let json = line().to_json();
        assert!(!json.contains('\n') && !json.contains("reason"));
        assert_eq!(
            serde_json::from_str::<AuditLine>(&json).expect("parses"),
            line()
        );
    }

    #[test]
    fn a_label_cannot_steer_the_terminal() {
        let text = line().to_text();
        assert!(!text.contains('\u{1b}'), "{text:?}");
        assert_eq!(
            text,
            "2026-11-25 19:04:05 UTC  session-opened  ana/lap\u{FFFD}[2Jtop  session 00ff  from 192.0.2.1:4000  for wiki, db  took 3 ms  note: back\u{FFFD}on Monday"
        );
    }

    #[test]
    fn denials_are_told_from_the_rest() {
        assert!(!line().is_denial());
        let denied = AuditLine {
            kind: "factor-failed".to_owned(),
            ..line()
        };
        assert!(denied.is_denial());
    }
}
