//! The invite: one line an administrator hands over (SPEC §14).
//!
//! `spa1:HOST:PORT/` and unpadded base64url of `1 ‖ cred_id ‖ K_inv ‖ B_0`. One line has one
//! meaning: every host, port and encoding that could be read two ways is refused.

use alloc::format;
use alloc::string::{String, ToString};
use core::fmt;
use core::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use core::num::NonZeroU16;
use core::str::FromStr;

use base64ct::{Base64UrlUnpadded, Encoding};
use zeroize::Zeroizing;

use crate::ids::{CredentialId, GatewayId};
use crate::keys::KnockPublic;
use crate::primitives::{join, split};
use crate::secret::CredentialKey;

const SCHEME: &str = "spa1:";
const VERSION: u8 = 1;
const BYTES: usize = 1 + 16 + 32 + 32;
/// 81 bytes in base64, which divide evenly: no bits are left over to vary.
const TEXT: usize = BYTES / 3 * 4;

/// An invite, one use (SPEC §14).
#[derive(Debug, PartialEq, Eq)]
pub struct Invite {
    /// Where to knock.
    pub host: Host,
    /// The knock port.
    pub port: NonZeroU16,
    /// The credential to be.
    pub credential: CredentialId,
    /// `K_inv`, replaced by the enrolment.
    pub key: CredentialKey,
    /// `B_0`, the gateway's long-lived knock key.
    pub b_0: KnockPublic,
}

/// The host of an invite.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Host {
    /// A literal address.
    Address(IpAddr),
    /// A DNS name of A-labels: letters, digits, hyphens and dots.
    Name(String),
}

/// Why a text is no invite.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InviteError {
    /// It does not begin as one.
    #[error("this is not an invite: an invite begins with \"spa1:\"")]
    Scheme,
    /// An invite of another version of the protocol.
    #[error(
        "this invite is for another version of spa: update spa, or ask for an invite of version 1"
    )]
    Version,
    /// The part before the slash is not HOST:PORT.
    #[error("the invite names no host and port: ask for it again")]
    Address,
    /// The host is neither an address (IPv6 in brackets) nor a name of A-labels.
    #[error("the invite's host is not a name or address: ask for it again")]
    Host,
    /// The port is not 1 to 65535.
    #[error("the invite's port is not a number from 1 to 65535: ask for it again")]
    Port,
    /// It ends too early.
    #[error("the invite is cut off: copy the whole line")]
    Truncated,
    /// It goes on after its end.
    #[error("something follows the invite: copy that line only")]
    Trailing,
    /// A character that is not base64url.
    #[error("the invite has a character that does not belong: copy it again")]
    Encoding,
}

impl Invite {
    /// Gives the gateway's identity.
    #[must_use]
    pub fn gateway(&self) -> GatewayId {
        GatewayId::of(&self.b_0)
    }

    /// Writes the line. It holds a secret, so it is wiped on drop and has no `Display`.
    #[must_use]
    pub fn to_line(&self) -> Zeroizing<String> {
        let bytes: Zeroizing<[u8; BYTES]> = Zeroizing::new(join(&[
            &[VERSION],
            self.credential.as_bytes(),
            self.key.expose(),
            self.b_0.as_bytes(),
        ]));
        let text = Zeroizing::new(Base64UrlUnpadded::encode_string(bytes.as_slice()));
        Zeroizing::new(format!(
            "{SCHEME}{}:{}/{}",
            self.host,
            self.port,
            text.as_str()
        ))
    }
}

impl FromStr for Invite {
    type Err = InviteError;

    /// Reads a line exactly: no space around it, no padding, nothing after it.
    fn from_str(line: &str) -> Result<Self, InviteError> {
        let rest = line.strip_prefix(SCHEME).ok_or_else(|| not_spa1(line))?;
        let (address, text) = rest.split_once('/').ok_or(InviteError::Truncated)?;
        let (host, port) = address.rsplit_once(':').ok_or(InviteError::Address)?;
        let host = host.parse()?;
        let port = parse_port(port)?;
        let bytes = decode(text)?;
        let (&[version], rest) = split::<1, 80, BYTES>(&bytes);
        if version != VERSION {
            return Err(InviteError::Version);
        }
        let (credential, keys) = split::<16, 64, 80>(rest);
        let (key, b_0) = split::<32, 32, 64>(keys);
        Ok(Self {
            host,
            port,
            credential: CredentialId::from_bytes(*credential),
            key: CredentialKey::from_bytes(*key),
            b_0: KnockPublic::from_bytes(*b_0),
        })
    }
}

/// Tells "another version" (`spa2:`) from "no invite".
fn not_spa1(line: &str) -> InviteError {
    let version = line
        .strip_prefix("spa")
        .and_then(|rest| rest.split_once(':'))
        .map(|(version, _)| version);
    match version {
        Some(version) if !version.is_empty() && version.bytes().all(|c| c.is_ascii_digit()) => {
            InviteError::Version
        }
        // "spa1" without its colon: the rest of the line was lost.
        _ if !line.is_empty() && SCHEME.starts_with(line) => InviteError::Truncated,
        _ => InviteError::Scheme,
    }
}

