//! The access log: which connections a session begins inside its tunnel, whether it may, by which rule, and how much
//! went through when it ends.
//!
//! It decides nothing: the kernel let the packet pass or not before this hears of it. How many connections a person has
//! is counted for what is usual (`usual.rs`), also of those that are not written. Invariants: one session writes so
//! many lines and no more, and cannot keep those of another out; what is not written is counted and said; connections
//! that pass and attempts that do not have buckets of their own, so that a port scan hides nothing.

use alloc::collections::BTreeMap;
use alloc::format;
use alloc::string::String;
use core::net::IpAddr;
use core::time::Duration;

use litemap::LiteMap;
use spa_order::{Connections, Flow, FlowTarget, Protocol};
use spa_proto::{SessionId, WallTime};

use crate::agenda::Timer;
use crate::bucket::{Bucket, Rate};
use crate::effect::EffectKind;
use crate::gateway::Gateway;
use crate::name::Name;
use crate::outbox::Waiter;
use crate::policy::{Authority, Decision, flows_of};
use crate::time::{Moment, Now};
use crate::usual::Amount;

/// Lines about connections of one session that pass: 100 at once, two a second.
const ALLOWED: Rate = Rate {
    burst: 100,
    every_ms: 500,
};
/// Lines about attempts of one session that do not: 20 at once, one every 3 s.
const REFUSED: Rate = Rate {
    burst: 20,
    every_ms: 3_000,
};
/// How often it is said how many were not written.
const SAY_EVERY: Duration = Duration::from_secs(5);
/// The numbers of the protocols.
const TCP: u8 = 6;
const UDP: u8 = 17;
/// The most connections whose end is waited for; the oldest are not waited for any longer.
pub const MAX_WAITING: usize = 8_192;
/// The most sessions of which it is noted how many were not written.
const MAX_UNWRITTEN: usize = 4_096;

/// A connection through a tunnel, as its first packet had it behind any destination NAT.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Connection {
    /// The session's end.
    pub tunnel: IpAddr,
    /// Its port, or the identifier of an echo.
    pub tunnel_port: u16,
    /// The other end.
    pub destination: IpAddr,
    /// The number of its protocol.
    pub protocol: u8,
    /// The port there; 0 where there are none.
    pub port: u16,
}

/// What the kernel told of.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Traffic {
    /// The first packet of a connection passed.
    Began(Connection),
    /// A packet did not.
    Refused(Connection),
    /// A connection is forgotten: over, or cut.
    Ended(Connection, Option<Bytes>),
    /// Some of the above was lost on the way.
    Lost,
}

/// What went through a connection.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Bytes {
    /// From the session.
    pub sent: u64,
    /// To it.
    pub received: u64,
}

/// One line of the access log. What does not apply is absent.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct AccessRecord {
    /// When.
    pub at: WallTime,
    /// What happened.
    pub kind: AccessKind,
    /// Whose session it is.
    pub session: Option<SessionId>,
    /// Who.
    pub person: Option<Name>,
    /// On which device.
    pub device: Option<String>,
    /// What the connection leads to: of one that is refused, what policy knows of the destination.
    pub resource: Option<Name>,
    /// What allows it.
    pub rule: Option<String>,
    /// The connection.
    pub connection: Option<Connection>,
    /// What went through.
    pub bytes: Option<Bytes>,
    /// How many more there were.
    pub more: Option<u64>,
    /// Why not: a short sentence.
    pub reason: Option<&'static str>,
}

/// What happened.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum AccessKind {
    /// A connection began.
    Allowed,
    /// One was tried that the session does not have.
    Refused,
    /// A connection ended.
    Ended,
    /// Connections that are not in the log.
    NotLogged,
}

impl AccessKind {
    /// All of them.
    pub const ALL: &'static [Self] = &[Self::Allowed, Self::Refused, Self::Ended, Self::NotLogged];

