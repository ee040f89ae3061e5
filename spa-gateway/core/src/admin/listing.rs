//! What administrators and metrics may see. Nothing here is secret.

use alloc::collections::BTreeMap;
use alloc::string::String;
use alloc::vec::Vec;
use core::net::{Ipv4Addr, Ipv6Addr, SocketAddr};

use spa_proto::{CredentialId, Fingerprint, GatewayId, KnockPublic, SessionId, WallTime};

use crate::gateway::Gateway;
use crate::name::Name;
use crate::policy::{Policy, RiskPart};
use crate::refusal::Counters;
use crate::session::{Doorway, Phase, Session};
use crate::snapshot::{PersonKind, Standing};
use crate::time::Now;

/// A person or machine.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct PersonView {
    /// The name.
    pub name: Name,
    /// Person or machine.
    pub kind: PersonKind,
    /// Whether it is honoured.
    pub standing: Standing,
    /// Whether a code of the phone was ever accepted.
    pub totp_proven: bool,
    /// How many recovery codes are left.
    pub recovery_codes: usize,
    /// How many devices have enrolled.
    pub devices: usize,
}

/// A device that has enrolled.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct DeviceView {
    /// The id of its credential.
    pub credential: CredentialId,
    /// Whose.
    pub person: Name,
    /// What its holder calls it.
    pub label: String,
    /// Whether it is honoured.
    pub standing: Standing,
    /// Whether its first OPEN has passed.
    pub active: bool,
    /// Whether its four words were compared.
    pub confirmed: bool,
    /// The fingerprint whose words are compared.
    pub fingerprint: Option<Fingerprint>,
    /// When its last transaction began.
    pub last_ts: WallTime,
    /// Failures in a row.
    pub failures: u32,
    /// Its session.
    pub session: Option<SessionId>,
}

/// An invite nobody has used yet.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct InviteView {
    /// The id of the credential to be.
    pub credential: CredentialId,
    /// For whom.
    pub person: Name,
    /// Until when it can be used.
    pub until: Option<WallTime>,
    /// Whether it was revoked.
    pub standing: Standing,
}

/// A session.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct SessionView {
    /// Its id.
    pub id: SessionId,
    /// Whose.
    pub person: Option<Name>,
    /// On which device.
    pub device: Option<String>,
    /// How far it has come.
    pub state: SessionState,
    /// What was granted; none is the control channel alone.
    pub resources: Vec<Name>,
    /// Where its last knock came from.
    pub source: SocketAddr,
    /// Where its peer was last heard from.
    pub endpoint: Option<SocketAddr>,
    /// Its IPv4 address in the tunnel.
    pub tunnel4: Option<Ipv4Addr>,
    /// Its IPv6 address in the tunnel.
    pub tunnel6: Option<Ipv6Addr>,
    /// When it was opened.
    pub opened: WallTime,
    /// When it ends.
    pub not_after: WallTime,
    /// Bytes received from its peer.
    pub rx: u64,
    /// Bytes sent to its peer.
    pub tx: u64,
}

/// How far a session has come.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum SessionState {
    /// It is being recorded or opened.
    Opening,
    /// Its door waits for a handshake.
    Waiting,
    /// Its peer is in.
    Live,
    /// It is being closed.
    Ending,
}

impl SessionState {
    /// Gives the word in listings.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Opening => "opening",
            Self::Waiting => "waiting",
            Self::Live => "live",
            Self::Ending => "ending",
        }
    }

    fn of(session: &Session) -> Self {
        match (session.phase, session.doorway) {
            (Phase::Recording | Phase::Opening | Phase::Restored, _) => Self::Opening,
            (Phase::Open, Doorway::Waiting { .. }) if !session.seen.handshake => Self::Waiting,
            (Phase::Open, _) => Self::Live,
            (Phase::Ending, _) => Self::Ending,
        }
    }
}

