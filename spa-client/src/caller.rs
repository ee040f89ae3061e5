//! A profile at work: its lock, its memory, its keys, and the next transaction of it.

use std::net::SocketAddr;

use spa_proto::{
    Ask, CredentialKey, DerivedKeys, GatewayId, KnockPublic, OpenAsk, Request, SecondFactor,
    WallTime, Wanted,
};

use crate::clock;
use crate::exchange::Reply;
use crate::failure::Failure;
use crate::memory::Memory;
use crate::private_file::Lock;
use crate::profile::Profile;
use crate::session::PrivateKey;
use crate::store::Entry;
use crate::wire::{self, WireError};

/// A profile while a command works with it.
pub struct Caller {
    /// Which.
    pub entry: Entry,
    /// What it is.
    pub profile: Profile,
    /// What it remembers.
    pub memory: Memory,
    #[expect(dead_code, reason = "held until the command ends")]
    lock: Lock,
}

/// Which knock key a person wants used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KnockKey {
    /// The newest rotating one that lives, else the long-lived one (SPEC §3.3).
    Newest,
    /// The long-lived one, by hand.
    LongLived,
}

impl Caller {
    /// Locks the profile and reads what it remembers.
    ///
    /// # Errors
    /// When another command is at work, or a file cannot be used.
    pub fn new(entry: Entry, profile: Profile) -> Result<Self, Failure> {
        let lock = entry.lock()?;
        let memory = entry.memory()?;
        Ok(Self {
            entry,
            profile,
            memory,
            lock,
        })
    }

    /// The gateway as people call it.
    #[must_use]
    pub fn gateway(&self) -> String {
        address_text(&self.profile.host, self.profile.port)
    }

    /// Finds the gateway's addresses.
    ///
    /// # Errors
    /// When there is none.
    pub fn resolve(&self) -> Result<Vec<SocketAddr>, WireError> {
        wire::resolve(
            &self.profile.host,
            self.profile.port,
            self.memory.addresses(),
        )
    }

    /// Derives the keys of `K_cred`, a candidate or `K_inv`.
    #[must_use]
    pub fn keys(&self, key: &CredentialKey) -> DerivedKeys {
        DerivedKeys::derive(
            key,
            GatewayId::of(&self.profile.base_key),
            self.profile.credential,
        )
    }

    /// The knock key to use (SPEC §3.3).
    #[must_use]
    pub fn knock_key(&self, choice: KnockKey) -> (u8, KnockPublic) {
        let newest = match choice {
            KnockKey::Newest => self.memory.prekey(clock::wall()),
            KnockKey::LongLived => None,
        };
        newest.map_or((0, self.profile.base_key), |prekey| {
            (prekey.kid.get(), prekey.key)
        })
    }

    /// Takes the ts of a new transaction; it is on the disk when this returns (SPEC §7).
    ///
    /// # Errors
    /// When the disk does not take it.
    pub fn begin(&mut self) -> Result<WallTime, Failure> {
        begin(&self.entry, &mut self.memory)
    }

    /// Remembers what a reply hands out, and that its code is used up.
    ///
    /// # Errors
    /// When the disk does not take it.
    pub fn learn(
        &mut self,
        reply: &Reply,
        addresses: &[SocketAddr],
        code: CodeSent,
    ) -> Result<(), Failure> {
        if let Some(prekey) = reply.payload.prekey {
            self.memory.keep_prekey(prekey);
        }
        // The address that answered first, so that it is tried first without a name server.
        let mut addresses: Vec<SocketAddr> = addresses.to_vec();
        addresses.sort_by_key(|address| *address != reply.from);
        self.memory.keep_addresses(&addresses);
        if code == CodeSent::Yes {
            self.memory.keep_code_sent(reply.wall);
        }
        Ok(self.entry.write_memory(&self.memory)?)
    }
}

/// [`Caller::begin`] for who has the profile in use elsewhere.
///
/// # Errors
/// When the disk does not take it.
pub fn begin(entry: &Entry, memory: &mut Memory) -> Result<WallTime, Failure> {
    let ts = memory.take_ts(clock::wall());
    entry.write_memory(memory)?;
    Ok(ts)
}

/// Whether a knock carried a code of the phone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CodeSent {
    /// It did; that code is used up.
    Yes,
    /// It did not.
    No,
}

impl CodeSent {
    /// Of a factor.
    #[must_use]
    pub fn of(factor: &SecondFactor) -> Self {
        match factor {
            SecondFactor::Totp(_) => Self::Yes,
            SecondFactor::None | SecondFactor::Recovery(_) => Self::No,
        }
    }
}

/// Host and port as people write them.
#[must_use]
pub fn address_text(host: &str, port: u16) -> String {
    if host.contains(':') {
        format!("[{host}]:{port}")
    } else {
        format!("{host}:{port}")
    }
}

/// An OPEN with a WireGuard key of its own (SPEC §3.4), and the private half of that key.
///
/// # Errors
/// When there are no random numbers.
pub fn open_request(
    ts: WallTime,
    minutes: u16,
    factor: SecondFactor,
    wanted: Wanted,
    posture: Option<Vec<u8>>,
) -> Result<(Request, PrivateKey), WireError> {
    let mut bytes = zeroize::Zeroizing::new([0; 32]);
    getrandom::fill(bytes.as_mut_slice()).map_err(WireError::Random)?;
    let wg_key = *spa_proto::KnockSecret::from_bytes(*bytes)
        .public()
        .as_bytes();
    let ask = Ask::Open(OpenAsk {
        minutes,
        factor,
        wanted,
        wg_key,
        posture,
    });
    Ok((
        Request {
            ts,
            same_port: true,
            source: None,
            ask,
        },
        PrivateKey::from_bytes(*bytes),
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_ipv6_address_is_written_in_brackets() {
        assert_eq!(address_text("2001:db8::1", 51820), "[2001:db8::1]:51820");
        assert_eq!(address_text("gw", 1), "gw:1");
    }

    #[test]
    fn every_session_has_its_own_wireguard_key() {
        let key = || {
            let ts = WallTime::from_millis(1);
            let (request, _) =
                open_request(ts, 0, SecondFactor::None, Wanted::All, None).expect("random numbers");
            match request.ask {
                Ask::Open(open) => open.wg_key,
                Ask::Roam(_) | Ask::Close(_) | Ask::Enrol(_) => {
                    unreachable!("an OPEN was asked for")
                }
            }
        };
        assert_ne!(key(), key());
    }
}
