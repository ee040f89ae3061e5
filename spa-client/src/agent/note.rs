//! What is known of a session when nobody is left to ask: kept beside the socket, without any key.

use std::net::SocketAddr;

use spa_proto::WallTime;

use crate::agent::note_path;
use crate::fields::{self, Writer, once, required};
use crate::places::Places;
use crate::private_file::{self, FileError, damaged};
use crate::session::Session;

const FIRST_LINE: &str = "spa-note 1";

/// The note of the latest session of a profile.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Note {
    /// The profile.
    pub profile: String,
    /// The interface.
    pub interface: String,
    /// The agent's process.
    pub process: u32,
    /// Where the gateway is.
    pub gateway: SocketAddr,
    /// What was granted.
    pub granted: Vec<String>,
    /// When it began.
    pub since: WallTime,
    /// When it ends, by our clock.
    pub not_after: WallTime,
    /// When and why it ended; `None` while the agent lives, or if it died without a word.
    pub ended: Option<(WallTime, Ended)>,
}

/// Why a session is over on this side.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ended {
    /// Its time was over.
    Expired,
    /// Closed, and the gateway confirmed it.
    Closed,
    /// Closed here; the gateway did not confirm.
    ClosedUnconfirmed,
    /// The gateway ended it, with its words for why.
    ByGateway(String),
    /// Another knock took its place.
    Replaced,
    /// The tunnel was lost.
    Lost(String),
    /// The agent died.
    Died,
}

impl Ended {
    /// A sentence's end: "the session …".
    #[must_use]
    pub fn text(&self) -> String {
        match self {
            Self::Expired => "ended: its time was over".to_owned(),
            Self::Closed => "was closed, confirmed by the gateway".to_owned(),
            Self::ClosedUnconfirmed => "was closed here; the gateway did not confirm".to_owned(),
            Self::ByGateway(why) => format!("was ended by the gateway: {why}"),
            Self::Replaced => "was replaced by another knock".to_owned(),
            Self::Lost(why) => format!("ended because the tunnel was lost: {why}"),
            Self::Died => "ended when the process that held it died".to_owned(),
        }
    }

    fn word(&self) -> &str {
        match self {
            Self::Expired => "expired",
            Self::Closed => "closed",
            Self::ClosedUnconfirmed => "closed-unconfirmed",
            Self::ByGateway(_) => "by-gateway",
            Self::Replaced => "replaced",
            Self::Lost(_) => "lost",
            Self::Died => "died",
        }
    }

    fn parse(text: &str) -> Option<Self> {
        let (word, rest) = text.split_once(' ').unwrap_or((text, ""));
        match word {
            "expired" => Some(Self::Expired),
            "closed" => Some(Self::Closed),
            "closed-unconfirmed" => Some(Self::ClosedUnconfirmed),
            "by-gateway" => Some(Self::ByGateway(rest.to_owned())),
            "replaced" => Some(Self::Replaced),
            "lost" => Some(Self::Lost(rest.to_owned())),
            "died" => Some(Self::Died),
            _ => None,
        }
    }
}

impl Note {
    /// The note of a session that begins.
    #[must_use]
    pub fn of(session: &Session) -> Self {
        Self {
            profile: session.profile.clone(),
            interface: session.interface.clone(),
            process: std::process::id(),
            gateway: session.gateway,
            granted: session.granted.clone(),
            since: session.since,
            not_after: session.not_after,
            ended: None,
        }
    }

    /// Reads the note of a profile.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn read(places: &Places, profile: &str) -> Result<Option<Self>, FileError> {
        let path = note_path(places, profile);
        match private_file::read(&path)? {
            None => Ok(None),
            Some(text) => Self::parse(&text)
                .map(Some)
                .map_err(|what| damaged(&path, what)),
        }
    }

    /// Writes it.
    ///
    /// # Errors
    /// When the directory does not take it.
    pub fn write(&self, places: &Places) -> Result<(), FileError> {
        private_file::replace(&note_path(places, &self.profile), self.to_text().text())
    }

    fn to_text(&self) -> Writer {
        let mut text = Writer::new(FIRST_LINE);
        text.line("profile", &self.profile);
        text.line("interface", &self.interface);
        text.line("process", self.process);
        text.line("gateway", self.gateway);
        for name in &self.granted {
            text.line("granted", name);
        }
        text.line("since", self.since.as_millis());
        text.line("not-after", self.not_after.as_millis());
        if let Some((at, why)) = &self.ended {
            text.line("ended-at", at.as_millis());
            match why {
                Ended::Lost(reason) | Ended::ByGateway(reason) => {
                    let reason = reason.replace('\n', " ");
                    text.line("ended", format_args!("{} {reason}", why.word()));
                }
                other => text.line("ended", other.word()),
            }
        }
        text
    }

    fn parse(text: &str) -> Result<Self, String> {
        let (mut profile, mut interface, mut process, mut gateway) = (None, None, None, None);
        let (mut since, mut not_after, mut ended_at, mut ended) = (None, None, None, None);
        let mut granted = Vec::new();
        for line in fields::lines(text, FIRST_LINE)? {
            match line.key {
                "profile" => once(&mut profile, line.value.to_owned(), &line)?,
                "interface" => once(&mut interface, line.value.to_owned(), &line)?,
                "process" => once(&mut process, line.parse("a number")?, &line)?,
                "gateway" => once(&mut gateway, line.parse("an address and port")?, &line)?,
                "granted" => granted.push(line.value.to_owned()),
                "since" => once(&mut since, line.parse("milliseconds")?, &line)?,
                "not-after" => once(&mut not_after, line.parse("milliseconds")?, &line)?,
                "ended-at" => once(&mut ended_at, line.parse("milliseconds")?, &line)?,
                "ended" => {
                    let why = Ended::parse(line.value).ok_or_else(|| line.wrong("a reason"))?;
                    once(&mut ended, why, &line)?;
                }
                _ => return Err(line.unknown()),
            }
        }
        Ok(Self {
            profile: required(profile, "profile")?,
            interface: required(interface, "interface")?,
            process: required(process, "process")?,
            gateway: required(gateway, "gateway")?,
            granted,
            since: WallTime::from_millis(required(since, "since")?),
            not_after: WallTime::from_millis(required(not_after, "not-after")?),
            ended: ended_at.map(WallTime::from_millis).zip(ended),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::Scratch;

    #[test]
    fn a_note_survives_its_file_and_holds_no_key() {
        let scratch = Scratch::new("note");
        let places = Places::under(scratch.path());
        places.make_runtime().expect("scratch is writable");
        let mut note = Note::of(&crate::session::tests::sample());
        for ended in [
            None,
            Some(Ended::Expired),
            Some(Ended::Lost("spa-tunnel has\nended".to_owned())),
            Some(Ended::ClosedUnconfirmed),
            Some(Ended::ByGateway("cut by the administrator".to_owned())),
        ] {
            note.ended = ended.map(|why| (WallTime::from_millis(9), why));
            note.write(&places).expect("scratch is writable");
            let again = Note::read(&places, &note.profile)
                .expect("readable")
                .expect("written");
            assert_eq!(again.to_text().text(), note.to_text().text());
        }
        let text = note.to_text().text().to_owned();
        for key in ["06060606", "07070707", "09090909"] {
            assert!(!text.contains(key), "a key is in the note");
        }
    }
}
