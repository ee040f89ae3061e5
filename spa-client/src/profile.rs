//! What makes this device the one a gateway knows: its keys, its device secret and how far its enrolment got.
//!
//! Invariant: nothing here tells a right password from a wrong one (SPEC §3.2). The proof key, the password hash and the
//! invite's key are never written.

use spa_proto::{
    CredentialId, CredentialKey, DeviceSecret, GatewayId, KnockPublic, PasswordError, ProofSecret,
    WallTime,
};

use crate::fields::{self, Writer, once, required};

const FIRST_LINE: &str = "spa-profile 1";

/// One enrolment of this device at one gateway.
pub struct Profile {
    /// The host of the invite.
    pub host: String,
    /// The knock port.
    pub port: u16,
    /// The credential of this device at this gateway.
    pub credential: CredentialId,
    /// The gateway's long-lived knock key, B_0.
    pub base_key: KnockPublic,
    /// `r` of SPEC §3.2.
    pub device_secret: DeviceSecret,
    /// `salt` of SPEC §3.2.
    pub salt: [u8; 16],
    /// The name of the device as the gateway lists it.
    pub label: String,
    /// Who signs.
    pub holder: Holder,
    /// How far the enrolment got.
    pub stage: Stage,
}

/// Who uses the device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Holder {
    /// A person with password and phone.
    Person,
    /// A machine: empty password, no code (SPEC §10).
    Machine,
}

/// How far an enrolment got.
pub enum Stage {
    /// r and salt are made, and an ENROL may have left. No answer has come.
    Invited {
        /// When it began.
        since: WallTime,
    },
    /// The gateway answered; its key waits for the OPEN that activates it.
    Candidate {
        /// When the first answer came.
        since: WallTime,
        /// The latest candidate key.
        key: CredentialKey,
    },
    /// Enrolled.
    Active {
        /// K_cred.
        key: CredentialKey,
    },
}

impl Profile {
    /// The text of its file.
    #[must_use]
    pub fn to_text(&self) -> Writer {
        let mut text = Writer::new(FIRST_LINE);
        text.line("host", &self.host);
        text.line("port", self.port);
        text.bytes("credential", self.credential.as_bytes());
        text.bytes("base-key", self.base_key.as_bytes());
        text.bytes("device-secret", self.device_secret.expose());
        text.bytes("salt", &self.salt);
        text.line(
            "holder",
            match self.holder {
                Holder::Person => "person",
                Holder::Machine => "machine",
            },
        );
        text.line("label", &self.label);
        match &self.stage {
            Stage::Invited { since } => text.line("invited-since", since.as_millis()),
            Stage::Candidate { since, key } => {
                text.line("invited-since", since.as_millis());
                text.bytes("candidate-key", key.expose());
            }
            Stage::Active { key } => text.bytes("credential-key", key.expose()),
        }
        text
    }

    /// Reads its file.
    ///
    /// # Errors
    /// A text that says what is wrong, with the line.
    pub fn parse(text: &str) -> Result<Self, String> {
        let (mut host, mut port, mut credential, mut base_key) = (None, None, None, None);
        let (mut device_secret, mut salt, mut holder, mut label) = (None, None, None, None);
        let (mut since, mut candidate, mut active) = (None, None, None);
        for line in fields::lines(text, FIRST_LINE)? {
            match line.key {
                "host" => once(&mut host, line.value.to_owned(), &line)?,
                "port" => once(&mut port, line.parse("a port")?, &line)?,
                "credential" => once(
                    &mut credential,
                    CredentialId::from_bytes(*line.bytes()?),
                    &line,
                )?,
                "base-key" => once(
                    &mut base_key,
                    KnockPublic::from_bytes(*line.bytes()?),
                    &line,
                )?,
                "device-secret" => once(
                    &mut device_secret,
                    DeviceSecret::from_bytes(*line.bytes()?),
                    &line,
                )?,
                "salt" => once(&mut salt, *line.bytes::<16>()?, &line)?,
                "holder" => {
                    let value = match line.value {
                        "person" => Holder::Person,
                        "machine" => Holder::Machine,
                        _ => return Err(line.wrong("person or machine")),
                    };
                    once(&mut holder, value, &line)?;
                }
                "label" => once(&mut label, line.value.to_owned(), &line)?,
                "invited-since" => once(
                    &mut since,
                    WallTime::from_millis(line.parse("milliseconds")?),
                    &line,
                )?,
                "candidate-key" => once(
                    &mut candidate,
                    CredentialKey::from_bytes(*line.bytes()?),
                    &line,
                )?,
                "credential-key" => once(
                    &mut active,
                    CredentialKey::from_bytes(*line.bytes()?),
                    &line,
                )?,
                _ => return Err(line.unknown()),
            }
        }
        let stage = match (active, candidate, since) {
            (Some(key), None, None) => Stage::Active { key },
            (None, Some(key), Some(since)) => Stage::Candidate { since, key },
            (None, None, Some(since)) => Stage::Invited { since },
            _ => {
                return Err("it says neither that it is invited nor that it is enrolled".to_owned());
            }
        };
        Ok(Self {
            host: required(host, "host")?,
            port: required(port, "port")?,
            credential: required(credential, "credential")?,
            base_key: required(base_key, "base-key")?,
            device_secret: required(device_secret, "device-secret")?,
            salt: required(salt, "salt")?,
            label: required(label, "label")?,
            holder: required(holder, "holder")?,
            stage,
        })
    }

