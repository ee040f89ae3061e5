//! What administrators are shown: the state of core, enforcer and store in the words of the admin socket.

use std::collections::BTreeMap;
use std::sync::atomic::Ordering;

use spa_gateway_core::policy::RiskPart;
use spa_gateway_core::{DeviceView, InviteView, Name, PersonKind, Refusal, SessionView, Standing};
use spa_order::Opening;

use super::{Daemon, DaemonError};
use crate::capture::KernelQueue;
use crate::clock;
use crate::control::protocol::{Device, Session, SessionRisk, Status, User, UserKind};
use crate::explain::of_risk;
use crate::store::Freshness;

impl Daemon {
    pub(super) fn users(&self) -> impl Iterator<Item = User> {
        let policy = self.gateway.policy();
        let groups_of = move |name: &Name| {
            let has = policy
                .groups()
                .filter(|(_, members)| members.contains(name));
            has.map(|(group, _)| group.to_string()).collect()
        };
        self.gateway.persons().map(move |person| User {
            kind: match person.kind {
                PersonKind::Human => UserKind::Human,
                PersonKind::Machine => UserKind::Machine,
            },
            enabled: person.standing == Standing::Enabled,
            phone: person.totp_proven,
            recovery_codes: person.recovery_codes,
            groups: groups_of(&person.name),
            devices: person.devices,
            user: person.name.to_string(),
        })
    }

    pub(super) fn devices(&self) -> impl Iterator<Item = Device> {
        let invites = self.gateway.invites().map(|invite| of_invite(&invite));
        self.gateway.devices().map(of_device).chain(invites)
    }

    pub(super) fn sessions(&self) -> impl Iterator<Item = Session> {
        let now = clock::now();
        let sessions = self.gateway.sessions();
        sessions.map(move |session| {
            let risk = self.gateway.session_risk(session.id, now);
            of_session(session, risk)
        })
    }

    pub(super) fn status(&mut self) -> Result<Status, DaemonError> {
        let peers = self.link.list_peers()?.len();
        let openings = self.link.list_openings()?;
        let doors = openings
            .iter()
            .filter(|(opening, _)| matches!(opening, Opening::Door(_)))
            .count();
        let is_current = self.store.freshness() == Freshness::Current;
        let counters = self.gateway.counters();
        let refusals = Refusal::ALL
            .iter()
            .map(|refusal| (refusal.name().to_owned(), counters.of(*refusal)))
            .filter(|(_, count)| *count > 0)
            .collect();
        let [unfit, length] =
            [&self.dropped.unfit, &self.dropped.length].map(|count| count.load(Ordering::Relaxed));
        let full = self.queues.iter_mut().map(KernelQueue::lost).sum();
        let strangers = self.known_tags.strangers();
        let dropped = [
            ("unknown tag", strangers),
            ("not a datagram", unfit),
            ("length", length),
            ("queue full", full),
        ];
        let dropped: BTreeMap<String, u32> = dropped
            .into_iter()
            .map(|(name, count)| (name.to_owned(), count))
            .filter(|(_, count)| *count > 0)
            .collect();
        let facts = &self.facts;
        Ok(Status {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            gateway: self.gateway.id().to_string(),
            public: facts.public.to_string(),
            interfaces: facts.interfaces.clone(),
            port: facts.port,
            wireguard_interface: facts.wireguard_interface.clone(),
            wireguard_port: facts.wireguard_port,
            wireguard: facts.wireguard.to_owned(),
            since: facts.since,
            accepting: is_current && self.gateway.is_clock_believed(clock::now()),
            clock: self.verdict(clock::now()).to_string(),
            policy: self.policy.state.clone(),
            store: if is_current {
                "current".to_owned()
            } else {
                "restored from a backup, so no knock is accepted; look at `spa-admin device list`, revoke what should not be there, then run `spa-admin store accept`".to_owned()
            },
            keep_open: facts.keep_open.clone(),
            users: self.gateway.persons().count(),
            devices: self.gateway.devices().count(),
            sessions: self.gateway.sessions().count(),
            peers,
            doors,
            flows: openings.len() - doors,
            refusals,
            dropped,
            filter: self.known_tags.in_words(),
        })
    }
}

fn of_device(device: DeviceView) -> Device {
    let state = match (device.standing, device.active) {
        (Standing::Disabled, _) => "disabled",
        (Standing::Enabled, true) => "active",
        (Standing::Enabled, false) => "enrolled",
    };
    Device {
        user: device.person.to_string(),
        device: device.label,
        credential: device.credential.to_string(),
        state: state.to_owned(),
        confirmed: device.confirmed,
        words: device.fingerprint.map(|print| print.words().join(" ")),
        invite_until: None,
        last_knock: Some(device.last_ts.as_millis()).filter(|at| *at > 0),
        failures: device.failures,
    }
}

fn of_invite(invite: &InviteView) -> Device {
    Device {
        user: invite.person.to_string(),
        device: String::new(),
        credential: invite.credential.to_string(),
        state: match invite.standing {
            Standing::Enabled => "invited",
            Standing::Disabled => "invite revoked",
        }
        .to_owned(),
        confirmed: false,
        words: None,
        invite_until: invite.until.map(spa_proto::WallTime::as_millis),
        last_knock: None,
        failures: 0,
    }
}

fn of_session(session: SessionView, risk: Vec<(Name, Vec<RiskPart>)>) -> Session {
    let risk = risk.into_iter().map(|(resource, parts)| SessionRisk {
        resource: resource.to_string(),
        points: parts
            .iter()
            .fold(0, |sum: u16, part| sum.saturating_add(part.points)),
        parts: parts.iter().map(of_risk).collect(),
    });
    let addresses = [
        session.tunnel4.map(|address| address.to_string()),
        session.tunnel6.map(|address| address.to_string()),
    ];
    Session {
        session: session.id.to_string(),
        user: session
            .person
            .map(|person| person.to_string())
            .unwrap_or_default(),
        device: session.device.unwrap_or_default(),
        state: session.state.name().to_owned(),
        resources: session.resources.iter().map(Name::to_string).collect(),
        source: session.endpoint.unwrap_or(session.source).to_string(),
        tunnel: addresses.into_iter().flatten().collect(),
        opened: session.opened.as_millis(),
        not_after: session.not_after.as_millis(),
        received: session.rx,
        sent: session.tx,
        risk: risk.collect(),
    }
}
