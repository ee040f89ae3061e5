//! `spa knock`: resources named, factors asked, packets sent, tunnel up.
//!
//! Order: what must be there is checked before anything is asked; the ts is on the disk before a packet leaves; the
//! session before stays up until the gateway has granted the new one.

use std::net::{IpAddr, SocketAddr};
use std::thread;
use std::time::{Duration, Instant};

use spa_proto::{
    Outcome, ProofSecret, RefusedFor, ReplySecrets, SecondFactor, SessionReply, Signer, Verdict,
    WallTime,
};

use crate::agent::{self, Child, Leftover, Link, Live, Rekeyed};
use crate::ask::{self, FactorFrom};
use crate::caller::{Caller, CodeSent, KnockKey, begin, open_request};
use crate::cli::Knock;
use crate::clock;
use crate::command::wish::Wish;
use crate::exchange::{Exchanged, Handshake, Knocking, Reply, TunnelSide, exchange};
use crate::failure::Failure;
use crate::memory::Memory;
use crate::places::Places;
use crate::posture::Posture;
use crate::privilege;
use crate::profile::{Holder, Stage};
use crate::progress::Progress;
use crate::say;
use crate::schedule::End;
use crate::session::{PrivateKey, Session, Stay, Tunnel};
use crate::store::Store;
use crate::wire::Wire;

/// The length of a TOTP step: how long one code is shown.
const CODE_SHOWN: Duration = Duration::from_secs(30);

/// Runs the command.
///
/// # Errors
/// One line; nothing is half configured.
pub fn knock(places: &Places, asked: &Knock) -> Result<(), Failure> {
    let started = Instant::now();
    let store = Store::new(places.clone());
    let (entry, profile) = store.choose(asked.gateway.as_deref())?;
    privilege::check()?;
    let mut caller = Caller::new(entry, profile)?;
    let Stage::Active { key } = &caller.profile.stage else {
        return Err(Failure::Refused(format!(
            "the enrolment at {} is not complete: run `spa enroll INVITE` again",
            caller.gateway()
        )));
    };
    let keys = caller.keys(key);
    places.make_runtime()?;
    let open = living(places, &caller)?;
    let wish = Wish::of(asked, open.as_ref())?;
    if let Some(line) = wish.said(&asked.resources) {
        eprintln!("{line}");
    }
    let addresses = caller.resolve()?;

    let Factors {
        proof,
        factor,
        posture,
        ts,
    } = factors(&mut caller, asked)?;
    let sent = CodeSent::of(&factor);
    let asked_for = started.elapsed();
    let (request, private_key) = open_request(
        ts,
        asked.length.unwrap_or(0),
        factor,
        wish.wanted(),
        Some(posture.report()),
    )?;
    let choice = if asked.kid0 {
        KnockKey::LongLived
    } else {
        KnockKey::Newest
    };
    let knocking = Knocking::new(
        &keys,
        caller.knock_key(choice),
        &request,
        Signer::Password(&proof),
    )?;
    let mut wire = Wire::open(addresses.clone())?;
    let mut progress = Progress::new();
    progress.phase(format!("Knocking at {}", caller.gateway()));
    let mut guest = Guest {
        places,
        caller: &mut caller,
        addresses: &addresses,
        sent,
        learnt: Learnt::NotYet,
        notes: Vec::new(),
        wish: &wish,
        private_key,
        length: asked.length,
        stay: if asked.foreground {
            Stay::Foreground
        } else {
            Stay::Background
        },
        child: None,
    };
    let exchanged = exchange(&mut wire, &knocking, Some(&mut guest), &mut progress)?;
    // q goes with the transaction (SPEC §3.2).
    drop(knocking);
    drop(proof);
    progress.clear();

    let Some(reply) = &exchanged.reply else {
        return Err(Failure::NoAnswer(say::silence(&caller.gateway())));
    };
    guest.learn(reply);
    let child = guest.child.take();
    let skew = say::skew(reply.payload.gateway_time, reply.wall);
    for note in std::mem::take(&mut guest.notes).into_iter().chain(skew) {
        eprintln!("Note: {note}");
    }
    for (name, verdict) in verdicts(&reply.payload.outcome, &wish) {
        let remedy = match verdict {
            Verdict::Granted => String::new(),
            _ => format!(". {}", say::remedy(verdict)),
        };
        eprintln!("{name}: {}{remedy}", say::verdict(verdict));
    }
    if let (true, Outcome::Session(session)) = (wish.all(), &reply.payload.outcome) {
        let routes = session
            .routes
            .iter()
            .map(|route| format!("{}/{}", route.address(), route.prefix()));
        eprintln!(
            "everything allowed: granted, {}",
            routes.collect::<Vec<_>>().join(", ")
        );
    }
    let stays = open_and_said(reply, exchanged.end, child, &caller);
    if stays.is_ok() {
        eprintln!("{}", timing(&exchanged, asked_for));
    }
    // Other commands may work with the profile from here on, the agent's CLOSE too.
    drop(caller);
    let child = stays?;
    if asked.foreground {
        accompany(child)
    } else {
        Ok(())
    }
}