impl Gateway {
    /// Gives every person and machine.
    pub fn persons(&self) -> impl Iterator<Item = PersonView> {
        let mut devices: BTreeMap<&Name, usize> = BTreeMap::new();
        for credential in self.credentials.values().filter(|of| of.proof.is_some()) {
            *devices.entry(&credential.person).or_default() += 1;
        }
        self.persons.iter().map(move |(name, person)| PersonView {
            name: name.clone(),
            kind: person.kind,
            standing: person.standing,
            totp_proven: person.totp.as_ref().is_some_and(|totp| totp.proven),
            recovery_codes: person.recovery.len(),
            devices: devices.get(name).copied().unwrap_or(0),
        })
    }

    /// Gives every device that has enrolled.
    pub fn devices(&self) -> impl Iterator<Item = DeviceView> {
        let enrolled = self
            .credentials
            .iter()
            .filter(|(_, credential)| credential.proof.is_some());
        enrolled.map(|(id, credential)| DeviceView {
            credential: *id,
            person: credential.person.clone(),
            label: credential.label.clone(),
            standing: credential.standing,
            active: credential.is_active(),
            confirmed: credential.confirmed,
            fingerprint: self.fingerprint(*id),
            last_ts: credential.last_ts,
            failures: credential.failures,
            session: credential.session,
        })
    }

    /// Gives every invite nobody has used yet.
    pub fn invites(&self) -> impl Iterator<Item = InviteView> {
        let open = self
            .credentials
            .iter()
            .filter(|(_, credential)| credential.proof.is_none());
        open.map(|(id, credential)| InviteView {
            credential: *id,
            person: credential.person.clone(),
            until: credential.invite_until,
            standing: credential.standing,
        })
    }

    /// Gives every session that is not confirmed to be closed.
    pub fn sessions(&self) -> impl Iterator<Item = SessionView> {
        self.sessions.iter().map(|(id, session)| {
            let credential = self.credentials.get(&session.credential);
            SessionView {
                id,
                person: credential.map(|credential| credential.person.clone()),
                device: credential.map(|credential| credential.label.clone()),
                state: SessionState::of(session),
                resources: session.terms.resources.keys().cloned().collect(),
                source: session.source,
                endpoint: session.seen.endpoint,
                tunnel4: session.terms.addresses.v4,
                tunnel6: session.terms.addresses.v6,
                opened: session.terms.opened,
                not_after: session.terms.not_after,
                rx: session.seen.rx,
                tx: session.seen.tx,
            }
        })
    }

    /// Gives what the risk of each resource of a session is the sum of, parts that are zero left out.
    pub fn session_risk(&self, id: SessionId, now: Now) -> Vec<(Name, Vec<RiskPart>)> {
        let (Some(session), Some(on)) = (self.sessions.of(id), self.circumstances_of(id, now))
        else {
            return Vec::new();
        };
        let resources = session.terms.resources.keys();
        let weighed = resources.map(|name| {
            let mut parts = on.ask(name, |request| self.policy.risk_parts(request));
            parts.retain(|part| part.points > 0);
            (name.clone(), parts)
        });
        weighed.collect()
    }

    /// Gives the counters of refusals.
    #[must_use]
    pub const fn counters(&self) -> &Counters {
        &self.counters
    }

    /// Gives how many knocks wait for public-key work.
    #[must_use]
    pub fn waiting_knocks(&self) -> usize {
        self.queue.len()
    }

    /// Gives the policy in force.
    #[must_use]
    pub const fn policy(&self) -> &Policy {
        &self.policy
    }

    /// Gives the gateway's id.
    #[must_use]
    pub const fn id(&self) -> GatewayId {
        self.id
    }

    /// Gives the gateway's long-lived knock key, `B_0`.
    #[must_use]
    pub const fn b_0(&self) -> KnockPublic {
        self.knock_keys.identity()
    }

    /// Gives the time before which the clock is not believed.
    #[must_use]
    pub const fn clock_floor(&self) -> WallTime {
        self.clock.floor
    }
}