fn parse_port(text: &str) -> Result<NonZeroU16, InviteError> {
    let plain = text.bytes().all(|c| c.is_ascii_digit()) && !text.starts_with('0');
    if !plain {
        return Err(InviteError::Port);
    }
    text.parse().map_err(|_| InviteError::Port)
}

fn decode(text: &str) -> Result<Zeroizing<[u8; BYTES]>, InviteError> {
    let alphabet = |c: u8| c.is_ascii_alphanumeric() || c == b'-' || c == b'_';
    if !text.bytes().take(TEXT).all(alphabet) {
        return Err(InviteError::Encoding);
    }
    match text.len() {
        ..TEXT => return Err(InviteError::Truncated),
        TEXT => {}
        _ => return Err(InviteError::Trailing),
    }
    let mut bytes = Zeroizing::new([0; BYTES]);
    Base64UrlUnpadded::decode(text, bytes.as_mut_slice()).map_err(|_| InviteError::Encoding)?;
    Ok(bytes)
}

impl FromStr for Host {
    type Err = InviteError;

    /// Reads `name`, `192.0.2.1` or `[2001:db8::1]`.
    fn from_str(text: &str) -> Result<Self, InviteError> {
        if let Some(inner) = text
            .strip_prefix('[')
            .and_then(|rest| rest.strip_suffix(']'))
        {
            let address: Ipv6Addr = inner.parse().map_err(|_| InviteError::Host)?;
            return Ok(Self::Address(IpAddr::V6(address)));
        }
        if let Ok(address) = text.parse::<Ipv4Addr>() {
            return Ok(Self::Address(IpAddr::V4(address)));
        }
        if is_name(text) {
            Ok(Self::Name(text.to_string()))
        } else {
            Err(InviteError::Host)
        }
    }
}

impl fmt::Display for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Address(IpAddr::V4(address)) => write!(f, "{address}"),
            Self::Address(IpAddr::V6(address)) => write!(f, "[{address}]"),
            Self::Name(name) => f.write_str(name),
        }
    }
}

/// A-labels (RFC 1123 §2.1, RFC 1035 §2.3.4). A name that ends in a number is not one: it would
/// be a mistyped address.
fn is_name(text: &str) -> bool {
    let label = |label: &str| {
        (1..=63).contains(&label.len())
            && label
                .bytes()
                .all(|c| c.is_ascii_alphanumeric() || c == b'-')
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    let last_is_number = text
        .rsplit('.')
        .next()
        .is_some_and(|last| last.bytes().all(|c| c.is_ascii_digit()));
    text.len() <= 253 && text.split('.').all(label) && !last_is_number
}

#[cfg(test)]
mod tests {
    use super::*;

    fn invite(host: &str) -> Invite {
        Invite {
            host: host.parse().unwrap(),
            port: NonZeroU16::new(51820).unwrap(),
            credential: CredentialId::from_bytes([1; 16]),
            key: CredentialKey::from_bytes([2; 32]),
            b_0: KnockPublic::from_bytes([3; 32]),
        }
    }

    #[test]
    fn a_line_reads_as_the_invite_it_was_made_of() {
        for host in [
            "gw.example.org",
            "192.0.2.1",
            "[2001:db8::1]",
            "xn--bcher-kva.example",
            "a",
        ] {
            let invite = invite(host);
            assert_eq!(invite.to_line().parse(), Ok(invite), "{host}");
        }
    }

    #[test]
    fn every_cut_is_seen() {
        let line = invite("gw.example.org").to_line();
        for len in 0..line.len() {
            let error = line[..len].parse::<Invite>().unwrap_err();
            let expected = if len == 0 {
                InviteError::Scheme
            } else {
                InviteError::Truncated
            };
            assert_eq!(error, expected, "{len}");
        }
        let mut longer = line.to_string();
        longer.push('A');
        assert_eq!(longer.parse::<Invite>(), Err(InviteError::Trailing));
    }

    #[test]
    fn another_version_is_called_so() {
        let line = invite("gw").to_line();
        assert_eq!(
            line.replace("spa1", "spa2").parse::<Invite>(),
            Err(InviteError::Version)
        );
        assert_eq!(
            line.replace("/AQ", "/Ag").parse::<Invite>(),
            Err(InviteError::Version)
        );
        assert_eq!(
            line.replace("spa1", "ssh").parse::<Invite>(),
            Err(InviteError::Scheme)
        );
    }

    #[test]
    fn what_could_be_read_two_ways_is_refused() {
        for host in [
            "",
            "1.2.3",
            "1.2.3.256",
            "fd00::1",
            "[192.0.2.1]",
            "[gw]",
            "-a",
            "a-",
            "a..b",
            "a.",
            "b\u{fc}",
            "a_b",
            "127.1",
        ] {
            assert_eq!(host.parse::<Host>(), Err(InviteError::Host), "{host}");
        }
        let line = invite("gw").to_line();
        for port in ["0", "+1", "01", "65536", "1x", ""] {
            let other = line.replace("51820", port);
            assert_eq!(other.parse::<Invite>(), Err(InviteError::Port), "{port}");
        }
    }
}