/// The session that is open now; what a dead agent left is removed.
fn living(places: &Places, caller: &Caller) -> Result<Option<Live>, Failure> {
    let profile = caller.entry.name();
    if let Some(link) = Link::connect(places, profile)? {
        return Ok(Some(link.status()?));
    }
    if agent::clean(places, profile, &caller.profile.interface())? == Leftover::Interface {
        eprintln!("Removed the interface of an earlier session whose agent had died.");
    }
    Ok(None)
}

/// What a knock is made with.
struct Factors {
    proof: ProofSecret,
    factor: SecondFactor,
    posture: Posture,
    ts: WallTime,
}

/// Asks password and code; the device is looked at meanwhile, and the proof key made while the code is typed. The
/// transaction begins once all are there; its ts reaches the disk while the key is still being made.
fn factors(caller: &mut Caller, asked: &Knock) -> Result<Factors, Failure> {
    let source = match caller.profile.holder {
        Holder::Machine => FactorFrom::Machine,
        Holder::Person => FactorFrom::options(
            asked.code.as_deref(),
            asked.recovery.as_deref(),
            asked.code_command.as_deref(),
        ),
    };
    let (credential, hook) = (caller.profile.credential, caller.entry.posture_command());
    let gathered = thread::spawn(move || Posture::gather(credential, &hook));
    let password = match caller.profile.holder {
        Holder::Machine => None,
        Holder::Person => Some(ask::password(
            asked.password_file.as_deref(),
            &format!("Password for {}: ", caller.gateway()),
        )?),
    };
    let Caller {
        profile,
        memory,
        entry,
        ..
    } = caller;
    thread::scope(|scope| {
        let proof =
            scope.spawn(|| profile.proof(password.as_ref().map(|password| password.as_str())));
        if matches!(source, FactorFrom::Terminal) {
            warn_of_used_code(memory);
        }
        let factor = source.have(None)?;
        // A collector that fell over has seen nothing.
        let posture = gathered.join().unwrap_or_default();
        let ts = begin(entry, memory)?;
        let proof = proof
            .join()
            .unwrap_or(Err(spa_proto::PasswordError::Memory))
            .map_err(ask::AskError::Password)?;
        Ok(Factors {
            proof,
            factor,
            posture,
            ts,
        })
    })
}

/// One code opens one door (SPEC §10): a person who knocks twice in half a minute should know before, not after silence.
fn warn_of_used_code(memory: &Memory) {
    let Some(at) = memory.code_sent() else {
        return;
    };
    let age = clock::wall().since(at);
    if age < CODE_SHOWN {
        eprintln!(
            "A code was used {} ago and opens nothing any more: wait until the phone shows the next.",
            say::length(age)
        );
    }
}

