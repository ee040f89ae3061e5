//! One line of the access log, as JSON and as a person reads it.

use std::net::SocketAddr;

use serde::{Deserialize, Serialize};
use spa_gateway_core::{AccessKind, AccessRecord, Connection, Name};

use crate::audit::{heading, printable};

/// One line. What does not apply is absent.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct AccessLine {
    /// When, Unix milliseconds.
    pub at: u64,
    /// What happened, a word of [`AccessKind`].
    pub kind: String,
    /// Who.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub user: Option<String>,
    /// On which device.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub device: Option<String>,
    /// In which session, hex.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub session: Option<String>,
    /// Which resource it leads to.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub resource: Option<String>,
    /// The rule that allows it, or `grant N`, or `learning`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rule: Option<String>,
    /// From which end of the tunnel.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub from: Option<String>,
    /// To where.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub to: Option<String>,
    /// `tcp`, `udp`, `icmp`, or the number of the protocol.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub protocol: Option<String>,
    /// Bytes from the session, with their IP headers.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sent: Option<u64>,
    /// Bytes to it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub received: Option<u64>,
    /// How many more there were.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub more: Option<u64>,
    /// Why not, or which were not logged.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

impl AccessLine {
    /// Takes over what the core recorded.
    #[must_use]
    pub fn of(record: AccessRecord) -> Self {
        let connection = record.connection;
        let has_ports = |of: &Connection| matches!(of.protocol, 6 | 17);
        let end = |of: &Connection, address, port| {
            if has_ports(of) {
                SocketAddr::new(address, port).to_string()
            } else {
                address.to_string()
            }
        };
        Self {
            at: record.at.as_millis(),
            kind: record.kind.name().to_owned(),
            user: record.person.as_ref().map(Name::to_string),
            device: record.device,
            session: record.session.map(|id| id.to_string()),
            resource: record.resource.as_ref().map(Name::to_string),
            rule: record.rule,
            from: connection.map(|of| end(&of, of.tunnel, of.tunnel_port)),
            to: connection.map(|of| end(&of, of.destination, of.port)),
            protocol: connection.map(|of| match of.protocol {
                1 | 58 => "icmp".to_owned(),
                6 => "tcp".to_owned(),
                17 => "udp".to_owned(),
                other => other.to_string(),
            }),
            sent: record.bytes.map(|bytes| bytes.sent),
            received: record.bytes.map(|bytes| bytes.received),
            more: record.more,
            reason: record.reason.map(str::to_owned),
        }
    }

    /// Tells whether a connection was refused.
    #[must_use]
    pub fn is_denial(&self) -> bool {
        self.kind == AccessKind::Refused.name()
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
        put("from", &self.from);
        let to = self.to.as_ref().zip(self.protocol.as_ref());
        put("to", &to.map(|(to, protocol)| format!("{to}/{protocol}")));
        put("resource", &self.resource);
        put("rule", &self.rule);
        put("sent", &self.sent.map(|bytes| format!("{bytes} B")));
        put("received", &self.received.map(|bytes| format!("{bytes} B")));
        put(
            "and",
            &self.more.map(|more| format!("{more} more not logged")),
        );
        let word = if self.kind == AccessKind::NotLogged.name() {
            "those"
        } else {
            "because"
        };
        put(word, &self.reason);
        parts.join("  ")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_reads_well_and_survives_json() {
        let line = AccessLine {
            at: 1_795_633_445_123,
            kind: "connection-ended".to_owned(),
            user: Some("ana".to_owned()),
            device: Some("lap\u{1b}top".to_owned()),
            session: Some("00ff".to_owned()),
            resource: Some("wiki".to_owned()),
            rule: Some("staff".to_owned()),
            from: Some("10.200.0.2:40000".to_owned()),
            to: Some("10.0.5.10:443".to_owned()),
            protocol: Some("tcp".to_owned()),
            sent: Some(700),
            received: Some(9_000),
            more: None,
            reason: None,
        };
        assert_eq!(
            line.to_text(),
            "2026-11-25 19:04:05 UTC  connection-ended  ana/lap\u{FFFD}top  session 00ff  from 10.200.0.2:40000  to 10.0.5.10:443/tcp  resource wiki  rule staff  sent 700 B  received 9000 B"
        );
        let back: AccessLine = serde_json::from_str(&line.to_json()).expect("parses");
        assert_eq!(back, line);
        assert!(!line.is_denial());
        let more = AccessLine {
            kind: "connections-not-logged".to_owned(),
            more: Some(980),
            reason: Some("refused".to_owned()),
            ..line
        };
        assert!(
            more.to_text()
                .ends_with("and 980 more not logged  those refused")
        );
    }
}