    /// Gives the name in the log.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Allowed => "connection-allowed",
            Self::Refused => "connection-refused",
            Self::Ended => "connection-ended",
            Self::NotLogged => "connections-not-logged",
        }
    }
}

/// Who a line is about.
#[derive(Clone, PartialEq, Eq, Debug)]
struct About {
    session: SessionId,
    person: Name,
    device: Option<String>,
}

/// A connection whose end is waited for.
#[derive(Debug)]
struct Waiting {
    number: u64,
    about: About,
    resource: Option<Name>,
    rule: Option<String>,
}

/// What was not written of one session.
#[derive(Debug)]
struct Unwritten {
    about: About,
    allowed: u64,
    refused: u64,
}

/// How much one session may still write.
#[derive(Debug)]
pub(crate) struct AccessMeter {
    allowed: Bucket,
    refused: Bucket,
}

impl AccessMeter {
    pub(crate) fn new(now: Moment) -> Self {
        Self {
            allowed: Bucket::full(&ALLOWED, now),
            refused: Bucket::full(&REFUSED, now),
        }
    }
}

/// What is kept between the lines.
#[derive(Debug, Default)]
pub(crate) struct AccessLog {
    waiting: BTreeMap<Connection, Waiting>,
    by_age: BTreeMap<u64, Connection>,
    last: u64,
    unwritten: BTreeMap<SessionId, Unwritten>,
    /// As the kernel last counted.
    counted: Connections,
    lost: bool,
}

impl AccessLog {
    /// Waits for the end of a connection. One that begins again with the same ends is another.
    fn wait(&mut self, connection: Connection, waiting: Waiting) {
        self.by_age.insert(waiting.number, connection);
        if let Some(before) = self.waiting.insert(connection, waiting) {
            self.by_age.remove(&before.number);
        }
        if self.waiting.len() > MAX_WAITING
            && let Some((_, oldest)) = self.by_age.pop_first()
        {
            self.waiting.remove(&oldest);
        }
    }

    fn take(&mut self, connection: &Connection) -> Option<Waiting> {
        let waiting = self.waiting.remove(connection)?;
        self.by_age.remove(&waiting.number);
        Some(waiting)
    }

    /// Counts one that is not written.
    fn skip(&mut self, about: About, kind: AccessKind) {
        if self.unwritten.len() >= MAX_UNWRITTEN && !self.unwritten.contains_key(&about.session) {
            self.lost = true;
            return;
        }
        let of = self
            .unwritten
            .entry(about.session)
            .or_insert_with(|| Unwritten {
                about,
                allowed: 0,
                refused: 0,
            });
        match kind {
            AccessKind::Refused => of.refused = of.refused.saturating_add(1),
            AccessKind::Allowed | AccessKind::Ended | AccessKind::NotLogged => {
                of.allowed = of.allowed.saturating_add(1);
            }
        }
    }
}

impl Gateway {
    /// Hears what the kernel told of connections inside the tunnels.
    pub fn handle_traffic(&mut self, seen: &[Traffic], now: Now) {
        for traffic in seen {
            match traffic {
                Traffic::Began(connection) => self.began(*connection, now),
                Traffic::Refused(connection) => self.refused(*connection, now),
                Traffic::Ended(connection, bytes) => self.ended(connection, *bytes, now),
                Traffic::Lost => self.access.lost = true,
            }
        }
        let is_end = |traffic: &Traffic| matches!(traffic, Traffic::Ended(..));
        if !seen.iter().all(is_end) && !self.agenda.is_set(Timer::Unwritten) {
            self.agenda.set(Timer::Unwritten, now.mono.after(SAY_EVERY));
        }
    }