/// The verdicts by name: of what was asked for in its order, of `--all` what the gateway says.
fn verdicts(outcome: &Outcome, wish: &Wish) -> Vec<(String, Verdict)> {
    let given = match outcome {
        Outcome::Session(session) => &session.verdicts,
        Outcome::Refused {
            why: RefusedFor::Policy,
            verdicts,
            ..
        } => verdicts,
        // Without room for a session no verdict helps anybody.
        Outcome::Refused {
            why: RefusedFor::Capacity,
            ..
        }
        | Outcome::Closed { .. }
        | Outcome::Enrolled(_) => return Vec::new(),
    };
    let known = wish.known();
    given
        .iter()
        .map(|(id, verdict)| (say::name_of(*id, &known), *verdict))
        .collect()
}

/// WireGuard's side of the knock: an agent raises the tunnel, and holds it afterwards.
struct Guest<'a> {
    places: &'a Places,
    caller: &'a mut Caller,
    addresses: &'a [SocketAddr],
    sent: CodeSent,
    learnt: Learnt,
    /// What is to be said once the moving line is gone.
    notes: Vec<String>,
    wish: &'a Wish,
    private_key: PrivateKey,
    /// Minutes that were asked for.
    length: Option<u16>,
    stay: Stay,
    child: Option<Child>,
}

/// Whether a reply has been remembered.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Learnt {
    Already,
    NotYet,
}

impl TunnelSide for Guest<'_> {
    fn raise(&mut self, reply: &Reply, port: u16) -> Result<(), Failure> {
        let Outcome::Session(granted) = &reply.payload.outcome else {
            return Err(Failure::Refused(
                "there is no session to raise a tunnel for".to_owned(),
            ));
        };
        // The gateway has one session per credential: the one before is over there already.
        if let Some(before) = Link::connect(self.places, self.caller.entry.name())? {
            before.give_way()?;
        }
        let session = self.session(reply, granted, &reply.secrets, port);
        self.child = Some(Child::start(self.places, &session)?);
        // The disk has its time while the handshake takes its own.
        self.learn(reply);
        Ok(())
    }

    fn wait_handshake(&mut self, patience: Duration) -> Result<Handshake, Failure> {
        match &mut self.child {
            Some(child) => Ok(child.wait_handshake(patience)?),
            None => Ok(Handshake::NotYet),
        }
    }

    fn lower(&mut self) -> Result<(), Failure> {
        match self.child.take() {
            Some(child) => Ok(child.end()?),
            None => Ok(()),
        }
    }
}

impl Guest<'_> {
    /// Remembers what the first reply says. It costs no more than a hint when it is lost.
    fn learn(&mut self, reply: &Reply) {
        if std::mem::replace(&mut self.learnt, Learnt::Already) == Learnt::Already {
            return;
        }
        for (name, verdict) in verdicts(&reply.payload.outcome, self.wish) {
            let memory = &mut self.caller.memory;
            memory.keep_verdict(&name, verdict.code(), reply.wall);
        }
        if let Err(error) = self.caller.learn(reply, self.addresses, self.sent) {
            self.notes.push(error.to_string());
        }
    }

    fn session(
        &self,
        reply: &Reply,
        granted: &SessionReply,
        secrets: &ReplySecrets,
        port: u16,
    ) -> Session {
        let outcome = &reply.payload.outcome;
        let left = granted.not_after.since(reply.payload.gateway_time);
        let addresses = [
            granted.tunnel4.map(IpAddr::V4),
            granted.tunnel6.map(IpAddr::V6),
        ];
        Session {
            profile: self.caller.entry.name().to_owned(),
            interface: self.caller.profile.interface(),
            gateway: reply.from,
            granted: verdicts(outcome, self.wish)
                .into_iter()
                .filter(|(_, verdict)| verdict.is_granted())
                .map(|(name, _)| name)
                .collect(),
            all: self.wish.all(),
            since: reply.wall,
            not_after: reply.wall.saturating_add(left),
            deadline: reply.boot + left,
            wanted_until: self
                .length
                .map(|minutes| reply.boot + Duration::from_secs(60 * u64::from(minutes)))
                .filter(|wanted| *wanted > reply.boot + left),
            id: granted.id,
            key: secrets.k_sess.duplicate(),
            tunnel: Tunnel {
                private_key: PrivateKey::from_bytes(*self.private_key.expose()),
                listen_port: port,
                peer: granted.wg_public,
                psk: secrets.wg_psk.duplicate(),
                endpoint: granted.endpoint.unwrap_or(reply.from),
                addresses: addresses.into_iter().flatten().collect(),
                gateway: granted.gateway_tunnel,
                control_port: granted.control_port,
                mtu: granted.mtu,
                keepalive: granted.keepalive,
                routes: granted
                    .routes
                    .iter()
                    .map(|route| (route.address(), route.prefix()))
                    .collect(),
            },
            stay: self.stay,
        }
    }
}