    /// Makes the proof key: about 0.13 s and 64 MiB (SPEC §3.2). A machine has no password.
    ///
    /// # Errors
    /// When the password is none, or memory is short.
    pub fn proof(&self, password: Option<&str>) -> Result<ProofSecret, PasswordError> {
        let gateway = GatewayId::of(&self.base_key);
        let (salt, r) = (&self.salt, &self.device_secret);
        match self.holder {
            Holder::Person => {
                let password = password.unwrap_or_default();
                ProofSecret::derive(password, salt, r, gateway, self.credential)
            }
            Holder::Machine => ProofSecret::for_machine(salt, r, gateway, self.credential),
        }
    }

    /// The name of the interface: derived from the credential, so that neither another profile nor another user's
    /// client on this machine takes it. 13 bytes; Linux allows 15.
    #[must_use]
    pub fn interface(&self) -> String {
        let [a, b, c, d, ..] = *self.credential.as_bytes();
        format!("spa-c{a:02x}{b:02x}{c:02x}{d:02x}")
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    pub(crate) fn sample(stage: Stage) -> Profile {
        Profile {
            host: "gw.example.org".to_owned(),
            port: 51820,
            credential: CredentialId::from_bytes([0xab; 16]),
            base_key: KnockPublic::from_bytes([9; 32]),
            device_secret: DeviceSecret::from_bytes([1; 32]),
            salt: [2; 16],
            label: "Ana's laptop".to_owned(),
            holder: Holder::Person,
            stage,
        }
    }

    #[test]
    fn every_stage_survives_its_file() {
        let since = WallTime::from_millis(77);
        let stages = [
            Stage::Invited { since },
            Stage::Candidate {
                since,
                key: CredentialKey::from_bytes([3; 32]),
            },
            Stage::Active {
                key: CredentialKey::from_bytes([4; 32]),
            },
        ];
        for stage in stages {
            let text = sample(stage).to_text();
            let again = Profile::parse(text.text()).expect("our own text");
            assert_eq!(again.to_text().text(), text.text());
        }
    }

    #[test]
    fn damage_is_named_with_its_line() {
        let text = sample(Stage::Active {
            key: CredentialKey::from_bytes([4; 32]),
        });
        let text = text.to_text();
        let broken = |from: &str, to: &str| {
            Profile::parse(&text.text().replace(from, to))
                .err()
                .unwrap_or_default()
        };
        assert_eq!(
            broken("port 51820", "port 99999"),
            "line 3: port should be a port"
        );
        assert_eq!(broken("label Ana's laptop\n", ""), "label is missing");
        assert_eq!(broken("label", "lebal"), "line 9: unknown key \"lebal\"");
        assert_eq!(
            broken("salt 02", "salt 2"),
            "line 7: salt should be 32 hex digits"
        );
        assert_eq!(
            broken("spa-profile 1", "spa-profile 2"),
            "its first line is not \"spa-profile 1\""
        );
        assert_eq!(broken("holder", "port"), "line 8: port should be a port");
    }

    #[test]
    fn the_file_holds_nothing_that_knows_the_password() {
        let text = sample(Stage::Active {
            key: CredentialKey::from_bytes([4; 32]),
        })
        .to_text();
        let keys: Vec<_> = text
            .text()
            .lines()
            .skip(1)
            .filter_map(|l| l.split(' ').next())
            .collect();
        assert_eq!(
            keys,
            [
                "host",
                "port",
                "credential",
                "base-key",
                "device-secret",
                "salt",
                "holder",
                "label",
                "credential-key"
            ]
        );
    }

    #[test]
    fn an_interface_name_fits_the_kernel() {
        let name = sample(Stage::Invited {
            since: WallTime::from_millis(0),
        })
        .interface();
        assert_eq!(name, "spa-cabababab");
        assert!(name.len() <= 15);
    }
}