    /// Hears how many connections there were, and of how many the kernel told.
    pub fn handle_connections(&mut self, counted: Connections, now: Now) {
        let before = core::mem::replace(&mut self.access.counted, counted);
        let untold = |now: spa_order::Told, before: spa_order::Told| {
            let all = now.all.saturating_sub(before.all);
            all.saturating_sub(now.told.saturating_sub(before.told))
        };
        let allowed = untold(counted.allowed, before.allowed);
        let refused = untold(counted.refused, before.refused);
        for (more, reason) in [
            (
                allowed,
                "allowed, too many at once of all sessions together",
            ),
            (
                refused,
                "refused, too many at once of all sessions together",
            ),
        ] {
            if more > 0 {
                let mut record = AccessRecord::new(now.wall, AccessKind::NotLogged);
                record.more = Some(more);
                record.reason = Some(reason);
                self.put_access(record);
            }
        }
    }

    /// Says what was not written, and asks the kernel what it did not tell of.
    pub(crate) fn say_unwritten(&mut self, now: Now) {
        let unwritten = core::mem::take(&mut self.access.unwritten);
        for of in unwritten.into_values() {
            for (more, reason) in [(of.allowed, "allowed"), (of.refused, "refused")] {
                if more > 0 {
                    let mut record =
                        AccessRecord::new(now.wall, AccessKind::NotLogged).about(&of.about);
                    record.more = Some(more);
                    record.reason = Some(reason);
                    self.put_access(record);
                }
            }
        }
        if core::mem::take(&mut self.access.lost) {
            let mut record = AccessRecord::new(now.wall, AccessKind::NotLogged);
            record.reason = Some("some, the gateway was too busy to count them");
            self.put_access(record);
        }
        self.outbox
            .put(EffectKind::CountConnections, Waiter::Nobody);
    }

    fn began(&mut self, connection: Connection, now: Now) {
        let Some(about) = self.about(&connection) else {
            return;
        };
        if self.is_for_control_port(&connection, TCP) {
            return;
        }
        let resource = self.resource_of(about.session, &connection);
        if let Some(resource) = &resource {
            let once = Amount {
                bytes: 0,
                connections: 1,
            };
            self.used(&about.person, resource, once, now);
        }
        if !self.may_write(about.session, now, |meter| &mut meter.allowed) {
            return self.access.skip(about, AccessKind::Allowed);
        }
        let rule = resource
            .as_ref()
            .and_then(|resource| self.authority(about.session, resource, now));
        let mut record = AccessRecord::new(now.wall, AccessKind::Allowed).about(&about);
        record.resource.clone_from(&resource);
        record.rule.clone_from(&rule);
        record.connection = Some(connection);
        self.put_access(record);
        self.access.last = self.access.last.saturating_add(1);
        let waiting = Waiting {
            number: self.access.last,
            about,
            resource,
            rule,
        };
        self.access.wait(connection, waiting);
    }

    fn refused(&mut self, connection: Connection, now: Now) {
        let Some(about) = self.about(&connection) else {
            return;
        };
        if self.is_for_control_port(&connection, UDP) {
            // With it our client finds its way into the tunnel: to nobody, and once in each session.
            return;
        }
        if !self.may_write(about.session, now, |meter| &mut meter.refused) {
            return self.access.skip(about, AccessKind::Refused);
        }
        let resource = self.resource_at(about.session, &connection);
        let mut record = AccessRecord::new(now.wall, AccessKind::Refused).about(&about);
        record.reason = Some(match resource {
            Some(_) => "this session does not have it",
            None => "no resource is there",
        });
        record.resource = resource;
        record.connection = Some(connection);
        self.put_access(record);
    }

    /// A line for each that has one about its beginning.
    fn ended(&mut self, connection: &Connection, bytes: Option<Bytes>, now: Now) {
        let Some(waiting) = self.access.take(connection) else {
            return;
        };
        let mut record = AccessRecord::new(now.wall, AccessKind::Ended).about(&waiting.about);
        record.resource = waiting.resource;
        record.rule = waiting.rule;
        record.connection = Some(*connection);
        record.bytes = bytes;
        self.put_access(record);
    }

    fn about(&self, connection: &Connection) -> Option<About> {
        let session = self.sessions.at(connection.tunnel)?;
        let credential = self.sessions.of(session)?.credential;
        let credential = self.credentials.get(&credential)?;
        Some(About {
            session,
            person: credential.person.clone(),
            device: Some(credential.label.clone()).filter(|label| !label.is_empty()),
        })
    }