/// Leaves the agent to hold a session that is up, and says what is open.
fn open_and_said(
    reply: &Reply,
    end: End,
    child: Option<Child>,
    caller: &Caller,
) -> Result<Child, Failure> {
    let session = match &reply.payload.outcome {
        Outcome::Session(session) => session,
        Outcome::Refused { why, reason, .. } => {
            return Err(Failure::Refused(say::refused(*why, reason.as_deref())));
        }
        Outcome::Closed { .. } | Outcome::Enrolled(_) => {
            return Err(Failure::Refused(
                "the gateway answered something that does not belong to a knock".to_owned(),
            ));
        }
    };
    let (End::Done, Some(mut child)) = (end, child) else {
        return Err(Failure::Refused(format!(
            "the gateway granted the knock, and its WireGuard did not answer at {}: something between here and there drops UDP packets that are not knocks",
            session.endpoint.unwrap_or(reply.from)
        )));
    };
    child.stay()?;
    if session.control_port != 0
        && session.gateway_tunnel.is_some()
        && let Rekeyed::No(why) = child.wait_rekeyed()?
    {
        eprintln!("Note: the tunnel keeps the key of the knock, without a post-quantum one: {why}");
    }
    for warning in child.warnings() {
        eprintln!("Note: {warning}");
    }
    if let Some(reason) = &session.reason {
        eprintln!("The gateway says: {}", say::printable(reason));
    }
    if let Some(dns) = session.dns {
        eprintln!(
            "Names inside are answered by {dns}; spa leaves this machine's resolver as it is."
        );
    }
    let left = session.not_after.since(reply.payload.gateway_time);
    let until = clock::local_text(reply.wall.saturating_add(left));
    outln!(
        "Open until {until} ({}), WireGuard {} on {}.",
        say::length(left),
        child.backend(),
        caller.profile.interface()
    );
    Ok(child)
}

/// Stays with the session until it ends.
fn accompany(child: Child) -> Result<(), Failure> {
    let signals = agent::ending_signals().map_err(agent::AgentError::Start)?;
    eprintln!("Ctrl-C closes it.");
    let ended = child.accompany(&signals, || eprintln!("Closing."))?;
    outln!("The session {ended}.");
    Ok(())
}

fn timing(exchanged: &Exchanged, asked_for: Duration) -> String {
    let ms = |time: Option<Duration>| {
        time.map_or_else(
            || "-".to_owned(),
            |time| format!("{:.1} ms", time.as_secs_f64() * 1e3),
        )
    };
    format!(
        "Factors {}, reply after {}, tunnel after {}, {}.",
        ms(Some(asked_for)),
        ms(exchanged.reply_after),
        ms(exchanged.handshake_after),
        match exchanged.packets {
            1 => "1 packet".to_owned(),
            more => format!("{more} packets"),
        }
    )
}