    fn may_write(
        &mut self,
        id: SessionId,
        now: Now,
        bucket: impl FnOnce(&mut AccessMeter) -> &mut Bucket,
    ) -> bool {
        self.sessions
            .of_mut(id)
            .is_some_and(|session| bucket(&mut session.upkeep.access).take(now.mono).is_ok())
    }

    fn is_for_control_port(&self, connection: &Connection, protocol: u8) -> bool {
        let ours = [
            self.settings.tunnel4.map(|(address, _)| address.into()),
            self.settings.tunnel6.map(|(address, _)| address.into()),
        ];
        connection.protocol == protocol
            && self.settings.control_port == Some(connection.port)
            && ours.contains(&Some(connection.destination))
    }

    /// Gives the resource of a session that a connection leads to.
    pub(crate) fn resource_of(&self, id: SessionId, connection: &Connection) -> Option<Name> {
        let session = self.sessions.of(id)?;
        let names = session.terms.resources.keys();
        self.leading_to(id, connection, names)
    }

    /// Gives a resource of the policy that a connection leads to.
    fn resource_at(&self, id: SessionId, connection: &Connection) -> Option<Name> {
        let names = self.policy.resources().map(|(name, _)| name);
        self.leading_to(id, connection, names)
    }

    fn leading_to<'a>(
        &self,
        id: SessionId,
        connection: &Connection,
        mut names: impl Iterator<Item = &'a Name>,
    ) -> Option<Name> {
        let session = self.sessions.of(id)?;
        let tunnel = self.tunnel(session.terms.addresses);
        let end = session.terms.not_after;
        let leads = |name: &&Name| {
            let only = LiteMap::from_iter([((*name).clone(), end)]);
            flows_of(&self.policy, &only, tunnel, None, end)
                .keys()
                .any(|flow| lets_through(flow, connection))
        };
        names.find(leads).cloned()
    }

    /// Gives what allows a resource to a session, in words.
    fn authority(&self, id: SessionId, resource: &Name, now: Now) -> Option<String> {
        let allow = match self.circumstances_of(id, now)?.decide(resource) {
            Decision::Allow(allow) | Decision::Observe(allow, _) => allow,
            Decision::Deny(_) => return None,
        };
        Some(match allow.by {
            Authority::Rule(name) => format!("{name}"),
            Authority::Grant(number) => format!("grant {number}"),
            Authority::Learning => "learning".into(),
        })
    }

    fn put_access(&mut self, record: AccessRecord) {
        self.outbox.put(EffectKind::Access(record), Waiter::Nobody);
    }
}

/// Says whether a connection is one of a flow.
fn lets_through(flow: &Flow, connection: &Connection) -> bool {
    let protocol = match (flow.protocol, connection.protocol) {
        (Protocol::Tcp, 6) | (Protocol::Udp, 17) => true,
        (Protocol::Icmp, number) => number == 1 || number == 58,
        (Protocol::Tcp | Protocol::Udp, _) => false,
    };
    let (first, last) = flow.ports;
    let there = match flow.to {
        FlowTarget::Gateway | FlowTarget::Forward => {
            crate::policy::Network::around(connection.destination, flow.prefix)
                == crate::policy::Network::around(flow.destination, flow.prefix)
        }
    };
    protocol && there && (first..=last).contains(&connection.port)
}

impl AccessRecord {
    /// Begins a line; the rest is filled in by name.
    const fn new(at: WallTime, kind: AccessKind) -> Self {
        Self {
            at,
            kind,
            session: None,
            person: None,
            device: None,
            resource: None,
            rule: None,
            connection: None,
            bytes: None,
            more: None,
            reason: None,
        }
    }

    fn about(mut self, about: &About) -> Self {
        self.session = Some(about.session);
        self.person = Some(about.person.clone());
        self.device.clone_from(&about.device);
        self
    }
}
